//! What is asked and told about recovery by friends.

use serde::{Deserialize, Serialize};

use crate::protocol::binary::{Blob, ExchangeKey, Signature, WrappedKey};
use crate::protocol::friends::{SignedShareSet, WrappedShare};
use crate::protocol::ids::{RecoveryRequestId, ShareSetId, Timestamp, UserId};
use crate::protocol::strongbox::PublicUserKey;
use crate::protocol::username::Username;

/// Asks for users' active user keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchUserKeys {
    /// Whose.
    pub user_ids: Vec<UserId>,
}

/// The active user keys of those who have one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKeys {
    /// The keys.
    pub keys: Vec<PublicUserKey>,
}

/// Gives shares of one's recovery code to friends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetShares {
    /// Who holds what.
    pub set: SignedShareSet,
    /// The shares, in the order of their holders.
    pub shares: Vec<WrappedShare>,
}

/// Asks for a set of shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchShare {
    /// Whose recovery code it is.
    pub user_id: UserId,
}

/// A set of shares, and one's own part in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The set.
    pub set: SignedShareSet,
    /// The share that was wrapped to the user who asks; absent in one's own set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<WrappedKey>,
    /// Whose shares are there still: an account that ends takes its share with it.
    pub present: Vec<UserId>,
}

/// A request for recovery, as the account's sessions and its friends are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRequest {
    /// The request.
    pub request_id: RecoveryRequestId,
    /// Whose account.
    pub user_id: UserId,
    /// Its name.
    pub username: Username,
    /// To what shares are to be sealed, as the server says; the code that a friend is told shows whether it is so.
    pub public_key: ExchangeKey,
    /// When it was made, by the database's clock.
    pub created_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Timestamp,
    /// Which friends have given their shares.
    pub released_by: Vec<UserId>,
}

/// Requests for recovery that are open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryRequests {
    /// The oldest first.
    pub requests: Vec<RecoveryRequest>,
}

/// Gives a share to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseShare {
    /// The request.
    pub request_id: RecoveryRequestId,
    /// The set that the share is of.
    pub set_id: ShareSetId,
    /// The share with its set, sealed to the request's key.
    pub sealed: Blob,
    /// The session's, over [`release_bytes`](crate::protocol::friends::release_bytes).
    pub signature: Signature,
}

/// Ends a request for recovery of one's own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRecoveryRequest {
    /// The request.
    pub request_id: RecoveryRequestId,
    /// The identity key's, over [`cancel_bytes`](crate::protocol::friends::cancel_bytes): needed when a session alone
    /// has cancelled another one not long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A request for recovery has been cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryCancelled {
    /// The request.
    pub request_id: RecoveryRequestId,
    /// Whose account it was about.
    pub user_id: UserId,
}
