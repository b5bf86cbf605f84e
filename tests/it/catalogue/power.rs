//! Power cuts under Postgres: D3. What was flushed stays, and of what was not any part; the whole machine dies at once.
//!
//! Not in CI: it needs root, `nbdfuse` and minutes. docs/reliability.md has the command.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sealcast::protocol::binary::Hash;
use sealcast::protocol::frame::{self, Reply, Request, Send, ServerFrame};
use sealcast::protocol::ids::{ChatId, MessageId, RequestId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::super::support::broker::Broker;
use super::super::support::chat::{View, submit, view, whole_log};
use super::super::support::device::{Device, Socket};
use super::super::support::mount::{DiskMount, cannot_break_disks, is_skipped};
use super::super::support::rng::seed;
use super::super::support::{eventually, trials};
use super::private::Private;

const CHATS: usize = 3;

/// Messages that each sender has sent and has no answer to.
const WINDOW: usize = 8;

/// Below the number of messages that one key may carry.
const KEY_MESSAGES: u64 = 400;

/// What somebody was told of a message: that it is in the log at a place, with a hash.
type Told = HashMap<MessageId, (Seq, Hash)>;

/// A chat with what its members were told.
struct Talk {
    sender: Device,
    reader: Device,
    chat_id: ChatId,
    told: Told,
}

/// What came of one connection of a sender.
struct Sent {
    acknowledged: Told,
    unanswered: Vec<Send>,
}

async fn begin(broker: &Broker) -> Vec<Talk> {
    let mut talks = Vec::new();
    for n in 0..CHATS {
        let sender = Device::register(broker, &format!("sender{n}")).await;
        let reader = Device::register(broker, &format!("reader{n}")).await;
        let mut socket = sender.connect_live(broker).await;
        let chat_id = sender.create_chat(&mut socket).await;
        sender.add(&mut socket, chat_id, &reader).await.unwrap();
        talks.push(Talk { sender, reader, chat_id, told: Told::new() });
    }
    talks
}

/// Sends without end, until the connection ends.
async fn send(sender: Device, mut socket: Socket, now: View, chat_id: ChatId, count: Arc<AtomicUsize>) -> Sent {
    let mut key = sender.sender_key(&now, chat_id);
    let mut open: Vec<(RequestId, Send)> = Vec::new();
    let mut acknowledged = Told::new();
    let mut unanswered = Vec::new();
    loop {
        while open.len() < WINDOW {
            if key.counter >= KEY_MESSAGES {
                key = sender.sender_key(&now, chat_id);
            }
            let message = sender.seal(&now, &mut key, b"before the power is cut");
            open.push((socket.send(Request::Send(Box::new(message.clone()))).await, message));
        }
        match socket.push().await {
            Some(ServerFrame::Ok(frame::Ok { id, result: Reply::Sent(sent) })) => {
                let at = open.iter().position(|(open, _)| *open == id).unwrap();
                let message_id = open.remove(at).1.envelope.message_id;
                acknowledged.insert(message_id, (sent.seq, sent.log_hash));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Some(ServerFrame::Error(error)) => {
                let at = open.iter().position(|(open, _)| Some(*open) == error.id).unwrap();
                unanswered.push(open.remove(at).1);
            }
            Some(_) => {}
            None => break,
        }
    }
    unanswered.extend(open.into_iter().map(|(_, message)| message));
    Sent { acknowledged, unanswered }
}

/// Reads what is delivered, until the connection ends.
async fn read(mut socket: Socket) -> Told {
    let mut delivered = Told::new();
    let mut take = |entry: &LogEntry| {
        if let EntryBody::Message(envelope) = &entry.body {
            delivered.insert(envelope.message_id, (entry.seq, entry.log_hash));
        }
    };
    while let Some(push) = socket.push().await {
        match push {
            ServerFrame::Entry(push) => take(&push.entry),
            ServerFrame::Page(page) => page.entries.iter().for_each(&mut take),
            _ => {}
        }
    }
    delivered
}

/// What a cut interrupted.
struct Cut {
    /// What each sender left without an answer.
    unanswered: Vec<Vec<Send>>,
    acknowledged: usize,
    delivered: usize,
    /// Blocks of the disk that were written and not flushed.
    unflushed: usize,
}

/// Loads the broker until so many messages have been acknowledged, and cuts the power in the midst of it.
async fn cut_under_load(broker: &mut Broker, mount: &DiskMount, talks: &mut [Talk], seed: u64) -> Cut {
    let count = Arc::new(AtomicUsize::new(0));
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for talk in talks.iter() {
        readers.push(tokio::spawn(read(talk.reader.connect_live(broker).await)));
        let mut socket = talk.sender.connect_live(broker).await;
        let now = view(&mut socket, talk.chat_id).await;
        senders.push(tokio::spawn(send(talk.sender.clone(), socket, now, talk.chat_id, Arc::clone(&count))));
    }
    let enough = 20 + usize::try_from(seed % 281).unwrap();
    eventually("acknowledgements", async || count.load(Ordering::Relaxed) >= enough).await;
    let unflushed = mount.disk.cut(seed);
    broker.kill();
    let mut cut = Cut { unanswered: Vec::new(), acknowledged: 0, delivered: 0, unflushed };
    for ((talk, sender), reader) in talks.iter_mut().zip(senders).zip(readers) {
        let (sent, read) = (sender.await.unwrap(), reader.await.unwrap());
        cut.acknowledged += sent.acknowledged.len();
        cut.delivered += read.len();
        talk.told.extend(sent.acknowledged);
        talk.told.extend(read);
        cut.unanswered.push(sent.unanswered);
    }
    cut
}

/// How many messages of which somebody was told are not where they were, now.
async fn lost(broker: &Broker, talks: &[Talk]) -> usize {
    let mut lost = 0;
    for talk in talks {
        let mut socket = talk.sender.connect_live(broker).await;
        let log = whole_log(&mut socket, talk.chat_id).await;
        let mut found = Told::new();
        for entry in &log {
            if let EntryBody::Message(envelope) = &entry.body {
                let again = found.insert(envelope.message_id, (entry.seq, entry.log_hash));
                assert!(again.is_none(), "a message is in the log twice");
            }
        }
        lost += talk.told.iter().filter(|(id, place)| found.get(id) != Some(*place)).count();
    }
    lost
}

#[tokio::test]
#[ignore = "cuts the power for minutes; as root: see docs/reliability.md"]
async fn d3_what_was_acknowledged_or_delivered_outlives_every_power_cut() {
    if is_skipped(cannot_break_disks()) {
        return;
    }
    let mut mount = DiskMount::new(1500, true).await;
    let mut broker = Broker::start_with(Private::settings(&mount.path())).await;
    let mut talks = begin(&broker).await;
    let (seed, cuts) = (seed(), trials(5, 50));
    let (mut acknowledged, mut delivered, mut unflushed) = (0, 0, 0);
    for n in 0..cuts {
        let seed = seed.wrapping_add(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let cut = cut_under_load(&mut broker, &mount, &mut talks, seed).await;
        mount.power_on().await;
        broker.restart().await;
        acknowledged += cut.acknowledged;
        delivered += cut.delivered;
        unflushed += cut.unflushed;
        assert_eq!(lost(&broker, &talks).await, 0, "cut {n} of SEALCAST_SEED={seed}");
        // What had no answer is sent again: it gets the place that it has, or one.
        for (talk, messages) in talks.iter_mut().zip(cut.unanswered) {
            let mut socket = talk.sender.connect_live(&broker).await;
            for message in messages {
                let message_id = message.envelope.message_id;
                let sent = submit(&mut socket, message).await.unwrap();
                let place = (sent.seq, sent.log_hash);
                let before = talk.told.insert(message_id, place);
                assert!(before.is_none_or(|before| before == place), "another place");
            }
        }
        assert_eq!(lost(&broker, &talks).await, 0, "after cut {n} of SEALCAST_SEED={seed}");
    }
    let sums = format!("{acknowledged} acknowledged, {delivered} delivered, {unflushed} blocks not flushed");
    writeln!(std::io::stderr(), "{cuts} power cuts, SEALCAST_SEED={seed}: {sums}; 0 lost, 0 twice").unwrap();
}

/// Programs that start the same Postgres, which then flushes nothing.
fn programs_without_fsync(mount: &DiskMount) -> PathBuf {
    let programs = mount.programs();
    let folder = mount.beside().join("programs");
    std::fs::create_dir(&folder).unwrap();
    for (name, more) in [("postgres", "-c fsync=off"), ("initdb", "")] {
        let (path, program) = (folder.join(name), programs.join(name));
        std::fs::write(&path, format!("#!/bin/sh\nexec '{}' \"$@\" {more}\n", program.display())).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[tokio::test]
#[ignore = "cuts the power for a minute; as root: see docs/reliability.md"]
async fn d3_control_without_fsync_the_same_cuts_lose_what_was_acknowledged() {
    if is_skipped(cannot_break_disks()) {
        return;
    }
    let (seed, cuts) = (seed(), trials(2, 5));
    let (mut told, mut gone, mut ruined) = (0, 0, 0);
    for n in 0..cuts {
        let seed = seed.wrapping_add(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut mount = DiskMount::new(800, true).await;
        let mut broker = Broker::start_with(Private::settings(&mount.path())).await;
        let mut talks = begin(&broker).await;
        let programs = programs_without_fsync(&mount);
        broker.signal("TERM");
        assert_eq!(broker.exit_code().await, Some(0));
        mount.sync();
        let settings = Private::settings(&mount.path()).with("database.embedded.bin_dir", programs.display());
        let mut broker = Broker::start_with(settings).await;
        cut_under_load(&mut broker, &mount, &mut talks, seed).await;
        mount.power_on().await;
        let all: usize = talks.iter().map(|talk| talk.told.len()).sum();
        told += all;
        // A database that is beyond recovery, or a log that does not hold together, has lost everything.
        let look = async move {
            broker.restart().await;
            lost(&broker, &talks).await
        };
        let found = tokio::spawn(look).await;
        ruined += usize::from(found.is_err());
        gone += found.unwrap_or(all);
    }
    writeln!(std::io::stderr(), "{cuts} cuts without fsync: {told} told, {gone} lost, {ruined} databases ruined")
        .unwrap();
    assert!(gone > 0, "a cut that loses nothing proves nothing");
}
