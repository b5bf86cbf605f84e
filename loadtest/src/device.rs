//! One session of one user: its client, a task that records its events, and a task for each chat that it sends to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sealcast::client::{Body, Client, Event, EventStream, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, MessageId, SessionId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hoard::Hoard;
use crate::recorder::Recorder;

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
    pub(crate) fn new(recorder: Recorder, size: usize, rate: u32) -> Self {
        let pace = (rate > 0).then(|| Pace {
            interval: Duration::from_secs(1) / rate,
            began: Mutex::new(None),
            next: AtomicU64::new(0),
        });
        let (phase, _) = watch::channel(Phase::SetUp);
        Self { recorder, phase, text: "x".repeat(size), pace, senders: Mutex::default() }
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
#[derive(Debug)]
pub(crate) struct Device {
    /// Its client.
    pub(crate) client: Client,
    /// Its session.
    pub(crate) session_id: SessionId,
    /// What its keyring ever held.
    pub(crate) hoard: Arc<Hoard>,
    /// Listens until the client closes.
    pub(crate) listener: tokio::task::JoinHandle<()>,
}

impl Device {
    /// Begins to listen. Must come before the client's first chat.
    pub(crate) fn attach(client: Client, hoard: Arc<Hoard>, load: &Arc<Load>) -> Self {
        let session_id = client.session_id();
        load.recorder.introduce(client.user_id(), session_id);
        let listener = tokio::spawn(listen(client.events(), client.clone(), session_id, Arc::clone(load)));
        Self { client, session_id, hoard, listener }
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
            Event::SessionChanged { chat_id, session_id: whose, is_in: true, .. } if *whose == session_id => {
                let sender = send(client.clone(), session_id, *chat_id, Arc::clone(&load));
                load.senders.lock().unwrap_or_else(PoisonError::into_inner).spawn(sender);
            }
            Event::Closed(_) => return,
            _ => {}
        }
    }
}

/// Sends to one chat, one message after the other, until the run is over or the session is gone from the chat.
async fn send(client: Client, session_id: SessionId, chat_id: ChatId, load: Arc<Load>) {
    load.begun().await;
    while load.is_running() {
        let due = tokio::select! {
            due = load.due() => due,
            () = load.over() => return,
        };
        let message_id = MessageId::generate();
        load.recorder.send(session_id, chat_id, message_id, due);
        match client.send_body(chat_id, message_id, &Body::text(load.text.as_str())).await {
            Ok(sent) => load.recorder.ok(session_id, chat_id, message_id, sent.seq),
            Err(error) => {
                load.recorder.refused(session_id, chat_id, message_id, &error);
                let is_gone = matches!(
                    error,
                    SendError::NotMember
                        | SendError::NotRecipient
                        | SendError::Closed(_)
                        | SendError::Refused { code: ErrorCode::UnknownChat }
                );
                if is_gone {
                    return;
                }
            }
        }
    }
}
