//! Durability where the disk fails: D8 and D9.
