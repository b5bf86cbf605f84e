//! Runs a broker of its own: a child process of this very executable, on a private Postgres in a temporary folder.
//!
//! Lives here: the process and its folder, and what may be done to both; who says when is elsewhere. Invariants: the
//! child ends with this process, since it watches its standard input; the folder goes with the handle; durable settings
//! of Postgres stay on, for the embedded one refuses anything else; whatever was stopped goes on before it is asked to
//! end.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sealcast::config::Settings;
use sealcast::store::embedded::running;
use sealcast::store::pool::connection_config;
use sealcast_faults::Proxy;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::clock::Clock;
use super::database::{DATABASE, OwnPostgres};
use super::process::{children, command_line, signal};

/// How long a broker may take to listen, a new cluster and a recovery included.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a broker may take to stop in good order.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the database may take to let a verification in.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the broker may take to tell its metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Violations of the database that are shown.
const VIOLATIONS_LISTED: usize = 10;

/// Lines of the broker's log that are shown when it fails.
const LOG_LINES: usize = 20;

/// The subcommand as which the child runs.
pub(crate) const SUBCOMMAND: &str = "broker";

/// A pause between two tries to start a broker whose database cannot be reached just now.
const RELAUNCH_PAUSE: Duration = Duration::from_millis(200);

/// What a broker is started with.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Limits of its own, as keys of `config.toml`.
    pub(crate) limits: Vec<(&'static str, u64)>,
    /// Where its log goes, if not to its folder.
    pub(crate) log: Option<PathBuf>,
    /// Whether its database and its clock can be broken: then its Postgres is a child of this process, behind a proxy,
    /// and its wall clock follows a file.
    pub(crate) is_breakable: bool,
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    folder: TempDir,
    log: PathBuf,
    limits: Vec<(&'static str, u64)>,
    postgres: Option<OwnPostgres>,
    clock: Option<Clock>,
    running: Option<Running>,
    address: String,
    /// Of its operator's listener, `host:port`.
    operator: String,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The child stops when this closes, which waiting for the child would do too early.
    _stdin: ChildStdin,
    /// What the broker says later is read by nobody, but the pipe must stay open.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Broker {
    /// Starts a broker, and its Postgres.
    pub(crate) async fn start(plan: Plan) -> anyhow::Result<Self> {
        // Postgres runs under an account of its own when this process is root's, and must get through.
        let open = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("sealcast-loadtest-").permissions(open).tempdir();
        let folder = folder.context("making a temporary folder")?;
        let log = plan.log.unwrap_or_else(|| folder.path().join("broker.log"));
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let data_dir = folder.path().join("data");
        let postgres = if plan.is_breakable { Some(OwnPostgres::start(data_dir).await?) } else { None };
        let clock = if plan.is_breakable { Clock::find(folder.path())? } else { None };
        let (limits, address) = (plan.limits, "127.0.0.1:0".to_owned());
        let mut broker = Self { folder, log, limits, postgres, clock, running: None, address, operator: String::new() };
        broker.launch().await?;
        Ok(broker)
    }

    /// `http://…`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What its operator's listener tells at `/metrics`.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.operator).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.operator);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(METRICS_TIMEOUT, stream.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    /// The broker's wall clock, if it can be moved.
    pub(crate) fn clock(&self) -> Option<Clock> {
        self.clock.clone()
    }

    /// The way from the broker to its database, if it can be broken.
    pub(crate) fn database_path(&self) -> Option<Arc<Proxy>> {
        self.postgres.as_ref().map(OwnPostgres::path)
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The settings with which the broker runs.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(None)?;
        for (key, value) in &self.limits {
            match *key {
                "session.certificates_per_hour_max" => settings.session.certificates_per_hour_max = *value,
                "session.live_max" => settings.session.live_max = *value,
                "limits.membership_changes_per_minute" => {
                    settings.limits.membership_changes_per_minute = u32::try_from(*value).unwrap_or(u32::MAX);
                }
                _ => bail!("{key} is no limit that a scenario raises"),
            }
        }
        Ok(settings)
    }

    /// How to reach the private Postgres.
    pub(crate) fn database_url(&self) -> anyhow::Result<String> {
        running(&self.data_dir(), DATABASE)?.context("no Postgres is running")
    }

    /// The major version of the private Postgres.
    pub(crate) fn postgres_version(&self) -> Option<String> {
        let version = std::fs::read_to_string(self.data_dir().join("postgres/PG_VERSION")).ok()?;
        Some(version.trim().to_owned())
    }

    /// The broker's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options().append(true).open(&self.log).context("opening the broker's log")?;
        let mut command = Command::new(std::env::current_exe().context("finding this executable")?);
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        // The parent decides when the child stops, also after a signal to both from the terminal.
        command.process_group(0);
        command.env("SEALCAST__SERVER__LISTEN", &self.address).env("SEALCAST__OPERATOR__LISTEN", "127.0.0.1:0");
        let database = self.postgres.as_ref().map_or("", OwnPostgres::url);
        command.env("SEALCAST__DATABASE__URL", database).env("SEALCAST__DATA_DIR", self.data_dir());
        if let Some(clock) = &self.clock {
            command.envs(clock.environment());
        }
        for (key, value) in &self.limits {
            command.env(format!("SEALCAST__{}", key.replace('.', "__").to_uppercase()), value.to_string());
        }
        let mut child = command.spawn().context("starting the broker")?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("the broker has no standard output"))?;
        let stdin = child.stdin.take().ok_or_else(|| anyhow!("the broker has no standard input"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await;
        let address = match first {
            Ok(Ok(Some(line))) => line.strip_prefix("listening on http://").map(str::to_owned),
            _ => None,
        };
        let Some(address) = address else {
            bail!("the broker did not start; its log ends with:\n{}", self.log_end());
        };
        let second = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await??.unwrap_or_default();
        self.operator = second.strip_prefix("operator on http://").context("no operator's listener")?.to_owned();
        self.address = address;
        self.running = Some(Running { child, _stdin: stdin, _lines: lines });
        Ok(())
    }

    /// Recomputes what the database must keep, beside the broker and past every way that may be broken.
    pub(crate) async fn verify(&self) -> anyhow::Result<sealcast::verify::Report> {
        let url = match &self.postgres {
            Some(postgres) => Some(postgres.socket_url()),
            None => running(&self.data_dir(), DATABASE).context("finding the database")?,
        };
        let url = url.ok_or_else(|| anyhow!("the database does not run"))?;
        let config = connection_config(&url, VERIFY_TIMEOUT).context("reading the database's address")?;
        sealcast::verify::verify(&config, VIOLATIONS_LISTED).await.context("verifying the database")
    }

    /// Ends the broker with SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            let pid = running.child.id();
            running.child.kill().await.context("killing the broker")?;
            if let (Some(clock), Some(pid)) = (&self.clock, pid) {
                clock.forget(pid);
            }
        }
        Ok(())
    }

    /// Starts the broker again on the same port and folder, as often as that takes: it gives up when its database does
    /// not answer, and whoever runs it starts it anew.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match self.launch().await {
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(RELAUNCH_PAUSE).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Sends the broker a signal; `false` if it does not run.
    pub(crate) async fn signal(&self, name: &str) -> anyhow::Result<bool> {
        match self.pid() {
            Some(pid) => signal(name, pid).await,
            None => Ok(false),
        }
    }

    /// Sends the postmaster a signal; `false` if there is none just now. One that was killed is started again by who
    /// started it.
    pub(crate) async fn signal_postmaster(&self, name: &str) -> anyhow::Result<bool> {
        match self.postmaster() {
            Some(pid) => signal(name, pid).await,
            None => Ok(false),
        }
    }

    /// Sends every process of Postgres a signal, the postmaster first; `false` if there is none.
    pub(crate) async fn signal_postgres(&self, name: &str) -> anyhow::Result<bool> {
        let Some(postmaster) = self.postmaster() else { return Ok(false) };
        let found = signal(name, postmaster).await?;
        for child in children(postmaster) {
            signal(name, child).await?;
        }
        Ok(found)
    }

    /// Processes of Postgres that serve a connection.
    pub(crate) fn backends(&self) -> Vec<u32> {
        let serves = |pid: &u32| command_line(*pid).is_some_and(|command| command.contains("[local]"));
        self.postmaster().map(children).unwrap_or_default().into_iter().filter(serves).collect()
    }

    /// The postmaster's process, if it is surely this broker's.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let cluster = self.data_dir().join("postgres");
        let file = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let pid: u32 = file.lines().next()?.trim().parse().ok()?;
        command_line(pid)?.contains(&*cluster.to_string_lossy()).then_some(pid)
    }

    /// Whether the broker still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// The end of the broker's log.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }

    /// Ends the broker with SIGTERM, and waits until it has ended well.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take()
            && let Some(pid) = running.child.id()
        {
            signal("TERM", pid).await?;
            let ended = tokio::time::timeout(STOP_TIMEOUT, running.child.wait()).await;
            if let Some(clock) = &self.clock {
                clock.forget(pid);
            }
            let status = ended.map_err(|_| anyhow!("the broker does not stop"))??;
            if !status.success() {
                bail!("the broker ended with {status}; its log ends with:\n{}", self.log_end());
            }
        }
        Ok(())
    }

    /// Stops the broker and its Postgres in good order, and removes their folder.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if self.postgres.is_some() {
            self.signal("CONT").await?;
            self.signal_postgres("CONT").await?;
        }
        self.end().await?;
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await?;
        }
        self.folder.close().context("removing the temporary folder")
    }
}

/// Serves as the broker until a signal, or until the parent is gone.
pub(crate) fn serve() -> anyhow::Result<()> {
    let settings = Settings::load(None)?;
    sealcast::telemetry::subscriber::install(settings.log.format, &settings.log.filter)?;
    std::thread::spawn(|| {
        let mut nothing = [0];
        // The parent writes nothing: the pipe ends when it does.
        while matches!(std::io::stdin().read(&mut nothing), Ok(1)) {}
        let own = std::process::id().to_string();
        let _ = std::process::Command::new("kill").arg("-TERM").arg(own).status();
    });
    sealcast::server::run(settings, None)?;
    Ok(())
}
