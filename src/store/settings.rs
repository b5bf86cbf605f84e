//! What users set for themselves: who may add them to chats, and whom they have blocked.
//!
//! Each is written under its user's row lock, and asked under the same lock by whoever adds the user: what was
//! acknowledged before an addition begins decides it.

use super::Store;
use super::error::{Failure, StoreError};
use super::head::lock_user;
use super::members::Requester;
use super::rows::{get, id};
use super::sessions::require_live;
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{AddPolicy, MemberName, Settings};
use crate::protocol::ids::UserId;
use crate::protocol::limits::BLOCKS_MAX;
use crate::protocol::username::Username;

impl Store {
    /// What a user has set.
    ///
    /// # Errors
    /// A requester that is not live, or [`StoreError`].
    pub async fn settings(&self, who: Requester) -> Result<Settings, Failure> {
        let user_id = who.user_id;
        self.read("settings", async |tx| {
            require_live(tx, user_id, who.session_id).await?;
            let statement = "SELECT add_policy FROM users WHERE id = $1";
            let row = tx.query_opt(statement, &[&user_id.0]).await?.ok_or_else(no_such_session)?;
            let add_policy = policy_of(get(&row, "add_policy")?)?;
            let statement = "SELECT u.id, u.username FROM user_blocks b JOIN users u ON u.id = b.blocked_user_id \
                 WHERE b.user_id = $1 ORDER BY u.id";
            let mut blocked = Vec::new();
            for row in tx.query(statement, &[&user_id.0]).await? {
                let username = Username::parse(get(&row, "username")?);
                let username = username.map_err(|_| StoreError::Corrupt { what: "username" })?;
                blocked.push(MemberName { user_id: id(&row, "id", UserId)?, username });
            }
            Ok(Settings { add_policy, blocked })
        })
        .await
    }

    /// Says who may add a user to chats. An addition that is answered later has heeded it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_add_policy(&self, who: Requester, policy: AddPolicy) -> Result<(), Failure> {
        self.write("set_add_policy", async |tx| {
            lock_own(tx, who).await?;
            tx.execute("UPDATE users SET add_policy = $2 WHERE id = $1", &[&who.user_id.0, &policy.as_str()]).await?;
            Ok(())
        })
        .await
    }

    /// Blocks a user, or no longer. What is so already is done.
    ///
    /// # Errors
    /// `malformed` for oneself, `unknown_user`, `limit_reached`, or [`StoreError`].
    pub async fn set_block(&self, who: Requester, other: UserId, blocked: bool) -> Result<(), Failure> {
        if other == who.user_id {
            return Err(Refusal::new(ErrorCode::Malformed, "nobody blocks themselves").into());
        }
        let blocks_max = BLOCKS_MAX as u64;
        let result = self.write("set_block", async |tx| {
            lock_own(tx, who).await?;
            if !blocked {
                let statement = "DELETE FROM user_blocks WHERE user_id = $1 AND blocked_user_id = $2";
                tx.execute(statement, &[&who.user_id.0, &other.0]).await?;
                return Ok(());
            }
            let statement = "SELECT count(*) AS count, \
                 coalesce(bool_or(blocked_user_id = $2), false) AS is_blocked, \
                 EXISTS (SELECT 1 FROM users WHERE id = $2) AS is_known FROM user_blocks WHERE user_id = $1";
            let row = tx.query_one(statement, &[&who.user_id.0, &other.0]).await?;
            if get(&row, "is_blocked")? {
                return Ok(());
            }
            if !get::<bool>(&row, "is_known")? {
                return Err(unknown_user().into());
            }
            if get::<i64>(&row, "count")?.unsigned_abs() >= blocks_max {
                return Err(Refusal::limit(ErrorCode::LimitReached, "too many users are blocked", blocks_max).into());
            }
            let statement = "INSERT INTO user_blocks (user_id, blocked_user_id) VALUES ($1, $2)";
            tx.execute(statement, &[&who.user_id.0, &other.0]).await?;
            Ok(())
        });
        match result.await {
            // The other's account ended between the look at it and the insertion.
            Err(Failure::Store(error)) if error.is_foreign_key_violation() => Err(unknown_user().into()),
            result => result,
        }
    }
}

/// Refuses an addition that the target does not want. Their row is locked, so what they set before holds.
///
/// A block and a policy get the same answer: who is blocked does not learn it.
///
/// # Errors
/// `not_allowed_to_add`, or [`Failure::Store`].
pub(super) async fn check_may_add(tx: &Transaction<'_>, actor: UserId, target: UserId) -> Result<(), Failure> {
    let statement = "SELECT add_policy, \
         EXISTS (SELECT 1 FROM user_blocks WHERE user_id = $2 AND blocked_user_id = $1) AS is_blocked, \
         EXISTS (SELECT 1 FROM user_in_chat theirs JOIN user_in_chat own ON own.chat_id = theirs.chat_id \
             WHERE theirs.user_id = $2 AND own.user_id = $1) AS shares_chat FROM users WHERE id = $2";
    let row = tx.query_one(statement, &[&actor.0, &target.0]).await?;
    let is_welcome = match policy_of(get(&row, "add_policy")?)? {
        AddPolicy::Everyone => true,
        AddPolicy::SharedChat => get(&row, "shares_chat")?,
        AddPolicy::Nobody => false,
    };
    if is_welcome && !get::<bool>(&row, "is_blocked")? {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::NotAllowedToAdd, "the user does not want to be added by this one").into())
}

/// Locks one's own row and makes sure that the session that asks is live.
async fn lock_own(tx: &Transaction<'_>, who: Requester) -> Result<(), Failure> {
    lock_user(tx, who.user_id).await?;
    require_live(tx, who.user_id, who.session_id).await?;
    Ok(())
}

fn unknown_user() -> Refusal {
    Refusal::new(ErrorCode::UnknownUser, "no such user")
}

fn no_such_session() -> Refusal {
    Refusal::new(ErrorCode::UnknownSession, "no such session")
}

fn policy_of(word: &str) -> Result<AddPolicy, StoreError> {
    match word {
        "everyone" => Ok(AddPolicy::Everyone),
        "shared_chat" => Ok(AddPolicy::SharedChat),
        "nobody" => Ok(AddPolicy::Nobody),
        _ => Err(StoreError::Corrupt { what: "users.add_policy" }),
    }
}
