//! Generations of a chat's group key: what is signed of them, and how the modelled database judges them under the lock
//! of the chat's row, as `make_generation` and `refuse_generation` of the store do.
//!
//! Both lock that row alone and judge by what they read after it, so each is one step.

use std::collections::BTreeSet;

use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::group_key::{
    Generation, GenerationRefusal, GroupKeyWrap, SignedGeneration, SignedGenerationRefusal, member_keys_hash,
    wraps_hash,
};
use sealcast::protocol::ids::GenerationNo;
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::strongbox::PublicUserKey;

use super::people::{Chat, NOW, Session, chat_id, public_half, session_id, sign_as, user_of};
use super::rules::Rule;
use super::store::{Refused, Store};
use super::transactions::Outcome;
use super::user_keys::{UserKeyName, user_key};

/// A generation as a session makes it that has followed the log up to one view, and wraps it to the user keys of that view
/// or, where it is up to no good, of one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Making {
    pub chat: Chat,
    pub session: Session,
    pub stated: usize,
    pub wrapped: usize,
}

/// The rows of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GenerationRow {
    /// The session that knows it since it made it.
    pub maker: Session,
    /// The user keys that open it.
    pub wraps: BTreeSet<UserKeyName>,
}

/// What a session asks for.
struct Made {
    signed: SignedGeneration,
    wraps: Vec<GroupKeyWrap>,
}

impl Making {
    /// The request, if a generation was due at that view.
    fn request(self, store: &Store) -> Option<Made> {
        let views = &store.chats[self.chat].views;
        let fold = &views[self.stated].folded.fold;
        let number = fold.generation_due()?;
        let wraps: Vec<GroupKeyWrap> = views[self.wrapped].folded.fold.member_keys().values().map(wrap).collect();
        let generation = Generation {
            number,
            session_id: session_id(self.session),
            change_no: fold.membership().head,
            member_keys_hash: member_keys_hash(fold.member_keys().values()),
            public_key: public_half([120 + self.session as u8, number.get() as u8]),
            wraps_hash: wraps_hash(&wraps),
        };
        let signature = sign_as(self.session, generation.signed_bytes(chat_id(self.chat)));
        Some(Made { signed: SignedGeneration { generation, signature }, wraps })
    }
}

fn wrap(key: &PublicUserKey) -> GroupKeyWrap {
    GroupKeyWrap { user_id: key.user_id, key_id: key.key_id, key: WrappedKey([0; 80]) }
}

impl Store {
    /// Makes a generation.
    pub fn make_generation(&mut self, making: Making, dropped: Option<Rule>) -> Outcome {
        let Making { chat, session, wrapped, .. } = making;
        let Some(made) = making.request(self).filter(|made| self.is_good(chat, made, dropped)) else {
            return Outcome::Refused;
        };
        if !self.may_change_generation(chat, session) {
            return Outcome::Refused;
        }
        let number = made.signed.generation.number.get();
        let wraps = self.chats[chat].views[wrapped].folded.user_keys();
        let result = self.append(chat, NOW, EntryBody::Generation(made.signed), dropped);
        self.chats[chat].generations.insert(number, GenerationRow { maker: session, wraps });
        self.seal(chat);
        Outcome::Committed(result)
    }

    /// Whether a generation is the one that is due, for the newest membership change and the user keys of now alone.
    fn is_good(&self, chat: Chat, made: &Made, dropped: Option<Rule>) -> bool {
        let row = &self.chats[chat];
        let keys: Vec<PublicUserKey> = row.shown.iter().map(|(user, number)| user_key((*user, *number))).collect();
        let generation = &made.signed.generation;
        let is_due = row.head.generation_due(keys.len()) == Some(generation.number);
        let is_current = generation.change_no == row.head.change_no
            && generation.member_keys_hash == member_keys_hash(keys.iter())
            || dropped == Some(Rule::GenerationIsJudged);
        let are_for = made
            .wraps
            .iter()
            .map(|wrap| (wrap.user_id, wrap.key_id))
            .eq(keys.iter().map(|key| (key.user_id, key.key_id)))
            || matches!(dropped, Some(Rule::GenerationIsJudged | Rule::WrapsAreCounted));
        is_due && is_current && are_for
    }

    fn may_change_generation(&self, chat: Chat, session: Session) -> bool {
        self.may_act(session) && self.is_member(chat, user_of(session)) && !self.expiry_due(chat)
    }

    /// Takes a session's word that the current generation is bad.
    pub fn refuse_generation(&mut self, chat: Chat, session: Session, dropped: Option<Rule>) -> Outcome {
        let current = self.chats[chat].head.recovery_key().filter(|_| self.may_change_generation(chat, session));
        let Some(current) = current else { return Outcome::Refused };
        let refusal = GenerationRefusal { number: current.generation, session_id: session_id(session) };
        let signature = sign_as(session, refusal.signed_bytes(chat_id(chat)));
        let body = EntryBody::GenerationRefused(SignedGenerationRefusal { refusal, signature });
        let result = self.append(chat, NOW, body, dropped);
        self.seal(chat);
        Outcome::Committed(result)
    }

    /// The generation that is due, by the tables.
    pub fn generation_due(&self, chat: Chat) -> Option<GenerationNo> {
        let row = &self.chats[chat];
        row.head.generation_due(row.shown.len())
    }

    /// The chat as an honest session leaves it that is to send: with the generation made that is due.
    pub fn with_generation(&self, chat: Chat, session: Session, dropped: Option<Rule>) -> Result<Self, Refused> {
        let mut store = self.clone();
        let newest = store.chats[chat].views.len() - 1;
        match store.make_generation(Making { chat, session, stated: newest, wrapped: newest }, dropped) {
            Outcome::Committed(result) => result.map(|()| store),
            Outcome::Refused => Err("the generation that is due is refused".to_owned()),
        }
    }
}
