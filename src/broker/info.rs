//! What chats are called: told to their recipients when it changes, and its key asked of who holds it.
//!
//! Each is a transaction of its own under the chat's lock, beside what the chat's actor does: no log entry is made. Who
//! is not told now is told at the next login, with the list of chats.

use super::Broker;
use super::connection::Connection;
use crate::protocol::frame::{
    InfoKeyRequested, Nothing, Reply, RequestInfoKey, ServerFrame, SetChatInfo, UploadInfoKeys,
};
use crate::protocol::ids::{ChatId, SessionId};
use crate::store::Failure;
use crate::store::info::LackingInfoKey;
use crate::store::members::Requester;

/// Holders that are asked at once for one chat: more of them would all wrap the same.
const ASKED_MAX: usize = 2;

impl Broker {
    /// Saves what a chat is called, and tells its recipients.
    ///
    /// # Errors
    /// What [`Store::set_chat_info`](crate::store::Store::set_chat_info) refuses.
    pub async fn set_chat_info(&self, who: Requester, request: &SetChatInfo) -> Result<Reply, Failure> {
        let chat_id = request.chat_id;
        match self.store.set_chat_info(who, request).await {
            Err(Failure::ExpiryDue) => {
                self.expire_in_chat(chat_id).await?;
                self.store.set_chat_info(who, request).await?
            }
            result => result?,
        };
        // Also after a repeat: the first may have ended between its commit and this.
        self.show_infos(chat_id, None).await;
        self.ask_for_info_keys(vec![chat_id]);
        Ok(Reply::Done(Nothing {}))
    }

    /// Stores wraps of a chat's info key, and gives them to their recipients.
    ///
    /// # Errors
    /// What [`Store::upload_info_keys`](crate::store::Store::upload_info_keys) refuses.
    pub async fn upload_info_keys(&self, who: Requester, request: &UploadInfoKeys) -> Result<Reply, Failure> {
        let stored = self.store.upload_info_keys(who, request).await?;
        if !stored.is_empty() {
            self.show_infos(request.chat_id, Some(&stored)).await;
            // There may be more than one request takes.
            self.ask_for_info_keys(vec![request.chat_id]);
        }
        Ok(Reply::Done(Nothing {}))
    }

    /// Forgets the wrap that a session was given, and asks others for another one.
    ///
    /// # Errors
    /// What [`Store::request_info_key`](crate::store::Store::request_info_key) refuses.
    pub async fn request_info_key(&self, who: Requester, request: &RequestInfoKey) -> Result<Reply, Failure> {
        self.store.request_info_key(who, request).await?;
        self.ask_holders(request.chat_id).await;
        Ok(Reply::Done(Nothing {}))
    }

    /// Finds who lacks the info key of some chats, be it a session or the recovery key, and asks those who are connected
    /// and hold it. In the background: nobody waits for it, and what fails is found at the next login.
    pub fn ask_for_info_keys(&self, chats: Vec<ChatId>) {
        if chats.is_empty() {
            return;
        }
        let broker = self.clone();
        actix::spawn(async move {
            let Ok(mut lacking) = broker.store.note_lacking_info_keys(&chats).await else { return };
            if let Ok(unsealed) = broker.store.chats_without_seal(&chats).await {
                lacking.extend(unsealed);
            }
            for chat_id in lacking {
                broker.ask_holders(chat_id).await;
            }
        });
    }

    /// Asks others for the info keys that a session lacks.
    pub async fn ask_for_info_keys_of(&self, who: Requester) {
        let Ok(lacking) = self.store.note_info_keys_lacking_to(who).await else { return };
        for chat_id in lacking {
            self.ask_holders(chat_id).await;
        }
    }

    async fn ask_holders(&self, chat_id: ChatId) {
        let Ok(Some((lacking, holders))) = self.store.lacking_info_key(chat_id).await else { return };
        if lacking.session_ids.is_empty() && lacking.generation.is_none() {
            return;
        }
        let is_connected = |session_id: &SessionId| self.directory.connection(*session_id).is_some();
        let asked: Vec<SessionId> = holders.into_iter().filter(is_connected).take(ASKED_MAX).collect();
        let frame = requested(lacking);
        for session_id in asked {
            self.push_to(session_id, &frame);
        }
    }

    /// Shows a newcomer's sessions what the chat is called, before they are shown its log, and finds those that lack
    /// its key.
    pub async fn show_newcomers_info(&self, chat_id: ChatId, newcomers: &[SessionId]) {
        if newcomers.iter().any(|session_id| self.directory.connection(*session_id).is_some()) {
            self.show_infos(chat_id, Some(newcomers)).await;
        }
        self.ask_for_info_keys(vec![chat_id]);
        self.show_newcomers_profiles(newcomers);
    }

    /// Shows recipients of a chat what it is called: those that are named, or all.
    async fn show_infos(&self, chat_id: ChatId, among: Option<&[SessionId]>) {
        let Ok(shown) = self.store.shown_infos(chat_id, among).await else { return };
        for (session_id, info) in shown {
            if self.directory.connection(session_id).is_some() {
                self.push_to(session_id, &ServerFrame::ChatInfo(Box::new(info)));
            }
        }
    }
}

/// Tells a session that has come online what others lack that it holds. What does not fit is told the next time.
pub fn tell_info_keys(connection: &Connection, open: impl Iterator<Item = LackingInfoKey>) {
    for request in open {
        if connection.outbox.try_push(&connection.frame(&requested(request))).is_err() {
            return;
        }
    }
}

fn requested(lacking: LackingInfoKey) -> ServerFrame {
    let LackingInfoKey { chat_id, last_seq, key_id, session_ids, generation } = lacking;
    ServerFrame::InfoKeyRequested(InfoKeyRequested { chat_id, last_seq, key_id, session_ids, generation })
}
