//! Where a password protects the identity key, it renews the session: the profile keeps what it has.

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{Client, ClientError, CloseReason, Event, EventStream, NewAccount, Storage};
use sealcast::crypto::opaque::Password;
use sealcast::protocol::error::ErrorCode;

use super::super::support::broker::{Broker, Settings};
use super::super::support::clients::{message, read_all, register, texts};
use super::super::support::database::Database;
use super::super::support::device::now;
use super::super::support::{eventually, within};
use super::library::{no_alarm, quick, storage};
use super::until_expired;

fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

fn account(broker: &Broker, ttl: Option<u64>) -> NewAccount {
    NewAccount { server: broker.public.clone(), username: "ann".to_owned(), ttl: ttl.map(Duration::from_secs) }
}

async fn register_for(broker: &Broker, ttl: u64, storage: &Arc<dyn Storage>) -> Client {
    let secret = password("correct horse");
    let registering = Client::register_with_password(quick(), account(broker, Some(ttl)), &secret, Arc::clone(storage));
    let client = within("a registration", registering).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

async fn log_in(broker: &Broker, text: &str, storage: &Arc<dyn Storage>) -> Result<Client, ClientError> {
    let secret = password(text);
    within("a login", Client::log_in(quick(), account(broker, Some(3_600)), &secret, Arc::clone(storage))).await
}

/// Shortens the life of a client's session with the password, closes it, and waits until its end is written down.
async fn end(database: &Database, client: Client) {
    let session_id = client.session_id();
    let unlocked = client.unlock(&password("correct horse")).await.unwrap();
    client.renew(Some(Duration::from_secs(3))).await.unwrap();
    drop(unlocked);
    client.close().await.unwrap();
    drop(client);
    until_expired(database, session_id).await;
}

/// Waits until the client says that it needs the password.
async fn password_needed(events: &mut EventStream) {
    within("the need of a password", async {
        while !matches!(&*events.next().await.unwrap().unwrap(), Event::PasswordNeeded { .. }) {}
    })
    .await;
}

#[tokio::test]
async fn p8_the_password_renews_a_session_after_its_end_and_all_that_it_could_read_stays() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let bob = register(&broker, "bob").await;
    let anns = storage();
    let ann = register_for(&broker, 3_600, &anns).await;
    let session_id = ann.session_id();
    let mut events = ann.events();
    let chat = bob.create_chat("tea").await.unwrap();
    bob.add_member(chat, "ann", true, false).await.unwrap();
    bob.send(chat, "said before").await.unwrap();
    message(&mut events, "said before").await;
    drop(events);
    end(&database, ann).await;
    bob.close().await.unwrap();
    drop(bob);

    // By itself it can do nothing, and says what it needs.
    let ann = Client::open(quick(), Arc::clone(&anns)).await.unwrap();
    let mut events = ann.events();
    let closed = within("a client that cannot go on", ann.live()).await.unwrap_err();
    assert_eq!(closed, CloseReason::Login(ErrorCode::SessionExpired));
    password_needed(&mut events).await;
    drop((ann, events));
    assert!(matches!(log_in(&broker, "wrong horse", &anns).await, Err(ClientError::LoginFailed)));
    assert_eq!(database.count("SELECT count(*) FROM user_sessions WHERE state = 'live'").await, 1, "bob's");

    let ann = log_in(&broker, "correct horse", &anns).await.unwrap();
    let watched = ann.events();
    within("a live client", ann.live()).await.unwrap();
    assert_eq!(ann.session_id(), session_id, "the same session");
    assert_eq!(database.count("SELECT count(*) FROM user_sessions").await, 2);
    assert!(!ann.holds_identity());
    assert_eq!(texts(&read_all(&ann, chat, 50).await), ["said before"], "with nobody online");
    eventually("a message", async || ann.send(chat, "here again").await.is_ok()).await;
    // Now it has its time, and a login is for a device that has none.
    assert!(matches!(log_in(&broker, "correct horse", &anns).await, Err(ClientError::ProfileTaken)));
    assert!(matches!(ann.renew(None).await, Err(ClientError::NoIdentityKey)));
    no_alarm(watched, ann).await;
    // What was kept is good: the next start needs no password.
    let ann = Client::open(quick(), anns).await.unwrap();
    within("a live client", ann.live()).await.unwrap();
}

#[tokio::test]
async fn a_live_session_asks_for_the_password_in_time_and_is_renewed_with_whatever_needs_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let anns = storage();
    let ann = register_for(&broker, 15, &anns).await;
    let chat = ann.create_chat("tea").await.unwrap();
    let ended = ann.expires_at().unwrap();
    let mut events = ann.events();
    password_needed(&mut events).await;
    assert_eq!(ann.expires_at().unwrap(), ended, "it cannot do it alone");
    drop(ann.unlock(&password("correct horse")).await.unwrap());
    let out = "SELECT count(*) FROM chat_events WHERE kind = 'session_out'";
    if now().plus_micros(1_000_000) > ended {
        // On a machine so slow its time was over, or nearly, before the password was stretched.
        return;
    }
    assert!(ann.expires_at().unwrap() > ended);
    ann.send(chat, "goes on").await.unwrap();
    assert_eq!(database.count(out).await, 0);
    // A longer life is given with it open.
    let unlocked = ann.unlock(&password("correct horse")).await.unwrap();
    ann.renew(Some(Duration::from_secs(86_400))).await.unwrap();
    drop(unlocked);
    assert!(ann.expires_at().unwrap() > ended.plus_micros(60_000 * 1_000_000));
    assert_eq!(database.count(out).await, 0);
}

#[tokio::test]
async fn a_recovery_code_renews_a_session_too_and_a_revoked_one_is_renewed_by_nothing() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let anns = storage();
    let ann = register_for(&broker, 3_600, &anns).await;
    let session_id = ann.session_id();
    let code = ann.make_recovery_code(&password("correct horse")).await.unwrap();
    end(&database, ann).await;
    let recovering = Client::recover(quick(), account(&broker, Some(3_600)), &code, Arc::clone(&anns));
    let ann = within("a recovery", recovering).await.unwrap();
    within("a live client", ann.live()).await.unwrap();
    assert_eq!(ann.session_id(), session_id);
    ann.revoke_session(session_id).await.unwrap();
    eventually("its end", async || !ann.is_live()).await;
    drop(ann);
    let refused = log_in(&broker, "correct horse", &anns).await.unwrap_err();
    assert!(matches!(refused, ClientError::Closed(CloseReason::Login(ErrorCode::SessionRevoked))), "{refused:?}");
}

#[tokio::test]
async fn p8_who_has_as_many_sessions_as_allowed_gets_in_by_the_password_in_the_place_of_one() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.live_max", 2).with("session.certificates_per_hour_max", 20);
    let broker = Broker::start_with(settings).await;
    let first = register_for(&broker, 3_600, &storage()).await;
    let (first_id, secret) = (first.session_id(), password("correct horse"));
    first.close().await.unwrap();
    let second = log_in(&broker, "correct horse", &storage()).await.unwrap();
    within("a live client", second.live()).await.unwrap();
    let unseen = "SELECT count(*) FROM user_sessions WHERE last_seen_at IS NULL";
    eventually("both to be noted as seen", async || database.count(unseen).await == 0).await;
    // Whoever was seen for the last time before the others is named.
    let age = format!("UPDATE user_sessions SET last_seen_at = created_at - interval '1 day' WHERE id = '{first_id}'");
    database.client().await.batch_execute(&age).await.unwrap();
    let thirds = storage();
    let refused = log_in(&broker, "correct horse", &thirds).await.unwrap_err();
    let ClientError::TooManySessions { oldest } = refused else { panic!("{refused:?}") };
    assert_eq!(oldest, first_id);
    let live = "SELECT count(*) FROM user_sessions WHERE state = 'live'";
    assert_eq!(database.count(live).await, 2, "nobody is put out unasked");
    let replacing = Client::log_in_instead(quick(), account(&broker, None), &secret, Some(oldest), Arc::clone(&thirds));
    let third = within("a login", replacing).await.unwrap();
    within("a live client", third.live()).await.unwrap();
    assert_eq!(database.count(live).await, 2);
    assert_eq!(super::state_of(&database, first_id).await, "revoked");
    assert_eq!(second.sessions().await.unwrap().sessions.len(), 3);
    assert!(second.check_sessions().await.unwrap().is_empty());
}
