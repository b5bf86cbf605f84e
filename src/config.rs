//! The settings of the broker.
//!
//! `config.toml` is compiled in and IS the defaults; a file, then the environment
//! (`SEALCAST__SECTION__KEY`) override it; unknown keys are refused, and all mistakes are told at once. Floor 1: imports
//! protocol and telemetry.

mod effective;
mod layers;
mod mistake;
mod network;
mod reload;
mod rules;
mod syntax;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::telemetry::subscriber::LogFormat;
use layers::Layers;

pub use effective::Secret;
pub use mistake::{Mistake, Place};
pub use network::{Network, NotANetwork};
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
    pub registration: Registration,
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
        hosts: Vec<String>,
        trusted_proxies: Vec<Network>,
        address_header: String,
        workers: usize,
        connections_max: usize,
        login_timeout_s: u64,
        ping_interval_s: u64,
        stalled_timeout_s: u64,
        tls: Tls,
    }
}
section! {
    /// TLS of the public listener.
    Tls { certificate: PathBuf, key: PathBuf, }
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
    /// Who may register.
    Registration { mode: RegistrationMode, }
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationMode {
    /// Everybody.
    Open,
    /// Who has the code of an invitation.
    Invitation,
    /// Nobody.
    Closed,
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
        bytes_per_s: u32,
        bytes_burst: u32,
        membership_changes_per_minute: u32,
        signals_per_s: u32,
        signals_burst: u32,
        connections_max_address: u32,
        handshakes_per_minute_address: u32,
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

impl Settings {
    /// Reads the settings: defaults, then the file, then the environment.
    ///
    /// # Errors
    /// [`ConfigError`] names each key that is unknown, has another type, is out of its range or contradicts another.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::build(file, std::env::vars_os())
    }

    fn build(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new(DEFAULTS.parse().map_err(ConfigError::Defaults)?);
        if let Some(file) = file {
            let text =
                std::fs::read_to_string(file).map_err(|source| ConfigError::File { file: file.to_owned(), source })?;
            let read = layers.add_file(file, &text);
            read.map_err(|source| ConfigError::Syntax { file: file.to_owned(), source })?;
        }
        layers.add_environment(environment);
        rules::check_values(&mut layers);
        // What is wrong by itself is not looked at beside others.
        if !layers.mistakes.is_empty() {
            return Err(ConfigError::Mistakes(layers.mistakes));
        }
        let settings: Self = layers.table.clone().try_into().map_err(ConfigError::Defaults)?;
        rules::check_together(&settings, &mut layers);
        if layers.mistakes.is_empty() { Ok(settings) } else { Err(ConfigError::Mistakes(layers.mistakes)) }
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
    /// Keys that are unknown, values of another type or out of their range, contradictions: all that were found.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// The defaults are not what this crate believes they are: a fault of its own.
    #[error("the defaults cannot be read")]
    Defaults(#[source] toml::de::Error),
    /// The settings cannot be written: a fault of this crate.
    #[error("the settings cannot be written")]
    Effective(#[source] toml::ser::Error),
    /// No place for the embedded Postgres.
    #[error("neither HOME nor XDG_STATE_HOME is set: set data_dir, or database.url")]
    NoHome,
}

/// One mistake a line; several begin on a line of their own.
fn lines(mistakes: &[Mistake]) -> String {
    match mistakes {
        [mistake] => mistake.to_string(),
        many => many.iter().map(|mistake| format!("\n  {mistake}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(toml: &str, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Settings::build(Some(file.path()), environment.iter().map(|(key, value)| (key.into(), value.into())))
    }

    /// Where each mistake is (a line, or 0 for elsewhere), and in which key.
    fn mistakes(toml: &str, environment: &[(&str, &str)]) -> Vec<(usize, String)> {
        match build(toml, environment) {
            Err(ConfigError::Mistakes(mistakes)) => mistakes
                .into_iter()
                .map(|mistake| match mistake.place {
                    Place::File { line, .. } => (line, mistake.key),
                    Place::Variable(_) | Place::Default => (0, mistake.key),
                })
                .collect(),
            other => panic!("{other:?}"),
        }
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
    fn all_mistakes_are_told_at_once_each_with_its_place() {
        let toml = "[server]\nlisten_on = 1\nworkers = \"many\"\norigins = [1]\n\n[keys]\nmessages_max = 0\nage_max_s = -1\n\n[log]\nformat = \"xml\"\n";
        let environment = [("SEALCAST__SERVER__LISTEN", "nowhere"), ("SEALCAST__NONSENSE", "1"), ("PATH", "/bin")];
        let mut found = mistakes(toml, &environment);
        found.sort();
        let expected = [
            (0, "nonsense"),
            (0, "server.listen"),
            (2, "server.listen_on"),
            (3, "server.workers"),
            (4, "server.origins"),
            (7, "keys.messages_max"),
            (8, "keys.age_max_s"),
            (11, "log.format"),
        ];
        assert_eq!(found, expected.map(|(line, key)| (line, key.to_owned())));
        let told = build(toml, &environment).unwrap_err().to_string();
        assert!(told.contains("`keys.messages_max` is 0, but must be from 1 to 10000"), "{told}");
        assert!(told.contains("there are address_header, connections_max"), "{told}");
        assert!(told.contains("SEALCAST__SERVER__LISTEN: `server.listen` must be an address and a port"), "{told}");
    }

    #[test]
    fn what_contradicts_is_refused() {
        let cases = [
            ("[chat]\nin_flight_max = 30\n[writer]\nqueue_max = 20\n", "chat.in_flight_max"),
            ("[limits]\ncatch_up_readers = 30\n[database]\nconnections_max = 20\n", "limits.catch_up_readers"),
            ("[chat]\nmembers_max = 3300\n", "chat.members_max"),
            ("[server.tls]\ncertificate = \"cert.pem\"\n", "server.tls.key"),
            ("[server.tls]\nkey = \"key.pem\"\n", "server.tls.certificate"),
            ("[server]\naddress_header = \"Forwarded\"\n", "server.address_header"),
            ("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n", "server.address_header"),
            ("[operator]\nlisten = \"127.0.0.1:8080\"\n", "operator.listen"),
        ];
        for (toml, key) in cases {
            let found = mistakes(toml, &[]);
            assert_eq!(found.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), [key], "{toml}");
        }
    }

    #[test]
    fn texts_have_their_forms() {
        let bad = [
            "origins = [\"chat.example.org\"]",
            "origins = [\"https://chat.example.org/\"]",
            "hosts = [\"https://chat.example.org\"]",
            "trusted_proxies = [\"10.0.0.0/33\"]",
            "address_header = \"a b\"",
            "name = \"\"",
        ];
        for line in bad {
            assert_eq!(mistakes(&format!("[server]\n{line}\n"), &[]).len(), 1, "{line}");
        }
        let good = "origins = [\"*\", \"https://a.example:8443\"]\nhosts = [\"a.example\", \"[::1]:80\"]\n\
            trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\naddress_header = \"Forwarded\"\n";
        build(&format!("[server]\n{good}"), &[]).unwrap();
        assert_eq!(mistakes("[database]\nurl = \"nonsense\"\n", &[]).len(), 1);
    }

    #[test]
    fn the_effective_settings_are_settings_without_the_password() {
        let url = "postgres://ada:canary@db.example:5433/chat?sslmode=prefer";
        let settings = build("", &[("SEALCAST__DATABASE__URL", url)]).unwrap();
        let text = settings.effective().unwrap();
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("postgres://ada:(redacted)@db.example:5433/chat"), "{text}");
        let again = build(&text, &[("SEALCAST__DATABASE__URL", url)]).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn the_url_is_never_printed() {
        let settings = build("[database]\nurl = \"postgres://u:canary@h/d\"\n", &[]).unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
