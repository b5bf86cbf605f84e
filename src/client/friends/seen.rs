//! Since when this client has known a request: kept in the profile, so that a restart does not begin anew.
//!
//! Pure: the clock is the caller's, and this machine's own. The server's would let the server shorten the window.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypto::friends::RequestCode;
use crate::protocol::ids::RecoveryRequestId;

/// Requests that are remembered, at most: the oldest go first. More are never open for one user's friends.
const SEEN_MAX: usize = 1_000;

/// A request as it was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct First {
    /// It follows from the request's key and name: a request that is shown with others is another one.
    code: RequestCode,
    /// By this machine's clock, in microseconds since the Unix epoch.
    at: u64,
}

/// The requests that a client has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SeenRequests(BTreeMap<RecoveryRequestId, First>);

impl SeenRequests {
    /// Takes note of a request. Returns whether it is news.
    pub(crate) fn note(&mut self, request_id: RecoveryRequestId, code: RequestCode, now: u64) -> bool {
        if self.0.get(&request_id).is_some_and(|first| first.code == code) {
            return false;
        }
        self.0.insert(request_id, First { code, at: now });
        while self.0.len() > SEEN_MAX {
            let oldest = self.0.iter().min_by_key(|(_, first)| first.at).map(|(request_id, _)| *request_id);
            let Some(oldest) = oldest else { break };
            self.0.remove(&oldest);
        }
        true
    }

    /// How much of the window is left for a request; all of it for one that was not seen so. A clock that was set back
    /// makes it longer and never shorter.
    pub(crate) fn left(
        &self,
        request_id: RecoveryRequestId,
        code: RequestCode,
        window: Duration,
        now: u64,
    ) -> Duration {
        let Some(first) = self.0.get(&request_id).filter(|first| first.code == code) else { return window };
        window.saturating_sub(Duration::from_micros(now.saturating_sub(first.at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(100);

    fn id(value: u128) -> RecoveryRequestId {
        RecoveryRequestId(uuid::Uuid::from_u128(value))
    }

    fn code(value: u8) -> RequestCode {
        RequestCode::of([value; 15])
    }

    #[test]
    fn the_window_runs_from_the_first_sight_and_not_from_later_ones() {
        let mut seen = SeenRequests::default();
        assert_eq!(seen.left(id(1), code(1), WINDOW, 5_000_000), WINDOW);
        assert!(seen.note(id(1), code(1), 5_000_000));
        assert!(!seen.note(id(1), code(1), 60_000_000));
        assert_eq!(seen.left(id(1), code(1), WINDOW, 5_000_000), WINDOW);
        assert_eq!(seen.left(id(1), code(1), WINDOW, 65_000_000), Duration::from_secs(40));
        assert_eq!(seen.left(id(1), code(1), WINDOW, 105_000_000), Duration::ZERO);
        assert_eq!(seen.left(id(1), code(1), WINDOW, u64::MAX), Duration::ZERO);
        assert_eq!(seen.left(id(1), code(1), WINDOW, 0), WINDOW, "a clock that was set back");
    }

    #[test]
    fn a_request_that_is_shown_with_another_key_begins_anew() {
        let mut seen = SeenRequests::default();
        seen.note(id(1), code(1), 0);
        assert_eq!(seen.left(id(1), code(2), WINDOW, 1_000_000_000), WINDOW);
        assert!(seen.note(id(1), code(2), 1_000_000_000));
        assert_eq!(seen.left(id(1), code(2), WINDOW, 1_000_000_000), WINDOW);
        assert_eq!(seen.left(id(1), code(1), WINDOW, 1_000_000_000), WINDOW);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_comes_back_from_the_profile() {
        let mut seen = SeenRequests::default();
        for value in 0..1_100 {
            seen.note(id(value), code(1), u64::try_from(value).unwrap());
        }
        assert_eq!(seen.0.len(), SEEN_MAX);
        assert_eq!(seen.left(id(0), code(1), WINDOW, u64::MAX), WINDOW);
        assert_eq!(seen.left(id(1_099), code(1), WINDOW, u64::MAX), Duration::ZERO);
        let bytes = rmp_serde::to_vec_named(&seen).unwrap();
        assert_eq!(rmp_serde::from_slice::<SeenRequests>(&bytes).unwrap(), seen);
    }
}
