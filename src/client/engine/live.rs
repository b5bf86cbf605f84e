//! What is of this moment: signals, and how far others have come. Sent if it can be sent now, else dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::call::expect_reply;
use super::state::{Inbox, Shared, State, Status};
use crate::client::chat::state::Chat;
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::net::wire::{CallError, Wire};
use crate::client::signal::Signal;
use crate::protocol::frame::{self, ChatGone, Delivered, Deliveries, Delivery, ListDeliveries, Reply, Request};
use crate::protocol::ids::{ChatId, Seq, SessionId};

/// Sends a signal. `false`: it was dropped.
pub(crate) async fn signal(shared: &Shared, chat_id: ChatId, body: Signal) -> Result<bool, ClientError> {
    let wire = match &*shared.status.borrow() {
        Status::Live(wire) => wire.clone(),
        Status::Connecting => return Ok(false),
        Status::Closed(reason) => return Err(ClientError::Closed(*reason)),
    };
    let sealed = {
        let state = shared.lock();
        let now = state.now();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let Some(limits) = &state.limits else { return Ok(false) };
        chat.seal_signal(body, &state.account.me, limits, now)?
    };
    let Some(signal) = sealed else { return Ok(false) };
    let request = Request::Signal(frame::Signal { chat_id, signal });
    match wire.request(request, shared.config.request_timeout).await {
        Ok(_) => Ok(true),
        Err(CallError::Lost) => Ok(false),
        // The recipients have just changed, or it is too much, or a fault for now: a later signal will say more.
        Err(CallError::Refused(refused)) if refused.code.is_retryable() => Ok(false),
        Err(CallError::Refused(refused)) => Err(refused.into()),
    }
}

/// How far each recipient of a chat has come, by the server's word; who the recipients are the log says.
pub(crate) async fn deliveries(shared: &Shared, chat_id: ChatId) -> Result<Deliveries, ClientError> {
    shared.known(chat_id).await?;
    let request = Request::ListDeliveries(ListDeliveries { chat_id });
    let told = expect_reply!(shared.call(request).await??, Deliveries)?;
    let mut state = shared.lock();
    let chat = state.chats.get_mut(&chat_id).ok_or(ClientError::UnknownChat)?;
    for delivery in told.deliveries {
        chat.delivered_to(delivery);
    }
    let recipients = chat.log.fold().recipients().iter();
    let delivery = |(session_id, recipient): (&SessionId, &crate::protocol::fold::Recipient)| Delivery {
        session_id: *session_id,
        user_id: recipient.user_id,
        seq: chat.delivered.get(session_id).copied().unwrap_or_default(),
    };
    Ok(Deliveries { deliveries: recipients.map(delivery).collect() })
}

impl Chat {
    /// Notes how far a recipient has come. `false`: it is none, or that was known.
    fn delivered_to(&mut self, delivery: Delivery) -> bool {
        let recipients = self.log.fold().recipients();
        let is_recipient =
            recipients.get(&delivery.session_id).is_some_and(|recipient| recipient.user_id == delivery.user_id);
        let known: Option<Seq> = self.delivered.get(&delivery.session_id).copied();
        if !is_recipient || known.is_some_and(|known| known >= delivery.seq) {
            return false;
        }
        let stays: BTreeMap<SessionId, Seq> = std::mem::take(&mut self.delivered);
        self.delivered = stays.into_iter().filter(|(session_id, _)| recipients.contains_key(session_id)).collect();
        self.delivered.insert(delivery.session_id, delivery.seq);
        true
    }
}

impl Shared {
    /// A signal. What does not verify is dropped.
    pub(crate) fn on_signal(&self, pushed: &frame::Signal) {
        let (chat_id, envelope) = (pushed.chat_id, &pushed.signal);
        let heard = {
            let mut state = self.lock();
            let now = state.now();
            let State { chats, account, .. } = &mut *state;
            let Some(chat) = chats.get_mut(&chat_id) else { return };
            chat.hear(envelope, &account.me, now)
        };
        match heard {
            Ok(signal) => self.publish(vec![Event::Signal {
                chat_id,
                user_id: envelope.sender_id,
                session_id: envelope.sender_session_id,
                signal,
            }]),
            Err(dropped) => tracing::debug!(reason = %dropped, "signal is dropped"),
        }
    }

    /// A session has come further, by the server's word.
    pub(crate) fn on_delivered(&self, pushed: &Delivered) {
        let Delivered { chat_id, delivery } = *pushed;
        let is_new = self.lock().chats.get_mut(&chat_id).is_some_and(|chat| chat.delivered_to(delivery));
        if is_new {
            let Delivery { session_id, user_id, seq } = delivery;
            self.publish(vec![Event::Delivered { chat_id, user_id, session_id, seq }]);
        }
    }

    /// A chat is not this user's any more, by the server's word, as when the chats are listed.
    pub(crate) fn on_chat_gone(self: &Arc<Self>, gone: ChatGone) {
        let chat_id = gone.chat_id;
        {
            let mut state = self.lock();
            state.inboxes.insert(chat_id, Inbox::gone());
            self.forget_gone(&mut state, chat_id);
        }
        self.notify_moved();
        self.judge_live();
    }

    /// The same, found out by asking for a key of it. What waits in the queue was read before, but for a joining anew.
    pub(crate) fn on_key_of_gone_chat(self: &Arc<Self>, wire: &Wire, chat_id: ChatId) {
        {
            let mut state = self.lock();
            if !state.is_current(wire) {
                return;
            }
            let inbox = state.inboxes.entry(chat_id).or_default();
            (inbox.is_gone, inbox.is_fetching) = (true, false);
            self.forget_gone(&mut state, chat_id);
        }
        self.advance(wire, chat_id, |_, _| {});
    }

    /// Under the lock: after the events of the entries before.
    fn forget_gone(&self, state: &mut State, chat_id: ChatId) {
        if state.chats.contains_key(&chat_id) {
            let mut events = state.forget(chat_id);
            events.push(Event::Removed { chat_id });
            self.publish(events);
        }
    }
}
