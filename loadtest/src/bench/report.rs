//! Prints what was compared, and writes it as JSON.

use std::io::Write;

use serde_json::{Value, json};

use super::figures::Figures;
use super::plan::{Crypto, Plan};
use super::pool::KEY_MESSAGES;
use super::server::Kind;

/// A figure's name, and where it is.
pub(crate) type Figure = (&'static str, fn(&Figures) -> Option<f64>);

/// One turn: a raw floor, the broker, a Postgres floor.
pub(crate) struct Round {
    pub(crate) raw: Option<Figures>,
    pub(crate) broker: Figures,
    pub(crate) postgres: Option<Figures>,
}

impl Round {
    /// The run of one kind of server.
    pub(crate) const fn of(&self, kind: Kind) -> Option<&Figures> {
        match kind {
            Kind::Broker => Some(&self.broker),
            Kind::RawFloor => self.raw.as_ref(),
            Kind::PostgresFloor => self.postgres.as_ref(),
        }
    }
}

/// All turns.
pub(crate) struct Compared {
    pub(crate) plan: Plan,
    /// `host:port` of a broker that was not started for this.
    pub(crate) server: Option<String>,
    pub(crate) rounds: Vec<Round>,
    /// The raw floor after the last turn.
    pub(crate) last_raw: Option<Figures>,
}

/// Median, least and most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let (low, high) = (values.get((values.len() - 1) / 2)?, values.get(values.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), least, most })
    }

    pub(crate) fn json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

impl Compared {
    /// Whatever must be 0, in all runs.
    pub(crate) fn wrong(&self) -> u64 {
        let floors = self.rounds.iter().flat_map(|round| round.raw.iter().chain(&round.postgres));
        let brokers = self.rounds.iter().map(|round| &round.broker);
        floors.chain(brokers).chain(&self.last_raw).map(|figures| figures.wrong.sum()).sum()
    }

    /// All runs of one kind of server, in turn.
    pub(crate) fn runs(&self, kind: Kind) -> Vec<&Figures> {
        let last = self.last_raw.iter().filter(|_| kind == Kind::RawFloor);
        self.rounds.iter().filter_map(|round| round.of(kind)).chain(last).collect()
    }

    /// A figure of all runs of one kind of server; none where there is no run, or one without it.
    pub(crate) fn spread(&self, kind: Kind, value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs(kind).into_iter().map(value).collect::<Option<_>>()?)
    }

    /// The broker's figure in each turn by the mean of the raw floors before and after it.
    fn to_raw(&self, value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        let mut ratios = Vec::new();
        for (number, round) in self.rounds.iter().enumerate() {
            let after = self.rounds.get(number + 1).map_or(self.last_raw.as_ref(), |next| next.raw.as_ref())?;
            ratios.push(value(&round.broker)? / f64::midpoint(value(round.raw.as_ref()?)?, value(after)?));
        }
        Spread::of(ratios)
    }

    /// The broker's figure in each turn by that of the Postgres floor after it.
    fn to_postgres(&self, value: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        let ratio = |round: &Round| Some(value(&round.broker)? / value(round.postgres.as_ref()?)?);
        Spread::of(self.rounds.iter().map(ratio).collect::<Option<_>>()?)
    }

    /// Rates for what is as fast as it can, and the 99th percentile for what follows a plan.
    pub(crate) fn ratios(&self) -> [(&'static str, Option<Spread>); 8] {
        let rate = |figures: &Figures| {
            Some(if self.plan.chats == 1 { figures.delivered_per_s() } else { figures.acked_per_s() })
        };
        let p50 = |figures: &Figures| Some(figures.latency.ms(0.5));
        let p99 = |figures: &Figures| Some(figures.latency.ms(0.99));
        let cpu = Figures::cpu_s_per_million;
        [
            ("ratio_to_raw_floor", self.to_raw(rate)),
            ("ratio_to_postgres_floor", self.to_postgres(rate)),
            ("p50_ratio_to_raw_floor", self.to_raw(p50)),
            ("p50_ratio_to_postgres_floor", self.to_postgres(p50)),
            ("p99_ratio_to_raw_floor", self.to_raw(p99)),
            ("p99_ratio_to_postgres_floor", self.to_postgres(p99)),
            ("cpu_ratio_to_raw_floor", self.to_raw(cpu)),
            ("cpu_ratio_to_postgres_floor", self.to_postgres(cpu)),
        ]
    }
}

/// A figure with so many decimals, and a dash for one that could not be seen.
pub(crate) fn seen(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// One line of one run, as soon as it has ended.
pub(crate) fn print_run(kind: Kind, prepared_s: f64, figures: &Figures) -> std::io::Result<()> {
    writeln!(
        std::io::stdout(),
        "{:<14} {:>9.0} acked/s {:>10.0} deliveries/s  p50 {:>8.3} p99 {:>8.3} ms  CPU {:>6} s per million  peak {:>6} MiB  \
         foreign {:>4} %  opened {}  wrong {}  (prepared in {prepared_s:.1} s{})",
        kind.name(),
        figures.acked_per_s(),
        figures.delivered_per_s(),
        figures.latency.ms(0.5),
        figures.latency.ms(0.99),
        seen(figures.cpu_s_per_million(), 3),
        seen(figures.peak_rss_mib, 0),
        seen(figures.foreign_cpu.map(|share| share * 100.0), 1),
        figures.opened,
        figures.wrong.sum(),
        if figures.is_exhausted { ", ended early: all that was sealed is sent" } else { "" },
    )
}

/// The result for people.
pub(crate) fn print(compared: &Compared) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let plan = &compared.plan;
    writeln!(
        out,
        "\n{}: {} chats of {} sessions, {} senders each, window {}, {} bytes, {KEY_MESSAGES} messages a key, {} turns",
        plan.name,
        plan.chats,
        plan.sessions_per_chat,
        plan.senders_per_chat,
        plan.window,
        plan.body_bytes,
        compared.rounds.len(),
    )?;
    if let Some(round) = compared.rounds.first() {
        let wire = round.broker.wire;
        writeln!(
            out,
            "frames: {} bytes to the server, {} to each member, {} as the answer",
            wire.send, wire.deliver, wire.ack
        )?;
    }
    for (name, spread) in compared.ratios() {
        if let Some(Spread { median, least, most }) = spread {
            writeln!(out, "{name:<28} {median:>8.3}  ({least:.3} to {most:.3})")?;
        }
    }
    writeln!(out, "wrong in all runs: {}", compared.wrong())
}

/// The result for programs: medians at the top, each run below.
pub(crate) fn json(compared: &Compared) -> Value {
    let plan = &compared.plan;
    let mut latencies = serde_json::Map::new();
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        let spread = compared.spread(Kind::Broker, |figures| Some(figures.latency.ms(quantile)));
        latencies.insert(name.to_owned(), json!(spread.map(|spread| spread.median)));
    }
    let mut value = json!({
        "scenario": plan.name,
        "server": compared.server,
        "version": env!("CARGO_PKG_VERSION"),
        "chats": plan.chats,
        "sessions_per_chat": plan.sessions_per_chat,
        "senders_per_chat": plan.senders_per_chat,
        "window": plan.window,
        "rate": plan.rate,
        "size": plan.body_bytes,
        "seconds": plan.seconds,
        "crypto": if plan.crypto == Crypto::Full { "full" } else { "replay" },
        "messages_per_key": KEY_MESSAGES,
        "repeat": compared.rounds.len(),
        "latency_ms": latencies,
        "runs": compared.rounds.iter().map(|round| json!({
            "raw_floor": round.raw.as_ref().map(Figures::json),
            "broker": round.broker.json(),
            "postgres_floor": round.postgres.as_ref().map(Figures::json),
        })).collect::<Vec<_>>(),
        "last_raw_floor": compared.last_raw.as_ref().map(Figures::json),
        "ok": compared.wrong() == 0,
    });
    let figures: [Figure; 6] = [
        ("acked_per_s", |figures| Some(figures.acked_per_s())),
        ("delivered_per_s", |figures| Some(figures.delivered_per_s())),
        ("server_cpu_s_per_million_deliveries", Figures::cpu_s_per_million),
        ("peak_rss_mib", |figures| figures.peak_rss_mib),
        ("foreign_cpu", |figures| figures.foreign_cpu),
        ("opened", |figures| Some(figures.opened as f64)),
    ];
    if let Some(fields) = value.as_object_mut() {
        let mut spreads = serde_json::Map::new();
        let ratios = compared.ratios().into_iter().filter(|(_, spread)| spread.is_some());
        let figures = figures.map(|(name, figure)| (name, compared.spread(Kind::Broker, figure)));
        for (name, spread) in ratios.chain(figures) {
            fields.insert(name.to_owned(), json!(spread.map(|spread| spread.median)));
            spreads.insert(name.to_owned(), json!(spread.map(Spread::json)));
        }
        fields.insert("spreads".to_owned(), Value::Object(spreads));
        for (number, (name, _)) in super::figures::Wrong::default().counts().into_iter().enumerate() {
            let count = |figures: &Figures| figures.wrong.counts().get(number).map_or(0, |(_, count)| *count);
            let brokers: u64 = compared.rounds.iter().map(|round| count(&round.broker)).sum();
            fields.insert(name.to_owned(), json!(brokers));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_in_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![4.0, 1.0]).unwrap().median, 2.5);
        assert!(Spread::of(Vec::new()).is_none());
    }
}
