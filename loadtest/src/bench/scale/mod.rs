//! Measures what a message costs the server: by the size of its chat, and by all that is there beside it.
//!
//! Each measurement is the same slow traffic, so that nothing is gathered: each message is a batch, each delivery a write. What
//! the processes of the server use at rest, right before, is taken off.

mod crowd;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use self::crowd::{Chats, Resting};
use super::drive::{Driven, drive};
use super::figures::WireBytes;
use super::plan::Plan;
use super::server::{Kind, Server};
use crate::ground::descriptors;
use crate::ground::usage::pss_kib;

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Sessions of the one chat, each on a broker of its own.
    pub(crate) sizes: Vec<usize>,
    /// Connections at rest.
    pub(crate) connections: Vec<usize>,
    /// Chats that are loaded.
    pub(crate) loaded: Vec<usize>,
    /// Chats that are stored, after that.
    pub(crate) stored: usize,
    pub(crate) seconds: u32,
    pub(crate) json: Option<PathBuf>,
}

/// Messages in a second to a single chat, at most.
const RATE_ONE: u32 = 20;

/// Deliveries in a second in a single chat, at most: more, each a write of its own, and the generator would be what is measured.
const DELIVERIES_ONE: usize = 20_000;

/// Messages in a second to chats of a fixed size.
const RATE_MANY: u32 = 400;

/// The fixed size, and how many such chats have traffic.
const FIXED_SESSIONS: usize = 10;
const FIXED_CHATS: usize = 20;

/// Users of each measurement are named from a number of their own on.
const NUMBERS: usize = 1_000_000;

/// One measurement.
struct Point {
    name: &'static str,
    /// Of what there were so many.
    value: usize,
    sessions: usize,
    messages: u64,
    deliveries: u64,
    elapsed_s: f64,
    cpu_s: f64,
    rest_cpu_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    broker_mib: f64,
    wrong: u64,
}

impl Point {
    fn own_cpu_s(&self) -> f64 {
        (self.cpu_s - self.rest_cpu_s).max(0.0)
    }

    fn us_per_message(&self) -> f64 {
        self.own_cpu_s() * 1e6 / (self.messages as f64).max(1.0)
    }

    fn us_per_delivery(&self) -> f64 {
        self.own_cpu_s() * 1e6 / (self.deliveries as f64).max(1.0)
    }

    fn json(&self) -> Value {
        json!({
            "of": self.name, "value": self.value, "sessions_per_chat": self.sessions,
            "messages": self.messages, "deliveries": self.deliveries,
            "server_cpu_s": self.cpu_s, "server_cpu_s_at_rest": self.rest_cpu_s,
            "us_per_message": self.us_per_message(), "us_per_delivery": self.us_per_delivery(),
            "p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "broker_mib": self.broker_mib,
        })
    }

    fn print(&self) -> std::io::Result<()> {
        writeln!(
            std::io::stdout(),
            "{:<12} {:>9}  {:>7} messages {:>9} deliveries  {:>9.1} us a message  {:>7.2} us a delivery  at rest {:>6.1} ms/s  \
             p50 {:>7.3} p99 {:>8.3} ms  broker {:>6.0} MiB  wrong {}",
            self.name,
            self.value,
            self.messages,
            self.deliveries,
            self.us_per_message(),
            self.us_per_delivery(),
            self.rest_cpu_s * 1_000.0 / self.elapsed_s,
            self.p50_ms,
            self.p99_ms,
            self.broker_mib,
            self.wrong,
        )
    }
}

/// Measures, prints, and tells whether every wrong count is 0.
pub(crate) fn run(request: &Request) -> anyhow::Result<bool> {
    let most = request.sizes.iter().chain(&request.connections).max().copied().unwrap_or_default();
    descriptors::raise(most + FIXED_CHATS * FIXED_SESSIONS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, measure_all(request))
}

async fn measure_all(request: &Request) -> anyhow::Result<bool> {
    let mut points = Vec::new();
    for sessions in &request.sizes {
        let rate = u32::try_from(DELIVERIES_ONE / sessions.max(&1)).unwrap_or(u32::MAX).clamp(1, RATE_ONE);
        let plan = plan(1, *sessions, rate, request.seconds)?;
        let server = Server::start(Kind::Broker, &plan, WireBytes::default()).await?;
        points.push(measure(&server, &plan, "sessions", *sessions, 0).await?);
        server.stop().await?;
    }
    points.extend(measure_crowds(request).await?);
    report(request, &points)
}

/// The same chats on one broker, with more and more beside them.
async fn measure_crowds(request: &Request) -> anyhow::Result<Vec<Point>> {
    let plan = plan(FIXED_CHATS, FIXED_SESSIONS, RATE_MANY, request.seconds)?;
    let server = Server::start(Kind::Broker, &plan, WireBytes::default()).await?;
    let mut points = Vec::new();
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        turn * NUMBERS
    };
    points.push(measure(&server, &plan, "alone", 0, next()).await?);
    let mut resting = Resting::default();
    let names = next();
    for count in &request.connections {
        resting.grow(server.address(), *count, names).await?;
        points.push(measure(&server, &plan, "connections", *count, next()).await?);
        resting.check()?;
    }
    drop(resting);
    let mut chats = Chats::begin(server.address(), &server.database_url()?, next()).await?;
    for count in &request.loaded {
        chats.load(*count).await?;
        points.push(measure(&server, &plan, "loaded", *count, next()).await?);
    }
    if request.stored > 0 {
        chats.store(request.stored).await?;
        points.push(measure(&server, &plan, "stored", request.stored, next()).await?);
    }
    points.push(measure(&server, &plan, "again", 0, next()).await?);
    drop(chats);
    server.stop().await?;
    Ok(points)
}

fn plan(chats: usize, sessions_per_chat: usize, rate: u32, seconds: u32) -> anyhow::Result<Plan> {
    let latency = Plan::load("latency")?;
    Ok(Plan {
        name: "scale".to_owned(),
        chats,
        sessions_per_chat,
        rate,
        seconds: f64::from(seconds),
        // A sender may be behind, and never ahead of its plan.
        sealed_per_sender_and_s: (rate as usize).div_ceil(chats) + 1,
        ..latency
    })
}

async fn measure(
    server: &Server,
    plan: &Plan,
    name: &'static str,
    value: usize,
    number: usize,
) -> anyhow::Result<Point> {
    let (talks, seats) = server.prepare_from(number, plan, WireBytes::default()).await.context("setting up")?;
    server.settle().await?;
    let before = server.usage().await?;
    tokio::time::sleep(plan.measured()).await;
    let rest_cpu_s = server.usage().await?.since(before).watched_s;
    let mut marks = Vec::new();
    let mark = async || {
        marks.push(server.usage().await?);
        Ok(())
    };
    let driven: Driven = drive(plan, &talks, seats, mark).await.context("running")?;
    let (before, after) = (marks.first().copied().unwrap_or_default(), marks.last().copied().unwrap_or_default());
    let point = Point {
        name,
        value,
        sessions: plan.sessions_per_chat,
        messages: driven.acked,
        deliveries: driven.delivered,
        elapsed_s: driven.elapsed_s,
        cpu_s: after.since(before).watched_s,
        rest_cpu_s: rest_cpu_s * driven.elapsed_s / plan.measured().as_secs_f64(),
        p50_ms: driven.latency.ms(0.5),
        p99_ms: driven.latency.ms(0.99),
        broker_mib: server.pid().map_or(0, pss_kib) as f64 / 1024.0,
        wrong: driven.wrong.sum(),
    };
    point.print()?;
    Ok(point)
}

/// What a message costs, `a + b * recipients`, by two neighbouring sizes.
fn cost(smaller: &Point, larger: &Point) -> (f64, f64) {
    let recipients = larger.sessions as f64 - smaller.sessions as f64;
    let b = (larger.us_per_message() - smaller.us_per_message()) / recipients;
    (smaller.us_per_message() - b * smaller.sessions as f64, b)
}

/// Largest by smallest.
fn ratio(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (most, least) = (values.clone().reduce(f64::max)?, values.reduce(f64::min)?);
    (least > 0.0).then(|| most / least)
}

fn report(request: &Request, points: &[Point]) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let sizes: Vec<&Point> = points.iter().filter(|point| point.name == "sessions").collect();
    let pairs = sizes.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?)));
    let costs: Vec<(usize, usize, f64, f64)> = pairs
        .map(|(smaller, larger)| {
            let (a, b) = cost(smaller, larger);
            (smaller.sessions, larger.sessions, a, b)
        })
        .collect();
    writeln!(out)?;
    for (smaller, larger, a, b) in &costs {
        writeln!(out, "from {smaller} to {larger} sessions: {a:.0} us + {b:.2} us for each recipient")?;
    }
    let large = costs.iter().filter(|(smaller, ..)| *smaller >= 100).map(|(.., b)| *b);
    let per_recipient_ratio = ratio(large);
    let beside = points.iter().filter(|point| point.name != "sessions").map(Point::us_per_delivery);
    let per_delivery_ratio = ratio(beside);
    let wrong: u64 = points.iter().map(|point| point.wrong).sum();
    if let Some(ratio) = per_recipient_ratio {
        writeln!(out, "per recipient, most to least from 100 sessions on: {ratio:.3}")?;
    }
    if let Some(ratio) = per_delivery_ratio {
        writeln!(
            out,
            "per delivery in chats of {FIXED_SESSIONS}, most to least with whatever is beside them: {ratio:.3}"
        )?;
    }
    writeln!(out, "wrong in all runs: {wrong}")?;
    if let Some(path) = &request.json {
        let value = json!({
            "scenario": "scale",
            "version": env!("CARGO_PKG_VERSION"),
            "points": points.iter().map(Point::json).collect::<Vec<_>>(),
            "costs": costs.iter().map(|(from, to, a, b)| {
                json!({ "from": from, "to": to, "us_per_message": a, "us_per_recipient": b })
            }).collect::<Vec<_>>(),
            "per_recipient_ratio": per_recipient_ratio,
            "per_delivery_ratio": per_delivery_ratio,
            "ok": wrong == 0,
        });
        let text = serde_json::to_string_pretty(&value)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(wrong == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(sessions: usize, us_per_message: f64) -> Point {
        let (messages, cpu_s) = (100, us_per_message * 100.0 / 1e6 + 0.5);
        let (deliveries, p50_ms, p99_ms, broker_mib, wrong) = (messages * sessions as u64, 1.0, 1.0, 1.0, 0);
        let (name, value, rest_cpu_s) = ("sessions", sessions, 0.5);
        Point {
            name,
            value,
            sessions,
            messages,
            deliveries,
            elapsed_s: 10.0,
            cpu_s,
            rest_cpu_s,
            p50_ms,
            p99_ms,
            broker_mib,
            wrong,
        }
    }

    #[test]
    fn a_cost_is_the_line_through_two_sizes() {
        let (a, b) = cost(&point(10, 520.0), &point(110, 720.0));
        assert!((a - 500.0).abs() < 1e-6 && (b - 2.0).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn a_ratio_needs_values_above_nothing() {
        assert_eq!(ratio([2.0, 1.0, 4.0].into_iter()), Some(4.0));
        assert_eq!(ratio([0.0, 1.0].into_iter()), None);
        assert_eq!(ratio(std::iter::empty()), None);
    }
}
