//! Sets a run up: users with their sessions, chats with their first members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use sealcast::client::{Client, ClientConfig, Connector, NewAccount, PendingLink, Storage};
use sealcast::crypto::link_code::LinkCode;
use sealcast::protocol::codec::Encoding;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{HEAL_TIMEOUT, LOOK_INTERVAL, Run, draw_seed};
use crate::args::Encodings;
use crate::load::Load;
use crate::load::churn::{Roster, User};
use crate::load::device::Device;
use crate::load::hoard::Hoard;
use crate::rng::Rng;
use crate::scenario::CHAT_USERS;

/// Users and chats that are made at the same time.
const SET_UP_AT_ONCE: usize = 8;

/// How long users, and then chats, may take to be made.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(300);

/// Events that a device may be late by before the run counts as not recorded.
const EVENTS_KEPT: usize = 16 * 1024;

/// How often clients keep their keyring: what a removed device held is known as of then, or of its last message.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(500);

impl Run {
    /// Makes users and chats, and waits until every session is in its chats.
    pub(crate) async fn set_up(&self, rng: &mut Rng) -> anyhow::Result<(Arc<Vec<User>>, Vec<Roster>)> {
        let users = Arc::new(within("making users", self.make_users()).await?);
        let rosters = within("making chats", self.make_chats(&users, rng)).await?;
        self.settle(&users, &rosters).await?;
        Ok((users, rosters))
    }

    /// How the session of a number behaves.
    pub(crate) fn config(&self, session: usize) -> anyhow::Result<ClientConfig> {
        let encoding = match self.scenario.encoding {
            Encodings::Json => Encoding::Json,
            Encodings::Msgpack => Encoding::MessagePack,
            Encodings::Both if session.is_multiple_of(2) => Encoding::MessagePack,
            Encodings::Both => Encoding::Json,
        };
        let mut config = ClientConfig::new(Connector::new(None)?);
        config.encoding = encoding;
        config.events_kept = EVENTS_KEPT;
        config.upkeep_interval = UPKEEP_INTERVAL;
        Ok(config)
    }

    async fn make_users(&self) -> anyhow::Result<Vec<User>> {
        // On a server that is used again, names of other runs are taken.
        let tag = format!("{:08x}", draw_seed());
        let permits = Arc::new(Semaphore::new(SET_UP_AT_ONCE));
        let mut tasks = JoinSet::new();
        for index in 0..usize::try_from(self.scenario.users)? {
            let username = format!("lt-{tag}-{index}");
            let sessions = usize::try_from(self.scenario.sessions_per_user)?;
            let mut configs = Vec::new();
            for session in 0..sessions {
                let number = index * sessions + session;
                configs.push((self.url_of(number), self.config(number)?));
            }
            let (permits, load) = (Arc::clone(&permits), Arc::clone(&self.load));
            tasks.spawn(async move {
                let _permit = permits.acquire().await?;
                anyhow::Ok((index, make_user(username, configs, &load).await?))
            });
        }
        let mut users = BTreeMap::new();
        while let Some(made) = tasks.join_next().await {
            let (index, user) = made??;
            users.insert(index, user);
        }
        Ok(users.into_values().collect())
    }

    async fn make_chats(&self, users: &Arc<Vec<User>>, rng: &mut Rng) -> anyhow::Result<Vec<Roster>> {
        let permits = Arc::new(Semaphore::new(SET_UP_AT_ONCE));
        let mut tasks = JoinSet::new();
        for index in 0..usize::try_from(self.scenario.chats)? {
            let owner = index % users.len();
            let wanted = rng.between(*CHAT_USERS.start(), *CHAT_USERS.end()).min(users.len());
            let mut members = BTreeSet::new();
            while members.len() + 1 < wanted {
                let user = rng.below(users.len());
                if user != owner {
                    members.insert(user);
                }
            }
            let (permits, users) = (Arc::clone(&permits), Arc::clone(users));
            tasks.spawn(async move {
                let _permit = permits.acquire().await?;
                let client = users.get(owner).and_then(|user| user.devices.first()).map(|device| &device.client);
                let client = client.ok_or_else(|| anyhow!("an owner without a device"))?;
                let chat_id = client.create_chat(&format!("Chat {index}")).await?;
                for user in &members {
                    let user = users.get(*user).ok_or_else(|| anyhow!("a member that is no user"))?;
                    client.add_member(chat_id, &user.username, true, false).await?;
                }
                let ever = members.iter().copied().chain([owner]).collect();
                let (kept, rekeys, policies, is_shared) = (BTreeSet::new(), 0, 0, false);
                anyhow::Ok((index, Roster { chat_id, owner, members, ever, kept, rekeys, policies, is_shared }))
            });
        }
        let mut rosters = BTreeMap::new();
        while let Some(made) = tasks.join_next().await {
            let (index, roster) = made??;
            rosters.insert(index, roster);
        }
        Ok(rosters.into_values().collect())
    }

    /// Waits until every session is a recipient of the chats of its user.
    async fn settle(&self, users: &[User], rosters: &[Roster]) -> anyhow::Result<()> {
        let sessions = |user: &usize| users.get(*user).into_iter().flat_map(|user| &user.devices);
        let deadline = Instant::now() + HEAL_TIMEOUT;
        loop {
            let is_settled = rosters.iter().all(|roster| {
                let members = self.load.recorder.members(roster.chat_id);
                roster.ever.iter().flat_map(sessions).all(|device| {
                    let has_joined = members.contains_key(&device.session_id);
                    has_joined && device.client.head(roster.chat_id).is_some()
                })
            });
            if is_settled {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the chats do not come to all of their members");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Gives a step of the set-up its time.
async fn within<T>(step: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(SET_UP_TIMEOUT, work).await {
        Ok(done) => done.with_context(|| step.to_owned()),
        Err(_) => bail!("{step} took longer than {} s", SET_UP_TIMEOUT.as_secs()),
    }
}

/// Registers a user and links their further sessions, each with its own way to the server.
async fn make_user(username: String, configs: Vec<(String, ClientConfig)>, load: &Arc<Load>) -> anyhow::Result<User> {
    let mut devices: Vec<Device> = Vec::new();
    for (server, config) in configs {
        let account = NewAccount { server, username: username.clone(), ttl: None };
        let hoard = Arc::new(Hoard::default());
        let storage = Arc::clone(&hoard) as Arc<dyn Storage>;
        let client = match devices.first() {
            None => Client::register(config, account, storage).await.context("registering")?,
            Some(first) => {
                let pending = PendingLink::begin(config, account, storage).await.context("asking for a session")?;
                let code = pending.code().parse::<LinkCode>()?;
                let (approved, client) = tokio::join!(first.client.approve_session(&code, None), pending.wait());
                approved.context("approving a session")?;
                client.context("linking a session")?
            }
        };
        client.live().await.map_err(|reason| anyhow!("a client closed: {reason}"))?;
        devices.push(Device::attach(client, hoard, load));
    }
    Ok(User { username, devices })
}
