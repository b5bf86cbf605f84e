//! Moves the wall clock of a process, with `libfaketime` where the machine has it.
//!
//! Invariants: the monotonic clock is left alone, as it is on a machine whose clock is set; what the library leaves in
//! shared memory for a process that was killed is removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Where distributions put libraries; the library is in `faketime`, below this or below one of its folders.
const LIBRARIES: [&str; 4] = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib"];

/// The library for processes of many threads.
const NAME: &str = "faketime/libfaketimeMT.so.1";

/// How long a process may go by what it read of the file before.
const CACHE_S: &str = "1";

/// A clock that follows a file.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One whose file is in a folder; none where the library is missing.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        let clock = Self { library, file: folder.join("clock") };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// What a process must have in its environment to go by it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone()),
            ("FAKETIME_CACHE_DURATION", CACHE_S.into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// Moves it so many seconds away from the machine's.
    pub(crate) fn set(&self, offset_s: i64) -> anyhow::Result<()> {
        // Renamed into place: a half-written file would be another time.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{offset_s:+}\n")).context("writing the clock")?;
        fs::rename(&new, &self.file).context("moving the clock")
    }

    /// Removes what the library leaves behind for a process that is gone.
    pub(crate) fn forget(&self, pid: u32) {
        for name in [format!("sem.faketime_sem_{pid}"), format!("faketime_shm_{pid}")] {
            // Most processes leave none.
            let _ = fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
}

fn library() -> Option<PathBuf> {
    for folder in LIBRARIES.map(Path::new) {
        let below = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut candidates = std::iter::once(folder.to_path_buf()).chain(below).map(|folder| folder.join(NAME));
        if let Some(library) = candidates.find(|library| library.is_file()) {
            return Some(library);
        }
    }
    None
}
