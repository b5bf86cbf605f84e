//! Who comes back: a device that has nothing asks friends, waits for their shares, and takes the account over again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::FriendsError;
use crate::client::account::{NewAccount, found, insist, load};
use crate::client::config::ClientConfig;
use crate::client::engine::state::local_micros;
use crate::client::error::ClientError;
use crate::client::handle::Client;
use crate::client::net::{Endpoint, http};
use crate::client::password::{Place, Way};
use crate::client::storage::{Record, Storage};
use crate::crypto::friends::{Given, RequestCode, RequestSecret, combine};
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;
use crate::protocol::account::{INFO_PATH, ServerInfo};
use crate::protocol::binary::{Hash, IdentityKey};
use crate::protocol::canonical::sha256;
use crate::protocol::friends::{
    AskFriends, FetchReleases, FriendsAsked, RECOVERY_RELEASES_PATH, RECOVERY_REQUESTS_PATH, Release, Releases,
    request_code,
};
use crate::protocol::ids::{RecoveryRequestId, UserId};
use crate::protocol::limits::SHARES_MAX;
use crate::protocol::username::Username;

/// The record of a profile in which a request is kept until it has come to its end.
const RECORD: &str = "recovery";

/// Looks at what friends gave, in upkeep intervals.
const LOOK_EVERY: u32 = 10;

/// What a profile keeps of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    server_url: String,
    server_name: String,
    username: Username,
    request_id: RecoveryRequestId,
    secret: RequestSecret,
    /// By this machine's clock, in microseconds since the Unix epoch.
    ends_at: u64,
    /// The new password holds; only the login is left.
    is_reset: bool,
}

/// A request for recovery by friends, and what becomes of it.
#[derive(Debug)]
pub struct FriendRecovery {
    config: ClientConfig,
    endpoint: Endpoint,
    account: NewAccount,
    storage: Arc<dyn Storage>,
    kept: Kept,
}

/// Something that a friend gave and that is no share of the account's code. The name is the server's word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bad {
    /// Whose.
    pub user_id: UserId,
    /// Their name.
    pub username: Username,
}

/// How far the friends have come.
#[derive(Debug)]
pub enum Progress {
    /// There are too few shares.
    Waiting {
        /// Good ones of one set, the most that there are.
        good: usize,
        /// How many are needed of that set; none before the first has come.
        needed: Option<u32>,
        /// What was given and is no share.
        bad: Vec<Bad>,
    },
    /// The code is together.
    Complete(Gathered),
}

/// A recovery code that came together from shares.
#[derive(Debug)]
pub struct Gathered {
    code: RecoveryCode,
    identity_key: IdentityKey,
    /// Who gave good shares.
    pub from: Vec<Username>,
    /// What was given and is no share of it.
    pub bad: Vec<Bad>,
}

impl FriendRecovery {
    /// Asks the friends of a user, or goes on with the request that this profile made before.
    ///
    /// Nobody learns from the answer whether there is such a user, or whether they have shared anything.
    ///
    /// # Errors
    /// [`ClientError::ProfileTaken`], an address or name that is none, the server's refusals, the network.
    ///
    /// # Cancel safety
    /// The request may have been made; beginning again with the same profile goes on with it.
    pub async fn begin(
        config: ClientConfig,
        account: NewAccount,
        storage: Arc<dyn Storage>,
    ) -> Result<Self, ClientError> {
        let endpoint: Endpoint = account.server.parse()?;
        let username = Username::parse(&account.username)?;
        found(&storage).await?;
        let records = load(&storage).await?;
        let known = records.get(RECORD).map(|bytes| rmp_serde::from_slice::<Kept>(bytes)).transpose();
        let known = known.map_err(|error| ClientError::Profile(Box::new(error)))?;
        let known = known.filter(|kept| {
            let is_open = kept.is_reset || kept.ends_at > local_micros();
            kept.username == username && kept.server_url == account.server && is_open
        });
        let kept = match known {
            Some(kept) => kept,
            None => {
                let info: ServerInfo =
                    http::get(&config.connector, &endpoint, INFO_PATH, config.connect_timeout).await?;
                Kept {
                    server_url: account.server.clone(),
                    server_name: info.server_name,
                    username,
                    request_id: RecoveryRequestId::generate(),
                    secret: RequestSecret::generate(),
                    ends_at: u64::MAX,
                    is_reset: false,
                }
            }
        };
        let mut recovery = Self { config, endpoint, account, storage, kept };
        if recovery.kept.ends_at == u64::MAX && !recovery.kept.is_reset {
            // Kept before it is asked: a code that was told to friends must not be lost with the answer.
            recovery.keep().await?;
            recovery.ask().await?;
        }
        Ok(recovery)
    }

    async fn ask(&mut self) -> Result<(), ClientError> {
        let request = AskFriends {
            request_id: self.kept.request_id,
            username: self.kept.username.as_str().to_owned(),
            public_key: self.kept.secret.public_key(),
        };
        let asked: FriendsAsked = insist(&self.config, &self.endpoint, RECOVERY_REQUESTS_PATH, &request).await?;
        self.kept.ends_at = local_micros().saturating_add(asked.kept_s.saturating_mul(1_000_000));
        self.keep().await
    }

    /// The request, as friends see it listed.
    #[must_use]
    pub fn request_id(&self) -> RecoveryRequestId {
        self.kept.request_id
    }

    /// The code that the friends are to be told, in person or in a call.
    #[must_use]
    pub fn code(&self) -> RequestCode {
        let kept = &self.kept;
        RequestCode::of(request_code(kept.request_id, &kept.username, &kept.secret.public_key()))
    }

    /// Whether the new password holds already, so that only the login is left.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.kept.is_reset
    }

    /// Looks once at what the friends gave.
    ///
    /// # Errors
    /// [`FriendsError::Cancelled`], [`FriendsError::Over`], [`FriendsError::AlreadyReset`], the network.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn look(&self) -> Result<Progress, ClientError> {
        if self.kept.is_reset {
            return Err(FriendsError::AlreadyReset.into());
        }
        if self.kept.ends_at <= local_micros() {
            return Err(FriendsError::Over.into());
        }
        let request = FetchReleases { request_id: self.kept.request_id };
        let given: Releases = insist(&self.config, &self.endpoint, RECOVERY_RELEASES_PATH, &request).await?;
        if given.is_cancelled {
            return Err(FriendsError::Cancelled.into());
        }
        Ok(judge(self.kept.request_id, &self.kept.secret, &given.releases))
    }

    /// Waits until enough friends gave their shares.
    ///
    /// # Errors
    /// As [`FriendRecovery::look`]; a network that fails is waited for.
    ///
    /// # Cancel safety
    /// Nothing is lost; the request stays.
    pub async fn wait(&self) -> Result<Gathered, ClientError> {
        loop {
            match self.look().await {
                Ok(Progress::Complete(gathered)) => return Ok(gathered),
                Ok(Progress::Waiting { .. }) | Err(ClientError::Network(_)) => {}
                Err(ClientError::Refused { code, .. }) if code.is_retryable() => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(self.config.upkeep_interval.saturating_mul(LOOK_EVERY)).await;
        }
    }

    /// Opens the account with the code that came together, and seals it under a new password and a new recovery code in
    /// one step. The old code is known in parts to friends who have now used them, so it must not stay good; the server
    /// forgets its shares and requests with it.
    ///
    /// # Errors
    /// [`FriendsError::OtherAccount`], [`ClientError::LoginFailed`] if the code holds no more, the server's refusals, the
    /// network; then the old password and code hold.
    ///
    /// # Cancel safety
    /// The new password may hold.
    pub async fn reset(&mut self, gathered: &Gathered, new: &Password) -> Result<RecoveryCode, ClientError> {
        let place = self.place();
        let (logged_in, mut opened) = place.log_in(Way::Code(&gathered.code), None).await?;
        if opened.identity.public_key() != gathered.identity_key {
            return Err(FriendsError::OtherAccount.into());
        }
        let code = RecoveryCode::generate();
        let keys = code.keys();
        opened.recovery = Some((keys.public_key(), keys.signing_public_key()));
        let sealing = place.sealing(new).await?;
        let upload = opened.seal(logged_in.user_id, logged_in.strongbox.version + 1, &sealing)?;
        place.replace(logged_in.user_id, upload).await?;
        self.kept.is_reset = true;
        self.keep().await?;
        Ok(code)
    }

    /// Makes this device a session of the account by the new password. Sessions of before go on: whoever lost a device
    /// revokes it now.
    ///
    /// # Errors
    /// As [`Client::log_in`]; [`FriendsError::NotReset`].
    ///
    /// # Cancel safety
    /// As [`Client::log_in`]; beginning again with the same profile goes on with it.
    pub async fn log_in(self, password: &Password) -> Result<Client, ClientError> {
        if !self.kept.is_reset {
            return Err(FriendsError::NotReset.into());
        }
        let storage = Arc::clone(&self.storage);
        let client = Client::log_in(self.config, self.account, password, Arc::clone(&storage)).await?;
        write(&storage, (RECORD.to_owned(), None)).await?;
        Ok(client)
    }

    fn place(&self) -> Place {
        Place {
            config: self.config.clone(),
            endpoint: self.endpoint.clone(),
            server_name: self.kept.server_name.clone(),
            username: self.kept.username.clone(),
            session_id: None,
        }
    }

    async fn keep(&self) -> Result<(), ClientError> {
        let bytes = rmp_serde::to_vec_named(&self.kept).map_err(|error| ClientError::Profile(Box::new(error)))?;
        write(&self.storage, (RECORD.to_owned(), Some(bytes))).await
    }
}

async fn write(storage: &Arc<dyn Storage>, record: Record) -> Result<(), ClientError> {
    let storage = Arc::clone(storage);
    let written = tokio::task::spawn_blocking(move || storage.write(&[record])).await;
    Ok(written.map_err(|error| ClientError::Profile(Box::new(error)))??)
}

/// Opens what friends gave, and puts the code together if one set has enough good shares.
///
/// Each share comes with the whole set that it is of, so friends who were given shares of the same set agree to the
/// byte. Shares of different sets are never mixed, and the largest set that yields its own keys is the account's; whoever
/// gave something else is named.
fn judge(request_id: RecoveryRequestId, secret: &RequestSecret, releases: &[Release]) -> Progress {
    let mut bad: Vec<Bad> = Vec::new();
    let mut sets: BTreeMap<Hash, Vec<(Bad, Given)>> = BTreeMap::new();
    for (at, release) in releases.iter().take(SHARES_MAX).enumerate() {
        // A friend counts once, however often the server shows what they gave.
        if releases.iter().take(at).any(|other| other.user_id == release.user_id) {
            continue;
        }
        let who = Bad { user_id: release.user_id, username: release.username.clone() };
        let opened = secret.open(request_id, release.set_id, release.user_id, &release.sealed);
        match opened.ok().filter(|given| given.is_of(release.user_id)) {
            Some(given) => sets.entry(name_of(&given)).or_default().push((who, given)),
            None => bad.push(who),
        }
    }
    let mut sets: Vec<Vec<(Bad, Given)>> = sets.into_values().collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
    let (good, needed) =
        sets.first().map_or((0, None), |set| (set.len(), set.first().map(|(_, given)| given.set.set.needed)));
    for (at, set) in sets.iter().enumerate() {
        let Some((code, identity_key)) = recovered(set) else { continue };
        let from = set.iter().map(|(who, _)| who.username.clone()).collect();
        let others = sets.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, set)| set);
        bad.extend(others.map(|(who, _)| who.clone()));
        bad.sort();
        return Progress::Complete(Gathered { code, identity_key, from, bad });
    }
    bad.sort();
    Progress::Waiting { good, needed, bad }
}

/// The name of a set: whoever was given shares of it says the same of all of it.
fn name_of(given: &Given) -> Hash {
    let mut bytes = Zeroizing::new(given.set.set.signed_bytes());
    bytes.extend_from_slice(given.identity_key.as_ref());
    sha256(&bytes)
}

fn recovered(set: &[(Bad, Given)]) -> Option<(RecoveryCode, IdentityKey)> {
    let (_, first) = set.first()?;
    let needed = usize::try_from(first.set.set.needed).ok()?;
    if set.len() < needed {
        return None;
    }
    let shares: Vec<_> = set.iter().take(needed).map(|(_, given)| (given.number, &given.share)).collect();
    combine(&first.set.set, &shares).ok().map(|code| (code, first.identity_key))
}

#[cfg(test)]
mod tests;
