//! What of the settings may change while the broker runs.

use toml::{Table, Value};

use super::{ConfigError, Settings};

impl Settings {
    /// These settings with what may change taken from `newer`: the filter of the log, the limits of connections,
    /// addresses and tries, origins, hosts, proxies, certificates, who may register.
    #[must_use]
    pub fn reloaded(&self, newer: &Self) -> Self {
        let mut settings = self.clone();
        settings.log.filter.clone_from(&newer.log.filter);
        settings.server.origins.clone_from(&newer.server.origins);
        settings.server.hosts.clone_from(&newer.server.hosts);
        settings.server.trusted_proxies.clone_from(&newer.server.trusted_proxies);
        settings.server.address_header.clone_from(&newer.server.address_header);
        // Whether there is TLS at all is decided when the listener is opened.
        if self.has_tls() == newer.has_tls() {
            settings.server.tls.clone_from(&newer.server.tls);
        }
        settings.registration.mode = newer.registration.mode;
        settings.password.tries_per_hour = newer.password.tries_per_hour;
        settings.password.tries_per_hour_user = newer.password.tries_per_hour_user;
        settings.password.tries_per_hour_address = newer.password.tries_per_hour_address;
        let kept = (self.limits.outboxes_bytes_max, self.limits.catch_up_readers);
        settings.limits.clone_from(&newer.limits);
        (settings.limits.outboxes_bytes_max, settings.limits.catch_up_readers) = kept;
        settings
    }

    /// Whether the public listener speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        !self.server.tls.certificate.as_os_str().is_empty()
    }

    /// The names of settings that differ; their values are not told.
    ///
    /// # Errors
    /// Never, as long as every setting is a value that TOML has.
    pub fn differing(&self, other: &Self) -> Result<Vec<String>, ConfigError> {
        let table = |settings: &Self| settings.effective()?.parse::<Table>().map_err(ConfigError::Defaults);
        let mut names = Vec::new();
        compare("", &table(self)?, &table(other)?, &mut names);
        if self.database.url != other.database.url && !names.iter().any(|name| name == "database.url") {
            names.push("database.url".to_owned());
        }
        Ok(names)
    }
}

fn compare(section: &str, one: &Table, other: &Table, names: &mut Vec<String>) {
    for (name, value) in one {
        let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        match (value, other.get(name)) {
            (Value::Table(one), Some(Value::Table(other))) => compare(&key, one, other, names),
            (one, Some(other)) if one == other => {}
            _ => names.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_change_does_and_the_rest_is_named() {
        let running = Settings::build(None, []).unwrap();
        let mut newer = running.clone();
        newer.limits.requests_per_s = 7;
        newer.limits.catch_up_readers = 3;
        newer.log.filter = "debug".to_owned();
        newer.server.hosts = vec!["chat.example.org".to_owned()];
        newer.server.name = "another".to_owned();
        newer.server.tls.certificate = "a.pem".into();
        let reloaded = running.reloaded(&newer);
        assert_eq!((reloaded.limits.requests_per_s, reloaded.log.filter.as_str()), (7, "debug"));
        assert_eq!(reloaded.server.hosts, newer.server.hosts);
        let kept = ["limits.catch_up_readers", "server.name", "server.tls.certificate"];
        assert_eq!(reloaded.differing(&newer).unwrap(), kept);
        assert_eq!(reloaded.differing(&reloaded).unwrap(), Vec::<String>::new());
    }
}
