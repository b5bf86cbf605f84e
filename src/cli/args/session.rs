//! The arguments of what is done with a user's sessions.

use clap::Subcommand;

use crate::protocol::ids::SessionId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SessionCommand {
    /// Make this profile a new session of an account: prints a code, and waits until another session approves it.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/bob-phone session link --server https://chat.example bob

Then on a device that bob has: sealcast client --profile ~/bob session approve CODE

On a terminal the code is drawn as a QR code too.")]
    Link {
        /// Address of the server.
        #[arg(long, value_name = "URL", env = "SEALCAST_SERVER")]
        server: String,
        /// The account's username.
        username: String,
        /// Draw the QR code where there is no terminal, or a narrow one, too.
        #[arg(long)]
        qr: bool,
    },
    /// List the sessions that wait for approval: id, since when.
    #[command(after_help = "\
Examples:
  sealcast client session pending

The device that asks prints a code: `session approve CODE` lets it in.")]
    Pending,
    /// Approve the session that shows a code.
    #[command(after_help = "\
Examples:
  sealcast client --profile ~/bob session approve 1234-5678-9012-3456-7890-1234
  sealcast client --profile ~/bob session approve CODE --session-ttl 86400")]
    Approve {
        /// The code that `session link` printed, or what its QR code says.
        code: String,
        /// Draw the code as a QR code where there is no terminal, or a narrow one, too: both sides show the same.
        #[arg(long)]
        qr: bool,
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

/// A session of this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum SessionRef {
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
