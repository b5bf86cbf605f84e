//! Fetches what a chat's queue needs before it can go on, and lets it go on.

use std::sync::Arc;

use super::call::{expect_reply, spawn};
use super::inbound::Need;
use super::state::{Inbox, Shared};
use crate::client::chat::bootstrap::Bootstrap;
use crate::client::chat::generations::Folded;
use crate::client::chat::log::ChatLog;
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::net::wire::{CallError, Wire};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{Cursor, Keys, Reply, Request, Resume};
use crate::protocol::ids::{ChatId, KeyId, Seq};

/// Starts a fetch over the connection that needs it; if that ends, so does the fetch, and the next connection
/// brings the entries again.
pub(crate) fn start(shared: &Arc<Shared>, wire: &Wire, chat_id: ChatId, need: Need) {
    let (task_shared, wire) = (Arc::clone(shared), wire.clone());
    spawn(shared, async move {
        match need {
            Need::Fold(before) => fold(&task_shared, &wire, chat_id, before).await,
            Need::Key(key_id) => key(&task_shared, &wire, chat_id, key_id).await,
            Need::Resume => resume(&task_shared, &wire, chat_id).await,
        }
    });
}

/// Fetches and folds the entries below a seq that are not messages.
pub(crate) async fn fold_before(
    shared: &Shared,
    wire: &Wire,
    chat_id: ChatId,
    before: Seq,
) -> Result<Folded, FoldError> {
    let left = shared.lock().account.left.get(&chat_id).copied().filter(|left| left.place.seq < before);
    let mut bootstrap = match left {
        Some(left) => Bootstrap::returning(chat_id, before, left.change_no, left.change_hash),
        None => Bootstrap::new(chat_id, before),
    };
    while let Some(events) = bootstrap.next() {
        let reply = wire.request(Request::Events(events), shared.config.request_timeout).await;
        let page = expect_reply!(reply.map_err(FoldError::Call)?, Page).map_err(|_: ClientError| FoldError::Answer)?;
        bootstrap.take(&page).map_err(FoldError::Verification)?;
    }
    bootstrap.finish().map_err(FoldError::Verification)
}

/// Why there is no fold.
#[derive(Debug)]
pub(crate) enum FoldError {
    Call(CallError),
    Answer,
    Verification(VerificationFailure),
}

async fn fold(shared: &Arc<Shared>, wire: &Wire, chat_id: ChatId, before: Seq) {
    let folded = match fold_before(shared, wire, chat_id, before).await {
        Ok(folded) => Ok(folded),
        Err(FoldError::Call(CallError::Lost)) => return,
        // The next connection brings the entries again; to forget them here would be to lose the chat's beginning.
        Err(FoldError::Call(CallError::Refused(refused))) if refused.code.is_retryable() => {
            tracing::info!(code = %refused.code, "chat cannot be folded now, connection is made anew");
            return wire.cut();
        }
        Err(FoldError::Call(CallError::Refused(refused))) => {
            tracing::info!(code = %refused.code, "chat is gone before it was folded");
            shared.lock().inboxes.remove(&chat_id);
            shared.notify_moved();
            shared.judge_live();
            return;
        }
        Err(FoldError::Answer) => return wire.cut(),
        Err(FoldError::Verification(failure)) => Err(failure),
    };
    {
        let mut state = shared.lock();
        let is_current = state.is_current(wire);
        let joining = state.inboxes.get_mut(&chat_id).filter(|_| is_current).and_then(|inbox| inbox.queue.pop_front());
        let Some(joining) = joining else { return };
        let mut events = Vec::new();
        match folded.and_then(|folded| ChatLog::join(folded, &joining)) {
            Ok(log) => {
                state.begin(chat_id, log, &mut events);
                if let Some(inbox) = state.inboxes.get_mut(&chat_id) {
                    inbox.is_fetching = false;
                }
            }
            Err(failure) => {
                let seq = Some(joining.seq);
                events.push(Event::alarm_in(chat_id, seq, failure));
                state.inboxes.insert(chat_id, Inbox { is_ignored: true, ..Inbox::default() });
            }
        }
        // Under the lock, so that they come before those of the entries behind.
        shared.publish(events);
    }
    shared.advance(wire, chat_id, |_, _| {});
}

async fn key(shared: &Arc<Shared>, wire: &Wire, chat_id: ChatId, key_id: KeyId) {
    let request = Request::Keys(Keys { chat_id, key_ids: vec![key_id] });
    let keys = match wire.request(request, shared.config.request_timeout).await {
        Ok(Reply::Keys(list)) => list.keys,
        Ok(_) => return wire.cut(),
        Err(CallError::Lost) => return,
        Err(CallError::Refused(refused)) if refused.code.is_retryable() => {
            tracing::info!(code = %refused.code, "key cannot be had now, connection is made anew");
            return wire.cut();
        }
        // Who is removed while the question is on its way is told no keys of before.
        Err(CallError::Refused(refused)) if refused.code == ErrorCode::UnknownChat => {
            return shared.on_key_of_gone_chat(wire, chat_id);
        }
        Err(CallError::Refused(refused)) => {
            tracing::info!(code = %refused.code, "key is refused");
            Vec::new()
        }
    };
    shared.advance(wire, chat_id, |inbox, chat| {
        if let Some(chat) = chat {
            keys.iter().for_each(|key| chat.keys.offer(key));
        }
        inbox.tried = Some(key_id);
        inbox.is_fetching = false;
    });
}

async fn resume(shared: &Arc<Shared>, wire: &Wire, chat_id: ChatId) {
    let seq = shared.lock().chats.get(&chat_id).map(|chat| chat.log.head().seq);
    let Some(seq) = seq else { return };
    let request = Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq }] });
    if let Err(CallError::Refused(refused)) = wire.request(request, shared.config.request_timeout).await {
        tracing::warn!(code = %refused.code, "chat is not shown again");
        wire.cut();
    }
}
