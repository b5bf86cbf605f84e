//! Guesses: A7 another's session by one's own key, and what is of the kind of A10 and A11 before there are passwords:
//! names, wrong signatures without end, link codes.

use std::time::{Duration, Instant};

use sealcast::protocol::account::{ACCOUNTS_PATH, LINKS_PATH, USERS_PATH};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{LookupUser, Nothing, Request};
use sealcast::protocol::username::Username;

use super::super::super::codes::contents;
use super::super::super::messages::Pair;
use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::link::sessions;
use super::super::super::support::trials;

/// How long a login that is refused takes, from its sending to its answer.
async fn time_of_refusal(broker: &Broker, eve: &Device, of: &Device) -> Duration {
    let mut socket = Socket::open(broker, Encoding::Json).await;
    let login = Device { session_id: of.session_id, ..eve.clone() }.login(&socket.hello);
    let since = Instant::now();
    let error = socket.request(login).await.unwrap_err();
    let taken = since.elapsed();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    taken
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

#[tokio::test]
async fn a7_anothers_session_by_ones_own_key_takes_as_long_as_one_that_is_not_there() {
    let tries = trials(40, 500);
    // On a machine that does other things a single comparison proves nothing: one of a few must be even.
    let (rounds, most) = (5, if tries == 500 { 1.1 } else { 1.3 });
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (victim, eve) = (Device::register(&broker, "victim").await, Device::register(&broker, "eve").await);
    let mut socket = victim.connect_live(&broker).await;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for index in 0..tries {
            let nobody = Device::unregistered("nobody", 1_000);
            // Neither kind is always the first.
            if index % 2 == 0 {
                known.push(time_of_refusal(&broker, &eve, &victim).await);
                unknown.push(time_of_refusal(&broker, &eve, &nobody).await);
            } else {
                unknown.push(time_of_refusal(&broker, &eve, &nobody).await);
                known.push(time_of_refusal(&broker, &eve, &victim).await);
            }
        }
        let (known, unknown) = (median(known), median(unknown));
        ratios.push(known.max(unknown) / known.min(unknown));
        if ratios.last().is_some_and(|ratio| *ratio <= most) {
            break;
        }
    }
    assert!(ratios.iter().any(|ratio| *ratio <= most), "medians apart by {ratios:?}");
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok(), "the victim notices nothing");
}

#[tokio::test]
async fn a10_what_names_are_taken_is_public_and_what_is_behind_them_is_not() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, gone) = (Device::register(&broker, "ada").await, Device::register(&broker, "gone").await);
    let mut ada_socket = ada.connect_live(&broker).await;
    let pending = ada.pending(&broker).await;
    let mut gone_socket = gone.connect_live(&broker).await;
    gone.delete_account(&mut gone_socket).await.unwrap();
    let before = contents(&database).await;

    // By name: the id, and nothing else.
    let (status, body) = broker.request("GET", &format!("{USERS_PATH}/ada"), "").await;
    assert_eq!((status, body), (200, format!("{{\"user_id\":\"{}\"}}", ada.user_id)));
    // A name that was given up is like one that never was, on both ways to ask.
    let ways = ["gone", "never-there"].map(|name| (name, Username::parse(name).unwrap()));
    let mut answers = Vec::new();
    for (name, username) in ways {
        let found = broker.request("GET", &format!("{USERS_PATH}/{name}"), "").await;
        let mut error = ada_socket.request(Request::LookupUser(LookupUser { username })).await.unwrap_err();
        error.id = None;
        assert_eq!((found.0, error.code), (404, ErrorCode::UnknownUser));
        answers.push((found, error));
    }
    assert_eq!(answers[0], answers[1]);
    // By registration: a name of somebody, one that was given up, an id of a user and of a session.
    let mut taken = Vec::new();
    let own_id = Device { user_id: ada.user_id, ..ada.clone() };
    let mut registrations = vec![Device::unregistered("ada", 86_400), Device::unregistered("gone", 86_400)];
    registrations.push(Device { username: "unused-name".to_owned(), ..own_id });
    for device in registrations {
        let body = serde_json::to_string(&device.registration()).unwrap();
        taken.push(broker.request("POST", ACCOUNTS_PATH, &body).await);
    }
    // So whoever asks both ways learns that a name was given up: names are public, also for ever.
    assert!(taken.iter().all(|(status, body)| *status == 409 && body.contains("\"username_taken\"")), "{taken:?}");
    // By linking: whose session an id is, and in which state, is not told.
    let eve = Device::register(&broker, "eve").await;
    let mut linking = Vec::new();
    for session_id in [ada.session_id, pending.session_id, eve.session_id] {
        let mut asking = eve.sibling();
        asking.session_id = session_id;
        let body = serde_json::to_string(&asking.link_request()).unwrap();
        linking.push(broker.request("POST", LINKS_PATH, &body).await);
    }
    assert!(linking.iter().all(|answer| *answer == linking[0] && answer.0 == 404), "{linking:?}");
    let now = contents(&database).await;
    let changed: Vec<_> = before.iter().zip(&now).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
    assert_eq!(changed, ["user_events", "user_sessions", "users"], "eve's account, and nothing else");
    assert_eq!(sessions(&mut ada_socket).await.pending.len(), 1);
}

#[tokio::test]
async fn a11_wrong_signatures_without_end_lock_nobody_out() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let wrong = trials(60, 1_000);
    for _ in 0..wrong {
        let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
        let login = Device { session_id: pair.bob.session_id, ..eve.clone() }.login(&socket.hello);
        assert_eq!(socket.request(login).await.unwrap_err().code, ErrorCode::Unauthenticated);
        assert_eq!(socket.close_code().await, Some(CloseCode::LoginRefused.number()));
    }
    let counted = pair.broker.metric("sealcast_logins_total", "unauthenticated").await;
    assert_eq!(counted as usize, wrong, "the operator sees them");
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "not replaced").await.unwrap();
    let mut anew = pair.bob.connect_live(&pair.broker).await;
    pair.bob.say(&mut anew, pair.chat_id, "nor kept out").await.unwrap();
}

#[cfg(feature = "client")]
#[tokio::test]
async fn a11_a_link_code_that_is_guessed_approves_nobody() {
    use std::sync::Arc;

    use sealcast::client::{ClientError, MemoryStorage, NewAccount, PendingLink};
    use sealcast::crypto::link_code::LinkCode;

    use super::super::super::support::clients::{config, register};

    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada").await;
    let account = NewAccount { server: broker.public.clone(), username: "ada".to_owned(), ttl: None };
    let pending = PendingLink::begin(config(), account, Arc::new(MemoryStorage::default())).await.unwrap();
    let right = pending.code().to_string();
    // Guesses, and what is one character off.
    let mut guesses: Vec<LinkCode> = (0..trials(50, 5_000)).map(|_| LinkCode::generate()).collect();
    for place in (0..right.len()).filter(|place| right.as_bytes()[*place] != b'-') {
        let other = if right.as_bytes()[place] == b'0' { "1" } else { "0" };
        let mut guess = right.clone();
        guess.replace_range(place..=place, other);
        guesses.push(guess.parse().unwrap());
    }
    let before = contents(&database).await;
    for guess in &guesses {
        let refused = ada.approve_session(guess, None).await;
        assert!(matches!(refused, Err(ClientError::NoSuchPending)), "{refused:?}");
    }
    assert_eq!(contents(&database).await, before);
    ada.approve_session(&right.parse().unwrap(), None).await.unwrap();
    let linked = super::super::super::support::within("the linked device", pending.wait()).await.unwrap();
    assert_eq!(linked.user_id(), ada.user_id());
}
