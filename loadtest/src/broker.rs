//! Runs a broker of its own: a child process of this very executable, on a private Postgres in a temporary folder.
//!
//! Invariants: the child ends with this process, since it watches its standard input; the folder goes with the
//! handle; durable settings of Postgres stay on, for the embedded one refuses anything else.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sealcast::config::Settings;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a broker may take to listen, a new cluster and a recovery included.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a broker may take to stop in good order.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Lines of the broker's log that are shown when it fails.
const LOG_LINES: usize = 20;

/// The subcommand as which the child runs.
pub(crate) const SUBCOMMAND: &str = "broker";

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    folder: TempDir,
    log: PathBuf,
    limits: Vec<(&'static str, u64)>,
    running: Option<Running>,
    address: String,
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
    /// Starts a broker with limits of its own, as keys of `config.toml`.
    pub(crate) async fn start(limits: Vec<(&'static str, u64)>, log: Option<PathBuf>) -> anyhow::Result<Self> {
        // Postgres runs under an account of its own when this process is root's, and must get through.
        let open = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("sealcast-loadtest-").permissions(open).tempdir();
        let folder = folder.context("making a temporary folder")?;
        let log = log.unwrap_or_else(|| folder.path().join("broker.log"));
        File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let mut broker = Self { folder, log, limits, running: None, address: "127.0.0.1:0".to_owned() };
        broker.launch().await?;
        Ok(broker)
    }

    /// `http://…`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
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
        command.env("SEALCAST__DATABASE__URL", "").env("SEALCAST__DATA_DIR", self.data_dir());
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
        self.address = address;
        self.running = Some(Running { child, _stdin: stdin, _lines: lines });
        Ok(())
    }

    /// Ends the broker with SIGKILL, and starts it again on the same port and folder.
    pub(crate) async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.launch().await
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.kill().await.context("killing the broker")?;
        }
        Ok(())
    }

    /// Ends the postmaster with SIGKILL; the broker starts it again. `false` if there was none just now.
    pub(crate) async fn kill_postgres(&self) -> anyhow::Result<bool> {
        match self.postmaster() {
            Some(pid) => signal("KILL", pid).await,
            None => Ok(false),
        }
    }

    /// The postmaster's process, if it is surely this broker's.
    pub(crate) fn postmaster(&self) -> Option<u32> {
        let cluster = self.data_dir().join("postgres");
        let file = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
        let pid: u32 = file.lines().next()?.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(&*cluster.to_string_lossy()).then_some(pid)
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

    /// Stops the broker and its Postgres in good order, and removes their folder.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take()
            && let Some(pid) = running.child.id()
        {
            signal("TERM", pid).await?;
            let ended = tokio::time::timeout(STOP_TIMEOUT, running.child.wait()).await;
            let status = ended.map_err(|_| anyhow!("the broker does not stop"))??;
            if !status.success() {
                bail!("the broker ended with {status}; its log ends with:\n{}", self.log_end());
            }
        }
        self.folder.close().context("removing the temporary folder")
    }
}

/// Sends a signal to a process; `false` if there is none.
async fn signal(name: &str, pid: u32) -> anyhow::Result<bool> {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null());
    Ok(command.status().await.context("running kill")?.success())
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
    sealcast::server::run(settings)?;
    Ok(())
}

/// Seconds of processor time that a process has used, its ended children not counted.
pub(crate) fn cpu_s(pid: &str) -> f64 {
    /// Linux counts in hundredths of a second, whatever the kernel's own clock.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    // The name in brackets may hold anything; utime and stime are fields 14 and 15, the first after it is field 3.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS_PER_S
}

/// Seconds of processor time of a process and the processes that it has as children now.
pub(crate) fn cpu_with_children_s(pid: u32) -> f64 {
    let mut total = cpu_s(&pid.to_string());
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.is_some_and(|parent| parent.trim() == pid.to_string()) {
            total += cpu_s(&name);
        }
    }
    total
}
