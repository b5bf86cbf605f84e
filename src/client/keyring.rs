//! What a profile knows and must keep: keys, chain, pins, and a state for each chat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failure::VerificationFailure;
use crate::crypto::link_code::LinkCode;
use crate::crypto::{IdentitySecret, Secret, SessionSecrets, self_key};
use crate::protocol::binary::{Hash, IdentityKey};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::envelope::Seen;
use crate::protocol::ids::{ChangeNo, ChatId, Epoch, InfoKeyId, Place, SessionId, UserId};
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
}

impl Me {
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
    /// Chats that were handed over and are not folded yet.
    pub(crate) anchors: Vec<Anchor>,
    /// How far the logs of chats that are gone had come. A chat that returns goes on from there.
    #[serde(default)]
    pub(crate) left: BTreeMap<ChatId, Left>,
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
        self.pins.clear();
        self.chain_heads.clear();
        self.anchors.clear();
        self.left.clear();
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
