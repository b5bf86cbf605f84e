//! Removes temporary folders once the broker and every process of its server are gone.
//!
//! What lives here: a small shell that outlives the broker. May be imported by the other files of this module.
//! Invariant: nothing is removed while a server may still write to it, because every process that may write holds the
//! pipe on whose end the shell waits: the broker by [`Janitor`], the server by the descriptor of [`Janitor::hold`].

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::error::EmbeddedError;

/// How long the removal may take once everybody is gone.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// Removes its arguments but the first, and the first only if it is empty. An `initdb` without its broker may still be
/// making files, hence the repetition.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
while read -r _; do :; done
empty=$1; shift
for _ in 1 2 3 4 5; do
  rm -rf -- "$@" && break
  sleep 1
done
test -z "$empty" || rmdir -- "$empty"
"#;

/// The waiting shell.
#[derive(Debug)]
pub(super) struct Janitor {
    child: Child,
    pipe: OwnedFd,
}

impl Janitor {
    /// Starts the shell under the broker's own account, which may remove what it made; `None` if there is nothing to
    /// remove.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Program`].
    pub(super) fn employ(remove: &[PathBuf], remove_if_empty: Option<&PathBuf>) -> Result<Option<Self>, EmbeddedError> {
        if remove.is_empty() {
            return Ok(None);
        }
        let failed = |source| EmbeddedError::Program { program: PathBuf::from("/bin/sh"), source };
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SCRIPT).arg("sealcast-janitor");
        command.arg(remove_if_empty.map_or("".as_ref(), |folder| folder.as_os_str())).args(remove);
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C in the broker's terminal must not reach it.
        command.process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let Some(stdin) = child.stdin.take() else {
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let pipe = stdin.into_owned_fd().map_err(failed)?;
        Ok(Some(Self { child, pipe }))
    }

    /// A descriptor for a process that must be gone before anything is removed.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Program`] when the process has no descriptors left.
    pub(super) fn hold(&self) -> Result<OwnedFd, EmbeddedError> {
        let failed = |source| EmbeddedError::Program { program: PathBuf::from("/bin/sh"), source };
        self.pipe.try_clone().map_err(failed)
    }

    /// Lets go of the pipe and waits until the folders are removed.
    ///
    /// # Cancel safety
    ///
    /// The removal goes on without being waited for.
    pub(super) async fn dismiss(mut self) {
        drop(self.pipe);
        if tokio::time::timeout(REMOVAL_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("the temporary folders of the embedded postgres are not removed yet");
        }
    }
}
