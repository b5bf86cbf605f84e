//! Carries out effects through the client library, and tells what came of them.

use std::sync::Arc;
use std::task::Poll;

use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};

use super::model::{Effect, Input};
use super::slash::Action;
use crate::cli::account;
use crate::cli::error::CliError;
use crate::cli::paint::Paint;
use crate::cli::print::Report;
use crate::cli::safety;
use crate::client::{Body, Client, ClientError, History, HistoryPage, ReceiptsTo, SendError};
use crate::protocol::ids::{ChatId, MessageId, Seq, UserId};
use crate::protocol::membership::HistoryPolicy;

/// Entries of one page of history.
const PAGE_ENTRIES: u32 = 100;

/// What waits to be told, at most; whoever tells more waits.
const QUEUE: usize = 64;

/// What comes of an effect: an input, or the end of `talk`.
pub(super) type Told = Result<Input, CliError>;

/// Carries out effects in a chat; clones work on the same one.
#[derive(Debug, Clone)]
pub(super) struct Acts {
    client: Client,
    chat: ChatId,
    /// Who learns how far this user has read; without, nobody does, and nothing is noted.
    receipts_to: Option<ReceiptsTo>,
    history: Arc<Mutex<Option<History>>>,
    tell: mpsc::Sender<Told>,
}

impl Acts {
    pub(super) fn new(client: Client, chat: ChatId, receipts_to: Option<ReceiptsTo>) -> (Self, mpsc::Receiver<Told>) {
        let (tell, told) = mpsc::channel(QUEUE);
        (Self { client, chat, receipts_to, history: Arc::new(Mutex::new(None)), tell }, told)
    }

    /// Begins an effect. Messages are in the outbox, in the order of these calls, when this returns.
    pub(super) async fn begin(&self, effect: Effect) {
        let acts = self.clone();
        match effect {
            Effect::Quit | Effect::Redraw => {}
            Effect::Send { message_id, body } => self.send(message_id, body).await,
            Effect::Signal(signal) => self.spawn_maybe(async move {
                // Of this moment: what is not sent now is not worth a word.
                let _ = acts.client.signal(acts.chat, signal).await;
                None
            }),
            Effect::Read(seq) => {
                if let Some(to) = self.receipts_to {
                    self.spawn_maybe(async move {
                        if let Err(error) = acts.client.mark_read(acts.chat, seq, to).await {
                            tracing::debug!(%error, "read mark is not kept");
                        }
                        None
                    });
                }
            }
            Effect::Blocked => self.spawn_maybe(async move { Some(Ok(Input::Blocked(acts.blocked().await?))) }),
            Effect::Act(action) => self.spawn(async move {
                let done = perform(&acts.client, acts.chat, &action).await;
                let lines = done.map(|reports| {
                    let told = reports.into_iter().map(|report| report.plain);
                    if action.is_told_by_log() { Vec::new() } else { told.collect() }
                });
                if let Action::Block { .. } | Action::Unblock { .. } = action
                    && let Some(users) = acts.blocked().await
                {
                    let _ = acts.tell.send(Ok(Input::Blocked(users))).await;
                }
                Ok(Input::Done(lines.map_err(|error| in_talk(&error))))
            }),
            Effect::Older(before) => self.spawn(async move {
                let page = acts.older(before).await;
                Ok(page.map_or_else(|error| Input::NoOlder(error.line()), Input::Older))
            }),
            Effect::Newer(after) => self.spawn(async move {
                let page = acts.newer(after).await;
                Ok(page.map_or_else(|error| Input::Done(Err(error.line())), Input::Newer))
            }),
            Effect::Title => self.title(),
            Effect::Members => self.spawn_maybe(async move {
                // Who was removed cannot look any more: the names stay as they are.
                acts.client.members(acts.chat).await.ok().map(|members| Ok(Input::Members(members)))
            }),
        }
    }

    /// Looks for the chat's title; without the chat, `talk` ends.
    pub(super) fn title(&self) {
        let acts = self.clone();
        self.spawn(async move { Ok(Input::Title(title(&acts.client, acts.chat).await?)) });
    }

    fn spawn(&self, work: impl Future<Output = Told> + Send + 'static) {
        self.spawn_maybe(async move { Some(work.await) });
    }

    fn spawn_maybe(&self, work: impl Future<Output = Option<Told>> + Send + 'static) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            if let Some(told) = work.await {
                // When nobody listens any more, `talk` has ended.
                let _ = tell.send(told).await;
            }
        });
    }

    async fn blocked(&self) -> Option<Vec<UserId>> {
        let settings = self.client.settings().await.ok()?;
        Some(settings.blocked.into_iter().map(|user| user.user_id).collect())
    }

    async fn send(&self, message_id: MessageId, body: Body) {
        let (client, chat) = (self.client.clone(), self.chat);
        let mut sending = Box::pin(async move { client.send_body(chat, message_id, &body).await });
        // The first poll puts it in the outbox: two tasks of their own could come in either order.
        let first = std::future::poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
        self.spawn_maybe(async move {
            let result = match first {
                Poll::Ready(result) => result,
                Poll::Pending => sending.await,
            };
            match result {
                // It stays in the outbox.
                Err(SendError::Closed(_)) => None,
                Err(error) => Some(Ok(Input::Sent { message_id, result: Err(in_talk(&CliError::from(error))) })),
                Ok(sent) => Some(Ok(Input::Sent { message_id, result: Ok(sent) })),
            }
        });
    }

    async fn older(&self, before: Option<Seq>) -> Result<HistoryPage, CliError> {
        let mut history = self.history.lock().await;
        let history = self.open(&mut history).await?;
        let newest = || self.client.head(self.chat).map(|head| head.seq).unwrap_or_default().next();
        let before = before.unwrap_or_else(newest);
        let page = history.before(before, PAGE_ENTRIES).await?;
        if page.changed_later.is_empty() {
            return Ok(page);
        }
        // Messages of the page were changed after this reader began: one that comes from the newest knows to what.
        let (mut fresh, mut at) = (self.client.history(self.chat).await?, newest());
        while at > before {
            let entries = u32::try_from(at.get() - before.get()).unwrap_or(PAGE_ENTRIES);
            let between = fresh.before(at, entries.min(PAGE_ENTRIES)).await?;
            if between.after.next() >= at {
                break;
            }
            at = between.after.next();
        }
        let page = fresh.before(before, PAGE_ENTRIES).await?;
        *history = fresh;
        Ok(page)
    }

    async fn newer(&self, after: Seq) -> Result<HistoryPage, CliError> {
        let mut history = self.history.lock().await;
        let history = self.open(&mut history).await?;
        Ok(history.after(after, PAGE_ENTRIES).await?)
    }

    async fn open<'a>(&self, history: &'a mut Option<History>) -> Result<&'a mut History, ClientError> {
        if history.is_none() {
            *history = Some(self.client.history(self.chat).await?);
        }
        history.as_mut().ok_or(ClientError::UnknownChat)
    }
}

/// What failed and what to do next, in the commands of `talk`.
fn in_talk(error: &CliError) -> String {
    let line = error.line();
    line.replace("`chat show`", "/members").replace("`chat transfer`", "/transfer").replace("`read`", "/numbers")
}

/// A chat's title, if this session can open it.
async fn title(client: &Client, chat: ChatId) -> Result<Option<String>, CliError> {
    client.live().await?;
    let listed = client.list_chats().await?;
    let listed = listed.into_iter().find(|listed| listed.chat_id == chat).ok_or(ClientError::UnknownChat)?;
    Ok(listed.title)
}

/// Carries out one command; gives what there is to say of it.
pub(super) async fn perform(client: &Client, chat: ChatId, action: &Action) -> Result<Vec<Report>, CliError> {
    match action {
        Action::Members => {
            let members = client.members(chat).await?;
            Ok(members.iter().map(|member| Report::member(member, client.user_id())).collect())
        }
        Action::Add { username, can_write, can_manage } => {
            let seq = client.add_member(chat, username, *can_write, *can_manage).await?;
            Ok(vec![done(format!("{username} is in, from entry {seq} on"), json!({ "added": username, "seq": seq }))])
        }
        Action::Remove { username } => {
            let seq = client.remove_member(chat, username).await?;
            Ok(vec![done(
                format!("{username} is out, from entry {seq} on"),
                json!({ "removed": username, "seq": seq }),
            )])
        }
        Action::Leave => {
            client.leave_chat(chat).await?;
            Ok(vec![done("you have left this chat".to_owned(), json!({ "chat_id": chat, "left": true }))])
        }
        Action::Rights { username, can_write, can_manage } => {
            let seq = client.set_rights(chat, username, *can_write, *can_manage).await?;
            Ok(vec![done(format!("{username} has other rights, from entry {seq} on"), json!({ "seq": seq }))])
        }
        Action::Transfer { username } => {
            let seq = client.transfer(chat, username).await?;
            Ok(vec![done(format!("{username} is the owner, from entry {seq} on"), json!({ "seq": seq }))])
        }
        Action::Rekey => {
            let seq = client.rekey(chat).await?;
            Ok(vec![done(format!("all keys are new, from entry {seq} on"), json!({ "seq": seq }))])
        }
        Action::History(policy) => {
            let seq = client.set_history(chat, *policy).await?;
            let plain = match policy {
                HistoryPolicy::FromJoin => format!("from entry {seq} on newcomers read what comes after their joining"),
                HistoryPolicy::Shared => format!("newcomers may read everything from entry {seq} on"),
            };
            Ok(vec![done(plain, json!({ "seq": seq }))])
        }
        Action::Block { username } => Ok(vec![account::block(client, username).await?]),
        Action::Unblock { username } => Ok(vec![account::unblock(client, username).await?]),
        Action::Blocks => {
            let blocked = client.settings().await?.blocked;
            if blocked.is_empty() {
                return Ok(vec![done("nobody is blocked".to_owned(), json!({ "blocked": [] }))]);
            }
            let report = |user: crate::protocol::frame::MemberName| {
                let object = json!({ "user_id": user.user_id, "username": user.username });
                done(user.username.to_string(), object)
            };
            Ok(blocked.into_iter().map(report).collect())
        }
        Action::Edit { message_id, body } => {
            client.edit_body(chat, *message_id, body).await?;
            Ok(Vec::new())
        }
        Action::Delete { message_id } => {
            client.delete_message(chat, *message_id).await?;
            Ok(Vec::new())
        }
        Action::Safety { username } => safety::report(client, username, Paint::PLAIN).await,
    }
}

const fn done(plain: String, object: Value) -> Report {
    Report { plain, object }
}
