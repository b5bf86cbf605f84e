//! What a log says, folded a second time by rules written down here alone: neither broker nor client uses them.
//!
//! Signatures are not looked at: in a simulated world nobody forges.

use std::collections::{BTreeMap, BTreeSet};

use sealcast::protocol::binary::{ExchangeKey, Hash};
use sealcast::protocol::fold::roster_hash;
use sealcast::protocol::ids::{ChatId, SessionId, Timestamp, UserId};
use sealcast::protocol::log::{EntryBody, LogEntry, log_start};
use sealcast::protocol::membership::{Change, chain_start};

#[derive(Debug, Clone, Copy)]
pub struct Rights {
    pub can_write: bool,
    pub can_manage: bool,
}

#[derive(Debug, Clone)]
pub struct Fold {
    pub chat_id: ChatId,
    pub seq: u64,
    pub log_hash: Hash,
    pub last_at: Timestamp,
    pub epoch: u64,
    pub owner: Option<UserId>,
    pub members: BTreeMap<UserId, Rights>,
    pub recipients: BTreeMap<SessionId, UserId>,
    /// Where sessions were taken out that have not come back.
    pub gone: BTreeMap<SessionId, u64>,
    /// From where to where users were members, both ends included.
    pub spans: BTreeMap<UserId, Vec<(u64, Option<u64>)>>,
    pub change_no: u64,
    pub change_hash: Hash,
}

/// The key to which copies for a session would be wrapped: told from its id, for nothing is encrypted here.
pub fn exchange_key(session_id: SessionId) -> ExchangeKey {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(session_id.as_bytes());
    ExchangeKey(bytes)
}

impl Fold {
    pub fn new(chat_id: ChatId) -> Self {
        Self {
            chat_id,
            seq: 0,
            log_hash: log_start(chat_id),
            last_at: Timestamp::default(),
            epoch: 1,
            owner: None,
            members: BTreeMap::new(),
            recipients: BTreeMap::new(),
            gone: BTreeMap::new(),
            spans: BTreeMap::new(),
            change_no: 0,
            change_hash: chain_start(chat_id),
        }
    }

    /// The log up to and with a place.
    pub fn of(chat_id: ChatId, log: &[LogEntry], up_to: u64) -> Self {
        let mut fold = Self::new(chat_id);
        log.iter().take(up_to as usize).for_each(|entry| fold.apply(entry));
        fold
    }

    pub fn apply(&mut self, entry: &LogEntry) {
        self.seq = entry.seq.get();
        self.log_hash = entry.log_hash;
        self.last_at = entry.created_at;
        match &entry.body {
            EntryBody::Message(_) => {}
            EntryBody::Membership(signed) => {
                self.change_no = signed.change.n.get();
                self.change_hash = signed.chain_hash(self.chat_id);
                self.change(&signed.change.change, signed.change.target.user_id);
            }
            EntryBody::SessionIn(signed) => {
                self.recipients.insert(signed.certificate.session_id, signed.certificate.user_id);
                self.gone.remove(&signed.certificate.session_id);
            }
            EntryBody::SessionOut(out) => {
                self.recipients.remove(&out.session_id());
                self.gone.insert(out.session_id(), self.seq);
                self.epoch += 1;
            }
            EntryBody::AccountDeleted(signed) => self.take_out(signed.deletion.user_id),
            EntryBody::AccountRemoved { user_id } => self.take_out(*user_id),
            // Nobody in it has a user key.
            EntryBody::UserKey(_) | EntryBody::Generation(_) | EntryBody::GenerationRefused(_) => {}
        }
    }

    fn change(&mut self, change: &Change, target: UserId) {
        match change {
            Change::Create => {
                self.owner = Some(target);
                self.members.insert(target, Rights { can_write: true, can_manage: true });
                self.spans.entry(target).or_default().push((self.seq, None));
            }
            Change::Add { can_write, can_manage, .. } => {
                let rights = Rights { can_write: *can_write, can_manage: *can_manage };
                self.members.insert(target, rights);
                self.spans.entry(target).or_default().push((self.seq, None));
                self.epoch += 1;
            }
            Change::Remove | Change::Leave => self.take_out(target),
            Change::SetRights { can_write, can_manage } => {
                if let Some(rights) = self.members.get_mut(&target) {
                    (rights.can_write, rights.can_manage) = (*can_write, *can_manage);
                }
            }
            Change::Transfer => {
                self.owner = Some(target);
                if let Some(rights) = self.members.get_mut(&target) {
                    (rights.can_write, rights.can_manage) = (true, true);
                }
            }
            Change::Rekey | Change::SetHistory { .. } => self.epoch += 1,
            Change::Delete => {}
        }
    }

    fn take_out(&mut self, user_id: UserId) {
        self.members.remove(&user_id);
        if let Some((_, to)) = self.spans.get_mut(&user_id).and_then(|spans| spans.last_mut()) {
            *to = Some(self.seq);
        }
        self.recipients.retain(|_, user| *user != user_id);
        self.epoch += 1;
    }

    pub fn roster_hash(&self) -> Hash {
        let sessions: BTreeSet<SessionId> = self.recipients.keys().copied().collect();
        roster_hash(sessions.into_iter().map(|session_id| (session_id, exchange_key(session_id))), None)
    }
}
