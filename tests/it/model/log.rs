//! What a log says to who follows it: the real [`ChatFold`], remembered for each log that came about.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use sealcast::protocol::binary::Hash;
use sealcast::protocol::fold::{ChatFold, FoldError};
use sealcast::protocol::group_key::UserKeyEntry;
use sealcast::protocol::ids::{ChangeNo, ChatId, Epoch, GenerationNo, Seq, Timestamp};
use sealcast::protocol::log::{EntryBody, SessionOut, log_hash};
use sealcast::protocol::membership::Change;
use uuid::Uuid;

use super::people::session_of;
use super::rules::Rule;
use super::set::Set;
use super::user_keys::{UserKeyName, name_of};

/// What is forgotten of an entry's effect where a rule is dropped: at both ends, for they have one code for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    Nothing,
    /// That it raises the epoch.
    Epoch,
    /// That the next generation is due.
    Generation,
}

impl Forgotten {
    /// `has_user_key`: the log showed a user key of the entry's user before.
    pub fn of(body: &EntryBody, has_user_key: bool, dropped: Option<Rule>) -> Self {
        let (raises_epoch, outdates) = match body {
            EntryBody::SessionOut(SessionOut::Expired { .. }) => (Rule::ExpiryRaisesEpoch, Rule::MakerOutdates),
            EntryBody::SessionOut(SessionOut::Revoked(_)) => (Rule::RevocationRaisesEpoch, Rule::MakerOutdates),
            EntryBody::Membership(signed) => match signed.change.change {
                Change::Add { .. } => (Rule::AdditionRaisesEpoch, Rule::AdditionOutdates),
                _ => (Rule::RemovalRaisesEpoch, Rule::RemovalOutdates),
            },
            EntryBody::UserKey(UserKeyEntry::Withdrawn(_)) => (Rule::UserKeyRaisesEpoch, Rule::WithdrawalOutdates),
            EntryBody::UserKey(_) if has_user_key => (Rule::UserKeyRaisesEpoch, Rule::AnotherKeyOutdates),
            EntryBody::UserKey(_) => (Rule::UserKeyRaisesEpoch, Rule::FirstKeyOutdates),
            _ => return Self::Nothing,
        };
        match dropped {
            Some(rule) if rule == raises_epoch => Self::Epoch,
            Some(rule) if rule == outdates => Self::Generation,
            _ => Self::Nothing,
        }
    }
}

/// The fold of all entries up to a place. Messages change nothing in it and are left out.
#[derive(Debug)]
pub struct Folded {
    pub fold: ChatFold,
    /// Of the entries and their places: the same for the same fold.
    id: Hash,
}

type Known = Mutex<HashMap<Hash, Result<Arc<Folded>, FoldError>>>;

static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

impl Folded {
    pub fn begin(chat_id: ChatId, body: &EntryBody) -> Arc<Self> {
        Arc::new(Self { fold: ChatFold::begin(chat_id, body).unwrap(), id: body.digest(chat_id) })
    }

    /// The fold with the next entry, or why those who follow the log refuse it.
    pub fn next(
        &self,
        seq: Seq,
        created_at: Timestamp,
        body: &EntryBody,
        forgotten: Forgotten,
    ) -> Result<Arc<Self>, FoldError> {
        let chat_id = self.fold.chat_id();
        let rules = match forgotten {
            Forgotten::Nothing => chat_id,
            Forgotten::Epoch => ChatId(Uuid::nil()),
            Forgotten::Generation => ChatId(Uuid::max()),
        };
        let id = log_hash(rules, &self.id, seq, created_at, &body.digest(chat_id));
        if let Some(known) = KNOWN.lock().unwrap().get(&id) {
            return known.clone();
        }
        let mut fold = self.fold.clone();
        let next = fold.apply(seq, created_at, body);
        match forgotten {
            Forgotten::Nothing => {}
            Forgotten::Epoch => fold = keeping("epoch", &self.fold, &fold),
            Forgotten::Generation => fold = keeping("is_outdated", &self.fold, &fold),
        }
        let next = next.map(|()| Arc::new(Self { fold, id }));
        KNOWN.lock().unwrap().insert(id, next.clone());
        next
    }

    pub fn recipients(&self) -> Set {
        Set::of(self.fold.recipients().keys().map(|id| session_of(*id)))
    }

    /// The members' user keys.
    pub fn user_keys(&self) -> BTreeSet<UserKeyName> {
        self.fold.member_keys().values().map(name_of).collect()
    }
}

/// The fold, but for one thing, which is as it was before.
fn keeping(what: &str, before: &ChatFold, fold: &ChatFold) -> ChatFold {
    let [mut before, mut fold] = [before, fold].map(|fold| serde_json::to_value(fold).unwrap());
    fold[what] = before[what].take();
    serde_json::from_value(fold).unwrap()
}

/// What a session knows that has followed the log up to a place: from this it makes keys, messages and changes, which
/// may come in at any later time.
#[derive(Debug, Clone)]
pub struct View {
    pub seq: Seq,
    pub log_hash: Hash,
    pub folded: Arc<Folded>,
}

impl View {
    pub fn recipients(&self) -> Set {
        self.folded.recipients()
    }

    pub fn epoch(&self) -> Epoch {
        self.folded.fold.epoch()
    }

    pub fn change_no(&self) -> ChangeNo {
        self.folded.fold.membership().head
    }

    /// The generation whose recovery key receives beside the sessions.
    pub fn generation(&self) -> Option<GenerationNo> {
        self.folded.fold.recovery_key().map(|key| key.generation)
    }
}
