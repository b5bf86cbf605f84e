//! A client written from docs/protocol.md alone: it uses nothing of the crate, neither types nor functions.
//!
//! What is here may import the standard library, sockets, JSON and the primitives of cryptography; the formats are
//! written a second time, over JSON values in wire form. Only the starting of a broker ([`super::support`]) knows
//! the crate, and those to whom a stranger talks in [`passwords`]. So a promise of the document that the broker does not keep fails here, and so does a detail that the
//! document forgot.

pub mod bytes;
mod chat;
mod conversation;
pub mod crypto;
mod examples;
mod fold;
pub mod formats;
mod group_keys;
pub mod packed;
pub mod page;
mod passwords;
mod person;
pub mod socket;
