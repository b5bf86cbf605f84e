//! Authentication: A1 to A15.

#[cfg(feature = "client")]
mod certificates;
mod crowds;
mod guesses;
mod nonces;
mod outcomes;
mod two_sockets;
