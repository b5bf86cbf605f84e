//! Loads a broker: the clients, what they say, and what they change.
//!
//! Lives here: what all devices of a run share. `device` is one session, `talk` what a sender does next, `churn` and
//! `rule` change members and what holds in a chat, `hoard` keeps what a removed device could have kept.

pub(crate) mod churn;
pub(crate) mod device;
pub(crate) mod hoard;
pub(crate) mod rule;
pub(crate) mod talk;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::talk::Topics;
use crate::history::recorder::Recorder;
use crate::rng::Rng;

/// How far the run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Users, sessions and chats are made.
    SetUp,
    /// Messages flow.
    Run,
    /// No message begins.
    Over,
}

/// What all devices of a run share.
#[derive(Debug)]
pub(crate) struct Load {
    /// What happens.
    pub(crate) recorder: Recorder,
    /// What there is to talk about.
    pub(crate) topics: Topics,
    seed: u64,
    begun_senders: AtomicU64,
    phase: watch::Sender<Phase>,
    text: String,
    pace: Option<Pace>,
    senders: Mutex<JoinSet<()>>,
}

/// Messages are due one after the other, evenly, whoever sends them.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    began: Mutex<Option<Instant>>,
    next: AtomicU64,
}

impl Load {
    /// `size`: bytes of each message's text. `rate`: messages in a second in all; 0 is as fast as it goes.
    pub(crate) fn new(recorder: Recorder, size: usize, rate: u32, seed: u64) -> Self {
        let pace = (rate > 0).then(|| Pace {
            interval: Duration::from_secs(1) / rate,
            began: Mutex::new(None),
            next: AtomicU64::new(0),
        });
        let (phase, _) = watch::channel(Phase::SetUp);
        Self {
            recorder,
            topics: Topics::default(),
            seed,
            begun_senders: AtomicU64::new(1),
            phase,
            text: "x".repeat(size),
            pace,
            senders: Mutex::default(),
        }
    }

    /// Goes on to the next phase.
    pub(crate) fn enter(&self, phase: Phase) {
        if let (Phase::Run, Some(pace)) = (phase, &self.pace) {
            *pace.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        self.phase.send_replace(phase);
    }

    /// Whether messages flow.
    pub(crate) fn is_running(&self) -> bool {
        *self.phase.borrow() == Phase::Run
    }

    /// Waits until no message begins any more.
    pub(crate) async fn over(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`.
        let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
    }

    /// Waits until messages flow.
    async fn begun(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::SetUp).await;
    }

    fn spawn_sender(&self, sender: impl Future<Output = ()> + Send + 'static) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).spawn(sender);
    }

    /// Waits until everyone who sends has the answer to the last message; tells how many have none in time.
    pub(crate) async fn drain(&self, timeout: Duration) -> usize {
        let mut senders = std::mem::take(&mut *self.senders.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(timeout, async { while senders.join_next().await.is_some() {} }).await;
        senders.len()
    }

    /// Waits so long while messages flow; `false` when that is over first.
    pub(crate) async fn rest(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.over() => false,
            () = tokio::time::sleep(time) => true,
        }
    }

    /// A draw of one sender.
    fn draw(&self) -> Rng {
        let number = self.begun_senders.fetch_add(1, Ordering::Relaxed);
        Rng::new(self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9)))
    }

    /// When the next message is due; at once without a rate.
    async fn due(&self) -> Instant {
        let Some(pace) = &self.pace else { return Instant::now() };
        let place = u32::try_from(pace.next.fetch_add(1, Ordering::Relaxed)).unwrap_or(u32::MAX);
        let began = pace.began.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        let due = began + pace.interval * place;
        tokio::time::sleep_until(due.into()).await;
        due
    }
}
