//! A simulated world: one clock, one queue of events, one source of chance, and what lives in it.
//!
//! Everything that takes time is an event that is told later. What happens at once happens in one turn.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sealcast::protocol::ids::{ChatId, Timestamp, UserId};
use sealcast::telemetry::metrics::Metrics;

use super::super::support::rng::Rng;
use super::client::Client;
use super::database::Database;
use super::node::{Answer, Node, Pushed, Socket};
use super::oracle::Oracle;
use super::rules::Rule;

/// Microseconds of a simulated second.
pub const SECOND: u64 = 1_000_000;
pub const MILLI: u64 = 1_000;

type Event = Box<dyn FnOnce(&mut World)>;

pub struct World {
    pub now: u64,
    base: Instant,
    counter: u64,
    events: BTreeMap<(u64, u64), (&'static str, Event)>,
    pub rng: Rng,
    pub trace: u64,
    /// Lines of what happened, kept when asked for.
    pub story: Option<Vec<String>>,
    pub db: Database,
    pub nodes: Vec<Node>,
    pub sockets: BTreeMap<u64, Socket>,
    pub clients: Vec<Client>,
    pub users: Vec<UserId>,
    pub chats: Vec<ChatId>,
    pub oracle: Oracle,
    pub answers: Vec<Option<Answer>>,
    pub frames: HashMap<Vec<u8>, Pushed>,
    pub metrics: Metrics,
    /// Nothing breaks any more, and nobody begins anything.
    /// Whether sessions are renewed in this world: in some, so that others stay what they were.
    pub renews: bool,
    pub calm: bool,
    pub calm_at: u64,
    pub events_run: u64,
}

/// What a seed came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub violation: Option<String>,
    pub trace: u64,
    pub events: u64,
    pub entries: u64,
    pub acknowledged: u64,
    pub refused: u64,
}

/// The database's clock at the beginning of every world.
const BEGINNING: u64 = 1_800_000_000 * SECOND;

fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::new().unwrap()).clone()
}

impl World {
    pub fn new(seed: u64, dropped: Option<Rule>) -> Self {
        let mut world = Self {
            now: BEGINNING,
            base: Instant::now(),
            counter: 0,
            events: BTreeMap::new(),
            rng: Rng::new(seed),
            trace: 0xcbf2_9ce4_8422_2325,
            story: None,
            db: Database { dropped, ..Database::default() },
            nodes: Vec::new(),
            sockets: BTreeMap::new(),
            clients: Vec::new(),
            users: Vec::new(),
            chats: Vec::new(),
            oracle: Oracle::default(),
            answers: Vec::new(),
            frames: HashMap::new(),
            metrics: metrics(),
            renews: seed % 8 < 3,
            calm: false,
            calm_at: 0,
            events_run: 0,
        };
        world.populate();
        world
    }

    /// Runs a seed to its end.
    pub fn run(mut self) -> (Report, Vec<String>) {
        let busy_until = self.now + self.rng.between(250, 800) * MILLI;
        self.run_until(busy_until);
        (self.calm, self.calm_at) = (true, self.now);
        self.mend();
        let calm_until = self.now + 60 * SECOND;
        while self.now < calm_until && self.oracle.violation.is_none() && !self.events.is_empty() {
            let next = (self.now + 200 * MILLI).min(calm_until);
            self.run_until(next);
            if self.is_settled() {
                break;
            }
            // Brokers on one database do not tell each other of messages: who is connected to another looks anew.
            if self.nodes.len() > 1 {
                self.reconnect_all();
            }
        }
        if self.oracle.violation.is_none() {
            self.check_the_end();
        }
        let logs: Vec<u64> = self.db.chats.values().map(|chat| u64::from(chat.head.log_hash.0[0])).collect();
        logs.into_iter().for_each(|byte| self.note(byte));
        let report = Report {
            violation: self.oracle.violation.clone(),
            trace: self.trace,
            events: self.events_run,
            entries: self.db.chats.values().map(|chat| chat.log.len() as u64).sum(),
            acknowledged: self.oracle.acknowledged.len() as u64,
            refused: self.oracle.refused.len() as u64,
        };
        (report, self.story.unwrap_or_default())
    }

    fn run_until(&mut self, until: u64) {
        while self.oracle.violation.is_none()
            && let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((at, number), (label, event)) = entry.remove_entry();
            self.now = at;
            self.events_run += 1;
            self.note(at);
            self.note(number);
            label.bytes().for_each(|byte| self.note(u64::from(byte)));
            event(self);
            self.serve_sockets();
        }
        self.now = self.now.max(until);
    }

    /// Tells something after a time.
    pub fn after(&mut self, delay: u64, label: &'static str, event: impl FnOnce(&mut Self) + 'static) {
        self.counter += 1;
        self.events.insert((self.now + delay, self.counter), (label, Box::new(event)));
    }

    /// A number that nobody else has.
    pub fn fresh(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub fn note(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.story.is_some() {
            let line = format!("{:>9.3} ms  {}", (self.now - BEGINNING) as f64 / 1_000.0, line(self));
            self.story.get_or_insert_default().push(line);
        }
    }

    pub fn violated(&mut self, what: String) {
        self.tell(|_| format!("VIOLATION {what}"));
        self.oracle.violation.get_or_insert(what);
    }

    pub fn holds(&self, rule: Rule) -> bool {
        self.db.holds(rule)
    }

    /// The real time that stands for the simulated one, for code that takes it.
    pub fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now - BEGINNING)
    }

    /// What a node believes of the database's clock.
    pub fn clock(&self, node: usize) -> Timestamp {
        Timestamp::saturating(self.now.saturating_add_signed(self.nodes[node].clock_off))
    }

    /// How long a step takes: mostly short, now and then long.
    pub fn delay(&mut self) -> u64 {
        match self.rng.below(20) {
            0 if !self.calm => self.rng.between(5 * MILLI, 120 * MILLI),
            1..=4 => self.rng.between(MILLI, 8 * MILLI),
            _ => self.rng.between(50, MILLI),
        }
    }

    /// Whether something breaks now, so many times in a thousand.
    pub fn breaks(&mut self, per_mille: u64) -> bool {
        self.rng.chance(per_mille) && !self.calm
    }

    /// A transaction with its rows locked by `tx`: told to commit, and what is heard of it.
    ///
    /// The connection may be lost before the commit, which then never is, or after, which then is whenever it is; in
    /// both cases the broker hears nothing but the end of its connection, maybe before.
    pub fn transact<R: 'static>(
        &mut self,
        node: usize,
        tx: u64,
        apply: impl FnOnce(&mut Self) -> R + 'static,
        done: impl FnOnce(&mut Self, Option<R>) + 'static,
    ) {
        let (crashes, life) = (self.db.crashes, self.nodes[node].life);
        let is_lost = self.breaks(60);
        let commits = !is_lost || self.rng.chance(600);
        let commit_in = if is_lost { self.delay() * self.rng.between(1, 6) } else { self.delay() };
        let is_gone = move |world: &Self| world.db.crashes != crashes;
        let is_orphan = move |world: &Self| world.nodes[node].life != life;
        let commit = move |world: &mut Self| {
            if is_gone(world) {
                return None;
            }
            let result = (commits && !(is_orphan(world) && world.rng.chance(500))).then(|| apply(world));
            world.db.unlock(tx);
            result
        };
        if is_lost {
            self.after(commit_in, "zombie", move |world| {
                commit(world);
            });
            let heard_in = self.delay();
            return self.after(heard_in, "lost", move |world| done(world, None));
        }
        let heard_in = self.delay();
        self.after(commit_in, "commit", move |world| {
            let result = commit(world);
            world.after(heard_in, "heard", move |world| {
                let result = if is_gone(world) { None } else { result };
                done(world, result);
            });
        });
    }

    /// Locks chats' rows for a transaction, waiting for who holds them, and goes on; `None` once it took too long.
    pub fn lock(&mut self, chats: Vec<ChatId>, until: u64, then: impl FnOnce(&mut Self, Option<u64>) + 'static) {
        if self.db.down_until > self.now || self.breaks(15) || self.now > until {
            let delay = self.delay();
            return self.after(delay, "no lock", move |world| then(world, None));
        }
        let tx = self.fresh();
        if self.db.lock(tx, &chats) {
            return then(self, Some(tx));
        }
        let pause = self.rng.between(300, 2 * MILLI);
        self.after(pause, "wait for lock", move |world| world.lock(chats, until, then));
    }

    /// Reads something without a lock; `None` when the database does not answer.
    pub fn read<R: 'static>(
        &mut self,
        look: impl FnOnce(&Self) -> R + 'static,
        then: impl FnOnce(&mut Self, Option<R>) + 'static,
    ) {
        let (there, back) = (self.delay(), self.delay());
        self.after(there, "look", move |world| {
            let is_down = world.db.down_until > world.now || world.breaks(15);
            let found = (!is_down).then(|| look(world));
            world.after(back, "seen", move |world| then(world, found));
        });
    }
}
