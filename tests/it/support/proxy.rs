//! A path to a broker that can be held up and cut.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::broker::Broker;

/// What the path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Bytes pass both ways.
    Open,
    /// What the broker says stays on the way.
    HoldAnswers,
    /// There is no connection, and none can be made.
    Cut,
}

/// A TCP relay in front of a broker.
pub struct Proxy {
    /// `http://…`
    pub url: String,
    path: Arc<watch::Sender<Path>>,
}

impl Proxy {
    /// One that is open.
    pub async fn start(broker: &Broker) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (path, behind) = (Arc::new(watch::Sender::new(Path::Open)), broker.address().to_owned());
        let paths = Arc::clone(&path);
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                if *paths.borrow() == Path::Cut {
                    continue;
                }
                tokio::spawn(relay(outside, behind.clone(), paths.subscribe()));
            }
        });
        Self { url, path }
    }

    /// Changes the path, for the connections that are there too.
    pub fn set(&self, path: Path) {
        self.path.send_replace(path);
    }
}

async fn relay(outside: TcpStream, behind: String, path: watch::Receiver<Path>) {
    let Ok(inside) = TcpStream::connect(behind).await else { return };
    let ((mut from_client, mut to_client), (mut from_broker, mut to_broker)) =
        (outside.into_split(), inside.into_split());
    let mut held = path.clone();
    let answers = async {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            if held.wait_for(|path| *path != Path::HoldAnswers).await.is_err() {
                return;
            }
            let Ok(count @ 1..) = from_broker.read(&mut bytes).await else { return };
            // What was read while the path was being held up stays on the way too.
            if held.wait_for(|path| *path != Path::HoldAnswers).await.is_err() {
                return;
            }
            if to_client.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    let requests = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_broker).await;
    };
    let mut cut = path;
    let cut = async {
        let _ = cut.wait_for(|path| *path == Path::Cut).await;
    };
    tokio::select! {
        biased;
        () = cut => {}
        () = answers => {}
        () = requests => {}
    }
}
