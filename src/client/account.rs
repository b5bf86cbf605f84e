//! Registers an account, with this device as its first session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::config::ClientConfig;
use super::engine::devices::expiry;
use super::engine::persist;
use super::engine::state::State;
use super::error::{ClientError, UNSIGNED};
use super::friends::SeenRequests;
use super::handle::Client;
use super::keyring::{Account, Me, Phase};
use super::net::{Endpoint, http};
use super::password;
use super::storage::Storage;
use crate::crypto::opaque::Password;
use crate::crypto::strongbox::Opened;
use crate::crypto::{IdentitySecret, Secret, SessionSecrets};
use crate::protocol::account::{ACCOUNTS_PATH, INFO_PATH, Register, Registered, ServerInfo};
use crate::protocol::certificate::{Certificate, SignedCertificate, chain_start};
use crate::protocol::ids::{Place, SessionId, UserId};
use crate::protocol::username::Username;

/// How long a session lives unless said otherwise. Without a password an account ends with its last session,
/// so this is long.
pub const SESSION_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Tries of a request whose outcome is unknown, before it is left to the next run.
const TRIES_MAX: u32 = 4;

/// What an account begins with.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The server's address: `http`, `https`, `ws` or `wss`.
    pub server: String,
    /// The username, in any case.
    pub username: String,
    /// How long the session lives; [`SESSION_TTL`] if not given.
    pub ttl: Option<Duration>,
}

/// Registers an account, or ends a registration whose outcome was unknown.
pub(crate) async fn register(
    config: ClientConfig,
    new: NewAccount,
    password: Option<&Password>,
    invitation: Option<&str>,
    storage: Arc<dyn Storage>,
) -> Result<Client, ClientError> {
    let endpoint: Endpoint = new.server.parse()?;
    let username = Username::parse(&new.username)?;
    let begun = found(&storage).await?.filter(|account| {
        matches!(account.phase, Phase::Registering) && account.username == username && account.server_url == new.server
    });
    let mut account = match begun {
        Some(account) => account,
        None => {
            let info: ServerInfo = http::get(&config.connector, &endpoint, INFO_PATH, config.connect_timeout).await?;
            let mut account = fresh(&new, username, info);
            if let Some(password) = password {
                seal(&config, &endpoint, &mut account, password).await?;
            }
            save(&storage, &account).await?;
            account
        }
    };
    let request = Register {
        user_id: account.me.user_id,
        username: account.username.as_str().to_owned(),
        identity_key: account.me.identity_key,
        certificate: account.certificate.clone().ok_or(ClientError::NotReady)?,
        strongbox: account.strongbox.clone(),
        invitation: invitation.map(str::to_owned),
    };
    let answer: Result<Registered, ClientError> = insist(&config, &endpoint, ACCOUNTS_PATH, &request).await;
    match answer {
        Ok(registered) => account.username = registered.username,
        Err(error) => {
            if matches!(error, ClientError::Refused { .. }) {
                forget(&storage).await?;
            }
            return Err(error);
        }
    }
    account.phase = Phase::Ready;
    account.strongbox = None;
    save(&storage, &account).await?;
    Ok(Client::start(config, endpoint, State::new(account, HashMap::new()), storage))
}

/// Seals the identity key under a password: this device keeps none of it.
async fn seal(
    config: &ClientConfig,
    endpoint: &Endpoint,
    account: &mut Account,
    password: &Password,
) -> Result<(), ClientError> {
    let place = password::Place {
        config: config.clone(),
        endpoint: endpoint.clone(),
        server_name: account.server_name.clone(),
        username: account.username.clone(),
        session_id: None,
    };
    let sealing = place.sealing(password).await?;
    let identity = account.identity.take().ok_or(ClientError::NoIdentityKey)?;
    let self_key = account.self_key.clone().unwrap_or_else(|| crate::crypto::self_key::of_identity(&identity));
    account.strongbox = Some(Opened::first(identity, self_key).seal(account.me.user_id, 1, &sealing)?);
    Ok(())
}

/// A new account, with keys of its own.
pub(super) fn fresh(new: &NewAccount, username: Username, info: ServerInfo) -> Account {
    let identity = IdentitySecret::generate();
    let (user_id, session_id) = (UserId::generate(), SessionId::generate());
    let me = Me::new(user_id, session_id, identity.public_key(), SessionSecrets::generate());
    let certificate = Certificate {
        user_id: me.user_id,
        place: Place::saturating(1),
        previous: chain_start(me.user_id),
        session_id: me.session_id,
        public_key: me.secrets.public_key(),
        signing_public_key: me.secrets.signing_public_key(),
        // The server's clock, since it judges the lifetime.
        created_at: info.time,
        expired_at: expiry(info.time, new.ttl.unwrap_or(SESSION_TTL)),
    };
    let mut certificate = SignedCertificate { certificate, signature: UNSIGNED };
    certificate.signature = identity.sign(&certificate.certificate.signed_bytes());
    Account {
        server_url: new.server.clone(),
        server_name: info.server_name,
        username,
        phase: Phase::Registering,
        me,
        identity: Some(identity),
        strongbox: None,
        self_key: Some(Secret::generate()),
        chain: Some((certificate.certificate.place, certificate.chain_hash())),
        certificate: Some(certificate),
        pins: std::collections::BTreeMap::new(),
        chain_heads: std::collections::BTreeMap::new(),
        profiles: std::collections::BTreeMap::new(),
        own_key: None,
        anchors: Vec::new(),
        left: std::collections::BTreeMap::new(),
        retired_keys: std::collections::BTreeMap::new(),
        removed: std::collections::BTreeMap::new(),
        seen_requests: SeenRequests::default(),
    }
}

/// Sends a request until its answer is definite or the network fails for good.
pub(super) async fn insist<B: serde::Serialize, T: serde::de::DeserializeOwned>(
    config: &ClientConfig,
    endpoint: &Endpoint,
    path: &str,
    body: &B,
) -> Result<T, ClientError> {
    let mut backoff = Backoff::default();
    let mut tries = 0;
    loop {
        let error = match http::post(&config.connector, endpoint, path, body, config.request_timeout).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        let may_help = match &error {
            ClientError::Refused { code, .. } => code.is_retryable(),
            ClientError::Network(_) => true,
            _ => false,
        };
        if !may_help || tries >= TRIES_MAX {
            return Err(error);
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// The account of a profile that is not ready; one that is ready is in the way.
pub(super) async fn found(storage: &Arc<dyn Storage>) -> Result<Option<Account>, ClientError> {
    let records = load(storage).await?;
    match persist::decode(&records) {
        Ok((account, _)) => match account.phase {
            Phase::Ready | Phase::Deleting => Err(ClientError::ProfileTaken),
            Phase::Deleted => Err(ClientError::AccountDeleted),
            Phase::Registering | Phase::Linking(_) | Phase::Certifying => Ok(Some(account)),
        },
        Err(ClientError::NotReady) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all records.
pub(crate) async fn load(
    storage: &Arc<dyn Storage>,
) -> Result<std::collections::BTreeMap<String, Vec<u8>>, ClientError> {
    let storage = Arc::clone(storage);
    let loaded = tokio::task::spawn_blocking(move || storage.load()).await;
    Ok(loaded.map_err(|error| ClientError::Profile(Box::new(error)))??)
}

pub(super) async fn save(storage: &Arc<dyn Storage>, account: &Account) -> Result<(), ClientError> {
    write(storage, persist::account_record(account)?).await
}

pub(super) async fn forget(storage: &Arc<dyn Storage>) -> Result<(), ClientError> {
    write(storage, persist::no_account_record()).await
}

async fn write(storage: &Arc<dyn Storage>, record: super::storage::Record) -> Result<(), ClientError> {
    let storage = Arc::clone(storage);
    let written = tokio::task::spawn_blocking(move || storage.write(&[record])).await;
    Ok(written.map_err(|error| ClientError::Profile(Box::new(error)))??)
}
