//! Copies of sender keys beside the messages: handed on, asked for, refused.
//!
//! Each is a transaction of its own under the chat's lock, beside what the chat's actor does. A chat that is loaded is
//! told what became of which copy; should that word be lost or come late, the next commit finds out by its own count.

use std::sync::Arc;

use super::Broker;
use super::chat::messages::CopiesChanged;
use super::chat::state::CopyChange;
use super::connection::Connection;
use crate::protocol::frame::{
    CopyRefused, Key, KeyRequested, Nothing, OwnKey, RefuseCopy, Reply, RequestKeys, ServerFrame, UploadCopies,
};
use crate::protocol::ids::{ChatId, KeyId, SessionId};
use crate::store::Failure;
use crate::store::copies::{OpenRequest, RequestNoted};
use crate::store::members::Requester;

/// Holders that are asked at once for the keys of one request: more of them would all wrap the same.
const ASKED_MAX: usize = 8;

/// Connected sessions among whom holders are looked for.
const CANDIDATES_MAX: usize = 64;

impl Broker {
    /// Stores further copies of keys, and hands them to their recipients.
    ///
    /// # Errors
    /// What [`Store::upload_copies`](crate::store::Store::upload_copies) refuses.
    pub async fn upload_copies(&self, who: Requester, request: &UploadCopies) -> Result<Reply, Failure> {
        let stored = self.store.upload_copies(who, request).await?;
        let mut changes = Vec::new();
        for key in &stored {
            let key_id = key.announcement.announcement.key_id;
            for copy in &key.copies {
                changes.push((key_id, copy.session_id, CopyChange::Stored));
                let own = OwnKey { announcement: key.announcement.clone(), key: Some(copy.key), backed_up: Vec::new() };
                let frame = ServerFrame::Key(Key { chat_id: request.chat_id, key: own });
                self.push_to(copy.session_id, &frame);
            }
        }
        self.copies_changed(request.chat_id, changes);
        Ok(Reply::Done(Nothing {}))
    }

    /// Notes which keys a session lacks, and asks those who are connected and may hand them on.
    ///
    /// # Errors
    /// What [`Store::request_keys`](crate::store::Store::request_keys) refuses.
    pub async fn request_keys(&self, who: Requester, request: &RequestKeys) -> Result<Reply, Failure> {
        let noted = self.store.request_keys(who, request).await?;
        let candidates = self.whom_to_ask(who, &noted);
        if candidates.is_empty() || noted.key_ids.is_empty() {
            return Ok(Reply::Done(Nothing {}));
        }
        let mut holders = self.store.key_holders(request.chat_id, &noted.key_ids, &candidates).await?;
        let mut asked = 0;
        for holder in candidates {
            let Some(key_ids) = holders.remove(&holder) else { continue };
            self.push_to(holder, &key_requested(request.chat_id, who.session_id, key_ids));
            asked += 1;
            if asked == ASKED_MAX {
                break;
            }
        }
        Ok(Reply::Done(Nothing {}))
    }

    /// Takes a refusal of a copy, and tells the users whom it concerns.
    ///
    /// # Errors
    /// What [`Store::refuse_copy`](crate::store::Store::refuse_copy) refuses.
    pub async fn refuse_copy(&self, who: Requester, request: &RefuseCopy) -> Result<Reply, Failure> {
        let Some(refused) = self.store.refuse_copy(who, request).await? else { return Ok(Reply::Done(Nothing {})) };
        let change = if refused.is_final { CopyChange::GivenUp } else { CopyChange::Voided };
        self.copies_changed(request.chat_id, vec![(request.refusal.refusal.key_id, who.session_id, change)]);
        let told = ServerFrame::CopyRefused(CopyRefused {
            chat_id: request.chat_id,
            sender_session_id: refused.sender_session_id,
            uploaded_by_session_id: refused.uploaded_by_session_id,
            refusal: request.refusal,
        });
        for session_id in refused.told {
            self.push_to(session_id, &told);
        }
        Ok(Reply::Done(Nothing {}))
    }

    /// The connected sessions that may be asked for keys. Those whose keys they are and the asking user's own come
    /// first.
    fn whom_to_ask(&self, who: Requester, noted: &RequestNoted) -> Vec<SessionId> {
        let is_near = |session_id, user_id| user_id == who.user_id || noted.senders.contains(session_id);
        let is_other = |(session_id, _): &&(SessionId, _)| *session_id != who.session_id;
        let (mut asked, others): (Vec<_>, Vec<_>) =
            noted.recipients.iter().filter(is_other).partition(|(session_id, user_id)| is_near(session_id, *user_id));
        asked.extend(others);
        let is_connected = |session_id: &SessionId| self.directory.connection(*session_id).is_some();
        asked.into_iter().map(|(session_id, _)| session_id).filter(is_connected).take(CANDIDATES_MAX).collect()
    }

    fn copies_changed(&self, chat_id: ChatId, changes: Vec<(KeyId, SessionId, CopyChange)>) {
        if !changes.is_empty()
            && let Some(chat) = self.directory.loaded_chat(chat_id)
        {
            // A full mailbox loses this word, and the next commit finds out.
            let _ = chat.try_send(CopiesChanged { changes });
        }
    }

    /// Pushes to a session if it is connected and has room; what it misses it can ask for.
    pub(super) fn push_to(&self, session_id: SessionId, frame: &ServerFrame) {
        let connection: Option<Arc<Connection>> = self.directory.connection(session_id);
        if let Some(connection) = connection {
            let _ = connection.outbox.try_push(&connection.frame(frame));
        }
    }
}

/// Tells a session that has come online what others lack that it may hand on. What does not fit is told the next time.
pub fn tell_open_requests(connection: &Connection, open: Vec<OpenRequest>) {
    for request in open {
        let frame = key_requested(request.chat_id, request.session_id, request.key_ids);
        if connection.outbox.try_push(&connection.frame(&frame)).is_err() {
            return;
        }
    }
}

const fn key_requested(chat_id: ChatId, session_id: SessionId, key_ids: Vec<KeyId>) -> ServerFrame {
    ServerFrame::KeyRequested(KeyRequested { chat_id, session_id, key_ids })
}
