//! Prints what restarts came to, and writes it as JSON.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::person::Heard;

/// More than this part of all within one slice is a herd.
const HERD_PART: u64 = 5;

/// Logins in a slice that are none, however few there are.
const HERD_MIN: u64 = 20;

/// One restart. All times are from the signal.
#[derive(Debug)]
pub(super) struct Restart {
    /// Until the process had ended.
    pub(super) ended: Duration,
    /// Until the next one listened.
    pub(super) listened: Duration,
    /// Until the last session was live.
    pub(super) all_live: Duration,
    pub(super) never_live: usize,
    /// The most in a tenth of a second.
    pub(super) logins_peak: u64,
    pub(super) logins: u64,
}

/// All restarts.
#[derive(Debug)]
pub(super) struct Restarts {
    pub(super) sessions: usize,
    pub(super) acknowledged: usize,
    /// Messages that the library gave up.
    pub(super) refused: u64,
    pub(super) rounds: Vec<Restart>,
    pub(super) heard: Heard,
    /// What `verify` found in the database.
    pub(super) violations: u64,
}

impl Restarts {
    fn never_live(&self) -> usize {
        self.rounds.iter().map(|round| round.never_live).sum()
    }

    fn has_herd(&self) -> bool {
        let most = HERD_MIN.max(self.sessions as u64 / HERD_PART);
        self.rounds.iter().any(|round| round.logins_peak > most)
    }

    /// Whether all were live after each restart, nothing was lost or wrong, and no herd came.
    pub(super) fn is_right(&self) -> bool {
        let Heard { lost, duplicated, alarms, dropped } = self.heard;
        let wrong = lost + duplicated + alarms + dropped + self.violations + self.refused;
        wrong == 0 && self.never_live() == 0 && !self.has_herd() && self.acknowledged > 0
    }

    /// The result for people.
    pub(super) fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout();
        writeln!(
            out,
            "\n{} sessions, {} restarts, {} messages acknowledged",
            self.sessions,
            self.rounds.len(),
            self.acknowledged
        )?;
        let Heard { lost, duplicated, alarms, dropped } = self.heard;
        let counts = [
            ("lost", lost),
            ("duplicated", duplicated),
            ("alarms", alarms),
            ("events dropped", dropped),
            ("refused", self.refused),
            ("never live", self.never_live() as u64),
            ("violations", self.violations),
            ("herd", u64::from(self.has_herd())),
        ];
        counts.iter().try_for_each(|(name, count)| writeln!(out, "{name:<16}{count:>9}"))
    }

    /// The result for programs.
    pub(super) fn json(&self) -> Value {
        let round = |round: &Restart| {
            json!({
                "ended_s": round.ended.as_secs_f64(),
                "listened_s": round.listened.as_secs_f64(),
                "all_live_s": round.all_live.as_secs_f64(),
                "never_live": round.never_live,
                "logins": round.logins,
                "logins_peak_per_100_ms": round.logins_peak,
            })
        };
        json!({
            "scenario": "restart",
            "version": env!("CARGO_PKG_VERSION"),
            "sessions": self.sessions,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "lost": self.heard.lost,
            "duplicated": self.heard.duplicated,
            "alarms": self.heard.alarms,
            "events_dropped": self.heard.dropped,
            "violations": self.violations,
            "has_herd": self.has_herd(),
            "rounds": self.rounds.iter().map(round).collect::<Vec<_>>(),
        })
    }
}

/// One restart, as soon as all are back.
pub(super) fn print_round(round: &Restart) -> std::io::Result<()> {
    writeln!(
        std::io::stdout(),
        "ended {:>6.2} s   listens {:>6.2} s   all live {:>6.2} s   logins {:>6}, at most {:>5} in 100 ms   never live {}",
        round.ended.as_secs_f64(),
        round.listened.as_secs_f64(),
        round.all_live.as_secs_f64(),
        round.logins,
        round.logins_peak,
        round.never_live,
    )
}
