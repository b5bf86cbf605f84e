//! Keeps the sender keys of a chat as they were offered, and judges each use of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::crypto::{Secret, wrap};
use crate::protocol::binary::{Hash, SigningKey, WrappedKey};
use crate::protocol::frame::OwnKey;
use crate::protocol::ids::{ChatId, Counter, Epoch, KeyId, SessionId};
use crate::protocol::keys::{PreviousKey, SignedAnnouncement, commitment};

/// Keys that were offered and not used yet, at most: a server that offers more is not believed.
const OFFERED_MAX: usize = 100_000;

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
    copy: Option<WrappedKey>,
    secret: Option<Secret>,
}

/// One use of a key by a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) chat_id: ChatId,
    pub(crate) key_id: KeyId,
    pub(crate) sender: SessionId,
    pub(crate) signing_key: SigningKey,
    pub(crate) counter: Counter,
    /// The chat's epoch at the message.
    pub(crate) epoch: Epoch,
    /// Whether messages under the key may have come before this log begins.
    pub(crate) may_have_begun_before: bool,
}

/// The sender keys of a chat.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ReceivedKeys(BTreeMap<KeyId, ReceivedKey>);

impl ReceivedKeys {
    /// Takes a key as the server shows it; the first announcement of an id stays.
    pub(crate) fn offer(&mut self, key: &OwnKey) {
        let announcement = &key.announcement.announcement;
        let offered = self.0.len();
        match self.0.get_mut(&announcement.key_id) {
            Some(ReceivedKey::Offered(known)) if known.copy.is_none() && known.announcement == key.announcement => {
                known.copy = key.key;
            }
            Some(ReceivedKey::Accepted(known)) if known.secret.is_none() => known.copy = key.key.or(known.copy),
            Some(_) => {}
            None if offered >= OFFERED_MAX => {}
            None => {
                let offered = Offered { announcement: key.announcement.clone(), copy: key.key };
                self.0.insert(announcement.key_id, ReceivedKey::Offered(Box::new(offered)));
            }
        }
    }

    /// Whether a message under this key could be opened, as far as can be told before.
    pub(crate) fn has_copy(&self, key_id: KeyId) -> bool {
        match self.0.get(&key_id) {
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
        let known_before = previous.and_then(|previous| match self.0.get(&previous.key_id) {
            Some(ReceivedKey::Accepted(known))
                if known.session_id == used.sender && known.next != Counter::default() =>
            {
                Some((known.next, previous.last_counter.next()))
            }
            _ => None,
        });
        let Some(ReceivedKey::Accepted(key)) = self.0.get_mut(&used.key_id) else {
            return Err(VerificationFailure::Announcement);
        };
        if key.session_id != used.sender {
            return Err(VerificationFailure::Announcement);
        }
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

    /// The key's secret, opened and compared with its commitment at first.
    pub(crate) fn secret(&mut self, used: &Use, me: &Me) -> Result<Secret, VerificationFailure> {
        let Some(ReceivedKey::Accepted(key)) = self.0.get_mut(&used.key_id) else {
            return Err(VerificationFailure::NoCopy);
        };
        if let Some(secret) = &key.secret {
            return Ok(secret.clone());
        }
        let copy = key.copy.ok_or(VerificationFailure::NoCopy)?;
        let secret = open_copy(&copy, &key.commitment, used, me)?;
        key.secret = Some(secret.clone());
        key.copy = None;
        Ok(secret)
    }

    /// The secret of the key of a signal. Nothing is noted: what a key's first message is judged by must not be used up
    /// by a signal.
    pub(crate) fn secret_for_signal(&self, used: &Use, me: &Me) -> Result<Secret, VerificationFailure> {
        let (session_id, epoch, commits_to, copy, secret) = match self.0.get(&used.key_id) {
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
        open_copy(&copy, &commits_to, used, me)
    }

    /// Checks an offered key's announcement at its first use, and says what it names as the key before.
    fn accept(&mut self, used: &Use) -> Result<Option<PreviousKey>, VerificationFailure> {
        let Some(ReceivedKey::Offered(offered)) = self.0.get(&used.key_id) else { return Ok(None) };
        let announcement = &offered.announcement.announcement;
        let is_own = announcement.session_id == used.sender;
        if !is_own || !offered.announcement.verifies(used.chat_id, &used.signing_key) {
            return Err(VerificationFailure::Announcement);
        }
        let next = if used.may_have_begun_before { Counter::default() } else { Counter::saturating(1) };
        let accepted = Accepted {
            session_id: used.sender,
            epoch: announcement.epoch,
            commitment: announcement.commitment,
            next,
            copy: offered.copy,
            secret: None,
        };
        let previous = announcement.previous;
        self.0.insert(used.key_id, ReceivedKey::Accepted(accepted));
        Ok(previous)
    }
}

/// Opens a copy and compares it with what was announced.
fn open_copy(copy: &WrappedKey, commits_to: &Hash, used: &Use, me: &Me) -> Result<Secret, VerificationFailure> {
    let recipient = (me.session_id, &me.secrets);
    let secret = wrap::open_sender_key(copy, used.chat_id, used.key_id, used.sender, recipient)
        .map_err(|_| VerificationFailure::BadCopy)?;
    if commitment(secret.expose()) == *commits_to { Ok(secret) } else { Err(VerificationFailure::BadCopy) }
}
