//! Makes this device a new session of an account by its password or recovery code, with no other device at hand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::account::{NewAccount, SESSION_TTL, found, save};
use super::backoff::Backoff;
use super::config::ClientConfig;
use super::engine::devices::expiry;
use super::engine::login::{self, LoginError};
use super::engine::state::{Shared, State, local_micros};
use super::error::{ClientError, UNSIGNED};
use super::friends::SeenRequests;
use super::handle::Client;
use super::keyring::{Account, Me, Phase};
use super::net::wire::{CallError, Wire};
use super::net::{Endpoint, http};
use super::password::{Place, Way};
use super::pending::{Hellos, connected};
use super::renew::Kept;
use super::storage::{Ephemeral, Storage};
use super::user_profile::OwnKey;
use crate::crypto::SessionSecrets;
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;
use crate::crypto::strongbox::Opened;
use crate::crypto::user_profile::open_own;
use crate::protocol::account::{INFO_PATH, ServerInfo};
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::certificate::{Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ApproveSession, Request, RevokeSession, SessionState};
use crate::protocol::group_key::{SignedWithdrawal, Withdrawal};
use crate::protocol::ids::{Place as ChainPlace, SessionId, Timestamp, UserKeyId};
use crate::protocol::password::{LoggedIn, NewSession};
use crate::protocol::username::Username;

/// How often the certificate is made again because another entry of the chain was faster.
const TRIES_MAX: u32 = 8;

/// Connections that may be lost before it is left to the next run.
pub(super) const CONNECTIONS_MAX: u32 = 4;

impl Client {
    /// Makes this device a session of an account by its password, with a profile that holds none. What was said before
    /// is opened by itself as soon as the chats have come, with nobody else online: see [`Client::recovered`]. With the
    /// profile of a session of this user whose time is over, or nearly, it renews that one: all that it could read it
    /// reads on.
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
        Box::pin(begin(config, account, Way::Password(password), None, storage)).await
    }

    /// As [`Client::log_in`]; ends another session of the account if there are as many as the server allows.
    ///
    /// # Errors
    /// As [`Client::log_in`].
    ///
    /// # Cancel safety
    /// As [`Client::log_in`]; the other session may have ended.
    pub async fn log_in_instead(
        config: ClientConfig,
        account: NewAccount,
        password: &Password,
        replaced: Option<SessionId>,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        Box::pin(begin(config, account, Way::Password(password), replaced, storage)).await
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
        Box::pin(begin(config, account, Way::Code(code), None, storage)).await
    }

    /// As [`Client::log_in_instead`], by the recovery code.
    ///
    /// # Errors
    /// As [`Client::log_in`].
    ///
    /// # Cancel safety
    /// As [`Client::log_in_instead`].
    pub async fn recover_instead(
        config: ClientConfig,
        account: NewAccount,
        code: &RecoveryCode,
        replaced: Option<SessionId>,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        Box::pin(begin(config, account, Way::Code(code), replaced, storage)).await
    }
}

async fn begin(
    config: ClientConfig,
    new: NewAccount,
    way: Way<'_>,
    mut replaced: Option<SessionId>,
    storage: Arc<dyn Storage>,
) -> Result<Client, ClientError> {
    let endpoint: Endpoint = new.server.parse()?;
    let username = Username::parse(&new.username)?;
    if let Some(kept) = Kept::of(&storage, &new, &username).await? {
        return kept.renew(config, new.ttl, way, storage).await;
    }
    let begun = found(&storage).await?.filter(|account| {
        matches!(account.phase, Phase::Certifying) && account.username == username && account.server_url == new.server
    });
    if let Some(mut account) = begun
        && let Some(certificate) = account.certificate.clone()
        && matches!(certify(&config, &endpoint, &account, certificate).await, Ok(Certified::Live))
    {
        account.phase = Phase::Ready;
        save(&storage, &account).await?;
        let client = Client::start(config, endpoint, State::new(account, HashMap::new()), storage);
        match client.open_and_renew(way).await {
            Ok(opened) => client.begin_recovery(opened),
            Err(error) => tracing::warn!(%error, "history is not recovered"),
        }
        return Ok(client);
    }
    let info: ServerInfo = http::get(&config.connector, &endpoint, INFO_PATH, config.connect_timeout).await?;
    let place = Place {
        config: config.clone(),
        endpoint: endpoint.clone(),
        server_name: info.server_name.clone(),
        username: username.clone(),
        session_id: None,
    };
    let (session_id, secrets) = (SessionId::generate(), SessionSecrets::generate());
    let session =
        NewSession { session_id, public_key: secrets.public_key(), signing_public_key: secrets.signing_public_key() };
    let (mut logged_in, mut opened) = place.log_in(way, Some(session)).await?;
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
                if let Err(error) = place.renew(way, &logged_in, &mut opened).await {
                    // The login is good; whoever opens the strongbox next makes the key.
                    tracing::warn!(%error, "no new user key is made now");
                }
                let client = Client::start(config, endpoint, State::new(account, HashMap::new()), storage);
                client.begin_recovery(opened);
                return Ok(client);
            }
            Certified::Conflict(newest) => (chain_place, hash) = newest,
            Certified::Withdraw(_) => return Err(ClientError::UnexpectedAnswer),
            Certified::Full(oldest) => {
                // Once: what the server says of the others then is no reason to end one more.
                let session_id = replaced.take().ok_or(ClientError::TooManySessions { oldest })?;
                let newest = (chain_place, hash);
                let room = make_room(&config, &endpoint, &account, &opened, session_id, newest).await?;
                (chain_place, hash) = room.newest;
                logged_in.is_withdrawn |= room.is_withdrawn;
            }
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
        me: Me::new(logged_in.user_id, session_id, logged_in.identity_key, secrets),
        // Opened for this alone; it stays sealed.
        identity: None,
        strongbox: None,
        self_key: Some(opened.self_key.clone()),
        certificate: None,
        chain: None,
        pins: BTreeMap::new(),
        chain_heads: BTreeMap::new(),
        profiles: BTreeMap::new(),
        own_key: own_key(logged_in, opened),
        anchors: Vec::new(),
        left: BTreeMap::new(),
        retired_keys: BTreeMap::new(),
        removed: BTreeMap::new(),
        seen_requests: SeenRequests::default(),
    }
}

/// The user's info key, opened while the user key is; whoever sealed it is checked when the user's chain is read.
fn own_key(logged_in: &LoggedIn, opened: &Opened) -> Option<OwnKey> {
    let wrap = logged_in.own_key.clone()?;
    let secret = open_own(&wrap, opened.user_keys.get(&wrap.user_key_id)?).ok()?;
    Some(OwnKey { wrap, secret })
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
    /// There are as many live sessions as allowed; this one was not seen for the longest.
    Full(SessionId),
    /// The session that is to end knows the sealed halves: this user key must be withdrawn with it.
    Withdraw(UserKeyId),
}

/// What is left of another session that had to end.
#[derive(Debug)]
struct Room {
    /// The newest entry of the chain.
    newest: (ChainPlace, Hash),
    /// The active user key was withdrawn with it.
    is_withdrawn: bool,
}

/// Ends another session by the identity key, and the user key with one that knows it.
async fn make_room(
    config: &ClientConfig,
    endpoint: &Endpoint,
    account: &Account,
    opened: &Opened,
    session_id: SessionId,
    (mut place, mut previous): (ChainPlace, Hash),
) -> Result<Room, ClientError> {
    let mut withdrawal = None;
    for _ in 0..TRIES_MAX {
        let revocation = Revocation {
            user_id: account.me.user_id,
            place: place.next(),
            previous,
            session_id,
            revoker: Revoker::Identity,
            created_at: local_now(),
        };
        let mut signed = SignedRevocation { revocation, signature: UNSIGNED };
        signed.signature = opened.identity.sign(&signed.revocation.signed_bytes());
        let newest = (signed.revocation.place, signed.chain_hash());
        let request = Request::RevokeSession(RevokeSession { revocation: signed, withdrawal });
        match insist_on(config, endpoint, account, &request).await? {
            Certified::Live => return Ok(Room { newest, is_withdrawn: withdrawal.is_some() }),
            Certified::Conflict(newest) => (place, previous) = newest,
            Certified::Withdraw(key_id) => withdrawal = Some(withdraw(account, opened, key_id)),
            Certified::Full(oldest) => return Err(ClientError::TooManySessions { oldest }),
        }
    }
    Err(ClientError::Conflict)
}

/// Ends a user key by the identity key.
fn withdraw(account: &Account, opened: &Opened, key_id: UserKeyId) -> SignedWithdrawal {
    let (user_id, revoker) = (account.me.user_id, Revoker::Identity);
    let withdrawal = Withdrawal { user_id, key_id, revoker, created_at: local_now() };
    SignedWithdrawal { withdrawal, signature: opened.identity.sign(&withdrawal.signed_bytes()) }
}

/// This machine's clock: the time of a revocation is its maker's.
fn local_now() -> Timestamp {
    Timestamp::saturating(local_micros())
}

/// Has the pending session certified by its own request, over as many connections as it takes.
async fn certify(
    config: &ClientConfig,
    endpoint: &Endpoint,
    account: &Account,
    certificate: SignedCertificate,
) -> Result<Certified, ClientError> {
    let request = Request::ApproveSession(ApproveSession {
        certificate,
        handover: Blob::default(),
        renewal: None,
        backups: Vec::new(),
    });
    insist_on(config, endpoint, account, &request).await
}

/// Asks as a session that is pending until there is an answer, over as many connections as it takes.
async fn insist_on(
    config: &ClientConfig,
    endpoint: &Endpoint,
    account: &Account,
    request: &Request,
) -> Result<Certified, ClientError> {
    let state = State::new(account.clone(), HashMap::new());
    let shared = Shared::new(config.clone(), endpoint.clone(), state, Arc::new(Ephemeral));
    let mut backoff = Backoff::default();
    let mut lost = 0;
    loop {
        match connected(&shared, async |wire, hellos| ask(&shared, wire, hellos, request).await).await {
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
    request: &Request,
) -> Result<Result<Certified, ClientError>, LoginError> {
    let answer = login::authenticate(shared, wire, hellos.hello).await?;
    // The answer to the request of before was lost.
    if answer.state == SessionState::Live {
        return Ok(Ok(Certified::Live));
    }
    match wire.request(request.clone(), shared.config.request_timeout).await {
        Ok(_) => Ok(Ok(Certified::Live)),
        Err(CallError::Lost) => Err(LoginError::Lost),
        Err(CallError::Refused(refused)) => {
            let newest = (refused.details.place, refused.details.hash);
            let oldest = refused.details.sessions.first().copied();
            Ok(match (refused.code, newest, oldest) {
                (ErrorCode::EventConflict, (Some(place), Some(hash)), _) => Ok(Certified::Conflict((place, hash))),
                (ErrorCode::LimitReached, _, Some(oldest)) => Ok(Certified::Full(oldest)),
                (ErrorCode::WithdrawalMissing, ..) if let Some(key_id) = refused.details.user_key_id => {
                    Ok(Certified::Withdraw(key_id))
                }
                (ErrorCode::StorageUnavailable | ErrorCode::Internal | ErrorCode::RateLimited, ..) => {
                    return Err(LoginError::Lost);
                }
                _ => Err(refused.into()),
            })
        }
    }
}
