//! `talk` without a terminal, or with `--lines`: each line that comes in is sent, each message that comes is a line.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::act::{Acts, Told, perform};
use super::layout::changed;
use super::model::{Effect, Input};
use super::slash::{self, About, Action, Typed, What};
use crate::cli::error::CliError;
use crate::cli::messages::{Found, MessageRef, edited, find, reaction_to, reply_to};
use crate::cli::print::{Printer, Report};
use crate::client::{Body, Client, ClientError, Event, EventStream, Message};
use crate::protocol::ids::{ChatId, MessageId, Seq};

/// Entries of one page of history.
const PAGE_ENTRIES: u32 = 200;

/// How long is waited for answers to what was sent when there is nothing more to read.
const ANSWERS_WAIT: Duration = Duration::from_secs(30);

/// Runs until there is nothing more to read and everything sent has its answer.
pub(super) async fn talk(
    client: &Client,
    chat: ChatId,
    last: usize,
    printer: &Printer,
    acts: Acts,
    told: mpsc::Receiver<Told>,
) -> Result<(), CliError> {
    let events = client.events();
    client.live().await?;
    client.members(chat).await?;
    let mut lines = Lines {
        client,
        chat,
        printer,
        acts,
        told,
        shown: Seq::default(),
        waiting: BTreeSet::new(),
        failed: 0,
        held: None,
        is_open: true,
        is_lost: false,
        newest_own: None,
        newest_other: None,
        read: Seq::default(),
        marked: Seq::default(),
    };
    lines.begin(last).await?;
    lines.run(events).await
}

/// What waits until everything typed before it is sent.
enum Held {
    Action(Action),
    About(About),
}

struct Lines<'a> {
    client: &'a Client,
    chat: ChatId,
    printer: &'a Printer,
    acts: Acts,
    told: mpsc::Receiver<Told>,
    /// Everything up to here is printed.
    shown: Seq,
    /// Messages without an answer.
    waiting: BTreeSet<MessageId>,
    /// Messages that will not be sent.
    failed: usize,
    /// A command that waits until everything typed before it is sent.
    held: Option<Held>,
    /// There may be more lines.
    is_open: bool,
    /// The connection was lost, and is not back yet.
    is_lost: bool,
    /// The newest messages that a command can be about.
    newest_own: Option<Found>,
    newest_other: Option<Found>,
    /// The newest message of others that is printed, and up to where it was said that they are read.
    read: Seq,
    marked: Seq,
}

impl Lines<'_> {
    /// Prints the newest messages of the past.
    async fn begin(&mut self, last: usize) -> Result<(), CliError> {
        let mut history = self.client.history(self.chat).await?;
        let newest = self.client.head(self.chat).map(|head| head.seq).unwrap_or_default();
        let (mut messages, mut before, mut locked): (Vec<Message>, Seq, u64) = (Vec::new(), newest.next(), 0);
        while messages.len() < last {
            let mut page = history.before(before, PAGE_ENTRIES).await?;
            for alarm in &page.alarms {
                self.printer.alarm(alarm)?;
            }
            page.messages.append(&mut messages);
            messages = page.messages;
            locked += page.locked;
            if !page.more || page.after.next() >= before {
                break;
            }
            before = page.after.next();
        }
        if locked > 0 {
            let plain = format!("{locked} messages cannot be opened here; `chat coverage` says why");
            self.printer.note(&plain, &json!({ "event": "locked", "messages": locked }))?;
        }
        let first = messages.len().saturating_sub(last);
        for message in messages.iter().skip(first) {
            self.print(message)?;
        }
        self.shown = self.shown.max(newest);
        Ok(())
    }

    fn print(&mut self, message: &Message) -> Result<(), CliError> {
        if matches!(message.body, Body::Message { .. }) {
            let found = Found::of(message);
            let is_own = message.sender_id == self.client.user_id();
            *(if is_own { &mut self.newest_own } else { &mut self.newest_other }) = Some(found);
        }
        let is_read_mark = matches!(message.body, Body::Receipt { .. } | Body::SealedReceipt { .. });
        if !is_read_mark && message.sender_id != self.client.user_id() {
            self.read = self.read.max(message.seq);
        }
        Ok(self.printer.message(message, self.client)?)
    }

    /// Prints a message unless it has been.
    async fn show(&mut self, message: &Message) -> Result<(), CliError> {
        if message.seq <= self.shown {
            return Ok(());
        }
        if self.client.name_of(message.sender_id).is_none() {
            self.client.members(self.chat).await?;
        }
        self.shown = message.seq;
        self.print(message)
    }

    /// Prints a change of a message unless it has been.
    fn changed(&mut self, seq: Seq, print: impl FnOnce(&Self) -> io::Result<()>) -> Result<(), CliError> {
        if seq > self.shown {
            self.shown = seq;
            print(self)?;
        }
        Ok(())
    }

    async fn run(mut self, mut events: EventStream) -> Result<(), CliError> {
        let mut input = read_lines();
        let mut give_up = Instant::now() + ANSWERS_WAIT;
        while self.is_open || self.held.is_some() || !self.waiting.is_empty() {
            let may_read = self.is_open && self.held.is_none();
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
                told = self.told.recv() => {
                    if let Some(told) = told {
                        self.answered(told?);
                    }
                }
                event = events.next() => match event {
                    Err(_) => self.catch_up().await?,
                    Ok(None) => return Ok(()),
                    Ok(Some(event)) => self.event(&event).await?,
                },
                line = input.recv(), if may_read => match line {
                    Some(line) => self.line(&line?).await?,
                    None => self.is_open = false,
                },
                () = sleep_until(give_up), if !self.is_open => {
                    let (count, failure) = (self.waiting.len(), self.client.last_failure());
                    return Err(CliError::Kept { count, failure });
                }
            }
            if self.waiting.is_empty() {
                match self.held.take() {
                    None => {}
                    Some(Held::Action(action)) => self.act(&action).await?,
                    Some(Held::About(about)) => self.about(about).await?,
                }
            }
            if self.read > self.marked {
                self.marked = self.read;
                self.acts.begin(Effect::Read(self.read)).await;
            }
            if self.is_open {
                give_up = Instant::now() + ANSWERS_WAIT;
            }
        }
        // What has its answer is in the log, but may not have been printed.
        if !matches!(self.catch_up().await, Ok(()) | Err(CliError::Client(ClientError::UnknownChat))) {
            tracing::debug!("newest messages cannot be read");
        }
        match self.failed {
            0 => Ok(()),
            count => Err(CliError::SomeFailed { count }),
        }
    }

    /// Prints what is in the log and not printed yet.
    async fn catch_up(&mut self) -> Result<(), CliError> {
        let mut history = self.client.history(self.chat).await?;
        let mut from = self.shown.max(history.start());
        loop {
            let page = history.after(from, PAGE_ENTRIES).await?;
            for message in &page.messages {
                self.show(message).await?;
            }
            for edit in &page.edits {
                self.changed(edit.seq, |lines| lines.printer.edit(edit, lines.client))?;
            }
            for deletion in &page.deletions {
                self.changed(deletion.seq, |lines| lines.printer.deletion(deletion, lines.client))?;
            }
            if !page.more || page.up_to <= from {
                return Ok(());
            }
            from = page.up_to;
        }
    }

    async fn event(&mut self, event: &Event) -> Result<(), CliError> {
        match event {
            Event::Message(message) if message.chat_id == self.chat => self.show(message).await?,
            Event::Edited { message, .. } if message.chat_id == self.chat => {
                self.changed(message.seq, |lines| lines.printer.edit(message, lines.client))?;
            }
            Event::Deleted { deletion, .. } if deletion.chat_id == self.chat => {
                self.changed(deletion.seq, |lines| lines.printer.deletion(deletion, lines.client))?;
            }
            Event::MembershipChanged { chat_id, actor, target, change, .. } if *chat_id == self.chat => {
                // The name of a newcomer is learnt with the members; one who is gone keeps the name that is known.
                let _ = self.client.members(self.chat).await;
                let name =
                    |user_id| self.client.name_of(user_id).map_or_else(|| user_id.to_string(), |name| name.to_string());
                let plain = changed(&name(*actor), &name(*target), change);
                let object = json!({
                    "event": "members_changed", "change": change.as_str(), "actor_id": actor, "target_id": target,
                });
                self.printer.note(&plain, &object)?;
            }
            Event::Removed { chat_id } | Event::ChatDeleted { chat_id } if *chat_id == self.chat && self.is_open => {
                return Err(CliError::Gone);
            }
            Event::Disconnected => {
                self.is_lost = true;
                self.printer.note("connection lost, trying again", &json!({ "event": "disconnected" }))?;
            }
            Event::Live if self.is_lost => {
                self.is_lost = false;
                self.printer.note("connected again, and caught up", &json!({ "event": "live" }))?;
            }
            Event::Alarm(alarm) if alarm.chat_id.is_none_or(|chat_id| chat_id == self.chat) => {
                self.printer.alarm(alarm)?;
            }
            Event::RecoveryRequested { request_id, user_id, username, is_own } => {
                let plain = match is_own {
                    true => "somebody asks your friends to recover your account: if it is not you, `friends cancel` it"
                        .to_owned(),
                    false => format!("somebody asks you to help {username}: call them, and see `friends requests`"),
                };
                let object = json!({
                    "event": "recovery_requested", "request_id": request_id, "user_id": user_id, "own": is_own,
                });
                self.printer.note(&plain, &object)?;
            }
            Event::SendFailed { chat_id, error, .. } if *chat_id == self.chat => {
                self.failed += 1;
                self.printer.error(&CliError::from(error.clone()));
            }
            Event::Closed(reason) => return Err(CliError::Closed(*reason)),
            _ => {}
        }
        Ok(())
    }

    /// Takes a line.
    async fn line(&mut self, line: &str) -> Result<(), CliError> {
        match slash::parse(line) {
            Err(error) => self.printer.complain(&error.to_string()),
            Ok(Typed::Blank | Typed::Alarms | Typed::Retry | Typed::Numbers) => {}
            Ok(Typed::Quit) => self.is_open = false,
            Ok(Typed::Help(entry)) => {
                for line in slash::help(entry) {
                    self.printer.line(&line, &json!({ "help": line }))?;
                }
            }
            Ok(Typed::Text(text)) => self.send(Body::text(text)).await,
            Ok(Typed::Action(action)) => self.held = Some(Held::Action(action)),
            Ok(Typed::About(about)) => self.held = Some(Held::About(about)),
        }
        Ok(())
    }

    async fn send(&mut self, body: Body) {
        let message_id = MessageId::generate();
        self.waiting.insert(message_id);
        self.acts.begin(Effect::Send { message_id, body }).await;
    }

    /// Finds the message that something is about, and begins it.
    async fn about(&mut self, about: About) -> Result<(), CliError> {
        // What has its answer is in the log, but may not have been printed: the newest is the newest there.
        self.catch_up().await?;
        let newest = if about.what.is_about_own() { self.newest_own } else { self.newest_other };
        let found = match about.number {
            None => newest.ok_or(CliError::NoNewest),
            Some(number) => find(self.client, self.chat, MessageRef::Seq(Seq::saturating(number))).await,
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.failed += 1;
                self.printer.error(&error);
                return Ok(());
            }
        };
        let message_id = found.message_id;
        match about.what {
            What::Reply(text) => self.send(reply_to(found, &text)).await,
            What::React(emoji) => self.send(reaction_to(message_id, &emoji)).await,
            What::Edit(text) => self.act(&Action::Edit { message_id, body: edited(found, &text) }).await?,
            What::Delete => self.act(&Action::Delete { message_id }).await?,
        }
        Ok(())
    }

    async fn act(&mut self, action: &Action) -> Result<(), CliError> {
        match perform(self.client, self.chat, action).await {
            Ok(reports) => {
                for Report { plain, object } in reports {
                    self.printer.line(&plain, &object)?;
                }
                if *action == Action::Leave {
                    self.is_open = false;
                }
            }
            Err(error) => {
                self.failed += 1;
                self.printer.error(&error);
            }
        }
        Ok(())
    }

    fn answered(&mut self, input: Input) {
        let Input::Sent { message_id, result } = input else { return };
        self.waiting.remove(&message_id);
        if let Err(why) = result {
            self.failed += 1;
            self.printer.complain(&format!("not sent: {why}"));
        }
    }
}

/// The lines of standard input, from a thread of its own: a read that waits must not hold up the end.
fn read_lines() -> mpsc::Receiver<io::Result<String>> {
    let (tell, told) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if tell.blocking_send(line).is_err() {
                return;
            }
        }
    });
    told
}
