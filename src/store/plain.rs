//! Batches that need nothing but what is stored: messages under keys that are there, with nothing to add.
//!
//! Nearly all are like that. What their rows must be is known beforehand, so one statement judges and writes them
//! (P4, P5), by the same rules as [`judge`](super::judgement::judge); whatever is otherwise is left to that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batch::Item;
use super::columns::MessageRows;
use super::judgement::KeyName;
use super::rows::bigint;
use crate::protocol::binary::Hash;
use crate::protocol::envelope::{Envelope, MessageKind};
use crate::protocol::ids::ChatId;
use crate::protocol::log::{EntryBody, LogEntry};

/// Where a batch finds a chat, and where it leaves it.
struct Move {
    previous: i64,
    previous_hash: Hash,
    epoch: i64,
    roster_version: i64,
    last_seq: i64,
    log_hash: Hash,
}

/// Where a batch finds a key, and where it leaves it.
struct Use {
    session_id: Uuid,
    epoch: i64,
    roster_version: i64,
    previous: i64,
    counter: i64,
    messages: i64,
    first_seq: i64,
}

/// A plain batch as the columns of its statement.
#[derive(Default)]
pub(super) struct PlainBatch<'a> {
    chats: Vec<Uuid>,
    previous: Vec<i64>,
    previous_hashes: Vec<Vec<u8>>,
    epochs: Vec<i64>,
    roster_versions: Vec<i64>,
    last_seqs: Vec<i64>,
    log_hashes: Vec<Vec<u8>>,
    key_chats: Vec<Uuid>,
    keys: Vec<Uuid>,
    key_sessions: Vec<Uuid>,
    key_epochs: Vec<i64>,
    key_rosters: Vec<i64>,
    previous_counters: Vec<i64>,
    counters: Vec<i64>,
    messages: Vec<i64>,
    first_seqs: Vec<i64>,
    rows: MessageRows<'a>,
}

impl<'a> PlainBatch<'a> {
    /// None of a batch that brings keys or copies, edits or deletes, or does not follow upon itself.
    pub(super) fn of(items: &'a [Arc<Item>]) -> Option<Self> {
        let (mut moves, mut uses) = (HashMap::new(), HashMap::new());
        let mut rows = MessageRows::default();
        for item in items {
            let (entry, envelope) = plain(item)?;
            follow(&mut moves, item, entry)?;
            follow_key(&mut uses, item, entry, envelope)?;
            rows.push(item);
        }
        let mut batch = Self { rows, ..Self::default() };
        for (chat_id, of_chat) in moves {
            batch.chats.push(chat_id.0);
            batch.previous.push(of_chat.previous);
            batch.previous_hashes.push(of_chat.previous_hash.as_ref().to_vec());
            batch.epochs.push(of_chat.epoch);
            batch.roster_versions.push(of_chat.roster_version);
            batch.last_seqs.push(of_chat.last_seq);
            batch.log_hashes.push(of_chat.log_hash.as_ref().to_vec());
        }
        for ((chat_id, key_id), of_key) in uses {
            batch.key_chats.push(chat_id);
            batch.keys.push(key_id);
            batch.key_sessions.push(of_key.session_id);
            batch.key_epochs.push(of_key.epoch);
            batch.key_rosters.push(of_key.roster_version);
            batch.previous_counters.push(of_key.previous);
            batch.counters.push(of_key.counter);
            batch.messages.push(of_key.messages);
            batch.first_seqs.push(of_key.first_seq);
        }
        Some(batch)
    }

    /// In the order of the statement.
    pub(super) fn columns(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut columns: Vec<&(dyn ToSql + Sync)> = vec![
            &self.chats,
            &self.previous,
            &self.previous_hashes,
            &self.epochs,
            &self.roster_versions,
            &self.last_seqs,
            &self.log_hashes,
            &self.key_chats,
            &self.keys,
            &self.key_sessions,
            &self.key_epochs,
            &self.key_rosters,
            &self.previous_counters,
            &self.counters,
            &self.messages,
            &self.first_seqs,
        ];
        columns.extend(self.rows.columns());
        columns
    }
}

/// A message that brings nothing with it.
fn plain(item: &Item) -> Option<(&LogEntry, &Envelope)> {
    let entry = item.entry.as_ref()?;
    let EntryBody::Message(envelope) = &entry.body else { return None };
    let brings_nothing = item.new_key.is_none() && item.copies.is_empty() && item.archive.is_none();
    (brings_nothing && envelope.kind == MessageKind::Message).then_some((entry, envelope))
}

/// Takes an entry as the next of its chat, if it is.
fn follow(moves: &mut HashMap<ChatId, Move>, item: &Item, entry: &LogEntry) -> Option<()> {
    let (epoch, roster_version) = (bigint(item.epoch), bigint(item.roster_version));
    let (last_seq, log_hash) = (bigint(entry.seq), entry.log_hash);
    match moves.entry(item.chat_id) {
        Entry::Vacant(first) => {
            let (previous, previous_hash) = (bigint(item.previous), item.previous_hash);
            first.insert(Move { previous, previous_hash, epoch, roster_version, last_seq, log_hash });
        }
        Entry::Occupied(mut before) => {
            let before = before.get_mut();
            let is_next = before.last_seq == bigint(item.previous)
                && before.log_hash == item.previous_hash
                && (before.epoch, before.roster_version) == (epoch, roster_version);
            if !is_next {
                return None;
            }
            (before.last_seq, before.log_hash) = (last_seq, log_hash);
        }
    }
    Some(())
}

/// Takes a message as the next under its key, if it is.
fn follow_key(uses: &mut HashMap<KeyName, Use>, item: &Item, entry: &LogEntry, envelope: &Envelope) -> Option<()> {
    let (session_id, counter) = (item.sender_session_id.0, bigint(item.counter));
    let messages = i64::from(envelope.data.is_some());
    match uses.entry((item.chat_id.0, item.key_id?.0)) {
        Entry::Vacant(first) => {
            first.insert(Use {
                session_id,
                epoch: bigint(item.epoch),
                roster_version: bigint(item.roster_version),
                previous: counter.checked_sub(1)?,
                counter,
                messages,
                first_seq: bigint(entry.seq),
            });
        }
        Entry::Occupied(mut before) => {
            let before = before.get_mut();
            if before.session_id != session_id || before.counter.checked_add(1)? != counter {
                return None;
            }
            before.counter = counter;
            before.messages += messages;
        }
    }
    Some(())
}
