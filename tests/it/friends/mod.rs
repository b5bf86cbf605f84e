//! Recovery by friends: over real HTTP and sockets, with the client library, the terminal, and the bare protocol.

mod attacks;
mod inputs;
mod recovery;
#[cfg(feature = "fail-points")]
mod terminal;

use std::sync::Arc;
use std::time::Duration;

use sealcast::client::{
    Client, ClientConfig, ClientError, FriendRecovery, FriendsError, MemoryStorage, NewAccount, Storage,
};
use sealcast::crypto::recovery_code::RecoveryCode;
use sealcast::protocol::ids::{ChatId, RecoveryRequestId};

use super::passwords::{new_account, password};
use super::support::broker::{Broker, Settings};
use super::support::clients;
use super::support::database::Database;
use super::support::{eventually, within};

/// A client that waits for no window, and looks often.
fn config() -> ClientConfig {
    ClientConfig { recovery_window: Duration::ZERO, upkeep_interval: Duration::from_millis(20), ..clients::config() }
}

/// The password of a user.
pub fn password_of(name: &str) -> String {
    format!("{name}'s correct horse")
}

async fn register_with(broker: &Broker, name: &str, config: ClientConfig, storage: Arc<dyn Storage>) -> Client {
    let (account, password): (NewAccount, _) = (new_account(broker, name), password(&password_of(name)));
    let registering = Client::register_with_password(config, account, &password, storage);
    let client = within("a registration", registering).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

pub async fn register(broker: &Broker, name: &str) -> Client {
    register_with(broker, name, config(), Arc::new(MemoryStorage::default())).await
}

/// A chat of a user with others, who all have it.
pub async fn chat_with(owner: &Client, friends: &[&Client]) -> ChatId {
    let chat_id = owner.create_chat("Friends").await.unwrap();
    for friend in friends {
        let name = friend.username();
        let seq = owner.add_member(chat_id, name.as_str(), true, false).await.unwrap();
        eventually("a chat that has come", async || friend.head(chat_id).is_some_and(|head| head.seq >= seq)).await;
    }
    chat_id
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Makes a recovery code and shares it.
pub async fn share(client: &Client, needed: u32, friends: &[&str]) -> RecoveryCode {
    let name = client.username();
    let code = within("a code", client.make_recovery_code(&password(&password_of(name.as_str())))).await.unwrap();
    let shared = within("shares", client.share_recovery_code(&code, needed, &names(friends))).await.unwrap();
    assert_eq!((shared.needed, shared.friends.len()), (needed, friends.len()));
    code
}

/// Asks the friends of a user, from a device that has nothing.
pub async fn ask(broker: &Broker, name: &str) -> FriendRecovery {
    let storage = Arc::new(MemoryStorage::default());
    within("a request", FriendRecovery::begin(config(), new_account(broker, name), storage)).await.unwrap()
}

/// Waits until a friend has heard of a request.
async fn heard(friend: &Client, request_id: RecoveryRequestId) {
    eventually("a request that has come", async || {
        friend.recovery_requests().await.unwrap().iter().any(|request| request.request_id == request_id)
    })
    .await;
}

pub async fn approve(friend: &Client, recovery: &FriendRecovery) -> Result<(), ClientError> {
    let name = friend.username();
    let password = password(&password_of(name.as_str()));
    within("an approval", friend.approve_recovery(recovery.request_id(), recovery.code(), &password)).await
}

/// The reason for which it does not go on.
fn reason<T: std::fmt::Debug>(result: Result<T, ClientError>) -> FriendsError {
    match result.unwrap_err() {
        ClientError::Friends(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// Ann, whose recovery code two of Bob, Carol and Dave can put together.
struct Scene {
    broker: Broker,
    ann: Client,
    bob: Client,
    carol: Client,
    dave: Client,
    chat_id: ChatId,
    // Dropped last: the broker's connections go first.
    database: Database,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|settings| settings).await
    }

    async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let database = Database::create().await;
        let broker = Broker::start_with(change(Settings::on(&database))).await;
        let (ann, bob) = (register(&broker, "ann").await, register(&broker, "bob").await);
        let (carol, dave) = (register(&broker, "carol").await, register(&broker, "dave").await);
        let chat_id = chat_with(&ann, &[&bob, &carol, &dave]).await;
        share(&ann, 2, &["bob", "carol", "dave"]).await;
        Self { broker, ann, bob, carol, dave, chat_id, database }
    }

    async fn execute(&self, statement: &str) {
        assert_eq!(self.database.client().await.execute(statement, &[]).await.unwrap(), 1, "{statement}");
    }

    /// What the friends gave comes to the account.
    async fn recovers(&self, mut recovery: FriendRecovery) -> Vec<String> {
        let gathered = within("enough shares", recovery.wait()).await.unwrap();
        let bad = gathered.bad.iter().map(|bad| bad.username.to_string()).collect();
        within("a new password", recovery.reset(&gathered, &password("a brand new horse"))).await.unwrap();
        let ann = within("a login", recovery.log_in(&password("a brand new horse"))).await.unwrap();
        assert_eq!(ann.user_id(), self.ann.user_id());
        bad
    }
}

/// The bytes that a code of five bits a letter is written for, a check behind them included.
pub fn bytes_of_code(text: &str) -> Vec<u8> {
    let letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let digits = text.chars().filter(|letter| *letter != '-').map(|letter| letters.find(letter).unwrap());
    let bits: String = digits.map(|digit| format!("{digit:05b}")).collect();
    let eights = bits.as_bytes().chunks_exact(8);
    eights.map(|eight| u8::from_str_radix(std::str::from_utf8(eight).unwrap(), 2).unwrap()).collect()
}
