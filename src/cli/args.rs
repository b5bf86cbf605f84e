//! The arguments of the terminal client.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, Subcommand, ValueEnum};

use super::messages::MessageRef;
use crate::protocol::frame::AddPolicy;
use crate::protocol::ids::{ChatId, MessageId, SessionId};
use crate::protocol::membership::HistoryPolicy;

/// Seconds within which a command ends, unless told otherwise.
const TIMEOUT_S: u64 = 30;

/// Chats end-to-end encrypted from the terminal.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  export SEALCAST_PROFILE=~/ada
  sealcast client register --server https://chat.example ada
  CHAT=$(sealcast client chat create \"Tea at five\")
  sealcast client chat add $CHAT bob
  sealcast client talk $CHAT
  sealcast client --json read $CHAT | jq -r .body.text

Each command says more with --help. `sealcast completions SHELL` makes Tab complete all this.")]
pub struct ClientArgs {
    /// Folder that holds the account, its keys and the state of its chats.
    #[arg(long, value_name = "DIR", env = "SEALCAST_PROFILE")]
    pub(super) profile: PathBuf,

    /// Print one JSON object a line.
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Colours: by themselves on a terminal unless `NO_COLOR` is set; never in JSON.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,

    /// Seconds within which the command ends [default: 30; `talk`, `session link` and `read --follow` wait for ever].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: Option<u64>,

    /// PEM file with certificate authorities to trust beside the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,

    /// File with the passphrase under which the profile is sealed; or set `SEALCAST_PASSPHRASE`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) passphrase_file: Option<PathBuf>,

    /// Speak JSON on the socket, to look on.
    #[arg(long, global = true, hide = true)]
    pub(super) wire_json: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

impl ClientArgs {
    /// How long the command may take; none for those that wait for somebody.
    pub(super) fn limit(&self) -> Option<Duration> {
        let waits = matches!(
            self.command,
            Command::Talk { .. }
                | Command::Read { follow: true, .. }
                | Command::Session { command: SessionCommand::Link { .. } }
        );
        let default = if waits { None } else { Some(TIMEOUT_S) };
        self.timeout.or(default).map(Duration::from_secs)
    }
}

/// What the terminal client does.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an account, with this profile as its first session.
    ///
    /// With a password it opens on any device. Without one (no terminal, and no --password-stdin) whoever loses all
    /// sessions loses the account.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/ada register --server https://chat.example ada
  echo \"$PASSWORD\" | sealcast client --profile ~/ada register --server https://chat.example ada --password-stdin
  SEALCAST_PASSPHRASE=... sealcast client --profile ~/ada register --server https://chat.example ada

The password never leaves this device; at the terminal it is asked for, and nothing is an account without one. The
last one seals the keys in the profile under the passphrase; every later command needs it too.")]
    Register {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// 3 to 32 of a-z, 0-9, `.`, `_` and `-`.
        username: String,
        /// Seconds after which the session expires; up to a tenth is taken off at random.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        session_ttl: Option<u64>,
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Make this profile a new session of an account by its password, or by its recovery code.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/ada-phone login --server https://chat.example ada
  echo \"$PASSWORD\" | sealcast client --profile ~/ada-phone login --server https://chat.example ada --password-stdin
  sealcast client --profile ~/ada-phone login --server https://chat.example ada --recovery-code")]
    Login {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// The account's username.
        username: String,
        /// Seconds after which the session expires; up to a tenth is taken off at random.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        session_ttl: Option<u64>,
        /// Take it from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// By the recovery code instead of the password.
        #[arg(long)]
        recovery_code: bool,
    },
    /// This account's password.
    Password {
        #[command(subcommand)]
        command: PasswordCommand,
    },
    /// Make a new recovery code and print it, once: it opens the account without the password, and ends the one before.
    #[command(after_help = "\
Examples:
  sealcast client recovery-code
  echo \"$PASSWORD\" | sealcast client recovery-code --password-stdin > code.txt

Keep it on paper, away from your devices. Whoever has it has the account.")]
    RecoveryCode {
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Sessions (devices) of this account.
    Session {
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// Chats and their members.
    Chat {
        #[command(subcommand)]
        command: ChatCommand,
    },
    /// Send a message; prints its id and its place in the log once it is durable.
    #[command(after_help = "\
Examples:
  sealcast client send $CHAT \"hello bob\"
  sealcast client send $CHAT -- \"--text that looks like an option\"
  sealcast client --timeout 5 send $CHAT \"now or never\"")]
    Send {
        /// The chat's id.
        chat: ChatId,
        /// The text.
        #[arg(allow_hyphen_values = true)]
        text: String,
        /// The message's id, to try again a send that may have arrived, without a second message.
        #[arg(long, value_name = "UUID")]
        id: Option<MessageId>,
    },
    /// Answer to a message.
    #[command(after_help = "\
Examples:
  sealcast client reply $CHAT 12 \"at five, as always\"

MESSAGE is the place in the log, as `read` shows it, or the message's id.")]
    Reply {
        /// The chat's id.
        chat: ChatId,
        /// Which message.
        message: MessageRef,
        /// The text.
        #[arg(allow_hyphen_values = true)]
        text: String,
    },
    /// React to a message; `delete` with the id that is printed takes it back.
    #[command(after_help = "\
Examples:
  sealcast client react $CHAT 12 👍")]
    React {
        /// The chat's id.
        chat: ChatId,
        /// Which message.
        message: MessageRef,
        /// The reaction.
        emoji: String,
    },
    /// Give a message of yours a new text; the old one is purged on the server.
    #[command(after_help = "\
Examples:
  sealcast client edit $CHAT 12 \"at six, not at five\"")]
    Edit {
        /// The chat's id.
        chat: ChatId,
        /// Which message.
        message: MessageRef,
        /// The new text.
        #[arg(allow_hyphen_values = true)]
        text: String,
    },
    /// Delete a message for everybody: one of yours, or as a manager anybody's.
    #[command(after_help = "\
Examples:
  sealcast client delete $CHAT 12")]
    Delete {
        /// The chat's id.
        chat: ChatId,
        /// Which message.
        message: MessageRef,
    },
    /// Block a user: they cannot add you to a chat, and are not told why; `talk` hides what they write.
    #[command(after_help = "\
Examples:
  sealcast client block mallory")]
    Block {
        /// Whom.
        username: String,
    },
    /// Block a user no longer.
    #[command(after_help = "\
Examples:
  sealcast client unblock mallory")]
    Unblock {
        /// Whom.
        username: String,
    },
    /// List whom you have blocked.
    #[command(after_help = "\
Examples:
  sealcast client blocks")]
    Blocks,
    /// This account.
    Account {
        #[command(subcommand)]
        command: AccountCommand,
    },
    /// Print the messages of a chat that this session may read, oldest first.
    #[command(after_help = "\
Examples:
  sealcast client read $CHAT
  sealcast client read $CHAT --since 120
  sealcast client read $CHAT --mark
  sealcast client --json read $CHAT --follow | jq -r .body.text

A line is: place in the log, time (UTC), sender, text; parted by tabs.")]
    Read {
        /// The chat's id.
        chat: ChatId,
        /// Only what comes after this place in the log.
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
        /// Go on printing what comes, until interrupted.
        #[arg(long)]
        follow: bool,
        /// Mark what is printed as read; your own devices alone learn of it.
        #[arg(long)]
        mark: bool,
    },
    /// Talk in a chat: on the whole screen, with what was said before, or line by line where there is no terminal.
    #[command(after_help = "\
Examples:
  sealcast client talk $CHAT
  sealcast client talk $CHAT --lines
  echo \"hello bob\" | sealcast client talk $CHAT --last 0
  sealcast client --json talk $CHAT < questions.txt

On the screen, type and press Enter; /help shows the commands and keys; Ctrl-C ends. While it runs it keeps the
profile: other commands with the same one wait. Line by line, each line of input is sent or is a `/` command, and
each message is printed as `read` prints it; what happened otherwise begins with a star. It ends with the input,
once everything has its answer.")]
    Talk {
        /// The chat's id.
        chat: ChatId,
        /// How many messages of the past come first, line by line; the screen loads them as you scroll.
        #[arg(long, value_name = "COUNT", default_value_t = 20)]
        last: usize,
        /// Line by line on a terminal too.
        #[arg(long)]
        lines: bool,
        /// Who learns how far you have read [default: own on the screen, nobody line by line].
        #[arg(long, value_name = "WHO")]
        receipts: Option<Receipts>,
    },
    /// Show the number that you and another user compare, to know that nobody stands between you.
    #[command(after_help = "\
Examples:
  sealcast client safety-number bob
  sealcast client --json safety-number bob | jq -r .safety_number

Both of you see the same number. Compare it in person or in a call, never through the chat itself.")]
    SafetyNumber {
        /// Whose.
        username: String,
    },
}

/// Who learns how far this user has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Receipts {
    /// Your own devices.
    Own,
    /// Every member of the chat.
    Everybody,
    /// Nobody, not even this device.
    Nobody,
}

/// Who may add this user to chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Who {
    /// Whoever is not blocked.
    Everyone,
    /// Who shares a chat with you.
    SharedChat,
    /// Nobody.
    Nobody,
}

impl From<Who> for AddPolicy {
    fn from(who: Who) -> Self {
        match who {
            Who::Everyone => Self::Everyone,
            Who::SharedChat => Self::SharedChat,
            Who::Nobody => Self::Nobody,
        }
    }
}

/// What newcomers of a chat may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Newcomers {
    /// What comes after their joining.
    FromJoin,
    /// Everything that is written from this change on.
    Shared,
}

impl From<Newcomers> for HistoryPolicy {
    fn from(newcomers: Newcomers) -> Self {
        match newcomers {
            Newcomers::FromJoin => Self::FromJoin,
            Newcomers::Shared => Self::Shared,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum PasswordCommand {
    /// Replace the password, or give an account its first.
    #[command(after_help = "\
Examples:
  sealcast client password change
  printf '%s\\n%s\\n' \"$OLD\" \"$NEW\" | sealcast client password change --password-stdin
  printf '%s\\n%s\\n' \"$CODE\" \"$NEW\" | sealcast client password change --recovery-code --password-stdin")]
    Change {
        /// Take the old and the new one from two lines of standard input; where there was none, the new one alone.
        #[arg(long)]
        password_stdin: bool,
        /// The old one is forgotten: the recovery code takes its place.
        #[arg(long)]
        recovery_code: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Say who may add you to chats; without WHO, show it.
    #[command(after_help = "\
Examples:
  sealcast client account who-may-add
  sealcast client account who-may-add shared-chat")]
    WhoMayAdd {
        /// Who.
        who: Option<Who>,
    },
    /// End this account for good, with all its devices: its name is never given out again, its chats pass on or end.
    #[command(after_help = "\
Examples:
  sealcast client account delete
  sealcast client account delete --yes

Without --yes it asks for your username, as a line of input.")]
    Delete {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        /// Take the account's password, if it has one, from the next line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Make this profile a new session of an account: prints a code, and waits until another session approves it.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/bob-phone session link --server https://chat.example bob

Then on a device that bob has: sealcast client --profile ~/bob session approve CODE")]
    Link {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// The account's username.
        username: String,
    },
    /// Approve the session that shows a code.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/bob session approve 1234-5678-9012-3456-7890-1234
  sealcast client --profile ~/bob session approve CODE --session-ttl 86400")]
    Approve {
        /// The code that `session link` printed.
        code: String,
        /// Seconds after which the new session expires; up to a tenth is taken off at random.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        session_ttl: Option<u64>,
        /// Take the account's password, if it has one, from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Name a session, for the eyes of your own sessions alone.
    #[command(after_help = "\
Examples:
  sealcast client session label this \"the laptop\"
  sealcast client session label 01900000-0000-7000-8000-000000000000 \"the old phone\"
  sealcast client session label this \"\"                # takes the name away")]
    Label {
        /// The session's id, or `this`.
        id: SessionRef,
        /// The name.
        label: String,
    },
    /// List sessions: id, state, when it expires, when it was last connected, name.
    #[command(after_help = "\
Examples:
  sealcast client session list
  sealcast client --json session list | jq -r 'select(.this | not) | .session_id'")]
    List,
    /// End a session at once.
    #[command(after_help = "\
Examples:
  sealcast client session list
  sealcast client session revoke 01900000-0000-7000-8000-000000000000")]
    Revoke {
        /// The session's id.
        id: SessionId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ChatCommand {
    /// Make a chat; prints its id.
    #[command(after_help = "\
Examples:
  CHAT=$(sealcast client chat create \"Tea at five\")")]
    Create {
        /// The title; the server sees it encrypted.
        title: String,
    },
    /// List chats: id, newest entry, title, how many messages you have not read.
    #[command(after_help = "\
Examples:
  sealcast client chat list
  sealcast client --json chat list | jq -r 'select(.title == \"Tea at five\") | .chat_id'")]
    List,
    /// Show a chat: title, description, then its members with their rights.
    #[command(after_help = "\
Examples:
  sealcast client chat show $CHAT
  sealcast client --json chat show $CHAT | jq -r '.username // empty'")]
    Show {
        /// The chat's id.
        chat: ChatId,
    },
    /// Give a chat another title; the server sees it encrypted.
    #[command(after_help = "\
Examples:
  sealcast client chat rename $CHAT \"Tea at six\"")]
    Rename {
        /// The chat's id.
        chat: ChatId,
        /// The title; an empty one takes it away.
        title: String,
    },
    /// Describe a chat; the server sees it encrypted.
    #[command(after_help = "\
Examples:
  sealcast client chat describe $CHAT \"Bring your own cup.\"
  sealcast client chat describe $CHAT \"\"            # no description any more")]
    Describe {
        /// The chat's id.
        chat: ChatId,
        /// What it is about; an empty text takes the description away.
        text: String,
    },
    /// Add a user; they read what comes after their joining.
    #[command(after_help = "\
Examples:
  sealcast client chat add $CHAT bob
  sealcast client chat add $CHAT carol --read-only
  sealcast client chat add $CHAT dave --manager")]
    Add {
        /// The chat's id.
        chat: ChatId,
        /// Whom.
        username: String,
        /// They may not write.
        #[arg(long)]
        read_only: bool,
        /// They may add and remove members.
        #[arg(long)]
        manager: bool,
    },
    /// Remove a member; nothing that is sent afterwards can be read by them.
    #[command(after_help = "\
Examples:
  sealcast client chat remove $CHAT bob")]
    Remove {
        /// The chat's id.
        chat: ChatId,
        /// Whom.
        username: String,
    },
    /// Change what a member may do: to write and nothing else, unless told otherwise.
    #[command(after_help = "\
Examples:
  sealcast client chat rights $CHAT bob --manager
  sealcast client chat rights $CHAT carol --read-only
  sealcast client chat rights $CHAT bob              # may write, may not add or remove")]
    Rights {
        /// The chat's id.
        chat: ChatId,
        /// Whose.
        username: String,
        /// They may not write.
        #[arg(long)]
        read_only: bool,
        /// They may add and remove members.
        #[arg(long)]
        manager: bool,
    },
    /// Make a member the owner; you stay a member.
    #[command(after_help = "\
Examples:
  sealcast client chat transfer $CHAT bob")]
    Transfer {
        /// The chat's id.
        chat: ChatId,
        /// To whom.
        username: String,
    },
    /// Make all keys of a chat new, as after the loss of a device.
    #[command(after_help = "\
Examples:
  sealcast client chat rekey $CHAT")]
    Rekey {
        /// The chat's id.
        chat: ChatId,
    },
    /// Say what newcomers may read.
    #[command(after_help = "\
Examples:
  sealcast client chat history $CHAT shared
  sealcast client chat history $CHAT from-join")]
    History {
        /// The chat's id.
        chat: ChatId,
        /// What.
        newcomers: Newcomers,
    },
    /// Leave a chat.
    #[command(after_help = "\
Examples:
  sealcast client chat leave $CHAT")]
    Leave {
        /// The chat's id.
        chat: ChatId,
    },
    /// End a chat, with everything in it.
    #[command(after_help = "\
Examples:
  sealcast client chat delete $CHAT")]
    Delete {
        /// The chat's id.
        chat: ChatId,
    },
}

/// A session of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionRef {
    /// That of this profile.
    This,
    /// By its id.
    Id(SessionId),
}

impl std::str::FromStr for SessionRef {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "this" { Ok(Self::This) } else { text.parse().map(Self::Id) }
    }
}
