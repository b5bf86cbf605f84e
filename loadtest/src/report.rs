//! Tells the result of a run: a table for people, JSON for programs, and whether all is well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use sealcast::config::Settings;
use serde_json::{Value, json};

use crate::args::MixedArgs;
use crate::check::Verdict;
use crate::churn::Changes;
use crate::older::Older;
use crate::recorder::{Deeds, Latency, Troubles};
use crate::trial::Control;

/// Columns before the values of the table.
const NAME_WIDTH: usize = 20;

/// Processes that were ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kills {
    /// Of the broker.
    pub(crate) broker: u64,
    /// Of Postgres.
    pub(crate) postgres: u64,
}

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// This process: all clients.
    pub(crate) clients: f64,
    /// The broker.
    pub(crate) broker: f64,
    /// Its Postgres.
    pub(crate) postgres: f64,
}

impl Cpu {
    /// What was used since; at least nothing, since a process that was ended begins anew.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            clients: (self.clients - before.clients).max(0.0),
            broker: (self.broker - before.broker).max(0.0),
            postgres: (self.postgres - before.postgres).max(0.0),
        }
    }
}

/// The result of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) args: MixedArgs,
    pub(crate) seed: u64,
    /// The settings of the broker that was started.
    pub(crate) settings: Option<Settings>,
    /// Limits above their defaults.
    pub(crate) raised: Vec<(&'static str, u64)>,
    pub(crate) postgres: Option<String>,
    pub(crate) sent: u64,
    pub(crate) latency: Latency,
    pub(crate) verdict: Verdict,
    pub(crate) troubles: Troubles,
    pub(crate) deeds: Deeds,
    pub(crate) older: Older,
    pub(crate) changes: Changes,
    pub(crate) kills: Kills,
    pub(crate) cpu: Cpu,
    pub(crate) control: Control,
    pub(crate) set_up_s: f64,
    pub(crate) elapsed_s: f64,
    pub(crate) healed_s: f64,
    pub(crate) acked_per_s: f64,
    pub(crate) delivered_per_s: f64,
    /// Who sends and has no answer although all faults are healed.
    pub(crate) unanswered: usize,
    /// Member sessions that did not come to their chat's end.
    pub(crate) behind: u64,
    /// Member sessions whose log has another hash than the owner's.
    pub(crate) heads_differ: u64,
    pub(crate) connections: u64,
    pub(crate) resends: u64,
}

impl Report {
    /// The six counts: what the history shows, and what only the clients and the trial after the end tell.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        let mut counts = self.verdict.counts();
        for (name, count) in &mut counts {
            match *name {
                "undecryptable" => *count += self.troubles.loose_alarms,
                "read_after_removal" => *count += self.control.copies_given,
                _ => {}
            }
        }
        counts
    }

    /// Removed sessions, when the trial of their keys could open nothing at all, and so shows nothing.
    fn idle_trials(&self) -> u64 {
        if self.control.able == 0 { self.control.unable } else { 0 }
    }

    fn alarms(&self) -> u64 {
        self.troubles.alarms.values().sum()
    }

    /// Everything else that makes a run a failure, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let verdict = &self.verdict;
        let counted = [
            (u64::from(verdict.acked == 0), "nothing was acknowledged"),
            (verdict.disagreements, "facts on which two sessions differ"),
            (verdict.refused_yet_stored, "messages refused for good and in the log"),
            (verdict.unfinished.max(self.behind), "member sessions that did not come to their chat's end"),
            (self.heads_differ, "member sessions whose log has another hash than the owner's"),
            (self.unanswered as u64, "sends without an answer after the end"),
            (self.alarms(), "alarms of the client library"),
            (self.idle_trials(), "removed sessions, and the kept keys of none open even what it had received"),
            (self.older.locked, "older messages that newcomers may read and got no key for"),
            (self.troubles.bad_copies, "copies of keys that were refused"),
            (self.troubles.dropped_events, "events that were not recorded"),
            (self.troubles.unwritten, "lines of the history that were not written"),
        ];
        let broken = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let mut failures: Vec<String> = broken.map(|(name, count)| format!("{name}: {count}")).collect();
        failures.extend(
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")),
        );
        failures
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::default();
        let (args, changes) = (&self.args, &self.changes);
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
                "mixed: {} users with {} sessions each, {} chats, {} s, {} bytes, {pace}, seed {}",
                args.users, args.sessions_per_user, args.chats, args.seconds, args.size, self.seed
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
        table.row("acked", format!("{} of {} sent, {:.1}/s", self.verdict.acked, self.sent, self.acked_per_s));
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
        let cpu = &self.cpu;
        table.row(
            "cpu",
            format!(
                "clients {:.1} s, broker {:.1} s, postgres {:.1} s{}",
                cpu.clients,
                cpu.broker,
                cpu.postgres,
                if self.kills.broker + self.kills.postgres > 0 {
                    " (of processes that were ended: not counted)"
                } else {
                    ""
                }
            ),
        );
        let control = &self.control;
        table.row(
            "removed sessions",
            format!(
                "{} ({} had kept no key yet), {} keys; opened before {}; tried after {}",
                control.removals, control.unable, control.keys, control.opened_before, self.verdict.peeks
            ),
        );
        for (name, count) in self.counts() {
            table.row(name, count.to_string());
        }
        table.row("alarms", self.alarms().to_string());
        table.named("  alarm", &self.troubles.alarms);
        for closed in self.troubles.closed.iter().filter(|reason| *reason != "closed by its user") {
            table.row("client closed", closed.clone());
        }
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

    /// The JSON.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "scenario": "mixed",
            "version": env!("CARGO_PKG_VERSION"),
            "postgres": self.postgres,
            "seed": self.seed,
            "users": self.args.users,
            "sessions_per_user": self.args.sessions_per_user,
            "chats": self.args.chats,
            "seconds": self.args.seconds,
            "size": self.args.size,
            "rate": self.args.rate,
            "encoding": format!("{:?}", self.args.encoding).to_lowercase(),
            "limits": self.settings.as_ref().map(|settings| json!({
                "limits": settings.limits, "session": settings.session, "keys": settings.keys,
            })),
            "limits_above_default": self.raised.iter().copied().collect::<BTreeMap<_, _>>(),
            "sent": self.sent,
            "acked": self.verdict.acked,
            "delivered": self.verdict.delivered,
            "acked_per_s": self.acked_per_s,
            "delivered_per_s": self.delivered_per_s,
            "latency_ms": {
                "p50": self.latency.p50, "p99": self.latency.p99, "p999": self.latency.p999, "max": self.latency.max,
            },
            "cpu_s": { "clients": self.cpu.clients, "broker": self.cpu.broker, "postgres": self.cpu.postgres },
            "elapsed_s": { "set_up": self.set_up_s, "run": self.elapsed_s, "heal": self.healed_s },
        });
        let more = json!({
            "kills_broker": self.kills.broker,
            "kills_postgres": self.kills.postgres,
            "members_added": self.changes.added,
            "members_removed": self.changes.removed,
            "members_left": self.changes.left,
            "changes_failed": self.changes.failed,
            "edits": self.deeds.edits,
            "deletions": self.deeds.deletions,
            "replies": self.deeds.replies,
            "reactions": self.deeds.reactions,
            "receipts": self.deeds.receipts,
            "receipts_delivered": self.deeds.receipts_delivered,
            "silent_entries": self.deeds.silent,
            "signals": self.deeds.signals,
            "signals_delivered": self.deeds.signals_delivered,
            "deliveries_told": self.deeds.deliveries_told,
            "rekeys": self.changes.rekeys,
            "transfers": self.changes.transfers,
            "rights_changed": self.changes.rights,
            "history_policies": self.changes.policies,
            "newcomers_read": self.older.readers,
            "newcomers_opened": self.older.opened,
            "newcomers_locked": self.older.locked,
            "reconnects": self.changes.reconnects,
            "connections": self.connections,
            "resends": self.resends,
            "not_sent": self.troubles.refusals,
            "removed_sessions": self.control.removals,
            "peeks": self.verdict.peeks,
            "opened_before_removal": self.control.opened_before,
            "alarms": self.alarms(),
            "alarm_kinds": self.troubles.alarms,
            "disagreements": self.verdict.disagreements + self.heads_differ,
            "refused_yet_stored": self.verdict.refused_yet_stored,
            "unfinished": self.verdict.unfinished,
            "unanswered": self.unanswered,
            "found": self.verdict.examples,
            "ok": self.failures().is_empty(),
        });
        if let (Some(fields), Value::Object(more)) = (value.as_object_mut(), more) {
            fields.extend(more);
            fields.extend(self.counts().map(|(name, count)| (name.to_owned(), json!(count))));
        }
        value
    }

    /// Writes the JSON to a file.
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// The table of a check of histories alone.
pub(crate) fn verdict_table(verdict: &Verdict) -> String {
    let mut table = Table::default();
    table.row("acked", verdict.acked.to_string());
    table.row("delivered", verdict.delivered.to_string());
    table.row("tried after removal", verdict.peeks.to_string());
    let more = [
        ("disagreements", verdict.disagreements),
        ("refused yet stored", verdict.refused_yet_stored),
        ("unfinished", verdict.unfinished),
    ];
    for (name, count) in verdict.counts().into_iter().chain(more) {
        table.row(name, count.to_string());
    }
    for example in &verdict.examples {
        table.row("  found", example.clone());
    }
    table.row("result", if verdict.is_clean() && verdict.acked > 0 { "ok" } else { "FAILED" }.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Report {
        Report { verdict: Verdict { acked: 1, ..Verdict::default() }, ..Report::default() }
    }

    #[test]
    fn nothing_acknowledged_is_a_failure() {
        assert!(clean().failures().is_empty());
        assert_eq!(Report::default().failures(), ["nothing was acknowledged: 1"]);
    }

    #[test]
    fn each_of_the_six_and_every_alarm_is_a_failure_and_in_the_json() {
        let spoil: [fn(&mut Report); 6] = [
            |report| report.verdict.lost = 1,
            |report| report.verdict.duplicated = 1,
            |report| report.verdict.out_of_order = 1,
            |report| report.verdict.gaps = 1,
            |report| report.troubles.loose_alarms = 1,
            |report| report.control.copies_given = 1,
        ];
        for (index, spoil) in spoil.into_iter().enumerate() {
            let mut report = clean();
            spoil(&mut report);
            let (name, _) = report.counts()[index];
            assert_eq!(report.failures(), [format!("{name}: 1")]);
            assert_eq!((&report.json()[name], &report.json()["ok"]), (&json!(1), &json!(false)));
            assert!(report.table().contains("FAILED"));
        }
        let mut report = clean();
        report.troubles.alarms.insert("Fork".to_owned(), 2);
        assert_eq!(report.json()["alarms"], json!(2));
        assert_eq!(report.failures().len(), 1);
    }
}
