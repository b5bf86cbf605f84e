//! Runs the embedded Postgres through starts, stops, kills and misuse, as root and as an ordinary user alike.
//!
//! Needs a Postgres of a supported version, or a client that fetches one. A broker that is to be killed is this very test program,
//! started again with [`broker_process`] alone. Every test has a folder of its own and proves at its end that neither
//! a process nor a folder is left.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sealcast::store::embedded::{EmbeddedConfig, EmbeddedError, EmbeddedPostgres, Rejection};
use tempfile::TempDir;
use tokio_postgres::NoTls;

const DEADLINE: Duration = Duration::from_secs(30);
const DATA_DIR: &str = "EMBEDDED_TEST_DATA_DIR";
const EPHEMERAL: &str = "EMBEDDED_TEST_EPHEMERAL";

/// A folder that Postgres's account can reach.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("embedded-test-").tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn config(data_dir: impl Into<PathBuf>) -> EmbeddedConfig {
    // Where the machine has no Postgres these tests run on one that is fetched once.
    let programs_dir = Some(std::env::temp_dir().join("sealcast-test-programs"));
    EmbeddedConfig { data_dir: data_dir.into(), programs_dir, ..EmbeddedConfig::default() }
}

async fn query(connection: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
    let (client, driver) = tokio_postgres::connect(connection, NoTls).await?;
    let driver = tokio::spawn(driver);
    let row = client.query_one(sql, &[]).await;
    drop(client);
    let _ = driver.await;
    row.map(|row| row.get(0))
}

async fn execute(connection: &str, sql: &str) {
    let (client, driver) = tokio_postgres::connect(connection, NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    let _ = driver.await;
}

/// Waits for a fact; fails when it does not become true.
async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_true().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Process id, parent, group and command line of every process but the dead that nobody has collected yet.
fn processes() -> Vec<(u32, u32, u32, String)> {
    let output = Command::new("ps").args(["-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,args="]).output().unwrap();
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_whitespace();
        let mut number = || words.next().unwrap().parse::<u32>().unwrap();
        let (pid, parent, group) = (number(), number(), number());
        if !words.next().unwrap().starts_with('Z') {
            found.push((pid, parent, group, words.collect::<Vec<_>>().join(" ")));
        }
    }
    found
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", "kill -s $1 $2", "sh", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "cannot send {name} to {pid}");
}

/// Waits until no process names the folder any more, and then removes the folder.
async fn assert_nothing_left(folder: TempDir) {
    let path = folder.path().to_str().unwrap().to_owned();
    eventually("no process is left", async || !processes().iter().any(|(_, _, _, line)| line.contains(&path))).await;
    folder.close().unwrap();
}

/// A broker in a process of its own.
struct Broker {
    child: Child,
    server_pid: u32,
    connection: String,
}

impl Broker {
    fn spawn(data_dir: &Path, ephemeral: bool) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["embedded::broker_process", "--exact", "--ignored", "--nocapture"])
            .env(DATA_DIR, data_dir)
            .env(EPHEMERAL, if ephemeral { "yes" } else { "no" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap()
    }

    fn start(data_dir: &Path, ephemeral: bool) -> Self {
        let mut child = Self::spawn(data_dir, ephemeral);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("ready ") {
                let (pid, connection) = rest.split_once(' ').unwrap();
                return Self { server_pid: pid.parse().unwrap(), connection: connection.to_owned(), child };
            }
        }
        let status = child.wait().unwrap();
        panic!("the broker process ended before it was ready ({status})");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills the broker and the shells that would stop the server; the server itself goes on.
    fn kill_without_stopping_the_server(self) -> Leftover {
        let all = processes();
        let shell = all.iter().find(|process| process.0 == self.server_pid).unwrap().1;
        let watcher = all.iter().find(|process| process.1 == shell && process.0 != self.server_pid).unwrap().0;
        signal(watcher, "KILL");
        signal(shell, "KILL");
        let leftover = Leftover(all.into_iter().find(|process| process.0 == self.server_pid).unwrap().3);
        self.kill();
        leftover
    }
}

/// A server without a broker, by its command line; a test that fails must not leave it behind.
struct Leftover(String);

impl Drop for Leftover {
    fn drop(&mut self) {
        for (pid, _, _, line) in processes() {
            if line == self.0 {
                signal(pid, "KILL");
            }
        }
    }
}

#[test]
#[ignore = "is the broker that other tests start and kill"]
fn broker_process() {
    let Some(data_dir) = std::env::var_os(DATA_DIR) else {
        return;
    };
    let mut config = config(data_dir);
    config.ephemeral = std::env::var(EPHEMERAL).is_ok_and(|value| value == "yes");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let postgres = runtime.block_on(EmbeddedPostgres::start(config)).unwrap();
    let mut out = std::io::stdout();
    let connection = postgres.connection_string("sealcast");
    writeln!(out, "ready {} {connection}", postgres.server_pid().unwrap()).unwrap();
    out.flush().unwrap();
    // Ends with the test that started it, also when that test fails.
    let _ = std::io::stdin().read(&mut [0]);
}

#[tokio::test]
async fn data_survive_a_stop_and_the_server_is_durable_and_private() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let began = Instant::now();
    let postgres = EmbeddedPostgres::start(config(&data_dir)).await.unwrap();
    let first = began.elapsed();
    let connection = postgres.connection_string("sealcast");
    execute(&connection, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await;
    execute(&connection, "ALTER SYSTEM SET fsync = off").await;
    let pid = postgres.server_pid().unwrap();
    let began = Instant::now();
    postgres.stop().await.unwrap();
    let stop = began.elapsed();
    assert!(!processes().iter().any(|process| process.0 == pid));

    let began = Instant::now();
    let postgres = EmbeddedPostgres::start(config(&data_dir)).await.unwrap();
    let second = began.elapsed();
    writeln!(std::io::stderr(), "first start {first:?}, stop {stop:?}, second start {second:?}").unwrap();
    let connection = postgres.connection_string("sealcast");
    assert_eq!(query(&connection, "SELECT n::text FROM kept").await.unwrap(), "7");
    for (name, wanted) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", ""),
        ("max_connections", "100"),
        ("TimeZone", "UTC"),
    ] {
        assert_eq!(query(&connection, &format!("SHOW {name}")).await.unwrap(), wanted, "{name}");
    }
    let collation = "SELECT datcollate::text FROM pg_database WHERE datname = current_database()";
    assert_eq!(query(&connection, collation).await.unwrap(), "C");
    assert_eq!(query(&connection, "SELECT current_user::text").await.unwrap(), "sealcast");
    for private in ["postgres", "run"] {
        assert_eq!(fs::metadata(data_dir.join(private)).unwrap().mode() & 0o777, 0o700, "{private}");
    }
    postgres.stop().await.unwrap();
    assert!(!data_dir.join("postgres/postmaster.pid").exists());
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn settings_reach_the_server_and_an_ephemeral_cluster_leaves_nothing() {
    let folder = folder();
    let data_dir = folder.path().join("made/by/start");
    let mut config = config(&data_dir);
    config.ephemeral = true;
    config.settings = vec![("fsync".into(), "off".into()), ("work_mem".into(), "9MB".into())];
    // Two of them share a data folder without knowing of each other.
    let began = Instant::now();
    let postgres = EmbeddedPostgres::start(config.clone()).await.unwrap();
    writeln!(std::io::stderr(), "ephemeral start {:?}", began.elapsed()).unwrap();
    let other = EmbeddedPostgres::start(config).await.unwrap();
    for postgres in [&postgres, &other] {
        let connection = postgres.connection_string("sealcast");
        assert_eq!(query(&connection, "SHOW fsync").await.unwrap(), "off");
        assert_eq!(query(&connection, "SHOW work_mem").await.unwrap(), "9MB");
        execute(&connection, "CREATE DATABASE \"it's\"").await;
        let name = query(&postgres.connection_string("it's"), "SELECT current_database()::text").await.unwrap();
        assert_eq!(name, "it's");
    }
    postgres.stop().await.unwrap();
    assert!(data_dir.exists(), "the other one still lives there");
    other.stop().await.unwrap();
    eventually("the data folder is removed", async || !data_dir.exists() || fs::remove_dir(&data_dir).is_ok()).await;
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_killed_broker_takes_its_server_with_it() {
    let folder = folder();
    let broker = Broker::start(&folder.path().join("data"), false);
    let server_pid = broker.server_pid;
    broker.kill();
    eventually("the server stops", async || !processes().iter().any(|process| process.0 == server_pid)).await;
    assert!(!folder.path().join("data/postgres/postmaster.pid").exists(), "it stopped in order");
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_killed_broker_leaves_nothing_of_an_ephemeral_cluster() {
    let folder = folder();
    let data_dir = folder.path().join("data");
    let broker = Broker::start(&data_dir, true);
    assert!(data_dir.exists());
    broker.kill();
    eventually("the folder is removed", async || !data_dir.exists()).await;
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_start_right_after_a_kill_finds_the_data() {
    let folder = folder();
    let broker = Broker::start(folder.path(), false);
    execute(&broker.connection, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    broker.kill();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let kept = query(&postgres.connection_string("sealcast"), "SELECT n::text FROM kept").await;
    assert_eq!(kept.unwrap(), "1");
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_server_left_running_is_stopped_and_replaced() {
    let folder = folder();
    let broker = Broker::start(folder.path(), false);
    let old = broker.server_pid;
    execute(&broker.connection, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    let _leftover = broker.kill_without_stopping_the_server();
    assert!(processes().iter().any(|process| process.0 == old), "the old server still runs");
    let began = Instant::now();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    assert!(began.elapsed() < DEADLINE);
    assert!(!processes().iter().any(|process| process.0 == old), "never two servers on one cluster");
    let kept = query(&postgres.connection_string("sealcast"), "SELECT n::text FROM kept").await;
    assert_eq!(kept.unwrap(), "1");
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
#[ignore = "waits 20 s for a server that ignores every gentler signal"]
async fn a_frozen_server_left_behind_is_replaced_within_the_deadline() {
    let folder = folder();
    let broker = Broker::start(folder.path(), false);
    let old = broker.server_pid;
    let _leftover = broker.kill_without_stopping_the_server();
    signal(old, "STOP");
    let began = Instant::now();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    writeln!(std::io::stderr(), "replaced a frozen server in {:?}", began.elapsed()).unwrap();
    assert!(began.elapsed() < DEADLINE);
    assert!(!processes().iter().any(|process| process.0 == old), "never two servers on one cluster");
    query(&postgres.connection_string("sealcast"), "SELECT 'up'").await.unwrap();
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_stale_pid_file_does_not_keep_the_server_from_starting() {
    for is_given_out_again in [false, true] {
        let folder = folder();
        let broker = Broker::start(folder.path(), false);
        let old = broker.server_pid;
        execute(&broker.connection, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
        let _leftover = broker.kill_without_stopping_the_server();
        signal(old, "KILL");
        eventually("the server is dead", async || !processes().iter().any(|process| process.0 == old)).await;
        let pid_file = folder.path().join("postgres/postmaster.pid");
        let lock_file = folder.path().join("run/.s.PGSQL.5432.lock");
        let owner = fs::metadata(&pid_file).unwrap();
        // Postgres only takes a process of its own account for a possible server.
        let mut stranger = Command::new("sleep");
        stranger.arg("60").current_dir("/");
        if owner.uid() != fs::metadata(folder.path()).unwrap().uid() {
            stranger.uid(owner.uid()).gid(owner.gid());
        }
        let mut stranger = stranger.spawn().unwrap();
        if is_given_out_again {
            for file in [&pid_file, &lock_file] {
                let text = fs::read_to_string(file).unwrap();
                fs::write(file, text.replacen(&old.to_string(), &stranger.id().to_string(), 1)).unwrap();
            }
        }
        let started = EmbeddedPostgres::start(config(folder.path())).await;
        let is_unharmed = stranger.try_wait().unwrap().is_none();
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        let postgres = started.unwrap();
        assert!(is_unharmed, "the stranger was hit");
        let kept = query(&postgres.connection_string("sealcast"), "SELECT n::text FROM kept").await;
        assert_eq!(kept.unwrap(), "1");
        postgres.stop().await.unwrap();
        assert_nothing_left(folder).await;
    }
}

#[tokio::test]
async fn a_killed_server_is_started_again_even_with_a_busy_backend() {
    let folder = folder();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let connection = postgres.connection_string("sealcast");
    execute(&connection, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    // A backend in the midst of a computation does not notice that its server is gone.
    let (client, driver) = tokio_postgres::connect(&connection, NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    let busy =
        tokio::spawn(async move { client.query("SELECT count(*) FROM generate_series(1, 100000000000)", &[]).await });
    let active = "SELECT count(*)::text FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%' \
                  AND pid <> pg_backend_pid()";
    eventually("the backend is busy", async || query(&connection, active).await.unwrap() == "1").await;
    let mut old = postgres.server_pid().unwrap();
    for round in 0..3 {
        let began = Instant::now();
        signal(old, "KILL");
        eventually("the server is back", async || {
            postgres.server_pid().is_some_and(|pid| pid != old)
                && query(&connection, "SELECT n::text FROM kept").await.is_ok_and(|kept| kept == "1")
        })
        .await;
        writeln!(std::io::stderr(), "round {round}: back after {:?}", began.elapsed()).unwrap();
        old = postgres.server_pid().unwrap();
    }
    assert!(busy.await.unwrap().is_err());
    let _ = driver.await;
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_server_whose_shell_was_killed_is_replaced() {
    let folder = folder();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let old = postgres.server_pid().unwrap();
    let shell = processes().iter().find(|process| process.0 == old).unwrap().1;
    signal(shell, "KILL");
    eventually("another server runs", async || postgres.server_pid().is_some_and(|pid| pid != old)).await;
    assert!(!processes().iter().any(|process| process.0 == old));
    query(&postgres.connection_string("sealcast"), "SELECT 'up'").await.unwrap();
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_second_broker_is_refused_and_told_by_whom() {
    let folder = folder();
    let broker = Broker::start(folder.path(), false);
    let refused = EmbeddedPostgres::start(config(folder.path())).await.unwrap_err();
    let EmbeddedError::Locked { holder, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(holder, Some(broker.child.id()));
    assert_eq!(query(&broker.connection, "SELECT 'unharmed'").await.unwrap(), "unharmed");
    broker.kill();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_dropped_handle_stops_the_server() {
    let folder = folder();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let pid = postgres.server_pid().unwrap();
    drop(postgres);
    eventually("the server stops", async || !processes().iter().any(|process| process.0 == pid)).await;
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn the_signals_of_a_terminal_do_not_reach_the_server() {
    let folder = folder();
    let broker = Broker::start(folder.path(), false);
    let all = processes();
    let group = |pid: u32| all.iter().find(|process| process.0 == pid).unwrap().2;
    let shell = all.iter().find(|process| process.0 == broker.server_pid).unwrap().1;
    assert_eq!(group(broker.child.id()), broker.child.id());
    assert_ne!(group(broker.server_pid), broker.child.id());
    for name in ["INT", "TERM", "HUP"] {
        signal(shell, name);
    }
    assert_eq!(query(&broker.connection, "SELECT 'up'").await.unwrap(), "up");
    assert!(processes().iter().any(|process| process.0 == shell), "the shell still guards the server");
    broker.kill();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_first_start_cut_short_does_not_poison_the_folder() {
    let folder = folder();
    let mut broker = Broker::spawn(folder.path(), false);
    let is_unfinished = |folder: &Path| {
        fs::read_dir(folder).unwrap().flatten().any(|entry| entry.file_name().to_string_lossy().contains("unfinished"))
    };
    eventually("initdb runs", async || is_unfinished(folder.path())).await;
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert!(!folder.path().join("postgres").exists());
    for _ in 0..2 {
        let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
        query(&postgres.connection_string("sealcast"), "SELECT 'up'").await.unwrap();
        postgres.stop().await.unwrap();
        let path = folder.path().to_str().unwrap();
        eventually("initdb is gone", async || !processes().iter().any(|(_, _, _, line)| line.contains(path))).await;
    }
    assert!(!is_unfinished(folder.path()));
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn an_unusable_bin_dir_is_named() {
    let folder = folder();
    let mut config = config(folder.path().join("data"));
    config.bin_dir = Some(folder.path().to_path_buf());
    let refused = EmbeddedPostgres::start(config).await.unwrap_err();
    assert!(matches!(&refused, EmbeddedError::BinDir { reason: Rejection::NoServer, .. }), "{refused}");
    assert!(!folder.path().join("data").exists(), "nothing was made");
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_cluster_of_another_version_is_refused_and_untouched() {
    let folder = folder();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    execute(&postgres.connection_string("sealcast"), "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").await;
    postgres.stop().await.unwrap();
    let version_file = folder.path().join("postgres/PG_VERSION");
    let version = fs::read_to_string(&version_file).unwrap();
    fs::write(&version_file, "99\n").unwrap();
    let refused = EmbeddedPostgres::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::VersionMismatch { cluster_major: 99, .. }), "{refused}");
    assert!(refused.to_string().contains("Postgres 99"), "{refused}");
    fs::write(&version_file, version).unwrap();
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let kept = query(&postgres.connection_string("sealcast"), "SELECT n::text FROM kept").await;
    assert_eq!(kept.unwrap(), "1");
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_parent_that_keeps_postgres_out_is_named() {
    let folder = folder();
    let is_root = fs::metadata(folder.path()).unwrap().uid() == 0;
    let parent = folder.path().join("closed");
    fs::create_dir(&parent).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(if is_root { 0o700 } else { 0o000 })).unwrap();
    let refused = EmbeddedPostgres::start(config(parent.join("a/b"))).await.unwrap_err();
    if is_root {
        assert!(matches!(&refused, EmbeddedError::ClosedFolder { folder, .. } if *folder == parent), "{refused}");
        assert!(refused.to_string().contains(&format!("chmod o+x {}", parent.display())), "{refused}");
    } else {
        assert!(matches!(&refused, EmbeddedError::Folder { .. }), "{refused}");
        assert!(refused.to_string().contains(parent.to_str().unwrap()), "{refused}");
    }
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!parent.join("a").exists(), "nothing was made");
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_long_path_puts_the_socket_elsewhere_and_nothing_of_it_is_left() {
    let folder = folder();
    let data_dir = folder.path().join("long".repeat(30));
    let postgres = EmbeddedPostgres::start(config(&data_dir)).await.unwrap();
    let connection = postgres.connection_string("sealcast");
    let socket_of = |connection: &str| PathBuf::from(connection.split('\'').nth(1).unwrap());
    let socket = socket_of(&connection);
    assert!(!socket.starts_with(folder.path()));
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o700);
    query(&connection, "SELECT 'up'").await.unwrap();
    postgres.stop().await.unwrap();
    assert!(!socket.exists());

    let broker = Broker::start(&data_dir, false);
    let socket = socket_of(&broker.connection);
    assert!(socket.exists());
    broker.kill();
    eventually("the socket folder is removed", async || !socket.exists()).await;
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn root_runs_an_existing_cluster_as_its_owner() {
    let folder = folder();
    if fs::metadata(folder.path()).unwrap().uid() != 0 {
        return;
    }
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let pid = postgres.server_pid().unwrap();
    assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);
    postgres.stop().await.unwrap();
    let cluster = folder.path().join("postgres");
    let hand_over = |owner: &str| {
        assert!(Command::new("chown").arg("-R").arg(owner).arg(&cluster).status().unwrap().success());
    };
    hand_over("root");
    let refused = EmbeddedPostgres::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::WrongOwner { owner: 0, .. }), "{refused}");
    hand_over("nobody");
    let postgres = EmbeddedPostgres::start(config(folder.path())).await.unwrap();
    let pid = postgres.server_pid().unwrap();
    let owner = fs::metadata(&cluster).unwrap().uid();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), owner);
    query(&postgres.connection_string("sealcast"), "SELECT 'up'").await.unwrap();
    postgres.stop().await.unwrap();
    assert_nothing_left(folder).await;
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log_at_once() {
    let folder = folder();
    let mut config = config(folder.path().join("data"));
    config.settings = vec![("shared_buffers".into(), "plenty".into())];
    let began = Instant::now();
    let refused = EmbeddedPostgres::start(config).await.unwrap_err();
    assert!(began.elapsed() < DEADLINE);
    assert!(matches!(&refused, EmbeddedError::Exited { .. }), "{refused}");
    assert!(refused.to_string().contains("shared_buffers"), "{refused}");
    assert_nothing_left(folder).await;
}
