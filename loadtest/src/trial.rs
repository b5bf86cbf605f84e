//! Tries, after the end, what removed sessions could still read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::anyhow;
use sealcast::protocol::ids::{ChatId, SessionId};

use crate::churn::User;
use crate::hoard::Hoard;
use crate::mixed::{Run, devices};
use crate::probe::{self, Probe};
use crate::recorder::Removal;

/// How the trial of the keys of removed sessions went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Control {
    /// Removals of sessions that were looked at.
    pub(crate) removals: u64,
    /// Keys that the removed sessions had held.
    pub(crate) keys: u64,
    /// Entries from before the removals that these keys opened: shows that the trial can open something.
    pub(crate) opened_before: u64,
    /// Sessions whose keys opened something of before.
    pub(crate) able: u64,
    /// Sessions that had received messages, and whose kept keys open none of them: removed before their client kept
    /// anything, so the trial says nothing of them.
    pub(crate) unable: u64,
    /// Copies of keys of later entries that the server gave to a removed session.
    pub(crate) copies_given: u64,
}

impl Run {
    /// Every removed session asks the server once more, and tries every key that it ever held on every later entry.
    pub(crate) async fn probe(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> anyhow::Result<Control> {
        let mut control = Control::default();
        let Some(address) = self.url.strip_prefix("http://") else { return Ok(control) };
        let hoards: HashMap<SessionId, &Hoard> =
            devices(users).map(|device| (device.session_id, &*device.hoard)).collect();
        let mut by_chat: BTreeMap<ChatId, Vec<Removal>> = BTreeMap::new();
        for removal in self.load.recorder.removals() {
            by_chat.entry(removal.chat_id).or_default().push(removal);
        }
        for (chat_id, removals) in by_chat {
            let owner = owners.get(&chat_id).and_then(|owner| users.get(*owner)).and_then(|user| user.devices.first());
            let owner = owner.ok_or_else(|| anyhow!("a chat without an owner"))?;
            let mut member = Probe::open(address, &owner.hoard.session()?).await?;
            let log = member.log_after(chat_id, 0).await?;
            member.close().await;
            for removal in removals {
                let hoard = hoards.get(&removal.session_id).ok_or_else(|| anyhow!("a session without a keyring"))?;
                let held = hoard.sender_keys(chat_id)?;
                control.removals += 1;
                control.keys += held.len() as u64;
                let mut later_keys = BTreeSet::new();
                let mut is_able = false;
                for entry in &log {
                    let seq = entry.seq.get();
                    if seq > removal.seq {
                        self.load.recorder.peek(removal.session_id, chat_id, seq, probe::opens(chat_id, entry, &held));
                        later_keys.extend(probe::key_of(entry));
                    } else if seq > removal.member && probe::opens(chat_id, entry, &held) {
                        is_able = true;
                        control.opened_before += 1;
                    }
                }
                control.able += u64::from(is_able);
                control.unable += u64::from(removal.received > 0 && !is_able);
                let later_keys: Vec<_> = later_keys.into_iter().collect();
                let mut thief = Probe::open(address, &hoard.session()?).await?;
                let (given, copies) = thief.beg(chat_id, removal.seq, &later_keys).await?;
                thief.close().await;
                for seq in given {
                    self.load.recorder.peek(removal.session_id, chat_id, seq, true);
                }
                control.copies_given += copies as u64;
            }
        }
        Ok(control)
    }
}
