//! Seals a group key to the recovery key of the next generation, and opens it with that one's group key.

use super::error::{OpenError, SealError};
use super::group_key::{GroupKey, RecoverySecret};
use super::keypair::SessionSecrets;
use super::wrap;
use crate::protocol::binary::Signature;
use crate::protocol::generation_link::{GenerationLink, generation_link_aad};
use crate::protocol::group_key::RecoveryKey;
use crate::protocol::ids::{ChatId, SessionId};

/// The `info` of HPKE for a group key that is sealed to the recovery key of the next generation.
pub const GENERATION_LINK_INFO: &[u8] = b"sealcast/hpke/generation-link";

/// Seals a group key to the recovery key of the next generation, signed by the session that seals.
///
/// # Errors
/// [`SealError::UnsoundKey`] if the recovery key is.
pub fn seal(
    before: &GroupKey,
    chat_id: ChatId,
    next: &RecoveryKey,
    (linked_by_session_id, secrets): (SessionId, &SessionSecrets),
) -> Result<GenerationLink, SealError> {
    let generation = next.generation;
    let aad = generation_link_aad(chat_id, generation, linked_by_session_id);
    let key = wrap::wrap(&next.public_key, GENERATION_LINK_INFO, &aad, before.expose())?;
    let mut link = GenerationLink { generation, key, linked_by_session_id, signature: Signature([0; 64]) };
    link.signature = secrets.sign(&link.signed_bytes(chat_id));
    Ok(link)
}

/// Opens a link; whether it is the group key of the generation before, the recovery key in the log says.
///
/// # Errors
/// [`OpenError`], whatever is wrong.
pub fn open(link: &GenerationLink, chat_id: ChatId, recovery: &RecoverySecret) -> Result<GroupKey, OpenError> {
    let aad = generation_link_aad(chat_id, link.generation, link.linked_by_session_id);
    recovery.unwrap(GENERATION_LINK_INFO, &aad, &link.key).map(GroupKey::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::ExchangeKey;
    use crate::protocol::ids::GenerationNo;

    #[test]
    fn p8_a_link_opens_with_its_generation_in_its_place_alone_and_names_who_made_it() {
        let (before, after, maker) = (GroupKey::generate(), GroupKey::generate(), SessionSecrets::generate());
        let (chat, by) = (ChatId::generate(), SessionId::generate());
        let next = RecoveryKey { generation: GenerationNo::saturating(3), public_key: after.recovery().public_key() };
        let link = seal(&before, chat, &next, (by, &maker)).unwrap();
        assert_eq!(link.before(), GenerationNo::saturating(2));
        assert_eq!(open(&link, chat, &after.recovery()), Ok(before.clone()));
        assert!(link.verifies(chat, &maker.signing_public_key()));
        assert!(!link.verifies(ChatId::generate(), &maker.signing_public_key()));
        assert_eq!(open(&link, ChatId::generate(), &after.recovery()), Err(OpenError));
        assert_eq!(open(&link, chat, &before.recovery()), Err(OpenError), "who has the older one gets nothing");
        let changes: [fn(&mut GenerationLink); 3] = [
            |link| link.generation = GenerationNo::saturating(4),
            |link| link.linked_by_session_id = SessionId::generate(),
            |link| link.key.0[40] ^= 1,
        ];
        for change in changes {
            let mut changed = link.clone();
            change(&mut changed);
            assert_eq!(open(&changed, chat, &after.recovery()), Err(OpenError));
            assert!(!changed.verifies(chat, &maker.signing_public_key()));
        }
        let unsound = RecoveryKey { public_key: ExchangeKey([0; 32]), ..next };
        assert_eq!(seal(&before, chat, &unsound, (by, &maker)), Err(SealError::UnsoundKey));
    }
}
