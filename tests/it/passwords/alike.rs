//! A10: nobody learns by trying to log in who there is, and who has a password.

use sealcast::protocol::binary::Blob;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::password::{
    BeginLogin, BeginPassword, BeginRecovery, FinishLogin, FinishRecovery, KE2_BYTES, KE3_BYTES, LOGINS_FINISH_PATH,
    LOGINS_PATH, LoginBegun, PASSWORDS_PATH, PasswordBegun, RECOVERIES_FINISH_PATH, RECOVERIES_PATH, RecoveryBegun,
};
use serde_json::Value;

use std::time::{Duration, Instant};

use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::super::support::device::Device;
use super::super::support::trials;
use super::{password, post, register};
use sealcast::crypto::opaque::{Login, NewPassword};

/// A body without what is drawn anew each time: names, kinds, lengths.
fn shape(body: &str) -> Value {
    fn of(value: Value) -> Value {
        match value {
            Value::String(text) => Value::from(text.len()),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, of(value))).collect(),
            other => other,
        }
    }
    of(serde_json::from_str(body).unwrap())
}

/// What the server did in the database, by the names of transactions.
async fn work(broker: &Broker) -> Vec<f64> {
    let mut counts = Vec::new();
    for name in ["count_try", "begin_login", "take_login", "log_in"] {
        let label = format!("name=\"{name}\"");
        let by_name = broker.metric("sealcast_transactions_total", &label).await;
        counts.push(by_name);
    }
    counts
}

/// A login with a wrong password, to its end: each answer's status and shape, and what the server did.
async fn trial(broker: &Broker, name: &str) -> (Vec<(u16, Value)>, Vec<f64>) {
    let before = work(broker).await;
    let (_, message) = Login::begin(&password("another horse")).unwrap();
    let body = serde_json::to_string(&BeginLogin { username: name.to_owned(), message }).unwrap();
    let (status, begun) = broker.request("POST", LOGINS_PATH, &body).await;
    let mut answers = vec![(status, shape(&begun))];
    let begun: LoginBegun = serde_json::from_str(&begun).unwrap();
    assert_eq!(begun.message.len(), KE2_BYTES);
    let finish = FinishLogin {
        login_id: begun.login_id,
        message: Blob::from(vec![7; KE3_BYTES]),
        session: None,
        for_session: None,
    };
    let (status, body) = broker.request("POST", LOGINS_FINISH_PATH, &serde_json::to_string(&finish).unwrap()).await;
    answers.push((status, serde_json::from_str(&body).unwrap()));
    let body = serde_json::to_string(&BeginRecovery { username: name.to_owned() }).unwrap();
    let (status, begun) = broker.request("POST", RECOVERIES_PATH, &body).await;
    answers.push((status, shape(&begun)));
    let begun: RecoveryBegun = serde_json::from_str(&begun).unwrap();
    let signature = sealcast::protocol::binary::Signature([7; 64]);
    let finish = FinishRecovery { login_id: begun.login_id, signature, session: None, for_session: None };
    let (status, body) = broker.request("POST", RECOVERIES_FINISH_PATH, &serde_json::to_string(&finish).unwrap()).await;
    answers.push((status, serde_json::from_str(&body).unwrap()));
    let after = work(broker).await;
    (answers, after.iter().zip(before).map(|(after, before)| after - before).collect())
}

#[tokio::test]
async fn wrong_passwords_unknown_users_and_users_without_one_are_answered_alike() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("password.tries_per_hour", 1_000)).await;
    let ada = register(&broker, "ada", "correct horse").await;
    ada.make_recovery_code(&password("correct horse")).await.unwrap();
    let _ida = register(&broker, "ida", "correct horse").await;
    Device::register(&broker, "bob").await;
    let (answers, done) = trial(&broker, "ada").await;
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 401, 200, 401]);
    for (_, body) in [&answers[1], &answers[3]] {
        assert_eq!(body["code"], ErrorCode::LoginFailed.as_str());
    }
    assert_eq!(done, [2.0, 2.0, 2.0, 0.0], "each trial counts, is noted and is used up; none goes further");
    // One without a recovery code, one without a password, one who is nobody.
    for name in ["ida", "bob", "eve", "AdA"] {
        assert_eq!(trial(&broker, name).await, (answers.clone(), done.clone()), "{name}");
    }
}

#[tokio::test]
async fn the_same_trial_is_evaluated_to_the_same_for_everybody() {
    let database = Database::create().await;
    let mut broker = Broker::start(&database).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let (_, message) = Login::begin(&password("correct horse")).unwrap();
    for name in ["ada", "eve"] {
        let begin = BeginLogin { username: name.to_owned(), message: message.clone() };
        let one: LoginBegun = post(&broker, LOGINS_PATH, &begin).await.unwrap();
        broker.kill_and_restart().await;
        let other: LoginBegun = post(&broker, LOGINS_PATH, &begin).await.unwrap();
        let (one, other) = (one.message.as_ref(), other.message.as_ref());
        assert_eq!(one[..32], other[..32], "{name}: the evaluation");
        for part in [32..64, 64..192, 192..224, 224..256, 256..320] {
            assert_ne!(one[part.clone()], other[part.clone()], "{name}: {part:?} is drawn or masked anew");
        }
    }
}

#[tokio::test]
async fn nobody_has_a_guess_evaluated_by_beginning_a_new_password() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let (logged_in, _) = super::open(&broker, "ada", "correct horse").await;
    let (_, message) = NewPassword::begin(&password("another horse")).unwrap();
    let begin = BeginPassword { username: "ada".to_owned(), message };
    let one: PasswordBegun = post(&broker, PASSWORDS_PATH, &begin).await.unwrap();
    let other: PasswordBegun = post(&broker, PASSWORDS_PATH, &begin).await.unwrap();
    assert_ne!(one.credential_id, other.credential_id);
    assert_ne!(one.message.as_ref()[..32], other.message.as_ref()[..32], "the evaluation");
    assert_eq!(one.message.as_ref()[32..], other.message.as_ref()[32..], "the server's key");
    // Nor under the credential that holds: a request cannot name one.
    assert_ne!(one.credential_id, logged_in.strongbox.credential_id);
    let login = BeginLogin { username: "ada".to_owned(), message: begin.message.clone() };
    assert!(post::<LoginBegun>(&broker, LOGINS_PATH, &login).await.is_err(), "another message, and it counts");
}

/// How long the answer to a login's first message takes.
async fn time_of_answer(broker: &Broker, name: &str) -> Duration {
    let (_, message) = Login::begin(&password("another horse")).unwrap();
    let body = serde_json::to_string(&BeginLogin { username: name.to_owned(), message }).unwrap();
    let since = Instant::now();
    let (status, _) = broker.request("POST", LOGINS_PATH, &body).await;
    let taken = since.elapsed();
    assert_eq!(status, 200);
    taken
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::test]
async fn a10_a_login_of_nobody_takes_as_long_as_one_of_somebody() {
    let tries = trials(40, 500);
    // On a machine that does other things a single comparison proves nothing: one of a few must be even.
    let (rounds, most) = (5, if tries == 500 { 1.1 } else { 1.3 });
    let database = Database::create().await;
    let settings = ["tries_per_hour", "tries_per_hour_user", "tries_per_hour_address"];
    let unlimited = settings
        .iter()
        .fold(Settings::on(&database), |settings, name| settings.with(&format!("password.{name}"), 1_000_000));
    let broker = Broker::start_with(unlimited).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for index in 0..tries {
            // Neither kind is always the first.
            if index % 2 == 0 {
                known.push(time_of_answer(&broker, "ada").await);
                unknown.push(time_of_answer(&broker, "eve").await);
            } else {
                unknown.push(time_of_answer(&broker, "eve").await);
                known.push(time_of_answer(&broker, "ada").await);
            }
        }
        let (known, unknown) = (median(known), median(unknown));
        ratios.push(known.max(unknown) / known.min(unknown));
        if ratios.last().is_some_and(|ratio| *ratio <= most) {
            return;
        }
    }
    panic!("medians apart by {ratios:?}");
}
