//! Seals what a live session gives to a new one of the same user.
//!
//! HPKE to the new session, the link code's secret in its `info`: a server that does not know the code can
//! neither open a hand-over nor make one. The approving session's id goes before it in clear.

use super::error::{OpenError, SealError};
use super::hpke;
use super::keypair::SessionSecrets;
use super::link_code::LinkCode;
use crate::protocol::binary::{Blob, ExchangeKey};
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::ids::{SessionId, UserId};

/// The label of the `info` of HPKE.
const INFO_LABEL: &str = "sealcast/hpke/handover";

/// Seals a hand-over: approving session (16 bytes), encapsulated key (32), ciphertext, tag (16).
///
/// # Errors
/// [`SealError::UnsoundKey`] if the new session's key is.
pub fn seal(
    code: &LinkCode,
    user_id: UserId,
    approved_by: SessionId,
    recipient: (SessionId, &ExchangeKey),
    content: &[u8],
) -> Result<Blob, SealError> {
    let (session_id, public_key) = recipient;
    let sealed = hpke::seal(public_key, &info(code), &aad(user_id, approved_by, session_id), content)?;
    let mut blob = Vec::with_capacity(16 + sealed.len());
    blob.extend_from_slice(approved_by.as_bytes());
    blob.extend_from_slice(&sealed);
    Ok(Blob::from(blob))
}

/// Opens a hand-over; its first field says which session approved.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(
    code: &LinkCode,
    user_id: UserId,
    recipient: (SessionId, &SessionSecrets),
    blob: &Blob,
) -> Result<(SessionId, Vec<u8>), OpenError> {
    let (session_id, secrets) = recipient;
    let (approved_by, sealed) = blob.as_ref().split_first_chunk::<16>().ok_or(OpenError)?;
    let approved_by = SessionId(uuid::Uuid::from_bytes(*approved_by));
    let content = hpke::open(secrets, &info(code), &aad(user_id, approved_by, session_id), sealed)?;
    Ok((approved_by, content))
}

fn info(code: &LinkCode) -> Vec<u8> {
    Canonical::new(INFO_LABEL).bytes(code.handover_secret().expose()).finish()
}

fn aad(user_id: UserId, approved_by: SessionId, session_id: SessionId) -> Vec<u8> {
    Canonical::new(label::AAD_HANDOVER).id(user_id.0).id(approved_by.0).id(session_id.0).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_opens_under_its_code_for_its_session_alone() {
        let (code, secrets) = (LinkCode::generate(), SessionSecrets::generate());
        let (user, by, to) = (UserId::generate(), SessionId::generate(), SessionId::generate());
        let blob = seal(&code, user, by, (to, &secrets.public_key()), b"content").unwrap();
        assert_eq!(open(&code, user, (to, &secrets), &blob), Ok((by, b"content".to_vec())));
        assert_eq!(open(&LinkCode::generate(), user, (to, &secrets), &blob), Err(OpenError));
        assert_eq!(open(&code, UserId::generate(), (to, &secrets), &blob), Err(OpenError));
        assert_eq!(open(&code, user, (SessionId::generate(), &secrets), &blob), Err(OpenError));
        assert_eq!(open(&code, user, (to, &SessionSecrets::generate()), &blob), Err(OpenError));
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.as_ref().to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&code, user, (to, &secrets), &Blob::from(flipped)), Err(OpenError), "bit {bit}");
        }
    }
}
