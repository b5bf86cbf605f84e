//! What a profile knows and must keep: keys, chain, pins, and a state for each chat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failure::VerificationFailure;
use super::friends::SeenRequests;
use super::user_profile::{Noted, OwnKey};
use crate::crypto::link_code::LinkCode;
use crate::crypto::{ExchangeSecret, IdentitySecret, OpenError, Secret, SessionSecrets, backup, self_key, wrap};
use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::binary::{ExchangeKey, Hash, IdentityKey, WrappedKey};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::envelope::Seen;
use crate::protocol::frame::BackedUpCopy;
use crate::protocol::ids::{ChangeNo, ChatId, Epoch, InfoKeyId, KeyId, Place, SessionId, Timestamp, UserId, UserKeyId};
use crate::protocol::keys::InfoKeyWrap;
use crate::protocol::limits::BACKUPS_MAX;
use crate::protocol::membership::Actor;
use crate::protocol::strongbox::StrongboxUpload;
use crate::protocol::username::Username;

/// Who this session is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Me {
    pub(crate) user_id: UserId,
    pub(crate) session_id: SessionId,
    pub(crate) identity_key: IdentityKey,
    pub(crate) secrets: SessionSecrets,
    /// The X25519 key that is to replace this session's own: kept before the server is told of it.
    #[serde(default)]
    pub(crate) next: Option<ExchangeSecret>,
    /// X25519 keys with which nobody receives any more, the newest first: those that this session has replaced, and
    /// those of older sessions that it was handed.
    #[serde(default)]
    pub(crate) older: Vec<OlderKey>,
}

/// An X25519 key that opens what was made for a session, and nothing that is made now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OlderKey {
    pub(crate) session_id: SessionId,
    pub(crate) secret: ExchangeSecret,
}

/// Older keys that are kept, at most; the oldest go first.
const OLDER_MAX: usize = 2 * BACKUPS_MAX;

impl Me {
    pub(crate) const fn new(
        user_id: UserId,
        session_id: SessionId,
        identity_key: IdentityKey,
        secrets: SessionSecrets,
    ) -> Self {
        Self { user_id, session_id, identity_key, secrets, next: None, older: Vec::new() }
    }

    /// The key that replaces this session's own at the next chance; made at the first call.
    pub(crate) fn next_key(&mut self) -> ExchangeKey {
        self.next.get_or_insert_with(ExchangeSecret::generate).public_key()
    }

    /// Takes note of the X25519 key that this session's newest certificate has. Returns whether that is news.
    pub(crate) fn certified(&mut self, public_key: &ExchangeKey) -> bool {
        let Some(next) = self.next.take_if(|next| next.public_key() == *public_key) else { return false };
        let secret = self.secrets.replace_exchange(next);
        self.keep_older(0, OlderKey { session_id: self.session_id, secret });
        true
    }

    /// Keeps a key that was handed over. Returns whether it is news.
    pub(crate) fn was_handed(&mut self, key: OlderKey) -> bool {
        let is_new = !self.older.contains(&key);
        if is_new {
            self.keep_older(self.older.len(), key);
        }
        is_new
    }

    fn keep_older(&mut self, at: usize, key: OlderKey) {
        self.older.insert(at.min(self.older.len()), key);
        self.older.truncate(OLDER_MAX);
    }

    /// Every X25519 key of this session, the newest first: what was made for it opens with one of them.
    fn own_keys(&self) -> impl Iterator<Item = &ExchangeSecret> {
        let older = self.older.iter().filter(|key| key.session_id == self.session_id).map(|key| &key.secret);
        self.next.iter().chain(older)
    }

    /// Opens a copy of a sender key that was made for this session.
    pub(crate) fn open_copy(
        &self,
        copy: &WrappedKey,
        chat_id: ChatId,
        key_id: KeyId,
        sender: SessionId,
    ) -> Result<Secret, OpenError> {
        let id = self.session_id;
        let with = |key| wrap::open_sender_key_with(copy, chat_id, key_id, sender, (id, key)).ok();
        wrap::open_sender_key(copy, chat_id, key_id, sender, (id, &self.secrets))
            .or_else(|error| self.own_keys().find_map(with).ok_or(error))
    }

    /// Opens a wrap of a chat's info key that was made for this session.
    pub(crate) fn open_info_key(&self, wrapped: &InfoKeyWrap, chat_id: ChatId) -> Result<Secret, OpenError> {
        let with = |key| wrap::open_info_key_with(wrapped, chat_id, (self.session_id, key)).ok();
        wrap::open_info_key(wrapped, chat_id, (self.session_id, &self.secrets))
            .or_else(|error| self.own_keys().find_map(with).ok_or(error))
    }

    /// Opens a backup that was made for this session.
    pub(crate) fn open_backup(&self, wrapped: &SessionKeyBackup) -> Result<ExchangeSecret, OpenError> {
        backup::open(wrapped, &self.secrets.exchange_secret())
            .or_else(|error| self.own_keys().find_map(|key| backup::open(wrapped, key).ok()).ok_or(error))
    }

    /// Opens a copy of a sender key that was made for an older session.
    pub(crate) fn open_backed_up(
        &self,
        copy: &BackedUpCopy,
        chat_id: ChatId,
        key_id: KeyId,
        sender: SessionId,
    ) -> Result<Secret, OpenError> {
        let id = copy.session_id;
        let keys = self.older.iter().filter(|key| key.session_id == id);
        keys.map(|key| wrap::open_sender_key_with(&copy.key, chat_id, key_id, sender, (id, &key.secret)))
            .find(Result::is_ok)
            .unwrap_or(Err(OpenError))
    }

    /// This session as the maker of a membership change.
    pub(crate) const fn actor(&self) -> Actor {
        Actor { user_id: self.user_id, session_id: self.session_id, identity_key: self.identity_key }
    }
}

/// How far the account's beginning has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// The request was made and may have reached the server or not.
    Registering,
    /// A live session is to approve.
    Linking(LinkCode),
    /// Logged in by password or recovery code; the certificate was made and may have reached the server or not.
    Certifying,
    /// Ready.
    Ready,
    /// Ready, but the end of the account was asked for and not answered: a login that is refused says it came about.
    Deleting,
    /// The account has ended.
    Deleted,
}

/// An identity as first seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) identity_key: IdentityKey,
    pub(crate) username: Option<Username>,
}

/// What an approving session says of a chat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Anchor {
    pub(crate) chat_id: ChatId,
    pub(crate) place: Seen,
    pub(crate) roster_hash: Hash,
    pub(crate) epoch: Epoch,
    pub(crate) info_keys: BTreeMap<InfoKeyId, Secret>,
}

/// What an approving session hands over, sealed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HandoverContent {
    pub(crate) server_name: String,
    /// Absent where a password protects it.
    #[serde(default)]
    pub(crate) identity: Option<IdentitySecret>,
    /// Its public half; absent in hand-overs of before, which hold the private one.
    #[serde(default)]
    pub(crate) identity_key: Option<IdentityKey>,
    pub(crate) place: Place,
    pub(crate) hash: Hash,
    pub(crate) anchors: Vec<Anchor>,
    pub(crate) pins: BTreeMap<UserId, Pin>,
    /// Absent if the approving session knows none; then it follows from the identity key.
    #[serde(default)]
    pub(crate) self_key: Option<Secret>,
    /// The newest entry that was verified of each other user's chain.
    #[serde(default)]
    pub(crate) chain_heads: BTreeMap<UserId, (Place, Hash)>,
}

/// The account's part of a keyring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) server_url: String,
    pub(crate) server_name: String,
    pub(crate) username: Username,
    pub(crate) phase: Phase,
    pub(crate) me: Me,
    /// Absent where a password protects it, and until a hand-over brings it.
    pub(crate) identity: Option<IdentitySecret>,
    /// What is registered with the account, until it is there.
    #[serde(default)]
    pub(crate) strongbox: Option<StrongboxUpload>,
    pub(crate) certificate: Option<SignedCertificate>,
    /// What the user's own sessions alone hold. Absent until the account is ready, and in profiles of before.
    #[serde(default)]
    pub(crate) self_key: Option<Secret>,
    /// The newest entry of the user's chain that was seen.
    pub(crate) chain: Option<(Place, Hash)>,
    pub(crate) pins: BTreeMap<UserId, Pin>,
    /// The newest entry that was verified of each other user's chain.
    #[serde(default)]
    pub(crate) chain_heads: BTreeMap<UserId, (Place, Hash)>,
    /// Of users' profiles: the newest revision that verified, and its key.
    #[serde(default)]
    pub(crate) profiles: BTreeMap<UserId, Noted>,
    /// One's own info key as a login by password opened it, until it is confirmed.
    #[serde(default)]
    pub(crate) own_key: Option<OwnKey>,
    /// Chats that were handed over and are not folded yet.
    pub(crate) anchors: Vec<Anchor>,
    /// How far the logs of chats that are gone had come. A chat that returns goes on from there.
    #[serde(default)]
    pub(crate) left: BTreeMap<ChatId, Left>,
    /// User keys of this user that were replaced or withdrawn, and when the first chat said so.
    #[serde(default)]
    pub(crate) retired_keys: BTreeMap<UserKeyId, Timestamp>,
    /// Users whose accounts the server said were ended by its operator, and when.
    #[serde(default)]
    pub(crate) removed: BTreeMap<UserId, Timestamp>,
    /// Since when this device has known requests for recovery.
    #[serde(default)]
    pub(crate) seen_requests: SeenRequests,
}

/// How far a log had come when its chat was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) place: Seen,
    pub(crate) epoch: Epoch,
    /// The newest change of members, and its hash.
    pub(crate) change_no: ChangeNo,
    pub(crate) change_hash: Hash,
}

/// Accounts that ended by the operator's word of which this is kept, at most.
const REMOVED_MAX: usize = 10_000;

/// How much later than the word that an account has ended something of its user's may be in another log: the logs are written
/// in one transaction, each with a time of its own.
const REMOVAL_SLACK_MICROS: u64 = 60_000_000;

/// Chats that are gone of which this is kept, at most; the oldest go first.
const LEFT_MAX: usize = 10_000;

impl Account {
    /// Notes how far a chat's log had come.
    pub(crate) fn leave(&mut self, chat_id: ChatId, left: Left) {
        if self.left.get(&chat_id).is_some_and(|known| known.place.seq >= left.place.seq) {
            return;
        }
        self.left.insert(chat_id, left);
        if self.left.len() > LEFT_MAX {
            self.left.pop_first();
        }
    }

    /// Notes that the server said of a user's account that its operator has ended it.
    pub(crate) fn note_removed(&mut self, user_id: UserId, at: Timestamp) {
        let known = self.removed.entry(user_id).or_insert(at);
        *known = at.max(*known);
        if self.removed.len() > REMOVED_MAX {
            let oldest = self.removed.iter().min_by_key(|(_, at)| **at).map(|(user_id, _)| *user_id);
            oldest.map(|user_id| self.removed.remove(&user_id));
        }
    }

    /// Notes a sign that a user's account is there.
    ///
    /// # Errors
    /// [`VerificationFailure::RemovedYetThere`], once, if the server said before that it had ended: nobody signs that word,
    /// and by it alone a server could take a member out of one chat.
    pub(crate) fn note_life(&mut self, user_id: UserId, at: Timestamp) -> Result<(), VerificationFailure> {
        let is_later = |removed: &Timestamp| at > removed.plus_micros(REMOVAL_SLACK_MICROS);
        if !self.removed.get(&user_id).is_some_and(is_later) {
            return Ok(());
        }
        self.removed.remove(&user_id);
        Err(VerificationFailure::RemovedYetThere(user_id))
    }

    /// Notes what a chat says of this user's own user key: which it was, and which it is from now on.
    ///
    /// # Errors
    /// [`VerificationFailure::OwnUserKey`] if it is one that had been replaced or withdrawn before. All chats are told
    /// in one transaction, but not all are read at once: hence the times.
    pub(crate) fn note_user_key(
        &mut self,
        at: Timestamp,
        before: Option<UserKeyId>,
        now: Option<UserKeyId>,
    ) -> Result<(), VerificationFailure> {
        if let Some(before) = before.filter(|before| now != Some(*before)) {
            let retired_at = self.retired_keys.entry(before).or_insert(at);
            *retired_at = at.min(*retired_at);
        }
        match now {
            Some(now) if self.retired_keys.get(&now).is_some_and(|retired_at| *retired_at < at) => {
                Err(VerificationFailure::OwnUserKey(now))
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that an account that is ready has a self key: the one that was handed over, else the one that
    /// every session with the identity key comes to.
    pub(crate) fn complete(&mut self) {
        if self.self_key.is_none() {
            self.self_key = self.identity.as_ref().map(self_key::of_identity);
        }
    }

    /// Compares an identity with the pinned one, or pins it. Returns whether the pins changed.
    ///
    /// # Errors
    /// [`VerificationFailure::IdentityChanged`]; the pin stays.
    pub(crate) fn pin(
        &mut self,
        user_id: UserId,
        identity_key: &IdentityKey,
        username: Option<&Username>,
    ) -> Result<bool, VerificationFailure> {
        if user_id == self.me.user_id {
            let is_own = *identity_key == self.me.identity_key;
            return if is_own { Ok(false) } else { Err(VerificationFailure::IdentityChanged(user_id)) };
        }
        let is_other =
            |name: &Username| self.pins.iter().any(|(id, pin)| *id != user_id && pin.username.as_ref() == Some(name));
        if username.is_some_and(is_other) {
            return Err(VerificationFailure::IdentityChanged(user_id));
        }
        let Some(pin) = self.pins.get_mut(&user_id) else {
            let pin = Pin { identity_key: *identity_key, username: username.cloned() };
            self.pins.insert(user_id, pin);
            return Ok(true);
        };
        if pin.identity_key != *identity_key {
            return Err(VerificationFailure::IdentityChanged(user_id));
        }
        match username {
            Some(name) if pin.username.as_ref() != Some(name) => {
                pin.username = Some(name.clone());
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Forgets all that the account was good for: it has ended.
    pub(crate) fn bury(&mut self) {
        self.phase = Phase::Deleted;
        self.identity = None;
        self.certificate = None;
        self.me.secrets = SessionSecrets::generate();
        self.me.next = None;
        self.me.older.clear();
        self.pins.clear();
        self.chain_heads.clear();
        self.profiles.clear();
        self.own_key = None;
        self.anchors.clear();
        self.left.clear();
        self.retired_keys.clear();
        self.seen_requests = SeenRequests::default();
    }

    /// Whether there may be keys of older sessions that this one was not handed yet. The account's first session has no
    /// older one.
    pub(crate) fn may_be_handed_keys(&self) -> bool {
        let is_first = self.certificate.as_ref().is_none_or(|signed| signed.certificate.place.get() == 1);
        let is_handed = self.me.older.iter().any(|key| key.session_id != self.me.session_id);
        !is_first && !is_handed
    }

    /// Takes note of the newest certificate of this session. Returns whether it has replaced a key.
    pub(crate) fn take_own_certificate(&mut self, signed: &SignedCertificate) -> bool {
        let certificate = &signed.certificate;
        let is_own = certificate.session_id == self.me.session_id && certificate.user_id == self.me.user_id;
        let is_news = is_own && self.me.certified(&certificate.public_key);
        if is_news {
            self.certificate = Some(signed.clone());
        }
        is_news
    }

    /// The newest entry that was seen of a user's chain.
    pub(crate) fn chain_head(&self, user_id: UserId) -> Option<(Place, Hash)> {
        if user_id == self.me.user_id { self.chain } else { self.chain_heads.get(&user_id).copied() }
    }

    /// The identity key that a user's chain is judged by.
    pub(crate) fn identity_of(&self, user_id: UserId) -> Option<IdentityKey> {
        let pinned = self.pins.get(&user_id).map(|pin| pin.identity_key);
        if user_id == self.me.user_id { Some(self.me.identity_key) } else { pinned }
    }

    /// Notes how far a user's chain was verified. Returns whether that is news.
    pub(crate) fn note_chain(&mut self, user_id: UserId, place: Place, hash: Hash) -> bool {
        if self.chain_head(user_id).is_some_and(|(known, _)| known >= place) {
            return false;
        }
        if user_id == self.me.user_id {
            self.chain = Some((place, hash));
        } else {
            self.chain_heads.insert(user_id, (place, hash));
        }
        true
    }

    /// Compares the head of the user's chain with the one seen before, and keeps it.
    ///
    /// # Errors
    /// [`VerificationFailure::UserChain`] if it is shorter, or other at the same place.
    pub(crate) fn advance_chain(&mut self, place: Place, hash: Hash) -> Result<(), VerificationFailure> {
        if let Some((known_place, known_hash)) = self.chain
            && (place < known_place || place == known_place && hash != known_hash)
        {
            return Err(VerificationFailure::UserChain);
        }
        self.chain = Some((place, hash));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let me = Me {
            user_id: UserId::generate(),
            session_id: SessionId::generate(),
            identity_key: IdentitySecret::generate().public_key(),
            secrets: SessionSecrets::generate(),
            next: None,
            older: Vec::new(),
        };
        Account {
            server_url: String::new(),
            server_name: String::new(),
            username: Username::parse("ada").unwrap(),
            phase: Phase::Ready,
            me,
            identity: None,
            strongbox: None,
            certificate: None,
            self_key: None,
            chain: None,
            pins: BTreeMap::new(),
            chain_heads: BTreeMap::new(),
            anchors: Vec::new(),
            left: BTreeMap::new(),
            retired_keys: BTreeMap::new(),
            removed: BTreeMap::new(),
            seen_requests: SeenRequests::default(),
            own_key: None,
            profiles: BTreeMap::new(),
        }
    }

    #[test]
    fn p7_a_user_key_of_ones_own_that_was_replaced_does_not_come_back() {
        let mut account = account();
        let [old, new] = [UserKeyId::generate(), UserKeyId::generate()];
        let at = Timestamp::saturating;
        let alarm = Err(VerificationFailure::OwnUserKey(old));
        assert_eq!(account.note_user_key(at(10), None, Some(old)), Ok(()));
        assert_eq!(account.note_user_key(at(20), Some(old), Some(new)), Ok(()));
        // Another chat is read later, and tells of the same time.
        assert_eq!(account.note_user_key(at(11), None, Some(old)), Ok(()));
        assert_eq!(account.note_user_key(at(20), Some(old), Some(new)), Ok(()));
        assert_eq!(account.note_user_key(at(21), None, Some(old)), alarm);
        assert_eq!(account.note_user_key(at(30), Some(new), None), Ok(()));
        assert_eq!(account.note_user_key(at(31), None, Some(old)), alarm);
    }

    #[test]
    fn p7_an_account_that_the_server_said_had_ended_and_that_goes_on_is_an_alarm_once() {
        let mut account = account();
        let (user_id, at) = (UserId::generate(), |seconds: u64| Timestamp::saturating(seconds * 1_000_000));
        assert_eq!(account.note_life(user_id, at(100)), Ok(()));
        account.note_removed(user_id, at(100));
        account.note_removed(user_id, at(90));
        // Other chats are read later, and show what was before.
        assert_eq!(account.note_life(user_id, at(99)), Ok(()));
        assert_eq!(account.note_life(user_id, at(160)), Ok(()));
        assert_eq!(account.note_life(user_id, at(161)), Err(VerificationFailure::RemovedYetThere(user_id)));
        assert_eq!(account.note_life(user_id, at(170)), Ok(()));
    }
}
