//! Runs the Postgres of a broker as a child of this process, behind a proxy.
//!
//! Invariant: it is the same embedded Postgres that a broker runs by itself, durable settings on; only the way to it
//! and who starts it again differ.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use sealcast::store::embedded::{EmbeddedConfig, EmbeddedPostgres};
use sealcast_faults::{Proxy, Target};

/// The database that the embedded Postgres makes for a broker.
pub(crate) const DATABASE: &str = "sealcast";

/// A Postgres, and the way to it.
#[derive(Debug)]
pub(crate) struct OwnPostgres {
    server: EmbeddedPostgres,
    path: Arc<Proxy>,
    url: String,
}

impl OwnPostgres {
    /// Starts one below a folder.
    pub(crate) async fn start(data_dir: PathBuf) -> anyhow::Result<Self> {
        let config = EmbeddedConfig { data_dir, ..EmbeddedConfig::default() };
        let server = EmbeddedPostgres::start(config).await.context("starting postgres")?;
        let socket =
            socket(&server.connection_string(DATABASE)).ok_or_else(|| anyhow!("a postgres without a socket"))?;
        let path = Proxy::start(Target::Unix(socket)).await.context("listening for the broker's database")?;
        let (address, port) = (path.address().ip(), path.address().port());
        // Who may enter the folder of the socket may connect: there is no password.
        let url = format!("host={address} port={port} user={DATABASE} password='' dbname={DATABASE}");
        Ok(Self { server, path: Arc::new(path), url })
    }

    /// How the broker reaches it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How to reach it past the proxy.
    pub(crate) fn socket_url(&self) -> String {
        self.server.connection_string(DATABASE)
    }

    /// The way to it.
    pub(crate) fn path(&self) -> Arc<Proxy> {
        Arc::clone(&self.path)
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.server.stop().await.context("stopping postgres")
    }
}

/// The socket of a `libpq` string of keywords and values.
fn socket(connection: &str) -> Option<PathBuf> {
    let folder = connection.strip_prefix("host='")?.split('\'').next()?;
    let port = connection.split(" port=").nth(1)?.split(' ').next()?;
    Some(Path::new(folder).join(format!(".s.PGSQL.{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_string_says() {
        let found = socket("host='/run/x' port=5432 user=sealcast dbname='sealcast'");
        assert_eq!(found.as_deref(), Some(Path::new("/run/x/.s.PGSQL.5432")));
        assert_eq!(socket("port=5432"), None);
    }
}
