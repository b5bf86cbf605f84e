//! Operations of the handle that are about this moment and about one's own devices: signals, deliveries, names.

use super::engine::{labels, live};
use super::error::ClientError;
use super::handle::Client;
use super::signal::Signal;
use crate::protocol::frame::Deliveries;
use crate::protocol::ids::{ChatId, SessionId};

impl Client {
    /// Sends a signal to those who are connected now, encrypted. `true`: the server took it.
    ///
    /// It needs this session's sender key as of the chat's newest recipients, and none is made for it: before the first
    /// message, and between a change of the recipients and the next message, signals are dropped. So are those for which
    /// there is no connection, and those above the server's rate.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals other than for now, a client that is closed.
    ///
    /// # Cancel safety
    /// The signal may have been sent.
    pub async fn signal(&self, chat_id: ChatId, signal: Signal) -> Result<bool, ClientError> {
        live::signal(self.shared(), chat_id, signal).await
    }

    /// How far each session in a chat has come: one entry for each session that the chat's verified log names, its seq by
    /// the server's word, which nobody signs. See [`Deliveries::of_user`].
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn deliveries(&self, chat_id: ChatId) -> Result<Deliveries, ClientError> {
        live::deliveries(self.shared(), chat_id).await
    }

    /// Names a session of this user, for the eyes of this user's sessions alone; an empty text takes its name away.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`] above 484 bytes, the server's refusals.
    ///
    /// # Cancel safety
    /// The name may have been set.
    pub async fn set_label(&self, session_id: SessionId, text: &str) -> Result<(), ClientError> {
        labels::set(self.shared(), session_id, Some(text).filter(|text| !text.is_empty())).await
    }
}
