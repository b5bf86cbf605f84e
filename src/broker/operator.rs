//! What the operator did through the database, noticed here: connections are cut, loaded chats look at the store.

use std::collections::HashMap;
use std::sync::Arc;

use super::Broker;
use super::connection::Connection;
use crate::protocol::error::CloseCode;
use crate::protocol::ids::UserId;
use crate::store::Failure;
use crate::store::operator::{Action, ActionKind, ActionNo};
use crate::store::sessions::SessionsChanged;

type ByUser = HashMap<UserId, Vec<Arc<Connection>>>;

impl Broker {
    /// Does what follows from actions after one, until there are no more; gives the newest that was seen.
    ///
    /// # Errors
    /// [`Failure::Store`]; then nothing was done.
    pub async fn notice_actions(&self, seen: ActionNo) -> Result<ActionNo, Failure> {
        let mut newest = seen;
        loop {
            let actions = match self.store.actions_after(newest).await {
                Err(_) if newest > seen => return Ok(newest),
                actions => actions?,
            };
            let Some((last, _)) = actions.last() else { return Ok(newest) };
            newest = *last;
            let connections = self.connections_by_user();
            for (_, action) in actions {
                match action {
                    Some(action) if action.stands => self.notice(&action, &connections),
                    Some(_) => {}
                    None => tracing::warn!("the operator did something that this version does not know"),
                }
            }
        }
    }

    fn connections_by_user(&self) -> ByUser {
        let mut connections = ByUser::new();
        for connection in self.directory.everybody() {
            if let Some(who) = connection.who() {
                connections.entry(who.user_id).or_default().push(connection);
            }
        }
        connections
    }

    fn notice(&self, action: &Action, connections: &ByUser) {
        tracing::info!(kind = ?action.kind, user.id = %action.user_id, "the operator's word is followed");
        let is_meant = |connection: &&Arc<Connection>| {
            action.session_id.is_none_or(|session_id| connection.who().is_some_and(|who| who.session_id == session_id))
        };
        for connection in connections.get(&action.user_id).into_iter().flatten().filter(is_meant) {
            match action.kind {
                ActionKind::Suspend => connection.bar(CloseCode::AccountSuspended),
                ActionKind::Remove => connection.bar(CloseCode::AccountRemoved),
                ActionKind::Disconnect => connection.close(CloseCode::Disconnected),
            }
            if action.kind == ActionKind::Remove {
                for chat_id in connection.chats() {
                    self.directory.unsubscribe(chat_id, connection);
                }
            }
        }
        if action.kind == ActionKind::Remove {
            let changed = SessionsChanged { chats: action.chats.clone(), gone: Vec::new() };
            self.sessions_changed(&changed, CloseCode::AccountRemoved);
        }
    }
}
