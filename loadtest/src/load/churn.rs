//! Changes members and cuts connections while messages flow.
//!
//! Lives here: who is meant to be where, additions and removals; `rule` changes the rest.
//!
//! Invariant: who was removed from a chat, or left it, never comes back to it in the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sealcast::client::{Client, ClientError};
use sealcast::protocol::ids::ChatId;
use tokio::task::JoinSet;

use super::Load;
use super::device::Device;
use crate::rng::Rng;

/// Changes of rules begun each time.
const RULES_EACH: usize = 3;

/// Members that a chat keeps.
const MEMBERS_KEPT: usize = 3;

/// One connection of so many is dropped each time.
const CONNECTIONS_PER_CUT: usize = 50;

/// Every so many-th who goes, goes by themselves.
const LEAVE_EVERY: usize = 3;

/// How long a change that was begun may take after the run.
const LAST_CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A user, with all their devices.
#[derive(Debug)]
pub(crate) struct User {
    /// Their name.
    pub(crate) username: String,
    /// Their sessions.
    pub(crate) devices: Vec<Device>,
}

/// Who is meant to be in a chat, as indexes of users.
#[derive(Debug)]
pub(crate) struct Roster {
    /// The chat.
    pub(crate) chat_id: ChatId,
    /// Its owner, who stays.
    pub(crate) owner: usize,
    /// Its members but the owner.
    pub(crate) members: BTreeSet<usize>,
    /// Everybody who ever was one.
    pub(crate) ever: BTreeSet<usize>,
    /// Members with whom something is being done, and who stay until it is over.
    pub(crate) kept: BTreeSet<usize>,
    /// Rekeys begun.
    pub(crate) rekeys: u32,
    /// Changes of the history policy begun.
    pub(crate) policies: u32,
    /// Whether newcomers may read what was before.
    pub(crate) is_shared: bool,
}

/// What was changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Users added.
    pub(crate) added: u64,
    /// Users removed.
    pub(crate) removed: u64,
    /// Users who left.
    pub(crate) left: u64,
    /// Users added while the history was shared, and where.
    pub(crate) newcomers: Vec<(ChatId, usize)>,
    /// Changes of rights.
    pub(crate) rights: u64,
    /// Times that a chat passed to another owner, and back.
    pub(crate) transfers: u64,
    /// Rekeys.
    pub(crate) rekeys: u64,
    /// Changes of a chat's history policy.
    pub(crate) policies: u64,
    /// Connections dropped.
    pub(crate) reconnects: u64,
    /// Changes that failed, by their error.
    pub(crate) failed: BTreeMap<String, u64>,
}

/// The churn of a run.
#[derive(Debug, Clone)]
pub(crate) struct Churn {
    pub(crate) users: Arc<Vec<User>>,
    pub(crate) rosters: Arc<Mutex<Vec<Roster>>>,
    pub(crate) changes: Arc<Mutex<Changes>>,
    interval: Duration,
}

enum Change {
    Add,
    Remove,
    Leave,
}

impl Churn {
    /// Over these users and chats; members change every `interval`.
    pub(crate) fn new(users: Arc<Vec<User>>, rosters: Vec<Roster>, interval: Duration) -> Self {
        Self { users, rosters: Arc::new(Mutex::new(rosters)), changes: Arc::default(), interval }
    }

    /// Changes until the run is over.
    pub(crate) async fn run(self, load: Arc<Load>, mut rng: Rng) -> Changes {
        let mut tasks = JoinSet::new();
        let mut gone = 0;
        loop {
            if !load.rest(self.interval).await {
                break;
            }
            self.add(&mut rng, &mut tasks);
            gone += 1;
            self.take_out(&mut rng, gone % LEAVE_EVERY == 0, &mut tasks);
            for _ in 0..RULES_EACH {
                self.rule(&load, &mut rng, &mut tasks);
            }
            self.cut(&mut rng);
        }
        let finish = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_CHANGE_TIMEOUT, finish).await;
        let unfinished = u64::try_from(tasks.len()).unwrap_or(u64::MAX);
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if unfinished > 0 {
            changes.failed.insert("no answer in time".to_owned(), unfinished);
        }
        changes
    }

    fn client(&self, user: usize, rng: &mut Rng) -> Option<Client> {
        rng.pick(&self.users.get(user)?.devices).map(|device| device.client.clone())
    }

    fn add(&self, rng: &mut Rng, tasks: &mut JoinSet<()>) {
        let chosen = {
            let mut rosters = self.rosters.lock().unwrap_or_else(PoisonError::into_inner);
            let index = rng.below(rosters.len());
            let Some(roster) = rosters.get_mut(index) else { return };
            let strangers: Vec<usize> = (0..self.users.len()).filter(|user| !roster.ever.contains(user)).collect();
            let Some(user) = rng.pick(&strangers).copied() else { return };
            roster.ever.insert(user);
            (index, roster.chat_id, roster.owner, user)
        };
        self.spawn(Change::Add, chosen, rng, tasks);
    }

    fn take_out(&self, rng: &mut Rng, leaves: bool, tasks: &mut JoinSet<()>) {
        let chosen = {
            let mut rosters = self.rosters.lock().unwrap_or_else(PoisonError::into_inner);
            let large: Vec<usize> = rosters
                .iter()
                .enumerate()
                .filter(|(_, roster)| roster.members.len() >= MEMBERS_KEPT)
                .map(|(index, _)| index)
                .collect();
            let Some(index) = rng.pick(&large).copied() else { return };
            let Some(roster) = rosters.get_mut(index) else { return };
            let members: Vec<usize> = roster.members.difference(&roster.kept).copied().collect();
            let Some(user) = rng.pick(&members).copied() else { return };
            roster.members.remove(&user);
            (index, roster.chat_id, roster.owner, user)
        };
        let change = if leaves { Change::Leave } else { Change::Remove };
        self.spawn(change, chosen, rng, tasks);
    }

    fn spawn(
        &self,
        change: Change,
        (index, chat_id, owner, user): (usize, ChatId, usize, usize),
        rng: &mut Rng,
        tasks: &mut JoinSet<()>,
    ) {
        let actor = if matches!(change, Change::Leave) { user } else { owner };
        let (Some(actor), Some(target)) = (self.client(actor, rng), self.users.get(user)) else { return };
        let username = target.username.clone();
        let (rosters, changes) = (Arc::clone(&self.rosters), Arc::clone(&self.changes));
        let was_shared =
            rosters.lock().unwrap_or_else(PoisonError::into_inner).get(index).is_some_and(|roster| roster.is_shared);
        tasks.spawn(async move {
            let done: Result<(), ClientError> = match change {
                Change::Add => actor.add_member(chat_id, &username, true, false).await.map(|_| ()),
                Change::Remove => actor.remove_member(chat_id, &username).await.map(|_| ()),
                Change::Leave => actor.leave_chat(chat_id).await,
            };
            let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
            match (done, change) {
                (Err(error), _) => *changes.failed.entry(error.to_string()).or_default() += 1,
                (Ok(()), Change::Remove) => changes.removed += 1,
                (Ok(()), Change::Leave) => changes.left += 1,
                (Ok(()), Change::Add) => {
                    changes.added += 1;
                    if was_shared {
                        changes.newcomers.push((chat_id, user));
                    }
                    let mut rosters = rosters.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(roster) = rosters.get_mut(index) {
                        roster.members.insert(user);
                    }
                }
            }
        });
    }

    fn cut(&self, rng: &mut Rng) {
        let devices: Vec<&Device> = self.users.iter().flat_map(|user| &user.devices).collect();
        for _ in 0..devices.len().div_ceil(CONNECTIONS_PER_CUT) {
            if let Some(device) = rng.pick(&devices) {
                device.client.reconnect();
                self.changes.lock().unwrap_or_else(PoisonError::into_inner).reconnects += 1;
            }
        }
    }
}
