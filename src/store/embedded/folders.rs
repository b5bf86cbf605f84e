//! Owns the layout of the data folder, its lock and the folder of the socket.
//!
//! What lives here: everything that is decided about paths before a server is started. May be imported by the other
//! files of this module. Invariants: E1 and E5 of the module header; folders that were there before keep their mode.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::RunAs;
use super::error::{EmbeddedError, folder_error};
use super::settings::PORT;

/// The longest path of a socket file in bytes, without the final zero: `sun_path` less one.
const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// A child between fork and exec holds a copy of every descriptor, so that a lock just released may look taken.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Where everything of one start lives.
#[derive(Debug)]
pub(super) struct Folders {
    /// The cluster, whether or not it exists yet.
    pub(super) cluster: PathBuf,
    /// The server's log.
    pub(super) log: PathBuf,
    /// The socket when its path is short enough.
    run: PathBuf,
    /// What to remove when the server is gone.
    pub(super) temporary: Vec<PathBuf>,
    /// The data folder itself, if it was made for an ephemeral cluster: to be removed when empty.
    pub(super) remove_if_empty: Option<PathBuf>,
}

/// The lock of a data folder; released when dropped, also by the kernel.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// The folder of the cluster below a data folder.
pub(super) fn cluster_below(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres")
}

impl Folders {
    /// Makes the data folder, and for an ephemeral cluster a fresh one below it.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::ClosedFolder`] or [`EmbeddedError::Folder`]. Nothing is made when Postgres's account could not
    /// reach it.
    ///
    /// # Cancel safety
    ///
    /// Folders may have been made; the next call takes them as they are.
    pub(super) async fn prepare(data_dir: &Path, ephemeral: bool, run_as: &RunAs) -> Result<Self, EmbeddedError> {
        let data_dir = std::path::absolute(data_dir).map_err(folder_error("find", data_dir))?;
        let existed = data_dir.exists();
        make_reachable(&data_dir, run_as).await?;
        // The server is recognised by the path on its command line, which must not depend on the spelling.
        let data_dir = fs::canonicalize(&data_dir).map_err(folder_error("resolve", &data_dir))?;
        let mut folders = Self {
            cluster: cluster_below(&data_dir),
            log: data_dir.join("postgres.log"),
            run: data_dir.join("run"),
            temporary: Vec::new(),
            remove_if_empty: None,
        };
        if ephemeral {
            let own = data_dir.join(format!("e-{}", token()));
            make_with_parents(&own, run_as.outer_mode())?;
            folders.cluster = cluster_below(&own);
            folders.log = own.join("postgres.log");
            folders.run = own.join("run");
            folders.temporary.push(own);
            folders.remove_if_empty = (!existed).then_some(data_dir);
        }
        Ok(folders)
    }

    /// Makes the folder for the socket: `run` if its path is short enough, else one below the system's temporary
    /// folder, which is then noted for removal.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::NoSocketFolder`] or [`EmbeddedError::Folder`].
    ///
    /// # Cancel safety
    ///
    /// An empty folder may be left.
    pub(super) async fn socket_folder(&mut self, run_as: &RunAs) -> Result<PathBuf, EmbeddedError> {
        if is_fit_for_socket(&self.run) {
            make_private(&self.run, run_as)?;
            return Ok(self.run.clone());
        }
        for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
            let Ok(parent) = fs::canonicalize(parent) else {
                continue;
            };
            let folder = parent.join(format!("sealcast-{}", token()));
            if !is_fit_for_socket(&folder) || run_as.check_reachable(&parent).await.is_err() {
                continue;
            }
            if make_private(&folder, run_as).is_ok() {
                self.temporary.push(folder.clone());
                return Ok(folder);
            }
        }
        Err(EmbeddedError::NoSocketFolder { path_bytes_max: SOCKET_PATH_BYTES_MAX })
    }

    /// Removes what a start made that went no further than its folders; afterwards that is the janitor's work.
    ///
    /// # Cancel safety
    ///
    /// Some of it may be left.
    pub(super) async fn remove_temporary(&self) {
        for folder in &self.temporary {
            if let Err(error) = tokio::fs::remove_dir_all(folder).await {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove a temporary folder");
            }
        }
        if let Some(folder) = &self.remove_if_empty {
            // Another ephemeral cluster may live there.
            let _ = tokio::fs::remove_dir(folder).await;
        }
    }

    /// Makes a new folder next to the cluster, for a cluster that is not complete yet.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Folder`].
    pub(super) fn unfinished_cluster(&self, run_as: &RunAs) -> Result<PathBuf, EmbeddedError> {
        let folder = self.cluster.with_file_name(format!("{UNFINISHED_PREFIX}{}", token()));
        make_private(&folder, run_as)?;
        Ok(folder)
    }

    /// The clusters that earlier starts left unfinished.
    pub(super) fn unfinished_clusters(&self) -> Vec<PathBuf> {
        let parent = self.cluster.parent().unwrap_or(Path::new("/"));
        let mut left = Vec::new();
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED_PREFIX.as_bytes()) {
                left.push(entry.path());
            }
        }
        left
    }
}

const UNFINISHED_PREFIX: &str = "postgres.unfinished-";

impl Lock {
    /// Takes the lock of a data folder, waiting half a second at most.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Locked`] when another broker holds it, [`EmbeddedError::Folder`].
    ///
    /// # Cancel safety
    ///
    /// The lock is released.
    pub(super) async fn take(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let path = data_dir.join("lock");
        let failed = |source| EmbeddedError::Folder { action: "lock", path: path.clone(), source };
        let mut options = File::options();
        // The standard library opens with close-on-exec, so that no child keeps the lock after the broker.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        let mut attempt = 1;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let holder = holder.trim().parse().ok();
                    return Err(EmbeddedError::Locked { data_dir: data_dir.to_path_buf(), holder });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Whether a socket in the folder has a path that fits, and that the server's list of folders can carry as it is.
fn is_fit_for_socket(folder: &Path) -> bool {
    let bytes = folder.as_os_str().as_encoded_bytes();
    let file = format!("/.s.PGSQL.{PORT}");
    let is_plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte));
    is_plain && bytes.len() + file.len() <= SOCKET_PATH_BYTES_MAX
}

/// Makes a folder, and those above it, that Postgres's account can enter.
///
/// # Errors
///
/// [`EmbeddedError::ClosedFolder`] or [`EmbeddedError::Folder`]. Nothing is made when the account could not reach it.
///
/// # Cancel safety
///
/// Folders may have been made; the next call takes them as they are.
pub(super) async fn make_reachable(folder: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let nearest = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let nearest = fs::canonicalize(nearest).map_err(folder_error("resolve", nearest))?;
    run_as.check_reachable(&nearest).await?;
    make_with_parents(folder, run_as.outer_mode())
}

fn make_with_parents(folder: &Path, mode: u32) -> Result<(), EmbeddedError> {
    let mut missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    missing.reverse();
    for folder in missing {
        DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(folder_error("create", folder))?;
        // The process's file mode mask may have taken bits away that Postgres's account needs.
        fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(folder_error("set the mode of", folder))?;
    }
    if folder.is_dir() {
        return Ok(());
    }
    Err(folder_error("use as a folder", folder)(std::io::ErrorKind::NotADirectory.into()))
}

/// A folder, old or new, for Postgres's account alone.
fn make_private(folder: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
        result => result.map_err(folder_error("create", folder))?,
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(folder_error("set the mode of", folder))?;
    run_as.own(folder)
}

/// A name that no other start uses, now or later.
pub(super) fn token() -> String {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_folder_must_be_short_and_plain() {
        let limit = SOCKET_PATH_BYTES_MAX - "/.s.PGSQL.5432".len();
        let fitting = format!("/{}", "a".repeat(limit - 1));
        assert!(is_fit_for_socket(Path::new(&fitting)));
        assert!(!is_fit_for_socket(Path::new(&format!("{fitting}a"))));
        for strange in ["/with space", "/a,b", "/quo\"te", "/ümlaut"] {
            assert!(!is_fit_for_socket(Path::new(strange)), "{strange}");
        }
    }

    #[tokio::test]
    async fn the_lock_names_its_holder_and_is_free_after_a_drop() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).await.unwrap();
        let refused = Lock::take(folder.path()).await.unwrap_err();
        assert!(matches!(refused, EmbeddedError::Locked { holder: Some(pid), .. } if pid == std::process::id()));
        drop(lock);
        Lock::take(folder.path()).await.unwrap();
    }

    #[test]
    fn tokens_differ() {
        assert_ne!(token(), token());
    }
}
