//! Weighs connections that are logged in and at rest.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, LocalSet};

use super::connection::{Connection, Frame, push_pong};
use super::figures::WireBytes;
use super::plan::Plan;
use super::progress::{Extent, Progress};
use super::server::{Kind, Server, found_chat};
use crate::ground::descriptors;
use crate::ground::usage::pss_kib;

/// Members of a chat.
const CHAT_SESSIONS: usize = 5;

/// Chats and connections that are made at the same time.
const AT_ONCE: usize = 16;

/// How long everything rests before it is weighed.
const REST: Duration = Duration::from_secs(5);

/// Weighs so many connections on a fresh broker of its own.
pub(crate) fn run(connections: u32, json: Option<&Path>) -> anyhow::Result<()> {
    descriptors::raise(usize::try_from(connections)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, weigh(usize::try_from(connections)?, json))
}

async fn weigh(connections: usize, json: Option<&Path>) -> anyhow::Result<()> {
    let plan = Plan::load("many-chats")?;
    let progress = Progress::begin("preparing");
    let server = Server::start(Kind::Broker, &plan, WireBytes::default()).await?;
    let address = server.address().to_owned();
    let chats = connections.div_ceil(CHAT_SESSIONS);
    let founded = futures_util::stream::iter(0..chats).map(|number| found_chat(&address, CHAT_SESSIONS, number));
    let founded: Vec<_> = founded.buffered(AT_ONCE).try_collect().await.context("making chats")?;
    let members: Vec<_> = founded.into_iter().flat_map(|(_, members)| members).take(connections).collect();
    progress.phase("warming up", Extent::Lasts(REST));
    tokio::time::sleep(REST).await;
    let (before_kib, before_broker_kib) = weights(&server);

    progress.phase("connecting", Extent::Open);
    let connected = futures_util::stream::iter(&members).map(|member| member.connect_live(&address));
    let connected: Vec<Connection> = connected.buffered(AT_ONCE).try_collect().await.context("connecting")?;
    let count = connected.len();
    let mut resting = JoinSet::new();
    for connection in connected {
        resting.spawn_local(rest(connection));
    }
    progress.phase("measuring", Extent::Lasts(REST));
    tokio::time::sleep(REST).await;
    let (after_kib, after_broker_kib) = weights(&server);
    if let Some(ended) = resting.try_join_next() {
        return ended.context("a connection")?.context("a connection that was to rest");
    }
    resting.abort_all();
    while resting.join_next().await.is_some() {}
    server.stop().await?;
    drop(progress);

    let each = |before: u64, after: u64| (after as f64 - before as f64) / count as f64;
    let (all, broker) = (each(before_kib, after_kib), each(before_broker_kib, after_broker_kib));
    writeln!(
        std::io::stdout(),
        "{count} connections in chats of {CHAT_SESSIONS}: {all:.1} KiB each, {broker:.1} of them the broker's \
         (proportional set size, {:.0} MiB before and {:.0} MiB after; buffers of the kernel are not in it)",
        before_kib as f64 / 1024.0,
        after_kib as f64 / 1024.0,
    )?;
    if let Some(path) = json {
        let value = json!({
            "scenario": "idle",
            "version": env!("CARGO_PKG_VERSION"),
            "connections": count,
            "kib_per_connection": all,
            "kib_per_connection_broker": broker,
            "before_kib": before_kib,
            "after_kib": after_kib,
        });
        let text = serde_json::to_string_pretty(&value)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Of all processes, and of the broker alone.
fn weights(server: &Server) -> (u64, u64) {
    (server.pids().into_iter().map(pss_kib).sum(), server.pid().map_or(0, pss_kib))
}

/// Answers pings, and reads whatever else comes.
pub(super) async fn rest(mut connection: Connection) -> anyhow::Result<()> {
    let mut scratch = Vec::new();
    loop {
        connection.stream.readable().await?;
        let mut pongs = Vec::new();
        let is_open = connection.take(&mut scratch, |frame| {
            match frame {
                Frame::Ping(payload) => push_pong(&mut pongs, payload),
                Frame::Close(payload) => anyhow::bail!("closed: {}", String::from_utf8_lossy(payload)),
                Frame::Binary(_) => {}
            }
            Ok(())
        })?;
        connection.stream.write_all(&pongs).await?;
        if !is_open {
            anyhow::bail!("the server ended it");
        }
        // What all share in a run is not to be kept by each that rests.
        scratch = Vec::new();
    }
}
