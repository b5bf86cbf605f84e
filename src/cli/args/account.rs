//! The arguments of what is done with one's own account: password, profile, who may add, its end.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::client::NewAccount;
use crate::protocol::frame::AddPolicy;

/// The account of which this profile becomes a session.
#[derive(Debug, Args)]
pub(in crate::cli) struct AccountArgs {
    /// Address of the server.
    #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
    server: String,
    /// The account's username: 3 to 32 of a-z, 0-9, `.`, `_` and `-`.
    username: String,
    /// Seconds after which the session expires; up to a tenth is taken off at random.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    session_ttl: Option<u64>,
}

impl AccountArgs {
    pub(in crate::cli) fn account(&self) -> NewAccount {
        let ttl = self.session_ttl.map(Duration::from_secs);
        NewAccount { server: self.server.clone(), username: self.username.clone(), ttl }
    }
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PasswordCommand {
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

/// What is done with what users say of themselves.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ProfileCommand {
    /// Save what you say of yourself; an empty text takes it away, what is not named stays.
    #[command(after_help = "\
Examples:
  sealcast client profile set --name \"Ada Lovelace\" --email ada@example.org
  sealcast client profile set --description \"\"

Your own devices can read it, and everybody with whom you share a chat, but for whom you have blocked. Nobody else can,
not the server either. Who ceases to share a chat with you, and a device that you revoke, cannot read what you save
from then on.")]
    Set {
        /// What you are called.
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// Where you get mail.
        #[arg(long, value_name = "TEXT")]
        email: Option<String>,
        /// What you say of yourself.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Show what a user says of themselves.
    #[command(after_help = "\
Examples:
  sealcast client profile show
  sealcast client profile show bob
  sealcast client --json profile show bob | jq -r .name

A line is: username, name, email; parted by tabs. The description follows on a line of its own.")]
    Show {
        /// Whose; your own if none is named.
        username: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AccountCommand {
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

/// Who may add this user to chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Who {
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
