//! The fold of a chat's log (section 13 of the document): members, recipients, epoch, and the chain of hashes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::bytes::{array, id, number, text};
use super::group_keys::GroupKeys;
use super::{crypto, formats};

/// A member of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The identity key, as the membership log has it.
    pub identity_key: Value,
    /// Whether it may send messages.
    pub can_write: bool,
    /// Whether it may add and remove members.
    pub can_manage: bool,
}

/// What a client knows of a sender key's use.
#[derive(Debug, Clone)]
struct Use {
    announcement: Value,
    counter: u64,
}

/// What a client knows of a chat.
#[derive(Debug, Clone)]
pub struct Fold {
    chat_id: Value,
    seq: u64,
    hashes: BTreeMap<u64, [u8; 32]>,
    members: BTreeMap<[u8; 16], Member>,
    owner: Option<[u8; 16]>,
    recipients: BTreeMap<[u8; 16], Value>,
    /// The newest certificates of sessions that expired, and have not come back.
    expired: BTreeMap<[u8; 16], Value>,
    revoked: BTreeSet<[u8; 16]>,
    /// User keys and generations.
    pub group: GroupKeys,
    epoch: u64,
    change: (u64, [u8; 32]),
    pending_create: Option<Value>,
    uses: HashMap<String, Use>,
    last_seen: HashMap<String, u64>,
}

impl Fold {
    /// Before the first entry.
    pub fn new(chat_id: &Value) -> Self {
        Self {
            chat_id: chat_id.clone(),
            seq: 0,
            hashes: BTreeMap::from([(0, formats::log(chat_id).hash())]),
            members: BTreeMap::new(),
            owner: None,
            recipients: BTreeMap::new(),
            expired: BTreeMap::new(),
            revoked: BTreeSet::new(),
            group: GroupKeys::default(),
            epoch: 0,
            change: (0, formats::membership_chain(chat_id).hash()),
            pending_create: None,
            uses: HashMap::new(),
            last_seen: HashMap::new(),
        }
    }

    /// Folds the entries below a newcomer's `add`, of which messages are left out, and begins the chain with the
    /// `add` itself, whose roster hash and epoch must be those of the fold.
    pub fn begin_at_add(chat_id: &Value, events: &[Value], add: &Value) -> Self {
        let mut fold = Self::new(chat_id);
        for event in events {
            assert!(number(&event["seq"]) > fold.seq, "in order");
            fold.seq = number(&event["seq"]);
            fold.apply(event);
        }
        assert!(number(&add["seq"]) > fold.seq);
        fold.seq = number(&add["seq"]);
        fold.hashes = BTreeMap::from([(fold.seq, array(&add["log_hash"]))]);
        fold.apply(add);
        fold
    }

    /// Checks the chain and takes the next entry in.
    pub fn take(&mut self, entry: &Value) {
        assert_eq!(number(&entry["seq"]), self.seq + 1, "without gaps");
        let hash = formats::log_hash(&self.chat_id, &self.hashes[&self.seq], entry).hash();
        assert_eq!(entry["log_hash"], text(&hash), "the chain at {}", entry["seq"]);
        // A message is checked against what was before it, and so is a change.
        self.seq += 1;
        self.apply(entry);
        self.hashes.insert(self.seq, hash);
    }

    /// Learns of a sender key.
    pub fn announce(&mut self, signed: &Value) {
        let announcement = &signed["announcement"];
        let certificate = &self.recipients[&id(&announcement["session_id"])];
        let bytes = formats::announcement(&self.chat_id, announcement);
        assert!(crypto::verifies(&certificate["signing_public_key"], &bytes, &signed["signature"]));
        let known = Use { announcement: announcement.clone(), counter: 0 };
        self.uses.entry(announcement["key_id"].to_string()).or_insert(known);
    }

    /// The chat's id.
    pub const fn chat_id(&self) -> &Value {
        &self.chat_id
    }

    /// The newest entry's number.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The epoch.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The certificates of those to whom messages are encrypted.
    pub fn recipients(&self) -> impl Iterator<Item = &Value> {
        self.recipients.values()
    }

    /// Whether a user is a member.
    pub fn is_member(&self, user_id: &Value) -> bool {
        self.members.contains_key(&id(user_id))
    }

    /// `seen` for what is written next.
    pub fn seen(&self) -> Value {
        json!({"seq": self.seq, "log_hash": text(&self.hashes[&self.seq])})
    }

    /// The roster hash.
    pub fn roster(&self) -> Value {
        let sessions = self.recipients.values().map(|it| (&it["session_id"], &it["public_key"]));
        text(&formats::roster_with(sessions, self.group.current()).hash())
    }

    /// The newest change's number.
    pub const fn change_no(&self) -> u64 {
        self.change.0
    }

    /// The next change's number and the hash that it names.
    pub fn next_change(&self) -> (u64, Value) {
        (self.change.0 + 1, text(&self.change.1))
    }

    fn apply(&mut self, entry: &Value) {
        let data = &entry["body"]["data"];
        match entry["body"]["type"].as_str().unwrap() {
            "membership" => self.change(data),
            "session_in" => self.session_in(data, number(&entry["created_at"])),
            "session_out" => self.session_out(data, number(&entry["created_at"])),
            "user_key" => self.user_key(data),
            "generation" => {
                let generation = &data["generation"];
                self.check_recipient(generation, &formats::generation(&self.chat_id, generation), data);
                self.group.make(generation, self.change.0);
            }
            "generation_refused" => {
                let refusal = &data["refusal"];
                self.check_recipient(refusal, &formats::generation_refusal(&self.chat_id, refusal), data);
                self.group.refuse(refusal);
            }
            "message" => self.message(data),
            other => panic!("{other}"),
        }
    }

    /// Checks what the session that it names has signed.
    fn check_recipient(&self, it: &Value, bytes: &[u8], signed: &Value) {
        let certificate = &self.recipients[&id(&it["session_id"])];
        assert!(crypto::verifies(&certificate["signing_public_key"], bytes, &signed["signature"]));
    }

    /// Checks what a member's identity key or one of the member's sessions has signed about the member's own.
    fn check_revoker(&self, it: &Value, bytes: &[u8], signature: &Value) {
        let member = &self.members[&id(&it["user_id"])];
        let key = match it["revoker"]["type"].as_str().unwrap() {
            "identity" => &member.identity_key,
            "session" => {
                let by = &self.recipients[&id(&it["revoker"]["data"])];
                assert_eq!(by["user_id"], it["user_id"]);
                &by["signing_public_key"]
            }
            other => panic!("{other}"),
        };
        assert!(crypto::verifies(key, bytes, signature));
    }

    fn user_key(&mut self, entry: &Value) {
        let it = &entry["data"];
        match entry["type"].as_str().unwrap() {
            "set" => {
                let member = &self.members[&id(&it["user_id"])];
                assert!(crypto::verifies(&member.identity_key, &formats::user_key(it), &it["signature"]));
                self.epoch += u64::from(self.group.set(it));
            }
            "withdrawn" => {
                let withdrawal = &it["withdrawal"];
                self.check_revoker(withdrawal, &formats::withdrawal(withdrawal), &it["signature"]);
                self.group.withdraw(withdrawal);
                self.epoch += 1;
            }
            other => panic!("{other}"),
        }
    }

    fn change(&mut self, signed: &Value) {
        let change = &signed["change"];
        let bytes = formats::membership(&self.chat_id, change);
        assert_eq!((number(&change["n"]), &change["previous"]), (self.change.0 + 1, &text(&self.change.1)));
        self.check_seen(&change["seen"]);
        let (actor, target) = (id(&change["actor"]["user_id"]), id(&change["target"]["user_id"]));
        let kind = change["change"]["type"].as_str().unwrap();
        if kind == "create" {
            assert_eq!((self.seq, self.change.0, actor), (1, 0, target));
            assert_eq!(change["actor"]["identity_key"], change["target"]["identity_key"]);
            self.owner = Some(actor);
            self.members.insert(actor, member(&change["target"], true, true));
            self.epoch = 1;
            self.pending_create = Some(signed.clone());
        } else {
            let certificate = &self.recipients[&id(&change["actor"]["session_id"])];
            assert_eq!(certificate["user_id"], change["actor"]["user_id"]);
            assert!(crypto::verifies(&certificate["signing_public_key"], &bytes, &signed["signature"]));
            let by = &self.members[&actor];
            assert_eq!(by.identity_key, change["actor"]["identity_key"]);
            if let Some(known) = self.members.get(&target) {
                assert_eq!(known.identity_key, change["target"]["identity_key"]);
            }
            self.judge(kind, change, actor, target);
        }
        self.change = (self.change.0 + 1, formats::membership_event(&bytes, &signed["signature"]).hash());
    }

    fn judge(&mut self, kind: &str, change: &Value, actor: [u8; 16], target: [u8; 16]) {
        match kind {
            "add" => {
                let add = &change["change"]["data"];
                assert!(self.members[&actor].can_manage && !self.members.contains_key(&target));
                assert_eq!((&add["roster_hash"], &add["epoch"]), (&self.roster(), &Value::from(self.epoch)));
                let (can_write, can_manage) = (add["can_write"] == true, add["can_manage"] == true);
                self.members.insert(target, member(&change["target"], can_write, can_manage));
                self.group.outdate();
            }
            "remove" | "leave" => {
                assert_eq!(kind == "leave", actor == target);
                assert!(self.members[&actor].can_manage || kind == "leave");
                assert_ne!(self.owner, Some(target));
                assert!(self.members.remove(&target).is_some());
                self.recipients.retain(|_, it| id(&it["user_id"]) != target);
                self.expired.retain(|_, it| id(&it["user_id"]) != target);
                self.group.leave(&target);
            }
            other => panic!("{other}"),
        }
        self.epoch += 1;
    }

    fn session_in(&mut self, signed: &Value, at: u64) {
        let certificate = &signed["certificate"];
        let member = &self.members[&id(&certificate["user_id"])];
        assert!(crypto::verifies(&member.identity_key, &formats::certificate(certificate), &signed["signature"]));
        assert!(number(&certificate["expired_at"]) > at);
        let session = id(&certificate["session_id"]);
        assert!(!self.revoked.contains(&session), "it was revoked");
        // Renewed ahead of its time, perhaps with another X25519 key; or back after it, with the same keys.
        let present = self.recipients.get(&session).inspect(|known| assert!(at < number(&known["expired_at"])));
        if let Some(known) = present.or_else(|| self.expired.get(&session)) {
            assert_eq!(known["user_id"], certificate["user_id"]);
            assert_eq!(known["signing_public_key"], certificate["signing_public_key"]);
            assert!(present.is_some() || known["public_key"] == certificate["public_key"]);
            assert!(number(&known["place"]) < number(&certificate["place"]));
        }
        self.recipients.insert(session, certificate.clone());
        self.expired.remove(&session);
        if let Some(create) = self.pending_create.take() {
            assert_eq!(create["change"]["actor"]["session_id"], certificate["session_id"]);
            assert_eq!(create["change"]["actor"]["user_id"], certificate["user_id"]);
            let bytes = formats::membership(&self.chat_id, &create["change"]);
            assert!(crypto::verifies(&certificate["signing_public_key"], &bytes, &create["signature"]));
        }
    }

    fn session_out(&mut self, out: &Value, at: u64) {
        let session = match out["type"].as_str().unwrap() {
            "expired" => {
                let session = id(&out["data"]["session_id"]);
                assert_eq!(self.recipients[&session]["user_id"], out["data"]["user_id"]);
                assert!(at >= number(&self.recipients[&session]["expired_at"]));
                self.expired.insert(session, self.recipients[&session].clone());
                session
            }
            "revoked" => {
                let revocation = &out["data"]["revocation"];
                self.check_revoker(revocation, &formats::revocation(revocation), &out["data"]["signature"]);
                assert_eq!(self.recipients[&id(&revocation["session_id"])]["user_id"], revocation["user_id"]);
                self.revoked.insert(id(&revocation["session_id"]));
                id(&revocation["session_id"])
            }
            other => panic!("{other}"),
        };
        assert!(self.recipients.remove(&session).is_some());
        self.group.session_out(session);
        self.epoch += 1;
    }

    fn message(&mut self, envelope: &Value) {
        let certificate = &self.recipients[&id(&envelope["sender_session_id"])];
        assert_eq!(certificate["user_id"], envelope["sender_id"]);
        assert!(self.members[&id(&envelope["sender_id"])].can_write);
        let bytes = formats::message(&self.chat_id, envelope);
        assert!(crypto::verifies(&certificate["signing_public_key"], &bytes, &envelope["signature"]));
        assert_eq!(envelope["roster_hash"], self.roster());
        assert_eq!(self.group.due(), None, "no message goes before the generation that is due");
        self.check_seen(&envelope["seen"]);
        let session = envelope["sender_session_id"].to_string();
        let seen = number(&envelope["seen"]["seq"]);
        let before = self.last_seen.insert(session, seen);
        assert!(before.is_none_or(|before| before <= seen), "seen goes back");
        let announcement = self.uses[&envelope["key_id"].to_string()].announcement.clone();
        assert_eq!(announcement["session_id"], envelope["sender_session_id"]);
        assert_eq!(announcement["epoch"], self.epoch);
        let previous = &announcement["previous"];
        let is_first = envelope["counter"] == 1;
        if let Some(previous_use) = self.uses.get(&previous["key_id"].to_string())
            && is_first
        {
            assert_eq!(previous["last_counter"], previous_use.counter);
        }
        let key = self.uses.get_mut(&envelope["key_id"].to_string()).unwrap();
        key.counter += 1;
        assert_eq!(envelope["counter"], key.counter);
    }

    fn check_seen(&self, seen: &Value) {
        // What is from before one's own beginning cannot be compared.
        if let Some(hash) = self.hashes.get(&number(&seen["seq"])) {
            assert_eq!(seen["log_hash"], text(hash), "a fork");
        }
        assert!(number(&seen["seq"]) < self.seq);
    }
}

fn member(target: &Value, can_write: bool, can_manage: bool) -> Member {
    Member { identity_key: target["identity_key"].clone(), can_write, can_manage }
}
