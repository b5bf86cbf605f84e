//! `sealcast verify`: a database with everything in it is good, and each thing that can be wrong is found by its name.

mod cases;
#[cfg(feature = "client")]
mod conversation;
mod damages;
mod good;
mod long;
mod private;
pub mod program;
pub mod rehash;
mod scene;
