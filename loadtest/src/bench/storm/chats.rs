//! Makes the chats of the sessions, and what is said in them while these are away.
//!
//! Of each group one chat is made by the protocol, and its messages are real. Its other chats are that one's rows under other
//! ids, in the database: who reads a page looks into no signature, and nobody has these chats in memory.

use std::rc::Rc;

use anyhow::{Context, anyhow, bail};
use futures_util::{StreamExt, TryStreamExt};
use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::frame::{Cursor, Reply, Request};
use sealcast::protocol::ids::{ChatId, Seq};
use uuid::Uuid;

use super::missed::Missed;
use super::session::Session;
use super::{CHATS, GROUP, MISSED, SAID};
use crate::bench::connection::ENCODING;
use crate::bench::member::Member;
use crate::bench::pool::{Audience, FIRST_ID, Pool};
use crate::bench::room::Room;
use crate::bench::server::{Server, found_chat};

/// Groups that are made at the same time.
const AT_ONCE: usize = 16;

/// Bytes of a message before it is sealed.
const BODY_BYTES: usize = 256;

/// All that a chat without names and group keys consists of, by its column with the chat's id; what others refer to first.
const TABLES: [(&str, &str); 6] = [
    ("chats", "id"),
    ("user_in_chat", "chat_id"),
    ("chat_events", "chat_id"),
    ("sender_keys", "chat_id"),
    ("vault_chat_sender_keys", "chat_id"),
    ("chat_messages", "chat_id"),
];

const MAKE_COPIES: &str = "CREATE TEMP TABLE copies (chat_id uuid NOT NULL, copy_id uuid NOT NULL)";

const NAME_COPIES: &str = "INSERT INTO copies SELECT * FROM unnest($1::uuid[], $2::uuid[])";

/// A chat that was made by the protocol.
struct Group {
    members: Vec<Member>,
    chat_id: ChatId,
    /// The seq of what was said first.
    first: u64,
    said: Vec<Envelope>,
}

/// Makes so many users with a session each, and their chats, on a fresh broker; chats are numbered from this one on.
pub(super) async fn found(server: &Server, sessions: usize, first: usize) -> anyhow::Result<Vec<Rc<Session>>> {
    let numbers = first..first + sessions.div_ceil(GROUP);
    let groups = futures_util::stream::iter(numbers).map(|number| found_group(server.address(), number));
    let groups: Vec<Group> = groups.buffered(AT_ONCE).try_collect().await?;
    let originals: Vec<ChatId> = groups.iter().map(|group| group.chat_id).collect();
    let copies = copy(&server.database_url()?, &originals).await.context("copying chats")?;
    let mut all = Vec::new();
    for (group, copies) in groups.into_iter().zip(copies) {
        let Group { members, chat_id, first, said } = group;
        let chats = [chat_id].into_iter().chain(copies);
        let missed = Missed { cursors: cursors(chats, first), first, said };
        if missed.count() != MISSED as u64 {
            bail!("{} missed messages instead of {MISSED}", missed.count());
        }
        let missed = Rc::new(missed);
        all.extend(members.into_iter().map(|member| Rc::new(Session::new(member, Rc::clone(&missed)))));
    }
    all.truncate(sessions);
    Ok(all)
}

/// Everybody has the first message of every other chat.
fn cursors(chats: impl Iterator<Item = ChatId>, first: u64) -> Vec<Cursor> {
    let cursor = |(number, chat_id): (u64, ChatId)| Cursor { chat_id, seq: Seq::saturating(first - 1 + number % 2) };
    (0..).zip(chats).map(cursor).collect()
}

async fn found_group(address: &str, number: usize) -> anyhow::Result<Group> {
    let (room, members) = found_chat(address, GROUP, number).await?;
    let said = say(address, &room, members.first().context("a chat of nobody")?).await?;
    Ok(Group { members, chat_id: room.chat_id, first: room.seen.seq.get() + 1, said })
}

/// Says what the members miss.
async fn say(address: &str, room: &Room, owner: &Member) -> anyhow::Result<Vec<Envelope>> {
    let pool = Pool::sealed(&Audience::of(room), owner, SAID, BODY_BYTES, FIRST_ID)?;
    let mut asker = owner.connect(address).await?;
    let mut said = Vec::new();
    for number in 0..SAID {
        let frame = ENCODING.decode_client(pool.payload(number).context("nothing to say")?);
        let Request::Send(send) = frame.map_err(|error| anyhow!("{error:?}"))?.request else { bail!("no message") };
        let envelope = send.envelope.clone();
        let Reply::Sent(sent) = asker.ask(Request::Send(send)).await? else { bail!("no answer to a message") };
        if sent.seq.get() != room.seen.seq.get() + 1 + number as u64 {
            bail!("message {number} has the seq {} after {}", sent.seq, room.seen.seq);
        }
        said.push(envelope);
    }
    Ok(said)
}

/// Copies each chat to as many as its members are to have beside it; gives these.
async fn copy(database_url: &str, originals: &[ChatId]) -> anyhow::Result<Vec<Vec<ChatId>>> {
    let copies: Vec<Vec<ChatId>> = originals.iter().map(|_| (1..CHATS).map(|_| ChatId::generate()).collect()).collect();
    let pairs = originals.iter().zip(&copies).flat_map(|(chat, copies)| copies.iter().map(|copy| (chat.0, copy.0)));
    let (from, to): (Vec<Uuid>, Vec<Uuid>) = pairs.unzip();
    let (client, connection) = tokio_postgres::connect(database_url, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    client.batch_execute(MAKE_COPIES).await?;
    client.execute(NAME_COPIES, &[&from, &to]).await?;
    for (table, column) in TABLES {
        let copied = client.execute(&copy_statement(table, column), &[]).await.with_context(|| table)?;
        if copied < to.len() as u64 {
            bail!("{copied} rows of {table} for {} chats", to.len());
        }
        client.batch_execute(&format!("VACUUM ANALYZE {table}")).await?;
    }
    drop(client);
    driver.await??;
    Ok(copies)
}

/// Repeats the rows as they are, whatever columns they have, under the other chat's id.
fn copy_statement(table: &str, column: &str) -> String {
    format!(
        "INSERT INTO {table} SELECT r.* FROM copies c JOIN {table} t ON t.{column} = c.chat_id \
         CROSS JOIN LATERAL jsonb_populate_record(t, jsonb_build_object('{column}', c.copy_id)) r"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_leave_as_much_as_is_to_be_missed() {
        let chats = (0..CHATS).map(|_| ChatId::generate());
        let left = cursors(chats, 51).into_iter().map(|cursor| 51 + SAID as u64 - 1 - cursor.seq.get());
        let left: Vec<u64> = left.collect();
        assert_eq!((left.len(), left.iter().sum()), (CHATS, MISSED as u64));
        assert!(left.iter().all(|left| (2..=3).contains(left)));
    }
}
