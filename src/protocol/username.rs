//! Judges usernames: 3 to 32 of `[a-z0-9._-]`, compared in one normal form, some reserved.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits::{USERNAME_LENGTH_MAX, USERNAME_LENGTH_MIN};

/// Names that would pass for the service itself.
const RESERVED: [&str; 20] = [
    "abuse",
    "admin",
    "administrator",
    "everyone",
    "help",
    "hostmaster",
    "info",
    "moderator",
    "null",
    "operator",
    "postmaster",
    "root",
    "sealcast",
    "security",
    "server",
    "staff",
    "support",
    "system",
    "undefined",
    "webmaster",
];

/// A username in its normal form.
///
/// Input is lower-cased (ASCII) and then must match `[a-z0-9._-]{3,32}`, begin and end with a letter or digit,
/// and not be reserved. Reserved names are compared with `.`, `_` and `-` taken out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Username(String);

impl Username {
    /// Reads a username.
    ///
    /// # Errors
    /// [`UsernameInvalid`] says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, UsernameInvalid> {
        let name = text.to_ascii_lowercase();
        if !(USERNAME_LENGTH_MIN..=USERNAME_LENGTH_MAX).contains(&name.len()) {
            return Err(UsernameInvalid::Length);
        }
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)) {
            return Err(UsernameInvalid::Character);
        }
        let edges_are_plain = [name.bytes().next(), name.bytes().next_back()]
            .iter()
            .all(|edge| edge.is_some_and(|byte| byte.is_ascii_alphanumeric()));
        if !edges_are_plain {
            return Err(UsernameInvalid::Edge);
        }
        let bare: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        if RESERVED.contains(&bare.as_str()) {
            return Err(UsernameInvalid::Reserved);
        }
        Ok(Self(name))
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints nothing of the name: usernames stay out of logs (P12).
impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("username")
    }
}

impl TryFrom<String> for Username {
    type Error = UsernameInvalid;

    fn try_from(text: String) -> Result<Self, UsernameInvalid> {
        Self::parse(&text)
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.0
    }
}

/// Why a username is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsernameInvalid {
    /// Shorter or longer than allowed.
    #[error("a username has {USERNAME_LENGTH_MIN} to {USERNAME_LENGTH_MAX} characters")]
    Length,
    /// A character outside the allowed set.
    #[error("a username has only the letters a to z, digits, '.', '_' and '-'")]
    Character,
    /// It begins or ends with punctuation.
    #[error("a username begins and ends with a letter or a digit")]
    Edge,
    /// It would pass for the service itself.
    #[error("this username is reserved")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_normal_form() {
        assert_eq!(Username::parse("Ada.L-1").unwrap().as_str(), "ada.l-1");
    }

    #[test]
    fn each_rule_refuses() {
        assert_eq!(Username::parse("ab").unwrap_err(), UsernameInvalid::Length);
        assert_eq!(Username::parse(&"a".repeat(33)).unwrap_err(), UsernameInvalid::Length);
        for name in ["ada lovelace", "ad\u{430}", "ada\n", "ada\0b", "a/../b", "İda1"] {
            assert_eq!(Username::parse(name).unwrap_err(), UsernameInvalid::Character, "{name:?}");
        }
        for name in [".ada", "ada.", "-ada", "ada_"] {
            assert_eq!(Username::parse(name).unwrap_err(), UsernameInvalid::Edge);
        }
        for name in ["admin", "ADMIN", "ad.min", "seal-cast", "ro_ot"] {
            assert_eq!(Username::parse(name).unwrap_err(), UsernameInvalid::Reserved);
        }
    }

    #[test]
    fn the_bounds_are_allowed() {
        assert!(Username::parse("abc").is_ok());
        assert!(Username::parse(&"a".repeat(32)).is_ok());
    }
}
