//! What a log says to who follows it: the real [`ChatFold`], remembered for each log that came about.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use sealcast::protocol::binary::Hash;
use sealcast::protocol::fold::{ChatFold, FoldError};
use sealcast::protocol::ids::{ChangeNo, ChatId, Epoch, Seq, Timestamp};
use sealcast::protocol::log::{EntryBody, log_hash};
use uuid::Uuid;

use super::people::session_of;
use super::set::Set;

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

    /// The fold with the next entry, or why those who follow the log refuse it. `is_forgotten`: the rule is dropped by
    /// which this entry raises the epoch, and both ends have one code for it.
    pub fn next(
        &self,
        seq: Seq,
        created_at: Timestamp,
        body: &EntryBody,
        is_forgotten: bool,
    ) -> Result<Arc<Self>, FoldError> {
        let chat_id = self.fold.chat_id();
        let rules = if is_forgotten { ChatId(Uuid::nil()) } else { chat_id };
        let id = log_hash(rules, &self.id, seq, created_at, &body.digest(chat_id));
        if let Some(known) = KNOWN.lock().unwrap().get(&id) {
            return known.clone();
        }
        let mut fold = self.fold.clone();
        let next = fold.apply(seq, created_at, body);
        if is_forgotten {
            fold = with_epoch(&fold, self.fold.epoch());
        }
        let next = next.map(|()| Arc::new(Self { fold, id }));
        KNOWN.lock().unwrap().insert(id, next.clone());
        next
    }

    pub fn recipients(&self) -> Set {
        Set::of(self.fold.recipients().keys().map(|id| session_of(*id)))
    }
}

/// The same fold, but for its epoch.
fn with_epoch(fold: &ChatFold, epoch: Epoch) -> ChatFold {
    let mut stored = serde_json::to_value(fold).unwrap();
    stored["epoch"] = epoch.get().into();
    serde_json::from_value(stored).unwrap()
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
}
