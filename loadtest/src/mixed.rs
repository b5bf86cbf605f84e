//! The scenario `mixed`: sets up users and chats, lets messages flow while members change and things break, heals,
//! reads to the end, tries the keys of those who were removed, and checks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use sealcast::client::Client;
use sealcast::protocol::ids::{ChatId, MessageId, SessionId};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::args::MixedArgs;
use crate::broker::{self, Broker};
use crate::churn::{Changes, Churn, User};
use crate::device::{Device, Load, Phase};
use crate::recorder::Recorder;
use crate::report::{Cpu, Kills, Report};
use crate::rng::Rng;

/// Users of a chat at its beginning.
pub(crate) const CHAT_USERS: std::ops::RangeInclusive<usize> = 3..=15;

/// How long healing may take, for each of its steps.
pub(crate) const HEAL_TIMEOUT: Duration = Duration::from_secs(90);

/// How often a chat's end is looked at while healing.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Everything of a run but its command line.
pub(crate) struct Run {
    pub(crate) args: MixedArgs,
    pub(crate) load: Arc<Load>,
    pub(crate) broker: Option<Arc<Mutex<Broker>>>,
    pub(crate) url: String,
    pub(crate) seed: u64,
}

/// Runs the scenario. The broker that it may have started is stopped before this returns.
pub(crate) async fn run(args: MixedArgs) -> anyhow::Result<Report> {
    let seed = args.seed.unwrap_or_else(draw_seed);
    let recorder = Recorder::new(args.history.as_deref())?;
    let load = Arc::new(Load::new(recorder, usize::try_from(args.size)?, args.rate, seed));
    let broker = match &args.server {
        Some(_) => None,
        None => Some(Arc::new(Mutex::new(Broker::start(limits(&args)?, args.broker_log.clone()).await?))),
    };
    let url = match (&args.server, &broker) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(broker)) => broker.lock().await.url(),
        (None, None) => bail!("no broker"),
    };
    let run = Run { args, load, broker: broker.clone(), url, seed };
    let result = tokio::select! {
        result = run.all() => result,
        () = interrupted() => Err(anyhow!("interrupted")),
    };
    let log_end = match &broker {
        Some(broker) if result.is_err() => broker.lock().await.log_end(),
        _ => String::new(),
    };
    drop(run);
    if let Some(broker) = broker {
        let broker = Arc::try_unwrap(broker).map_err(|_| anyhow!("the broker is still used"))?.into_inner();
        broker.stop().await?;
    }
    result.with_context(|| if log_end.is_empty() { "mixed".to_owned() } else { format!("broker's log:\n{log_end}") })
}

/// A number that another run does not draw.
pub(crate) fn draw_seed() -> u64 {
    // The random half of a fresh identifier; short, to be typed again.
    let bytes = MessageId::generate();
    bytes.as_bytes().iter().skip(12).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What the scenario needs above the defaults: nothing, for moderate numbers.
fn limits(args: &MixedArgs) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let defaults = sealcast::config::Settings::load(None)?;
    let sessions = u64::from(args.sessions_per_user);
    let chats_of_owner = u64::from(args.chats.div_ceil(args.users));
    let changes = chats_of_owner * (CHAT_USERS.end().saturating_add(1) as u64 + 5 * args.seconds.min(60));
    let needs = [
        ("session.certificates_per_hour_max", sessions, defaults.session.certificates_per_hour_max),
        ("session.live_max", sessions, defaults.session.live_max),
        ("limits.membership_changes_per_minute", changes, defaults.limits.membership_changes_per_minute.into()),
    ];
    Ok(needs.into_iter().filter(|(_, need, default)| need > default).map(|(key, need, _)| (key, need)).collect())
}

impl Run {
    async fn all(&self) -> anyhow::Result<Report> {
        let mut rng = Rng::new(self.seed);
        let began = Instant::now();
        let (users, rosters) = self.set_up(&mut rng).await?;
        let set_up_s = began.elapsed().as_secs_f64();

        let owners: HashMap<ChatId, usize> = rosters.iter().map(|roster| (roster.chat_id, roster.owner)).collect();
        let (before, counts_before) = (self.cpu().await, self.load.recorder.counts());
        let started = Instant::now();
        self.load.enter(Phase::Run);
        let churn = tokio::spawn(Churn::new(Arc::clone(&users), rosters).run(Arc::clone(&self.load), rng));
        let (kills, ()) = tokio::join!(self.break_things(), async {
            tokio::time::sleep(Duration::from_secs(self.args.seconds)).await;
            self.load.enter(Phase::Over);
        });
        let (counts, elapsed_s) = (self.load.recorder.counts(), started.elapsed().as_secs_f64());
        let cpu = self.cpu().await.since(before);
        let kills = kills?;

        let healing = Instant::now();
        let unanswered = self.load.drain(HEAL_TIMEOUT).await;
        let changes = churn.await.context("the churn")?;
        let behind = self.heal(&users, &owners).await?;
        let healed_s = healing.elapsed().as_secs_f64();
        let heads_differ = self.compare_heads(&users, &owners);
        let older = self.read_older(&users, &changes.newcomers).await.context("reading what newcomers may read")?;
        let (connections, resends) = stats(&users);
        self.close(&users).await;
        let control = self.probe(&users, &owners).await.context("trying the keys of removed sessions")?;
        let mut report = self.report(changes, kills, cpu).await?;
        report.set_up_s = set_up_s;
        report.elapsed_s = elapsed_s;
        report.healed_s = healed_s;
        report.acked_per_s = (counts.acked - counts_before.acked) as f64 / elapsed_s;
        report.delivered_per_s = (counts.delivered - counts_before.delivered) as f64 / elapsed_s;
        report.unanswered = unanswered;
        report.behind = behind;
        report.heads_differ = heads_differ;
        report.control = control;
        report.older = older;
        report.connections = connections;
        report.resends = resends;
        Ok(report)
    }

    async fn report(&self, changes: Changes, kills: Kills, cpu: Cpu) -> anyhow::Result<Report> {
        let (settings, postgres) = match &self.broker {
            Some(broker) => {
                let broker = broker.lock().await;
                (Some(broker.settings()?), broker.postgres_version())
            }
            None => (None, None),
        };
        let recorder = &self.load.recorder;
        Ok(Report {
            args: self.args.clone(),
            seed: self.seed,
            settings,
            raised: if self.broker.is_some() { limits(&self.args)? } else { Vec::new() },
            postgres,
            sent: recorder.counts().sent,
            latency: recorder.latency(),
            verdict: recorder.finish()?,
            troubles: recorder.troubles(),
            deeds: recorder.deeds(),
            changes,
            kills,
            cpu,
            ..Report::default()
        })
    }

    /// Ends processes as often as asked for, until the run is over, and lets them come back.
    async fn break_things(&self) -> anyhow::Result<Kills> {
        let Some(broker) = &self.broker else { return Ok(Kills::default()) };
        let recorder = &self.load.recorder;
        let brokers = async {
            let mut kills = 0;
            while self.wait_for_fault(self.args.kill_broker_every).await {
                recorder.fault("kill broker");
                broker.lock().await.kill_and_restart().await?;
                recorder.fault("broker is back");
                kills += 1;
            }
            anyhow::Ok(kills)
        };
        let postgres = async {
            let mut kills = 0;
            while self.wait_for_fault(self.args.kill_postgres_every).await {
                recorder.fault("kill postgres");
                kills += u64::from(broker.lock().await.kill_postgres().await?);
            }
            anyhow::Ok(kills)
        };
        let (broker_kills, postgres_kills) = tokio::try_join!(brokers, postgres)?;
        if !broker.lock().await.is_running() {
            bail!("the broker ended by itself");
        }
        Ok(Kills { broker: broker_kills, postgres: postgres_kills })
    }

    /// Waits for the next fault; `false` when the run is over first.
    async fn wait_for_fault(&self, every: Option<u64>) -> bool {
        let Some(every) = every else { return false };
        tokio::select! {
            biased;
            () = self.load.over() => false,
            () = tokio::time::sleep(Duration::from_secs(every)) => true,
        }
    }

    /// Waits until every member session was given each chat up to its end, and says so; tells how many were not.
    async fn heal(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> anyhow::Result<u64> {
        let deadline = Instant::now() + HEAL_TIMEOUT;
        let live = async {
            for device in devices(users) {
                // A client that is closed for good is told by its event, and its chats by their missing end.
                let _ = device.client.live().await;
            }
        };
        let _ = tokio::time::timeout(HEAL_TIMEOUT, live).await;
        let mut behind = 0;
        for chat_id in self.load.recorder.chats() {
            let owner = owners.get(&chat_id).and_then(|owner| users.get(*owner)).and_then(|user| user.devices.first());
            let client = &owner.ok_or_else(|| anyhow!("a chat without an owner"))?.client;
            loop {
                let chats = client.list_chats().await.context("listing chats")?;
                let end = chats.iter().find(|chat| chat.chat_id == chat_id).map(|chat| chat.last_seq.get());
                let end = end.ok_or_else(|| anyhow!("the owner does not have the chat any more"))?;
                let members = self.load.recorder.members(chat_id);
                let late = members.values().filter(|highest| **highest < end).count();
                if late > 0 && Instant::now() < deadline {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    continue;
                }
                for (session_id, _) in members.iter().filter(|(_, highest)| **highest >= end) {
                    self.load.recorder.last(*session_id, chat_id, end);
                }
                behind += u64::try_from(late)?;
                break;
            }
        }
        Ok(behind)
    }

    /// Counts sessions whose hash of a chat's log is not the owner's.
    fn compare_heads(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> u64 {
        let clients: HashMap<SessionId, &Client> =
            devices(users).map(|device| (device.session_id, &device.client)).collect();
        let mut differ = 0;
        for (chat_id, owner) in owners {
            let owner = users.get(*owner).and_then(|user| user.devices.first());
            let truth = owner.and_then(|device| device.client.head(*chat_id));
            let members = self.load.recorder.members(*chat_id);
            let heads = members.keys().filter_map(|session_id| clients.get(session_id)?.head(*chat_id));
            differ += heads.filter(|head| Some(*head) != truth).count() as u64;
        }
        differ
    }

    async fn close(&self, users: &[User]) {
        let mut closing = JoinSet::new();
        for device in devices(users) {
            let client = device.client.clone();
            closing.spawn(async move { client.close().await.is_ok() });
        }
        while closing.join_next().await.is_some() {}
        for device in devices(users) {
            // Its last event is that it closed.
            while !device.listener.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    async fn cpu(&self) -> Cpu {
        let mut cpu = Cpu { clients: broker::cpu_s("self"), ..Cpu::default() };
        if let Some(broker) = &self.broker {
            let broker = broker.lock().await;
            cpu.broker = broker.pid().map_or(0.0, |pid| broker::cpu_s(&pid.to_string()));
            cpu.postgres = broker.postmaster().map_or(0.0, broker::cpu_with_children_s);
        }
        cpu
    }
}

/// Every session of every user.
pub(crate) fn devices(users: &[User]) -> impl Iterator<Item = &Device> {
    users.iter().flat_map(|user| &user.devices)
}

fn stats(users: &[User]) -> (u64, u64) {
    let stats = devices(users).map(|device| device.client.stats());
    stats.fold((0, 0), |(connections, resends), stats| (connections + stats.connections, resends + stats.resends))
}
