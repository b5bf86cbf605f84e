//! Shares of recovery codes: which friends hold them, under which of their user keys. One set of a user at a time.
//!
//! What is stored is signed by its user and wrapped to friends. It goes with the recovery code that it is of, in the
//! transaction that replaces that.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::members::Requester;
use super::rows::{fixed, get, id, pack, unpack};
use super::sessions::{locked, require_live};
use super::strongboxes::strongbox_of;
use super::transaction::Transaction;
use crate::protocol::binary::{ExchangeKey, SigningKey};
use crate::protocol::canonical::sha256;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{SetShares, Share, UserKeys};
use crate::protocol::friends::{ShareHolder, ShareSetError, SignedShareSet, share_wrap_bytes};
use crate::protocol::ids::{UserId, UserKeyId};
use crate::protocol::limits::SHARES_MAX;
use crate::protocol::strongbox::PublicUserKey;
use crate::protocol::verify::Verifier;

impl Store {
    /// Gives the active user keys of those who have one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn active_user_keys(&self, users: &[UserId]) -> Result<UserKeys, Failure> {
        let ids: Vec<Uuid> = users.iter().map(|user_id| user_id.0).collect();
        self.read("active_user_keys", async |tx| {
            let statement = "SELECT user_id, key_id, public_key, signature FROM user_keys \
                 WHERE user_id = ANY($1) AND is_active AND withdrawn_at IS NULL ORDER BY user_id";
            let rows = tx.query(statement, &[&ids]).await?;
            Ok(UserKeys { keys: rows.iter().map(key_of).collect::<Result<_, _>>()? })
        })
        .await
    }

    /// Puts a user's set of shares in the place of the one before. The same again is the same.
    ///
    /// # Errors
    /// `malformed`, `too_large`, `bad_signature`, `strongbox_changed` for shares of another recovery code,
    /// `unknown_user` for whom the user shares no chat with, `user_key_stale`, or [`StoreError`].
    pub async fn set_shares(&self, who: Requester, request: &SetShares) -> Result<(), Failure> {
        let set = &request.set.set;
        self.write("set_shares", async |tx| {
            let user = locked(tx, who.user_id).await?;
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            if set.user_id != who.user_id {
                return Err(Refusal::new(ErrorCode::BadSignature, "the shares are of another user's code").into());
            }
            request.set.verify(&user.identity_key).map_err(refusal_of)?;
            check_wraps(who, &signing_key, request)?;
            let strongbox = strongbox_of(tx, who.user_id).await?;
            let version = strongbox.as_ref().map_or(0, |strongbox| strongbox.version);
            let recovery = strongbox.and_then(|strongbox| strongbox.recovery);
            let is_of_code =
                recovery.is_some_and(|it| it.public_key == set.recovery_key && it.login_key == set.login_key);
            if !is_of_code {
                let details = ErrorDetails { version: Some(version), ..ErrorDetails::default() };
                let message = "the shares are not of the recovery code that holds";
                return Err(Refusal::with(ErrorCode::StrongboxChanged, message, details).into());
            }
            check_friends(tx, who.user_id, &set.holders).await?;
            check_keys(tx, &set.holders).await?;
            forget_set(tx, who.user_id).await?;
            write_set(tx, who, request).await
        })
        .await
    }

    /// Gives a user's set of shares: the user's own, or that of a friend with the share that the user holds.
    ///
    /// # Errors
    /// `no_share`, or [`StoreError`].
    pub async fn share(&self, who: Requester, user_id: UserId) -> Result<Share, Failure> {
        self.read("share", async |tx| {
            let no_share = || Refusal::new(ErrorCode::NoShare, "no share of that user's code is this user's");
            let statement = "SELECT body FROM share_sets WHERE user_id = $1";
            let Some(row) = tx.query_opt(statement, &[&user_id.0]).await? else { return Err(no_share().into()) };
            let set: SignedShareSet = unpack(get(&row, "body")?, "share_sets.body")?;
            let statement = "SELECT holder_user_id, key FROM vault_backup_session_keys \
                 WHERE kind = 'share' AND backed_up_user_id = $1 ORDER BY share_number";
            let (mut present, mut key) = (Vec::new(), None);
            for row in tx.query(statement, &[&user_id.0]).await? {
                let holder = id(&row, "holder_user_id", UserId)?;
                if holder == who.user_id {
                    key = Some(fixed(&row, "key")?);
                }
                present.push(holder);
            }
            if user_id != who.user_id && key.is_none() {
                return Err(no_share().into());
            }
            Ok(Share { set, key, present })
        })
        .await
    }
}

/// Forgets a set that is not of the recovery code that holds now, with all that was asked and given by it: under the
/// user's lock, in the transaction that writes the code.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn forget_stale_set(
    tx: &Transaction<'_>,
    user_id: UserId,
    recovery_key: Option<&ExchangeKey>,
) -> Result<(), Failure> {
    let recovery_key: Option<&[u8]> = recovery_key.map(AsRef::as_ref);
    let statement = "SELECT 1 FROM share_sets WHERE user_id = $1 AND recovery_key IS DISTINCT FROM $2";
    if tx.query_opt(statement, &[&user_id.0, &recovery_key]).await?.is_some() {
        forget_set(tx, user_id).await?;
        tx.execute("DELETE FROM recovery_requests WHERE user_id = $1", &[&user_id.0]).await?;
    }
    Ok(())
}

/// Forgets a set, its shares, and what was given of them.
async fn forget_set(tx: &Transaction<'_>, user_id: UserId) -> Result<(), Failure> {
    tx.execute("DELETE FROM share_sets WHERE user_id = $1", &[&user_id.0]).await?;
    let shares = "DELETE FROM vault_backup_session_keys WHERE kind = 'share' AND backed_up_user_id = $1";
    tx.execute(shares, &[&user_id.0]).await?;
    let releases =
        "DELETE FROM recovery_releases r USING recovery_requests q WHERE q.id = r.request_id AND q.user_id = $1";
    tx.execute(releases, &[&user_id.0]).await?;
    Ok(())
}

fn refusal_of(error: ShareSetError) -> Refusal {
    match error {
        ShareSetError::TooMany => Refusal::limit(ErrorCode::TooLarge, "too many friends", SHARES_MAX as u64),
        ShareSetError::Signature => {
            Refusal::new(ErrorCode::BadSignature, "the signature of the set of shares does not verify")
        }
        _ => Refusal::new(ErrorCode::Malformed, "not of the form of a set of shares"),
    }
}

/// Whether there is one wrap for each friend, the one that the set names, signed by the session that asks.
fn check_wraps(who: Requester, signing_key: &SigningKey, request: &SetShares) -> Result<(), Refusal> {
    let set = &request.set.set;
    if request.shares.len() != set.holders.len() {
        return Err(Refusal::new(ErrorCode::Malformed, "a set has one share for each friend"));
    }
    for ((number, share), holder) in (1..).zip(&request.shares).zip(&set.holders) {
        if sha256(share.key.as_ref()) != holder.wrap_hash {
            return Err(Refusal::new(ErrorCode::Malformed, "a share is not the one that its set names"));
        }
        let bytes = share_wrap_bytes(set, number, who.session_id, &share.key);
        if !bytes.is_some_and(|bytes| signing_key.verifies(&bytes, &share.signature)) {
            return Err(Refusal::new(ErrorCode::BadSignature, "the signature of a share does not verify"));
        }
    }
    Ok(())
}

/// Whether the user shares a chat with each friend, and none has blocked the user: nobody is made to be told of the
/// requests of a stranger.
async fn check_friends(tx: &Transaction<'_>, user_id: UserId, holders: &[ShareHolder]) -> Result<(), Failure> {
    let ids: Vec<Uuid> = holders.iter().map(|holder| holder.user_id.0).collect();
    let statement = "SELECT n.id FROM unnest($2::uuid[]) AS n (id) \
         WHERE NOT EXISTS (SELECT 1 FROM user_in_chat own JOIN user_in_chat other ON other.chat_id = own.chat_id \
                 WHERE own.user_id = $1 AND other.user_id = n.id) \
             OR EXISTS (SELECT 1 FROM user_blocks WHERE user_id = n.id AND blocked_user_id = $1) LIMIT 1";
    let Some(row) = tx.query_opt(statement, &[&user_id.0, &ids]).await? else { return Ok(()) };
    let details = ErrorDetails { user_id: Some(id(&row, "id", UserId)?), ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::UnknownUser, "no chat is shared with that user", details).into())
}

/// Whether each share is wrapped to its friend's active user key.
async fn check_keys(tx: &Transaction<'_>, holders: &[ShareHolder]) -> Result<(), Failure> {
    let users: Vec<Uuid> = holders.iter().map(|holder| holder.user_id.0).collect();
    let keys: Vec<Uuid> = holders.iter().map(|holder| holder.key_id.0).collect();
    let statement = "SELECT n.user_id FROM unnest($1::uuid[], $2::uuid[]) AS n (user_id, key_id) \
         WHERE NOT EXISTS (SELECT 1 FROM user_keys k \
             WHERE k.user_id = n.user_id AND k.key_id = n.key_id AND k.is_active \
             AND k.withdrawn_at IS NULL) LIMIT 1";
    let Some(row) = tx.query_opt(statement, &[&users, &keys]).await? else { return Ok(()) };
    let details = ErrorDetails { user_id: Some(id(&row, "user_id", UserId)?), ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::UserKeyStale, "a share is wrapped to a key that is not active", details).into())
}

async fn write_set(tx: &Transaction<'_>, who: Requester, request: &SetShares) -> Result<(), Failure> {
    let set = &request.set.set;
    let insert = "INSERT INTO share_sets (user_id, set_id, recovery_key, body) VALUES ($1, $2, $3, $4)";
    let body = pack(&request.set, "share_sets.body")?;
    tx.execute(insert, &[&who.user_id.0, &set.set_id.0, &set.recovery_key.as_ref(), &body]).await?;
    let insert = "INSERT INTO vault_backup_session_keys (kind, backed_up_user_id, holder_user_id, holder_key_id, key, \
             share_number, wrapped_by_session_id, signature) VALUES ('share', $1, $2, $3, $4, $5, $6, $7)";
    for ((number, share), holder) in (1_i32..).zip(&request.shares).zip(&set.holders) {
        tx.execute(
            insert,
            &[
                &who.user_id.0,
                &holder.user_id.0,
                &holder.key_id.0,
                &share.key.as_ref(),
                &number,
                &who.session_id.0,
                &share.signature.as_ref(),
            ],
        )
        .await?;
    }
    Ok(())
}

fn key_of(row: &Row) -> Result<PublicUserKey, StoreError> {
    Ok(PublicUserKey {
        user_id: id(row, "user_id", UserId)?,
        key_id: id(row, "key_id", UserKeyId)?,
        public_key: fixed(row, "public_key")?,
        signature: fixed(row, "signature")?,
    })
}
