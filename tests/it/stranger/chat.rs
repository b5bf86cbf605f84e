//! One person's view of one chat: changes it, sends with keys of its own, follows the log and opens what comes.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::bytes::{array, base64url, bytes, number, text};
use super::fold::Fold;
use super::person::{Connection, Person, new_id, random};
use super::{crypto, formats};

/// A sender key of one's own.
struct OwnKey {
    key_id: Value,
    secret: [u8; 32],
    epoch: u64,
    counter: u64,
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
        Self { chat_id: fold.chat_id().clone(), fold, read: Vec::new(), keys: HashMap::new(), own: None }
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
        self.change(me, connection, json!({"type": "remove"}), &target).await
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

    /// Builds a `send`: with a new key if there is none of this epoch.
    pub fn write(&mut self, me: &Person, message: &str) -> Value {
        let new_key = match &self.own {
            Some(own) if own.epoch == self.fold.epoch() => Value::Null,
            _ => self.new_key(me),
        };
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
        json!({"chat_id": self.chat_id, "envelope": envelope, "new_key": new_key, "add_copies": []})
    }

    /// Takes back the counter of a message that was refused.
    pub fn forget_refused(&mut self) {
        self.own.as_mut().unwrap().counter -= 1;
    }

    fn new_key(&mut self, me: &Person) -> Value {
        let own = OwnKey { key_id: new_id(), secret: random(), epoch: self.fold.epoch(), counter: 0 };
        let previous = self.own.as_ref().map(|own| json!({"key_id": own.key_id, "last_counter": own.counter}));
        let announcement = json!({
            "key_id": own.key_id,
            "session_id": me.session_id,
            "epoch": own.epoch,
            "commitment": text(&formats::commitment(&own.secret).hash()),
            "previous": previous,
        });
        let signature = crypto::sign(&me.signing, &formats::announcement(&self.chat_id, &announcement));
        let copies: Vec<Value> = self
            .fold
            .recipients()
            .map(|to| {
                let aad = self.copy_aad(&own.key_id, &me.session_id, &to["session_id"]);
                let key = crypto::wrap(&array(&to["public_key"]), crypto::SENDER_KEY_INFO, &aad, &own.secret);
                json!({"session_id": to["session_id"], "key": base64url(&key)})
            })
            .collect();
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
        while self.fold.seq() < seq {
            let push = connection.push().await;
            assert!(push["data"]["chat_id"] == self.chat_id || push["type"] == "live", "{push}");
            match push["type"].as_str().unwrap() {
                "entry" => self.entry(&push["data"]["entry"]),
                "key" => self.key(me, &push["data"]["key"]),
                "page" => self.page(me, &push["data"]),
                "live" => {}
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
