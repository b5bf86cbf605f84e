//! Pages through one long log from its start, from its middle and from its end, and looks whether the depth shows.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use sealcast::protocol::frame::{Direction, History, Page, Reply, Request};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::limits::PAGE_ENTRIES_MAX;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::connection::ENCODING;
use super::figures::{Latencies, WireBytes};
use super::member::Asker;
use super::plan::Plan;
use super::pool::{Audience, FIRST_ID, Pool};
use super::progress::{Extent, Progress};
use super::server::{Kind, Server, found_chat};

/// Sessions of the chat.
const SESSIONS: usize = 5;

/// Bytes of a message before it is sealed.
const BODY_BYTES: usize = 256;

/// Repeats the one stored message as it is, each at its own place under its own id. Nobody who reads a page looks into it.
const REPEAT: &str = "INSERT INTO chat_messages SELECT m.chat_id, m.seq + n, gen_random_uuid(), m.revision, m.kind, m.sender_id, \
    m.sender_session_id, m.key_id, m.counter + n, m.created_at, m.roster_hash, m.seen_seq, m.seen_log_hash, \
    m.attachment_ids, m.data, m.data_hash, m.signature, m.log_hash FROM chat_messages m, generate_series(1, $1::bigint) n";

const MOVE_HEAD: &str = "UPDATE chats SET last_seq = last_seq + $1";

/// Where a reader begins, and how far it has come.
struct Reader {
    name: &'static str,
    direction: Direction,
    from: Seq,
    rows: u64,
    busy: Duration,
    latency: Latencies,
}

impl Reader {
    fn new(name: &'static str, direction: Direction, from: u64) -> anyhow::Result<Self> {
        let latency = Latencies::new()?;
        Ok(Self { name, direction, from: Seq::saturating(from), rows: 0, busy: Duration::ZERO, latency })
    }

    /// Reads one page more; whatever is missing in it is an error.
    async fn read(&mut self, asker: &mut Asker, chat_id: ChatId) -> anyhow::Result<()> {
        let (direction, seq) = (self.direction, self.from);
        let began = Instant::now();
        let reply = asker.ask(Request::History(History { chat_id, direction, seq, limit: PAGE_ENTRIES_MAX })).await?;
        let took = began.elapsed();
        let Reply::Page(page) = reply else { bail!("no page") };
        check(&page, direction, seq)?;
        self.from = if direction == Direction::After { page.up_to } else { page.after.next() };
        self.rows += page.entries.len() as u64;
        self.busy += took;
        self.latency.record_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        Ok(())
    }

    fn rows_per_s(&self) -> f64 {
        self.rows as f64 / self.busy.as_secs_f64()
    }

    fn json(&self) -> Value {
        json!({ "rows": self.rows, "rows_per_s": self.rows_per_s(), "page_ms": self.latency.json() })
    }
}

/// Whether a page has every entry of the stretch that it says it covers, next to where it was asked from.
fn check(page: &Page, direction: Direction, from: Seq) -> anyhow::Result<()> {
    let seqs = page.entries.iter().map(|entry| entry.seq.get());
    let is_whole = seqs.eq(page.after.get() + 1..=page.up_to.get()) && !page.entries.is_empty();
    let is_next = if direction == Direction::After { page.after == from } else { page.up_to.next() == from };
    if !is_whole || !is_next {
        bail!("a page after {} up to {} that was asked for {direction:?} {from}", page.after, page.up_to);
    }
    Ok(())
}

/// Stores so many messages in one chat of a fresh broker, and reads so many pages from each place, in turn.
pub(crate) fn run(messages: u32, pages: u32, json: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, read_all(u64::from(messages), pages, json))
}

async fn read_all(messages: u64, pages: u32, json: Option<&Path>) -> anyhow::Result<()> {
    let progress = Progress::begin("preparing");
    let server = Server::start(Kind::Broker, &Plan::load("many-chats")?, WireBytes::default()).await?;
    let (room, members) = found_chat(server.address(), SESSIONS, 0).await?;
    let owner = members.first().context("a chat of nobody")?;
    let mut asker = owner.connect(server.address()).await?;
    let said = Pool::sealed(&Audience::of(&room), owner, 1, BODY_BYTES, FIRST_ID)?;
    let said =
        ENCODING.decode_client(said.payload(0).context("nothing to say")?).map_err(|error| anyhow!("{error:?}"))?;
    let Reply::Sent(sent) = asker.ask(said.request).await? else { bail!("no answer to a message") };
    let first = sent.seq.get();
    let last = first + repeat(&server.database_url()?, messages.saturating_sub(1)).await?;

    let mut readers = [
        Reader::new("start", Direction::After, first - 1)?,
        Reader::new("middle", Direction::After, first + messages / 2)?,
        Reader::new("end", Direction::Before, last + 1)?,
    ];
    progress.phase("measuring", Extent::Open);
    for page in 0..pages {
        progress.done(f64::from(page) / f64::from(pages));
        for reader in &mut readers {
            reader.read(&mut asker, room.chat_id).await.with_context(|| format!("reading from the {}", reader.name))?;
        }
    }
    server.stop().await?;
    drop(progress);
    report(messages, &readers, json)
}

/// Repeats the one message of a database; gives how often.
async fn repeat(database_url: &str, times: u64) -> anyhow::Result<u64> {
    let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let times_bigint = i64::try_from(times)?;
    client.execute(REPEAT, &[&times_bigint]).await.context("storing the messages")?;
    client.execute(MOVE_HEAD, &[&times_bigint]).await.context("moving the head")?;
    client.batch_execute("VACUUM ANALYZE chat_messages").await?;
    drop(client);
    driver.await??;
    Ok(times)
}

fn report(messages: u64, readers: &[Reader], json: Option<&Path>) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{messages} messages of {BODY_BYTES} bytes in one chat, read in pages of {PAGE_ENTRIES_MAX}:")?;
    for reader in readers {
        let (latency, rows) = (&reader.latency, reader.rows_per_s());
        let (p50, p99) = (latency.ms(0.5), latency.ms(0.99));
        writeln!(out, "from the {:<8}{rows:>10.0} rows/s   page p50 {p50:>8.3}   p99 {p99:>8.3} ms", reader.name)?;
    }
    let medians = || readers.iter().map(|reader| reader.latency.ms(0.5));
    let depth_ratio = medians().fold(0.0, f64::max) / medians().fold(f64::INFINITY, f64::min);
    writeln!(out, "slowest to fastest median: {depth_ratio:.2}")?;
    if let Some(path) = json {
        let value = json!({
            "scenario": "history",
            "version": env!("CARGO_PKG_VERSION"),
            "messages": messages,
            "page_entries": PAGE_ENTRIES_MAX,
            "from": readers.iter().map(|reader| (reader.name, reader.json())).collect::<std::collections::BTreeMap<_, _>>(),
            "depth_ratio": depth_ratio,
        });
        let text = serde_json::to_string_pretty(&value)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
