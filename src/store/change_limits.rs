//! Bounds on the membership changes that make every sender key of a chat stale: each costs every sender a new one.
//!
//! They are counted in the log itself, under the chat's lock, so they hold across connections and nodes.

use std::time::SystemTime;

use super::error::Failure;
use super::rows::{bigint, get, timestamp_of};
use super::transaction::Transaction;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::ids::ChatId;
use crate::protocol::limits::{HISTORY_CHANGES_PER_DAY_MAX, REKEYS_PER_HOUR_MAX};
use crate::protocol::membership::Change;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;

/// Refuses a `rekey` or a change of the history policy that comes after too many of its kind; the refusal says when
/// the next one is taken. Other changes are not counted here.
///
/// # Errors
/// `limit_reached` with `limit` and `retry_after_ms`, or [`Failure::Store`].
pub(super) async fn check_change_limit(tx: &Transaction<'_>, chat_id: ChatId, change: &Change) -> Result<(), Failure> {
    let (max, window_s) = match change {
        Change::Rekey => (REKEYS_PER_HOUR_MAX, HOUR_S),
        Change::SetHistory { .. } => (HISTORY_CHANGES_PER_DAY_MAX, DAY_S),
        _ => return Ok(()),
    };
    // The one that must leave the window before there is room; whether it has, one clock says, the database's.
    let statement = "SELECT created_at, clock_timestamp() AS now FROM chat_events \
         WHERE chat_id = $1 AND change = $2 ORDER BY created_at DESC OFFSET $3 LIMIT 1";
    let Some(row) = tx.query_opt(statement, &[&chat_id.0, &change.as_str(), &bigint(max - 1)]).await? else {
        return Ok(());
    };
    let created_at = timestamp_of(get::<SystemTime>(&row, "created_at")?, "chat_events.created_at")?;
    let now = timestamp_of(get::<SystemTime>(&row, "now")?, "now")?;
    let free_at = created_at.plus_micros(window_s * 1_000_000);
    if free_at <= now {
        return Ok(());
    }
    let details = ErrorDetails {
        limit: Some(max),
        retry_after_ms: Some((free_at.get() - now.get()).div_ceil(1_000)),
        ..ErrorDetails::default()
    };
    Err(Refusal::with(ErrorCode::LimitReached, "too many changes of this kind in this chat", details).into())
}
