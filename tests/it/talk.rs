//! Talking in a chat as people and scripts do it: line by line, and on a real pseudo terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZero;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use pty_process::blocking as pty;
use serde_json::Value;
use tempfile::TempDir;

use super::support::broker::Broker;
use super::support::database::Database;
use super::support::{DEADLINE, eventually};
use super::terminal::{Profile, two};

/// `talk` line by line; killed when dropped.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Talk {
    fn start(profile: &Profile, arguments: &[&str]) -> Self {
        let mut command = profile.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line that holds a text; gives it.
    fn line_with(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(DEADLINE) else { panic!("no line with {text:?} after {seen:#?}") };
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Ends the input; gives the exit code, what was left of the lines, and standard error.
    async fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        drop(self.input.take());
        let mut code = None;
        eventually("the end of talk", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        let mut complaints = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        (code.unwrap().code(), self.lines.iter().collect(), complaints)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn two_people_talk_line_by_line() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    ada.ok(&["send", &chat, "from before"]).await;
    let mut hers = Talk::start(&ada, &["talk", &chat]);
    let mut his = Talk::start(&bob, &["talk", &chat]);
    assert!(hers.line_with("from before").ends_with("\tada\tfrom before"));
    hers.type_line("hello bob");
    assert!(his.line_with("hello").ends_with("\tada\thello bob"));
    his.type_line("//slash and \u{1b}[31mno colour");
    assert!(hers.line_with("slash").ends_with("\tbob\t/slash and \\u{1b}[31mno colour"));
    hers.type_line("/members");
    assert_eq!(hers.line_with("ada"), "ada (you): owner, manager, writer; 1 device");
    assert_eq!(hers.line_with("bob"), "bob: writer; 1 device");
    hers.type_line("/help safety");
    hers.line_with("/safety USERNAME");
    hers.type_line("/safety bob");
    let number = hers.line_with("    ");
    his.type_line("/safety ada");
    assert_eq!(his.line_with("    "), number, "both see the same number");

    hers.type_line("and good bye");
    hers.type_line("/remove bob");
    assert_eq!(hers.line_with("removed"), "* ada removed bob");
    his.line_with("and good bye");
    hers.type_line("he does not read this");
    hers.line_with("he does not");
    let (code, rest, complaints) = his.end().await;
    assert_eq!(code, Some(1), "{complaints}");
    assert!(complaints.contains("you are not in it any more; see `chat list`"), "{complaints}");
    assert!(!rest.iter().any(|line| line.contains("he does not")), "{rest:?}");
    let (code, _, complaints) = hers.end().await;
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn messages_are_answered_edited_and_deleted_line_by_line() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let mut hers = Talk::start(&ada, &["talk", &chat]);
    let mut his = Talk::start(&bob, &["--json", "talk", &chat, "--receipts", "everybody"]);
    hers.type_line("at fife?");
    let first: Value = serde_json::from_str(&his.line_with("fife")).unwrap();
    his.type_line("/reply of course");
    let reply: Value = serde_json::from_str(&his.line_with("of course")).unwrap();
    assert_eq!(reply["body"]["reply"]["messageId"], first["message_id"]);
    hers.line_with("of course");
    his.type_line(&format!("/react #{} 👍", first["seq"]));
    assert!(hers.line_with("👍").contains(first["message_id"].as_str().unwrap()));
    hers.type_line("/edit at five?");
    let edited: Value = serde_json::from_str(&his.line_with("at five?")).unwrap();
    assert_eq!((&edited["message_id"], &edited["revision"]), (&first["message_id"], &Value::from(1)));
    his.type_line("/edit indeed");
    let edited: Value = serde_json::from_str(&his.line_with("indeed")).unwrap();
    assert_eq!(edited["body"]["reply"], reply["body"]["reply"], "it answers still");
    his.type_line("/edit");
    his.type_line("/delete");
    assert!(hers.line_with("[deletes").contains(reply["message_id"].as_str().unwrap()));
    his.type_line(&format!("/delete #{}", first["seq"]));
    let (code, _, complaints) = his.end().await;
    assert_eq!(code, Some(1));
    assert!(complaints.contains("usage: /edit"), "{complaints}");
    assert!(complaints.contains("your own messages"), "{complaints}");
    let (code, _, complaints) = hers.end().await;
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    let read = ada.ok(&["read", &chat]).await;
    assert_eq!(read.lines().filter(|line| line.contains("at five? (edited)")).count(), 1, "{read}");
    assert!(!read.contains("fife") && !read.contains("indeed"), "{read}");
}

#[tokio::test]
async fn lines_of_a_script_are_sent_in_order_and_each_failure_is_told() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let mut script = Talk::start(&ada, &["--json", "talk", &chat]);
    for number in 0..50 {
        script.type_line(&format!("line {number}"));
    }
    script.type_line("/add nobody-of-that-name");
    script.type_line("/dance");
    script.type_line("the last");
    let (code, lines, complaints) = script.end().await;
    assert_eq!(code, Some(1), "a script must see that something failed");
    assert!(complaints.contains("there is no user of that name"), "{complaints}");
    assert!(complaints.contains("no command /dance"), "{complaints}");
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = objects.iter().filter_map(|object| object["body"]["text"].as_str()).collect();
    let expected: Vec<String> = (0..50).map(|n| format!("line {n}")).chain(["the last".to_owned()]).collect();
    assert_eq!(texts, expected);

    let mut his = Talk::start(&bob, &["--json", "talk", &chat, "--last", "2"]);
    let first: Value = serde_json::from_str(&his.line_with("text")).unwrap();
    assert_eq!(first["body"]["text"], "line 49", "two of the past");
    his.line_with("the last");
    his.type_line("/leave");
    his.type_line("bye");
    his.type_line("/leave yes");
    his.line_with("\"left\":true");
    let (code, _, complaints) = his.end().await;
    assert_eq!(code, Some(0), "{complaints}");
    assert!(complaints.contains("/leave yes"), "{complaints}");
    assert!(ada.ok(&["read", &chat]).await.contains("\tbob\tbye"), "what was typed before is sent before");
}

#[tokio::test]
async fn what_is_typed_while_the_broker_is_away_goes_out_in_order_when_it_is_back() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let mut broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let mut hers = Talk::start(&ada, &["talk", &chat]);
    hers.type_line("one");
    hers.line_with("one");
    broker.kill();
    hers.line_with("* connection lost");
    for text in ["two", "three", "four", "five"] {
        hers.type_line(text);
    }
    broker.restart().await;
    hers.line_with("* connected again");
    let (code, _, complaints) = hers.end().await;
    assert_eq!(code, Some(0), "{complaints}");
    let read = bob.ok(&["read", &chat]).await;
    let texts: Vec<&str> = read.lines().map(|line| line.rsplit('\t').next().unwrap()).collect();
    assert_eq!(texts, ["one", "two", "three", "four", "five"]);
}

/// What is on a pseudo terminal, and whether it has ended.
struct Seen {
    parser: vt100::Parser,
    has_ended: bool,
}

/// `talk` on a pseudo terminal; killed when dropped.
struct Screen {
    child: Child,
    pty: Arc<pty::Pty>,
    seen: Arc<Mutex<Seen>>,
}

const ROWS: u16 = 20;
const COLUMNS: u16 = 70;

fn size(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap()
}

impl Screen {
    fn start(command: &Command) -> Self {
        let (terminal, pts) = pty::open().unwrap();
        terminal.resize(pty_process::Size::new(ROWS, COLUMNS)).unwrap();
        let mut on_terminal = pty::Command::new(command.get_program()).args(command.get_args());
        on_terminal = on_terminal.env("TERM", "xterm-256color").env("TZ", "UTC").env_remove("NO_COLOR");
        on_terminal = on_terminal.env_remove("SEALCAST_PASSPHRASE");
        let child = on_terminal.spawn(pts).unwrap();
        let seen =
            Arc::new(Mutex::new(Seen { parser: vt100::Parser::new(size(ROWS), size(COLUMNS), 0), has_ended: false }));
        let terminal = Arc::new(terminal);
        let (reader, shared) = (Arc::clone(&terminal), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The last process gone, Linux fails the read.
            while let Ok(read @ 1..) = (&*reader).read(&mut buffer) {
                shared.lock().unwrap().parser.process(&buffer[..read]);
            }
            shared.lock().unwrap().has_ended = true;
        });
        Self { child, pty: terminal, seen }
    }

    fn type_keys(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, rows: u16, columns: u16) {
        self.seen.lock().unwrap().parser.screen_mut().set_size(size(rows), size(columns));
        self.pty.resize(pty_process::Size::new(rows, columns)).unwrap();
    }

    fn rows(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let (_, columns) = seen.parser.screen().size();
        seen.parser.screen().rows(0, columns.get()).collect()
    }

    async fn shows(&self, text: &str) {
        let shown = eventually(text, async || self.rows().iter().any(|row| row.contains(text)));
        if tokio::time::timeout(DEADLINE / 2, shown).await.is_err() {
            panic!("no {text:?} on\n{}", self.rows().join("\n"));
        }
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the end of talk", async || {
            code = self.child.try_wait().unwrap();
            code.is_some() && self.seen.lock().unwrap().has_ended
        })
        .await;
        code.unwrap().code()
    }

    /// The terminal is as it was: the first screen, the cursor, no pasting marks.
    fn is_restored(&self) -> bool {
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        !screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn two_people_talk_on_the_screen_and_it_is_given_back() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let mut broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let carol = Profile::new(&parent, "carol");
    carol.register(&broker, "carol").await;
    ada.ok(&["chat", "add", &chat, "carol"]).await;
    ada.ok(&["send", &chat, "from before"]).await;
    let mut his = Screen::start(&bob.command(&["talk", &chat]));
    let mut hers = Talk::start(&ada, &["talk", &chat]);
    his.shows("ada   from before").await;
    his.shows("Tea at five · 3 members: ada, bob, carol").await;
    his.shows("connected").await;
    assert!(!his.is_restored(), "the other screen is in use");
    his.type_keys("hello adaa\u{7f} \u{1b}[200~pasted\rtext\u{1b}[201~\r");
    his.shows("bob   hello ada pasted").await;
    assert!(hers.line_with("hello").ends_with("\tbob\thello ada pasted\\ntext"));
    hers.type_line("hello \u{1b}[2Jbob");
    his.shows("ada   hello \u{241b}[2Jbob").await;

    // He has spoken, so she can hear; each sees the other here and typing.
    let mut also_hers = Screen::start(&carol.command(&["talk", &chat]));
    also_hers.shows("hello ada pasted").await;
    also_hers.type_keys("first words\r");
    his.shows("carol first words").await;
    his.shows("here: carol").await;
    also_hers.type_keys("half a sent");
    his.shows("carol is typing").await;
    also_hers.type_keys("\u{15}");
    his.type_keys("/react 👍\r");
    also_hers.shows("to “first words”").await;
    also_hers.shows("here: bob").await;
    also_hers.type_keys("/edit last words\r");
    his.shows("carol last words (edited)").await;
    also_hers.type_keys("\u{3}");
    assert_eq!(also_hers.exit_code().await, Some(0));
    assert!(also_hers.is_restored());

    his.resize(10, 40);
    his.type_keys("/he\t\r");
    his.shows("//...").await;
    assert_eq!(his.rows().len(), 10);
    his.resize(30, 80);
    his.shows("/members").await;
    broker.kill();
    his.shows("CONNECTION LOST").await;
    his.type_keys("when you are back\r");
    his.shows("waits bob   when you are back").await;
    broker.restart().await;
    his.shows("caught up").await;
    assert!(hers.line_with("when you").ends_with("\tbob\twhen you are back"));

    his.type_keys("/quit\r");
    assert_eq!(his.exit_code().await, Some(0));
    assert!(his.is_restored(), "{}", his.rows().join("\n"));
}

#[tokio::test]
async fn the_screen_is_given_back_on_every_way_out() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, chat) = two(&broker, &parent).await;
    let mut interrupted = Screen::start(&bob.command(&["talk", &chat]));
    interrupted.shows("connected").await;
    interrupted.type_keys("half a mess\u{3}");
    assert_eq!(interrupted.exit_code().await, Some(0));
    assert!(interrupted.is_restored());

    let mut terminated = Screen::start(&bob.command(&["talk", &chat]));
    terminated.shows("connected").await;
    let pid = terminated.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(terminated.exit_code().await, Some(0));
    assert!(terminated.is_restored());

    let mut astray = Screen::start(&ada.command(&["talk", "01900000-0000-7000-8000-000000000000"]));
    assert_eq!(astray.exit_code().await, Some(1));
    assert!(astray.is_restored());
    assert!(astray.rows().concat().contains("no such chat; see `chat list`"), "{:?}", astray.rows());

    let mut removed = Screen::start(&bob.command(&["talk", &chat]));
    removed.shows("connected").await;
    ada.ok(&["chat", "remove", &chat, "bob"]).await;
    removed.shows("you are not in this chat any more; /quit ends").await;
    removed.type_keys("\u{4}");
    assert_eq!(removed.exit_code().await, Some(0));
    assert!(removed.is_restored());
}
