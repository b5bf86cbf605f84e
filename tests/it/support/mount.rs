//! File systems of a test's own: a small one that fills, and one on a disk that fails, hangs and loses its power.
//!
//! Only root may mount, so these tests say that they are skipped where that or a program is missing.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sealcast_faults::{Disk, Health};
use tempfile::TempDir;

use super::eventually;

/// Says on stderr why a test does nothing here; true if so.
pub fn is_skipped(missing: Option<String>) -> bool {
    if let Some(what) = &missing {
        writeln!(std::io::stderr(), "skipped: {what}").unwrap();
    }
    missing.is_some()
}

/// What of the needed programs is not on this machine.
pub fn missing_program(programs: &[&str]) -> Option<String> {
    let is_here = |program: &&&str| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
        found.is_ok_and(|status| status.success())
    };
    programs.iter().find(|program| !is_here(program)).map(|program| format!("{program} is not here"))
}

/// Why nothing can be mounted here, if so.
pub fn cannot_mount() -> Option<String> {
    if is_root() { missing_program(&["mount", "umount"]) } else { Some("only root may mount".to_owned()) }
}

/// Why there can be no disk that fails here, if so.
pub fn cannot_break_disks() -> Option<String> {
    cannot_mount()
        .or_else(|| missing_program(&["nbdfuse", "mkfs.ext4", "losetup"]))
        .or_else(|| (!Path::new("/dev/fuse").exists()).then(|| "/dev/fuse is not here".to_owned()))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("sealcast-disk-").tempdir().unwrap();
    // Postgres has an account of its own, and must get through.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// The processes that work below a folder, as folders of `/proc`.
fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(move |process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
}

fn kill_all_below(folder: &Path) {
    for process in below(folder) {
        let pid = process.file_name().unwrap();
        let _ = Command::new("kill").arg("-KILL").arg(pid).stderr(Stdio::null()).status();
    }
}

/// A file system of limited size in memory; gone when it is dropped.
pub struct SmallMount {
    folder: TempDir,
}

impl SmallMount {
    pub fn new(size_mib: u32) -> Self {
        let folder = folder();
        let path = folder.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size_mib}m,mode=755"), "sealcast-test", path]);
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all the room that is left, until the file that is returned is removed.
    pub fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallMount {
    fn drop(&mut self) {
        kill_all_below(self.folder.path());
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// An ext4 file system on a [`Disk`].
pub struct DiskMount {
    pub disk: Disk,
    folder: TempDir,
    nbdfuse: Option<Child>,
}

impl DiskMount {
    /// With a journal it comes through a power cut; without one it goes on after an I/O error, which a journal does not.
    pub async fn new(size_mib: u64, with_journal: bool) -> Self {
        let folder = folder();
        for name in ["file", "data"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let disk = Disk::serve(size_mib << 20, &folder.path().join("socket")).unwrap();
        let mut mount = Self { disk, folder, nbdfuse: None };
        mount.attach().await;
        let file = mount.file();
        let features = if with_journal { "has_journal" } else { "^has_journal" };
        run("mkfs.ext4", &["-q", "-F", "-O", features, "-e", "continue", "-E", "nodiscard", file.to_str().unwrap()]);
        mount.mount();
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("file/disk")
    }

    async fn attach(&mut self) {
        let uri = format!("nbd+unix:///?socket={}", self.folder.path().join("socket").display());
        let nbdfuse = Command::new("nbdfuse").arg(self.file()).arg(uri).stdin(Stdio::null()).spawn().unwrap();
        self.nbdfuse = Some(nbdfuse);
        let file = self.file();
        eventually("the disk's file", async || file.exists()).await;
    }

    fn mount(&self) {
        run("mount", &["-o", "loop,noatime", self.file().to_str().unwrap(), self.path().to_str().unwrap()]);
    }

    /// Makes all durable that was written so far.
    pub fn sync(&self) {
        run("sync", &["-f", self.path().to_str().unwrap()]);
    }

    /// A folder that is not on the disk.
    pub fn beside(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the Postgres that runs there.
    pub fn programs(&self) -> PathBuf {
        let path = self.path();
        let programs = below(&path).find_map(|process| std::fs::read_link(process.join("exe")).ok()).unwrap();
        programs.parent().unwrap().to_owned()
    }

    /// After a cut: kills whoever works there, for a cut spares nobody, and puts the power on again. What is mounted
    /// then is what was flushed, and some of what was not.
    pub async fn power_on(&mut self) {
        self.take_down().await;
        self.disk.set(Health::Good);
        self.attach().await;
        self.mount();
    }

    async fn take_down(&mut self) {
        let (data, file) = (self.path(), self.folder.path().join("file"));
        let unmounted = |path: &Path| {
            let status = Command::new("umount").arg(path).stderr(Stdio::null()).status().unwrap();
            status.success() || status.code() == Some(32) && !is_mounted(path)
        };
        eventually("the file system to be left", async || {
            kill_all_below(&data);
            unmounted(&data)
        })
        .await;
        eventually("the disk to be left", async || unmounted(&file)).await;
        if let Some(mut nbdfuse) = self.nbdfuse.take() {
            eventually("nbdfuse to end", async || nbdfuse.try_wait().unwrap().is_some()).await;
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

impl Drop for DiskMount {
    fn drop(&mut self) {
        // Whoever waits for the disk gets an error and can be killed.
        self.disk.set(Health::Off);
        kill_all_below(&self.path());
        for path in [self.path(), self.folder.path().join("file")] {
            let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
        }
        if let Some(mut nbdfuse) = self.nbdfuse.take() {
            let _ = nbdfuse.kill();
            let _ = nbdfuse.wait();
        }
    }
}
