//! Commits messages in groups: all that waits, in one statement, flushed; then they are answered and handed on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use sealcast::protocol::ids::MessageId;
use sealcast::store::embedded::{EmbeddedConfig, EmbeddedPostgres};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::server::{Lengths, Peer, Room, Submission};

/// Connections to Postgres, each with the rooms of its own.
const LANES: usize = 2;

/// Messages in one commit at most.
const BATCH_MAX: usize = 1_000;

/// Messages that wait in a lane at most: far more than windows of clients let come.
const WAITING_MAX: usize = 1024 * 1024;

/// The database that the embedded Postgres makes.
const DATABASE: &str = "sealcast";

const TABLE: &str = "CREATE TABLE floor_messages (chat_id uuid, seq bigint, id uuid NOT NULL UNIQUE, body bytea NOT NULL, \
    PRIMARY KEY (chat_id, seq))";

const INSERT: &str = "INSERT INTO floor_messages (chat_id, seq, id, body) \
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::bytea[])";

/// The ways to Postgres.
#[derive(Debug, Clone)]
pub(super) struct Lanes(Arc<Vec<Lane>>);

#[derive(Debug)]
struct Lane {
    waiting: Sender<Submission>,
    /// Until it has begun.
    idle: Mutex<Option<(Client, Receiver<Submission>)>>,
}

/// Starts a Postgres with the settings of a broker's own.
pub(super) async fn start(data_dir: PathBuf) -> anyhow::Result<(Lanes, EmbeddedPostgres)> {
    let config = EmbeddedConfig { data_dir, ..EmbeddedConfig::default() };
    let postgres = EmbeddedPostgres::start(config).await.context("starting Postgres")?;
    let url = postgres.connection_string(DATABASE);
    let mut lanes = Vec::new();
    for number in 0..LANES {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.context("connecting to Postgres")?;
        tokio::spawn(connection);
        if number == 0 {
            client.batch_execute(TABLE).await.context("making the table")?;
        }
        let (waiting, submissions) = channel(WAITING_MAX);
        lanes.push(Lane { waiting, idle: Mutex::new(Some((client, submissions))) });
    }
    Ok((Lanes(Arc::new(lanes)), postgres))
}

impl Lanes {
    /// Begins to commit.
    pub(super) fn begin(&self, lengths: Lengths) {
        for lane in &*self.0 {
            let idle = lane.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((client, submissions)) = idle {
                tokio::spawn(async move {
                    // A floor that cannot commit is of no use to anybody: its clients will wait in vain, and say so.
                    let _ = commit_all(&client, submissions, lengths).await;
                });
            }
        }
    }

    /// Hands a sender's messages to the room's lane.
    pub(super) fn submit<'a>(
        &self,
        room: &Arc<Room>,
        sender: &Arc<Peer>,
        said: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> anyhow::Result<()> {
        let lane = self.0.get(room.number as usize % LANES).ok_or_else(|| anyhow!("no lane"))?;
        for (request, body) in said {
            let (room, sender) = (Arc::clone(room), Arc::clone(sender));
            let submission = Submission { room, sender, request, body: body.to_vec() };
            lane.waiting.try_send(submission).map_err(|_| anyhow!("the lane is full, or has ended"))?;
        }
        Ok(())
    }
}

async fn commit_all(client: &Client, mut submissions: Receiver<Submission>, lengths: Lengths) -> anyhow::Result<()> {
    let insert = client.prepare(INSERT).await?;
    let mut batch = Vec::new();
    while submissions.recv_many(&mut batch, BATCH_MAX).await > 0 {
        // Those of a room together, in the order in which they came.
        batch.sort_by_key(|submission: &Submission| submission.room.number);
        let (mut chats, mut seqs, mut ids, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for of_room in batch.chunk_by(|a, b| a.room.number == b.room.number) {
            let Some(first) = of_room.first() else { continue };
            let seq = first.room.number(of_room.len() as u64);
            for (seq, submission) in (seq..).zip(of_room) {
                chats.push(Uuid::from_u128(u128::from(submission.room.number)));
                seqs.push(i64::try_from(seq)?);
                ids.push(MessageId::generate().0);
                bodies.push(&submission.body);
            }
        }
        let columns: [&(dyn ToSql + Sync); 4] = [&chats, &seqs, &ids, &bodies];
        client.execute(&insert, &columns).await.context("committing")?;
        let mut seqs = seqs.as_slice();
        for of_room in batch.chunk_by(|a, b| a.room.number == b.room.number) {
            let (own, rest) = seqs.split_at_checked(of_room.len()).unwrap_or_default();
            seqs = rest;
            if let Some(first) = of_room.first() {
                let messages = own.iter().zip(of_room).map(|(seq, submission)| {
                    (seq.unsigned_abs(), &submission.sender, submission.request, &*submission.body)
                });
                first.room.hand_on(lengths, messages);
            }
        }
        batch.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::bench::connection::{Connection, push_frame};
    use crate::floor::server::{Floor, Sink};

    /// How long anything may take that is waited for.
    const PATIENCE: Duration = Duration::from_secs(120);

    const WAITS: &str = "SELECT count(*) FROM pg_locks WHERE relation = 'floor_messages'::regclass AND NOT granted";

    async fn connect(url: &str) -> Client {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn count(client: &Client, query: &str) -> i64 {
        client.query_one(query, &[]).await.unwrap().get(0)
    }

    async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    #[tokio::test]
    async fn nothing_is_answered_or_handed_on_before_it_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        // Postgres runs under an account of its own when this process is root's, and must get through.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (lanes, postgres) = start(folder.path().join("data")).await.unwrap();
        let url = postgres.connection_string(DATABASE);
        let (locker, looker) = (connect(&url).await, connect(&url).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let floor = Floor::new(20, 13, Sink::Lanes(lanes));
        let served = tokio::spawn(async move { floor.serve(listener).await });
        let mut member = Connection::open(&address).await.unwrap();
        let mut out = Vec::new();
        push_frame(&mut out, b"J\0\0\0\x01");
        member.stream.write_all(&out).await.unwrap();
        assert_eq!(read(&mut member.stream, 3).await, b"\x82\x01j");

        locker.batch_execute("BEGIN; LOCK TABLE floor_messages IN EXCLUSIVE MODE").await.unwrap();
        out.clear();
        push_frame(&mut out, b"S\0\0\0\x05hello");
        member.stream.write_all(&out).await.unwrap();
        let began = Instant::now();
        while count(&looker, WAITS).await == 0 {
            assert!(began.elapsed() < PATIENCE, "the message does not come to Postgres");
            tokio::task::yield_now().await;
        }
        // Whatever had been handed on would come before the answer to this.
        member.stream.write_all(b"\x89\x81\0\0\0\0x").await.unwrap();
        assert_eq!(read(&mut member.stream, 3).await, b"\x8a\x01x");
        locker.batch_execute("COMMIT").await.unwrap();
        assert_eq!(read(&mut member.stream, 22).await, b"\x82\x14D\0\0\0\0\0\0\0\x01hello\0\0\0\0\0\0");
        assert_eq!(count(&looker, "SELECT count(*) FROM floor_messages WHERE body = 'hello'").await, 1);
        assert_eq!(read(&mut member.stream, 15).await, b"\x82\x0dA\0\0\0\x05\0\0\0\0\0\0\0\x01");
        served.abort();
        postgres.stop().await.unwrap();
    }
}
