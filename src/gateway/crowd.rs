//! How many connections one address has, and how fast it opens them. Plain data behind one lock; time is an argument.
//! Floor 5.
//!
//! Invariants:
//! 1. A place is given back when it is dropped, however its connection ended.
//! 2. Who has no place and could come again at once is not remembered after the next [`Crowd::forget`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// What one address may do; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Connections at one time.
    pub connections_max: u32,
    /// Connections opened in a minute; as many may come at once.
    pub handshakes_per_minute: u32,
}

/// Whether a connection may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Pass,
    /// Its address has as many as it may have.
    TooMany,
    /// Its address opens them too fast; it may come back after so long.
    TooFast(Duration),
}

#[derive(Debug)]
struct Visitors {
    connections: u32,
    /// When all that was opened has been paid for by time (GCRA).
    paid_at: Instant,
}

/// All addresses with connections.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<HashMap<IpAddr, Visitors>>);

/// A connection's place among those of its address.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
    /// Whether it may go on.
    pub verdict: Verdict,
}

impl Crowd {
    /// Takes a place for a connection of an address, also for one that is to be refused: it counts until it is gone.
    /// None when so many are being refused that the next one is to be shut without a word.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: IpAddr, limits: CrowdLimits, now: Instant) -> Option<Place> {
        let mut crowd = self.lock();
        let visitors = crowd.entry(address).or_insert(Visitors { connections: 0, paid_at: now });
        let max = limits.connections_max;
        if max > 0 && visitors.connections >= max.saturating_mul(2) {
            return None;
        }
        let verdict = if max > 0 && visitors.connections >= max {
            Verdict::TooMany
        } else {
            visitors.pay(limits.handshakes_per_minute, now)
        };
        visitors.connections = visitors.connections.saturating_add(1);
        Some(Place { crowd: Arc::clone(self), address, verdict })
    }

    /// Forgets addresses that have no place and owe no time.
    pub fn forget(&self, now: Instant) {
        self.lock().retain(|_, visitors| visitors.connections > 0 || visitors.paid_at > now);
    }

    fn leave(&self, address: IpAddr) {
        if let Some(visitors) = self.lock().get_mut(&address) {
            visitors.connections = visitors.connections.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Visitors>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitors {
    fn pay(&mut self, per_minute: u32, now: Instant) -> Verdict {
        if per_minute == 0 {
            return Verdict::Pass;
        }
        let price = MINUTE / per_minute;
        let paid_at = self.paid_at.max(now) + price;
        let owed = paid_at.saturating_duration_since(now);
        if owed > MINUTE {
            return Verdict::TooFast(owed.saturating_sub(MINUTE));
        }
        self.paid_at = paid_at;
        Verdict::Pass
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn one_address_has_its_bound_and_another_its_own() {
        let (crowd, now) = (Arc::new(Crowd::default()), Instant::now());
        let limits = CrowdLimits { connections_max: 2, handshakes_per_minute: 0 };
        let enter = |address| crowd.enter(address, limits, now);
        let places: Vec<_> = (0..4).map(|_| enter(HOME).unwrap()).collect();
        let verdicts: Vec<_> = places.iter().map(|place| place.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Pass, Verdict::TooMany, Verdict::TooMany]);
        assert!(enter(HOME).is_none());
        assert_eq!(enter(OTHER).unwrap().verdict, Verdict::Pass);
        drop(places);
        assert_eq!(enter(HOME).unwrap().verdict, Verdict::Pass);
    }

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_one_with_each_share() {
        let (crowd, now) = (Arc::new(Crowd::default()), Instant::now());
        let limits = CrowdLimits { connections_max: 0, handshakes_per_minute: 6 };
        let enter = |after_s| crowd.enter(HOME, limits, now + Duration::from_secs(after_s)).unwrap().verdict;
        assert!((0..6).all(|_| enter(0) == Verdict::Pass));
        assert_eq!(enter(0), Verdict::TooFast(Duration::from_secs(10)));
        assert_eq!(enter(4), Verdict::TooFast(Duration::from_secs(6)));
        assert_eq!(enter(10), Verdict::Pass);
        assert!(matches!(enter(10), Verdict::TooFast(_)));
    }

    #[test]
    fn who_is_gone_and_owes_nothing_is_forgotten() {
        let (crowd, now) = (Arc::new(Crowd::default()), Instant::now());
        let limits = CrowdLimits { connections_max: 9, handshakes_per_minute: 60 };
        let stays = crowd.enter(OTHER, limits, now);
        drop(crowd.enter(HOME, limits, now));
        crowd.forget(now);
        assert_eq!(crowd.lock().len(), 2, "it owes a second");
        crowd.forget(now + Duration::from_secs(2));
        assert_eq!(crowd.lock().len(), 1);
        drop(stays);
        crowd.forget(now + Duration::from_secs(2));
        assert!(crowd.lock().is_empty());
    }
}
