//! Client and server of different versions of the protocol: each gets a clear answer.

use sealcast::protocol::account::{HttpError, SOCKET_PATH};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::broker::Broker;
use super::support::database::Database;
use super::support::within;

/// A handshake with a subprotocol; status and body of the answer, which is short.
async fn refused(broker: &Broker, subprotocol: &str) -> (String, String) {
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let request = format!(
        "GET {SOCKET_PATH} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {subprotocol}\r\n\r\n",
        broker.address()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(within("an answer", stream.read_buf(&mut answer)).await.unwrap(), 0, "the end of {answer:?}");
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn p12_a_client_of_another_version_is_told_which_one_the_server_speaks() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    for offered in ["sealcast.v2.json", "sealcast.v2.msgpack, sealcast.v3.msgpack"] {
        let (status, body) = refused(&broker, offered).await;
        let error: HttpError = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_str(), error.code, error.retryable), ("400", ErrorCode::UnsupportedVersion, false));
        for spoken in Encoding::ALL.map(Encoding::subprotocol) {
            assert!(error.message.contains(spoken), "{body}");
        }
    }
    assert_eq!(broker.metric("sealcast_handshakes_total", "result=\"subprotocol\"").await, 2.0);
    // Paths of a later version are answered too, and in the form of every error.
    let (status, body) = broker.request("POST", "/v2/accounts", "{}").await;
    let error: HttpError = serde_json::from_str(&body).unwrap();
    assert_eq!((status, error.code), (404, ErrorCode::UnknownFrame));
}

#[cfg(feature = "client")]
#[tokio::test]
async fn p12_a_client_says_that_the_server_is_of_another_version_and_goes_on_when_it_is_not() {
    use super::support::clients::register;
    use super::support::eventually;

    let database = Database::create().await;
    let mut broker = Broker::start(&database).await;
    let ada = register(&broker, "ada").await;
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let (_, body) = refused(&broker, "sealcast.v2.json").await;
    broker.kill();
    // Whoever answers now knows nothing that this client offers.
    let other = tokio::net::TcpListener::bind(broker.address()).await.unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = other.accept().await.unwrap();
            let mut asked = [0; 4_096];
            let _ = stream.read(&mut asked).await;
            let length = body.len();
            let head = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    eventually("the client's word", async || {
        ada.last_failure().is_some_and(|failure| failure.contains("another version of the protocol"))
    })
    .await;
    answering.abort();
    let _ = answering.await;
    broker.restart().await;
    within("a message to be taken", ada.send(chat_id, "back")).await.unwrap();
}
