//! Makes this device a new session of an account by its password or recovery code, with no other device at hand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::account::{NewAccount, SESSION_TTL, found, save};
use super::backoff::Backoff;
use super::config::ClientConfig;
use super::engine::devices::expiry;
use super::engine::login::{self, LoginError};
use super::engine::state::{Shared, State};
use super::error::{ClientError, UNSIGNED};
use super::handle::Client;
use super::keyring::{Account, Me, Phase};
use super::net::wire::{CallError, Wire};
use super::net::{Endpoint, http};
use super::password::{Place, Way};
use super::pending::{Hellos, connected};
use super::storage::{Ephemeral, Storage};
use crate::crypto::SessionSecrets;
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;
use crate::crypto::strongbox::Opened;
use crate::protocol::account::{INFO_PATH, ServerInfo};
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::certificate::{Certificate, SignedCertificate};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ApproveSession, Request, SessionState};
use crate::protocol::ids::{Place as ChainPlace, SessionId, Timestamp};
use crate::protocol::password::{LoggedIn, NewSession};
use crate::protocol::username::Username;

/// How often the certificate is made again because another entry of the chain was faster.
const TRIES_MAX: u32 = 8;

/// Connections that may be lost before it is left to the next run.
const CONNECTIONS_MAX: u32 = 4;

impl Client {
    /// Makes this device a session of an account by its password, with a profile that holds none.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`], [`ClientError::ProfileTaken`], an address or name that is none, the server's
    /// refusals, the network. After a network error the same call with the same profile ends what was begun.
    ///
    /// # Cancel safety
    /// As after a network error.
    pub async fn log_in(
        config: ClientConfig,
        account: NewAccount,
        password: &Password,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        begin(config, account, Way::Password(password), storage).await
    }

    /// Makes this device a session of an account by its recovery code.
    ///
    /// # Errors
    /// As [`Client::log_in`].
    ///
    /// # Cancel safety
    /// As [`Client::log_in`].
    pub async fn recover(
        config: ClientConfig,
        account: NewAccount,
        code: &RecoveryCode,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        begin(config, account, Way::Code(code), storage).await
    }
}

async fn begin(
    config: ClientConfig,
    new: NewAccount,
    way: Way<'_>,
    storage: Arc<dyn Storage>,
) -> Result<Client, ClientError> {
    let endpoint: Endpoint = new.server.parse()?;
    let username = Username::parse(&new.username)?;
    let begun = found(&storage).await?.filter(|account| {
        matches!(account.phase, Phase::Certifying) && account.username == username && account.server_url == new.server
    });
    if let Some(mut account) = begun
        && let Some(certificate) = account.certificate.clone()
        && matches!(certify(&config, &endpoint, &account, certificate).await, Ok(Certified::Live))
    {
        account.phase = Phase::Ready;
        save(&storage, &account).await?;
        return Ok(Client::start(config, endpoint, State::new(account, HashMap::new()), storage));
    }
    let info: ServerInfo = http::get(&config.connector, &endpoint, INFO_PATH, config.connect_timeout).await?;
    let place = Place {
        config: config.clone(),
        endpoint: endpoint.clone(),
        server_name: info.server_name.clone(),
        username: username.clone(),
    };
    let (session_id, secrets) = (SessionId::generate(), SessionSecrets::generate());
    let session =
        NewSession { session_id, public_key: secrets.public_key(), signing_public_key: secrets.signing_public_key() };
    let (logged_in, opened) = place.log_in(way, Some(session)).await?;
    let mut account = account_of(&new, username, &info, &logged_in, &opened, (session_id, secrets));
    let (mut chain_place, mut hash) = (logged_in.place, logged_in.hash);
    for _ in 0..TRIES_MAX {
        let certificate = certificate(&account, &opened, (chain_place, hash), info.time, &new);
        account.chain = Some((certificate.certificate.place, certificate.chain_hash()));
        account.certificate = Some(certificate.clone());
        save(&storage, &account).await?;
        match certify(&config, &endpoint, &account, certificate).await? {
            Certified::Live => {
                account.phase = Phase::Ready;
                save(&storage, &account).await?;
                return Ok(Client::start(config, endpoint, State::new(account, HashMap::new()), storage));
            }
            Certified::Conflict(newest) => (chain_place, hash) = newest,
        }
    }
    Err(ClientError::Conflict)
}

fn account_of(
    new: &NewAccount,
    username: Username,
    info: &ServerInfo,
    logged_in: &LoggedIn,
    opened: &Opened,
    (session_id, secrets): (SessionId, SessionSecrets),
) -> Account {
    Account {
        server_url: new.server.clone(),
        server_name: info.server_name.clone(),
        username,
        phase: Phase::Certifying,
        me: Me { user_id: logged_in.user_id, session_id, identity_key: logged_in.identity_key, secrets },
        // Opened for this alone; it stays sealed.
        identity: None,
        strongbox: None,
        self_key: Some(opened.self_key.clone()),
        certificate: None,
        chain: None,
        pins: BTreeMap::new(),
        chain_heads: BTreeMap::new(),
        anchors: Vec::new(),
        left: BTreeMap::new(),
    }
}

fn certificate(
    account: &Account,
    opened: &Opened,
    (place, hash): (ChainPlace, Hash),
    now: Timestamp,
    new: &NewAccount,
) -> SignedCertificate {
    let me = &account.me;
    let certificate = Certificate {
        user_id: me.user_id,
        place: place.next(),
        previous: hash,
        session_id: me.session_id,
        public_key: me.secrets.public_key(),
        signing_public_key: me.secrets.signing_public_key(),
        created_at: now,
        expired_at: expiry(now, new.ttl.unwrap_or(SESSION_TTL)),
    };
    let mut signed = SignedCertificate { certificate, signature: UNSIGNED };
    signed.signature = opened.identity.sign(&signed.certificate.signed_bytes());
    signed
}

/// What became of a certificate.
#[derive(Debug)]
enum Certified {
    /// The session is live.
    Live,
    /// Another entry of the chain came first; this one is the newest.
    Conflict((ChainPlace, Hash)),
}

/// Has the pending session certified by its own request, over as many connections as it takes.
async fn certify(
    config: &ClientConfig,
    endpoint: &Endpoint,
    account: &Account,
    certificate: SignedCertificate,
) -> Result<Certified, ClientError> {
    let state = State::new(account.clone(), HashMap::new());
    let shared = Shared::new(config.clone(), endpoint.clone(), state, Arc::new(Ephemeral));
    let request = ApproveSession { certificate, handover: Blob::default() };
    let mut backoff = Backoff::default();
    let mut lost = 0;
    loop {
        match connected(&shared, async |wire, hellos| ask(&shared, wire, hellos, &request).await).await {
            Ok(result) => return result,
            Err(LoginError::Closed(reason)) => return Err(ClientError::Closed(reason)),
            Err(LoginError::Lost) => {
                lost += 1;
                if lost >= CONNECTIONS_MAX {
                    return Err(super::net::NetworkError::Timeout.into());
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn ask(
    shared: &Shared,
    wire: &Wire,
    hellos: Hellos<'_>,
    request: &ApproveSession,
) -> Result<Result<Certified, ClientError>, LoginError> {
    let answer = login::authenticate(shared, wire, hellos.hello).await?;
    // The answer to the request of before was lost.
    if answer.state == SessionState::Live {
        return Ok(Ok(Certified::Live));
    }
    match wire.request(Request::ApproveSession(request.clone()), shared.config.request_timeout).await {
        Ok(_) => Ok(Ok(Certified::Live)),
        Err(CallError::Lost) => Err(LoginError::Lost),
        Err(CallError::Refused(refused)) => {
            let newest = (refused.details.place, refused.details.hash);
            Ok(match (refused.code, newest) {
                (ErrorCode::EventConflict, (Some(place), Some(hash))) => Ok(Certified::Conflict((place, hash))),
                (ErrorCode::StorageUnavailable | ErrorCode::Internal | ErrorCode::RateLimited, _) => {
                    return Err(LoginError::Lost);
                }
                _ => Err(refused.into()),
            })
        }
    }
}
