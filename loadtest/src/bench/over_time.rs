//! Latencies of each second of the measured time.
//!
//! Pure. One histogram is used again for each second, so that a run of a day takes no more memory than its figures.

use std::time::Duration;

use serde_json::{Value, json};

use super::figures::Latencies;

/// Percentiles of what was delivered in one second, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Second {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Gathers latencies by the second in which a delivery was read. What is recorded must come in the order of time.
#[derive(Debug)]
pub(crate) struct OverTime {
    current: Latencies,
    /// The seconds that are over; nothing was delivered in one that is `None`.
    closed: Vec<Option<Second>>,
    /// Seconds of the plan: the few milliseconds after them belong to the last.
    seconds: usize,
}

impl OverTime {
    /// For so much measured time.
    pub(crate) fn new(measured: Duration) -> anyhow::Result<Self> {
        Ok(Self { current: Latencies::new()?, closed: Vec::new(), seconds: whole_seconds(measured).max(1) })
    }

    /// A latency that was seen so long after measuring began.
    pub(crate) fn record_ns(&mut self, at: Duration, latency_ns: u64) {
        let second = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(self.seconds - 1);
        self.close_up_to(second);
        self.current.record_ns(latency_ns);
    }

    /// All seconds of a run that took so long.
    pub(crate) fn finish(mut self, elapsed: Duration) -> Vec<Option<Second>> {
        self.close_up_to(whole_seconds(elapsed).min(self.seconds));
        self.closed
    }

    fn close_up_to(&mut self, second: usize) {
        while self.closed.len() < second {
            let (p50_ms, p99_ms) = (self.current.ms(0.5), self.current.ms(0.99));
            self.closed.push((!self.current.is_empty()).then_some(Second { p50_ms, p99_ms }));
            self.current.clear();
        }
    }
}

/// One that has begun counts.
fn whole_seconds(time: Duration) -> usize {
    usize::try_from(time.as_secs() + u64::from(time.subsec_nanos() > 0)).unwrap_or(usize::MAX)
}

/// Seconds from 1, with `null` where nothing was delivered.
pub(crate) fn json(seconds: &[Option<Second>]) -> Value {
    let line = |(number, second): (usize, &Option<Second>)| {
        let (p50, p99) = (second.map(|second| second.p50_ms), second.map(|second| second.p99_ms));
        json!({ "second": number + 1, "p50": p50, "p99": p99 })
    };
    seconds.iter().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_percentiles_and_a_silent_one_has_none() {
        let mut over_time = OverTime::new(Duration::from_secs(4)).unwrap();
        for (at_ms, latency_ms) in [(0, 1), (999, 1), (1_000, 8), (3_900, 2), (4_004, 2)] {
            over_time.record_ns(Duration::from_millis(at_ms), latency_ms * 1_000_000);
        }
        let seconds = over_time.finish(Duration::from_millis(4_005));
        assert_eq!(seconds.len(), 4, "what is read just after the end belongs to the last second");
        let rounded: Vec<Option<f64>> =
            seconds.iter().map(|second| second.map(|second| second.p50_ms.round())).collect();
        assert_eq!(rounded, [Some(1.0), Some(8.0), None, Some(2.0)]);
        let json = json(&seconds);
        assert_eq!((&json[2]["second"], &json[2]["p99"]), (&3.into(), &Value::Null));
        assert_eq!(json[1]["p99"].as_f64().unwrap().round(), 8.0);
    }

    #[test]
    fn a_run_that_ends_early_has_the_seconds_that_it_had() {
        let mut over_time = OverTime::new(Duration::from_secs(60)).unwrap();
        over_time.record_ns(Duration::from_millis(100), 1_000_000);
        let seconds = over_time.finish(Duration::from_millis(2_500));
        assert_eq!(seconds.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    }
}
