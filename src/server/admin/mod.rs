//! `sealcast admin`: what the operator sees and does, through the database, beside a broker that serves or without one.

mod args;
mod print;

use actix::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Database, ServerError};
use crate::config::Settings;
use crate::protocol::error::Refusal;
use crate::protocol::ids::SessionId;
use crate::store::migrate::check_database;
use crate::store::operator::{ChatOrder, Listed};
use crate::store::pool::{Plans, PoolOptions};
use crate::store::{Failure, Store, StoreError};
use crate::telemetry::metrics::Metrics;
pub use args::{AdminCommand, By};
use args::{ChatsCommand, InvitationsCommand, SessionsCommand, StatisticsCommand, UsersCommand};
pub use print::{Outcome, as_json, as_text};

/// Connections that one command takes.
const CONNECTIONS: usize = 1;

/// The command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The database cannot be found or used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What was asked for is not there.
    #[error("{0}")]
    Refused(Refusal),
    /// There is no such invitation.
    #[error("there is no invitation {0}")]
    UnknownInvitation(Uuid),
    /// What cannot be taken back needs a second word.
    #[error("this cannot be taken back: the account ends, and every chat of it says that the server did it; add --yes")]
    NotConfirmed,
}

impl From<Failure> for AdminError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => Self::Refused(refusal),
            Failure::Store(error) => Self::Server(error.into()),
            other => Self::Refused(other.refusal()),
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Server(error.into())
    }
}

/// Carries out one command.
///
/// # Errors
/// [`AdminError`]; then nothing has changed, unless it is a lost connection or a deadline.
pub fn run_admin(settings: &Settings, command: &AdminCommand) -> Result<Outcome, AdminError> {
    System::new().block_on(async {
        let database = Database::open_as_it_is(settings).await?;
        let outcome = carry_out(settings, &database, command).await;
        database.close().await?;
        outcome
    })
}

async fn carry_out(settings: &Settings, database: &Database, command: &AdminCommand) -> Result<Outcome, AdminError> {
    check_database(database.config()).await?;
    let deadline = std::time::Duration::from_secs(settings.database.deadline_s);
    let pool = PoolOptions { connections_max: CONNECTIONS, deadline, plans: Plans::Chosen };
    let metrics = Metrics::new().map_err(ServerError::from)?;
    let store = Store::connect(database.config().clone(), &pool, metrics).await?;
    Ok(match command {
        AdminCommand::Users(command) => users(&store, command).await?,
        AdminCommand::Sessions(command) => sessions(&store, command).await?,
        AdminCommand::Invitations(command) => invitations(&store, command).await?,
        AdminCommand::Chats(ChatsCommand::List { by, limit }) => {
            let order = match by {
                By::Size => ChatOrder::Size,
                By::Age => ChatOrder::Age,
            };
            store.list_all_chats(order, *limit).await?.into()
        }
        AdminCommand::Storage => store.storage().await?.into(),
        AdminCommand::Statistics(StatisticsCommand::Rebuild) => {
            store.rebuild_statistics().await?;
            Outcome::done("Postgres has looked at every table anew", Map::new())
        }
    })
}

async fn users(store: &Store, command: &UsersCommand) -> Result<Outcome, AdminError> {
    Ok(match command {
        UsersCommand::List { after, limit } => store.list_users(after, *limit).await?.into(),
        UsersCommand::Show { user } => store.show_user(store.find_user(user).await?).await?.into(),
        UsersCommand::Suspend { user } => {
            let user_id = store.find_user(user).await?;
            let is_new = store.suspend_user(user_id).await?;
            let text = if is_new {
                "suspended; a broker that serves cuts the connections within a second or two"
            } else {
                "was suspended before; connections are cut once more"
            };
            Outcome::done(text, object(json!({ "user_id": user_id, "has_changed": is_new })))
        }
        UsersCommand::Unsuspend { user } => {
            let user_id = store.find_user(user).await?;
            let was = store.unsuspend_user(user_id).await?;
            let text = if was { "is suspended no longer" } else { "was not suspended" };
            Outcome::done(text, object(json!({ "user_id": user_id, "has_changed": was })))
        }
        UsersCommand::Delete { yes: false, .. } => return Err(AdminError::NotConfirmed),
        UsersCommand::Delete { user, yes: true } => {
            let user_id = store.find_user(user).await?;
            let chats = store.remove_user(user_id).await?;
            let text = format!("the account has ended; it was in {chats} chats");
            Outcome::done(text, object(json!({ "user_id": user_id, "chats": chats })))
        }
    })
}

async fn sessions(store: &Store, command: &SessionsCommand) -> Result<Outcome, AdminError> {
    Ok(match command {
        SessionsCommand::List { user } => store.show_sessions(store.find_user(user).await?).await?.into(),
        SessionsCommand::Disconnect { user, session } => {
            let user_id = store.find_user(user).await?;
            store.disconnect(user_id, session.map(SessionId)).await?;
            let text = "a broker that serves cuts the connections within a second or two; they may come back";
            Outcome::done(text, object(json!({ "user_id": user_id, "session_id": session })))
        }
    })
}

async fn invitations(store: &Store, command: &InvitationsCommand) -> Result<Outcome, AdminError> {
    Ok(match command {
        InvitationsCommand::Create { uses, days } => {
            let (invitation_id, code) = store.create_invitation(*uses, u64::from(*days) * 86_400).await?;
            let made = json!({ "invitation_id": invitation_id, "code": code, "uses_left": uses, "days": days });
            Outcome::done(code, object(made))
        }
        InvitationsCommand::List { limit } => store.list_invitations(*limit).await?.into(),
        InvitationsCommand::Revoke { invitation } => {
            if !store.revoke_invitation(*invitation).await? {
                return Err(AdminError::UnknownInvitation(*invitation));
            }
            Outcome::done("revoked", object(json!({ "invitation_id": invitation })))
        }
    })
}

impl From<Listed> for Outcome {
    fn from(listed: Listed) -> Self {
        Self::List(listed)
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
