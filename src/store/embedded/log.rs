//! Keeps the server's log: opens it, bounds it, reads its end.
//!
//! What lives here: the file `postgres.log` and its one predecessor. May be imported by the other files of this
//! module. Invariant: the file is only ever appended to, also by the server, so that it can be emptied under it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::error::{EmbeddedError, folder_error};

/// The size at which the log is moved aside, in bytes.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// How much of the log an error carries, in bytes.
const TAIL_BYTES_MAX: u64 = 4096;

/// Opens the log for appending and tells where it ends now.
///
/// # Errors
///
/// [`EmbeddedError::Folder`].
pub(super) fn open(path: &Path) -> Result<(File, u64), EmbeddedError> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    let file = options.open(path).map_err(folder_error("open", path))?;
    let end = file.metadata().map_err(folder_error("read", path))?.len();
    Ok((file, end))
}

/// Moves an overlong log to `postgres.log.1` and empties it in place, since a running server keeps it open.
///
/// Lines written between the copy and the emptying are lost. Failure is logged and nothing more: no message depends on
/// this file.
///
/// # Cancel safety
///
/// The copy may be incomplete; the next call makes it anew.
pub(super) async fn bound(path: &Path) {
    let length = tokio::fs::metadata(path).await.map_or(0, |found| found.len());
    if length <= LOG_BYTES_MAX {
        return;
    }
    let bounded = async {
        tokio::fs::copy(path, path.with_extension("log.1")).await?;
        tokio::fs::OpenOptions::new().write(true).open(path).await?.set_len(0).await
    };
    if let Err(error) = bounded.await {
        tracing::warn!(%error, "cannot bound the postgres log");
    }
}

/// The length of the log in bytes; 0 when it cannot be read.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// The end of what was written after `start`, or a remark when nothing was.
pub(super) fn tail(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        // A log that was emptied meanwhile is shorter than its former end.
        let start = if start > end { 0 } else { start };
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.is_empty() => "(nothing was written to it)".to_owned(),
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => format!("(it cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn an_overlong_log_is_moved_aside_while_it_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        let (mut file, end) = open(&path).unwrap();
        assert_eq!(end, 0);
        file.write_all(&vec![b'x'; usize::try_from(LOG_BYTES_MAX).unwrap()]).unwrap();
        bound(&path).await;
        assert_eq!(length(&path), LOG_BYTES_MAX, "a log at the limit stays");
        file.write_all(b"y").unwrap();
        bound(&path).await;
        assert_eq!(length(&path), 0);
        assert_eq!(length(&folder.path().join("postgres.log.1")), LOG_BYTES_MAX + 1);
        file.write_all(b"after").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
    }

    #[test]
    fn the_tail_begins_where_the_server_was_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("postgres.log");
        let (mut file, _) = open(&path).unwrap();
        file.write_all(b"old\n").unwrap();
        let (_, start) = open(&path).unwrap();
        assert_eq!(tail(&path, start), "(nothing was written to it)");
        file.write_all(b"new\n").unwrap();
        assert_eq!(tail(&path, start), "new");
        assert_eq!(tail(&path, 1000), "old\nnew");
    }
}
