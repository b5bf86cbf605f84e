//! One person's view of one chat: changes it, sends with keys of its own, follows the log and opens what comes.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::bytes::{array, base64url, bytes, number, text};
use super::fold::Fold;
use super::person::{Connection, Person, new_id, random};
use super::{crypto, formats};

/// A sender key of one's own.
#[derive(Clone)]
struct OwnKey {
    key_id: Value,
    secret: [u8; 32],
    epoch: u64,
    counter: u64,
    /// The sessions for which there are copies.
    copied: BTreeSet<String>,
    /// The newest generation to whose recovery key it was archived.
    archived: Option<u64>,
}

/// A chat as one person sees it.
pub struct Chat {
    /// The chat's id.
    pub chat_id: Value,
    /// The fold of the log so far.
    pub fold: Fold,
    /// What was read: number of the entry and text.
    pub read: Vec<(u64, String)>,
    keys: HashMap<String, [u8; 32]>,
    own: Option<OwnKey>,
    /// What `own` was before the newest message.
    own_before: Option<OwnKey>,
}

impl Chat {
    /// Makes a chat, and follows its log to the session that made it.
    pub async fn create(me: &Person, connection: &mut Connection) -> Self {
        let chat_id = new_id();
        let mut chat = Self::at(Fold::new(&chat_id));
        let target = json!({"user_id": me.user_id, "identity_key": me.identity_key()});
        let change = chat.sign(me, json!({"type": "create"}), &target);
        let request = json!({"chat_id": chat_id, "change": change, "name": null, "info_keys": []});
        let answer = connection.get("create_chat", request, "changed").await;
        assert_eq!(answer, json!({"seq": 1, "duplicate": false}));
        chat.follow(me, connection, 2).await;
        chat
    }

    /// Enters a chat to which one was added, from the first page that tells of it.
    pub async fn enter(me: &Person, connection: &mut Connection) -> Self {
        let page = loop {
            let push = connection.push().await;
            if push["type"] == "page" {
                break push;
            }
        };
        let add = &page["data"]["entries"][0];
        assert_eq!(add["body"]["data"]["change"]["target"]["user_id"], me.user_id);
        let chat_id = &page["data"]["chat_id"];
        let request = json!({"chat_id": chat_id, "after": 0, "before": add["seq"]});
        let events = connection.get("events", request, "page").await;
        assert_eq!(events["more"], false);
        let mut chat = Self::at(Fold::begin_at_add(chat_id, events["entries"].as_array().unwrap(), add));
        chat.page(me, &page["data"]);
        chat
    }

    /// With nothing read.
    pub fn at(fold: Fold) -> Self {
        Self {
            chat_id: fold.chat_id().clone(),
            fold,
            read: Vec::new(),
            keys: HashMap::new(),
            own: None,
            own_before: None,
        }
    }

    /// Adds a user whom the server has found, after checking that its sessions are certified.
    pub async fn add(&mut self, me: &Person, connection: &mut Connection, username: &str) -> Result<Value, Value> {
        let user = connection.get("lookup_user", json!({"username": username}), "user").await;
        for session in user["sessions"].as_array().unwrap() {
            let signed = formats::certificate(&session["certificate"]);
            assert!(crypto::verifies(&user["identity_key"], &signed, &session["signature"]));
        }
        let target = json!({"user_id": user["user_id"], "identity_key": user["identity_key"]});
        let data = json!({
            "can_write": true,
            "can_manage": false,
            "roster_hash": self.fold.roster(),
            "epoch": self.fold.epoch(),
        });
        self.change(me, connection, json!({"type": "add", "data": data}), &target).await
    }

    /// Removes a member.
    pub async fn remove(&mut self, me: &Person, connection: &mut Connection, whom: &Person) -> Result<Value, Value> {
        let target = json!({"user_id": whom.user_id, "identity_key": whom.identity_key()});
        self.remove_user(me, connection, &target).await
    }

    /// Removes a member who is no stranger.
    pub async fn remove_user(
        &mut self,
        me: &Person,
        connection: &mut Connection,
        target: &Value,
    ) -> Result<Value, Value> {
        self.change(me, connection, json!({"type": "remove"}), target).await
    }

    /// Ends the chat.
    pub async fn delete(&self, me: &Person, connection: &mut Connection) -> Value {
        let target = json!({"user_id": me.user_id, "identity_key": me.identity_key()});
        let change = self.sign(me, json!({"type": "delete"}), &target);
        connection.get("delete_chat", json!({"chat_id": self.chat_id, "change": change}), "changed").await
    }

    async fn change(
        &self,
        me: &Person,
        connection: &mut Connection,
        change: Value,
        target: &Value,
    ) -> Result<Value, Value> {
        let change = self.sign(me, change, target);
        connection.ask("change_membership", json!({"chat_id": self.chat_id, "change": change})).await
    }

    fn sign(&self, me: &Person, change: Value, target: &Value) -> Value {
        let (n, previous) = self.fold.next_change();
        let actor = json!({"user_id": me.user_id, "session_id": me.session_id, "identity_key": me.identity_key()});
        let seen = self.fold.seen();
        let change =
            json!({"n": n, "previous": previous, "seen": seen, "actor": actor, "change": change, "target": target});
        let signature = crypto::sign(&me.signing, &formats::membership(&self.chat_id, &change));
        json!({"change": change, "signature": signature})
    }

    /// Makes the generation that is due: a group key that is forgotten once it is wrapped.
    pub async fn make_generation(&mut self, me: &Person, connection: &mut Connection) {
        let (group_key, generation) = (random::<32>(), self.fold.group.due().expect("one is due"));
        let wraps: Vec<Value> = self
            .fold
            .group
            .members()
            .map(|to| {
                let mut place = to.clone();
                place["chat_id"] = self.chat_id.clone();
                place["generation"] = generation.into();
                let aad = formats::bound("aad/group-key", &place);
                let key = crypto::wrap(&array(&to["public_key"]), crypto::GROUP_KEY_INFO, &aad, &group_key);
                json!({"user_id": to["user_id"], "key_id": to["key_id"], "key": base64url(&key)})
            })
            .collect();
        let generation = json!({
            "number": generation,
            "session_id": me.session_id,
            "change_no": self.fold.change_no(),
            "member_keys_hash": text(&formats::member_keys(self.fold.group.members()).hash()),
            "public_key": text(&crypto::exchange_public(&crypto::recovery_secret(&group_key))),
            "wraps_hash": text(&formats::group_key_wraps(&wraps).hash()),
        });
        let signature = crypto::sign(&me.signing, &formats::generation(&self.chat_id, &generation));
        let generation = json!({"generation": generation, "signature": signature});
        let request = json!({"chat_id": self.chat_id, "generation": generation, "wraps": wraps});
        let made = connection.get("make_generation", request, "changed").await;
        self.follow(me, connection, number(&made["seq"])).await;
        assert_eq!(self.fold.group.current(), Some(&generation["generation"]));
    }

    /// Refuses the current generation.
    pub async fn refuse_generation(&mut self, me: &Person, connection: &mut Connection) {
        let current = self.fold.group.current().expect("there is one");
        let refusal = json!({"number": current["number"], "session_id": me.session_id});
        let signature = crypto::sign(&me.signing, &formats::generation_refusal(&self.chat_id, &refusal));
        let refusal = json!({"refusal": refusal, "signature": signature});
        let request = json!({"chat_id": self.chat_id, "refusal": refusal});
        let refused = connection.get("refuse_generation", request, "changed").await;
        self.follow(me, connection, number(&refused["seq"])).await;
    }

    /// Builds a `send`: with a new key if there is none of this epoch, with copies for recipients who have none of it,
    /// and with an archive if a recovery key receives that has none.
    pub fn write(&mut self, me: &Person, message: &str) -> Value {
        self.own_before = self.own.clone();
        let new_key = match &self.own {
            Some(own) if own.epoch == self.fold.epoch() => Value::Null,
            _ => self.new_key(me),
        };
        let add_copies = self.missing_copies(me);
        let archive = self.missing_archive(me);
        let own = self.own.as_mut().unwrap();
        own.counter += 1;
        let mut envelope = json!({
            "kind": "message",
            "message_id": new_id(),
            "revision": 0,
            "sender_id": me.user_id,
            "sender_session_id": me.session_id,
            "key_id": own.key_id,
            "counter": own.counter,
            "roster_hash": self.fold.roster(),
            "seen": self.fold.seen(),
            "attachments": [],
        });
        let body = json!({"type": "message", "text": message, "attachments": []}).to_string();
        envelope["data"] = crypto::seal_message(&own.secret, random(), &self.chat_id, &envelope, body.as_bytes());
        envelope["signature"] = crypto::sign(&me.signing, &formats::message(&self.chat_id, &envelope));
        let mut request =
            json!({"chat_id": self.chat_id, "envelope": envelope, "new_key": new_key, "add_copies": add_copies});
        if let Some(archive) = archive {
            request["archive"] = archive;
        }
        request
    }

    /// Takes back what the newest message used up, which was refused.
    pub fn forget_refused(&mut self) {
        self.own = self.own_before.take();
    }

    /// Says something, and follows the log to it: the server has counted the same.
    pub async fn say(&mut self, me: &Person, connection: &mut Connection, message: &str) {
        let request = self.write(me, message);
        let sent = connection.get("send", request, "sent").await;
        assert_eq!((&sent["duplicate"], &sent["unreachable"]), (&json!(false), &json!([])));
        self.follow(me, connection, number(&sent["seq"])).await;
        assert_eq!((&self.fold.seen()["seq"], &self.fold.seen()["log_hash"]), (&sent["seq"], &sent["log_hash"]));
    }

    /// A copy for each recipient without one of the key in use.
    fn missing_copies(&mut self, me: &Person) -> Vec<Value> {
        let own = self.own.as_ref().unwrap();
        let is_missing = |to: &&Value| !own.copied.contains(&to["session_id"].to_string());
        let missing: Vec<&Value> = self.fold.recipients().filter(is_missing).collect();
        let copies = missing.iter().map(|to| self.copy(me, own, to)).collect();
        let sessions: Vec<String> = missing.iter().map(|to| to["session_id"].to_string()).collect();
        self.own.as_mut().unwrap().copied.extend(sessions);
        copies
    }

    fn copy(&self, me: &Person, own: &OwnKey, to: &Value) -> Value {
        let aad = self.copy_aad(&own.key_id, &me.session_id, &to["session_id"]);
        let key = crypto::wrap(&array(&to["public_key"]), crypto::SENDER_KEY_INFO, &aad, &own.secret);
        json!({"session_id": to["session_id"], "key": base64url(&key)})
    }

    /// The key in use, sealed to the recovery key that receives.
    fn missing_archive(&mut self, me: &Person) -> Option<Value> {
        let (current, own) = (self.fold.group.current()?, self.own.as_mut()?);
        let generation = number(&current["number"]);
        if own.archived.replace(generation) == Some(generation) {
            return None;
        }
        let place = json!({
            "chat_id": self.chat_id,
            "key_id": own.key_id,
            "sender_session_id": me.session_id,
            "generation": generation,
        });
        let aad = formats::bound("aad/archive", &place);
        let key = crypto::wrap(&array(&current["public_key"]), crypto::ARCHIVE_INFO, &aad, &own.secret);
        Some(json!({"generation": generation, "key": base64url(&key)}))
    }

    fn new_key(&mut self, me: &Person) -> Value {
        let mut own = OwnKey {
            key_id: new_id(),
            secret: random(),
            epoch: self.fold.epoch(),
            counter: 0,
            copied: BTreeSet::new(),
            archived: None,
        };
        let previous = self.own.as_ref().map(|own| json!({"key_id": own.key_id, "last_counter": own.counter}));
        let announcement = json!({
            "key_id": own.key_id,
            "session_id": me.session_id,
            "epoch": own.epoch,
            "commitment": text(&formats::commitment(&own.secret).hash()),
            "previous": previous,
        });
        let signature = crypto::sign(&me.signing, &formats::announcement(&self.chat_id, &announcement));
        let copies: Vec<Value> = self.fold.recipients().map(|to| self.copy(me, &own, to)).collect();
        own.copied = self.fold.recipients().map(|to| to["session_id"].to_string()).collect();
        self.own = Some(own);
        let announcement = json!({"announcement": announcement, "signature": signature});
        json!({"announcement": announcement, "copies": copies, "staged": null})
    }

    fn copy_aad(&self, key_id: &Value, from: &Value, to: &Value) -> Vec<u8> {
        let place = json!({"chat_id": self.chat_id, "key_id": key_id, "sender_session_id": from, "session_id": to});
        formats::bound("aad/sender-key", &place)
    }

    /// Takes pushes in until an entry has come.
    pub async fn follow(&mut self, me: &Person, connection: &mut Connection, seq: u64) {
        self.follow_until(me, connection, |fold| fold.seq() >= seq).await;
    }

    /// Takes pushes in until the newest entry of this moment has come.
    pub async fn follow_to_the_end(&mut self, me: &Person, connection: &mut Connection) {
        let listed = connection.get("list_chats", json!({}), "chats").await;
        let chat = listed["chats"].as_array().unwrap().iter().find(|chat| chat["chat_id"] == self.chat_id);
        self.follow(me, connection, number(&chat.expect("a chat of one's own")["last_seq"])).await;
    }

    /// Takes pushes in until the fold is as it is to be.
    pub async fn follow_until(&mut self, me: &Person, connection: &mut Connection, is_so: impl Fn(&Fold) -> bool) {
        while !is_so(&self.fold) {
            let push = connection.push().await;
            let is_of_the_log = ["entry", "key", "page"].contains(&push["type"].as_str().unwrap());
            assert!(push["data"]["chat_id"] == self.chat_id || !is_of_the_log, "{push}");
            match push["type"].as_str().unwrap() {
                // Around the moment at which a chat becomes live one may come twice.
                "entry" if number(&push["data"]["entry"]["seq"]) <= self.fold.seq() => {}
                "entry" => self.entry(&push["data"]["entry"]),
                "key" => self.key(me, &push["data"]["key"]),
                "page" => self.page(me, &push["data"]),
                "live" | "delivered" | "chat_info" | "info_key_requested" | "key_requested" => {}
                other => panic!("{other}"),
            }
        }
    }

    /// Takes a page in.
    pub fn page(&mut self, me: &Person, page: &Value) {
        for entry in page["entries"].as_array().unwrap() {
            // Keys of a session can be checked once the log has brought the session.
            for key in page["keys"].as_array().unwrap() {
                if key["announcement"]["announcement"]["key_id"] == entry["body"]["data"]["key_id"] {
                    self.key(me, key);
                }
            }
            if number(&entry["seq"]) > self.fold.seq() {
                self.entry(entry);
            }
        }
        assert!(self.fold.seq() >= number(&page["up_to"]));
    }

    fn key(&mut self, me: &Person, key: &Value) {
        self.fold.announce(&key["announcement"]);
        let announcement = &key["announcement"]["announcement"];
        let key_id = &announcement["key_id"];
        let aad = self.copy_aad(key_id, &announcement["session_id"], &me.session_id);
        let secret = crypto::unwrap(&me.exchange, crypto::SENDER_KEY_INFO, &aad, &bytes(&key["key"])).unwrap();
        let secret: [u8; 32] = secret.try_into().unwrap();
        assert_eq!(announcement["commitment"], text(&formats::commitment(&secret).hash()));
        self.keys.insert(key_id.to_string(), secret);
    }

    fn entry(&mut self, entry: &Value) {
        self.fold.take(entry);
        if entry["body"]["type"] != "message" {
            return;
        }
        let envelope = &entry["body"]["data"];
        let secret = &self.keys[&envelope["key_id"].to_string()];
        let body = crypto::open_message(secret, &self.chat_id, envelope).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "message");
        self.read.push((number(&entry["seq"]), body["text"].as_str().unwrap().to_owned()));
    }
}
