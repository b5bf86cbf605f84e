//! Tells the result of a run: a table for people, JSON for programs, and whether all is well.

mod json;
mod table;

pub(crate) use table::{self_test_table, verdict_table};

use std::collections::BTreeMap;

use sealcast::config::Settings;

use crate::check::verdict::Verdict;
use crate::history::tally::{Deeds, Latency, Troubles};
use crate::load::churn::Changes;
use crate::nemesis::{KILL_BROKER, KILL_POSTGRES};
use crate::run::older::Older;
use crate::run::trial::Control;
use crate::run::watch::{Sample, Trend, trends};
use crate::scenario::Scenario;

/// Processes that were ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kills {
    /// Of the broker.
    pub(crate) broker: u64,
    /// Of Postgres.
    pub(crate) postgres: u64,
}

impl Kills {
    /// Those among all that was broken.
    pub(crate) fn among(faults: &BTreeMap<String, u64>) -> Self {
        let count = |kind: &str| faults.get(kind).copied().unwrap_or(0);
        Self { broker: count(KILL_BROKER), postgres: count(KILL_POSTGRES) }
    }

    /// Both.
    pub(crate) const fn all(self) -> u64 {
        self.broker + self.postgres
    }
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
    pub(crate) scenario: Scenario,
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
    /// How often each kind of thing was broken.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Whether the broker's clock could be moved.
    pub(crate) has_clock: bool,
    /// The longest time in which nothing was acknowledged although somebody was sending.
    pub(crate) longest_pause_s: f64,
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
    /// What the database of the broker that was started shows.
    pub(crate) database: Option<sealcast::verify::Report>,
    pub(crate) connections: u64,
    pub(crate) resends: u64,
    /// What was seen of the broker from time to time, if it was looked at.
    pub(crate) samples: Vec<Sample>,
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

    /// Connections that were cut on purpose, not counting those of processes that ended: times that a path was cut.
    fn cuts(&self) -> u64 {
        let is_cut = |kind: &String| ["cut", "reset", "lose answers"].iter().any(|word| kind.contains(word));
        self.faults.iter().filter(|(kind, _)| is_cut(kind)).map(|(_, count)| count).sum()
    }

    fn alarms(&self) -> u64 {
        self.troubles.alarms.values().sum()
    }

    fn violations(&self) -> u64 {
        self.database.as_ref().map_or(0, sealcast::verify::Report::violation_count)
    }

    /// Everything else that makes a run a failure, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let verdict = &self.verdict;
        let counted = [
            (u64::from(verdict.acked == 0), "nothing was acknowledged"),
            (verdict.disagreements, "facts on which two sessions differ"),
            (verdict.refused_yet_stored, "messages refused for good and in the log"),
            (verdict.two_answers, "messages that were acknowledged at two places"),
            (u64::from(self.scenario.is_torture() && self.faults.is_empty()), "nothing was broken"),
            (verdict.unfinished.max(self.behind), "member sessions that did not come to their chat's end"),
            (self.heads_differ, "member sessions whose log has another hash than the owner's"),
            (self.violations(), "violations that the database shows"),
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
        let trends = self.trends();
        let growing = trends.iter().filter(|trend| trend.grows);
        failures
            .extend(growing.map(|trend| format!("{} grows: {:.1} to {:.1}", trend.figure, trend.first, trend.last)));
        failures
    }

    /// How what was looked at went.
    fn trends(&self) -> Vec<Trend> {
        trends(&self.samples, self.elapsed_s)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scenario::Faults;

    fn clean() -> Report {
        Report { verdict: Verdict { acked: 1, ..Verdict::default() }, ..Report::default() }
    }

    #[test]
    fn nothing_acknowledged_is_a_failure() {
        assert!(clean().failures().is_empty());
        assert_eq!(Report::default().failures(), ["nothing was acknowledged: 1"]);
    }

    #[test]
    fn a_database_with_violations_is_a_failure_and_is_shown() {
        use sealcast::verify::finding::{Kind, Place};
        let mut report = clean();
        let mut database = sealcast::verify::Report::new(1);
        report.database = Some(database.clone());
        assert!(report.failures().is_empty());
        database.violation(Kind::LogHash, Place::default(), "one", "another");
        report.database = Some(database);
        assert_eq!(report.failures(), ["violations that the database shows: 1"]);
        assert!(report.table().contains("log_hash"));
        assert_eq!(report.json()["database_violations"], json!(1));
    }

    #[test]
    fn a_torture_without_faults_is_a_failure() {
        let mut report = clean();
        report.scenario.faults = Faults::Nemesis;
        assert_eq!(report.failures(), ["nothing was broken: 1"]);
        report.faults.insert(KILL_BROKER.to_owned(), 3);
        report.faults.insert("client path cut".to_owned(), 2);
        assert!(report.failures().is_empty());
        assert_eq!((report.cuts(), Kills::among(&report.faults).all()), (2, 3));
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
