//! Faults and attacks, by the numbers of the catalogue in `docs/reliability.md`: each is made to happen over real sockets
//! and a real Postgres, and what is good must go on afterwards.
//!
//! Cases whose tests are beside what they belong to are named in the same table. How often a trial is made follows
//! [`super::support::trials`].

mod authentication;
mod authorisation;
mod clocks;
mod durability;
#[cfg(feature = "fail-points")]
mod fail_points;
mod keys;
mod life_cycle;
mod migration;
mod power;
mod private;
mod protocol;
mod resources;
mod restored;
mod storage;
mod two_nodes;
