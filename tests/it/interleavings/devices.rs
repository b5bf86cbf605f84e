//! A device of a user: the client library over a keyring that forgets nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sealcast::client::{Client, ClientConfig, ClientError, Event, EventStream, NewAccount, PendingLink};
use tokio::sync::Mutex;

use super::super::passwords::password;
use super::super::support::clients::config;
use super::super::support::{eventually, within};
use super::kept::Keyring;

/// The password of those who have one.
pub const PASSWORD: &str = "correct horse";

/// How long a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// To the end: somebody has to judge.
    First,
    /// Until another device of its user revokes it.
    Linked,
    /// Its session runs out in a moment.
    Guest,
}

/// A user's device.
pub struct Device {
    /// The user's number in the world.
    pub user: usize,
    pub client: Client,
    pub keyring: Arc<Keyring>,
    pub stay: Stay,
    events: Mutex<EventStream>,
}

/// How clients of these worlds behave: a session that is to run out does.
pub fn behaviour() -> ClientConfig {
    ClientConfig { renews: false, ..config() }
}

impl Device {
    fn new(user: usize, client: Client, keyring: Arc<Keyring>, stay: Stay) -> Self {
        let events = Mutex::new(client.events());
        Self { user, client, keyring, stay, events }
    }

    /// The first device of a new account.
    pub async fn register(user: usize, account: NewAccount, has_password: bool) -> Self {
        let keyring = Arc::new(Keyring::default());
        let storage = Arc::clone(&keyring) as _;
        let client = within("a registration", async {
            if has_password {
                Client::register_with_password(behaviour(), account, &password(PASSWORD), storage).await
            } else {
                Client::register(behaviour(), account, storage).await
            }
        });
        let device = Self::new(user, client.await.unwrap(), keyring, Stay::First);
        within("a live client", device.client.live()).await.unwrap();
        device
    }

    /// One more device of this one's user, approved by this one.
    pub async fn link(&self, account: NewAccount, ttl: Option<Duration>) -> Result<Self, ClientError> {
        let keyring = Arc::new(Keyring::default());
        let pending = PendingLink::begin(behaviour(), account, Arc::clone(&keyring) as _).await?;
        self.client.approve_session(&pending.code().parse().unwrap(), ttl).await?;
        Ok(Self::new(self.user, pending.wait().await?, keyring, if ttl.is_some() { Stay::Guest } else { Stay::Linked }))
    }

    /// One more device of a user who has a password, by that alone.
    pub async fn log_in(user: usize, account: NewAccount) -> Result<Self, ClientError> {
        let keyring = Arc::new(Keyring::default());
        let client = Client::log_in(behaviour(), account, &password(PASSWORD), Arc::clone(&keyring) as _).await?;
        Ok(Self::new(user, client, keyring, Stay::Linked))
    }

    /// The same device after its program has ended and begun again.
    pub async fn begin_again(&self) -> Self {
        self.close().await;
        let storage = Arc::clone(&self.keyring) as _;
        let client = within("a client that opens", Client::open(behaviour(), storage)).await.unwrap();
        Self::new(self.user, client, Arc::clone(&self.keyring), self.stay)
    }

    /// Waits until its session is over.
    pub async fn is_over(&self) {
        eventually("the end of a session", async || self.client.live().await.is_err()).await;
    }

    /// Ends the client, which must not have had anything to complain of: nobody lies in these worlds.
    pub async fn close(&self) {
        let _ = self.client.close().await;
        let mut events = self.events.lock().await;
        let complaints = std::iter::from_fn(|| events.next().now_or_never()).map_while(|event| event.transpose());
        let alarms: Vec<_> = complaints.flatten().filter(|event| matches!(&**event, Event::Alarm(_))).collect();
        assert!(alarms.is_empty() && self.client.stats().alarms == 0, "{alarms:?}");
    }
}
