//! A chat's group secrets, opened with the password or the recovery code.

use std::fmt;

use zeroize::Zeroizing;

use super::engine::call::expect_reply;
use super::engine::secrets::{Found, Item, Vault};
use super::error::ClientError;
use super::failure::VerificationFailure;
use super::handle::Client;
use super::password::Way;
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;
use crate::protocol::frame::{FetchSecretLog, Reply, Request, SecretLogEntry};
use crate::protocol::ids::{ChatId, GenerationNo, Revision, SecretId, SessionId, Timestamp, UserId};

/// Whether a secret can be read, and what it is called.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretState {
    /// It opens. Its name.
    Open(String),
    /// It is sealed under a generation that this user cannot open. Once one of these members opens their secrets it is
    /// sealed again, and opens.
    Waits {
        /// Some of those members.
        openers: Vec<UserId>,
    },
    /// No member can open it any more.
    Lost,
    /// It does not verify.
    Bad(VerificationFailure),
}

/// Prints no name (P12).
impl fmt::Debug for SecretState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open"),
            Self::Waits { openers } => f.debug_struct("Waits").field("openers", openers).finish(),
            Self::Lost => f.write_str("Lost"),
            Self::Bad(failure) => f.debug_tuple("Bad").field(failure).finish(),
        }
    }
}

/// A secret in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSummary {
    /// Which.
    pub secret_id: SecretId,
    /// Whether it can be read, and its name.
    pub state: SecretState,
    /// How often it was written or sealed again.
    pub revision: Revision,
    /// The generation of the group key under which it is sealed.
    pub generation: GenerationNo,
    /// Who set it last, by the server's word.
    pub writer_id: UserId,
    /// With which session it was written or sealed again last.
    pub session_id: SessionId,
    /// When it was set last, by the database's clock.
    pub changed_at: Timestamp,
    /// Whether somebody who is no member any more was one when it was set last: then they may know it.
    pub is_known_to_former: bool,
}

impl From<Item> for SecretSummary {
    fn from(item: Item) -> Self {
        let secret = &item.listed.secret.secret;
        Self {
            secret_id: secret.secret_id,
            state: match item.found {
                Found::Open(name) => SecretState::Open(name),
                Found::Waits(openers) => SecretState::Waits { openers },
                Found::Lost => SecretState::Lost,
                Found::Bad(failure) => SecretState::Bad(failure),
            },
            revision: secret.revision,
            generation: secret.generation,
            writer_id: item.listed.writer_id,
            session_id: secret.session_id,
            changed_at: item.listed.changed_at,
            is_known_to_former: item.is_known_to_former,
        }
    }
}

/// A chat's secrets, open until this is dropped. The group keys are in memory alone.
pub struct OpenSecrets(Vault);

impl fmt::Debug for OpenSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenSecrets")
    }
}

impl Client {
    /// Opens a chat's secrets with the password. What is sealed under older generations of the group key is sealed again
    /// on the way, so that those who have joined since can read it.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`], [`ClientError::UnknownChat`], the server's refusals; the client is closed.
    ///
    /// # Cancel safety
    /// Nothing is open; a try of the password is counted.
    pub async fn open_secrets(&self, chat_id: ChatId, password: &Password) -> Result<OpenSecrets, ClientError> {
        self.open_secrets_by(chat_id, Way::Password(password)).await
    }

    /// The same by the recovery code.
    ///
    /// # Errors
    /// As [`Client::open_secrets`].
    ///
    /// # Cancel safety
    /// As [`Client::open_secrets`].
    pub async fn open_secrets_by_code(&self, chat_id: ChatId, code: &RecoveryCode) -> Result<OpenSecrets, ClientError> {
        self.open_secrets_by(chat_id, Way::Code(code)).await
    }

    async fn open_secrets_by(&self, chat_id: ChatId, way: Way<'_>) -> Result<OpenSecrets, ClientError> {
        self.shared().known(chat_id).await?;
        let opened = self.open_and_renew(way).await?;
        let mut vault = Vault::open(self.shared(), chat_id, opened).await?;
        vault.tend().await?;
        self.shared().keep().await?;
        Ok(OpenSecrets(vault))
    }

    /// What was done with a chat's secrets, the newest first: at most 1,000 entries are kept. By the server's word.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn secret_log(&self, chat_id: ChatId) -> Result<Vec<SecretLogEntry>, ClientError> {
        let shared = self.shared();
        shared.known(chat_id).await?;
        let (mut before, mut all) = (None, Vec::<SecretLogEntry>::new());
        loop {
            let request = Request::FetchSecretLog(FetchSecretLog { chat_id, before });
            let page = expect_reply!(shared.call(request).await??, SecretLog)?;
            let oldest = page.entries.iter().map(|entry| entry.number).min();
            all.extend(page.entries);
            match oldest {
                Some(oldest) if page.more && before.is_none_or(|before| oldest < before) => before = Some(oldest),
                _ => return Ok(all),
            }
        }
    }
}

impl OpenSecrets {
    /// Lists the chat's secrets, in order of their ids, which is that of their making.
    ///
    /// # Errors
    /// The server's refusals. What does not verify is an alarm, and in the list.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn list(&self) -> Result<Vec<SecretSummary>, ClientError> {
        Ok(self.0.list().await?.into_iter().map(SecretSummary::from).collect())
    }

    /// Finds a secret by its name; of several that have the same, the oldest.
    ///
    /// # Errors
    /// [`ClientError::UnknownSecret`], the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn find(&self, name: &str) -> Result<SecretId, ClientError> {
        let listed = self.list().await?;
        let is_it = |secret: &SecretSummary| matches!(&secret.state, SecretState::Open(found) if found == name);
        listed.into_iter().find(is_it).map(|secret| secret.secret_id).ok_or(ClientError::UnknownSecret)
    }

    /// Reads a secret: name and value. The server notes who did.
    ///
    /// # Errors
    /// [`ClientError::UnknownSecret`], [`ClientError::SecretWaits`], [`ClientError::SecretLost`],
    /// [`ClientError::Verification`], the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing but the log of reads.
    pub async fn read(&self, secret_id: SecretId) -> Result<(String, Zeroizing<Vec<u8>>), ClientError> {
        self.0.read(secret_id).await
    }

    /// Gives the secret of a name a value, or makes one; makes the group key that is due, too.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`], [`ClientError::NoGroupKey`], [`ClientError::Conflict`], the server's refusals: who may
    /// not write in the chat may not.
    ///
    /// # Cancel safety
    /// It may have been written.
    pub async fn write(&mut self, name: &str, value: &[u8]) -> Result<SecretId, ClientError> {
        self.0.write(name, value).await
    }

    /// Ends a secret; only who set it last and managers may.
    ///
    /// # Errors
    /// [`ClientError::UnknownSecret`], [`ClientError::Conflict`], the server's refusals.
    ///
    /// # Cancel safety
    /// It may have ended.
    pub async fn delete(&self, secret_id: SecretId) -> Result<(), ClientError> {
        self.0.delete(secret_id).await
    }
}
