//! Reaches the server: one connector for HTTP requests and the socket, over TCP or TLS.

pub(crate) mod connector;
pub(crate) mod http;
pub(crate) mod socket;
pub(crate) mod wire;

pub use connector::{Connector, Endpoint, NetworkError};
