//! What costs memory or time of others: floods of the smallest things, and ends that do not read or do not finish.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sealcast::broker::outbox::OutboxLimits;
use sealcast::gateway::transport::{Closed, TransportLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::IN_FLIGHT_MAX;
use super::support::{Client, Setup, TestServer, frame, frame_declaring, within};

/// Bytes of a flood that is meant to go on for as long as it is watched.
const FLOOD_BYTES: usize = 4 << 20;

/// Sends a pattern without end; throws away what comes back when `reads`. Ends with the connection, or when dropped.
async fn flood(client: Client, start: Vec<u8>, pattern: Vec<u8>, reads: bool, bytes: usize) -> usize {
    let (mut reading, mut writing) = client.stream.into_split();
    let reader = actix_web::rt::spawn(async move {
        let mut block = vec![0; 64 * 1024];
        while reads && reading.read(&mut block).await.is_ok_and(|count| count > 0) {}
        reading
    });
    let block = pattern.repeat((64 * 1024 / pattern.len()).max(1));
    let mut taken = 0;
    if writing.write_all(&start).await.is_ok() {
        while taken < bytes {
            match tokio::time::timeout(Duration::from_secs(1), writing.write_all(&block)).await {
                Ok(Ok(())) => taken += block.len(),
                _ => break,
            }
        }
    }
    reader.abort();
    taken
}

/// The size of a process in memory, where that can be told.
fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// An echoing server in a process of its own, so that its memory is nobody else's. Ends with the test.
struct EchoProcess {
    child: Child,
    port: u16,
}

impl EchoProcess {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["transport::floods::echo_process", "--exact", "--ignored", "--nocapture"])
            .env(ECHO_PROCESS, "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("listening on ") {
                return Self { port: port.parse().unwrap(), child };
            }
        }
        panic!("no echo: {:?}", child.wait());
    }

    fn resident_bytes(&self) -> usize {
        resident_bytes(self.child.id())
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ECHO_PROCESS: &str = "TRANSPORT_TEST_ECHO";

#[actix_web::test]
#[ignore = "is the server that other tests flood"]
async fn echo_process() {
    if std::env::var_os(ECHO_PROCESS).is_none() {
        return;
    }
    let outbox = OutboxLimits { frames_max: 64, bytes_max: 16 * 1024, reserve_bytes: 16 * 1024 };
    let server = TestServer::start(Setup { outbox, echoes: true, ..Setup::default() });
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", server.port).unwrap();
    out.flush().unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await.unwrap().unwrap();
}

#[actix_web::test]
async fn floods_of_empty_things_grow_no_memory_and_starve_nobody() {
    for (name, start, pattern, reads) in [
        ("empty messages", vec![], frame(0x82, b""), true),
        ("empty messages, echoes not read", vec![], frame(0x81, b""), false),
        ("empty fragments of one message", frame(0x02, b""), frame(0x00, b""), true),
        ("empty fragments with pings", frame(0x01, b""), [frame(0x00, b""), frame(0x89, b"")].concat(), true),
        ("empty pings", vec![], frame(0x89, b""), true),
        ("pings, pongs not read", vec![], frame(0x89, &[1; 125]), false),
        ("pongs", vec![], frame(0x8A, b""), true),
        ("messages of one byte in two fragments", vec![], [frame(0x02, b"x"), frame(0x80, b"")].concat(), true),
    ] {
        let server = EchoProcess::start();
        let witness = Client::upgrade(server.port, "").await;
        let client = Client::upgrade(server.port, "").await;
        let before = server.resident_bytes();
        let flooding = actix_web::rt::spawn(flood(client, start, pattern, reads, FLOOD_BYTES));

        // On the same thread of the server, while the flood goes on.
        let (mut reading, mut writing) = witness.stream.into_split();
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let sent = Instant::now();
            within(writing.write_all(&frame(0x81, b"?"))).await.unwrap();
            let mut echo = [0; 4];
            within(reading.read_exact(&mut echo[..3])).await.unwrap();
            assert_eq!(echo[..3], [0x81, 1, b'?'], "{name}");
            slowest = slowest.max(sent.elapsed());
        }
        assert!(slowest < Duration::from_secs(3), "{name}: {slowest:?}");
        let taken = within(flooding).await.unwrap();
        assert!(reads == (taken >= FLOOD_BYTES), "{name}: {taken} bytes taken");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < FLOOD_BYTES / 2, "{name}: {grown} bytes more");
    }
}

#[actix_web::test]
async fn a_large_message_in_the_smallest_fragments_costs_its_size_and_not_its_frames() {
    let limits = TransportLimits {
        message_bytes_max: 256 * 1024,
        outstanding_bytes_max: 256 * 1024,
        outstanding_messages_max: 1,
    };
    let mut server = TestServer::start(Setup { limits, ..Setup::default() });
    let (client, mut served) = server.open().await;
    let (_reading, mut writing) = client.stream.into_split();
    let sender = actix_web::rt::spawn(async move {
        let mut script = frame(0x02, b"a");
        script.extend(frame(0x00, b"b").repeat(256 * 1024 - 2));
        script.extend(frame(0x80, b"c"));
        writing.write_all(&script).await.unwrap();
        writing
    });
    let message = served.message().await;
    assert_eq!(message.data.len(), 256 * 1024);
    assert_eq!((message.data[0], message.data[1], message.data[256 * 1024 - 1]), (b'a', b'b', b'c'));
    drop(sender.await);
    server.stop().await;
}

#[actix_web::test]
async fn frames_that_are_never_finished_hold_what_was_sent_and_no_more() {
    let mut server = TestServer::start(Setup::default());
    let before = resident_bytes(std::process::id());
    let mut open = Vec::new();
    for index in 0..200_u64 {
        let (mut client, served) = server.open().await;
        // Each declares the most that is allowed, and leaves it at a few bytes or a header cut anywhere.
        let whole = frame_declaring(0x82, 256 * 1024, &[7; 20]);
        let cut = usize::try_from(index % 34).unwrap() + 1;
        client.send(&whole[..cut.min(whole.len())]).await;
        open.push((client, served));
    }
    let (mut witness, mut witness_served) = server.open().await;
    witness.send(&frame(0x81, b"here")).await;
    assert_eq!(witness_served.message().await.data, "here");
    let grown = resident_bytes(std::process::id()).saturating_sub(before);
    assert!(grown < 24 << 20, "200 promises of 256 KiB cost {grown} bytes");
    for (client, mut served) in open {
        drop(client);
        assert_eq!(served.closed().await, Closed::Lost);
    }
    server.stop().await;
}

#[actix_web::test]
async fn bytes_after_a_goodbye_or_a_violation_are_not_taken_in() {
    let mut server = TestServer::start(Setup { echoes: true, ..Setup::default() });
    for start in [frame(0x88, &1000_u16.to_be_bytes()), vec![0x81, 0x01], frame_declaring(0x82, 1 << 40, b"")] {
        let (mut client, mut served) = server.open().await;
        client.send(&start).await;
        let taken = client.flood(&frame(0x82, &[0; 1000]), 64 << 20).await;
        assert!(taken < IN_FLIGHT_MAX, "{taken} bytes taken after {start:x?}");
        served.closed().await;
    }
    server.echoes.store(false, Ordering::SeqCst);
    server.stop().await;
}
