//! One session of one user: its client, a task that records its events, and a task for each chat that it talks in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealcast::client::{Client, Event, EventStream, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, SessionId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hoard::Hoard;
use crate::recorder::Recorder;
use crate::rng::Rng;
use crate::talk::{Deed, Talker, Topics};

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

    async fn begun(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::SetUp).await;
    }

    /// Waits until everyone who sends has the answer to the last message; tells how many have none in time.
    pub(crate) async fn drain(&self, timeout: Duration) -> usize {
        let mut senders = std::mem::take(&mut *self.senders.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(timeout, async { while senders.join_next().await.is_some() {} }).await;
        senders.len()
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

/// One session of one user.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Its client.
    pub(crate) client: Client,
    /// Its session.
    pub(crate) session_id: SessionId,
    /// What its keyring ever held.
    pub(crate) hoard: Arc<Hoard>,
    /// Listens until the client closes.
    pub(crate) listener: Arc<tokio::task::JoinHandle<()>>,
}

impl Device {
    /// Begins to listen. Must come before the client's first chat.
    pub(crate) fn attach(client: Client, hoard: Arc<Hoard>, load: &Arc<Load>) -> Self {
        let session_id = client.session_id();
        load.recorder.introduce(client.user_id(), session_id);
        let listener = tokio::spawn(listen(client.events(), client.clone(), session_id, Arc::clone(load)));
        Self { client, session_id, hoard, listener: Arc::new(listener) }
    }
}

async fn listen(mut events: EventStream, client: Client, session_id: SessionId, load: Arc<Load>) {
    loop {
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(dropped) => {
                load.recorder.dropped(dropped);
                continue;
            }
        };
        load.recorder.event(session_id, &event);
        match &*event {
            Event::Message(message) => load.topics.heard(message),
            Event::SessionChanged { chat_id, session_id: whose, is_in: true, .. } if *whose == session_id => {
                let sender = send(client.clone(), session_id, *chat_id, Arc::clone(&load));
                load.senders.lock().unwrap_or_else(PoisonError::into_inner).spawn(sender);
            }
            Event::Closed(_) => return,
            _ => {}
        }
    }
}

/// How long a sender rests that was refused: one who may not write just now is refused at once each time.
const REFUSED_REST: Duration = Duration::from_millis(50);

/// Talks in one chat, one thing after the other, until the run is over or the session is gone from the chat.
async fn send(client: Client, session_id: SessionId, chat_id: ChatId, load: Arc<Load>) {
    load.begun().await;
    let mut rng = load.draw();
    let user_id = client.user_id();
    let talker =
        Talker { client: &client, session_id, user_id, chat_id, recorder: &load.recorder, topics: &load.topics };
    while load.is_running() {
        let due = tokio::select! {
            due = load.due() => due,
            () = load.over() => return,
        };
        let deed = Deed::draw(&mut rng);
        match talker.act(deed, &load.text, due, &mut rng).await {
            Ok(()) => {}
            Err(
                SendError::NotMember
                | SendError::NotRecipient
                | SendError::OutcomeUnknown
                | SendError::Closed(_)
                | SendError::Refused { code: ErrorCode::UnknownChat },
            ) => return,
            Err(_) => tokio::time::sleep(REFUSED_REST).await,
        }
    }
}
