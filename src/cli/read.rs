//! Prints the messages of a chat, and goes on as they come if asked to.

use super::error::CliError;
use super::print::Printer;
use crate::client::{Alarm, Client, CloseReason, Event, EventStream, HistoryPage};
use crate::protocol::ids::{ChatId, Seq};

/// Entries of one page of history.
const PAGE_ENTRIES: u32 = 200;

/// Prints what this session may read, oldest first.
pub(super) async fn read(
    printer: &Printer,
    client: &Client,
    chat: ChatId,
    since: Option<u64>,
    follow: bool,
) -> Result<(), CliError> {
    let mut events = client.events();
    client.live().await?;
    let mut history = client.history(chat).await?;
    client.members(chat).await?;
    let mut from = since.map_or(history.start(), Seq::saturating).max(history.start());
    let mut alarms = Vec::new();
    loop {
        let page: HistoryPage = history.after(from, PAGE_ENTRIES).await?;
        for message in &page.messages {
            printer.message(message, client)?;
        }
        alarms.extend(page.alarms);
        let has_moved = page.up_to > from;
        from = from.max(page.up_to);
        if page.more && has_moved {
            continue;
        }
        if !follow {
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
            Event::Message(message) if message.chat_id == chat && message.seq > above => return Ok(()),
            Event::Removed { chat_id } | Event::ChatDeleted { chat_id } if *chat_id == chat => {
                return Err(CliError::Gone);
            }
            Event::Closed(reason) => return Err(CliError::Closed(*reason)),
            Event::Alarm(alarm) if alarm.chat_id == Some(chat) => {
                printer.complain(&format!("alarm: {}", alarm.failure))
            }
            _ => {}
        }
    }
}
