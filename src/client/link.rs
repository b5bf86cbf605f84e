//! Links this device as a new session to an account that is there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::account::{NewAccount, forget, found, insist, save};
use super::backoff::Backoff;
use super::config::ClientConfig;
use super::engine::call::expect_reply;
use super::engine::login::{self, LoginError};
use super::engine::state::{Shared, State};
use super::error::{ClientError, CloseReason};
use super::friends::SeenRequests;
use super::handle::Client;
use super::keyring::{Account, HandoverContent, Me, Phase};
use super::net::wire::CallError;
use super::net::{Endpoint, http};
use super::pending::connected;
use super::storage::{Ephemeral, Storage};
use crate::crypto::link_code::LinkCode;
use crate::crypto::{SessionSecrets, handover};
use crate::protocol::account::{FoundUser, INFO_PATH, LINKS_PATH, Link, Linked, ServerInfo, USERS_PATH};
use crate::protocol::binary::IdentityKey;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{Handover, Nothing, Reply, Request, SessionState};
use crate::protocol::ids::SessionId;
use crate::protocol::username::Username;

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
        // The identity key is known when the hand-over has been opened.
        let unknown = IdentityKey([0; IdentityKey::LENGTH]);
        let me = Me::new(user.user_id, SessionId::generate(), unknown, secrets);
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
            strongbox: None,
            self_key: None,
            certificate: None,
            chain: None,
            pins: BTreeMap::new(),
            chain_heads: BTreeMap::new(),
            profiles: BTreeMap::new(),
            own_key: None,
            anchors: Vec::new(),
            left: BTreeMap::new(),
            retired_keys: BTreeMap::new(),
            removed: BTreeMap::new(),
            seen_requests: SeenRequests::default(),
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

    /// Whose session it is to become.
    #[must_use]
    pub fn username(&self) -> Username {
        self.account.username.clone()
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
    connected(shared, async |wire, hellos| {
        let answer = login::authenticate(shared, wire, hellos.hello).await?;
        match answer.state {
            SessionState::Pending => hellos.approved.notified().await,
            SessionState::Live => {}
            SessionState::Expired | SessionState::Revoked => {
                return Err(LoginError::Closed(CloseReason::Login(ErrorCode::SessionRevoked)));
            }
        }
        let reply = wire.request(Request::FetchHandover(Nothing {}), shared.config.request_timeout).await;
        let reply = reply.map_err(|error| match error {
            CallError::Lost => LoginError::Lost,
            refused @ CallError::Refused(_) => refused.into(),
        })?;
        expect_reply!(reply, Handover).map_err(|_: ClientError| LoginError::Lost)
    })
    .await
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
    let held = content.identity.as_ref().map(crate::crypto::IdentitySecret::public_key);
    let identity_key = held.or(content.identity_key).ok_or(ClientError::Handover)?;
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
    account.identity = content.identity;
    account.certificate = Some(handed.certificate.clone());
    account.chain = Some((content.place, content.hash));
    account.anchors = content.anchors;
    account.pins = content.pins;
    account.chain_heads = content.chain_heads;
    account.self_key = content.self_key;
    account.complete();
    account.phase = Phase::Ready;
    Ok(())
}
