//! Requests about this moment: signals, cursors and what others are told of them.

use std::sync::Arc;
use std::time::Instant;

use super::requests::{Caller, spawn};
use crate::broker::Broker;
use crate::broker::chat::actor::QUEUE_PAUSE;
use crate::broker::chat::messages::{Advanced, Pass};
use crate::broker::responder::Responder;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{AdvanceCursor, Deliveries, Delivery, ListDeliveries, Nothing, Reply, Signal};
use crate::protocol::limits::SIGNAL_BYTES_MAX;
use crate::store::Failure;

/// Passes a signal to its chat. Where nobody else is live nobody hears it, and nothing is loaded for it.
pub(super) fn signal(broker: &Broker, caller: &Caller, signal: Signal, responder: Responder) {
    let who = caller.who;
    let Signal { chat_id, signal } = signal;
    if signal.data.len() > SIGNAL_BYTES_MAX {
        let limit = SIGNAL_BYTES_MAX as u64;
        return responder.refuse(Refusal::limit(ErrorCode::TooLarge, "the signal is too large", limit));
    }
    let Some(chat) = broker.directory.heard_chat(broker, chat_id, &caller.connection) else {
        let broker = broker.clone();
        return spawn(responder, async move {
            broker.store.require_member(who, chat_id).await?;
            Ok(Reply::Done(Nothing {}))
        });
    };
    match chat.try_send(Pass { who, signal: Box::new(signal), since: Instant::now(), responder }) {
        Ok(()) => {}
        Err(actix::dev::SendError::Full(pass)) => {
            broker.metrics.queue_full.with_label_values(&["chat_mailbox"]).inc();
            pass.responder.refuse(Refusal::later("too many requests wait in this chat", QUEUE_PAUSE));
        }
        Err(actix::dev::SendError::Closed(pass)) => {
            pass.responder.refuse(Refusal::new(ErrorCode::Internal, "the chat is being loaded again"));
        }
    }
}

/// Moves a cursor, and tells whoever is live in the chat.
pub(super) fn advance(broker: &Broker, caller: &Caller, cursor: AdvanceCursor, responder: Responder) {
    let (broker, who, connection) = (broker.clone(), caller.who, Arc::clone(&caller.connection));
    spawn(responder, async move {
        let AdvanceCursor { chat_id, seq } = cursor;
        let has_moved = broker.store.advance_cursor(who, chat_id, seq).await?;
        if has_moved && let Some(chat) = broker.directory.heard_chat(&broker, chat_id, &connection) {
            let delivery = Delivery { session_id: who.session_id, user_id: who.user_id, seq };
            // What does not fit is left out: whoever wants to know for certain asks.
            let _ = chat.try_send(Advanced { delivery });
        }
        Ok(Reply::Done(Nothing {}))
    });
}

/// Lists how far recipients have come. In the largest chats that is as much as several pages, so it waits for room.
pub(super) fn deliveries(broker: &Broker, caller: &Caller, list: ListDeliveries, responder: Responder) {
    let (broker, who, connection) = (broker.clone(), caller.who, Arc::clone(&caller.connection));
    actix::spawn(async move {
        let _reading = connection.reading.lock().await;
        connection.outbox.drained().await;
        let deliveries = broker.store.deliveries(who, list.chat_id).await.map_err(Failure::refusal);
        responder.answer(deliveries.map(|deliveries| Reply::Deliveries(Deliveries { deliveries })));
    });
}
