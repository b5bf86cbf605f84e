//! Says something about what was said: edits, deletions, replies, reactions, read marks.

use super::body::{Body, Reply};
use super::chat::outbox::Draft;
use super::chat::state::Chat;
use super::engine::pump;
use super::error::{ClientError, SendError};
use super::event::Event;
use super::handle::{Client, Sent};
use super::receipt;
use crate::protocol::envelope::MessageKind;
use crate::protocol::ids::{ChatId, MessageId, Revision, Seq};

/// Who learns how far this user has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptsTo {
    /// This user's own devices. The other members see that there is a receipt, and nothing of what it says.
    OwnDevices,
    /// Every member of the chat.
    Everybody,
}

impl Client {
    /// Gives a message of this user's a new text, and waits as [`Client::send_body`] does. The old text is purged
    /// on the server, and others are shown the new one.
    ///
    /// # Errors
    /// [`SendError::EditConflict`] if another session changed the message first: look at what it says now.
    /// [`SendError::UnknownMessage`] if it was deleted, is not this user's, or never was. Else as
    /// [`Client::send_body`].
    ///
    /// # Cancel safety
    /// The edit stays in the outbox and is sent; see [`Client::withdraw`].
    pub async fn edit(&self, chat_id: ChatId, message_id: MessageId, text: &str) -> Result<Sent, SendError> {
        self.edit_body(chat_id, message_id, &Body::text(text)).await
    }

    /// As [`Client::edit`], with any body.
    ///
    /// # Errors
    /// As [`Client::edit`].
    ///
    /// # Cancel safety
    /// As [`Client::edit`].
    pub async fn edit_body(&self, chat_id: ChatId, message_id: MessageId, body: &Body) -> Result<Sent, SendError> {
        self.revise(chat_id, message_id, MessageKind::Edit, &body.to_bytes()).await
    }

    /// Deletes a message for everybody, for good: one of this user's, or as a manager anybody's.
    ///
    /// # Errors
    /// As [`Client::edit`].
    ///
    /// # Cancel safety
    /// As [`Client::edit`].
    pub async fn delete_message(&self, chat_id: ChatId, message_id: MessageId) -> Result<Sent, SendError> {
        self.revise(chat_id, message_id, MessageKind::Delete, &[]).await
    }

    /// Answers to a message.
    ///
    /// # Errors
    /// [`SendError::UnknownMessage`] if the message is not among the newest, which this device remembers; then
    /// [`Client::send_body`] with its sender's id. Else as [`Client::send_body`].
    ///
    /// # Cancel safety
    /// As [`Client::send_body`].
    pub async fn reply(&self, chat_id: ChatId, to: MessageId, text: &str) -> Result<Sent, SendError> {
        self.known(chat_id).await?;
        let sender = self.shared().lock().chats.get(&chat_id).and_then(|chat| chat.log.messages().sender_of(to));
        let sender_id = sender.ok_or(SendError::UnknownMessage)?;
        let body = Body::Message { text: text.to_owned(), reply: Some(Reply { message_id: to, sender_id }) };
        self.send_body(chat_id, MessageId::generate(), &body).await
    }

    /// Reacts to a message. The reaction is a message itself: [`Client::delete_message`] with the id of the result
    /// takes it back.
    ///
    /// # Errors
    /// As [`Client::send_body`].
    ///
    /// # Cancel safety
    /// As [`Client::send_body`].
    pub async fn react(&self, chat_id: ChatId, message_id: MessageId, emoji: &str) -> Result<Sent, SendError> {
        let body = Body::Reaction { message_id, emoji: emoji.to_owned() };
        self.send_body(chat_id, MessageId::generate(), &body).await
    }

    /// Says that this user has read a chat up to an entry. The mark moves here at once and never back; a receipt
    /// goes to the others when it can, and a newer one takes the place of one that waits.
    ///
    /// # Errors
    /// [`SendError::Refused`] for a chat that is not this user's, [`SendError::Closed`], [`SendError::Sealing`].
    ///
    /// # Cancel safety
    /// The mark may have moved.
    pub async fn mark_read(&self, chat_id: ChatId, seq: Seq, share: ReceiptsTo) -> Result<(), SendError> {
        self.known(chat_id).await?;
        let shared = self.shared();
        let event = {
            let mut state = shared.lock();
            let state = &mut *state;
            let me = &state.account.me;
            let Some(chat) = state.chats.get_mut(&chat_id) else { return Ok(()) };
            let read_seq = seq.min(chat.log.head().seq);
            if !chat.reading.read(read_seq) {
                return Ok(());
            }
            state.dirty_chats.insert(chat_id);
            let can_write =
                chat.log.fold().membership().members.get(&me.user_id).is_some_and(|member| member.can_write);
            let body = match (share, &state.account.self_key) {
                (ReceiptsTo::Everybody, _) => Some(Body::Receipt { read_seq }),
                (ReceiptsTo::OwnDevices, Some(key)) => {
                    Some(receipt::seal(key, chat_id, me.user_id, read_seq).map_err(|_| SendError::Sealing)?)
                }
                (ReceiptsTo::OwnDevices, None) => None,
            };
            // Who may not write sends no receipts: the mark is this device's alone.
            if let Some(body) = body.filter(|_| can_write) {
                let draft = Draft::message(MessageId::generate(), body.to_bytes());
                chat.outbox.push(Draft { is_receipt: true, ..draft })?;
            }
            Event::Read { chat_id, seq: None, message_id: None, user_id: me.user_id, read_seq }
        };
        shared.publish(vec![event]);
        pump::start(shared, chat_id);
        Ok(())
    }

    /// How many messages of others this user has not read, by this device's own log.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`].
    pub fn unread(&self, chat_id: ChatId) -> Result<u64, ClientError> {
        let state = self.shared().lock();
        state.chats.get(&chat_id).map(|chat| chat.reading.unread()).ok_or(ClientError::UnknownChat)
    }

    /// The newest entry that this user has read, on any device.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`].
    pub fn read_mark(&self, chat_id: ChatId) -> Result<Seq, ClientError> {
        let state = self.shared().lock();
        state.chats.get(&chat_id).map(|chat| chat.reading.mark()).ok_or(ClientError::UnknownChat)
    }

    /// Sends the next revision of a message. That of one that is not remembered is learnt from the server.
    async fn revise(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
        kind: MessageKind,
        body: &[u8],
    ) -> Result<Sent, SendError> {
        // What the server named, of a message that is not remembered here.
        let mut named = None;
        loop {
            let mut is_known = true;
            let draft = |chat: &Chat| {
                let next = chat.outbox.next_revision(message_id).max(chat.log.messages().next_revision(message_id));
                is_known = next.is_some();
                let revision = next.or(named).unwrap_or(Revision::saturating(1));
                Draft { kind, message_id, revision, body: body.to_vec(), is_receipt: false }
            };
            match self.send_draft(chat_id, draft).await {
                Err(SendError::EditConflict { revision }) if !is_known && named != Some(revision) => {
                    named = Some(revision);
                }
                result => return result,
            }
        }
    }
}
