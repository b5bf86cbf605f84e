//! A chat of Ada (two sessions), Bob and Carol, and messages to it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::{ChatState, Decision, KeyLimits};
use crate::protocol::binary::{Blob, ExchangeKey, Hash, Signature, WrappedKey};
use crate::protocol::canonical::sha256;
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{NewKey, Send};
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, Timestamp, UserId};
use crate::protocol::keys::{Announcement, KeyCopy, SignedAnnouncement};
use crate::protocol::verify::Verifier;
use crate::store::batch::Item;
use crate::store::loaded::{LoadedChat, LoadedKey, LoadedMember, LoadedRecipient};
use crate::store::members::Requester;
use crate::store::revisions::MessageHead;

pub(super) const EPOCH: u64 = 4;
pub(super) const ROSTER_VERSION: u64 = 7;
pub(super) const LAST_SEQ: u64 = 9;
pub(super) const LAST_COUNTER: u64 = 3;
pub(super) const NOW: u64 = 1_000_000_000;
pub(super) const LIMITS: KeyLimits =
    KeyLimits { messages_max: 100, messages_max_large: 10, recipients_large: 4, age_max_micros: 5_000_000 };

/// Stands for a session's signing key: a signature is the SHA-256 of what is signed, twice.
#[derive(Debug)]
pub(super) struct Stamp;

impl Stamp {
    pub(super) fn sign(message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(sha256(message).as_ref());
        Signature(signature)
    }
}

impl Verifier for Stamp {
    fn key_bytes(&self) -> &[u8; 32] {
        &[0; 32]
    }

    fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        *signature == Self::sign(message)
    }
}

/// A chat, and who is in it. Ada's phone has a key that all have, with [`LAST_COUNTER`] messages.
pub(super) struct Scene {
    pub(super) chat_id: ChatId,
    pub(super) ada: Requester,
    pub(super) laptop: Requester,
    pub(super) bob: Requester,
    pub(super) carol: Requester,
    pub(super) key_id: KeyId,
    pub(super) loaded: LoadedChat,
}

impl Scene {
    pub(super) fn new() -> Self {
        let person = || Requester { user_id: UserId::generate(), session_id: SessionId::generate() };
        let (ada, bob, carol) = (person(), person(), person());
        let laptop = Requester { session_id: SessionId::generate(), ..ada };
        let member = LoadedMember {
            can_write: true,
            joined_seq: Seq::saturating(1),
            joined_at: Timestamp::saturating(1),
            can_manage: false,
            readable_from: Seq::saturating(1),
            has_user_key: false,
        };
        let recipient = |who: Requester| {
            (who.session_id, LoadedRecipient { user_id: who.user_id, public_key: ExchangeKey([1; 32]) })
        };
        let loaded = LoadedChat {
            last_seq: Seq::saturating(LAST_SEQ),
            log_hash: Hash([9; 32]),
            last_at: Timestamp::saturating(NOW - 1),
            epoch: Epoch::saturating(EPOCH),
            roster_version: Seq::saturating(ROSTER_VERSION),
            roster_hash: Hash([7; 32]),
            expiry_due: false,
            members: [ada, bob, carol].map(|who| (who.user_id, member)).into(),
            recipients: [ada, laptop, bob, carol].map(recipient).into(),
            recovery: None,
            generation_due: None,
            keys: BTreeMap::new(),
            since: None,
        };
        let (chat_id, key_id) = (ChatId::generate(), KeyId::generate());
        let mut scene = Self { chat_id, ada, laptop, bob, carol, key_id, loaded };
        let key = LoadedKey {
            announcement: scene.announcement(ada, key_id, EPOCH),
            last_counter: Counter::saturating(LAST_COUNTER),
            created_at: Timestamp::saturating(NOW - LIMITS.age_max_micros),
            missing: [].into(),
            archived: None,
            refused: BTreeMap::new(),
        };
        scene.loaded.keys.insert(key_id, key);
        scene
    }

    pub(super) fn state(&self) -> ChatState {
        ChatState::new(self.chat_id, self.loaded.clone(), LIMITS)
    }

    pub(super) fn key(&mut self) -> &mut LoadedKey {
        self.loaded.keys.get_mut(&self.key_id).unwrap()
    }

    pub(super) fn member(&mut self, who: Requester) -> &mut LoadedMember {
        self.loaded.members.get_mut(&who.user_id).unwrap()
    }

    pub(super) fn announcement(&self, who: Requester, key_id: KeyId, epoch: u64) -> SignedAnnouncement {
        let announcement = Announcement {
            key_id,
            session_id: who.session_id,
            epoch: Epoch::saturating(epoch),
            commitment: Hash([5; 32]),
            previous: None,
        };
        SignedAnnouncement { signature: Stamp::sign(&announcement.signed_bytes(self.chat_id)), announcement }
    }

    /// A key that comes with its first message, with copies for these.
    pub(super) fn new_key(&self, who: Requester, key_id: KeyId, copies: &[Requester]) -> NewKey {
        NewKey { announcement: self.announcement(who, key_id, EPOCH), copies: copies_for(copies), staged: None }
    }

    pub(super) fn everybody(&self) -> [Requester; 4] {
        [self.ada, self.laptop, self.bob, self.carol]
    }

    /// Ada's next message under her key.
    pub(super) fn next(&self) -> Send {
        self.message(self.ada, self.key_id, LAST_COUNTER + 1)
    }

    pub(super) fn message(&self, who: Requester, key_id: KeyId, counter: u64) -> Send {
        let envelope = Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: who.user_id,
            sender_session_id: who.session_id,
            key_id: Some(key_id),
            counter: Counter::saturating(counter),
            roster_hash: self.loaded.roster_hash,
            seen: Seen { seq: self.loaded.last_seq, log_hash: self.loaded.log_hash },
            attachments: Vec::new(),
            data: Some(Blob(Bytes::from_static(b"sealed"))),
            purged: None,
            signature: Signature([0; 64]),
        };
        Send { chat_id: self.chat_id, envelope, new_key: None, add_copies: Vec::new(), archive: None }
    }

    /// An edit or deletion by somebody, rightly signed.
    pub(super) fn revision(&self, who: Requester, kind: MessageKind, revision: u64) -> Send {
        let mut send = self.message(who, self.key_id, LAST_COUNTER + 1);
        send.envelope.kind = kind;
        send.envelope.revision = Revision::saturating(revision);
        if kind == MessageKind::Delete {
            send.envelope.key_id = None;
            send.envelope.counter = Counter::default();
            send.envelope.data = None;
        }
        self.sign(send)
    }

    pub(super) fn sign(&self, mut send: Send) -> Send {
        send.envelope.signature = Stamp::sign(&send.envelope.signed_bytes(self.chat_id));
        send
    }

    /// A message of somebody's with one later revision, that all may read.
    pub(super) fn target(&self, by: Requester) -> MessageHead {
        MessageHead {
            sender_id: by.user_id,
            first_seq: Seq::saturating(5),
            revision: Revision::saturating(1),
            is_deleted: false,
        }
    }
}

pub(super) fn copies_for(recipients: &[Requester]) -> Vec<KeyCopy> {
    let copy = |who: &Requester| KeyCopy { session_id: who.session_id, key: WrappedKey([2; WrappedKey::LENGTH]) };
    recipients.iter().map(copy).collect()
}

/// What a decision is, in a form to compare.
pub(super) fn submit(state: &mut ChatState, who: Requester, send: &Send) -> Decision {
    state.submit(Timestamp::saturating(NOW), who, &Stamp, send, None)
}

pub(super) fn revise(state: &mut ChatState, who: Requester, send: &Send, target: Option<MessageHead>) -> Decision {
    state.submit(Timestamp::saturating(NOW), who, &Stamp, send, target.as_ref())
}

pub(super) trait Decided {
    fn appended(self) -> Item;
    fn stored_key(self) -> (Item, Refusal);
    fn refused(self) -> Refusal;
}

impl Decided for Decision {
    fn appended(self) -> Item {
        match self {
            Self::Append(item) => *item,
            other => panic!("{other:?}"),
        }
    }

    fn stored_key(self) -> (Item, Refusal) {
        match self {
            Self::StoreKey(item, refusal) => (*item, refusal),
            other => panic!("{other:?}"),
        }
    }

    fn refused(self) -> Refusal {
        match self {
            Self::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

/// A message is refused, for this reason, and nothing has changed: the next good one is taken.
pub(super) fn is_refused(scene: &Scene, who: Requester, send: &Send) -> (ErrorCode, ErrorDetails) {
    let mut state = scene.state();
    let before = format!("{state:?}");
    let refusal = submit(&mut state, who, send).refused();
    assert_eq!(format!("{state:?}"), before, "C3");
    (refusal.code, refusal.details.map(|details| *details).unwrap_or_default())
}
