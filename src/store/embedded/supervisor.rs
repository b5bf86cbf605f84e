//! Keeps the server running for as long as the broker wants it.
//!
//! What lives here: the public handle and the task behind it. May be imported by everybody through the module.
//! Messages: the handle sends one request to stop; the task reports the server's process id. Invariant: while the
//! handle lives, a server that ended by itself is started again, however often, with a pause that grows to 5 s.

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::account::RunAs;
use super::binaries::Binaries;
use super::cluster;
use super::error::EmbeddedError;
use super::folders::{Folders, Lock, cluster_below};
use super::janitor::Janitor;
use super::log;
use super::provider;
use super::server::{Plan, Server, launch};
use super::settings::{EmbeddedConfig, PORT, ROLE};

/// The pause before the first restart; it doubles with every failure up to the second number.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// A server that ran for this long has recovered: the next failure is a new one.
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// How often the size of the log is looked at.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A private Postgres that is running, and is started again when it fails.
///
/// Dropping the handle without [`EmbeddedPostgres::stop`] stops the server in the background.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    socket: String,
    server_pid: Arc<AtomicU32>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), EmbeddedError>>,
}

impl EmbeddedPostgres {
    /// Starts the embedded Postgres and returns once it accepts connections.
    ///
    /// Makes the cluster when there is none, with the superuser `sealcast` and a database of the same name, and ends a
    /// server that a killed broker left behind. Must be called within a Tokio runtime that outlives the handle. Under a
    /// service manager that signals every process of a service, let it signal the broker alone first (systemd:
    /// `KillMode=mixed`): the server takes `SIGTERM` as a wish to accept nobody new.
    ///
    /// # Errors
    ///
    /// Every variant of [`EmbeddedError`]; their texts are written for the operator.
    ///
    /// # Cancel safety
    ///
    /// Nothing keeps running; a cluster that was not complete is removed by the next start.
    pub async fn start(config: EmbeddedConfig) -> Result<Self, EmbeddedError> {
        config.check_settings()?;
        let cluster = cluster_below(&config.data_dir);
        // An ephemeral cluster is always a new one.
        let cluster = (!config.ephemeral).then_some(cluster.as_path());
        let run_as = RunAs::choose(cluster).await?;
        let existing = cluster.map_or(Ok(None), cluster::major)?;
        let wanted = cluster.zip(existing);
        let binaries = Self::programs(&config, wanted, &run_as).await?;
        let mut folders = Folders::prepare(&config.data_dir, config.ephemeral, &run_as).await?;
        let lock = match cluster {
            Some(_) => Some(Lock::take(&config.data_dir).await?),
            // Every ephemeral cluster has a folder of its own, and so nobody to share it with.
            None => None,
        };
        if cluster::major(&folders.cluster)? != existing {
            // Another broker made the cluster while this one waited for the lock.
            drop(lock);
            return Box::pin(Self::start(config)).await;
        }
        let socket = match folders.socket_folder(&run_as).await {
            Ok(socket) => socket,
            Err(error) => {
                folders.remove_temporary().await;
                return Err(error);
            }
        };
        let plan = Plan {
            program: binaries.postgres(),
            arguments: config.server_arguments(&folders.cluster, &socket),
            run_as,
            cluster: folders.cluster.clone(),
            socket,
            log: folders.log.clone(),
            ephemeral: config.ephemeral,
        };
        let supervisor = Supervisor {
            janitor: Janitor::employ(&folders.temporary, folders.remove_if_empty.as_ref())?,
            server_pid: Arc::new(AtomicU32::new(0)),
            plan,
            _lock: lock,
        };
        let mut server = None;
        match supervisor.first_start(&folders, &binaries, existing.is_none(), &mut server).await {
            Ok(()) => Ok(supervisor.settle(server)),
            Err(error) => {
                if let Err(error) = supervisor.end(server).await {
                    tracing::warn!(error = &error as &dyn Error, "cannot stop a postgres that did not start");
                }
                Err(error)
            }
        }
    }

    /// The programs of the machine, or else those of a package.
    async fn programs(
        config: &EmbeddedConfig,
        cluster: Option<(&Path, u32)>,
        run_as: &RunAs,
    ) -> Result<Binaries, EmbeddedError> {
        let bin_dir = config.bin_dir.as_deref();
        match Binaries::resolve(bin_dir, config.search, cluster, run_as).await {
            Err(missing) if bin_dir.is_none() && missing.is_for_want_of_binaries() => {
                let cluster_major = cluster.map(|(_, major)| major);
                provider::provide(&config.programs()?, config.fetch, cluster_major, run_as, missing).await
            }
            resolved => resolved,
        }
    }

    /// Where to connect, as a `libpq` string of keywords and values.
    ///
    /// The folder of the socket never changes during the life of the handle, also not when the server is started
    /// again. There is no password: who may enter the folder may connect.
    pub fn connection_string(&self, database: &str) -> String {
        connection_string(&self.socket, database)
    }

    /// The process id of the server, or `None` while it is being started again.
    pub fn server_pid(&self) -> Option<u32> {
        Some(self.server_pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// Stops the server in order, which ends its connections, and waits until it is gone; an ephemeral cluster is
    /// removed then.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::StillRunning`] when the server ignores every signal for 49 s, or that of a file or program
    /// that failed.
    ///
    /// # Cancel safety
    ///
    /// The server stops without being waited for.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        // The task can only be gone already if its runtime is, which awaiting it tells.
        let _ = self.stop.send(());
        self.task.await.map_err(|source| EmbeddedError::Supervisor { source })?
    }
}

/// The `libpq` string of a server whose socket is in a folder.
pub(super) fn connection_string(socket: &str, database: &str) -> String {
    let quote = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    format!("host={} port={PORT} user={ROLE} dbname={}", quote(socket), quote(database))
}

/// What the task behind a handle owns.
#[derive(Debug)]
struct Supervisor {
    plan: Plan,
    janitor: Option<Janitor>,
    server_pid: Arc<AtomicU32>,
    _lock: Option<Lock>,
}

impl Supervisor {
    /// Makes the cluster if it is missing and starts the server, which is put into `server` also when it fails.
    async fn first_start(
        &self,
        folders: &Folders,
        binaries: &Binaries,
        is_new: bool,
        server: &mut Option<Server>,
    ) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        cluster::remove_unfinished(folders).await;
        if is_new {
            cluster::create(folders, binaries, &self.plan.run_as, self.plan.ephemeral).await?;
        }
        log::bound(&self.plan.log).await;
        self.launch(server).await?;
        tracing::info!(
            postgres.major = binaries.major(),
            postgres.program = %self.plan.program.display(),
            data_dir = %self.plan.cluster.display(),
            is_new,
            took_ms = began.elapsed().as_millis(),
            "embedded postgres accepts connections"
        );
        Ok(())
    }

    async fn launch(&self, server: &mut Option<Server>) -> Result<(), EmbeddedError> {
        let hold = || self.janitor.as_ref().map(Janitor::hold).transpose();
        let pid = launch(&self.plan, hold, server).await?;
        self.server_pid.store(pid, Ordering::Release);
        Ok(())
    }

    /// Moves into a task of its own and leaves the handle.
    fn settle(self, server: Option<Server>) -> EmbeddedPostgres {
        let (stop, stopped) = oneshot::channel();
        // The path of a socket folder is plain ASCII, so nothing is lost.
        let socket = self.plan.socket.to_string_lossy().into_owned();
        let server_pid = Arc::clone(&self.server_pid);
        let task = tokio::spawn(self.run(server, stopped));
        EmbeddedPostgres { socket, server_pid, stop, task }
    }

    /// Keeps the server running until the handle asks to stop or is dropped.
    async fn run(self, mut server: Option<Server>, stopped: oneshot::Receiver<()>) -> Result<(), EmbeddedError> {
        tokio::select! {
            biased;
            _ = stopped => {}
            never = self.keep_running(&mut server) => match never {},
        }
        self.end(server).await
    }

    /// May be cancelled at any point: what was started stays in `server`.
    async fn keep_running(&self, server: &mut Option<Server>) -> Infallible {
        let mut pause = RESTART_PAUSE_MIN;
        let mut look_at_log = interval(LOG_INTERVAL);
        look_at_log.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = Instant::now();
        loop {
            if let Some(running) = server.as_mut() {
                let ended = tokio::select! {
                    ended = running.ended() => ended,
                    _ = look_at_log.tick() => {
                        log::bound(&self.plan.log).await;
                        continue;
                    }
                };
                self.server_pid.store(0, Ordering::Release);
                match ended {
                    Ok(status) => tracing::warn!(%status, "embedded postgres ended by itself, starting it again"),
                    Err(error) => tracing::warn!(error = &error as &dyn Error, "lost sight of the embedded postgres"),
                }
                if since.elapsed() > RECOVERED_AFTER {
                    pause = RESTART_PAUSE_MIN;
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
            since = Instant::now();
            match self.launch(server).await {
                Ok(()) => tracing::info!(took_ms = since.elapsed().as_millis(), "embedded postgres is back"),
                Err(error) => {
                    let retry_after_ms = pause.as_millis();
                    tracing::error!(error = &error as &dyn Error, retry_after_ms, "cannot start the embedded postgres");
                    if let Some(failed) = server.as_mut()
                        && let Err(error) = failed.shut_down(&self.plan.cluster).await
                    {
                        tracing::error!(error = &error as &dyn Error, "cannot stop the embedded postgres");
                    }
                    *server = None;
                }
            }
        }
    }

    /// Stops the server if one was started, and waits until temporary folders are removed.
    async fn end(self, server: Option<Server>) -> Result<(), EmbeddedError> {
        self.server_pid.store(0, Ordering::Release);
        let stopped = match server {
            Some(mut server) => server.shut_down(&self.plan.cluster).await,
            None => Ok(()),
        };
        if let Some(janitor) = self.janitor {
            janitor.dismiss().await;
        }
        stopped
    }
}
