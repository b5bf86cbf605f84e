//! What the operator does through the database: accounts suspended and ended, sessions cut, lists of what is there.
//!
//! A broker that serves is told by a row of `operator_actions`, which it reads every second. Nothing here makes a key, a
//! copy or a signature: what can be forced on a chat is that a member goes, and its log says by whom (P7).

mod actions;
mod lists;

use uuid::Uuid;

use super::Store;
use super::accounts::{leave_all, retire};
use super::error::Failure;
use super::rows::id;
use super::sessions::locked;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::ids::{SessionId, UserId};
use crate::protocol::log::EntryBody;
pub use actions::{Action, ActionKind, ActionNo};
pub use lists::{ChatOrder, Listed};

impl Store {
    /// Finds a user by id or by exact name, in any case.
    ///
    /// # Errors
    /// `unknown_user`, or [`Failure::Store`].
    pub async fn find_user(&self, text: &str) -> Result<UserId, Failure> {
        self.read("find_user", async |tx| {
            let found = match Uuid::parse_str(text) {
                Ok(user_id) => tx.query_opt("SELECT id FROM users WHERE id = $1", &[&user_id]).await?,
                Err(_) => {
                    let username = text.to_lowercase();
                    tx.query_opt("SELECT id FROM users WHERE username = $1", &[&username]).await?
                }
            };
            let unknown = || Refusal::new(ErrorCode::UnknownUser, "no user of that name or id");
            Ok(id(&found.ok_or_else(unknown)?, "id", UserId)?)
        })
        .await
    }

    /// Suspends a user: no login and no request from then on. Memberships, sessions and copies stay, and no log says so.
    /// Gives whether the user was not suspended before.
    ///
    /// # Errors
    /// `unknown_user`, or [`Failure::Store`].
    pub async fn suspend_user(&self, user_id: UserId) -> Result<bool, Failure> {
        self.write("suspend_user", async |tx| {
            locked(tx, user_id).await?;
            let update = "UPDATE users SET suspended_at = clock_timestamp() WHERE id = $1 AND suspended_at IS NULL";
            let is_new = tx.execute(update, &[&user_id.0]).await? > 0;
            // Also of one who was suspended before: whoever calls it again wants the connections gone.
            actions::note(tx, &Action::new(ActionKind::Suspend, user_id)).await?;
            Ok(is_new)
        })
        .await
    }

    /// Takes a suspension back; gives whether there was one.
    ///
    /// # Errors
    /// `unknown_user`, or [`Failure::Store`].
    pub async fn unsuspend_user(&self, user_id: UserId) -> Result<bool, Failure> {
        self.write("unsuspend_user", async |tx| {
            locked(tx, user_id).await?;
            let update = "UPDATE users SET suspended_at = NULL WHERE id = $1 AND suspended_at IS NOT NULL";
            Ok(tx.execute(update, &[&user_id.0]).await? > 0)
        })
        .await
    }

    /// Ends a user's account as the user's own deletion does, but by the operator: each chat gets an entry that nobody
    /// signed, by which all members see who did it, and the user's chain has no end. Gives the number of chats.
    ///
    /// # Errors
    /// `unknown_user`, or [`Failure::Store`].
    pub async fn remove_user(&self, user_id: UserId) -> Result<usize, Failure> {
        self.write_slowly("remove_user", async |tx| {
            locked(tx, user_id).await?;
            let changed = leave_all(tx, user_id, &EntryBody::AccountRemoved { user_id }).await?;
            tx.execute("INSERT INTO removed_users (user_id) VALUES ($1)", &[&user_id.0]).await?;
            retire(tx, user_id).await?;
            let action = Action { chats: changed.chats, ..Action::new(ActionKind::Remove, user_id) };
            actions::note(tx, &action).await?;
            Ok(action.chats.len())
        })
        .await
    }

    /// Has the connections of a user cut, or of one session. They may come back.
    ///
    /// # Errors
    /// `unknown_user`, `unknown_session`, or [`Failure::Store`].
    pub async fn disconnect(&self, user_id: UserId, session_id: Option<SessionId>) -> Result<(), Failure> {
        self.write("disconnect", async |tx| {
            locked(tx, user_id).await?;
            if let Some(session_id) = session_id {
                let statement = "SELECT 1 FROM user_sessions WHERE id = $1 AND user_id = $2";
                let found = tx.query_opt(statement, &[&session_id.0, &user_id.0]).await?;
                found.ok_or_else(|| Refusal::new(ErrorCode::UnknownSession, "the user has no such session"))?;
            }
            actions::note(tx, &Action { session_id, ..Action::new(ActionKind::Disconnect, user_id) }).await
        })
        .await
    }

    /// Has Postgres look at every table anew, so that it plans by what is there.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn rebuild_statistics(&self) -> Result<(), Failure> {
        self.write_slowly("rebuild_statistics", async |tx| Ok(tx.batch_execute("ANALYZE").await?)).await
    }
}
