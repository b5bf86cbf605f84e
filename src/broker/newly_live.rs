//! What a session that has just logged in is told besides its chats: who lacks keys that it holds, and what asks for its
//! user.
//!
//! Invariant: nobody waits for it, and it does not stand in the way of those who wait for the store: few are looked
//! after at the same time, and who has gone by then not at all. Else a crowd that comes and goes would leave behind it a
//! queue that grows for as long as it does.

use super::Broker;
use super::connection::Connection;
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
        self.tell_open_requests(connection, who).await;
        self.tell_info_keys(connection, who).await;
        self.tell_profiles(connection, who).await;
        self.tell_recovery_requests(connection, who).await;
    }
}
