//! What brokers that serve have yet to notice of what the operator did.

use tokio_postgres::Row;
use uuid::Uuid;

use crate::protocol::ids::{ChatId, SessionId, UserId};
use crate::store::Store;
use crate::store::error::{Failure, StoreError};
use crate::store::rows::{get, id};
use crate::store::transaction::Transaction;

/// What whoever notes an action locks: any number that nothing else locks in this database.
const LOCK: i64 = 0x5ea1_ca57_0000_0002;

/// The number of an action, in the order of their commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ActionNo(i64);

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// A user is suspended.
    Suspend,
    /// A user's account was ended.
    Remove,
    /// Connections are to be cut.
    Disconnect,
}

/// Something that the operator did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// To whom.
    pub user_id: UserId,
    /// To which session alone, if it is one.
    pub session_id: Option<SessionId>,
    /// Whose logs say so.
    pub chats: Vec<ChatId>,
    /// Whether it is so still: a suspension may have been taken back since.
    pub stands: bool,
}

impl Action {
    pub(super) const fn new(kind: ActionKind, user_id: UserId) -> Self {
        Self { kind, user_id, session_id: None, chats: Vec::new(), stands: true }
    }
}

impl ActionKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Remove => "remove",
            Self::Disconnect => "disconnect",
        }
    }
}

impl Store {
    /// The number of the newest action.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_action(&self) -> Result<ActionNo, Failure> {
        self.read("newest_action", async |tx| {
            let row = tx.query_one("SELECT coalesce(max(id), 0) AS id FROM operator_actions", &[]).await?;
            Ok(ActionNo(get(&row, "id")?))
        })
        .await
    }

    /// Actions after one, in order, a bounded number of them; none is given for a row of a kind that is not known here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn actions_after(&self, after: ActionNo) -> Result<Vec<(ActionNo, Option<Action>)>, Failure> {
        self.read("actions_after", async |tx| {
            let statement = "SELECT a.id, a.kind, a.user_id, a.session_id, a.chats, a.kind <> 'suspend' OR EXISTS \
                     (SELECT 1 FROM users u WHERE u.id = a.user_id AND u.suspended_at IS NOT NULL) AS stands \
                 FROM operator_actions a WHERE a.id > $1 ORDER BY a.id LIMIT 100";
            let found = tx.query(statement, &[&after.0]).await?;
            Ok(found.iter().map(action_of).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Forgets actions that every broker has long noticed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_actions(&self) -> Result<(), Failure> {
        self.write("forget_actions", async |tx| {
            // The newest stays, so that a broker that begins knows where it begins.
            let delete = "DELETE FROM operator_actions WHERE created_at < statement_timestamp() - interval '1 day' \
                 AND id < (SELECT max(id) FROM operator_actions)";
            tx.execute(delete, &[]).await?;
            Ok(())
        })
        .await
    }
}

/// Notes an action, as the last step of its transaction: from the lock on others wait, so numbers are in order of commits.
pub(super) async fn note(tx: &Transaction<'_>, action: &Action) -> Result<(), Failure> {
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let insert = "INSERT INTO operator_actions (kind, user_id, session_id, chats) VALUES ($1, $2, $3, $4)";
    let session_id = action.session_id.map(|session_id| session_id.0);
    let chats: Vec<Uuid> = action.chats.iter().map(|chat_id| chat_id.0).collect();
    tx.execute(insert, &[&action.kind.as_str(), &action.user_id.0, &session_id, &chats]).await?;
    Ok(())
}

fn action_of(row: &Row) -> Result<(ActionNo, Option<Action>), StoreError> {
    let number = ActionNo(get(row, "id")?);
    let kind = match get::<&str>(row, "kind")? {
        "suspend" => ActionKind::Suspend,
        "remove" => ActionKind::Remove,
        "disconnect" => ActionKind::Disconnect,
        // Of a later version, whose brokers know what follows from it.
        _ => return Ok((number, None)),
    };
    let chats = get::<Vec<Uuid>>(row, "chats")?.into_iter().map(ChatId).collect();
    let session_id = get::<Option<Uuid>>(row, "session_id")?.map(SessionId);
    let (user_id, stands) = (id(row, "user_id", UserId)?, get(row, "stands")?);
    Ok((number, Some(Action { kind, user_id, session_id, chats, stands })))
}
