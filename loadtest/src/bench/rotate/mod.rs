//! Measures what removals cost a busy chat: everybody who sends needs a new key after each.
//!
//! The same chat is run without removals and with them, each on a broker of its own, in turn.

mod run;
mod script;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use self::run::{Pace, Ran, Seat};
use self::script::Script;
use super::figures::{Latencies, WireBytes};
use super::plan::Plan;
use super::report::Spread;
use super::room::removals;
use super::server::{Kind, Server, found_chat};
use crate::ground::descriptors;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Sessions of the chat, one for each member.
    pub(crate) sessions: usize,
    pub(crate) senders: usize,
    pub(crate) seconds: u32,
    pub(crate) removal_every_s: u32,
    pub(crate) repeat: usize,
    pub(crate) json: Option<PathBuf>,
}

/// Messages of a sender that may wait for their answer. Two windows of all senders may be on their way to everybody: with more,
/// they would be above what a broker lets wait in all its outboxes, and pages would be measured.
const WINDOW: usize = 2;

/// Bytes of a text.
const BODY_BYTES: usize = 256;

const WARM_UP: Duration = Duration::from_millis(1_500);

/// Messages that each sender has ready for each second.
const SEALED_PER_S: u32 = 400;

/// Messages under one key at most.
const KEY_MESSAGES: usize = 10_000;

/// Of so many sessions one looks at its clock, and opens one of so many messages.
const TIMED_ONE_IN: usize = 10;
const OPENED_ONE_IN: usize = 100;

/// A run with the processor time of the server.
struct Measured {
    ran: Ran,
    server_cpu_s: f64,
}

impl Measured {
    fn acked_per_s(&self) -> f64 {
        self.ran.acked as f64 / self.ran.elapsed_s
    }

    fn wrong(&self) -> u64 {
        self.ran.wrong.sum() + self.ran.read_after_removal
    }

    fn json(&self) -> Value {
        let ran = &self.ran;
        let [learnt, drained, accepted] = &ran.gap_parts;
        json!({
            "elapsed_s": ran.elapsed_s,
            "acked": ran.acked,
            "acked_per_s": self.acked_per_s(),
            "delivered": ran.delivered,
            "refused": ran.refused,
            "opened": ran.opened,
            "is_exhausted": ran.is_exhausted,
            "plain_latency_ms": ran.plain.json(),
            "with_key_latency_ms": ran.with_key.json(),
            "gap_ms": ran.gap.json(),
            "gap_until_learnt_ms": learnt.json(),
            "gap_until_sent_ms": drained.json(),
            "gap_until_accepted_ms": accepted.json(),
            "server_cpu_s": self.server_cpu_s,
            "wrong": ran.wrong.counts().into_iter().map(|(name, count)| {
                (name, if name == "read_after_removal" { ran.read_after_removal } else { count })
            }).collect::<std::collections::BTreeMap<_, _>>(),
        })
    }

    fn print(&self, name: &str) -> std::io::Result<()> {
        let ran = &self.ran;
        writeln!(
            std::io::stdout(),
            "{name:<18} {:>8.0} acked/s {:>10.0} deliveries/s  plain p50 {:>8.3} p99 {:>8.3} ms  with a key p50 {:>8.3} p99 {:>8.3} ms  \
             gap p50 {:>8.3} p99 {:>8.3} ms  refused {}  CPU {:.2} s  opened {}  wrong {}{}",
            self.acked_per_s(),
            ran.delivered as f64 / ran.elapsed_s,
            ran.plain.ms(0.5),
            ran.plain.ms(0.99),
            ran.with_key.ms(0.5),
            ran.with_key.ms(0.99),
            ran.gap.ms(0.5),
            ran.gap.ms(0.99),
            ran.refused,
            self.server_cpu_s,
            ran.opened,
            self.wrong(),
            if ran.is_exhausted { "  (a sender had said all that was sealed)" } else { "" },
        )
    }
}

/// Measures, prints, and tells whether every wrong count is 0.
pub(crate) fn run(request: &Request) -> anyhow::Result<bool> {
    descriptors::raise(request.sessions)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure_all(request))
}

async fn measure_all(request: &Request) -> anyhow::Result<bool> {
    let mut turns = Vec::new();
    for _ in 0..request.repeat {
        let quiet = measure(request, 0).await.context("running without removals")?;
        quiet.print("without removals")?;
        // The last comes early enough for its gap to be seen.
        let count = (request.seconds - 1) / request.removal_every_s;
        let rotating = measure(request, usize::try_from(count)?).await.context("running with removals")?;
        rotating.print("with removals")?;
        turns.push((quiet, rotating));
    }
    report(request, &turns)
}

/// One run on a fresh broker.
async fn measure(request: &Request, removed: usize) -> anyhow::Result<Measured> {
    let plan = Plan { sessions_per_chat: request.sessions, ..Plan::load("fanout")? };
    let server = Server::start(Kind::Broker, &plan, WireBytes::default()).await?;
    let (room, members) = found_chat(server.address(), request.sessions, 0).await?;
    let members = Arc::new(members);
    let (senders, gone) = (1..request.senders + 1, request.sessions - removed..request.sessions);
    let seconds = if removed == 0 { request.seconds } else { request.removal_every_s };
    let messages = usize::try_from((seconds + 2) * SEALED_PER_S)?.min(KEY_MESSAGES);
    let script = Script::write(&room, &members, senders.clone(), gone.clone(), messages, BODY_BYTES).await?;
    let mut seats = Vec::new();
    let others = members.iter().enumerate().skip(1);
    for (number, member) in others {
        seats.push(Seat {
            connection: member.connect_live(server.address()).await?,
            sender: senders.contains(&number).then(|| number - senders.start),
            is_timed: number.is_multiple_of(TIMED_ONE_IN),
            removed_by: gone.contains(&number).then(|| number - gone.start),
        });
    }
    let owner = members.first().context("a chat of nobody")?;
    let changes = removals(&room, owner, &members.get(gone).unwrap_or_default().iter().collect::<Vec<_>>());
    let mut asker = owner.connect(server.address()).await?;
    server.settle().await?;
    let pace = Pace {
        window: WINDOW,
        warm_up: WARM_UP,
        measured: Duration::from_secs(u64::from(request.seconds)),
        removal_every: Duration::from_secs(u64::from(request.removal_every_s)),
        opened_one_in: OPENED_ONE_IN,
        body_bytes: BODY_BYTES,
    };
    let mut marks = Vec::new();
    let mark = async || {
        marks.push(server.usage().await?);
        Ok(())
    };
    let ran = run::run(script, pace, room.seen.seq.get(), seats, &mut asker, changes, mark).await?;
    let (before, after) = (marks.first().copied().unwrap_or_default(), marks.last().copied().unwrap_or_default());
    drop(asker);
    server.stop().await?;
    Ok(Measured { ran, server_cpu_s: after.since(before).watched_s })
}

fn report(request: &Request, turns: &[(Measured, Measured)]) -> anyhow::Result<bool> {
    let spread = |of: &dyn Fn(&(Measured, Measured)) -> f64| Spread::of(turns.iter().map(of).collect());
    let ms = |latencies: &Latencies| latencies.ms(0.99);
    let figures = [
        ("acked_ratio", spread(&|(quiet, rotating)| rotating.acked_per_s() / quiet.acked_per_s())),
        ("plain_p99_ratio", spread(&|(quiet, rotating)| ms(&rotating.ran.plain) / ms(&quiet.ran.plain))),
        ("acked_per_s", spread(&|(_, rotating)| rotating.acked_per_s())),
        ("acked_per_s_without", spread(&|(quiet, _)| quiet.acked_per_s())),
        ("gap_p50_ms", spread(&|(_, rotating)| rotating.ran.gap.ms(0.5))),
        ("gap_p99_ms", spread(&|(_, rotating)| rotating.ran.gap.ms(0.99))),
        (
            "gap_until_learnt_p50_ms",
            spread(&|(_, rotating)| rotating.ran.gap_parts.first().map_or(0.0, |part| part.ms(0.5))),
        ),
        (
            "gap_until_sent_p50_ms",
            spread(&|(_, rotating)| rotating.ran.gap_parts.get(1).map_or(0.0, |part| part.ms(0.5))),
        ),
        (
            "gap_until_accepted_p50_ms",
            spread(&|(_, rotating)| rotating.ran.gap_parts.get(2).map_or(0.0, |part| part.ms(0.5))),
        ),
    ];
    let wrong: u64 = turns.iter().map(|(quiet, rotating)| quiet.wrong() + rotating.wrong()).sum();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "\nrotate: {} sessions in one chat, {} senders, window {WINDOW}, {BODY_BYTES} bytes, a removal every {} s, {} turns",
        request.sessions,
        request.senders,
        request.removal_every_s,
        turns.len()
    )?;
    let mut value = json!({
        "scenario": "rotate",
        "version": env!("CARGO_PKG_VERSION"),
        "sessions": request.sessions,
        "senders": request.senders,
        "seconds": request.seconds,
        "removal_every_s": request.removal_every_s,
        "repeat": turns.len(),
        "runs": turns.iter().map(|(quiet, rotating)| json!({ "without": quiet.json(), "with": rotating.json() })).collect::<Vec<_>>(),
        "ok": wrong == 0,
    });
    let mut spreads = serde_json::Map::new();
    for (name, spread) in figures {
        let Some(spread) = spread else { continue };
        writeln!(out, "{name:<28} {:>9.3}  ({:.3} to {:.3})", spread.median, spread.least, spread.most)?;
        spreads.insert(name.to_owned(), spread.json());
        if let Some(fields) = value.as_object_mut() {
            fields.insert(name.to_owned(), json!(spread.median));
        }
    }
    writeln!(out, "wrong in all runs: {wrong}")?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("spreads".to_owned(), Value::Object(spreads));
    }
    if let Some(path) = &request.json {
        let text = serde_json::to_string_pretty(&value)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(wrong == 0)
}
