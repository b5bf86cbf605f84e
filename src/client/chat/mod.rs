//! One chat as its member's device sees it: verified log, keys, outbox.
//!
//! Lives here: pure states and decisions, without clock or I/O. Imports the protocol and crypto.
//! Invariants: K1 nothing that did not verify is shown as good. K2 a key is wrapped to the fold's recipients
//! and to nobody else. K3 a sealed frame whose outcome is unknown is never sealed again. K4 a counter of a key
//! that may have been committed is never used with another message.

pub(crate) mod asked;
pub(crate) mod bootstrap;
pub(crate) mod generations;
pub(crate) mod info;
pub(crate) mod log;
pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod own_key;
pub(crate) mod read_range;
pub(crate) mod reading;
pub(crate) mod received_keys;
pub(crate) mod recent;
pub(crate) mod seen_secrets;
pub(crate) mod signals;
pub(crate) mod state;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod generation_tests;
#[cfg(test)]
mod info_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod outbox_tests;
#[cfg(test)]
mod signals_tests;
