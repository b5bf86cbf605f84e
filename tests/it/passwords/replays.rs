//! A12: a login that has begun is good for one end, its own, in its time.

use sealcast::crypto::SessionSecrets;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::SessionId;
use sealcast::protocol::password::{FinishRecovery, LoggedIn, NewSession, RECOVERIES_FINISH_PATH};

use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::super::support::eventually;
use super::{answer, begin, finish, post, register};

/// Keys of a new session.
fn new_session() -> NewSession {
    let secrets = SessionSecrets::generate();
    NewSession {
        session_id: SessionId::generate(),
        public_key: secrets.public_key(),
        signing_public_key: secrets.signing_public_key(),
    }
}

#[tokio::test]
async fn a12_a_login_is_used_up_by_its_end_whatever_comes_of_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let _bob = register(&broker, "bob", "another horse").await;
    let refused = |result: Result<LoggedIn, (u16, sealcast::protocol::account::HttpError)>| {
        let (status, error) = result.expect_err("refused");
        assert_eq!((status, error.code, error.retryable), (401, ErrorCode::LoginFailed, false));
    };
    // Twice.
    let (login, begun) = begin(&broker, "ada", "correct horse").await;
    let (message, _) = answer(login, &begun, "ada", "correct horse");
    finish(&broker, &begun, message.clone(), None).await.unwrap();
    refused(finish(&broker, &begun, message.clone(), None).await);
    // The end of one login for another.
    let (login, begun) = begin(&broker, "ada", "correct horse").await;
    refused(finish(&broker, &begun, message, None).await);
    // That one is used up as well.
    let (message, _) = answer(login, &begun, "ada", "correct horse");
    refused(finish(&broker, &begun, message, None).await);
    // A stranger's.
    let (_, theirs) = begin(&broker, "ada", "correct horse").await;
    let (login, begun) = begin(&broker, "bob", "another horse").await;
    let (message, _) = answer(login, &begun, "bob", "another horse");
    refused(finish(&broker, &theirs, message, Some(new_session())).await);
    // Of the other kind.
    let (_, begun) = begin(&broker, "ada", "correct horse").await;
    let signature = sealcast::protocol::binary::Signature([0; 64]);
    let body = FinishRecovery { login_id: begun.login_id, signature, session: None, for_session: None };
    refused(post(&broker, RECOVERIES_FINISH_PATH, &body).await);
    // One that there never was.
    let begun =
        sealcast::protocol::password::LoginBegun { login_id: sealcast::protocol::ids::LoginId::generate(), ..begun };
    refused(finish(&broker, &begun, vec![0; 64].into(), None).await);
    assert_eq!(database.count("SELECT count(*) FROM user_sessions WHERE state = 'pending'").await, 0);
    super::open(&broker, "ada", "correct horse").await;
}

#[tokio::test]
async fn a12_a_login_that_takes_too_long_is_refused_and_forgotten() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("password.login_s", 1)).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let (login, begun) = begin(&broker, "ada", "correct horse").await;
    let (message, _) = answer(login, &begun, "ada", "correct horse");
    let late = "SELECT count(*) FROM password_logins WHERE expires_at <= clock_timestamp()";
    eventually("the end of its time", async || database.count(late).await == 1).await;
    let (status, error) = finish(&broker, &begun, message, None).await.unwrap_err();
    assert_eq!((status, error.code), (401, ErrorCode::LoginFailed));
    let _ = begin(&broker, "ada", "correct horse").await;
    eventually("nothing is kept", async || database.count("SELECT count(*) FROM password_logins").await == 0).await;
}

#[tokio::test]
async fn pending_sessions_of_logins_are_bounded_and_their_ids_their_own() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada", "correct horse").await;
    let log_in = async |session: NewSession| {
        let (login, begun) = begin(&broker, "ada", "correct horse").await;
        let (message, _) = answer(login, &begun, "ada", "correct horse");
        finish(&broker, &begun, message, Some(session)).await
    };
    let taken = NewSession { session_id: ada.session_id(), ..new_session() };
    assert_eq!(log_in(taken).await.unwrap_err().1.code, ErrorCode::UnknownSession);
    let unsound = NewSession { public_key: sealcast::protocol::binary::ExchangeKey([0; 32]), ..new_session() };
    assert_eq!(log_in(unsound).await.unwrap_err().1.code, ErrorCode::BadCertificate);
    let first = new_session();
    assert!(log_in(first.clone()).await.unwrap().expires_at.is_some());
    for _ in 0..4 {
        log_in(new_session()).await.unwrap();
    }
    assert_eq!(log_in(new_session()).await.unwrap_err().1.code, ErrorCode::LimitReached);
    log_in(first).await.unwrap();
    // They are shown to nobody as devices to approve, and anonymous requests to link are counted for themselves.
    assert!(ada.sessions().await.unwrap().pending.is_empty());
    let secrets = SessionSecrets::generate();
    let link = sealcast::protocol::account::Link {
        user_id: ada.user_id(),
        session_id: SessionId::generate(),
        public_key: secrets.public_key(),
        signing_public_key: secrets.signing_public_key(),
        proof: sealcast::protocol::binary::Mac([1; 32]),
    };
    let _: sealcast::protocol::account::Linked =
        post(&broker, sealcast::protocol::account::LINKS_PATH, &link).await.unwrap();
}
