//! Reads a chat's log in order, each entry with what elsewhere in the database belongs to it.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use uuid::Uuid;

use super::Snapshot;
use crate::protocol::binary::Hash;
use crate::protocol::certificate::UserEvent;
use crate::protocol::ids::{ChatId, Place, Seq, Timestamp, UserId};
use crate::protocol::log::{EntryBody, SessionOut};
use crate::store::error::StoreError;
use crate::store::messages::message_of;
use crate::store::rows::{bigint, fixed, fixed_or_null, get, id, number, number_of, timestamp, unpack};

/// Entries of one page, of each kind.
const ENTRIES_MAX: i64 = 1_000;

/// A message is read without its data: the database hashes that, and tells whether the hash is right.
const MESSAGES: &str = "SELECT m.seq, m.id, m.revision, m.kind, m.sender_id, m.sender_session_id, m.key_id, m.counter, \
     m.created_at, m.roster_hash, m.seen_seq, m.seen_log_hash, m.attachment_ids, NULL::bytea AS data, m.data_hash, \
     m.signature, m.log_hash, m.data IS NOT NULL AS has_data, \
     coalesce(m.data_hash = sha256(CASE WHEN m.kind = 'delete' THEN coalesce(m.data, '') ELSE m.data END), true) AS is_its_hash, \
     EXISTS (SELECT 1 FROM chat_messages n WHERE n.chat_id = m.chat_id AND n.id = m.id AND n.revision > m.revision) AS is_superseded, \
     before.seq AS before_seq, before.is_deletion AS before_is_deletion, before.sender_id AS before_sender_id, \
     first.seq AS first_seq, first.is_deletion AS first_is_deletion, first.sender_id AS first_sender_id, \
     coalesce((SELECT s.log_hash FROM chat_messages s WHERE s.chat_id = m.chat_id AND s.seq = m.seen_seq), \
         (SELECT s.log_hash FROM chat_events s WHERE s.chat_id = m.chat_id AND s.seq = m.seen_seq)) AS seen_there \
     FROM (SELECT * FROM chat_messages WHERE chat_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) m \
     LEFT JOIN LATERAL (SELECT b.seq, b.kind = 'delete' AS is_deletion, b.sender_id FROM chat_messages b \
         WHERE m.revision > 0 AND b.chat_id = m.chat_id AND b.id = m.id AND b.revision = m.revision - 1 LIMIT 1) before ON true \
     LEFT JOIN LATERAL (SELECT b.seq, b.kind = 'delete' AS is_deletion, b.sender_id FROM chat_messages b \
         WHERE m.revision > 0 AND b.chat_id = m.chat_id AND b.id = m.id AND b.revision = 0 LIMIT 1) first ON true \
     ORDER BY m.seq";

const EVENTS: &str = "SELECT seq, kind, change_no, change, created_at, body, log_hash FROM chat_events \
     WHERE chat_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

/// One entry as it is stored.
#[derive(Debug, Clone)]
pub struct LogRow {
    /// Its place.
    pub seq: Seq,
    /// Its time.
    pub created_at: Timestamp,
    /// The log's hash with it, as stored.
    pub log_hash: Hash,
    /// What it says; a message is without its data, and names that data's stored hash. None: it cannot be read.
    pub body: Option<EntryBody>,
    /// The stored hash at the place that its maker had seen; none if there is no such entry, or nobody names one.
    pub seen_there: Option<Hash>,
    /// What else belongs to it.
    pub facts: RowFacts,
}

/// What belongs to an entry.
#[derive(Debug, Clone)]
pub enum RowFacts {
    /// It is in the table of messages.
    Message(MessageFacts),
    /// It is in the table of all else.
    Event(EventFacts),
}

/// What belongs to a revision of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageFacts {
    /// Whether its data is there.
    pub has_data: bool,
    /// Whether its data has the stored hash; so if there is none.
    pub is_its_hash: bool,
    /// Whether there is a later revision.
    pub is_superseded: bool,
    /// The revision before, of an edit or deletion.
    pub before: Option<EarlierRevision>,
    /// The first revision, of an edit or deletion.
    pub first: Option<EarlierRevision>,
}

/// An earlier revision of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierRevision {
    /// Its place.
    pub seq: Seq,
    /// Who made it.
    pub sender_id: UserId,
    /// Whether it is a deletion.
    pub is_deletion: bool,
}

/// What belongs to an entry that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFacts {
    /// The columns beside the body: kind, number of the change, what changed.
    pub kind: String,
    /// Of a membership change: its number.
    pub change_no: Option<i64>,
    /// Of a membership change: its word, if it is stored.
    pub change: Option<String>,
    /// The hash in the user's chain at the place that the entry names; none if there is none, or it names none.
    pub chained: Option<Hash>,
    /// Of an account's removal by the operator: whether it is noted that there was one.
    pub is_removed: bool,
}

/// Entries of a log, in order.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// The entries.
    pub rows: Vec<LogRow>,
    /// Where the next page begins; none after the last.
    pub next: Option<Seq>,
}

impl Snapshot<'_> {
    /// The entries of a log after a place, a bounded number of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn log_page(&self, chat_id: ChatId, after: Seq) -> Result<LogPage, StoreError> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&chat_id.0, &bigint(after), &ENTRIES_MAX];
        let messages = self.tx.query(MESSAGES, &parameters).await?;
        let events = self.tx.query(EVENTS, &parameters).await?;
        let mut rows: Vec<LogRow> = messages.iter().map(message_row).collect::<Result<_, _>>()?;
        let messages_end = end_of(&rows);
        let mut others: Vec<LogRow> = events.iter().map(event_row).collect::<Result<_, _>>()?;
        // Both lists are whole up to the place where the first of them was cut.
        let next = [messages_end, end_of(&others)].into_iter().flatten().min();
        rows.retain(|row| next.is_none_or(|next| row.seq <= next));
        others.retain(|row| next.is_none_or(|next| row.seq <= next));
        self.look_up(chat_id, &mut others).await?;
        rows.append(&mut others);
        rows.sort_by_key(|row| row.seq);
        Ok(LogPage { rows, next })
    }

    /// Looks up what entries that are no messages name: a place of the log, a place of a user's chain.
    async fn look_up(&self, chat_id: ChatId, rows: &mut [LogRow]) -> Result<(), StoreError> {
        let seen: Vec<i64> = rows.iter().filter_map(|row| seen_seq(row.body.as_ref()?)).map(bigint).collect();
        let statement = "SELECT seq, log_hash FROM chat_messages WHERE chat_id = $1 AND seq = ANY($2) \
             UNION ALL SELECT seq, log_hash FROM chat_events WHERE chat_id = $1 AND seq = ANY($2)";
        let mut hashes: HashMap<Seq, Hash> = HashMap::new();
        for row in &self.tx.query(statement, &[&chat_id.0, &seen]).await? {
            hashes.insert(number(row, "seq")?, fixed(row, "log_hash")?);
        }
        let named: Vec<(UserId, Place)> = rows
            .iter()
            .filter_map(|row| user_event(row.body.as_ref()?))
            .map(|(user_id, event)| (user_id, event.place()))
            .collect();
        let (users, places): (Vec<Uuid>, Vec<i64>) =
            named.iter().map(|(user_id, place)| (user_id.0, bigint(*place))).unzip();
        let statement = "SELECT e.user_id, e.place, e.hash FROM unnest($1::uuid[], $2::bigint[]) AS named (user_id, place) \
             JOIN user_events e ON e.user_id = named.user_id AND e.place = named.place";
        let mut chained: HashMap<(UserId, Place), Hash> = HashMap::new();
        for row in &self.tx.query(statement, &[&users, &places]).await? {
            chained.insert((id(row, "user_id", UserId)?, number(row, "place")?), fixed(row, "hash")?);
        }
        let gone: Vec<Uuid> = rows.iter().filter_map(|row| removed_user(row.body.as_ref()?)).map(|id| id.0).collect();
        let statement = "SELECT user_id FROM removed_users WHERE user_id = ANY($1)";
        let mut removed: HashSet<UserId> = HashSet::new();
        for row in &self.tx.query(statement, &[&gone]).await? {
            removed.insert(id(row, "user_id", UserId)?);
        }
        for row in rows {
            let Some(body) = &row.body else { continue };
            row.seen_there = seen_seq(body).and_then(|seq| hashes.get(&seq).copied());
            let RowFacts::Event(facts) = &mut row.facts else { continue };
            if let Some((user_id, event)) = user_event(body) {
                facts.chained = chained.get(&(user_id, event.place())).copied();
            }
            facts.is_removed = removed_user(body).is_some_and(|user_id| removed.contains(&user_id));
        }
        Ok(())
    }
}

/// Where a list was cut, if it was.
fn end_of(rows: &[LogRow]) -> Option<Seq> {
    let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= ENTRIES_MAX;
    rows.last().filter(|_| is_full).map(|row| row.seq)
}

const fn seen_seq(body: &EntryBody) -> Option<Seq> {
    match body {
        EntryBody::Membership(signed) => Some(signed.change.seen.seq),
        _ => None,
    }
}

/// Whose account the operator has ended, by an entry of a chat's log.
#[must_use]
pub const fn removed_user(body: &EntryBody) -> Option<UserId> {
    match body {
        EntryBody::AccountRemoved { user_id } => Some(*user_id),
        _ => None,
    }
}

/// The entry of a user's chain that an entry of a chat's log shows again.
#[must_use]
pub fn user_event(body: &EntryBody) -> Option<(UserId, UserEvent)> {
    match body {
        EntryBody::SessionIn(signed) => Some((signed.certificate.user_id, UserEvent::Certificate(signed.clone()))),
        EntryBody::SessionOut(SessionOut::Revoked(signed)) => {
            Some((signed.revocation.user_id, UserEvent::Revocation(signed.clone())))
        }
        EntryBody::AccountDeleted(signed) => Some((signed.deletion.user_id, UserEvent::Deletion(signed.clone()))),
        EntryBody::Message(_)
        | EntryBody::Membership(_)
        | EntryBody::SessionOut(SessionOut::Expired { .. })
        | EntryBody::AccountRemoved { .. }
        | EntryBody::UserKey(_)
        | EntryBody::Generation(_)
        | EntryBody::GenerationRefused(_) => None,
    }
}

fn message_row(row: &Row) -> Result<LogRow, StoreError> {
    let entry = message_of(row)?;
    let facts = MessageFacts {
        has_data: get(row, "has_data")?,
        is_its_hash: get(row, "is_its_hash")?,
        is_superseded: get(row, "is_superseded")?,
        before: earlier(row, ["before_seq", "before_sender_id", "before_is_deletion"])?,
        first: earlier(row, ["first_seq", "first_sender_id", "first_is_deletion"])?,
    };
    Ok(LogRow {
        seq: entry.seq,
        created_at: entry.created_at,
        log_hash: entry.log_hash,
        body: Some(entry.body),
        seen_there: fixed_or_null(row, "seen_there")?,
        facts: RowFacts::Message(facts),
    })
}

fn earlier(row: &Row, [seq, sender, deletion]: [&'static str; 3]) -> Result<Option<EarlierRevision>, StoreError> {
    let Some(place) = get::<Option<i64>>(row, seq)? else { return Ok(None) };
    Ok(Some(EarlierRevision {
        seq: number_of(place, seq)?,
        sender_id: id(row, sender, UserId)?,
        is_deletion: get(row, deletion)?,
    }))
}

fn event_row(row: &Row) -> Result<LogRow, StoreError> {
    let facts = EventFacts {
        kind: get(row, "kind")?,
        change_no: get(row, "change_no")?,
        change: get(row, "change")?,
        chained: None,
        is_removed: false,
    };
    Ok(LogRow {
        seq: number(row, "seq")?,
        created_at: timestamp(row, "created_at")?,
        log_hash: fixed(row, "log_hash")?,
        body: unpack(get(row, "body")?, "chat_events.body").ok(),
        seen_there: None,
        facts: RowFacts::Event(facts),
    })
}
