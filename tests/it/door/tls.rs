//! The broker's own TLS: clients trust its certificate, and it is exchanged while connections go on.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use sealcast::protocol::account::INFO_PATH;

use crate::support::broker::{Broker, Settings};
use crate::support::database::Database;
use crate::support::{eventually, within};
use crate::terminal::Profile;

/// Writes a new certificate and its key into a folder.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
    certified.cert.der().clone()
}

async fn start(database: &Database, folder: &Path, settings: Settings) -> (Broker, u16) {
    let settings = settings
        .with("database.url", database.url())
        .with("server.tls.certificate", folder.join("cert.pem").display())
        .with("server.tls.key", folder.join("key.pem").display());
    let broker = Broker::start_logging(settings, &folder.join("log")).await;
    let address = broker.public.strip_prefix("https://127.0.0.1:").expect("it says that it speaks TLS");
    let port = address.parse().unwrap();
    (broker, port)
}

/// A connection that trusts one certificate.
async fn connect(port: u16, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn finish_request(mut stream: TlsStream<TcpStream>) -> String {
    stream.write_all(b"\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = within("an answer over TLS", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_talks_to_a_broker_that_speaks_tls_itself() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    certify(parent.path());
    let (_broker, port) = start(&database, parent.path(), Settings::default()).await;
    let (url, ca) = (format!("https://localhost:{port}"), parent.path().join("cert.pem"));
    let ca = ca.to_str().unwrap();
    let ada = Profile::new(&parent, "ada");
    assert!(!ada.fails(&["--timeout", "5", "register", "--server", &url, "ada"]).await.is_empty());
    ada.ok(&["--ca", ca, "register", "--server", &url, "ada"]).await;
    let chat = ada.ok(&["--ca", ca, "chat", "create", "under TLS"]).await;
    ada.ok(&["--ca", ca, "send", chat.trim(), "sealed twice"]).await;
    assert!(ada.ok(&["--ca", ca, "read", chat.trim()]).await.contains("sealed twice"));
}

#[tokio::test]
async fn a_certificate_is_exchanged_while_connections_go_on() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let first = certify(folder.path());
    let (broker, port) = start(&database, folder.path(), Settings::default()).await;
    let mut open = connect(port, &first).await.unwrap();
    open.write_all(format!("GET {INFO_PATH} HTTP/1.1\r\nhost: localhost\r\n").as_bytes()).await.unwrap();
    let second = certify(folder.path());
    assert!(connect(port, &second).await.is_err(), "nobody said so yet");
    broker.signal("HUP");
    eventually("the second certificate", async || connect(port, &second).await.is_ok()).await;
    assert!(connect(port, &first).await.is_err());
    let answer = finish_request(open).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security: max-age="), "{answer}");

    // A key that is another certificate's is refused, and the pair that was good stays.
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    certify(folder.path());
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    broker.signal("HUP");
    let log = folder.path().join("log");
    eventually("the word of the mistake", async || {
        std::fs::read_to_string(&log).unwrap().contains("settings not read again")
    })
    .await;
    assert!(connect(port, &second).await.is_ok());
}

#[tokio::test]
async fn who_never_ends_a_tls_handshake_is_cut() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let trusted = certify(folder.path());
    let settings = Settings::default().with("server.login_timeout_s", 1).with("database.deadline_s", 1);
    let (_broker, port) = start(&database, folder.path(), settings).await;
    let mut silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The beginning of a handshake record that never ends.
    let mut begun = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    begun.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    assert!(connect(port, &trusted).await.is_ok());
    for stream in [&mut silent, &mut begun] {
        let mut rest = Vec::new();
        let _ = within("the end of who says nothing", stream.read_to_end(&mut rest)).await;
    }
    assert!(connect(port, &trusted).await.is_ok());
}
