//! What is wrong with a setting, where it stands, and what is allowed. Floor 1; pure.

use std::fmt;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In a file.
    File {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// In a variable of the environment.
    Variable(String),
    /// Nowhere: it is a default, or missing.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{}, line {line}, column {column}", file.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("not set"),
        }
    }
}

/// One mistake. It says nothing of what stands in a text, which may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: `{key}` {what}")]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// The setting, like `server.listen`.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub what: String,
}
