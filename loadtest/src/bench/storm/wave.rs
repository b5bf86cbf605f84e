//! Lets all sessions come back, so many at the same time, until all are live; then all go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;

use super::session::{Session, Stay};
use super::traffic::Traffic;
use crate::bench::figures::{Latencies, Wrong};
use crate::bench::server::Server;

/// How often a session tries to come before it gives up.
const TRIES_MAX: u32 = 5;

/// How long it waits after its first try that failed; twice as long after each further one.
const TRY_PAUSE: Duration = Duration::from_millis(500);

/// What became of one coming of all.
#[derive(Debug)]
pub(super) struct Wave {
    /// From the first connect to the last `live`.
    pub(super) took: Duration,
    /// Missed messages that were given as they were said.
    pub(super) right: u64,
    pub(super) wrong: Wrong,
    /// Tries that failed, and sessions that were ended while they were live.
    pub(super) failures: u64,
    /// The first of them.
    pub(super) first_failure: Option<String>,
    /// Sessions that gave up.
    pub(super) never_live: u64,
    /// Processor time of all processes of the server meanwhile.
    pub(super) server_cpu_s: f64,
    pub(super) client_cpu_s: f64,
    /// Of the traffic meanwhile.
    pub(super) latency: Latencies,
}

/// What all sessions share.
struct Shared {
    address: String,
    permits: Semaphore,
    scratch: RefCell<Vec<u8>>,
    /// Sessions that are live or have given up.
    settled: Cell<usize>,
    last_live: Cell<Option<Instant>>,
    never_live: Cell<u64>,
    right: Cell<u64>,
    wrong: RefCell<Wrong>,
    failures: Cell<u64>,
    first_failure: RefCell<Option<String>>,
    has_settled: Notify,
}

impl Shared {
    fn fail(&self, error: &anyhow::Error) {
        self.failures.set(self.failures.get() + 1);
        self.first_failure.borrow_mut().get_or_insert_with(|| format!("{error:#}"));
    }

    fn settle(&self, is_live: bool) {
        if is_live {
            self.last_live.set(Some(Instant::now()));
        } else {
            self.never_live.set(self.never_live.get() + 1);
        }
        self.settled.set(self.settled.get() + 1);
        self.has_settled.notify_one();
    }

    /// Comes, as often as it takes.
    async fn come<'a>(&self, session: &'a Session) -> Option<Stay<'a>> {
        let _permit = self.permits.acquire().await.ok()?;
        let mut pause = TRY_PAUSE;
        for number in 1..=TRIES_MAX {
            match self.try_to_come(session).await {
                Ok(stay) => return Some(stay),
                Err(error) => self.fail(&error),
            }
            if number < TRIES_MAX {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        None
    }

    /// Comes once; what was wrong in a try that fails counts too.
    async fn try_to_come<'a>(&self, session: &'a Session) -> anyhow::Result<Stay<'a>> {
        let mut stay = session.connect(&self.address).await?;
        if let Err(error) = stay.come(&self.scratch).await {
            self.wrong.borrow_mut().add(stay.given.wrong);
            return Err(error);
        }
        Ok(stay)
    }

    async fn attend(&self, session: &Session, over: watch::Receiver<bool>) {
        let stay = self.come(session).await;
        self.settle(stay.is_some());
        let Some(mut stay) = stay else { return };
        if let Err(error) = stay.rest(&self.scratch, over).await {
            self.fail(&error);
        }
        self.right.set(self.right.get() + stay.given.right);
        self.wrong.borrow_mut().add(stay.given.wrong);
    }
}

/// Lets all come, and go when all are live; must be within a [`tokio::task::LocalSet`].
pub(super) async fn run(
    server: &Server,
    sessions: &[Rc<Session>],
    at_once: usize,
    traffic: &Traffic,
) -> anyhow::Result<Wave> {
    let shared = Rc::new(Shared {
        address: server.address().to_owned(),
        permits: Semaphore::new(at_once),
        scratch: RefCell::new(Vec::new()),
        settled: Cell::new(0),
        last_live: Cell::new(None),
        never_live: Cell::new(0),
        right: Cell::new(0),
        wrong: RefCell::new(Wrong::default()),
        failures: Cell::new(0),
        first_failure: RefCell::new(None),
        has_settled: Notify::new(),
    });
    let (over, is_over) = watch::channel(false);
    let mut tasks = JoinSet::new();
    traffic.cut().await?;
    let before = server.usage().await?;
    let began = Instant::now();
    for session in sessions {
        let (session, shared, is_over) = (Rc::clone(session), Rc::clone(&shared), is_over.clone());
        tasks.spawn_local(async move { shared.attend(&session, is_over).await });
    }
    while shared.settled.get() < sessions.len() {
        shared.has_settled.notified().await;
    }
    let used = server.usage().await?.since(before);
    let latency = traffic.cut().await?;
    over.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a session")?;
    }
    let took = shared.last_live.get().context("no session came to be live")?.duration_since(began);
    let shared = Rc::into_inner(shared).context("a session that has not ended")?;
    Ok(Wave {
        took,
        right: shared.right.get(),
        wrong: shared.wrong.into_inner(),
        failures: shared.failures.get(),
        first_failure: shared.first_failure.into_inner(),
        never_live: shared.never_live.get(),
        server_cpu_s: used.watched_s,
        client_cpu_s: used.own_s,
        latency,
    })
}
