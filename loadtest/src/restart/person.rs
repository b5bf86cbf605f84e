//! A user of the library, and everything that it heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context;
use sealcast::client::{Body, Client, ClientConfig, Connector, Event, EventStream, MemoryStorage, NewAccount};

use super::{Listening, PATIENCE};

/// Events that a client keeps for a listener that has no processor just now.
const EVENTS_KEPT: usize = 1 << 14;

pub(super) struct Person {
    pub(super) client: Client,
    ears: Arc<Mutex<Ears>>,
    listening: Listening,
}

/// What one heard since the beginning.
#[derive(Debug, Default)]
struct Ears {
    texts: HashMap<String, u64>,
    live_at: Option<Instant>,
    alarms: u64,
    /// Events that came faster than they were listened to.
    dropped: u64,
}

/// What was wrong with what was heard.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Heard {
    /// Acknowledged messages that did not come.
    pub(super) lost: u64,
    /// Messages that came twice.
    pub(super) duplicated: u64,
    pub(super) alarms: u64,
    pub(super) dropped: u64,
}

impl Heard {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.alarms += other.alarms;
        self.dropped += other.dropped;
    }
}

impl Person {
    pub(super) async fn register(url: &str, connector: &Connector, username: String) -> anyhow::Result<Self> {
        let config = ClientConfig { events_kept: EVENTS_KEPT, ..ClientConfig::new(connector.clone()) };
        let account = NewAccount { server: url.to_owned(), username, ttl: None };
        let client = Client::register(config, account, Arc::new(MemoryStorage::default())).await?;
        let ears = Arc::new(Mutex::new(Ears::default()));
        let listening = tokio::spawn(listen(client.events(), Arc::clone(&ears)));
        tokio::time::timeout(PATIENCE, client.live()).await.context("a client that does not get live")??;
        Ok(Self { client, ears, listening })
    }

    /// From now on it counts as live when it says so again.
    pub(super) fn forget_live(&self) {
        lock(&self.ears).live_at = None;
    }

    pub(super) fn live_at(&self) -> Option<Instant> {
        lock(&self.ears).live_at
    }

    /// What it heard of what was said.
    pub(super) fn heard(&self, said: &[&str]) -> Heard {
        let ears = lock(&self.ears);
        let lost = said.iter().filter(|text| !ears.texts.contains_key(**text)).count();
        let duplicated = ears.texts.values().map(|times| times - 1).sum();
        Heard { lost: lost as u64, duplicated, alarms: ears.alarms, dropped: ears.dropped }
    }

    pub(super) async fn close(self) {
        // Whoever cannot say goodbye has closed all the same.
        let _ = self.client.close().await;
        let _ = self.listening.await;
    }
}

async fn listen(mut events: EventStream, ears: Arc<Mutex<Ears>>) {
    loop {
        let event = match events.next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                lock(&ears).dropped += 1;
                continue;
            }
        };
        let mut ears = lock(&ears);
        match &*event {
            Event::Message(message) => {
                if let Body::Message { text, .. } = &message.body {
                    *ears.texts.entry(text.clone()).or_default() += 1;
                }
            }
            Event::Live => ears.live_at = Some(Instant::now()),
            Event::Disconnected => ears.live_at = None,
            Event::Alarm(_) => ears.alarms += 1,
            Event::Closed(_) => return,
            _ => {}
        }
    }
}

fn lock(ears: &Mutex<Ears>) -> MutexGuard<'_, Ears> {
    ears.lock().unwrap_or_else(PoisonError::into_inner)
}
