//! The settings of the broker.
//!
//! `config.toml` is compiled in and IS the defaults; a file, then the environment
//! (`SEALCAST__SECTION__KEY`) override it; unknown keys are refused. Floor 1: imports protocol and telemetry.

mod syntax;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ::config::{Config, Environment, File, FileFormat};
use serde::{Deserialize, Serialize};

use crate::protocol::limits::{COPIES_PER_FRAME_MAX, CURSORS_MAX, STAGED_PARTS_MAX};
use crate::telemetry::subscriber::LogFormat;

pub use syntax::SyntaxError;

/// The defaults, with their comments.
pub const DEFAULTS: &str = include_str!("../config.toml");

/// Every setting; `config.toml` explains each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml says what each setting means, and is the one place that does")]
pub struct Settings {
    pub data_dir: PathBuf,
    pub server: Server,
    pub operator: Operator,
    pub database: Database,
    pub writer: Writer,
    pub chat: Chat,
    pub session: Session,
    pub password: Password,
    pub keys: Keys,
    pub limits: Limits,
    pub drain: Drain,
    pub log: Log,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "config.toml says what each setting means, and is the one place that does")]
        pub struct $name { $(pub $field: $type,)* }
    };
}

section! {
    /// The public listener.
    Server {
        listen: SocketAddr,
        name: String,
        origins: Vec<String>,
        address_header: String,
        workers: usize,
        connections_max: usize,
        login_timeout_s: u64,
        ping_interval_s: u64,
        stalled_timeout_s: u64,
    }
}
section! {
    /// The operator's listener.
    Operator { listen: SocketAddr, }
}
section! {
    /// Postgres.
    Database { url: Secret, connections_max: usize, deadline_s: u64, embedded: Embedded, }
}
section! {
    /// The private Postgres.
    Embedded { bin_dir: PathBuf, search: bool, fetch: bool, }
}
section! {
    /// The writer's lanes.
    Writer { lanes: usize, items_max: usize, bytes_max: usize, queue_max: usize, }
}
section! {
    /// Chats in memory.
    Chat { workers: usize, idle_s: u64, in_flight_max: usize, members_max: u64, }
}
section! {
    /// Sessions of users.
    Session {
        lifetime_max_s: u64,
        live_max: u64,
        certificates_per_hour_max: u64,
        chats_max: u64,
        pending_s: u64,
    }
}
section! {
    /// Logins by password and recovery code.
    Password { login_s: u64, tries_per_hour: u32, tries_per_hour_user: u32, tries_per_hour_address: u32, }
}
section! {
    /// The life of sender keys.
    Keys { messages_max: u64, messages_max_large: u64, recipients_large: u64, age_max_s: u64, }
}
section! {
    /// What one connection may do.
    Limits {
        requests_per_s: u32,
        requests_burst: u32,
        membership_changes_per_minute: u32,
        signals_per_s: u32,
        signals_burst: u32,
        outbox_frames_max: usize,
        outbox_bytes_max: usize,
        outboxes_bytes_max: usize,
        catch_up_readers: usize,
    }
}
section! {
    /// The end of the process.
    Drain { grace_s: u64, retry_spread_ms: u64, }
}
section! {
    /// Logging.
    Log { format: LogFormat, filter: String, }
}

/// A setting that is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(not set)" } else { "(redacted)" })
    }
}

impl Settings {
    /// Reads the settings: defaults, then the file, then the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names the key that is unknown, has another type, or is out of its range.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = Environment::with_prefix("SEALCAST").prefix_separator("__").separator("__").try_parsing(true);
        Self::build(file, environment)
    }

    fn build(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(file) = file {
            let text =
                std::fs::read_to_string(file).map_err(|source| ConfigError::File { file: file.to_owned(), source })?;
            syntax::check(&text).map_err(|source| ConfigError::Syntax { file: file.to_owned(), source })?;
            builder = builder.add_source(File::from(file).format(FileFormat::Toml));
        }
        let list = environment.list_separator(",").with_list_parse_key("server.origins");
        let settings: Self = builder.add_source(list).build()?.try_deserialize()?;
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("server.login_timeout_s", self.server.login_timeout_s, 1, 300),
            ("server.ping_interval_s", self.server.ping_interval_s, 1, 3_600),
            ("server.stalled_timeout_s", self.server.stalled_timeout_s, 1, 3_600),
            ("server.connections_max", self.server.connections_max as u64, 1, 1_000_000),
            ("database.connections_max", self.database.connections_max as u64, 2, 1_000),
            ("database.deadline_s", self.database.deadline_s, 1, 300),
            ("writer.lanes", self.writer.lanes as u64, 1, 16),
            ("writer.items_max", self.writer.items_max as u64, 1, 10_000),
            ("writer.bytes_max", self.writer.bytes_max as u64, 1_024, 1 << 30),
            ("writer.queue_max", self.writer.queue_max as u64, 1, 1 << 24),
            ("chat.in_flight_max", self.chat.in_flight_max as u64, 1, self.writer.queue_max as u64),
            ("chat.members_max", self.chat.members_max, 1, 100_000),
            ("session.lifetime_max_s", self.session.lifetime_max_s, 1, 1 << 31),
            ("session.live_max", self.session.live_max, 1, 1_000),
            ("session.pending_s", self.session.pending_s, 1, 86_400),
            ("session.chats_max", self.session.chats_max, 1, CURSORS_MAX as u64),
            ("session.certificates_per_hour_max", self.session.certificates_per_hour_max, 1, 1_000_000),
            ("password.login_s", self.password.login_s, 1, 3_600),
            ("password.tries_per_hour", u64::from(self.password.tries_per_hour), 1, 1_000_000),
            ("password.tries_per_hour_user", u64::from(self.password.tries_per_hour_user), 1, 1_000_000),
            ("password.tries_per_hour_address", u64::from(self.password.tries_per_hour_address), 1, 1_000_000),
            ("chat.idle_s", self.chat.idle_s, 1, 86_400),
            ("keys.recipients_large", self.keys.recipients_large, 1, 100_000),
            (
                "limits.membership_changes_per_minute",
                u64::from(self.limits.membership_changes_per_minute),
                1,
                1_000_000,
            ),
            ("limits.signals_per_s", u64::from(self.limits.signals_per_s), 1, 1_000_000),
            ("limits.signals_burst", u64::from(self.limits.signals_burst), 1, 1_000_000),
            ("drain.retry_spread_ms", self.drain.retry_spread_ms, 0, 3_600_000),
            ("keys.messages_max", self.keys.messages_max, 1, 10_000),
            ("keys.messages_max_large", self.keys.messages_max_large, 1, 10_000),
            ("keys.age_max_s", self.keys.age_max_s, 3_600, 7_776_000),
            ("limits.requests_per_s", u64::from(self.limits.requests_per_s), 1, 1_000_000),
            ("limits.requests_burst", u64::from(self.limits.requests_burst), 1, 1_000_000),
            ("limits.outbox_frames_max", self.limits.outbox_frames_max as u64, 16, 1 << 20),
            ("limits.outbox_bytes_max", self.limits.outbox_bytes_max as u64, 64 * 1024, 1 << 30),
            ("limits.outboxes_bytes_max", self.limits.outboxes_bytes_max as u64, 1 << 20, 1 << 40),
            ("limits.catch_up_readers", self.limits.catch_up_readers as u64, 1, self.database.connections_max as u64),
            ("drain.grace_s", self.drain.grace_s, 1, 300),
        ];
        for (key, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { key, value, min, max });
            }
        }
        // Every recipient needs a copy of a key, and a list of copies has its bound.
        let recipients = self.chat.members_max.saturating_mul(self.session.live_max);
        let copies_max = u64::from(STAGED_PARTS_MAX) * COPIES_PER_FRAME_MAX as u64;
        if recipients > copies_max {
            let max = copies_max / self.session.live_max;
            return Err(ConfigError::Range { key: "chat.members_max", value: self.chat.members_max, min: 1, max });
        }
        if self.server.name.is_empty() || self.server.name.len() > 255 {
            return Err(ConfigError::Range {
                key: "server.name",
                value: self.server.name.len() as u64,
                min: 1,
                max: 255,
            });
        }
        Ok(())
    }

    /// The folder of the embedded Postgres: the setting, else the place that fits who runs the broker.
    ///
    /// # Errors
    /// [`ConfigError::NoHome`] for a user without a home folder.
    pub fn data_dir(&self, is_root: bool) -> Result<PathBuf, ConfigError> {
        if !self.data_dir.as_os_str().is_empty() {
            return Ok(self.data_dir.clone());
        }
        if is_root {
            return Ok(PathBuf::from("/var/lib/sealcast"));
        }
        let is_set = |path: &PathBuf| path.is_absolute();
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(is_set);
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(is_set);
        let state = state.or_else(|| home.map(|home| home.join(".local/state")));
        state.map(|state| state.join("sealcast")).ok_or(ConfigError::NoHome)
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("{} cannot be read: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}, {source}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        source: SyntaxError,
    },
    /// An unknown key, or another type; the source says which and where.
    #[error(transparent)]
    Read(#[from] ::config::ConfigError),
    /// Out of its range.
    #[error("{key} is {value}, but must be from {min} to {max}")]
    Range {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: u64,
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// No place for the embedded Postgres.
    #[error("neither HOME nor XDG_STATE_HOME is set: set data_dir, or database.url")]
    NoHome,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(toml: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let variables = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let environment = Environment::with_prefix("SEALCAST")
            .prefix_separator("__")
            .separator("__")
            .try_parsing(true)
            .source(Some(variables));
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Settings::build(Some(file.path()), environment)
    }

    #[test]
    fn the_defaults_are_valid() {
        let settings = build("", &[]).unwrap();
        assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.operator.listen.to_string(), "127.0.0.1:9090");
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_defaults() {
        let toml = "[server]\nlisten = \"127.0.0.1:1\"\nname = \"one\"\n";
        let settings =
            build(toml, &[("SEALCAST__SERVER__LISTEN", "127.0.0.1:0"), ("SEALCAST__KEYS__MESSAGES_MAX", "7")]);
        let settings = settings.unwrap();
        assert_eq!(settings.server.listen.to_string(), "127.0.0.1:0");
        assert_eq!(settings.server.name, "one");
        assert_eq!(settings.keys.messages_max, 7);
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(build("[server]\nlisten_on = 1\n", &[]).is_err());
        assert!(build("servers = 1\n", &[]).is_err());
        assert!(build("", &[("SEALCAST__SERVER__NONSENSE", "1")]).is_err());
        assert!(build("[server]\nlisten = \"nowhere\"\n", &[]).is_err());
        assert!(build("[keys]\nmessages_max = 0\n", &[]).is_err());
        assert!(build("[drain\n", &[]).is_err());
    }

    #[test]
    fn the_url_is_never_printed() {
        let settings = build("[database]\nurl = \"postgres://canary\"\n", &[]).unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
