//! Tells when this machine's wall clock jumps, by the monotonic one. No decision hangs on it: operators see it.

use std::time::{Duration, Instant, SystemTime};

/// How far the two clocks may go apart between two looks before it is a jump: a clock that is set right in small steps makes none.
const SLACK: Duration = Duration::from_secs(1);

/// Where both clocks stood at the last look.
#[derive(Debug)]
pub(super) struct ClockWatch {
    wall: SystemTime,
    at: Instant,
}

impl ClockWatch {
    pub(super) const fn new(wall: SystemTime, at: Instant) -> Self {
        Self { wall, at }
    }

    /// How far the wall clock has jumped since the last look, either way, if it has.
    pub(super) fn look(&mut self, wall: SystemTime, at: Instant) -> Option<Duration> {
        let expected = self.wall + at.saturating_duration_since(self.at);
        *self = Self { wall, at };
        let apart = wall.duration_since(expected).unwrap_or_else(|error| error.duration());
        (apart > SLACK).then_some(apart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_either_way_is_seen_once_and_a_clock_that_goes_is_none() {
        let (wall, at) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), Instant::now());
        let later = |seconds| at + Duration::from_secs(seconds);
        let mut watch = ClockWatch::new(wall, at);
        assert_eq!(watch.look(wall + Duration::from_millis(10_900), later(10)), None);
        let hour = Duration::from_secs(3_600);
        let ahead = wall + Duration::from_millis(20_900) + hour;
        assert_eq!(watch.look(ahead, later(20)), Some(hour));
        assert_eq!(watch.look(ahead + Duration::from_secs(10), later(30)), None);
        assert_eq!(watch.look(ahead + Duration::from_secs(20) - hour, later(40)), Some(hour));
    }
}
