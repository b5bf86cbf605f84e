//! Keeps a keyring's records: nowhere, in memory, or in a profile folder.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A record: its name, and its bytes unless it is to go.
pub type Record = (String, Option<Vec<u8>>);

/// Where a keyring is kept.
///
/// Names are lower-case letters, digits and `-`. The calls block; the client makes them off its own tasks.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Whether what is written can be read again. If not, nothing is written.
    fn is_kept(&self) -> bool {
        true
    }

    /// Reads every record.
    ///
    /// # Errors
    /// [`StorageError`].
    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError>;

    /// Writes records; each is there as a whole or as it was before, whatever happens, once this returns.
    ///
    /// # Errors
    /// [`StorageError`]; then some may have been written.
    fn write(&self, records: &[Record]) -> Result<(), StorageError>;
}

/// Keeps nothing: the account ends with the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ephemeral;

impl Storage for Ephemeral {
    fn is_kept(&self) -> bool {
        false
    }

    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError> {
        Ok(BTreeMap::new())
    }

    fn write(&self, _: &[Record]) -> Result<(), StorageError> {
        Ok(())
    }
}

/// Keeps records in memory, for tests that restart a client.
#[derive(Default)]
pub struct MemoryStorage(Mutex<BTreeMap<String, Vec<u8>>>);

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStorage")
    }
}

impl Storage for MemoryStorage {
    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn write(&self, records: &[Record]) -> Result<(), StorageError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, content) in records {
            match content {
                Some(content) => kept.insert(name.clone(), content.clone()),
                None => kept.remove(name),
            };
        }
        Ok(())
    }
}

/// Why a profile cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// There is no profile.
    #[error("there is no profile in {}", .0.display())]
    Missing(PathBuf),
    /// Another process uses the profile.
    #[error("another process uses the profile in {}", .0.display())]
    Locked(PathBuf),
    /// The profile is sealed under a passphrase and none is given.
    #[error("the profile is sealed: a passphrase is needed")]
    PassphraseNeeded,
    /// A passphrase is given, and the profile is not sealed.
    #[error("the profile is not sealed, yet a passphrase is given")]
    NotSealed,
    /// The passphrase is another, or a file is not as it was written.
    #[error("the passphrase is wrong or the profile is damaged")]
    DoesNotOpen,
    /// The profile is of another version of this program.
    #[error("the profile is of another version")]
    Version,
    /// Sealing failed.
    #[error("the profile cannot be sealed")]
    Seal(#[source] crate::crypto::SealError),
    /// The file system.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}
