//! What a plan is run against: a broker, or a floor; each a child process of this executable.

use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::{StreamExt, TryStreamExt};
use sealcast::protocol::frame::{Cursor, Request, StageCopies};
use sealcast::protocol::ids::Seq;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::connection::{Connection, Frame, push_frame};
use super::drive::{Live, Seat, Talk, Voice};
use super::figures::WireBytes;
use super::member::Member;
use super::plan::{Crypto, Plan};
use super::pool::{Audience, FIRST_ID, KEY_MESSAGES, Pool};
use super::room::Room;
use super::wire::{Templates, Wire};
use crate::ground::broker::{self, Broker};
use crate::ground::usage::{Usage, with_descendants};
use crate::run::draw_seed;

/// Chats and connections that are set up at the same time.
const SET_UP_AT_ONCE: usize = 16;

/// How long a floor may take to listen, and to end.
const FLOOR_TIMEOUT: Duration = Duration::from_secs(60);

/// A floor may be so many times as fast as a broker before its clients run out of messages, which cost little here.
const FLOOR_MESSAGES: usize = 3;

/// How often, and how many times at most, it is looked whether a server is at rest; then it takes less than this share of a
/// processor.
const REST_LOOK: Duration = Duration::from_millis(500);
const REST_LOOKS_MAX: u32 = 240;
const REST_SHARE: f64 = 0.06;

/// Members that a chat may have by default.
const MEMBERS_BY_DEFAULT: usize = 3_000;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Broker,
    RawFloor,
    PostgresFloor,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::RawFloor => "raw floor",
            Self::PostgresFloor => "Postgres floor",
        }
    }
}

/// A server that runs.
pub(crate) enum Server {
    Broker(Box<Broker>),
    Floor(Box<Floor>),
    /// A broker at `host:port` that runs already, and goes on.
    Remote(String),
}

/// A floor that runs: it ends when its standard input does.
pub(crate) struct Floor {
    child: Child,
    stdin: ChildStdin,
    address: String,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts one; a floor must be told how long the broker's frames are.
    pub(crate) async fn start(kind: Kind, plan: &Plan, wire: WireBytes) -> anyhow::Result<Self> {
        match kind {
            Kind::Broker => {
                let limits = limits(plan);
                let plan = broker::Plan { limits, log: None, is_breakable: false };
                Ok(Self::Broker(Box::new(Broker::start(plan).await?)))
            }
            Kind::RawFloor => Ok(Self::Floor(Box::new(Floor::start(false, wire).await?))),
            Kind::PostgresFloor => Ok(Self::Floor(Box::new(Floor::start(true, wire).await?))),
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        match self {
            Self::Broker(broker) => broker.address(),
            Self::Floor(floor) => &floor.address,
            Self::Remote(address) => address,
        }
    }

    /// How to reach a broker's database.
    pub(crate) fn database_url(&self) -> anyhow::Result<String> {
        match self {
            Self::Broker(broker) => broker.database_url(),
            Self::Floor(_) | Self::Remote(_) => bail!("there is none to be looked at"),
        }
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Broker(broker) => broker.pid(),
            Self::Floor(floor) => floor.child.id(),
            Self::Remote(_) => None,
        }
    }

    /// Whether what its processes use can be seen.
    pub(crate) const fn is_seen(&self) -> bool {
        !matches!(self, Self::Remote(_))
    }

    /// Its processes, Postgres' included.
    pub(crate) fn pids(&self) -> Vec<u32> {
        with_descendants(&self.roots())
    }

    fn roots(&self) -> Vec<u32> {
        let postmaster = match self {
            Self::Broker(broker) => broker.postmaster(),
            Self::Floor(_) | Self::Remote(_) => None,
        };
        self.pid().into_iter().chain(postmaster).collect()
    }

    /// What its processes have used, those included that were started meanwhile, as Postgres' are when they are first needed.
    ///
    /// Another thread reads it: to look at all processes takes milliseconds, in which this one would receive nothing.
    ///
    /// # Errors
    /// That thread panicked.
    pub(crate) async fn usage(&self) -> anyhow::Result<Usage> {
        let roots = self.roots();
        Ok(tokio::task::spawn_blocking(move || Usage::of(&with_descendants(&roots))).await?)
    }

    /// How long the frames of a broker are in these chats.
    pub(crate) fn wire_bytes(talks: &[Rc<Talk>]) -> Option<WireBytes> {
        let talk = talks.first()?;
        let Wire::Broker(templates) = &talk.wire else { return None };
        let pool = talk.voices.first()?.pool.borrow();
        // The first message carries its key.
        let send = pool.payload(1).or_else(|| pool.payload(0))?.len();
        let (deliver, ack) = templates.bytes();
        Some(WireBytes { send, deliver, ack })
    }

    /// Waits until it has done what logins leave behind: no message that is measured is to pay for it. A server that does
    /// not come to rest is measured as it is.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        if !self.is_seen() {
            return Ok(());
        }
        let mut before = self.usage().await?;
        for _ in 0..REST_LOOKS_MAX {
            tokio::time::sleep(REST_LOOK).await;
            let now = self.usage().await?;
            if now.since(before).watched_s < REST_LOOK.as_secs_f64() * REST_SHARE {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Sets the chats of a plan up, seals what is to be said, and connects everybody.
    pub(crate) async fn prepare(&self, plan: &Plan, wire: WireBytes) -> anyhow::Result<(Vec<Rc<Talk>>, Vec<Seat>)> {
        self.prepare_from(0, plan, wire).await
    }

    /// The same beside others: users are named from a number on.
    pub(crate) async fn prepare_from(
        &self,
        number: usize,
        plan: &Plan,
        wire: WireBytes,
    ) -> anyhow::Result<(Vec<Rc<Talk>>, Vec<Seat>)> {
        let prepared = match self {
            Self::Broker(_) | Self::Remote(_) => self.prepare_chats(number, plan).await?,
            Self::Floor(_) => {
                let rooms = futures_util::stream::iter(0..plan.chats);
                let rooms = rooms.map(|number| prepare_room(self.address(), plan, number, wire));
                rooms.buffered(SET_UP_AT_ONCE).try_collect().await?
            }
        };
        let mut talks = Vec::new();
        let mut seats = Vec::new();
        for (talk, connections) in prepared {
            let talk = Rc::new(talk);
            for (number, connection) in connections.into_iter().enumerate() {
                let voice = (number < plan.senders_per_chat).then_some(number);
                let is_timed = (number + 1).is_multiple_of(plan.timed_one_in);
                seats.push(Seat { connection, talk: Rc::clone(&talk), voice, is_timed });
            }
            talks.push(talk);
        }
        Ok((talks, seats))
    }

    /// Makes the chats and seals what is to be said in them; then, since that takes its time, connects everybody.
    async fn prepare_chats(&self, first: usize, plan: &Plan) -> anyhow::Result<Vec<(Talk, Vec<Connection>)>> {
        let sealed = futures_util::stream::iter(first..first + plan.chats);
        let sealed = sealed.map(|number| seal_chat(self.address(), plan, number));
        let sealed: Vec<_> = sealed.buffered(SET_UP_AT_ONCE).try_collect().await?;
        let mut prepared = Vec::new();
        for (talk, members) in sealed {
            let at = Cursor { chat_id: talk.chat_id, seq: Seq::saturating(talk.before) };
            let connect = |member| Member::connect_live_at(member, self.address(), vec![at]);
            let connected = futures_util::stream::iter(&*members).map(connect);
            prepared.push((talk, connected.buffered(SET_UP_AT_ONCE).try_collect().await?));
        }
        Ok(prepared)
    }

    /// Stops it and takes away what it left.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Broker(broker) => broker.stop().await,
            Self::Floor(floor) => floor.stop().await,
            Self::Remote(_) => Ok(()),
        }
    }
}

impl Floor {
    async fn start(has_postgres: bool, wire: WireBytes) -> anyhow::Result<Self> {
        // Postgres runs under an account of its own when this process is root's, and must get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("sealcast-loadtest-").permissions(open).tempdir()?;
        let mut command = Command::new(std::env::current_exe().context("finding this executable")?);
        command
            .arg(if has_postgres { "floor-postgres" } else { "floor-raw" })
            .arg("--deliver-bytes")
            .arg(wire.deliver.to_string());
        command.arg("--ack-bytes").arg(wire.ack.to_string());
        if has_postgres {
            command.arg("--data-dir").arg(folder.path().join("data"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().context("starting a floor")?;
        let stdin = child.stdin.take().context("a floor without standard input")?;
        let mut lines = BufReader::new(child.stdout.take().context("a floor without standard output")?).lines();
        let first = tokio::time::timeout(FLOOR_TIMEOUT, lines.next_line()).await;
        let first = first.map_err(|_| anyhow!("a floor does not listen"))??.unwrap_or_default();
        let address = first.strip_prefix("listening on http://").map(str::to_owned);
        let address = address.ok_or_else(|| anyhow!("a floor did not start: {first}"))?;
        Ok(Self { child, stdin, address, folder })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        let ended = tokio::time::timeout(FLOOR_TIMEOUT, self.child.wait()).await;
        let status = ended.map_err(|_| anyhow!("a floor does not stop"))??;
        if !status.success() {
            bail!("a floor ended with {status}");
        }
        self.folder.close().context("removing a floor's folder")
    }
}

/// What a plan needs above the defaults.
pub(crate) fn limits(plan: &Plan) -> Vec<(&'static str, u64)> {
    let mut limits = vec![
        ("keys.messages_max", KEY_MESSAGES),
        ("keys.messages_max_large", KEY_MESSAGES),
        ("limits.membership_changes_per_minute", plan.sessions_per_chat as u64 + 60),
        ("limits.requests_per_s", 1_000_000),
        ("limits.requests_burst", 1_000_000),
        ("limits.bytes_per_s", 1 << 30),
        ("limits.bytes_burst", 1 << 30),
    ];
    if plan.sessions_per_chat > MEMBERS_BY_DEFAULT {
        // The more members a chat may have, the fewer sessions each of them.
        limits.extend([("chat.members_max", plan.sessions_per_chat as u64), ("session.live_max", 2)]);
    }
    limits
}

/// Makes a chat and its members on a broker.
pub(crate) async fn found_chat(address: &str, sessions: usize, number: usize) -> anyhow::Result<(Room, Vec<Member>)> {
    // On a server that is used again, names of other runs are taken.
    let tag = format!("{:08x}", draw_seed());
    let mut members = Vec::new();
    for member in 0..sessions {
        members.push(Member::register(address, format!("lt-{tag}-{number}-{member}")).await?);
    }
    Ok((Room::create(address, &members).await?, members))
}

/// The same, with what its senders will say.
async fn seal_chat(address: &str, plan: &Plan, number: usize) -> anyhow::Result<(Talk, Arc<Vec<Member>>)> {
    let (room, members) = found_chat(address, plan.sessions_per_chat, number).await?;
    let (room, members) = (Arc::new(room), Arc::new(members));
    let mut sealing = Vec::new();
    for number in 0..plan.senders_per_chat {
        let (room, members, plan) = (Arc::clone(&room), Arc::clone(&members), plan.clone());
        sealing.push(tokio::task::spawn_blocking(move || {
            let sender = members.get(number).context("a sender who is no member")?;
            let (audience, count, body_bytes) = (Audience::of(&room), plan.sealed_per_sender(), plan.body_bytes);
            let signing_key = sender.secrets.signing_public_key();
            if plan.crypto == Crypto::Replay {
                return Ok(Voice::new(
                    Pool::sealed(&audience, sender, count, body_bytes, FIRST_ID)?,
                    Some(signing_key),
                ));
            }
            let first = Pool::sealed(&audience, sender, 1, body_bytes, FIRST_ID)?;
            anyhow::Ok(Voice::live(first, signing_key, Live { audience, members, sender: number, body_bytes, count }))
        }));
    }
    let mut voices = Vec::new();
    for sealed in sealing {
        voices.push(sealed.await.context("sealing")??);
    }
    for (voice, member) in voices.iter_mut().zip(&*members) {
        stage(address, member, voice.pool.get_mut().take_staging()).await?;
    }
    let sample = voices.first().context("a chat without senders")?.pool.borrow().sample()?;
    let wire = Wire::Broker(Box::new(Templates::learn(room.chat_id, &sample)?));
    Ok((Talk::new(room.chat_id, wire, voices, members.len(), room.seen.seq.get()), members))
}

/// Sends the copies ahead that a first message has no room for.
async fn stage(address: &str, sender: &Member, parts: Vec<StageCopies>) -> anyhow::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let mut asker = sender.connect(address).await?;
    for part in parts {
        asker.ask(Request::StageCopies(part)).await?;
    }
    Ok(())
}

/// Joins a room of a floor.
async fn prepare_room(
    address: &str,
    plan: &Plan,
    number: usize,
    wire: WireBytes,
) -> anyhow::Result<(Talk, Vec<Connection>)> {
    let mut connections = Vec::new();
    for _ in 0..plan.sessions_per_chat {
        let mut connection = Connection::open(address).await?;
        let (mut out, mut join) = (Vec::new(), vec![b'J']);
        join.extend_from_slice(&u32::try_from(number)?.to_be_bytes());
        push_frame(&mut out, &join);
        connection.stream.write_all(&out).await?;
        let (mut has_joined, mut scratch) = (false, Vec::new());
        while !has_joined {
            connection.stream.readable().await?;
            let is_open = connection.take(&mut scratch, |frame| {
                has_joined |= frame == Frame::Binary(b"j");
                Ok(())
            })?;
            if !is_open {
                bail!("a floor ended a connection");
            }
        }
        connections.push(connection);
    }
    let mut voices = Vec::new();
    for sender in 0..plan.senders_per_chat {
        let sender = u32::try_from(sender)?;
        let count = plan.sealed_per_sender() * FLOOR_MESSAGES;
        voices.push(Voice::new(Pool::plain(sender, count, wire.send, wire.deliver)?, None));
    }
    let members = connections.len();
    Ok((Talk::new(sealcast::protocol::ids::ChatId::generate(), Wire::Floor, voices, members, 0), connections))
}
