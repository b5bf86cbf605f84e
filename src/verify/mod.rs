//! Recomputes what a database must keep, and tells where it does not.
//!
//! Lives here: the decisions, as plain data over rows that the store reads (`log`, `message`, `standing`, `key`, `user`),
//! what they come to (`finding`, `report`, `print`), and the walk through a database (`walk`). Floor 3: imports protocol
//! and store; judges by the protocol's own fold, chain and verifiers, and by no other.
//! Invariants: V1 nothing is written. V2 no finding carries ciphertext, key material or names. V3 what the server only
//! passes on (signatures of new messages, what their senders say that they have seen) is counted apart and is no
//! violation: receivers refuse it.

pub mod finding;
pub mod key;
pub mod log;
mod message;
pub mod print;
pub mod report;
mod standing;
pub mod user;
pub mod walk;

#[cfg(test)]
mod tests;

pub use report::Report;
pub use walk::verify;
