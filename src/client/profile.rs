//! Keeps a keyring in a folder of its own: locked, written atomically, sealed under a passphrase if one is given.
//!
//! Files: `lock` (held while the profile is in use), `profile.json` (version and salt), one `*.bin` a record.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::storage::{Record, Storage, StorageError};
use crate::crypto::profile::{ProfileKey, SALT_BYTES};
use crate::crypto::random;

const VERSION: u32 = 1;
const LOCK_FILE: &str = "lock";
const HEADER_FILE: &str = "profile.json";
const RECORD_SUFFIX: &str = "bin";
const TEMPORARY_SUFFIX: &str = "tmp";

/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    /// Absent if the records are not sealed.
    salt: Option<[u8; SALT_BYTES]>,
}

/// A profile folder. The lock is held until it is dropped.
#[derive(Debug)]
pub struct Profile {
    folder: PathBuf,
    key: Option<ProfileKey>,
    _lock: File,
}

impl Profile {
    /// Opens a profile that is there.
    ///
    /// Blocks up to `wait` while another process holds it.
    ///
    /// # Errors
    /// [`StorageError::Missing`], [`StorageError::Locked`], a passphrase that is lacking or needless, or the
    /// file system. Whether the passphrase is right shows when records are read.
    pub fn open(folder: &Path, passphrase: Option<&[u8]>, wait: Duration) -> Result<Self, StorageError> {
        if !folder.join(HEADER_FILE).is_file() {
            return Err(StorageError::Missing(folder.to_owned()));
        }
        let lock = take_lock(folder, wait)?;
        let path = folder.join(HEADER_FILE);
        let header = fs::read(&path).map_err(at(&path))?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| StorageError::Version)?;
        if header.version != VERSION {
            return Err(StorageError::Version);
        }
        let key = match (header.salt, passphrase) {
            (None, None) => None,
            (None, Some(_)) => return Err(StorageError::NotSealed),
            (Some(_), None) => return Err(StorageError::PassphraseNeeded),
            (Some(salt), Some(phrase)) => Some(ProfileKey::derive(phrase, &salt).map_err(StorageError::Seal)?),
        };
        Ok(Self { folder: folder.to_owned(), key, _lock: lock })
    }

    /// Opens a profile, and makes it if it is not there; says whether it was made.
    ///
    /// # Errors
    /// As [`Profile::open`].
    pub fn open_or_create(
        folder: &Path,
        passphrase: Option<&[u8]>,
        wait: Duration,
    ) -> Result<(Self, bool), StorageError> {
        create_folder(folder).map_err(at(folder))?;
        let path = folder.join(HEADER_FILE);
        if path.is_file() {
            return Ok((Self::open(folder, passphrase, wait)?, false));
        }
        let lock = take_lock(folder, wait)?;
        if path.is_file() {
            drop(lock);
            return Ok((Self::open(folder, passphrase, wait)?, false));
        }
        let salt = passphrase.map(|_| random::bytes());
        let key = match (passphrase, &salt) {
            (Some(phrase), Some(salt)) => Some(ProfileKey::derive(phrase, salt).map_err(StorageError::Seal)?),
            _ => None,
        };
        let header = serde_json::to_vec(&Header { version: VERSION, salt }).map_err(|_| StorageError::Version)?;
        replace(folder, HEADER_FILE, &header)?;
        sync_folder(folder)?;
        Ok((Self { folder: folder.to_owned(), key, _lock: lock }, true))
    }

    /// Whether the records are sealed under a passphrase.
    #[must_use]
    pub const fn is_sealed(&self) -> bool {
        self.key.is_some()
    }
}

impl Storage for Profile {
    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError> {
        let mut records = BTreeMap::new();
        for file in fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let path = file.map_err(at(&self.folder))?.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            match suffix {
                // Left behind by a write that never came to its end.
                Some(TEMPORARY_SUFFIX) => fs::remove_file(&path).map_err(at(&path))?,
                Some(RECORD_SUFFIX) => {
                    let content = fs::read(&path).map_err(at(&path))?;
                    let content = match &self.key {
                        Some(key) => key.open(name, &content).map_err(|_| StorageError::DoesNotOpen)?,
                        None => content,
                    };
                    records.insert(name.to_owned(), content);
                }
                _ => {}
            }
        }
        Ok(records)
    }

    fn write(&self, records: &[Record]) -> Result<(), StorageError> {
        for (name, content) in records {
            let file = format!("{name}.{RECORD_SUFFIX}");
            match content {
                Some(content) => {
                    let sealed = match &self.key {
                        Some(key) => Some(key.seal(name, content).map_err(StorageError::Seal)?),
                        None => None,
                    };
                    replace(&self.folder, &file, sealed.as_deref().unwrap_or(content))?;
                }
                None => {
                    let path = self.folder.join(&file);
                    match fs::remove_file(&path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                        _ => {}
                    }
                }
            }
        }
        sync_folder(&self.folder)
    }
}

/// Writes beside the file, syncs, and renames over it: after a crash there is the old content or the new.
fn replace(folder: &Path, file: &str, content: &[u8]) -> Result<(), StorageError> {
    let path = folder.join(file);
    let temporary = folder.join(format!("{file}.{TEMPORARY_SUFFIX}"));
    let write = || {
        let mut output = private_file().write(true).create(true).truncate(true).open(&temporary)?;
        output.write_all(content)?;
        output.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(at(&path))
}

fn take_lock(folder: &Path, wait: Duration) -> Result<File, StorageError> {
    let path = folder.join(LOCK_FILE);
    let file = private_file().write(true).create(true).truncate(false).open(&path).map_err(at(&path))?;
    let deadline = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(StorageError::Locked(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    |source| StorageError::Io { path, source }
}

#[cfg(unix)]
fn private_file() -> OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(not(unix))]
fn private_file() -> OpenOptions {
    OpenOptions::new()
}

#[cfg(unix)]
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), StorageError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), StorageError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("sealcast-profile-{}", uuid::Uuid::now_v7())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn records_come_back_and_a_second_process_is_told() {
        let folder = Folder::new();
        assert!(matches!(Profile::open(&folder.0, None, Duration::ZERO), Err(StorageError::Missing(_))));
        let (profile, is_new) = Profile::open_or_create(&folder.0, None, Duration::ZERO).unwrap();
        assert!(is_new && !profile.is_sealed());
        profile.write(&[("a".to_owned(), Some(vec![1])), ("b".to_owned(), Some(vec![2]))]).unwrap();
        profile.write(&[("a".to_owned(), Some(vec![3])), ("b".to_owned(), None), ("c".to_owned(), None)]).unwrap();
        fs::write(folder.0.join("a.bin.tmp"), b"half").unwrap();
        assert_eq!(profile.load().unwrap(), BTreeMap::from([("a".to_owned(), vec![3])]));
        assert!(!folder.0.join("a.bin.tmp").exists());
        assert!(matches!(Profile::open(&folder.0, None, Duration::ZERO), Err(StorageError::Locked(_))));
        drop(profile);
        assert!(matches!(Profile::open(&folder.0, Some(b"x"), Duration::ZERO), Err(StorageError::NotSealed)));
        assert!(Profile::open(&folder.0, None, Duration::ZERO).unwrap().load().unwrap().contains_key("a"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for file in ["a.bin", HEADER_FILE, LOCK_FILE] {
                assert_eq!(fs::metadata(folder.0.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }

    #[test]
    fn a_sealed_profile_opens_under_its_passphrase_alone() {
        let folder = Folder::new();
        let (profile, _) = Profile::open_or_create(&folder.0, Some(b"phrase"), Duration::ZERO).unwrap();
        profile.write(&[("a".to_owned(), Some(b"content".to_vec()))]).unwrap();
        drop(profile);
        assert!(!fs::read(folder.0.join("a.bin")).unwrap().windows(7).any(|window| window == b"content"));
        assert!(matches!(Profile::open(&folder.0, None, Duration::ZERO), Err(StorageError::PassphraseNeeded)));
        let wrong = Profile::open(&folder.0, Some(b"fraise"), Duration::ZERO).unwrap();
        assert!(matches!(wrong.load(), Err(StorageError::DoesNotOpen)));
        drop(wrong);
        let right = Profile::open(&folder.0, Some(b"phrase"), Duration::ZERO).unwrap();
        assert_eq!(right.load().unwrap()["a"], b"content");
    }
}
