//! Telemetry: metrics, logs, panics. Floor 1: imports protocol alone.
//!
//! No metric, log or trace carries ciphertext, key material, tokens or usernames (P12).

pub mod metrics;
pub mod panics;
pub mod subscriber;
