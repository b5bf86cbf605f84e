//! Seals read marks for the user's own devices: other members see that there is one, and not what it says.

use super::body::Body;
use crate::crypto::self_key::{self, Purpose};
use crate::crypto::{SealError, Secret};
use crate::protocol::binary::Blob;
use crate::protocol::canonical::{Canonical, label};
use crate::protocol::ids::{ChatId, Seq, UserId};

/// Seals a read mark: the seq as 8 bytes big-endian, so that all of them have one length.
pub(super) fn seal(self_key: &Secret, chat_id: ChatId, user_id: UserId, read_seq: Seq) -> Result<Body, SealError> {
    let content = read_seq.get().to_be_bytes();
    let sealed = self_key::seal(self_key, Purpose::Receipt, &aad(chat_id, user_id), &content)?;
    Ok(Body::SealedReceipt { sealed: Blob::from(sealed) })
}

/// Opens a read mark of this user's; none if it does not open or is none.
pub(super) fn open(self_key: &Secret, chat_id: ChatId, user_id: UserId, sealed: &Blob) -> Option<Seq> {
    let content = self_key::open(self_key, Purpose::Receipt, &aad(chat_id, user_id), sealed.as_ref()).ok()?;
    Seq::new(u64::from_be_bytes(content.try_into().ok()?)).ok()
}

fn aad(chat_id: ChatId, user_id: UserId) -> Vec<u8> {
    Canonical::new(label::AAD_RECEIPT).id(chat_id.0).id(user_id.0).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_mark_opens_for_its_user_in_its_chat_alone() {
        let (key, chat, user) = (Secret::generate(), ChatId::generate(), UserId::generate());
        let Body::SealedReceipt { sealed } = seal(&key, chat, user, Seq::saturating(77)).unwrap() else { panic!() };
        assert_eq!(open(&key, chat, user, &sealed), Some(Seq::saturating(77)));
        assert_eq!(open(&Secret::generate(), chat, user, &sealed), None);
        assert_eq!(open(&key, ChatId::generate(), user, &sealed), None);
        assert_eq!(open(&key, chat, UserId::generate(), &sealed), None);
    }
}
