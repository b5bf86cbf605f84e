//! Users' chains of certificates and revocations, as whoever is logged in may read them.
//!
//! No chat need be shared: certificates are public by lookup, revocations are about them, and who judges a log needs
//! the chains of those who have left it too. A chain outlives its account.

use tokio_postgres::Row;
use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::rows::{bigint, get, id, unpack};
use crate::protocol::certificate::UserEvent;
use crate::protocol::frame::{Chain, ChainFrom, Chains};
use crate::protocol::ids::UserId;
use crate::protocol::limits::CHAIN_EVENTS_MAX;

/// Users of whom there is a chain, in the order asked, with the entries after a place. Each chain alone is cut at one
/// entry more than fits, so that it shows whether there is more.
const EVENTS: &str = "SELECT wanted.user_id, e.kind, e.body \
     FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS wanted (user_id, after, number) \
     LEFT JOIN LATERAL (SELECT place, kind, body FROM user_events \
         WHERE user_id = wanted.user_id AND place > wanted.after ORDER BY place LIMIT $3) e ON true \
     WHERE EXISTS (SELECT 1 FROM user_events WHERE user_id = wanted.user_id) \
     ORDER BY wanted.number, e.place LIMIT $4";

impl Store {
    /// Reads users' chains, each from a place on, as far as one answer goes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_events(&self, users: &[ChainFrom]) -> Result<Chains, Failure> {
        let ids: Vec<Uuid> = users.iter().map(|from| from.user_id.0).collect();
        let after: Vec<i64> = users.iter().map(|from| bigint(from.after)).collect();
        let events_max = usize::try_from(CHAIN_EVENTS_MAX).unwrap_or(usize::MAX);
        let each_max = i64::from(CHAIN_EVENTS_MAX) + 1;
        // A user without news is a row as well.
        let rows_max = each_max + i64::try_from(users.len()).unwrap_or(0);
        self.read("user_events", async |tx| {
            let mut chains: Vec<Chain> = Vec::new();
            let mut left = events_max;
            for row in tx.query(EVENTS, &[&ids, &after, &each_max, &rows_max]).await? {
                let user_id = id(&row, "user_id", UserId)?;
                if chains.last().is_none_or(|chain| chain.user_id != user_id) {
                    chains.push(Chain { user_id, events: Vec::new(), more: false });
                }
                let (Some(event), Some(chain)) = (event_of(&row)?, chains.last_mut()) else { continue };
                if left == 0 {
                    chain.more = true;
                    continue;
                }
                left -= 1;
                chain.events.push(event);
            }
            // What did not fit at all is asked for again; it is not said to be without news.
            if left == 0 {
                for from in users {
                    if !chains.iter().any(|chain| chain.user_id == from.user_id) {
                        chains.push(Chain { user_id: from.user_id, events: Vec::new(), more: true });
                    }
                }
            }
            Ok(Chains { chains })
        })
        .await
    }
}

/// The entry of a row; none of a user without news.
pub(super) fn event_of(row: &Row) -> Result<Option<UserEvent>, StoreError> {
    let kind: Option<&str> = get(row, "kind")?;
    let Some(kind) = kind else { return Ok(None) };
    let body: &[u8] = get(row, "body")?;
    let what = "user_events.body";
    Ok(Some(match kind {
        "certificate" => UserEvent::Certificate(unpack(body, what)?),
        "revocation" => UserEvent::Revocation(unpack(body, what)?),
        "deletion" => UserEvent::Deletion(unpack(body, what)?),
        _ => return Err(StoreError::Corrupt { what: "user_events.kind" }),
    }))
}
