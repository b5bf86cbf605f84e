//! Fuzz targets: for each, a function that takes any bytes and panics when a property does not hold.
//!
//! Lives here: the checks alone. `targets/` feeds them from libFuzzer, `tests/replay.rs` from the files of `corpus/` and
//! `public/`, on any toolchain. A check asserts what must be true, not merely that nothing panics; it keeps no state
//! from one input to the next, so that an input that fails once fails for ever.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a property that does not hold is told by a panic"
)]

mod bytes_of;
mod canonical_reader;
pub mod certificate;
pub mod config;
pub mod envelope;
pub mod equality;
pub mod guard;
pub mod json;
pub mod msgpack;
pub mod resume;
mod roundtrip;
mod socket;
pub mod unwrap;
pub mod username;
mod value;
mod wire_reference;

/// A check: takes any bytes, and panics when a property does not hold.
pub type Check = fn(&[u8]);

/// Every target by its name, which is that of its folder in `corpus/`.
pub const TARGETS: [(&str, Check); 10] = [
    ("certificate", certificate::check),
    ("config", config::check),
    ("envelope", envelope::check),
    ("equality", equality::check),
    ("guard", guard::check),
    ("json", json::check),
    ("msgpack", msgpack::check),
    ("resume", resume::check),
    ("unwrap", unwrap::check),
    ("username", username::check),
];
