//! Group secrets: kept by the store, and those who are connected are told that one has changed.
//!
//! Each is a transaction of its own under the chat's lock, beside what the chat's actor does: no log entry is made.
//! Nobody relies on being told: who was not connected finds it in the list.

use super::Broker;
use crate::protocol::frame::{DeleteSecret, Nothing, Reply, SecretChanged, ServerFrame, SetSecret};
use crate::protocol::ids::SessionId;
use crate::store::Failure;
use crate::store::members::Requester;

impl Broker {
    /// Makes a revision of a secret, and tells the chat's members.
    ///
    /// # Errors
    /// What [`Store::set_secret`](crate::store::Store::set_secret) refuses.
    pub async fn set_secret(&self, who: Requester, request: &SetSecret) -> Result<Reply, Failure> {
        let told = match self.store.set_secret(who, request).await {
            Err(Failure::ExpiryDue) => {
                self.expire_in_chat(request.chat_id).await?;
                self.store.set_secret(who, request).await?
            }
            result => result?,
        };
        let secret = &request.secret.secret;
        let (secret_id, revision) = (secret.secret_id, secret.revision);
        self.tell_secret(&told, SecretChanged { chat_id: request.chat_id, secret_id, revision });
        Ok(Reply::Done(Nothing {}))
    }

    /// Ends a secret, and tells the chat's members.
    ///
    /// # Errors
    /// What [`Store::delete_secret`](crate::store::Store::delete_secret) refuses.
    pub async fn delete_secret(&self, who: Requester, request: &DeleteSecret) -> Result<Reply, Failure> {
        let told = self.store.delete_secret(who, request).await?;
        let deletion = &request.deletion.deletion;
        let (secret_id, revision) = (deletion.secret_id, deletion.revision);
        self.tell_secret(&told, SecretChanged { chat_id: request.chat_id, secret_id, revision });
        Ok(Reply::Done(Nothing {}))
    }

    fn tell_secret(&self, told: &[SessionId], changed: SecretChanged) {
        let frame = ServerFrame::SecretChanged(changed);
        for session_id in told {
            self.push_to(*session_id, &frame);
        }
    }
}
