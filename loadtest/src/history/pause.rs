//! Finds the longest time in which nothing was acknowledged although somebody was sending.
//!
//! Pure: times come from outside. Invariant: a time in which nobody sends is no pause, however long.

use std::time::{Duration, Instant};

/// The pauses of a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pauses {
    open: u64,
    /// The last acknowledgement, or when somebody began to send after a time in which nobody did.
    since: Option<Instant>,
    longest: Duration,
}

impl Pauses {
    /// Somebody begins to send.
    pub(crate) fn sends(&mut self, now: Instant) {
        self.open += 1;
        self.since.get_or_insert(now);
    }

    /// Something was acknowledged.
    pub(crate) fn acknowledged(&mut self, now: Instant) {
        self.settle(now);
        self.since = Some(now);
        self.ends();
    }

    /// Somebody stopped sending without an acknowledgement.
    pub(crate) fn gave_up(&mut self, now: Instant) {
        self.settle(now);
        self.ends();
    }

    /// The longest so far, with one that lasts.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        let lasting = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.longest.max(lasting)
    }

    fn settle(&mut self, now: Instant) {
        self.longest = self.longest(now);
    }

    fn ends(&mut self) {
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_somebody_sends_counts() {
        let (began, mut pauses) = (Instant::now(), Pauses::default());
        let at = |seconds| began + Duration::from_secs(seconds);
        pauses.sends(at(10));
        pauses.sends(at(11));
        pauses.acknowledged(at(12));
        assert_eq!(pauses.longest(at(12)), Duration::from_secs(2));
        pauses.acknowledged(at(17));
        assert_eq!(pauses.longest(at(1_000)), Duration::from_secs(5), "nobody sends");
        pauses.sends(at(2_000));
        assert_eq!(pauses.longest(at(2_009)), Duration::from_secs(9), "it lasts");
        pauses.gave_up(at(2_010));
        assert_eq!(pauses.longest(at(3_000)), Duration::from_secs(10));
    }
}
