//! Starts that go wrong: a data folder or a port that is taken, an end in the midst of a start.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::super::support::broker::{Broker, Settings, executable};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::proxy::{self, Proxy};
use super::super::super::support::{eventually, trials, within};

/// A folder that Postgres' account can reach.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("sealcast-it-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A broker that is not waited for. It is killed when it is dropped.
struct Starting(Option<Child>);

impl Starting {
    fn begin(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(executable());
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("SEALCAST__SERVER__LISTEN", "127.0.0.1:0").env("SEALCAST__OPERATOR__LISTEN", "127.0.0.1:0");
        command.envs(variables.iter().copied());
        Self(Some(command.spawn().unwrap()))
    }

    /// On a data folder, with a Postgres of its own.
    fn on(data: &Path) -> Self {
        Self::begin(&[("SEALCAST__DATA_DIR", data.to_str().unwrap())])
    }

    fn signal(&self, name: &str) {
        let pid = self.0.as_ref().unwrap().id().to_string();
        Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
    }

    async fn end(mut self) -> Output {
        let child = self.0.take().unwrap();
        within("the end of a start", tokio::task::spawn_blocking(|| child.wait_with_output().unwrap())).await.unwrap()
    }

    fn kill(mut self) -> ExitStatus {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// That it failed, and the one line that says why.
fn reason(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "it said that it listens");
    let stderr = String::from_utf8_lossy(&output.stderr);
    stderr.lines().find_map(|line| line.strip_prefix("sealcast: ")).expect("a reason").to_owned()
}

/// Waits until no process names the folder any more.
async fn is_left_alone(folder: &TempDir) {
    let path = folder.path().to_str().unwrap().to_owned();
    eventually("no process of the folder is left", async || {
        let processes = Command::new("ps").args(["-A", "-ww", "-o", "stat=,args="]).output().unwrap().stdout;
        let processes = String::from_utf8_lossy(&processes).into_owned();
        !processes.lines().any(|line| !line.starts_with('Z') && line.contains(&path))
    })
    .await;
}

#[tokio::test]
async fn a_second_broker_on_a_data_folder_is_refused_by_name_and_harms_nobody() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut broker = Broker::start_with(Settings::default().with("data_dir", data.display())).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let chat_id = ada.create_chat(&mut socket).await;
    // All of them at once: none gets in by being quick.
    let others: Vec<_> = (0..3).map(|_| Starting::on(&data)).collect();
    for other in others {
        let reason = reason(&other.end().await);
        assert!(reason.contains(&broker.pid().to_string()), "{reason}");
    }
    ada.say(&mut socket, chat_id, "unharmed").await.unwrap();
    // Who kills the first may start the second.
    broker.kill();
    let mut second = Broker::start_with(Settings::default().with("data_dir", data.display())).await;
    let mut socket = ada.connect_live(&second).await;
    ada.say(&mut socket, chat_id, "still there").await.unwrap();
    second.signal("TERM");
    assert_eq!(second.exit_code().await, Some(0));
    is_left_alone(&folder).await;
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_its_address_and_leaves_nothing() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (which, data) in [("SEALCAST__SERVER__LISTEN", "public"), ("SEALCAST__OPERATOR__LISTEN", "operator")] {
        let data = folder.path().join(data);
        let starting = Starting::begin(&[("SEALCAST__DATA_DIR", data.to_str().unwrap()), (which, &address)]);
        let reason = reason(&starting.end().await);
        assert!(reason.contains(&address), "{reason}");
        is_left_alone(&folder).await;
        assert!(!data.join("postgres/postmaster.pid").exists(), "its postgres was stopped in order");
    }
}

#[tokio::test]
async fn a_second_broker_on_a_port_leaves_the_first_its_connections() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let second =
        [("SEALCAST__DATABASE__URL", database.url()), ("SEALCAST__SERVER__LISTEN", broker.address().to_owned())];
    let second: Vec<(&str, &str)> = second.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let reason = reason(&Starting::begin(&second).end().await);
    assert!(reason.contains(broker.address()), "{reason}");
    ada.create_chat(&mut socket).await;
    for _ in 0..8 {
        ada.connect_live(&broker).await;
    }
}

#[tokio::test]
async fn sigterm_while_the_database_is_waited_for_ends_the_start_in_good_order() {
    let database = Database::create().await;
    for broken in [proxy::Path::Hold, proxy::Path::Reset] {
        let (path, url) = Proxy::before(&database).await;
        path.set(broken);
        let starting = Starting::begin(&[("SEALCAST__DATABASE__URL", &url), ("SEALCAST__DATABASE__DEADLINE_S", "300")]);
        let pid = starting.0.as_ref().unwrap().id();
        eventually("the signal to be heard", async || catches_sigterm(pid)).await;
        starting.signal("TERM");
        let output = starting.end().await;
        assert_eq!(output.status.code(), Some(0), "{broken:?}");
        assert!(output.stdout.is_empty(), "it said that it listens");
    }
}

/// Whether a process hears SIGTERM itself.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
}

/// How long a start takes here, on a folder that is there or not.
async fn start_time(data: &Path) -> Duration {
    let began = Instant::now();
    let mut broker = Broker::start_with(Settings::default().with("data_dir", data.display())).await;
    let took = began.elapsed();
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
    took
}

/// Cuts starts on one folder short at times by chance, from the first moment to a little after the last.
async fn starts_cut_short(cut: impl AsyncFn(Starting)) {
    let folder = folder();
    let first = start_time(&folder.path().join("measured")).await;
    let data = folder.path().join("data");
    for trial in 0..trials(4, 100) {
        let mut share = [0; 1];
        getrandom::fill(&mut share).unwrap();
        let starting = Starting::on(&data);
        // The pause is the fault. Most of a first start is the making of the cluster; later ones find it made.
        let longest = if trial % 2 == 0 { first } else { first / 3 };
        tokio::time::sleep(longest * u32::from(share[0]) / 250).await;
        cut(starting).await;
    }
    // Whatever was left: the folder is good for a start, and what was acknowledged in it stays.
    let mut broker = Broker::start_with(Settings::default().with("data_dir", data.display())).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let chat_id = ada.create_chat(&mut socket).await;
    ada.say(&mut socket, chat_id, "good").await.unwrap();
    broker.kill_and_restart().await;
    let mut socket = ada.connect_live(&broker).await;
    ada.say(&mut socket, chat_id, "still good").await.unwrap();
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
    is_left_alone(&folder).await;
}

#[tokio::test]
async fn starts_killed_at_any_moment_leave_a_folder_that_starts() {
    starts_cut_short(async |starting: Starting| {
        starting.kill();
    })
    .await;
}

#[tokio::test]
async fn starts_terminated_at_any_moment_end_in_time_and_leave_a_folder_that_starts() {
    starts_cut_short(async |starting: Starting| {
        starting.signal("TERM");
        let status = starting.end().await.status;
        // Before the signal is heard it ends the process as it ends any; a start that failed would say 1.
        assert_ne!(status.code(), Some(1), "{status}");
    })
    .await;
}
