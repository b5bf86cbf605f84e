//! What is for those alone who are live in the chat now: signals, and how far sessions have come. Nothing of it is stored
//! here, and what finds no room is left out.

use std::time::Duration;

use actix::prelude::*;

use super::super::messages::{Advanced, Pass};
use super::{ChatActor, Phase, Work};
use crate::protocol::error::Refusal;
use crate::protocol::frame::{Nothing, Reply, Signal};
use crate::protocol::limits::DELIVERED_RECIPIENTS_MAX;

/// How long words of how far sessions have come gather before they are told: shorter than an eye notices, and long enough
/// that of a session that moves with every message one word goes out for many.
const GATHERING: Duration = Duration::from_millis(250);

impl ChatActor {
    /// Judges a signal at once where that can be done. Else it waits with the messages, but only in the first half of
    /// their room: what may be dropped never keeps out what may not.
    pub(super) fn take_signal(&mut self, pass: Pass, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Ready(_)) && !self.refresh_wanted {
            return self.pass_signal(pass);
        }
        if self.queue.len() + self.in_flight.len() >= self.broker.options.in_flight_max / 2 {
            return pass.responder.refuse(Refusal::later("too much waits in this chat", super::QUEUE_PAUSE));
        }
        self.enqueue(Work::Signal(pass), ctx);
    }

    pub(super) fn pass_signal(&mut self, pass: Pass) {
        let Phase::Ready(state) = &self.phase else { return self.queue.push_front(Work::Signal(pass)) };
        let Pass { who, signal, responder, .. } = pass;
        if let Err(refusal) = state.judge_signal(self.broker.store.clock().now(), who, &signal) {
            return responder.refuse(refusal);
        }
        self.broker.metrics.signals_accepted.inc();
        self.fan_out.signal(Signal { chat_id: self.chat_id, signal: *signal });
        responder.ok(Reply::Done(Nothing {}));
    }

    /// Notes how far a session has come, for the next telling.
    pub(super) fn advanced(&mut self, Advanced { delivery }: Advanced, ctx: &mut Context<Self>) {
        if self.is_too_large_to_tell() {
            return;
        }
        let is_first = self.advances.is_empty();
        let newest = self.advances.entry(delivery.session_id).or_insert(delivery);
        newest.seq = newest.seq.max(delivery.seq);
        if is_first {
            ctx.run_later(GATHERING, Self::tell_advances);
        }
    }

    fn tell_advances(&mut self, ctx: &mut Context<Self>) {
        match &self.phase {
            Phase::Gone => self.advances.clear(),
            Phase::Ready(state) if !self.refresh_wanted => {
                let advances = std::mem::take(&mut self.advances);
                if state.recipient_count() > DELIVERED_RECIPIENTS_MAX {
                    return;
                }
                for delivery in advances.into_values().filter(|delivery| state.is_recipient(delivery.session_id)) {
                    self.fan_out.delivered(delivery);
                }
            }
            // Who is a recipient is not known for certain now.
            _ => {
                self.refresh_wanted |= matches!(self.phase, Phase::Stale);
                self.pump(ctx);
                ctx.run_later(GATHERING, Self::tell_advances);
            }
        }
    }

    fn is_too_large_to_tell(&self) -> bool {
        matches!(&self.phase, Phase::Ready(state) if state.recipient_count() > DELIVERED_RECIPIENTS_MAX)
    }
}
