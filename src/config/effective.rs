//! Writes the settings that are in force, without what is secret.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, Settings};

/// A setting that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What may be shown of a database's address. Nothing of the text itself is: what is not understood may be the
    /// password.
    fn redacted(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let Ok(config) = self.0.parse::<tokio_postgres::Config>() else { return "(redacted)".to_owned() };
        let hosts: Vec<String> = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                tokio_postgres::config::Host::Tcp(name) => name.clone(),
                tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
        let password = if config.get_password().is_some() { ":(redacted)" } else { "" };
        let port = if ports.is_empty() { String::new() } else { format!(":{}", ports.join(",")) };
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or_default();
        format!("postgres://{user}{password}@{}{port}/{database}", hosts.join(","))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.redacted())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(not set)" } else { "(redacted)" })
    }
}

impl Settings {
    /// The settings as a file, its secrets redacted.
    ///
    /// # Errors
    /// Never, as long as every setting is a value that TOML has.
    pub fn effective(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(ConfigError::Effective)
    }
}
