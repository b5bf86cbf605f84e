//! What recipients say of bad copies, and what follows.
//!
//! Invariants: R1 the first refusal of a sender's own copy of a key voids it, the second is final: the copy stays and
//! counts as present, so nobody can be kept from sending by refusals. R2 a copy that somebody else uploaded is voided
//! and never counts against the sender's. R3 a session's refusals beyond the limit of an hour change nothing.

use uuid::Uuid;

use super::Store;
use super::copies::member;
use super::error::Failure;
use super::head::ChatHead;
use super::members::{Requester, turn_away, unknown_chat};
use super::rows::{bigint, get, id};
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::RefuseCopy;
use crate::protocol::ids::SessionId;
use crate::protocol::keys::CopyRefusal;
use crate::protocol::limits::REFUSALS_PER_HOUR_MAX;
use crate::protocol::verify::Verifier;

/// What became of a copy that was refused.
#[derive(Debug, Clone)]
pub struct CopyRefusedNow {
    /// Whose key it is.
    pub sender_session_id: SessionId,
    /// Who had uploaded it.
    pub uploaded_by_session_id: SessionId,
    /// It stays and counts as present.
    pub is_final: bool,
    /// The live sessions of the users whom it concerns.
    pub told: Vec<SessionId>,
}

/// A stored copy that is refused.
struct Refused {
    sender_session_id: Uuid,
    uploaded_by_session_id: Uuid,
    /// This very refusal has had its effect before.
    is_known: bool,
    /// A refusal of this key's copies by this session was final.
    is_given_up: bool,
    /// This session has refused a copy of this key by its sender.
    has_refused_sender: bool,
}

impl Store {
    /// Takes a refusal. None if it changes nothing: it was made before, or there were too many in an hour.
    ///
    /// # Errors
    /// `unknown_chat`, `unknown_key` unless the stored copy is the one that is named, `bad_signature`, or
    /// [`super::StoreError`].
    pub async fn refuse_copy(&self, who: Requester, request: &RefuseCopy) -> Result<Option<CopyRefusedNow>, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.refusal);
        let refusal = &signed.refusal;
        self.write("refuse_copy", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let (signing_key, _) = member(tx, who, chat_id).await?;
            let is_own = refusal.session_id == who.session_id;
            if !is_own || !signing_key.verifies(&refusal.signed_bytes(chat_id), &signed.signature) {
                let message = "the refusal is not signed by the session that is logged in";
                return Err(Refusal::new(ErrorCode::BadSignature, message).into());
            }
            let Some(refused) = find(tx, &head, refusal).await? else {
                // The very same refusal again: the copy that it names is gone by its own effect.
                return if is_noted(tx, &head, refusal).await? { Ok(None) } else { Err(unknown_copy().into()) };
            };
            if refused.is_known {
                return Ok(None);
            }
            let is_by_sender = refused.uploaded_by_session_id == refused.sender_session_id;
            let is_final = refused.is_given_up || is_by_sender && refused.has_refused_sender;
            let has_effect = recent(tx, who.session_id).await? < REFUSALS_PER_HOUR_MAX;
            let insert = "INSERT INTO refused_copies (chat_id, sender_key_id, session_id, uploaded_by_session_id, copy_hash, \
                 reason, signature, is_final, has_effect) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (chat_id, sender_key_id, session_id, copy_hash) DO UPDATE SET is_final = excluded.is_final, \
                 has_effect = excluded.has_effect, reason = excluded.reason, signature = excluded.signature, \
                 uploaded_by_session_id = excluded.uploaded_by_session_id, created_at = clock_timestamp()";
            tx.execute(
                insert,
                &[
                    &chat_id.0,
                    &refusal.key_id.0,
                    &refusal.session_id.0,
                    &refused.uploaded_by_session_id,
                    &refusal.copy_hash.as_ref(),
                    &refusal.reason.as_str(),
                    &signed.signature.as_ref(),
                    &(is_final && has_effect),
                    &has_effect,
                ],
            )
            .await?;
            if !has_effect {
                return Ok(None);
            }
            if !is_final {
                void(tx, &head, refusal).await?;
            }
            let told = told(tx, [who.session_id.0, refused.sender_session_id, refused.uploaded_by_session_id]).await?;
            Ok(Some(CopyRefusedNow {
                sender_session_id: SessionId(refused.sender_session_id),
                uploaded_by_session_id: SessionId(refused.uploaded_by_session_id),
                is_final,
                told,
            }))
        })
        .await
    }
}

fn unknown_copy() -> Refusal {
    Refusal::new(ErrorCode::UnknownKey, "no such copy for this session")
}

/// The copy that is stored, if it is the one that is named.
async fn find(tx: &Transaction<'_>, head: &ChatHead, refusal: &CopyRefusal) -> Result<Option<Refused>, Failure> {
    let statement = "SELECT v.sender_session_id, v.uploaded_by_session_id, \
             coalesce(bool_or(f.has_effect AND f.copy_hash = $4), false) AS is_known, \
             coalesce(bool_or(f.is_final), false) AS is_given_up, \
             coalesce(bool_or(f.has_effect AND f.uploaded_by_session_id = v.sender_session_id), false) AS has_refused_sender \
         FROM vault_chat_sender_keys v LEFT JOIN refused_copies f \
             ON f.chat_id = v.chat_id AND f.sender_key_id = v.sender_key_id AND f.session_id = v.session_id \
         WHERE v.chat_id = $1 AND v.sender_key_id = $2 AND v.session_id = $3 AND sha256(v.key) = $4 \
         GROUP BY v.sender_session_id, v.uploaded_by_session_id";
    let (key_id, session_id, hash) = (refusal.key_id.0, refusal.session_id.0, refusal.copy_hash.as_ref());
    let Some(row) = tx.query_opt(statement, &[&head.chat_id.0, &key_id, &session_id, &hash]).await? else {
        return Ok(None);
    };
    Ok(Some(Refused {
        sender_session_id: get(&row, "sender_session_id")?,
        uploaded_by_session_id: get(&row, "uploaded_by_session_id")?,
        is_known: get(&row, "is_known")?,
        is_given_up: get(&row, "is_given_up")?,
        has_refused_sender: get(&row, "has_refused_sender")?,
    }))
}

async fn is_noted(tx: &Transaction<'_>, head: &ChatHead, refusal: &CopyRefusal) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM refused_copies \
         WHERE chat_id = $1 AND sender_key_id = $2 AND session_id = $3 AND copy_hash = $4";
    let (key_id, session_id, hash) = (refusal.key_id.0, refusal.session_id.0, refusal.copy_hash.as_ref());
    Ok(tx.query_opt(statement, &[&head.chat_id.0, &key_id, &session_id, &hash]).await?.is_some())
}

/// Refusals of a session in the last hour that had an effect.
async fn recent(tx: &Transaction<'_>, session_id: SessionId) -> Result<u64, Failure> {
    let statement = "SELECT count(*) AS count FROM refused_copies \
         WHERE session_id = $1 AND has_effect AND created_at > clock_timestamp() - interval '1 hour'";
    let count: i64 = get(&tx.query_one(statement, &[&session_id.0]).await?, "count")?;
    Ok(count.unsigned_abs())
}

/// Takes a copy away; its key is covered no longer, if it is a current one.
async fn void(tx: &Transaction<'_>, head: &ChatHead, refusal: &CopyRefusal) -> Result<(), Failure> {
    let (key_id, session_id) = (refusal.key_id.0, refusal.session_id.0);
    let delete = "DELETE FROM vault_chat_sender_keys WHERE chat_id = $1 AND sender_key_id = $2 AND session_id = $3";
    tx.execute(delete, &[&head.chat_id.0, &key_id, &session_id]).await?;
    let uncover = "UPDATE sender_keys SET covered_version = NULL WHERE chat_id = $1 AND key_id = $2 AND epoch = $3";
    tx.execute(uncover, &[&head.chat_id.0, &key_id, &bigint(head.epoch)]).await?;
    Ok(())
}

/// The live sessions of the users of some sessions.
async fn told(tx: &Transaction<'_>, sessions: [Uuid; 3]) -> Result<Vec<SessionId>, Failure> {
    let statement = "SELECT id FROM user_sessions WHERE state = 'live' \
         AND user_id IN (SELECT user_id FROM user_sessions WHERE id = ANY($1))";
    let found = tx.query(statement, &[&sessions.as_slice()]).await?;
    Ok(found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?)
}
