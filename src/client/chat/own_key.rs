//! This session's sender key of one chat: made, wrapped to the fold's recipients, archived, spent.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::log::ChatLog;
use crate::client::keyring::Me;
use crate::crypto::{Secret, group_key, wrap};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::{NewKey, StageCopies};
use crate::protocol::group_key::{Archive, RecoveryKey};
use crate::protocol::ids::{Counter, Epoch, KeyId, SessionId, Timestamp};
use crate::protocol::keys::{Announcement, KeyCopy, PreviousKey, SignedAnnouncement, commitment, staged_hash};
use crate::protocol::limits::COPIES_PER_FRAME_MAX;

/// How long and how often a key may serve, as the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    pub(crate) messages_max: u64,
    pub(crate) messages_max_large: u64,
    pub(crate) recipients_large: u64,
    pub(crate) age_max_micros: u64,
}

impl KeyLimits {
    fn messages(&self, recipients: usize) -> u64 {
        let is_large = recipients as u64 > self.recipients_large;
        if is_large { self.messages_max_large } else { self.messages_max }
    }
}

/// A sender key of one's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnSenderKey {
    pub(crate) secret: Secret,
    pub(crate) announcement: SignedAnnouncement,
    pub(crate) created_at: Timestamp,
    /// The counter of the next message.
    pub(crate) next: Counter,
    /// Sessions that have a copy, or get one with what is being sent.
    covered: BTreeSet<SessionId>,
    /// Copies that the server does not have for certain; empty once it has them.
    pending: Vec<KeyCopy>,
    /// The recovery key to which it is archived, or is with what is being sent.
    #[serde(default)]
    archived_to: Option<RecoveryKey>,
    /// The archive, until the server has it for certain.
    #[serde(default)]
    archive: Option<Archive>,
    is_stored: bool,
    is_retired: bool,
}

/// What goes with a message besides the message.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) new_key: Option<NewKey>,
    pub(crate) add_copies: Vec<KeyCopy>,
    pub(crate) archive: Option<Archive>,
}

impl OwnSenderKey {
    /// Makes a key for the recipients of this moment.
    pub(crate) fn generate(fold: &ChatFold, me: &Me, previous: Option<PreviousKey>, now: Timestamp) -> Self {
        let secret = Secret::generate();
        let announcement = Announcement {
            key_id: KeyId::generate(),
            session_id: me.session_id,
            epoch: fold.epoch(),
            commitment: commitment(secret.expose()),
            previous,
        };
        let signature = me.secrets.sign(&announcement.signed_bytes(fold.chat_id()));
        let mut key = Self {
            secret,
            announcement: SignedAnnouncement { announcement, signature },
            created_at: now,
            next: Counter::saturating(1),
            covered: BTreeSet::new(),
            pending: Vec::new(),
            archived_to: None,
            archive: None,
            is_stored: false,
            is_retired: false,
        };
        key.cover(fold, me);
        key
    }

    pub(crate) const fn key_id(&self) -> KeyId {
        self.announcement.announcement.key_id
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.announcement.announcement.epoch
    }

    pub(crate) const fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// What the next key says of this one.
    pub(crate) fn as_previous(&self) -> PreviousKey {
        PreviousKey { key_id: self.key_id(), last_counter: Counter::saturating(self.next.get().saturating_sub(1)) }
    }

    /// Whether a message may still be sealed under it.
    pub(crate) fn is_usable(&self, fold: &ChatFold, limits: &KeyLimits, now: Timestamp) -> bool {
        let age = now.get().saturating_sub(self.created_at.get());
        // A hundredth early: the server's clock judges, and a refusal costs a round trip.
        let age_max = limits.age_max_micros - limits.age_max_micros / 100;
        let missing = fold.recipients().keys().filter(|session_id| !self.covered.contains(session_id)).count();
        !self.is_retired
            && self.epoch() == fold.epoch()
            && age < age_max
            && self.next.get() <= limits.messages(fold.recipients().len())
            && (!self.is_stored || self.pending.len() + missing <= COPIES_PER_FRAME_MAX)
    }

    /// Whether the server has it with a copy for each recipient, so that a signal may go under it: how many messages it
    /// has carried does not count.
    pub(crate) fn covers(&self, fold: &ChatFold, limits: &KeyLimits, now: Timestamp) -> bool {
        self.is_stored
            && !self.is_retired
            && self.pending.is_empty()
            && self.archive.is_none()
            && self.archived_to == fold.recovery_key()
            && fold.generation_due().is_none()
            && self.epoch() == fold.epoch()
            && now.get().saturating_sub(self.created_at.get()) < limits.age_max_micros
            && fold.recipients().keys().all(|session_id| self.covered.contains(session_id))
    }

    /// Wraps to the recipients that have no copy yet, and archives to the chat's recovery key.
    pub(crate) fn cover(&mut self, fold: &ChatFold, me: &Me) {
        self.archive_to(fold, me);
        for (session_id, recipient) in fold.recipients() {
            if self.covered.contains(session_id) {
                continue;
            }
            let to = (*session_id, &recipient.public_key);
            // The fold takes no session with an unsound key, so this does not fail; the server would ask again.
            if let Ok(copy) = wrap::sender_key(&self.secret, fold.chat_id(), self.key_id(), me.session_id, to) {
                self.covered.insert(*session_id);
                self.pending.push(copy);
            }
        }
    }

    /// Seals the key to the recovery key of now, unless that was done.
    fn archive_to(&mut self, fold: &ChatFold, me: &Me) {
        let recovery = fold.recovery_key();
        if self.archived_to == recovery {
            return;
        }
        let seal = |recovery: RecoveryKey| {
            group_key::archive(&self.secret, fold.chat_id(), self.key_id(), me.session_id, &recovery)
        };
        // The fold takes no unsound recovery key, so this does not fail; the server would ask for it.
        self.archive = recovery.and_then(|recovery| seal(recovery).ok());
        self.archived_to = recovery;
    }

    /// The server has the key, and all copies that went with it.
    pub(crate) fn stored(&mut self) {
        self.is_stored = true;
        self.pending.clear();
        self.archive = None;
    }

    /// The server has the key but no copy for these.
    ///
    /// Further copies of a stored key go again as they are until a message is taken with them: whether a
    /// refused frame left its copies there is not said, and the same copy twice is one.
    pub(crate) fn lacks(&mut self, missing: &[SessionId]) {
        if !self.is_stored {
            self.is_stored = true;
            self.pending.clear();
        }
        self.pending.retain(|copy| !missing.contains(&copy.session_id));
        for session_id in missing {
            self.covered.remove(session_id);
        }
    }

    /// The server has no archive of the key for the recovery key of now.
    pub(crate) fn lacks_archive(&mut self) {
        self.archived_to = None;
        self.archive = None;
    }

    /// The server has nothing of the key: everything goes again, under the same announcement.
    pub(crate) fn lost(&mut self) {
        self.is_stored = false;
        self.pending.clear();
        self.covered.clear();
        self.lacks_archive();
    }

    pub(crate) fn retire(&mut self) {
        self.is_retired = true;
    }

    /// What goes with a message: the whole key, or further copies; and the archive that the server lacks.
    pub(crate) fn parcel(&self) -> Parcel {
        let archive = self.archive.clone();
        if self.is_stored {
            return Parcel { new_key: None, add_copies: self.pending.clone(), archive };
        }
        let announcement = self.announcement.clone();
        let new_key = if self.pending.len() > COPIES_PER_FRAME_MAX {
            let staged = Some(staged_hash(self.pending.iter()));
            NewKey { announcement, copies: Vec::new(), staged }
        } else {
            NewKey { announcement, copies: self.pending.clone(), staged: None }
        };
        Parcel { new_key: Some(new_key), add_copies: Vec::new(), archive }
    }

    /// A part of the copies that go ahead; none if all fit in the frame, or past the last part.
    pub(crate) fn part(&self, log: &ChatLog, part: u32) -> Option<StageCopies> {
        if self.is_stored || self.pending.len() <= COPIES_PER_FRAME_MAX {
            return None;
        }
        let parts = u32::try_from(self.pending.len().div_ceil(COPIES_PER_FRAME_MAX)).ok()?;
        let copies = self.pending.chunks(COPIES_PER_FRAME_MAX).nth(usize::try_from(part).ok()?)?.to_vec();
        Some(StageCopies { chat_id: log.fold().chat_id(), key_id: self.key_id(), part, parts, copies })
    }
}
