//! Opens byte streams to a server, with TLS where its address says so.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use url::Url;

/// Where a server is: scheme, host, port, and a path before its own paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    is_secure: bool,
    prefix: String,
}

impl Endpoint {
    /// `host:port`, for the header and the address.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// A path of the server with the prefix before it.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// Reads `http`, `https`, `ws` and `wss` addresses; the first and the third, the second and the fourth are the same.
impl FromStr for Endpoint {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let url = Url::parse(text).map_err(|_| NetworkError::Address)?;
        let (is_secure, port) = match url.scheme() {
            "http" | "ws" => (false, 80),
            "https" | "wss" => (true, 443),
            _ => return Err(NetworkError::Address),
        };
        let has_extras = url.query().is_some() || url.fragment().is_some() || !url.username().is_empty();
        let host = url.host_str().filter(|host| !host.is_empty() && !has_extras).ok_or(NetworkError::Address)?;
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(port),
            is_secure,
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// A stream to a server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens streams; cheap to clone, and meant to be shared by all clients of a process.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Trusts the system's certificate authorities, and those of a PEM file.
    ///
    /// # Errors
    /// [`NetworkError::Authorities`] if the file cannot be read or holds no certificate.
    pub fn new(authorities: Option<&Path>) -> Result<Self, NetworkError> {
        let mut roots = RootCertStore::empty();
        // A system without any, or with odd ones, is no fault as long as no certificate needs them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = authorities {
            let unreadable = |_| NetworkError::Authorities;
            let mut count = 0;
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?).map_err(|_| NetworkError::Authorities)?;
                count += 1;
            }
            if count == 0 {
                return Err(NetworkError::Authorities);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| NetworkError::Authorities)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Opens a stream.
    pub(crate) async fn connect(
        &self,
        endpoint: &Endpoint,
        timeout: Duration,
    ) -> Result<Box<dyn Stream>, NetworkError> {
        let open = async {
            let tcp =
                TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(NetworkError::Connect)?;
            tcp.set_nodelay(true).map_err(NetworkError::Connect)?;
            if !endpoint.is_secure {
                return Ok(Box::new(tcp) as Box<dyn Stream>);
            }
            let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| NetworkError::Address)?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let tls = connector.connect(name, tcp).await.map_err(NetworkError::Tls)?;
            Ok(Box::new(tls) as Box<dyn Stream>)
        };
        tokio::time::timeout(timeout, open).await.map_err(|_| NetworkError::Timeout)?
    }
}

/// Why the server was not reached, or what came is no answer of this protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Not an address of a server.
    #[error("not an address: http, https, ws or wss, a host, and nothing behind the path")]
    Address,
    /// The file of certificate authorities.
    #[error("the file of certificate authorities cannot be read or holds none")]
    Authorities,
    /// No TCP connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// No TLS.
    #[error("no secure connection: {0}")]
    Tls(#[source] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The HTTP exchange failed.
    #[error("the request failed: {0}")]
    Http(#[source] hyper::Error),
    /// The WebSocket handshake failed.
    #[error("no socket: {0}")]
    Handshake(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    /// The server knows none of the versions of the protocol that this client speaks.
    #[error("the server speaks another version of the protocol")]
    Version,
    /// Not an answer of this protocol.
    #[error("status {status}, and not an answer of this protocol: is this a server of Sealcast?")]
    NotSealcast {
        /// The HTTP status.
        status: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_ports_and_prefixes() {
        let read = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()).ok();
        assert_eq!(read("http://localhost:8080"), Some("http://localhost:8080".to_owned()));
        assert_eq!(read("ws://localhost:8080/"), Some("http://localhost:8080".to_owned()));
        assert_eq!(read("wss://chat.example/base/"), Some("https://chat.example:443/base".to_owned()));
        assert_eq!(read("http://[::1]:9/"), Some("http://[::1]:9".to_owned()));
        for bad in ["", "localhost:8080", "ftp://x", "http://", "http://a/?q=1", "http://u:p@a/", "http://a/#f"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
