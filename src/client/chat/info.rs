//! What a chat is called: learnt from what the server shows, as far as its sessions signed it.
//!
//! Pure. Invariants: I1 a wrap of an info key is taken from a session alone that is a recipient of the chat now, by this
//! client's own fold: whoever has left cannot bring a key back. A seal to a recovery key may also be of a session of
//! this very user that was not revoked, for it may be all that is left of a lost device. I2 what was shown as revision n is never replaced by an
//! older one, nor by another revision n. I3 of the keys the current one alone is kept.

use serde::{Deserialize, Serialize};

use super::log::Taken;
use super::state::Chat;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::crypto::info::{self, PlainInfo};
use crate::crypto::{OpenError, Secret, name};
use crate::protocol::binary::Signature;
use crate::protocol::frame::ChatInfoChanged;
use crate::protocol::ids::{ChatId, InfoKeyId, Revision, Seq, SessionId};
use crate::protocol::info::SignedInfo;
use crate::protocol::keys::InfoKeyWrap;
use crate::protocol::membership::Change;
use crate::protocol::verify::Verifier;

/// What is known of a chat's name and description beside the name itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Info {
    /// The newest revision that verified; 0 while nothing was saved.
    pub(crate) revision: Revision,
    /// Its signature.
    pub(crate) signature: Option<Signature>,
    /// The key it is sealed under.
    pub(crate) key_id: Option<InfoKeyId>,
    /// The newest entry that the key's maker had folded.
    pub(crate) key_seq: Seq,
    /// The newest entry that took a recipient away.
    pub(crate) lost_seq: Seq,
    /// The description.
    pub(crate) description: Option<String>,
    /// Name and description are those of the newest revision.
    pub(crate) is_readable: bool,
    /// What the server showed and the log has not come to.
    #[serde(skip)]
    shown: Option<ChatInfoChanged>,
    /// The wrap instead of which another one was asked for.
    #[serde(skip)]
    asked: Option<Signature>,
    /// What was shown and could not be opened for want of its key.
    #[serde(skip)]
    closed: Option<ChatInfoChanged>,
    /// What group keys have opened, the newest generation first, until it is tried.
    #[serde(skip)]
    seals: Vec<OpenedSeal>,
}

/// An info key that was sealed to a recovery key, as it is said to be.
#[derive(Debug, Clone)]
pub(crate) struct OpenedSeal {
    pub(crate) key_id: InfoKeyId,
    pub(crate) secret: Secret,
    /// Who signed it.
    pub(crate) sealed_by: SessionId,
}

impl Info {
    /// Whether the key was known to somebody who has lost access, as far as the log was read.
    pub(crate) fn is_key_stale(&self) -> bool {
        self.key_id.is_none() || self.lost_seq > self.key_seq
    }

    /// Whether there is a name or description that could not be opened.
    pub(crate) const fn is_closed(&self) -> bool {
        !self.is_readable && (self.key_id.is_some() || self.closed.is_some() || self.shown.is_some())
    }
}

/// What comes of something that the server showed.
#[derive(Debug, Default)]
pub(crate) struct InfoJudged {
    /// Name or description is another.
    pub(crate) has_changed: bool,
    /// Something is to be kept.
    pub(crate) is_news: bool,
    /// It does not verify.
    pub(crate) failure: Option<VerificationFailure>,
    /// Another wrap is to be asked for.
    pub(crate) must_ask: bool,
    /// A key that came by a recovery key: this session wraps it to itself, so that it counts as one that holds it.
    pub(crate) recovered: Option<InfoKeyId>,
}

impl Chat {
    /// Notes what an entry says of who lost access.
    pub(super) fn note_loss(&mut self, seq: Seq, taken: &Taken) {
        let is_loss = match taken {
            Taken::Session { is_in, .. } => !is_in,
            Taken::Member { change, .. } => matches!(change, Change::Remove | Change::Leave),
            Taken::AccountDeleted { .. } => true,
            _ => false,
        };
        if is_loss {
            self.info.lost_seq = seq;
        }
    }

    /// Takes note of what the server shows; it is judged once the log has come to where it was read.
    pub(crate) fn show_info(&mut self, shown: ChatInfoChanged) {
        let revision = |shown: &ChatInfoChanged| shown.info.as_ref().map(|signed| signed.info.revision);
        if self.info.shown.as_ref().is_some_and(|known| revision(known) > revision(&shown)) {
            return;
        }
        self.info.shown = Some(shown);
    }

    /// Takes info keys that group keys have opened; what could not be opened before is judged anew.
    pub(crate) fn offer_seals(&mut self, seals: Vec<OpenedSeal>) {
        self.info.seals = seals;
        if self.info.shown.is_none() {
            self.info.shown = self.info.closed.take();
        }
    }

    /// Judges what the server has shown, if the log has come to where it was read.
    pub(crate) fn judge_info(&mut self, me: &Me) -> InfoJudged {
        let head = self.log.head().seq;
        let Some(shown) = self.info.shown.take_if(|shown| shown.last_seq <= head) else { return InfoJudged::default() };
        let mut judged = InfoJudged::default();
        let before = (self.title.clone(), self.info.description.clone());
        let result = self.take_info(&shown, me, &mut judged);
        judged.failure = result.err();
        judged.has_changed = before != (self.title.clone(), self.info.description.clone());
        judged.is_news |= judged.has_changed;
        judged
    }

    fn take_info(
        &mut self,
        shown: &ChatInfoChanged,
        me: &Me,
        judged: &mut InfoJudged,
    ) -> Result<(), VerificationFailure> {
        let chat_id = self.log.fold().chat_id();
        let revision = shown.info.as_ref().map_or(Revision::default(), |signed| signed.info.revision);
        let key_id = shown.info.as_ref().map(|signed| signed.info.key_id);
        let Some(key_id) = key_id.or_else(|| shown.name.as_ref().map(|name| name.key_id)) else { return Ok(()) };
        // What was read before a push and comes after it (I2).
        if revision < self.info.revision {
            return Ok(());
        }
        if let Some(signed) = &shown.info {
            self.check_info(signed)?;
        }
        let bad_wrap = match &shown.info_key {
            Some(wrapped) if wrapped.key_id == key_id && !self.info_keys.contains_key(&key_id) => {
                self.take_wrap(wrapped, me, judged).err()
            }
            _ => None,
        };
        let bad_seal = if self.info_keys.contains_key(&key_id) { None } else { self.take_seal(shown, key_id, judged) };
        let failure = bad_wrap.or(bad_seal);
        let Some(secret) = self.info_keys.get(&key_id) else {
            self.info.closed = Some(shown.clone());
            if let Some(signed) = &shown.info
                && self.info.signature != Some(signed.signature)
            {
                self.note_info(signed);
                self.info.is_readable = false;
                judged.is_news = true;
            }
            return failure.map_or(Ok(()), Err);
        };
        let plain = open_shown(secret, chat_id, shown).map_err(|_| VerificationFailure::Info)?;
        match &shown.info {
            Some(signed) => self.note_info(signed),
            None => self.info.key_id = Some(key_id),
        }
        self.info_keys.retain(|known, _| *known == key_id);
        judged.is_news |= !self.info.is_readable;
        self.info.is_readable = true;
        (self.info.closed, self.info.seals) = (None, Vec::new());
        (self.title, self.info.description) = (plain.name, plain.description);
        failure.map_or(Ok(()), Err)
    }

    /// Takes the key from what was sealed to recovery keys, if there is one that opens what is shown; gives what is
    /// wrong with those that do not.
    fn take_seal(
        &mut self,
        shown: &ChatInfoChanged,
        key_id: InfoKeyId,
        judged: &mut InfoJudged,
    ) -> Option<VerificationFailure> {
        let chat_id = self.log.fold().chat_id();
        let (seals, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.info.seals).into_iter().partition(|seal| seal.key_id == key_id);
        self.info.seals = others;
        let mut failure = None;
        for seal in seals {
            if open_shown(&seal.secret, chat_id, shown).is_ok() {
                self.info_keys.insert(key_id, seal.secret);
                judged.is_news = true;
                judged.recovered = Some(key_id);
                break;
            }
            // A name that nobody signed may be what was altered.
            let is_signed = shown.info.is_some();
            failure = Some(if is_signed {
                VerificationFailure::InfoKeySeal(seal.sealed_by)
            } else {
                VerificationFailure::Info
            });
        }
        failure
    }

    fn note_info(&mut self, signed: &SignedInfo) {
        let info = &signed.info;
        (self.info.revision, self.info.signature) = (info.revision, Some(signed.signature));
        (self.info.key_id, self.info.key_seq) = (Some(info.key_id), info.key_seq);
    }

    /// Whether a session of the chat signed this, as the one content of its revision.
    fn check_info(&self, signed: &SignedInfo) -> Result<(), VerificationFailure> {
        let info = &signed.info;
        let is_other = info.revision == self.info.revision && self.info.signature != Some(signed.signature);
        // Under a key that is known nothing else can be said of when it was made.
        let is_moved =
            self.info.signature.is_some() && self.info.key_id == Some(info.key_id) && self.info.key_seq != info.key_seq;
        let is_signed = match self.log.signing_key(info.session_id) {
            Some(key) => signed.verifies(self.log.fold().chat_id(), &key),
            // A session that had left before this log began: its key is not known here, and never will be.
            None => self.info.signature.is_none_or(|known| known == signed.signature),
        };
        if is_other || is_moved || !is_signed { Err(VerificationFailure::Info) } else { Ok(()) }
    }

    /// Opens a wrap of a key that is not known yet (I1).
    fn take_wrap(
        &mut self,
        wrapped: &InfoKeyWrap,
        me: &Me,
        judged: &mut InfoJudged,
    ) -> Result<(), VerificationFailure> {
        let chat_id = self.log.fold().chat_id();
        let wrapped_by = wrapped.wrapped_by_session_id;
        let opened = match self.log.fold().recipients().get(&wrapped_by) {
            Some(session) => {
                let is_signed = wrapped.session_id == me.session_id
                    && session.signing_public_key.verifies(&wrapped.signed_bytes(chat_id), &wrapped.signature);
                let opened = me.open_info_key(wrapped, chat_id);
                opened.ok().filter(|_| is_signed).ok_or(VerificationFailure::InfoKey(wrapped_by))
            }
            // It has left since, which is no lie of anybody's; somebody who is still there wraps it again.
            None if self.log.signing_key(wrapped_by).is_some() => {
                judged.must_ask = self.info.asked.replace(wrapped.signature) != Some(wrapped.signature);
                return Ok(());
            }
            None => Err(VerificationFailure::InfoKey(wrapped_by)),
        };
        match opened {
            Ok(secret) => {
                self.info_keys.insert(wrapped.key_id, secret);
                judged.is_news = true;
                Ok(())
            }
            Err(failure) => {
                judged.must_ask = self.info.asked.replace(wrapped.signature) != Some(wrapped.signature);
                Err(failure)
            }
        }
    }
}

/// Opens what is shown with an info key.
fn open_shown(secret: &Secret, chat_id: ChatId, shown: &ChatInfoChanged) -> Result<PlainInfo, OpenError> {
    match (&shown.info, &shown.name) {
        (Some(signed), _) => info::open(secret, chat_id, &signed.info),
        (None, Some(sealed)) => Ok(PlainInfo { name: Some(name::open(secret, chat_id, sealed)?), description: None }),
        (None, None) => Err(OpenError),
    }
}
