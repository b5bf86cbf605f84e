//! The rules of sending, one by one, on a chat of three users that stands in memory.
//!
//! `scene` makes the chat and what is sent to it; `keys`, `messages`, `revisions` and `signals` hold the rules.

mod keys;
mod messages;
mod revisions;
mod scene;
mod signals;
