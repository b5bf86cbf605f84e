//! Restarts a broker while everybody talks: how long until all are back, how many log in at the same time, and is
//! anything lost?
//!
//! These are clients of the library, which wait after a farewell as they are told to and try again by their own rules:
//! it is them who make a herd, or none. `person` is one of them and what it heard, `report` the result.

mod person;
mod report;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use sealcast::client::{Client, Connector};
use sealcast::protocol::ids::ChatId;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::ground::broker::{Broker, Plan};
use crate::ground::descriptors;
use person::Person;
use report::{Restart, Restarts};

/// Members of a chat.
const MEMBERS: usize = 10;

/// Groups that meet at the same time.
const AT_ONCE: usize = 4;

/// How long everybody talks before each restart.
const TALK: Duration = Duration::from_secs(3);

/// A pause between two messages of one who talks.
const PAUSE: Duration = Duration::from_millis(500);

/// How long logins are counted at a time.
const SLICE: Duration = Duration::from_millis(100);

/// How long all may take to be back, and to hear the last that was said.
const PATIENCE: Duration = Duration::from_secs(120);

/// One chat, in which its first member talks.
struct Group {
    chat_id: ChatId,
    people: Vec<Person>,
}

/// Those who talk, until it is over.
struct Talk {
    is_over: AtomicBool,
    refused: AtomicU64,
    said: Mutex<Vec<(usize, String)>>,
}

/// Measures, prints, and tells whether all came back each time, nothing was lost, and no herd came.
pub(crate) fn run(sessions: u32, repeat: u8, json: Option<&Path>) -> anyhow::Result<bool> {
    descriptors::raise(usize::try_from(sessions)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let restarts = runtime.block_on(measure(usize::try_from(sessions)?, repeat))?;
    restarts.print()?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&restarts.json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(restarts.is_right())
}

async fn measure(sessions: usize, repeat: u8) -> anyhow::Result<Restarts> {
    let mut broker = Broker::start(Plan { limits: Vec::new(), log: None, is_breakable: false }).await?;
    let connector = Connector::new(None)?;
    let url = broker.url();
    let sizes = (0..sessions.div_ceil(MEMBERS)).map(|number| MEMBERS.min(sessions - number * MEMBERS));
    let meeting = sizes.enumerate().map(|(number, size)| meet(&url, &connector, number, size));
    let groups: Vec<Group> = futures_util::stream::iter(meeting).buffered(AT_ONCE).try_collect().await?;

    let talk = Arc::new(Talk { is_over: AtomicBool::new(false), refused: AtomicU64::new(0), said: Mutex::default() });
    let mut talking = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let client = group.people.first().context("a chat of nobody")?.client.clone();
        talking.push(tokio::spawn(say(client, group.chat_id, number, Arc::clone(&talk))));
    }
    let mut rounds = Vec::new();
    for _ in 0..repeat {
        tokio::time::sleep(TALK).await;
        let restart = restart(&mut broker, &groups).await?;
        report::print_round(&restart)?;
        rounds.push(restart);
    }
    tokio::time::sleep(TALK).await;
    talk.is_over.store(true, Ordering::Relaxed);
    for sender in talking {
        sender.await.context("somebody who talks")?;
    }
    let said = std::mem::take(&mut *talk.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let heard = judge(&groups, &said).await;
    let violations = broker.verify().await?.violation_count();
    for person in groups.into_iter().flat_map(|group| group.people) {
        person.close().await;
    }
    broker.stop().await?;
    let refused = talk.refused.load(Ordering::Relaxed);
    Ok(Restarts { sessions, acknowledged: said.len(), refused, rounds, heard, violations })
}

/// Users who have just registered, in a chat of theirs.
async fn meet(url: &str, connector: &Connector, number: usize, size: usize) -> anyhow::Result<Group> {
    let mut people = Vec::new();
    for member in 0..size {
        people.push(Person::register(url, connector, format!("restart-{number}-{member}")).await?);
    }
    let owner = &people.first().context("a chat of nobody")?.client;
    let chat_id = owner.create_chat("Restart").await?;
    for member in 1..size {
        owner.add_member(chat_id, &format!("restart-{number}-{member}"), true, false).await?;
    }
    Ok(Group { chat_id, people })
}

/// Says something every now and then, and keeps what was acknowledged.
async fn say(client: Client, chat_id: ChatId, group: usize, talk: Arc<Talk>) {
    let mut due = tokio::time::interval(PAUSE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0_u64;
    while !talk.is_over.load(Ordering::Relaxed) {
        due.tick().await;
        let text = number.to_string();
        number += 1;
        match client.send(chat_id, &text).await {
            Ok(_) => talk.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((group, text)),
            Err(_) => {
                talk.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Ends the broker as an upgrade does, starts it again, and waits until everybody is live.
async fn restart(broker: &mut Broker, groups: &[Group]) -> anyhow::Result<Restart> {
    let people = || groups.iter().flat_map(|group| &group.people);
    people().for_each(Person::forget_live);
    let began = Instant::now();
    broker.end().await?;
    let ended = began.elapsed();
    broker.restart().await?;
    let listened = began.elapsed();
    let mut logins = Logins::default();
    let mut slice = tokio::time::interval(SLICE);
    slice.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while people().any(|person| person.live_at().is_none()) && began.elapsed() < PATIENCE {
        slice.tick().await;
        logins.take(&broker.metrics().await?);
    }
    let live: Vec<Duration> = people().filter_map(Person::live_at).map(|at| at.duration_since(began)).collect();
    Ok(Restart {
        ended,
        listened,
        all_live: live.iter().max().copied().unwrap_or_default(),
        never_live: people().count() - live.len(),
        logins_peak: logins.peak,
        logins: logins.sum,
    })
}

/// Logins that were accepted since the broker began, by what it tells.
#[derive(Debug, Default)]
struct Logins {
    sum: u64,
    peak: u64,
}

impl Logins {
    fn take(&mut self, metrics: &str) {
        let line = metrics.lines().find(|line| line.starts_with("sealcast_logins_total{result=\"accepted\"}"));
        let sum = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
        self.peak = self.peak.max(sum - self.sum.min(sum));
        self.sum = sum;
    }
}

/// Waits until everybody has heard all that was acknowledged, as long as that may take, and counts.
async fn judge(groups: &[Group], said: &[(usize, String)]) -> person::Heard {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut all = person::Heard::default();
        for (number, group) in groups.iter().enumerate() {
            let texts: Vec<&str> = said.iter().filter(|(of, _)| *of == number).map(|(_, text)| text.as_str()).collect();
            group.people.iter().for_each(|person| all.add(person.heard(&texts)));
        }
        if all.lost == 0 || Instant::now() >= deadline {
            return all;
        }
        tokio::time::sleep(SLICE).await;
    }
}

/// What listens to a client until it closes.
type Listening = JoinHandle<()>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_logins_is_the_most_of_one_slice() {
        let mut logins = Logins::default();
        for (sum, peak) in [(0, 0), (3, 3), (10, 7), (11, 7), (19, 8)] {
            logins.take(&format!("x 7\nsealcast_logins_total{{result=\"accepted\"}} {sum}\n"));
            assert_eq!((logins.sum, logins.peak), (sum, peak));
        }
        logins.take("nothing of it");
        assert_eq!((logins.sum, logins.peak), (0, 8));
    }
}
