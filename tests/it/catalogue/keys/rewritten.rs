//! The server as attacker: the log as it was not. With the hashes as they were the chain shows it; with hashes made anew
//! the counters and signatures of the senders do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sealcast::client::{Client, ClientError, Event, MemoryStorage, VerificationFailure};
use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry, next_entry};
use tokio_postgres::types::ToSql;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::chat::whole_log;
use super::super::super::support::clients::{config, event, read_all, register, register_in, texts};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::library::caught_up;
use super::super::super::support::within;

/// What the server does to the last messages of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rewrite {
    Dropped,
    Swapped,
    Replayed,
    Moved,
}

/// A rewrite, and whether the server makes the chain of hashes anew.
type Attack = (Rewrite, bool);

const TEXTS: [&str; 5] = ["one", "two", "three", "four", "five"];

/// The tail of a log as the attack leaves it: the bodies at their places, with the hashes of before.
fn rewrite(
    (rewrite, with_hashes): Attack,
    base: &LogEntry,
    tail: &[LogEntry],
    other: &EntryBody,
    chat: ChatId,
) -> Vec<LogEntry> {
    let mut entries = tail.to_vec();
    match rewrite {
        Rewrite::Dropped => drop(entries.remove(2)),
        Rewrite::Swapped => {
            let body = entries[1].body.clone();
            entries[1].body = std::mem::replace(&mut entries[2].body, body);
        }
        // Without new hashes it takes the place of another, or the chain would have no hash for it.
        Rewrite::Replayed if with_hashes => entries.insert(3, entries[1].clone()),
        Rewrite::Replayed => entries[3].body = entries[1].body.clone(),
        Rewrite::Moved if with_hashes => entries.insert(3, LogEntry { body: other.clone(), ..entries[2].clone() }),
        Rewrite::Moved => entries[3].body = other.clone(),
    }
    if !with_hashes {
        return entries;
    }
    let mut chained: Vec<LogEntry> = Vec::new();
    for entry in entries {
        let previous = chained.last().unwrap_or(base);
        chained.push(next_entry(chat, previous.seq, &previous.log_hash, entry.created_at, entry.body));
    }
    chained
}

/// Puts entries where the tail was.
async fn put(database: &Database, chat_id: ChatId, base: Seq, entries: &[LogEntry]) {
    let client = database.client().await;
    // What the schema itself forbids, a malicious server allows.
    client
        .batch_execute("ALTER TABLE chat_messages DROP CONSTRAINT IF EXISTS chat_messages_chat_id_id_revision_key")
        .await
        .unwrap();
    let base = base.get() as i64;
    client.execute("DELETE FROM chat_messages WHERE chat_id = $1 AND seq > $2", &[&chat_id.0, &base]).await.unwrap();
    for entry in entries {
        let EntryBody::Message(envelope) = &entry.body else { panic!("{entry:?}") };
        insert(&client, chat_id, entry, envelope).await;
    }
    let last = entries.last().unwrap();
    let update = "UPDATE chats SET last_seq = $2, log_hash = $3 WHERE id = $1";
    client.execute(update, &[&chat_id.0, &(last.seq.get() as i64), &last.log_hash.as_ref()]).await.unwrap();
}

async fn insert(client: &tokio_postgres::Client, chat_id: ChatId, entry: &LogEntry, envelope: &Envelope) {
    let created_at = SystemTime::UNIX_EPOCH + Duration::from_micros(entry.created_at.get());
    let (seq, counter) = (entry.seq.get() as i64, envelope.counter.get() as i64);
    let (revision, seen) = (envelope.revision.get() as i64, envelope.seen.seq.get() as i64);
    let key_id = envelope.key_id.map(|key_id| key_id.0);
    let data = envelope.data.as_ref().map(|data| data.as_ref().to_vec());
    let data_hash = envelope.data_hash();
    let values: [&(dyn ToSql + Sync); 17] = [
        &chat_id.0,
        &seq,
        &envelope.message_id.0,
        &revision,
        &envelope.kind.as_str(),
        &envelope.sender_id.0,
        &envelope.sender_session_id.0,
        &key_id,
        &counter,
        &created_at,
        &envelope.roster_hash.as_ref(),
        &seen,
        &envelope.seen.log_hash.as_ref(),
        &data,
        &data_hash.as_ref(),
        &envelope.signature.as_ref(),
        &entry.log_hash.as_ref(),
    ];
    let statement = "INSERT INTO chat_messages (chat_id, seq, id, revision, kind, sender_id, sender_session_id, key_id, \
         counter, created_at, roster_hash, seen_seq, seen_log_hash, data, data_hash, signature, log_hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
    client.execute(statement, &values).await.unwrap();
}

/// Whether a failure is of the kind that shows an attack.
fn shows((rewrite, with_hashes): Attack, failure: VerificationFailure) -> bool {
    use VerificationFailure as Failure;
    match (with_hashes, rewrite) {
        (false, Rewrite::Dropped) => matches!(failure, Failure::Gap { .. }),
        (false, _) => matches!(failure, Failure::LogHash),
        (true, Rewrite::Dropped | Rewrite::Swapped) => matches!(failure, Failure::Counter { .. }),
        (true, Rewrite::Replayed) => matches!(failure, Failure::Counter { .. } | Failure::Revision { .. }),
        (true, Rewrite::Moved) => {
            matches!(failure, Failure::Signature | Failure::GhostSender | Failure::RosterHash | Failure::NoCopy)
        }
    }
}

#[tokio::test]
async fn k14_a_log_that_the_server_rewrote_is_reported_by_its_hashes() {
    report(false).await;
}

#[tokio::test]
async fn k14_a_log_that_the_server_rewrote_with_its_hashes_is_reported_by_counters_and_signatures() {
    report(true).await;
}

async fn report(with_hashes: bool) {
    let attacks = [Rewrite::Dropped, Rewrite::Swapped, Rewrite::Replayed, Rewrite::Moved];
    let attacks = attacks.map(|rewrite| (rewrite, with_hashes));
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 1_000_000);
    let mut broker = Broker::start_with(settings).await;
    let storage = Arc::new(MemoryStorage::default());
    let ada = register(&broker, "ada").await;
    let bob = register_in(&broker, "bob", Arc::clone(&storage) as _).await;
    let observer = Device::register(&broker, "observer").await;
    let mut socket = observer.connect(&broker).await;
    // One chat for each attack, and one that is left alone.
    let mut chats: Vec<(ChatId, Option<Attack>)> = Vec::new();
    for attack in attacks.into_iter().map(Some).chain([None]) {
        let chat_id = ada.create_chat("log").await.unwrap();
        ada.add_member(chat_id, "observer", true, false).await.unwrap();
        ada.add_member(chat_id, "bob", true, false).await.unwrap();
        let first = ada.send(chat_id, "first").await.unwrap();
        caught_up(&bob, chat_id, first.seq).await;
        chats.push((chat_id, attack));
    }
    bob.close().await.unwrap();
    for (chat_id, _) in &chats {
        for text in TEXTS {
            ada.send(*chat_id, text).await.unwrap();
        }
    }
    let untouched = chats.last().unwrap().0;
    let other = whole_log(&mut socket, untouched).await.last().unwrap().body.clone();
    let mut of_attack = HashMap::new();
    for (chat_id, attack) in chats.iter().filter_map(|(chat_id, attack)| attack.map(|attack| (*chat_id, attack))) {
        let log = whole_log(&mut socket, chat_id).await;
        let (head, tail) = log.split_at(log.len() - TEXTS.len());
        let base = head.last().unwrap();
        put(&database, chat_id, base.seq, &rewrite(attack, base, tail, &other, chat_id)).await;
        of_attack.insert(chat_id, attack);
    }
    let mut adas = ada.events();
    broker.kill_and_restart().await;

    // As it comes: to Bob, who was away.
    let bob = Client::open(config(), storage).await.unwrap();
    let mut events = bob.events();
    let mut shown: HashMap<ChatId, Vec<String>> = HashMap::new();
    let mut unseen = of_attack.clone();
    within("an alarm for each attack", async {
        while !unseen.is_empty() || shown.get(&untouched).is_none_or(|texts| texts.len() < TEXTS.len()) {
            match &*events.next().await.unwrap().expect("the client is there") {
                Event::Alarm(alarm) => {
                    let chat_id = alarm.chat_id.expect("of a chat");
                    assert_ne!(chat_id, untouched, "{alarm:?}");
                    if shows(of_attack[&chat_id], alarm.failure) {
                        unseen.remove(&chat_id);
                    }
                }
                Event::Message(message) => {
                    let sealcast::client::Body::Message { text, .. } = &message.body else { continue };
                    shown.entry(message.chat_id).or_default().push(text.clone());
                }
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(shown[&untouched], TEXTS);
    for (chat_id, texts) in &shown {
        let mut once = texts.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), texts.len(), "{:?}: shown twice: {texts:?}", of_attack.get(chat_id));
    }

    // As it is read: by who has seen the log as it was, or, where it is shorter now, by who sees it for the first time.
    let reader = if with_hashes { &bob } else { &ada };
    for (chat_id, attack) in &of_attack {
        let mut history = within("a chat", reader.history(*chat_id)).await.unwrap();
        match within("a page", history.before(Seq::saturating(u64::MAX), 100)).await {
            Err(ClientError::Verification(_)) => {}
            Err(error) => panic!("{attack:?}: {error}"),
            Ok(page) => assert!(!page.alarms.is_empty(), "{attack:?}: {:?}", page.messages),
        }
    }
    // Where nothing was done, all goes on.
    let page = within("all", read_all(reader, untouched, 100)).await;
    assert_eq!((page.alarms.len(), page.locked), (0, 0));
    assert_eq!(texts(&page)[1..], TEXTS);
    assert!(within("a message", reader.send(untouched, "good")).await.is_ok());
    // Who has seen it all is told where the log has become shorter, too.
    if with_hashes {
        event("an alarm that entries are lost", &mut adas, |event| match event {
            Event::Alarm(alarm) => matches!(alarm.failure, VerificationFailure::Rollback { .. }).then_some(()),
            _ => None,
        })
        .await;
    }
}
