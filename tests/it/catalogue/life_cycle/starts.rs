//! Starts that go wrong: a data folder or a port that is taken, an end in the midst of a start.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::super::support::broker::{Broker, Settings, executable};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::proxy::{self, Proxy};
use super::super::super::support::{eventually, trials};

/// A folder that Postgres' account can reach.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("sealcast-it-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A broker that is not waited for. It is killed when it is dropped.
struct Starting {
    child: Child,
    stdout: File,
    stderr: File,
}

/// How a start ended, and what was said until then.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Starting {
    fn begin(variables: &[(&str, &str)]) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new(executable());
        command.arg("serve").stdin(Stdio::null());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        command.env("SEALCAST__SERVER__LISTEN", "127.0.0.1:0").env("SEALCAST__OPERATOR__LISTEN", "127.0.0.1:0");
        command.envs(variables.iter().copied());
        Self { child: command.spawn().unwrap(), stdout, stderr }
    }

    /// On a data folder, with a Postgres of its own.
    fn on(data: &Path) -> Self {
        Self::begin(&[("SEALCAST__DATA_DIR", data.to_str().unwrap())])
    }

    fn signal(&self, name: &str) {
        Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
    }

    async fn end(mut self) -> Ended {
        let mut status = None;
        eventually("the end of a start", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        Ended { status: status.unwrap(), stdout: said(&mut self.stdout), stderr: said(&mut self.stderr) }
    }
}

/// All that was written to a file that both ends share.
fn said(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// That it failed, and the one line that says why.
fn reason(ended: &Ended) -> String {
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.is_empty(), "it said that it listens");
    ended.stderr.lines().find_map(|line| line.strip_prefix("sealcast: ")).expect("a reason").to_owned()
}

/// The processes that name a folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let processes = Command::new("ps").args(["-A", "-ww", "-o", "stat=,pid=,args="]).output().unwrap().stdout;
    let processes = String::from_utf8_lossy(&processes).into_owned();
    let path = folder.to_str().unwrap();
    let of_folder = processes.lines().filter(|line| !line.starts_with('Z') && line.contains(path));
    of_folder.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

/// Waits until no process names the folder any more.
async fn is_left_alone(folder: &TempDir) {
    eventually("no process of the folder is left", async || processes_of(folder.path()).is_empty()).await;
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
        let pid = starting.child.id();
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

/// Whether there is something of a cluster, under whatever name it is made.
fn is_making_a_cluster(data: &Path) -> bool {
    let folders = std::fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.is_dir()).any(|folder| folder.join("base").exists())
}

/// Cuts starts on one folder short, once while its cluster is made and then at times by chance, from the first moment to a
/// little after the last.
async fn starts_cut_short(cut: impl AsyncFn(Starting, &Path, usize)) {
    let folder = folder();
    let first = start_time(&folder.path().join("measured")).await;
    let data = folder.path().join("data");
    for trial in 0..trials(3, 100) {
        let mut share = [0; 1];
        getrandom::fill(&mut share).unwrap();
        let starting = Starting::on(&data);
        if trial == 0 {
            // The worst moment is not left to chance.
            eventually("the making of a cluster", async || is_making_a_cluster(&data)).await;
        } else {
            // The pause is the fault. Most of a first start is the making of the cluster; later ones find it made.
            let longest = if trial.is_multiple_of(2) { first } else { first / 3 };
            tokio::time::sleep(longest * u32::from(share[0]) / 250).await;
        }
        cut(starting, &data, trial).await;
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
    starts_cut_short(async |starting: Starting, data: &Path, trial| {
        if trial.is_multiple_of(2) {
            // All at once, as a machine ends them: what makes the cluster cleans nothing up.
            let pids = [vec![starting.child.id().to_string()], processes_of(data)].concat();
            Command::new("kill").arg("-KILL").args(pids).status().unwrap();
        }
        drop(starting);
    })
    .await;
}

#[tokio::test]
async fn starts_terminated_at_any_moment_end_in_time_and_leave_a_folder_that_starts() {
    starts_cut_short(async |starting: Starting, _: &Path, _| {
        starting.signal("TERM");
        let status = starting.end().await.status;
        // Before the signal is heard it ends the process as it ends any; a start that failed would say 1.
        assert_ne!(status.code(), Some(1), "{status}");
    })
    .await;
}
