//! A11: guesses are counted by user and by address, and the right user from elsewhere still gets in.

use sealcast::crypto::opaque::Login;
use sealcast::protocol::account::HttpError;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::password::{BeginLogin, BeginRecovery, LOGINS_PATH, RECOVERIES_PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::super::support::{trials, within};
use super::{log_in, password, register};

const HEADER: &str = "X-Client-Address";

/// The status of a request that comes from somewhere, the seconds of its `Retry-After`, and its body.
async fn from(broker: &Broker, address: &str, path: &str, body: &str) -> (u16, Option<u64>, String) {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: sealcast\r\n{HEADER}: {address}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = within("an answer", exchange).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let wait = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ").map(str::to_owned));
    (status, wait.map(|wait| wait.parse().unwrap()), body.to_owned())
}

fn guess(name: &str) -> String {
    let (_, message) = Login::begin(&password("another horse")).unwrap();
    serde_json::to_string(&BeginLogin { username: name.to_owned(), message }).unwrap()
}

fn settings(database: &Database) -> Settings {
    Settings::on(database)
        .with("server.address_header", HEADER)
        .with("server.trusted_proxies", "127.0.0.1")
        .with("password.tries_per_hour", 5)
        .with("password.tries_per_hour_user", 12)
        .with("password.tries_per_hour_address", 9)
}

/// How many of a number of guesses are answered; the others are refused as they must be.
async fn answered(
    broker: &Broker,
    address: &str,
    path: &str,
    guesses: impl Iterator<Item = String>,
    share_s: u64,
) -> usize {
    let mut answered = 0;
    for body in guesses {
        match from(broker, address, path, &body).await {
            (200, None, _) => answered += 1,
            (429, Some(wait_s), body) => {
                let error: HttpError = serde_json::from_str(&body).unwrap();
                let wait_ms = error.details.unwrap().retry_after_ms.unwrap();
                assert_eq!(error.code, ErrorCode::RateLimited);
                assert!(error.retryable && wait_ms > 0 && wait_ms <= share_s * 1_000, "{wait_ms} of {share_s} s");
                assert_eq!(wait_s, wait_ms.div_ceil(1_000));
            }
            other => panic!("{other:?}"),
        }
    }
    answered
}

#[tokio::test]
async fn a11_guesses_at_one_user_are_held_up_and_the_user_from_elsewhere_is_not() {
    let database = Database::create().await;
    let broker = Broker::start_with(settings(&database)).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let count = trials(40, 1_000);
    let passed = answered(&broker, "203.0.113.7", LOGINS_PATH, (0..count).map(|_| guess("ada")), 720).await;
    assert_eq!(passed, 5);
    // By the recovery code they count alike, and what was refused has not counted elsewhere.
    let body = serde_json::to_string(&BeginRecovery { username: "ada".to_owned() }).unwrap();
    let passed = answered(&broker, "203.0.113.7", RECOVERIES_PATH, (0..3).map(|_| body.clone()), 720).await;
    assert_eq!(passed, 0);
    let passed = answered(&broker, "203.0.113.7", LOGINS_PATH, (0..8).map(|_| guess("bob")), 720).await;
    assert_eq!(passed, 4, "of nine from one address five were used up");
    // A client without the header comes from the loopback.
    log_in(&broker, "ada", "correct horse").await.unwrap();
    // The limits outlive a node.
    let other = Broker::start_with(settings(&database)).await;
    assert_eq!(answered(&other, "203.0.113.7", LOGINS_PATH, std::iter::once(guess("ada")), 720).await, 0);
}

#[tokio::test]
async fn a11_one_guess_each_at_many_users_is_held_up_by_the_address() {
    let database = Database::create().await;
    let broker = Broker::start_with(settings(&database)).await;
    let count = trials(30, 1_000);
    let names = (0..count).map(|number| guess(&format!("user{number}")));
    assert_eq!(answered(&broker, "203.0.113.7", LOGINS_PATH, names, 400).await, 9);
    // A whole /64 is one place, and a list counts by what the proxy itself put at its end.
    let names = (0..12).map(|number| guess(&format!("user{number}")));
    assert_eq!(answered(&broker, "2001:db8:1:2::1", LOGINS_PATH, names, 400).await, 9);
    assert_eq!(answered(&broker, "2001:db8:1:2:ffff::9", LOGINS_PATH, std::iter::once(guess("user")), 400).await, 0);
    assert_eq!(answered(&broker, "2001:db8:1:3::1", LOGINS_PATH, std::iter::once(guess("user")), 400).await, 1);
    let told = "198.51.100.1, 203.0.113.7";
    assert_eq!(answered(&broker, told, LOGINS_PATH, std::iter::once(guess("user")), 400).await, 0);
}

#[tokio::test]
async fn a11_guesses_at_one_user_from_everywhere_are_bounded() {
    let database = Database::create().await;
    let broker = Broker::start_with(settings(&database)).await;
    let mut passed = 0;
    for number in 0..20 {
        let address = format!("198.51.100.{number}");
        passed += answered(&broker, &address, LOGINS_PATH, std::iter::once(guess("ada")), 300).await;
    }
    assert_eq!(passed, 12);
}

#[tokio::test]
async fn a11_a_good_login_is_forgiven_the_tries_before_it() {
    let database = Database::create().await;
    let broker = Broker::start_with(settings(&database).with("password.tries_per_hour_address", 100)).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    for _ in 0..2 {
        for _ in 0..4 {
            assert!(log_in(&broker, "ada", "another horse").await.is_err());
        }
        super::open(&broker, "ada", "correct horse").await;
    }
    // Without the header nobody can say where they come from.
    let plain =
        Broker::start_with(settings(&database).with("server.address_header", "").with("server.trusted_proxies", ""))
            .await;
    let mut passed = 0;
    for number in 0..12 {
        passed +=
            answered(&plain, &format!("198.51.100.{number}"), LOGINS_PATH, std::iter::once(guess("eve")), 720).await;
    }
    assert_eq!(passed, 5);
}
