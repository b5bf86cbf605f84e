//! Says how long to wait before the next try: exponential with full jitter, so that many who were cut off
//! together do not come back together.

use std::time::Duration;

use crate::crypto::random;

const FIRST_MS: u64 = 100;
const MOST_MS: u64 = 20_000;

/// The waits of one thing that is tried again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait: uniform from 0 to a bound that doubles each time.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = Self::bound_ms(self.tries);
        self.tries = self.tries.saturating_add(1);
        Duration::from_millis(random::up_to(bound))
    }

    /// The next wait, not before the time that the server named.
    pub(crate) fn after(&mut self, retry_after_ms: Option<u64>) -> Duration {
        Self::named(retry_after_ms) + self.next()
    }

    /// The time that the server named, as far as it is believed.
    pub(crate) fn named(retry_after_ms: Option<u64>) -> Duration {
        Duration::from_millis(retry_after_ms.unwrap_or(0).min(MOST_MS * 3))
    }

    /// It has worked.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    const fn bound_ms(tries: u32) -> u64 {
        let shift = if tries > 16 { 16 } else { tries };
        let bound = FIRST_MS << shift;
        if bound > MOST_MS { MOST_MS } else { bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_most() {
        let bounds: Vec<u64> = (0..12).map(Backoff::bound_ms).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000, 20_000, 20_000]);
        assert_eq!(Backoff::bound_ms(u32::MAX), MOST_MS);
        let mut backoff = Backoff::default();
        assert!((0..100).all(|_| backoff.next() <= Duration::from_millis(MOST_MS)));
        assert!(backoff.after(Some(500)) >= Duration::from_millis(500));
    }

    #[test]
    fn l4_the_waits_of_many_are_spread_over_the_whole_bound() {
        const CLIENTS: usize = 1_000;
        for tries in 0..8 {
            let mut tenths = [0_usize; 10];
            for _ in 0..CLIENTS {
                let mut backoff = Backoff { tries };
                let share = backoff.next().as_millis() * 10 / u128::from(Backoff::bound_ms(tries) + 1);
                tenths[usize::try_from(share).unwrap()] += 1;
            }
            // Each expects 100; six deviations of a fair spread are 57.
            assert!(tenths.iter().all(|count| (43..=157).contains(count)), "try {tries}: {tenths:?}");
        }
    }
}
