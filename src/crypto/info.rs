//! Seals what a chat is called under its info key, signed by the session that saves it.

use super::cipher;
use super::error::{OpenError, SealError};
use super::keypair::SessionSecrets;
use super::name;
use super::secret::Secret;
use crate::protocol::binary::{Blob, Signature};
use crate::protocol::ids::{ChatId, InfoKeyId, Revision, Seq, SessionId};
use crate::protocol::info::{SealedInfo, SignedInfo, chat_description_aad};
use crate::protocol::keys::{SealedName, chat_name_aad};

/// What a chat is called, in plain.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PlainInfo {
    /// The name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<String>,
}

/// Prints no word of it (P12).
impl std::fmt::Debug for PlainInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainInfo")
    }
}

/// A revision and the key it is sealed under.
#[derive(Debug, Clone, Copy)]
pub struct InfoPlace {
    /// The chat.
    pub chat_id: ChatId,
    /// The revision.
    pub revision: Revision,
    /// The info key.
    pub key_id: InfoKeyId,
    /// The newest entry that the key's maker had folded.
    pub key_seq: Seq,
}

/// Seals and signs; lengths show in the ciphertexts'.
///
/// # Errors
/// [`SealError::Cipher`] if the library refuses a length.
pub fn seal(
    secret: &Secret,
    place: InfoPlace,
    plain: &PlainInfo,
    (session_id, secrets): (SessionId, &SessionSecrets),
) -> Result<SignedInfo, SealError> {
    let InfoPlace { chat_id, revision, key_id, key_seq } = place;
    let key = name::key(secret);
    let sealed = |text: &Option<String>, aad: Vec<u8>| match text {
        Some(text) => cipher::seal(&key, &aad, text.as_bytes()).map(|data| Some(Blob::from(data))),
        None => Ok(None),
    };
    let name = sealed(&plain.name, chat_name_aad(chat_id, key_id))?;
    let description = sealed(&plain.description, chat_description_aad(chat_id, key_id))?;
    let info = SealedInfo { revision, key_id, key_seq, session_id, name, description };
    let signature: Signature = secrets.sign(&info.signed_bytes(chat_id));
    Ok(SignedInfo { info, signature })
}

/// Opens what was sealed; its signature is checked by whoever knows the session.
///
/// # Errors
/// [`OpenError`], whatever is wrong, text that is not UTF-8 too.
pub fn open(secret: &Secret, chat_id: ChatId, info: &SealedInfo) -> Result<PlainInfo, OpenError> {
    let open_name = |data: &Blob| name::open(secret, chat_id, &SealedName { key_id: info.key_id, data: data.clone() });
    let open_description = |data: &Blob| {
        let opened = cipher::open(&name::key(secret), &chat_description_aad(chat_id, info.key_id), data.as_ref())?;
        String::from_utf8(opened).map_err(|_| OpenError)
    };
    Ok(PlainInfo {
        name: info.name.as_ref().map(open_name).transpose()?,
        description: info.description.as_ref().map(open_description).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_name_and_description_open_in_their_chat_and_place_alone() {
        let (secret, secrets, session_id) = (Secret::generate(), SessionSecrets::generate(), SessionId::generate());
        let place = InfoPlace {
            chat_id: ChatId::generate(),
            revision: Revision::saturating(1),
            key_id: InfoKeyId::generate(),
            key_seq: Seq::saturating(2),
        };
        let plain = PlainInfo { name: Some("Grüße".to_owned()), description: Some("an alle".to_owned()) };
        let signed = seal(&secret, place, &plain, (session_id, &secrets)).unwrap();
        assert_eq!(open(&secret, place.chat_id, &signed.info), Ok(plain));
        assert_eq!(open(&secret, ChatId::generate(), &signed.info), Err(OpenError));
        assert_eq!(open(&Secret::generate(), place.chat_id, &signed.info), Err(OpenError));
        let mut swapped = signed.info;
        std::mem::swap(&mut swapped.name, &mut swapped.description);
        assert_eq!(open(&secret, place.chat_id, &swapped), Err(OpenError), "a description is no name");
        assert_eq!(format!("{:?}", PlainInfo { name: Some("x".to_owned()), description: None }), "PlainInfo");
    }
}
