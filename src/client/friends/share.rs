//! Who shares: splits the recovery code among friends.

use super::FriendsError;
use crate::client::engine::call::expect_reply;
use crate::client::engine::members::lookup;
use crate::client::engine::state::{Shared, local_micros};
use crate::client::error::ClientError;
use crate::client::failure::VerificationFailure;
use crate::client::handle::Client;
use crate::client::password::Way;
use crate::crypto::friends::{Sharer, share};
use crate::crypto::recovery_code::RecoveryCode;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{FetchShare, FetchUserKeys, Reply, Request, SetShares};
use crate::protocol::ids::{ShareSetId, Timestamp, UserId};
use crate::protocol::limits::{SHARES_MAX, SHARES_NEEDED_MIN};
use crate::protocol::strongbox::PublicUserKey;
use crate::protocol::username::Username;

/// How often a set is made again because a friend's key changed meanwhile.
const TRIES_MAX: u32 = 3;

/// A recovery code is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedWith {
    /// The set.
    pub set_id: ShareSetId,
    /// Shares that recover the account.
    pub needed: u32,
    /// Who holds one.
    pub friends: Vec<Username>,
}

/// With whom this user shares their recovery code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnShares {
    /// The set.
    pub set_id: ShareSetId,
    /// Shares that recover the account.
    pub needed: u32,
    /// Who was given one, and whether it is there still: an account that ends takes its share with it.
    pub friends: Vec<(UserId, Option<Username>, bool)>,
}

impl Client {
    /// Splits this user's recovery code among friends: any `needed` of them together recover the account. A set that was
    /// there before is replaced. Friends are users with whom a chat is shared, and who have a password.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`] if it is not the recovery code that holds, [`FriendsError`], a key or identity that
    /// does not verify, the server's refusals.
    ///
    /// # Cancel safety
    /// The new set may be there.
    pub async fn share_recovery_code(
        &self,
        code: &RecoveryCode,
        needed: u32,
        usernames: &[String],
    ) -> Result<SharedWith, ClientError> {
        self.check_friends(needed, usernames).await?;
        // By the code itself: a slip would be shared for nothing. What it opens signs the set.
        let (_, opened) = self.open_strongbox(Way::Code(code)).await?;
        let shared = self.shared();
        let mut tries = 0;
        loop {
            let friends = keys_of(shared, usernames).await?;
            let keys: Vec<PublicUserKey> = friends.iter().map(|(_, key)| *key).collect();
            let me = shared.lock().account.me.clone();
            let by = Sharer { user_id: me.user_id, identity: &opened.identity, session: (me.session_id, &me.secrets) };
            let (set, shares) = share(code, needed, &keys, by, Timestamp::saturating(local_micros()))?;
            let set_id = set.set.set_id;
            let request = Request::SetShares(Box::new(SetShares { set, shares }));
            match shared.call(request).await? {
                Ok(_) => {
                    let friends = friends.into_iter().map(|(username, _)| username).collect();
                    return Ok(SharedWith { set_id, needed, friends });
                }
                Err(refused) if refused.code == ErrorCode::UserKeyStale && tries < TRIES_MAX => tries += 1,
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    /// Checks that a recovery code can be shared so, before one is made for it.
    ///
    /// # Errors
    /// [`FriendsError`], a key or identity that does not verify, the server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check_friends(&self, needed: u32, usernames: &[String]) -> Result<(), ClientError> {
        let count = usernames.len();
        let is_set = needed >= SHARES_NEEDED_MIN
            && count <= SHARES_MAX
            && usize::try_from(needed).is_ok_and(|needed| needed <= count);
        if !is_set {
            return Err(FriendsError::Numbers { needed, count }.into());
        }
        keys_of(self.shared(), usernames).await.map(|_| ())
    }

    /// Says with whom this user shares their recovery code; none if with nobody.
    ///
    /// # Errors
    /// The server's refusals; a set that does not verify.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn shares(&self) -> Result<Option<OwnShares>, ClientError> {
        let shared = self.shared();
        let me = shared.lock().account.me.clone();
        let reply = match shared.call(Request::FetchShare(FetchShare { user_id: me.user_id })).await? {
            Err(refused) if refused.code == ErrorCode::NoShare => return Ok(None),
            reply => reply?,
        };
        let found = expect_reply!(reply, Share)?;
        let set = &found.set.set;
        if set.user_id != me.user_id || found.set.verify(&me.identity_key).is_err() {
            return Err(ClientError::Strongbox);
        }
        let holder = |holder: &crate::protocol::friends::ShareHolder| {
            (holder.user_id, self.name_of(holder.user_id), found.present.contains(&holder.user_id))
        };
        let friends = set.holders.iter().map(holder).collect();
        Ok(Some(OwnShares { set_id: set.set_id, needed: set.needed, friends }))
    }
}

/// Finds friends and their user keys, each signed by the identity key that is pinned.
async fn keys_of(shared: &Shared, usernames: &[String]) -> Result<Vec<(Username, PublicUserKey)>, ClientError> {
    let mut friends = Vec::with_capacity(usernames.len());
    for username in usernames {
        let username = Username::parse(username)?;
        let user = lookup(shared, &username).await?;
        let is_friend = {
            let state = shared.lock();
            user.user_id != state.account.me.user_id
                && state.chats.values().any(|chat| {
                    // The log says who is in, and with which identity.
                    let member = chat.log.fold().membership().members.get(&user.user_id);
                    member.is_some_and(|member| member.identity_key == user.identity_key)
                })
        };
        if !is_friend {
            return Err(FriendsError::NotAFriend(username).into());
        }
        if friends.iter().any(|(_, known): &(Username, crate::protocol::frame::UserInfo)| known.user_id == user.user_id)
        {
            let count = friends.len();
            return Err(FriendsError::Numbers { needed: 0, count }.into());
        }
        friends.push((username, user));
    }
    let user_ids = friends.iter().map(|(_, user)| user.user_id).collect();
    let request = Request::FetchUserKeys(FetchUserKeys { user_ids });
    let answer = expect_reply!(shared.call(request).await??, UserKeys)?;
    let mut keys = Vec::with_capacity(friends.len());
    for (username, user) in friends {
        let Some(key) = answer.keys.iter().find(|key| key.user_id == user.user_id) else {
            return Err(FriendsError::NoUserKey(username).into());
        };
        if !key.verifies(&user.identity_key) {
            shared.alarm(None, None, VerificationFailure::UserKey(user.user_id));
            return Err(FriendsError::ForeignKey(username).into());
        }
        keys.push((username, *key));
    }
    Ok(keys)
}
