//! The protocol: everything that may cross a socket or be signed, as pure data.
//!
//! Lives here: identifiers, limits, signed and hashed bytes, the membership state machine and the fold of a
//! chat's log that both ends share, frames and their two encodings, error and close codes.
//! Floor 0: imports nothing of this crate; no I/O, no actors, no secrets. Checking a signature is public
//! work and lives here; making one does not.

pub mod account;
pub mod backup;
pub mod binary;
pub mod canonical;
pub mod certificate;
pub mod codec;
pub mod envelope;
pub mod error;
pub mod fold;
pub mod frame;
pub mod friends;
pub mod generation_link;
pub mod group_key;
pub mod group_secret;
pub mod ids;
pub mod info;
pub mod info_seal;
pub mod keys;
pub mod limits;
pub mod log;
pub mod membership;
pub mod password;
pub mod profile;
#[cfg(test)]
pub(crate) mod published;
pub mod signal;
pub mod strongbox;
pub mod user_chain;
pub mod username;
pub mod verify;
