//! The database below everything else: found, started or waited for, and brought up to date.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::ServerError;
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::embedded::{EmbeddedConfig, EmbeddedError, EmbeddedPostgres, has_cluster, is_root, running};
use crate::store::migrate::migrate;
use crate::store::pool::connection_config;

/// How often a database that does not answer is asked at the start.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// A database that is ready: migrated, and run by this process if it is the private one.
#[derive(Debug)]
pub struct Database {
    embedded: Option<EmbeddedPostgres>,
    config: tokio_postgres::Config,
}

impl Database {
    /// Starts or finds the database and migrates it. An external one that does not answer is waited for.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn open(settings: &Settings) -> Result<Self, ServerError> {
        let deadline = Duration::from_secs(settings.database.deadline_s);
        if settings.database.url.is_empty() {
            let data_dir = settings.data_dir(is_root().await)?;
            let embedded = EmbeddedPostgres::start(embedded_config(settings, data_dir)).await?;
            let config = connection_config(&embedded.connection_string("sealcast"), deadline)?;
            migrate(&config).await?;
            return Ok(Self { embedded: Some(embedded), config });
        }
        let config = connection_config(settings.database.url.expose(), deadline)?;
        loop {
            match migrate(&config).await {
                Ok(()) => return Ok(Self { embedded: None, config }),
                Err(error @ StoreError::Migration(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "waiting for the database");
                    tokio::time::sleep(DATABASE_PAUSE).await;
                }
            }
        }
    }

    /// Finds the database as it is: nothing is migrated, and none is made. A private one that a broker runs is used
    /// beside it; else it is started.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn open_as_it_is(settings: &Settings) -> Result<Self, ServerError> {
        let deadline = Duration::from_secs(settings.database.deadline_s);
        if !settings.database.url.is_empty() {
            let config = connection_config(settings.database.url.expose(), deadline)?;
            return Ok(Self { embedded: None, config });
        }
        let data_dir = settings.data_dir(is_root().await)?;
        if !has_cluster(&data_dir)? {
            return Err(ServerError::NoDatabase { data_dir });
        }
        let until = Instant::now() + deadline;
        loop {
            let locked = match EmbeddedPostgres::start(embedded_config(settings, data_dir.clone())).await {
                Ok(embedded) => {
                    let config = connection_config(&embedded.connection_string("sealcast"), deadline)?;
                    return Ok(Self { embedded: Some(embedded), config });
                }
                Err(error @ EmbeddedError::Locked { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            if let Some(url) = running(&data_dir, "sealcast")? {
                return Ok(Self { embedded: None, config: connection_config(&url, deadline)? });
            }
            // The broker that holds the folder is just starting its Postgres, or ending it.
            if Instant::now() >= until {
                return Err(locked.into());
            }
            tokio::time::sleep(DATABASE_PAUSE).await;
        }
    }

    /// How to connect.
    #[must_use]
    pub const fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// Stops the database if it is this process' own.
    ///
    /// # Errors
    /// [`ServerError::Embedded`].
    pub async fn close(self) -> Result<(), ServerError> {
        if let Some(embedded) = self.embedded {
            embedded.stop().await?;
        }
        Ok(())
    }
}

fn embedded_config(settings: &Settings, data_dir: PathBuf) -> EmbeddedConfig {
    let bin_dir = &settings.database.embedded.bin_dir;
    EmbeddedConfig {
        data_dir,
        bin_dir: (!bin_dir.as_os_str().is_empty()).then(|| PathBuf::from(bin_dir)),
        search: settings.database.embedded.search,
        fetch: settings.database.embedded.fetch,
        ..EmbeddedConfig::default()
    }
}
