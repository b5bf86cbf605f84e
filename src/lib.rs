//! x
#[cfg(feature = "client")]
pub mod crypto;
pub mod protocol;
