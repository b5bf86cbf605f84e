//! Makes the cluster on the first start, all of it or nothing.
//!
//! What lives here: `PG_VERSION`, `initdb` and the first database. May be imported by the other files of this module.
//! Invariants: E2 and E4 of the module header.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::account::RunAs;
use super::binaries::Binaries;
use super::error::{EmbeddedError, folder_error};
use super::folders::Folders;
use super::program;
use super::settings::ROLE;

/// How long a cluster may take to be made; half a second to two seconds are usual, a slow disk takes longer.
const INITDB_LIMIT: Duration = Duration::from_secs(180);

/// The major version of the cluster in a folder; `None` when the folder is missing or empty.
///
/// # Errors
///
/// [`EmbeddedError::NotACluster`] when something else is in it, [`EmbeddedError::Folder`] when it cannot be read.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let not_a_cluster = || EmbeddedError::NotACluster { folder: cluster.to_path_buf() };
    match fs::read_to_string(cluster.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| not_a_cluster()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(not_a_cluster()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(folder_error("read", cluster)(error)),
        Err(_) => match fs::read_dir(cluster).map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(None),
            Ok(false) => Err(not_a_cluster()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(folder_error("read", cluster)(error)),
        },
    }
}

/// Makes the cluster and its database under another name, and then gives it its final one.
///
/// # Errors
///
/// [`EmbeddedError::ProgramFailed`] with what `initdb` said, and the like.
///
/// # Cancel safety
///
/// An unfinished sibling may be left; the next start removes it.
pub(super) async fn create(
    folders: &Folders,
    binaries: &Binaries,
    run_as: &RunAs,
    ephemeral: bool,
) -> Result<(), EmbeddedError> {
    let unfinished = folders.unfinished_cluster(run_as)?;
    let mut initdb = run_as.command(binaries.initdb());
    initdb.arg("-D").arg(&unfinished).args(["-U", ROLE, "--auth-local=trust", "--auth-host=reject"]);
    initdb.args(["--locale=C", "--encoding=UTF8", "--data-checksums", "--no-instructions"]);
    if ephemeral {
        initdb.arg("--no-sync");
    }
    program::succeed(initdb, b"", INITDB_LIMIT).await?;

    // One server process without a postmaster: no socket is opened before the cluster is complete.
    let mut single = run_as.command(binaries.postgres());
    single.arg("--single").arg("-D").arg(&unfinished).args(["-c", "exit_on_error=on"]);
    if ephemeral {
        single.args(["-c", "fsync=off"]);
    }
    single.arg("postgres");
    let create_database = format!("CREATE DATABASE {ROLE};\n");
    program::succeed(single, create_database.as_bytes(), INITDB_LIMIT).await?;

    fs::rename(&unfinished, &folders.cluster).map_err(folder_error("rename to its final name", &unfinished))?;
    if let Some(parent) = folders.cluster.parent().filter(|_| !ephemeral) {
        // The new name must be on disk before anybody trusts the cluster with a message.
        File::open(parent).and_then(|folder| folder.sync_all()).map_err(folder_error("sync", parent))?;
    }
    Ok(())
}

/// Removes what interrupted first starts left. The caller holds the lock of the data folder.
///
/// # Cancel safety
///
/// Some of it may be left; the next start goes on.
pub(super) async fn remove_unfinished(folders: &Folders) {
    for folder in folders.unfinished_clusters() {
        match tokio::fs::remove_dir_all(&folder).await {
            Ok(()) => tracing::info!(folder = %folder.display(), "removed an unfinished postgres cluster"),
            // An `initdb` whose broker was killed may still be writing; its folder has a name of its own and waits.
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove an unfinished postgres cluster yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_or_empty_folder_counts_as_new() {
        let parent = tempfile::tempdir().unwrap();
        let cluster = parent.path().join("postgres");
        assert_eq!(major(&cluster).unwrap(), None);
        fs::create_dir(&cluster).unwrap();
        assert_eq!(major(&cluster).unwrap(), None);
        fs::write(cluster.join("letter.txt"), "dear").unwrap();
        assert!(matches!(major(&cluster), Err(EmbeddedError::NotACluster { .. })));
        fs::write(cluster.join("PG_VERSION"), "16\n").unwrap();
        assert_eq!(major(&cluster).unwrap(), Some(16));
        fs::write(cluster.join("PG_VERSION"), "nonsense").unwrap();
        assert!(matches!(major(&cluster), Err(EmbeddedError::NotACluster { .. })));
    }
}
