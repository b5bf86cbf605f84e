//! Group secrets: listed, opened, written and sealed again, with group keys that a user key opens for one operation.
//!
//! Invariants: V1 no group key and no key of secrets is kept. V2 what is shown is signed by a session that is or was in
//! the chat, is no older and no other than before, and opens in its own place. V3 what somebody else has sealed again is
//! compared with what it was made of, as long as that is kept and can be opened here; if they differ, that is named, and
//! what was said before is read and sealed again.

mod judge;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::call::expect_reply;
use super::recover::{is_own_key_ours, open_group_keys};
use super::state::Shared;
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Event};
use crate::client::failure::VerificationFailure;
use crate::crypto::group_secret::{SecretPlace, SecretsKey};
use crate::crypto::strongbox::Opened;
use crate::protocol::binary::Hash;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ConfirmSecret, FetchSecret, ListSecrets, ListedSecret, Openers, Reply, Request, Secrets};
use crate::protocol::group_secret::{SecretPart, SecretRevision, SecretWrite, SignedSecret};
use crate::protocol::ids::{ChatId, GenerationNo, SecretId, Seq, SessionId, UserId};
use judge::Compared;

/// How a secret was found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its name.
    Open(String),
    /// Nobody here can open it, and these members can.
    Waits(Vec<UserId>),
    /// No member can open it any more.
    Lost,
    /// It does not verify.
    Bad(VerificationFailure),
}

/// A secret of a list.
pub(crate) struct Item {
    pub(crate) listed: ListedSecret,
    pub(crate) found: Found,
    /// A member who is gone was one when it was set last.
    pub(crate) is_known_to_former: bool,
}

impl Item {
    const fn secret(&self) -> &SecretRevision {
        &self.listed.secret.secret
    }
}

/// What a revision says.
struct Plain {
    name: Zeroizing<Vec<u8>>,
    value: Zeroizing<Vec<u8>>,
}

/// The newest revision of a secret, and the hash of what is kept beside it.
struct Newest {
    signed: SignedSecret,
    kept: Option<Hash>,
}

/// A chat's secrets, open as long as this lives.
pub(crate) struct Vault {
    shared: Arc<Shared>,
    chat_id: ChatId,
    opened: Opened,
    keys: BTreeMap<GenerationNo, SecretsKey>,
}

/// Seals again what is sealed under older generations, and compares what others have sealed again, if the chat has
/// secrets. Nobody waits for it: what fails is done by whoever opens a user key next.
pub(crate) async fn tend(shared: &Arc<Shared>, chat_id: ChatId, opened: &Opened) {
    let tending = async {
        let first = ListSecrets { chat_id, after: None };
        let page = expect_reply!(shared.call(Request::ListSecrets(first)).await??, Secrets)?;
        if !page.secrets.is_empty() {
            Vault::open(shared, chat_id, opened.clone()).await?.tend().await?;
        }
        Ok::<_, ClientError>(())
    };
    if let Err(error) = tending.await {
        tracing::debug!(%error, "group secrets are not sealed again now");
    }
}

impl Vault {
    /// Opens the group keys of a chat.
    pub(crate) async fn open(shared: &Arc<Shared>, chat_id: ChatId, opened: Opened) -> Result<Self, ClientError> {
        shared.known(chat_id).await?;
        let mut vault = Self { shared: Arc::clone(shared), chat_id, opened, keys: BTreeMap::new() };
        vault.reload().await?;
        Ok(vault)
    }

    async fn reload(&mut self) -> Result<(), ClientError> {
        let is_ours = is_own_key_ours(&self.shared, self.chat_id, &self.opened)?;
        let opened = open_group_keys(&self.shared, self.chat_id, &self.opened, is_ours, true).await?;
        self.keys = opened.keys.into_iter().map(|(number, key)| (number, key.secrets())).collect();
        Ok(())
    }

    /// Lists the secrets, and judges each.
    pub(crate) async fn list(&self) -> Result<Vec<Item>, ClientError> {
        let chat_id = self.chat_id;
        let (mut after, mut pages) = (None, Vec::<Secrets>::new());
        loop {
            let request = Request::ListSecrets(ListSecrets { chat_id, after });
            let page = expect_reply!(self.call(request).await?, Secrets)?;
            let ids = page.secrets.iter().map(|listed| listed.secret.secret.secret_id);
            let newest = ids.chain(page.deleted.iter().map(|signed| signed.deletion.secret_id)).max();
            let more = page.more && newest > after;
            self.shared.folded(chat_id, page.last_seq).await?;
            pages.push(page);
            if !more {
                break;
            }
            after = newest;
        }
        let mut shown = BTreeSet::new();
        for signed in pages.iter().flat_map(|page| &page.deleted) {
            shown.insert(signed.deletion.secret_id);
            if let Err(failure) = self.judge_deletion(signed) {
                self.alarm(Some(signed.deletion.session_id), failure);
            }
        }
        let mut items = Vec::new();
        for page in pages {
            for listed in page.secrets {
                shown.insert(listed.secret.secret.secret_id);
                items.push(self.item(listed, page.removal_seq, &page.openers));
            }
        }
        let withheld = self.shared.lock().chats.get(&chat_id).map(|chat| chat.secrets.withheld(&shown));
        for secret_id in withheld.into_iter().flatten() {
            self.alarm(None, VerificationFailure::SecretRollback(secret_id));
        }
        Ok(items)
    }

    fn item(&self, listed: ListedSecret, removal_seq: Seq, openers: &[Openers]) -> Item {
        let secret = &listed.secret.secret;
        let is_known_to_former = secret.changed_seq < removal_seq;
        let found = match (self.judge(&listed.secret), self.keys.get(&secret.generation)) {
            (Err(failure), _) => Found::Bad(failure),
            (Ok(()), None) => self.closed(secret.generation, openers),
            (Ok(()), Some(key)) => {
                let opened = key.open(&self.place(secret), SecretPart::Name, &secret.name).ok();
                let name = opened.and_then(|name| String::from_utf8(name.to_vec()).ok());
                name.map_or(Found::Bad(VerificationFailure::SecretContent(secret.secret_id)), Found::Open)
            }
        };
        if let Found::Bad(failure) = &found {
            self.alarm(Some(secret.session_id), *failure);
        }
        Item { listed, found, is_known_to_former }
    }

    /// Who can open what is sealed under a generation that is not open here, by the server's word.
    fn closed(&self, generation: GenerationNo, openers: &[Openers]) -> Found {
        let me = self.shared.lock().account.me.user_id;
        let known = openers.iter().filter(|openers| openers.generation == generation);
        let users: Vec<UserId> = known.flat_map(|openers| &openers.users).copied().filter(|user| *user != me).collect();
        if users.is_empty() { Found::Lost } else { Found::Waits(users) }
    }

    /// Reads what a secret says: its name and value.
    pub(crate) async fn read(&self, secret_id: SecretId) -> Result<(String, Zeroizing<Vec<u8>>), ClientError> {
        let (newest, plain) = self.open_newest(secret_id).await?;
        self.seal_again_if_due(&newest, &plain).await;
        let name = String::from_utf8(plain.name.to_vec());
        let name = name.map_err(|_| VerificationFailure::SecretContent(secret_id))?;
        Ok((name, plain.value))
    }

    /// Opens the newest revision, and compares it with what it was made of.
    async fn open_newest(&self, secret_id: SecretId) -> Result<(Newest, Plain), ClientError> {
        let request = Request::FetchSecret(FetchSecret { chat_id: self.chat_id, secret_id });
        let fetched = *expect_reply!(self.call(request).await?, Secret)?;
        self.shared.folded(self.chat_id, fetched.last_seq).await?;
        let current = fetched.current;
        let by = current.secret.secret.session_id;
        if current.secret.secret.secret_id != secret_id {
            return Err(self.bad(by, VerificationFailure::SecretContent(secret_id)));
        }
        self.judge(&current.secret).map_err(|failure| self.bad(by, failure))?;
        if !self.keys.contains_key(&current.secret.secret.generation) {
            return Err(self.why_closed(secret_id).await?);
        }
        let opened = self.open_revision(&current);
        let Some(kept) = fetched.kept.filter(|_| current.secret.secret.write == SecretWrite::Reseal) else {
            let plain = opened.map_err(|failure| self.bad(by, failure))?;
            return Ok((Newest { signed: current.secret, kept: None }, plain));
        };
        let mut source = Some(kept.secret.hash(self.chat_id));
        match self.compare(&current, opened.as_ref().ok(), &kept) {
            Compared::Same => {
                let is_own = self.user_of(by) == Some(self.shared.lock().account.me.user_id);
                if !is_own && self.confirm(&current.secret).await {
                    source = None;
                }
            }
            Compared::Differs(before) => {
                // It is repaired at once, so that those who cannot compare it read the same.
                let failure = VerificationFailure::SecretDiffers(secret_id);
                self.alarm(Some(by), failure);
                let newest = Newest { signed: current.secret, kept: source };
                let repaired = self.reseal(&newest, &before).await;
                let signed = repaired.unwrap_or(newest.signed);
                return Ok((Newest { signed, kept: source }, before));
            }
            Compared::Unknown => {}
            Compared::Bad(failure) => self.alarm(None, failure),
        }
        let plain = opened.map_err(|failure| self.bad(by, failure))?;
        Ok((Newest { signed: current.secret, kept: source }, plain))
    }

    async fn why_closed(&self, secret_id: SecretId) -> Result<ClientError, ClientError> {
        let items = self.list().await?;
        let item = items.into_iter().find(|item| item.secret().secret_id == secret_id);
        Ok(match item.map(|item| item.found) {
            Some(Found::Waits(openers)) => ClientError::SecretWaits { openers },
            Some(Found::Lost) => ClientError::SecretLost,
            Some(Found::Bad(failure)) => failure.into(),
            Some(Found::Open(_)) => ClientError::Conflict,
            None => ClientError::UnknownSecret,
        })
    }

    /// Says that the two are the same, so that the older one need not be kept. What fails is done by another member.
    async fn confirm(&self, signed: &SignedSecret) -> bool {
        let (secret_id, revision) = (signed.secret.secret_id, signed.secret.revision);
        let request = Request::ConfirmSecret(ConfirmSecret { chat_id: self.chat_id, secret_id, revision });
        let confirmed = self.call(request).await;
        if let Err(error) = &confirmed {
            tracing::debug!(%error, "a group secret that was sealed again is not confirmed");
        }
        confirmed.is_ok()
    }

    const fn place(&self, secret: &SecretRevision) -> SecretPlace {
        SecretPlace {
            chat_id: self.chat_id,
            secret_id: secret.secret_id,
            generation: secret.generation,
            revision: secret.revision,
        }
    }

    fn current(&self) -> Option<GenerationNo> {
        let state = self.shared.lock();
        state.chats.get(&self.chat_id)?.log.fold().recovery_key().map(|key| key.generation)
    }

    fn head(&self) -> Result<Seq, ClientError> {
        let state = self.shared.lock();
        state.chats.get(&self.chat_id).map(|chat| chat.log.head().seq).ok_or(ClientError::UnknownChat)
    }

    fn user_of(&self, session_id: SessionId) -> Option<UserId> {
        let state = self.shared.lock();
        let recipient = state.chats.get(&self.chat_id)?.log.fold().recipients().get(&session_id)?;
        Some(recipient.user_id)
    }

    async fn call(&self, request: Request) -> Result<Reply, ClientError> {
        self.shared.call(request).await?.map_err(|refused| match refused.code {
            ErrorCode::UnknownChat => ClientError::UnknownChat,
            ErrorCode::UnknownSecret => ClientError::UnknownSecret,
            _ => refused.into(),
        })
    }

    fn alarm(&self, session_id: Option<SessionId>, failure: VerificationFailure) {
        let alarm = Alarm { chat_id: Some(self.chat_id), seq: None, session_id, failure };
        self.shared.publish(vec![Event::Alarm(alarm)]);
    }

    /// Names what does not verify, as an alarm and as the error.
    fn bad(&self, session_id: SessionId, failure: VerificationFailure) -> ClientError {
        self.alarm(Some(session_id), failure);
        failure.into()
    }
}
