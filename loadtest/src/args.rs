//! The command line.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::plan::{Crypto, Plan};
use crate::bench::{compare, remote, rotate, scale};
use crate::check::plant::Damage;
use crate::floor;
use crate::scenario::{Faults, Scenario};

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
    /// The same load for long: does memory grow, do queues, does latency?
    #[command(after_help = COUNTS)]
    Soak(SoakArgs),
    /// The same load while everything else breaks: processes, paths, clocks, sessions.
    #[command(after_help = COUNTS)]
    Torture(TortureArgs),
    /// How fast is it, as a ratio to floors that are measured in turn with it?
    #[command(after_help = COMPARED)]
    Compare(CompareArgs),
    /// How much memory does a connection take that is logged in, in a chat of five, and at rest?
    Idle(IdleArgs),
    /// Is a page of a long log read as fast from its middle as from its ends?
    History(HistoryArgs),
    /// What do removals cost a busy chat, where every sender needs a new key after each?
    Rotate(RotateArgs),
    /// What does a message cost the server, by the size of its chat and by all that is there beside it?
    Scale(ScaleArgs),
    /// How long does it take until all are live that come back at once, and what does ordinary traffic feel of it?
    Storm(StormArgs),
    /// Restarts the broker while everybody talks: when are all back, do they come as a herd, and is anything lost?
    Restart(RestartArgs),
    /// Check histories that were written before; several are one.
    Check(CheckArgs),
    /// Serve, with settings from the environment.
    #[command(hide = true)]
    Broker,
    /// Serve as the raw floor.
    #[command(hide = true)]
    FloorRaw(floor::RawArgs),
    /// Serve as the Postgres floor.
    #[command(hide = true)]
    FloorPostgres(floor::PostgresArgs),
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

/// What the help says of ratios.
const COMPARED: &str = "\
Floors are the smallest programs that do a part of the work, with frames as long as the broker's:
  raw floor       takes frames and hands them to everybody; nothing is kept, checked or decided
  Postgres floor  the same, each message committed and flushed before it is acknowledged and delivered
Exit code 0: all wrong counts are 0, whatever the ratios.";

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// `fanout`, `many-chats`, `latency`, or a file like those in `loadtest/scenarios/`.
    scenario: String,
    /// Seconds that are measured, instead of the scenario's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// How often each server is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    repeat: u8,
    /// Measures the broker alone.
    #[arg(long)]
    no_floors: bool,
    /// When messages are sealed; with `full` the broker is measured alone, for floors open nothing.
    #[arg(long, value_enum, default_value_t = Crypto::Replay)]
    crypto: Crypto,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A running broker, `http://host:port`, is measured alone, without floors; its limits must be raised. Its processor time
    /// and memory are not seen.
    #[arg(long, value_name = "URL", value_parser = remote::parse)]
    server: Option<String>,
    /// Where the result goes as a page with charts, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Options of `idle`.
#[derive(Debug, Clone, Args)]
pub(crate) struct IdleArgs {
    /// Connections, each with a user of its own.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(5..=18_000))]
    pub(crate) connections: u32,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `history`.
#[derive(Debug, Clone, Args)]
pub(crate) struct HistoryArgs {
    /// Messages that are stored in one chat.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub(crate) messages: u32,
    /// Pages that are read from each place.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pages: u32,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `rotate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RotateArgs {
    /// Sessions of the chat, one for each member.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=500))]
    sessions: u32,
    /// Members who send.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    senders: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=120))]
    seconds: u32,
    /// Seconds between removals.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    removal_every: u32,
    /// How often both are measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    repeat: u8,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Options of `scale`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScaleArgs {
    /// Sessions of the one chat, one measurement for each.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 5_000])]
    sizes: Vec<usize>,
    /// Connections at rest beside chats of ten, in growing order.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 3_000, 9_000])]
    connections: Vec<usize>,
    /// Chats that are loaded beside them, in growing order.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    loaded: Vec<usize>,
    /// Chats that are stored beside them at last.
    #[arg(long, default_value_t = 1_000_000)]
    stored: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl ScaleArgs {
    /// What is to be run.
    pub(crate) fn request(self) -> scale::Request {
        let Self { sizes, connections, loaded, stored, seconds, json } = self;
        scale::Request { sizes, connections, loaded, stored, seconds, json }
    }
}

impl RotateArgs {
    /// What is to be run.
    pub(crate) fn request(self) -> anyhow::Result<rotate::Request> {
        let (sessions, senders) = (usize::try_from(self.sessions)?, usize::try_from(self.senders)?);
        let removed = usize::try_from(self.seconds / self.removal_every)?;
        if sessions < 1 + senders + removed {
            bail!("{sessions} sessions are too few for an owner, {senders} senders and {removed} who are removed");
        }
        let (seconds, removal_every_s, repeat) = (self.seconds, self.removal_every, usize::from(self.repeat));
        Ok(rotate::Request { sessions, senders, seconds, removal_every_s, repeat, json: self.json })
    }
}

/// Options of `storm`.
#[derive(Debug, Clone, Args)]
pub(crate) struct StormArgs {
    /// Sessions, each of a user of its own.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(50..=15_000))]
    pub(crate) sessions: u32,
    /// How often they come back, each time a few at a time and all at once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) repeat: u8,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `restart`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RestartArgs {
    /// Sessions, each of a user of its own.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub(crate) sessions: u32,
    /// How often the broker is restarted.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) repeat: u8,
    /// Where the result goes as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl CompareArgs {
    /// What is to be run.
    pub(crate) fn request(self) -> anyhow::Result<compare::Request> {
        let mut plan = Plan::load(&self.scenario)?.with_crypto(self.crypto);
        if let Some(seconds) = self.seconds {
            plan.seconds = f64::from(seconds);
        }
        Ok(compare::Request {
            plan,
            repeat: usize::from(self.repeat),
            has_floors: !self.no_floors && self.crypto == Crypto::Replay && self.server.is_none(),
            server: self.server,
            json: self.json,
            html: self.html,
        })
    }
}

/// Options of `mixed`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MixedArgs {
    /// Users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    users: u32,
    /// Sessions (devices) of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    sessions_per_user: u32,
    /// Chats, of 3 to 15 users each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chats: u32,
    /// Seconds during which messages flow.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Messages in a second, in all; 0 is as fast as the clients go, one open send of each session and chat.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// How frames are written; `both` is every other session each.
    #[arg(long, value_enum, default_value_t = Encodings::Msgpack)]
    encoding: Encodings,
    /// A running broker, `http://host:port`; without it one is started, on a Postgres of its own.
    #[arg(long, value_name = "URL", conflicts_with = "broker_log")]
    server: Option<String>,
    /// Ends the broker with SIGKILL every so many seconds, and starts it again.
    #[arg(long, value_name = "SECONDS", conflicts_with = "server", value_parser = clap::value_parser!(u64).range(1..))]
    kill_broker_every: Option<u64>,
    /// Ends Postgres with SIGKILL every so many seconds; the broker starts it again.
    #[arg(long, value_name = "SECONDS", conflicts_with = "server", value_parser = clap::value_parser!(u64).range(1..))]
    kill_postgres_every: Option<u64>,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of `torture`.
#[derive(Debug, Clone, Args)]
pub(crate) struct TortureArgs {
    /// Minutes during which messages flow and things break.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Users.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    users: u32,
    /// Sessions (devices) of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    sessions_per_user: u32,
    /// Chats, of 3 to 15 users each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chats: u32,
    /// Messages in a second, in all, what a fault held up made up for after it; 0 is as fast as the clients go.
    #[arg(long, default_value_t = 80)]
    rate: u32,
    /// How frames are written; `both` is every other session each.
    #[arg(long, value_enum, default_value_t = Encodings::Both)]
    encoding: Encodings,
    #[command(flatten)]
    common: CommonArgs,
}

/// Options of `soak`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SoakArgs {
    /// Minutes during which messages flow; growth is judged from five on.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Seconds instead of minutes.
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(10..))]
    seconds: Option<u64>,
    /// Users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    users: u32,
    /// Sessions (devices) of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    sessions_per_user: u32,
    /// Chats, of 3 to 15 users each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    chats: u32,
    /// Messages in a second, in all.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    #[command(flatten)]
    common: CommonArgs,
}

impl SoakArgs {
    /// What is to be run.
    pub(crate) fn scenario(self) -> Scenario {
        Scenario {
            name: "soak",
            users: self.users,
            sessions_per_user: self.sessions_per_user,
            chats: self.chats,
            seconds: self.seconds.unwrap_or(self.minutes * 60),
            size: self.common.size,
            rate: self.rate,
            encoding: Encodings::Msgpack,
            seed: self.common.seed,
            server: None,
            faults: Faults::default(),
            is_watched: true,
            outputs: self.common.outputs,
        }
    }
}

/// Options of every load.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    size: u32,
    /// Decides who is in which chat, what changes and what breaks; drawn if not given. Not the keys, and not the timing.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    outputs: Outputs,
}

/// Where things go that a run tells.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Outputs {
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
    #[arg(long, value_name = "FILE")]
    pub(crate) broker_log: Option<PathBuf>,
}

/// Options of `check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    /// Files of `--history`.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Damages the history in one way first, in memory, to see it found.
    #[arg(long, value_enum, value_name = "DAMAGE")]
    pub(crate) plant: Option<Damage>,
    /// Damages the history in every way, one at a time, and tells whether each is found.
    #[arg(long, conflicts_with = "plant")]
    pub(crate) self_test: bool,
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

impl MixedArgs {
    /// What is to be run.
    pub(crate) fn scenario(self) -> Scenario {
        let faults = Faults::Kills { broker_every: self.kill_broker_every, postgres_every: self.kill_postgres_every };
        Scenario {
            name: "mixed",
            users: self.users,
            sessions_per_user: self.sessions_per_user,
            chats: self.chats,
            seconds: self.seconds,
            size: self.common.size,
            rate: self.rate,
            encoding: self.encoding,
            seed: self.common.seed,
            server: self.server,
            faults,
            is_watched: false,
            outputs: self.common.outputs,
        }
    }
}

impl TortureArgs {
    /// What is to be run.
    pub(crate) fn scenario(self) -> Scenario {
        Scenario {
            name: "torture",
            users: self.users,
            sessions_per_user: self.sessions_per_user,
            chats: self.chats,
            seconds: self.minutes * 60,
            size: self.common.size,
            rate: self.rate,
            encoding: self.encoding,
            seed: self.common.seed,
            server: None,
            faults: Faults::Nemesis,
            is_watched: false,
            outputs: self.common.outputs,
        }
    }
}
