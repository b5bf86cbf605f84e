//! W8: what comes byte by byte, in the smallest fragments and with pings in between is what comes in one piece.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{
    Direction, Events, History, Keys, ListMembers, LookupUser, Nothing, Reply, Request, Resume, ServerFrame, UserEvents,
};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::username::Username;

use super::super::super::messages::{Pair, entries_until};
use super::super::super::support::broker::Broker;
use super::super::super::support::chat::{check_chain, submit, view, whole_log};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::proxy::{Path, Proxy};
use super::super::super::support::trials;
use super::super::super::transport::support::{Read, frame};
use super::line::Line;
use super::{unharmed, unhurried};

/// What two people see of a conversation over a path, without what differs each time.
async fn conversation(broker: &Broker, path: &Proxy, how: Path, suffix: &str) -> Vec<String> {
    let address = path.url.strip_prefix("http://").unwrap();
    // The devices' own library takes a handshake in so many pieces for an attack: it comes in one.
    path.set(Path::Open);
    let ada = Device::register(broker, &format!("ada{suffix}")).await;
    let bob = Device::register(broker, &format!("bob{suffix}")).await;
    let mut to_ada = ada.connect_at(address, Encoding::MessagePack).await;
    let mut to_bob = bob.connect_at(address, Encoding::Json).await;
    path.set(how);
    for socket in [&mut to_ada, &mut to_bob] {
        socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    }
    let chat_id = ada.create_chat(&mut to_ada).await;
    ada.add(&mut to_ada, chat_id, &bob).await.unwrap();
    let mut seen = Vec::new();
    let now = view(&mut to_ada, chat_id).await;
    let mut key = ada.sender_key(&now, chat_id);
    // Each form of a frame's length, and messages of more than one segment.
    for size in [28, 125, 126, 2_000, 20_000] {
        let message = ada.seal(&now, &mut key, &vec![7; size]);
        let sent = submit(&mut to_ada, message.clone()).await.unwrap();
        let again = submit(&mut to_ada, message).await.unwrap();
        seen.push(format!("{} {} {}", sent.seq, sent.duplicate, again.duplicate));
    }
    let answered = bob.say(&mut to_bob, chat_id, "answered").await.unwrap();
    let entries = entries_until(&mut to_bob, chat_id, answered.seq).await;
    check_chain(chat_id, &entries);
    let refused = bob.remove(&mut to_bob, chat_id, &ada).await.unwrap_err();
    seen.push(format!("{} {}", refused.code, refused.message));
    let stranger = Request::LookupUser(LookupUser { username: Username::parse("nobody.here").unwrap() });
    seen.push(format!("{:?}", to_bob.request(stranger).await.unwrap_err().code));
    let read_by_ada = whole_log(&mut to_ada, chat_id).await;
    // What is seen over the chopped path is what is seen over a whole one.
    let mut in_one_piece = bob.connect(broker).await;
    let read_by_bob = whole_log(&mut in_one_piece, chat_id).await;
    let joined = usize::try_from(read_by_bob[0].seq.get() - 1).unwrap();
    assert_eq!(read_by_bob[..], read_by_ada[joined..]);
    for entry in read_by_ada {
        let what = match &entry.body {
            EntryBody::Message(envelope) => format!("{:?}", envelope.data.as_ref().map(|data| data.as_ref().to_vec())),
            other => format!("{other:?}").split(['(', ' ']).next().unwrap().to_owned(),
        };
        seen.push(format!("{} {what}", entry.seq));
    }
    seen
}

#[tokio::test]
async fn w8_a_conversation_byte_by_byte_both_ways_is_the_same_as_in_one_piece() {
    let database = Database::create().await;
    let broker = Broker::start_with(unhurried(&database)).await;
    let path = Proxy::start(&broker).await;
    let whole = conversation(&broker, &path, Path::Open, ".whole").await;
    for trial in 0..trials(1, 50) {
        let in_bytes = conversation(&broker, &path, Path::ByteByByte, &format!(".{trial}")).await;
        assert_eq!(in_bytes, whole);
    }
    unharmed(&broker).await;
}

/// A message in fragments of so many bytes, with a ping of the server's time after each but the last.
fn in_pieces(first: u8, body: &[u8], size: usize) -> (Vec<u8>, usize) {
    let pieces: Vec<&[u8]> = body.chunks(size).collect();
    let mut script = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = if index == 0 { first & 0x0F } else { 0 };
        let is_last = index + 1 == pieces.len();
        script.extend(frame(if is_last { opcode | 0x80 } else { opcode }, piece));
        if !is_last {
            script.extend(frame(0x89, &(index as u32).to_be_bytes()));
        }
    }
    (script, pieces.len() - 1)
}

/// Sends a script; gives the payload of the one message that answers it, after all pongs in their order.
async fn payload(line: &mut Line, script: &[u8], pings: usize) -> Vec<u8> {
    line.client.send(script).await;
    let mut ponged = 0_u32;
    loop {
        match line.client.read().await {
            Read::Frame(0x8A, payload) => {
                assert_eq!(payload, ponged.to_be_bytes());
                ponged += 1;
            }
            Read::Frame(0x81 | 0x82, payload) => {
                assert_eq!(ponged as usize, pings);
                return payload;
            }
            Read::Frame(0x89, _) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn w8_requests_in_fragments_of_one_byte_with_pings_between_are_answered_with_the_same_bytes() {
    let mut pair = Pair::start().await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "something to read").await.unwrap();
    let path = Proxy::start(&pair.broker).await;
    let port = path.url.rsplit(':').next().unwrap().parse().unwrap();
    let (chat_id, most) = (pair.chat_id, Seq::saturating(u64::MAX));
    let requests = [
        Request::ListChats(Nothing {}),
        Request::FetchSettings(Nothing {}),
        Request::LookupUser(LookupUser { username: Username::parse("ada").unwrap() }),
        Request::History(History { chat_id, direction: Direction::After, seq: Seq::default(), limit: 200 }),
        Request::Events(Events { chat_id, after: Seq::default(), before: most }),
        Request::Keys(Keys { chat_id, key_ids: Vec::new() }),
        Request::UserEvents(UserEvents { users: Vec::new() }),
        Request::ListMembers(ListMembers { chat_id: ChatId::generate() }),
    ];
    for encoding in Encoding::ALL {
        // The handshake too comes byte by byte, both ways.
        path.set(Path::ByteByByte);
        let mut line = Line::logged_in_at(port, encoding, &pair.bob).await;
        for (id, request) in (2..).zip(&requests) {
            let body = line.body(id, request.clone());
            path.set(Path::Open);
            let script = frame(line.first(), &body);
            let whole = payload(&mut line, &script, 0).await;
            for (size, path_now) in [(1, Path::Open), (1, Path::ByteByByte), (7, Path::ByteByByte)] {
                path.set(path_now);
                let (script, pings) = in_pieces(line.first(), &body, size);
                assert_eq!(payload(&mut line, &script, pings).await, whole, "{}, {encoding:?}", request.name());
            }
        }
        // A message that came in pieces is the message that came in one: the repeat is one.
        let now = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.bob.sender_key(&now, chat_id);
        let message = Request::Send(Box::new(pair.bob.seal(&now, &mut key, &[3; 300])));
        let mut results = Vec::new();
        for id in [100, 101] {
            let body = line.body(id, message.clone());
            let script = match id {
                100 => in_pieces(line.first(), &body, 1).0,
                _ => frame(line.first(), &body),
            };
            line.client.send(&script).await;
            let ServerFrame::Ok(ok) = line.answer(id).await else { panic!("refused") };
            let Reply::Sent(sent) = ok.result else { panic!("{ok:?}") };
            results.push((sent.seq, sent.log_hash, sent.duplicate));
        }
        let (seq, hash, _) = results[0];
        assert_eq!(results, [(seq, hash, false), (seq, hash, true)]);
        path.set(Path::Open);
    }
    unharmed(&pair.broker).await;
}

#[cfg(feature = "client")]
#[tokio::test]
async fn w8_people_talk_over_a_path_that_carries_one_byte_at_a_time() {
    use super::super::super::support::library::{ann_and_bob, caught_up};
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let path = Proxy::start(&broker).await;
    let (ann, bob, chat_id) = ann_and_bob(&path.url).await;
    path.set(Path::ByteByByte);
    for index in 0..3 {
        let sent = ann.send(chat_id, &format!("to Bob, {index}")).await.unwrap();
        caught_up(&bob, chat_id, sent.seq).await;
        let sent = bob.send(chat_id, &format!("to Ann, {index}")).await.unwrap();
        caught_up(&ann, chat_id, sent.seq).await;
    }
    assert_eq!(ann.head(chat_id), bob.head(chat_id));
    unharmed(&broker).await;
}
