//! A8: certificates that a user's identity key did not sign. The broker refuses them (`codes::bad_certificates_at_registration_and_approval`);
//! here they are in the database all the same, and clients refuse them.

use sealcast::client::{Client, ClientError, VerificationFailure};
use sealcast::protocol::binary::SigningKey;
use sealcast::protocol::certificate::SignedCertificate;
use sealcast::protocol::fold::FoldError;
use sealcast::protocol::ids::{ChatId, SessionId, UserId};
use sealcast::protocol::log::EntryBody;

use super::super::super::support::broker::Broker;
use super::super::super::support::clients::{alarm, event, link, message, register};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, secret_key, sign};

/// What is made of a true certificate.
type Forgery = (&'static str, fn(&mut SignedCertificate, &Device));

/// Each is wrong in one way; `mallory` is somebody with an identity of her own.
const FORGERIES: [Forgery; 6] = [
    ("signed by another identity", |signed, mallory| {
        signed.signature = sign(&mallory.identity, &signed.certificate.signed_bytes());
    }),
    ("another signing key under the old signature", |signed, mallory| {
        signed.certificate.signing_public_key = mallory.certificate.certificate.signing_public_key;
    }),
    ("another signing key, signed by another identity", |signed, mallory| {
        signed.certificate.signing_public_key = SigningKey(secret_key().verifying_key().to_bytes());
        signed.signature = sign(&mallory.identity, &signed.certificate.signed_bytes());
    }),
    ("another exchange key under the old signature", |signed, mallory| {
        signed.certificate.public_key = mallory.certificate.certificate.public_key;
    }),
    ("a longer life under the old signature", |signed, _| {
        signed.certificate.expired_at = signed.certificate.expired_at.plus_micros(1);
    }),
    ("another user's, and true", |signed, mallory| *signed = mallory.certificate.clone()),
];

/// Reads the certificate of a session as it is stored.
async fn stored(database: &Database, session_id: SessionId) -> SignedCertificate {
    let row = "SELECT certificate FROM user_sessions WHERE id = $1";
    let row = database.client().await.query_one(row, &[&session_id.0]).await.unwrap();
    rmp_serde::from_slice(row.get(0)).unwrap()
}

/// Stores another certificate for a session.
async fn put(database: &Database, session_id: SessionId, signed: &SignedCertificate) {
    let bytes = rmp_serde::to_vec_named(signed).unwrap();
    let update = "UPDATE user_sessions SET certificate = $2 WHERE id = $1";
    assert_eq!(database.client().await.execute(update, &[&session_id.0, &bytes]).await.unwrap(), 1);
}

/// Whether a client refused because a certificate is not its user's.
fn is_forged<T>(result: &Result<T, ClientError>) -> bool {
    matches!(result, Err(ClientError::Verification(VerificationFailure::Certificate(_))))
}

#[tokio::test]
async fn a8_a_forged_certificate_in_the_list_of_a_user_is_an_alarm_and_nobody_is_added() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let tablet = link(&broker, &bob, "bob").await;
    let mallory = Device::register(&broker, "mallory").await;
    let chat_id = ada.create_chat("ours").await.unwrap();
    let mut events = ada.events();
    let head = ada.head(chat_id);
    // Of one of his sessions a forged certificate is enough.
    let honest = stored(&database, tablet.session_id()).await;
    for (what, forge) in FORGERIES {
        let mut forged = honest.clone();
        forge(&mut forged, &mallory);
        put(&database, tablet.session_id(), &forged).await;
        let refused = ada.add_member(chat_id, "bob", true, false).await;
        assert!(is_forged(&refused), "{what}: {refused:?}");
        alarm(&mut events, VerificationFailure::Certificate(forged.certificate.session_id)).await;
        // His own devices see it in their list.
        let listed = bob.sessions().await;
        assert!(listed.is_err(), "{what}: {listed:?}");
    }
    assert_eq!(ada.head(chat_id), head, "the chat is as it was");
    put(&database, tablet.session_id(), &honest).await;
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    let mut bobs = bob.events();
    ada.send(chat_id, "good").await.unwrap();
    message(&mut bobs, "good").await;
    bob.sessions().await.unwrap();
}

#[tokio::test]
async fn a8_an_identity_that_is_swapped_with_all_it_certified_is_an_alarm_to_who_knew_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let mallory = Device::register(&broker, "mallory").await;
    let (first, second) = (ada.create_chat("first").await.unwrap(), ada.create_chat("second").await.unwrap());
    ada.add_member(first, "bob", true, false).await.unwrap();
    let mut events = ada.events();
    let honest = stored(&database, bob.session_id()).await;
    let mut forged = honest.clone();
    forged.certificate.signing_public_key = mallory.certificate.certificate.signing_public_key;
    forged.signature = sign(&mallory.identity, &forged.certificate.signed_bytes());
    put(&database, bob.session_id(), &forged).await;
    let client = database.client().await;
    let swap = "UPDATE users SET identity_public_key = $2 WHERE id = $1";
    client.execute(swap, &[&bob.user_id().0, &mallory.identity_key().as_ref()]).await.unwrap();
    let changed = VerificationFailure::IdentityChanged(bob.user_id());
    let refused = ada.add_member(second, "bob", true, false).await;
    assert!(matches!(&refused, Err(ClientError::Verification(failure)) if *failure == changed), "{refused:?}");
    alarm(&mut events, changed).await;

    let kept = honest_identity(&client, first, bob.user_id()).await;
    client.execute(swap, &[&bob.user_id().0, &kept]).await.unwrap();
    put(&database, bob.session_id(), &honest).await;
    ada.add_member(second, "bob", true, false).await.unwrap();
}

/// The identity key that a chat's log gives a member.
async fn honest_identity(client: &tokio_postgres::Client, chat_id: ChatId, user_id: UserId) -> Vec<u8> {
    let rows = "SELECT body FROM chat_events WHERE chat_id = $1 AND kind = 'membership' ORDER BY seq DESC";
    for row in client.query(rows, &[&chat_id.0]).await.unwrap() {
        let body: EntryBody = rmp_serde::from_slice(row.get(0)).unwrap();
        if let EntryBody::Membership(signed) = body
            && signed.change.target.user_id == user_id
        {
            return signed.change.target.identity_key.as_ref().to_vec();
        }
    }
    panic!("no such member");
}

/// Puts another certificate into the entry by which a session came into a chat.
async fn put_in_log(
    database: &Database,
    chat_id: ChatId,
    session_id: SessionId,
    make: impl FnOnce(&SignedCertificate) -> SignedCertificate,
) {
    let client = database.client().await;
    let rows = "SELECT seq, body FROM chat_events WHERE chat_id = $1 AND kind = 'session_in'";
    for row in client.query(rows, &[&chat_id.0]).await.unwrap() {
        let body: EntryBody = rmp_serde::from_slice(row.get(1)).unwrap();
        let EntryBody::SessionIn(honest) = body else { panic!("{body:?}") };
        if honest.certificate.session_id == session_id {
            let bytes = rmp_serde::to_vec_named(&EntryBody::SessionIn(make(&honest))).unwrap();
            let update = "UPDATE chat_events SET body = $3 WHERE chat_id = $1 AND seq = $2";
            client.execute(update, &[&chat_id.0, &row.get::<_, i64>(0), &bytes]).await.unwrap();
            return;
        }
    }
    panic!("no such session");
}

#[tokio::test]
async fn a8_a_forged_certificate_in_the_log_of_a_chat_keeps_newcomers_out_loudly() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let mallory = Device::register(&broker, "mallory").await;
    for (index, (what, forge)) in FORGERIES.into_iter().enumerate() {
        let name = format!("newcomer-{index}");
        let newcomer: Client = register(&broker, &name).await;
        let chat_id = ada.create_chat("ours").await.unwrap();
        ada.add_member(chat_id, "bob", true, false).await.unwrap();
        let mut events = newcomer.events();
        put_in_log(&database, chat_id, bob.session_id(), |honest| {
            let mut forged = honest.clone();
            forge(&mut forged, &mallory);
            forged
        })
        .await;
        ada.add_member(chat_id, &name, true, false).await.unwrap();
        let failure = event("an alarm", &mut events, |event| match event {
            sealcast::client::Event::Alarm(alarm) => Some(alarm.failure),
            _ => None,
        })
        .await;
        // Without that session the recipients are not those that the manager who added the newcomer has signed.
        assert_eq!(failure, VerificationFailure::Fold(FoldError::Anchor), "{what}");
        assert!(newcomer.head(chat_id).is_none(), "{what}: the chat was taken");
    }
    let chat_id = ada.create_chat("good").await.unwrap();
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    let mut bobs = bob.events();
    ada.send(chat_id, "good").await.unwrap();
    message(&mut bobs, "good").await;
}

#[tokio::test]
async fn a8_a_forged_certificate_in_a_users_chain_is_an_alarm() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
    let mallory = Device::register(&broker, "mallory").await;
    let chat_id = ada.create_chat("ours").await.unwrap();
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    let honest = stored(&database, bob.session_id()).await;
    let client = database.client().await;
    let put = async |signed: &SignedCertificate| {
        let bytes = rmp_serde::to_vec_named(signed).unwrap();
        let update = "UPDATE user_events SET body = $2 WHERE user_id = $1 AND place = 1";
        client.execute(update, &[&bob.user_id().0, &bytes]).await.unwrap();
    };
    for (what, forge) in FORGERIES {
        let mut forged = honest.clone();
        forge(&mut forged, &mallory);
        put(&forged).await;
        let failures = ada.check_sessions().await.unwrap();
        assert!(!failures.is_empty(), "{what} passes");
        put(&honest).await;
        assert_eq!(ada.check_sessions().await.unwrap(), [], "{what}: the true one is no alarm");
    }
    let mut bobs = bob.events();
    ada.send(chat_id, "good").await.unwrap();
    message(&mut bobs, "good").await;
}
