//! Sessions: revoked, expired, listed, and what a login needs.
//!
//! A session that becomes live or ceases to be is an entry in each of its user's chats, in the same transaction.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::Store;
use super::backups::empty_backups;
use super::error::{Failure, StoreError};
use super::group_keys::{active_key, hide_user_key};
use super::head::{self, ChatHead, LockedUser, lock_user};
use super::linking::has_logged_in;
use super::members::Requester;
use super::rows::{bigint, fixed, fixed_or_null, get, id, number_of, pack, timestamp, timestamp_of};
use super::transaction::Transaction;
use super::users::certificate_of;
use crate::protocol::binary::{Blob, SigningKey};
use crate::protocol::certificate::{Revoker, SignedRevocation};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{PendingSession, RevokeSession, SessionInfo, SessionState, Sessions};
use crate::protocol::group_key::{SignedWithdrawal, UserKeyEntry};
use crate::protocol::ids::{ChatId, Place, SessionId, Timestamp, UserId};
use crate::protocol::log::{EntryBody, SessionOut};
use crate::protocol::verify::Verifier;

/// How many sessions one sweep expires at most.
const SWEEP_MAX: i64 = 200;

/// What a login is judged by.
#[derive(Debug, Clone, Copy)]
pub struct LoginSession {
    /// Its user.
    pub user_id: UserId,
    /// Whether the operator has suspended its user.
    pub is_suspended: bool,
    /// Its state; `Expired` as soon as its time has run out, written down or not.
    pub state: SessionState,
    /// Whether it has been certified: one that expired may be renewed, one that waited in vain may not.
    pub is_certified: bool,
    /// When it expires.
    pub expired_at: Timestamp,
    /// What it signs with.
    pub signing_public_key: SigningKey,
}

/// What changed by a change of sessions: whose chats have new entries.
#[derive(Debug, Clone, Default)]
pub struct SessionsChanged {
    /// The chats.
    pub chats: Vec<ChatId>,
    /// The sessions that are live no longer.
    pub gone: Vec<SessionId>,
}

impl Store {
    /// Reads what a login is judged by; none if there is no such session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn login_session(&self, session_id: SessionId) -> Result<Option<LoginSession>, Failure> {
        self.read("login", async |tx| {
            let statement = "SELECT s.user_id, s.state, s.expired_at, s.signing_public_key, \
                 s.expired_at <= clock_timestamp() AS is_over, u.suspended_at IS NOT NULL AS is_suspended \
                 FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1";
            let Some(row) = tx.query_opt(statement, &[&session_id.0]).await? else { return Ok(None) };
            let is_over: bool = get(&row, "is_over")?;
            let stored = state_of(&row)?;
            let state = match stored {
                SessionState::Live | SessionState::Pending if is_over => SessionState::Expired,
                state => state,
            };
            Ok(Some(LoginSession {
                user_id: id(&row, "user_id", UserId)?,
                is_suspended: get(&row, "is_suspended")?,
                state,
                is_certified: stored != SessionState::Pending,
                expired_at: timestamp(&row, "expired_at")?,
                signing_public_key: fixed(&row, "signing_public_key")?,
            }))
        })
        .await
    }

    /// Notes when sessions were last connected. Set-based; loses nothing that matters if it fails.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn touch_sessions(&self, session_ids: &[SessionId]) -> Result<(), Failure> {
        let ids: Vec<uuid::Uuid> = session_ids.iter().map(|session_id| session_id.0).collect();
        self.write("touch_sessions", async |tx| {
            let statement = "UPDATE user_sessions SET last_seen_at = clock_timestamp() WHERE id = ANY($1)";
            tx.execute(statement, &[&ids]).await?;
            Ok(())
        })
        .await
    }

    /// Ends a session by its user's will. With one that had been given what the password protects, the active user key
    /// is withdrawn.
    ///
    /// # Errors
    /// `unknown_session`, `bad_signature`, `event_conflict`, `withdrawal_missing`, or [`StoreError`].
    pub async fn revoke_session(
        &self,
        user_id: UserId,
        revoker: SessionId,
        request: &RevokeSession,
    ) -> Result<SessionsChanged, Failure> {
        let signed = &request.revocation;
        let revocation = &signed.revocation;
        self.write("revoke_session", async |tx| {
            let user = locked(tx, user_id).await?;
            let standing = require_live(tx, user_id, revoker).await;
            // Who has just proven the password may make room with the identity key.
            let is_pending =
                matches!(&standing, Err(Failure::Refused(refusal)) if refusal.code == ErrorCode::SessionPending);
            if !is_pending || revocation.revoker != Revoker::Identity || !has_logged_in(tx, revoker).await? {
                standing?;
            }
            let unknown = || Refusal::new(ErrorCode::UnknownSession, "no such session");
            if revocation.user_id != user_id {
                return Err(unknown().into());
            }
            let statement = "SELECT state, logged_in_at IS NOT NULL AS knows_halves FROM user_sessions \
                 WHERE id = $1 AND user_id = $2";
            let Some(row) = tx.query_opt(statement, &[&revocation.session_id.0, &user_id.0]).await? else {
                return Err(unknown().into());
            };
            let state = state_of(&row)?;
            if state == SessionState::Revoked {
                return is_stored(tx, user_id, signed)
                    .await
                    .and_then(|same| if same { Ok(SessionsChanged::default()) } else { Err(unknown().into()) });
            }
            if state == SessionState::Pending {
                return Err(unknown().into());
            }
            let bytes = revocation.signed_bytes();
            let verifies = match revocation.revoker {
                Revoker::Identity => user.identity_key.verifies(&bytes, &signed.signature),
                Revoker::Session(session_id) => {
                    let signer = require_live(tx, user_id, session_id).await?;
                    signer.verifies(&bytes, &signed.signature)
                }
            };
            if !verifies {
                return Err(Refusal::new(ErrorCode::BadSignature, "the revocation's signature does not verify").into());
            }
            let knows_halves: bool = get(&row, "knows_halves")?;
            let withdrawn = check_withdrawal(tx, &user, user_id, knows_halves, request.withdrawal.as_ref()).await?;
            check_chain(&user, revocation.place, &revocation.previous)?;
            let update = "UPDATE user_sessions SET state = 'revoked', handover = NULL WHERE id = $1";
            tx.execute(update, &[&revocation.session_id.0]).await?;
            empty_backups(tx, revocation.session_id).await?;
            let body = pack(signed, "user_events.body")?;
            let hash = signed.chain_hash();
            append_user_event(tx, user_id, revocation.place, "revocation", revocation.session_id, &body, hash.as_ref())
                .await?;
            if state != SessionState::Live && withdrawn.is_none() {
                return Ok(SessionsChanged::default());
            }
            let chats = head::chats_of_user(tx, user_id).await?;
            let mut heads = ChatHead::lock_all(tx, &chats).await?;
            // First, for a session that revokes itself signs the withdrawal too.
            if let Some(withdrawal) = withdrawn {
                let entry = UserKeyEntry::Withdrawn(withdrawal);
                hide_user_key(tx, &mut heads, &entry, withdrawal.withdrawal.key_id).await?;
            }
            let mut gone = Vec::new();
            if state == SessionState::Live {
                for head in &mut heads {
                    head.append(EntryBody::SessionOut(SessionOut::Revoked(signed.clone())));
                }
                gone.push(revocation.session_id);
            }
            head::write_back(tx, &heads).await?;
            Ok(SessionsChanged { chats, gone })
        })
        .await
    }

    /// Users who have a live session whose time has run out, a bounded number of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users_with_due_sessions(&self) -> Result<Vec<UserId>, Failure> {
        self.read("due_sessions", async |tx| {
            // The time of the statement, for a time that changes while it runs is compared with every session's.
            let statement = "SELECT DISTINCT user_id FROM (SELECT user_id FROM user_sessions \
                 WHERE state = 'live' AND expired_at <= statement_timestamp() ORDER BY expired_at LIMIT $1) due";
            let found = tx.query(statement, &[&SWEEP_MAX]).await?;
            Ok(found.iter().map(|row| id(row, "user_id", UserId)).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Users of a chat who have a live session whose time has run out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_users_of_chat(&self, chat_id: ChatId) -> Result<Vec<UserId>, Failure> {
        self.read("due_users", async |tx| {
            let statement = "SELECT DISTINCT s.user_id FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id \
                 WHERE m.chat_id = $1 AND s.state = 'live' AND s.expired_at <= clock_timestamp()";
            let found = tx.query(statement, &[&chat_id.0]).await?;
            Ok(found.iter().map(|row| id(row, "user_id", UserId)).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Writes down the expiry of a user's sessions whose time has run out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire_sessions(&self, user_id: UserId) -> Result<SessionsChanged, Failure> {
        let changed = self.write("expire_sessions", async |tx| {
            if lock_user(tx, user_id).await?.is_none() {
                return Ok(SessionsChanged::default());
            }
            let update = "UPDATE user_sessions SET state = 'expired', handover = NULL \
                 WHERE user_id = $1 AND state = 'live' AND expired_at <= clock_timestamp() RETURNING id, expired_at";
            let found = tx.query(update, &[&user_id.0]).await?;
            let gone: Vec<SessionId> = found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?;
            let Some(latest) = latest_expiry(&found)? else { return Ok(SessionsChanged::default()) };
            let chats = for_each_chat(tx, user_id, |head| {
                // Readers refuse an expiry that is older than the certificate says, though a clock stepped back.
                head.now = head.now.max(latest);
                for session_id in &gone {
                    let out = SessionOut::Expired { user_id, session_id: *session_id };
                    head.append(EntryBody::SessionOut(out));
                }
            })
            .await?;
            Ok(SessionsChanged { chats, gone })
        });
        let changed = changed.await?;
        self.metrics().sessions_expired.inc_by(changed.gone.len() as u64);
        Ok(changed)
    }

    /// Lists a user's sessions and the head of the user's chain.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`].
    pub async fn list_sessions(&self, who: Requester) -> Result<Sessions, Failure> {
        let user_id = who.user_id;
        self.read("list_sessions", async |tx| {
            require_live(tx, user_id, who.session_id).await?;
            let statement = "SELECT id, state, certificate, last_seen_at, public_key, signing_public_key, link_proof, created_at, label, \
                 expired_at <= clock_timestamp() AS is_over FROM user_sessions WHERE user_id = $1 ORDER BY created_at, id";
            let (mut sessions, mut pending) = (Vec::new(), Vec::new());
            for row in tx.query(statement, &[&user_id.0]).await? {
                let is_over: bool = get(&row, "is_over")?;
                match state_of(&row)? {
                    SessionState::Pending if is_over => {}
                    // One that a login made waits for nobody.
                    SessionState::Pending if get::<Option<&[u8]>>(&row, "link_proof")?.is_none() => {}
                    SessionState::Pending => pending.push(pending_of(&row)?),
                    state => sessions.push(SessionInfo {
                        certificate: certificate_of(get(&row, "certificate")?)?,
                        state: if is_over && state == SessionState::Live { SessionState::Expired } else { state },
                        last_seen_at: seen_at(&row)?,
                        label: get::<Option<Vec<u8>>>(&row, "label")?.map(Blob::from),
                    }),
                }
            }
            let statement = "SELECT chain_place, chain_hash FROM users WHERE id = $1";
            let user = tx.query_one(statement, &[&user_id.0]).await?;
            let place = number_of(get(&user, "chain_place")?, "chain_place")?;
            Ok(Sessions { sessions, pending, place, hash: fixed(&user, "chain_hash")? })
        })
        .await
    }

    /// The live sessions of a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_sessions(&self, user_id: UserId) -> Result<Vec<SessionId>, Failure> {
        self.read("live_sessions", async |tx| {
            let statement = "SELECT id FROM user_sessions WHERE user_id = $1 AND state = 'live'";
            let found = tx.query(statement, &[&user_id.0]).await?;
            Ok(found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Deletes what revoked sessions may no longer read, a bounded number of rows; says how many. Copies that another
    /// session of the user opens, by a backup that it holds, stay for that one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_copies_of_revoked(&self) -> Result<u64, Failure> {
        self.write("delete_copies_of_revoked", async |tx| {
            let statement = "DELETE FROM vault_chat_sender_keys WHERE (chat_id, sender_key_id, session_id) IN ( \
                 SELECT v.chat_id, v.sender_key_id, v.session_id FROM user_sessions s \
                 JOIN vault_chat_sender_keys v ON v.session_id = s.id WHERE s.state = 'revoked' \
                 AND NOT EXISTS (SELECT 1 FROM vault_backup_session_keys b JOIN user_sessions h ON h.id = b.session_id \
                     WHERE b.backed_up_session_id = s.id AND b.kind = 'full' AND b.key IS NOT NULL \
                     AND h.state <> 'revoked') LIMIT 1000)";
            let copies = tx.execute(statement, &[]).await?;
            let statement = "DELETE FROM key_requests r USING user_sessions s \
                 WHERE s.id = r.session_id AND s.state = 'revoked'";
            tx.execute(statement, &[]).await?;
            let statement = "DELETE FROM info_key_requests r USING user_sessions s \
                 WHERE s.id = r.session_id AND s.state = 'revoked'";
            tx.execute(statement, &[]).await?;
            let statement = "DELETE FROM vault_user_info_keys v USING user_sessions s \
                 WHERE s.id = v.session_id AND s.state = 'revoked'";
            tx.execute(statement, &[]).await?;
            let statement = "DELETE FROM vault_chat_info_keys v USING user_sessions s \
                 WHERE s.id = v.session_id AND s.state = 'revoked'";
            Ok(copies + tx.execute(statement, &[]).await?)
        })
        .await
    }
}

/// Checks what withdraws the active user key; it must be there when the session that goes knows the sealed halves.
async fn check_withdrawal(
    tx: &Transaction<'_>,
    user: &LockedUser,
    user_id: UserId,
    is_needed: bool,
    signed: Option<&SignedWithdrawal>,
) -> Result<Option<SignedWithdrawal>, Failure> {
    let active = active_key(tx, user_id).await?;
    let Some(active) = active else { return Ok(None) };
    let Some(signed) = signed.filter(|signed| signed.withdrawal.key_id == active.key_id) else {
        if !is_needed {
            return Ok(None);
        }
        let details = ErrorDetails { user_key_id: Some(active.key_id), ..ErrorDetails::default() };
        let message = "the session knows what the password protects: the active user key must be withdrawn with it";
        return Err(Refusal::with(ErrorCode::WithdrawalMissing, message, details).into());
    };
    let bytes = signed.withdrawal.signed_bytes();
    let verifies = signed.withdrawal.user_id == user_id
        && match signed.withdrawal.revoker {
            Revoker::Identity => user.identity_key.verifies(&bytes, &signed.signature),
            Revoker::Session(session_id) => {
                require_live(tx, user_id, session_id).await?.verifies(&bytes, &signed.signature)
            }
        };
    if !verifies {
        return Err(Refusal::new(ErrorCode::BadSignature, "the withdrawal's signature does not verify").into());
    }
    Ok(Some(*signed))
}

pub(super) async fn locked(tx: &Transaction<'_>, user_id: UserId) -> Result<LockedUser, Failure> {
    let user = lock_user(tx, user_id).await?;
    user.ok_or_else(|| Refusal::new(ErrorCode::UnknownUser, "no such user").into())
}

/// The refusal of whoever the operator has suspended.
#[must_use]
pub const fn suspended() -> Refusal {
    Refusal::new(ErrorCode::AccountSuspended, "the account is suspended")
}

/// Checks under the lock that an acting user is not suspended: for what needs no live session.
pub(super) fn require_unsuspended(user: &LockedUser) -> Result<(), Refusal> {
    if user.is_suspended { Err(suspended()) } else { Ok(()) }
}

/// Checks under the lock that the acting session is live still and its user not suspended, and gives its key.
pub(super) async fn require_live(
    tx: &Transaction<'_>,
    user_id: UserId,
    session_id: SessionId,
) -> Result<SigningKey, Failure> {
    let statement = "SELECT s.signing_public_key, s.state, s.expired_at <= clock_timestamp() AS is_over, \
         u.suspended_at IS NOT NULL AS is_suspended \
         FROM user_sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND s.user_id = $2";
    let Some(row) = tx.query_opt(statement, &[&session_id.0, &user_id.0]).await? else {
        return Err(Refusal::new(ErrorCode::UnknownSession, "no such session").into());
    };
    if get(&row, "is_suspended")? {
        return Err(suspended().into());
    }
    match state_of(&row)? {
        SessionState::Live if !get::<bool>(&row, "is_over")? => Ok(fixed(&row, "signing_public_key")?),
        SessionState::Live | SessionState::Expired => {
            Err(Refusal::new(ErrorCode::SessionExpired, "the session's time ran out").into())
        }
        SessionState::Revoked => Err(Refusal::new(ErrorCode::SessionRevoked, "the session was revoked").into()),
        SessionState::Pending => Err(Refusal::new(ErrorCode::SessionPending, "the session waits for approval").into()),
    }
}

pub(super) fn check_chain(
    user: &LockedUser,
    place: Place,
    previous: &crate::protocol::binary::Hash,
) -> Result<(), Refusal> {
    if place == user.place.next() && *previous == user.hash {
        return Ok(());
    }
    let details = ErrorDetails { place: Some(user.place), hash: Some(user.hash), ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::EventConflict, "another entry of the user's chain came first", details))
}

pub(super) async fn append_user_event(
    tx: &Transaction<'_>,
    user_id: UserId,
    place: Place,
    kind: &str,
    session_id: SessionId,
    body: &[u8],
    hash: &[u8],
) -> Result<(), Failure> {
    let insert =
        "INSERT INTO user_events (user_id, place, kind, session_id, body, hash) VALUES ($1, $2, $3, $4, $5, $6)";
    tx.execute(insert, &[&user_id.0, &bigint(place), &kind, &session_id.0, &body, &hash]).await?;
    let update = "UPDATE users SET chain_place = $2, chain_hash = $3 WHERE id = $1";
    tx.execute(update, &[&user_id.0, &bigint(place), &hash]).await?;
    Ok(())
}

async fn is_stored(tx: &Transaction<'_>, user_id: UserId, signed: &SignedRevocation) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM user_events WHERE user_id = $1 AND place = $2 AND hash = $3";
    let hash = signed.chain_hash();
    let place = bigint(signed.revocation.place);
    Ok(tx.query_opt(statement, &[&user_id.0, &place, &hash.as_ref()]).await?.is_some())
}

/// Appends to the log of each of a user's chats, under the user's lock, and gives the chats.
pub(super) async fn for_each_chat(
    tx: &Transaction<'_>,
    user_id: UserId,
    append: impl Fn(&mut ChatHead),
) -> Result<Vec<ChatId>, Failure> {
    let chats = head::chats_of_user(tx, user_id).await?;
    let mut heads = ChatHead::lock_all(tx, &chats).await?;
    heads.iter_mut().for_each(append);
    head::write_back(tx, &heads).await?;
    Ok(chats)
}

fn latest_expiry(rows: &[Row]) -> Result<Option<Timestamp>, StoreError> {
    let times = rows.iter().map(|row| timestamp(row, "expired_at"));
    Ok(times.collect::<Result<Vec<_>, _>>()?.into_iter().max())
}

pub(super) fn state_of(row: &Row) -> Result<SessionState, StoreError> {
    match get::<&str>(row, "state")? {
        "pending" => Ok(SessionState::Pending),
        "live" => Ok(SessionState::Live),
        "expired" => Ok(SessionState::Expired),
        "revoked" => Ok(SessionState::Revoked),
        _ => Err(StoreError::Corrupt { what: "user_sessions.state" }),
    }
}

fn seen_at(row: &Row) -> Result<Option<Timestamp>, StoreError> {
    let time: Option<SystemTime> = get(row, "last_seen_at")?;
    time.map(|time| timestamp_of(time, "last_seen_at")).transpose()
}

fn pending_of(row: &Row) -> Result<PendingSession, StoreError> {
    Ok(PendingSession {
        session_id: id(row, "id", SessionId)?,
        public_key: fixed(row, "public_key")?,
        signing_public_key: fixed(row, "signing_public_key")?,
        proof: fixed_or_null(row, "link_proof")?.ok_or(StoreError::Corrupt { what: "link_proof" })?,
        created_at: timestamp(row, "created_at")?,
    })
}
