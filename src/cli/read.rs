//! Prints the messages of a chat, and goes on as they come if asked to.

use super::error::CliError;
use super::print::Printer;
use super::words;
use crate::client::{Alarm, Client, CloseReason, Event, EventStream, HistoryPage, ReceiptsTo};
use crate::protocol::ids::{ChatId, Seq};

/// Entries of one page of history.
const PAGE_ENTRIES: u32 = 200;

/// What is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct What {
    pub(super) chat: ChatId,
    /// Only what comes after this place.
    pub(super) since: Option<u64>,
    /// Go on with what comes.
    pub(super) is_followed: bool,
    /// Mark it as read.
    pub(super) is_marked: bool,
}

/// Prints what this session may read, oldest first.
pub(super) async fn read(printer: &Printer, client: &Client, what: What) -> Result<(), CliError> {
    let What { chat, since, is_followed, is_marked } = what;
    let mut events = client.events();
    client.live().await?;
    let mut history = client.history(chat).await?;
    client.members(chat).await?;
    let mut from = since.map_or(history.first(), Seq::saturating).max(history.first());
    let mut alarms = Vec::new();
    loop {
        let page: HistoryPage = history.after(from, PAGE_ENTRIES).await?;
        let is_of_others = page.messages.iter().any(|message| message.sender_id != client.user_id());
        printer.page(&page, client)?;
        alarms.extend(page.alarms);
        let has_moved = page.up_to > from;
        from = from.max(page.up_to);
        if is_marked && is_of_others {
            client.mark_read(chat, from, ReceiptsTo::OwnDevices).await?;
        }
        if page.more && has_moved {
            continue;
        }
        if !is_followed {
            break;
        }
        // Read from the log rather than from the event, so that what is printed is one verified chain.
        something_new(printer, &mut events, chat, from).await?;
    }
    match alarms.first() {
        None => Ok(()),
        Some(Alarm { seq, failure, .. }) => Err(CliError::Unverified {
            count: alarms.len(),
            seq: seq.unwrap_or_default().get(),
            failure: failure.to_string(),
        }),
    }
}

/// Waits until a chat has a message above a place, or may have, since events were dropped.
async fn something_new(printer: &Printer, events: &mut EventStream, chat: ChatId, above: Seq) -> Result<(), CliError> {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Err(CliError::Closed(CloseReason::ByUser));
            }
        };
        let event = match event {
            Err(_) => return Ok(()),
            Ok(None) => return Err(CliError::Closed(CloseReason::ByUser)),
            Ok(Some(event)) => event,
        };
        match &*event {
            Event::Message(message) | Event::Edited { message, .. }
                if message.chat_id == chat && message.seq > above =>
            {
                return Ok(());
            }
            Event::Deleted { deletion, .. } if deletion.chat_id == chat && deletion.seq > above => return Ok(()),
            Event::Removed { chat_id } | Event::ChatDeleted { chat_id } if *chat_id == chat => {
                return Err(CliError::Gone);
            }
            Event::Closed(reason) => return Err(CliError::Closed(*reason)),
            Event::Alarm(alarm) if alarm.chat_id == Some(chat) => printer.complain(&words::of_alarm(alarm)),
            _ => {}
        }
    }
}
