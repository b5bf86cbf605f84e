//! Writes the page of frames in docs/protocol.md anew: holds the conversation with a broker and records it.
//!
//! What the server chooses, and what depends on it, becomes a placeholder. The page is replayed from the document
//! alone by [`super::super::stranger`].

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng;
use serde_json::{Value, json};

use super::make_log::{SENDER_KEY, key_id};
use super::people::{self, Person, chat};
use super::{list, people::id};
use crate::stranger::bytes::{base64url, text};
use crate::stranger::page::{BEGIN, END, LIFETIME_MAX_S};
use crate::stranger::socket::{Received, Socket, http};
use crate::stranger::{crypto, formats};
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;

/// How long a connection is silent before nothing more is expected. Only this writer listens by the clock.
const SILENCE: Duration = Duration::from_millis(400);

struct Scene {
    address: String,
    sockets: Vec<(&'static str, Socket)>,
    page: String,
    names: Vec<(Value, String)>,
    counts: [u32; 4],
    log: Vec<Value>,
}

impl Scene {
    fn say(&mut self, prose: &str) {
        let mut column = 0;
        for word in prose.split(' ') {
            if column > 0 && column + 1 + width(word) > WIDTH {
                self.page.push('\n');
                column = 0;
            } else if column > 0 {
                self.page.push(' ');
                column += 1;
            }
            self.page.push_str(word);
            column += width(word);
        }
        self.page.push_str("\n\n");
    }

    fn name(&mut self, value: &Value, name: String) {
        if !self.names.iter().any(|(known, _)| known == value) {
            self.names.push((value.clone(), format!("‹{name}›")));
        }
    }

    fn counted(&mut self, which: usize, word: &str, value: &Value) {
        self.counts[which] += 1;
        let name = format!("{word} {}", self.counts[which]);
        self.name(value, name);
    }

    fn render(&self, value: &Value) -> Value {
        if let Some((_, name)) = self.names.iter().find(|(known, _)| known == value) {
            return name.clone().into();
        }
        match value {
            Value::Array(items) => items.iter().map(|item| self.render(item)).collect(),
            Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), self.render(value))).collect(),
            other => other.clone(),
        }
    }

    fn block(&mut self, head: &str, value: &Value) {
        let text = pretty(&self.render(value), 0);
        writeln!(self.page, "{head}\n\n```json\n{text}\n```\n").unwrap();
    }

    async fn ask_http(&mut self, who: &str, method: &str, path: &str, body: Option<Value>) {
        match &body {
            Some(body) => self.block(&format!("**{who} → server**, `{method} {path}`:"), body),
            None => self.say(&format!("**{who} → server**, `{method} {path}`, without a body.")),
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (status, answer) = http(&self.address, method, path, &body).await;
        self.learn(&answer);
        self.block(&format!("**server → {who}**, status {status}:"), &answer);
    }

    async fn connect(&mut self, person: &'static str) {
        self.say(&format!("**{person} connects** with `sealcast.v1.json`."));
        let socket = Socket::open(&self.address).await;
        let older = self.sockets.iter().position(|(name, _)| *name == person).map(|at| self.sockets.remove(at));
        self.sockets.push((person, socket));
        if let Some((name, socket)) = older {
            self.sockets.push((if name == "Ada" { "Ada's older connection" } else { name }, socket));
        }
    }

    /// Everything that comes before a silence.
    async fn hear(&mut self) -> Vec<(&'static str, Value)> {
        let mut heard = Vec::new();
        let mut closed = Vec::new();
        for (name, socket) in &mut self.sockets {
            while let Ok(received) = tokio::time::timeout(SILENCE, socket.receive()).await {
                match received {
                    Received::Frame(frame) => heard.push((*name, frame)),
                    Received::Closed(code, reason) => {
                        closed.push((*name, code, reason));
                        break;
                    }
                }
            }
        }
        for (name, frame) in &heard {
            self.learn(frame);
            self.block(&format!("**server → {name}**:"), frame);
        }
        for (name, code, reason) in closed {
            self.say(&format!("**server → {name}**, close {code} `{reason}`."));
            self.sockets.retain(|(other, _)| *other != name);
        }
        heard
    }

    async fn ask(&mut self, who: &'static str, id: u64, kind: &str, data: Value) -> Vec<(&'static str, Value)> {
        self.name_signatures(kind, &data);
        let frame = json!({"id": id, "request": {"type": kind, "data": data}});
        self.block(&format!("**{who} → server**:"), &frame);
        if let Some(change) = data.get("change") {
            self.name_change(change);
        }
        let socket = self.sockets.iter_mut().find(|(name, _)| *name == who).unwrap();
        socket.1.send(&frame).await;
        self.hear().await
    }

    fn name_change(&mut self, signed: &Value) {
        let hash = formats::membership_event(&formats::membership(&chat(), &signed["change"]), &signed["signature"]);
        let is_fixed = !self.render(signed).to_string().contains('‹');
        if !is_fixed {
            self.name(&text(&hash.hash()), format!("change {}", signed["change"]["n"]));
        }
    }

    /// Gives names to the signatures over what has a name.
    fn name_signatures(&mut self, kind: &str, value: &Value) {
        if let Some(signature) = value.get("signature") {
            let mut rest = value.clone();
            rest.as_object_mut().unwrap().remove("signature");
            if kind == "authenticate" || self.render(&rest).to_string().contains('‹') {
                self.counted(0, "signature", signature);
            }
        }
        let Some(fields) = value.as_object() else { return };
        fields.values().for_each(|value| self.name_signatures("", value));
    }

    /// Gives names to what the server chose.
    fn learn(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                if let (Some(hash), Some(seq)) = (fields.get("log_hash"), fields.get("seq"))
                    && *seq != 0
                {
                    self.name(hash, format!("log {seq}"));
                    if let Some(at) = fields.get("created_at") {
                        self.name(at, format!("time {seq}"));
                    }
                    if fields.contains_key("body") && *seq == self.log.len() as u64 + 1 {
                        self.log.push(value.clone());
                    }
                }
                if let Some(nonce) = fields.get("nonce") {
                    self.counted(1, "nonce", nonce);
                }
                if let Some(time) = fields.get("time") {
                    self.counted(2, "clock", time);
                }
                if let Some(version) = fields.get("server_version") {
                    self.name(version, "version".to_owned());
                }
                if let (Some(_), Some(message)) = (fields.get("retryable"), fields.get("message")) {
                    self.counted(3, "words", message);
                }
                fields.values().for_each(|value| self.learn(value));
            }
            Value::Array(items) => items.iter().for_each(|value| self.learn(value)),
            _ => {}
        }
    }

    fn seen(&self) -> Value {
        self.log.last().map_or_else(
            || json!({"seq": 0, "log_hash": text(&formats::log(&chat()).hash())}),
            |entry| json!({"seq": entry["seq"], "log_hash": entry["log_hash"]}),
        )
    }
}

/// The widest line of a block.
const WIDTH: usize = 119;

/// The fields that come first, in this order; a signature comes last, the others between in order of their names.
const FIRST: [&str; 17] = [
    "id",
    "type",
    "code",
    "chat_id",
    "seq",
    "n",
    "kind",
    "message_id",
    "user_id",
    "place",
    "key_id",
    "session_id",
    "previous",
    "direction",
    "after",
    "up_to",
    "more",
];

fn rank(name: &str) -> usize {
    let last = if name == "signature" { FIRST.len() + 1 } else { FIRST.len() };
    FIRST.iter().position(|first| *first == name).unwrap_or(last)
}

/// JSON with as many short fields in a line as fit.
fn pretty(value: &Value, indent: usize) -> String {
    let (open, close, items): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| (rank(name), (*name).clone()));
            ('{', '}', fields.iter().map(|(name, value)| (format!("\"{name}\": "), *value)).collect())
        }
        Value::Array(items) => ('[', ']', items.iter().map(|item| (String::new(), item)).collect()),
        other => return other.to_string(),
    };
    let inner = indent + 2;
    let mut lines: Vec<String> = Vec::new();
    for (index, (name, value)) in items.iter().enumerate() {
        let comma = if index + 1 < items.len() { "," } else { "" };
        let item = format!("{name}{}{comma}", pretty(value, inner));
        match lines.last_mut() {
            Some(line)
                if !line.contains('\n') && !item.contains('\n') && inner + width(line) + width(&item) < WIDTH =>
            {
                line.push(' ');
                line.push_str(&item);
            }
            _ => lines.push(item),
        }
    }
    match &lines[..] {
        [] => format!("{open}{close}"),
        [line] if !line.contains('\n') && indent + width(line) + 1 < WIDTH => format!("{open}{line}{close}"),
        lines => {
            let pad = format!("\n{}", " ".repeat(inner));
            format!("{open}{pad}{}\n{}{close}", lines.join(&pad), " ".repeat(indent))
        }
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A signed change.
fn change(by: &Person, (n, previous): (u64, &[u8; 32]), seen: Value, change: Value, target: Value) -> Value {
    let it = json!({
        "n": n, "previous": text(previous), "seen": seen, "actor": by.actor(), "change": change, "target": target,
    });
    let signature = crypto::sign(&by.signing, &formats::membership(&chat(), &it));
    json!({"change": it, "signature": signature})
}

fn event(signed: &Value) -> [u8; 32] {
    formats::membership_event(&formats::membership(&chat(), &signed["change"]), &signed["signature"]).hash()
}

/// A sender key: id, secret, and the place of the next message.
struct Key {
    id: Value,
    secret: [u8; 32],
    counter: u64,
}

/// A new key for recipients.
fn new_key(
    by: &Person,
    key: &Key,
    epoch: u64,
    previous: Value,
    to: &[&Person],
    random: &mut rand::rngs::StdRng,
) -> Value {
    let announcement = json!({
        "key_id": key.id,
        "session_id": by.session_id,
        "epoch": epoch,
        "commitment": text(&formats::commitment(&key.secret).hash()),
        "previous": previous,
    });
    let signature = crypto::sign(&by.signing, &formats::announcement(&chat(), &announcement));
    let copies: Vec<Value> = to
        .iter()
        .map(|to| {
            let place = json!({
                "chat_id": chat(), "key_id": key.id, "sender_session_id": by.session_id, "session_id": to.session_id,
            });
            let aad = formats::bound("aad/sender-key", &place);
            let public = crypto::exchange_public(&to.exchange);
            let copy = crypto::wrap_with(random, &public, crypto::SENDER_KEY_INFO, &aad, &key.secret);
            json!({"session_id": to.session_id, "key": base64url(&copy)})
        })
        .collect();
    json!({"announcement": {"announcement": announcement, "signature": signature}, "copies": copies, "staged": null})
}

/// The envelope of a message.
fn envelope(by: &Person, key: &mut Key, message: u16, roster: &[u8; 32], seen: Value, words: &str) -> Value {
    revision(by, Some((key, words)), (message, 0, "message"), roster, seen)
}

/// The envelope of a revision: message, number, kind; a deletion has neither key nor words.
fn revision(
    by: &Person,
    key: Option<(&mut Key, &str)>,
    (message, revision, kind): (u16, u8, &str),
    roster: &[u8; 32],
    seen: Value,
) -> Value {
    let mut it = json!({
        "kind": kind,
        "message_id": id(7, message),
        "revision": revision,
        "sender_id": by.user_id,
        "sender_session_id": by.session_id,
        "key_id": null,
        "counter": 0,
        "roster_hash": text(roster),
        "seen": seen,
        "attachments": [],
        "data": null,
    });
    if let Some((key, words)) = key {
        key.counter += 1;
        it["key_id"] = key.id.clone();
        it["counter"] = key.counter.into();
        let body = json!({"type": "message", "text": words, "attachments": []}).to_string();
        let nonce = [message as u8 ^ revision << 4; 12];
        it["data"] = crypto::seal_message(&key.secret, nonce, &chat(), &it, body.as_bytes());
    }
    it["signature"] = crypto::sign(&by.signing, &formats::message(&chat(), &it));
    it
}

fn roster(of: &[&Person]) -> [u8; 32] {
    let all: Vec<(Value, Value)> = of.iter().map(|it| (it.session_id.clone(), it.public_key())).collect();
    formats::roster(all.iter().map(|(session, key)| (session, key))).hash()
}

fn document() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md")
}

async fn log_in(scene: &mut Scene, who: &'static str, person: &Person) {
    scene.connect(who).await;
    let heard = scene.hear().await;
    let nonce = &heard[0].1["data"]["nonce"];
    let signature = crypto::sign(&person.signing, &formats::login(nonce, "sealcast", &person.session_id));
    let login = json!({"session_id": person.session_id, "signature": signature});
    scene.ask(who, 1, "authenticate", login).await;
}

/// Writes the page anew; tests/vectors/README.md says how to run it.
#[tokio::test]
#[ignore = "writes a section of docs/protocol.md anew"]
async fn write_the_page() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("session.lifetime_max_s", LIFETIME_MAX_S)).await;
    let (ada, bob) = (people::ada(), people::bob());
    let mut random = rand::rngs::StdRng::seed_from_u64(0xface);
    let mut scene = Scene {
        address: broker.address().to_owned(),
        sockets: Vec::new(),
        page: String::new(),
        names: Vec::new(),
        counts: [0; 4],
        log: Vec::new(),
    };
    scene.say("### Registration");
    scene.ask_http("Ada", "GET", "/v1/info", None).await;
    for (name, person) in [("Ada", &ada), ("Bob", &bob)] {
        let body = json!({
            "user_id": person.user_id, "username": name, "identity_key": person.identity_key(),
            "certificate": person.certificate,
        });
        scene.ask_http(name, "POST", "/v1/accounts", Some(body)).await;
    }

    scene.say("### Login");
    for (name, person) in [("Ada", &ada), ("Bob", &bob)] {
        log_in(&mut scene, name, person).await;
        scene.ask(name, 2, "resume", json!({"cursors": []})).await;
    }

    scene.say("### A chat");
    scene.say(
        "The first change is number 1, follows the start of the chat's changes and has seen the start of its log.",
    );
    let [from_create, from_add] = ["create_chat", "change_membership"].map(|name| {
        let frames = list("frames.json");
        let frame = frames.iter().find(|frame| frame["name"] == name).unwrap();
        frame["json"]["request"]["data"].clone()
    });
    let start = formats::membership_chain(&chat()).hash();
    let create = change(&ada, (1, &start), scene.seen(), json!({"type": "create"}), ada.target());
    let request = json!({
        "chat_id": chat(), "change": create, "name": from_create["name"], "info_keys": [from_create["info_keys"][0]],
    });
    scene.ask("Ada", 3, "create_chat", request).await;
    scene.say("Ada finds Bob, checks his certificates under the identity key that she pins, and adds him. The roster hash is that of her own session alone.");
    scene.ask("Ada", 4, "lookup_user", json!({"username": "bob"})).await;
    let data = json!({"can_write": true, "can_manage": false, "roster_hash": text(&roster(&[&ada])), "epoch": 1});
    let add = change(&ada, (2, &event(&create)), scene.seen(), json!({"type": "add", "data": data}), bob.target());
    let request = json!({"chat_id": chat(), "change": add, "info_keys": from_add["info_keys"]});
    scene.ask("Ada", 5, "change_membership", request).await;
    scene.say("Bob was pushed a page that begins with his own `add`. He fetches what went before and folds it.");
    scene.ask("Bob", 3, "events", json!({"chat_id": chat(), "after": 0, "before": 3})).await;
    scene.ask("Bob", 4, "list_members", json!({"chat_id": chat()})).await;
    scene.ask("Bob", 5, "list_chats", json!({})).await;

    scene.say("### Messages");
    scene.say("Ada has no sender key of epoch 2: she makes one and wraps it to both sessions. The body is `{\"attachments\":[],\"text\":\"Hello, Bob.\",\"type\":\"message\"}`.");
    let both = roster(&[&ada, &bob]);
    let mut adas = Key { id: key_id(), secret: SENDER_KEY, counter: 0 };
    let new = new_key(&ada, &adas, 2, Value::Null, &[&ada, &bob], &mut random);
    let first = envelope(&ada, &mut adas, 0xd0, &both, scene.seen(), "Hello, Bob.");
    let request = json!({"chat_id": chat(), "envelope": first, "new_key": new, "add_copies": []});
    scene.ask("Ada", 6, "send", request.clone()).await;
    scene.say("The same bytes again have the first result:");
    scene.ask("Ada", 7, "send", request).await;
    scene.say("Bob answers with a key of his own.");
    let mut bobs = Key { id: id(6, 0xe2), secret: [0x44; 32], counter: 0 };
    let new = new_key(&bob, &bobs, 2, Value::Null, &[&ada, &bob], &mut random);
    let answer = envelope(&bob, &mut bobs, 0xd3, &both, scene.seen(), "Here I am.");
    let request = json!({"chat_id": chat(), "envelope": answer, "new_key": new, "add_copies": []});
    scene.ask("Bob", 6, "send", request).await;
    scene.say("Ada's second message has the next counter of her key and no copies.");
    let second = envelope(&ada, &mut adas, 0xd4, &both, scene.seen(), "Tea at five?");
    let request = json!({"chat_id": chat(), "envelope": second, "new_key": null, "add_copies": []});
    scene.ask("Ada", 8, "send", request).await;
    scene
        .say("She edits her first message, and deletes the second one: a deletion has no key, no counter and no data.");
    let edit = revision(&ada, Some((&mut adas, "Hello, Bob!")), (0xd0, 1, "edit"), &both, scene.seen());
    let request = json!({"chat_id": chat(), "envelope": edit, "new_key": null, "add_copies": []});
    scene.ask("Ada", 9, "send", request).await;
    let delete = revision(&ada, None, (0xd4, 1, "delete"), &both, scene.seen());
    let request = json!({"chat_id": chat(), "envelope": delete, "new_key": null, "add_copies": []});
    scene.ask("Ada", 10, "send", request).await;
    scene.say("Bob has all up to it.");
    scene.ask("Bob", 7, "advance_cursor", json!({"chat_id": chat(), "seq": 9})).await;

    scene.say("### A removal");
    scene.say("Bob may not manage members, so he cannot remove Ada.");
    let by_bob = change(&bob, (3, &event(&add)), scene.seen(), json!({"type": "remove"}), ada.target());
    scene.ask("Bob", 8, "change_membership", json!({"chat_id": chat(), "change": by_bob})).await;
    scene.say("Ada removes him. The entry is the last that he gets, and the epoch is 3 now.");
    let remove = change(&ada, (3, &event(&add)), scene.seen(), json!({"type": "remove"}), bob.target());
    scene.ask("Ada", 11, "change_membership", json!({"chat_id": chat(), "change": remove})).await;
    scene.ask("Bob", 9, "history", json!({"chat_id": chat(), "direction": "before", "seq": 11, "limit": 1})).await;
    scene.say("A message under the key of epoch 2 is refused. Its counter is not used up.");
    let mut late = Key { id: adas.id.clone(), secret: SENDER_KEY, counter: adas.counter };
    let refused = envelope(&ada, &mut late, 0xd5, &roster(&[&ada]), scene.seen(), "Alone.");
    let request = json!({"chat_id": chat(), "envelope": refused, "new_key": null, "add_copies": []});
    scene.ask("Ada", 12, "send", request).await;
    scene.say("So she makes a new one, which names the last counter of the one before, and seals the message again under the same message id.");
    let mut next = Key { id: id(6, 0xe3), secret: [0x45; 32], counter: 0 };
    let previous = json!({"key_id": adas.id, "last_counter": adas.counter});
    let new = new_key(&ada, &next, 3, previous, &[&ada], &mut random);
    let again = envelope(&ada, &mut next, 0xd5, &roster(&[&ada]), scene.seen(), "Alone.");
    let request = json!({"chat_id": chat(), "envelope": again, "new_key": new, "add_copies": []});
    scene.ask("Ada", 13, "send", request).await;

    scene.say("### Catching up");
    let request = json!({"chat_id": chat(), "direction": "after", "seq": 0, "limit": 2});
    scene.ask("Ada", 14, "history", request).await;
    scene.say("What was edited has lost its data, and its entry says the hash of them.");
    let request = json!({"chat_id": chat(), "direction": "after", "seq": 4, "limit": 1});
    scene.ask("Ada", 15, "history", request).await;
    scene.say("A second connection of the session takes the place of the first. The client has the log up to 9.");
    log_in(&mut scene, "Ada", &ada).await;
    scene.ask("Ada", 2, "resume", json!({"cursors": [{"chat_id": chat(), "seq": 9}]})).await;

    scene.say("### The end");
    let last = change(&ada, (4, &event(&remove)), scene.seen(), json!({"type": "delete"}), ada.target());
    scene.ask("Ada", 3, "delete_chat", json!({"chat_id": chat(), "change": last})).await;
    for (name, number) in [("Ada", 4), ("Bob", 10)] {
        scene.ask(name, number, "ping", json!({})).await;
    }

    let old = std::fs::read_to_string(document()).unwrap();
    let (before, rest) = old.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    std::fs::write(document(), format!("{before}{BEGIN}\n\n{}{END}{after}", scene.page)).unwrap();
}
