//! Stands a run on a broker and a Postgres of its own.
//!
//! `broker` is the process, `database` its Postgres where that is to be broken, `clock` a wall clock that can be moved,
//! `process` what the system knows of processes, `usage` how much they use, `descriptors` how many files may be open.

pub(crate) mod broker;
pub(crate) mod clock;
pub(crate) mod database;
pub(crate) mod descriptors;
pub(crate) mod process;
pub(crate) mod usage;
