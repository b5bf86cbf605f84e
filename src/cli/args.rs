//! The arguments of the terminal client.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ColorChoice, Subcommand};

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
    /// There is no password yet: whoever loses all sessions loses the account.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/ada register --server https://chat.example ada
  SEALCAST_PASSPHRASE=... sealcast client --profile ~/ada register --server https://chat.example ada

The second one seals the keys in the profile under the passphrase; every later command needs it too.")]
    Register {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// 3 to 32 of a-z, 0-9, `.`, `_` and `-`.
        username: String,
        /// Seconds after which the session expires; up to a tenth is taken off at random.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        session_ttl: Option<u64>,
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
    /// Print the messages of a chat that this session may read, oldest first.
    #[command(after_help = "\
Examples:
  sealcast client read $CHAT
  sealcast client read $CHAT --since 120
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
    },
    /// List sessions: id, state, when it expires, when it was last connected.
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
    /// List chats: id, newest entry, title.
    #[command(after_help = "\
Examples:
  sealcast client chat list
  sealcast client --json chat list | jq -r 'select(.title == \"Tea at five\") | .chat_id'")]
    List,
    /// Show a chat: title, then its members with their rights.
    #[command(after_help = "\
Examples:
  sealcast client chat show $CHAT
  sealcast client --json chat show $CHAT | jq -r '.username // empty'")]
    Show {
        /// The chat's id.
        chat: ChatId,
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
