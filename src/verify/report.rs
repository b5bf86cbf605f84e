//! Collects what a verification comes to: what was counted, what was compared, what was found.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

use super::finding::{Kind, Place, Promise, Refused};

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Chats.
    pub chats: u64,
    /// Entries of their logs.
    pub entries: u64,
    /// First revisions of messages.
    pub messages: u64,
    /// Edits.
    pub edits: u64,
    /// Deletions.
    pub deletions: u64,
    /// Entries that are no messages.
    pub events: u64,
    /// Members of chats, each as often as they are in one.
    pub members: u64,
    /// Recipients of chats, each as often as they are one.
    pub recipients: u64,
    /// Sender keys.
    pub keys: u64,
    /// Those of their chat's epoch.
    pub current_keys: u64,
    /// Of these, those that wait for copies for recipients who came later, or who refused theirs.
    pub incomplete_keys: u64,
    /// Copies of sender keys.
    pub copies: u64,
    /// Wraps of info keys.
    pub info_keys: u64,
    /// Accounts.
    pub users: u64,
    /// Accounts that have ended: of their chains the signatures cannot be checked without a chat that knew them.
    pub ended_users: u64,
    /// Entries of users' chains.
    pub chain_entries: u64,
    /// Sessions.
    pub sessions: u64,
    /// Live ones whose time has run out and whose expiry is still to be written down.
    pub due_sessions: u64,
}

/// One violation.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: Kind,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

/// One entry that receivers refuse.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedEntry {
    /// Why.
    pub reason: Refused,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
}

/// What a verification comes to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What was looked at.
    pub counts: Counts,
    limit: usize,
    checked: BTreeMap<Promise, u64>,
    violations: BTreeMap<Kind, u64>,
    listed: Vec<Finding>,
    refused: BTreeMap<Refused, u64>,
    refused_listed: Vec<RefusedEntry>,
}

impl Report {
    /// An empty one, which will list so many violations at most, and count all.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Compares: `is_so`, or a violation. Gives `is_so`.
    pub fn holds(
        &mut self,
        kind: Kind,
        place: Place,
        is_so: bool,
        found: impl Display,
        expected: impl Display,
    ) -> bool {
        *self.checked.entry(kind.promise()).or_default() += 1;
        if !is_so {
            self.violation(kind, place, found, expected);
        }
        is_so
    }

    /// Compares two values that can be shown.
    pub fn same<T: PartialEq + Display>(&mut self, kind: Kind, place: Place, found: &T, expected: &T) -> bool {
        self.holds(kind, place, found == expected, found, expected)
    }

    /// Notes a violation.
    pub fn violation(&mut self, kind: Kind, place: Place, found: impl Display, expected: impl Display) {
        *self.violations.entry(kind).or_default() += 1;
        if self.listed.len() < self.limit {
            let (found, expected) = (found.to_string(), expected.to_string());
            self.listed.push(Finding { kind, place, found, expected });
        }
    }

    /// Notes an entry that receivers refuse.
    pub fn refused(&mut self, reason: Refused, place: Place) {
        *self.refused.entry(reason).or_default() += 1;
        if self.refused_listed.len() < self.limit {
            self.refused_listed.push(RefusedEntry { reason, place });
        }
    }

    /// How often something of a promise was compared.
    #[must_use]
    pub fn checked(&self, promise: Promise) -> u64 {
        self.checked.get(&promise).copied().unwrap_or_default()
    }

    /// Violations of a promise.
    #[must_use]
    pub fn violations_of(&self, promise: Promise) -> u64 {
        self.violations.iter().filter(|(kind, _)| kind.promise() == promise).map(|(_, count)| count).sum()
    }

    /// Violations of each kind that was found.
    #[must_use]
    pub const fn violations(&self) -> &BTreeMap<Kind, u64> {
        &self.violations
    }

    /// All violations.
    #[must_use]
    pub fn violation_count(&self) -> u64 {
        self.violations.values().sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// The violations that are listed.
    #[must_use]
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// Entries that receivers refuse, by reason.
    #[must_use]
    pub const fn refused_counts(&self) -> &BTreeMap<Refused, u64> {
        &self.refused
    }

    /// The entries that receivers refuse that are listed.
    #[must_use]
    pub fn refused_listed(&self) -> &[RefusedEntry] {
        &self.refused_listed
    }
}
