//! What a lane of the writer commits, and what it does not, by what the locked rows say (P4, P5).
//!
//! Messages that need nothing but a stored key are judged and written by one statement; whatever is otherwise must come to
//! the same as if each row was read and judged alone.

use std::sync::Arc;
use std::time::Duration;

use sealcast::protocol::binary::{Blob, Hash, Signature};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::ids::{ChatId, Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, Timestamp};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::store::batch::Item;
use sealcast::store::commit::Lane;
use sealcast::store::judgement::Verdict;
use sealcast::store::pool::connection_config;
use sealcast::store::writer::Outcome;

use super::messages::Pair;
use super::support::chat::{submit, view};

/// A chat with a stored key, as a lane finds it.
struct Scene {
    pair: Pair,
    lane: Lane,
    key_id: KeyId,
    epoch: Epoch,
    roster_version: Seq,
    newest: (Seq, Hash),
    counter: u64,
}

impl Scene {
    async fn set() -> Self {
        let mut pair = Pair::start().await;
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let first = pair.ada.seal(&now, &mut key, b"with its key");
        submit(&mut pair.ada_socket, first).await.unwrap();
        let newest = view(&mut pair.ada_socket, pair.chat_id).await.seen;
        let version = pair.database.count("SELECT roster_version FROM chats").await;
        let config = connection_config(&pair.database.url(), Duration::from_secs(10)).unwrap();
        Self {
            lane: Lane::new(config, Duration::from_secs(10)),
            key_id: key.announcement.announcement.key_id,
            epoch: now.fold.epoch(),
            roster_version: Seq::saturating(version.unsigned_abs()),
            newest: (newest.seq, newest.log_hash),
            counter: 1,
            pair,
        }
    }

    /// The next message of the chat, as it was judged.
    fn next(&mut self) -> Item {
        let (previous, previous_hash) = self.newest;
        self.counter += 1;
        self.newest = (previous.next(), Hash([self.counter as u8; 32]));
        let envelope = Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: self.pair.ada.user_id,
            sender_session_id: self.pair.ada.session_id,
            key_id: Some(self.key_id),
            counter: Counter::saturating(self.counter),
            roster_hash: Hash([0; 32]),
            seen: Seen { seq: previous, log_hash: previous_hash },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![7; 64])),
            purged: None,
            signature: Signature([0; 64]),
        };
        Item {
            chat_id: self.pair.chat_id,
            previous,
            previous_hash,
            epoch: self.epoch,
            roster_version: self.roster_version,
            key_id: Some(self.key_id),
            counter: envelope.counter,
            sender_session_id: envelope.sender_session_id,
            entry: Some(LogEntry {
                seq: self.newest.0,
                created_at: Timestamp::saturating(1_800_000_000_000_000),
                log_hash: self.newest.1,
                body: EntryBody::Message(envelope),
            }),
            new_key: None,
            copies: Vec::new(),
            archive: None,
        }
    }

    /// Which message is next.
    const fn place(&self) -> ((Seq, Hash), u64) {
        (self.newest, self.counter)
    }

    const fn return_to(&mut self, place: ((Seq, Hash), u64)) {
        (self.newest, self.counter) = place;
    }

    async fn commit(&mut self, items: Vec<Item>) -> Vec<Verdict> {
        let items: Vec<_> = items.into_iter().map(Arc::new).collect();
        let (verdicts, error) = self.lane.commit(&items).await;
        assert!(error.is_none(), "{error:?}");
        verdicts
    }

    /// Where the rows stand: the chat, its key, and how many messages there are.
    async fn rows(&self) -> (i64, i64, i64, i64, i64) {
        let sql = "SELECT c.last_seq, k.last_counter, k.messages_with_data, k.first_seq, \
             (SELECT count(*) FROM chat_messages) FROM chats c JOIN sender_keys k ON k.chat_id = c.id";
        let row = self.pair.database.client().await.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
    }
}

const COMMITTED: Verdict = Verdict::Done(Outcome::Committed);
const CONFLICT: Verdict = Verdict::Done(Outcome::Conflict);

#[tokio::test]
async fn a_batch_moves_its_chat_and_its_key_on_by_all_of_its_messages() {
    let mut scene = Scene::set().await;
    let (last_seq, counter, messages, first_seq, count) = scene.rows().await;
    assert_eq!((counter, messages, first_seq, count), (1, 1, last_seq, 1));
    for batch in [1, 3, 1] {
        let items = (0..batch).map(|_| scene.next()).collect();
        assert_eq!(scene.commit(items).await, vec![COMMITTED; batch]);
    }
    assert_eq!(scene.rows().await, (last_seq + 5, 6, 6, first_seq, 6));
}

#[tokio::test]
async fn p4_p5_what_is_not_as_it_was_judged_is_not_committed() {
    type Change = fn(&mut Item);
    let changes: [(&str, Change); 7] = [
        ("previous", |item| item.previous = item.previous.next()),
        ("previous hash", |item| item.previous_hash = Hash([9; 32])),
        ("epoch", |item| item.epoch = Epoch::saturating(item.epoch.get() + 1)),
        ("roster version", |item| item.roster_version = item.roster_version.next()),
        ("session", |item| item.sender_session_id = SessionId::generate()),
        ("counter", |item| item.counter = item.counter.next()),
        ("key", |item| item.key_id = Some(KeyId::generate())),
    ];
    let mut scene = Scene::set().await;
    for (what, change) in changes {
        let (place, before) = (scene.place(), scene.rows().await);
        let (mut other, next) = (scene.next(), scene.next());
        change(&mut other);
        assert_eq!(scene.commit(vec![other.clone()]).await, [CONFLICT], "{what}");
        assert_eq!(scene.commit(vec![other, next]).await, [CONFLICT, CONFLICT], "{what}");
        assert_eq!(scene.rows().await, before, "{what}");
        // What comes before it in its batch is.
        scene.return_to(place);
        let good = scene.next();
        let place = scene.place();
        let mut other = scene.next();
        change(&mut other);
        assert_eq!(scene.commit(vec![good, other]).await, [COMMITTED, CONFLICT], "{what}");
        scene.return_to(place);
    }
    let item = scene.next();
    assert_eq!(scene.commit(vec![item]).await, [COMMITTED], "as it was judged");
    let mut stranger = scene.next();
    stranger.chat_id = ChatId::generate();
    assert_eq!(scene.commit(vec![stranger]).await, [Verdict::Busy], "no such chat, or one that is locked");
}

#[tokio::test]
async fn p4_p5_what_has_changed_in_the_rows_since_is_seen() {
    let mut scene = Scene::set().await;
    let client = scene.pair.database.client().await;
    let outdate = [
        ("UPDATE chats SET epoch = epoch + 1", "UPDATE chats SET epoch = epoch - 1"),
        (
            "UPDATE chats SET roster_version = roster_version - 1",
            "UPDATE chats SET roster_version = roster_version + 1",
        ),
        ("UPDATE chats SET next_expiry = now() - interval '1 s'", "UPDATE chats SET next_expiry = NULL"),
        (
            "UPDATE sender_keys SET last_counter = last_counter + 6",
            "UPDATE sender_keys SET last_counter = last_counter - 6",
        ),
        ("UPDATE sender_keys SET epoch = epoch + 1", "UPDATE sender_keys SET epoch = epoch - 1"),
    ];
    for (change, back) in outdate {
        let place = scene.place();
        client.batch_execute(change).await.unwrap();
        let before = scene.rows().await;
        let item = scene.next();
        assert_eq!(scene.commit(vec![item]).await, [CONFLICT], "{change}");
        assert_eq!(scene.rows().await, before, "{change}");
        client.batch_execute(back).await.unwrap();
        scene.return_to(place);
    }
    // A key of which it is not known whether it is covered is counted, and then it is known.
    client.batch_execute("UPDATE sender_keys SET covered_version = NULL").await.unwrap();
    let item = scene.next();
    assert_eq!(scene.commit(vec![item]).await, [COMMITTED]);
    // A copy is missing: nothing is committed without it.
    client
        .batch_execute("UPDATE sender_keys SET covered_version = NULL; DELETE FROM vault_chat_sender_keys")
        .await
        .unwrap();
    let before = scene.rows().await;
    let item = scene.next();
    assert_eq!(scene.commit(vec![item]).await, [CONFLICT]);
    assert_eq!(scene.rows().await, before);
}

#[tokio::test]
async fn b2_a_row_that_somebody_else_holds_is_waited_for_by_nobody() {
    for held in ["SELECT 1 FROM chats FOR NO KEY UPDATE", "SELECT 1 FROM sender_keys FOR NO KEY UPDATE"] {
        let mut scene = Scene::set().await;
        let mut client = scene.pair.database.client().await;
        let holder = client.transaction().await.unwrap();
        holder.batch_execute(held).await.unwrap();
        let item = scene.next();
        let before = scene.rows().await;
        if held.contains("chats") {
            assert_eq!(scene.commit(vec![item.clone()]).await, [Verdict::Busy]);
            assert_eq!(scene.rows().await, before);
        }
        holder.rollback().await.unwrap();
        assert_eq!(scene.commit(vec![item]).await, [COMMITTED]);
    }
}
