//! Clients reach a broker behind TLS by `https` and `wss`, and trust nobody they were not told to.

use std::sync::Arc;

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

use super::support::broker::Broker;
use super::support::database::Database;
use super::terminal::Profile;

/// A TLS front before a broker, as a proxy would be; gives its address and the certificate in PEM.
async fn front(broker: &Broker) -> (String, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = broker.address().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let Ok(mut inside) = TcpStream::connect(behind).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (format!("https://localhost:{port}"), certified.cert.pem())
}

#[tokio::test]
async fn a_client_talks_tls_to_whom_it_was_told_to_trust_and_to_nobody_else() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (url, pem) = front(&broker).await;
    let ca = parent.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let ca = ca.to_str().unwrap();
    let ada = Profile::new(&parent, "ada");
    let refused = ada.fails(&["--timeout", "5", "register", "--server", &url, "ada"]).await;
    assert!(!refused.is_empty());
    ada.ok(&["--ca", ca, "register", "--server", &url, "ada"]).await;
    let chat = ada.ok(&["--ca", ca, "chat", "create", "behind TLS"]).await;
    ada.ok(&["--ca", ca, "send", chat.trim(), "sealed twice"]).await;
    assert!(ada.ok(&["--ca", ca, "read", chat.trim()]).await.contains("sealed twice"));
}
