//! A new password, and all that the old one protected under it.

use sealcast::client::ClientError;
use sealcast::crypto::UserSecret;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::UserKeyId;

use super::super::support::broker::Broker;
use super::super::support::clients;
use super::super::support::database::Database;
use super::{log_in, open, password, register, replace, sealing};

/// Everything that is sealed in the database, as text.
async fn sealed(database: &Database) -> Vec<String> {
    let client = database.client().await;
    let statement = "SELECT encode(encrypted_private_key, 'hex') AS sealed FROM user_keys \
         UNION ALL SELECT encode(recovery_sealed_key, 'hex') FROM user_keys WHERE recovery_sealed_key IS NOT NULL \
         UNION ALL SELECT encode(opaque_record, 'hex') FROM users WHERE opaque_record IS NOT NULL";
    client.query(statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_new_password_replaces_the_old_one_and_all_that_was_sealed_under_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada", "correct horse").await;
    let (before, opened) = open(&broker, "ada", "correct horse").await;
    let old = sealed(&database).await;
    assert_eq!((before.strongbox.version, old.len()), (1, 2));
    let wrong = ada.change_password(Some(&password("wrong horse")), &password("new horse")).await;
    assert!(matches!(wrong, Err(ClientError::LoginFailed)));
    ada.change_password(Some(&password("correct horse")), &password("brand new horse")).await.unwrap();
    assert!(matches!(log_in(&broker, "ada", "correct horse").await, Err(ClientError::LoginFailed)));
    let (after, again) = open(&broker, "ada", "brand new horse").await;
    assert_eq!(after.strongbox.version, 2);
    assert_eq!((again.identity, again.self_key, again.user_keys), (opened.identity, opened.self_key, opened.user_keys));
    assert_ne!(after.strongbox.credential_id, before.strongbox.credential_id);
    let new = sealed(&database).await;
    assert_eq!(new.len(), old.len());
    assert!(old.iter().all(|blob| !new.contains(blob)), "nothing is left of what the old password opens");
    log_in(&broker, "ada", "brand new horse").await.unwrap();
}

#[tokio::test]
async fn a_password_or_a_set_of_keys_that_is_not_current_is_refused() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let (logged_in, mut opened) = open(&broker, "ada", "correct horse").await;
    let user_id = logged_in.user_id;
    let (one, other) = (sealing(&broker, "ada", "first horse").await, sealing(&broker, "ada", "second horse").await);
    let (one, other) = (opened.seal(user_id, 2, &one).unwrap(), opened.seal(user_id, 2, &other).unwrap());
    // Of two at once one is first, and the other changes nothing.
    let (first, second) =
        tokio::join!(replace(&broker, user_id, one.clone()), replace(&broker, user_id, other.clone()));
    let ((Ok(2), Err((409, error))) | (Err((409, error)), Ok(2))) = (first.clone(), second.clone()) else {
        panic!("{first:?} {second:?}")
    };
    assert_eq!((error.code, error.retryable), (ErrorCode::StrongboxChanged, false));
    assert_eq!(error.details.unwrap().version, Some(2));
    let winner = if first.is_ok() { one } else { other };
    assert_eq!(replace(&broker, user_id, winner).await.unwrap(), 2, "the same again is the same");
    let text = if first.is_ok() { "first horse" } else { "second horse" };
    open(&broker, "ada", text).await;

    // A key may come; none may go, none may change, none may serve for more again.
    let code = async |opened: &sealcast::crypto::strongbox::Opened, version: u64| {
        let upload = opened.seal(user_id, version, &sealing(&broker, "ada", text).await).unwrap();
        replace(&broker, user_id, upload).await.map_err(|(_, error)| error.code)
    };
    let first_key = opened.active;
    opened.active = UserKeyId::generate();
    opened.user_keys.insert(opened.active, UserSecret::generate());
    assert_eq!(code(&opened, 5).await, Err(ErrorCode::StrongboxChanged));
    assert_eq!(code(&opened, 3).await, Ok(3));
    assert_eq!(database.count("SELECT count(*) FROM user_keys WHERE is_active").await, 1);
    let mut fewer = opened.clone();
    fewer.user_keys.remove(&first_key);
    assert_eq!(code(&fewer, 4).await, Err(ErrorCode::StrongboxChanged));
    let mut changed = opened.clone();
    changed.user_keys.insert(first_key, UserSecret::generate());
    assert_eq!(code(&changed, 4).await, Err(ErrorCode::StrongboxChanged));
    let mut back = opened.clone();
    back.active = first_key;
    assert_eq!(code(&back, 4).await, Err(ErrorCode::StrongboxChanged));
    let mut more = opened.clone();
    more.active = UserKeyId::generate();
    more.user_keys.insert(more.active, UserSecret::generate());
    assert_eq!(code(&more, 4).await, Err(ErrorCode::LimitReached), "two user keys a day");
    assert_eq!(code(&opened, 4).await, Ok(4));
    let (_, now) = open(&broker, "ada", text).await;
    assert_eq!((now.user_keys.len(), now.active), (2, opened.active));
}

#[tokio::test]
async fn a_login_that_began_before_the_change_ends_in_nothing() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada", "correct horse").await;
    let (login, begun) = super::begin(&broker, "ada", "correct horse").await;
    ada.change_password(Some(&password("correct horse")), &password("brand new horse")).await.unwrap();
    let (message, _) = super::answer(login, &begun, "ada", "correct horse");
    let (status, error) = super::finish(&broker, &begun, message, None).await.unwrap_err();
    assert_eq!((status, error.code), (401, ErrorCode::LoginFailed));
}

#[tokio::test]
async fn an_account_without_a_password_gets_one() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = clients::register(&broker, "ada").await;
    assert!(ada.holds_identity());
    assert!(matches!(log_in(&broker, "ada", "correct horse").await, Err(ClientError::LoginFailed)));
    ada.change_password(None, &password("correct horse")).await.unwrap();
    assert!(!ada.holds_identity());
    let again = log_in(&broker, "ada", "correct horse").await.unwrap();
    // What the user's own devices alone may read, the new one reads too.
    ada.set_label(ada.session_id(), "the laptop").await.unwrap();
    let listed = again.sessions().await.unwrap();
    assert!(listed.sessions.iter().any(|session| session.label.as_deref() == Some("the laptop")));
    assert!(matches!(ada.change_password(None, &password("third horse")).await, Err(ClientError::NoIdentityKey)));
}
