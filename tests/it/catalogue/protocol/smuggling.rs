//! W15: requests that two servers in a row could read in two ways. Here there is one reading: one answer or none, then the
//! end of the connection, and what stood behind is never executed.
//!
//! Source: RFC 9112, sections 2.2, 5, 6.3 and 7.1; RFC 9110, section 5.5.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::Device;
use super::super::super::support::within;
use super::unharmed;

/// A request that must never be answered where it stands in or behind another one's body.
const HIDDEN: &str = "GET /v1/users/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What is answered to it.
const UNHIDDEN: &str = "unknown_user";

const USERS: &str = "SELECT count(*) FROM users";

/// What must come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// An error, or an end without a word; nothing is executed.
    Refused,
    /// It is taken as it stands.
    Taken,
    /// It is answered with this status.
    Status(u16),
}

use Reading::{Refused, Status, Taken};

/// Sends bytes and nothing more; all that comes until the end of the connection.
async fn all(address: &str, bytes: &[u8]) -> String {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may close before it has taken all of it.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    within("the end of an exchange", exchange).await
}

/// The status of each answer, but for those that ask to go on.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.match_indices("HTTP/1.").map(|(at, head)| &answer[at + head.len()..]);
    let statuses = heads.filter_map(|rest| rest.get(2..5)?.parse().ok());
    statuses.filter(|status| *status != 100).collect()
}

/// A registration with these lines in its head, between the host and the end, and this body.
fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/accounts HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}").into_bytes()
}

/// A body in chunks, cut in two, with something after each size and after the last chunk.
fn chunked(body: &str, after_size: &str, trailers: &str) -> String {
    let (one, two) = body.split_at(body.len() / 2);
    let chunk = |part: &str| format!("{:x}{after_size}\r\n{part}\r\n", part.len());
    format!("{}{}0\r\n{trailers}\r\n", chunk(one), chunk(two))
}

/// Registrations whose length can be read in more than one way, or in none.
fn registrations(body: &str) -> Vec<(String, Vec<u8>, Reading)> {
    let n = body.len();
    let te = "Transfer-Encoding: chunked\r\n";
    let lawful = chunked(body, "", "");
    let mut cases = vec![
        ("a length".to_owned(), post(&format!("Content-Length: {n}\r\n"), body), Taken),
        ("a length with spaces around it".to_owned(), post(&format!("Content-Length: \t {n} \t\r\n"), body), Taken),
        ("chunks".to_owned(), post(te, &lawful), Taken),
        ("chunks in other letters".to_owned(), post("tRANSFER-eNCODING: ChUnKeD\r\n", &lawful), Taken),
        ("no length".to_owned(), post("", body), Status(400)),
        ("expects to go on".to_owned(), post(&format!("Expect: 100-continue\r\nContent-Length: {n}\r\n"), body), Taken),
        ("a name with an underscore".to_owned(), post("Transfer_Encoding: chunked\r\n", &lawful), Status(400)),
    ];
    // Where a length and chunks are both there, either reading hides a request from the other.
    for lines in [
        format!("Content-Length: {n}\r\n{te}"),
        format!("{te}Content-Length: {n}\r\n"),
        format!("{te}Content-Length: 0\r\n"),
        format!("Content-Length: 5\r\n{te}Content-Length: {n}\r\n"),
    ] {
        cases.push((lines.clone(), post(&lines, &lawful), Refused));
        cases.push((lines.clone(), post(&lines, &format!("0\r\n\r\n{HIDDEN}")), Refused));
    }
    for value in [
        format!("{n}\r\nContent-Length: {}", n - 1),
        format!("{}\r\nContent-Length: {n}", n + HIDDEN.len()),
        format!("{n}\r\nContent-Length: {n}"),
        format!("{n}, {n}"),
        format!("{n}, {}", n + 1),
        format!("+{n}"),
        format!("-{n}"),
        format!("0x{n:x}"),
        format!("{n}.0"),
        format!("{n} {n}"),
        format!("{n}\r\n {n}"),
        format!("\u{b}{n}"),
        format!("{n}\0"),
        format!("\"{n}\""),
        format!("1{}", "0".repeat(30)),
        "18446744073709551616".to_owned(),
        String::new(),
        "٣".to_owned(),
    ] {
        cases.push((format!("length {value:?}"), post(&format!("Content-Length: {value}\r\n"), body), Refused));
    }
    for value in [
        "xchunked",
        "identity",
        "chunked, identity",
        "chunked, chunked",
        "identity, chunked",
        "gzip, chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "\u{b}chunked",
        "chunked\0",
        "chunked;a=b",
        "\"chunked\"",
        "\r\n chunked",
        "",
    ] {
        cases.push((format!("coding {value:?}"), post(&format!("Transfer-Encoding: {value}\r\n"), &lawful), Refused));
    }
    for lines in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\0\r\nTransfer-Encoding: chunked\r\n",
        "X\0: y\r\nTransfer-Encoding: chunked\r\n",
        ": y\r\nTransfer-Encoding: chunked\r\n",
        "X y\r\nTransfer-Encoding: chunked\r\n",
        "X(): y\r\nTransfer-Encoding: chunked\r\n",
    ] {
        cases.push((format!("{lines:?}"), post(lines, &lawful), Refused));
    }
    for (size, reading) in [
        (format!("{n:x};name=value"), Taken),
        (format!("{n:x};name=\"value\""), Taken),
        (format!("00000{n:x}"), Taken),
        (format!("{n:X}"), Taken),
        (format!("{n:x};a\nb"), Refused),
        (format!("{n:x};\0"), Refused),
        (format!("{n:x}\n"), Refused),
        (format!("+{n:x}"), Refused),
        (format!("-{n:x}"), Refused),
        (format!("0x{n:x}"), Refused),
        (format!("{n:x}g"), Refused),
        (format!("{n:x} {n:x}"), Refused),
        (format!("{:x}", n - 1), Refused),
        (format!("{:x}", n + 1), Refused),
        (format!("f{}", "f".repeat(16)), Refused),
        (format!("1{}{n:x}", "0".repeat(16)), Refused),
        (String::new(), Refused),
        (" ".to_owned(), Refused),
        (";a".to_owned(), Refused),
    ] {
        let chunks = format!("{size}\r\n{body}\r\n0\r\n\r\n");
        cases.push((format!("size {size:?}"), post(te, &chunks), reading));
    }
    for chunks in [
        format!("{n:x}\n{body}\r\n0\r\n\r\n"),
        format!("{n:x}\r\n{body}\n0\r\n\r\n"),
        format!("{n:x}\r{body}\r\n0\r\n\r\n"),
        format!("{n:x}\r\n{body}0\r\n\r\n"),
        format!("{n:x}\r\n{body}XX0\r\n\r\n"),
        format!("{n:x}\r\n{body}\r\n"),
        format!("\r\n{n:x}\r\n{body}\r\n0\r\n\r\n"),
    ] {
        cases.push((format!("chunks {chunks:?}"), post(te, &chunks), Refused));
    }
    // What stands behind the last chunk are trailers up to an empty line, and trailers are not looked at.
    let unended = format!("{n:x}\r\n{body}\r\n0\r\n");
    cases.push(("chunks without an end".to_owned(), post(te, &unended), Taken));
    cases.push(("chunks with trailers".to_owned(), post(te, &format!("{unended}X: y\r\n\r\n")), Taken));
    cases
}

/// Requests without a body to speak of, whose head is odd.
fn heads() -> Vec<(String, Reading)> {
    let get = |lines: &str| format!("GET /v1/info HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    vec![
        (get(""), Status(200)),
        (get("Connection: keep-alive\r\n"), Status(200)),
        (
            get("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
            Status(200),
        ),
        (get("Connection: Transfer-Encoding\r\n"), Status(200)),
        // A body where none is asked for is a body all the same.
        (format!("{}{HIDDEN}", get(&format!("Content-Length: {}\r\n", HIDDEN.len()))), Status(200)),
        (format!("{}{}", get("Transfer-Encoding: chunked\r\n"), chunked(HIDDEN, "", "")), Status(200)),
        ("GET http://elsewhere/v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(200)),
        ("GET /v1/../v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("GET //v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("GET /v1%2Finfo HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("GET /v1/info%00 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("HEAD /v1/socket HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("TRACE /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("get /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Status(404)),
        ("GET /v1/info HTTP/1.0\r\n\r\n".to_owned(), Status(200)),
        ("GET /v1/info HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/1.1\r\nHost: local\0host\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/ info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/2.0\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/1.2\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info http/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/1.1\r\n folded: x\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n".to_owned(), Refused),
        ("GET /v1/info HTTP/1.1\r\nHost: localhost\r\nX: a\rY: b\r\n\r\n".to_owned(), Refused),
        ("GE\u{e9}T /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), Refused),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Refused),
        (format!("{}\r\n\r\n", "G".repeat(100_000)), Refused),
        (get(&"X: y\r\n".repeat(1_000)), Refused),
        (get(&format!("X: {}\r\n", "y".repeat(300_000))), Refused),
        (get(&format!("{}: y\r\n", "X".repeat(100_000))), Refused),
    ]
}

fn check(name: &str, answer: &str, reading: Reading) {
    let told = statuses(answer);
    let is_so = match reading {
        Refused => told.len() <= 1 && told.iter().all(|status| (400..=505).contains(status)),
        Taken => told == [200],
        // A body that was not announced is noise behind the request, and may be called so.
        Status(400) => told.iter().all(|status| *status == 400) && matches!(told.len(), 1 | 2),
        Status(status) => told == [status],
    };
    assert!(is_so, "{name}: {reading:?} and not {answer}");
    assert!(!answer.contains(UNHIDDEN), "{name}: the hidden one was answered: {answer}");
}

#[tokio::test]
async fn w15_a_body_has_one_length_or_is_refused_and_nothing_behind_it_is_answered() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let names = registrations("{\"a\":0}").into_iter().map(|(name, ..)| name);
    for (index, name) in names.enumerate() {
        let device = Device::unregistered(&format!("user{index}"), 1_000);
        let body = serde_json::to_string(&device.registration()).unwrap();
        let (_, bytes, reading) = registrations(&body).swap_remove(index);
        let before = database.count(USERS).await;
        let answer = all(broker.address(), &[&bytes[..], HIDDEN.as_bytes()].concat()).await;
        check(&name, &answer, reading);
        let made = database.count(USERS).await - before;
        assert_eq!(made, i64::from(reading == Taken), "{name}: {answer}");
    }
    Device::register(&broker, "good").await;
    unharmed(&broker).await;
}

#[tokio::test]
async fn w15_an_odd_head_has_one_answer_or_none_and_nothing_behind_it_is_answered() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    for (head, reading) in heads() {
        let name = &head[..head.len().min(200)];
        check(name, &all(broker.address(), head.as_bytes()).await, reading);
        check(name, &all(broker.address(), [&head, HIDDEN].concat().as_bytes()).await, reading);
    }
    // A lawful request behind a lawful one is not answered either: a connection carries one.
    let two = all(broker.address(), HIDDEN.repeat(2).as_bytes()).await;
    assert_eq!(statuses(&two), [404]);
    assert!(two.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{two}");
    assert_eq!(broker.request("GET", "/v1/info", "").await.0, 200);
    unharmed(&broker).await;
}

#[tokio::test]
async fn w15_the_operators_listener_reads_what_is_refused_in_no_second_way() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let operator = broker.operator.strip_prefix("http://").unwrap();
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // Here a connection carries many: a second answer would be seen.
    let two = all(operator, [hidden.replace("close", "keep-alive"), hidden.to_owned()].concat().as_bytes()).await;
    assert_eq!(statuses(&two), [200, 200]);
    for (name, bytes, _) in registrations("{}").into_iter().filter(|(.., reading)| *reading == Refused) {
        let text = String::from_utf8_lossy(&bytes).replace("/v1/accounts", "/healthz").replace(HIDDEN, hidden);
        let answer = all(operator, [text.as_bytes(), hidden.as_bytes()].concat().as_slice()).await;
        let told = statuses(&answer);
        assert!(told.len() <= 1 && !told.contains(&200), "{name}: {answer}");
    }
    assert_eq!(broker.operator_get("/healthz").await.0, 200);
    unharmed(&broker).await;
}
