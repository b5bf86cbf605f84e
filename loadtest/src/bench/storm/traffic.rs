//! Who talks meanwhile: a few chats, by a plan, with latencies that can be asked for stretch by stretch.

use anyhow::Context;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::{QUIET, REST};
use crate::bench::drive::{Driven, drive_while};
use crate::bench::figures::{Latencies, WireBytes};
use crate::bench::plan::Plan;
use crate::bench::server::Server;

/// Sessions that come back in a second, at least: for so long there is something to say.
const SESSIONS_PER_S_MIN: usize = 50;

/// Seconds of talk beyond that, in all.
const SECONDS_BESIDE: usize = 240;

/// By whom somebody who measures is answered.
pub(super) type Cuts = mpsc::Receiver<oneshot::Sender<Latencies>>;

/// The way to who talks. They end when it is dropped.
#[derive(Debug)]
pub(super) struct Traffic(mpsc::Sender<oneshot::Sender<Latencies>>);

impl Traffic {
    pub(super) fn new() -> (Self, Cuts) {
        let (cuts, wanted) = mpsc::channel(1);
        (Self(cuts), wanted)
    }

    /// The latencies since the last time, of all deliveries; the first time it waits until everybody talks.
    pub(super) async fn cut(&self) -> anyhow::Result<Latencies> {
        let (answer, latencies) = oneshot::channel();
        self.0.send(answer).await.ok().context("nobody talks any more")?;
        latencies.await.context("nobody talks any more")
    }
}

/// What is said: that of `latency`, for as long as this many sessions may take to come so often.
pub(super) fn plan(sessions: usize, repeat: usize) -> anyhow::Result<Plan> {
    let pauses = usize::try_from((QUIET + REST + REST).as_secs())?;
    let seconds = SECONDS_BESIDE + (2 * repeat + 1) * sessions.div_ceil(SESSIONS_PER_S_MIN) + repeat * pauses;
    Ok(Plan { seconds: f64::from(u32::try_from(seconds)?), sealed_per_sender_and_s: 5, ..Plan::load("latency")? })
}

/// Talks until nobody measures any more.
pub(super) fn talk(server: &Server, plan: &Plan, mut wanted: Cuts) -> anyhow::Result<Driven> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let (talks, seats) = server.prepare(plan, WireBytes::default()).await?;
        let goes_on = |_, latency: &std::cell::RefCell<Latencies>| match wanted.try_recv() {
            Ok(answer) => {
                // Who has given up asking needs no answer.
                let _ = answer.send(latency.replace(Latencies::new()?));
                Ok(true)
            }
            Err(TryRecvError::Empty) => Ok(true),
            Err(TryRecvError::Disconnected) => Ok(false),
        };
        let driven = drive_while(plan, &talks, seats, async || Ok(()), goes_on).await?;
        anyhow::ensure!(!driven.is_exhausted, "all that was sealed is said: the sessions take too long to come");
        Ok(driven)
    })
}
