//! Keeps the sender keys of a chat as they were offered, and judges each use of one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::crypto::Secret;
use crate::protocol::binary::{Hash, SigningKey, WrappedKey};
use crate::protocol::canonical::sha256;
use crate::protocol::frame::{BackedUpCopy, OwnKey};
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, Seq, SessionId};
use crate::protocol::keys::{CopyRefusal, PreviousKey, RefusalReason, SignedAnnouncement, commitment};
use crate::protocol::limits::BACKUPS_MAX;

/// Keys that were offered and not used yet, at most: a server that offers more is not believed.
const OFFERED_MAX: usize = 100_000;

/// Bad copies that are remembered, at most.
const BAD_MAX: usize = 10_000;

/// Recovered keys that were not used yet, at most.
const RECOVERED_MAX: usize = 100_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
enum ReceivedKey {
    /// Nothing is checked yet: the sender's session may not be folded.
    Offered(Box<Offered>),
    /// The announcement is its session's.
    Accepted(Box<Accepted>),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Offered {
    announcement: SignedAnnouncement,
    copy: Option<WrappedKey>,
    /// Copies for older sessions of this user.
    #[serde(default)]
    backed_up: Vec<BackedUpCopy>,
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
    #[serde(default)]
    backed_up: Vec<BackedUpCopy>,
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
    /// Secrets that came from archives, of keys that no message here was judged by yet.
    #[serde(default)]
    recovered: BTreeMap<KeyId, Secret>,
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
        let backed_up = || key.backed_up.iter().take(BACKUPS_MAX).cloned().collect();
        self.has_news |= copy.is_some() || !key.backed_up.is_empty();
        match self.keys.get_mut(&announcement.key_id) {
            Some(ReceivedKey::Offered(known)) if known.copy.is_none() && known.announcement == key.announcement => {
                known.copy = copy;
                known.backed_up = backed_up();
            }
            Some(ReceivedKey::Accepted(known)) if known.secret.is_none() => {
                known.copy = copy.or(known.copy);
                known.backed_up = backed_up();
            }
            Some(_) => {}
            None => {
                let backed_up = backed_up();
                let offered = Offered { announcement: key.announcement.clone(), copy, backed_up };
                self.keys.insert(announcement.key_id, ReceivedKey::Offered(Box::new(offered)));
            }
        }
    }

    /// Takes a key's secret from another source than a copy. `false`: it is not the announced key, or there are too many.
    pub(crate) fn give(&mut self, key_id: KeyId, secret: &Secret) -> bool {
        if let Some(ReceivedKey::Accepted(key)) = self.keys.get_mut(&key_id) {
            if commitment(secret.expose()) != key.commitment {
                return false;
            }
            if key.secret.is_none() {
                key.secret = Some(secret.clone());
                self.has_news = true;
            }
            return true;
        }
        if self.recovered.len() >= RECOVERED_MAX && !self.recovered.contains_key(&key_id) {
            return false;
        }
        self.recovered.insert(key_id, secret.clone());
        self.has_news = true;
        true
    }

    /// A key's secret, if it was opened or recovered.
    pub(crate) fn known(&self, key_id: KeyId) -> Option<&Secret> {
        match self.keys.get(&key_id) {
            Some(ReceivedKey::Accepted(key)) => key.secret.as_ref(),
            _ => self.recovered.get(&key_id),
        }
    }

    /// Keys without which messages that came cannot be opened.
    pub(crate) fn locked(&self) -> impl Iterator<Item = KeyId> {
        self.keys.keys().copied().filter(|key_id| !self.has_copy(*key_id))
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
            Some(ReceivedKey::Offered(offered)) => {
                offered.copy.is_some() || !offered.backed_up.is_empty() || self.recovered.contains_key(&key_id)
            }
            Some(ReceivedKey::Accepted(accepted)) => {
                accepted.secret.is_some() || accepted.copy.is_some() || !accepted.backed_up.is_empty()
            }
            None => self.recovered.contains_key(&key_id),
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
        let name = (chat_id, key_id, key.session_id);
        let (copy, backed_up) = (key.copy.take(), std::mem::take(&mut key.backed_up));
        let opened = copy.map(|copy| open_copy(&copy, &key.commitment, name, me).map_err(|reason| (copy, reason)));
        // Those for older sessions were made long ago, some of them for keys that this session was not handed: that they
        // do not open is nobody's fault.
        let older = || backed_up.iter().find_map(|copy| open_backed_up(copy, &key.commitment, name, me));
        let refused = match opened {
            Some(Ok(secret)) => {
                key.secret = Some(secret.clone());
                return Ok(secret);
            }
            Some(Err(refused)) => Some(refused),
            None => None,
        };
        let from_older = older();
        key.secret.clone_from(&from_older);
        if let Some((copy, reason)) = refused {
            self.put_down(key_id, &copy, reason);
        }
        from_older.ok_or_else(|| {
            let was_bad = self.bad.range((key_id, Hash([0; 32]))..=(key_id, Hash([0xff; 32]))).next().is_some();
            if was_bad { VerificationFailure::BadCopy } else { VerificationFailure::NoCopy }
        })
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
        let recovered = self.recovered.get(&used.key_id);
        let accepted = Accepted {
            session_id: used.sender,
            epoch: announcement.epoch,
            commitment: announcement.commitment,
            next,
            first_seq: None,
            copy: offered.copy,
            backed_up: offered.backed_up.clone(),
            secret: recovered.filter(|secret| commitment(secret.expose()) == announcement.commitment).cloned(),
        };
        let previous = announcement.previous;
        self.recovered.remove(&used.key_id);
        self.keys.insert(used.key_id, ReceivedKey::Accepted(Box::new(accepted)));
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
    let secret = me.open_copy(copy, chat_id, key_id, sender).map_err(|_| RefusalReason::DoesNotOpen)?;
    if commitment(secret.expose()) == *commits_to { Ok(secret) } else { Err(RefusalReason::Commitment) }
}

/// Opens a copy that was made for an older session and compares it with what was announced.
fn open_backed_up(
    copy: &BackedUpCopy,
    commits_to: &Hash,
    (chat_id, key_id, sender): (ChatId, KeyId, SessionId),
    me: &Me,
) -> Option<Secret> {
    let secret = me.open_backed_up(copy, chat_id, key_id, sender).ok()?;
    (commitment(secret.expose()) == *commits_to).then_some(secret)
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
        OwnKey { announcement, key: Some(WrappedKey([0; 80])), backed_up: Vec::new() }
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
                backed_up: Vec::new(),
                secret: None,
            };
            keys.keys.insert(KeyId::generate(), ReceivedKey::Accepted(Box::new(used)));
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

    #[test]
    fn p8_a_recovered_key_serves_if_it_is_the_announced_one() {
        let (secret, me) = (Secret::generate(), crate::client::chat::fake::FakeSession::new().me);
        let chat_id = ChatId::generate();
        let announcement = Announcement {
            key_id: KeyId::generate(),
            session_id: me.session_id,
            epoch: Epoch::saturating(1),
            commitment: commitment(secret.expose()),
            previous: None,
        };
        let key_id = announcement.key_id;
        let signature = me.secrets.sign(&announcement.signed_bytes(chat_id));
        let offered =
            OwnKey { announcement: SignedAnnouncement { announcement, signature }, key: None, backed_up: Vec::new() };
        let used = Use {
            chat_id,
            key_id,
            seq: Seq::saturating(1),
            sender: me.session_id,
            signing_key: me.secrets.signing_public_key(),
            counter: Counter::saturating(1),
            epoch: Epoch::saturating(1),
            may_have_begun_before: false,
        };
        // Before its first use and after it, and never another key.
        for is_early in [true, false] {
            for (given, expected) in [(&secret, Ok(())), (&Secret::generate(), Err(VerificationFailure::NoCopy))] {
                let mut keys = ReceivedKeys::default();
                keys.offer(&offered);
                assert_eq!(keys.locked().collect::<Vec<_>>(), [key_id]);
                if is_early {
                    assert!(keys.give(key_id, given) && keys.has_copy(key_id));
                }
                keys.judge(&used).unwrap();
                if !is_early {
                    assert_eq!(keys.give(key_id, given), expected.is_ok());
                }
                assert_eq!(keys.secret(chat_id, key_id, &me).map(|_| ()), expected);
                assert_eq!(keys.known(key_id).is_some(), expected.is_ok());
                let kept = rmp_serde::to_vec_named(&keys).unwrap();
                let again: ReceivedKeys = rmp_serde::from_slice(&kept).unwrap();
                assert_eq!(again.known(key_id).is_some(), expected.is_ok());
            }
        }
    }
}
