//! Two users with two devices each, by the client library: edits, deletions, replies, reactions (P3, P7, P13).

use std::sync::Arc;

use sealcast::client::{
    Body, Client, Event, EventStream, MemoryStorage, Message, NewAccount, SendError, VerificationFailure,
};
use sealcast::protocol::frame::Direction;
use sealcast::protocol::ids::{ChatId, MessageId, Revision, Seq};

use super::support::broker::{Broker, Settings};
use super::support::database::Database;
use super::support::library::{ann_and_bob, caught_up, config, event_that, link};
use super::support::within;

/// Ann and Bob in one chat, with a desk and a phone each.
struct Talk {
    ann: Client,
    ann_phone: Client,
    bob: Client,
    bob_phone: Client,
    chat_id: ChatId,
    broker: Broker,
    // Dropped last: the broker's connections go first.
    database: Database,
}

impl Talk {
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start_with(Settings::on(&database)).await;
        let url = format!("http://{}", broker.address());
        let (ann, bob, chat_id) = ann_and_bob(&url).await;
        let (ann_phone, bob_phone) = (link(&ann, &url).await, link(&bob, &url).await);
        Self { ann, ann_phone, bob, bob_phone, chat_id, broker, database }
    }

    fn all(&self) -> [&Client; 4] {
        [&self.ann, &self.ann_phone, &self.bob, &self.bob_phone]
    }

    async fn caught_up(&self, seq: Seq) {
        for client in self.all() {
            caught_up(client, self.chat_id, seq).await;
        }
    }

    fn check_no_alarms(&self) {
        for client in self.all() {
            assert_eq!(client.stats().alarms, 0);
        }
    }
}

fn text(message: &Message) -> &str {
    match &message.body {
        Body::Message { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

async fn edited(events: &mut EventStream, id: MessageId) -> (Message, Option<Seq>) {
    event_that("an edit", events, |event| match event {
        Event::Edited { message, first } if message.message_id == id => Some((message.clone(), *first)),
        _ => None,
    })
    .await
}

/// What a reader shows who reads everything forwards, or backwards.
async fn read(client: &Client, chat_id: ChatId, direction: Direction, limit: u32) -> Vec<(MessageId, String, u64)> {
    let mut history = client.history(chat_id).await.unwrap();
    let mut shown: Vec<(MessageId, String, u64)> = Vec::new();
    let mut at = match direction {
        Direction::After => history.start(),
        Direction::Before => Seq::saturating(u64::MAX),
    };
    loop {
        let page = match direction {
            Direction::After => history.after(at, limit).await.unwrap(),
            Direction::Before => history.before(at, limit).await.unwrap(),
        };
        assert!(page.alarms.is_empty(), "{:?}", page.alarms);
        let show = |message: &Message| (message.message_id, text(message).to_owned(), message.revision.get());
        let messages: Vec<_> =
            page.messages.iter().filter(|message| matches!(message.body, Body::Message { .. })).map(show).collect();
        match direction {
            Direction::After => {
                shown.extend(messages);
                for edit in &page.edits {
                    match shown.iter_mut().find(|(id, _, _)| *id == edit.message_id) {
                        Some(known) => *known = show(edit),
                        // Its place had no text when it was read.
                        None => shown.push(show(edit)),
                    }
                }
                shown.retain(|(id, _, _)| !page.deletions.iter().any(|deletion| deletion.message_id == *id));
                at = page.up_to;
            }
            Direction::Before => {
                shown.splice(0..0, messages);
                at = page.after.next();
            }
        }
        if !page.more {
            return shown;
        }
    }
}

#[tokio::test]
async fn everybody_sees_edits_deletions_replies_and_reactions_from_any_device() {
    let talk = Talk::start().await;
    let mut bobs = talk.bob_phone.events();
    let first = talk.ann.send(talk.chat_id, "lunch at noon").await.unwrap();
    let doomed = talk.bob.send(talk.chat_id, "no").await.unwrap();
    talk.caught_up(doomed.seq).await;

    // Ann's phone edits what her desk sent.
    let edit = talk.ann_phone.edit(talk.chat_id, first.message_id, "lunch at one").await.unwrap();
    let (message, place) = edited(&mut bobs, first.message_id).await;
    assert_eq!((text(&message), message.revision.get(), message.seq), ("lunch at one", 1, edit.seq));
    assert_eq!((message.sender_id, place), (talk.ann.user_id(), Some(first.seq)));
    talk.caught_up(edit.seq).await;

    // Ann, who manages the chat, deletes what Bob wrote; Bob cannot touch what Ann wrote.
    let deletion = talk.ann.delete_message(talk.chat_id, doomed.message_id).await.unwrap();
    let deleted = event_that("a deletion", &mut bobs, |event| match event {
        Event::Deleted { deletion, first } => Some((*deletion, *first)),
        _ => None,
    })
    .await;
    assert_eq!(
        (deleted.0.message_id, deleted.0.user_id, deleted.0.seq),
        (doomed.message_id, talk.ann.user_id(), deletion.seq)
    );
    assert_eq!((deleted.0.by_manager, deleted.1), (true, Some(doomed.seq)));
    for refused in [
        talk.bob.edit(talk.chat_id, first.message_id, "lunch at two").await,
        talk.bob.delete_message(talk.chat_id, first.message_id).await,
        talk.ann.edit(talk.chat_id, doomed.message_id, "yes").await,
        talk.ann.delete_message(talk.chat_id, MessageId::generate()).await,
    ] {
        assert!(matches!(refused, Err(SendError::UnknownMessage)), "{refused:?}");
    }

    let reply = talk.bob.reply(talk.chat_id, first.message_id, "fine").await.unwrap();
    let reaction = talk.bob_phone.react(talk.chat_id, first.message_id, "👍").await.unwrap();
    talk.caught_up(reaction.seq).await;
    let unreact = talk.bob.delete_message(talk.chat_id, reaction.message_id).await.unwrap();
    talk.caught_up(unreact.seq).await;

    let shown = [(first.message_id, "lunch at one".to_owned(), 1), (reply.message_id, "fine".to_owned(), 0)];
    for client in [&talk.ann, &talk.bob] {
        for limit in [1, 2, 200] {
            for direction in [Direction::After, Direction::Before] {
                assert_eq!(read(client, talk.chat_id, direction, limit).await, shown, "{direction:?} by {limit}");
            }
        }
    }
    let head = talk.ann.head(talk.chat_id);
    assert!(talk.all().iter().all(|client| client.head(talk.chat_id) == head));
    talk.check_no_alarms();
}

#[tokio::test]
async fn of_two_devices_that_edit_at_once_one_is_asked_to_look_again() {
    let talk = Talk::start().await;
    let sent = talk.ann.send(talk.chat_id, "zero").await.unwrap();
    talk.caught_up(sent.seq).await;
    let outside = talk.database.hold_commits().await;
    let (desk, phone) = (talk.ann.clone(), talk.ann_phone.clone());
    let chat_id = talk.chat_id;
    let one = tokio::spawn(async move { desk.edit(chat_id, sent.message_id, "from the desk").await });
    let two = tokio::spawn(async move { phone.edit(chat_id, sent.message_id, "from the phone").await });
    talk.database.until_held().await;
    outside.batch_execute("COMMIT").await.unwrap();
    let results = [within("an edit", one).await.unwrap(), within("an edit", two).await.unwrap()];
    let next = Revision::saturating(2);
    let is_conflict = |result: &Result<_, SendError>| matches!(result, Err(SendError::EditConflict { revision }) if *revision == next);
    // Who comes second may also have seen the first edit before it sealed its own.
    let conflicts = results.iter().filter(|result| is_conflict(result)).count();
    let done = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!((conflicts, done), (1, 1), "{results:?}");
    let again = talk.ann_phone.edit(chat_id, sent.message_id, "agreed").await;
    let again = match again {
        Err(SendError::EditConflict { .. }) => {
            caught_up(&talk.ann_phone, chat_id, sent.seq.next()).await;
            talk.ann_phone.edit(chat_id, sent.message_id, "agreed").await.unwrap()
        }
        result => result.unwrap(),
    };
    talk.caught_up(again.seq).await;
    talk.check_no_alarms();
}

#[tokio::test]
async fn edits_of_one_device_follow_one_another_and_old_messages_are_edited_too() {
    let talk = Talk::start().await;
    let chat_id = talk.chat_id;
    let sent = talk.ann.send(chat_id, "zero").await.unwrap();
    let id = sent.message_id;
    let (one, two, three) = tokio::join!(
        talk.ann.edit(chat_id, id, "one"),
        talk.ann.edit(chat_id, id, "two"),
        talk.ann.edit(chat_id, id, "three"),
    );
    let seqs = [one.unwrap().seq, two.unwrap().seq, three.unwrap().seq];
    assert_eq!(seqs.map(|seq| seq.get() - sent.seq.get()), [1, 2, 3]);
    // A device that was linked after a message does not remember it, and learns the revision from the server.
    let url = format!("http://{}", talk.broker.address());
    let tablet = link(&talk.ann, &url).await;
    let mut events = tablet.events();
    let edit = tablet.edit(chat_id, id, "from the tablet").await.unwrap();
    talk.caught_up(edit.seq).await;
    let (message, first) = edited(&mut events, id).await;
    assert_eq!((message.revision.get(), first), (4, None), "nothing here says whose message it was");
    let deleted = tablet.delete_message(chat_id, id).await.unwrap();
    talk.caught_up(deleted.seq).await;
    talk.check_no_alarms();
    assert_eq!(tablet.stats().alarms, 0);
}

#[tokio::test]
async fn p2_an_edit_and_a_deletion_whose_answers_are_lost_are_made_once() {
    let mut talk = Talk::start().await;
    let sent = talk.ann.send(talk.chat_id, "zero").await.unwrap();
    let (client, chat_id) = (talk.ann.clone(), talk.chat_id);
    let working = tokio::spawn(async move {
        for round in 0..10 {
            client.edit(chat_id, sent.message_id, &format!("edit {round}")).await?;
        }
        client.delete_message(chat_id, sent.message_id).await
    });
    for seq in [3, 7] {
        caught_up(&talk.bob, chat_id, Seq::saturating(sent.seq.get() + seq)).await;
        talk.broker.kill_and_restart().await;
    }
    let deleted = within("the deletion", working).await.unwrap().unwrap();
    assert_eq!(deleted.seq.get(), sent.seq.get() + 11, "ten edits and a deletion, each once");
    talk.caught_up(deleted.seq).await;
    assert!(read(&talk.bob, chat_id, Direction::After, 200).await.is_empty());
    talk.check_no_alarms();
}

#[tokio::test]
async fn p13_data_that_the_server_withholds_is_an_alarm() {
    let talk = Talk::start().await;
    let edited = talk.ann.send(talk.chat_id, "edited").await.unwrap();
    let withheld = talk.ann.send(talk.chat_id, "withheld").await.unwrap();
    let edit = talk.ann.edit(talk.chat_id, edited.message_id, "better").await.unwrap();
    talk.caught_up(edit.seq).await;
    // A server that drops data which nobody deleted.
    let drop_it = format!("UPDATE chat_messages SET data = NULL WHERE seq = {}", withheld.seq);
    talk.database.client().await.batch_execute(&drop_it).await.unwrap();
    let mut history = talk.bob.history(talk.chat_id).await.unwrap();
    let page = history.after(history.start(), 200).await.unwrap();
    let named: Vec<_> = page.alarms.iter().map(|alarm| (alarm.seq, alarm.failure.to_string())).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[0].0, Some(withheld.seq));
    assert!(named[0].1.contains("withheld"), "{named:?}");
    assert_eq!(page.messages.iter().map(text).collect::<Vec<_>>(), ["better"]);
    assert_eq!(page.changed_later, [withheld.message_id]);

    // And for who catches up with it.
    let url = format!("http://{}", talk.broker.address());
    let outside = talk.database.client().await;
    let storage = Arc::new(MemoryStorage::default());
    let account = NewAccount { server: url.clone(), username: "eve".to_owned(), ttl: None };
    let eve = Client::register(config(), account, Arc::<MemoryStorage>::clone(&storage)).await.unwrap();
    let joined = talk.ann.add_member(talk.chat_id, "eve", true, false).await.unwrap();
    caught_up(&eve, talk.chat_id, joined).await;
    eve.close().await.unwrap();
    drop(eve);
    let gone = talk.ann.send(talk.chat_id, "gone").await.unwrap();
    let changed = talk.ann.send(talk.chat_id, "changed").await.unwrap();
    let edit = talk.ann.edit(talk.chat_id, changed.message_id, "changed again").await.unwrap();
    let drop_it = format!("UPDATE chat_messages SET data = NULL WHERE seq = {}", gone.seq);
    outside.batch_execute(&drop_it).await.unwrap();
    let eve = Client::open(config(), storage).await.unwrap();
    let mut alarms = eve.events();
    let alarm = event_that("an alarm", &mut alarms, |event| match event {
        Event::Alarm(alarm) => Some(*alarm),
        _ => None,
    })
    .await;
    assert_eq!((alarm.seq, alarm.failure), (Some(gone.seq), VerificationFailure::Withheld));
    caught_up(&eve, talk.chat_id, edit.seq).await;
    within("the client to be live", eve.live()).await.unwrap();
    assert_eq!(eve.stats().alarms, 1, "what was edited is explained");
}
