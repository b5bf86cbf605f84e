//! Moves the wall clock of the broker back and forth; the database's, by which everything is dated, stays.

use super::deck::Deck;
use super::processes::millis;
use crate::ground::clock::Clock;
use crate::load::Load;
use crate::rng::Rng;

/// How often a clock jumps.
pub(crate) const CLOCK_JUMP: &str = "clock jump";

/// Between two jumps, in milliseconds.
const REST_MS: std::ops::RangeInclusive<usize> = 4_000..=12_000;

/// Where it jumps to, in seconds from the machine's clock.
const OFFSETS: [(i64, usize); 7] = [(0, 1), (600, 1), (-600, 1), (3_600, 1), (-3_600, 1), (86_400, 1), (-86_400, 1)];

/// Moves a clock until the run is over; there is none where the library is missing.
pub(super) async fn move_clock(load: &Load, clock: Option<Clock>, mut rng: Rng) -> anyhow::Result<()> {
    let Some(clock) = clock else { return Ok(()) };
    let mut deck = Deck::of(&OFFSETS);
    while load.rest(millis(&mut rng, REST_MS)).await {
        let Some(offset_s) = deck.deal(&mut rng) else { break };
        load.recorder.fault(CLOCK_JUMP, &format!("{offset_s:+} s"));
        clock.set(offset_s)?;
    }
    clock.set(0)
}
