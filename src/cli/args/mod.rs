//! The arguments of the terminal client.

mod account;
mod chat;
mod friends;
mod secret;
mod session;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, Subcommand, ValueEnum};

pub(super) use account::{AccountArgs, AccountCommand, PasswordCommand, ProfileCommand};
pub(super) use chat::ChatCommand;
pub(super) use friends::FriendsCommand;
pub(super) use secret::{SecretCommand, Unlocking};
pub(super) use session::{SessionCommand, SessionRef};

use super::messages::MessageRef;
use crate::protocol::ids::{ChatId, MessageId, SessionId};

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
    pub(in crate::cli) profile: PathBuf,

    /// Print one JSON object a line.
    #[arg(long, global = true)]
    pub(in crate::cli) json: bool,

    /// Colours: by themselves on a terminal unless `NO_COLOR` is set; never in JSON.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(in crate::cli) color: ColorChoice,

    /// Seconds within which the command ends [default: 30; `talk`, `session link`, `friends recover` and `read --follow` wait for ever].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) timeout: Option<u64>,

    /// PEM file with certificate authorities to trust beside the system's.
    #[arg(long, global = true, value_name = "FILE")]
    pub(in crate::cli) ca: Option<PathBuf>,

    /// File with the passphrase under which the profile is sealed; or set `SEALCAST_PASSPHRASE`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,

    /// Speak JSON on the socket, to look on.
    #[arg(long, global = true, hide = true)]
    pub(in crate::cli) wire_json: bool,

    /// Seconds instead of the day that a friend's device waits before it gives its share: for tests.
    #[cfg(feature = "fail-points")]
    #[arg(long, global = true, hide = true)]
    pub(in crate::cli) recovery_window: Option<u64>,

    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

impl ClientArgs {
    /// How long the command may take; none for those that wait for somebody.
    pub(in crate::cli) fn limit(&self) -> Option<Duration> {
        let waits = matches!(
            self.command,
            Command::Talk { .. }
                | Command::Read { follow: true, .. }
                | Command::Session { command: SessionCommand::Link { .. } }
                | Command::Friends { command: FriendsCommand::Recover { .. } }
        );
        let default = if waits { None } else { Some(TIMEOUT_S) };
        self.timeout.or(default).map(Duration::from_secs)
    }
}

/// What the terminal client does.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
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
        #[command(flatten)]
        account: AccountArgs,
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// The code of an invitation, for a server that asks for one.
        #[arg(long, value_name = "CODE", env = "SEALCAST_INVITATION", hide_env_values = true)]
        invitation: Option<String>,
    },
    /// Make this profile a new session of an account by its password, or by its recovery code.
    ///
    /// With the profile of a session whose time is over, or nearly, it renews that session: all that it could read it
    /// reads on.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/ada-phone login --server https://chat.example ada
  echo \"$PASSWORD\" | sealcast client --profile ~/ada-phone login --server https://chat.example ada --password-stdin
  sealcast client --profile ~/ada-phone login --server https://chat.example ada --recovery-code")]
    Login {
        #[command(flatten)]
        account: AccountArgs,
        /// Take it from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// By the recovery code instead of the password.
        #[arg(long)]
        recovery_code: bool,
        /// End this session if there are as many as the server allows, to make room.
        #[arg(long, value_name = "ID")]
        replace: Option<SessionId>,
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
    /// Friends who together can recover an account whose password and recovery code are lost.
    Friends {
        #[command(subcommand)]
        command: FriendsCommand,
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
    /// What you and others say of themselves: name, email, description.
    Profile {
        #[command(subcommand)]
        command: ProfileCommand,
    },
    /// This account.
    Account {
        #[command(subcommand)]
        command: AccountCommand,
    },
    /// Secrets of a chat: named values that its members read, whoever reads them is noted.
    Secret {
        #[command(subcommand)]
        command: SecretCommand,
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
pub(in crate::cli) enum Receipts {
    /// Your own devices.
    Own,
    /// Every member of the chat.
    Everybody,
    /// Nobody, not even this device.
    Nobody,
}
