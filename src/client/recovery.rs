//! Brings back what was said before this device, by the password or the recovery code.

use std::sync::Arc;
use std::time::Duration;

use super::engine::call::spawn;
use super::engine::recover::recover;
use super::engine::state::Recovery;
use super::error::ClientError;
use super::handle::Client;
use super::password::Way;
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;
use crate::crypto::strongbox::Opened;

/// How long opened user keys stay in memory while the connection does not serve.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What came of a recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Sender keys that were opened, and are kept from now on.
    pub keys: u64,
    /// Sender keys that no archive gave.
    pub locked_keys: u64,
}

impl Client {
    /// Opens what was said before this device, with the password: sender keys from the chats' archives, with nobody else
    /// online. What they open comes as events, and on pages of history. A login does the same by itself.
    ///
    /// Each chat's newest group key is checked on the way; a bad one is named as an alarm, and refused.
    ///
    /// # Errors
    /// [`ClientError::LoginFailed`], the server's refusals; the client is closed.
    ///
    /// # Cancel safety
    /// What was opened is kept; a try of the password is counted.
    pub async fn recover_history(&self, password: &Password) -> Result<Recovered, ClientError> {
        self.recover_by(Way::Password(password)).await
    }

    /// The same by the recovery code.
    ///
    /// # Errors
    /// As [`Client::recover_history`].
    ///
    /// # Cancel safety
    /// As [`Client::recover_history`].
    pub async fn recover_history_by_code(&self, code: &RecoveryCode) -> Result<Recovered, ClientError> {
        self.recover_by(Way::Code(code)).await
    }

    async fn recover_by(&self, way: Way<'_>) -> Result<Recovered, ClientError> {
        let opened = self.open_and_renew(way).await?;
        recover(self.shared(), &opened).await
    }

    /// Waits for the recovery that a login has begun. None if there was none, or it came to no end: then
    /// [`Client::recover_history`] begins it again.
    ///
    /// # Cancel safety
    /// The recovery goes on.
    pub async fn recovered(&self) -> Option<Recovered> {
        let mut recovery = self.shared().recovery.subscribe();
        let ended = recovery.wait_for(|recovery| !matches!(recovery, Recovery::UnderWay)).await.ok()?;
        match *ended {
            Recovery::Done(recovered) => Some(recovered),
            Recovery::None | Recovery::UnderWay | Recovery::Failed => None,
        }
    }

    /// Begins a recovery with what a login has opened, which is forgotten at its end.
    pub(super) fn begin_recovery(&self, opened: Opened) {
        let shared = Arc::clone(self.shared());
        shared.recovery.send_replace(Recovery::UnderWay);
        let end = EndOfRecovery(Arc::clone(&shared));
        spawn(self.shared(), async move {
            let ended = tokio::time::timeout(PATIENCE, recover(&shared, &opened)).await;
            match ended {
                Ok(Ok(recovered)) => drop(shared.recovery.send_replace(Recovery::Done(recovered))),
                Ok(Err(error)) => tracing::warn!(%error, "history is not recovered"),
                Err(_) => tracing::warn!("history is not recovered in time"),
            }
            drop(end);
        });
    }
}

/// Tells those who wait that a recovery has come to no end, also when its task is dropped.
struct EndOfRecovery(Arc<super::engine::state::Shared>);

impl Drop for EndOfRecovery {
    fn drop(&mut self) {
        self.0.recovery.send_if_modified(|recovery| {
            let is_open = matches!(recovery, Recovery::UnderWay);
            if is_open {
                *recovery = Recovery::Failed;
            }
            is_open
        });
    }
}
