//! Draws random bytes from the process's cryptographic generator, which the system seeds.

use rand::Rng;

/// Random bytes fit for keys and nonces.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A random number from 0 up to and with `max`.
#[must_use]
pub fn up_to(max: u64) -> u64 {
    rand::random_range(0..=max)
}
