//! What a fold knows of members' user keys and of the generations of the group key (section 13 of the document).
//!
//! Signatures are checked by [`super::fold`], which knows whose they are to be; here is the state that they change.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::bytes::{id, number, text};
use super::{crypto, formats};

/// The most user keys of members with which a chat has a group key.
const MEMBER_KEYS_MAX: usize = 1_000;

/// User keys and generations of one chat.
#[derive(Debug, Clone, Default)]
pub struct GroupKeys {
    /// The members' user keys.
    members: BTreeMap<[u8; 16], Value>,
    /// User keys that were replaced or withdrawn.
    retired: BTreeSet<[u8; 16]>,
    newest: Option<Value>,
    is_outdated: bool,
}

impl GroupKeys {
    /// The generation that must be made before the next message.
    pub fn due(&self) -> Option<u64> {
        let is_wanting = self.is_outdated || self.newest.is_none();
        let newest = self.newest.as_ref().map_or(0, |newest| number(&newest["number"]));
        (is_wanting && (1..=MEMBER_KEYS_MAX).contains(&self.members.len())).then_some(newest + 1)
    }

    /// The generation whose recovery key receives.
    pub fn current(&self) -> Option<&Value> {
        self.newest.as_ref().filter(|_| !self.is_outdated)
    }

    /// The members' user keys.
    pub fn members(&self) -> impl Iterator<Item = &Value> {
        self.members.values()
    }

    /// The members are others.
    pub const fn outdate(&mut self) {
        self.is_outdated = true;
    }

    /// A user is no member any more.
    pub fn leave(&mut self, user: &[u8; 16]) {
        self.members.remove(user);
        self.outdate();
    }

    /// A session is no recipient any more.
    pub fn session_out(&mut self, session: [u8; 16]) {
        if self.newest.as_ref().is_some_and(|newest| id(&newest["session_id"]) == session) {
            self.outdate();
        }
    }

    /// A member's user key; says whether it takes the place of another.
    pub fn set(&mut self, key: &Value) -> bool {
        assert!(crypto::is_sound_exchange(&key["public_key"]));
        assert!(!self.retired.contains(&id(&key["key_id"])), "it was replaced or withdrawn");
        let replaced = self.members.insert(id(&key["user_id"]), key.clone());
        if let Some(replaced) = &replaced {
            assert_ne!(replaced["key_id"], key["key_id"], "it is there already");
            self.retired.insert(id(&replaced["key_id"]));
        }
        self.outdate();
        replaced.is_some()
    }

    /// The end of a member's present user key.
    pub fn withdraw(&mut self, withdrawal: &Value) {
        let gone = self.members.remove(&id(&withdrawal["user_id"])).expect("the user has one");
        assert_eq!(gone["key_id"], withdrawal["key_id"]);
        self.retired.insert(id(&gone["key_id"]));
        self.outdate();
    }

    /// A generation, made when this was the newest membership change.
    pub fn make(&mut self, generation: &Value, change: u64) {
        assert_eq!(self.due(), Some(number(&generation["number"])), "it is not due");
        assert_eq!(generation["change_no"], change);
        assert_eq!(generation["member_keys_hash"], text(&formats::member_keys(self.members()).hash()));
        assert!(crypto::is_sound_exchange(&generation["public_key"]));
        self.newest = Some(generation.clone());
        self.is_outdated = false;
    }

    /// The refusal of the current generation.
    pub fn refuse(&mut self, refusal: &Value) {
        assert_eq!(self.current().map(|current| &current["number"]), Some(&refusal["number"]), "it is not current");
        self.outdate();
    }
}

#[test]
fn a_generation_is_due_while_members_have_user_keys_and_the_newest_one_is_outdated() {
    let user = "019aa6f0-0001-7000-8000-0000000000a0";
    let session = "019aa6f0-0001-7000-8000-0000000000a1";
    let key = |last: u8| {
        let mut bytes = [9; 32];
        bytes[0] = last;
        serde_json::json!({
            "user_id": user,
            "key_id": format!("019aa6f0-0001-7000-8000-0000000000{last:02x}"),
            "public_key": text(&bytes),
        })
    };
    let generation = |keys: &GroupKeys| {
        serde_json::json!({
            "number": keys.due(),
            "session_id": session,
            "change_no": 1,
            "member_keys_hash": text(&formats::member_keys(keys.members()).hash()),
            "public_key": text(&[9; 32]),
        })
    };
    let mut keys = GroupKeys::default();
    keys.outdate();
    assert_eq!((keys.due(), keys.current()), (None, None), "nobody has a user key");
    assert!(!keys.set(&key(1)), "the first of its member");
    assert_eq!(keys.due(), Some(1));
    for (what, outdate) in [
        ("another member", (|keys| keys.outdate()) as fn(&mut GroupKeys)),
        ("a refusal", |keys| keys.refuse(&serde_json::json!({"number": 2}))),
        ("the maker's end", |keys| keys.session_out(id(&"019aa6f0-0001-7000-8000-0000000000a1".into()))),
    ] {
        let made = generation(&keys);
        keys.make(&made, 1);
        assert_eq!((keys.due(), keys.current()), (None, Some(&made)), "{what}");
        outdate(&mut keys);
        assert_eq!((keys.due(), keys.current()), (made["number"].as_u64().map(|number| number + 1), None), "{what}");
    }
    let made = generation(&keys);
    keys.make(&made, 1);
    keys.session_out(id(&user.into()));
    assert_eq!(keys.due(), None, "another session's end leaves it");
    assert!(keys.set(&key(2)), "in the place of another");
    assert_eq!(keys.due(), Some(5));
    keys.withdraw(&key(2));
    assert_eq!((keys.due(), keys.current()), (None, None), "nobody has a user key");
    assert!(!keys.set(&key(3)), "the first after a withdrawal");
    keys.leave(&id(&user.into()));
    assert!(!keys.set(&key(3)), "the same again for who comes back");
}
