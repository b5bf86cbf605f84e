//! What the operator did through the database, noticed here: connections are cut, loaded chats look at the store.

use super::Broker;
use super::connection::Connection;
use crate::protocol::error::CloseCode;
use crate::store::Failure;
use crate::store::operator::{Action, ActionKind, ActionNo};
use crate::store::sessions::SessionsChanged;

impl Broker {
    /// Does what follows from actions after one; gives the newest that was seen.
    ///
    /// # Errors
    /// [`Failure::Store`]; then nothing was done.
    pub async fn notice_actions(&self, seen: ActionNo) -> Result<ActionNo, Failure> {
        let mut newest = seen;
        for (number, action) in self.store.actions_after(seen).await? {
            tracing::info!(kind = ?action.kind, user.id = %action.user_id, "the operator's word is followed");
            self.notice(&action);
            newest = number;
        }
        Ok(newest)
    }

    fn notice(&self, action: &Action) {
        let connections = self.directory.everybody();
        let is_meant = |connection: &Connection| {
            let who = connection.who();
            who.is_some_and(|who| {
                who.user_id == action.user_id && action.session_id.is_none_or(|session_id| who.session_id == session_id)
            })
        };
        for connection in connections.iter().filter(|connection| is_meant(connection)) {
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
