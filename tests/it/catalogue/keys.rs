//! Key distribution: K1 to K16.
