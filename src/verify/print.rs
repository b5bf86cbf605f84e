//! Shows a report: a table for people, and the same as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::finding::{Kind, Promise, Refused};
use super::report::{Counts, Finding, RefusedEntry, Report};

/// A report as JSON has it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    is_good: bool,
    counts: &'a Counts,
    promises: Vec<ShownPromise>,
    violation_count: u64,
    violations_by_kind: Vec<ShownKind>,
    violations: &'a [Finding],
    refused_by_receivers: Vec<ShownRefused>,
    refused: &'a [RefusedEntry],
}

#[derive(Debug, Serialize)]
struct ShownPromise {
    promise: &'static str,
    title: &'static str,
    checked: u64,
    violations: u64,
}

#[derive(Debug, Serialize)]
struct ShownKind {
    kind: Kind,
    promise: &'static str,
    count: u64,
}

#[derive(Debug, Serialize)]
struct ShownRefused {
    reason: Refused,
    count: u64,
}

fn promises(report: &Report) -> Vec<ShownPromise> {
    let shown = |promise: Promise| ShownPromise {
        promise: promise.number(),
        title: promise.title(),
        checked: report.checked(promise),
        violations: report.violations_of(promise),
    };
    Promise::ALL.into_iter().map(shown).collect()
}

/// The report as JSON, with a final newline.
///
/// # Errors
/// Cannot happen for this crate's types.
pub fn json(report: &Report) -> Result<String, serde_json::Error> {
    let by_kind =
        |(kind, count): (&Kind, &u64)| ShownKind { kind: *kind, promise: kind.promise().number(), count: *count };
    let by_reason = |(reason, count): (&Refused, &u64)| ShownRefused { reason: *reason, count: *count };
    let shown = Shown {
        is_good: report.is_good(),
        counts: &report.counts,
        promises: promises(report),
        violation_count: report.violation_count(),
        violations_by_kind: report.violations().iter().map(by_kind).collect(),
        violations: report.listed(),
        refused_by_receivers: report.refused_counts().iter().map(by_reason).collect(),
        refused: report.refused_listed(),
    };
    serde_json::to_string_pretty(&shown).map(|text| text + "\n")
}

/// The report as a table, each violation on a line of its own.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for (name, count) in counts(&report.counts) {
        line(&mut text, format_args!("{name:<52}{count:>14}"));
    }
    line(&mut text, format_args!(""));
    line(&mut text, format_args!("{:<52}{:>14}{:>12}", "promise", "checked", "violations"));
    for promise in promises(report) {
        let name = format!("{:<4}{}", promise.promise, promise.title);
        line(&mut text, format_args!("{name:<52}{:>14}{:>12}", promise.checked, promise.violations));
    }
    line(&mut text, format_args!(""));
    let refused: u64 = report.refused_counts().values().sum();
    line(&mut text, format_args!("refused by receivers: {refused}"));
    for entry in report.refused_listed() {
        line(&mut text, format_args!("  {} {}", entry.reason, entry.place));
    }
    more(&mut text, refused, report.refused_listed().len());
    let violations = report.violation_count();
    line(&mut text, format_args!("violations: {violations}"));
    for finding in report.listed() {
        let Finding { kind, place, found, expected } = finding;
        let promise = kind.promise().number();
        line(&mut text, format_args!("  {promise} {kind} {place}: found {found}, expected {expected}"));
    }
    more(&mut text, violations, report.listed().len());
    text
}

fn more(text: &mut String, all: u64, listed: usize) {
    let rest = all.saturating_sub(listed as u64);
    if rest > 0 {
        line(text, format_args!("  and {rest} more"));
    }
}

const fn counts(counts: &Counts) -> [(&'static str, u64); 18] {
    [
        ("chats", counts.chats),
        ("entries", counts.entries),
        ("  messages", counts.messages),
        ("  edits", counts.edits),
        ("  deletions", counts.deletions),
        ("  changes of members and sessions", counts.events),
        ("members", counts.members),
        ("recipients", counts.recipients),
        ("sender keys", counts.keys),
        ("  of the current epoch", counts.current_keys),
        ("  of these, waiting for copies", counts.incomplete_keys),
        ("copies of sender keys", counts.copies),
        ("wraps of info keys", counts.info_keys),
        ("users", counts.users),
        ("  accounts that have ended", counts.ended_users),
        ("entries of users' chains", counts.chain_entries),
        ("sessions", counts.sessions),
        ("  live, with an expiry that is due", counts.due_sessions),
    ]
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{what}");
}
