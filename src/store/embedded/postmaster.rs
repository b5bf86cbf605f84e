//! Reads the server's pid file, and ends a server that a killed broker left behind.
//!
//! What lives here: everything about `postmaster.pid`. May be imported by the other files of this module. The caller
//! holds the lock of the data folder. Invariants: a signal goes only to a process that was just seen to be the
//! postmaster of this very cluster; the pid file is disarmed, not deleted, since the server reads from it whether
//! backends of its predecessor still hold the shared memory.
//!
//! Source: `PostgreSQL` manual, chapters "Database File Layout" (`postmaster.pid`) and "Shutting Down the Server".

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::account::RunAs;
use super::error::{EmbeddedError, folder_error};
use super::folders::token;
use super::program;

/// A process id that no system gives out, but that the server takes for one.
const NOBODYS_PID: u32 = 0x7fff_ffff;

/// How often to look whether something has changed.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// The ways to end a server, gentlest first, and the patience with each: 19 s in all, so that a start which needs
/// them all still ends within 30 s. On `QUIT` the server itself kills children that take longer than 5 s. One that is killed
/// outright loses nothing that was committed; it is the last resort because it leaves its backends to notice by themselves.
const SIGNALS: [(&str, Duration); 3] =
    [("INT", Duration::from_secs(10)), ("QUIT", Duration::from_secs(6)), ("KILL", Duration::from_secs(3))];

/// How long a pid file may be empty: the server fills it right after making it.
const UNFINISHED_LIMIT: Duration = Duration::from_secs(2);

/// What the pid file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PidFile {
    /// There is none: no server runs.
    Missing,
    /// It has no first line yet.
    Unfinished,
    /// It names a server, alive or not.
    Named {
        /// Its process id.
        pid: u32,
        /// Whether it accepts connections.
        is_ready: bool,
    },
}

impl PidFile {
    /// Reads the pid file of a cluster.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Folder`].
    pub(super) fn read(cluster: &Path) -> Result<Self, EmbeddedError> {
        let path = path(cluster);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Missing),
            Err(error) => Err(folder_error("read", &path)(error)),
        }
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let Some(pid) = lines.next().and_then(|line| line.trim().parse().ok()) else {
            return Self::Unfinished;
        };
        // The state is the eighth line, six after the second.
        let is_ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        Self::Named { pid, is_ready }
    }

    /// The server that was started after [`clear`], if it accepts connections.
    pub(super) fn ready_pid(self) -> Option<u32> {
        match self {
            Self::Named { pid, is_ready: true } if pid != NOBODYS_PID => Some(pid),
            _ => None,
        }
    }
}

/// Makes sure that no server runs on the cluster and that nothing keeps a new one from starting.
///
/// # Errors
///
/// [`EmbeddedError::StillRunning`], or that of a file or program that failed.
///
/// # Cancel safety
///
/// A server may have been told to stop.
pub(super) async fn clear(cluster: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let deadline = Instant::now() + UNFINISHED_LIMIT;
    let mut state = PidFile::read(cluster)?;
    while state == PidFile::Unfinished && Instant::now() < deadline {
        sleep(POLL).await;
        state = PidFile::read(cluster)?;
    }
    match state {
        PidFile::Missing => Ok(()),
        // A machine that lost power while the file was made leaves it empty, and the server would refuse it.
        PidFile::Unfinished => {
            let path = path(cluster);
            fs::remove_file(&path).map_err(folder_error("remove", &path))
        }
        PidFile::Named { pid, .. } => {
            stop(pid, cluster).await?;
            disarm(cluster, run_as)
        }
    }
}

/// Ends a server if it is one of this cluster, and waits until it is gone.
///
/// # Errors
///
/// [`EmbeddedError::StillRunning`] after 19 s, or that of a program that failed.
///
/// # Cancel safety
///
/// The server may have been told to stop.
pub(super) async fn stop(pid: u32, cluster: &Path) -> Result<(), EmbeddedError> {
    for (signal, patience) in SIGNALS {
        if !is_postmaster(pid, cluster).await? {
            return Ok(());
        }
        tracing::info!(process.pid = pid, signal, "stopping a postgres server of this data folder");
        program::signal(pid, signal).await?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !is_postmaster(pid, cluster).await? {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(EmbeddedError::StillRunning { pid })
}

/// Tells the backends that a killed postmaster left behind to end.
///
/// They notice its death by themselves, but not in the midst of a long query, and until the last one is gone the
/// shared memory keeps a new server from starting. Without `/proc` they are only waited for.
///
/// # Errors
///
/// [`EmbeddedError::Program`] when the signal cannot be sent.
///
/// # Cancel safety
///
/// Some may have been told.
pub(super) async fn end_orphans(cluster: &Path) -> Result<(), EmbeddedError> {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let is_at_home = fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder == cluster);
        let is_backend = fs::read(entry.path().join("cmdline")).is_ok_and(|title| title.starts_with(b"postgres: "));
        if is_at_home && is_backend && !has_server(&entry.path()) {
            program::signal(pid, "QUIT").await?;
        }
    }
    Ok(())
}

/// Whether the parent of a process, given by its folder below `/proc`, is a live server: such a backend is no orphan,
/// and to end it would make its server throw away the very shared memory that keeps a second server out.
fn has_server(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold anything; the state and the parent's id follow it.
    let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
    let line = parent.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok()).unwrap_or_default();
    is_server_name(line.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Whether a process is the postmaster of this cluster; one that is dead or not waited for is not.
async fn is_postmaster(pid: u32, cluster: &Path) -> Result<bool, EmbeddedError> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    if Path::new("/proc/self/cmdline").exists() {
        let Ok(line) = fs::read(process.join("cmdline")) else {
            return Ok(false);
        };
        let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        // The postmaster works in its cluster, which also tells when the folder was moved meanwhile.
        let is_at_home = fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == cluster);
        let names_cluster = arguments.contains(&cluster.as_os_str().as_encoded_bytes());
        return Ok(is_server_name(arguments.first().copied().unwrap_or_default()) && (is_at_home || names_cluster));
    }
    let mut command = Command::new("ps");
    command.args(["-ww", "-o", "command=", "-p"]).arg(pid.to_string());
    let printed = program::output(command, b"", Duration::from_secs(5)).await?;
    let line = String::from_utf8_lossy(&printed.stdout);
    let line = line.trim();
    // Without separators between arguments the path must be followed by an end or by the next option.
    let wanted = format!("-D {}", cluster.display());
    let names_cluster = line.ends_with(&wanted) || line.contains(&format!("{wanted} "));
    let (name, _) = line.split_once(" -D ").unwrap_or((line, ""));
    Ok(is_server_name(name.as_bytes()) && names_cluster)
}

/// Whether the first argument of a process is the server program; its children show a title such as `postgres: …`.
fn is_server_name(argument: &[u8]) -> bool {
    let name = argument.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name == b"postgres" || name == b"postmaster"
}

/// Puts a process id into a stale pid file that cannot belong to anybody.
///
/// The server refuses to start when the process in the file is alive, whatever it is, and ids are given out again.
fn disarm(cluster: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let path = path(cluster);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // A server that stopped in order has removed it.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(folder_error("read", &path)(error)),
    };
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let new = cluster.join(format!("postmaster.pid.{}", token()));
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&new).map_err(folder_error("create", &new))?;
    file.write_all(format!("{NOBODYS_PID}\n{rest}").as_bytes()).map_err(folder_error("write", &new))?;
    run_as.own(&new)?;
    fs::rename(&new, &path).map_err(folder_error("replace", &path))
}

fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

#[cfg(test)]
mod tests {
    use std::process::Command as StdCommand;

    use super::*;

    const READY: &str = "4711\n/data/postgres\n1700000000\n5432\n/data/run\n\n  5432001  17\nready   \n";

    #[test]
    fn the_pid_file_is_read_in_every_state() {
        assert_eq!(PidFile::parse(READY), PidFile::Named { pid: 4711, is_ready: true });
        let starting = READY.replace("ready   ", "starting");
        assert_eq!(PidFile::parse(&starting), PidFile::Named { pid: 4711, is_ready: false });
        assert_eq!(PidFile::parse("4711\n/data\n"), PidFile::Named { pid: 4711, is_ready: false });
        assert_eq!(PidFile::parse(""), PidFile::Unfinished);
        assert_eq!(PidFile::parse("nonsense\n"), PidFile::Unfinished);
    }

    #[tokio::test]
    async fn a_stale_pid_file_keeps_its_shared_memory_but_names_nobody() {
        let cluster = tempfile::tempdir().unwrap();
        let run_as = RunAs::choose(None).await.unwrap();
        // The test process is alive and is no server: the id was given out again.
        fs::write(path(cluster.path()), READY.replacen("4711", &std::process::id().to_string(), 1)).unwrap();
        clear(cluster.path(), &run_as).await.unwrap();
        let text = fs::read_to_string(path(cluster.path())).unwrap();
        assert_eq!(text, READY.replacen("4711", "2147483647", 1));
        assert_eq!(PidFile::read(cluster.path()).unwrap().ready_pid(), None);
        assert_eq!(fs::read_dir(cluster.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn an_empty_pid_file_is_removed_after_a_while() {
        let cluster = tempfile::tempdir().unwrap();
        let run_as = RunAs::choose(None).await.unwrap();
        fs::write(path(cluster.path()), "").unwrap();
        clear(cluster.path(), &run_as).await.unwrap();
        assert_eq!(PidFile::read(cluster.path()).unwrap(), PidFile::Missing);
    }

    #[tokio::test]
    async fn a_process_that_only_mentions_the_cluster_is_not_its_server() {
        let cluster = tempfile::tempdir().unwrap();
        let mut other = StdCommand::new("sh")
            .args(["-c", "read -r _", "-D"])
            .arg(cluster.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(!is_postmaster(other.id(), cluster.path()).await.unwrap());
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(is_server_name(b"/usr/lib/postgresql/17/bin/postgres"));
        assert!(!is_server_name(b"postgres: checkpointer "));
        assert!(!is_server_name(b"/usr/bin/not-postgres"));
    }
}
