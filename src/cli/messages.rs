//! The commands that say something: send, reply, react, edit, delete. Each waits until it is durable.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::error::CliError;
use super::print::{Printer, time};
use crate::client::{Body, Client, Message, Reply, SendError, Sent};
use crate::protocol::ids::{ChatId, MessageId, Seq, UserId};

/// Entries of one page of history.
const PAGE_ENTRIES: u32 = 200;

/// Names a message: by its place in the log, which people see, or by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageRef {
    /// Its place in the log.
    Seq(Seq),
    /// Its id.
    Id(MessageId),
}

/// Not a reference to a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither the place of a message in the log, as `read` shows it, nor a message's id")]
pub(super) struct MessageRefInvalid;

impl FromStr for MessageRef {
    type Err = MessageRefInvalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seq) = text.trim_start_matches('#').parse::<u64>() {
            return Seq::new(seq).map(Self::Seq).map_err(|_| MessageRefInvalid);
        }
        text.parse().map(Self::Id).map_err(|_| MessageRefInvalid)
    }
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seq(seq) => seq.fmt(f),
            Self::Id(message_id) => message_id.fmt(f),
        }
    }
}

/// A message that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) message_id: MessageId,
    pub(super) sender_id: UserId,
    /// What it answers to.
    pub(super) reply: Option<Reply>,
}

impl Found {
    /// What a message is to those who say something about it.
    pub(super) const fn of(message: &Message) -> Self {
        let reply = match &message.body {
            Body::Message { reply, .. } => *reply,
            _ => None,
        };
        Self { message_id: message.message_id, sender_id: message.sender_id, reply }
    }
}

/// Looks a message up in the log.
pub(super) async fn find(client: &Client, chat: ChatId, which: MessageRef) -> Result<Found, CliError> {
    let newest = client.head(chat).map(|head| head.seq).unwrap_or_default();
    let missing = CliError::NoMessage { which };
    let MessageRef::Seq(seq) = which else {
        return search(client, chat, which, newest.next()).await?.ok_or(missing);
    };
    let page = client.history(chat).await?.before(seq.next(), 1).await?;
    if let Some(message) = page.messages.first().filter(|message| message.seq == seq) {
        return Ok(Found::of(message));
    }
    if page.changed_later.is_empty() {
        return Err(missing);
    }
    // What it says now stands further on: a reader that comes from there knows it.
    search(client, chat, which, newest.next()).await?.ok_or(missing)
}

/// Goes back through the log until a message comes.
async fn search(client: &Client, chat: ChatId, which: MessageRef, mut before: Seq) -> Result<Option<Found>, CliError> {
    let mut history = client.history(chat).await?;
    loop {
        let page = history.before(before, PAGE_ENTRIES).await?;
        let is_it = |message: &&Message| match which {
            MessageRef::Seq(seq) => message.seq == seq,
            MessageRef::Id(message_id) => message.message_id == message_id,
        };
        if let Some(message) = page.messages.iter().find(is_it) {
            return Ok(Some(Found::of(message)));
        }
        let is_past = matches!(which, MessageRef::Seq(seq) if page.after < seq);
        if is_past || !page.more || page.after.next() >= before {
            return Ok(None);
        }
        before = page.after.next();
    }
}

/// The id of a message; one that is named by its id is not looked up.
pub(super) async fn id_of(client: &Client, chat: ChatId, which: MessageRef) -> Result<MessageId, CliError> {
    match which {
        MessageRef::Id(message_id) => Ok(message_id),
        MessageRef::Seq(_) => Ok(Box::pin(find(client, chat, which)).await?.message_id),
    }
}

/// What answers to a message.
pub(super) fn reply_to(found: Found, text: &str) -> Body {
    Body::Message {
        text: text.to_owned(),
        reply: Some(Reply { message_id: found.message_id, sender_id: found.sender_id }),
    }
}

/// A message with a new text; what it answers to it answers to still.
pub(super) fn edited(found: Found, text: &str) -> Body {
    Body::Message { text: text.to_owned(), reply: found.reply }
}

/// What reacts to a message.
pub(super) fn reaction_to(message_id: MessageId, emoji: &str) -> Body {
    Body::Reaction { message_id, emoji: emoji.to_owned() }
}

/// Waits for the outcome of something that was said, as long as its command may.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    pub(super) client: &'a Client,
    pub(super) printer: &'a Printer,
    pub(super) chat: ChatId,
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
}

impl Wait<'_> {
    /// Looks something up first, within the same time.
    pub(super) async fn first<T>(&self, lookup: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        match timeout_at(self.deadline, lookup).await {
            Ok(found) => found,
            Err(_) => Err(CliError::NotSent { limit: self.limit, failure: self.client.last_failure() }),
        }
    }

    /// Sends a body and prints its id and place.
    pub(super) async fn send(&self, message_id: MessageId, body: &Body) -> Result<(), CliError> {
        self.outcome(message_id, self.client.send_body(self.chat, message_id, body)).await
    }

    /// Waits, and prints the id and the place.
    pub(super) async fn outcome(
        &self,
        message_id: MessageId,
        saying: impl Future<Output = Result<Sent, SendError>>,
    ) -> Result<(), CliError> {
        let Ok(said) = timeout_at(self.deadline, saying).await else { return Err(self.unsent(message_id)) };
        let sent = said?;
        let object = json!({
            "chat_id": self.chat, "message_id": sent.message_id, "seq": sent.seq, "created_at": time(sent.created_at),
        });
        Ok(self.printer.line(&format!("{} {}", sent.message_id, sent.seq), &object)?)
    }

    /// What to say of a message that has no answer: whether it may be on its way.
    fn unsent(&self, message_id: MessageId) -> CliError {
        let (limit, failure) = (self.limit, self.client.last_failure());
        if self.client.withdraw(self.chat, message_id) {
            CliError::NotSent { limit, failure }
        } else {
            CliError::Unknown { limit, failure, message_id }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_named_by_its_place_or_its_id() {
        assert_eq!("12".parse(), Ok(MessageRef::Seq(Seq::saturating(12))));
        assert_eq!("#12".parse(), Ok(MessageRef::Seq(Seq::saturating(12))));
        let message_id = MessageId::generate();
        assert_eq!(message_id.to_string().parse(), Ok(MessageRef::Id(message_id)));
        for neither in ["", "-1", "twelve", "18446744073709551615"] {
            assert_eq!(neither.parse::<MessageRef>(), Err(MessageRefInvalid), "{neither}");
        }
    }
}
