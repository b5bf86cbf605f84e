//! The handle's operations on rights, ownership and history of a chat, and on one's own account.

use super::engine::{account, members};
use super::error::ClientError;
use super::handle::Client;
use crate::protocol::frame::{AddPolicy, Settings};
use crate::protocol::ids::{ChatId, Seq};
use crate::protocol::membership::HistoryPolicy;
use crate::protocol::username::Username;

impl Client {
    /// Changes what a member may do. Needs `can_manage`; the owner's rights do not change.
    ///
    /// # Errors
    /// [`ClientError::NotMember`], [`ClientError::UnknownChat`], [`ClientError::Unchanged`], the server's refusals,
    /// [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The rights may have changed.
    pub async fn set_rights(
        &self,
        chat_id: ChatId,
        username: &str,
        can_write: bool,
        can_manage: bool,
    ) -> Result<Seq, ClientError> {
        members::set_rights(self.shared(), chat_id, &Username::parse(username)?, (can_write, can_manage)).await
    }

    /// Makes a member the owner of a chat of this user's, who stays a member with the rights they have.
    ///
    /// # Errors
    /// [`ClientError::NotMember`], [`ClientError::UnknownChat`], the server's refusals, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The chat may have passed.
    pub async fn transfer(&self, chat_id: ChatId, username: &str) -> Result<Seq, ClientError> {
        members::transfer(self.shared(), chat_id, &Username::parse(username)?).await
    }

    /// Makes every member's sender key stale: what is sent from the answer on is under new keys. Needs `can_manage`.
    ///
    /// # Errors
    /// [`ClientError::UnknownChat`], the server's refusals, among them `limit_reached` after six in an hour,
    /// [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The keys may be stale.
    pub async fn rekey(&self, chat_id: ChatId) -> Result<Seq, ClientError> {
        members::rekey(self.shared(), chat_id).await
    }

    /// Says what newcomers may read: what comes after their joining, or everything from this change on. Needs
    /// `can_manage`.
    ///
    /// # Errors
    /// [`ClientError::Unchanged`], [`ClientError::UnknownChat`], the server's refusals, among them `limit_reached`
    /// after two in a day, [`ClientError::Conflict`].
    ///
    /// # Cancel safety
    /// The policy may have changed.
    pub async fn set_history(&self, chat_id: ChatId, policy: HistoryPolicy) -> Result<Seq, ClientError> {
        members::set_history(self.shared(), chat_id, policy).await
    }

    /// What this user has set: who may add them to chats, and whom they have blocked. The server keeps blocked users
    /// from adding this one; to hide what they write elsewhere is up to whoever shows it.
    ///
    /// # Errors
    /// The server's refusals.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn settings(&self) -> Result<Settings, ClientError> {
        account::settings(self.shared()).await
    }

    /// Says who may add this user to chats, from the answer on.
    ///
    /// # Errors
    /// The server's refusals.
    ///
    /// # Cancel safety
    /// The policy may have changed.
    pub async fn set_add_policy(&self, policy: AddPolicy) -> Result<(), ClientError> {
        account::set_add_policy(self.shared(), policy).await
    }

    /// Blocks a user: from the answer on they cannot add this user to a chat, and are not told why.
    ///
    /// # Errors
    /// As [`Client::lookup`]; the server's refusals.
    ///
    /// # Cancel safety
    /// The user may be blocked.
    pub async fn block(&self, username: &str) -> Result<(), ClientError> {
        account::block(self.shared(), &Username::parse(username)?).await
    }

    /// Blocks a user no longer; one who is not blocked is left alone.
    ///
    /// # Errors
    /// The server's refusals.
    ///
    /// # Cancel safety
    /// The user may be blocked no longer.
    pub async fn unblock(&self, username: &str) -> Result<(), ClientError> {
        account::unblock(self.shared(), &Username::parse(username)?).await
    }

    /// Ends this user's account for good: its name is never given out again, its chats pass on or end. The profile
    /// then keeps nothing but that, and the client closes with
    /// [`CloseReason::AccountDeleted`](super::error::CloseReason::AccountDeleted).
    ///
    /// # Errors
    /// [`ClientError::NoIdentityKey`], the server's refusals, [`ClientError::Conflict`]; the account is there still.
    /// After [`ClientError::Closed`] or a profile that cannot be written it may have ended: the next opening tells.
    ///
    /// # Cancel safety
    /// The account may have ended: the next opening tells.
    pub async fn delete_account(&self) -> Result<(), ClientError> {
        account::delete(self.shared()).await
    }
}
