//! Names every kind of identifier and number by a type of its own.
//!
//! Identifiers are UUIDs (RFC 9562), 16 bytes in signed bytes and MessagePack, hyphenated lower-case text in
//! JSON. Those this crate makes are version 7: time order keeps indexes dense. Nothing trusts the time in one.
//! Numbers on the wire stay within 2^53 - 1, so that every JSON implementation reads them exactly.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest integer that JSON implementations with double precision read exactly (RFC 8259 section 6).
pub const NUMBER_MAX: u64 = (1 << 53) - 1;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a fresh identifier, version 7.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes that are signed and hashed.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// An account.
    UserId
}
id! {
    /// One device of a user. Not a socket.
    SessionId
}
id! {
    /// A conversation.
    ChatId
}
id! {
    /// A message, the same for all its revisions. Made by the sender; idempotent for ever within its chat.
    MessageId
}
id! {
    /// A sender key.
    KeyId
}
id! {
    /// A chat's or a user's info key.
    InfoKeyId
}
id! {
    /// A user key.
    UserKeyId
}
id! {
    /// A login that has begun. Random (version 4): nobody can foresee another's.
    LoginId
}
id! {
    /// A set of shares of a recovery code.
    ShareSetId
}
id! {
    /// A request for recovery by friends. Who knows it can ask what became of it.
    RecoveryRequestId
}
id! {
    /// A group secret.
    SecretId
}
id! {
    /// An attachment.
    AttachmentId
}
id! {
    /// An ephemeral signal. Random (version 4), since it goes into the derivation of the signal's key.
    SignalId
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(u64);

        impl $name {
            /// Wraps a number.
            ///
            /// # Errors
            /// [`NumberTooLarge`] above [`NUMBER_MAX`].
            pub fn new(value: u64) -> Result<Self, NumberTooLarge> {
                if value > NUMBER_MAX { Err(NumberTooLarge { value }) } else { Ok(Self(value)) }
            }

            /// Wraps a number, holding it at [`NUMBER_MAX`].
            #[must_use]
            pub const fn saturating(value: u64) -> Self {
                if value > NUMBER_MAX { Self(NUMBER_MAX) } else { Self(value) }
            }

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number that follows.
            #[must_use]
            pub const fn next(self) -> Self {
                Self::saturating(self.0.saturating_add(1))
            }
        }

        impl TryFrom<u64> for $name {
            type Error = NumberTooLarge;

            fn try_from(value: u64) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A place in a chat's log; 0 is before the first entry.
    Seq
}
number! {
    /// A place in one sender key's messages; the first is 1.
    Counter
}
number! {
    /// The chat's number that makes all older sender keys stale when it grows; 1 at creation.
    Epoch
}
number! {
    /// A place among a chat's membership changes; creation is 1.
    ChangeNo
}
number! {
    /// A generation of a chat's group key; the first is 1.
    GenerationNo
}
number! {
    /// A place in a user's chain of certificates and revocations; the first certificate is 1.
    Place
}
number! {
    /// A place in the log of what was done with secrets; it grows, and not by one.
    SecretLogNo
}
number! {
    /// A revision of a message; the message itself is 0.
    Revision
}
number! {
    /// Microseconds since the Unix epoch, UTC.
    Timestamp
}
number! {
    /// The number by which a connection tells its requests apart.
    RequestId
}

impl Timestamp {
    /// The instant `micros` later.
    #[must_use]
    pub const fn plus_micros(self, micros: u64) -> Self {
        Self::saturating(self.0.saturating_add(micros))
    }
}

/// A number above [`NUMBER_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{value} is above 2^53 - 1")]
pub struct NumberTooLarge {
    /// The number.
    pub value: u64,
}
