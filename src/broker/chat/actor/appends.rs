//! Messages on their way: judged, given to the writer, answered, taken back.
//!
//! A message that is refused may be the repeat of one that is in the log: then its sender gets the first result (P2). And
//! what it was refused by may be old, where several brokers write to one database: then it is judged again.

use std::sync::Arc;
use std::time::Instant;

use actix::dev::SendError;
use actix::prelude::*;

use super::super::messages::{Stage, Submit};
use super::super::staging::Staging;
use super::super::state::Decision;
use super::{ChatActor, InFlight, Phase, QUEUE_PAUSE, Work};
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{Nothing, Reply, Send, SendOk};
use crate::protocol::ids::Seq;
use crate::protocol::log::LogEntry;
use crate::store::Failure;
use crate::store::batch::Item;
use crate::store::members::unknown_chat;
use crate::store::messages::StoredMessage;
use crate::store::revisions::MessageHead;
use crate::store::writer::{Append, AppendReply, Outcome};

impl ChatActor {
    /// Whether the store is to be asked for the message of an edit or deletion. Strangers hold up nobody.
    pub(super) fn needs_message(&self, submit: &Submit) -> bool {
        let is_revision = submit.send.envelope.kind != MessageKind::Message;
        is_revision && matches!(&self.phase, Phase::Ready(state) if state.is_recipient(submit.who.session_id))
    }

    /// Looks up the message of an edit or deletion. No revision of it is on its way, and while this one is being
    /// looked up none comes in between.
    pub(super) fn look_up(&mut self, submit: Submit, ctx: &mut Context<Self>) {
        let (broker, chat_id) = (self.broker.clone(), self.chat_id);
        let message_id = submit.send.envelope.message_id;
        self.is_looking_up = true;
        let find = async move { broker.store.message_head(chat_id, message_id).await };
        let go_on = find.into_actor(self).map(move |found, actor, ctx| {
            actor.is_looking_up = false;
            match found {
                Ok(target) => actor.queue.push_front(Work::Revision(submit, target)),
                Err(failure) => submit.answer(Err(failure.refusal())),
            }
            actor.pump(ctx);
        });
        ctx.spawn(go_on);
    }

    pub(super) fn submit(&mut self, mut submit: Submit, target: Option<MessageHead>, ctx: &mut Context<Self>) {
        let Phase::Ready(state) = &mut self.phase else { return self.queue.push_front(Work::Submit(submit)) };
        if let Err(refusal) = put_together(&self.staging, &mut submit) {
            return self.refuse_unless_repeat(submit, refusal, ctx);
        }
        let now = self.broker.store.clock().now();
        match state.submit(now, submit.who, &submit.signing_key, &submit.send, target.as_ref()) {
            Decision::Append(item) => self.append(submit, Arc::from(item), None, ctx),
            Decision::StoreKey(item, refusal) => self.append(submit, Arc::from(item), Some(refusal), ctx),
            Decision::Refuse(refusal) => self.refuse_unless_old(submit, refusal, ctx),
        }
    }

    /// A refusal stands unless the very same message is in the log, or the log has moved on without this actor: another
    /// broker on the same database writes it too, and who was refused may know more than was known here.
    ///
    /// The chat waits for that look. What is judged again is thereby judged before what came after it: the sender's
    /// next message, which would be refused as a gap, and the same bytes sent again after a lost connection, which
    /// would be refused for good although the first are still to be taken. Strangers hold up nobody.
    fn refuse_unless_old(&mut self, submit: Submit, refusal: Refusal, ctx: &mut Context<Self>) {
        let holds_up = matches!(&self.phase, Phase::Ready(state) if state.is_recipient(submit.who.session_id));
        self.is_looking_up |= holds_up;
        let (broker, chat_id, who, judged_by) = (self.broker.clone(), self.chat_id, submit.who, self.delivered);
        let (message_id, revision) = (submit.send.envelope.message_id, submit.send.envelope.revision);
        let look = async move {
            let found = broker.store.find_message(chat_id, message_id, revision).await?;
            // Strangers are told nothing.
            let newest = if found.is_none() { broker.store.newest_seq(who, chat_id).await? } else { None };
            Ok::<_, Failure>((found, newest))
        };
        let answer = look.into_actor(self).map(move |looked, actor, ctx| {
            actor.is_looking_up &= !holds_up;
            match looked {
                Ok((Some(stored), _)) => {
                    let result = repeat(stored, &submit, refusal);
                    submit.answer(result);
                }
                Ok((None, newest)) if newest > judged_by => {
                    actor.look_again(newest);
                    match holds_up {
                        true => actor.queue.push_front(Work::Submit(submit)),
                        false => actor.queue.push_back(Work::Submit(submit)),
                    }
                }
                Ok((None, _)) => submit.answer(Err(refusal)),
                Err(failure) => submit.answer(Err(failure.refusal())),
            }
            actor.pump(ctx);
            actor.watch_overdue(ctx);
        });
        ctx.spawn(answer);
    }

    /// The store has an entry of this seq. While something is on its way its outcome tells whether that was another's.
    fn look_again(&mut self, newest: Option<Seq>) {
        self.refresh_wanted |= newest > self.delivered && self.in_flight.is_empty();
    }

    /// Takes in a part of a list of copies: a recipient's alone, and not many more copies than there are recipients.
    pub(super) fn stage(&mut self, stage: Stage, ctx: &mut Context<Self>) {
        let Phase::Ready(state) = &self.phase else { return self.queue.push_front(Work::Stage(stage)) };
        let session_id = stage.who.session_id;
        if !state.is_recipient(session_id) {
            return self.stage_by_stranger(stage, ctx);
        }
        let result = self.staging.put(session_id, stage.part, state.recipient_count(), Instant::now());
        stage.responder.answer(result.map(|()| Reply::Done(Nothing {})));
    }

    /// Who is unknown here may have come by another broker on the same database.
    fn stage_by_stranger(&mut self, stage: Stage, ctx: &mut Context<Self>) {
        let (broker, chat_id, who, judged_by) = (self.broker.clone(), self.chat_id, stage.who, self.delivered);
        let look = async move { broker.store.newest_seq(who, chat_id).await };
        let answer = look.into_actor(self).map(move |newest, actor, ctx| match newest {
            Ok(newest) if newest > judged_by => {
                actor.look_again(newest);
                actor.queue.push_back(Work::Stage(stage));
                actor.pump(ctx);
                actor.watch_overdue(ctx);
            }
            Ok(_) => stage.responder.refuse(unknown_chat()),
            Err(failure) => stage.responder.refuse(failure.refusal()),
        });
        ctx.spawn(answer);
    }

    pub(super) fn append(
        &mut self,
        submit: Submit,
        item: Arc<Item>,
        refusal: Option<Refusal>,
        ctx: &mut Context<Self>,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let append = Append { item: Arc::clone(&item), reply: AppendReply::new(ticket, ctx.address().recipient()) };
        let taken = self.broker.writer_of(self.chat_id).map(|writer| writer.try_send(append));
        let announcement = match &self.phase {
            Phase::Ready(state) if !item.copies.is_empty() => {
                item.key_id.and_then(|key_id| state.announcement(key_id)).cloned()
            }
            _ => None,
        };
        let in_flight = InFlight { ticket, submit, item, announcement, refusal, taken_back: None };
        self.in_flight.push_back(in_flight);
        match taken {
            Some(Ok(())) => {}
            Some(Err(SendError::Full(append))) => {
                append.reply.withdraw();
                self.broker.metrics.queue_full.with_label_values(&["writer_mailbox"]).inc();
                self.take_back(ticket, Outcome::Overloaded);
            }
            // A lane that has just ended tells by the reply that it knows nothing; the next one is another lane.
            Some(Err(SendError::Closed(_))) => {}
            None => self.take_back(ticket, Outcome::Overloaded),
        }
    }

    /// A refusal stands unless the very same message is in the log: then its sender gets the first result (P2).
    pub(super) fn refuse_unless_repeat(&mut self, submit: Submit, refusal: Refusal, ctx: &mut Context<Self>) {
        let envelope = &submit.send.envelope;
        let (chat_id, message_id, revision) = (self.chat_id, envelope.message_id, envelope.revision);
        let broker = self.broker.clone();
        let find = async move { broker.store.find_message(chat_id, message_id, revision).await };
        let answer = find.into_actor(self).map(move |found, _, _| {
            let result = match found {
                Ok(None) => Err(refusal),
                Ok(Some(stored)) => repeat(stored, &submit, refusal),
                Err(failure) => Err(failure.refusal()),
            };
            submit.answer(result);
        });
        ctx.spawn(answer);
    }

    pub(super) fn take_back(&mut self, ticket: u64, outcome: Outcome) {
        if let Some(item) = self.in_flight.iter_mut().find(|item| item.ticket == ticket) {
            item.taken_back = Some(outcome);
        }
        self.phase = Phase::Stale;
    }

    /// Takes in what became of items: answers those that are committed, and hands them out.
    pub(super) fn appended(&mut self, outcomes: Vec<(u64, Outcome)>, ctx: &mut Context<Self>) {
        let mut messages = Vec::new();
        for (ticket, outcome) in outcomes {
            if outcome != Outcome::Committed {
                self.take_back(ticket, outcome);
                continue;
            }
            let position = self.in_flight.iter().position(|item| item.ticket == ticket);
            let Some(done) = position.and_then(|position| self.in_flight.remove(position)) else { continue };
            if let Some(announcement) = &done.announcement {
                // A key comes behind what was said before it, and ahead of its first message.
                self.fan_out.messages(std::mem::take(&mut messages));
                self.fan_out.keys(announcement, &done.item.copies);
                self.broker.metrics.sender_keys.inc();
            }
            messages.extend(self.committed(done, ctx));
        }
        if !messages.is_empty() {
            fail::fail_point!("chat::fan_out");
            self.fan_out.messages(messages);
        }
    }

    /// Answers an item that is committed; gives what is to be handed out.
    fn committed(&mut self, done: InFlight, ctx: &mut Context<Self>) -> Option<LogEntry> {
        if let Some(refusal) = done.refusal {
            // The message itself may be in the log since before a copy of its key went, and its sender not know it.
            self.refuse_unless_repeat(done.submit, refusal, ctx);
            return None;
        }
        let entry = Arc::unwrap_or_clone(done.item).entry?;
        if done.submit.send.new_key.as_ref().is_some_and(|new_key| new_key.staged.is_some()) {
            self.staging.remove(done.submit.who.session_id);
        }
        self.delivered = Some(entry.seq);
        let result = match &self.phase {
            Phase::Ready(state) => state.sent(&entry),
            _ => SendOk::of(&entry),
        };
        fail::fail_point!("chat::before_ok");
        done.submit.answer(Ok(result));
        Some(entry)
    }

    /// Puts what was taken back in front of the queue again, in its order, but for what is answered at once.
    pub(super) fn requeue(&mut self, ctx: &mut Context<Self>) {
        let mut taken_back: Vec<InFlight> = self.in_flight.drain(..).collect();
        while let Some(item) = taken_back.pop() {
            match item.taken_back {
                Some(Outcome::Overloaded) => {
                    item.submit.answer(Err(Refusal::later("too many messages wait", QUEUE_PAUSE)));
                }
                Some(Outcome::Refused) => {
                    item.submit.answer(Err(Refusal::new(ErrorCode::Internal, "the database refuses the message")));
                }
                Some(Outcome::IdTaken) => {
                    let refusal = Refusal::new(ErrorCode::IdReused, "the id was used with other content");
                    self.refuse_unless_repeat(item.submit, refusal, ctx);
                }
                Some(Outcome::KeyTaken) => {
                    let refusal = Refusal::new(ErrorCode::KeyExists, "a key of that id exists");
                    self.refuse_unless_repeat(item.submit, refusal, ctx);
                }
                _ => self.queue.push_front(Work::Submit(item.submit)),
            }
        }
    }

    /// Whether the same is on its way, or of an edit or deletion anything of its message: its outcome decides.
    pub(super) fn is_on_its_way(&self, submit: &Submit) -> bool {
        let envelope = &submit.send.envelope;
        let is_revision = envelope.kind != MessageKind::Message;
        let decides = |other: &Envelope| {
            other.message_id == envelope.message_id && (is_revision || other.revision == envelope.revision)
        };
        self.in_flight.iter().any(|item| decides(&item.submit.send.envelope))
    }
}

/// Puts copies that went ahead in parts into their message.
fn put_together(staging: &Staging, submit: &mut Submit) -> Result<(), Refusal> {
    let Send { envelope, new_key: Some(new_key), .. } = &mut *submit.send else { return Ok(()) };
    let (Some(hash), Some(key_id)) = (new_key.staged, envelope.key_id) else { return Ok(()) };
    if !new_key.copies.is_empty() {
        // They were put in by an earlier judgement of the same message.
        return Ok(());
    }
    let copies = staging.get(submit.who.session_id, key_id, &hash, Instant::now());
    new_key.copies = copies.ok_or_else(|| {
        Refusal::new(ErrorCode::UnknownKey, "the copies that went ahead are not here, or have another hash")
    })?;
    Ok(())
}

/// What the sender of a message is told whose id is in the log.
fn repeat(stored: StoredMessage, submit: &Submit, refusal: Refusal) -> Result<SendOk, Refusal> {
    let envelope = &submit.send.envelope;
    let is_own = stored.envelope.sender_session_id == submit.who.session_id;
    let is_same = stored.envelope.signature == envelope.signature
        && stored.envelope.signed_bytes(submit.send.chat_id) == envelope.signed_bytes(submit.send.chat_id);
    match (is_own, is_same) {
        (true, true) => Ok(stored.result),
        // A stranger learns nothing of what is in the log.
        _ if refusal.code == ErrorCode::UnknownChat && !is_own => Err(refusal),
        (true, false) => {
            let details = ErrorDetails { stored: Some(stored.result), ..ErrorDetails::default() };
            Err(Refusal::with(ErrorCode::IdReused, "the id was used with other content", details))
        }
        // Another session was faster, which the refusal says, and which revision is next.
        (false, _) if matches!(refusal.code, ErrorCode::EditConflict | ErrorCode::UnknownMessage) => Err(refusal),
        (false, _) => Err(Refusal::new(ErrorCode::IdReused, "the id was used by somebody else")),
    }
}
