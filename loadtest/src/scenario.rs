//! Says what a run is made of: `mixed`, `soak` and `torture` are such.
//!
//! Pure. Invariant: whatever has limits on the server is asked for here, so that no scenario is refused by a limit that
//! it was not meant to meet.

use std::time::Duration;

use crate::args::{Encodings, Outputs};

/// Users of a chat at its beginning.
pub(crate) const CHAT_USERS: std::ops::RangeInclusive<usize> = 3..=15;

/// How often members change, at the most.
const CHURN_INTERVAL: Duration = Duration::from_secs(1);

/// How often a session is linked that ends while messages flow.
pub(crate) const GUEST_INTERVAL: Duration = Duration::from_secs(12);

/// What breaks meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Processes are ended every so many seconds.
    Kills {
        /// The broker.
        broker_every: Option<u64>,
        /// Its Postgres.
        postgres_every: Option<u64>,
    },
    /// Everything, by a plan.
    Nemesis,
}

impl Default for Faults {
    fn default() -> Self {
        Self::Kills { broker_every: None, postgres_every: None }
    }
}

/// What is run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scenario {
    /// Its name in the result.
    pub(crate) name: &'static str,
    /// Users.
    pub(crate) users: u32,
    /// Sessions of each.
    pub(crate) sessions_per_user: u32,
    /// Chats.
    pub(crate) chats: u32,
    /// During which messages flow.
    pub(crate) seconds: u64,
    /// Bytes of a text.
    pub(crate) size: u32,
    /// Messages in a second; 0 is as fast as it goes.
    pub(crate) rate: u32,
    /// How frames are written.
    pub(crate) encoding: Encodings,
    /// Drawn if there is none.
    pub(crate) seed: Option<u64>,
    /// A broker that runs already.
    pub(crate) server: Option<String>,
    /// What breaks.
    pub(crate) faults: Faults,
    /// Whether it is looked at memory, queues and latency from time to time, and judged whether they grow.
    pub(crate) is_watched: bool,
    /// Where the result goes.
    pub(crate) outputs: Outputs,
}

impl Scenario {
    /// Whether everything breaks.
    pub(crate) fn is_torture(&self) -> bool {
        self.faults == Faults::Nemesis
    }

    /// How often members change, when so many users could still be added to some chat: a long torture must not run
    /// out of them, since nobody comes back to a chat; nor must a soak, whose end is compared with its beginning.
    pub(crate) fn churn_interval(&self, strangers: usize) -> Duration {
        if !self.is_torture() && !self.is_watched {
            return CHURN_INTERVAL;
        }
        let strangers = u32::try_from(strangers).unwrap_or(u32::MAX).max(1);
        (Duration::from_secs(self.seconds) / strangers).max(CHURN_INTERVAL)
    }

    /// What the scenario needs above the defaults: nothing, for moderate numbers.
    pub(crate) fn limits(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let defaults = sealcast::config::Settings::load(None)?;
        let guests = if self.is_torture() { self.seconds.min(3_600) / GUEST_INTERVAL.as_secs() } else { 0 };
        let sessions = u64::from(self.sessions_per_user);
        let chats_of_owner = u64::from(self.chats.div_ceil(self.users.max(1)));
        let changes = chats_of_owner * (CHAT_USERS.end().saturating_add(1) as u64 + 5 * self.seconds.min(60));
        let needs = [
            ("session.certificates_per_hour_max", sessions + guests, defaults.session.certificates_per_hour_max),
            ("session.live_max", sessions + guests.min(8), defaults.session.live_max),
            ("limits.membership_changes_per_minute", changes, defaults.limits.membership_changes_per_minute.into()),
        ];
        Ok(needs.into_iter().filter(|(_, need, default)| need > default).map(|(key, need, _)| (key, need)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_changes_members_each_second_and_a_long_torture_does_not_run_out() {
        let short = Scenario { seconds: 120, faults: Faults::Nemesis, ..Scenario::default() };
        assert_eq!(short.churn_interval(168), CHURN_INTERVAL);
        let long = Scenario { seconds: 1_800, ..short };
        assert!(long.churn_interval(168) * 168 >= Duration::from_secs(1_799));
        assert_eq!(Scenario { faults: Faults::default(), ..long }.churn_interval(168), CHURN_INTERVAL);
    }
}
