//! Wrong clocks and clocks that jump: A9 and L13. The broker goes by the database's clock, and its timers by none that
//! anybody sets.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::CloseCode;
use sealcast::protocol::frame::{Nothing, Request, ServerFrame};
use sealcast::protocol::ids::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::messages::Pair;
use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket, now};
use super::super::support::mount::is_skipped;
use super::super::support::{eventually, within};

/// Seconds that nobody takes for a wrong clock here.
const TOLERANCE_S: i64 = 120;

/// The library that shows a process another time, where it is installed.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = folders.chain([PathBuf::from("/usr/lib"), PathBuf::from("/usr/local/lib")]);
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

fn cannot_fake_time() -> Option<String> {
    libfaketime().is_none().then(|| "libfaketime is not here (package faketime)".to_owned())
}

/// Variables that give a process another wall clock, and leave its monotonic one alone.
fn another_clock() -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", libfaketime().unwrap().display().to_string()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn with_another_clock(settings: Settings) -> Settings {
    another_clock().into_iter().fold(settings, |settings, (name, value)| settings.with_variable(name, value))
}

/// How far a broker's wall clock is ahead of this process', in seconds: HTTP answers are dated by it.
async fn skew_of(broker: &Broker) -> i64 {
    let mut stream = tokio::net::TcpStream::connect(broker.operator.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    let date = answer.lines().find_map(|line| line.to_lowercase().strip_prefix("date: ").map(str::to_owned)).unwrap();
    let seconds = Command::new("date").args(["-u", "-d", &date, "+%s"]).output().unwrap().stdout;
    let seconds: i64 = String::from_utf8(seconds).unwrap().trim().parse().unwrap();
    seconds - (now().get() / 1_000_000) as i64
}

fn assert_now(time: Timestamp, what: &str) {
    let off = (time.get() as i64 - now().get() as i64) / 1_000_000;
    assert!(off.abs() < TOLERANCE_S, "{what} is off by {off} s");
}

async fn is_live(database: &Database, device: &Device) -> bool {
    let id = device.session_id;
    database.count(&format!("SELECT count(*) FROM user_sessions WHERE id = '{id}' AND state = 'live'")).await == 1
}

async fn goes_by_the_databases_clock(skew_s: i64) {
    let database = Database::create().await;
    let settings = with_another_clock(Settings::on(&database)).with_variable("FAKETIME", format!("{skew_s:+}"));
    let mut pair = Pair::start_on(database, settings).await;
    let skew = skew_of(&pair.broker).await;
    assert!((skew - skew_s).abs() < TOLERANCE_S, "the broker's clock is not wrong: {skew}");
    assert_now(pair.ada_socket.hello.time, "hello");
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "what time is it?").await.unwrap();
    assert_now(sent.created_at, "an entry");
    // Of two sessions one is over in five seconds, and one in less than the clock is wrong.
    let long = Device::register_for(&pair.broker, "long", 300_000_000).await;
    let short = Device::register_for(&pair.broker, "short", 5_000_000).await;
    let (mut long_socket, mut short_socket) = (long.connect(&pair.broker).await, short.connect(&pair.broker).await);
    assert_eq!(short_socket.close_code().await, Some(CloseCode::SessionExpired.number()));
    eventually("the expiry to be written down", async || !is_live(&pair.database, &short).await).await;
    assert!(is_live(&pair.database, &long).await && is_live(&pair.database, &pair.bob).await);
    long_socket.request(Request::Ping(Nothing {})).await.unwrap();
    long.connect(&pair.broker).await;
}

#[tokio::test]
async fn a9_a_broker_whose_clock_is_wrong_by_ten_minutes_goes_by_the_databases() {
    if is_skipped(cannot_fake_time()) {
        return;
    }
    tokio::join!(goes_by_the_databases_clock(600), goes_by_the_databases_clock(-600));
}

#[cfg(feature = "client")]
#[tokio::test]
async fn a9_clients_whose_clocks_are_wrong_by_a_day_chat_with_each_other() {
    use sealcast::protocol::certificate::SignedCertificate;

    use super::super::terminal::Profile;

    if is_skipped(cannot_fake_time()) {
        return;
    }
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let clients =
        [("early", "-86400"), ("late", "+86400")].map(|(name, skew)| (Profile::new(&parent, name), name, skew));
    let run = async |client: &(Profile, &str, &str), arguments: &[&str]| {
        let mut command = client.0.command(arguments);
        command.envs(another_clock()).env("FAKETIME", client.2);
        let output = within("a command", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {arguments:?}: {error}", client.1);
        String::from_utf8(output.stdout).unwrap()
    };
    for client in &clients {
        run(client, &["register", "--server", &broker.public, client.1]).await;
    }
    let [early, late] = &clients;
    for (maker, other) in [(early, late), (late, early)] {
        let chat = run(maker, &["chat", "create", "When?"]).await.trim().to_owned();
        run(maker, &["chat", "add", &chat, other.1]).await;
        run(maker, &["send", &chat, "yesterday"]).await;
        run(other, &["send", &chat, "tomorrow"]).await;
        let read = run(maker, &["read", &chat]).await;
        assert!(read.contains("yesterday") && read.contains("tomorrow"), "{read}");
        let read = run(other, &["read", &chat]).await;
        assert!(read.contains("yesterday") && read.contains("tomorrow"), "{read}");
    }
    assert_eq!(database.count("SELECT count(*) FROM user_sessions WHERE state = 'live'").await, 2);
    for row in database.client().await.query("SELECT certificate FROM user_sessions", &[]).await.unwrap() {
        let signed: SignedCertificate = rmp_serde::from_slice(row.get(0)).unwrap();
        assert_now(signed.certificate.created_at, "a session, though its client asked the server,");
    }
}

/// Sets the clock of the processes that look at this file.
fn set_clock(file: &Path, skew_s: i64) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{skew_s:+}\n")).unwrap();
    std::fs::rename(next, file).unwrap();
}

#[tokio::test]
async fn l13_a_wall_clock_that_jumps_by_an_hour_moves_no_timer_and_expires_nobody() {
    if is_skipped(cannot_fake_time()) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    set_clock(&clock, 0);
    let database = Database::create().await;
    let settings = with_another_clock(Settings::on(&database))
        .with_variable("FAKETIME_TIMESTAMP_FILE", clock.display())
        .with_variable("FAKETIME_NO_CACHE", "1")
        .with("server.ping_interval_s", 1)
        .with("server.login_timeout_s", 2);
    let pair = Pair::start_on(database, settings).await;
    // Half an hour is less than the jumps.
    let mut sessions = Vec::new();
    for n in 0..10 {
        let device = Device::register_for(&pair.broker, &format!("session{n}"), 1_800_000_000).await;
        let mut socket = device.connect_live(&pair.broker).await;
        // Reading answers the pings.
        let open = tokio::spawn(async move { while socket.push().await.is_some() {} });
        sessions.push((device, open));
    }
    for (n, skew_s) in [3600, -3600, 0].into_iter().enumerate() {
        set_clock(&clock, skew_s);
        eventually("the jump", async || (skew_of(&pair.broker).await - skew_s).abs() < TOLERANCE_S).await;
        // Who does not log in is closed in the time that is set, which is two pings and two sweeps.
        let began = Instant::now();
        let mut silent = Socket::open(&pair.broker, Encoding::Json).await;
        let short = Device::register_for(&pair.broker, &format!("short{n}"), 3_000_000).await;
        silent.close_code().await;
        assert!(began.elapsed() > Duration::from_secs(1), "the login limit moved with the clock");
        for (device, open) in &sessions {
            assert!(!open.is_finished(), "a session was closed");
            assert!(is_live(&pair.database, device).await, "a session expired");
        }
        eventually("a session whose time is over to expire", async || !is_live(&pair.database, &short).await).await;
        // Sockets that nobody reads answer no pings, so these are new ones.
        let mut ada_socket = pair.ada.connect_live(&pair.broker).await;
        let mut bob_socket = pair.bob.connect_live(&pair.broker).await;
        let sent = pair.ada.say(&mut ada_socket, pair.chat_id, "still here").await.unwrap();
        assert_now(sent.created_at, "an entry");
        let seq = sent.seq;
        bob_socket
            .push_that(|push| match push {
                ServerFrame::Entry(push) => (push.entry.seq == seq).then_some(()),
                ServerFrame::Page(page) => (page.up_to >= seq).then_some(()),
                _ => None,
            })
            .await;
    }
    let wall = "clock=\"wall\"";
    eventually("the jumps to be counted", async || pair.broker.metric("sealcast_clock_steps_total", wall).await >= 3.0)
        .await;
    assert_eq!(pair.broker.metric("sealcast_clock_steps_total", "clock=\"database\"").await, 0.0);
    sessions.iter().for_each(|(_, open)| open.abort());
}
