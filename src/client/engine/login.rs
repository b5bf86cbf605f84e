//! Begins a connection: login, chats that were handed over, catch-up, chats that are gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::account;
use super::backups;
use super::call::expect_reply;
use super::fetch::{FoldError, fold_before};
use super::renewal;
use super::state::{Inbox, Shared};
use crate::client::chat::log::ChatLog;
use crate::client::error::{ClientError, CloseReason};
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::keyring::Anchor;
use crate::client::net::wire::{CallError, Wire};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    Authenticate, Authenticated, Chats, Cursor, Hello, Nothing, Reply, Request, Resume, SessionState, login_bytes,
};
use crate::protocol::ids::{ChatId, Seq, Timestamp};
use crate::protocol::limits::CURSORS_MAX;

/// Why a connection did not come to be live.
#[derive(Debug)]
pub(crate) enum LoginError {
    /// Try again on another connection.
    Lost,
    /// Do not.
    Closed(CloseReason),
}

impl From<CallError> for LoginError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost => Self::Lost,
            CallError::Refused(refused) => match refused.code {
                ErrorCode::Unauthenticated
                | ErrorCode::SessionExpired
                | ErrorCode::SessionRevoked
                | ErrorCode::AccountSuspended
                | ErrorCode::UnsupportedVersion => Self::Closed(CloseReason::Login(refused.code)),
                code => {
                    tracing::warn!(%code, "login is refused for now");
                    Self::Lost
                }
            },
        }
    }
}

/// Takes the server's greeting and logs in.
pub(crate) async fn authenticate(
    shared: &Shared,
    wire: &Wire,
    hello: oneshot::Receiver<Hello>,
) -> Result<Authenticated, LoginError> {
    let hello = hello.await.map_err(|_| LoginError::Lost)?;
    let request = {
        let mut state = shared.lock();
        if hello.server_name != state.account.server_name {
            drop(state);
            let failure = VerificationFailure::ServerName;
            shared.alarm(None, None, failure);
            return Err(LoginError::Closed(CloseReason::Verification(failure)));
        }
        state.take_hello(&hello);
        let me = &state.account.me;
        let signature = me.secrets.sign(&login_bytes(&hello.nonce, &hello.server_name, me.session_id));
        Authenticate { session_id: me.session_id, signature }
    };
    let reply = wire.request(Request::Authenticate(request), shared.config.request_timeout).await?;
    let answer = expect_reply!(reply, Authenticated).map_err(|_: ClientError| LoginError::Lost)?;
    if answer.user_id != shared.lock().account.me.user_id {
        let failure = VerificationFailure::IdentityChanged(answer.user_id);
        shared.alarm(None, None, failure);
        return Err(LoginError::Closed(CloseReason::Verification(failure)));
    }
    Ok(answer)
}

/// Logs in as a live session and begins the catch-up; the server's `live` says when it has ended.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    wire: &Wire,
    hello: oneshot::Receiver<Hello>,
) -> Result<(), LoginError> {
    match authenticate(shared, wire, hello).await?.state {
        SessionState::Live => tell_that_it_goes_on(shared),
        SessionState::Pending => return Err(LoginError::Closed(CloseReason::Pending)),
        SessionState::Expired => return Err(renewal::after_expiry(shared, wire).await),
        SessionState::Revoked => {
            return Err(LoginError::Closed(CloseReason::Login(ErrorCode::SessionRevoked)));
        }
    }
    account::still_there(shared);
    backups::take(shared, wire).await?;
    take_anchors(shared, wire).await?;
    let mut cursors: Vec<Cursor> = {
        let state = shared.lock();
        let cursor = |(chat_id, chat): (&ChatId, &crate::client::chat::state::Chat)| Cursor {
            chat_id: *chat_id,
            seq: chat.log.head().seq,
        };
        state.chats.iter().map(cursor).collect()
    };
    let known: HashSet<ChatId> = cursors.iter().map(|cursor| cursor.chat_id).collect();
    let mut listed = None;
    // More chats than the protocol allows cannot be; what is cut off would start at its join again.
    cursors.truncate(CURSORS_MAX);
    let resume = Request::Resume(Resume { cursors: cursors.clone() });
    match wire.request(resume, shared.config.request_timeout).await {
        Ok(_) => {}
        Err(CallError::Refused(refused)) if refused.code == ErrorCode::UnknownChat => {
            // One of them is gone: find out which, and ask for the others.
            let chats = list(shared, wire).await?;
            let present: HashSet<ChatId> = chats.chats.iter().map(|chat| chat.chat_id).collect();
            cursors.retain(|cursor| present.contains(&cursor.chat_id));
            wire.request(Request::Resume(Resume { cursors }), shared.config.request_timeout).await?;
            listed = Some(chats);
        }
        Err(CallError::Refused(refused)) if refused.code == ErrorCode::AheadOfLog => {
            // The other chats are resumed all the same.
            let chats = list(shared, wire).await?;
            tell_rolled_back(shared, &cursors, &chats, refused.details.seq.unwrap_or_default());
            listed = Some(chats);
        }
        Err(error) => return Err(error.into()),
    }
    // Asked after the subscription stands: a chat that ends later is pushed, one that ended before is not listed.
    let chats = match listed {
        Some(chats) => chats,
        None => list(shared, wire).await?,
    };
    sort_out(shared, &known, &chats);
    Ok(())
}

/// A login shows that one's own account goes on, whatever the server may have said in a chat.
fn tell_that_it_goes_on(shared: &Shared) {
    let failed = {
        let mut state = shared.lock();
        let me = state.account.me.user_id;
        let failed = state.account.note_life(me, Timestamp::saturating(u64::MAX)).err();
        state.is_account_dirty |= failed.is_some();
        failed
    };
    if let Some(failure) = failed {
        shared.alarm(None, None, failure);
    }
}

/// Names each chat whose log is shorter than what this session has verified of it; what it has is kept as it is.
///
/// `told`: the end that the server gave with its refusal, for a server whose list hides what it refused.
fn tell_rolled_back(shared: &Shared, cursors: &[Cursor], chats: &Chats, told: Seq) {
    let ends: HashMap<ChatId, Seq> = chats.chats.iter().map(|chat| (chat.chat_id, chat.last_seq)).collect();
    let mut is_named = false;
    for cursor in cursors {
        let Some(seq) = ends.get(&cursor.chat_id).copied().filter(|end| *end < cursor.seq) else { continue };
        is_named = true;
        shared.alarm(Some(cursor.chat_id), Some(seq), VerificationFailure::Rollback { seq });
    }
    if !is_named {
        shared.alarm(None, Some(told), VerificationFailure::Rollback { seq: told });
    }
}

async fn list(shared: &Shared, wire: &Wire) -> Result<Chats, LoginError> {
    let reply = wire.request(Request::ListChats(Nothing {}), shared.config.request_timeout).await?;
    expect_reply!(reply, Chats).map_err(|_: ClientError| LoginError::Lost)
}

/// Forgets chats that are listed no more, and learns the titles of the others.
fn sort_out(shared: &Arc<Shared>, known: &HashSet<ChatId>, chats: &Chats) {
    let present: HashSet<ChatId> = chats.chats.iter().map(|chat| chat.chat_id).collect();
    let mut events = Vec::new();
    {
        let mut state = shared.lock();
        for chat_id in known.difference(&present) {
            if state.chats.contains_key(chat_id) {
                events.extend(state.forget(*chat_id));
                state.inboxes.insert(*chat_id, Inbox::gone());
                events.push(Event::Removed { chat_id: *chat_id });
            }
        }
        events.extend(state.learn_titles(chats));
        state.progress.is_listed = true;
        // A server that has nothing to catch up with need not say so.
        state.progress.is_pushed |= chats
            .chats
            .iter()
            .all(|info| state.chats.get(&info.chat_id).is_some_and(|chat| chat.log.head().seq >= info.last_seq));
    }
    shared.publish(events);
    shared.notify_moved();
    shared.judge_live();
}

/// Folds the chats that an approving session handed over.
async fn take_anchors(shared: &Arc<Shared>, wire: &Wire) -> Result<(), LoginError> {
    let anchors = shared.lock().account.anchors.clone();
    for anchor in anchors {
        let log = match fold_before(shared, wire, anchor.chat_id, anchor.place.seq.next()).await {
            Ok(folded) if folded.fold.roster_hash() == anchor.roster_hash && folded.fold.epoch() == anchor.epoch => {
                Some(ChatLog::anchored(folded, anchor.place))
            }
            Ok(_) | Err(FoldError::Verification(_)) => {
                shared.alarm(Some(anchor.chat_id), Some(anchor.place.seq), VerificationFailure::Anchor);
                None
            }
            Err(FoldError::Call(CallError::Refused(refused))) if refused.code == ErrorCode::UnknownChat => None,
            Err(FoldError::Call(error)) => return Err(error.into()),
            Err(FoldError::Answer) => return Err(LoginError::Lost),
        };
        take_anchor(shared, &anchor, log);
    }
    Ok(())
}

fn take_anchor(shared: &Shared, anchor: &Anchor, log: Option<ChatLog>) {
    let mut events = Vec::new();
    {
        let mut state = shared.lock();
        state.account.anchors.retain(|known| known.chat_id != anchor.chat_id);
        state.is_account_dirty = true;
        if let Some(log) = log {
            state.begin(anchor.chat_id, log, &mut events);
            if let Some(chat) = state.chats.get_mut(&anchor.chat_id) {
                chat.info_keys.clone_from(&anchor.info_keys);
            }
        }
    }
    shared.publish(events);
}
