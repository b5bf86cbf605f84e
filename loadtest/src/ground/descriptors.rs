//! Lets this process, and those that it starts, have as many open files as the system allows.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process has open beside its connections.
const BESIDE: u64 = 200;

/// Raises the limit of open files as far as that goes without rights.
///
/// # Errors
/// If so many connections do not fit.
pub(crate) fn raise(connections: usize) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    match maximum {
        Some(maximum) if maximum < connections as u64 + BESIDE => {
            bail!(
                "{connections} connections need more open files than the {maximum} that are allowed here: see `ulimit -Hn`"
            )
        }
        _ => Ok(()),
    }
}
