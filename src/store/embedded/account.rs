//! Decides under which account Postgres runs, and builds every command that runs under it.
//!
//! What lives here: the effective user, the account that replaces root, and the check that this account can reach the
//! data. May be imported by the other files of this module. Invariants: nothing of Postgres runs as root; a command
//! built here sees none of the broker's environment, which may hold secrets that the account could read.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::error::{EmbeddedError, folder_error};
use super::program;

/// How long a trivial program may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(10);

/// The accounts that may stand in for root, best first; the second is the one of macOS.
const ACCOUNTS: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// What a command keeps of the broker's environment: where programs, libraries and time zones are found.
const ENVIRONMENT: [&str; 6] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "TZDIR"];

/// The account under which Postgres runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunAs {
    /// The broker's own effective user.
    caller: u32,
    /// Whom to become; only root becomes somebody else.
    switch: Option<Account>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// Whether this process runs as root; `id` is asked, and no answer counts as no.
pub async fn is_root() -> bool {
    matches!(RunAs::id(&["-u"]).await, Ok(Some(0)))
}

impl RunAs {
    /// Chooses the account for a cluster, `None` or not yet there when it is to be made.
    ///
    /// An existing cluster keeps its owner: otherwise installing a package that brings the account `postgres` would
    /// lock the broker out of data that `nobody` wrote.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::NoAccount`] when root finds nobody to become, [`EmbeddedError::WrongOwner`] when the cluster
    /// belongs to somebody who cannot run it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub(super) async fn choose(cluster: Option<&Path>) -> Result<Self, EmbeddedError> {
        let caller = Self::id(&["-u"]).await?.ok_or(EmbeddedError::NoAccount)?;
        let owned = cluster.and_then(|folder| Some((folder, fs::metadata(folder).ok()?)));
        if caller != 0 {
            let run_as = Self { caller, switch: None };
            return match owned {
                Some((folder, found)) if found.uid() != caller => Err(run_as.wrong_owner(folder, found.uid())),
                _ => Ok(run_as),
            };
        }
        if let Some((_, found)) = owned.as_ref().filter(|(_, found)| found.uid() != 0) {
            let name = format!("owner of the data (uid {})", found.uid());
            return Ok(Self { caller, switch: Some(Account { name, uid: found.uid(), gid: found.gid() }) });
        }
        let run_as = Self { caller, switch: Some(Self::find(&ACCOUNTS).await?) };
        match owned {
            // An empty folder is handed over; data of root's are not, since their owner may have meant it.
            Some((folder, _)) if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) => {
                Err(run_as.wrong_owner(folder, caller))
            }
            _ => Ok(run_as),
        }
    }

    async fn find(names: &[&str]) -> Result<Account, EmbeddedError> {
        for name in names {
            let (Some(uid), Some(gid)) = (Self::id(&["-u", name]).await?, Self::id(&["-g", name]).await?) else {
                continue;
            };
            if uid != 0 {
                return Ok(Account { name: format!("account `{name}`"), uid, gid });
            }
        }
        Err(EmbeddedError::NoAccount)
    }

    /// Asks `id`, which also knows accounts that are not in `/etc/passwd`; `None` when there is no such account.
    async fn id(arguments: &[&str]) -> Result<Option<u32>, EmbeddedError> {
        let mut command = Command::new("id");
        command.args(arguments);
        let output = program::output(command, b"", PROGRAM_LIMIT).await?;
        if !output.status.success() {
            return Ok(None);
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok())
    }

    fn wrong_owner(&self, cluster: &Path, owner: u32) -> EmbeddedError {
        EmbeddedError::WrongOwner { cluster: cluster.to_path_buf(), owner, account: self.name() }
    }

    /// The account in words, for messages.
    pub(super) fn name(&self) -> String {
        match &self.switch {
            Some(account) => account.name.clone(),
            None => format!("broker's own account (uid {})", self.caller),
        }
    }

    /// Whether this is the user that runs the broker.
    pub(super) fn is_caller(&self, uid: u32) -> bool {
        self.caller == uid
    }

    /// Whether the account differs from the broker's own, which is then root.
    pub(super) fn is_switched(&self) -> bool {
        self.switch.is_some()
    }

    /// The mode of folders that hold more than Postgres's own: its account has to pass through them.
    pub(super) fn outer_mode(&self) -> u32 {
        if self.is_switched() { 0o755 } else { 0o700 }
    }

    /// A command that runs under the account, from a folder that every account may enter.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_clear().env("LC_ALL", "C");
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(account) = &self.switch {
            // The standard library also drops root's supplementary groups when it changes the user.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Gives a folder or file to the account.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Folder`].
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        let Some(account) = &self.switch else {
            return Ok(());
        };
        std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
            .map_err(folder_error("hand over to Postgres's account", path))
    }

    /// Checks, by entering them, that the account can pass through a folder and all those above it.
    ///
    /// Permission bits alone would not tell: access lists and mounts count too.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::ClosedFolder`] with the topmost folder that keeps the account out.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub(super) async fn check_reachable(&self, folder: &Path) -> Result<(), EmbeddedError> {
        if !self.is_switched() {
            return Ok(());
        }
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg("n=0; for d; do cd \"$d\" 2>/dev/null || { echo $n; exit; }; n=$((n+1)); done").arg("sh");
        command.args(&way);
        let printed = program::succeed(command, b"", PROGRAM_LIMIT).await?;
        match printed.parse::<usize>().ok().and_then(|index| way.get(index)) {
            Some(closed) => Err(EmbeddedError::ClosedFolder { folder: PathBuf::from(closed), account: self.name() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_account_is_passed_over_and_root_is_never_chosen() {
        let found = RunAs::find(&["no-such-account-here", "root", "nobody"]).await.unwrap();
        assert_eq!(found.name, "account `nobody`");
        assert_ne!(found.uid, 0);
        assert!(matches!(RunAs::find(&["root"]).await, Err(EmbeddedError::NoAccount)));
    }

    #[tokio::test]
    async fn a_command_does_not_see_the_brokers_environment() {
        let run_as = RunAs::choose(None).await.unwrap();
        let printed = program::succeed(run_as.command("env"), b"", PROGRAM_LIMIT).await.unwrap();
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_none() || !printed.contains("CARGO_MANIFEST_DIR"));
        assert!(printed.lines().any(|line| line == "LC_ALL=C"));
    }
}
