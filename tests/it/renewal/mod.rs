//! Sessions that are renewed: a later certificate over the same keys, ahead of the session's time or after it.

mod after;
mod ahead;
#[cfg(feature = "client")]
mod library;
#[cfg(feature = "client")]
mod password;
mod races;
mod restricted;
#[cfg(feature = "client")]
mod terminal;
mod verified;

use sealcast::protocol::ids::{ChatId, SessionId};
use sealcast::protocol::log::{EntryBody, SessionOut};

use super::messages::Pair;
use super::support::chat::{events, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::eventually;

/// Long enough to be added to a chat on a slow machine; then one waits for its end.
const BRIEF_MICROS: u64 = 3_000_000;

/// Waits until the end of a session is written down.
async fn until_expired(database: &Database, session_id: SessionId) {
    let expired = format!("SELECT count(*) FROM user_sessions WHERE id = '{session_id}' AND state = 'expired'");
    eventually("the end of a session's time", async || database.count(&expired).await == 1).await;
}

/// The state of a session, as it is stored.
async fn state_of(database: &Database, session_id: SessionId) -> String {
    let statement = format!("SELECT state FROM user_sessions WHERE id = '{session_id}'");
    database.client().await.query_one(&statement, &[]).await.unwrap().get(0)
}

/// A third user of a pair's chat, whose session lives for a moment.
async fn brief(pair: &mut Pair) -> Device {
    let brief = Device::register_for(&pair.broker, "brief", BRIEF_MICROS).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &brief).await.unwrap();
    assert!(view(&mut pair.ada_socket, pair.chat_id).await.fold.recipients().contains_key(&brief.session_id));
    brief
}

/// What a chat's log says of one session, in order.
async fn story(socket: &mut Socket, chat_id: ChatId, session_id: SessionId) -> Vec<&'static str> {
    let says = |body: &EntryBody| match body {
        EntryBody::SessionIn(signed) if signed.certificate.session_id == session_id => Some("in"),
        EntryBody::SessionOut(SessionOut::Expired { session_id: out, .. }) if *out == session_id => Some("expired"),
        EntryBody::SessionOut(SessionOut::Revoked(signed)) if signed.revocation.session_id == session_id => {
            Some("revoked")
        }
        _ => None,
    };
    events(socket, chat_id).await.iter().filter_map(|entry| says(&entry.body)).collect()
}
