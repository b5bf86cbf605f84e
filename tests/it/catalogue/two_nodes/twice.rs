//! The same id on both brokers: a message is in the log once, and its sender gets one result wherever it asks.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{self, Send, SendOk};
use sealcast::protocol::log::EntryBody;

use super::super::super::support::chat::{SenderKey, View, submit, view, whole_log};
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, trials};
use super::{Nodes, follow};

#[tokio::test]
async fn d11_the_same_message_on_another_node_gets_the_first_result_and_is_there_once() {
    let mut nodes = Nodes::start().await;
    for trial in 0..trials(4, 200) {
        let now = view(&mut nodes.carol_socket, nodes.chat_id).await;
        let mut key = nodes.bob.sender_key(&now, nodes.chat_id);
        let message = nodes.bob.seal(&now, &mut key, b"once");
        let first = if trial % 2 == 0 {
            Some(submit(&mut nodes.bob_socket, message.clone()).await.unwrap())
        } else {
            // The answer is lost, with the broker that had it.
            nodes.bob_socket.send(frame::Request::Send(Box::new(message.clone()))).await;
            let id = message.envelope.message_id;
            let there = format!("SELECT count(*) FROM chat_messages WHERE id = '{id}'");
            eventually("the commit", async || nodes.database.count(&there).await == 1).await;
            nodes.a.kill();
            None
        };
        let mut elsewhere = nodes.bob.connect_live(&nodes.b).await;
        let again = submit(&mut elsewhere, message.clone()).await.unwrap();
        assert!(again.duplicate);
        if let Some(first) = first {
            assert_eq!((again.seq, again.log_hash), (first.seq, first.log_hash));
        }
        let mut other = nodes.bob.seal(&now, &mut key, b"other bytes");
        other.envelope.message_id = message.envelope.message_id;
        nodes.bob.sign_envelope(&mut other);
        let refused = submit(&mut elsewhere, other).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdReused);
        assert_eq!(refused.details.unwrap().stored.unwrap().seq, again.seq, "its own result");
        let mut carols = nodes.carol.sender_key(&now, nodes.chat_id);
        let mut theirs = nodes.carol.seal(&now, &mut carols, b"another session");
        theirs.envelope.message_id = message.envelope.message_id;
        nodes.carol.sign_envelope(&mut theirs);
        let refused = submit(&mut nodes.carol_socket, theirs).await.unwrap_err();
        assert_eq!((refused.code, refused.details), (ErrorCode::IdReused, None));
        assert!(nodes.bob.say(&mut elsewhere, nodes.chat_id, "good").await.is_ok());
        if trial % 2 == 1 {
            nodes.a.restart().await;
            nodes.ada_sockets[0] = nodes.ada[0].connect_live(&nodes.a).await;
            nodes.bob_socket = nodes.bob.connect_live(&nodes.a).await;
        }
    }
}

/// Two sockets, one on each broker, and the messages that are sent on them at once.
struct Both<'a> {
    sockets: [&'a mut Socket; 2],
    messages: [Send; 2],
}

impl Both<'_> {
    async fn send(self) -> [Result<SendOk, frame::Error>; 2] {
        let ([first, second], [one, two]) = (self.sockets, self.messages);
        let (first, second) = tokio::join!(submit(first, one), submit(second, two));
        [first, second]
    }
}

/// The one that won, and what the other was told.
fn won(results: [Result<SendOk, frame::Error>; 2]) -> (SendOk, frame::Error) {
    match results {
        [Ok(sent), Err(error)] | [Err(error), Ok(sent)] => (sent, error),
        both => panic!("one wins, and one alone: {both:?}"),
    }
}

fn with_id_of(device: &Device, mut message: Send, other: &Send) -> Send {
    message.envelope.message_id = other.envelope.message_id;
    device.sign_envelope(&mut message);
    message
}

/// A key of a device under the id of another key.
fn under_id_of(device: &Device, mut key: SenderKey, other: &SenderKey) -> SenderKey {
    key.announcement.announcement.key_id = other.announcement.announcement.key_id;
    let bytes = key.announcement.announcement.signed_bytes(key.chat_id);
    key.announcement.signature = super::super::super::support::device::sign(&device.signing, &bytes);
    key
}

#[tokio::test]
async fn n8_of_the_same_message_or_key_id_on_two_nodes_at_once_one_wins() {
    let mut nodes = Nodes::start().await;
    let mut elsewhere = nodes.bob.connect_live(&nodes.b).await;
    let chat_id = nodes.chat_id;
    let mut now: View = view(&mut nodes.ada_sockets[0], chat_id).await;
    for _ in 0..trials(8, 100) {
        let (bob, carol) = (&nodes.bob, &nodes.carol);
        let mut key = bob.sender_key(&now, chat_id);
        let carols = carol.sender_key(&now, chat_id);

        // The same bytes.
        let message = bob.seal(&now, &mut key, b"one");
        let both = Both { sockets: [&mut nodes.bob_socket, &mut elsewhere], messages: [message.clone(), message] };
        let [first, second] = both.send().await.map(Result::unwrap);
        assert_eq!((first.seq, first.log_hash), (second.seq, second.log_hash));
        assert!(first.duplicate != second.duplicate, "one is the repeat of the other");

        // Other bytes of the same session under one id.
        let one = bob.seal(&now, &mut key.clone(), b"these");
        let two = with_id_of(bob, bob.seal(&now, &mut key, b"or those"), &one);
        let both = Both { sockets: [&mut nodes.bob_socket, &mut elsewhere], messages: [one, two] };
        let (sent, error) = won(both.send().await);
        assert_eq!(error.code, ErrorCode::IdReused);
        assert_eq!(error.details.unwrap().stored.unwrap().seq, sent.seq);

        // Two sessions, one id.
        let one = bob.seal(&now, &mut key.clone(), b"Bob's");
        let two = with_id_of(carol, carol.seal(&now, &mut carols.clone(), b"Carol's"), &one);
        let both = Both { sockets: [&mut nodes.bob_socket, &mut nodes.carol_socket], messages: [one, two] };
        let (sent, error) = won(both.send().await);
        assert_eq!((error.code, error.details), (ErrorCode::IdReused, None));

        // Two sessions that make a key of one id.
        let mut ours = bob.sender_key(&now, chat_id);
        let mut theirs = under_id_of(carol, carol.sender_key(&now, chat_id), &ours);
        let messages = [bob.seal(&now, &mut ours, b"Bob's key"), carol.seal(&now, &mut theirs, b"Carol's key")];
        let both = Both { sockets: [&mut nodes.bob_socket, &mut nodes.carol_socket], messages };
        let (next, error) = won(both.send().await);
        assert_eq!(error.code, ErrorCode::KeyExists);
        assert!(next.seq > sent.seq);

        // One session that uses a new key for two messages: the counter is one message's.
        let mut key = bob.sender_key(&now, chat_id);
        let messages = [bob.seal(&now, &mut key.clone(), b"first"), bob.seal(&now, &mut key, b"first too")];
        let both = Both { sockets: [&mut nodes.bob_socket, &mut elsewhere], messages };
        let (_, error) = won(both.send().await);
        assert_eq!(error.code, ErrorCode::CounterGap, "{error:?}");
        assert_eq!(error.details.unwrap().counter.unwrap().get(), 2);

        let entries = follow(&mut now, &mut nodes.ada_sockets[1], chat_id).await;
        assert_eq!(entries.len(), 5, "each is there once");
    }
    let log = whole_log(&mut nodes.ada_sockets[0], chat_id).await;
    let mut ids = std::collections::HashSet::new();
    for entry in &log {
        if let EntryBody::Message(envelope) = &entry.body {
            assert!(ids.insert(envelope.message_id), "twice in the log");
        }
    }
    assert_eq!(log, whole_log(&mut nodes.ada_sockets[1], chat_id).await);
}
