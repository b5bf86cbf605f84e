//! Keys handed on by the client library, end to end with real cryptography: bad copies mended, new devices and
//! newcomers that read what they may and nothing else.

use std::sync::Arc;

use sealcast::client::{Client, ClientError, Event, MemoryStorage, VerificationFailure};
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::membership::HistoryPolicy;

use super::support::broker::Broker;
use super::support::clients::{alarm, event, link, message, open, read_all, register, register_in, texts};
use super::support::database::Database;
use super::support::eventually;

/// Ada and Bob in one chat.
struct Two {
    ada: Client,
    bob: Client,
    adas_storage: Arc<MemoryStorage>,
    bobs_storage: Arc<MemoryStorage>,
    chat_id: ChatId,
    broker: Broker,
    database: Database,
}

impl Two {
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let bobs_storage = Arc::new(MemoryStorage::default());
        let adas_storage = Arc::new(MemoryStorage::default());
        let ada = register_in(&broker, "ada", Arc::clone(&adas_storage) as _).await;
        let bob = register_in(&broker, "bob", Arc::clone(&bobs_storage) as _).await;
        let chat_id = ada.create_chat("history").await.unwrap();
        ada.add_member(chat_id, "bob", true, true).await.unwrap();
        eventually("bob's chat", async || bob.head(chat_id) == ada.head(chat_id) && bob.head(chat_id).is_some()).await;
        Self { ada, bob, adas_storage, bobs_storage, chat_id, broker, database }
    }

    async fn sql(&self, sql: &str) {
        self.database.client().await.batch_execute(sql).await.unwrap();
    }
}

const SPOIL: &str = "UPDATE vault_chat_sender_keys SET key = set_byte(key, 50, get_byte(key, 50) # 1)";

#[tokio::test]
async fn p4_a_bad_copy_is_named_refused_and_mended() {
    let mut two = Two::start().await;
    two.bob.close().await.unwrap();
    two.ada.send(two.chat_id, "one").await.unwrap();
    let bobs_session = two.bob.session_id();
    two.sql(&format!("{SPOIL} WHERE session_id = '{bobs_session}'")).await;
    let mut adas_events = two.ada.events();
    two.bob = Client::open(super::support::clients::config(), Arc::clone(&two.bobs_storage) as _).await.unwrap();
    let mut events = two.bob.events();
    alarm(&mut events, VerificationFailure::BadCopy).await;
    // Ada is online, is asked, and wraps anew: what waited opens.
    message(&mut events, "one").await;
    let (refused_by, uploaded_by) = event("the refusal", &mut adas_events, |event| match event {
        Event::CopyRefused { refused_by, uploaded_by, .. } => Some((*refused_by, *uploaded_by)),
        _ => None,
    })
    .await;
    assert_eq!((refused_by, uploaded_by), (bobs_session, two.ada.session_id()));
    two.ada.send(two.chat_id, "two").await.unwrap();
    message(&mut events, "two").await;
    assert_eq!(two.database.count("SELECT count(*) FROM key_requests").await, 0);
}

#[tokio::test]
async fn p4_who_gets_two_bad_copies_is_listed_and_nobody_waits_for_them() {
    let mut two = Two::start().await;
    let bobs_session = two.bob.session_id();
    two.bob.close().await.unwrap();
    // Every copy for Bob is spoilt on its way into the database; what is pushed to him would be good.
    two.sql(&format!(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             NEW.key := set_byte(NEW.key, 50, get_byte(NEW.key, 50) # 1); RETURN NEW; END $$; \
         CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON vault_chat_sender_keys FOR EACH ROW \
             WHEN (NEW.session_id = '{bobs_session}') EXECUTE FUNCTION spoil()"
    ))
    .await;
    two.ada.send(two.chat_id, "one").await.unwrap();
    two.ada.close().await.unwrap();

    two.bob = open(Arc::clone(&two.bobs_storage) as _).await;
    let asked = "SELECT count(*) FROM key_requests";
    eventually("the first refusal", async || two.database.count(asked).await == 1).await;
    assert_eq!(two.database.count("SELECT count(*) FROM refused_copies WHERE NOT is_final").await, 1);
    two.bob.close().await.unwrap();
    two.ada = open(Arc::clone(&two.adas_storage) as _).await;
    eventually("the second copy", async || two.database.count(asked).await == 0).await;

    two.bob = open(Arc::clone(&two.bobs_storage) as _).await;
    let page = read_all(&two.bob, two.chat_id, 50).await;
    assert!(page.alarms.iter().any(|alarm| alarm.failure == VerificationFailure::BadCopy), "{:?}", page.alarms);
    let given_up = "SELECT count(*) FROM refused_copies WHERE is_final";
    eventually("the second refusal", async || two.database.count(given_up).await == 1).await;
    let mut events = two.ada.events();
    two.ada.send(two.chat_id, "goes on").await.unwrap();
    let listed = event("who cannot read it", &mut events, |event| match event {
        Event::Unreadable { sessions, .. } => Some(sessions.clone()),
        _ => None,
    })
    .await;
    assert_eq!(listed, [bobs_session]);
}

#[tokio::test]
async fn a_new_device_opens_what_came_before_it() {
    let two = Two::start().await;
    two.ada.send(two.chat_id, "old key").await.unwrap();
    two.ada.rekey(two.chat_id).await.unwrap();
    two.ada.send(two.chat_id, "current key").await.unwrap();
    // Ada's phone is online: it hands the current key over as soon as the tablet is in the chat.
    let tablet = link(&two.broker, &two.ada, "ada").await;
    let held = format!(
        "SELECT count(*) FROM vault_chat_sender_keys v JOIN sender_keys k ON k.key_id = v.sender_key_id \
         WHERE v.session_id = '{}' AND k.epoch = (SELECT epoch FROM chats)",
        tablet.session_id()
    );
    eventually("the current key", async || two.database.count(&held).await == 1).await;
    two.ada.send(two.chat_id, "goes on").await.unwrap();

    // The older one opens with the key that the phone gave up.
    let all = read_all(&tablet, two.chat_id, 2).await;
    assert_eq!(texts(&all), ["old key", "current key", "goes on"]);
    assert_eq!((all.locked, all.alarms.len()), (0, 0));
    assert_eq!(tablet.check_sessions().await.unwrap(), []);
}

#[tokio::test]
async fn under_from_join_a_newcomer_reads_nothing_from_before() {
    let two = Two::start().await;
    two.ada.send(two.chat_id, "before").await.unwrap();
    let carol = register(&two.broker, "carol").await;
    let joined = two.ada.add_member(two.chat_id, "carol", true, false).await.unwrap();
    two.bob.send(two.chat_id, "after").await.unwrap();
    let mut events = carol.events();
    eventually("carol's chat", async || carol.head(two.chat_id) == two.bob.head(two.chat_id)).await;
    let all = read_all(&carol, two.chat_id, 3).await;
    assert_eq!((texts(&all), all.locked, all.after.next()), (vec!["after".to_owned()], 0, joined));
    two.ada.send(two.chat_id, "live").await.unwrap();
    message(&mut events, "live").await;
}

#[tokio::test]
async fn p8_under_a_shared_history_a_newcomer_reads_from_where_it_began_and_not_before() {
    let two = Two::start().await;
    two.ada.send(two.chat_id, "secret").await.unwrap();
    two.bob.send(two.chat_id, "secret too").await.unwrap();
    let shared = two.ada.set_history(two.chat_id, HistoryPolicy::Shared).await.unwrap();
    eventually("bob's log", async || two.bob.head(two.chat_id) == two.ada.head(two.chat_id)).await;
    for number in 0..5 {
        two.ada.send(two.chat_id, &format!("ada {number}")).await.unwrap();
        two.bob.send(two.chat_id, &format!("bob {number}")).await.unwrap();
    }
    let carol = register(&two.broker, "carol").await;
    two.bob.add_member(two.chat_id, "carol", true, false).await.unwrap();
    eventually("carol's chat", async || carol.head(two.chat_id).is_some()).await;
    let all = read_all(&carol, two.chat_id, 4).await;
    let expected: Vec<String> = (0..5).flat_map(|number| [format!("ada {number}"), format!("bob {number}")]).collect();
    assert_eq!(texts(&all), expected, "the adder has handed the keys on");
    assert_eq!((all.locked, all.alarms.len(), all.after.next()), (0, 0, shared));
    // The keys go on: nobody need make new ones for her, nor add copies.
    let keys = two.database.count("SELECT count(*) FROM sender_keys").await;
    let refusals = two.ada.stats().refusals;
    two.ada.send(two.chat_id, "welcome").await.unwrap();
    assert_eq!(two.database.count("SELECT count(*) FROM sender_keys").await, keys);
    assert_eq!(two.ada.stats().refusals, refusals);

    // A page out of the middle is proven too, from her own joining backwards.
    let mut history = carol.history(two.chat_id).await.unwrap();
    let page = history.after(shared.next(), 3).await.unwrap();
    assert_eq!(page.messages.len(), 3);
    // What the server alters below her joining does not pass.
    let spoil = format!(
        "UPDATE chat_messages SET created_at = created_at + interval '1 second' WHERE seq = {}",
        shared.get() + 3
    );
    two.sql(&spoil).await;
    let mut history = carol.history(two.chat_id).await.unwrap();
    let altered = history.after(Seq::saturating(shared.get() + 1), 3).await.unwrap_err();
    assert!(matches!(altered, ClientError::Verification(VerificationFailure::LogHash)), "{altered:?}");
}

#[tokio::test]
async fn what_the_adder_does_not_have_the_newcomer_asks_for() {
    let two = Two::start().await;
    two.ada.set_history(two.chat_id, HistoryPolicy::Shared).await.unwrap();
    two.ada.send(two.chat_id, "early").await.unwrap();
    // Who joins later has none of the earlier keys, until somebody who has them is there.
    let carol = register(&two.broker, "carol").await;
    two.ada.add_member(two.chat_id, "carol", true, true).await.unwrap();
    eventually("carol's chat", async || carol.head(two.chat_id).is_some()).await;
    two.sql("DELETE FROM vault_chat_sender_keys").await;
    let dave = register(&two.broker, "dave").await;
    carol.add_member(two.chat_id, "dave", true, false).await.unwrap();
    eventually("dave's chat", async || dave.head(two.chat_id).is_some()).await;
    let mut events = dave.events();
    let first = read_all(&dave, two.chat_id, 50).await;
    assert_eq!((texts(&first).len(), first.locked), (0, 1));
    event("the key", &mut events, |event| matches!(event, Event::KeyCame { .. }).then_some(())).await;
    assert_eq!(texts(&read_all(&dave, two.chat_id, 50).await), ["early"]);
}
