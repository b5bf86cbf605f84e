//! Known answers of the formats of this protocol, committed in tests/vectors (its README describes them).
//!
//! Each file is checked twice: with the crate's types, and with the independent formats of [`super::stranger`].

mod check;
mod crate_side;
mod make;
mod make_frames;
mod make_log;
mod make_page;
mod make_strict;
mod people;

use std::path::PathBuf;

use serde_json::Value;

/// Where the files are.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// A committed file.
pub fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The list of a committed file, which is not empty.
pub fn list(name: &str) -> Vec<Value> {
    let list = read(name)["vectors"].as_array().unwrap().clone();
    assert!(!list.is_empty());
    list
}
