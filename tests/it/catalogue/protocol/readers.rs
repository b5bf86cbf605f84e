//! W9, W10, W13: clients that do not read, read slowly, or are gone without a word.

use std::time::{Duration, Instant};

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Cursor, Nothing, Reply, Request, Resume, ServerFrame};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::limits::DATA_BYTES_MAX;
use sealcast::protocol::log::{EntryBody, LogEntry};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{oneshot, watch};

use super::super::super::messages::{Pair, entries_until};
use super::super::super::support::chat::{SenderKey, View, check_chain, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::proxy::{Path, Proxy};
use super::super::super::support::{eventually, trials, within};
use super::line::Line;
use super::{unharmed, unhurried};

/// Messages under one sender key before the next one is made.
const MESSAGES_OF_A_KEY: u64 = 9_000;

/// Sends at a rate, without waiting for answers, and tells how late others get what it sends.
struct Sender<'a> {
    pair: &'a mut Pair,
    now: View,
    key: SenderKey,
    began: Instant,
    late: UnboundedReceiver<Duration>,
    last: Seq,
    rss_mib_max: u64,
}

/// How long each phase is and what is sent in it.
#[derive(Clone, Copy)]
struct Load {
    per_s: u32,
    bytes: usize,
    phase: Duration,
}

impl Sender<'_> {
    /// Sends for so long; gives how late each message was with the reader beside the one in question, in order of size.
    async fn phase(&mut self, load: Load, phase: Duration) -> Vec<Duration> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / load.per_s);
        let mut open = std::collections::VecDeque::new();
        let end = Instant::now() + phase;
        let mut late = Vec::new();
        let mut sent = 0;
        while Instant::now() < end {
            pace.tick().await;
            if self.key.counter >= MESSAGES_OF_A_KEY {
                self.key = self.pair.ada.sender_key(&self.now, self.pair.chat_id);
            }
            let mut data = vec![0; load.bytes];
            data[..8].copy_from_slice(&(self.began.elapsed().as_micros() as u64).to_be_bytes());
            let message = self.pair.ada.seal(&self.now, &mut self.key, &data);
            open.push_back(self.pair.ada_socket.send(Request::Send(Box::new(message))).await);
            if open.len() == 48 {
                self.pair.ada_socket.answer(open.pop_front().unwrap()).await.unwrap();
            }
            sent += 1;
            if sent % 100 == 0 {
                self.rss_mib_max = self.rss_mib_max.max(self.pair.broker.rss_mib());
                self.pair.ada_socket.pushes.retain(|push| matches!(push, ServerFrame::Ok(_) | ServerFrame::Error(_)));
            }
            while let Ok(lateness) = self.late.try_recv() {
                late.push(lateness);
            }
        }
        for id in open {
            match self.pair.ada_socket.answer(id).await.unwrap() {
                Reply::Sent(sent) => self.last = self.last.max(sent.seq),
                other => panic!("{other:?}"),
            }
        }
        while late.len() < sent {
            late.push(within("what was sent", self.late.recv()).await.unwrap());
        }
        self.rss_mib_max = self.rss_mib_max.max(self.pair.broker.rss_mib());
        late.sort_unstable();
        late
    }
}

/// Reads entries for ever and tells how long each message was on its way.
async fn read_on(
    mut socket: Socket,
    chat_id: ChatId,
    began: Instant,
    late: tokio::sync::mpsc::UnboundedSender<Duration>,
) {
    let told = |entry: &LogEntry| {
        let EntryBody::Message(envelope) = &entry.body else { return };
        let data = envelope.data.as_ref().unwrap();
        let sent = u64::from_be_bytes(*data.as_ref().first_chunk().unwrap());
        let _ = late.send(began.elapsed().saturating_sub(Duration::from_micros(sent)));
    };
    while let Some(push) = socket.push().await {
        match push {
            ServerFrame::Entry(push) if push.chat_id == chat_id => told(&push.entry),
            ServerFrame::Page(page) if page.chat_id == chat_id => page.entries.iter().for_each(told),
            _ => {}
        }
    }
}

fn quantile(sorted: &[Duration], of_1000: usize) -> Duration {
    sorted[(sorted.len() - 1) * of_1000 / 1000]
}

async fn authenticated(pair: &Pair) -> f64 {
    pair.broker.metric("sealcast_connections{", "authenticated").await
}

async fn lagged(pair: &Pair) -> f64 {
    pair.broker.metric("sealcast_connections_lagged_total", "").await
}

/// Where somebody stands who reads: the newest entry that came, and whether it came live.
type Stands = (Seq, bool);

/// Reads until it is told to stop.
async fn read_until(
    mut line: Line,
    chat_id: ChatId,
    stands: watch::Sender<Stands>,
    mut stop: oneshot::Receiver<()>,
) -> Line {
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return line,
            read = line.next() => {
                let stand = match read.unwrap() {
                    ServerFrame::Entry(push) if push.chat_id == chat_id => Some((push.entry.seq, true)),
                    ServerFrame::Page(page) if page.chat_id == chat_id => page.entries.last().map(|entry| (entry.seq, false)),
                    _ => None,
                };
                if let Some(stand) = stand {
                    let _ = stands.send(stand);
                }
            }
        }
    }
}

#[tokio::test]
async fn w9_a_client_that_never_reads_is_cut_while_others_wait_no_longer_and_misses_nothing() {
    let is_whole = trials(0, 1) == 1;
    let load = match is_whole {
        true => Load { per_s: 1_000, bytes: 1_000, phase: Duration::from_secs(30) },
        false => Load { per_s: 200, bytes: 16_000, phase: Duration::from_secs(3) },
    };
    let database = Database::create().await;
    let settings = unhurried(&database)
        .with("keys.messages_max", 10_000)
        .with("server.stalled_timeout_s", if is_whole { 30 } else { 6 })
        // Bob answers no ping, and must not be cut for that.
        .with("server.ping_interval_s", 3_600);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let carol = Device::register(&pair.broker, "carol").await;
    let carol_socket = carol.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let began = Instant::now();
    let (tell, late) = unbounded_channel();
    let reading = tokio::spawn(read_on(carol_socket, chat_id, began, tell));
    let now = view(&mut pair.ada_socket, chat_id).await;
    let key = pair.ada.sender_key(&now, chat_id);
    let last = now.seen.seq;
    let rss_mib_max = pair.broker.rss_mib();
    let mut sender = Sender { pair: &mut pair, now, key, began, late, last, rss_mib_max };

    // In a short run on a busy machine only the middle is steady.
    let (of_1000, factor, slack) = if is_whole { (990, 1.1, 2) } else { (500, 4.0, 30) };
    let (mut with_him, mut without_him) = (Vec::new(), Vec::new());
    let (mut missed_from, mut before_mib) = (None, None);
    // Side by side, so that what the machine does besides is the same for both.
    for _ in 0..trials(1, 5) {
        // Bob's end has small buffers, so that not reading is felt. It takes the place of his other connection.
        let mut bob_line = Line::logged_in(&sender.pair.broker, Encoding::Json, &sender.pair.bob).await;
        let cursors = vec![Cursor { chat_id, seq: sender.last }];
        let resume = bob_line.message(2, Request::Resume(Resume { cursors }));
        bob_line.client.send(&resume).await;
        bob_line.answer(2).await;
        // First he reads.
        let (stop, stopped) = oneshot::channel();
        let (stands, mut bob_stands) = watch::channel(Stands::default());
        let bob_reading = tokio::spawn(read_until(bob_line, chat_id, stands, stopped));
        with_him.push(quantile(&sender.phase(load, load.phase).await, of_1000));
        // Until he is live, whatever the machine made of his reading.
        within("Bob to be live", async {
            let mut is_live = false;
            while !is_live {
                sender.phase(load, Duration::from_millis(1)).await;
                is_live = bob_stands.wait_for(|(seq, _)| *seq >= sender.last).await.unwrap().1;
            }
        })
        .await;
        before_mib.get_or_insert(sender.rss_mib_max);
        let lagged_before = lagged(sender.pair).await;
        stop.send(()).unwrap();
        let bob_line = within("Bob to stop reading", bob_reading).await.unwrap();
        missed_from.get_or_insert(sender.last);
        // Until all that is between them is full. From then on he holds up whom he ever will, until he is cut.
        while lagged(sender.pair).await == lagged_before {
            assert_eq!(authenticated(sender.pair).await, 3.0, "all that he did not read waited in memory");
            sender.phase(load, Duration::from_millis(300)).await;
        }
        without_him.push(quantile(&sender.phase(load, load.phase).await, of_1000));
        eventually("his connection to be cut", async || {
            sender.pair.ada_socket.pushes_so_far().await;
            authenticated(sender.pair).await == 2.0
        })
        .await;
        drop(bob_line);
    }
    reading.abort();
    let (grown_mib, last) = (sender.rss_mib_max - before_mib.unwrap(), sender.last);
    assert!(grown_mib < 64, "{grown_mib} MiB for one who does not read");
    with_him.sort_unstable();
    without_him.sort_unstable();
    // What differs from time to time while he reads comes from elsewhere.
    let elsewhere = with_him[with_him.len() - 1] - with_him[0];
    let bound = quantile(&with_him, 500).mul_f64(factor) + Duration::from_millis(slack) + elsewhere;
    assert!(quantile(&without_him, 500) <= bound, "{without_him:?} instead of {with_him:?}");

    let mut bob_socket = pair.bob.connect(&pair.broker).await;
    let missed_from = missed_from.unwrap();
    let cursors = vec![Cursor { chat_id, seq: missed_from }];
    bob_socket.request(Request::Resume(Resume { cursors })).await.unwrap();
    let entries = entries_until(&mut bob_socket, chat_id, last).await;
    assert_eq!((entries[0].seq, entries.last().unwrap().seq), (missed_from.next(), last));
    check_chain(chat_id, &entries);
    unharmed(&pair.broker).await;
}

/// Takes what comes until an entry has this seq, over as many connections as it takes; gives the entries in order.
async fn follow(
    mut socket: Socket,
    device: &Device,
    address: &str,
    chat_id: ChatId,
    after: Seq,
    last: Seq,
) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut at = after;
    while at < last {
        let came = match socket.push().await {
            Some(ServerFrame::Entry(push)) if push.chat_id == chat_id => vec![push.entry],
            Some(ServerFrame::Page(page)) if page.chat_id == chat_id => page.entries,
            Some(_) => continue,
            None => {
                socket = device.connect_at(address, Encoding::Json).await;
                let cursors = vec![Cursor { chat_id, seq: at }];
                socket.request(Request::Resume(Resume { cursors })).await.unwrap();
                continue;
            }
        };
        // Around catching up an entry may come twice, and is passed over as clients do.
        for entry in came.into_iter().filter(|entry| entry.seq > after) {
            if entry.seq > at {
                at = entry.seq;
                entries.push(entry);
            }
        }
    }
    entries
}

#[tokio::test]
async fn w10_a_client_that_reads_a_kilobyte_a_second_lags_catches_up_and_misses_nothing() {
    let database = Database::create().await;
    let settings = unhurried(&database)
        .with("keys.messages_max", 10_000)
        .with("limits.outbox_frames_max", 16)
        // Of so little, pings come through too late, and what the kernels hold leaves room only now and then.
        .with("server.ping_interval_s", 3_600)
        .with("server.stalled_timeout_s", 3_600);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    let path = Proxy::start(&pair.broker).await;
    let address = path.url.strip_prefix("http://").unwrap();
    let mut bob_socket = pair.bob.connect_at(address, Encoding::Json).await;
    bob_socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    bob_socket.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    path.set(Path::Rate(1_000));
    let (mut last, before_mib) = (now.seen.seq, pair.broker.rss_mib());
    let since = Instant::now();
    // Until all that is between them is full and he is left behind; in the long run it goes on so for a while.
    let at_least = Duration::from_secs(trials(0, 300) as u64);
    within("Bob to lag", async {
        while lagged(&pair).await < 1.0 {
            let mut open = Vec::new();
            for _ in 0..24 {
                let message = pair.ada.seal(&now, &mut key, &[5; DATA_BYTES_MAX]);
                open.push(pair.ada_socket.send(Request::Send(Box::new(message))).await);
            }
            for id in open {
                match pair.ada_socket.answer(id).await.unwrap() {
                    Reply::Sent(sent) => last = last.max(sent.seq),
                    other => panic!("{other:?}"),
                }
            }
        }
    })
    .await;
    while since.elapsed() < at_least {
        pair.ada.renew(&now, &mut key);
        let message = pair.ada.seal(&now, &mut key, &[5; 1_000]);
        last = submit(&mut pair.ada_socket, message).await.unwrap().seq;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let grown_mib = pair.broker.rss_mib().saturating_sub(before_mib);
    assert!(grown_mib < 24, "{grown_mib} MiB for one who reads slowly");
    assert_eq!(authenticated(&pair).await, 2.0, "he is left behind, and not cut");
    path.set(Path::Open);
    let entries = follow(bob_socket, &pair.bob, address, chat_id, now.seen.seq, last).await;
    check_chain(chat_id, &entries);
    assert_eq!(entries.first().unwrap().seq, now.seen.seq.next());
    assert_eq!(entries.len() as u64, last.get() - now.seen.seq.get());
    assert!(pair.broker.metric("sealcast_catch_up_pages_total", "").await >= 1.0);
    unharmed(&pair.broker).await;
}

#[tokio::test]
async fn w13_whoever_is_gone_without_a_word_is_offline_in_time_and_resumes_completely() {
    let database = Database::create().await;
    let settings = unhurried(&database).with("server.ping_interval_s", 3);
    let mut pair = Pair::start_on(database, settings).await;
    let chat_id = pair.chat_id;
    // Nothing passes any more; or only one way does, and he hears nothing, or says nothing.
    let mut leaving = Vec::new();
    for (name, broken) in [("carol", Path::Hold), ("dave", Path::HoldAnswers), ("erin", Path::HoldRequests)] {
        let device = Device::register(&pair.broker, name).await;
        pair.ada.add(&mut pair.ada_socket, chat_id, &device).await.unwrap();
        pair.bob_socket.pushes_so_far().await;
        leaving.push((device, Proxy::start(&pair.broker).await, broken));
    }
    let mut gone = Vec::new();
    for (device, path, broken) in leaving {
        let address = path.url.strip_prefix("http://").unwrap().to_owned();
        let mut socket = device.connect_at(&address, Encoding::Json).await;
        socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
        socket.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
        gone.push((device, path, address, socket, broken));
    }
    for (_, path, _, _, broken) in &gone {
        path.set(*broken);
    }
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let mut last = now.seen.seq;
    // Ada and Bob are alive all the time, and say so.
    eventually("the three to be offline", async || {
        pair.ada.renew(&now, &mut key);
        let message = pair.ada.seal(&now, &mut key, b"while they are away");
        last = submit(&mut pair.ada_socket, message).await.unwrap().seq;
        pair.bob_socket.pushes_so_far().await;
        authenticated(&pair).await == 2.0
    })
    .await;
    for (device, path, address, old, _) in gone {
        path.set(Path::Open);
        // What was on its way comes late, the end with it; what is missing comes after a resume.
        let entries = follow(old, &device, &address, chat_id, now.seen.seq, last).await;
        check_chain(chat_id, &entries);
        assert_eq!(entries.len() as u64, last.get() - now.seen.seq.get());
        let mut socket = device.connect_at(&address, Encoding::Json).await;
        assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    }
    unharmed(&pair.broker).await;
}
