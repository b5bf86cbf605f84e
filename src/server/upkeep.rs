//! What is done from time to time, whoever is connected.

use std::time::{Duration, Instant, SystemTime};

use super::clock_watch::ClockWatch;
use crate::gateway::Door;
use crate::store::operator::ActionNo;
use crate::store::revisions::SweepPlace;

/// How often due expiries, and what the operator did, are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often copies that nobody needs are deleted, and the database's clock is read.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Steps of the sweep over sender keys in one upkeep.
const SWEEP_STEPS: u32 = 10;

/// Writes down expiries that nobody has come upon, and who was seen.
pub(super) async fn sweep(door: Door) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        door.broker.note_seen().await;
        let Ok(users) = door.broker.store.users_with_due_sessions().await else { continue };
        for user_id in users {
            // What fails is found again by the next sweep, and logged where it failed.
            let _ = door.broker.expire(user_id).await;
        }
    }
}

/// Looks for what the operator did by `sealcast admin`, and does what follows from it.
pub(super) async fn heed_operator(door: Door, mut seen: ActionNo) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        // What fails is logged where it failed, and read again by the next look.
        seen = door.broker.notice_actions(seen).await.unwrap_or(seen);
    }
}

/// Looks whether the machine's clock jumps.
pub(super) async fn watch_clock(door: Door) {
    let mut watch = ClockWatch::new(SystemTime::now(), Instant::now());
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        if let Some(apart) = watch.look(SystemTime::now(), Instant::now()) {
            door.broker.metrics.clock_steps.with_label_values(&["wall"]).inc();
            tracing::warn!(
                apart_s = apart.as_secs(),
                "the machine's clock has jumped; everything goes by the database's"
            );
        }
    }
}

/// Reads the database's clock, and deletes what revoked sessions and purged messages left, in small steps.
pub(super) async fn upkeep(door: Door) {
    let mut place = SweepPlace::default();
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        let is_up = door.broker.store.ping().await.is_ok();
        let metrics = &door.broker.metrics;
        metrics.postgres_up.set(i64::from(is_up));
        door.crowd.forget(Instant::now());
        let reaped = door.reaper.counts();
        let reaped = reaped.stalled + reaped.unfinished_close + reaped.unfinished_exchange;
        metrics.reaped.inc_by(reaped.saturating_sub(metrics.reaped.get()));
        if is_up {
            // What fails is logged where it failed, and tried again at the next upkeep.
            let _ = door.broker.store.forget_logins().await;
            let _ = door.broker.store.forget_recovery_requests().await;
            let _ = door.broker.store.forget_actions().await;
            let _ = door.broker.store.forget_invitations().await;
        }
        while is_up && door.broker.store.delete_copies_of_revoked().await.is_ok_and(|deleted| deleted > 0) {}
        if is_up {
            place = sweep_keys(&door, place).await;
        }
    }
}

/// A bounded look at keys whose copies nobody needs any more; gives where the next one begins.
async fn sweep_keys(door: &Door, mut place: SweepPlace) -> SweepPlace {
    for _ in 0..SWEEP_STEPS {
        match door.broker.store.sweep_keys(place).await {
            Ok(Some(next)) => place = next,
            Ok(None) => return SweepPlace::default(),
            // What fails is logged where it failed, and tried again at the next upkeep.
            Err(_) => return place,
        }
    }
    place
}
