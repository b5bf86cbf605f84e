//! Renews the session of a profile that is there: its keys stay, and with them all that it can read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::{NewAccount, load, save};
use super::backoff::Backoff;
use super::chat::state::Chat;
use super::config::ClientConfig;
use super::engine::login::{self, LoginError};
use super::engine::state::{Shared, State};
use super::engine::{persist, renewal};
use super::error::{ClientError, CloseReason};
use super::handle::Client;
use super::keyring::{Account, Phase};
use super::log_in::CONNECTIONS_MAX;
use super::net::{Endpoint, NetworkError};
use super::password::{Place, Way};
use super::pending::{Hellos, connected};
use super::storage::{Ephemeral, Storage};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{ChatId, Timestamp};
use crate::protocol::username::Username;

/// A profile whose session is renewed.
#[derive(Debug)]
pub(super) struct Kept {
    account: Account,
    chats: HashMap<ChatId, Chat>,
}

impl Kept {
    /// The account of a profile that is ready, if it is this one.
    pub(super) async fn of(
        storage: &Arc<dyn Storage>,
        new: &NewAccount,
        username: &Username,
    ) -> Result<Option<Self>, ClientError> {
        let (account, chats) = match persist::decode(&load(storage).await?) {
            Err(ClientError::NotReady) => return Ok(None),
            decoded => decoded?,
        };
        let is_it =
            matches!(account.phase, Phase::Ready) && account.username == *username && account.server_url == new.server;
        Ok(is_it.then_some(Self { account, chats }))
    }

    /// Renews the session by password or recovery code if its time is over or nearly so; all that the profile holds
    /// stays.
    pub(super) async fn renew(
        self,
        config: ClientConfig,
        ttl: Option<Duration>,
        way: Way<'_>,
        storage: Arc<dyn Storage>,
    ) -> Result<Client, ClientError> {
        let Self { account, chats } = self;
        let endpoint: Endpoint = account.server_url.parse()?;
        let state = State::new(account, HashMap::new());
        let shared = Shared::new(config.clone(), endpoint.clone(), state, Arc::new(Ephemeral));
        // Before the password is asked for anything: each login is a try that counts.
        let is_live = match over_connections(&shared, async |_, _, state| Ok(Ok(state))).await?? {
            SessionState::Live => true,
            SessionState::Expired => false,
            SessionState::Pending => return Err(ClientError::Closed(CloseReason::Pending)),
            SessionState::Revoked => {
                return Err(ClientError::Closed(CloseReason::Login(ErrorCode::SessionRevoked)));
            }
        };
        if is_live && !shared.lock().is_renewal_due() {
            return Err(ClientError::ProfileTaken);
        }
        let (me, place) = {
            let state = shared.lock();
            let (server_name, username) = (state.account.server_name.clone(), state.account.username.clone());
            let me = state.account.me.clone();
            let session_id = Some(me.session_id);
            let place = Place { config: config.clone(), endpoint: endpoint.clone(), server_name, username, session_id };
            (me, place)
        };
        let (logged_in, mut opened) = place.log_in(way, None).await?;
        if logged_in.user_id != me.user_id || logged_in.identity_key != me.identity_key {
            return Err(ClientError::Strongbox);
        }
        {
            let mut state = shared.lock();
            state.account.advance_chain(logged_in.place, logged_in.hash)?;
            state.unlocked = Some(opened.identity.clone());
        }
        let renewed = over_connections(&shared, async |shared, wire, state| match state {
            SessionState::Expired => renewal::over(shared, wire, ttl).await,
            // The answer to the request of before was lost, or its time is not over yet.
            _ => Ok(Ok(())),
        });
        renewed.await??;
        let (account, unlocked) = {
            let mut state = shared.lock();
            (state.account.clone(), state.unlocked.take())
        };
        save(&storage, &account).await?;
        let client = Client::start(config, endpoint, State::new(account, chats), storage);
        if is_live {
            client.shared().lock().unlocked = unlocked;
            let renewed = client.renew(ttl).await;
            client.shared().lock().unlocked = None;
            renewed?;
        }
        if let Err(error) = place.renew(way, &logged_in, &mut opened).await {
            // The login is good; whoever opens the strongbox next makes the key.
            tracing::warn!(%error, "no new user key is made now");
        }
        // What was said while the session was out has no copies for it.
        client.begin_recovery(opened);
        Ok(client)
    }
}

/// Logs in and does something, over as many connections as it takes.
async fn over_connections<T>(
    shared: &Shared,
    work: impl AsyncFn(&Shared, &super::net::wire::Wire, SessionState) -> Result<Result<T, ClientError>, LoginError>,
) -> Result<Result<T, ClientError>, ClientError> {
    let mut backoff = Backoff::default();
    let mut lost = 0;
    loop {
        let done = connected(shared, async |wire, hellos: Hellos<'_>| {
            let answer = login::authenticate(shared, wire, hellos.hello).await?;
            work(shared, wire, answer.state).await
        });
        match done.await {
            Ok(result) => return Ok(result),
            Err(LoginError::Closed(reason)) => return Err(ClientError::Closed(reason)),
            Err(LoginError::Lost) => {
                lost += 1;
                if lost >= CONNECTIONS_MAX {
                    return Err(NetworkError::Timeout.into());
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

impl Client {
    /// Renews this session's certificate over the same keys: for so long from now on, or for as long as the one before
    /// was made for. A client that holds the identity key does so by itself in the last third of its session's life,
    /// and after it.
    ///
    /// # Errors
    /// [`ClientError::NoIdentityKey`] unless this device holds it or [`Client::unlock`] has opened it; the server's
    /// refusals.
    ///
    /// # Cancel safety
    /// The session may have been renewed.
    pub async fn renew(&self, ttl: Option<Duration>) -> Result<(), ClientError> {
        self.shared().lock().identity()?;
        renewal::renew(self.shared(), ttl).await
    }

    /// When this session runs out unless it is renewed, as far as is known here.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.shared().lock().account.certificate.as_ref().map(|signed| signed.certificate.expired_at)
    }
}
