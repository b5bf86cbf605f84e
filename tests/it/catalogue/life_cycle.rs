//! Life cycle: L1 to L15.

#[cfg(feature = "client")]
mod canaries;
mod crowd;
mod drained;
mod ended;
#[cfg(feature = "fail-points")]
mod idle;
mod level;
#[cfg(feature = "client")]
mod restarts;
mod starts;
mod storm;
