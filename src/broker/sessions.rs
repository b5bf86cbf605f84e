//! What follows a change of sessions: connections are cut, loaded chats look at the store.

use super::Broker;
use super::chat::messages::Refresh;
use crate::protocol::error::CloseCode;
use crate::protocol::frame::{Nothing, Reply, ServerFrame, UploadBackups};
use crate::protocol::ids::{ChatId, UserId};
use crate::store::Failure;
use crate::store::members::Requester;
use crate::store::sessions::SessionsChanged;

impl Broker {
    /// Cuts the connections of sessions that are gone and lets loaded chats fetch their new entries. Chats that
    /// are not loaded are not loaded for it.
    pub fn sessions_changed(&self, changed: &SessionsChanged, code: CloseCode) {
        for session_id in &changed.gone {
            if let Some(connection) = self.directory.connection(*session_id) {
                connection.close(code);
                for chat_id in connection.chats() {
                    self.directory.unsubscribe(chat_id, &connection);
                }
            }
        }
        for chat_id in &changed.chats {
            self.refresh_chat(*chat_id);
        }
        self.ask_for_info_keys(changed.chats.clone());
    }

    /// Stores keys of older sessions for a session of the same user, and tells it.
    ///
    /// # Errors
    /// What [`Store::upload_backups`](crate::store::Store::upload_backups) refuses.
    pub async fn upload_backups(&self, who: Requester, request: &UploadBackups) -> Result<Reply, Failure> {
        let (stored, is_news) = self.store.upload_backups(who, request).await?;
        if is_news {
            self.push_to(request.session_id, &ServerFrame::BackupsReady(Nothing {}));
        }
        Ok(Reply::BackupsStored(stored))
    }

    /// Lets a chat look at the store, if it is loaded.
    pub fn refresh_chat(&self, chat_id: ChatId) {
        if let Some(chat) = self.directory.loaded_chat(chat_id) {
            // A chat whose mailbox is full has appends on the way, and finds out at the next commit.
            let _ = chat.try_send(Refresh);
        }
    }

    /// Writes down the expiries of a user that are due.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn expire(&self, user_id: UserId) -> Result<(), Failure> {
        let changed = self.store.expire_sessions(user_id).await?;
        self.sessions_changed(&changed, CloseCode::SessionExpired);
        Ok(())
    }

    /// Writes down the expiries of a chat's recipients that are due.
    ///
    /// # Errors
    /// [`Failure::Store`].
    pub async fn expire_in_chat(&self, chat_id: ChatId) -> Result<(), Failure> {
        for user_id in self.store.due_users_of_chat(chat_id).await? {
            self.expire(user_id).await?;
        }
        Ok(())
    }
}
