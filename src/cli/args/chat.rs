//! The arguments of what is done with chats.

use clap::{Subcommand, ValueEnum};

use crate::protocol::ids::ChatId;
use crate::protocol::membership::HistoryPolicy;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ChatCommand {
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
    /// Say which entries of a chat this device can open, and why not the others.
    ///
    /// A line is: first entry, last entry, what can be said of them: open; `before_join` (from before you may read);
    /// `no_copy_yet` (somebody has the key, or an archive that your password opens); `key_lost` (nobody has); purged;
    /// refused (it does not verify, or the copy of its key was bad).
    #[command(after_help = "\
Examples:
  sealcast client chat coverage $CHAT
  sealcast client --json chat coverage $CHAT | jq -r 'select(.openness == \"key_lost\")'")]
    Coverage {
        /// The chat's id.
        chat: ChatId,
    },
    /// Open what was said before this device, in all chats, with the password or the recovery code. A login does it by
    /// itself.
    #[command(after_help = "\
Examples:
  sealcast client chat recover
  echo \"$PASSWORD\" | sealcast client chat recover --password-stdin
  sealcast client chat recover --recovery-code")]
    Recover {
        /// Take it from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
        /// By the recovery code instead of the password.
        #[arg(long)]
        recovery_code: bool,
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

/// What newcomers of a chat may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Newcomers {
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
