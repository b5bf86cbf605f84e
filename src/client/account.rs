//! Begins an account on this device: by registering it, or by linking a new session to one that is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::backoff::Backoff;
use super::config::ClientConfig;
use super::engine::call::expect_reply;
use super::engine::devices::expiry;
use super::engine::login::{self, LoginError};
use super::engine::persist;
use super::engine::state::{Progress, Shared, State};
use super::error::{ClientError, CloseReason, UNSIGNED};
use super::handle::Client;
use super::keyring::{Account, HandoverContent, Me, Phase};
use super::net::wire::{CallError, Wire};
use super::net::{Endpoint, http, socket};
use super::storage::{Ephemeral, Storage};
use crate::crypto::link_code::LinkCode;
use crate::crypto::{IdentitySecret, SessionSecrets, handover};
use crate::protocol::account::{
    ACCOUNTS_PATH, FoundUser, INFO_PATH, LINKS_PATH, Link, Linked, Register, Registered, ServerInfo, USERS_PATH,
};
use crate::protocol::binary::IdentityKey;
use crate::protocol::certificate::{Certificate, SignedCertificate, chain_start};
use crate::protocol::frame::{Handover, Nothing, Reply, Request, ServerFrame, SessionState};
use crate::protocol::ids::{Place, SessionId, UserId};
use crate::protocol::username::Username;

/// How long a session lives unless said otherwise. Without a password an account ends with its last session,
/// so this is long.
pub const SESSION_TTL: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Tries of a request whose outcome is unknown, before it is left to the next run.
const TRIES_MAX: u32 = 4;

/// How long a pending session's connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(90);

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
            let account = fresh(&new, username, info);
            save(&storage, &account).await?;
            account
        }
    };
    let request = Register {
        user_id: account.me.user_id,
        username: account.username.as_str().to_owned(),
        identity_key: account.me.identity_key,
        certificate: account.certificate.clone().ok_or(ClientError::NotReady)?,
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
    save(&storage, &account).await?;
    Ok(Client::start(config, endpoint, State::new(account, HashMap::new()), storage))
}

fn fresh(new: &NewAccount, username: Username, info: ServerInfo) -> Account {
    let identity = IdentitySecret::generate();
    let me = Me {
        user_id: UserId::generate(),
        session_id: SessionId::generate(),
        identity_key: identity.public_key(),
        secrets: SessionSecrets::generate(),
    };
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
        chain: Some((certificate.certificate.place, certificate.chain_hash())),
        certificate: Some(certificate),
        pins: std::collections::BTreeMap::new(),
        anchors: Vec::new(),
    }
}

/// A session that waits for another one of the same user to approve it.
#[derive(Debug)]
pub struct PendingLink {
    config: ClientConfig,
    endpoint: Endpoint,
    account: Account,
    code: LinkCode,
    storage: Arc<dyn Storage>,
}

impl PendingLink {
    /// Asks for a new session of a user, or goes on with the one that this profile asked for before.
    ///
    /// # Errors
    /// [`ClientError::ProfileTaken`], an address or name that is none, the server's refusals.
    pub async fn begin(config: ClientConfig, new: NewAccount, storage: Arc<dyn Storage>) -> Result<Self, ClientError> {
        let endpoint: Endpoint = new.server.parse()?;
        let username = Username::parse(&new.username)?;
        if let Some(account) = found(&storage).await?
            && let Phase::Linking(code) = account.phase.clone()
            && account.username == username
            && account.server_url == new.server
        {
            return Ok(Self { config, endpoint, account, code, storage });
        }
        let timeout = config.connect_timeout;
        let info: ServerInfo = http::get(&config.connector, &endpoint, INFO_PATH, timeout).await?;
        let path = format!("{USERS_PATH}/{username}");
        let user: FoundUser = http::get(&config.connector, &endpoint, &path, timeout).await?;
        let (code, secrets) = (LinkCode::generate(), SessionSecrets::generate());
        let me = Me {
            user_id: user.user_id,
            session_id: SessionId::generate(),
            // Known when the hand-over has been opened.
            identity_key: IdentityKey([0; IdentityKey::LENGTH]),
            secrets,
        };
        let (exchange, signing) = (me.secrets.public_key(), me.secrets.signing_public_key());
        let request = Link {
            user_id: me.user_id,
            session_id: me.session_id,
            public_key: exchange,
            signing_public_key: signing,
            proof: code.proof(me.user_id, me.session_id, &exchange, &signing),
        };
        let account = Account {
            server_url: new.server,
            server_name: info.server_name,
            username,
            phase: Phase::Linking(code.clone()),
            me,
            identity: None,
            certificate: None,
            chain: None,
            pins: std::collections::BTreeMap::new(),
            anchors: Vec::new(),
        };
        let _: Linked = insist(&config, &endpoint, LINKS_PATH, &request).await?;
        save(&storage, &account).await?;
        Ok(Self { config, endpoint, account, code, storage })
    }

    /// The code that the user gives to the session that approves.
    #[must_use]
    pub fn code(&self) -> String {
        self.code.to_text()
    }

    /// Waits for the approval, however often the connection is lost, and begins as that session.
    ///
    /// # Errors
    /// [`ClientError::Handover`] if what was handed over is not what the code's other side made;
    /// [`ClientError::Closed`] if the server forgot the request.
    ///
    /// # Cancel safety
    /// The request stays; beginning again with the same profile goes on with it.
    pub async fn wait(mut self) -> Result<Client, ClientError> {
        let state = State::new(self.account.clone(), HashMap::new());
        let shared = Arc::new(Shared::new(self.config.clone(), self.endpoint.clone(), state, Arc::new(Ephemeral)));
        let mut backoff = Backoff::default();
        let handover = loop {
            match wait_once(&shared).await {
                Ok(handover) => break handover,
                Err(LoginError::Lost) => tokio::time::sleep(backoff.next()).await,
                Err(LoginError::Closed(reason)) => {
                    if matches!(reason, CloseReason::Login(_)) {
                        forget(&self.storage).await?;
                    }
                    return Err(ClientError::Closed(reason));
                }
            }
        };
        take_handover(&mut self.account, &self.code, &handover)?;
        save(&self.storage, &self.account).await?;
        let state = State::new(self.account, HashMap::new());
        Ok(Client::start(self.config, self.endpoint, state, self.storage))
    }
}

/// One connection of a pending session, until it is approved.
async fn wait_once(shared: &Shared) -> Result<Handover, LoginError> {
    let config = &shared.config;
    let opened = socket::open(&config.connector, &shared.endpoint, config.encoding, config.connect_timeout).await;
    let (writer, mut reader) = opened.map_err(|error| {
        tracing::debug!(%error, "no connection");
        LoginError::Lost
    })?;
    let (wire, outgoing) = Wire::new(1);
    shared.lock().progress = Progress::default();
    let approved = Notify::new();
    let (greet, hello) = oneshot::channel();
    let receive = async {
        let mut greet = Some(greet);
        loop {
            match socket::read(&mut reader, config.encoding, SILENCE_MAX).await {
                Ok(ServerFrame::Hello(hello)) => {
                    if let Some(greet) = greet.take() {
                        let _ = greet.send(hello);
                    }
                }
                Ok(ServerFrame::Ok(ok)) => wire.done(ok.id, ok.result),
                Ok(ServerFrame::Error(error)) => wire.refused(error),
                Ok(ServerFrame::Approved(_)) => approved.notify_one(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    let ask = async {
        let answer = login::authenticate(shared, &wire, hello).await?;
        match answer.state {
            SessionState::Pending => approved.notified().await,
            SessionState::Live => {}
            SessionState::Expired | SessionState::Revoked => {
                return Err(LoginError::Closed(CloseReason::Login(crate::protocol::error::ErrorCode::SessionRevoked)));
            }
        }
        let reply = wire.request(Request::FetchHandover(Nothing {}), config.request_timeout).await;
        let reply = reply.map_err(|error| match error {
            CallError::Lost => LoginError::Lost,
            refused @ CallError::Refused(_) => refused.into(),
        })?;
        expect_reply!(reply, Handover).map_err(|_: ClientError| LoginError::Lost)
    };
    tokio::select! {
        handover = ask => handover,
        () = receive => Err(LoginError::Lost),
        _ = socket::write(writer, outgoing, config.encoding) => Err(LoginError::Lost),
        () = wire.wait_cut() => Err(LoginError::Lost),
    }
}

/// Opens a hand-over and makes the account ready, if everything in it fits.
fn take_handover(account: &mut Account, code: &LinkCode, handed: &Handover) -> Result<(), ClientError> {
    let me = &account.me;
    let recipient = (me.session_id, &me.secrets);
    let (_, content) =
        handover::open(code, me.user_id, recipient, &handed.handover).map_err(|_| ClientError::Handover)?;
    let content = zeroize::Zeroizing::new(content);
    let content: HandoverContent = rmp_serde::from_slice(&content).map_err(|_| ClientError::Handover)?;
    let certificate = &handed.certificate.certificate;
    let identity_key = content.identity.public_key();
    let is_ours = certificate.user_id == me.user_id
        && certificate.session_id == me.session_id
        && certificate.public_key == me.secrets.public_key()
        && certificate.signing_public_key == me.secrets.signing_public_key()
        && handed.certificate.verify(&identity_key).is_ok()
        && content.server_name == account.server_name
        && content.place == certificate.place
        && content.hash == handed.certificate.chain_hash();
    if !is_ours {
        return Err(ClientError::Handover);
    }
    account.me.identity_key = identity_key;
    account.identity = Some(content.identity);
    account.certificate = Some(handed.certificate.clone());
    account.chain = Some((content.place, content.hash));
    account.anchors = content.anchors;
    account.pins = content.pins;
    account.phase = Phase::Ready;
    Ok(())
}

/// Sends a request until its answer is definite or the network fails for good.
async fn insist<B: serde::Serialize, T: serde::de::DeserializeOwned>(
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
async fn found(storage: &Arc<dyn Storage>) -> Result<Option<Account>, ClientError> {
    let records = load(storage).await?;
    match persist::decode(&records) {
        Ok((account, _)) if matches!(account.phase, Phase::Ready) => Err(ClientError::ProfileTaken),
        Ok((account, _)) => Ok(Some(account)),
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

async fn save(storage: &Arc<dyn Storage>, account: &Account) -> Result<(), ClientError> {
    write(storage, persist::account_record(account)?).await
}

async fn forget(storage: &Arc<dyn Storage>) -> Result<(), ClientError> {
    write(storage, persist::no_account_record()).await
}

async fn write(storage: &Arc<dyn Storage>, record: super::storage::Record) -> Result<(), ClientError> {
    let storage = Arc::clone(storage);
    let written = tokio::task::spawn_blocking(move || storage.write(&[record])).await;
    Ok(written.map_err(|error| ClientError::Profile(Box::new(error)))??)
}
