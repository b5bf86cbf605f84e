//! The handle's operations on what users say of themselves.

use super::engine::members;
use super::engine::profiles::{self, ProfileChange};
use super::error::ClientError;
use super::handle::Client;
use crate::crypto::user_profile::PlainProfile;
use crate::protocol::ids::UserId;
use crate::protocol::username::Username;

impl Client {
    /// Saves what this user says of themselves: name, email, description or several; what is none stays, an empty text
    /// takes it away. This user's own devices and those of everybody who shares a chat with them can read it, but for
    /// whom they have blocked. Saved under a new key if somebody has lost access since the last one was made.
    ///
    /// # Errors
    /// [`ClientError::TooLarge`], [`ClientError::ProfileKeyAwaited`] if what is to stay cannot be read yet,
    /// [`ClientError::Conflict`], a profile that does not verify, the server's refusals.
    ///
    /// # Cancel safety
    /// It may have been saved.
    pub async fn set_profile(
        &self,
        name: Option<&str>,
        email: Option<&str>,
        description: Option<&str>,
    ) -> Result<(), ClientError> {
        profiles::set(self.shared(), ProfileChange { name, email, description }).await
    }

    /// What a user says of themselves; none if they say nothing to this user. The user must be known here: this user's
    /// own, one in a chat of theirs, or one who was looked up.
    ///
    /// # Errors
    /// [`ClientError::NoSharedChat`], [`ClientError::UnknownUser`], [`ClientError::ProfileKeyAwaited`] until one of their devices has handed the key on,
    /// [`ClientError::Verification`] if it does not verify, which is an alarm too.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn profile(&self, user_id: UserId) -> Result<Option<PlainProfile>, ClientError> {
        profiles::show(self.shared(), user_id).await
    }

    /// The same of a user by name, who is pinned by it.
    ///
    /// # Errors
    /// As [`Client::lookup`] and [`Client::profile`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn profile_of(&self, username: &str) -> Result<(UserId, Option<PlainProfile>), ClientError> {
        let username = Username::parse(username)?;
        let user_id = if username == self.username() {
            self.user_id()
        } else {
            members::lookup(self.shared(), &username).await?.user_id
        };
        Ok((user_id, self.profile(user_id).await?))
    }
}
