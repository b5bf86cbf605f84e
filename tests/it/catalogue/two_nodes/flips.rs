//! Members who come and go while eight send, by the client library with real cryptography: whoever is a member can read
//! everything, whoever is not nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sealcast::client::{Alarm, Client, Event, SendError};
use sealcast::protocol::ids::{ChatId, Seq, UserId};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::protocol::membership::Change;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::super::support::broker::Broker;
use super::super::super::support::chat::whole_log;
use super::super::super::support::clients::{link, read_all, register, texts};
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::library::caught_up;
use super::super::super::support::{trials, within};
use super::unbounded;

const SENDERS: usize = 8;

/// Notes every copy that was ever stored: who could open what, whatever is deleted later.
const AUDIT: &str = "CREATE TABLE audit (chat_id uuid, key_id uuid, session_id uuid); \
     CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO audit SELECT chat_id, sender_key_id, session_id FROM stored; RETURN NULL; END $$; \
     CREATE TRIGGER note AFTER INSERT ON vault_chat_sender_keys REFERENCING NEW TABLE AS stored \
         FOR EACH STATEMENT EXECUTE FUNCTION note()";

/// Where each user was a member: from the seq of its addition to that of its removal.
fn terms(log: &[LogEntry]) -> HashMap<UserId, Vec<(Seq, Seq)>> {
    let mut terms: HashMap<UserId, Vec<(Seq, Seq)>> = HashMap::new();
    for entry in log {
        let EntryBody::Membership(signed) = &entry.body else { continue };
        let of_target = terms.entry(signed.change.target.user_id).or_default();
        match signed.change.change {
            Change::Create | Change::Add { .. } => of_target.push((entry.seq, Seq::saturating(u64::MAX))),
            Change::Remove | Change::Leave => of_target.last_mut().unwrap().1 = entry.seq,
            _ => {}
        }
    }
    terms
}

/// Sends until the time is over; gives seq and text of what was acknowledged.
async fn talk(client: &Client, chat_id: ChatId, number: usize, until: Instant) -> Vec<(Seq, String)> {
    let mut sent = Vec::new();
    while Instant::now() < until {
        let text = format!("{number}: {}", sent.len());
        match client.send(chat_id, &text).await {
            Ok(ok) => sent.push((ok.seq, text)),
            Err(error @ SendError::GhostRecipient { .. }) => panic!("{error}"),
            Err(error) => panic!("a message of a member is lost: {error}"),
        }
    }
    sent
}

/// Adds and removes, by both devices of the owner in turn; gives how often.
async fn flip(owner: &[Client; 2], chat_id: ChatId, flipped: &[Client], until: Instant) -> usize {
    let mut flips = 0;
    while Instant::now() < until {
        let target = flipped[flips / 2 % flipped.len()].username();
        let (adds, removes) = (&owner[flips / 2 % 2], &owner[flips / 4 % 2]);
        adds.add_member(chat_id, target.as_str(), true, false).await.unwrap();
        removes.remove_member(chat_id, target.as_str()).await.unwrap();
        flips += 2;
    }
    flips
}

/// Notes what a client is told until it is closed: the places of its messages, and its alarms.
fn listen(client: &Client) -> JoinHandle<(Vec<Seq>, Vec<Alarm>)> {
    let mut events = client.events();
    tokio::spawn(async move {
        let (mut seqs, mut alarms) = (Vec::new(), Vec::new());
        loop {
            let Some(event) = events.next().await.expect("no event is dropped") else { return (seqs, alarms) };
            match &*event {
                Event::Message(message) => seqs.push(message.seq),
                Event::Alarm(alarm) => alarms.push(*alarm),
                _ => {}
            }
        }
    })
}

#[tokio::test]
async fn k4_members_who_come_and_go_beside_eight_senders_read_all_that_is_theirs_and_nothing_else() {
    let database = Database::create().await;
    let settings = unbounded(&database);
    let (a, b) = (Broker::start_with(settings.clone()).await, Broker::start_with(settings).await);
    database.client().await.batch_execute(AUDIT).await.unwrap();
    let first = register(&a, "owner").await;
    let chat_id = first.create_chat("flips").await.unwrap();
    let observer = Device::register(&a, "observer").await;
    first.add_member(chat_id, "observer", true, false).await.unwrap();
    let second = link(&b, &first, "owner").await;
    let mut senders = Vec::new();
    for number in 0..SENDERS {
        let name = format!("sender-{number}");
        senders.push(register(if number % 2 == 0 { &a } else { &b }, &name).await);
        first.add_member(chat_id, &name, true, false).await.unwrap();
    }
    let flipped = [register(&a, "flipped-0").await, register(&b, "flipped-1").await];
    let listening: Vec<_> = flipped.iter().map(listen).collect();
    let owner = [first, second];
    for client in senders.iter().chain(&owner) {
        client.reconnect();
    }
    let began = owner[0].head(chat_id).unwrap().seq;
    for client in &senders {
        caught_up(client, chat_id, began).await;
    }

    let until = Instant::now() + Duration::from_secs(trials(4, 60) as u64);
    let talking = join_all(senders.iter().enumerate().map(|(number, client)| talk(client, chat_id, number, until)));
    let (sent, flips) = tokio::join!(talking, flip(&owner, chat_id, &flipped, until));
    let mut last = Seq::default();
    for client in &flipped {
        last = owner[1].add_member(chat_id, client.username().as_str(), true, false).await.unwrap();
    }

    // The log: everything that was acknowledged is there, once, at its place.
    let mut socket = observer.connect(&b).await;
    let log = whole_log(&mut socket, chat_id).await;
    let newest = log.last().unwrap().seq;
    let at: HashMap<Seq, &LogEntry> = log.iter().map(|entry| (entry.seq, entry)).collect();
    let acknowledged: HashMap<Seq, String> = sent.into_iter().flatten().collect();
    for seq in acknowledged.keys() {
        assert!(matches!(at[seq].body, EntryBody::Message(_)), "an acknowledged message is not at {seq}");
    }
    let messages: Vec<&LogEntry> = log.iter().filter(|entry| matches!(entry.body, EntryBody::Message(_))).collect();
    assert_eq!(messages.len(), acknowledged.len(), "none twice, none lost");

    // Nothing undecryptable: who stayed reads all, who came back reads all since.
    for client in senders.iter().chain(&flipped).chain(&owner) {
        client.reconnect();
        caught_up(client, chat_id, newest).await;
    }
    let expected: Vec<String> = messages.iter().map(|entry| acknowledged[&entry.seq].clone()).collect();
    for client in senders.iter().chain(&owner) {
        let page = read_all(client, chat_id, 100).await;
        assert_eq!((page.locked, page.alarms.len()), (0, 0), "{}: {:?}", client.username(), page.alarms);
        assert_eq!(texts(&page), expected, "{}", client.username());
    }
    let terms = terms(&log);
    for client in &flipped {
        let page = read_all(client, chat_id, 100).await;
        assert_eq!((page.locked, page.alarms.len()), (0, 0), "{}: {:?}", client.username(), page.alarms);
        let joined = terms[&client.user_id()].last().unwrap().0;
        assert_eq!(page.after.next(), joined, "nothing from before is handed out");
        client.close().await.unwrap();
    }
    assert!(last <= newest);

    // Nothing leaked: no copy of a key for who was no member when it was used, and nothing handed to them.
    let mut leaked = 0;
    for row in database
        .client()
        .await
        .query("SELECT a.key_id, s.user_id FROM audit a JOIN user_sessions s ON s.id = a.session_id", &[])
        .await
        .unwrap()
    {
        let (key_id, user_id): (Uuid, Uuid) = (row.get(0), row.get(1));
        let Some(terms) = flipped.iter().any(|client| client.user_id().0 == user_id).then(|| &terms[&UserId(user_id)])
        else {
            continue;
        };
        let uses = messages.iter().filter(|entry| key_of(entry) == Some(key_id));
        leaked += uses.filter(|entry| !is_within(terms, entry.seq)).count();
    }
    assert_eq!(leaked, 0, "messages under a key of which somebody who was no member had a copy");
    let mut received = 0;
    for (client, listening) in flipped.iter().zip(listening) {
        let (seqs, alarms) = within("its events", listening).await.unwrap();
        assert_eq!(alarms, [], "{}", client.username());
        let terms = &terms[&client.user_id()];
        assert!(seqs.iter().all(|seq| is_within(terms, *seq)), "{}: {seqs:?} {terms:?}", client.username());
        received += seqs.len();
    }
    let refused: u64 = senders.iter().map(|client| client.stats().refusals).sum();
    let alarms: u64 = senders.iter().chain(&owner).map(|client| client.stats().alarms).sum();
    assert_eq!(alarms, 0);
    report(flips, messages.len(), refused, received);
    assert!(flips >= 8 && messages.len() > flips && refused as usize >= SENDERS, "too little happened");
}

fn key_of(entry: &LogEntry) -> Option<Uuid> {
    match &entry.body {
        EntryBody::Message(envelope) => envelope.key_id.map(|key_id| key_id.0),
        _ => None,
    }
}

fn is_within(terms: &[(Seq, Seq)], seq: Seq) -> bool {
    terms.iter().any(|(first, last)| (*first..=*last).contains(&seq))
}

#[expect(clippy::print_stdout, reason = "a run of all trials is judged by how much happened")]
fn report(flips: usize, messages: usize, refused: u64, received: usize) {
    println!(
        "membership flips against {SENDERS} senders: {flips} changes, {messages} messages, {refused} refused and sent \
         again, {received} handed to who came and went; undecryptable 0, leaked 0"
    );
}
