//! The arguments of the terminal client.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::protocol::ids::{ChatId, MessageId, SessionId};

/// Seconds within which a command ends, unless told otherwise.
const TIMEOUT_S: u64 = 30;

/// Chats end-to-end encrypted from the terminal.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// Folder that holds the account, its keys and the state of its chats.
    #[arg(long, value_name = "DIR", env = "SEALCAST_PROFILE")]
    pub(super) profile: PathBuf,

    /// Print one JSON object a line.
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// Seconds within which the command ends [default: 30; `session link` and `read --follow` wait for ever].
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
            Command::Read { follow: true, .. } | Command::Session { command: SessionCommand::Link { .. } }
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
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Make this profile a new session of an account: prints a code, and waits until another session approves it.
    Link {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// The account's username.
        username: String,
    },
    /// Approve the session that shows a code.
    Approve {
        /// The code that `session link` printed.
        code: String,
        /// Seconds after which the new session expires; up to a tenth is taken off at random.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        session_ttl: Option<u64>,
    },
    /// List sessions: id, state, when it expires, when it was last connected.
    List,
    /// End a session at once.
    Revoke {
        /// The session's id.
        id: SessionId,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ChatCommand {
    /// Make a chat; prints its id.
    Create {
        /// The title; the server sees it encrypted.
        title: String,
    },
    /// List chats: id, newest entry, title.
    List,
    /// Show a chat: title, then its members with their rights.
    Show {
        /// The chat's id.
        chat: ChatId,
    },
    /// Add a user; they read what comes after their joining.
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
    Remove {
        /// The chat's id.
        chat: ChatId,
        /// Whom.
        username: String,
    },
    /// Leave a chat.
    Leave {
        /// The chat's id.
        chat: ChatId,
    },
    /// End a chat, with everything in it.
    Delete {
        /// The chat's id.
        chat: ChatId,
    },
}
