//! Life cycle: L1 to L15.
