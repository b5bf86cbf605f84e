//! A stranger in chats with users who have passwords: user keys, generations, archives and renewals, by the document.
//!
//! The others are the client library and devices that may say anything; what they did is known to the stranger from the
//! log alone. Each message that the server takes was sealed for the roster hash, the epoch and the recovery key of the
//! stranger's own fold, and each one of the others' is checked against it.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage, PendingLink, Storage};
use sealcast::protocol::ids::ChatId;
use serde_json::{Value, json};

use super::bytes::number;
use super::chat::Chat;
use super::fold::Fold;
use super::person::{Connection, Person};
use super::socket::http;
use crate::passwords::{log_in, new_account, password, register_in};
use crate::support::broker::{Broker, Settings};
use crate::support::chat::view;
use crate::support::clients::{self, message, read_all, texts};
use crate::support::database::Database;
use crate::support::device::Device;
use crate::support::halves::Halves;
use crate::support::within;
use crate::verify::program::verify_url;

const PASSWORD: &str = "correct horse";

/// A stranger who is registered and connected.
async fn bob(address: &str) -> (Person, Connection) {
    let (_, info) = http(address, "GET", "/v1/info", "").await;
    let bob = Person::new("bob", number(&info["time"]));
    bob.register(address).await;
    let mut connection = bob.connect(address, info["server_name"].as_str().unwrap()).await;
    connection.get("resume", json!({"cursors": []}), "done").await;
    assert_eq!(connection.push().await["type"], "live");
    (bob, connection)
}

/// The number of the generation whose recovery key receives.
fn current(fold: &Fold) -> Option<u64> {
    fold.group.current().map(|current| number(&current["number"]))
}

/// The X25519 key to which a session's copies are wrapped.
fn exchange_key(fold: &Fold, session_id: &str) -> Value {
    let certificate = fold.recipients().find(|certificate| certificate["session_id"] == session_id);
    certificate.expect("it is a recipient")["public_key"].clone()
}

/// Ada on a device that has nothing but the password; everything is opened that the password opens.
async fn ada_again(broker: &Broker) -> Client {
    let ada = log_in(broker, "ada", PASSWORD).await.unwrap();
    within("the recovery", ada.recovered()).await.expect("it has come to its end");
    ada
}

/// Everything of a chat on such a device.
async fn all_by_password(broker: &Broker, chat_id: ChatId) -> (Client, Vec<String>) {
    let ada = ada_again(broker).await;
    let page = read_all(&ada, chat_id, 200).await;
    assert_eq!((page.locked, page.alarms.len()), (0, 0), "{:?} {:?}", page.locked_messages, page.alarms);
    let said = texts(&page);
    (ada, said)
}

#[tokio::test]
async fn p8_a_stranger_follows_generations_and_withdrawals_and_the_password_opens_what_it_archived() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 100);
    let broker = Broker::start_with(settings).await;
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let ada = register_in(&broker, "ada", PASSWORD, Arc::clone(&storage)).await;
    let first_session = ada.session_id().to_string();
    let mut events = ada.events();
    // The addition names a roster with a recovery key in it.
    let chat_id = ada.create_chat("with a password").await.unwrap();
    ada.send(chat_id, "to myself").await.unwrap();
    let address = broker.address();
    let (mut bob, mut to_bob) = bob(address).await;
    ada.add_member(chat_id, "bob", true, true).await.unwrap();
    let mut bobs = Chat::enter(&bob, &mut to_bob).await;
    bobs.follow_to_the_end(&bob, &mut to_bob).await;
    assert_eq!((bobs.fold.group.due(), current(&bobs.fold)), (Some(2), None), "the first one ended with the addition");

    // No message goes before the generation is made, and none without an archive to it.
    let early = bobs.write(&bob, "too early");
    let refused = to_bob.ask("send", early).await.unwrap_err();
    let details = &refused["details"];
    assert_eq!((&refused["code"], &details["generation"]), (&json!("group_key_due"), &json!(2)));
    assert_eq!((number(&details["epoch"]), number(&details["seq"])), (bobs.fold.epoch(), bobs.fold.seq()));
    bobs.forget_refused();
    let epoch = bobs.fold.epoch();
    bobs.make_generation(&bob, &mut to_bob).await;
    assert_eq!((bobs.fold.group.due(), current(&bobs.fold), bobs.fold.epoch()), (None, Some(2), epoch));
    let request = bobs.write(&bob, "hello");
    let mut without = request.clone();
    without.as_object_mut().unwrap().remove("archive").unwrap();
    let refused = to_bob.ask("send", without).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["details"]["reason"]), (&json!("copies_missing"), &json!("recovery")));
    let sent = to_bob.get("send", request, "sent").await;
    bobs.follow(&bob, &mut to_bob, number(&sent["seq"])).await;
    assert_eq!(sent["log_hash"], bobs.fold.seen()["log_hash"]);
    message(&mut events, "hello").await;
    let seq = ada.send(chat_id, "hello, stranger").await.unwrap().seq;
    bobs.follow(&bob, &mut to_bob, seq.get()).await;

    // A renewal over the same keys changes nothing that a sender looks at.
    let before = (bobs.fold.roster(), bobs.fold.epoch());
    bob.renew(&mut to_bob).await;
    let unlocked = ada.unlock(&password(PASSWORD)).await.unwrap();
    ada.renew(None).await.unwrap();
    bobs.follow_to_the_end(&bob, &mut to_bob).await;
    assert_eq!((bobs.fold.roster(), bobs.fold.epoch()), before);
    let key = exchange_key(&bobs.fold, &first_session);
    // Who hands its key to a new device goes on with another.
    let phones = Arc::new(MemoryStorage::default());
    let linking = PendingLink::begin(clients::config(), new_account(&broker, "ada"), phones).await.unwrap();
    ada.approve_session(&linking.code().parse().unwrap(), None).await.unwrap();
    drop(unlocked);
    let phone = within("a linked device", linking.wait()).await.unwrap();
    within("a live device", phone.live()).await.unwrap();
    bobs.follow_to_the_end(&bob, &mut to_bob).await;
    assert_eq!((bobs.fold.recipients().count(), bobs.fold.epoch(), current(&bobs.fold)), (3, before.1, Some(2)));
    assert_ne!(exchange_key(&bobs.fold, &first_session), key);
    let mut of_phone = phone.events();
    bobs.say(&bob, &mut to_bob, "to both of you").await;
    message(&mut events, "to both of you").await;
    message(&mut of_phone, "to both of you").await;

    // Nobody who could hand a key on is there: the password opens what the stranger has archived.
    ada.close().await.unwrap();
    phone.close().await.unwrap();
    bobs.say(&bob, &mut to_bob, "while you are away").await;
    let mut said = vec!["to myself", "hello", "hello, stranger", "to both of you", "while you are away"];
    let (laptop, found) = all_by_password(&broker, chat_id).await;
    assert_eq!(found, said);

    // With that device the user key goes, and there is nobody to archive to.
    let ada = clients::open(storage).await;
    bobs.follow_to_the_end(&bob, &mut to_bob).await;
    let epoch = bobs.fold.epoch();
    ada.revoke_session(laptop.session_id()).await.unwrap();
    bobs.follow_until(&bob, &mut to_bob, |fold| fold.epoch() == epoch + 2).await;
    assert_eq!((bobs.fold.group.members().count(), bobs.fold.group.due(), current(&bobs.fold)), (0, None, None));
    bobs.say(&bob, &mut to_bob, "without a user key").await;

    // The next login brings another one, and whoever sends makes the generation.
    let tablet = ada_again(&broker).await;
    bobs.follow_until(&bob, &mut to_bob, |fold| fold.group.due() == Some(3)).await;
    assert_eq!(bobs.fold.epoch(), epoch + 2, "the first user key after a withdrawal ends no epoch");
    let seq = within("a message", tablet.send(chat_id, "here again")).await.unwrap().seq;
    bobs.follow(&bob, &mut to_bob, seq.get()).await;
    assert_eq!(current(&bobs.fold), Some(3));

    // A generation that is refused receives no more, and the key in use is archived to the next one.
    let with_it = bobs.fold.roster();
    bobs.refuse_generation(&bob, &mut to_bob).await;
    assert_eq!((bobs.fold.group.due(), current(&bobs.fold), bobs.fold.epoch()), (Some(4), None, epoch + 2));
    assert_ne!(bobs.fold.roster(), with_it);
    bobs.make_generation(&bob, &mut to_bob).await;
    bobs.say(&bob, &mut to_bob, "archived once more").await;
    for client in [ada, tablet] {
        client.close().await.unwrap();
    }
    said.extend(["without a user key", "here again", "archived once more"]);
    let (_last, found) = all_by_password(&broker, chat_id).await;
    assert_eq!(found, said);
    let read: Vec<&str> = bobs.read.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(read, said[1..]);
    verify_url(database.url(), &[]).await.good();
}

#[tokio::test]
async fn a_stranger_counts_epochs_over_user_keys_that_are_replaced_and_members_who_go_and_come_back() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (bob, mut to_bob) = bob(broker.address()).await;
    let ada = Device::register(&broker, "ada").await;
    let mut halves = Halves::none();
    halves.renew(&broker, &ada).await;
    let mut bobs = Chat::create(&bob, &mut to_bob).await;
    bobs.say(&bob, &mut to_bob, "nobody has a user key").await;
    let mut expected = 1;
    for (step, raised, due) in [
        ("added", 1, Some(1)),
        ("another key", 1, Some(2)),
        ("another password", 0, None),
        ("the maker is revoked", 1, Some(4)),
        ("removed", 1, None),
        ("added again", 1, Some(5)),
    ] {
        let before = bobs.fold.epoch();
        match step {
            "added" | "added again" => {
                bobs.add(&bob, &mut to_bob, "ada").await.unwrap();
            }
            "another key" => halves.renew(&broker, &ada).await,
            "another password" => halves.replace(&broker, &ada).await,
            "the maker is revoked" => {
                let mut socket = ada.connect_live(&broker).await;
                let chat_id: ChatId = serde_json::from_value(bobs.chat_id.clone()).unwrap();
                let maker = ada.linked(&broker, &mut socket).await;
                let mut makers = maker.connect_live(&broker).await;
                bobs.refuse_generation(&bob, &mut to_bob).await;
                let now = view(&mut makers, chat_id).await;
                maker.make_generation(&mut makers, &now, chat_id).await.unwrap();
                ada.revoke(&mut socket, maker.session_id).await.unwrap();
            }
            _ => {
                let target = json!({"user_id": ada.user_id, "identity_key": ada.identity_key()});
                bobs.remove_user(&bob, &mut to_bob, &target).await.unwrap();
            }
        }
        bobs.follow_to_the_end(&bob, &mut to_bob).await;
        expected += raised;
        assert_eq!((bobs.fold.epoch() - before, bobs.fold.epoch()), (raised, expected), "{step}");
        assert_eq!(bobs.fold.group.due(), due, "{step}");
        if due.is_some() {
            let early = bobs.write(&bob, "too early");
            let refused = to_bob.ask("send", early).await.unwrap_err();
            assert_eq!((&refused["code"], refused["details"]["generation"].as_u64()), (&json!("group_key_due"), due));
            assert_eq!(refused["details"]["epoch"], bobs.fold.epoch(), "{step}");
            bobs.forget_refused();
            bobs.make_generation(&bob, &mut to_bob).await;
        }
        bobs.say(&bob, &mut to_bob, step).await;
    }
    verify_url(database.url(), &[]).await.good();
}
