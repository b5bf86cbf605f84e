//! The user's own account: its end, who may add it to chats, and whom it has blocked.

use std::sync::Arc;

use super::call::expect_reply;
use super::devices;
use super::members::lookup;
use super::state::{Shared, State};
use crate::client::error::{ClientError, CloseReason};
use crate::client::keyring::Phase;
use crate::client::net::wire::Wire;
use crate::protocol::certificate::{Deletion, SignedDeletion};
use crate::protocol::error::{CloseCode, ErrorCode};
use crate::protocol::frame::{
    AddPolicy, DeleteAccount, Nothing, Reply, Request, Sessions, SetAddPolicy, SetBlock, Settings,
};
use crate::protocol::username::Username;

/// How often the deletion is made again because another session was faster.
const TRIES_MAX: u32 = 8;

/// Ends the account. The profile says so before the server is asked: an answer that is lost cannot be asked for again.
pub(crate) async fn delete(shared: &Arc<Shared>) -> Result<(), ClientError> {
    for _ in 0..TRIES_MAX {
        let sessions = devices::list(shared).await?;
        let deletion = shared.lock().deletion(&sessions)?;
        shared.set_phase(Phase::Deleting, true);
        if let Err(error) = shared.keep().await {
            shared.set_phase(Phase::Ready, false);
            return Err(error);
        }
        match shared.call(Request::DeleteAccount(DeleteAccount { deletion })).await {
            Ok(Ok(_)) => {
                ended(shared).await;
                return Ok(());
            }
            Ok(Err(refused)) if refused.code == ErrorCode::EventConflict => {}
            // It ended between this connection's login and the request: by the request before, or by another session.
            Ok(Err(refused)) if refused.code == ErrorCode::UnknownUser => {
                ended(shared).await;
                return Ok(());
            }
            Ok(Err(refused)) => {
                shared.set_phase(Phase::Ready, false);
                return Err(refused.into());
            }
            // The answer was lost, and the next login said what it had been.
            Err(ClientError::Closed(CloseReason::AccountDeleted)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    shared.set_phase(Phase::Ready, false);
    Err(ClientError::Conflict)
}

/// What it means that a connection ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The client closes.
    Closed,
    /// The account has ended.
    Deleted,
    /// The next login will tell.
    Unknown,
}

/// Judges why a connection ended for good while the end of the account may be under way.
///
/// A session of an account that has ended is unknown; one that was revoked is told so when it logs in.
pub(crate) fn fate(shared: &Shared, reason: CloseReason) -> Fate {
    if !matches!(shared.lock().account.phase, Phase::Deleting) {
        return Fate::Closed;
    }
    match reason {
        CloseReason::Code(CloseCode::SessionRevoked) => Fate::Unknown,
        CloseReason::Code(CloseCode::LoginRefused | CloseCode::AccountRemoved)
        | CloseReason::Login(ErrorCode::Unauthenticated) => Fate::Deleted,
        _ => Fate::Closed,
    }
}

/// Notes at a login that the account is there, though a process before this one asked for its end.
pub(crate) fn still_there(shared: &Shared) {
    let mut state = shared.lock();
    if matches!(state.account.phase, Phase::Deleting) && !state.is_deleting {
        state.account.phase = Phase::Ready;
        state.is_account_dirty = true;
    }
}

/// Closes for good, and keeps nothing but that the account has ended.
pub(crate) async fn ended(shared: &Arc<Shared>) {
    shared.close(CloseReason::AccountDeleted);
    let wire = shared.lock().bury();
    if let Some(wire) = wire {
        wire.close();
    }
    if let Err(error) = shared.keep().await {
        // The next login is refused, and says the same.
        tracing::error!(%error, "the end of the account cannot be kept");
    }
}

impl Shared {
    fn set_phase(&self, phase: Phase, is_deleting: bool) {
        let mut state = self.lock();
        if matches!(state.account.phase, Phase::Deleted) {
            return;
        }
        state.account.phase = phase;
        state.is_deleting = is_deleting;
        state.is_account_dirty = true;
    }
}

impl State {
    fn deletion(&self, sessions: &Sessions) -> Result<SignedDeletion, ClientError> {
        let identity = self.identity()?;
        let deletion = Deletion {
            user_id: self.account.me.user_id,
            place: sessions.place.next(),
            previous: sessions.hash,
            created_at: self.now(),
        };
        let signature = identity.sign(&deletion.signed_bytes());
        Ok(SignedDeletion { deletion, signature })
    }

    /// Forgets everything; gives the connection, if there is one.
    fn bury(&mut self) -> Option<Wire> {
        // What the connection still brings is nobody's any more.
        let progress = std::mem::take(&mut self.progress);
        self.inboxes.clear();
        let chats: Vec<_> = self.chats.drain().map(|(chat_id, _)| chat_id).collect();
        self.dirty_chats.extend(chats);
        self.account.bury();
        self.is_account_dirty = true;
        progress.wire
    }
}

/// What the user has set.
pub(crate) async fn settings(shared: &Shared) -> Result<Settings, ClientError> {
    expect_reply!(shared.call(Request::FetchSettings(Nothing {})).await??, Settings)
}

/// Says who may add the user to chats.
pub(crate) async fn set_add_policy(shared: &Shared, policy: AddPolicy) -> Result<(), ClientError> {
    expect_reply!(shared.call(Request::SetAddPolicy(SetAddPolicy { policy })).await??, Done)?;
    Ok(())
}

/// Blocks a user.
pub(crate) async fn block(shared: &Shared, username: &Username) -> Result<(), ClientError> {
    let user_id = lookup(shared, username).await?.user_id;
    expect_reply!(shared.call(Request::SetBlock(SetBlock { user_id, blocked: true })).await??, Done)?;
    Ok(())
}

/// Blocks a user no longer. One whose identity does not verify any more is taken off the list all the same.
pub(crate) async fn unblock(shared: &Shared, username: &Username) -> Result<(), ClientError> {
    let blocked = settings(shared).await?.blocked;
    let Some(user) = blocked.iter().find(|user| user.username == *username) else { return Ok(()) };
    let request = SetBlock { user_id: user.user_id, blocked: false };
    expect_reply!(shared.call(Request::SetBlock(request)).await??, Done)?;
    Ok(())
}
