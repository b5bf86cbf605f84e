//! The integration tests: a real broker, a real Postgres, real sockets.
//!
//! Each test has a database of its own, cloned from a migrated template, and a broker of its own on free ports.
//! Tests that a promise rests on begin with its number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test fails by panicking, and is read by its name"
)]

mod accounts;
mod attacks;
mod attacks_whole;
mod backups;
mod catalogue;
#[cfg(feature = "client")]
mod chains;
#[cfg(feature = "client")]
mod client_members;
#[cfg(feature = "client")]
mod client_races;
mod codes;
#[cfg(feature = "client")]
mod commands;
mod commits;
#[cfg(feature = "client")]
mod conversation;
mod copies;
mod deliveries;
mod deploy;
mod door;
mod drain;
mod embedded;
mod faults;
mod fetch;
mod found_by_worlds;
#[cfg(feature = "client")]
mod friends;
mod generations;
#[cfg(feature = "client")]
mod healing;
#[cfg(feature = "client")]
mod history;
#[cfg(feature = "client")]
mod info;
#[cfg(feature = "client")]
mod interleavings;
mod labels;
mod limits;
mod membership;
mod messages;
mod model;
mod operations;
mod operator;
#[cfg(feature = "client")]
mod passwords;
#[cfg(feature = "client")]
mod profiles;
#[cfg(feature = "client")]
mod reading;
mod renewal;
#[cfg(feature = "client")]
mod restore;
mod revisions;
mod rights;
mod secrets;
mod sessions;
#[cfg(feature = "client")]
mod shared_history;
mod signals;
mod simulation;
mod state_machine;
mod status_page;
#[cfg(feature = "client")]
mod stranger;
mod support;
#[cfg(feature = "client")]
mod talk;
#[cfg(feature = "client")]
mod terminal;
mod tidy;
#[cfg(feature = "client")]
mod tls;
mod transport;
#[cfg(feature = "client")]
mod vectors;
mod verify;
mod versions;
mod wire;
