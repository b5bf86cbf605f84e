//! A path to a broker, or from a broker to its database, that can be broken.

pub use sealcast_faults::Path;
use sealcast_faults::Target;

use super::broker::Broker;
use super::database::Database;

/// A relay of the test's own.
pub struct Proxy {
    /// `http://…`, in front of a broker.
    pub url: String,
    proxy: sealcast_faults::Proxy,
}

impl Proxy {
    /// One in front of a broker.
    pub async fn start(broker: &Broker) -> Self {
        Self::to(Target::Tcp(broker.address().parse().unwrap())).await
    }

    /// One in front of a database, and the database's URL through it.
    pub async fn before(database: &Database) -> (Self, String) {
        let config: tokio_postgres::Config = database.url().parse().unwrap();
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let target = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Unix(folder)) => Target::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Some(tokio_postgres::config::Host::Tcp(host)) => Target::Tcp(format!("{host}:{port}").parse().unwrap()),
            None => panic!("a database without a host"),
        };
        let proxy = Self::to(target).await;
        let address = proxy.proxy.address();
        let password = config.get_password().map(|password| String::from_utf8_lossy(password).into_owned());
        let url = format!(
            "host={} port={} user={} password={} dbname={}",
            address.ip(),
            address.port(),
            config.get_user().unwrap(),
            password.as_deref().unwrap_or("''"),
            config.get_dbname().unwrap(),
        );
        (proxy, url)
    }

    async fn to(target: Target) -> Self {
        let proxy = sealcast_faults::Proxy::start(target).await.unwrap();
        Self { url: format!("http://{}", proxy.address()), proxy }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Changes the path, for the connections that are there too.
    pub fn set(&self, path: Path) {
        self.proxy.set(path);
    }
}
