//! Where a proxy leads, and the sockets on both sides as halves of bytes.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// What is behind a proxy.
#[derive(Debug, Clone)]
pub enum Target {
    /// A TCP listener.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The half that is read.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The half that is written.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

impl Target {
    /// Connects.
    pub(crate) async fn connect(&self) -> std::io::Result<(Reader, Writer)> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
            Self::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await?.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
        }
    }
}
