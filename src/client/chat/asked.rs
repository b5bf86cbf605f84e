//! Remembers which keys of a chat were asked for, and when: nothing tells whether a holder ever heard of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::ids::KeyId;

/// A key that has not come by then is asked for again, when a message is met that needs it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keys that are asked for at once, at most: the server bounds what a session may lack. The others are asked for when it
/// is their messages' turn to be read again.
const ASKED_MAX: usize = 1_000;

/// Keys that were asked for and have not come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(BTreeMap<KeyId, Instant>);

impl Asked {
    /// Of some keys those that are to be asked for now; from now on they were.
    pub(crate) fn ask(&mut self, key_ids: impl IntoIterator<Item = KeyId>, now: Instant) -> Vec<KeyId> {
        let mut due = Vec::new();
        for key_id in key_ids {
            let is_asked = |asked_at: &Instant| now.saturating_duration_since(*asked_at) < PATIENCE;
            if self.0.get(&key_id).is_some_and(is_asked) {
                continue;
            }
            if self.0.len() >= ASKED_MAX {
                self.0.retain(|_, asked_at| is_asked(asked_at));
            }
            if self.0.len() < ASKED_MAX {
                self.0.insert(key_id, now);
                due.push(key_id);
            }
        }
        due
    }

    /// Notes that a key has come; says whether it was asked for.
    pub(crate) fn came(&mut self, key_id: KeyId) -> bool {
        self.0.remove(&key_id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_asked_for_again_when_it_does_not_come() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let (one, other) = (KeyId::generate(), KeyId::generate());
        assert_eq!(asked.ask([one, one], now), [one]);
        assert_eq!(asked.ask([one, other], now + PATIENCE - Duration::from_millis(1)), [other]);
        assert_eq!(asked.ask([one, other], now + PATIENCE), [one]);
        assert!(asked.came(one) && !asked.came(one));
        assert_eq!(asked.ask([one], now + PATIENCE), [one], "it was lost since");
    }

    #[test]
    fn those_that_never_come_do_not_keep_others_from_being_asked_for() {
        let (mut asked, now) = (Asked::default(), Instant::now());
        let lost: Vec<KeyId> = (0..ASKED_MAX).map(|_| KeyId::generate()).collect();
        assert_eq!(asked.ask(lost.iter().copied(), now).len(), ASKED_MAX);
        let another = KeyId::generate();
        assert!(asked.ask([another], now).is_empty());
        assert_eq!(asked.ask([another], now + PATIENCE), [another]);
    }
}
