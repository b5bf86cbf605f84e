//! Makes, wraps and opens everything secret: identity and session keys, copies, ciphertexts, hand-overs.
//!
//! Lives here: pure functions over bytes; every primitive comes from a reviewed library. Wing: imports the
//! protocol alone. Checking a signature needs no secret and is the protocol's work.
//! Invariants: C1 secrets are zeroized when dropped and never printed. C2 opening fails with one opaque error,
//! whatever was wrong. C3 nothing is sealed to a key that the protocol's test calls unsound.

pub mod backup;
mod cipher;
pub mod error;
pub mod friends;
pub mod generation_link;
pub mod group_key;
pub mod group_secret;
pub mod handover;
pub mod hpke;
pub mod info;
pub mod info_seal;
pub mod keypair;
pub mod link_code;
pub mod message;
pub mod name;
pub mod opaque;
pub mod profile;
pub mod random;
pub mod recovery_code;
pub mod safety_number;
pub mod secret;
pub mod self_key;
pub mod signal;
pub mod strongbox;
mod typed;
pub mod user_profile;
pub mod wrap;

#[cfg(test)]
mod rfc9180;
#[cfg(test)]
mod wycheproof;

pub use error::{OpenError, SealError};
pub use keypair::{ExchangeSecret, IdentitySecret, SessionSecrets, UserSecret};
pub use secret::Secret;
