//! One Postgres for a run, one database for each test.
//!
//! The server is named by `SEALCAST_TEST_DATABASE`, as `cargo run --example private-postgres -- COMMAND` sets it;
//! without it this process starts one of its own.

use std::time::Duration;

use sealcast::store::embedded::{EmbeddedConfig, EmbeddedPostgres};
use sealcast::store::migrate::migrate;
use sealcast::store::pool::connection_config;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The variable that names the server, with `{database}` where the database's name goes.
pub const SERVER: &str = "SEALCAST_TEST_DATABASE";

/// The database that others are cloned from.
pub const TEMPLATE: &str = "sealcast_template";

static OWN: OnceCell<OwnServer> = OnceCell::const_new();

/// The server that this process started for itself, on a thread that outlives every test's runtime.
struct OwnServer {
    pattern: String,
}

fn start_own() -> OwnServer {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = EmbeddedConfig {
                data_dir: std::env::temp_dir().join(format!("sealcast-test-{}", std::process::id())),
                programs_dir: Some(std::env::temp_dir().join("sealcast-test-programs")),
                ephemeral: true,
                ..EmbeddedConfig::default()
            };
            let server = EmbeddedPostgres::start(config).await.unwrap();
            let pattern = server.connection_string("{database}");
            prepare_template(&pattern).await;
            tell.send(pattern).unwrap();
            // The server stops with this process: it hangs on a pipe that the kernel closes.
            std::future::pending::<()>().await;
        });
    });
    OwnServer { pattern: told.recv().unwrap() }
}

/// Makes the template of a server.
pub async fn prepare_template(pattern: &str) {
    let admin = connect(&pattern.replace("{database}", "postgres")).await;
    admin.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).await.unwrap();
    let template = connection_config(&pattern.replace("{database}", TEMPLATE), Duration::from_secs(30)).unwrap();
    migrate(&template).await.unwrap();
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The database of one test. It is dropped with the test.
pub struct Database {
    pattern: String,
    name: String,
}

impl Database {
    /// A fresh, migrated database.
    pub async fn create() -> Self {
        Self::create_from(TEMPLATE).await
    }

    /// A fresh database with nothing in it.
    pub async fn create_empty() -> Self {
        Self::create_from("template1").await
    }

    /// A copy of it as it stands. Whoever is connected to it is thrown out.
    pub async fn copy(&self) -> Self {
        let admin = connect(&self.pattern.replace("{database}", "postgres")).await;
        let statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        admin.execute(statement, &[&self.name]).await.unwrap();
        Self::create_from(&self.name).await
    }

    async fn create_from(template: &str) -> Self {
        let pattern = match std::env::var(SERVER) {
            Ok(pattern) => pattern,
            Err(_) => {
                OWN.get_or_init(async || tokio::task::spawn_blocking(start_own).await.unwrap()).await.pattern.clone()
            }
        };
        let name = format!("test_{}", Uuid::now_v7().simple());
        let admin = connect(&pattern.replace("{database}", "postgres")).await;
        // Two clones of one template at once exclude each other for a moment.
        loop {
            match admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await {
                Ok(()) => break,
                Err(error) if error.code().is_some_and(|code| code.code() == "55006") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("cloning the template: {error}"),
            }
        }
        Self { pattern, name }
    }

    /// How a broker reaches it.
    pub fn url(&self) -> String {
        self.pattern.replace("{database}", &self.name)
    }

    /// A connection for looking behind the scenes.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    /// Holds every commit of messages until the client that is returned commits or goes: what comes meanwhile
    /// gathers for the commits that follow.
    pub async fn hold_commits(&self) -> Client {
        let outside = self.client().await;
        outside.batch_execute("BEGIN; LOCK TABLE chat_messages IN SHARE MODE").await.unwrap();
        outside
    }

    /// Waits until somebody waits for a lock: a commit is held, of a plain batch or another. Of a long statement only the
    /// beginning is shown.
    pub async fn until_held(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND (query LIKE 'INSERT INTO chat_messages%' OR query LIKE 'WITH moves AS %')";
        super::eventually("a commit that is held", async || self.count(waiting).await > 0).await;
    }

    /// One number by SQL.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client().await.query_one(sql, &[]).await.unwrap().get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (url, name) = (self.pattern.replace("{database}", "postgres"), self.name.clone());
        let drop_it = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                    tokio::spawn(connection);
                    let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
                }
            });
        };
        let _ = std::thread::spawn(drop_it).join();
    }
}
