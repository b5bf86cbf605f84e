//! The items of a commit as columns: one array for each parameter of a set-based statement.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batch::Item;
use super::judgement::{KeyName, envelope, key_name};
use super::rows::{bigint, system_time};
use crate::protocol::log::EntryBody;

#[derive(Default)]
pub(super) struct MessageRows<'a> {
    pub(super) chats: Vec<Uuid>,
    pub(super) seqs: Vec<i64>,
    pub(super) ids: Vec<Uuid>,
    pub(super) revisions: Vec<i64>,
    pub(super) kinds: Vec<&'static str>,
    pub(super) senders: Vec<Uuid>,
    pub(super) sessions: Vec<Uuid>,
    pub(super) keys: Vec<Option<Uuid>>,
    pub(super) counters: Vec<i64>,
    pub(super) times: Vec<std::time::SystemTime>,
    pub(super) roster_hashes: Vec<&'a [u8]>,
    pub(super) seen_seqs: Vec<i64>,
    pub(super) seen_hashes: Vec<&'a [u8]>,
    pub(super) data: Vec<Option<&'a [u8]>>,
    pub(super) data_hashes: Vec<Vec<u8>>,
    pub(super) signatures: Vec<&'a [u8]>,
    pub(super) log_hashes: Vec<&'a [u8]>,
}

impl<'a> MessageRows<'a> {
    pub(super) fn push(&mut self, item: &'a Item) {
        let Some(entry) = &item.entry else { return };
        let EntryBody::Message(envelope) = &entry.body else { return };
        self.chats.push(item.chat_id.0);
        self.seqs.push(bigint(entry.seq));
        self.ids.push(envelope.message_id.0);
        self.revisions.push(bigint(envelope.revision));
        self.kinds.push(envelope.kind.as_str());
        self.senders.push(envelope.sender_id.0);
        self.sessions.push(envelope.sender_session_id.0);
        self.keys.push(envelope.key_id.map(|key_id| key_id.0));
        self.counters.push(bigint(envelope.counter));
        self.times.push(system_time(entry.created_at));
        self.roster_hashes.push(envelope.roster_hash.as_ref());
        self.seen_seqs.push(bigint(envelope.seen.seq));
        self.seen_hashes.push(envelope.seen.log_hash.as_ref());
        self.data.push(envelope.data.as_ref().map(AsRef::as_ref));
        self.data_hashes.push(envelope.data_hash().as_ref().to_vec());
        self.signatures.push(envelope.signature.as_ref());
        self.log_hashes.push(entry.log_hash.as_ref());
    }

    /// In the order of the table.
    pub(super) fn columns(&self) -> [&(dyn ToSql + Sync); 17] {
        [
            &self.chats,
            &self.seqs,
            &self.ids,
            &self.revisions,
            &self.kinds,
            &self.senders,
            &self.sessions,
            &self.keys,
            &self.counters,
            &self.times,
            &self.roster_hashes,
            &self.seen_seqs,
            &self.seen_hashes,
            &self.data,
            &self.data_hashes,
            &self.signatures,
            &self.log_hashes,
        ]
    }
}

/// Where the counters of a batch's keys stand, and how many messages with data each was used for.
#[derive(Default)]
pub(super) struct KeyUses {
    pub(super) chats: Vec<Uuid>,
    pub(super) keys: Vec<Uuid>,
    pub(super) counters: Vec<i64>,
    pub(super) messages: Vec<i64>,
    pub(super) first_seqs: Vec<Option<i64>>,
}

/// What a batch does with one key.
#[derive(Default)]
struct KeyUse {
    counter: i64,
    messages: i64,
    first_seq: Option<i64>,
}

impl KeyUses {
    pub(super) fn of(items: &[&Item]) -> Self {
        let mut uses: HashMap<KeyName, KeyUse> = HashMap::new();
        for item in items {
            let Some(name) = key_name(item) else { continue };
            let used = uses.entry(name).or_default();
            used.counter = bigint(item.counter);
            used.messages += i64::from(envelope(item).is_some_and(|envelope| envelope.data.is_some()));
            used.first_seq = used.first_seq.or_else(|| item.entry.as_ref().map(|entry| bigint(entry.seq)));
        }
        let mut columns = Self::default();
        for ((chat_id, key_id), used) in uses {
            columns.chats.push(chat_id);
            columns.keys.push(key_id);
            columns.counters.push(used.counter);
            columns.messages.push(used.messages);
            columns.first_seqs.push(used.first_seq);
        }
        columns
    }
}

#[derive(Default)]
pub(super) struct CopyRows<'a> {
    pub(super) chats: Vec<Uuid>,
    pub(super) keys: Vec<Uuid>,
    pub(super) sessions: Vec<Uuid>,
    pub(super) wrapped: Vec<&'a [u8]>,
    pub(super) uploaders: Vec<Uuid>,
}

impl<'a> CopyRows<'a> {
    pub(super) fn push(&mut self, item: &'a Item, key_id: Uuid) {
        for copy in &item.copies {
            self.chats.push(item.chat_id.0);
            self.keys.push(key_id);
            self.sessions.push(copy.session_id.0);
            self.wrapped.push(copy.key.as_ref());
            self.uploaders.push(item.sender_session_id.0);
        }
    }
}

#[derive(Default)]
pub(super) struct ArchiveRows<'a> {
    pub(super) chats: Vec<Uuid>,
    pub(super) keys: Vec<Uuid>,
    pub(super) generations: Vec<i64>,
    pub(super) sessions: Vec<Uuid>,
    pub(super) sealed: Vec<&'a [u8]>,
}

impl<'a> ArchiveRows<'a> {
    pub(super) fn push(&mut self, item: &'a Item, key_id: Uuid) {
        let Some(archive) = &item.archive else { return };
        self.chats.push(item.chat_id.0);
        self.keys.push(key_id);
        self.generations.push(bigint(archive.generation));
        self.sessions.push(item.sender_session_id.0);
        self.sealed.push(archive.key.as_ref());
    }
}
