//! The terminal client as people and scripts use it: real profiles, a real broker, real cryptography.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use super::support::broker::{Broker, Settings, executable};
use super::support::database::Database;
use super::support::{eventually, within};

/// One device of a user: a profile folder.
pub struct Profile {
    folder: PathBuf,
}

/// What a command did.
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Profile {
    pub fn new(parent: &TempDir, name: &str) -> Self {
        Self { folder: parent.path().join(name) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command.arg("client").arg("--profile").arg(&self.folder).args(arguments).stdin(Stdio::null());
        command.env_remove("SEALCAST_PASSPHRASE");
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, &[]).await
    }

    async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Done {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        let output: Output =
            within("a command", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
        Done {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what must succeed; gives its output.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
        done.stdout
    }

    /// Runs what must fail; gives its one line.
    pub async fn fails(&self, arguments: &[&str]) -> String {
        let done = self.run(arguments).await;
        assert_ne!(done.code, Some(0), "{arguments:?}: {}", done.stdout);
        assert_eq!(done.stderr.lines().count(), 1, "{arguments:?}: one line, not {:?}", done.stderr);
        done.stderr
    }

    pub async fn register(&self, broker: &Broker, name: &str) {
        self.ok(&["register", "--server", &broker.public, name]).await;
    }

    async fn create_chat(&self, title: &str) -> String {
        self.ok(&["chat", "create", title]).await.trim().to_owned()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Running(child)
    }
}

/// A command in the background; killed when dropped.
pub struct Running(Child);

impl Running {
    pub async fn line(&mut self) -> String {
        use std::io::BufRead;
        let stdout = self.0.stdout.take().unwrap();
        let (line, stdout) = within(
            "a line",
            tokio::task::spawn_blocking(move || {
                let mut reader = std::io::BufReader::with_capacity(1, stdout);
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                (line, reader.into_inner())
            }),
        )
        .await
        .unwrap();
        self.0.stdout = Some(stdout);
        line.trim_end().to_owned()
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the command's end", async || {
            code = self.0.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn texts(read: &str) -> Vec<&str> {
    read.lines().map(|line| line.rsplit('\t').next().unwrap()).collect()
}

/// Two users in a chat.
pub async fn two(broker: &Broker, parent: &TempDir) -> (Profile, Profile, String) {
    let (ada, bob) = (Profile::new(parent, "ada"), Profile::new(parent, "bob"));
    ada.register(broker, "ada").await;
    bob.register(broker, "bob").await;
    let chat = ada.create_chat("Tea at five").await;
    ada.ok(&["chat", "add", &chat, "bob"]).await;
    (ada, bob, chat)
}

#[tokio::test]
async fn two_people_chat_and_a_removed_one_is_refused_at_once() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    assert_eq!(uuid::Uuid::parse_str(&chat).unwrap().hyphenated().to_string(), chat);

    let sent = ada.ok(&["send", &chat, "hello bob"]).await;
    let mut words = sent.split_whitespace();
    assert!(uuid::Uuid::parse_str(words.next().unwrap()).is_ok());
    assert!(words.next().unwrap().parse::<u64>().is_ok());
    bob.ok(&["send", &chat, "hello ada\nsecond line"]).await;
    for profile in [&ada, &bob] {
        let read = profile.ok(&["read", &chat]).await;
        assert_eq!(texts(&read), ["hello bob", "hello ada\\nsecond line"]);
        assert_eq!(profile.ok(&["read", &chat]).await, read, "the same every time");
        assert!(profile.ok(&["chat", "list"]).await.contains("Tea at five"));
    }
    let seq = bob.ok(&["read", &chat]).await.lines().next().unwrap().split('\t').next().unwrap().to_owned();
    assert_eq!(texts(&bob.ok(&["read", &chat, "--since", &seq]).await), ["hello ada\\nsecond line"]);

    ada.ok(&["chat", "remove", &chat, "bob"]).await;
    bob.fails(&["send", &chat, "still here?"]).await;
    ada.ok(&["send", &chat, "alone"]).await;
    assert!(!bob.run(&["read", &chat]).await.stdout.contains("alone"));
}

#[tokio::test]
async fn json_prints_one_object_a_line_and_errors_one_line_each() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "in json"]).await;
    for arguments in [
        vec!["--json", "read", &chat],
        vec!["--json", "chat", "list"],
        vec!["--json", "chat", "show", &chat],
        vec!["--json", "session", "list"],
        vec!["--json", "send", &chat, "more"],
    ] {
        let out = bob.ok(&arguments).await;
        assert!(!out.is_empty(), "{arguments:?}");
        for line in out.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value.is_object() || value.is_array(), "{line}");
        }
    }
    let eve = Profile::new(&parent, "eve");
    eve.fails(&["send", &chat, "no account yet"]).await;
    eve.fails(&["register", "--server", &broker.public, "ada"]).await;
    eve.fails(&["register", "--server", &broker.public, "x"]).await;
    ada.fails(&["chat", "add", &chat, "nobody-of-that-name"]).await;
    ada.fails(&["chat", "show", "01900000-0000-7000-8000-000000000000"]).await;
    ada.fails(&["chat", "leave", &chat]).await;
    bob.fails(&["chat", "delete", &chat]).await;
    bob.ok(&["chat", "leave", &chat]).await;
    ada.ok(&["chat", "delete", &chat]).await;
    ada.fails(&["read", &chat]).await;
}

#[tokio::test]
async fn colours_come_when_asked_for_and_never_in_json() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "plain text"]).await;
    for arguments in [vec!["read", &chat], vec!["chat", "list"], vec!["chat", "show", &chat]] {
        let plain = bob.ok(&arguments).await;
        assert!(!plain.contains('\u{1b}'), "not a terminal: {plain}");
        let always: Vec<&str> = ["--color", "always"].into_iter().chain(arguments.iter().copied()).collect();
        let painted = bob.ok(&always).await;
        assert!(painted.contains('\u{1b}'), "{painted}");
        assert_eq!(without_colours(&painted), plain);
        let json: Vec<&str> = ["--json"].into_iter().chain(always).collect();
        assert!(!bob.ok(&json).await.contains('\u{1b}'));
    }
    let error = bob.fails(&["--color", "always", "chat", "add", &chat, "carol"]).await;
    assert!(error.contains('\u{1b}'));
    let plain = bob.fails(&["chat", "add", &chat, "carol"]).await;
    assert_eq!(without_colours(&error), plain);
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split("\u{1b}[");
    plain.push_str(parts.next().unwrap());
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

#[tokio::test]
async fn errors_say_what_happened_and_what_to_do_next() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let mut broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let eve = Profile::new(&parent, "eve");
    let nowhere = "01900000-0000-7000-8000-000000000000";
    let says = |error: String, what: &str, next: &str| {
        assert!(error.contains(what) && error.contains(next), "{error:?} must say {what:?} and {next:?}");
    };
    says(eve.fails(&["chat", "list"]).await, "there is no profile", "run `register` or `session link` first");
    let taken = eve.fails(&["register", "--server", &broker.public, "ada"]).await;
    says(taken, "the username is taken", "choose another one");
    says(eve.fails(&["register", "--server", &broker.public, "x"]).await, "not a username", "3 to 32 of a-z");
    says(eve.fails(&["register", "--server", "nothing", "eve"]).await, "not an address", "give --server as https://");
    says(ada.fails(&["register", "--server", &broker.public, "eve"]).await, "has an account already", "--profile");
    says(ada.fails(&["chat", "show", nowhere]).await, "no such chat", "see `chat list`");
    says(ada.fails(&["chat", "add", &chat, "carol"]).await, "no user of that name", "check the name");
    says(ada.fails(&["chat", "add", &chat, "bob"]).await, "a member already", "see `chat show`");
    says(ada.fails(&["chat", "leave", &chat]).await, "the owner cannot leave", "`chat transfer`");
    says(bob.fails(&["chat", "delete", &chat]).await, "only the owner", "see `chat show`");
    says(bob.fails(&["chat", "remove", &chat, "ada"]).await, "you may not manage this chat", "see `chat show`");
    says(ada.fails(&["session", "approve", "1234"]).await, "code", "as `session link` printed it");
    says(ada.fails(&["safety-number", "ada"]).await, "that is you", "name the person");
    broker.kill();
    says(ada.fails(&["--timeout", "1", "chat", "list"]).await, "not done within 1 s", "check the server");
    says(ada.fails(&["--timeout", "1", "send", &chat, "x"]).await, "not sent within 1 s", "try again");
    let unreachable = eve.fails(&["register", "--server", &broker.public, "eve"]).await;
    says(unreachable, "no connection", "whether the server runs");
}

#[tokio::test]
async fn two_people_compare_their_safety_number() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, _) = two(&broker, &parent).await;
    let (hers, his) = (ada.ok(&["safety-number", "bob"]).await, bob.ok(&["safety-number", "ada"]).await);
    let groups = |shown: &str| -> Vec<String> {
        let lines = shown.lines().filter(|line| line.starts_with("    "));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    assert_eq!(groups(&hers).len(), 12);
    assert!(groups(&hers).iter().all(|group| group.len() == 5 && group.bytes().all(|byte| byte.is_ascii_digit())));
    assert_eq!(groups(&hers), groups(&his));
    assert!(hers.contains("in person or in a call"));
    let json: serde_json::Value = serde_json::from_str(&ada.ok(&["--json", "safety-number", "bob"]).await).unwrap();
    assert_eq!(json["safety_number"], groups(&hers).join(" "));
    ada.fails(&["safety-number", "carol"]).await;
}

#[tokio::test]
async fn every_command_has_help_with_examples_and_shells_complete_it() {
    let run = async |arguments: Vec<String>| -> String {
        let mut command = Command::new(executable());
        command.args(&arguments).stdin(Stdio::null());
        let output = within("help", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut left = vec![vec!["client".to_owned()]];
    let mut names = Vec::new();
    while let Some(path) = left.pop() {
        let help = run([path.clone(), vec!["--help".to_owned()]].concat()).await;
        let commands = help.split_once("\nCommands:\n").map(|(_, rest)| rest.split("\n\n").next().unwrap());
        let below = commands.unwrap_or_default().lines();
        let below = below.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let before = left.len();
        for name in below.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            names.push(name.to_owned());
            left.push([path.clone(), vec![name.to_owned()]].concat());
        }
        if left.len() == before {
            assert!(help.contains("Examples:\n  "), "{path:?} has no examples:\n{help}");
        }
    }
    assert!(names.len() >= 16, "{names:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(vec!["completions".to_owned(), shell.to_owned()]).await;
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} does not complete {name}");
        }
    }
    let script = run(vec!["completions".to_owned(), "bash".to_owned()]).await;
    let complete = format!(
        "{script}\nCOMP_WORDS=(sealcast client ta); COMP_CWORD=2; COMPREPLY=(); _sealcast sealcast ta client; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    // By a file: it is longer than an argument may be.
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("complete.bash");
    std::fs::write(&file, complete).unwrap();
    let mut bash = Command::new("bash");
    bash.arg("--norc").arg(&file).stdin(Stdio::null());
    let output = within("bash", tokio::task::spawn_blocking(move || bash.output().unwrap())).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "talk\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_second_device_is_linked_reads_on_and_is_revoked() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "before the second device"]).await;
    let phone = Profile::new(&parent, "phone");
    let mut linking = phone.spawn(&["session", "link", "--server", &broker.public, "bob"]);
    let code = linking.line().await;
    bob.fails(&["session", "approve", "0000-0000-0000-0000-0000-0000"]).await;
    bob.ok(&["session", "approve", &code]).await;
    assert_eq!(linking.exit_code().await, Some(0));
    assert!(phone.ok(&["chat", "list"]).await.contains("Tea at five"), "the info key was handed over");

    ada.ok(&["send", &chat, "to both"]).await;
    bob.ok(&["send", &chat, "from one"]).await;
    phone.ok(&["send", &chat, "from the other"]).await;
    let all = ["before the second device", "to both", "from one", "from the other"];
    assert_eq!(texts(&phone.ok(&["read", &chat]).await), all);
    assert_eq!(texts(&bob.ok(&["read", &chat]).await), all);

    let listed = phone.ok(&["--json", "session", "list"]).await;
    let sessions: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sessions.len(), 2, "{listed}");
    let phones = sessions.iter().find(|session| session["this"] == true).unwrap()["session_id"].as_str().unwrap();
    bob.ok(&["session", "revoke", phones]).await;
    phone.fails(&["send", &chat, "from a lost phone"]).await;
    ada.ok(&["send", &chat, "after the loss"]).await;
    assert!(texts(&bob.ok(&["read", &chat]).await).contains(&"after the loss"));
    let copies = format!(
        "SELECT count(*) FROM vault_chat_sender_keys v JOIN chat_messages m ON m.key_id = v.sender_key_id \
         WHERE v.session_id = '{phones}' AND m.seq = (SELECT last_seq FROM chats)"
    );
    assert_eq!(database.count(&copies).await, 0);
}

#[tokio::test]
async fn follow_prints_what_comes_and_survives_a_killed_broker() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let mut broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let mut follower = bob.spawn(&["read", &chat, "--follow"]);
    ada.ok(&["send", &chat, "one"]).await;
    assert!(follower.line().await.ends_with("one"));
    broker.kill_and_restart().await;
    ada.ok(&["send", &chat, "two"]).await;
    assert!(follower.line().await.ends_with("two"));
}

#[tokio::test]
async fn a_send_waits_for_a_dead_broker_and_gives_up_in_time() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let mut broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    broker.kill();
    let given_up = ada.run(&["--timeout", "2", "send", &chat, "nobody there"]).await;
    assert_ne!(given_up.code, Some(0));
    assert_eq!(given_up.stderr.lines().count(), 1, "{}", given_up.stderr);
    let mut waiting = ada.spawn(&["send", &chat, "when you are back"]);
    broker.restart().await;
    assert_eq!(waiting.exit_code().await, Some(0));
    let read = bob.ok(&["read", &chat]).await;
    assert_eq!(texts(&read).iter().filter(|text| **text == "when you are back").count(), 1);
}

#[tokio::test]
async fn keys_are_sealed_under_a_passphrase_or_in_a_file_of_mode_0600() {
    use std::os::unix::fs::PermissionsExt;
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let plain = Profile::new(&parent, "plain");
    plain.register(&broker, "plain").await;
    for file in files(&plain.folder) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    let sealed = Profile::new(&parent, "sealed");
    let passphrase = [("SEALCAST_PASSPHRASE", "correct horse")];
    let done = sealed.run_with(&["register", "--server", &broker.public, "sealed"], &passphrase).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(sealed.run_with(&["chat", "list"], &passphrase).await.code, Some(0));
    assert_ne!(sealed.run_with(&["chat", "list"], &[("SEALCAST_PASSPHRASE", "wrong")]).await.code, Some(0));
    assert_ne!(sealed.run(&["chat", "list"]).await.code, Some(0));
    for file in files(&sealed.folder) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"identity"), "{} is not sealed", file.display());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

#[tokio::test]
async fn p6_no_plaintext_reaches_the_data_folder_the_logs_or_a_dump() {
    let parent = TempDir::new().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(parent.path(), open).unwrap();
    let (data, log) = (parent.path().join("data"), parent.path().join("broker.log"));
    let settings = Settings::default().with("data_dir", data.display()).with("log.filter", "debug");
    let mut broker = Broker::start_logging(settings, &log).await;
    let (ada, bob) = (Profile::new(&parent, "ada"), Profile::new(&parent, "bob"));
    ada.register(&broker, "canaryada").await;
    bob.register(&broker, "bob").await;
    let chat = ada.create_chat("CANARYTITLE").await;
    ada.ok(&["chat", "add", &chat, "bob"]).await;
    ada.ok(&["send", &chat, "CANARYTEXT"]).await;
    assert_eq!(texts(&bob.ok(&["read", &chat]).await), ["CANARYTEXT"]);
    let (_, metrics) = broker.operator_get("/metrics").await;
    broker.signal("TERM");
    assert_eq!(broker.exit_code().await, Some(0));

    let found =
        |needle: &str, folder: &Path| -> bool { everything_below(folder).iter().any(|file| contains(file, needle)) };
    for needle in ["CANARYTITLE", "CANARYTEXT"] {
        assert!(!found(needle, &data), "{needle} in the data folder");
        assert!(!contains(&log, needle), "{needle} in the log");
        assert!(!metrics.contains(needle));
    }
    // The search itself works: usernames are visible to the server, and in its data alone.
    assert!(found("canaryada", &data));
    assert!(!contains(&log, "canaryada") && !metrics.contains("canaryada"));
    assert!(std::fs::metadata(&log).unwrap().len() > 0, "there was a log to search");
}

fn everything_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn contains(file: &Path, needle: &str) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
}
