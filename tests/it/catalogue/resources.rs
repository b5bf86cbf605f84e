//! A process that runs out of what the machine gives it: L11, descriptors, and L12, memory.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sealcast::protocol::account::SOCKET_PATH;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Direction, Nothing, Request, Resume, ServerFrame};
use sealcast::protocol::ids::ChatId;
use sealcast::protocol::membership::Change;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::super::messages::Pair;
use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{change_membership, history, submit, view};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket};
use super::super::support::mount::{is_skipped, missing_program};
use super::super::support::{eventually, trials, within};

/// Descriptors that the broker may have.
const DESCRIPTORS: usize = 256;

/// Connections that wait for a descriptor, beside those that have one.
const WAITING: usize = 100;

fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
}

/// Seconds of CPU time that a process has used; the kernel counts in hundredths.
fn cpu_seconds(broker: &Broker) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", broker.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// A connection that asks for a socket and then says nothing.
async fn silent(broker: &Broker) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let request = format!(
        "GET {SOCKET_PATH} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {}\r\n\r\n",
        Encoding::Json.subprotocol()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Connections that wait to be accepted, as the kernel counts them.
fn waiting(broker: &Broker) -> usize {
    let port: u16 = broker.address().rsplit(':').next().unwrap().parse().unwrap();
    let local = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = lines.skip(1).find(|words| words[1] == local && words[3] == "0A").unwrap();
    usize::from_str_radix(listening[4].rsplit(':').next().unwrap(), 16).unwrap()
}

/// Leaves the broker few descriptors.
fn limit_descriptors(broker: &Broker) {
    let (pid, limit) = (broker.pid().to_string(), format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

#[tokio::test]
async fn l11_a_broker_without_descriptors_does_not_spin_and_accepts_again_later() {
    if is_skipped(missing_program(&["prlimit"])) {
        return;
    }
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 300);
    let mut pair = Pair::start_on(database, settings).await;
    limit_descriptors(&pair.broker);
    for _ in 0..trials(1, 10) {
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "before").await.unwrap();
        // A connection needs two, so one may be left over. Who gets the last one alone is turned away, and others come.
        let mut strangers = Vec::new();
        eventually("no descriptor to be left, and others to wait", async || {
            let is_full = descriptors(&pair.broker) >= DESCRIPTORS - 2;
            if is_full && waiting(&pair.broker) >= WAITING {
                return true;
            }
            for _ in 0..WAITING {
                strangers.push(silent(&pair.broker).await);
            }
            false
        })
        .await;
        let (began, before) = (Instant::now(), cpu_seconds(&pair.broker));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let share = (cpu_seconds(&pair.broker) - before) / began.elapsed().as_secs_f64();
        assert!(share < 0.25, "it spins: {share:.2} of a core");
        // Who is in is served.
        pair.bob_socket.request(Request::Ping(Nothing {})).await.unwrap();
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "meanwhile").await.unwrap();
        drop(strangers);
        eventually("descriptors to be given back", async || {
            waiting(&pair.broker) == 0 && descriptors(&pair.broker) < DESCRIPTORS / 2
        })
        .await;
        let newcomer = Device::register(&pair.broker, &format!("newcomer{}", began.elapsed().as_nanos())).await;
        newcomer.connect_live(&pair.broker).await;
        assert_eq!(pair.broker.operator_get("/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn l11_whoever_never_finishes_a_request_has_no_descriptor_for_ever() {
    if is_skipped(missing_program(&["prlimit"])) {
        return;
    }
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 1).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    limit_descriptors(&pair.broker);
    let (start, address) = ("POST /v1/accounts HTTP/1.1\r\nhost: a\r\n", pair.broker.address().to_owned());
    for length in ["content-length: 1000", "transfer-encoding: chunked"].into_iter().cycle().take(trials(2, 20)) {
        // Enough to have all descriptors again and again, if each is ended in time.
        let mut strangers = Vec::new();
        for _ in 0..2 * DESCRIPTORS {
            let mut stranger = TcpStream::connect(&address).await.unwrap();
            // Who is turned away at once may be gone before.
            let _ = stranger.write_all(format!("{start}{length}\r\n\r\n").as_bytes()).await;
            strangers.push(stranger);
        }
        eventually("an end of all of them", async || {
            waiting(&pair.broker) == 0 && descriptors(&pair.broker) < DESCRIPTORS / 2
        })
        .await;
        drop(strangers);
        pair.ada.say(&mut pair.ada_socket, pair.chat_id, "undisturbed").await.unwrap();
        pair.bob_socket.pushes_so_far().await;
    }
    Device::register(&pair.broker, "newcomer").await.connect_live(&pair.broker).await;
}

/// What the broker of L12 may use, in MiB, with a thousand clients.
const MEMORY_MIB: u64 = 256;

/// Clients for whom that is meant.
const CLIENTS: u64 = 1000;

/// What the broker needs for itself, in MiB, however many there are: what its allocator holds ready, and the code of a build
/// for tests, which grows with every part that is added.
const OWN_MIB: u64 = 96;

/// What may wait for all of them together by default, in bytes.
const OUTBOXES_BYTES: u64 = 50_331_648;

/// A memory cgroup of the test's own, where it can be made; removed when it is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn around(broker: &Broker, limit_mib: u64) -> Option<Self> {
        let group = Self(PathBuf::from(format!("/sys/fs/cgroup/memory/sealcast-test-{}", broker.pid())));
        std::fs::create_dir(&group.0).ok()?;
        let write = |name: &str, value: String| std::fs::write(group.0.join(name), value).ok();
        write("memory.limit_in_bytes", (limit_mib << 20).to_string())?;
        write("cgroup.procs", broker.pid().to_string())?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The broker is dropped before; the kernel may take a moment to take it out.
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The most memory that a process had at any time, in MiB.
fn peak_mib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("the broker was killed");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the broker was killed");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A live connection of somebody who will not read: next to nothing of what comes waits in the kernel.
async fn without_reading(device: &Device, broker: &Broker) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = within("a connection", socket.connect(broker.address().parse().unwrap())).await.unwrap();
    let mut request = format!("ws://{}{SOCKET_PATH}", broker.address()).into_client_request().unwrap();
    let subprotocol = Encoding::Json.subprotocol().parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", subprotocol);
    let opening = tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(stream));
    let (stream, _) = within("a handshake", opening).await.unwrap();
    let mut socket = Socket::on(stream, Encoding::Json).await;
    socket.request(device.login(&socket.hello)).await.unwrap();
    socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    socket
}

/// Adds many to a chat: what each addition put into the log is folded, and nothing is read twice.
async fn add_all(ada: &Device, socket: &mut Socket, chat_id: ChatId, others: &[Device]) {
    let mut now = view(socket, chat_id).await;
    for other in others {
        let (roster_hash, epoch) = (now.fold.roster_hash(), now.fold.epoch());
        let add = Change::Add { can_write: false, can_manage: false, roster_hash, epoch };
        let change = ada.change_from(&now, chat_id, add, other);
        change_membership(socket, chat_id, change).await.unwrap();
        for entry in history(socket, chat_id, Direction::After, now.seen.seq, 200).await.unwrap().entries {
            now.fold.apply(entry.seq, entry.created_at, &entry.body).unwrap();
            now.seen.seq = entry.seq;
            now.seen.log_hash = entry.log_hash;
        }
    }
}

#[tokio::test]
async fn l12_a_thousand_clients_that_do_not_read_fit_in_256_mib() {
    const CHAT_MEMBERS: usize = 100;
    // The kernel takes some 2.6 MB for each on the loopback, whose packets are large.
    const MESSAGES: usize = 56;
    let count = trials(100, 1000);
    // With fewer clients there is less of everything.
    let share = |of: u64| of * count as u64 / CLIENTS;
    let limit_mib = OWN_MIB + share(MEMORY_MIB - OWN_MIB);
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("limits.outboxes_bytes_max", share(OUTBOXES_BYTES))
        .with("limits.requests_per_s", 100_000)
        .with("limits.requests_burst", 100_000)
        .with("limits.membership_changes_per_minute", 100_000)
        // Who is not read until all have come answers no ping.
        .with("server.ping_interval_s", 3_600);
    let pair = Pair::start_on(database, settings).await;
    let mut group = MemoryGroup::around(&pair.broker, limit_mib);
    if group.is_none() {
        is_skipped(Some("the cgroup (none can be made here); the peak of the memory is looked at alone".to_owned()));
    }
    let broker = &pair.broker;
    let mut slow = Vec::new();
    let mut chats = Vec::new();
    let mut socket = pair.ada.connect_live(broker).await;
    for chat in 0..count / CHAT_MEMBERS {
        let names: Vec<String> = (0..CHAT_MEMBERS).map(|n| format!("slow{chat}x{n}")).collect();
        let devices = join_all(names.iter().map(|name| Device::register(broker, name))).await;
        let chat_id = pair.ada.create_chat(&mut socket).await;
        add_all(&pair.ada, &mut socket, chat_id, &devices).await;
        pair.ada.add(&mut socket, chat_id, &pair.bob).await.unwrap();
        slow.extend(join_all(devices.iter().map(|device| without_reading(device, broker))).await);
        chats.push(chat_id);
    }
    let mut reader = pair.bob.connect_live(broker).await;
    let read = tokio::spawn(async move {
        let mut seen = 0;
        while seen < MESSAGES * count / CHAT_MEMBERS {
            match reader.push().await.expect("who reads is not cut") {
                ServerFrame::Entry(push) => seen += usize::from(is_message(&push.entry)),
                ServerFrame::Page(page) => seen += page.entries.iter().filter(|entry| is_message(entry)).count(),
                _ => {}
            }
        }
    });
    for chat_id in chats {
        let now = view(&mut socket, chat_id).await;
        let mut key = pair.ada.sender_key(&now, chat_id);
        for _ in 0..MESSAGES {
            let message = pair.ada.seal(&now, &mut key, &[7; 60_000]);
            submit(&mut socket, message).await.unwrap();
        }
    }
    within("everything to be read by who reads", read).await.unwrap();
    let peak = peak_mib(broker);
    writeln!(std::io::stderr(), "{count} clients that do not read: {peak} of {limit_mib} MiB at most").unwrap();
    assert!(peak < limit_mib, "{peak} MiB");
    let newcomer = Device::register(broker, "newcomer").await;
    newcomer.connect_live(broker).await;
    drop(slow);
    drop(pair);
    drop(group.take());
}

fn is_message(entry: &sealcast::protocol::log::LogEntry) -> bool {
    matches!(entry.body, sealcast::protocol::log::EntryBody::Message(_))
}
