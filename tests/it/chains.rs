//! Users' chains: read by anybody, and compared by clients with what the chats say. The database plays the malicious
//! server: it can withhold, cut and rewrite what it likes, and sign nothing.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage, VerificationFailure};
use sealcast::protocol::binary::Hash;
use sealcast::protocol::certificate::UserEvent;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Chain, ChainFrom, Chains, Reply, Request, UserEvents};
use sealcast::protocol::ids::{Place, UserId};
use sealcast::protocol::limits::{CHAIN_EVENTS_MAX, CHAINS_PER_REQUEST_MAX};
use sealcast::protocol::user_chain::UserChain;

use super::support::broker::Broker;
use super::support::clients::{alarm, link, open, register, register_in};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::eventually;

async fn chains(socket: &mut Socket, users: &[(UserId, u64)]) -> Chains {
    let from = |(user_id, after): &(UserId, u64)| ChainFrom { user_id: *user_id, after: Place::saturating(*after) };
    let users = users.iter().map(from).collect();
    match socket.request(Request::UserEvents(UserEvents { users })).await.unwrap() {
        Reply::Chains(chains) => chains,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn chains_are_read_by_anybody_in_pages_and_verify() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let eve = Device::register(&broker, "eve").await;
    let mut ada_socket = ada.connect_live(&broker).await;
    let mut eve_socket = eve.connect_live(&broker).await;
    let tablet = ada.linked(&broker, &mut ada_socket).await;
    ada.revoke(&mut ada_socket, tablet.session_id).await.unwrap();

    let nobody = UserId::generate();
    let answer = chains(&mut eve_socket, &[(eve.user_id, 1), (nobody, 0), (ada.user_id, 0)]).await;
    let [own, adas] = &answer.chains[..] else { panic!("{answer:?}") };
    assert_eq!(own, &Chain { user_id: eve.user_id, events: Vec::new(), more: false }, "no news");
    assert!(!adas.more);
    let mut chain = UserChain::new(ada.user_id, ada.identity_key());
    for event in &adas.events {
        chain.take(event).unwrap();
    }
    assert_eq!(chain.place(), Place::saturating(3));
    assert!(chain.is_live(ada.session_id) && chain.is_revoked(tablet.session_id));
    let tail = chains(&mut eve_socket, &[(ada.user_id, 2)]).await;
    assert_eq!(tail.chains[0].events, adas.events[2..]);

    // A chain that is longer than an answer goes on where it ended.
    let copy = format!(
        "INSERT INTO user_events (user_id, place, kind, session_id, body, hash) \
         SELECT user_id, place + n * 3, kind, session_id, body, hash FROM user_events, generate_series(1, 200) n \
         WHERE user_id = '{}'",
        ada.user_id
    );
    database.client().await.batch_execute(&copy).await.unwrap();
    let max = usize::try_from(CHAIN_EVENTS_MAX).unwrap();
    let answer = chains(&mut eve_socket, &[(ada.user_id, 0), (eve.user_id, 0)]).await;
    let [adas, own] = &answer.chains[..] else { panic!("{answer:?}") };
    assert_eq!((adas.events.len(), adas.more, own.events.len(), own.more), (max, true, 0, true));
    let rest = chains(&mut eve_socket, &[(ada.user_id, max as u64), (eve.user_id, 0)]).await;
    let [adas, own] = &rest.chains[..] else { panic!("{rest:?}") };
    assert_eq!((adas.events.len(), adas.more, own.events.len(), own.more), (603 - max, false, 1, false));

    let users = vec![ChainFrom { user_id: nobody, after: Place::default() }; CHAINS_PER_REQUEST_MAX + 1];
    let refused = eve_socket.request(Request::UserEvents(UserEvents { users })).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(refused.details.unwrap().limit, Some(CHAINS_PER_REQUEST_MAX as u64));
}

/// Ada with two devices and Bob, by the client library, in one chat.
struct Three {
    ada: Client,
    tablet: Client,
    bob: Client,
    bobs_storage: Arc<MemoryStorage>,
    broker: Broker,
    database: Database,
}

impl Three {
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let bobs_storage = Arc::new(MemoryStorage::default());
        let ada = register(&broker, "ada").await;
        let bob = register_in(&broker, "bob", Arc::clone(&bobs_storage) as _).await;
        let chat_id = ada.create_chat("chains").await.unwrap();
        ada.add_member(chat_id, "bob", true, false).await.unwrap();
        let tablet = link(&broker, &ada, "ada").await;
        let mut events = bob.events();
        ada.send(chat_id, "both there").await.unwrap();
        super::support::clients::message(&mut events, "both there").await;
        Self { ada, tablet, bob, bobs_storage, broker, database }
    }

    async fn sql(&self, sql: &str) {
        self.database.client().await.batch_execute(sql).await.unwrap();
    }

    /// Does something to Ada's sessions that her chats' logs are not told of.
    async fn withheld(&self, work: impl AsyncFnOnce()) {
        let ada = self.ada.user_id();
        self.sql(&format!(
            "CREATE TABLE hidden AS SELECT * FROM user_in_chat WHERE user_id = '{ada}'; \
             DELETE FROM user_in_chat WHERE user_id = '{ada}'"
        ))
        .await;
        work().await;
        self.sql("INSERT INTO user_in_chat SELECT * FROM hidden").await;
    }
}

#[tokio::test]
async fn p7_a_withheld_revocation_is_seen_and_an_honest_one_is_not() {
    let three = Three::start().await;
    let spare = link(&three.broker, &three.ada, "ada").await;
    three.ada.revoke_session(spare.session_id()).await.unwrap();
    // Whatever has come of it by now: nobody is accused of news that crossed.
    assert_eq!(three.bob.check_sessions().await.unwrap(), []);
    assert_eq!(three.ada.check_sessions().await.unwrap(), []);

    let tablet = three.tablet.session_id();
    let mut events = three.bob.events();
    three.withheld(async || three.ada.revoke_session(tablet).await.unwrap()).await;
    let withheld = VerificationFailure::WithheldRevocation(tablet);
    assert_eq!(three.bob.check_sessions().await.unwrap(), [withheld]);
    alarm(&mut events, withheld).await;
    assert_eq!(three.bob.check_sessions().await.unwrap(), [], "it is said once");
    // Her own devices see that a chat is not as their chain says.
    assert_eq!(three.ada.check_sessions().await.unwrap(), [withheld]);
}

#[tokio::test]
async fn p7_a_session_of_ones_own_that_a_chat_lacks_is_seen() {
    let three = Three::start().await;
    assert_eq!(three.ada.check_sessions().await.unwrap(), []);
    let mut hidden = None;
    three.withheld(async || hidden = Some(link(&three.broker, &three.ada, "ada").await)).await;
    let missing = VerificationFailure::OwnSessionMissing(hidden.unwrap().session_id());
    // The phone gave its key away with the approval, and the chat's log does not say so: he would go on with that key.
    let replaced = VerificationFailure::NotInChain(three.ada.session_id());
    assert_eq!(three.ada.check_sessions().await.unwrap(), [replaced, missing]);
    assert_eq!(three.bob.check_sessions().await.unwrap(), [replaced], "whom she lets in elsewhere is not his concern");
}

#[tokio::test]
async fn p7_a_chain_that_is_shorter_or_other_than_before_is_refused() {
    let mut three = Three::start().await;
    let ada = three.ada.user_id();
    assert_eq!(three.bob.check_sessions().await.unwrap(), []);
    three.sql(&format!("CREATE TABLE kept AS SELECT * FROM user_events WHERE user_id = '{ada}'")).await;
    three.sql(&format!("DELETE FROM user_events WHERE user_id = '{ada}' AND place >= 2")).await;
    let rewritten = VerificationFailure::ChainRewritten(ada);
    assert_eq!(three.bob.check_sessions().await.unwrap(), [rewritten]);
    // Nor after a restart, which begins at the first entry again.
    three.bob.close().await.unwrap();
    three.bob = open(Arc::clone(&three.bobs_storage) as _).await;
    assert_eq!(three.bob.check_sessions().await.unwrap(), [rewritten]);
    three.sql("INSERT INTO user_events SELECT * FROM kept WHERE place >= 2").await;
    assert_eq!(three.bob.check_sessions().await.unwrap(), []);

    // Another entry at a place that was seen.
    three.sql(&format!(
        "UPDATE user_events SET body = (SELECT body FROM kept WHERE place = 1) WHERE user_id = '{ada}' AND place = 3"
    ))
    .await;
    assert_eq!(three.bob.check_sessions().await.unwrap(), [rewritten]);
}

#[tokio::test]
async fn p7_a_certificate_that_is_not_in_its_chain_is_seen() {
    let three = Three::start().await;
    let (ada, tablet) = (three.ada.user_id(), three.tablet.session_id());
    // Bob has never looked, so nothing was there before: but the chat shows what the chain does not.
    three.sql(&format!("DELETE FROM user_events WHERE user_id = '{ada}' AND place >= 2")).await;
    let failures = three.bob.check_sessions().await.unwrap();
    assert!(failures.contains(&VerificationFailure::NotInChain(tablet)), "{failures:?}");
}

#[tokio::test]
async fn clients_look_at_chains_by_themselves() {
    let three = Three::start().await;
    let tablet = three.tablet.session_id();
    three.withheld(async || three.ada.revoke_session(tablet).await.unwrap()).await;
    three.bob.close().await.unwrap();
    let mut config = super::support::clients::config();
    config.chains_interval = std::time::Duration::from_millis(200);
    let bob = Client::open(config, Arc::clone(&three.bobs_storage) as _).await.unwrap();
    let mut events = bob.events();
    alarm(&mut events, VerificationFailure::WithheldRevocation(tablet)).await;
    eventually("an alarm that is counted", async || bob.stats().alarms >= 1).await;
}

#[tokio::test]
async fn p7_a_new_device_knows_the_chains_that_the_old_one_knew() {
    let three = Three::start().await;
    let ada = three.ada.user_id();
    assert_eq!(three.bob.check_sessions().await.unwrap(), []);
    let bobs_tablet = link(&three.broker, &three.bob, "bob").await;
    three.sql(&format!("DELETE FROM user_events WHERE user_id = '{ada}' AND place >= 2")).await;
    let failures = bobs_tablet.check_sessions().await.unwrap();
    assert!(failures.contains(&VerificationFailure::ChainRewritten(ada)), "{failures:?}");
}

/// What the wire carries is what the chain is made of.
#[tokio::test]
async fn a_revocation_by_another_key_is_in_no_chain() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let tablet = ada.linked(&broker, &mut socket).await;
    ada.revoke(&mut socket, tablet.session_id).await.unwrap();
    let mut answer = chains(&mut socket, &[(ada.user_id, 0)]).await;
    let mut events = answer.chains.remove(0).events;
    if let UserEvent::Revocation(signed) = &mut events[2] {
        signed.signature.0[7] ^= 1;
    }
    let mut chain = UserChain::new(ada.user_id, ada.identity_key());
    let taken: Vec<bool> = events.iter().map(|event| chain.take(event).is_ok()).collect();
    assert_eq!(taken, [true, true, false]);
    assert_ne!(chain.hash(), Hash([0; 32]));
    assert!(chain.is_live(tablet.session_id));
}
