//! Is one running server, from its start to its end.
//!
//! What lives here: the shell that ties the server to the broker, the wait for readiness, and the shutdown. May be
//! imported by the other files of this module. Invariant: E3 of the module header. The broker holds the writing end of
//! a pipe; when it is closed, by a shutdown, a panic or the kernel, the shell stops the server.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin};
use tokio::time::{Instant, sleep, timeout};

use super::account::RunAs;
use super::error::{EmbeddedError, folder_error};
use super::log;
use super::postmaster::{self, POLL, PidFile};
use super::settings::PORT;

/// How long a starting server may say nothing. One that recovers from a crash writes a line every ten seconds, and
/// ending it would make the recovery begin again.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a server may take to start in any case.
const START_MAX: Duration = Duration::from_secs(900);

/// How long a shutdown in order may take before it is enforced: the last checkpoint writes up to all shared buffers.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long a start waits for a predecessor's processes, and how often it looks.
const HELD_MAX: Duration = Duration::from_secs(20);
const HELD_PAUSE: Duration = Duration::from_millis(100);

/// Runs its arguments from the second on, and sends the first, a signal, once its standard input ends.
///
/// The signals of a terminal or a service manager are ignored: the broker drains first and then closes the pipe. A
/// second shell waits for the end of the pipe, because a shell cannot wait for a pipe and a process at once; it asks
/// the first to pass the signal on, which cannot hit a stranger since the first has not yet collected the server. The
/// signal is repeated because a server ignores it in its first moments.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
signal=$1; shift
child=
trap '' INT TERM HUP
trap 'kill -s "$signal" "$child" 2>/dev/null' USR1
"$@" 3<&- &
child=$!
(
  trap - USR1
  exec >/dev/null
  while read -r _; do :; done <&3
  while kill -s USR1 $$ 2>/dev/null; do sleep 1; done
) &
watch=$!
exec 3<&-
while :; do
  wait "$child"
  status=$?
  kill -s 0 "$child" 2>/dev/null || break
done
kill -s KILL "$watch" 2>/dev/null
exit "$status"
"#;

/// Everything that is needed to start the server again and again.
#[derive(Debug)]
pub(super) struct Plan {
    /// The program `postgres`.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<OsString>,
    /// The account it runs under.
    pub(super) run_as: RunAs,
    /// The folder of the cluster.
    pub(super) cluster: PathBuf,
    /// The folder of the socket.
    pub(super) socket: PathBuf,
    /// The log.
    pub(super) log: PathBuf,
    /// Whether the data may be lost, so that a shutdown need not write them.
    pub(super) ephemeral: bool,
}

/// A running server. Dropping it closes the pipe and so stops the server in the background.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    lifeline: Option<ChildStdin>,
    log_start: u64,
}

impl Plan {
    /// Starts the server; the caller has called [`postmaster::clear`] before.
    ///
    /// `held` is closed when the last process of the server is gone.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Program`] or [`EmbeddedError::Folder`].
    pub(super) fn spawn(&self, held: Option<OwnedFd>) -> Result<Server, EmbeddedError> {
        let failed = |source| EmbeddedError::Program { program: PathBuf::from("/bin/sh"), source };
        let (log, log_start) = log::open(&self.log)?;
        let mut command = self.run_as.command("/bin/sh");
        command.arg("-c").arg(SCRIPT).arg("sealcast-postgres");
        command.arg(if self.ephemeral { "QUIT" } else { "INT" }).arg(&self.program).args(&self.arguments);
        command.stdin(Stdio::piped()).stderr(log).stdout(held.map_or_else(Stdio::null, Stdio::from));
        // Ctrl-C in the broker's terminal goes to its whole process group, and must not end the server first.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let Some(lifeline) = child.stdin.take() else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Server { child, lifeline: Some(lifeline), log_start })
    }

    /// Removes the socket and its lock file, which a killed server leaves. The server would refuse to start when the
    /// process id in the lock file was given out again.
    fn remove_socket(&self) -> Result<(), EmbeddedError> {
        let socket = self.socket_file();
        for path in [socket.with_added_extension("lock"), socket] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(folder_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn socket_file(&self) -> PathBuf {
        self.socket.join(format!(".s.PGSQL.{PORT}"))
    }
}

impl Server {
    /// Waits until the server accepts connections and returns its process id.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Exited`] as soon as it ends, [`EmbeddedError::NotReady`] when it has said nothing for 60 s or
    /// after 15 minutes.
    ///
    /// # Cancel safety
    ///
    /// Safe: may be called again.
    pub(super) async fn wait_ready(&mut self, plan: &Plan) -> Result<u32, EmbeddedError> {
        let started = Instant::now();
        let mut heard = (started, self.log_start);
        loop {
            let said = log::length(&plan.log);
            if said != heard.1 {
                heard = (Instant::now(), said);
            }
            if heard.0.elapsed() > SILENCE_MAX || started.elapsed() > START_MAX {
                let log_tail = log::tail(&plan.log, self.log_start);
                return Err(EmbeddedError::NotReady { waited: started.elapsed(), log: plan.log.clone(), log_tail });
            }
            if let Some(pid) = PidFile::read(&plan.cluster)?.ready_pid()
                && UnixStream::connect(plan.socket_file()).await.is_ok()
            {
                return Ok(pid);
            }
            if let Ok(status) = timeout(POLL, self.ended()).await {
                let log_tail = log::tail(&plan.log, self.log_start);
                return Err(EmbeddedError::Exited { status: status?, log: plan.log.clone(), log_tail });
            }
        }
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Program`] when the system cannot tell.
    ///
    /// # Cancel safety
    ///
    /// Safe: may be called again.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus, EmbeddedError> {
        let failed = |source| EmbeddedError::Program { program: PathBuf::from("/bin/sh"), source };
        self.child.wait().await.map_err(failed)
    }

    /// Stops the server and waits until it is gone: in order for 30 s, then by force for up to 19 s.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::StillRunning`], or that of a file or program that failed.
    ///
    /// # Cancel safety
    ///
    /// The server stops without being waited for; may be called again.
    pub(super) async fn shut_down(&mut self, cluster: &Path) -> Result<(), EmbeddedError> {
        drop(self.lifeline.take());
        if timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            tracing::warn!(waited_s = STOP_PATIENCE.as_secs(), "postgres does not stop in order, enforcing it");
            if let PidFile::Named { pid, .. } = PidFile::read(cluster)? {
                postmaster::stop(pid, cluster).await?;
            }
            // The shell has nothing left to wait for.
            let _ = timeout(POLL * 50, self.child.wait()).await;
        }
        Ok(())
    }
}

/// Starts the server, trying again while processes of its predecessor are about to go.
///
/// # Errors
///
/// As [`postmaster::clear`], [`Plan::spawn`] and [`Server::wait_ready`].
///
/// # Cancel safety
///
/// A server that was started is in `server`, also after an error, and has to be shut down.
pub(super) async fn launch(
    plan: &Plan,
    hold: impl Fn() -> Result<Option<OwnedFd>, EmbeddedError>,
    server: &mut Option<Server>,
) -> Result<u32, EmbeddedError> {
    let deadline = Instant::now() + HELD_MAX;
    loop {
        postmaster::clear(&plan.cluster, &plan.run_as).await?;
        plan.remove_socket()?;
        match server.insert(plan.spawn(hold()?)?).wait_ready(plan).await {
            Ok(pid) => return Ok(pid),
            Err(error) if error.is_held_by_predecessor() && Instant::now() < deadline => {
                tracing::info!("processes of an earlier postgres still hold the data folder, trying again");
                postmaster::end_orphans(&plan.cluster).await?;
                sleep(HELD_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}
