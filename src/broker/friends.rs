//! Recovery by friends: requests are told to the account's own sessions and to the friends who hold shares.
//!
//! Who is not told now, because not connected or without room, is told at the next login, or sees it in the list.

use super::Broker;
use super::connection::Connection;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{
    CancelRecoveryRequest, FetchUserKeys, Nothing, RecoveryCancelled, RecoveryRequest, RecoveryRequests, ReleaseShare,
    Reply, ServerFrame,
};
use crate::protocol::friends::{AskFriends, FriendsAsked};
use crate::protocol::ids::RecoveryRequestId;
use crate::protocol::limits::{RECOVERY_REQUEST_KEPT_S, SHARES_MAX};
use crate::protocol::username::Username;
use crate::store::Failure;
use crate::store::members::Requester;
use crate::store::passwords::TryLimit;

impl Broker {
    /// Gives the active user keys of users.
    ///
    /// # Errors
    /// `too_large`, or the store's.
    pub async fn fetch_user_keys(&self, request: &FetchUserKeys) -> Result<Reply, Failure> {
        if request.user_ids.len() > SHARES_MAX {
            return Err(Refusal::limit(ErrorCode::TooLarge, "too many users in one request", SHARES_MAX as u64).into());
        }
        self.store.active_user_keys(&request.user_ids).await.map(Reply::UserKeys)
    }

    /// Takes a request of a device that has nothing, and tells whom it concerns. The answer is the same for every name,
    /// and does not wait for that.
    ///
    /// # Errors
    /// What [`Store::ask_friends`](crate::store::Store::ask_friends) refuses; `malformed` for an unsound key.
    pub async fn ask_friends(
        &self,
        limits: &[TryLimit],
        username: &Username,
        request: &AskFriends,
    ) -> Result<FriendsAsked, Failure> {
        if !request.public_key.is_sound() {
            return Err(Refusal::new(ErrorCode::Malformed, "the key is not canonical or of small order").into());
        }
        if self.store.ask_friends(limits, username, request).await?.is_some() {
            let (broker, request_id) = (self.clone(), request.request_id);
            actix::spawn(async move { broker.announce(request_id).await });
        }
        Ok(FriendsAsked { kept_s: RECOVERY_REQUEST_KEPT_S })
    }

    /// Lists what concerns a user.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_recovery_requests(&self, who: Requester) -> Result<Reply, Failure> {
        let requests = self.store.recovery_requests(who).await?;
        Ok(Reply::RecoveryRequests(RecoveryRequests { requests }))
    }

    /// Cancels a request of one's own account, and tells whom it concerned.
    ///
    /// # Errors
    /// What [`Store::cancel_recovery_request`](crate::store::Store::cancel_recovery_request) refuses.
    pub async fn cancel_recovery_request(
        &self,
        who: Requester,
        cancel: &CancelRecoveryRequest,
    ) -> Result<Reply, Failure> {
        let told = self.store.cancel_recovery_request(who, cancel).await?;
        let cancelled = RecoveryCancelled { request_id: cancel.request_id, user_id: who.user_id };
        for session_id in told {
            self.push_to(session_id, &ServerFrame::RecoveryCancelled(cancelled));
        }
        Ok(Reply::Done(Nothing {}))
    }

    /// Takes a friend's share, and tells whom the request concerns that it was given.
    ///
    /// # Errors
    /// What [`Store::release_share`](crate::store::Store::release_share) refuses.
    pub async fn release_share(&self, who: Requester, release: &ReleaseShare) -> Result<Reply, Failure> {
        self.store.release_share(who, release).await?;
        self.announce(release.request_id).await;
        Ok(Reply::Done(Nothing {}))
    }

    async fn announce(&self, request_id: RecoveryRequestId) {
        let Ok(Some((request, audience))) = self.store.recovery_request(request_id).await else { return };
        let frame = ServerFrame::RecoveryRequested(request);
        for session_id in audience {
            self.push_to(session_id, &frame);
        }
    }
}

/// Tells a session that has come online of the requests that concern its user. What does not fit is told the next time.
pub fn tell_recovery_requests(connection: &Connection, requests: Vec<RecoveryRequest>) {
    for request in requests {
        let frame = connection.frame(&ServerFrame::RecoveryRequested(request));
        if connection.outbox.try_push(&frame).is_err() {
            return;
        }
    }
}
