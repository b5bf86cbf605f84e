//! Counts what happened in a run besides the history itself.

use std::collections::BTreeMap;

/// How much has happened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Messages given to the client library.
    pub(crate) sent: u64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages given to sessions.
    pub(crate) delivered: u64,
}

/// What was done besides new messages, and came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deeds {
    /// Edits acknowledged.
    pub(crate) edits: u64,
    /// Deletions acknowledged.
    pub(crate) deletions: u64,
    /// Replies acknowledged.
    pub(crate) replies: u64,
    /// Reactions acknowledged.
    pub(crate) reactions: u64,
    /// Read marks moved.
    pub(crate) receipts: u64,
    /// Receipts given to sessions, with those that only their sender's devices can read.
    pub(crate) receipts_delivered: u64,
    /// Signals that the server took.
    pub(crate) signals: u64,
    /// Signals given to sessions.
    pub(crate) signals_delivered: u64,
    /// Times that a session was told how far another has come.
    pub(crate) deliveries_told: u64,
    /// Entries whose data was gone when they came, and receipts for others.
    pub(crate) silent: u64,
}

/// Submit to the recipients' events, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    /// Half of the deliveries were faster.
    pub(crate) p50: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1,000.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// What went wrong besides the history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles {
    /// Alarms of the client library by kind.
    pub(crate) alarms: BTreeMap<String, u64>,
    /// Alarms that are no entry of the history.
    pub(crate) loose_alarms: u64,
    /// Copies of keys that their recipients said are bad, and messages that were unreadable for somebody.
    pub(crate) bad_copies: u64,
    /// Refusals of messages by code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Clients that closed, by the reason.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Events that were dropped before they were recorded: the history is not whole.
    pub(crate) dropped_events: u64,
    /// Failures to write the history.
    pub(crate) unwritten: u64,
}
