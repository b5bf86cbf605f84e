//! What a typed line means: text to send, or one of the `/` commands; their help, and their completion.
//!
//! Pure. A line that begins with two slashes is text that begins with one.

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
    #[error("you would not read this chat any more; type `/leave yes` to leave it")]
    Unconfirmed,
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
            let (mut can_write, mut can_manage) = (true, false);
            for right in rights {
                match *right {
                    "read-only" => can_write = false,
                    "manager" => can_manage = true,
                    _ => return Err(usage()),
                }
            }
            Typed::Action(Action::Add { username: (*username).to_owned(), can_write, can_manage })
        }
        ("remove", [username]) => Typed::Action(Action::Remove { username: (*username).to_owned() }),
        ("leave", ["yes"]) => Typed::Action(Action::Leave),
        ("leave", _) => return Err(SlashError::Unconfirmed),
        ("safety", [username]) => Typed::Action(Action::Safety { username: (*username).to_owned() }),
        ("retry", []) => Typed::Retry,
        ("alarms", []) => Typed::Alarms,
        ("quit", []) => Typed::Quit,
        _ => return Err(usage()),
    };
    Ok(typed)
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
        assert_eq!(parse("/leave"), Err(SlashError::Unconfirmed));
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
        assert_eq!(complete("/re", &members), Completion::Several("/re".into(), vec!["remove".into(), "retry".into()]));
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
