//! Whether the database is away, so that the log says so once and not once for each request.
//!
//! Everything that asks the database tells of it here. The first that gets no answer writes a line, what follows is
//! counted, and the first answer writes how long it was and how much it cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::error::StoreError;

/// The state that is shared by all who ask; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outage(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Looked at for each answer, and so without the lock.
    is_on: AtomicBool,
    state: Mutex<Option<Began>>,
}

#[derive(Debug)]
struct Began {
    at: Instant,
    failures: u64,
}

impl Outage {
    /// Something got no answer, or an error for one. `what` is its name.
    pub fn failed(&self, what: &'static str, error: &StoreError) {
        if !error.is_of_the_database() {
            return tracing::warn!(transaction = what, error = error as &dyn std::error::Error, "transaction failed");
        }
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.as_mut() {
            Some(began) => {
                began.failures += 1;
                tracing::debug!(transaction = what, error = error as &dyn std::error::Error, "transaction failed");
            }
            None => {
                *state = Some(Began { at: Instant::now(), failures: 1 });
                self.0.is_on.store(true, Ordering::Release);
                tracing::warn!(
                    transaction = what,
                    error = error as &dyn std::error::Error,
                    "the database does not answer; further failures are counted until it does"
                );
            }
        }
    }

    /// The database answered.
    pub fn answered(&self) {
        if !self.0.is_on.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Began { at, failures }) = state.take() {
            self.0.is_on.store(false, Ordering::Release);
            tracing::info!(seconds = at.elapsed().as_secs_f64(), failures, "the database answers again");
        }
    }
}
