//! Runs a private Postgres for a broker that was given no `database.url`.
//!
//! What lives here: `binaries` finds a Postgres on the machine; `package`, `fetch` and `provider` bring one when there is
//! none; `account` decides under which account it runs;
//! `folders` owns the layout of the data folder and its lock; `cluster` creates the cluster once; `postmaster` knows
//! the pid file and ends a server left behind; `server` is one running server; `janitor` removes temporary folders;
//! `supervisor` is the public handle and keeps the server running; `beside` finds a server that another process runs.
//!
//! May be imported by the floors above the store. Imports nothing of the project.
//!
//! Invariants:
//! - E1: at most one broker uses a data folder; `data_dir/lock` is held for the life of the handle.
//! - E2: a cluster under its final name is complete; a first start that was cut short leaves only a sibling with
//!   another name.
//! - E3: the server outlives its broker by no more than its own shutdown: it hangs on a pipe that the kernel closes.
//! - E4: an existing cluster is never deleted, never upgraded, never opened without `fsync`.
//! - E5: the server listens on one Unix socket in a folder that only its own account and root may enter.
//! - E6: nothing of a package is used before its SHA-256 was found to be the pinned one.
//!
//! The layout below `data_dir`, all of it made on the first start:
//!
//! ```text
//! lock            held by the broker            run/           the socket
//! postgres/       the cluster                   postgres.log   what the server says, kept to about two times 10 MiB
//! programs/       fetched packages, if any
//! ```

mod account;
mod beside;
mod binaries;
mod cluster;
mod error;
mod fetch;
mod folders;
mod janitor;
mod log;
mod package;
mod postmaster;
mod program;
mod provider;
mod server;
mod settings;
mod supervisor;

pub use account::is_root;
pub use beside::{has_cluster, running};
pub use binaries::{BINARIES_MAJOR_MIN, Rejected, Rejection};
pub use error::EmbeddedError;
pub use fetch::{FetchAttempt, FetchFailure};
pub use package::PackageClient;
pub use settings::EmbeddedConfig;
pub use supervisor::EmbeddedPostgres;
