//! Those who take their time: heads, bodies and hand-shakes that never end are cut, and hold up nobody.

use sealcast::protocol::account::{ACCOUNTS_PATH, INFO_PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::get;
use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;
use crate::support::within;

/// Sends the beginning, and then one byte after the other, until the other end has had enough.
async fn dribble(address: String, beginning: String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let dribbling = async {
        while writer.write_all(b"a").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let answer = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::select! { () = dribbling => {}, () = answer => {} }
}

#[tokio::test]
async fn a_slowloris_is_cut_and_holds_up_nobody() {
    let database = Database::create().await;
    let settings = Settings::on(&database)
        .with("server.login_timeout_s", 1)
        .with("database.deadline_s", 1)
        .with("server.connections_max", 60);
    let broker = Broker::start_with(settings).await;
    let heads = (0..30).map(|_| format!("GET {INFO_PATH} HTTP/1.1\r\nhost: x\r\nx-slow: "));
    let bodies = (0..30).map(|_| format!("POST {ACCOUNTS_PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n"));
    let slow: Vec<_> =
        heads.chain(bodies).map(|head| tokio::spawn(dribble(broker.address().to_owned(), head))).collect();
    for _ in 0..5 {
        assert_eq!(get(broker.address(), INFO_PATH, &[]).await.status, 200);
    }
    within("the end of them all", async {
        for dribbler in slow {
            dribbler.await.unwrap();
        }
    })
    .await;
    assert_eq!(get(broker.address(), INFO_PATH, &[]).await.status, 200);
}
