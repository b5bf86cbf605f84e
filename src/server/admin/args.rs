//! The arguments of `sealcast admin`.

use clap::{Subcommand, ValueEnum};
use uuid::Uuid;

/// What the operator wants.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Accounts: list, show, suspend, delete.
    #[command(subcommand)]
    Users(UsersCommand),
    /// A user's sessions: list, disconnect.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Codes with which somebody may register: create, list, revoke.
    #[command(subcommand)]
    Invitations(InvitationsCommand),
    /// Chats: who owns them, how large and how old they are. Their names are sealed.
    #[command(subcommand)]
    Chats(ChatsCommand),
    /// Rows and bytes of each table.
    Storage,
    /// What Postgres plans by.
    #[command(subcommand)]
    Statistics(StatisticsCommand),
}

/// What is done with accounts. USER is a username or an id.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// List accounts in order of their names.
    List {
        /// Begin behind this username.
        #[arg(long, value_name = "USERNAME", default_value = "")]
        after: String,
        /// Accounts at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
    },
    /// Show one account.
    Show {
        /// Username or id.
        user: String,
    },
    /// Let an account neither log in nor send. It stays a member and a recipient, and no chat is told.
    Suspend {
        /// Username or id.
        user: String,
    },
    /// Take a suspension back.
    Unsuspend {
        /// Username or id.
        user: String,
    },
    /// End an account for good: every chat of it is told that the server did it.
    Delete {
        /// Username or id.
        user: String,
        /// Yes, for good.
        #[arg(long)]
        yes: bool,
    },
}

/// What is done with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List a user's sessions.
    List {
        /// Username or id.
        user: String,
    },
    /// Cut a user's connections, or one session's. They may come back: `users suspend` keeps them away.
    Disconnect {
        /// Username or id.
        user: String,
        /// This session's alone.
        #[arg(long, value_name = "ID")]
        session: Option<Uuid>,
    },
}

/// What is done with invitations.
#[derive(Debug, Subcommand)]
pub enum InvitationsCommand {
    /// Make a code and print it, this once.
    Create {
        /// How many may register with it.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        uses: u32,
        /// For how many days.
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3_650))]
        days: u32,
    },
    /// List invitations, the newest first.
    List {
        /// Invitations at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
    },
    /// Let nobody register with a code any more.
    Revoke {
        /// The invitation's id.
        invitation: Uuid,
    },
}

/// What is done with chats.
#[derive(Debug, Subcommand)]
pub enum ChatsCommand {
    /// List chats. Reads the length of every message.
    List {
        /// What comes first: the largest or the oldest.
        #[arg(long, value_enum, default_value_t = By::Size)]
        by: By,
        /// Chats at most.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
}

/// The order of chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The largest first.
    Size,
    /// The oldest first.
    Age,
}

/// What is done with statistics.
#[derive(Debug, Subcommand)]
pub enum StatisticsCommand {
    /// Have Postgres look at every table anew (ANALYZE).
    Rebuild,
}
