//! The client library on rights, ownership, history policy, settings, and the end of an account.

use std::sync::Arc;

use sealcast::client::{
    Client, ClientConfig, ClientError, CloseReason, Connector, Ephemeral, Event, EventStream, MemoryStorage,
    NewAccount, SendError, Storage,
};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::AddPolicy;
use sealcast::protocol::ids::{ChatId, Seq};
use sealcast::protocol::membership::{Change, HistoryPolicy};

use super::rights::agrees_on_owner;
use super::support::broker::Broker;
use super::support::database::Database;
use super::support::{eventually, within};

fn config() -> ClientConfig {
    ClientConfig::new(Connector::new(None).unwrap())
}

async fn client(broker: &Broker, username: &str, storage: Arc<dyn Storage>) -> Client {
    let account = NewAccount { server: broker.public.clone(), username: username.to_owned(), ttl: None };
    let client = Client::register(config(), account, storage).await.unwrap();
    within("live", client.live()).await.unwrap();
    client
}

/// Clients of a chat that the first made and the others were added to.
async fn chat(broker: &Broker, names: &[&str]) -> (Vec<Client>, ChatId) {
    let mut clients = Vec::new();
    for name in names {
        clients.push(client(broker, name, Arc::new(Ephemeral)).await);
    }
    let chat_id = clients[0].create_chat("Lunch").await.unwrap();
    for (name, member) in names.iter().zip(&clients).skip(1) {
        let mut events = member.events();
        clients[0].add_member(chat_id, name, true, false).await.unwrap();
        event(&mut events, |event| matches!(event, Event::Joined { .. }).then_some(())).await;
    }
    (clients, chat_id)
}

/// Waits for an event that fits; an alarm is never right here.
async fn event<T>(events: &mut EventStream, fits: impl Fn(&Event) -> Option<T>) -> T {
    within("an event", async {
        loop {
            let event = events.next().await.unwrap().expect("the client is open");
            assert!(!matches!(&*event, Event::Alarm(_)), "{event:?}");
            if let Some(value) = fits(&event) {
                return value;
            }
        }
    })
    .await
}

async fn owner(client: &Client, chat_id: ChatId) -> String {
    let members = client.members(chat_id).await.unwrap();
    let owners: Vec<_> = members.into_iter().filter(|member| member.is_owner).collect();
    assert_eq!(owners.len(), 1);
    assert!(owners[0].can_write && owners[0].can_manage);
    owners[0].username.as_ref().unwrap().to_string()
}

#[tokio::test]
async fn rights_ownership_and_keys_change_for_everybody() {
    let (database, broker) = started().await;
    let (clients, chat_id) = chat(&broker, &["ada", "bob", "carol"]).await;
    let [ada, bob, carol] = clients.as_slice() else { panic!() };
    let mut events = bob.events();
    ada.set_rights(chat_id, "bob", false, true).await.unwrap();
    let changed = event(&mut events, |event| match event {
        Event::MembershipChanged { target, change: change @ Change::SetRights { .. }, .. } => {
            Some((*target, change.clone()))
        }
        _ => None,
    });
    assert_eq!(changed.await, (bob.user_id(), Change::SetRights { can_write: false, can_manage: true }));
    assert!(matches!(
        bob.send(chat_id, "may I").await,
        Err(SendError::Refused { code: ErrorCode::CannotWrite }) | Err(SendError::GaveUp { .. })
    ));
    assert!(matches!(ada.set_rights(chat_id, "bob", false, true).await, Err(ClientError::Unchanged)));
    let refused = carol.set_rights(chat_id, "bob", true, true).await;
    assert!(matches!(refused, Err(ClientError::Refused { code: ErrorCode::CannotManage, .. })), "{refused:?}");
    let refused = bob.set_rights(chat_id, "ada", false, false).await;
    assert!(matches!(refused, Err(ClientError::Refused { code: ErrorCode::NotOwner, .. })), "{refused:?}");

    assert_eq!(owner(ada, chat_id).await, "ada");
    ada.transfer(chat_id, "carol").await.unwrap();
    assert_eq!(owner(ada, chat_id).await, "carol", "shown right after the answer");
    let mut events = carol.events();
    let seq = bob.rekey(chat_id).await.unwrap();
    event(&mut events, |event| match event {
        Event::MembershipChanged { seq: at, change: Change::Rekey, .. } if *at == seq => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(owner(carol, chat_id).await, "carol");
    carol.set_history(chat_id, HistoryPolicy::Shared).await.unwrap();
    assert!(matches!(carol.set_history(chat_id, HistoryPolicy::Shared).await, Err(ClientError::Unchanged)));
    let mut events = bob.events();
    ada.send(chat_id, "under new keys").await.unwrap();
    event(&mut events, |event| matches!(event, Event::Message(_)).then_some(())).await;

    // A newcomer under a shared history: everybody's keys go on, with a copy more.
    let dan = client(&broker, "dan", Arc::new(Ephemeral)).await;
    let mut events = dan.events();
    carol.add_member(chat_id, "dan", true, false).await.unwrap();
    event(&mut events, |event| matches!(event, Event::Joined { .. }).then_some(())).await;
    ada.send(chat_id, "with dan").await.unwrap();
    let text = event(&mut events, |event| match event {
        Event::Message(message) => Some(format!("{:?}", message.seq)),
        _ => None,
    });
    assert!(!text.await.is_empty());
    assert_eq!(database.count("SELECT count(DISTINCT epoch) FROM sender_keys").await, 1, "one key serves on");
    agrees_on_owner(&database, chat_id, carol.user_id()).await;
    ada.leave_chat(chat_id).await.unwrap();
}

async fn started() -> (Database, Broker) {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    (database, broker)
}

#[tokio::test]
async fn changes_that_lose_a_race_are_made_again() {
    let (_database, broker) = started().await;
    let (clients, chat_id) = chat(&broker, &["ada", "bob", "carol"]).await;
    let [ada, bob, carol] = clients.as_slice() else { panic!() };
    ada.set_rights(chat_id, "bob", true, true).await.unwrap();
    eventually("bob manages", async || {
        let members = bob.members(chat_id).await.unwrap();
        members.iter().any(|member| member.user_id == bob.user_id() && member.can_manage)
    })
    .await;
    for round in 0..4 {
        let rights = round % 2 == 0;
        let (one, other) = tokio::join!(ada.set_rights(chat_id, "carol", !rights, rights), bob.rekey(chat_id));
        assert_ne!(one.unwrap(), other.unwrap());
    }
    let head = ada.head(chat_id).unwrap().seq;
    eventually("the same log everywhere", async || {
        [bob, carol].iter().all(|client| client.head(chat_id).is_some_and(|seen| seen.seq >= head))
    })
    .await;
    assert_eq!(ada.head(chat_id), carol.head(chat_id));
}

#[tokio::test]
async fn users_say_who_may_add_them() {
    let (_database, broker) = started().await;
    let ada = client(&broker, "ada", Arc::new(Ephemeral)).await;
    let bob = client(&broker, "bob", Arc::new(Ephemeral)).await;
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let not_allowed = |result: Result<Seq, ClientError>| {
        assert!(matches!(result, Err(ClientError::Refused { code: ErrorCode::NotAllowedToAdd, .. })), "{result:?}");
    };
    bob.set_add_policy(AddPolicy::Nobody).await.unwrap();
    not_allowed(ada.add_member(chat_id, "bob", true, false).await);
    bob.set_add_policy(AddPolicy::Everyone).await.unwrap();
    bob.block("ada").await.unwrap();
    not_allowed(ada.add_member(chat_id, "bob", true, false).await);
    let settings = bob.settings().await.unwrap();
    assert_eq!(settings.add_policy, AddPolicy::Everyone);
    assert_eq!(settings.blocked.len(), 1);
    assert_eq!(settings.blocked[0].user_id, ada.user_id());
    bob.unblock("nobody-of-that-name").await.unwrap();
    bob.unblock("ada").await.unwrap();
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
}

#[tokio::test]
async fn an_account_that_ended_is_closed_for_good_and_its_chats_go_on() {
    let (database, broker) = started().await;
    let storage: Arc<MemoryStorage> = Arc::new(MemoryStorage::default());
    let ada = client(&broker, "ada", Arc::clone(&storage) as Arc<dyn Storage>).await;
    let (bob, carol) =
        (client(&broker, "bob", Arc::new(Ephemeral)).await, client(&broker, "carol", Arc::new(Ephemeral)).await);
    let chat_id = ada.create_chat("Lunch").await.unwrap();
    let (mut bobs, mut carols) = (bob.events(), carol.events());
    ada.add_member(chat_id, "bob", true, false).await.unwrap();
    ada.add_member(chat_id, "carol", false, true).await.unwrap();
    let said = ada.send(chat_id, "farewell").await.unwrap();
    for events in [&mut bobs, &mut carols] {
        event(events, |event| matches!(event, Event::Message(_)).then_some(())).await;
    }
    let mut own = ada.events();
    let ada_id = ada.user_id();
    within("the end", ada.delete_account()).await.unwrap();
    let reason = event(&mut own, |event| match event {
        Event::Closed(reason) => Some(*reason),
        _ => None,
    });
    assert_eq!(reason.await, CloseReason::AccountDeleted);
    assert!(matches!(ada.send(chat_id, "more").await, Err(SendError::Closed(CloseReason::AccountDeleted))));
    drop(ada);
    // Nothing is kept but that it ended, and the profile serves no other account either.
    assert_eq!(storage.load().unwrap().len(), 1);
    let opened = Client::open(config(), Arc::clone(&storage) as Arc<dyn Storage>).await;
    assert!(matches!(opened, Err(ClientError::AccountDeleted)));
    let account = NewAccount { server: broker.public.clone(), username: "eve".to_owned(), ttl: None };
    let registered = Client::register(config(), account, Arc::clone(&storage) as Arc<dyn Storage>).await;
    assert!(matches!(registered, Err(ClientError::AccountDeleted)));

    for (client, events) in [(&bob, &mut bobs), (&carol, &mut carols)] {
        let (user_id, heir) = event(events, |event| match event {
            Event::AccountDeleted { user_id, heir, .. } => Some((*user_id, *heir)),
            _ => None,
        })
        .await;
        assert_eq!((user_id, heir), (ada_id, Some(carol.user_id())), "the manager, though bob joined before");
        assert_eq!(owner(client, chat_id).await, "carol");
        assert_eq!(client.members(chat_id).await.unwrap().len(), 2);
    }
    agrees_on_owner(&database, chat_id, carol.user_id()).await;
    carol.send(chat_id, "go on").await.unwrap();
    event(&mut bobs, |event| matches!(event, Event::Message(_)).then_some(())).await;
    // What she wrote is read and verified still.
    let mut history = bob.history(chat_id).await.unwrap();
    let page = history.after(history.start(), 100).await.unwrap();
    assert!(page.alarms.is_empty(), "{:?}", page.alarms);
    assert!(page.messages.iter().any(|message| message.seq == said.seq && message.sender_id == ada_id));
    assert!(matches!(bob.lookup("ada").await, Err(ClientError::Refused { code: ErrorCode::UnknownUser, .. })));
}

/// Holds the end of an account in its transaction, until the client that is returned commits or goes.
async fn hold_the_end(database: &Database) -> tokio_postgres::Client {
    let outside = database.client().await;
    outside.batch_execute("BEGIN; LOCK TABLE retired_usernames IN SHARE MODE").await.unwrap();
    outside
}

async fn until_held(database: &Database) {
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO retired_usernames%'";
    eventually("the end that is held", async || database.count(held).await > 0).await;
}

#[tokio::test]
async fn a_client_that_lost_the_answer_finds_out_by_itself() {
    let (database, broker) = started().await;
    let ada = client(&broker, "ada", Arc::new(Ephemeral)).await;
    ada.create_chat("Lunch").await.unwrap();
    let outside = hold_the_end(&database).await;
    let deleting = tokio::spawn({
        let ada = ada.clone();
        async move { ada.delete_account().await }
    });
    until_held(&database).await;
    ada.reconnect();
    outside.batch_execute("COMMIT").await.unwrap();
    within("the end", deleting).await.unwrap().unwrap();
    assert_eq!(within("closed", ada.live()).await, Err(CloseReason::AccountDeleted));
    assert_eq!(database.count("SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn a_client_that_ended_before_the_answer_finds_out_when_it_is_opened() {
    let (database, broker) = started().await;
    for does_arrive in [false, true] {
        let storage: Arc<MemoryStorage> = Arc::new(MemoryStorage::default());
        let open = || Client::open(config(), Arc::clone(&storage) as Arc<dyn Storage>);
        let name = if does_arrive { "bob" } else { "ada" };
        let dying = client(&broker, name, Arc::clone(&storage) as Arc<dyn Storage>).await;
        let chat_id = dying.create_chat("Lunch").await.unwrap();
        dying.close().await.unwrap();
        let dying = open().await.unwrap();
        within("live", dying.live()).await.unwrap();
        let outside = hold_the_end(&database).await;
        let deleting = tokio::spawn({
            let dying = dying.clone();
            async move { dying.delete_account().await }
        });
        until_held(&database).await;
        deleting.abort();
        let _ = deleting.await;
        drop(dying);
        if does_arrive {
            outside.batch_execute("COMMIT").await.unwrap();
            eventually("the end", async || database.count("SELECT count(*) FROM users").await == 1).await;
            let opened = open().await.unwrap();
            assert_eq!(within("closed", opened.live()).await, Err(CloseReason::AccountDeleted));
            drop(opened);
            eventually("a profile that says so", async || matches!(open().await, Err(ClientError::AccountDeleted)))
                .await;
        } else {
            // The transaction dies with its connection to the database: nothing has ended.
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                 AND query LIKE 'INSERT INTO retired_usernames%' AND pid <> pg_backend_pid()";
            outside.batch_execute(kill).await.unwrap();
            outside.batch_execute("COMMIT").await.unwrap();
            let opened = open().await.unwrap();
            within("live", opened.live()).await.unwrap();
            opened.send(chat_id, "still here").await.unwrap();
            within("kept", opened.close()).await.unwrap();
        }
    }
}
