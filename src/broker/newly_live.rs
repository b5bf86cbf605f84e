//! What a session that has just logged in is told besides its chats: who lacks keys that it holds, and what asks for its
//! user.
//!
//! Invariant: nobody waits for it, and it does not stand in the way of those who wait for the store: few are looked
//! after at the same time, and who has gone by then not at all. Else a crowd that comes and goes would leave behind it a
//! queue that grows for as long as it does.

use super::Broker;
use super::connection::Connection;
use super::copies::tell_open_requests;
use super::friends::tell_recovery_requests;
use super::info::tell_info_keys;
use crate::store::members::Requester;

impl Broker {
    /// Tells a session what is open, unless it goes before its turn. What fails is told the next time.
    ///
    /// # Cancel safety
    /// The rest is told the next time.
    pub async fn look_after(&self, connection: &Connection, who: Requester) {
        let turn = tokio::select! {
            turn = self.newly_live.acquire() => turn,
            () = connection.outbox.gone() => return,
        };
        let Ok(_turn) = turn else { return };
        let Ok(open) = self.store.open_for(who).await else { return };
        tell_open_requests(connection, open.requests);
        if !open.info_keys_lacking.is_empty() {
            self.ask_for_info_keys_of(who).await;
        }
        tell_info_keys(connection, open.info_key_requests.into_iter().chain(open.seals));
        self.ask_for_profile_keys(open.profile_holders);
        if let Some(revision) = open.profile {
            self.tell_profile(connection, who.user_id, revision).await;
        }
        tell_recovery_requests(connection, open.recovery_requests);
    }
}
