//! Makes a small log with every kind of entry, and what its fold says after each.

use sealcast::protocol::fold::ChatFold;
use sealcast::protocol::ids::{ChatId, Seq, Timestamp};
use sealcast::protocol::log::EntryBody;
use serde_json::{Value, json};

use super::crate_side::parse;
use super::people::{self, NOW, Person};
use crate::stranger::bytes::{hex, text};
use crate::stranger::{crypto, formats};

const HOUR: u64 = 3_600_000_000;

/// A log that grows.
pub struct Log {
    chat_id: Value,
    fold: Option<ChatFold>,
    hash: [u8; 32],
    change: (u64, [u8; 32]),
    entries: Vec<Value>,
    /// The messages and changes in it, as known answers of their own.
    pub messages: Vec<(&'static str, Value, Value)>,
    /// Name, object, signer.
    pub changes: Vec<(&'static str, Value, Value)>,
}

impl Log {
    fn new(chat_id: Value) -> Self {
        let (hash, first) = (formats::log(&chat_id).hash(), formats::membership_chain(&chat_id).hash());
        let (messages, changes) = (Vec::new(), Vec::new());
        Self { chat_id, fold: None, hash, change: (0, first), entries: Vec::new(), messages, changes }
    }

    /// Seen by whoever writes next.
    pub fn seen(&self) -> Value {
        json!({"seq": self.entries.len(), "log_hash": text(&self.hash)})
    }

    fn roster(&self) -> Value {
        serde_json::to_value(self.fold.as_ref().unwrap().roster_hash()).unwrap()
    }

    fn append(&mut self, at: u64, body: &Value) {
        let seq = self.entries.len() as u64 + 1;
        let mut entry = json!({"seq": seq, "created_at": at, "body": body});
        let digest = formats::digest(&self.chat_id, body);
        let chained = formats::log_hash(&self.chat_id, &self.hash, &entry);
        self.hash = chained.clone().hash();
        entry["log_hash"] = text(&self.hash);
        let parsed: EntryBody = parse(body);
        let chat_id: ChatId = parse(&self.chat_id);
        match &mut self.fold {
            Some(fold) => fold.apply(Seq::saturating(seq), Timestamp::saturating(at), &parsed).unwrap(),
            none => *none = Some(ChatFold::begin(chat_id, &parsed).unwrap()),
        }
        let fold = self.fold.as_ref().unwrap();
        let recipients: Vec<Value> = fold
            .recipients()
            .iter()
            .map(|(session_id, it)| json!({"session_id": session_id, "public_key": it.public_key}))
            .collect();
        let roster = formats::roster(recipients.iter().map(|it| (&it["session_id"], &it["public_key"])));
        self.entries.push(json!({
            "entry": entry,
            "digest_bytes": hex(&digest.clone().done()),
            "digest": hex(&digest.hash()),
            "log_hash_bytes": hex(&chained.done()),
            "log_hash": hex(&self.hash),
            "after": {
                "epoch": fold.epoch(),
                "roster_version": fold.roster_version(),
                "recipients": recipients,
                "roster_bytes": hex(&roster.clone().done()),
                "roster_hash": hex(&roster.hash()),
            },
        }));
    }

    /// A signed change, not appended.
    pub fn change(&self, by: &Person, change: Value, target: Value) -> Value {
        let change = json!({
            "n": self.change.0 + 1,
            "previous": text(&self.change.1),
            "seen": self.seen(),
            "actor": by.actor(),
            "change": change,
            "target": target,
        });
        let signature = crypto::sign(&by.signing, &formats::membership(&self.chat_id, &change));
        json!({"change": change, "signature": signature})
    }

    fn member(&mut self, name: &'static str, by: &Person, change: Value, target: Value) {
        let signed = self.change(by, change, target);
        let bytes = formats::membership(&self.chat_id, &signed["change"]);
        self.change = (self.change.0 + 1, formats::membership_event(&bytes, &signed["signature"]).hash());
        self.changes.push((name, signed.clone(), text(&crypto::public(&by.signing))));
        let at = NOW + self.entries.len() as u64 * 1_000_000;
        self.append(at, &json!({"type": "membership", "data": signed}));
    }

    fn comes(&mut self, certificate: &Value) {
        let at = NOW + self.entries.len() as u64 * 1_000_000;
        self.append(at, &json!({"type": "session_in", "data": certificate}));
    }

    /// Writes a revision under a key.
    fn message(&mut self, name: &'static str, by: &Person, fields: Value, words: Option<&str>) {
        let mut envelope = json!({
            "sender_id": by.user_id,
            "sender_session_id": by.session_id,
            "roster_hash": self.roster(),
            "seen": self.seen(),
            "attachments": [],
            "data": null,
        });
        envelope.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        if let Some(words) = words {
            let body = json!({"type": "message", "text": words, "attachments": []}).to_string();
            let nonce = [self.entries.len() as u8; 12];
            envelope["data"] = crypto::seal_message(&SENDER_KEY, nonce, &self.chat_id, &envelope, body.as_bytes());
        }
        envelope["signature"] = crypto::sign(&by.signing, &formats::message(&self.chat_id, &envelope));
        self.messages.push((name, envelope.clone(), text(&crypto::public(&by.signing))));
        let at = NOW + self.entries.len() as u64 * 1_000_000;
        self.append(at, &json!({"type": "message", "data": envelope}));
    }

    /// The file.
    pub fn to_json(&self) -> Value {
        let start = formats::log(&self.chat_id);
        json!({
            "chat_id": self.chat_id,
            "start_bytes": hex(&start.clone().done()),
            "start": hex(&start.hash()),
            "vectors": self.entries,
        })
    }
}

/// The secret of the sender key of the known answers.
pub const SENDER_KEY: [u8; 32] = [0x42; 32];

/// Its id.
pub fn key_id() -> Value {
    people::id(6, 0xe0)
}

/// Every kind of entry, in a log that folds without a fault.
pub fn log() -> Log {
    let (ada, ada_second, bob, cyd) = (people::ada(), people::ada_second(), people::bob(), people::cyd());
    let mut log = Log::new(people::chat());
    let add = |log: &Log, can_manage: bool| {
        let epoch = log.fold.as_ref().unwrap().epoch();
        let data = json!({"can_write": true, "can_manage": can_manage, "roster_hash": log.roster(), "epoch": epoch});
        json!({"type": "add", "data": data})
    };
    log.member("create", &ada, json!({"type": "create"}), ada.target());
    log.comes(&ada.certificate);
    log.comes(&ada_second.certificate);
    let change = add(&log, false);
    log.member("add, may write", &ada, change, bob.target());
    log.comes(&bob.certificate);
    let (message_id, key_id) = (people::id(7, 0xd0), key_id());
    let revision = |kind: &str, revision: u64, counter: u64, key: &Value| json!({"kind": kind, "message_id": message_id, "revision": revision, "key_id": key, "counter": counter});
    log.message("message", &ada, revision("message", 0, 1, &key_id), Some("Hello, Bob."));
    log.message("edit", &ada, revision("edit", 1, 2, &key_id), Some("Hello, Bob!"));
    log.message("delete", &ada, revision("delete", 2, 0, &Value::Null), None);
    let mut purged = revision("message", 0, 3, &key_id);
    purged["message_id"] = people::id(7, 0xd1);
    purged["purged"] = text(&crate::stranger::bytes::sha256(b"gone"));
    log.message("purged", &ada, purged, None);
    let with_attachments = json!({
        "kind": "message", "message_id": people::id(7, 0xd2), "revision": 0, "key_id": key_id, "counter": 4,
        "attachments": [people::id(9, 1), people::id(9, 2)],
    });
    log.message("attachments", &ada, with_attachments, Some("Two pictures."));
    let change = add(&log, true);
    log.member("add, may manage", &ada, change, cyd.target());
    log.comes(&cyd.certificate);
    let rights = json!({"type": "set_rights", "data": {"can_write": true, "can_manage": true}});
    log.member("set_rights", &ada, rights, bob.target());
    log.member("set_history, shared", &ada, policy("shared"), ada.target());
    log.member("set_history, from_join", &ada, policy("from_join"), ada.target());
    log.member("rekey", &bob, json!({"type": "rekey"}), bob.target());
    log.member("transfer", &ada, json!({"type": "transfer"}), bob.target());
    let revocation = revocation();
    log.append(NOW + HOUR, &json!({"type": "session_out", "data": {"type": "revoked", "data": revocation}}));
    let expired = json!({"user_id": cyd.user_id, "session_id": cyd.session_id});
    log.append(NOW + 3 * HOUR, &json!({"type": "session_out", "data": {"type": "expired", "data": expired}}));
    log.member("remove", &bob, json!({"type": "remove"}), cyd.target());
    log.append(NOW + 4 * HOUR, &json!({"type": "account_deleted", "data": deletion()}));
    let last = log.change(&bob, json!({"type": "delete"}), bob.target());
    log.changes.push(("delete", last, text(&crypto::public(&bob.signing))));
    let leave = log.change(&cyd, json!({"type": "leave"}), cyd.target());
    log.changes.push(("leave", leave, text(&crypto::public(&cyd.signing))));
    log
}

fn policy(word: &str) -> Value {
    json!({"type": "set_history", "data": {"policy": word}})
}

/// Ada's first device ends the second one.
pub fn revocation() -> Value {
    let (ada, second) = (people::ada(), people::ada_second());
    let revoker = json!({"type": "session", "data": ada.session_id});
    revoked(&ada, &second, revoker, &ada.signing)
}

/// The same by the identity key.
pub fn revocation_by_identity() -> Value {
    let (ada, second) = (people::ada(), people::ada_second());
    revoked(&ada, &second, json!({"type": "identity"}), &ada.identity)
}

fn revoked(ada: &Person, second: &Person, revoker: Value, key: &[u8; 32]) -> Value {
    let revocation = json!({
        "user_id": ada.user_id,
        "place": 3,
        "previous": text(&people::chain_hash("certificate", &second.certificate)),
        "session_id": second.session_id,
        "revoker": revoker,
        "created_at": NOW + HOUR,
    });
    json!({"revocation": revocation, "signature": crypto::sign(key, &formats::revocation(&revocation))})
}

/// Ada ends her account after the revocation.
pub fn deletion() -> Value {
    let ada = people::ada();
    let deletion = json!({
        "user_id": ada.user_id,
        "place": 4,
        "previous": text(&people::chain_hash("revocation", &revocation())),
        "created_at": NOW + 4 * HOUR,
    });
    json!({"deletion": deletion, "signature": crypto::sign(&ada.identity, &formats::account_deletion(&deletion))})
}
