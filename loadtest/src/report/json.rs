//! The result as JSON for programs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::Report;

impl Report {
    /// The JSON.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "scenario": self.scenario.name,
            "version": env!("CARGO_PKG_VERSION"),
            "postgres": self.postgres,
            "seed": self.seed,
            "users": self.scenario.users,
            "sessions_per_user": self.scenario.sessions_per_user,
            "chats": self.scenario.chats,
            "seconds": self.scenario.seconds,
            "size": self.scenario.size,
            "rate": self.scenario.rate,
            "encoding": format!("{:?}", self.scenario.encoding).to_lowercase(),
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
            "database_violations": self.violations(),
            "samples": self.samples,
            "trends": self.trends(),
            "kills": self.kills.all(),
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
            "two_answers": self.verdict.two_answers,
            "unfinished": self.verdict.unfinished,
            "unanswered": self.unanswered,
        });
        let broken = json!({
            "faults": self.faults,
            "faults_all": self.faults.values().sum::<u64>(),
            "cuts": self.cuts(),
            "longest_pause_s": self.longest_pause_s,
            "found": self.verdict.examples,
            "ok": self.failures().is_empty(),
        });
        if let (Some(fields), Value::Object(more), Value::Object(broken)) = (value.as_object_mut(), more, broken) {
            fields.extend(more);
            fields.extend(broken);
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
