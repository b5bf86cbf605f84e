//! When a connection is told `live`: that everything up to now has been pushed to it.
//!
//! Here lives [`LiveWord`], one for each connection. Floor 3; it knows no connection.
//!
//! Invariants:
//! 1. `live` is never said before a resume has succeeded, nor while one is under way: until all chats have been judged, only
//!    some of what is new is known to be missing.
//! 2. It is said once for each time that it is owed, as soon as it may be.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    resumes_under_way: usize,
    /// A resume has.
    has_succeeded: bool,
    is_owed: bool,
}

/// What is known of one connection's `live`.
#[derive(Debug, Default)]
pub struct LiveWord(Mutex<State>);

impl LiveWord {
    /// Begins a resume. `wake` is told at its end, when `live` may be due.
    pub fn begin_resume<'w>(&'w self, wake: &'w Notify) -> ResumeUnderWay<'w> {
        self.lock().resumes_under_way += 1;
        ResumeUnderWay { word: self, wake }
    }

    /// Notes that something was read for the connection.
    pub fn owe(&self) {
        self.lock().is_owed = true;
    }

    /// Whether `live` is to be said now; whoever is told so says it. To be asked when nothing lags.
    #[must_use]
    pub fn take(&self) -> bool {
        let mut state = self.lock();
        let may_be_said = state.has_succeeded && state.resumes_under_way == 0;
        may_be_said && std::mem::take(&mut state.is_owed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resume that is under way until it is dropped.
#[derive(Debug)]
pub struct ResumeUnderWay<'w> {
    word: &'w LiveWord,
    wake: &'w Notify,
}

impl ResumeUnderWay<'_> {
    /// All chats have been judged: `live` is owed.
    pub fn succeed(self) {
        let mut state = self.word.lock();
        state.has_succeeded = true;
        state.is_owed = true;
    }
}

impl Drop for ResumeUnderWay<'_> {
    fn drop(&mut self) {
        self.word.lock().resumes_under_way -= 1;
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn p13_live_is_owed_for_a_resume_and_for_what_is_read_and_said_once() {
        let (word, wake) = (LiveWord::default(), Notify::new());
        word.begin_resume(&wake).succeed();
        assert!(word.take() && !word.take());
        word.owe();
        word.owe();
        assert!(word.take() && !word.take());
    }

    #[test]
    fn p13_live_waits_for_every_resume_that_is_under_way() {
        let (word, wake) = (LiveWord::default(), Notify::new());
        let (one, other) = (word.begin_resume(&wake), word.begin_resume(&wake));
        word.owe();
        assert!(!word.take(), "what was read was not all");
        one.succeed();
        assert!(!word.take());
        drop(other);
        assert!(word.take() && !word.take());
    }

    #[test]
    fn p13_a_resume_that_fails_is_no_reason_for_live() {
        let (word, wake) = (LiveWord::default(), Notify::new());
        word.owe();
        assert!(!word.take(), "nobody resumed");
        drop(word.begin_resume(&wake));
        assert!(!word.take());
        word.begin_resume(&wake).succeed();
        assert!(word.take() && !word.take());
    }

    #[test]
    fn p13_the_end_of_a_resume_is_told() {
        let (word, wake) = (LiveWord::default(), Notify::new());
        for succeeds in [true, false] {
            let resume = word.begin_resume(&wake);
            if succeeds {
                resume.succeed()
            } else {
                drop(resume)
            }
            assert!(wake.notified().now_or_never().is_some(), "{succeeds}");
        }
    }
}
