//! Sets up logging on stderr.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The filter of the process' subscriber, which can be exchanged.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the process' subscriber.
///
/// # Errors
/// When `filter` cannot be read, or a subscriber is installed already.
pub fn install(format: LogFormat, filter: &str) -> Result<(), SubscriberError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init()?,
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init()?,
    }
    // There is none yet, or there would be a subscriber.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Exchanges the filter of the process' subscriber; without one nothing happens.
///
/// # Errors
/// When `filter` cannot be read; the old one stays.
pub fn set_filter(filter: &str) -> Result<(), SubscriberError> {
    let filter = EnvFilter::try_new(filter)?;
    if let Some(handle) = FILTER.get() {
        // It fails where the subscriber is gone, with the process.
        let _ = handle.reload(filter);
    }
    Ok(())
}

/// Whether a text can be a filter.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriberError {
    /// The filter is not of the form `level` or `target=level,…`.
    #[error("log.filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// There is one already.
    #[error("a subscriber is installed already")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}
