//! Sends what waits in a chat's outbox: one task a chat, while anything waits.

use std::sync::Arc;
use std::time::Duration;

use super::call::spawn;
use super::persist::shareable;
use super::state::{Counts, Shared, State};
use crate::client::backoff::Backoff;
use crate::client::chat::outbox::{Context, Name, Step, Until, Verdict};
use crate::client::chat::state::Chat;
use crate::client::error::SendError;
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::handle::Sent;
use crate::client::net::wire::{CallError, Refused, Wire};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{MakeGeneration, Reply, Request, Send, SendOk};
use crate::protocol::ids::{ChatId, Epoch};

/// How long the log may take to come to where the server says it is.
const FOLD_WAIT: Duration = Duration::from_secs(10);

/// Starts the tasks of all chats in which something waits.
pub(crate) fn start_all(shared: &Arc<Shared>) {
    let waiting: Vec<ChatId> = {
        let state = shared.lock();
        state.chats.iter().filter(|(_, chat)| !chat.outbox.is_empty()).map(|(chat_id, _)| *chat_id).collect()
    };
    for chat_id in waiting {
        start(shared, chat_id);
    }
}

/// Starts the task of a chat unless it runs.
pub(crate) fn start(shared: &Arc<Shared>, chat_id: ChatId) {
    if !shared.lock().pumping.insert(chat_id) {
        return;
    }
    let task_shared = Arc::clone(shared);
    spawn(shared, async move { pump(&task_shared, chat_id).await });
}

async fn pump(shared: &Arc<Shared>, chat_id: ChatId) {
    let mut backoff = Backoff::default();
    loop {
        // Before everything has come, the fold is not the chat's: a seal would be for yesterday's recipients.
        let Ok(wire) = shared.live().await else { return };
        let step = next(shared, chat_id);
        match step {
            None => return,
            Some(Step::Idle) => {}
            Some(Step::Fold(until)) => wait_for_fold(shared, chat_id, until).await,
            Some(Step::Fail(name, error)) => fail(shared, chat_id, name, error),
            Some(Step::Generate(generation)) => generate(shared, chat_id, &wire, *generation, &mut backoff).await,
            Some(Step::Stage(part)) => {
                match wire.request(Request::StageCopies(*part), shared.config.request_timeout).await {
                    Ok(_) => with_chat(shared, chat_id, |chat| chat.outbox.staged()),
                    Err(CallError::Lost) => shared.rest(&wire, &mut backoff, None).await,
                    Err(CallError::Refused(refused)) => refuse(shared, &wire, chat_id, &refused, &mut backoff).await,
                }
            }
            Some(Step::Send(frame)) => send(shared, chat_id, &wire, frame, &mut backoff).await,
        }
    }
}

/// The next step of a chat's outbox; none when nothing waits, and then the task is over.
fn next(shared: &Shared, chat_id: ChatId) -> Option<Step> {
    let mut state = shared.lock();
    let now = state.now();
    let State { chats, account, pumping, limits, dirty_chats, .. } = &mut *state;
    let step = match (chats.get_mut(&chat_id), *limits) {
        (Some(Chat { log, outbox, .. }), Some(limits)) => {
            outbox.next(&mut Context { log, me: &account.me, limits, now })
        }
        _ => Step::Idle,
    };
    if matches!(step, Step::Idle) {
        pumping.remove(&chat_id);
        return None;
    }
    dirty_chats.insert(chat_id);
    Some(step)
}

async fn send(shared: &Arc<Shared>, chat_id: ChatId, wire: &Wire, frame: Box<Send>, backoff: &mut Backoff) {
    let name = (frame.envelope.message_id, frame.envelope.revision);
    if let Err(error) = shared.keep().await {
        tracing::error!(%error, "sealed frame cannot be kept, so it is not sent");
        let withdrawn = {
            let mut state = shared.lock();
            state.chats.get_mut(&chat_id).is_some_and(|chat| chat.outbox.give_up(name))
        };
        if withdrawn {
            fail(shared, chat_id, name, SendError::Storage(shareable(error)));
        } else {
            shared.rest(wire, backoff, None).await;
        }
        return;
    }
    with_chat(shared, chat_id, |chat| chat.outbox.leaving());
    match wire.request(Request::Send(frame), shared.config.request_timeout).await {
        Ok(Reply::Sent(sent)) => {
            backoff.reset();
            commit(shared, chat_id, name, &sent);
        }
        Ok(_) => {
            tracing::warn!("answer to a send is none");
            wire.cut();
            shared.rest(wire, backoff, None).await;
        }
        Err(CallError::Lost) => {
            Counts::add(&shared.counts.resends);
            shared.rest(wire, backoff, None).await;
        }
        Err(CallError::Refused(refused)) => {
            // The log may have told of this message while the answer was on its way.
            let is_head = shared.lock().chats.get(&chat_id).is_some_and(|chat| chat.outbox.head() == Some(name));
            if is_head {
                refuse(shared, wire, chat_id, &refused, backoff).await;
            }
        }
    }
}

/// Makes the group key that is due; the log says what became of it.
async fn generate(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    wire: &Wire,
    generation: MakeGeneration,
    backoff: &mut Backoff,
) {
    match wire.request(Request::MakeGeneration(generation), shared.config.request_timeout).await {
        Ok(Reply::Changed(changed)) => {
            backoff.reset();
            with_chat(shared, chat_id, |chat| chat.outbox.hold_until(changed.seq, Epoch::default()));
        }
        Ok(_) => {
            tracing::warn!("answer to a generation is none");
            wire.cut();
            shared.rest(wire, backoff, None).await;
        }
        // If it was taken, the log shows it by the time that everything has come.
        Err(CallError::Lost) => shared.rest(wire, backoff, None).await,
        Err(CallError::Refused(refused)) => {
            Counts::add(&shared.counts.refusals);
            tracing::debug!(code = %refused.code, "generation is refused");
            let (head, verdict) = {
                let mut state = shared.lock();
                let Some(chat) = state.chats.get_mut(&chat_id) else { return };
                let Some(head) = chat.outbox.head() else { return };
                (head, chat.outbox.generation_refused(refused.code, &refused.details))
            };
            settle(shared, wire, chat_id, head, verdict, backoff).await;
        }
    }
}

fn commit(shared: &Shared, chat_id: ChatId, name: Name, sent: &SendOk) {
    Counts::add(&shared.counts.messages_sent);
    let events = {
        let mut state = shared.lock();
        let mut events = Vec::new();
        if let Some(chat) = state.chats.get_mut(&chat_id) {
            if let Err(failure) = chat.promise(sent) {
                let seq = Some(sent.seq);
                events.push(Event::alarm_in(chat_id, seq, failure));
            }
            if chat.outbox.committed(name) {
                let (message_id, revision) = name;
                let result = Sent { message_id, revision, seq: sent.seq, created_at: sent.created_at };
                events.extend(state.settle(chat_id, name, Ok(result)));
            }
        }
        state.dirty_chats.insert(chat_id);
        if !sent.unreachable.is_empty() {
            events.push(Event::OutOfReach { chat_id, message_id: name.0, users: sent.unreachable.clone() });
        }
        if !sent.refused.is_empty() {
            events.push(Event::Unreadable { chat_id, message_id: name.0, sessions: sent.refused.clone() });
        }
        events
    };
    shared.publish(events);
    shared.notify_moved();
}

async fn refuse(shared: &Arc<Shared>, wire: &Wire, chat_id: ChatId, refused: &Refused, backoff: &mut Backoff) {
    Counts::add(&shared.counts.refusals);
    tracing::debug!(code = %refused.code, "send is refused");
    let (head, verdict) = {
        let mut state = shared.lock();
        state.dirty_chats.insert(chat_id);
        let Some(chat) = state.chats.get_mut(&chat_id) else { return };
        let Some(head) = chat.outbox.head() else { return };
        (head, chat.outbox.refused(refused.code, &refused.details))
    };
    settle(shared, wire, chat_id, head, verdict, backoff).await;
}

async fn settle(
    shared: &Arc<Shared>,
    wire: &Wire,
    chat_id: ChatId,
    head: Name,
    verdict: Verdict,
    backoff: &mut Backoff,
) {
    match verdict {
        Verdict::Again => {}
        Verdict::Later(retry_after_ms) => shared.rest(wire, backoff, retry_after_ms).await,
        Verdict::Done(stored) => {
            let (message_id, revision) = head;
            let sent = Sent { message_id, revision, seq: stored.seq, created_at: stored.created_at };
            let event = shared.lock().settle(chat_id, head, Ok(sent));
            shared.publish(event.into_iter().collect());
        }
        Verdict::Fail(error) => fail(shared, chat_id, head, error),
    }
}

fn fail(shared: &Shared, chat_id: ChatId, name: Name, error: SendError) {
    let mut events = Vec::new();
    if let SendError::GhostRecipient { session_id } = error {
        let failure = VerificationFailure::GhostRecipient(session_id);
        events.push(Event::alarm_in(chat_id, None, failure));
    }
    let is_gone = matches!(error, SendError::Refused { code: ErrorCode::UnknownChat });
    {
        let mut state = shared.lock();
        events.extend(state.settle(chat_id, name, Err(error)));
        if is_gone && state.chats.contains_key(&chat_id) {
            events.extend(state.forget(chat_id));
            events.push(Event::Removed { chat_id });
        }
    }
    shared.publish(events);
    shared.notify_moved();
}

async fn wait_for_fold(shared: &Shared, chat_id: ChatId, until: Until) {
    let folded = shared.wait_until(FOLD_WAIT, |state| match state.chats.get(&chat_id) {
        Some(chat) => (chat.log.head().seq >= until.seq && chat.log.fold().epoch() >= until.epoch).then_some(()),
        None => Some(()),
    });
    if let Ok(None) = folded.await {
        tracing::warn!("entries that the server named do not come, connection is made anew");
        shared.reconnect();
    }
}

fn with_chat(shared: &Shared, chat_id: ChatId, change: impl FnOnce(&mut Chat)) {
    if let Some(chat) = shared.lock().chats.get_mut(&chat_id) {
        change(chat);
    }
}
