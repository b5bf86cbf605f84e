//! The relay.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Path;
use crate::flow::{Direction, End, carry};
use crate::stream::Target;

/// A relay in front of a server, on a free port of the loopback interface. It ends with this handle.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    path: Arc<watch::Sender<Path>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// One that is open.
    ///
    /// # Errors
    /// That of the listener.
    pub async fn start(target: Target) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let path = Arc::new(watch::Sender::new(Path::Open));
        let paths = Arc::clone(&path);
        let accepting = tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                if paths.borrow().is_passable() {
                    tokio::spawn(relay(outside, target.clone(), paths.subscribe()));
                } else {
                    reset(&outside);
                }
            }
        });
        Ok(Self { address, path, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the path, for the connections that are there too.
    pub fn set(&self, path: Path) {
        self.path.send_replace(path);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.path.send_replace(Path::Cut);
    }
}

async fn relay(outside: TcpStream, target: Target, mut path: watch::Receiver<Path>) {
    let Ok((from_server, to_server)) = target.connect().await else { return reset(&outside) };
    let Ok((outside, handle)) = with_handle(outside) else { return };
    let (from_client, to_client) = outside.into_split();
    let requests = carry(Box::new(from_client), to_server, Direction::Requests, path.clone());
    let answers = carry(from_server, Box::new(to_client), Direction::Answers, path.clone());
    let is_reset = tokio::select! {
        biased;
        end = path.wait_for(|path| !path.is_passable()) => end.is_ok_and(|path| *path == Path::Reset),
        // When either side is done the connection is.
        end = answers => end == End::CutShort,
        end = requests => end == End::CutShort,
    };
    if is_reset {
        reset(&handle);
    }
}

/// A second handle of a connection, to reset it with when its halves are elsewhere.
fn with_handle(stream: TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let handle = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(handle)?))
}

/// Makes the kernel send a reset when the last handle of the connection is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}
