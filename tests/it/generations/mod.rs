//! User keys in chats' logs, generations of the group key, and archives: what the broker takes, by the bare protocol.

mod archives;
mod info_seals;
mod links;
mod made;
mod refused;
#[cfg(feature = "client")]
mod withdrawn;

use super::messages::Pair;
use super::support::halves::Halves;

/// Two users in a chat, of whom ada has a password.
pub async fn pair_with_password() -> (Pair, Halves) {
    let pair = Pair::start().await;
    let mut halves = Halves::none();
    halves.renew(&pair.broker, &pair.ada).await;
    (pair, halves)
}
