//! The writer: an actor that commits messages of many chats in one transaction.
//!
//! Each lane has one connection and one transaction in flight. While one commits the next gathers, and no timer
//! stands between a lonely message and its commit. The transaction judges epoch, roster version, expiry and
//! coverage again under the lock of each chat's row (P4, P5), so that what chat actors hold is only a cache.
//! Messages in: [`Append`]. Messages out: [`Appended`], which tell of each item once, in order for each chat, also when the
//! lane ends by a panic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::batch::{BatchLimits, Item, Queue, Waiting};
use super::commit::Lane;
use super::judgement::Verdict;
use super::outage::Outage;
use crate::protocol::ids::ChatId;
use crate::telemetry::metrics::Metrics;

/// An item for the next commit.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Append {
    /// What is to be done.
    pub item: Arc<Item>,
    /// Whom to tell.
    pub reply: AppendReply,
}

/// The one word of what became of an item. Dropped without one, it says that nobody knows: whoever waits for it is
/// told, whatever becomes of the lane.
#[derive(Debug)]
pub struct AppendReply {
    ticket: u64,
    to: Recipient<Appended>,
    is_told: bool,
}

impl AppendReply {
    /// To be told with this ticket.
    #[must_use]
    pub const fn new(ticket: u64, to: Recipient<Appended>) -> Self {
        Self { ticket, to, is_told: false }
    }

    fn tell(mut self, outcome: Outcome) {
        self.is_told = true;
        send(&self.to, vec![(self.ticket, outcome)]);
    }

    /// Tells those who are told in one place at one stroke, in their order.
    fn tell_all(replies: Vec<(Self, Outcome)>) {
        let outcomes = replies.iter().map(|(reply, outcome)| (reply.ticket, *outcome)).collect();
        let to = replies.first().map(|(reply, _)| reply.to.clone());
        for (reply, _) in replies {
            reply.withdraw();
        }
        if let Some(to) = to {
            send(&to, outcomes);
        }
    }

    /// Says nothing: the item was not taken, and its sender knows.
    pub fn withdraw(mut self) {
        self.is_told = true;
    }
}

impl Drop for AppendReply {
    fn drop(&mut self) {
        if !self.is_told {
            send(&self.to, vec![(self.ticket, Outcome::Unknown)]);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "outcomes are bounded by the appends in flight and must never be dropped"
)]
fn send(to: &Recipient<Appended>, outcomes: Vec<(u64, Outcome)>) {
    to.do_send(Appended { outcomes, known_at: Instant::now() });
}

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Committed,
    /// It was not committed: what it was judged by is no longer so.
    Conflict,
    /// It was not committed: a message of that id and revision is there.
    IdTaken,
    /// It was not committed: a key of that id is there.
    KeyTaken,
    /// It was not committed: the database refuses it, and would again.
    Refused,
    /// It was not committed: the writer has too much to do.
    Overloaded,
    /// The database did not answer: it may have been committed or not.
    Unknown,
}

/// What became of items of one chat, in their order: by ticket.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Appended {
    /// Of each, its ticket and its outcome.
    pub outcomes: Vec<(u64, Outcome)>,
    /// Since when they are known.
    pub known_at: Instant,
}

/// How a lane behaves.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// What goes into one commit.
    pub limits: BatchLimits,
    /// How long an item may wait for its outcome.
    pub deadline: Duration,
}

/// How long a chat whose row is locked is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// How long a lane that cannot reach the database waits before it tries again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// One lane of the writer.
#[derive(Debug)]
pub struct BatchWriter {
    queue: Queue<AppendReply>,
    /// Away while a transaction is in flight.
    lane: Option<Lane>,
    /// A call to the next commit is on its way.
    is_called: bool,
    options: WriterOptions,
    metrics: Metrics,
    outage: Outage,
    name: String,
}

impl BatchWriter {
    /// A lane that connects when the first item comes.
    #[must_use]
    pub fn new(
        index: usize,
        config: tokio_postgres::Config,
        options: WriterOptions,
        metrics: Metrics,
        outage: Outage,
    ) -> Self {
        let name = format!("writer_{index}");
        let bound = i64::try_from(options.limits.queue_max).unwrap_or(i64::MAX);
        metrics.queue_bound.with_label_values(&[name.as_str()]).set(bound);
        let lane = Lane::new(config, options.deadline);
        Self { queue: Queue::new(options.limits), lane: Some(lane), is_called: false, options, metrics, outage, name }
    }

    fn commit_next(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if let Some(oldest) = now.checked_sub(self.options.deadline) {
            for waiting in self.queue.take_older_than(oldest) {
                waiting.reply.tell(Outcome::Conflict);
            }
        }
        let Some(mut lane) = self.lane.take() else { return };
        let batch = self.queue.take(now);
        self.metrics
            .queue_depth
            .with_label_values(&[self.name.as_str()])
            .set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        if batch.is_empty() {
            self.lane = Some(lane);
            if let Some(next_try) = self.queue.next_try() {
                ctx.run_later(next_try.saturating_duration_since(now), Self::commit_next);
            }
            return;
        }
        let (items, replies): (Vec<Arc<Item>>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.item, (waiting.since, waiting.reply))).unzip();
        let started = Instant::now();
        let commit = async move {
            let (verdicts, error) = lane.commit(&items).await;
            (lane, items, verdicts, error)
        };
        let finish = commit.into_actor(self).map(move |(lane, items, verdicts, error), actor, ctx| {
            actor.metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
            actor.note(error.as_ref(), &verdicts);
            actor.answer(items, replies, verdicts);
            actor.lane = Some(lane);
            if error.is_none() {
                actor.commit_next(ctx);
            } else {
                ctx.run_later(RECONNECT_PAUSE, Self::commit_next);
            }
        });
        ctx.spawn(finish);
    }

    /// Counts how a batch went.
    fn note(&self, error: Option<&super::StoreError>, verdicts: &[Verdict]) {
        let count = |outcome| verdicts.iter().filter(|verdict| **verdict == Verdict::Done(outcome)).count();
        match error {
            Some(error) => {
                self.outage.failed("commit", error);
                self.metrics.batch_failures.with_label_values(&["unknown"]).inc();
            }
            None => self.outage.answered(),
        }
        if count(Outcome::Refused) > 0 {
            self.metrics.batch_failures.with_label_values(&["refused"]).inc();
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch has at most thousands of items")]
        self.metrics.batch_messages.observe(count(Outcome::Committed) as f64);
    }

    /// Tells each sender what became of its item; those of chats that were locked wait again.
    fn answer(&mut self, items: Vec<Arc<Item>>, replies: Vec<(Instant, AppendReply)>, verdicts: Vec<Verdict>) {
        let mut busy = Vec::new();
        let mut told: HashMap<ChatId, Vec<(AppendReply, Outcome)>> = HashMap::new();
        for ((item, (since, reply)), verdict) in items.into_iter().zip(replies).zip(verdicts) {
            let outcome = match verdict {
                Verdict::Done(outcome) => outcome,
                Verdict::Busy => {
                    busy.push(Waiting { item, since, reply });
                    continue;
                }
            };
            let of_chat = told.entry(item.chat_id).or_default();
            // An actor of the chat that has gone meanwhile is told of its own items alone.
            if of_chat.first().is_some_and(|(other, _)| other.to != reply.to) {
                AppendReply::tell_all(std::mem::take(of_chat));
            }
            of_chat.push((reply, outcome));
        }
        told.into_values().for_each(AppendReply::tell_all);
        self.queue.put_back(busy, Instant::now() + BUSY_PAUSE);
    }
}

impl Actor for BatchWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.options.limits.queue_max);
    }
}

impl Handler<Append> for BatchWriter {
    type Result = ();

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) {
        let waiting = Waiting { item: append.item, since: Instant::now(), reply: append.reply };
        if let Err(refused) = self.queue.push(waiting) {
            self.metrics.queue_full.with_label_values(&[self.name.as_str()]).inc();
            refused.reply.tell(Outcome::Overloaded);
            return;
        }
        if self.lane.is_some() && !self.is_called {
            // Whatever else is in the mailbox comes along: the batch starts behind it. No timer, for the shortest takes
            // longer than a commit.
            self.is_called = true;
            ctx.notify(CommitNext);
        }
    }
}

/// Calls a lane to its next commit.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CommitNext;

impl Handler<CommitNext> for BatchWriter {
    type Result = ();

    fn handle(&mut self, _: CommitNext, ctx: &mut Self::Context) {
        self.is_called = false;
        self.commit_next(ctx);
    }
}

/// Asks a lane whether it has nothing left to commit.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct IsIdle;

impl Handler<IsIdle> for BatchWriter {
    type Result = bool;

    fn handle(&mut self, _: IsIdle, _: &mut Self::Context) -> bool {
        self.queue.is_empty() && self.lane.is_some()
    }
}
