//! A server that alters, moves or swaps what one device hands another: named by the device, and kept by none.

use std::sync::Arc;

use sealcast::client::{Client, MemoryStorage, NewAccount, PendingLink, VerificationFailure};

use crate::support::broker::{Broker, Settings};
use crate::support::clients::{alarm, config, link, read_all, register_in, texts};
use crate::support::database::Database;
use crate::support::{eventually, within};

#[tokio::test]
async fn p7_a_backup_that_is_altered_moved_or_swapped_is_named_and_not_kept() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 50);
    let broker = Broker::start_with(settings).await;
    let phone = register_in(&broker, "ada", Arc::new(MemoryStorage::default())).await;
    let bob = register_in(&broker, "bob", Arc::new(MemoryStorage::default())).await;
    let chat_id = phone.create_chat("lies").await.unwrap();
    phone.add_member(chat_id, "bob", true, true).await.unwrap();
    eventually("bob's chat", async || bob.head(chat_id) == phone.head(chat_id) && bob.head(chat_id).is_some()).await;
    bob.send(chat_id, "old").await.unwrap();
    let tablet = link(&broker, &phone, "ada").await;
    assert_eq!(texts(&read_all(&tablet, chat_id, 10).await), ["old"]);
    phone.rekey(chat_id).await.unwrap();
    let sql = async |statement: String| database.client().await.batch_execute(&statement).await.unwrap();

    let of = |session: &str| format!("session_id = '{session}'");
    type Lie<'a> = (&'a str, &'a dyn Fn(&str) -> String);
    let cases: [Lie<'_>; 6] = [
        ("altered", &|id| {
            format!(
                "UPDATE vault_backup_session_keys SET key = set_byte(key, 50, get_byte(key, 50) # 1) WHERE {}",
                of(id)
            )
        }),
        ("signed by another", &|id| {
            format!(
                "UPDATE vault_backup_session_keys SET signature = set_byte(signature, 5, get_byte(signature, 5) # 1) WHERE {}",
                of(id)
            )
        }),
        ("wrapped by a stranger", &|id| {
            format!(
                "UPDATE vault_backup_session_keys SET wrapped_by_session_id = '{}' WHERE {}",
                bob.session_id(),
                of(id)
            )
        }),
        ("of another session", &|id| {
            format!(
                "UPDATE vault_backup_session_keys SET backed_up_session_id = '{}' WHERE {}",
                tablet.session_id(),
                of(id)
            )
        }),
        ("another key of the same session", &|id| {
            format!(
                "UPDATE vault_backup_session_keys SET backed_up_public_key = \
                     (SELECT public_key FROM user_sessions WHERE id = '{}') WHERE {}",
                phone.session_id(),
                of(id)
            )
        }),
        ("another recipient's", &|id| {
            format!(
                "DELETE FROM vault_backup_session_keys WHERE {}; INSERT INTO vault_backup_session_keys (kind, session_id, \
                     backed_up_session_id, backed_up_user_id, backed_up_public_key, key, wrapped_by_session_id, signature) \
                 SELECT kind, '{id}', backed_up_session_id, backed_up_user_id, backed_up_public_key, key, \
                     wrapped_by_session_id, signature FROM vault_backup_session_keys WHERE {} LIMIT 1",
                of(id),
                of(&tablet.session_id().to_string())
            )
        }),
    ];
    for (about, lie) in cases {
        let storage = Arc::new(MemoryStorage::default());
        let account = NewAccount { server: broker.public.clone(), username: "ada".to_owned(), ttl: None };
        let pending = PendingLink::begin(config(), account, Arc::clone(&storage) as _).await.unwrap();
        let session_id = phone.approve_session(&pending.code().parse().unwrap(), None).await.unwrap();
        // One row, so that nothing else is taken in its place.
        let rest = format!(
            "DELETE FROM vault_backup_session_keys b WHERE {} AND b.id <> \
                 (SELECT id FROM vault_backup_session_keys WHERE {0} LIMIT 1)",
            of(&session_id.to_string())
        );
        sql(rest).await;
        sql(lie(&session_id.to_string())).await;
        let linked = within("a linked session", pending.wait()).await.unwrap();
        linked.close().await.unwrap();
        // What was not kept is looked at again at each start.
        let linked = Client::open(config(), Arc::clone(&storage) as _).await.unwrap();
        let mut events = linked.events();
        let whose = if about == "of another session" { tablet.session_id() } else { phone.session_id() };
        alarm(&mut events, VerificationFailure::Backup(whose)).await;
        within("a live session", linked.live()).await.unwrap();
        linked.close().await.unwrap();
        phone.revoke_session(session_id).await.unwrap();
    }
}

#[tokio::test]
async fn p7_copies_for_a_session_whose_key_a_device_was_not_handed_are_of_no_use_to_it() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let phone = register_in(&broker, "ada", Arc::new(MemoryStorage::default())).await;
    let chat_id = phone.create_chat("lies").await.unwrap();
    phone.send(chat_id, "old").await.unwrap();
    phone.rekey(chat_id).await.unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let account = NewAccount { server: broker.public.clone(), username: "ada".to_owned(), ttl: None };
    let pending = PendingLink::begin(config(), account, Arc::clone(&storage) as _).await.unwrap();
    let session_id = phone.approve_session(&pending.code().parse().unwrap(), None).await.unwrap();
    phone.close().await.unwrap();
    // The row is there, so that the server shows copies of the phone's; what is in it opens nothing.
    let spoil = format!(
        "UPDATE vault_backup_session_keys SET key = set_byte(key, 50, get_byte(key, 50) # 1) WHERE session_id = '{session_id}'"
    );
    database.client().await.batch_execute(&spoil).await.unwrap();
    let laptop = within("a linked session", pending.wait()).await.unwrap();
    within("a live session", laptop.live()).await.unwrap();
    let all = read_all(&laptop, chat_id, 10).await;
    assert_eq!((texts(&all).len(), all.locked, all.alarms.len()), (0, 1, 0), "locked, and nobody is accused of it");
    assert_eq!(database.count("SELECT count(*) FROM refused_copies").await, 0);
}
