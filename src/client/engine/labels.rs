//! Names of the user's own sessions: sealed under the self key, so that the user's sessions alone read them.

use super::call::expect_reply;
use super::devices;
use super::state::Shared;
use crate::client::error::ClientError;
use crate::client::keyring::Account;
use crate::client::view::{OwnSession, OwnSessions};
use crate::crypto::self_key::{self, Purpose};
use crate::protocol::binary::Blob;
use crate::protocol::frame::{Reply, Request, SessionInfo, SetLabel, label_aad};
use crate::protocol::ids::SessionId;
use crate::protocol::limits::LABEL_BYTES_MAX;

/// Bytes that sealing adds to a name: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// Names a session of the user, or takes its name away.
pub(crate) async fn set(shared: &Shared, session_id: SessionId, text: Option<&str>) -> Result<(), ClientError> {
    let limit = LABEL_BYTES_MAX - SEAL_BYTES;
    if text.is_some_and(|text| text.len() > limit) {
        return Err(ClientError::TooLarge { limit });
    }
    let label = match text {
        Some(text) => {
            let state = shared.lock();
            let key = state.account.self_key.as_ref().ok_or(ClientError::NotReady)?;
            let aad = label_aad(state.account.me.user_id, session_id);
            Some(Blob::from(self_key::seal(key, Purpose::Label, &aad, text.as_bytes())?))
        }
        None => None,
    };
    expect_reply!(shared.call(Request::SetLabel(SetLabel { session_id, label })).await??, Done)?;
    Ok(())
}

/// Lists the user's sessions with their names.
pub(crate) async fn list(shared: &Shared) -> Result<OwnSessions, ClientError> {
    let listed = devices::list(shared).await?;
    let state = shared.lock();
    let sessions = listed.sessions.into_iter().map(|info| opened(&state.account, info)).collect();
    Ok(OwnSessions { sessions, pending: listed.pending })
}

fn opened(account: &Account, info: SessionInfo) -> OwnSession {
    let session_id = info.certificate.certificate.session_id;
    let open = |label: &Blob| {
        let aad = label_aad(account.me.user_id, session_id);
        let text = self_key::open(account.self_key.as_ref()?, Purpose::Label, &aad, label.as_ref()).ok()?;
        String::from_utf8(text).ok()
    };
    let label = info.label.as_ref().and_then(open);
    if info.label.is_some() && label.is_none() {
        tracing::warn!(session.id = %session_id, "name of a session does not open");
    }
    OwnSession { certificate: info.certificate, state: info.state, last_seen_at: info.last_seen_at, label }
}
