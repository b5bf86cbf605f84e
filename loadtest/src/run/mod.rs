//! Runs a scenario: sets up users and chats, lets messages flow while members change and things break, heals, reads to
//! the end, tries the keys of those who were removed, and checks.
//!
//! Lives here: the steps in their order. `set_up` is the first of them, `heal` what follows the last message, `older`
//! what newcomers may read, `trial` with `probe` what the removed may not.

mod heal;
pub(crate) mod older;
mod probe;
mod set_up;
pub(crate) mod trial;
pub(crate) mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use sealcast::protocol::ids::{ChatId, MessageId};
use sealcast_faults::Proxy;
use tokio::sync::Mutex;

use crate::ground::broker::{Broker, Plan};
use crate::ground::process;
use crate::history::recorder::Recorder;
use crate::load::churn::{Changes, Churn, User};
use crate::load::device::Device;
use crate::load::{Load, Phase};
use crate::nemesis::client_paths;
use crate::nemesis::guests::Guests;
use crate::report::{Cpu, Kills, Report};
use crate::rng::Rng;
use crate::scenario::Scenario;

/// How long healing may take, for each of its steps.
pub(crate) const HEAL_TIMEOUT: Duration = Duration::from_secs(90);

/// How often a chat's end is looked at while healing.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Everything of a run but its command line.
pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    pub(crate) load: Arc<Load>,
    pub(crate) broker: Option<Arc<Mutex<Broker>>>,
    /// The broker itself.
    pub(crate) url: String,
    /// Ways to it that can be broken.
    pub(crate) paths: Vec<Proxy>,
    /// Sessions that end while messages flow.
    pub(crate) guests: Arc<Guests>,
    pub(crate) seed: u64,
}

/// Runs the scenario. The broker that it may have started is stopped before this returns.
pub(crate) async fn run(scenario: Scenario) -> anyhow::Result<Report> {
    let seed = scenario.seed.unwrap_or_else(draw_seed);
    let name = scenario.name;
    let recorder = Recorder::new(scenario.outputs.history.as_deref())?;
    let load = Arc::new(Load::new(recorder, usize::try_from(scenario.size)?, scenario.rate, seed));
    let broker = match &scenario.server {
        Some(_) => None,
        None => {
            let log = scenario.outputs.broker_log.clone();
            let plan = Plan { limits: scenario.limits()?, log, is_breakable: scenario.is_torture() };
            Some(Arc::new(Mutex::new(Broker::start(plan).await?)))
        }
    };
    let url = match (&scenario.server, &broker) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(broker)) => broker.lock().await.url(),
        (None, None) => bail!("no broker"),
    };
    let paths = match &broker {
        Some(broker) if scenario.is_torture() => client_paths(&*broker.lock().await).await?,
        _ => Vec::new(),
    };
    let run = Run { scenario, load, broker: broker.clone(), url, paths, guests: Arc::default(), seed };
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
    result.with_context(|| if log_end.is_empty() { name.to_owned() } else { format!("broker's log:\n{log_end}") })
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
        let strangers = rosters.iter().map(|roster| users.len().saturating_sub(roster.ever.len())).sum();
        let churn = Churn::new(Arc::clone(&users), rosters, self.scenario.churn_interval(strangers));
        let churn = tokio::spawn(churn.run(Arc::clone(&self.load), rng));
        let samples = std::sync::Mutex::new(Vec::new());
        let (broken, (counts, elapsed_s, cpu)) = tokio::join!(self.break_things(&users), async {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(self.scenario.seconds)) => {}
                () = self.watch(&samples) => {}
            }
            self.load.enter(Phase::Over);
            (self.load.recorder.counts(), started.elapsed().as_secs_f64(), self.cpu().await.since(before))
        });
        broken?;

        let healing = Instant::now();
        let unanswered = self.load.drain(HEAL_TIMEOUT).await;
        let changes = churn.await.context("the churn")?;
        let behind = self.heal(&users, &owners).await?;
        let healed_s = healing.elapsed().as_secs_f64();
        // From here on little is added, and whoever ends a long run by hand can still have it checked.
        self.load.recorder.flush()?;
        let heads_differ = self.compare_heads(&users, &owners);
        let older = self.read_older(&users, &changes.newcomers).await.context("reading what newcomers may read")?;
        let (connections, resends) = self.stats(&users);
        self.close(&users).await;
        let control = self.probe(&users, &owners).await.context("trying the keys of removed sessions")?;
        let database = match &self.broker {
            Some(broker) => Some(broker.lock().await.verify().await?),
            None => None,
        };
        let mut report = self.report(changes, cpu).await?;
        report.database = database;
        report.samples = samples.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
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

    async fn report(&self, changes: Changes, cpu: Cpu) -> anyhow::Result<Report> {
        let (settings, postgres, has_clock) = match &self.broker {
            Some(broker) => {
                let broker = broker.lock().await;
                (Some(broker.settings()?), broker.postgres_version(), broker.clock().is_some())
            }
            None => (None, None, false),
        };
        let recorder = &self.load.recorder;
        let faults = recorder.faults();
        Ok(Report {
            scenario: self.scenario.clone(),
            seed: self.seed,
            settings,
            raised: if self.broker.is_some() { self.scenario.limits()? } else { Vec::new() },
            postgres,
            sent: recorder.counts().sent,
            latency: recorder.latency(),
            verdict: recorder.finish()?,
            troubles: recorder.troubles(),
            deeds: recorder.deeds(),
            changes,
            kills: Kills::among(&faults),
            faults,
            has_clock,
            longest_pause_s: recorder.longest_pause().as_secs_f64(),
            cpu,
            ..Report::default()
        })
    }

    /// Looks at the broker, if that is wanted, for as long as it is let.
    async fn watch(&self, samples: &std::sync::Mutex<Vec<watch::Sample>>) {
        match &self.broker {
            Some(broker) if self.scenario.is_watched => watch::watch(broker, &self.load.recorder, samples).await,
            _ => std::future::pending().await,
        }
    }

    async fn cpu(&self) -> Cpu {
        let mut cpu = Cpu { clients: process::cpu_s("self"), ..Cpu::default() };
        if let Some(broker) = &self.broker {
            let broker = broker.lock().await;
            cpu.broker = broker.pid().map_or(0.0, |pid| process::cpu_s(&pid.to_string()));
            cpu.postgres = broker.postmaster().map_or(0.0, process::cpu_with_children_s);
        }
        cpu
    }

    /// Where the session of a number connects: some straight to the broker, the others by a way that can be broken.
    pub(crate) fn url_of(&self, number: usize) -> String {
        match self.paths.get(number % (self.paths.len() + 1)) {
            Some(path) => format!("http://{}", path.address()),
            None => self.url.clone(),
        }
    }

    fn stats(&self, users: &[User]) -> (u64, u64) {
        let guests = self.guests.devices();
        let stats = devices(users).chain(&guests).map(|device| device.client.stats());
        stats.fold((0, 0), |(connections, resends), stats| (connections + stats.connections, resends + stats.resends))
    }
}

/// Every session of every user.
pub(crate) fn devices(users: &[User]) -> impl Iterator<Item = &Device> {
    users.iter().flat_map(|user| &user.devices)
}
