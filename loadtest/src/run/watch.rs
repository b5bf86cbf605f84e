//! Looks at a broker from time to time while it is loaded, and judges whether anything grows that should not.
//!
//! Memory may grow while caches fill; what is compared is the first and the last third of all that comes after the warm-up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;

use crate::ground::broker::Broker;
use crate::ground::usage::{pss_kib, with_descendants};
use crate::history::recorder::Recorder;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// The part of the time, one in so many, that is the warm-up; and the least of it, in seconds.
const WARM_UP_SHARE: f64 = 10.0;
const WARM_UP_S_MIN: f64 = 30.0;

/// Runs of fewer seconds are told of and not judged.
const JUDGED_S_MIN: f64 = 300.0;

/// What was seen at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the beginning.
    pub(crate) at_s: f64,
    /// Proportional set size.
    pub(crate) broker_mib: f64,
    pub(crate) postgres_mib: f64,
    /// Messages that wait for the writer or for their commit.
    pub(crate) waiting_messages: f64,
    /// Bytes that wait in all outboxes.
    pub(crate) outboxes_kib: f64,
    pub(crate) chats_loaded: f64,
    /// Of the time since the last look.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// How a figure went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Trend {
    pub(crate) figure: &'static str,
    /// Medians of the first and of the last third.
    pub(crate) first: f64,
    pub(crate) last: f64,
    /// Whether it grew by more than is allowed; nothing is where it is only told of.
    pub(crate) grows: bool,
}

/// A figure, where it is, and by how much it may grow: a share and so much more. None: it is only told of.
type Figure = (&'static str, fn(&Sample) -> f64, Option<(f64, f64)>);

const FIGURES: [Figure; 6] = [
    ("broker_mib", |sample| sample.broker_mib, Some((0.05, 4.0))),
    ("postgres_mib", |sample| sample.postgres_mib, None),
    ("waiting_messages", |sample| sample.waiting_messages, Some((0.5, 50.0))),
    ("outboxes_kib", |sample| sample.outboxes_kib, Some((0.5, 256.0))),
    ("p50_ms", |sample| sample.p50_ms, None),
    ("p99_ms", |sample| sample.p99_ms, None),
];

/// Looks until this is dropped; `samples` has what was seen.
///
/// # Cancel safety
/// A look that is under way is lost.
pub(super) async fn watch(broker: &Mutex<Broker>, recorder: &Recorder, samples: &std::sync::Mutex<Vec<Sample>>) {
    let began = Instant::now();
    recorder.recent_latency();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (pid, postmaster, metrics) = {
            let broker = broker.lock().await;
            (broker.pid(), broker.postmaster(), broker.metrics().await.unwrap_or_default())
        };
        let metrics = sums(&metrics);
        let metric = |name: &str| metrics.get(name).copied().unwrap_or_default();
        let latency = recorder.recent_latency();
        let postgres_kib: u64 = with_descendants(postmaster.as_slice()).into_iter().map(pss_kib).sum();
        let sample = Sample {
            at_s: began.elapsed().as_secs_f64(),
            broker_mib: pid.map_or(0, pss_kib) as f64 / 1024.0,
            postgres_mib: postgres_kib as f64 / 1024.0,
            waiting_messages: metric("sealcast_messages_in_flight"),
            outboxes_kib: metric("sealcast_queue_depth{queue=\"outboxes_bytes\"}") / 1024.0,
            chats_loaded: metric("sealcast_chats_loaded"),
            p50_ms: latency.p50,
            p99_ms: latency.p99,
        };
        samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(sample);
    }
}

/// All samples of a text of metrics, by name and labels.
fn sums(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

/// How the figures of a run of so many seconds went; nothing when it was too short for thirds.
pub(crate) fn trends(samples: &[Sample], seconds: f64) -> Vec<Trend> {
    let warm_up_s = (seconds / WARM_UP_SHARE).max(WARM_UP_S_MIN.min(seconds / 2.0));
    let warm: Vec<&Sample> = samples.iter().filter(|sample| sample.at_s >= warm_up_s).collect();
    let third = warm.len() / 3;
    let (Some(first), Some(last)) = (warm.get(..third), warm.get(warm.len() - third..)) else { return Vec::new() };
    if third == 0 {
        return Vec::new();
    }
    let trend = |(figure, of, allowed): &Figure| {
        let (first, last) =
            (median(first.iter().map(|sample| of(sample))), median(last.iter().map(|sample| of(sample))));
        let most = allowed.map(|(share, more)| first * (1.0 + share) + more);
        Trend { figure, first, last, grows: seconds >= JUDGED_S_MIN && most.is_some_and(|most| last > most) }
    };
    FIGURES.iter().map(trend).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which figures grow in ten minutes whose broker takes so much memory.
    fn growing(broker_mib: impl Fn(u32) -> f64, seconds: u32) -> Vec<&'static str> {
        let sample = |at| Sample { at_s: f64::from(at), broker_mib: broker_mib(at), ..Sample::default() };
        let samples: Vec<Sample> = (0..seconds).step_by(5).map(sample).collect();
        let trends = trends(&samples, f64::from(seconds));
        trends.iter().filter(|trend| trend.grows).map(|trend| trend.figure).collect()
    }

    #[test]
    fn what_grows_is_named_and_what_warms_up_or_sways_is_not() {
        assert_eq!(growing(|at| 60.0 + f64::from(at) / 20.0, 600), ["broker_mib"]);
        assert!(growing(|_| 60.0, 600).is_empty());
        assert!(growing(|at| if at < 60 { 10.0 } else { 60.0 }, 600).is_empty());
        assert!(growing(|at| 60.0 + f64::from(at % 20), 600).is_empty());
        assert!(growing(|at| 60.0 + f64::from(at), 200).is_empty(), "too short to be judged");
        assert!(trends(&[], 600.0).is_empty());
    }

    #[test]
    fn metrics_are_read_by_name_and_labels() {
        let metrics = sums("# HELP a b\na 3\nb{queue=\"x\"} 4.5\nbad\n");
        assert_eq!((metrics.get("a"), metrics.get("b{queue=\"x\"}"), metrics.len()), (Some(&3.0), Some(&4.5), 2));
    }
}
