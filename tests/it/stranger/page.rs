//! Replays the conversation of docs/protocol.md, frame by frame.
//!
//! It knows the document, the secrets of tests/vectors/people.json, and raw sockets. Client frames are sent as they
//! stand in the document, with placeholders filled in; every server frame must be one that stands there next.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::bytes::{array, bytes, number, text, unhex};
use super::socket::{Received, Socket, http};
use super::{crypto, formats};
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;

/// Where the page begins.
pub const BEGIN: &str = "<!-- conversation -->";

/// Where it ends.
pub const END: &str = "<!-- end of the conversation -->";

/// `session.lifetime_max_s` for certificates that last until 2080.
pub const LIFETIME_MAX_S: u64 = 1 << 31;

/// A step of the conversation.
#[derive(Debug, Clone)]
enum Step {
    Connect(String),
    HttpRequest { method: String, path: String, body: Option<Value> },
    HttpAnswer { status: u16, body: Value },
    Send { who: String, frame: Value },
    Receive { who: String, frame: Value },
    Close { who: String, code: u16, reason: String },
}

/// Reads the page: each line in bold is a step, and a block may follow it.
fn steps(document: &str) -> Vec<Step> {
    let (_, rest) = document.split_once(BEGIN).expect("the page begins");
    let (page, _) = rest.split_once(END).expect("the page ends");
    let mut steps = Vec::new();
    let mut blocks = 0;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        assert!(!line.starts_with("```"), "a block without a head: {line}");
        let Some((head, tail)) = line.strip_prefix("**").and_then(|rest| rest.split_once("**")) else { continue };
        let block = line.ends_with(':').then(|| {
            let rest: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            assert_eq!(rest[..2], ["", "```json"], "{line}");
            blocks += 1;
            serde_json::from_str::<Value>(&rest[2..].join("\n")).unwrap_or_else(|error| panic!("{line}: {error}"))
        });
        steps.push(step(head, tail.trim_start_matches(',').trim(), block));
    }
    assert!(blocks > 50, "{blocks} blocks");
    steps
}

fn step(head: &str, tail: &str, block: Option<Value>) -> Step {
    if let Some(who) = head.strip_suffix(" connects") {
        return Step::Connect(who.to_owned());
    }
    if let Some(who) = head.strip_suffix(" → server") {
        let quoted: Vec<&str> = tail.split('`').collect();
        if let [_, request, _] = quoted[..] {
            let (method, path) = request.split_once(' ').unwrap();
            return Step::HttpRequest { method: method.to_owned(), path: path.to_owned(), body: block };
        }
        return Step::Send { who: who.to_owned(), frame: block.expect("a frame") };
    }
    let who = head.strip_prefix("server → ").unwrap_or_else(|| panic!("{head}")).to_owned();
    if let Some(status) = tail.strip_prefix("status ") {
        let status = status.trim_end_matches(':').parse().unwrap();
        return Step::HttpAnswer { status, body: block.expect("a body") };
    }
    if let Some(close) = tail.strip_prefix("close ") {
        let (code, reason) = close.split_once(" `").unwrap();
        let reason = reason.trim_end_matches("`.").to_owned();
        return Step::Close { who, code: code.parse().unwrap(), reason };
    }
    Step::Receive { who, frame: block.expect("a frame") }
}

/// Placeholders and what they stand for.
type Bound = HashMap<String, Value>;

fn placeholder(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.starts_with('‹') && text.ends_with('›'))
}

/// Compares field by field; a placeholder is bound at the first sight. Says where they differ.
fn compare(expected: &Value, actual: &Value, bound: &mut Bound) -> Result<(), String> {
    if let Some(name) = placeholder(expected) {
        return match bound.get(name) {
            Some(known) if known == actual => Ok(()),
            Some(known) => Err(format!(": {name} was {known}, now {actual}")),
            None => {
                bound.insert(name.to_owned(), actual.clone());
                Ok(())
            }
        };
    }
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            if !expected.keys().eq(actual.keys()) {
                let names = |it: &serde_json::Map<String, Value>| it.keys().cloned().collect::<Vec<_>>().join(" ");
                return Err(format!(": fields {} in the document, {} came", names(expected), names(actual)));
            }
            expected.iter().try_for_each(|(name, value)| {
                compare(value, &actual[name], bound).map_err(|reason| format!(".{name}{reason}"))
            })
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            let mut pairs = expected.iter().zip(actual).enumerate();
            pairs.try_for_each(|(at, (one, other))| {
                compare(one, other, bound).map_err(|reason| format!("[{at}]{reason}"))
            })
        }
        _ if expected == actual => Ok(()),
        _ => Err(format!(": {expected} in the document, {actual} came")),
    }
}

/// Fills in what is bound.
fn fill(value: &Value, bound: &Bound) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| fill(item, bound)).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), fill(value, bound))).collect(),
        other => match placeholder(other) {
            Some(name) => bound.get(name).unwrap_or_else(|| panic!("{name} is not known yet")).clone(),
            None => other.clone(),
        },
    }
}

/// The one who replays: keys of all sessions, and what the conversation has brought.
struct Replay {
    /// Private halves by session: Ed25519 and X25519.
    secrets: HashMap<String, ([u8; 32], [u8; 32])>,
    bound: Bound,
    nonces: HashMap<String, Value>,
    log: BTreeMap<u64, [u8; 32]>,
    keys: HashMap<(String, String), [u8; 32]>,
    read: BTreeMap<String, Vec<String>>,
    compared: Vec<(Value, Value)>,
}

impl Replay {
    fn new() -> Self {
        let people: Value = serde_json::from_str(include_str!("../../vectors/people.json")).unwrap();
        let secret = |value: &Value| -> [u8; 32] { unhex(value.as_str().unwrap()).try_into().unwrap() };
        let secrets = people["vectors"].as_array().unwrap().iter().map(|person| {
            let pair = (secret(&person["signing_secret"]), secret(&person["exchange_secret"]));
            (person["session_id"].as_str().unwrap().to_owned(), pair)
        });
        Self {
            secrets: secrets.collect(),
            bound: Bound::new(),
            nonces: HashMap::new(),
            log: BTreeMap::new(),
            keys: HashMap::new(),
            read: BTreeMap::new(),
            compared: Vec::new(),
        }
    }

    /// Signs what the document cannot: whatever depends on a choice of the server.
    fn complete(&mut self, who: &str, frame: &Value) -> Value {
        let kind = frame["request"]["type"].as_str().unwrap();
        let data = &frame["request"]["data"];
        let (session, signed) = match kind {
            "authenticate" => (&data["session_id"], data),
            "create_chat" | "change_membership" | "delete_chat" => {
                (&data["change"]["change"]["actor"]["session_id"], &data["change"])
            }
            "send" => (&data["envelope"]["sender_session_id"], &data["envelope"]),
            _ => return fill(frame, &self.bound),
        };
        let (signing, _) = self.secrets[session.as_str().unwrap()];
        if let Some(name) = placeholder(&signed["signature"]) {
            // The signature is not among the signed bytes, so these can be made before it is there.
            self.bound.insert(name.to_owned(), Value::Null);
            let without = fill(data, &self.bound);
            let chat_id = &without["chat_id"];
            let bytes = match kind {
                "authenticate" => formats::login(&self.nonces[who], "sealcast", session),
                "send" => formats::message(chat_id, &without["envelope"]),
                _ => formats::membership(chat_id, &without["change"]["change"]),
            };
            self.bound.insert(name.to_owned(), crypto::sign(&signing, &bytes));
        }
        let whole = fill(frame, &self.bound);
        let chat_id = &data["chat_id"];
        if kind == "create_chat" {
            self.log.insert(0, formats::log(chat_id).hash());
        }
        let change = &whole["request"]["data"]["change"];
        if !change.is_null() {
            let signed = formats::membership(chat_id, &change["change"]);
            let event = formats::membership_event(&signed, &change["signature"]);
            self.bound.insert(format!("‹change {}›", change["change"]["n"]), text(&event.hash()));
        }
        whole
    }

    /// Takes the frames of one connection in: as many as the document has, in any order.
    async fn receive(&mut self, who: &str, socket: &mut Socket, mut expected: Vec<Value>) {
        while !expected.is_empty() {
            let frame = socket.frame().await;
            let mut reasons = Vec::new();
            let found = expected.iter().position(|expected| {
                let mut bound = self.bound.clone();
                let result = compare(expected, &frame, &mut bound);
                if result.is_ok() {
                    self.bound = bound;
                }
                result.map_err(|reason| reasons.push(reason)).is_ok()
            });
            let Some(found) = found else { panic!("{who} was sent {frame}\n{}", reasons.join("\n")) };
            let block = expected.remove(found);
            self.learn(who, &frame);
            self.compared.push((block, frame));
        }
    }

    /// Checks the chain of every entry, opens every copy and every message.
    fn learn(&mut self, who: &str, frame: &Value) {
        if frame["type"] == "hello" {
            self.nonces.insert(who.to_owned(), frame["data"]["nonce"].clone());
        }
        let data = if frame["type"] == "ok" { &frame["data"]["result"]["data"] } else { &frame["data"] };
        let chat_id = &data["chat_id"];
        let (_, exchange) = self.secrets[SESSIONS.iter().find(|(name, _)| *name == who).unwrap().1];
        for key in data["keys"].as_array().into_iter().flatten().chain(data.get("key")) {
            let announcement = &key["announcement"]["announcement"];
            let place = json!({
                "chat_id": chat_id,
                "key_id": announcement["key_id"],
                "sender_session_id": announcement["session_id"],
                "session_id": SESSIONS.iter().find(|(name, _)| *name == who).unwrap().1,
            });
            let aad = formats::bound("aad/sender-key", &place);
            let secret = crypto::unwrap(&exchange, crypto::SENDER_KEY_INFO, &aad, &bytes(&key["key"])).unwrap();
            let secret: [u8; 32] = secret.try_into().unwrap();
            assert_eq!(text(&formats::commitment(&secret).hash()), announcement["commitment"]);
            self.keys.insert((who.to_owned(), announcement["key_id"].to_string()), secret);
        }
        for entry in data["entries"].as_array().into_iter().flatten().chain(data.get("entry")) {
            let seq = number(&entry["seq"]);
            let before = self.log.get(&(seq - 1)).unwrap_or_else(|| panic!("entry {seq} before the one before it"));
            let hash = formats::log_hash(chat_id, before, entry).hash();
            assert_eq!(array::<32>(&entry["log_hash"]), hash, "the chain at {seq}");
            self.log.insert(seq, hash);
            let envelope = &entry["body"]["data"];
            if entry["body"]["type"] == "message" && !envelope["data"].is_null() {
                let secret = self.keys[&(who.to_owned(), envelope["key_id"].to_string())];
                let body: Value =
                    serde_json::from_slice(&crypto::open_message(&secret, chat_id, envelope).unwrap()).unwrap();
                let said = format!("{seq} {}", body["text"].as_str().unwrap());
                let read = self.read.entry(who.to_owned()).or_default();
                if !read.contains(&said) {
                    read.push(said);
                }
            }
        }
    }
}

/// Whose session speaks on which connection.
const SESSIONS: [(&str, &str); 2] =
    [("Ada", "019aa6f0-0001-7000-8000-0000000000a1"), ("Bob", "019aa6f0-0002-7000-8000-0000000000b1")];

/// Holds the conversation of a document with a broker.
async fn replay(document: &str, address: &str) -> Replay {
    let mut replay = Replay::new();
    let mut sockets: HashMap<String, Socket> = HashMap::new();
    let mut answer = None;
    let mut waiting: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for step in steps(document) {
        if !matches!(step, Step::Receive { .. }) {
            for (who, frames) in std::mem::take(&mut waiting) {
                replay.receive(&who, sockets.get_mut(&who).unwrap(), frames).await;
            }
        }
        match step {
            Step::Connect(who) => {
                let socket = Socket::open(address).await;
                if let Some(older) = sockets.insert(who.clone(), socket) {
                    sockets.insert(format!("{who}'s older connection"), older);
                }
            }
            Step::HttpRequest { method, path, body } => {
                let body = body.map(|body| fill(&body, &replay.bound).to_string()).unwrap_or_default();
                answer = Some(http(address, &method, &path, &body).await);
            }
            Step::HttpAnswer { status, body } => {
                let (came, answered) = answer.take().expect("a request");
                assert_eq!(came, status, "{answered}");
                compare(&body, &answered, &mut replay.bound).unwrap();
                replay.compared.push((body, answered));
            }
            Step::Send { who, frame } => {
                let frame = replay.complete(&who, &frame);
                sockets.get_mut(&who).unwrap().send(&frame).await;
            }
            Step::Receive { who, frame } => waiting.entry(who).or_default().push(frame),
            Step::Close { who, code, reason } => match sockets.get_mut(&who).unwrap().receive().await {
                Received::Closed(came, words) => assert_eq!((came, words), (code, reason), "{who}"),
                Received::Frame(frame) => panic!("{who} was sent {frame}"),
            },
        }
    }
    for (who, frames) in waiting {
        replay.receive(&who, sockets.get_mut(&who).unwrap(), frames).await;
    }
    replay
}

/// Every way to change one field of a value.
fn changed(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, inner)| {
                let mut without = fields.clone();
                without.remove(name);
                let others = changed(inner).into_iter().map(|inner| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), inner);
                    Value::Object(fields)
                });
                others.chain([Value::Object(without)]).collect::<Vec<_>>()
            })
            .collect(),
        Value::Array(items) => (0..items.len())
            .flat_map(|at| {
                changed(&items[at]).into_iter().map(move |inner| {
                    let mut items = items.clone();
                    items[at] = inner;
                    Value::Array(items)
                })
            })
            .collect(),
        Value::String(text) if placeholder(value).is_none() => vec![format!("{text}x").into()],
        Value::String(_) => Vec::new(),
        Value::Number(number) => vec![(number.as_u64().unwrap() + 1).into()],
        Value::Bool(truth) => vec![(!truth).into()],
        Value::Null => vec![0.into()],
    }
}

#[tokio::test]
async fn the_conversation_of_the_document_is_what_a_broker_says() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("session.lifetime_max_s", LIFETIME_MAX_S)).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let document = std::fs::read_to_string(path).unwrap();
    let replay = replay(&document, broker.address()).await;
    let said = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        replay.read["Ada"],
        said(&["5 Hello, Bob.", "6 Here I am.", "7 Tea at five?", "8 Hello, Bob!", "11 Alone."])
    );
    assert_eq!(replay.read["Bob"], said(&["5 Hello, Bob.", "6 Here I am.", "7 Tea at five?", "8 Hello, Bob!"]));

    // One field of the page that is other than it came is seen, whichever it is.
    let mut fields = 0;
    for (block, frame) in &replay.compared {
        for other in changed(block) {
            let mut bound = replay.bound.clone();
            assert!(compare(&other, frame, &mut bound).is_err(), "{other}");
            fields += 1;
        }
        let text = block.to_string();
        for name in replay.bound.keys().filter(|name| text.contains(name.as_str())) {
            let mut bound = replay.bound.clone();
            bound.insert(name.clone(), json!([]));
            assert!(compare(block, frame, &mut bound).is_err(), "{name}");
            fields += 1;
        }
    }
    assert!(fields > 1000, "{fields} fields");
}
