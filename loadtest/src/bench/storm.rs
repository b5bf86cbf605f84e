//! Lets many sessions come back at once, beside the same logins and pages a few at a time, while others talk.
//!
//! `chats` makes what they missed, `missed` judges what each is given of it, `wave` lets them come, `traffic` is who talks
//! meanwhile, `report` the result.

mod chats;
mod missed;
mod report;
mod session;
mod traffic;
mod wave;

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::LocalSet;

use super::figures::WireBytes;
use super::plan::Plan;
use super::server::{Kind, Server};
use crate::ground::descriptors;
use report::{Round, Storms};
use session::Session;
use traffic::Traffic;
use wave::Wave;

/// Members of a chat.
const GROUP: usize = 50;

/// Chats of a session.
const CHATS: usize = 20;

/// Messages that were said in each chat. Of every other chat a session has the first one.
const SAID: usize = 3;

/// Messages that a session lacks, in all its chats.
const MISSED: usize = 50;

/// Sessions that come at the same time when they do not all come at once.
const AT_A_TIME: usize = 50;

/// How long the talk is measured with nobody coming.
const QUIET: Duration = Duration::from_secs(5);

/// How long everything rests after sessions have gone.
const REST: Duration = Duration::from_secs(2);

/// Measures, prints, and tells whether everybody came to be live, and nothing was wrong.
pub(crate) fn run(sessions: u32, repeat: u8, json: Option<&Path>) -> anyhow::Result<bool> {
    let (count, repeat) = (usize::try_from(sessions)?, usize::from(repeat));
    let plan = traffic::plan(count, repeat)?;
    descriptors::raise(count + plan.chats * plan.sessions_per_chat)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let (server, sessions) = local.block_on(&runtime, set_up(&plan, count))?;
    // Those who talk have a thread of their own: they are not to wait for those who come.
    let measured = std::thread::scope(|scope| {
        let (traffic, wanted) = Traffic::new();
        let talking = scope.spawn(|| traffic::talk(&server, &plan, wanted));
        let rounds = local.block_on(&runtime, storms(&server, &sessions, repeat, traffic));
        let talked = talking.join().map_err(|_| anyhow!("the thread of the traffic has ended"))?;
        anyhow::Ok((talked.context("the traffic")?, rounds?))
    });
    let stopped = local.block_on(&runtime, server.stop());
    let (talked, (first, rounds)) = measured?;
    stopped?;
    let storms = Storms { sessions: count, first, rounds, talked };
    report::print(&storms)?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report::json(&storms)?)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(storms.is_right())
}

async fn set_up(plan: &Plan, count: usize) -> anyhow::Result<(Server, Vec<Rc<Session>>)> {
    let limits = Plan { sessions_per_chat: GROUP, ..plan.clone() };
    let server = Server::start(Kind::Broker, &limits, WireBytes::default()).await?;
    // Names of users follow from the number of their chat, and the first ones are those of who talks.
    let sessions = chats::found(&server, count, plan.chats).await.context("making chats")?;
    Ok((server, sessions))
}

/// A few at a time and all at once, in turn; before that once a few at a time, so that what is measured first is not all that
/// finds the database cold.
async fn storms(
    server: &Server,
    sessions: &[Rc<Session>],
    repeat: usize,
    traffic: Traffic,
) -> anyhow::Result<(Wave, Vec<Round>)> {
    let mut rounds = Vec::new();
    traffic.cut().await.context("waiting for the traffic")?;
    let first = wave::run(server, sessions, AT_A_TIME, &traffic).await?;
    for _ in 0..repeat {
        tokio::time::sleep(REST).await;
        traffic.cut().await?;
        tokio::time::sleep(QUIET).await;
        let quiet = traffic.cut().await?;
        let at_a_time = wave::run(server, sessions, AT_A_TIME, &traffic).await?;
        tokio::time::sleep(REST).await;
        let at_once = wave::run(server, sessions, sessions.len(), &traffic).await?;
        let round = Round { quiet, at_a_time, at_once };
        report::print_round(&round)?;
        rounds.push(round);
    }
    Ok((first, rounds))
}
