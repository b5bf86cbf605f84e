//! Changes of members and the end of a chat: transactions of their own, begun when nothing of the chat is on its
//! way, and followed by a look at the store.

use actix::prelude::*;

use super::super::fan_out::{say_deleted, welcome};
use super::super::messages::{Control, ControlRequest};
use super::loading::load;
use super::{ChatActor, Phase};
use crate::broker::Broker;
use crate::broker::responder::Responder;
use crate::protocol::frame::{Changed, Reply};
use crate::protocol::ids::{ChatId, Seq, SessionId};
use crate::protocol::membership::{Change, SignedChange};
use crate::store::Failure;
use crate::store::members::Requester;

impl ChatActor {
    pub(super) fn control(&mut self, control: Control, ctx: &mut Context<Self>) {
        let kept = std::mem::replace(&mut self.phase, Phase::Away);
        let broker = self.broker.clone();
        let Control { who, request, responder, .. } = control;
        let run = async move {
            let result = run_control(&broker, who, &request).await;
            (request, result)
        };
        let finish = run.into_actor(self).map(move |(request, result), actor, ctx| {
            if let Err(Failure::Refused(refusal)) = result {
                // Nothing has changed, so what is believed holds as before.
                actor.phase = kept;
                responder.refuse(refusal);
                return actor.pump(ctx);
            }
            actor.controlled(request, result, responder, ctx);
        });
        ctx.spawn(finish);
    }

    /// Lets the store refuse a stranger, beside what the chat does: strangers hold up nobody.
    pub(super) fn control_by_stranger(&mut self, control: Control, ctx: &mut Context<Self>) {
        let broker = self.broker.clone();
        let Control { who, request, responder, .. } = control;
        let run = async move { run_control(&broker, who, &request).await };
        ctx.spawn(run.into_actor(self).map(|result, actor, ctx| {
            // Who has become a member meanwhile, on another node, is no stranger: then the chat looks again.
            actor.refresh_wanted |= result.is_ok();
            responder.answer(result.map(|(changed, _)| Reply::Changed(changed)).map_err(Failure::refusal));
            actor.pump(ctx);
        }));
    }

    pub(super) fn controlled(
        &mut self,
        request: ControlRequest,
        result: Result<(Changed, Vec<SessionId>), Failure>,
        responder: Responder,
        ctx: &mut Context<Self>,
    ) {
        self.phase = Phase::Stale;
        match (result, request) {
            (Err(failure), _) => {
                // It may have been committed: then its entry is shown, and newcomers are welcomed, without a repeat.
                self.refresh_wanted = true;
                responder.refuse(failure.refusal());
                self.pump(ctx);
            }
            (Ok((changed, recipients)), ControlRequest::Delete(delete)) => {
                self.end(&delete.change, &recipients, ctx);
                responder.ok(Reply::Changed(changed));
            }
            (Ok((changed, newcomers)), _) => {
                // The entry is shown before the answer, and subscriptions of who was removed go with it.
                let (broker, chat_id, since) = (self.broker.clone(), self.chat_id, self.delivered);
                self.phase = Phase::Away;
                let load = async move { load(&broker, chat_id, since).await };
                let finish = load.into_actor(self).map(move |loaded, actor, ctx| {
                    actor.loaded(loaded, ctx);
                    welcome(&actor.broker.directory, actor.chat_id, changed.seq, &newcomers);
                    responder.ok(Reply::Changed(changed));
                });
                ctx.spawn(finish);
            }
        }
    }

    pub(super) fn end(&mut self, change: &SignedChange, recipients: &[SessionId], ctx: &mut Context<Self>) {
        say_deleted(&self.broker.directory, self.chat_id, change, recipients);
        self.phase = Phase::Gone;
        self.leave(ctx);
        self.pump(ctx);
    }
}

/// Does something to a chat, once more if an expiry had to be written down first.
async fn after_expiries(
    broker: &Broker,
    chat_id: ChatId,
    change: impl AsyncFn() -> Result<Changed, Failure>,
) -> Result<Changed, Failure> {
    match change().await {
        Err(Failure::ExpiryDue) => {
            broker.expire_in_chat(chat_id).await?;
            change().await
        }
        result => result,
    }
}

/// Runs a change of members; gives the sessions that are to be told: a newcomer's, or those of a chat that ended.
async fn run_control(
    broker: &Broker,
    who: Requester,
    request: &ControlRequest,
) -> Result<(Changed, Vec<SessionId>), Failure> {
    let change = match request {
        ControlRequest::Delete(delete) => {
            let recipients = broker.store.delete_chat(who, delete).await?;
            return Ok((Changed { seq: Seq::default(), duplicate: false }, recipients));
        }
        ControlRequest::Generation(make) => {
            let make_it = async || broker.store.make_generation(who, make).await;
            let changed = after_expiries(broker, make.chat_id, make_it).await?;
            // Whoever holds the info key seals it to the new recovery key.
            broker.ask_for_info_keys(vec![make.chat_id]);
            return Ok((changed, Vec::new()));
        }
        ControlRequest::RefuseGeneration(refuse) => {
            let refuse_it = async || broker.store.refuse_generation(who, refuse).await;
            return Ok((after_expiries(broker, refuse.chat_id, refuse_it).await?, Vec::new()));
        }
        ControlRequest::Membership(change) => change,
    };
    let (limits, members_max) = (&broker.options.sessions, broker.options.members_max);
    let changed = match broker.store.change_membership(who, change, limits, members_max).await {
        Err(Failure::ExpiryDue) => {
            broker.expire_in_chat(change.chat_id).await?;
            broker.expire(change.change.change.target.user_id).await?;
            broker.store.change_membership(who, change, limits, members_max).await?
        }
        result => result?,
    };
    let is_add = matches!(change.change.change.change, Change::Add { .. });
    let target = change.change.change.target.user_id;
    let newcomers = if is_add { broker.sessions_to_welcome(target).await } else { Vec::new() };
    if !newcomers.is_empty() {
        broker.show_newcomers_info(change.chat_id, &newcomers).await;
    }
    Ok((changed, newcomers))
}
