//! Tries, after the end, what removed sessions could still read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::anyhow;
use sealcast::crypto::Secret;
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use sealcast::protocol::log::LogEntry;

use super::probe::{self, Probe};
use super::{Run, devices};
use crate::history::recorder::Removal;
use crate::load::churn::User;
use crate::load::hoard::Hoard;

/// Openings that are tried of one removed session with keys that an entry does not name. Above that only every so
/// many-th entry is tried with all of them, and each with the key that it names.
const OPENINGS_MAX: usize = 20_000;

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
    /// Sessions that had ended, and that the server did not let in to ask.
    pub(crate) shut_out: u64,
    /// Copies of keys of later entries that the server gave to a removed session.
    pub(crate) copies_given: u64,
}

impl Run {
    /// Every removed session asks the server once more, and tries every key that it ever held on later entries.
    pub(crate) async fn probe(&self, users: &[User], owners: &HashMap<ChatId, usize>) -> anyhow::Result<Control> {
        let mut control = Control::default();
        let Some(address) = self.url.strip_prefix("http://") else { return Ok(control) };
        let guests = self.guests.hoards();
        let mut hoards: HashMap<SessionId, &Arc<Hoard>> =
            devices(users).map(|device| (device.session_id, &device.hoard)).collect();
        for hoard in &guests {
            // One that never asked for a session has no keyring.
            hoards.extend(hoard.session().ok().map(|(session_id, _)| (session_id, hoard)));
        }
        let mut by_chat: BTreeMap<ChatId, Vec<Removal>> = BTreeMap::new();
        for removal in self.load.recorder.removals() {
            by_chat.entry(removal.chat_id).or_default().push(removal);
        }
        for (chat_id, removals) in by_chat {
            let owner = owners.get(&chat_id).and_then(|owner| users.get(*owner)).and_then(|user| user.devices.first());
            let owner = owner.ok_or_else(|| anyhow!("a chat without an owner"))?;
            let member = Probe::open(address, &owner.hoard.session()?).await?;
            let mut member = member.map_err(|code| anyhow!("an owner's login is refused: {code}"))?;
            let log = member.log_after(chat_id, 0).await?;
            member.close().await;
            for removal in removals {
                let hoard = hoards.get(&removal.session_id).ok_or_else(|| anyhow!("a session without a keyring"))?;
                self.try_keys(&removal, hoard, &log, &mut control)?;
                let later = log.iter().filter(|entry| entry.seq.get() > removal.seq);
                let later_keys: BTreeSet<KeyId> = later.filter_map(probe::key_of).collect();
                let later_keys: Vec<KeyId> = later_keys.into_iter().collect();
                match Probe::open(address, &hoard.session()?).await? {
                    Ok(mut thief) => {
                        let (given, copies) = thief.beg(chat_id, removal.seq, &later_keys).await?;
                        thief.close().await;
                        for seq in given {
                            self.load.recorder.peek(removal.session_id, chat_id, seq, true);
                        }
                        control.copies_given += copies as u64;
                    }
                    Err(_) => control.shut_out += 1,
                }
            }
        }
        Ok(control)
    }

    fn try_keys(
        &self,
        removal: &Removal,
        hoard: &Hoard,
        log: &[LogEntry],
        control: &mut Control,
    ) -> anyhow::Result<()> {
        let chat_id = removal.chat_id;
        let held: BTreeMap<KeyId, Secret> = hoard.sender_keys(chat_id)?;
        control.removals += 1;
        control.keys += held.len() as u64;
        let opens_itself = |entry: &LogEntry| {
            let named = probe::key_of(entry).and_then(|key_id| held.get(&key_id));
            named.is_some_and(|secret| probe::opens(chat_id, entry, [secret]))
        };
        let later = log.iter().filter(|entry| entry.seq.get() > removal.seq).count();
        let every = (later * held.len()).div_ceil(OPENINGS_MAX).max(1);
        let (mut number, mut is_able) = (0_usize, false);
        for entry in log {
            let seq = entry.seq.get();
            if seq > removal.seq {
                let is_open = opens_itself(entry);
                if number.is_multiple_of(every) {
                    let is_open = is_open || probe::opens(chat_id, entry, held.values());
                    self.load.recorder.peek(removal.session_id, chat_id, seq, is_open);
                } else if is_open {
                    self.load.recorder.peek(removal.session_id, chat_id, seq, true);
                }
                number += 1;
            } else if seq > removal.member && opens_itself(entry) {
                is_able = true;
                control.opened_before += 1;
            }
        }
        control.able += u64::from(is_able);
        control.unable += u64::from(removal.received > 0 && !is_able);
        Ok(())
    }
}
