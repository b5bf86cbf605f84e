//! The chat as the store has it: loaded when what is believed is stale, and shown where it is news.

use actix::prelude::*;

use super::super::fan_out::{welcome, welcome_unseen};
use super::super::messages::Subscribed;
use super::super::state::ChatState;
use super::{ChatActor, Phase, STORE_PAUSE};
use crate::broker::Broker;
use crate::protocol::ids::{ChatId, Seq, SessionId};
use crate::protocol::log::{EntryBody, LogEntry};
use crate::protocol::membership::Change;
use crate::store::Failure;
use crate::store::loaded::LoadedChat;

impl ChatActor {
    /// What is stale is loaded when it is needed.
    pub(super) fn wants_load(&self) -> bool {
        let has_taken_back = self.in_flight.iter().any(|item| item.taken_back.is_some());
        !self.queue.is_empty()
            || !self.asking.is_empty()
            || self.refresh_wanted
            || has_taken_back
            || self.delivered.is_none()
    }

    /// Loads the chat, once nothing is on its way.
    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        if self.in_flight.iter().any(|item| item.taken_back.is_none()) {
            return;
        }
        self.requeue(ctx);
        self.watch_overdue(ctx);
        self.phase = Phase::Away;
        self.refresh_wanted = false;
        let (broker, chat_id, since) = (self.broker.clone(), self.chat_id, self.delivered);
        let load = async move { load(&broker, chat_id, since).await };
        ctx.spawn(load.into_actor(self).map(|loaded, actor, ctx| actor.loaded(loaded, ctx)));
    }

    pub(super) fn loaded(&mut self, loaded: Result<Option<LoadedChat>, Failure>, ctx: &mut Context<Self>) {
        match loaded {
            Ok(Some(mut chat)) => {
                let since = chat.since.take();
                let newcomers = newcomers(since.as_deref().unwrap_or_default(), &chat);
                if self.delivered.is_none() {
                    welcome_unseen(&self.broker.directory, self.chat_id, &chat);
                }
                self.show(chat.last_seq, since);
                for (added_at, sessions) in newcomers {
                    welcome(&self.broker.directory, self.chat_id, added_at, &sessions);
                }
                let state = ChatState::new(self.chat_id, chat, self.broker.options.keys);
                self.fan_out.retain(|session_id| state.is_recipient(session_id));
                self.phase = Phase::Ready(Box::new(state));
                self.answer_asking();
                self.pump(ctx);
            }
            Ok(None) => {
                self.phase = Phase::Gone;
                self.leave(ctx);
                self.pump(ctx);
            }
            Err(_) => {
                self.phase = Phase::Away;
                // Whatever made it look may be in the log and unseen: it looks until it knows.
                self.refresh_wanted = true;
                self.answer_overdue();
                ctx.run_later(STORE_PAUSE, |actor, ctx| {
                    actor.phase = Phase::Stale;
                    actor.pump(ctx);
                });
            }
        }
    }

    /// Fans out what the store has that this actor has not shown.
    pub(super) fn show(&mut self, last_seq: Seq, since: Option<Vec<LogEntry>>) {
        let is_first_load = self.delivered.is_none();
        let carries_messages = since
            .as_ref()
            .is_some_and(|entries| entries.iter().any(|entry| matches!(entry.body, EntryBody::Message(_))));
        match since {
            _ if is_first_load => self.fan_out.lag_those_behind(last_seq),
            Some(entries) if !carries_messages => {
                entries.into_iter().for_each(|entry| self.fan_out.entry(entry));
            }
            // Messages need their keys, which come with what is read from the store.
            _ => self.fan_out.lag_all(),
        }
        self.delivered = Some(last_seq);
    }

    /// Tells connections where they stand, once the chat knows where it stands itself.
    pub(super) fn answer_asking(&mut self) {
        let (Phase::Ready(state), Some(delivered)) = (&self.phase, self.delivered) else { return };
        for (subscriber, reply) in self.asking.drain(..) {
            let who = subscriber.connection.who().filter(|who| state.is_recipient(who.session_id));
            let subscribed = match who {
                None => Subscribed::Stranger,
                Some(who) if subscriber.position < delivered => {
                    self.fan_out.remove_session(who.session_id);
                    Subscribed::Behind
                }
                Some(who) => {
                    self.fan_out.insert(who.session_id, subscriber);
                    Subscribed::Live
                }
            };
            // A connection that has gone is found out at the next entry.
            let _ = reply.send(subscribed);
        }
    }
}

/// Who was added by entries that this actor did not write, or whose outcome it was not told: for each such entry the
/// sessions that are recipients now.
fn newcomers(since: &[LogEntry], chat: &LoadedChat) -> Vec<(Seq, Vec<SessionId>)> {
    let added = since.iter().filter_map(|entry| match &entry.body {
        EntryBody::Membership(signed) if matches!(signed.change.change, Change::Add { .. }) => {
            Some((entry.seq, signed.change.target.user_id))
        }
        _ => None,
    });
    let sessions_of = |user_id| chat.recipients.iter().filter(move |(_, recipient)| recipient.user_id == user_id);
    added.map(|(seq, user_id)| (seq, sessions_of(user_id).map(|(session_id, _)| *session_id).collect())).collect()
}

pub(super) async fn load(broker: &Broker, chat_id: ChatId, since: Option<Seq>) -> Result<Option<LoadedChat>, Failure> {
    let loaded = broker.store.load_chat(chat_id, since).await?;
    if !loaded.as_ref().is_some_and(|chat| chat.expiry_due) {
        return Ok(loaded);
    }
    broker.expire_in_chat(chat_id).await?;
    broker.store.load_chat(chat_id, since).await
}
