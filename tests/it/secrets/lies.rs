//! What a server or a member could say of secrets that is not so: each is an alarm, and none is believed.

use sealcast::client::{ClientError, Event, SecretState, VerificationFailure};
use sealcast::crypto::UserSecret;
use sealcast::crypto::group_key::GroupKey;
use sealcast::crypto::group_secret::SecretPlace;
use sealcast::protocol::binary::Blob;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ConfirmSecret, FetchGroupKeys, Reply, Request, SetSecret};
use sealcast::protocol::group_secret::{SecretPart, SignedSecret};
use sealcast::protocol::ids::{ChatId, GenerationNo, SecretId, UserKeyId};

use super::people::{ada_and_bob, open, register, said, summary};
use crate::support::broker::Broker;
use crate::support::clients::event;
use crate::support::database::Database;
use crate::support::device::{Device, Socket};
use crate::support::halves::Halves;
use crate::support::library::caught_up;
use crate::support::secrets::{fetch_secret, set};

const KEEP: &str = "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT * FROM group_secrets";
const SHOW_KEPT: &str = "DELETE FROM group_secrets; INSERT INTO group_secrets SELECT * FROM kept";

#[tokio::test]
async fn p7_a_secret_that_is_altered_swapped_replayed_withheld_or_a_strangers_is_named_and_not_read() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob, chat_id) = ada_and_bob(&broker).await;
    let mut adas = open(&ada, chat_id).await;
    let door = adas.write("door", b"1234").await.unwrap();
    let safe = adas.write("safe", b"9999").await.unwrap();
    let bobs = open(&bob, chat_id).await;
    assert_eq!(said(&bobs, "door").await, b"1234");
    let server = database.client().await;
    let run = async |sql: &str| server.batch_execute(sql).await.unwrap();
    let mut events = bob.events();
    use VerificationFailure::{SecretContent, SecretRollback, SecretSignature};

    run(KEEP).await;
    let of = |id: SecretId| format!("id = '{}'", id.0);
    let flipped = |column: &str, at: u32| {
        format!(
            "UPDATE group_secrets SET {column} = set_byte({column}, {at}, get_byte({column}, {at}) # 1) WHERE {}",
            of(door)
        )
    };
    let swapped =
        format!("UPDATE group_secrets s SET value = k.value FROM kept k WHERE s.{} AND k.{}", of(door), of(safe));
    let moved = format!(
        "UPDATE group_secrets s SET value = k.value, signed = k.signed FROM kept k WHERE s.{} AND k.{}",
        of(door),
        of(safe)
    );
    for (what, lie, failure) in [
        ("altered", flipped("value", 20), SecretContent(door)),
        ("another's value", swapped, SecretContent(door)),
        ("another's whole", moved, SecretContent(door)),
    ] {
        run(&lie).await;
        let read = bobs.read(door).await.map(|_| ());
        assert!(matches!(read, Err(ClientError::Verification(found)) if found == failure), "{what}: {read:?}");
        event(what, &mut events, |event| match event {
            Event::Alarm(alarm) if alarm.failure == failure => Some(()),
            _ => None,
        })
        .await;
        run(SHOW_KEPT).await;
        assert_eq!(said(&bobs, "door").await, b"1234", "{what}: and it is good again");
    }

    // An older revision than was shown, another one of the same number, and none at all.
    run(KEEP).await;
    adas.write("door", b"5678").await.unwrap();
    assert_eq!(said(&bobs, "door").await, b"5678");
    run(SHOW_KEPT).await;
    let read = bobs.read(door).await.map(|_| ());
    assert!(matches!(read, Err(ClientError::Verification(SecretRollback(id))) if id == door), "{read:?}");
    assert_eq!(summary(&bobs, door).await.state, SecretState::Bad(SecretRollback(door)));
    let eve = Device::register(&broker, "eve").await;
    drop(adas);
    run(&format!("DELETE FROM group_secrets WHERE {}", of(safe))).await;
    let listed = bobs.list().await.unwrap();
    assert!(listed.iter().all(|secret| secret.secret_id != safe));
    event("a secret that is withheld", &mut events, |event| match event {
        Event::Alarm(alarm) if alarm.failure == SecretRollback(safe) => Some(()),
        _ => None,
    })
    .await;

    // A revision by somebody who is no member, with the server's help.
    run(SHOW_KEPT).await;
    let packed: Vec<u8> =
        server.query_one(&format!("SELECT signed FROM group_secrets WHERE {}", of(safe)), &[]).await.unwrap().get(0);
    let secret: SignedSecret = rmp_serde::from_slice(&packed).unwrap();
    let before = SetSecret { chat_id, secret, value: Blob::from(vec![1; 60]) };
    let forged = eve.next_secret(&before);
    let packed = rmp_serde::to_vec_named(&forged.secret).unwrap();
    let statement = "UPDATE group_secrets SET signed = $1, value = $2, revision = 2, hash = $3 WHERE id = $4";
    let (value, hash) = (forged.value.as_ref(), forged.secret.hash(chat_id));
    server.execute(statement, &[&packed, &value, &hash.as_ref(), &safe.0]).await.unwrap();
    let read = bobs.read(safe).await.map(|_| ());
    assert!(matches!(read, Err(ClientError::Verification(SecretSignature(id))) if id == safe), "{read:?}");
    assert_eq!(summary(&bobs, safe).await.state, SecretState::Bad(SecretSignature(safe)));
    run(SHOW_KEPT).await;
    assert_eq!(said(&bobs, "safe").await, b"9999");
}

/// A member who speaks the bare protocol, and can open group keys.
struct Mallory {
    device: Device,
    socket: Socket,
    key_id: UserKeyId,
    secret: UserSecret,
}

impl Mallory {
    async fn join(broker: &Broker) -> Self {
        let device = Device::register(broker, "mallory").await;
        let (secret, key_id) = (UserSecret::generate(), UserKeyId::generate());
        let mut halves = Halves::none();
        halves.renew_with(broker, &device, key_id, secret.public_key()).await;
        let socket = device.connect_live(broker).await;
        Self { device, socket, key_id, secret }
    }

    async fn group_key(&mut self, chat_id: ChatId, number: GenerationNo) -> GroupKey {
        let after = GenerationNo::saturating(number.get() - 1);
        let request = Request::FetchGroupKeys(FetchGroupKeys { chat_id, after });
        let Reply::GroupKeys(keys) = self.socket.request(request).await.unwrap() else { panic!() };
        let wrap = keys.keys.iter().find(|key| key.generation == number && key.key_id == self.key_id).unwrap();
        GroupKey::open(&wrap.key, chat_id, number, (self.device.user_id, self.key_id, &self.secret)).unwrap()
    }

    /// Seals a secret again, saying something else.
    async fn lie(&mut self, secret_id: SecretId, chat_id: ChatId, number: GenerationNo) {
        let newest = fetch_secret(&mut self.socket, chat_id, secret_id).await.current;
        let before = SetSecret { chat_id, secret: newest.secret, value: newest.value };
        let key = self.group_key(chat_id, number).await.secrets();
        let mut lie = self.device.resealed(&before, number, None);
        let revision = lie.secret.secret.revision;
        let place = SecretPlace { chat_id, secret_id, generation: number, revision };
        lie.secret.secret.name = key.seal(&place, SecretPart::Name, b"door").unwrap();
        let value = key.seal(&place, SecretPart::Value, b"0000").unwrap();
        let lie = self.device.signed_secret(chat_id, lie.secret.secret, value);
        self.socket.request(set(&lie)).await.unwrap();
        let revision = lie.secret.secret.revision;
        let confirm = Request::ConfirmSecret(ConfirmSecret { chat_id, secret_id, revision });
        assert_eq!(
            self.socket.request(confirm).await.unwrap_err().code,
            ErrorCode::Malformed,
            "nobody vouches for oneself"
        );
    }
}

#[tokio::test]
async fn p7_a_member_who_seals_a_secret_again_and_changes_what_it_says_is_named_and_what_it_said_is_read() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob, chat_id) = ada_and_bob(&broker).await;
    let mut mallory = Mallory::join(&broker).await;
    let seq = ada.add_member(chat_id, "mallory", true, false).await.unwrap();
    caught_up(&bob, chat_id, seq).await;
    let door = open(&ada, chat_id).await.write("door", b"1234").await.unwrap();
    let dan = register(&broker, "dan").await;
    let seq = ada.add_member(chat_id, "dan", true, false).await.unwrap();
    caught_up(&dan, chat_id, seq).await;
    ada.send(chat_id, "the next generation").await.unwrap();
    let number = database.count("SELECT group_key_generation FROM chats").await.unsigned_abs();
    mallory.lie(door, chat_id, GenerationNo::saturating(number)).await;

    // Who cannot compare reads the lie.
    assert_eq!(said(&open(&dan, chat_id).await, "door").await, b"0000");
    let mut events = bob.events();
    let bobs = open(&bob, chat_id).await;
    let named = event("the lie is named", &mut events, |event| match event {
        Event::Alarm(alarm) if alarm.failure == VerificationFailure::SecretDiffers(door) => Some(alarm.session_id),
        _ => None,
    });
    assert_eq!(named.await, Some(mallory.device.session_id));
    assert_eq!(said(&bobs, "door").await, b"1234");
    // It is repaired for everybody, and Ada, who is not Bob, finds that it is.
    assert_eq!(said(&open(&dan, chat_id).await, "door").await, b"1234");
    let kept = "SELECT count(*) FROM group_secrets WHERE kept_value IS NOT NULL";
    assert_eq!(database.count(kept).await, 1);
    assert_eq!(said(&open(&ada, chat_id).await, "door").await, b"1234");
    assert_eq!(database.count(kept).await, 0);
    assert_eq!((ada.stats().alarms, dan.stats().alarms), (0, 0));
    let summary = summary(&bobs, door).await;
    assert_eq!((summary.session_id, summary.writer_id), (bob.session_id(), ada.user_id()));
}
