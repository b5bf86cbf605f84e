//! Passwords and recovery codes: what is asked of the server, and what is opened with the answer.

use std::sync::Arc;

use super::account::insist;
use super::config::ClientConfig;
use super::engine::call::spawn;
use super::engine::generation_links;
use super::engine::renewal;
use super::engine::state::Shared;
use super::error::ClientError;
use super::handle::Client;
use super::net::{Endpoint, http};
use crate::crypto::opaque::{Login, NewPassword, Parties, Password};
use crate::crypto::recovery_code::RecoveryCode;
use crate::crypto::strongbox::{self, Opened, Sealing};
use crate::protocol::error::ErrorCode;
use crate::protocol::ids::{SessionId, UserId};
use crate::protocol::password::{
    BeginLogin, BeginPassword, BeginRecovery, FinishLogin, FinishRecovery, LOGINS_FINISH_PATH, LOGINS_PATH, LoggedIn,
    LoginBegun, NewSession, PASSWORDS_PATH, PasswordBegun, RECOVERIES_FINISH_PATH, RECOVERIES_PATH, RecoveryBegun,
    ReplaceStrongbox, STRONGBOXES_PATH, StrongboxReplaced, recovery_login_bytes,
};
use crate::protocol::strongbox::{Stretching, StrongboxUpload};
use crate::protocol::username::Username;

/// Where a user is, and who it is there.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) config: ClientConfig,
    pub(super) endpoint: Endpoint,
    pub(super) server_name: String,
    pub(super) username: Username,
    /// The session that asks, if there is one already.
    pub(super) session_id: Option<SessionId>,
}

/// By what a user logs in without a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    Password(&'a Password),
    Code(&'a RecoveryCode),
}

impl Place {
    pub(super) fn of(shared: &Shared) -> Self {
        let account = &shared.lock().account;
        Self {
            config: shared.config.clone(),
            endpoint: shared.endpoint.clone(),
            server_name: account.server_name.clone(),
            username: account.username.clone(),
            session_id: Some(account.me.session_id),
        }
    }

    /// Logs in, and opens what the password or the code protects. Nothing of it is kept.
    pub(super) async fn log_in(
        &self,
        way: Way<'_>,
        session: Option<NewSession>,
    ) -> Result<(LoggedIn, Opened), ClientError> {
        let (logged_in, opened) = match way {
            Way::Password(password) => self.by_password(password, session).await?,
            Way::Code(code) => self.by_code(code, session).await?,
        };
        // The server names both; what was opened says which is right.
        if opened.identity.public_key() != logged_in.identity_key {
            return Err(ClientError::Strongbox);
        }
        Ok((logged_in, opened))
    }

    async fn by_password(
        &self,
        password: &Password,
        session: Option<NewSession>,
    ) -> Result<(LoggedIn, Opened), ClientError> {
        let (login, message) = Login::begin(password).map_err(|_| ClientError::LoginFailed)?;
        let begin = BeginLogin { username: self.username.as_str().to_owned(), message };
        let begun: LoginBegun = self.post(LOGINS_PATH, &begin).await?;
        if !begun.stretching.is_sound() {
            return Err(ClientError::Strongbox);
        }
        let (place, password) = (self.clone(), password.clone());
        let finished = tokio::task::spawn_blocking(move || {
            login.finish(&password, place.parties(), begun.stretching, &begun.message)
        });
        let finished = finished.await.map_err(|error| ClientError::Profile(Box::new(error)))?;
        let (message, key) = finished.map_err(|_| ClientError::LoginFailed)?;
        let finish = FinishLogin { login_id: begun.login_id, message, session, for_session: self.session_id };
        let logged_in: LoggedIn = self.post(LOGINS_FINISH_PATH, &finish).await?;
        let opened =
            strongbox::open(&logged_in.strongbox, logged_in.user_id, &key).map_err(|_| ClientError::Strongbox)?;
        Ok((logged_in, opened))
    }

    async fn by_code(
        &self,
        code: &RecoveryCode,
        session: Option<NewSession>,
    ) -> Result<(LoggedIn, Opened), ClientError> {
        let begin = BeginRecovery { username: self.username.as_str().to_owned() };
        let begun: RecoveryBegun = self.post(RECOVERIES_PATH, &begin).await?;
        let keys = code.keys();
        let signature = keys.sign(&recovery_login_bytes(&begun.nonce, &self.server_name, session.as_ref()));
        let finish = FinishRecovery { login_id: begun.login_id, signature, session, for_session: self.session_id };
        let logged_in: LoggedIn = self.post(RECOVERIES_FINISH_PATH, &finish).await?;
        let opened =
            strongbox::recover(&logged_in.strongbox, logged_in.user_id, &keys).map_err(|_| ClientError::Strongbox)?;
        Ok((logged_in, opened))
    }

    /// Makes a new user key if the active one was withdrawn, and the strongbox anew with it. A recovery code cannot seal
    /// under the password: whoever came in by it makes the key with the new password.
    pub(super) async fn renew(
        &self,
        way: Way<'_>,
        logged_in: &LoggedIn,
        opened: &mut Opened,
    ) -> Result<(), ClientError> {
        let Way::Password(password) = way else { return Ok(()) };
        if !logged_in.is_withdrawn {
            return Ok(());
        }
        let mut renewed = opened.clone();
        renewed.renew();
        let sealing = self.sealing(password).await?;
        let upload = renewed.seal(logged_in.user_id, logged_in.strongbox.version + 1, &sealing)?;
        self.replace(logged_in.user_id, upload).await?;
        *opened = renewed;
        Ok(())
    }

    /// Makes a new password known to nobody but this client, and gives what seals under it.
    pub(super) async fn sealing(&self, password: &Password) -> Result<Sealing, ClientError> {
        let (new, message) = NewPassword::begin(password).map_err(|_| ClientError::Strongbox)?;
        let begin = BeginPassword { username: self.username.as_str().to_owned(), message };
        let begun: PasswordBegun = insist(&self.config, &self.endpoint, PASSWORDS_PATH, &begin).await?;
        let (place, password, stretching) = (self.clone(), password.clone(), Stretching::DEFAULT);
        let credential_id = begun.credential_id;
        let finished =
            tokio::task::spawn_blocking(move || new.finish(&password, place.parties(), stretching, &begun.message));
        let finished = finished.await.map_err(|error| ClientError::Profile(Box::new(error)))?;
        let (record, key) = finished.map_err(|_| ClientError::Strongbox)?;
        Ok(Sealing { key, credential_id, record, stretching })
    }

    fn parties(&self) -> Parties<'_> {
        Parties { username: &self.username, server_name: &self.server_name }
    }

    pub(super) async fn replace(&self, user_id: UserId, upload: StrongboxUpload) -> Result<(), ClientError> {
        let request = ReplaceStrongbox { user_id, upload };
        let _: StrongboxReplaced = insist(&self.config, &self.endpoint, STRONGBOXES_PATH, &request).await?;
        Ok(())
    }

    /// Asks once: a login is not repeated, since each begun is a try that counts.
    async fn post<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let answer = http::post(&self.config.connector, &self.endpoint, path, body, self.config.request_timeout).await;
        answer.map_err(|error| match error {
            ClientError::Refused { code: ErrorCode::LoginFailed, .. } => ClientError::LoginFailed,
            error => error,
        })
    }
}

/// The identity key, open for as long as this lives.
#[derive(Debug)]
pub struct Unlocked(Arc<Shared>);

impl Drop for Unlocked {
    fn drop(&mut self) {
        self.0.lock().unlocked = None;
    }
}

impl Client {
    /// Opens the identity key with the password, for what it alone may do: to approve a session, to end the account.
    /// It stays in memory until the guard is dropped, and is written nowhere. A session in the last third of its life is
    /// renewed on the way.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`], the server's refusals, the network.
    ///
    /// # Cancel safety
    /// Nothing is open; a try is counted.
    pub async fn unlock(&self, password: &Password) -> Result<Unlocked, ClientError> {
        let opened = self.open_and_renew(Way::Password(password)).await?;
        let shared = Arc::clone(self.shared());
        shared.lock().unlocked = Some(opened.identity.clone());
        let tended = Arc::clone(&shared);
        spawn(&shared, async move { generation_links::tend(&tended, &opened).await });
        let unlocked = Unlocked(shared);
        renewal::renew_if_due(&unlocked.0).await;
        Ok(unlocked)
    }

    /// Whether this device holds the identity key itself: so it is with an account without a password.
    #[must_use]
    pub fn holds_identity(&self) -> bool {
        self.shared().lock().account.identity.is_some()
    }

    /// Replaces the password. All that it protects is sealed anew; what was sealed under the old one is gone.
    ///
    /// Without an old one the account gets its first password, and this device gives its identity key away: from then
    /// on it is opened with the password. The account's other devices keep theirs.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`], [`ClientError::NoIdentityKey`] without an old password, the server's refusals;
    /// the old password holds.
    ///
    /// # Cancel safety
    /// The new password may hold.
    pub async fn change_password(&self, old: Option<&Password>, new: &Password) -> Result<(), ClientError> {
        let Some(old) = old else { return self.first_password(new).await };
        let (logged_in, opened) = self.open_strongbox(Way::Password(old)).await?;
        self.reseal(&logged_in, &opened, new).await
    }

    /// Replaces a password that is forgotten, by the recovery code, which stays good.
    ///
    /// # Errors
    /// As [`Client::change_password`].
    ///
    /// # Cancel safety
    /// The new password may hold.
    pub async fn reset_password(&self, code: &RecoveryCode, new: &Password) -> Result<(), ClientError> {
        let (logged_in, opened) = self.open_strongbox(Way::Code(code)).await?;
        self.reseal(&logged_in, &opened, new).await
    }

    /// Makes a new recovery code; the one before is good for nothing any more.
    ///
    /// # Errors
    /// As [`Client::change_password`]; the code before holds.
    ///
    /// # Cancel safety
    /// The code before may be good for nothing.
    pub async fn make_recovery_code(&self, password: &Password) -> Result<RecoveryCode, ClientError> {
        let (logged_in, mut opened) = self.open_strongbox(Way::Password(password)).await?;
        let code = RecoveryCode::generate();
        let keys = code.keys();
        opened.recovery = Some((keys.public_key(), keys.signing_public_key()));
        self.reseal(&logged_in, &opened, password).await?;
        Ok(code)
    }

    pub(super) async fn open_strongbox(&self, way: Way<'_>) -> Result<(LoggedIn, Opened), ClientError> {
        let (logged_in, opened) = Place::of(self.shared()).log_in(way, None).await?;
        let me = self.shared().lock().account.me.clone();
        if logged_in.user_id != me.user_id || logged_in.identity_key != me.identity_key {
            return Err(ClientError::Strongbox);
        }
        Ok((logged_in, opened))
    }

    /// Opens the strongbox, and makes a new user key if the active one was withdrawn.
    pub(super) async fn open_and_renew(&self, way: Way<'_>) -> Result<Opened, ClientError> {
        let (logged_in, mut opened) = self.open_strongbox(way).await?;
        if let Err(error) = Place::of(self.shared()).renew(way, &logged_in, &mut opened).await {
            // Whoever opens it next makes the key; what was opened is good.
            tracing::warn!(%error, "no new user key is made now");
        }
        Ok(opened)
    }

    async fn reseal(&self, from: &LoggedIn, opened: &Opened, new: &Password) -> Result<(), ClientError> {
        let place = Place::of(self.shared());
        let mut opened = opened.clone();
        if from.is_withdrawn {
            opened.renew();
        }
        let sealing = place.sealing(new).await?;
        let upload = opened.seal(from.user_id, from.strongbox.version + 1, &sealing)?;
        place.replace(from.user_id, upload).await
    }

    async fn first_password(&self, new: &Password) -> Result<(), ClientError> {
        let (user_id, identity, self_key) = {
            let account = &self.shared().lock().account;
            (account.me.user_id, account.identity.clone(), account.self_key.clone())
        };
        let identity = identity.ok_or(ClientError::NoIdentityKey)?;
        let self_key = self_key.unwrap_or_else(|| crate::crypto::self_key::of_identity(&identity));
        let place = Place::of(self.shared());
        let sealing = place.sealing(new).await?;
        let upload = Opened::first(identity, self_key.clone()).seal(user_id, 1, &sealing)?;
        place.replace(user_id, upload).await?;
        {
            let mut state = self.shared().lock();
            state.account.identity = None;
            state.account.self_key = Some(self_key);
            state.is_account_dirty = true;
        }
        self.shared().keep().await
    }
}
