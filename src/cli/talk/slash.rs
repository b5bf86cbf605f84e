//! What a typed line means: text to send, or one of the `/` commands; their help, and their completion.
//!
//! Pure. A line that begins with two slashes is text that begins with one.

use crate::client::Body;
use crate::protocol::ids::MessageId;
use crate::protocol::membership::HistoryPolicy;

/// What a command does to the chat, through the client library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Show the members.
    Members,
    /// Add a user.
    Add {
        /// Whom.
        username: String,
        /// They may write.
        can_write: bool,
        /// They may add and remove members.
        can_manage: bool,
    },
    /// Remove a member.
    Remove {
        /// Whom.
        username: String,
    },
    /// Leave the chat.
    Leave,
    /// Show the safety number of a user.
    Safety {
        /// Whose.
        username: String,
    },
    /// Change what a member may do.
    Rights {
        /// Whose.
        username: String,
        /// They may write.
        can_write: bool,
        /// They may add and remove members.
        can_manage: bool,
    },
    /// Make a member the owner.
    Transfer {
        /// Whom.
        username: String,
    },
    /// Make all keys new.
    Rekey,
    /// Say what newcomers may read.
    History(HistoryPolicy),
    /// Block a user.
    Block {
        /// Whom.
        username: String,
    },
    /// Block a user no longer.
    Unblock {
        /// Whom.
        username: String,
    },
    /// Show who is blocked.
    Blocks,
    /// Give a message a new text.
    Edit {
        /// Which.
        message_id: MessageId,
        /// What it says from now on.
        body: Body,
    },
    /// Delete a message.
    Delete {
        /// Which.
        message_id: MessageId,
    },
}

impl Action {
    /// Whether the log tells everybody of it, so that no answer is needed where the log is shown.
    pub(super) const fn is_told_by_log(&self) -> bool {
        matches!(
            self,
            Self::Add { .. }
                | Self::Remove { .. }
                | Self::Rights { .. }
                | Self::Transfer { .. }
                | Self::Rekey
                | Self::History(_)
        )
    }
}

/// Something about a message that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// Its place in the log; none for the newest that it can be about.
    pub(super) number: Option<u64>,
    /// What.
    pub(super) what: What,
}

/// What is done about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Answer with a text.
    Reply(String),
    /// React.
    React(String),
    /// Give it another text.
    Edit(String),
    /// Delete it.
    Delete,
}

impl What {
    /// Whether the newest message that it can be about is one's own.
    pub(super) const fn is_about_own(&self) -> bool {
        matches!(self, Self::Edit(_) | Self::Delete)
    }
}

/// What a line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing.
    Blank,
    /// Text to send.
    Text(String),
    /// Something that the library does.
    Action(Action),
    /// Something about a message.
    About(About),
    /// Show the places of messages, or no longer.
    Numbers,
    /// Show help: all commands, or one.
    Help(Option<&'static Entry>),
    /// Send again what was not sent.
    Retry,
    /// The alarms were seen.
    Alarms,
    /// End.
    Quit,
}

/// Why a line means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlashError {
    #[error("no command /{0}; /help lists them, and //{0} sends it as text")]
    Unknown(String),
    #[error("usage: {}", .0.usage)]
    Usage(&'static Entry),
    #[error("{why}; type `{again} yes` if you mean it")]
    Unconfirmed { why: &'static str, again: String },
}

/// What follows a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// A command.
    Command,
    /// The name of a member.
    Member,
    /// The name of somebody else.
    Stranger,
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    /// What it does, in few words.
    help: &'static str,
    /// What else is to be known of it; may be empty.
    more: &'static str,
    takes: Takes,
}

/// Every command, in the order of the help.
pub(super) const ENTRIES: &[Entry] = &[
    entry("help", "/help [COMMAND]", "commands and keys, or more of one command", "", Takes::Command),
    entry(
        "reply",
        "/reply [#N] TEXT",
        "answer to a message",
        "To message N, or to the newest of somebody else; /numbers shows the numbers.",
        Takes::Nothing,
    ),
    entry(
        "react",
        "/react [#N] EMOJI",
        "react to a message",
        "To message N, or to the newest of somebody else; /numbers shows the numbers.",
        Takes::Nothing,
    ),
    entry(
        "edit",
        "/edit [#N] TEXT",
        "give a message of yours a new text",
        "Message N, or your newest. The old text is purged on the server; who has read it has read it.",
        Takes::Nothing,
    ),
    entry(
        "delete",
        "/delete [#N]",
        "delete a message for everybody",
        "Message N, or your newest. A manager may delete what others wrote.",
        Takes::Nothing,
    ),
    entry("numbers", "/numbers", "show the numbers of messages, or hide them", "", Takes::Nothing),
    entry("members", "/members", "who is in the chat, with their rights", "", Takes::Nothing),
    entry(
        "add",
        "/add USERNAME [RIGHT ...]",
        "add somebody",
        "They read what comes from then on. RIGHT is `read-only`: they may not write; `manager`: they may add and \
         remove members.",
        Takes::Stranger,
    ),
    entry(
        "remove",
        "/remove USERNAME",
        "remove a member",
        "Nothing that is sent afterwards can be read by them; what they have they keep.",
        Takes::Member,
    ),
    entry(
        "rights",
        "/rights USERNAME [RIGHT ...]",
        "change what a member may do",
        "To write and nothing else, unless RIGHT is `read-only`: they may not write; or `manager`: they may add and \
         remove members.",
        Takes::Member,
    ),
    entry(
        "transfer",
        "/transfer USERNAME yes",
        "make a member the owner",
        "You stay a member, with the rights you have; only they can give it back.",
        Takes::Member,
    ),
    entry(
        "rekey",
        "/rekey",
        "make all keys of this chat new",
        "As after the loss of a device: what is sent from then on is under new keys.",
        Takes::Nothing,
    ),
    entry(
        "history",
        "/history from-join|shared",
        "say what newcomers may read",
        "from-join: what comes after their joining; shared: everything from this change on.",
        Takes::Nothing,
    ),
    entry(
        "block",
        "/block USERNAME",
        "block somebody",
        "They cannot add you to a chat, and are not told why; what they write here is hidden.",
        Takes::Member,
    ),
    entry("unblock", "/unblock USERNAME", "block somebody no longer", "", Takes::Member),
    entry("blocks", "/blocks", "whom you have blocked", "", Takes::Nothing),
    entry(
        "leave",
        "/leave yes",
        "leave this chat for good",
        "You read nothing of what comes; to come back somebody must add you.",
        Takes::Nothing,
    ),
    entry(
        "safety",
        "/safety USERNAME",
        "the number that shows whom you talk with",
        "Compare it in person or in a call: the same number on both sides means that nobody stands between you.",
        Takes::Member,
    ),
    entry("retry", "/retry", "send again what could not be sent", "", Takes::Nothing),
    entry(
        "alarms",
        "/alarms",
        "take the red line away, once seen",
        "An alarm says that something did not verify: a fault, or somebody who lies.",
        Takes::Nothing,
    ),
    entry("quit", "/quit", "end", "Messages that wait are kept, and go out next time.", Takes::Nothing),
];

const fn entry(name: &'static str, usage: &'static str, help: &'static str, more: &'static str, takes: Takes) -> Entry {
    Entry { name, usage, help, more, takes }
}

fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// Reads a line.
///
/// # Errors
/// [`SlashError`]: it is a command, and not one that can be carried out.
pub(super) fn parse(line: &str) -> Result<Typed, SlashError> {
    if line.trim().is_empty() {
        return Ok(Typed::Blank);
    }
    let Some(command) = line.strip_prefix('/') else { return Ok(Typed::Text(line.trim_end().to_owned())) };
    if command.starts_with('/') {
        return Ok(Typed::Text(command.trim_end().to_owned()));
    }
    let mut words = command.split_whitespace();
    let name = if command.starts_with(char::is_whitespace) { "" } else { words.next().unwrap_or_default() };
    let entry = find(name).ok_or_else(|| SlashError::Unknown(name.to_owned()))?;
    let rest: Vec<&str> = words.collect();
    let usage = || SlashError::Usage(entry);
    let typed = match (entry.name, rest.as_slice()) {
        ("help", []) => Typed::Help(None),
        ("help", [name]) => Typed::Help(Some(find(name.trim_start_matches('/')).ok_or_else(usage)?)),
        ("members", []) => Typed::Action(Action::Members),
        ("add", [username, rights @ ..]) => {
            let (can_write, can_manage) = read_rights(rights).ok_or_else(usage)?;
            Typed::Action(Action::Add { username: (*username).to_owned(), can_write, can_manage })
        }
        ("rights", [username, rights @ ..]) => {
            let (can_write, can_manage) = read_rights(rights).ok_or_else(usage)?;
            Typed::Action(Action::Rights { username: (*username).to_owned(), can_write, can_manage })
        }
        ("transfer", [username, "yes"]) => Typed::Action(Action::Transfer { username: (*username).to_owned() }),
        ("transfer", [username]) => {
            let why = "only the new owner could give it back";
            return Err(SlashError::Unconfirmed { why, again: format!("/transfer {username}") });
        }
        ("rekey", []) => Typed::Action(Action::Rekey),
        ("history", ["from-join"]) => Typed::Action(Action::History(HistoryPolicy::FromJoin)),
        ("history", ["shared"]) => Typed::Action(Action::History(HistoryPolicy::Shared)),
        ("block", [username]) => Typed::Action(Action::Block { username: (*username).to_owned() }),
        ("unblock", [username]) => Typed::Action(Action::Unblock { username: (*username).to_owned() }),
        ("blocks", []) => Typed::Action(Action::Blocks),
        ("numbers", []) => Typed::Numbers,
        ("reply" | "react" | "edit" | "delete", _) => {
            let rest = command.get(entry.name.len()..).unwrap_or_default();
            Typed::About(read_about(entry.name, rest).ok_or_else(usage)?)
        }
        ("remove", [username]) => Typed::Action(Action::Remove { username: (*username).to_owned() }),
        ("leave", ["yes"]) => Typed::Action(Action::Leave),
        ("leave", _) => {
            let why = "you would not read this chat any more";
            return Err(SlashError::Unconfirmed { why, again: "/leave".to_owned() });
        }
        ("safety", [username]) => Typed::Action(Action::Safety { username: (*username).to_owned() }),
        ("retry", []) => Typed::Retry,
        ("alarms", []) => Typed::Alarms,
        ("quit", []) => Typed::Quit,
        _ => return Err(usage()),
    };
    Ok(typed)
}

/// Whether they may write, and manage; none for a word that is no right.
fn read_rights(words: &[&str]) -> Option<(bool, bool)> {
    let (mut can_write, mut can_manage) = (true, false);
    for word in words {
        match *word {
            "read-only" => can_write = false,
            "manager" => can_manage = true,
            _ => return None,
        }
    }
    Some((can_write, can_manage))
}

/// What follows a command about a message: its number, if any, and the text as it was typed.
fn read_about(name: &str, rest: &str) -> Option<About> {
    let rest = rest.trim();
    let (number, text) = match rest.strip_prefix('#') {
        None => (None, rest),
        Some(numbered) => {
            let (number, text) = numbered.split_once(char::is_whitespace).unwrap_or((numbered, ""));
            (Some(number.parse().ok()?), text.trim_start())
        }
    };
    let text = text.to_owned();
    let what = match name {
        "delete" if text.is_empty() => What::Delete,
        "delete" => return None,
        _ if text.is_empty() => return None,
        "reply" => What::Reply(text),
        "react" => What::React(text),
        _ => What::Edit(text),
    };
    Some(About { number, what })
}

/// The lines of the help.
pub(super) fn help(entry: Option<&Entry>) -> Vec<String> {
    if let Some(entry) = entry {
        let mut lines = vec![format!("{}  {}", entry.usage, entry.help)];
        lines.extend((!entry.more.is_empty()).then(|| entry.more.to_owned()));
        return lines;
    }
    let widest = ENTRIES.iter().map(|entry| entry.usage.len()).max().unwrap_or_default();
    ENTRIES.iter().map(|entry| format!("{:widest$}  {}", entry.usage, entry.help)).collect()
}

/// What Tab makes of a line whose cursor is at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Completion {
    /// There is nothing that it could become.
    Nothing,
    /// It becomes this line.
    Line(String),
    /// It could become several: as far as they agree, and what they are.
    Several(String, Vec<String>),
}

/// Completes a command, or the name after one.
pub(super) fn complete(line: &str, members: &[String]) -> Completion {
    let Some(command) = line.strip_prefix('/') else { return Completion::Nothing };
    let Some((name, rest)) = command.split_once(' ') else {
        return among("/", command, ENTRIES.iter().map(|entry| entry.name.to_owned()));
    };
    let Some(entry) = find(name) else { return Completion::Nothing };
    let head = format!("/{name} ");
    match entry.takes {
        Takes::Nothing | Takes::Stranger => Completion::Nothing,
        Takes::Command => among(&head, rest, ENTRIES.iter().map(|entry| entry.name.to_owned())),
        Takes::Member => among(&head, rest, members.iter().cloned()),
    }
}

fn among(head: &str, begun: &str, words: impl Iterator<Item = String>) -> Completion {
    let mut fitting: Vec<String> = words.filter(|word| word.starts_with(begun)).collect();
    if let [only] = fitting.as_slice() {
        return Completion::Line(format!("{head}{only} "));
    }
    let Some(first) = fitting.first() else { return Completion::Nothing };
    let agreed = fitting.iter().fold(first.as_str(), |agreed, word| {
        let length = agreed.char_indices().zip(word.chars()).take_while(|((_, a), b)| a == b).count();
        let end = agreed.char_indices().nth(length).map_or(agreed.len(), |(end, _)| end);
        agreed.get(..end).unwrap_or_default()
    });
    let line = format!("{head}{agreed}");
    fitting.sort();
    Completion::Several(line, fitting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_they_say() {
        assert_eq!(parse("  "), Ok(Typed::Blank));
        assert_eq!(parse("hello /quit "), Ok(Typed::Text("hello /quit".into())));
        assert_eq!(parse("//etc/hosts"), Ok(Typed::Text("/etc/hosts".into())));
        assert_eq!(parse("/quit"), Ok(Typed::Quit));
        assert_eq!(parse("/help"), Ok(Typed::Help(None)));
        assert!(matches!(parse("/help /add"), Ok(Typed::Help(Some(entry))) if entry.name == "add"));
        let add =
            |can_write, can_manage| Ok(Typed::Action(Action::Add { username: "bob".into(), can_write, can_manage }));
        assert_eq!(parse("/add bob"), add(true, false));
        assert_eq!(parse("/add  bob  read-only manager"), add(false, true));
        assert_eq!(parse("/remove bob"), Ok(Typed::Action(Action::Remove { username: "bob".into() })));
        assert!(matches!(parse("/leave"), Err(SlashError::Unconfirmed { .. })));
        let unsure = parse("/transfer bob").unwrap_err().to_string();
        assert_eq!(unsure, "only the new owner could give it back; type `/transfer bob yes` if you mean it");
        assert_eq!(parse("/transfer bob yes"), Ok(Typed::Action(Action::Transfer { username: "bob".into() })));
        let rights = Action::Rights { username: "bob".into(), can_write: false, can_manage: true };
        assert_eq!(parse("/rights bob manager read-only"), Ok(Typed::Action(rights)));
        assert_eq!(parse("/history shared"), Ok(Typed::Action(Action::History(HistoryPolicy::Shared))));
        assert!(matches!(parse("/history all"), Err(SlashError::Usage(_))));
        let about = |number, what| Ok(Typed::About(About { number, what }));
        assert_eq!(parse("/reply yes  I do\nof course"), about(None, What::Reply("yes  I do\nof course".into())));
        assert_eq!(parse("/reply #12  yes #1"), about(Some(12), What::Reply("yes #1".into())));
        assert_eq!(parse("/react #3 👍"), about(Some(3), What::React("👍".into())));
        assert_eq!(parse("/edit better"), about(None, What::Edit("better".into())));
        assert_eq!(parse("/delete"), about(None, What::Delete));
        assert_eq!(parse("/delete #7"), about(Some(7), What::Delete));
        for unclear in ["/reply", "/reply #12", "/reply #x yes", "/delete 7", "/edit #1", "/react"] {
            assert!(matches!(parse(unclear), Err(SlashError::Usage(_))), "{unclear}");
        }
        assert_eq!(parse("/leave yes"), Ok(Typed::Action(Action::Leave)));
        assert!(matches!(parse("/add"), Err(SlashError::Usage(_))));
        assert!(matches!(parse("/add bob boss"), Err(SlashError::Usage(_))));
        assert!(matches!(parse("/help nothing"), Err(SlashError::Usage(_))));
        for unknown in ["/", "/ quit", "/dance", "/Quit"] {
            assert!(matches!(parse(unknown), Err(SlashError::Unknown(_))), "{unknown}");
        }
        let advice = parse("/dance").unwrap_err().to_string();
        assert_eq!(advice, "no command /dance; /help lists them, and //dance sends it as text");
    }

    #[test]
    fn every_command_is_understood_and_helped_with() {
        for entry in ENTRIES {
            assert!(!matches!(parse(&format!("/{}", entry.name)), Err(SlashError::Unknown(_))), "{}", entry.name);
            assert!(entry.usage.starts_with(&format!("/{}", entry.name)));
            assert!(help(None).iter().any(|line| line.starts_with(entry.usage)));
            assert!(help(Some(entry)).join(" ").contains(entry.help));
            assert!(help(None).iter().all(|line| line.len() <= 76), "the help fits a terminal of 80 columns");
        }
    }

    #[test]
    fn tab_completes_commands_and_names() {
        let members = ["ada".to_owned(), "adam".to_owned(), "bob".to_owned()];
        assert_eq!(complete("/q", &members), Completion::Line("/quit ".into()));
        assert_eq!(
            complete("/re", &members),
            Completion::Several(
                "/re".into(),
                ["react", "rekey", "remove", "reply", "retry"].map(String::from).to_vec()
            )
        );
        assert_eq!(complete("/remove b", &members), Completion::Line("/remove bob ".into()));
        assert_eq!(
            complete("/safety a", &members),
            Completion::Several("/safety ada".into(), vec!["ada".into(), "adam".into()])
        );
        assert_eq!(complete("/help le", &members), Completion::Line("/help leave ".into()));
        for nothing in ["hello", "/add b", "/x", "/x y", "/remove zoe", "/members "] {
            assert_eq!(complete(nothing, &members), Completion::Nothing, "{nothing}");
        }
    }
}
