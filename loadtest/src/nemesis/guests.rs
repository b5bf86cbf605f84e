//! Links sessions that end while messages flow: by their time, or revoked by another session of their user.
//!
//! Invariants: a session that ended does not come back; every guest ends within its time, also one whose linking failed
//! half-way, so that nobody waits for it in the end; what it held is kept, for the trial of the keys of the removed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use sealcast::client::{Client, ClientConfig, NewAccount, PendingLink, Storage};
use sealcast::crypto::link_code::LinkCode;
use tokio::task::JoinSet;

use super::processes::millis;
use crate::load::churn::User;
use crate::load::device::Device;
use crate::load::hoard::Hoard;
use crate::rng::Rng;
use crate::run::Run;
use crate::scenario::GUEST_INTERVAL;

/// How long a guest lives, in milliseconds.
const LIFE_MS: std::ops::RangeInclusive<usize> = 5_000..=16_000;

/// One guest of so many is revoked before its time.
const REVOKED_EVERY: usize = 3;

/// How much longer than its life a guest may take to be linked and to be gone.
const LINK_TIMEOUT: Duration = Duration::from_secs(30);

/// Before a step that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Sessions that ended while messages flowed.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    hoards: Mutex<Vec<Arc<Hoard>>>,
    devices: Mutex<Vec<Device>>,
}

impl Guests {
    /// What each held.
    pub(crate) fn hoards(&self) -> Vec<Arc<Hoard>> {
        self.hoards.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that came to be.
    pub(crate) fn devices(&self) -> Vec<Device> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Run {
    /// Has guests until the run is over, and waits for the last to be gone.
    pub(super) async fn have_guests(&self, users: &Arc<Vec<User>>, mut rng: Rng) {
        let mut guests = JoinSet::new();
        let mut number = 0;
        while self.load.rest(GUEST_INTERVAL).await {
            let Some(user) = rng.pick(users) else { break };
            let Some(host) = user.devices.first().map(|device| device.client.clone()) else { break };
            let life = millis(&mut rng, LIFE_MS);
            let guest = self.guest(number, &user.username, host, life, rng.below(REVOKED_EVERY) == 0);
            let load = Arc::clone(&self.load);
            guests.spawn(async move {
                if let Err(error) = guest.await {
                    load.recorder.remark(&format!("a guest was not linked: {error:#}"));
                }
            });
            number += 1;
        }
        while guests.join_next().await.is_some() {}
    }

    /// One guest, from its linking to its end.
    fn guest(
        &self,
        number: usize,
        username: &str,
        host: Client,
        life: Duration,
        is_revoked: bool,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let hoard = Arc::new(Hoard::default());
        self.guests.hoards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&hoard));
        let account = NewAccount { server: self.url_of(number), username: username.to_owned(), ttl: None };
        let config = self.config(number).map(|config| ClientConfig { renews: false, ..config });
        let (load, guests) = (Arc::clone(&self.load), Arc::clone(&self.guests));
        async move {
            let link = link(config?, account, &hoard, &host, life);
            let client = tokio::time::timeout(life + LINK_TIMEOUT, link).await.context("linking a session")??;
            let session_id = client.session_id();
            let device = Device::attach(client, hoard, &load);
            let listener = Arc::clone(&device.listener);
            guests.devices.lock().unwrap_or_else(PoisonError::into_inner).push(device);
            if is_revoked {
                tokio::time::sleep(life / 2).await;
                load.recorder.fault("session revoked", "");
                host.revoke_session(session_id).await?;
            } else {
                load.recorder.fault("session expires", &format!("in less than {} ms", life.as_millis()));
            }
            let is_gone = async {
                while !listener.is_finished() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(life + LINK_TIMEOUT, is_gone).await.context("waiting for a session to end")
        }
    }
}

/// Links a session, as users do it while things break: what fails is tried again.
async fn link(
    config: ClientConfig,
    account: NewAccount,
    hoard: &Arc<Hoard>,
    host: &Client,
    life: Duration,
) -> anyhow::Result<Client> {
    let pending = loop {
        let storage = Arc::clone(hoard) as Arc<dyn Storage>;
        match PendingLink::begin(config.clone(), account.clone(), storage).await {
            Ok(pending) => break pending,
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    };
    let code = pending.code().parse::<LinkCode>()?;
    let approve = async {
        while host.approve_session(&code, Some(life)).await.is_err() {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        // It goes on until the session that waits is approved: the answer may be lost, and the next try be refused.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        client = pending.wait() => Ok(client?),
        () = approve => anyhow::bail!("nobody waits"),
    }
}
