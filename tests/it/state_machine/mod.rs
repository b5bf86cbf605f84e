//! State-machine tests: a real broker and a real Postgres against a map of logs.
//!
//! Steps are drawn at random, the model says what the broker must answer, and at the end whole logs, rosters and what
//! connections were told are compared. A case that fails is cut down to few steps and printed; such cases become tests
//! here. Nothing is written to the disk: the seed is printed, and `SEALCAST_SEED` runs it again.

mod model;
mod real;

use proptest::test_runner::{Config, RngSeed};
use proptest_state_machine::prop_state_machine;

use super::support::rng::seed;
use super::support::trials;
use real::Real;

fn config() -> Config {
    let cases = trials(6, 500) as u32;
    Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        max_shrink_iters: 200,
        ..Config::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_broker_answers_as_a_map_of_logs(sequential 10..40 => Real);
}
