//! Finds the server that another process runs on a data folder, for those who only want to look.
//!
//! May be imported by everybody through the module. Invariant: nothing is made, locked or changed.
//!
//! Source: `PostgreSQL` manual, chapter "Database File Layout" (`postmaster.pid`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::cluster;
use super::error::{EmbeddedError, folder_error};
use super::folders::cluster_below;
use super::supervisor::connection_string;

/// Whether a data folder has a cluster.
///
/// # Errors
/// [`EmbeddedError::NotACluster`] when something else is there, [`EmbeddedError::Folder`].
pub fn has_cluster(data_dir: &Path) -> Result<bool, EmbeddedError> {
    Ok(cluster::major(&cluster_below(data_dir))?.is_some())
}

/// Where to connect to a server that runs on a data folder and accepts connections, as a `libpq` string; none if there
/// is no such server.
///
/// # Errors
/// [`EmbeddedError::Folder`] when its pid file cannot be read.
pub fn running(data_dir: &Path, database: &str) -> Result<Option<String>, EmbeddedError> {
    let path = cluster_below(data_dir).join("postmaster.pid");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(socket_folder(&text).map(|socket| connection_string(socket, database))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(folder_error("read", &path)(error)),
    }
}

/// The fifth line is the first folder with a socket, the eighth the state.
fn socket_folder(pid_file: &str) -> Option<&str> {
    let mut lines = pid_file.lines();
    let folder = lines.nth(4).map(str::trim).filter(|folder| !folder.is_empty());
    let is_ready = lines.nth(2).is_some_and(|state| state.trim() == "ready");
    folder.filter(|_| is_ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_accepts_connections_is_found() {
        let file = |state| format!("17\n/data/postgres\n1700000000\n5432\n/data/run\n\n  5432001  3\n{state}\n");
        assert_eq!(socket_folder(&file("ready   ")), Some("/data/run"));
        for other in ["starting", "stopping", "standby"] {
            assert_eq!(socket_folder(&file(other)), None);
        }
        assert_eq!(socket_folder("17\n/data/postgres\n"), None);
        assert_eq!(socket_folder(""), None);
    }

    #[test]
    fn without_a_cluster_there_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_cluster(folder.path()).unwrap());
        assert_eq!(running(folder.path(), "sealcast").unwrap(), None);
    }
}
