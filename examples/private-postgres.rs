//! Runs a command beside a private Postgres that vanishes with it.
//!
//! `cargo run --example private-postgres -- COMMAND [ARGUMENT…]` starts a Postgres of the machine in a temporary
//! folder, makes a migrated database `sealcast_template`, sets `SEALCAST_TEST_DATABASE` to a connection string with
//! `{database}` where a database's name goes, runs the command, and ends with its exit code. The integration tests
//! run under it, so that they share one server.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, anyhow};
use sealcast::store::embedded::{EmbeddedConfig, EmbeddedPostgres};
use sealcast::store::migrate::migrate;
use sealcast::store::pool::connection_config;
use tokio_postgres::NoTls;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or_else(|| anyhow!("usage: private-postgres COMMAND [ARGUMENT…]"))?;
    let data_dir = std::env::temp_dir().join(format!("sealcast-private-{}", std::process::id()));
    let server = EmbeddedPostgres::start(EmbeddedConfig {
        data_dir,
        // Only where the machine has no Postgres: fetched once, not once in each run.
        programs_dir: Some(std::env::temp_dir().join("sealcast-test-programs")),
        ephemeral: true,
        settings: vec![("max_connections".to_owned(), "400".to_owned())],
        ..EmbeddedConfig::default()
    })
    .await?;
    let pattern = server.connection_string("{database}");
    prepare(&pattern).await?;
    let mut command = Command::new(&program);
    command.args(arguments).env("SEALCAST_TEST_DATABASE", &pattern);
    let status = tokio::task::spawn_blocking(move || command.status()).await?;
    server.stop().await?;
    let status = status.with_context(|| format!("running {}", program.to_string_lossy()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Makes the database that tests clone.
async fn prepare(pattern: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(&pattern.replace("{database}", "postgres"), NoTls).await?;
    let driver = tokio::spawn(connection);
    client.batch_execute("CREATE DATABASE sealcast_template").await?;
    drop(client);
    driver.await??;
    let template = connection_config(&pattern.replace("{database}", "sealcast_template"), Duration::from_secs(60))?;
    migrate(&template).await?;
    Ok(())
}
