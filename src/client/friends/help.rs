//! Who helps, and whose account it is: sees requests, gives shares, cancels.

use std::sync::Arc;
use std::time::Duration;

use super::FriendsError;
use crate::client::engine::call::expect_reply;
use crate::client::engine::members::lookup;
use crate::client::engine::state::{Shared, State, local_micros};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::handle::Client;
use crate::client::password::Way;
use crate::crypto::friends::{Given, RequestCode, open_share};
use crate::crypto::opaque::Password;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    CancelRecoveryRequest, FetchShare, Nothing, RecoveryCancelled, RecoveryRequest, ReleaseShare, Reply, Request,
};
use crate::protocol::friends::{cancel_bytes, release_bytes, request_code};
use crate::protocol::ids::{RecoveryRequestId, Timestamp, UserId};
use crate::protocol::username::Username;

/// A request for recovery that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRequest {
    /// The request.
    pub request_id: RecoveryRequestId,
    /// Whose account.
    pub user_id: UserId,
    /// Its name.
    pub username: Username,
    /// When it was made, by the database's clock.
    pub created_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Timestamp,
    /// Whether it is about this user's own account.
    pub is_own: bool,
    /// How many friends have given their shares.
    pub released: usize,
    /// Of a friend's account: what this user's part in it is.
    pub held: Option<HeldRequest>,
}

/// A friend's part in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldRequest {
    /// How much of the window is left, after which a share may be given.
    pub left: Duration,
    /// Whether this user has given theirs.
    pub is_released: bool,
}

impl Client {
    /// Lists the requests for recovery that concern this user: about the own account, and of friends.
    ///
    /// # Errors
    /// The server's refusals; what was seen for the first time cannot be kept.
    ///
    /// # Cancel safety
    /// What was seen is noted.
    pub async fn recovery_requests(&self) -> Result<Vec<KnownRequest>, ClientError> {
        let shared = self.shared();
        let requests = list(shared).await?;
        shared.keep().await?;
        let state = shared.lock();
        let (me, window, now) = (state.account.me.user_id, shared.config.recovery_window, local_micros());
        let known = |request: RecoveryRequest| {
            let is_own = request.user_id == me;
            let left = state.account.seen_requests.left(request.request_id, code_of(&request), window, now);
            let held = HeldRequest { left, is_released: request.released_by.contains(&me) };
            KnownRequest {
                request_id: request.request_id,
                user_id: request.user_id,
                username: request.username,
                created_at: request.created_at,
                expires_at: request.expires_at,
                is_own,
                released: request.released_by.len(),
                held: (!is_own).then_some(held),
            }
        };
        Ok(requests.into_iter().map(known).collect())
    }

    /// Gives this user's share to a friend's request, whose code the friend has told by another way: in person, or in a
    /// call in which both know each other. Only after this client has known the request for the window.
    ///
    /// # Errors
    /// [`FriendsError`]; above all [`FriendsError::WrongCode`] and [`FriendsError::TooEarly`]. [`ClientError::LoginFailed`]
    /// for another password than this user's, the server's refusals.
    ///
    /// # Cancel safety
    /// The share may have been given.
    pub async fn approve_recovery(
        &self,
        request_id: RecoveryRequestId,
        code: RequestCode,
        password: &Password,
    ) -> Result<(), ClientError> {
        self.check_recovery(request_id, code).await?;
        let shared = self.shared();
        // First the password: what follows it is quick, so the last look at the request is a fresh one.
        let (_, opened) = self.open_strongbox(Way::Password(password)).await?;
        let request = self.check_recovery(request_id, code).await?;
        let (me, identity_key) = {
            let account = &shared.lock().account;
            (account.me.clone(), account.identity_of(request.user_id))
        };
        let identity_key = identity_key.ok_or(FriendsError::OtherUser)?;
        let held = match shared.call(Request::FetchShare(FetchShare { user_id: request.user_id })).await? {
            Err(refused) if refused.code == ErrorCode::NoShare => return Err(FriendsError::UnknownRequest.into()),
            reply => expect_reply!(reply?, Share)?,
        };
        let set = &held.set.set;
        let number = set.number_of(me.user_id).ok_or(FriendsError::BadShare)?;
        let key_id = set.holder(number).ok_or(FriendsError::BadShare)?.key_id;
        let is_theirs = set.user_id == request.user_id && held.set.verify(&identity_key).is_ok();
        // An older user key opens what was wrapped to it: none is ever taken out of the strongbox.
        let (Some(wrapped), Some(secret), true) = (held.key, opened.user_keys.get(&key_id), is_theirs) else {
            return Err(FriendsError::BadShare.into());
        };
        let share = open_share(set, me.user_id, &wrapped, secret).map_err(|_| FriendsError::BadShare)?;
        let set_id = set.set_id;
        let given = Given { number, share, set: held.set, identity_key };
        let sealed = given.seal(request_id, &request.public_key, me.user_id)?;
        let signature = me.secrets.sign(&release_bytes(request_id, set_id, me.user_id, me.session_id, &sealed));
        let release = ReleaseShare { request_id, set_id, sealed, signature };
        match shared.call(Request::ReleaseShare(Box::new(release))).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.code == ErrorCode::UnknownRecoveryRequest => {
                Err(FriendsError::UnknownRequest.into())
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Whether a share may be given to a request now: it is open, its code is this one, its name that of the user whom it
    /// is about, and the window is over.
    ///
    /// # Errors
    /// [`FriendsError`], the server's refusals.
    ///
    /// # Cancel safety
    /// What was seen is noted.
    pub async fn may_approve_recovery(
        &self,
        request_id: RecoveryRequestId,
        code: RequestCode,
    ) -> Result<(), ClientError> {
        self.check_recovery(request_id, code).await.map(|_| ())
    }

    async fn check_recovery(
        &self,
        request_id: RecoveryRequestId,
        code: RequestCode,
    ) -> Result<RecoveryRequest, ClientError> {
        let shared = self.shared();
        let requests = list(shared).await?;
        // Whatever comes of it: the window runs from now on, after a restart too.
        shared.keep().await?;
        let me = self.user_id();
        let request = requests.into_iter().find(|request| request.request_id == request_id && request.user_id != me);
        let request = request.ok_or(FriendsError::UnknownRequest)?;
        if code_of(&request) != code {
            return Err(FriendsError::WrongCode.into());
        }
        if self.name_of(request.user_id).is_none() {
            // The code binds the name, and the pin the identity: the one must be the other's.
            lookup(shared, &request.username).await?;
        }
        if self.name_of(request.user_id).as_ref() != Some(&request.username) {
            return Err(FriendsError::OtherUser.into());
        }
        let state = shared.lock();
        let left = state.account.seen_requests.left(request_id, code, shared.config.recovery_window, local_micros());
        if left.is_zero() { Ok(request) } else { Err(FriendsError::TooEarly { left }.into()) }
    }

    /// Cancels a request for recovery of this user's own account: nothing is given to it any more. A session alone can do
    /// it once in thirty days; else the identity key must be open ([`Client::unlock`]), and signs.
    ///
    /// # Errors
    /// [`FriendsError::UnknownRequest`]; [`ClientError::NoIdentityKey`] if it must be open and is not; the server's
    /// refusals.
    ///
    /// # Cancel safety
    /// The request may be cancelled.
    pub async fn cancel_recovery(&self, request_id: RecoveryRequestId) -> Result<(), ClientError> {
        let shared = self.shared();
        let signature = {
            let state = shared.lock();
            let bytes = cancel_bytes(state.account.me.user_id, request_id);
            state.identity().ok().map(|identity| identity.sign(&bytes))
        };
        let request = Request::CancelRecoveryRequest(CancelRecoveryRequest { request_id, signature });
        match shared.call(request).await? {
            Ok(_) => Ok(()),
            Err(refused) => match refused.code {
                ErrorCode::UnknownRecoveryRequest => Err(FriendsError::UnknownRequest.into()),
                ErrorCode::IdentityNeeded => Err(ClientError::NoIdentityKey),
                _ => Err(refused.into()),
            },
        }
    }
}

/// Asks for all requests, and takes note of those of friends.
async fn list(shared: &Arc<Shared>) -> Result<Vec<RecoveryRequest>, ClientError> {
    let reply = shared.call(Request::ListRecoveryRequests(Nothing {})).await??;
    let requests = expect_reply!(reply, RecoveryRequests)?.requests;
    let mut state = shared.lock();
    for request in &requests {
        state.note(request);
    }
    Ok(requests)
}

fn code_of(request: &RecoveryRequest) -> RequestCode {
    RequestCode::of(request_code(request.request_id, &request.username, &request.public_key))
}

impl State {
    /// Takes note of a request that was shown.
    fn note(&mut self, request: &RecoveryRequest) {
        let is_new = self.account.seen_requests.note(request.request_id, code_of(request), local_micros());
        self.is_account_dirty |= is_new;
    }
}

/// Somebody asks to recover this user's account or a friend's: its user is told once. The window begins.
pub(crate) fn on_requested(shared: &Shared, request: RecoveryRequest) {
    let (is_news, is_own) = {
        let mut state = shared.lock();
        state.note(&request);
        (state.told_requests.insert(request.request_id), request.user_id == state.account.me.user_id)
    };
    if is_news {
        let RecoveryRequest { request_id, user_id, username, .. } = request;
        shared.publish(vec![Event::RecoveryRequested { request_id, user_id, username, is_own }]);
    }
}

/// A request was cancelled.
pub(crate) fn on_cancelled(shared: &Shared, cancelled: RecoveryCancelled) {
    let RecoveryCancelled { request_id, user_id } = cancelled;
    shared.publish(vec![Event::RecoveryCancelled { request_id, user_id }]);
}
