//! What passwords protect: written whole, one version after the other, in one transaction with the password's record.
//!
//! A new active user key is shown in the logs of the user's chats in that transaction: their next generations are due.

use super::Store;
use super::error::{Failure, StoreError};
use super::friends::forget_stale_set;
use super::group_keys::show_user_key;
use super::head::{self, ChatHead};
use super::rows::{bigint, fixed, fixed_or_null, get, id, number_of, pack, unpack};
use super::sessions::{SessionsChanged, locked, require_unsuspended};
use super::transaction::Transaction;
use crate::protocol::binary::{Blob, IdentityKey};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::ids::{UserId, UserKeyId};
use crate::protocol::limits::{USER_KEYS_MAX, USER_KEYS_PER_DAY_MAX};
use crate::protocol::password::{ReplaceStrongbox, StrongboxReplaced};
use crate::protocol::strongbox::{Strongbox, StrongboxError, StrongboxUpload, USER_KEY_ALGORITHM, UserKey};

/// Checks an upload against the user's identity key.
///
/// # Errors
/// `malformed`, `limit_reached`, `bad_signature`.
pub fn check_upload(user_id: UserId, identity_key: &IdentityKey, upload: &StrongboxUpload) -> Result<(), Refusal> {
    upload.verify(user_id, identity_key).map_err(|error| match error {
        StrongboxError::Signature => {
            Refusal::new(ErrorCode::BadSignature, "a signature of the strongbox does not verify")
        }
        StrongboxError::TooManyKeys => {
            Refusal::limit(ErrorCode::LimitReached, "too many user keys", USER_KEYS_MAX as u64)
        }
        _ => Refusal::new(ErrorCode::Malformed, "not of the form of a strongbox"),
    })
}

impl Store {
    /// Replaces a user's password and all that it protects, and gives the chats that show another user key by it. The
    /// same request again gets the same answer.
    ///
    /// # Errors
    /// `unknown_user`, `account_suspended`, `malformed`, `bad_signature`, `strongbox_changed`, `limit_reached`, or [`StoreError`].
    pub async fn replace_strongbox(
        &self,
        request: &ReplaceStrongbox,
    ) -> Result<(StrongboxReplaced, SessionsChanged), Failure> {
        let (user_id, upload) = (request.user_id, &request.upload);
        self.write("replace_strongbox", async |tx| {
            let user = locked(tx, user_id).await?;
            check_upload(user_id, &user.identity_key, upload)?;
            // Only who has the identity key learns it.
            require_unsuspended(&user)?;
            let present = strongbox_of(tx, user_id).await?;
            let version = present.as_ref().map_or(0, |strongbox| strongbox.version);
            if present.as_ref().is_some_and(|strongbox| *strongbox == upload.strongbox) {
                return Ok((StrongboxReplaced { version }, SessionsChanged::default()));
            }
            let keys: &[UserKey] = present.as_ref().map_or(&[], |strongbox| &strongbox.user_keys);
            if upload.strongbox.version != version + 1 || !holds_all(keys, &upload.strongbox.user_keys) {
                let details = ErrorDetails { version: Some(version), ..ErrorDetails::default() };
                let message = "another password or another set of keys came first";
                return Err(Refusal::with(ErrorCode::StrongboxChanged, message, details).into());
            }
            write_strongbox(tx, user_id, upload).await?;
            let chats = head::chats_of_user(tx, user_id).await?;
            let mut heads = ChatHead::lock_all(tx, &chats).await?;
            show_user_key(tx, &mut heads, user_id).await?;
            head::write_back(tx, &heads).await?;
            let changed = SessionsChanged { chats, gone: Vec::new() };
            Ok((StrongboxReplaced { version: upload.strongbox.version }, changed))
        })
        .await
    }
}

/// Whether every key is there still: the same key, and none that served for reading alone serves for more.
fn holds_all(present: &[UserKey], next: &[UserKey]) -> bool {
    present.iter().all(|key| {
        next.iter().any(|other| {
            other.key_id == key.key_id && other.public_key == key.public_key && (key.is_active || !other.is_active)
        })
    })
}

/// Writes a strongbox over the one before, under the user's lock. Nothing that was sealed before is left.
///
/// # Errors
/// `limit_reached`, or [`StoreError`].
pub(super) async fn write_strongbox(
    tx: &Transaction<'_>,
    user_id: UserId,
    upload: &StrongboxUpload,
) -> Result<(), Failure> {
    let recent = "SELECT count(*) AS count FROM user_keys WHERE user_id = $1 AND key_id <> ALL($2) \
         AND created_at > clock_timestamp() - interval '1 day'";
    let new = "SELECT count(*) AS count FROM unnest($2::uuid[]) AS n (key_id) \
         WHERE NOT EXISTS (SELECT 1 FROM user_keys k WHERE k.user_id = $1 AND k.key_id = n.key_id)";
    let ids: Vec<uuid::Uuid> = upload.strongbox.user_keys.iter().map(|key| key.key_id.0).collect();
    let none: Vec<uuid::Uuid> = Vec::new();
    let made: i64 = get(&tx.query_one(recent, &[&user_id.0, &none]).await?, "count")?;
    let new: i64 = get(&tx.query_one(new, &[&user_id.0, &ids]).await?, "count")?;
    if new > 0 && (made + new).unsigned_abs() > USER_KEYS_PER_DAY_MAX {
        return Err(
            Refusal::limit(ErrorCode::LimitReached, "too many user keys in a day", USER_KEYS_PER_DAY_MAX).into()
        );
    }
    let body = Strongbox { user_keys: Vec::new(), ..upload.strongbox.clone() };
    let update = "UPDATE users SET opaque_record = $2, strongbox_version = $3, strongbox = $4 WHERE id = $1";
    let (version, body) = (bigint(upload.strongbox.version), pack(&body, "users.strongbox")?);
    tx.execute(update, &[&user_id.0, &upload.record.as_ref(), &version, &body]).await?;
    forget_stale_set(tx, user_id, upload.strongbox.recovery.as_ref().map(|recovery| &recovery.public_key)).await?;
    // One key is active at any moment, within the transaction too.
    tx.execute("UPDATE user_keys SET is_active = false WHERE user_id = $1", &[&user_id.0]).await?;
    let insert = "INSERT INTO user_keys (user_id, key_id, public_key, encrypted_private_key, algorithm, is_active, signature, \
             recovery_sealed_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (user_id, key_id) DO UPDATE SET encrypted_private_key = $4, is_active = $6, signature = $7, \
             recovery_sealed_key = $8";
    for key in &upload.strongbox.user_keys {
        let recovery_sealed = key.recovery_sealed.as_ref().map(AsRef::as_ref);
        let recovery_sealed: Option<&[u8]> = recovery_sealed;
        tx.execute(
            insert,
            &[
                &user_id.0,
                &key.key_id.0,
                &key.public_key.as_ref(),
                &key.sealed.as_ref(),
                &USER_KEY_ALGORITHM,
                &key.is_active,
                &key.signature.as_ref(),
                &recovery_sealed,
            ],
        )
        .await?;
    }
    Ok(())
}

/// What a user's password protects; none without a password.
///
/// # Errors
/// [`Failure::Store`].
pub(super) async fn strongbox_of(tx: &Transaction<'_>, user_id: UserId) -> Result<Option<Strongbox>, Failure> {
    let Some(row) = tx.query_opt("SELECT strongbox, strongbox_version FROM users WHERE id = $1", &[&user_id.0]).await?
    else {
        return Ok(None);
    };
    let Some(body) = get::<Option<&[u8]>>(&row, "strongbox")? else { return Ok(None) };
    let mut strongbox: Strongbox = unpack(body, "users.strongbox")?;
    if strongbox.version != number_of::<u64>(get(&row, "strongbox_version")?, "strongbox_version")? {
        return Err(StoreError::Corrupt { what: "users.strongbox_version" }.into());
    }
    let statement = "SELECT key_id, public_key, encrypted_private_key, is_active, signature, recovery_sealed_key \
         FROM user_keys WHERE user_id = $1 ORDER BY key_id";
    for row in tx.query(statement, &[&user_id.0]).await? {
        strongbox.user_keys.push(UserKey {
            key_id: id(&row, "key_id", UserKeyId)?,
            public_key: fixed(&row, "public_key")?,
            signature: fixed(&row, "signature")?,
            is_active: get(&row, "is_active")?,
            sealed: Blob::from(get::<Vec<u8>>(&row, "encrypted_private_key")?),
            recovery_sealed: fixed_or_null(&row, "recovery_sealed_key")?,
        });
    }
    Ok(Some(strongbox))
}
