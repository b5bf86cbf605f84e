//! What members read: on any device, with nobody else online, and as newcomers.

use sealcast::client::{Client, ClientError, Event, SecretState};
use sealcast::protocol::group_secret::SecretAction;
use sealcast::protocol::ids::{ChatId, UserId};
use sealcast::protocol::limits::{SECRET_NAME_BYTES_MAX, SECRET_VALUE_BYTES_MAX};

use super::people::{ada_and_bob, add, log_in, name_of, open, password, register, said, summary};
use crate::support::broker::Broker;
use crate::support::clients::event;
use crate::support::database::Database;
use crate::verify::program::verify_url;

/// Who did what, the oldest first.
async fn deeds(client: &Client, chat_id: ChatId) -> Vec<(UserId, SecretAction)> {
    let mut log = client.secret_log(chat_id).await.unwrap();
    log.reverse();
    log.into_iter().map(|entry| (entry.user_id, entry.action)).collect()
}

const KEPT: &str = "SELECT count(*) FROM group_secrets WHERE kept_value IS NOT NULL";

#[tokio::test]
async fn p8_a_secret_is_read_by_every_member_on_any_device_with_nobody_else_online() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob, chat_id) = ada_and_bob(&broker).await;
    let mut events = bob.events();
    let mut adas = open(&ada, chat_id).await;
    assert!(adas.list().await.unwrap().is_empty());
    let door = adas.write("door", b"1234").await.unwrap();
    let told = event("a change of a secret", &mut events, |event| match event {
        Event::SecretChanged { chat_id: of, secret_id } if *of == chat_id => Some(*secret_id),
        _ => None,
    });
    assert_eq!(told.await, door);
    let key = adas.write("key", &[0, 159, 146, 150]).await.unwrap();

    let mut bobs = open(&bob, chat_id).await;
    assert_eq!(said(&bobs, "door").await, b"1234");
    assert_eq!(bobs.write("door", b"5678").await.unwrap(), door, "the same secret has another value");
    assert_eq!(said(&adas, "door").await, b"5678");
    let listed = summary(&adas, door).await;
    assert_eq!((listed.writer_id, listed.revision.get(), listed.is_known_to_former), (bob.user_id(), 2, false));
    assert_eq!(name_of(&summary(&adas, key).await), Some("key"));

    // A password opens them on a device that has nothing, with nobody else there.
    ada.close().await.unwrap();
    drop((adas, bobs, bob));
    let phone = log_in(&broker, "ada").await;
    let phones = open(&phone, chat_id).await;
    assert_eq!(said(&phones, "door").await, b"5678");
    assert_eq!(said(&phones, "key").await, [0, 159, 146, 150]);
    let code = phone.make_recovery_code(&password("ada")).await.unwrap();
    let by_code = phone.open_secrets_by_code(chat_id, &code).await.unwrap();
    assert_eq!(said(&by_code, "door").await, b"5678");
    assert!(matches!(phone.open_secrets(chat_id, &password("eve")).await, Err(ClientError::LoginFailed)));

    phones.delete(key).await.unwrap();
    assert!(matches!(phones.read(key).await, Err(ClientError::UnknownSecret)));
    assert!(matches!(phones.delete(key).await, Err(ClientError::UnknownSecret)));
    assert_eq!(by_code.list().await.unwrap().len(), 1);

    let (ada, bob) = (phone.user_id(), deeds(&phone, chat_id).await[3].0);
    use SecretAction::{Change, Create, Delete, Read};
    let expected = [
        (ada, Create),
        (ada, Create),
        (bob, Read),
        (bob, Change),
        (ada, Read),
        (ada, Read),
        (ada, Read),
        (ada, Read),
        (ada, Delete),
    ];
    assert_eq!(deeds(&phone, chat_id).await, expected);
    drop(broker);
    verify_url(database.url(), &[]).await.good();
}

#[tokio::test]
async fn p8_a_newcomer_reads_what_was_there_once_a_member_opens_it_and_what_it_was_made_of_is_kept_until_a_second_does()
{
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob, chat_id) = ada_and_bob(&broker).await;
    let carol = register(&broker, "carol").await;
    let door = open(&ada, chat_id).await.write("door", b"1234").await.unwrap();
    let before = database.count("SELECT generation FROM group_secrets").await;
    add(&ada, chat_id, &carol).await;

    // It waits, and for whom is said.
    let carols = open(&carol, chat_id).await;
    let mut both = vec![ada.user_id(), bob.user_id()];
    both.sort_unstable();
    let waits = summary(&carols, door).await;
    assert_eq!(waits.state, SecretState::Waits { openers: both.clone() });
    assert_eq!(format!("{:?}", SecretState::Open("door".to_owned())), "Open", "no name is printed");
    match carols.read(door).await {
        Err(ClientError::SecretWaits { openers }) => assert_eq!(openers, both),
        other => panic!("{:?}", other.map(|_| ())),
    }

    // A login opens a user key, and so does what is waited for.
    let phone = log_in(&broker, "ada").await;
    let now = database.count("SELECT generation FROM group_secrets").await;
    assert!(now > before, "{before} {now}");
    let carols = open(&carol, chat_id).await;
    assert_eq!(said(&carols, "door").await, b"1234");
    let listed = summary(&carols, door).await;
    assert_eq!((listed.writer_id, listed.revision.get(), listed.is_known_to_former), (ada.user_id(), 2, false));
    assert_eq!(database.count(KEPT).await, 1, "who came later cannot compare");
    open(&phone, chat_id).await;
    open(&ada, chat_id).await;
    assert_eq!(database.count(KEPT).await, 1, "who sealed it again is no second member, on any device");
    open(&bob, chat_id).await;
    assert_eq!(database.count(KEPT).await, 0);
    assert!(deeds(&ada, chat_id).await.contains(&(bob.user_id(), SecretAction::Confirm)));
    assert!(deeds(&ada, chat_id).await.contains(&(ada.user_id(), SecretAction::Reencrypt)));
    assert_eq!(said(&carols, "door").await, b"1234");
    assert_eq!((ada.stats().alarms, bob.stats().alarms, carol.stats().alarms, phone.stats().alarms), (0, 0, 0, 0));
    drop(broker);
    verify_url(database.url(), &[]).await.good();
}

#[tokio::test]
async fn p5_what_a_former_member_knew_is_marked_until_it_is_changed_and_they_get_nothing_any_more() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob, chat_id) = ada_and_bob(&broker).await;
    let mut adas = open(&ada, chat_id).await;
    let door = adas.write("door", b"1234").await.unwrap();
    let bobs = open(&bob, chat_id).await;
    assert_eq!(said(&bobs, "door").await, b"1234");
    ada.remove_member(chat_id, "bob").await.unwrap();
    assert!(matches!(bobs.read(door).await, Err(ClientError::UnknownChat)));
    assert!(matches!(bobs.list().await, Err(ClientError::UnknownChat)));
    assert!(bob.open_secrets(chat_id, &password("bob")).await.is_err());

    // To seal it again changes nothing of what is known.
    let mut adas = open(&ada, chat_id).await;
    assert_eq!(said(&adas, "door").await, b"1234");
    let listed = summary(&adas, door).await;
    assert_eq!((listed.revision.get(), listed.is_known_to_former), (2, true));
    adas.write("door", b"5678").await.unwrap();
    let listed = summary(&adas, door).await;
    assert_eq!((listed.revision.get(), listed.is_known_to_former), (3, false));

    // The group key of before does not open what came after: it is wrapped to others.
    let wraps = format!(
        "SELECT count(*) FROM group_keys WHERE user_id = '{}' AND generation = (SELECT generation FROM group_secrets)",
        bob.user_id().0
    );
    assert_eq!(database.count(&wraps).await, 0);
}

#[tokio::test]
async fn p10_names_and_values_of_the_limits_are_kept_and_one_byte_more_is_not() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada").await;
    let chat_id = ada.create_chat("Keys").await.unwrap();
    let mut secrets = open(&ada, chat_id).await;
    let (name, value) = ("n".repeat(SECRET_NAME_BYTES_MAX - 28), vec![7; SECRET_VALUE_BYTES_MAX - 28]);
    secrets.write(&name, &value).await.unwrap();
    assert_eq!(said(&secrets, &name).await, value);
    let too_long = secrets.write(&format!("{name}n"), b"").await;
    assert!(matches!(too_long, Err(ClientError::TooLarge { limit }) if limit == name.len()), "{too_long:?}");
    let too_long = secrets.write("x", &[value.clone(), vec![7]].concat()).await;
    assert!(matches!(too_long, Err(ClientError::TooLarge { limit }) if limit == value.len()), "{too_long:?}");
    secrets.write("", b"").await.unwrap();
    assert_eq!(said(&secrets, "").await, b"");
}
