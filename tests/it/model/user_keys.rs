//! Users' keys: in the modelled strongboxes, as the logs of chats show them, and what is signed of them.

use sealcast::protocol::group_key::{SignedWithdrawal, UserKeyEntry, Withdrawal};
use sealcast::protocol::ids::{Timestamp, UserKeyId};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::strongbox::{PublicUserKey, user_key_bytes};
use uuid::Uuid;

use super::people::{
    Chat, NOW, Session, User, public_half, revoker, sign_as_identity, sign_as_revoker, user_id, user_number,
};
use super::rules::Rule;
use super::store::{Refused, Store};

/// A user key by its user, and its number in the order in which they were made; the first is 1.
pub type UserKeyName = (User, u64);

/// What a user's strongbox says of keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UserKeys {
    /// The newest; 0 if there is none.
    pub newest: u64,
    pub is_withdrawn: bool,
    /// The newest that a session knew which was revoked; it knows all before that too.
    pub known_outside: u64,
}

impl UserKeys {
    /// The key that others wrap to.
    pub fn active(self) -> Option<u64> {
        (self.newest > 0 && !self.is_withdrawn).then_some(self.newest)
    }
}

/// Whether a session has been given what the password protects. Laptops have, phones were linked to them.
pub const fn knows_halves(session: Session) -> bool {
    session % 2 == 1
}

fn key_id((user, number): UserKeyName) -> UserKeyId {
    UserKeyId(Uuid::from_u128((0x100 * (1 + user as u128)) + u128::from(number)))
}

pub fn name_of(key: &PublicUserKey) -> UserKeyName {
    (user_number(key.user_id), (key.key_id.0.as_u128() % 0x100) as u64)
}

pub fn user_key(name: UserKeyName) -> PublicUserKey {
    let (user_id, key_id) = (user_id(name.0), key_id(name));
    let public_key = public_half([80 + name.0 as u8, name.1 as u8]);
    let signature = sign_as_identity(name.0, user_key_bytes(user_id, key_id, &public_key));
    PublicUserKey { user_id, key_id, public_key, signature }
}

fn withdrawal(name: UserKeyName, signer: Option<Session>) -> SignedWithdrawal {
    let withdrawal = Withdrawal {
        user_id: user_id(name.0),
        key_id: key_id(name),
        revoker: revoker(signer),
        created_at: Timestamp::saturating(1),
    };
    let signature = sign_as_revoker(name.0, signer, withdrawal.signed_bytes());
    SignedWithdrawal { withdrawal, signature }
}

impl Store {
    /// Gives a user's strongbox another active key, or its first.
    pub fn replace_user_key(&mut self, user: User, dropped: Option<Rule>) {
        let keys = &mut self.user_keys[user];
        let returns = keys.is_withdrawn && dropped == Some(Rule::WithdrawnStaysOut);
        keys.newest += u64::from(!returns);
        keys.is_withdrawn = false;
    }

    /// Puts a user's active key into the log of a chat that shows another or none.
    pub fn show_user_key(&mut self, chat: Chat, user: User, dropped: Option<Rule>) -> Result<(), Refused> {
        let shown = self.chats[chat].shown.get(&user).copied();
        let Some(number) = self.user_keys[user].active().filter(|number| Some(*number) != shown) else {
            return Ok(());
        };
        let entry = UserKeyEntry::Set(user_key((user, number)));
        self.append(chat, NOW, EntryBody::UserKey(entry), dropped)?;
        self.chats[chat].shown.insert(user, number);
        Ok(())
    }

    /// Takes a user's key out of the log of a chat that shows it.
    pub fn hide_user_key(
        &mut self,
        chat: Chat,
        name: UserKeyName,
        signer: Option<Session>,
        dropped: Option<Rule>,
    ) -> Result<(), Refused> {
        if self.chats[chat].shown.get(&name.0) != Some(&name.1) {
            return Ok(());
        }
        let entry = UserKeyEntry::Withdrawn(withdrawal(name, signer));
        self.append(chat, NOW, EntryBody::UserKey(entry), dropped)?;
        self.chats[chat].shown.remove(&name.0);
        Ok(())
    }
}
