//! Authentication: A1 to A15.
