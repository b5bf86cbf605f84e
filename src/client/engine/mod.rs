//! The engine behind a client: one task a client keeps the connection; operations run where they are asked for.
//!
//! Lives here: everything with I/O or a clock. Decisions are in `chat`. The state is behind one lock that is
//! never held across an await.
//! Invariants: E1 entries of a chat are taken strictly in order. E2 a frame that uses a counter is kept before
//! it is sent. E3 a cursor is told only after what it covers is kept. E4 a request that changes something is
//! repeated with the same bytes until its answer is definite.

pub(crate) mod account;
pub(crate) mod backups;
pub(crate) mod call;
pub(crate) mod chains;
pub(crate) mod copies;
pub(crate) mod coverage;
pub(crate) mod devices;
pub(crate) mod driver;
pub(crate) mod fetch;
pub(crate) mod generation_links;
pub(crate) mod group_keys;
pub(crate) mod history;
pub(crate) mod inbound;
pub(crate) mod info;
mod info_seals;
pub(crate) mod labels;
pub(crate) mod live;
pub(crate) mod login;
pub(crate) mod members;
pub(crate) mod persist;
pub(crate) mod profiles;
pub(crate) mod pump;
pub(crate) mod recover;
pub(crate) mod renewal;
pub(crate) mod report;
pub(crate) mod rest;
pub(crate) mod secrets;
pub(crate) mod state;
