//! Keys of older sessions of this user: handed to a new session, and taken by one.
//!
//! Invariants: K1 the key with which this session receives is handed to nobody: who approves a session replaces its own
//! first. K2 a key that was handed over is kept only if the user's identity key certified its public half for the
//! session that it is said to be of. K3 only a session that a chat's log shows is handed anything, whatever the server
//! lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::call::expect_reply;
use super::copies::{self, Errand};
use super::state::{Shared, State};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::{Me, OlderKey};
use crate::client::net::wire::{CallError, Wire};
use crate::crypto::{SealError, backup};
use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::binary::ExchangeKey;
use crate::protocol::frame::{Backups, ChainFrom, Keys, Nothing, Reply, Request, UploadBackups, UserEvents};
use crate::protocol::ids::{ChatId, KeyId, SessionId};
use crate::protocol::limits::{BACKUPS_MAX, KEYS_PER_REQUEST_MAX};
use crate::protocol::user_chain::UserChain;

/// Wraps the keys that a session of the same user is handed: that which this session gives up with the same request,
/// if it does, and all older ones that this session has.
pub(super) fn wrap(
    me: &Me,
    recipient: (SessionId, &ExchangeKey),
    gives_up_its_own: bool,
) -> Result<Vec<SessionKeyBackup>, SealError> {
    let own = gives_up_its_own.then(|| OlderKey { session_id: me.session_id, secret: me.secrets.exchange_secret() });
    let keys = own.iter().chain(&me.older).filter(|key| key.session_id != recipient.0);
    let by = (me.session_id, &me.secrets);
    keys.take(BACKUPS_MAX).map(|key| backup::wrap(&key.secret, (me.user_id, key.session_id), by, recipient)).collect()
}

/// Hands a new session of this user, whom no other one approved, what this one has: keys of older sessions, and copies of
/// every sender key, since the key that opens this session's own is handed to nobody.
pub(super) async fn hand_on(shared: &Shared, session_id: SessionId) -> Result<(), ClientError> {
    let nothing = UploadBackups { session_id, backups: Vec::new() };
    let held = expect_reply!(shared.call(Request::UploadBackups(nothing)).await??, BackupsStored)?;
    if held.held_before {
        return Ok(());
    }
    let (backups, chat_ids) = {
        let state = shared.lock();
        let Some(public_key) = state.key_of_sibling(session_id) else { return Ok(()) };
        let backups = wrap(&state.account.me, (session_id, &public_key), false)?;
        (backups, state.chats.keys().copied().collect::<Vec<ChatId>>())
    };
    if !backups.is_empty() {
        let _ = shared.call(Request::UploadBackups(UploadBackups { session_id, backups })).await??;
    }
    for chat_id in chat_ids {
        let wrapped = {
            let mut state = shared.lock();
            let keys = state.all_held(chat_id);
            state.wraps(chat_id, session_id, &keys)
        };
        copies::upload(shared, chat_id, wrapped).await?;
    }
    Ok(())
}

/// Fetches what this session was handed, before it has caught up: what it then reads opens at once.
pub(super) async fn take(shared: &Shared, wire: &Wire) -> Result<(), CallError> {
    if !shared.lock().account.may_be_handed_keys() {
        return Ok(());
    }
    let timeout = shared.config.request_timeout;
    let Ok(Reply::Backups(handed)) = unless_lost(wire.request(Request::FetchBackups(Nothing {}), timeout).await)?
    else {
        return Ok(());
    };
    if handed.backups.is_empty() {
        return Ok(());
    }
    let mut chain = shared.lock().own_chain();
    loop {
        let users = vec![ChainFrom { user_id: chain.user_id(), after: chain.place() }];
        let reply = unless_lost(wire.request(Request::UserEvents(UserEvents { users }), timeout).await)?;
        let Ok(Reply::Chains(chains)) = reply else { return Ok(()) };
        let Some(part) = chains.chains.first().filter(|part| part.user_id == chain.user_id()) else { break };
        if part.events.iter().any(|event| chain.take(event).is_err()) {
            shared.alarm(None, None, VerificationFailure::ChainInvalid(chain.user_id()));
            return Ok(());
        }
        if !part.more || part.events.is_empty() {
            break;
        }
    }
    keep(shared, &chain, &handed);
    Ok(())
}

/// Fetches what this session was handed meanwhile, and opens what it can now.
pub(super) async fn take_now(shared: &Arc<Shared>) -> Result<(), ClientError> {
    let wire = shared.live().await.map_err(ClientError::Closed)?;
    if take(shared, &wire).await.is_err() {
        return Ok(());
    }
    let locked: Vec<(ChatId, BTreeSet<KeyId>)> = {
        let state = shared.lock();
        state.chats.iter().map(|(chat_id, chat)| (*chat_id, chat.locked())).collect()
    };
    for (chat_id, key_ids) in locked {
        for key_ids in key_ids.into_iter().collect::<Vec<_>>().chunks(KEYS_PER_REQUEST_MAX) {
            let request = Request::Keys(Keys { chat_id, key_ids: key_ids.to_vec() });
            let list = expect_reply!(shared.call(request).await??, Keys)?;
            let mut state = shared.lock();
            let Some(chat) = state.chats.get_mut(&chat_id) else { break };
            list.keys.iter().for_each(|key| chat.keys.offer(key));
            let mut events = Vec::new();
            state.open_late(chat_id, &mut events);
            shared.publish(events);
        }
    }
    Ok(())
}

/// A refusal is for later: what was handed over stays where it is.
fn unless_lost(reply: Result<Reply, CallError>) -> Result<Result<Reply, ()>, CallError> {
    match reply {
        Ok(reply) => Ok(Ok(reply)),
        Err(CallError::Refused(refused)) => {
            tracing::debug!(code = %refused.code, "keys of older sessions are not to be had now");
            Ok(Err(()))
        }
        Err(CallError::Lost) => Err(CallError::Lost),
    }
}

/// Keeps the keys that verify (K2), and names those that do not.
fn keep(shared: &Shared, chain: &UserChain, handed: &Backups) {
    let mut events = Vec::new();
    {
        let mut state = shared.lock();
        let known = state.account.chain.filter(|(place, _)| *place <= chain.place());
        if known.is_some_and(|(place, hash)| chain.hash_at(place) != Some(hash)) {
            events.push(Event::alarm(VerificationFailure::ChainRewritten(chain.user_id())));
        } else {
            let mut sessions = BTreeSet::new();
            for wrapped in handed.backups.iter().take(BACKUPS_MAX) {
                let me = &mut state.account.me;
                match opened(me, chain, wrapped) {
                    Some(key) if me.was_handed(key.clone()) => {
                        sessions.insert(key.session_id);
                    }
                    Some(_) => {}
                    None => events.push(Event::alarm(VerificationFailure::Backup(wrapped.backed_up_session_id))),
                }
            }
            if !sessions.is_empty() {
                state.is_account_dirty = true;
                events.push(Event::HistoryOpened { sessions: sessions.into_iter().collect() });
            }
        }
    }
    shared.publish(events);
}

fn opened(me: &Me, chain: &UserChain, wrapped: &SessionKeyBackup) -> Option<OlderKey> {
    let session_id = wrapped.backed_up_session_id;
    let is_certified = chain.has_certified(session_id, &wrapped.backed_up_public_key);
    let wrapped_by = chain.sessions().get(&wrapped.wrapped_by_session_id)?;
    let is_signed = wrapped.verifies(&wrapped_by.signing_public_key);
    let is_for_me = wrapped.session_id == me.session_id && wrapped.backed_up_user_id == me.user_id;
    if !is_for_me || !is_certified || !is_signed {
        return None;
    }
    Some(OlderKey { session_id, secret: me.open_backup(wrapped).ok()? })
}

impl State {
    /// One's own chain before its first entry.
    fn own_chain(&self) -> UserChain {
        UserChain::new(self.account.me.user_id, self.account.me.identity_key)
    }

    /// Where another session of this user receives, as some chat's log has it (K3).
    fn key_of_sibling(&self, session_id: SessionId) -> Option<ExchangeKey> {
        let recipients = self.chats.values().filter_map(|chat| chat.log.fold().recipients().get(&session_id));
        let own = recipients.filter(|recipient| recipient.user_id == self.account.me.user_id);
        own.max_by_key(|recipient| recipient.place).map(|recipient| recipient.public_key)
    }
}

/// This session was handed keys.
pub(crate) fn on_backups_ready(shared: &Arc<Shared>) {
    shared.lock().errands.push(Errand::TakeBackups);
    copies::start(shared);
}
