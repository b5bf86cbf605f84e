//! Judges the signals of a chat: what does not verify, comes twice or is old is dropped, and nobody is alarmed, for a
//! signal is worth nothing and its loss is no sign.

use std::collections::BTreeMap;

use super::log::ChatLog;
use super::own_key::KeyLimits;
use super::received_keys::{ReceivedKeys, Use};
use super::state::Chat;
use crate::client::error::UNSIGNED;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Me;
use crate::client::signal::Signal;
use crate::crypto::{SealError, Secret, signal};
use crate::protocol::binary::Blob;
use crate::protocol::ids::{Counter, SignalId, Timestamp};
use crate::protocol::limits::{SIGNAL_AGE_MAX_S, SIGNAL_BYTES_MAX};
use crate::protocol::signal::SignalEnvelope;
use crate::protocol::verify::Verifier;

/// Signals of one chat that are remembered so that a repeat shows. Each is forgotten when its age alone refuses it;
/// what comes above the bound before that is dropped, for it could not be told from a repeat later.
pub(super) const HEARD_MAX: usize = 1_024;

const AGE_MAX_MICROS: u64 = SIGNAL_AGE_MAX_S * 1_000_000;

/// The signals that were heard a moment ago.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(BTreeMap<SignalId, Timestamp>);

/// Why a signal is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Dropped {
    #[error("larger than a signal may be")]
    TooLarge,
    #[error("older than a signal may be, or from the future")]
    Age,
    #[error("the sender is no recipient of the chat who may write")]
    Sender,
    #[error("the signature does not verify")]
    Signature,
    #[error("the key: {0}")]
    Key(VerificationFailure),
    #[error("it was heard before, or too many were")]
    Repeat,
    #[error("it does not open")]
    Undecryptable,
    #[error("it says nothing that this version knows")]
    Unknown,
}

impl Heard {
    /// Notes a signal. `false`: it was heard before, or there is no room to note it.
    fn note(&mut self, signal_id: SignalId, created_at: Timestamp, now: Timestamp) -> bool {
        self.0.retain(|_, created_at| is_of_now(*created_at, now));
        if self.0.len() >= HEARD_MAX || self.0.contains_key(&signal_id) {
            return false;
        }
        self.0.insert(signal_id, created_at);
        true
    }
}

/// Whether a signal's time is near enough, before or after.
fn is_of_now(created_at: Timestamp, now: Timestamp) -> bool {
    now.get().abs_diff(created_at.get()) <= AGE_MAX_MICROS
}

impl Chat {
    /// Seals a signal under this session's sender key; none if there is no key that every recipient has. A key is never
    /// made for a signal.
    ///
    /// # Errors
    /// The cipher refused it.
    pub(crate) fn seal_signal(
        &self,
        body: Signal,
        me: &Me,
        limits: &KeyLimits,
        now: Timestamp,
    ) -> Result<Option<SignalEnvelope>, SealError> {
        let fold = self.log.fold();
        let Some(key) = self.outbox.live_key(fold, limits, now) else { return Ok(None) };
        let chat_id = fold.chat_id();
        let (signal_id, key_id) = (signal::fresh_id(), key.key_id());
        let place = signal::Place { chat_id, signal_id, sender: me.session_id, key_id };
        let mut envelope = SignalEnvelope {
            sender_id: me.user_id,
            sender_session_id: me.session_id,
            key_id,
            signal_id,
            created_at: now,
            data: Blob::from(signal::seal(&key.secret, &place, &body.to_bytes())?),
            signature: UNSIGNED,
        };
        envelope.signature = me.secrets.sign(&envelope.signed_bytes(chat_id));
        Ok(Some(envelope))
    }

    /// Judges a signal and opens it.
    ///
    /// # Errors
    /// Why it is dropped; then nothing has changed but perhaps that it counts as heard.
    pub(crate) fn hear(&mut self, envelope: &SignalEnvelope, me: &Me, now: Timestamp) -> Result<Signal, Dropped> {
        let Self { log, keys, heard, .. } = self;
        if envelope.data.len() > SIGNAL_BYTES_MAX {
            return Err(Dropped::TooLarge);
        }
        if !is_of_now(envelope.created_at, now) {
            return Err(Dropped::Age);
        }
        let secret = judge(log, keys, envelope, me)?;
        if !heard.note(envelope.signal_id, envelope.created_at, now) {
            return Err(Dropped::Repeat);
        }
        let (chat_id, sender) = (log.fold().chat_id(), envelope.sender_session_id);
        let place = signal::Place { chat_id, signal_id: envelope.signal_id, sender, key_id: envelope.key_id };
        let body = signal::open(&secret, &place, envelope.data.as_ref()).map_err(|_| Dropped::Undecryptable)?;
        Signal::from_bytes(&body).ok_or(Dropped::Unknown)
    }
}

/// Judges sender, signature and key, and gives the key's secret.
fn judge(log: &ChatLog, keys: &ReceivedKeys, envelope: &SignalEnvelope, me: &Me) -> Result<Secret, Dropped> {
    let (fold, sender) = (log.fold(), envelope.sender_session_id);
    let chat_id = fold.chat_id();
    let session = fold.recipients().get(&sender).filter(|session| session.user_id == envelope.sender_id);
    let can_write = fold.membership().members.get(&envelope.sender_id).is_some_and(|member| member.can_write);
    let session = session.filter(|_| can_write && sender != me.session_id).ok_or(Dropped::Sender)?;
    let signing_key = session.signing_public_key;
    if !signing_key.verifies(&envelope.signed_bytes(chat_id), &envelope.signature) {
        return Err(Dropped::Signature);
    }
    let used = Use {
        chat_id,
        key_id: envelope.key_id,
        seq: log.head().seq,
        sender,
        signing_key,
        counter: Counter::default(),
        epoch: fold.epoch(),
        may_have_begun_before: true,
    };
    keys.secret_for_signal(&used, me).map_err(Dropped::Key)
}
