//! One session of one user: its client, a task that records its events, and a task for each chat that it talks in.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, Event, EventStream, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, SessionId};

use super::Load;
use super::hoard::Hoard;
use super::talk::{Deed, Talker};

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
                load.spawn_sender(sender);
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
