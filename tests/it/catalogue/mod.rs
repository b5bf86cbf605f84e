//! Faults and attacks, by the numbers of the catalogue in `docs/reliability.md`: each is made to happen over real sockets
//! and a real Postgres, and what is good must go on afterwards.
//!
//! Cases whose tests are beside what they belong to are named in the same table. How often a trial is made follows
//! [`super::support::trials`].

use sealcast::protocol::frame::{Send, SendOk, ServerFrame};
use sealcast::protocol::ids::{MessageId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::support::chat::submit;
use super::support::device::Socket;
use super::support::eventually;

mod authentication;
mod authorisation;
mod clocks;
mod durability;
#[cfg(feature = "fail-points")]
mod fail_points;
mod keys;
mod kills;
mod life_cycle;
mod migration;
#[cfg(feature = "fail-points")]
mod panics;
mod power;
pub mod private;
mod protocol;
mod resources;
mod restored;
mod storage;
mod two_nodes;
mod unknown_outcomes;

/// The place of a message in what was pushed, live or in a page.
fn seq_of(frame: &ServerFrame, message_id: MessageId) -> Option<Seq> {
    let seq_of = |entry: &LogEntry| match &entry.body {
        EntryBody::Message(envelope) if envelope.message_id == message_id => Some(entry.seq),
        _ => None,
    };
    match frame {
        ServerFrame::Entry(push) => seq_of(&push.entry),
        ServerFrame::Page(page) => page.entries.iter().find_map(seq_of),
        _ => None,
    }
}

/// Sends the same bytes until they are taken; every refusal before that must say that they may be sent again.
async fn send_until_taken(socket: &mut Socket, message: &Send) -> SendOk {
    let mut taken = None;
    eventually("the message to be taken", async || {
        match submit(socket, message.clone()).await {
            Ok(sent) => taken = Some(sent),
            Err(refused) => assert!(refused.retryable, "{refused:?}"),
        }
        taken.is_some()
    })
    .await;
    taken.unwrap()
}
