//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Loads a broker of Sealcast with real clients and checks every promise on what they saw.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Many users in many chats, with joins, removals and reconnects while messages flow.
    #[command(after_help = COUNTS)]
    Mixed(MixedArgs),
    /// Check histories that were written before; several are one.
    Check {
        /// Files of `--history`.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Serve, with settings from the environment.
    #[command(hide = true)]
    Broker,
}

/// What the help says of the result.
const COUNTS: &str = "\
The six counts, each of which must be 0 for exit code 0:
  lost                acknowledged messages that are missing at a session that was a recipient, or were found nowhere
  duplicated          messages at two places of the log, and entries that one session was given twice
  out_of_order        entries given after a later one, and messages placed before one that had been acknowledged
                      before they were sent
  gaps                entries missing in a session's stretch of a log, from its first to the chat's last
  undecryptable       entries that a recipient could not open or verify, and every other alarm of a client
  read_after_removal  entries that a session was given after its removal, or that a key it ever kept opens, and copies
                      of later keys that the server gave it";

/// Options of `mixed`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MixedArgs {
    /// Users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pub(crate) users: u32,
    /// Sessions (devices) of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) sessions_per_user: u32,
    /// Chats, of 3 to 15 users each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) chats: u32,
    /// Seconds during which messages flow.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) size: u32,
    /// Messages in a second, in all; 0 is as fast as the clients go, one open send of each session and chat.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u32,
    /// How frames are written; `both` is every other session each.
    #[arg(long, value_enum, default_value_t = Encodings::Msgpack)]
    pub(crate) encoding: Encodings,
    /// Decides who is in which chat and what changes when; drawn if not given. Not the keys, and not the timing.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A running broker, `http://host:port`; without it one is started, on a Postgres of its own.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Ends the broker with SIGKILL every so many seconds, and starts it again.
    #[arg(long, value_name = "SECONDS", conflicts_with = "server", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) kill_broker_every: Option<u64>,
    /// Ends Postgres with SIGKILL every so many seconds; the broker starts it again.
    #[arg(long, value_name = "SECONDS", conflicts_with = "server", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) kill_postgres_every: Option<u64>,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the history goes, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    /// What the clients log on standard error: a level, or `target=level` pairs.
    #[arg(long, value_name = "FILTER")]
    pub(crate) client_log: Option<String>,
    /// Where the log of the broker goes that is started; by default it goes with the broker.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub(crate) broker_log: Option<PathBuf>,
}

/// How frames are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encodings {
    /// JSON.
    Json,
    /// `MessagePack`.
    #[default]
    Msgpack,
    /// Every other session each.
    Both,
}
