//! Reads the log: pages of any depth both ways, and the result of a message that was sent before.
//!
//! A page is one range of seqs with nothing missing in it; it is found by primary key, so its cost does not
//! depend on its depth.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::members::{Requester, unknown_chat};
use super::rows::{bigint, fixed, get, id, number, timestamp, unpack};
use super::transaction::Transaction;
use crate::protocol::binary::{Blob, Hash};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::frame::{Direction, OwnKey, Page, SendOk};
use crate::protocol::ids::{AttachmentId, ChatId, KeyId, MessageId, Revision, Seq, SessionId, UserId};
use crate::protocol::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use crate::protocol::log::{EntryBody, LogEntry};

/// The columns of a message.
const MESSAGE: &str = "seq, id, revision, kind, sender_id, sender_session_id, key_id, counter, created_at, roster_hash, \
     seen_seq, seen_log_hash, attachment_ids, data, data_hash, signature, log_hash";

/// A message that is in the log.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// What was sent, and by whom.
    pub envelope: Envelope,
    /// The result that its sender got, or would have got.
    pub result: SendOk,
}

impl Store {
    /// Reads a page of the log as one session may see it.
    ///
    /// # Errors
    /// `unknown_chat`, or [`StoreError`].
    pub async fn page(
        &self,
        who: Requester,
        chat_id: ChatId,
        direction: Direction,
        from: Seq,
        limit: u32,
        bytes_max: usize,
    ) -> Result<Page, Failure> {
        self.read("page", async |tx| {
            let bounds = bounds(tx, who, chat_id).await?;
            let limit = u64::from(limit.clamp(1, PAGE_ENTRIES_MAX));
            // Both ends are exclusive below and inclusive above: (after, up_to].
            let floor = Seq::saturating(bounds.readable_from.get().saturating_sub(1));
            let (after, up_to) = match direction {
                Direction::After => {
                    let after = from.max(floor).min(bounds.last_seq);
                    (after, Seq::saturating(after.get().saturating_add(limit)).min(bounds.last_seq))
                }
                Direction::Before => {
                    let up_to = Seq::saturating(from.get().saturating_sub(1)).min(bounds.last_seq).max(floor);
                    (Seq::saturating(up_to.get().saturating_sub(limit)).max(floor), up_to)
                }
            };
            let mut range = Range { after, up_to };
            let mut entries = messages(tx, chat_id, direction, &mut range, bytes_max).await?;
            entries.extend(events(tx, chat_id, range).await?);
            entries.sort_by_key(|entry| entry.seq);
            let more = match direction {
                Direction::After => range.up_to < bounds.last_seq,
                Direction::Before => range.after > floor,
            };
            let keys = keys_of(tx, chat_id, who.session_id, &entries).await?;
            Ok(Page { chat_id, after: range.after, up_to: range.up_to, more, entries, keys })
        })
        .await
    }

    /// Reads a page of the entries that are not messages, from the chat's first on: members may see who is in
    /// their chat and who put them there, from before their own time too.
    ///
    /// # Errors
    /// `unknown_chat`, or [`StoreError`].
    pub async fn events(&self, who: Requester, chat_id: ChatId, after: Seq, before: Seq) -> Result<Page, Failure> {
        self.read("events", async |tx| {
            let bounds = bounds(tx, who, chat_id).await?;
            let statement = "SELECT seq, created_at, body, log_hash FROM chat_events \
                 WHERE chat_id = $1 AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4";
            let limit = i64::from(PAGE_ENTRIES_MAX);
            let found = tx.query(statement, &[&chat_id.0, &bigint(after), &bigint(before), &limit]).await?;
            let entries: Vec<LogEntry> = found.iter().map(event_of).collect::<Result<_, _>>()?;
            let more = entries.len() as u64 == u64::from(PAGE_ENTRIES_MAX);
            let end = Seq::saturating(before.get().saturating_sub(1)).min(bounds.last_seq);
            let up_to = if more { entries.last().map_or(end, |entry| entry.seq) } else { end };
            Ok(Page { chat_id, after, up_to, more, entries, keys: Vec::new() })
        })
        .await
    }

    /// The newest entry of a chat, for its members' live sessions; none for anybody else.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_seq(&self, who: Requester, chat_id: ChatId) -> Result<Option<Seq>, Failure> {
        let bounds = self.read("newest_seq", async |tx| bounds(tx, who, chat_id).await).await;
        match bounds {
            Ok(bounds) => Ok(Some(bounds.last_seq)),
            Err(Failure::Refused(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Reads entries for those who were live at `after`: everything that came since, or none if that is too much
    /// for one page.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn entries_since(
        tx: &Transaction<'_>,
        chat_id: ChatId,
        after: Seq,
        last_seq: Seq,
    ) -> Result<Option<Vec<LogEntry>>, Failure> {
        if last_seq.get().saturating_sub(after.get()) > u64::from(PAGE_ENTRIES_MAX) {
            return Ok(None);
        }
        let mut range = Range { after, up_to: last_seq };
        let mut entries = messages(tx, chat_id, Direction::After, &mut range, PAGE_BYTES_MAX).await?;
        if range.up_to < last_seq {
            return Ok(None);
        }
        entries.extend(events(tx, chat_id, range).await?);
        entries.sort_by_key(|entry| entry.seq);
        Ok(Some(entries))
    }

    /// Looks up a message by its id and revision, whoever sent it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_message(
        &self,
        chat_id: ChatId,
        message_id: MessageId,
        revision: Revision,
    ) -> Result<Option<StoredMessage>, Failure> {
        self.read("find_message", async |tx| {
            let statement =
                format!("SELECT {MESSAGE} FROM chat_messages WHERE chat_id = $1 AND id = $2 AND revision = $3");
            let Some(row) = tx.query_opt(&statement, &[&chat_id.0, &message_id.0, &bigint(revision)]).await? else {
                return Ok(None);
            };
            let entry = message_of(&row)?;
            let result = SendOk { duplicate: true, ..SendOk::of(&entry) };
            let EntryBody::Message(envelope) = entry.body else { return Ok(None) };
            Ok(Some(StoredMessage { envelope, result }))
        })
        .await
    }
}

/// The part of a log that a user may read.
struct Bounds {
    readable_from: Seq,
    last_seq: Seq,
}

async fn bounds(tx: &Transaction<'_>, who: Requester, chat_id: ChatId) -> Result<Bounds, Failure> {
    // A revocation or a removal that was acknowledged is seen here: nothing later is handed out.
    let statement = "SELECT m.readable_from, c.last_seq FROM user_in_chat m JOIN chats c ON c.id = m.chat_id \
         JOIN user_sessions s ON s.id = $3 AND s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = $1 AND m.user_id = $2";
    let row = tx.query_opt(statement, &[&chat_id.0, &who.user_id.0, &who.session_id.0]).await?;
    let row = row.ok_or_else(unknown_chat)?;
    Ok(Bounds { readable_from: number(&row, "readable_from")?, last_seq: number(&row, "last_seq")? })
}

/// Seqs above `after`, up to and with `up_to`.
#[derive(Clone, Copy)]
struct Range {
    after: Seq,
    up_to: Seq,
}

/// Reads the messages of a range, and cuts the range short where their data passes the page's bound.
async fn messages(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    direction: Direction,
    range: &mut Range,
    bytes_max: usize,
) -> Result<Vec<LogEntry>, Failure> {
    let order = match direction {
        Direction::After => "ASC",
        Direction::Before => "DESC",
    };
    let statement = format!(
        "SELECT {MESSAGE}, total FROM (SELECT {MESSAGE}, sum(coalesce(octet_length(data), 0)) OVER (ORDER BY seq {order}) \
             AS total FROM chat_messages WHERE chat_id = $1 AND seq > $2 AND seq <= $3) page \
         WHERE total - coalesce(octet_length(data), 0) < $4 ORDER BY seq {order}",
    );
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    let found = tx.query(&statement, &[&chat_id.0, &bigint(range.after), &bigint(range.up_to), &bytes_max]).await?;
    let entries: Vec<LogEntry> = found.iter().map(message_of).collect::<Result<_, _>>()?;
    let total: i64 = found.last().map(|row| get(row, "total")).transpose()?.unwrap_or(0);
    if total >= bytes_max
        && let Some(last) = entries.last()
    {
        match direction {
            Direction::After => range.up_to = last.seq,
            Direction::Before => range.after = Seq::saturating(last.seq.get().saturating_sub(1)),
        }
    }
    Ok(entries)
}

async fn events(tx: &Transaction<'_>, chat_id: ChatId, range: Range) -> Result<Vec<LogEntry>, Failure> {
    let statement =
        "SELECT seq, created_at, body, log_hash FROM chat_events WHERE chat_id = $1 AND seq > $2 AND seq <= $3";
    let found = tx.query(statement, &[&chat_id.0, &bigint(range.after), &bigint(range.up_to)]).await?;
    Ok(found.iter().map(event_of).collect::<Result<_, _>>()?)
}

async fn keys_of(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    session_id: SessionId,
    entries: &[LogEntry],
) -> Result<Vec<OwnKey>, Failure> {
    let mut key_ids: Vec<KeyId> = entries
        .iter()
        .filter_map(|entry| match &entry.body {
            EntryBody::Message(envelope) => envelope.key_id,
            _ => None,
        })
        .collect();
    key_ids.sort_unstable();
    key_ids.dedup();
    super::keys::own_keys(tx, chat_id, session_id, &key_ids).await
}

fn event_of(row: &Row) -> Result<LogEntry, StoreError> {
    Ok(LogEntry {
        seq: number(row, "seq")?,
        created_at: timestamp(row, "created_at")?,
        log_hash: fixed(row, "log_hash")?,
        body: unpack(get(row, "body")?, "chat_events.body")?,
    })
}

pub(super) fn message_of(row: &Row) -> Result<LogEntry, StoreError> {
    let kind = match get::<&str>(row, "kind")? {
        "message" => MessageKind::Message,
        "edit" => MessageKind::Edit,
        "delete" => MessageKind::Delete,
        _ => return Err(StoreError::Corrupt { what: "chat_messages.kind" }),
    };
    let data: Option<Vec<u8>> = get(row, "data")?;
    let attachments: Vec<Uuid> = get(row, "attachment_ids")?;
    let key_id: Option<Uuid> = get(row, "key_id")?;
    let data_hash: Hash = fixed(row, "data_hash")?;
    let purged = (data.is_none() && kind != MessageKind::Delete).then_some(data_hash);
    let envelope = Envelope {
        kind,
        message_id: id(row, "id", MessageId)?,
        revision: number(row, "revision")?,
        sender_id: id(row, "sender_id", UserId)?,
        sender_session_id: id(row, "sender_session_id", SessionId)?,
        key_id: key_id.map(KeyId),
        counter: number(row, "counter")?,
        roster_hash: fixed(row, "roster_hash")?,
        seen: Seen { seq: number(row, "seen_seq")?, log_hash: fixed(row, "seen_log_hash")? },
        attachments: attachments.into_iter().map(AttachmentId).collect(),
        data: data.map(Blob::from),
        purged,
        signature: fixed(row, "signature")?,
    };
    Ok(LogEntry {
        seq: number(row, "seq")?,
        created_at: timestamp(row, "created_at")?,
        log_hash: fixed(row, "log_hash")?,
        body: EntryBody::Message(envelope),
    })
}
