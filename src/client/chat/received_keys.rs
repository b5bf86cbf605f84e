//! Keeps the sender keys of a chat as they were offered, and judges each use of one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::crypto::{Secret, wrap};
use crate::protocol::binary::{Hash, SigningKey, WrappedKey};
use crate::protocol::canonical::sha256;
use crate::protocol::frame::OwnKey;
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, Seq, SessionId};
use crate::protocol::keys::{CopyRefusal, PreviousKey, RefusalReason, SignedAnnouncement, commitment};

/// Keys that were offered and not used yet, at most: a server that offers more is not believed.
const OFFERED_MAX: usize = 100_000;

/// Bad copies that are remembered, at most.
const BAD_MAX: usize = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum ReceivedKey {
    /// Nothing is checked yet: the sender's session may not be folded.
    Offered(Box<Offered>),
    /// The announcement is its session's.
    Accepted(Accepted),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Offered {
    announcement: SignedAnnouncement,
    copy: Option<WrappedKey>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Accepted {
    session_id: SessionId,
    epoch: Epoch,
    commitment: Hash,
    next: Counter,
    /// The first message under it that was seen here.
    #[serde(default)]
    first_seq: Option<Seq>,
    copy: Option<WrappedKey>,
    secret: Option<Secret>,
}

/// One use of a key by a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) chat_id: ChatId,
    pub(crate) key_id: KeyId,
    /// The place of the message.
    pub(crate) seq: Seq,
    pub(crate) sender: SessionId,
    pub(crate) signing_key: SigningKey,
    pub(crate) counter: Counter,
    /// The chat's epoch at the message.
    pub(crate) epoch: Epoch,
    /// Whether messages under the key may have come before this log begins.
    pub(crate) may_have_begun_before: bool,
}

/// A key that this session can open, and may hand on.
#[derive(Debug, Clone)]
pub(crate) struct HeldKey {
    pub(crate) key_id: KeyId,
    /// Whose it is.
    pub(crate) sender: SessionId,
    pub(crate) epoch: Epoch,
    /// The first message under it that was seen here.
    pub(crate) first_seq: Option<Seq>,
    pub(crate) secret: Secret,
}

/// The sender keys of a chat.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ReceivedKeys {
    keys: BTreeMap<KeyId, ReceivedKey>,
    /// Copies that turned out to be bad: they are not taken again.
    #[serde(skip)]
    bad: BTreeSet<(KeyId, Hash)>,
    /// Of those, what the server was not told yet.
    #[serde(skip)]
    refusals: Vec<(KeyId, Hash, RefusalReason)>,
    /// A copy has come since somebody looked.
    #[serde(skip)]
    has_news: bool,
}

impl ReceivedKeys {
    /// Takes a key as the server shows it; the first announcement of an id stays.
    pub(crate) fn offer(&mut self, key: &OwnKey) {
        let announcement = &key.announcement.announcement;
        if !self.keys.contains_key(&announcement.key_id) && self.is_full_of_offers() {
            return;
        }
        let is_good = |copy: &WrappedKey| !self.bad.contains(&(announcement.key_id, sha256(copy.as_ref())));
        let copy = key.key.filter(is_good);
        self.has_news |= copy.is_some();
        match self.keys.get_mut(&announcement.key_id) {
            Some(ReceivedKey::Offered(known)) if known.copy.is_none() && known.announcement == key.announcement => {
                known.copy = copy;
            }
            Some(ReceivedKey::Accepted(known)) if known.secret.is_none() => known.copy = copy.or(known.copy),
            Some(_) => {}
            None => {
                let offered = Offered { announcement: key.announcement.clone(), copy };
                self.keys.insert(announcement.key_id, ReceivedKey::Offered(Box::new(offered)));
            }
        }
    }

    /// Whether no more keys are taken until some of those that were offered are used. Keys that were used do not count:
    /// a chat may have any number of them in its life.
    fn is_full_of_offers(&self) -> bool {
        let is_offered = |key: &&ReceivedKey| matches!(key, ReceivedKey::Offered(_));
        self.keys.len() >= OFFERED_MAX && self.keys.values().filter(is_offered).count() >= OFFERED_MAX
    }

    /// Whether a message under this key could be opened, as far as can be told before.
    pub(crate) fn has_copy(&self, key_id: KeyId) -> bool {
        match self.keys.get(&key_id) {
            Some(ReceivedKey::Offered(offered)) => offered.copy.is_some(),
            Some(ReceivedKey::Accepted(accepted)) => accepted.secret.is_some() || accepted.copy.is_some(),
            None => false,
        }
    }

    /// Judges announcement, epoch and counter of a use, and takes the counter.
    ///
    /// The counter is taken even if the message fails elsewhere, since the server took it too.
    pub(crate) fn judge(&mut self, used: &Use) -> Result<(), VerificationFailure> {
        let previous = self.accept(used)?;
        let known_before = previous.and_then(|previous| match self.keys.get(&previous.key_id) {
            Some(ReceivedKey::Accepted(known))
                if known.session_id == used.sender && known.next != Counter::default() =>
            {
                Some((known.next, previous.last_counter.next()))
            }
            _ => None,
        });
        let Some(ReceivedKey::Accepted(key)) = self.keys.get_mut(&used.key_id) else {
            return Err(VerificationFailure::Announcement);
        };
        if key.session_id != used.sender {
            return Err(VerificationFailure::Announcement);
        }
        key.first_seq.get_or_insert(used.seq);
        let expected = key.next;
        let is_unknown = expected == Counter::default();
        key.next = used.counter.next();
        if key.epoch != used.epoch {
            return Err(VerificationFailure::KeyEpoch { key: key.epoch, chat: used.epoch });
        }
        if !is_unknown && used.counter != expected || used.counter == Counter::default() {
            return Err(VerificationFailure::Counter { expected, found: used.counter });
        }
        match known_before {
            Some((expected, found)) if expected != found => Err(VerificationFailure::Counter { expected, found }),
            _ => Ok(()),
        }
    }

    /// The key's secret, opened and compared with its commitment at first. A copy that is bad is put down to be
    /// refused, and not looked at again.
    pub(crate) fn secret(&mut self, chat_id: ChatId, key_id: KeyId, me: &Me) -> Result<Secret, VerificationFailure> {
        let Some(ReceivedKey::Accepted(key)) = self.keys.get_mut(&key_id) else {
            return Err(VerificationFailure::NoCopy);
        };
        if let Some(secret) = &key.secret {
            return Ok(secret.clone());
        }
        let Some(copy) = key.copy else {
            let was_bad = self.bad.range((key_id, Hash([0; 32]))..=(key_id, Hash([0xff; 32]))).next().is_some();
            return Err(if was_bad { VerificationFailure::BadCopy } else { VerificationFailure::NoCopy });
        };
        let opened = open_copy(&copy, &key.commitment, (chat_id, key_id, key.session_id), me);
        key.copy = None;
        match opened {
            Ok(secret) => {
                key.secret = Some(secret.clone());
                Ok(secret)
            }
            Err(reason) => {
                self.put_down(key_id, &copy, reason);
                Err(VerificationFailure::BadCopy)
            }
        }
    }

    /// Whether a copy has come since the last call.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    fn put_down(&mut self, key_id: KeyId, copy: &WrappedKey, reason: RefusalReason) {
        let copy_hash = sha256(copy.as_ref());
        if self.bad.len() < BAD_MAX && self.bad.insert((key_id, copy_hash)) {
            self.refusals.push((key_id, copy_hash, reason));
        }
    }

    /// Takes out what is to be said of bad copies.
    pub(crate) fn take_refusals(&mut self, me: &Me) -> Vec<CopyRefusal> {
        let refusal =
            |(key_id, copy_hash, reason)| CopyRefusal { key_id, session_id: me.session_id, reason, copy_hash };
        self.refusals.drain(..).map(refusal).collect()
    }

    /// A key that this session can open.
    pub(crate) fn held(&mut self, chat_id: ChatId, key_id: KeyId, me: &Me) -> Option<HeldKey> {
        let secret = self.secret(chat_id, key_id, me).ok()?;
        match self.keys.get(&key_id) {
            Some(ReceivedKey::Accepted(key)) => {
                Some(HeldKey { key_id, sender: key.session_id, epoch: key.epoch, first_seq: key.first_seq, secret })
            }
            _ => None,
        }
    }

    /// Every key that this session can open.
    pub(crate) fn all_held(&mut self, chat_id: ChatId, me: &Me) -> Vec<HeldKey> {
        let key_ids: Vec<KeyId> = self.keys.keys().copied().collect();
        key_ids.into_iter().filter_map(|key_id| self.held(chat_id, key_id, me)).collect()
    }

    /// The secret of the key of a signal. Nothing is noted: what a key's first message is judged by must not be used up
    /// by a signal.
    pub(crate) fn secret_for_signal(&self, used: &Use, me: &Me) -> Result<Secret, VerificationFailure> {
        let (session_id, epoch, commits_to, copy, secret) = match self.keys.get(&used.key_id) {
            Some(ReceivedKey::Accepted(key)) => (key.session_id, key.epoch, key.commitment, key.copy, &key.secret),
            Some(ReceivedKey::Offered(offered)) => {
                if !offered.announcement.verifies(used.chat_id, &used.signing_key) {
                    return Err(VerificationFailure::Announcement);
                }
                let announcement = &offered.announcement.announcement;
                (announcement.session_id, announcement.epoch, announcement.commitment, offered.copy, &None)
            }
            None => return Err(VerificationFailure::NoCopy),
        };
        if session_id != used.sender {
            return Err(VerificationFailure::Announcement);
        }
        if epoch != used.epoch {
            return Err(VerificationFailure::KeyEpoch { key: epoch, chat: used.epoch });
        }
        if let Some(secret) = secret {
            return Ok(secret.clone());
        }
        let copy = copy.ok_or(VerificationFailure::NoCopy)?;
        let key = (used.chat_id, used.key_id, used.sender);
        open_copy(&copy, &commits_to, key, me).map_err(|_| VerificationFailure::BadCopy)
    }

    /// Checks an offered key's announcement at its first use, and says what it names as the key before.
    fn accept(&mut self, used: &Use) -> Result<Option<PreviousKey>, VerificationFailure> {
        let Some(ReceivedKey::Offered(offered)) = self.keys.get(&used.key_id) else { return Ok(None) };
        let announcement = &offered.announcement.announcement;
        let is_own = announcement.session_id == used.sender;
        if !is_own || !offered.announcement.verifies(used.chat_id, &used.signing_key) {
            if let Some(copy) = offered.copy {
                self.put_down(used.key_id, &copy, RefusalReason::Announcement);
            }
            return Err(VerificationFailure::Announcement);
        }
        let next = if used.may_have_begun_before { Counter::default() } else { Counter::saturating(1) };
        let accepted = Accepted {
            session_id: used.sender,
            epoch: announcement.epoch,
            commitment: announcement.commitment,
            next,
            first_seq: None,
            copy: offered.copy,
            secret: None,
        };
        let previous = announcement.previous;
        self.keys.insert(used.key_id, ReceivedKey::Accepted(accepted));
        Ok(previous)
    }
}

/// Opens a copy and compares it with what was announced.
fn open_copy(
    copy: &WrappedKey,
    commits_to: &Hash,
    (chat_id, key_id, sender): (ChatId, KeyId, SessionId),
    me: &Me,
) -> Result<Secret, RefusalReason> {
    let secret = wrap::open_sender_key(copy, chat_id, key_id, sender, (me.session_id, &me.secrets))
        .map_err(|_| RefusalReason::DoesNotOpen)?;
    if commitment(secret.expose()) == *commits_to { Ok(secret) } else { Err(RefusalReason::Commitment) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::Signature;
    use crate::protocol::keys::Announcement;

    fn key() -> OwnKey {
        let announcement = Announcement {
            key_id: KeyId::generate(),
            session_id: SessionId::generate(),
            epoch: Epoch::saturating(1),
            commitment: Hash([0; 32]),
            previous: None,
        };
        let announcement = SignedAnnouncement { announcement, signature: Signature([0; 64]) };
        OwnKey { announcement, key: Some(WrappedKey([0; 80])) }
    }

    #[test]
    fn keys_that_were_used_leave_room_for_others_and_offers_are_bounded() {
        let mut keys = ReceivedKeys::default();
        for _ in 0..OFFERED_MAX {
            let used = Accepted {
                session_id: SessionId::generate(),
                epoch: Epoch::saturating(1),
                commitment: Hash([0; 32]),
                next: Counter::saturating(1),
                first_seq: None,
                copy: None,
                secret: None,
            };
            keys.keys.insert(KeyId::generate(), ReceivedKey::Accepted(used));
        }
        let new = key();
        keys.offer(&new);
        assert!(keys.has_copy(new.announcement.announcement.key_id), "a chat of many years goes on");

        let mut keys = ReceivedKeys::default();
        for _ in 0..OFFERED_MAX {
            keys.offer(&key());
        }
        let beyond = key();
        keys.offer(&beyond);
        assert!(!keys.has_copy(beyond.announcement.announcement.key_id));
    }
}
