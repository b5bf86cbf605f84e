//! L3: restarts in a row, as the client library lives through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use sealcast::client::{Body, Client, ClientConfig, Connector, Event, MemoryStorage, NewAccount};
use sealcast::protocol::ids::{ChatId, Seq};
use tokio::task::JoinHandle;

use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::database::Database;
use super::super::super::support::library::caught_up;
use super::super::super::support::{trials, within};

/// People in one chat.
const MEMBERS: usize = 5;

/// Messages that each person sends around each restart.
const MESSAGES: usize = 3;

/// A user of the library, and everything that it was told.
struct Person {
    client: Client,
    told: JoinHandle<Told>,
}

/// What a client was told of its chat, in the order in which it was.
#[derive(Default)]
struct Told {
    messages: Vec<(Seq, String)>,
    disconnected: usize,
}

async fn person(broker: &Broker, name: &str) -> Person {
    let config = ClientConfig { events_kept: 1 << 16, ..ClientConfig::new(Connector::new(None).unwrap()) };
    let account = NewAccount { server: broker.public.clone(), username: name.to_owned(), ttl: None };
    let storage = Arc::new(MemoryStorage::default());
    let client = within("a registration", Client::register(config, account, storage)).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    let mut events = client.events();
    let told = tokio::spawn(async move {
        let mut told = Told::default();
        while let Some(event) = events.next().await.expect("no event is dropped") {
            match &*event {
                Event::Message(message) => {
                    let Body::Message { text, .. } = &message.body else { panic!("{message:?}") };
                    told.messages.push((message.seq, text.clone()));
                }
                Event::Alarm(alarm) => panic!("{alarm:?}"),
                Event::Disconnected => told.disconnected += 1,
                Event::Closed(_) => break,
                _ => {}
            }
        }
        told
    });
    Person { client, told }
}

async fn group(broker: &Broker, index: usize) -> (ChatId, Vec<Person>) {
    let mut people = Vec::new();
    for member in 0..MEMBERS {
        people.push(person(broker, &format!("person-{index}-{member}")).await);
    }
    let owner = people[0].client.clone();
    let chat_id = owner.create_chat("Lunch").await.unwrap();
    for member in 1..MEMBERS {
        let seq = owner.add_member(chat_id, &format!("person-{index}-{member}"), true, false).await.unwrap();
        caught_up(&people[member].client, chat_id, seq).await;
    }
    (chat_id, people)
}

/// Sends around a restart; every message is acknowledged in the end.
async fn speak(client: Client, chat_id: ChatId, name: String) {
    for message in 0..MESSAGES {
        client.send(chat_id, &format!("{name}-{message}")).await.unwrap();
    }
}

#[tokio::test]
async fn l3_clients_come_back_after_every_restart_with_clean_histories() {
    let rounds = trials(4, 10);
    let groups = trials(4, 200);
    let database = Database::create().await;
    let settings = Settings::on(&database).with("drain.retry_spread_ms", 200);
    let mut broker = Broker::start_with(settings).await;
    let groups = stream::iter(0..groups).map(|index| group(&broker, index)).buffered(4).collect::<Vec<_>>().await;
    for round in 0..rounds {
        let mut speaking = Vec::new();
        for (chat_id, people) in &groups {
            for (index, person) in people.iter().enumerate() {
                let (client, name) = (person.client.clone(), format!("{index}-{round}"));
                speaking.push(tokio::spawn(speak(client, *chat_id, name)));
            }
        }
        // Some messages are answered, some are under way, some are not sent yet.
        tokio::task::yield_now().await;
        if round % 2 == 0 {
            broker.kill();
        } else {
            broker.signal("TERM");
            assert_eq!(broker.exit_code().await, Some(0));
        }
        broker.restart().await;
        for speaking in speaking {
            within("what was sent around a restart", speaking).await.unwrap();
        }
    }
    for (chat_id, people) in groups {
        let mut last = Seq::default();
        for person in &people {
            last = last.max(person.client.head(chat_id).unwrap().seq);
        }
        let mut first_told: Option<Vec<(Seq, String)>> = None;
        for person in people {
            caught_up(&person.client, chat_id, last).await;
            assert_eq!(person.client.stats().alarms, 0);
            person.client.close().await.unwrap();
            let told = within("the end of the events", person.told).await.unwrap();
            assert!(told.disconnected >= rounds, "{} of {rounds} restarts were noticed", told.disconnected);
            assert!(told.messages.is_sorted_by(|one, next| one.0 < next.0), "in order of the log");
            let mut count: BTreeMap<&str, usize> = BTreeMap::new();
            for (_, text) in &told.messages {
                *count.entry(text).or_default() += 1;
            }
            assert_eq!(count.len(), MEMBERS * rounds * MESSAGES, "none is missing");
            assert!(count.values().all(|count| *count == 1), "none came twice: {count:?}");
            let same = first_told.get_or_insert_with(|| told.messages.clone());
            assert_eq!(*same, told.messages, "all were told the same");
        }
    }
}
