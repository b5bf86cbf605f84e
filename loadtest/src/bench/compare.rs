//! Runs floor, broker, floor, broker … in turn, and makes ratios of those that ran next to each other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::LocalSet;

use super::drive::drive;
use super::figures::{Figures, WireBytes};
use super::page;
use super::plan::Plan;
use super::progress::{Extent, Progress};
use super::remote;
use super::report::{self, Compared, Round};
use super::server::{Kind, Server};
use crate::ground::descriptors;
use crate::ground::usage::peak_rss_kib;

/// What the command line says beside the plan.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) plan: Plan,
    /// How often each server is measured.
    pub(crate) repeat: usize,
    /// Whether the floors are measured too.
    pub(crate) has_floors: bool,
    /// `host:port` of a broker that runs already.
    pub(crate) server: Option<String>,
    pub(crate) json: Option<PathBuf>,
    /// Where the result goes as a page.
    pub(crate) html: Option<PathBuf>,
}

/// Measures, prints, and tells whether every wrong count is 0.
pub(crate) fn run(request: &Request) -> anyhow::Result<bool> {
    descriptors::raise(request.plan.chats * request.plan.sessions_per_chat)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compared = LocalSet::new().block_on(&runtime, measure_all(request))?;
    report::print(&compared)?;
    if let Some(path) = &request.json {
        let text = serde_json::to_string_pretty(&report::json(&compared))? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &request.html {
        std::fs::write(path, page::html(&compared)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(compared.wrong() == 0)
}

async fn measure_all(request: &Request) -> anyhow::Result<Compared> {
    let plan = &request.plan;
    let server = request.server.clone();
    let mut compared = Compared { plan: plan.clone(), server, rounds: Vec::new(), last_raw: None };
    // The floors forward frames as long as the broker's, so the broker is asked first.
    let mut wire = WireBytes::default();
    if request.has_floors {
        wire = wire_bytes(plan).await.context("asking for the broker's frames")?;
    }
    for _ in 0..request.repeat {
        let raw = measure_floor(request, Kind::RawFloor, wire).await?;
        let broker = remote::explain(measure(request, Kind::Broker, wire).await, plan)?;
        let postgres = measure_floor(request, Kind::PostgresFloor, wire).await?;
        compared.rounds.push(Round { raw, broker, postgres });
    }
    compared.last_raw = measure_floor(request, Kind::RawFloor, wire).await?;
    Ok(compared)
}

async fn measure_floor(request: &Request, kind: Kind, wire: WireBytes) -> anyhow::Result<Option<Figures>> {
    if !request.has_floors {
        return Ok(None);
    }
    measure(request, kind, wire).await.map(Some)
}

/// How long a broker's frames are in chats of this plan.
async fn wire_bytes(plan: &Plan) -> anyhow::Result<WireBytes> {
    let small = Plan { chats: 1, sealed_per_sender_and_s: 1, ..plan.clone() };
    let _progress = Progress::begin("asking for the broker's frames");
    let server = Server::start(Kind::Broker, &small, WireBytes::default()).await?;
    let (talks, seats) = server.prepare(&small, WireBytes::default()).await?;
    let wire = Server::wire_bytes(&talks).context("a broker without chats");
    drop((talks, seats));
    server.stop().await?;
    wire
}

/// One run of one server, fresh but for one that runs elsewhere.
async fn measure(request: &Request, kind: Kind, wire: WireBytes) -> anyhow::Result<Figures> {
    let plan = &request.plan;
    let began = Instant::now();
    let name = kind.name();
    let progress = Progress::begin(format!("{name}: preparing"));
    let server = match &request.server {
        Some(address) => Server::Remote(address.clone()),
        None => Server::start(kind, plan, wire).await.with_context(|| format!("starting the {}", kind.name()))?,
    };
    let (talks, seats) = server.prepare(plan, wire).await.with_context(|| format!("setting the {} up", kind.name()))?;
    server.settle().await?;
    let wire = Server::wire_bytes(&talks).unwrap_or(wire);
    let prepared_s = began.elapsed().as_secs_f64();
    let mut marks = Vec::new();
    progress.phase(format!("{name}: warming up"), Extent::Lasts(plan.warm_up()));
    let mark = async || {
        marks.push(server.usage().await?);
        match marks.len() {
            1 => progress.phase(format!("{name}: measuring"), Extent::Lasts(plan.measured())),
            _ => progress.phase(format!("{name}: waiting for the rest"), Extent::Open),
        }
        Ok(())
    };
    let driven = drive(plan, &talks, seats, mark).await;
    let driven = driven.with_context(|| format!("running the {}", kind.name()))?;
    let peak_rss_mib = server.pids().iter().map(|pid| peak_rss_kib(*pid)).sum::<u64>() as f64 / 1024.0;
    let (before, after) = (marks.first().copied().unwrap_or_default(), marks.last().copied().unwrap_or_default());
    let used = after.since(before);
    drop(talks);
    let is_seen = server.is_seen();
    server.stop().await?;
    let figures = Figures {
        elapsed_s: driven.elapsed_s,
        acked: driven.acked,
        delivered: driven.delivered,
        latency: driven.latency,
        ack_latency: driven.ack_latency,
        latency_over_time: driven.latency_over_time,
        opened: driven.opened,
        wrong: driven.wrong,
        is_exhausted: driven.is_exhausted,
        server_cpu_s: is_seen.then_some(used.watched_s),
        client_cpu_s: used.own_s,
        foreign_cpu: is_seen.then(|| used.foreign_share(Duration::from_secs_f64(driven.elapsed_s))),
        peak_rss_mib: is_seen.then_some(peak_rss_mib),
        wire,
    };
    drop(progress);
    report::print_run(kind, prepared_s, &figures)?;
    Ok(figures)
}
