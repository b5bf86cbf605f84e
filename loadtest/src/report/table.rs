//! The result as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Report;
use crate::check::plant::Trial;
use crate::check::verdict::Verdict;

/// Columns before the values of the table.
const NAME_WIDTH: usize = 20;

impl Report {
    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        let (args, changes) = (&self.scenario, &self.changes);
        let pace = if args.rate == 0 { "as fast as it goes".to_owned() } else { format!("{} messages/s", args.rate) };
        table.row("sealcast", format!("{}, encoding {:?}", env!("CARGO_PKG_VERSION"), args.encoding).to_lowercase());
        table.row(
            "postgres",
            match (&self.postgres, &args.server) {
                (Some(version), _) => format!("{version}, private, fsync and synchronous_commit on"),
                (None, server) => format!("not known, broker at {}", server.as_deref().unwrap_or("?")),
            },
        );
        table.row(
            "scenario",
            format!(
                "{}: {} users with {} sessions each, {} chats, {} s, {} bytes, {pace}, seed {}",
                args.name, args.users, args.sessions_per_user, args.chats, args.seconds, args.size, self.seed
            ),
        );
        if let Some(settings) = &self.settings {
            table.row(
                "limits",
                format!(
                    "requests/s {} (burst {}), membership changes/min {}, certificates/h {}, live sessions {}",
                    settings.limits.requests_per_s,
                    settings.limits.requests_burst,
                    settings.limits.membership_changes_per_minute,
                    settings.session.certificates_per_hour_max,
                    settings.session.live_max
                ),
            );
            let raised: Vec<String> = self.raised.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            table.row("  above default", if raised.is_empty() { "none".to_owned() } else { raised.join(", ") });
        }
        table.row(
            "set-up, run, heal",
            format!("{:.1} s, {:.1} s, {:.1} s", self.set_up_s, self.elapsed_s, self.healed_s),
        );
        for trend in self.trends() {
            let grows = if trend.grows { ", GROWS" } else { "" };
            let of = format!("{:.2} in the first third, {:.2} in the last{grows}", trend.first, trend.last);
            table.row(&format!("  {}", trend.figure), of);
        }
        table.row("members", format!("{} added, {} removed, {} left", changes.added, changes.removed, changes.left));
        table.row(
            "rules",
            format!(
                "{} rekeys, {} transfers, {} changes of rights, {} of the history policy",
                changes.rekeys, changes.transfers, changes.rights, changes.policies
            ),
        );
        table.named("  failed changes", &changes.failed);
        let older = &self.older;
        table.row(
            "newcomers",
            format!("{} sessions read back: {} opened, {} locked", older.readers, older.opened, older.locked),
        );
        table.row(
            "connections",
            format!(
                "{} made, {} dropped by their clients; {} requests repeated",
                self.connections, changes.reconnects, self.resends
            ),
        );
        table.row("kills", format!("broker {}, postgres {}", self.kills.broker, self.kills.postgres));
        if args.is_torture() {
            table.row("cuts", format!("{} of ways between processes", self.cuts()));
            table.row("faults", format!("{} in all", self.faults.values().sum::<u64>()));
            table.named("  fault", &self.faults);
            if !self.has_clock {
                table.row("  fault", "clock jump: 0 (libfaketime is not here)".to_owned());
            }
        }
        let verdict = &self.verdict;
        table.row("acked and checked", format!("{} of {} sent, {:.1}/s", verdict.acked, self.sent, self.acked_per_s));
        table.named("  not sent", &self.troubles.refusals);
        let deeds = &self.deeds;
        table.row(
            "  among them",
            format!(
                "{} edits, {} deletions, {} replies, {} reactions",
                deeds.edits, deeds.deletions, deeds.replies, deeds.reactions
            ),
        );
        table.row(
            "receipts",
            format!(
                "{} read marks, {} given; {} silent entries",
                deeds.receipts, deeds.receipts_delivered, deeds.silent
            ),
        );
        table.row(
            "signals",
            format!(
                "{} taken, {} delivered; {} acknowledgements of delivery told",
                deeds.signals, deeds.signals_delivered, deeds.deliveries_told
            ),
        );
        table.row("delivered", format!("{}, {:.1}/s", self.verdict.delivered, self.delivered_per_s));
        let latency = &self.latency;
        table.row(
            "latency",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
                latency.p50, latency.p99, latency.p999, latency.max
            ),
        );
        if let Some(database) = &self.database {
            let (entries, copies) = (database.counts.entries, database.counts.copies);
            let violations = database.violation_count();
            table.row("database", format!("{entries} entries, {copies} copies verified: {violations} violations"));
            for finding in database.listed() {
                let (kind, place) = (finding.kind, finding.place);
                let compared = format!("found {}, expected {}", finding.found, finding.expected);
                table.row("  violation", format!("{kind} {place}: {compared}"));
            }
        }
        let cpu = &self.cpu;
        table.row(
            "cpu",
            format!(
                "clients {:.1} s, broker {:.1} s, postgres {:.1} s{}",
                cpu.clients,
                cpu.broker,
                cpu.postgres,
                if self.kills.all() > 0 { " (of processes that were ended: not counted)" } else { "" }
            ),
        );
        let control = &self.control;
        table.row(
            "removed sessions",
            format!(
                "{} ({} had kept no key yet, {} had ended), {} keys; opened before {}; tried after {}",
                control.removals,
                control.unable,
                control.shut_out,
                control.keys,
                control.opened_before,
                self.verdict.peeks
            ),
        );
        table.row("longest pause", format!("{:.1} s", self.longest_pause_s));
        for (name, count) in self.counts().into_iter().chain(self.verdict.further_counts()) {
            table.row(name, count.to_string());
        }
        table.row("alarms", self.alarms().to_string());
        table.named("  alarm", &self.troubles.alarms);
        table.named("client closed", &self.troubles.closed);
        for example in &self.verdict.examples {
            table.row("  found", example.clone());
        }
        let failures = self.failures();
        table.row(
            "result",
            if failures.is_empty() { "ok".to_owned() } else { format!("FAILED: {}", failures.join("; ")) },
        );
        table.0
    }
}

/// The table of a check of histories alone.
pub(crate) fn verdict_table(verdict: &Verdict) -> String {
    let mut table = Table::default();
    table.row("acked", verdict.acked.to_string());
    table.row("delivered", verdict.delivered.to_string());
    table.row("tried after removal", verdict.peeks.to_string());
    for (name, count) in verdict.counts().into_iter().chain(verdict.further_counts()) {
        table.row(name, count.to_string());
    }
    for example in &verdict.examples {
        table.row("  found", example.clone());
    }
    table.row("result", if verdict.is_clean() && verdict.acked > 0 { "ok" } else { "FAILED" }.to_owned());
    table.0
}

/// The table of damage that was planted in a history.
pub(crate) fn self_test_table(trials: &[Trial]) -> String {
    let mut table = Table::default();
    for trial in trials {
        let count = trial.damage.count();
        let fared = match trial.found {
            Some(found @ 1..) => format!("caught: {count} {found}"),
            Some(0) => format!("NOT CAUGHT: {count} 0"),
            None => "NOT PLANTED: the history has no place for it".to_owned(),
        };
        table.row(&trial.damage.name(), fared);
    }
    table.0
}

#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: String) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name:NAME_WIDTH$} {value}");
    }

    fn named(&mut self, name: &str, counts: &BTreeMap<String, u64>) {
        for (what, count) in counts {
            self.row(name, format!("{what}: {count}"));
        }
    }
}
