//! Backups of sessions' keys by the bare protocol.

use sealcast::protocol::backup::SessionKeyBackup;
use sealcast::protocol::binary::{ExchangeKey, Hash, Signature, WrappedKey};
use sealcast::protocol::certificate::SignedCertificate;
use sealcast::protocol::frame::{self, Backups, BackupsStored, Nothing, Reply, Request, UploadBackups};
use sealcast::protocol::ids::{Place, SessionId};

use super::device::{Device, Socket, exchange_key, sign};

impl Device {
    /// This session's certificate for a place of the chain over another X25519 key, and that key's private half.
    pub fn replacement(&self, place: Place, previous: Hash) -> (SignedCertificate, [u8; 32]) {
        let (exchange, public_key) = exchange_key();
        let mut renewed = self.certificate.clone();
        renewed.certificate.place = place;
        renewed.certificate.previous = previous;
        renewed.certificate.public_key = public_key;
        renewed.signature = sign(&self.identity, &renewed.certificate.signed_bytes());
        (renewed, exchange)
    }

    /// A backup of a session's key that nobody can open, for another session.
    pub fn backup(&self, of: (SessionId, ExchangeKey), recipient: SessionId) -> SessionKeyBackup {
        let mut backup = SessionKeyBackup {
            session_id: recipient,
            backed_up_session_id: of.0,
            backed_up_user_id: self.user_id,
            backed_up_public_key: of.1,
            key: WrappedKey([7; 80]),
            wrapped_by_session_id: self.session_id,
            signature: Signature([0; 64]),
        };
        self.sign_backup(&mut backup);
        backup
    }

    /// Signs a backup with this session's key.
    pub fn sign_backup(&self, backup: &mut SessionKeyBackup) {
        backup.signature = sign(&self.signing, &backup.signed_bytes());
    }

    /// This session and its X25519 key as its certificate has them.
    pub const fn own_key(&self) -> (SessionId, ExchangeKey) {
        (self.session_id, self.certificate.certificate.public_key)
    }
}

/// Uploads backups.
pub async fn upload(
    socket: &mut Socket,
    session_id: SessionId,
    backups: Vec<SessionKeyBackup>,
) -> Result<BackupsStored, frame::Error> {
    match socket.request(Request::UploadBackups(UploadBackups { session_id, backups })).await? {
        Reply::BackupsStored(stored) => Ok(stored),
        other => panic!("{other:?}"),
    }
}

/// What the session of a socket was handed.
pub async fn fetch(socket: &mut Socket) -> Vec<SessionKeyBackup> {
    match socket.request(Request::FetchBackups(Nothing {})).await.unwrap() {
        Reply::Backups(Backups { backups }) => backups,
        other => panic!("{other:?}"),
    }
}
