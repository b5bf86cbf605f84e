//! What the actor is sent. A chat that is going passes on what still comes through old addresses.

use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::super::messages::{
    Advanced, Control, CopiesChanged, Counted, Pass, Refresh, Stage, Submit, Subscribe, Subscribed, Unsubscribe,
};
use super::{ChatActor, Phase, Work, idle_limit};
use crate::broker::Broker;
use crate::broker::wakes::together;
use crate::protocol::ids::ChatId;
use crate::store::writer::{Appended, Outcome};

impl Actor for ChatActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.broker.metrics.chats_loaded.inc();
        let interval = (idle_limit(&self.broker) / 2).clamp(Duration::from_millis(10), Duration::from_secs(30));
        ctx.run_interval(interval, |actor, ctx| {
            actor.staging.forget_old(Instant::now());
            actor.passivate_if_idle(ctx);
        });
        self.pump(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.broker.metrics.chats_loaded.dec();
        let was_in_doubt = !self.in_flight.is_empty() || matches!(self.phase, Phase::Away);
        if !self.is_gone() && was_in_doubt {
            look_later(&self.broker, self.chat_id);
        }
    }
}

/// Sees to it that what an actor that ended by a panic left on its way is shown, should it be committed and its sender
/// not come back: nobody else is told of it.
fn look_later(broker: &Broker, chat_id: ChatId) {
    let Some(arbiter) = broker.chat_arbiter(chat_id) else { return };
    let broker = broker.clone();
    // The longest time in a lane's queue, and in its commit.
    let decided = broker.options.deadline * 2;
    arbiter.spawn(async move {
        tokio::time::sleep(decided).await;
        if let Some(chat) = broker.directory.chat(&broker, chat_id) {
            // A full mailbox loses this word; whoever is in it makes the chat look.
            let _ = chat.try_send(Refresh);
        }
    });
}

impl Handler<Submit> for ChatActor {
    type Result = ();

    fn handle(&mut self, mut submit: Submit, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), submit);
        }
        submit.count = Some(Counted::new(&self.broker.metrics));
        self.enqueue(Work::Submit(submit), ctx);
    }
}

impl Handler<Control> for ChatActor {
    type Result = ();

    fn handle(&mut self, control: Control, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), control);
        }
        self.enqueue(Work::Control(control), ctx);
    }
}

impl Handler<Stage> for ChatActor {
    type Result = ();

    fn handle(&mut self, stage: Stage, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), stage);
        }
        self.enqueue(Work::Stage(stage), ctx);
    }
}

impl Handler<Pass> for ChatActor {
    type Result = ();

    fn handle(&mut self, pass: Pass, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), pass);
        }
        self.busy_at = Instant::now();
        self.take_signal(pass, ctx);
    }
}

impl Handler<Advanced> for ChatActor {
    type Result = ();

    fn handle(&mut self, advanced: Advanced, ctx: &mut Self::Context) {
        if self.is_gone() {
            return pass_on(&self.broker, self.chat_id, &ctx.address(), advanced);
        }
        self.busy_at = Instant::now();
        self.advanced(advanced, ctx);
    }
}

impl Handler<Refresh> for ChatActor {
    type Result = ();

    fn handle(&mut self, _: Refresh, ctx: &mut Self::Context) {
        if !self.is_gone() {
            self.refresh_wanted = true;
            self.pump(ctx);
        }
    }
}

impl Handler<CopiesChanged> for ChatActor {
    type Result = ();

    fn handle(&mut self, changed: CopiesChanged, ctx: &mut Self::Context) {
        match &mut self.phase {
            Phase::Ready(state) => {
                for (key_id, session_id, change) in changed.changes {
                    state.copy_changed(key_id, session_id, change);
                }
            }
            // What is being loaded may be from before.
            Phase::Away => {
                self.refresh_wanted = true;
                self.pump(ctx);
            }
            Phase::Stale | Phase::Gone => {}
        }
    }
}

impl Handler<Subscribe> for ChatActor {
    type Result = ResponseFuture<Subscribed>;

    fn handle(&mut self, subscribe: Subscribe, ctx: &mut Self::Context) -> ResponseFuture<Subscribed> {
        let (reply, answer) = oneshot::channel();
        // Who was handed more than this actor knows of has it from another broker on the same database.
        let is_old = self.delivered.is_some_and(|delivered| subscribe.subscriber.position > delivered);
        self.refresh_wanted |= is_old && self.in_flight.is_empty();
        self.asking.push((subscribe.subscriber, reply));
        if !self.refresh_wanted {
            self.answer_asking();
        }
        self.pump(ctx);
        // An actor that goes meanwhile answers nothing: its chat is asked for anew.
        Box::pin(async move { answer.await.unwrap_or(Subscribed::Again) })
    }
}

impl Handler<Unsubscribe> for ChatActor {
    type Result = ();

    fn handle(&mut self, unsubscribe: Unsubscribe, _: &mut Self::Context) {
        self.fan_out.remove(unsubscribe.connection);
    }
}

impl Handler<Appended> for ChatActor {
    type Result = ();

    fn handle(&mut self, appended: Appended, ctx: &mut Self::Context) {
        self.busy_at = Instant::now();
        // Whoever is answered and handed entries here is woken once, with all of it there.
        let has_committed = appended.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Committed);
        together(|| self.appended(appended.outcomes, ctx));
        if has_committed {
            self.broker.metrics.hand_over_seconds.observe(appended.known_at.elapsed().as_secs_f64());
        }
        self.pump(ctx);
    }
}

/// Passes a message on to the chat's present actor; the one that is going keeps nothing.
fn pass_on<M>(broker: &Broker, chat_id: ChatId, going: &Addr<ChatActor>, message: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
    ChatActor: Handler<M>,
{
    let current = broker.directory.chat(broker, chat_id).filter(|current| current != going);
    if let Some(chat) = current {
        // A full mailbox drops the message, and its responder says so.
        let _ = chat.try_send(message);
    }
}
