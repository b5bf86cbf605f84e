//! Whether the peer is alive, and whether it keeps to its rate: plain data, time is an argument.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// What to do at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Ask for a sign of life.
    Ping,
    /// No sign of life for two intervals.
    Dead,
}

/// The signs of life of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    interval: Duration,
    heard: Instant,
}

impl Heartbeat {
    /// Begins with a sign of life.
    #[must_use]
    pub const fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, heard: now }
    }

    /// A sign of life: any message or pong.
    pub const fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// What to do now. `reading_is_held`: the peer's input is not read, so its silence proves nothing.
    pub fn tick(&mut self, now: Instant, reading_is_held: bool) -> Beat {
        if reading_is_held {
            self.heard = now;
        }
        if now.saturating_duration_since(self.heard) > self.interval * 2 { Beat::Dead } else { Beat::Ping }
    }
}

/// Refusals, less what passed, after which a flood that does not heed them is ended. What passes counts against
/// them one for one: a rate lets something pass all the time, so a flood never has refusals alone.
const STUBBORN: u64 = 1_000;

/// What counts as one refusal where bytes are counted: bytes weigh as many, so that small frames between large ones do not
/// make up for them.
const STUBBORN_BYTES: u64 = 16 * 1024;

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>;

/// How often one connection may do something.
#[derive(Debug)]
pub struct Rate {
    limiter: Limiter,
    clock: MonotonicClock,
    refused: u64,
    stubborn: u64,
}

/// What a rate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Too often: wait so long.
    Wait(Duration),
    /// Too often, and being told so changed nothing.
    Flood,
}

impl Rate {
    /// `burst` at once, then `per` each period.
    #[must_use]
    pub fn new(per: u32, period: Duration, burst: u32) -> Self {
        let per = NonZeroU32::new(per).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let every = period / per.get();
        let quota = Quota::with_period(every.max(Duration::from_nanos(1))).unwrap_or(Quota::per_second(per));
        let clock = MonotonicClock;
        let limiter = RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone());
        Self { limiter, clock, refused: 0, stubborn: STUBBORN }
    }

    /// The same of bytes, each second.
    #[must_use]
    pub fn of_bytes(per_s: u32, burst: u32) -> Self {
        let rate = Self::new(per_s, Duration::from_secs(1), burst);
        Self { stubborn: STUBBORN * STUBBORN_BYTES, ..rate }
    }

    /// Counts one.
    pub fn check(&mut self) -> Verdict {
        self.check_many(1)
    }

    /// Counts so many at once; none, and what is more than the whole burst, as one.
    pub fn check_many(&mut self, count: u32) -> Verdict {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(count).unwrap_or_else(|_| self.limiter.check()) {
            Ok(()) => {
                self.refused = self.refused.saturating_sub(count.get().into());
                Verdict::Pass
            }
            Err(not_until) => {
                self.refused = self.refused.saturating_add(count.get().into());
                if self.refused > self.stubborn {
                    return Verdict::Flood;
                }
                Verdict::Wait(not_until.wait_time_from(self.clock.now()))
            }
        }
    }
}

impl Verdict {
    /// What another rate says, where this one lets pass.
    #[must_use]
    pub fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self == Self::Pass { other() } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_two_intervals_is_death_unless_nobody_listens() {
        let start = Instant::now();
        let interval = Duration::from_secs(10);
        let mut heartbeat = Heartbeat::new(interval, start);
        assert_eq!(heartbeat.tick(start + interval, false), Beat::Ping);
        assert_eq!(heartbeat.tick(start + interval * 2, false), Beat::Ping);
        assert_eq!(heartbeat.tick(start + interval * 3, false), Beat::Dead);
        assert_eq!(heartbeat.tick(start + interval * 3, true), Beat::Ping);
        assert_eq!(heartbeat.tick(start + interval * 4, false), Beat::Ping);
        heartbeat.heard(start + interval * 6);
        assert_eq!(heartbeat.tick(start + interval * 7, false), Beat::Ping);
    }

    #[test]
    fn a_flood_is_one_though_some_of_it_passes() {
        let mut rate = Rate::new(20_000, Duration::from_secs(1), 1);
        let mut passed = 0;
        let flood = (0..10_000_000).any(|_| match rate.check() {
            Verdict::Pass => {
                passed += 1;
                false
            }
            verdict => verdict == Verdict::Flood,
        });
        assert!(flood && passed > 1, "{passed} passed");
    }

    #[test]
    fn small_frames_between_large_ones_do_not_make_up_for_them() {
        const LARGE: u32 = 256 * 1024;
        let mut rate = Rate::of_bytes(64, 4 * LARGE);
        let is_flood = |rate: &mut Rate, count| rate.check_many(count) == Verdict::Flood;
        assert!((0..200).any(|_| is_flood(&mut rate, LARGE) || (0..3).any(|_| is_flood(&mut rate, 8))));
        let mut rate = Rate::of_bytes(64, 4 * LARGE);
        assert!((0..4).all(|_| rate.check_many(LARGE) == Verdict::Pass));
        assert!((0..60).all(|_| matches!(rate.check_many(LARGE), Verdict::Wait(_))), "who waits is not cut for a few");
    }

    #[test]
    fn a_burst_passes_then_waits_then_is_a_flood() {
        let mut rate = Rate::new(1, Duration::from_secs(3_600), 5);
        for _ in 0..5 {
            assert_eq!(rate.check(), Verdict::Pass);
        }
        assert!(matches!(rate.check(), Verdict::Wait(wait) if wait > Duration::from_secs(60)));
        for _ in 0..STUBBORN {
            rate.check();
        }
        assert_eq!(rate.check(), Verdict::Flood);
    }
}
