//! Prints what storms came to, and writes it as JSON.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context;
use serde_json::{Value, json};

use super::wave::Wave;
use super::{AT_A_TIME, CHATS, MISSED};
use crate::bench::drive::Driven;
use crate::bench::figures::{Latencies, Wrong};
use crate::bench::report::Spread;

/// One turn.
#[derive(Debug)]
pub(super) struct Round {
    /// Of the traffic before.
    pub(super) quiet: Latencies,
    /// A few at a time.
    pub(super) at_a_time: Wave,
    /// The storm.
    pub(super) at_once: Wave,
}

/// All turns.
pub(super) struct Storms {
    pub(super) sessions: usize,
    /// Before the first turn: judged, and in no figure.
    pub(super) first: Wave,
    pub(super) rounds: Vec<Round>,
    /// The traffic of all the time.
    pub(super) talked: Driven,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.at_once.took.as_secs_f64() / self.at_a_time.took.as_secs_f64()
    }

    fn p99_ratio(&self) -> f64 {
        self.at_once.latency.ms(0.99) / self.quiet.ms(0.99)
    }

    fn waves(&self) -> [&Wave; 2] {
        [&self.at_a_time, &self.at_once]
    }

    fn json(&self) -> Value {
        json!({ "quiet_ms": self.quiet.json(), "at_a_time": self.at_a_time.json(), "storm": self.at_once.json() })
    }
}

impl Wave {
    fn json(&self) -> Value {
        json!({
            "took_s": self.took.as_secs_f64(),
            "server_cpu_s": self.server_cpu_s,
            "client_cpu_s": self.client_cpu_s,
            "traffic_ms": self.latency.json(),
            "failed_tries": self.failures,
            "first_failure": self.first_failure,
            "never_live": self.never_live,
            "missed_given": self.right,
            "wrong": self.wrong.sum(),
        })
    }
}

impl Storms {
    fn waves(&self) -> impl Iterator<Item = &Wave> {
        self.rounds.iter().flat_map(Round::waves).chain([&self.first])
    }

    /// Of all sessions, those that talk included.
    fn wrong(&self) -> Wrong {
        let mut wrong = self.talked.wrong;
        self.waves().for_each(|wave| wrong.add(wave.wrong));
        wrong
    }

    fn failures(&self) -> u64 {
        self.waves().map(|wave| wave.failures).sum()
    }

    fn never_live(&self) -> u64 {
        self.waves().map(|wave| wave.never_live).sum()
    }

    /// Whether each session came to be live each time, and was given what it missed and nothing else.
    pub(super) fn is_right(&self) -> bool {
        let all = (self.sessions * MISSED) as u64;
        self.wrong().sum() == 0 && self.never_live() == 0 && self.waves().all(|wave| wave.right == all)
    }

    fn spread(&self, value: impl Fn(&Round) -> f64) -> anyhow::Result<Spread> {
        Spread::of(self.rounds.iter().map(value).collect()).context("no rounds")
    }
}

/// One turn, as soon as it has ended.
pub(super) fn print_round(round: &Round) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let few = format!("{AT_A_TIME} at a time");
    for (name, wave) in [(&*few, &round.at_a_time), ("all at once", &round.at_once)] {
        writeln!(
            out,
            "{name:<14}{:>8.2} s   server CPU {:>7.2} s   clients CPU {:>7.2} s   traffic p50 {:>8.3} p99 {:>8.3} ms \
             (quiet {:>8.3} and {:>8.3})",
            wave.took.as_secs_f64(),
            wave.server_cpu_s,
            wave.client_cpu_s,
            wave.latency.ms(0.5),
            wave.latency.ms(0.99),
            round.quiet.ms(0.5),
            round.quiet.ms(0.99),
        )?;
        if let Some(first) = &wave.first_failure {
            writeln!(
                out,
                "  tries that failed: {}, sessions never live: {}; the first: {}",
                wave.failures,
                wave.never_live,
                first.lines().next().unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

/// The result for people.
pub(super) fn print(storms: &Storms) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let sessions = storms.sessions;
    writeln!(
        out,
        "\n{sessions} sessions with {CHATS} chats and {MISSED} missed messages each, {} times; medians (least to most):",
        storms.rounds.len()
    )?;
    let lines: [(&str, Spread); 6] = [
        ("until all are live, s: all at once", storms.spread(|round| round.at_once.took.as_secs_f64())?),
        ("  a few at a time", storms.spread(|round| round.at_a_time.took.as_secs_f64())?),
        ("  ratio", storms.spread(Round::ratio)?),
        ("p99 of ordinary traffic, ms: in the storm", storms.spread(|round| round.at_once.latency.ms(0.99))?),
        ("  quiet", storms.spread(|round| round.quiet.ms(0.99))?),
        ("  ratio", storms.spread(Round::p99_ratio)?),
    ];
    for (name, spread) in lines {
        writeln!(out, "{name:<44}{:>9.3}   ({:.3} to {:.3})", spread.median, spread.least, spread.most)?;
    }
    for (name, count) in storms.wrong().counts() {
        writeln!(out, "{name:<44}{count:>9}")?;
    }
    writeln!(out, "{:<44}{:>9}", "tries that failed", storms.failures())?;
    writeln!(out, "{:<44}{:>9}", "never live", storms.never_live())?;
    Ok(())
}

/// The result for programs.
///
/// # Errors
/// Without a round.
pub(super) fn json(storms: &Storms) -> anyhow::Result<Value> {
    let ratio = storms.spread(Round::ratio)?;
    let p99_ratio = storms.spread(Round::p99_ratio)?;
    Ok(json!({
        "scenario": "storm",
        "version": env!("CARGO_PKG_VERSION"),
        "sessions": storms.sessions,
        "chats_per_session": CHATS,
        "missed_per_session": MISSED,
        "repeat": storms.rounds.len(),
        "storm_s": storms.spread(|round| round.at_once.took.as_secs_f64())?.median,
        "at_a_time_s": storms.spread(|round| round.at_a_time.took.as_secs_f64())?.median,
        "ratio_to_at_a_time": ratio.median,
        "ratio_to_at_a_time_spread": ratio.json(),
        "p99_quiet_ms": storms.spread(|round| round.quiet.ms(0.99))?.median,
        "p99_at_a_time_ms": storms.spread(|round| round.at_a_time.latency.ms(0.99))?.median,
        "p99_storm_ms": storms.spread(|round| round.at_once.latency.ms(0.99))?.median,
        "p99_ratio": p99_ratio.median,
        "p99_ratio_spread": p99_ratio.json(),
        "storm_server_cpu_s": storms.spread(|round| round.at_once.server_cpu_s)?.median,
        "at_a_time_server_cpu_s": storms.spread(|round| round.at_a_time.server_cpu_s)?.median,
        "failed_tries": storms.failures(),
        "never_live": storms.never_live(),
        "wrong": storms.wrong().sum(),
        "wrong_counts": storms.wrong().counts().into_iter().collect::<BTreeMap<_, _>>(),
        "first_coming": storms.first.json(),
        "rounds": storms.rounds.iter().map(Round::json).collect::<Vec<_>>(),
    }))
}
