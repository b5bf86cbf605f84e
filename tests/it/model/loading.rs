//! What a chat's actor loads of the modelled database.

use std::collections::{BTreeMap, BTreeSet};

use sealcast::protocol::ids::{Counter, GenerationNo, Timestamp};
use sealcast::store::loaded::{LoadedChat, LoadedKey, LoadedMember, LoadedRecipient};

use super::people::{Chat, NOW, Session, exchange_key, key_id, session_id, user_id, user_number, user_of};
use super::set::Set;
use super::store::{KeyName, Store, announcement};

impl Store {
    /// What the chat's actor loads.
    pub fn load(&self, chat: Chat) -> LoadedChat {
        let row = &self.chats[chat];
        let recipients = self.recipients(chat);
        let members = row.membership.members.iter().map(|(id, member)| {
            let loaded = LoadedMember {
                can_write: member.can_write,
                joined_seq: member.joined_seq,
                joined_at: Timestamp::saturating(NOW),
                can_manage: member.can_manage,
                readable_from: member.readable_from,
                has_user_key: row.shown.contains_key(&user_number(*id)),
            };
            (*id, loaded)
        });
        let loaded_recipients = recipients.iter().map(|session| {
            let loaded = LoadedRecipient { user_id: user_id(user_of(session)), public_key: exchange_key(session) };
            (session_id(session), loaded)
        });
        let keys = self.current_keys(chat).into_iter().map(|name| {
            let key = &row.keys[&name];
            let is_covered = key.covered_version == Some(row.head.roster_version.get());
            let missing = if is_covered { Set::default() } else { recipients.without(key.copies) };
            let loaded = LoadedKey {
                announcement: announcement(name, key.epoch),
                last_counter: Counter::saturating(key.last_counter),
                created_at: Timestamp::saturating(key.stored_at),
                missing: missing.iter().map(session_id).collect(),
                archived: key.archived.last().map(|number| GenerationNo::saturating(*number)),
                refused: key.refused.without(key.copies).iter().map(|session| (session_id(session), false)).collect(),
            };
            (key_id(name.0, name.1), loaded)
        });
        LoadedChat {
            last_seq: row.head.last_seq,
            log_hash: row.head.log_hash,
            last_at: Timestamp::saturating(NOW),
            epoch: row.head.epoch,
            roster_version: row.head.roster_version,
            roster_hash: row.head.roster_hash,
            expiry_due: self.expiry_due(chat),
            members: members.collect(),
            recipients: loaded_recipients.collect(),
            recovery: row.head.recovery_key().map(|key| key.generation),
            generation_due: self.generation_due(chat),
            keys: keys.collect(),
            since: None,
        }
    }

    /// The newest key of the current epoch of each session.
    pub fn current_keys(&self, chat: Chat) -> BTreeSet<KeyName> {
        let row = &self.chats[chat];
        let mut newest: BTreeMap<Session, (u64, usize)> = BTreeMap::new();
        for ((session, view), key) in row.keys.iter().filter(|(_, key)| key.epoch == row.head.epoch.get()) {
            let place = newest.entry(*session).or_insert((key.stored_at, *view));
            *place = (*place).max((key.stored_at, *view));
        }
        newest.into_iter().map(|(session, (_, view))| (session, view)).collect()
    }
}
