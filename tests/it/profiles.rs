//! What users say of themselves: who can read it, who finds out by themselves, and what a server cannot forge.

use std::sync::Arc;

use sealcast::client::{
    Client, ClientError, Event, MemoryStorage, NewAccount, PlainProfile, Storage, VerificationFailure,
};
use sealcast::crypto::opaque::Password;
use sealcast::protocol::binary::{Blob, Signature};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    FetchProfile, Reply, Request, RequestProfileKey, ServerFrame, SetBlock, SetProfile, ShownProfile, UploadProfileKeys,
};
use sealcast::protocol::ids::{InfoKeyId, Revision, SessionId, UserId};
use sealcast::protocol::limits::{
    PROFILE_DESCRIPTION_BYTES_MAX, PROFILE_EMAIL_BYTES_MAX, PROFILE_KEY_WRAPS_MAX, PROFILE_NAME_BYTES_MAX,
};
use sealcast::protocol::profile::{SealedProfile, SignedProfile};
use tempfile::TempDir;

use super::codes::contents;
use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::library::{ann_and_bob, caught_up, config, event_that, link, register};
use super::support::{eventually, within};
use super::terminal::{Profile, two};
use super::verify::program::verify_url;

async fn started() -> (Database, Broker) {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    (database, broker)
}

/// The name that a client reads of a user, if it can.
async fn name(client: &Client, user_id: UserId) -> Option<String> {
    client.profile(user_id).await.ok().flatten().and_then(|profile| profile.name)
}

async fn reads(client: &Client, user_id: UserId, expected: &str) {
    eventually("the name", async || name(client, user_id).await.as_deref() == Some(expected)).await;
}

/// What verification a read fails for.
async fn failure(client: &Client, user_id: UserId) -> VerificationFailure {
    match client.profile(user_id).await {
        Err(ClientError::Verification(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// Wraps of the newest info key of a user to sessions of another, whatever became of them.
async fn wraps(database: &Database, of: UserId, to: SessionId) -> i64 {
    let statement = format!(
        "SELECT count(*) FROM vault_user_info_keys v JOIN users u ON u.id = v.user_id AND u.info_key_id = v.key_id \
         WHERE u.id = '{of}' AND v.session_id = '{to}'"
    );
    database.count(&statement).await
}

async fn key_of(database: &Database, user_id: UserId) -> InfoKeyId {
    let client = database.client().await;
    let row = client.query_one("SELECT info_key_id FROM users WHERE id = $1", &[&user_id.0]).await.unwrap();
    InfoKeyId(row.get(0))
}

#[tokio::test]
async fn a_profile_reaches_those_who_may_read_it_and_nobody_who_lost_access() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let (carol, eve) = (register(&broker.public, "carol").await, register(&broker.public, "eve").await);
    let mut events = bob.events();
    ann.set_profile(Some("Ann"), Some("ann@example.org"), Some("Likes tea.")).await.unwrap();
    let changed = |event: &Event| match event {
        Event::ProfileChanged { user_id } => Some(*user_id),
        _ => None,
    };
    assert_eq!(event_that("the new profile", &mut events, changed).await, ann.user_id());
    reads(&bob, ann.user_id(), "Ann").await;
    let all = PlainProfile {
        name: Some("Ann".into()),
        email: Some("ann@example.org".into()),
        description: Some("Likes tea.".into()),
    };
    assert!(bob.profile(ann.user_id()).await.unwrap() == Some(all.clone()));
    assert!(ann.profile(ann.user_id()).await.unwrap() == Some(all), "one's own");
    assert!(ann.profile(bob.user_id()).await.unwrap().is_none(), "Bob says nothing");
    // Strangers get the answer that they would get of nobody at all.
    for stranger in [&carol, &eve] {
        assert!(matches!(stranger.profile_of("ann").await, Err(ClientError::NoSharedChat)));
        assert!(matches!(stranger.profile_of("nobody").await, Err(ClientError::Refused { .. })));
        assert_eq!(wraps(&database, ann.user_id(), stranger.session_id()).await, 0);
    }
    // One part is changed, the others stay; an empty text takes it away. Nobody was lost, so the key stays.
    let key = key_of(&database, ann.user_id()).await;
    ann.set_profile(None, Some(""), None).await.unwrap();
    let email = async || bob.profile(ann.user_id()).await.unwrap().unwrap().email;
    eventually("no email", async || email().await.is_none()).await;
    assert_eq!(name(&bob, ann.user_id()).await.as_deref(), Some("Ann"));
    assert_eq!(key_of(&database, ann.user_id()).await, key);

    // Who comes later gets the key without anybody's doing: a device of one's own, one of Bob's, a new member.
    let (phone, tablet) = (link(&ann, &broker.public).await, link(&bob, &broker.public).await);
    let seq = ann.add_member(chat_id, "carol", true, false).await.unwrap();
    caught_up(&carol, chat_id, seq).await;
    for reader in [&phone, &tablet, &carol] {
        reads(reader, ann.user_id(), "Ann").await;
    }
    assert_eq!(key_of(&database, ann.user_id()).await, key);
    // And who is not connected when it is saved reads it when they come.
    phone.set_profile(Some("Anna"), None, None).await.unwrap();
    for reader in [&ann, &bob, &tablet, &carol] {
        reads(reader, ann.user_id(), "Anna").await;
    }

    // A member who is removed, and a device that is revoked: the next save is under a key that they do not have.
    ann.remove_member(chat_id, "carol").await.unwrap();
    assert!(matches!(carol.profile(ann.user_id()).await, Err(ClientError::NoSharedChat)));
    ann.set_profile(Some("Without Carol"), None, None).await.unwrap();
    let without_carol = key_of(&database, ann.user_id()).await;
    assert_ne!(without_carol, key);
    reads(&tablet, ann.user_id(), "Without Carol").await;
    bob.revoke_session(tablet.session_id()).await.unwrap();
    ann.set_profile(Some("Without the tablet"), None, None).await.unwrap();
    assert_ne!(key_of(&database, ann.user_id()).await, without_carol);
    for lost in [&carol, &tablet] {
        assert_eq!(wraps(&database, ann.user_id(), lost.session_id()).await, 0);
    }
    for reader in [&ann, &bob, &phone] {
        reads(reader, ann.user_id(), "Without the tablet").await;
    }
    let same = key_of(&database, ann.user_id()).await;
    phone.set_profile(None, None, Some("And tea.")).await.unwrap();
    assert_eq!(key_of(&database, ann.user_id()).await, same, "nobody was lost since");

    let verified = verify_url(database.url(), &[]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.complaint);

    // The end of the account leaves nothing.
    ann.delete_account().await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM users WHERE info_key_id IS NOT NULL").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM vault_user_info_keys").await, 0);
}

#[tokio::test]
async fn whoever_ceases_to_be_a_reader_in_any_way_makes_the_key_stale() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let mut keys = vec![];
    let mut say = async |word: &str| {
        ann.set_profile(Some(word), None, None).await.unwrap();
        keys.push(key_of(&database, ann.user_id()).await);
        keys.last() != keys.iter().rev().nth(1)
    };
    assert!(say("first").await);
    reads(&bob, ann.user_id(), "first").await;
    // Blocked, and no longer: while it lasts he is answered as if there were nothing, and gets nothing new.
    ann.block("bob").await.unwrap();
    assert!(bob.profile(ann.user_id()).await.unwrap().is_none(), "who is blocked is not told");
    assert!(say("while Bob is blocked").await);
    assert_eq!(wraps(&database, ann.user_id(), bob.session_id()).await, 0);
    ann.unblock("bob").await.unwrap();
    reads(&bob, ann.user_id(), "while Bob is blocked").await;
    assert!(!say("the same key").await);
    // A second chat keeps him a reader when the first ends; the end of the last one does not.
    let second = ann.create_chat("Tea").await.unwrap();
    let seq = ann.add_member(second, "bob", true, false).await.unwrap();
    caught_up(&bob, second, seq).await;
    ann.delete_chat(chat_id).await.unwrap();
    assert!(!say("still in a chat").await);
    reads(&bob, ann.user_id(), "still in a chat").await;
    bob.leave_chat(second).await.unwrap();
    assert!(say("in no chat").await);
    assert_eq!(wraps(&database, ann.user_id(), bob.session_id()).await, 0);
    // His account ends: the wrap goes with it, and is remembered all the same.
    ann.add_member(second, "bob", true, false).await.unwrap();
    reads(&bob, ann.user_id(), "in no chat").await;
    bob.delete_account().await.unwrap();
    assert!(say("without Bob").await);
    // A session of one's own whose time ran out.
    let phone = link(&ann, &broker.public).await;
    reads(&phone, ann.user_id(), "without Bob").await;
    assert!(!say("on two devices").await);
    let expire = "UPDATE user_sessions SET expired_at = clock_timestamp() WHERE id = $1";
    database.client().await.execute(expire, &[&phone.session_id().0]).await.unwrap();
    assert!(say("on one").await);
    assert_eq!(wraps(&database, ann.user_id(), phone.session_id()).await, 0);
}

#[tokio::test]
async fn a_new_device_reads_and_changes_the_profile_by_the_password_with_nobody_online() {
    let (database, broker) = started().await;
    let account = NewAccount { server: broker.public.clone(), username: "ann".into(), ttl: None };
    let password = Password::new("correct horse battery staple".to_owned()).unwrap();
    let storage = Arc::new(MemoryStorage::default());
    let ann = Client::register_with_password(config(), account.clone(), &password, storage).await.unwrap();
    within("a live client", ann.live()).await.unwrap();
    ann.set_profile(Some("Ann"), None, Some("At home.")).await.unwrap();
    let (user_id, first_key) = (ann.user_id(), key_of(&database, ann.user_id()).await);
    ann.close().await.unwrap();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let phone = Client::log_in(config(), account.clone(), &password, Arc::clone(&storage)).await.unwrap();
    within("a live client", phone.live()).await.unwrap();
    assert_eq!(name(&phone, user_id).await.as_deref(), Some("Ann"), "the user key opened it");
    phone.set_profile(None, None, Some("On the way.")).await.unwrap();
    assert_eq!(key_of(&database, user_id).await, first_key, "the same key");
    // It hands the key on, as a device does that was given it by another.
    let tablet = link_by_password(&phone, &broker, &password).await;
    reads(&tablet, user_id, "Ann").await;
    // A device that logged in counts as one that has the key, also if it never asked for a wrap.
    tablet.close().await.unwrap();
    let lost = Client::log_in(config(), account, &password, Arc::new(MemoryStorage::default())).await.unwrap();
    phone.revoke_session(lost.session_id()).await.unwrap();
    phone.set_profile(Some("Anna"), None, None).await.unwrap();
    assert_ne!(key_of(&database, user_id).await, first_key);
    let sealed = "SELECT count(*) FROM users WHERE info_user_key_id IS NOT NULL";
    assert_eq!(database.count(sealed).await, 0, "the lost device was given the private half of the user key");
    phone.close().await.unwrap();
    let phone = Client::open(config(), storage).await.unwrap();
    assert_eq!(name(&phone, user_id).await.as_deref(), Some("Anna"), "it is kept");
}

/// A further device, approved by one that opens the identity key for it.
async fn link_by_password(client: &Client, broker: &Broker, password: &Password) -> Client {
    let _unlocked = client.unlock(password).await.unwrap();
    link(client, &broker.public).await
}

#[tokio::test]
async fn what_the_server_changes_is_refused_by_name_and_mended_by_who_is_honest() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let tamper = async |statement: &str| {
        assert_eq!(database.client().await.execute(statement, &[]).await.unwrap(), 1, "{statement}");
    };
    let user = ann.user_id();
    let of_ann = format!("WHERE id = '{user}'");
    ann.set_profile(Some("Ann"), Some("ann@example.org"), None).await.unwrap();
    reads(&bob, user, "Ann").await;
    let keep = format!("CREATE TABLE kept AS SELECT * FROM users {of_ann}");
    database.client().await.batch_execute(&keep).await.unwrap();
    let flip = |column: &str| {
        format!("UPDATE users SET {column} = set_byte({column}, 20, get_byte({column}, 20) # 1) {of_ann}")
    };
    for column in ["name", "email", "info_signature"] {
        tamper(&flip(column)).await;
        assert_eq!(failure(&bob, user).await, VerificationFailure::Profile(user), "{column}");
        tamper(&flip(column)).await;
    }
    let lies = ["name = email, email = name", "name = NULL", "description = name", "info_revision = 7"];
    let restore = |from: &str| {
        let columns = ["name", "email", "description", "info_revision", "info_session_id", "info_signature"];
        let set: Vec<String> = columns.iter().map(|column| format!("{column} = {from}.{column}")).collect();
        format!("UPDATE users SET {} FROM {from} WHERE users.id = {from}.id", set.join(", "))
    };
    for lie in lies {
        tamper(&format!("UPDATE users SET {lie} {of_ann}")).await;
        assert_eq!(failure(&bob, user).await, VerificationFailure::Profile(user), "{lie}");
        tamper(&restore("kept")).await;
    }
    // Signed by somebody, and not by who it says.
    tamper(&format!("UPDATE users SET info_session_id = '{}' {of_ann}", bob.session_id())).await;
    assert_eq!(failure(&bob, user).await, VerificationFailure::Profile(user));
    tamper(&restore("kept")).await;
    // An older revision, as it was.
    ann.set_profile(Some("Anna"), None, None).await.unwrap();
    reads(&bob, user, "Anna").await;
    database.client().await.batch_execute(&keep.replace("kept", "newer")).await.unwrap();
    tamper(&restore("kept")).await;
    let mut events = bob.events();
    assert_eq!(failure(&bob, user).await, VerificationFailure::ProfileRollback(user));
    let alarm = |event: &Event| match event {
        Event::Alarm(alarm) => Some(alarm.failure),
        _ => None,
    };
    assert_eq!(event_that("an alarm", &mut events, alarm).await, VerificationFailure::ProfileRollback(user));
    tamper(&restore("newer")).await;
    assert_eq!(name(&bob, user).await.as_deref(), Some("Anna"));

    // Wraps: altered, of another key, in the name of another user's session; each is asked for again, and mended.
    let (carol, dora) = (register(&broker.public, "carol").await, register(&broker.public, "dora").await);
    for (reader, column, value) in [
        (&carol, "key", "set_byte(key, 40, get_byte(key, 40) # 1)".to_owned()),
        (&dora, "wrapped_by_session_id", format!("'{}'", bob.session_id())),
    ] {
        let username = reader.username();
        ann.add_member(chat_id, username.as_str(), true, false).await.unwrap();
        eventually("a wrap", async || wraps(&database, user, reader.session_id()).await == 1).await;
        let swap =
            format!("UPDATE vault_user_info_keys SET {column} = {value} WHERE session_id = '{}'", reader.session_id());
        tamper(&swap).await;
        let liar = if column == "key" { ann.session_id() } else { bob.session_id() };
        assert_eq!(failure(reader, user).await, VerificationFailure::ProfileKey(liar), "{column}");
        reads(reader, user, "Anna").await;
    }
}

#[tokio::test]
async fn p7_a_ghost_device_that_the_server_names_as_a_reader_gets_no_key() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let ghost = Device::unregistered("ghost", 86_400);
    let insert = "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, certificate, state) \
         SELECT $1, user_id, expired_at, $3, $4, certificate, 'live' FROM user_sessions WHERE user_id = $2";
    let session = ghost.registration().certificate.certificate;
    let keys: [&[u8]; 2] = [session.public_key.as_ref(), session.signing_public_key.as_ref()];
    let client = database.client().await;
    for user_id in [ann.user_id(), bob.user_id()] {
        let session_id = SessionId::generate();
        client.execute(insert, &[&session_id.0, &user_id.0, &keys[0], &keys[1]]).await.unwrap();
    }
    ann.set_profile(Some("Ann"), None, None).await.unwrap();
    // Who is named beside the ghosts, and is there, gets it.
    let carol = register(&broker.public, "carol").await;
    ann.add_member(chat_id, "carol", true, false).await.unwrap();
    for reader in [&bob, &carol] {
        reads(reader, ann.user_id(), "Ann").await;
    }
    assert_eq!(database.count("SELECT count(*) FROM vault_user_info_keys").await, 3, "Ann, Bob and Carol");
    assert_eq!(database.count("SELECT count(*) FROM user_sessions").await, 5, "the ghosts are there");
}

#[tokio::test]
async fn what_a_revoked_device_said_is_said_again_by_another() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let phone = link(&ann, &broker.public).await;
    phone.set_profile(Some("Ann"), None, Some("By phone.")).await.unwrap();
    reads(&ann, ann.user_id(), "Ann").await;
    ann.revoke_session(phone.session_id()).await.unwrap();
    let saved_by = format!("SELECT count(*) FROM users WHERE info_session_id = '{}'", ann.session_id());
    eventually("the profile to be Ann's own again", async || database.count(&saved_by).await == 1).await;
    let carol = register(&broker.public, "carol").await;
    let seq = ann.add_member(chat_id, "carol", true, false).await.unwrap();
    caught_up(&carol, chat_id, seq).await;
    for reader in [&bob, &carol] {
        reads(reader, ann.user_id(), "Ann").await;
    }
    let description = carol.profile(ann.user_id()).await.unwrap().unwrap().description;
    assert_eq!(description.as_deref(), Some("By phone."));
    assert_eq!(wraps(&database, ann.user_id(), phone.session_id()).await, 0);
}

#[tokio::test]
async fn two_devices_that_save_at_once_and_a_broker_that_is_killed_lose_and_mix_nothing() {
    let (database, mut broker) = started().await;
    let (ann, bob, _) = ann_and_bob(&broker.public).await;
    let phone = link(&ann, &broker.public).await;
    ann.set_profile(Some("Ann"), None, None).await.unwrap();
    reads(&phone, ann.user_id(), "Ann").await;
    let save = async |client: &Client, word: &str| {
        for round in 0..3 {
            let (name, description) = (format!("{word} {round}"), format!("of {word} {round}"));
            client.set_profile(Some(&name), None, Some(&description)).await.unwrap();
        }
    };
    let revision = "SELECT max(info_revision) FROM users";
    let kill = async {
        eventually("some saves", async || database.count(revision).await >= 3).await;
        broker.kill_and_restart().await;
    };
    within("all saves", async { tokio::join!(save(&ann, "home"), save(&phone, "phone"), kill) }).await;
    // A save whose answer died with the broker is made again if the other device saved before it was asked again.
    let revisions = database.count(revision).await;
    assert!((7..=9).contains(&revisions), "each save is one revision, or two where the broker died: {revisions}");
    eventually("Bob to read both together", async || {
        let Ok(Some(profile)) = bob.profile(ann.user_id()).await else { return false };
        let (Some(name), Some(description)) = (profile.name, profile.description) else { return false };
        assert_eq!(format!("of {name}"), description, "the two were saved together");
        name.ends_with('2')
    })
    .await;
}

#[tokio::test]
async fn who_was_lost_while_a_save_was_under_way_cannot_read_the_next() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    for round in 0..3 {
        let name = format!("Round {round}");
        let (removed, saved) =
            tokio::join!(ann.remove_member(chat_id, "bob"), ann.set_profile(Some(&name), None, None));
        removed.unwrap();
        saved.unwrap();
        ann.set_profile(None, Some(&name), None).await.unwrap();
        assert_eq!(wraps(&database, ann.user_id(), bob.session_id()).await, 0);
        let seq = ann.add_member(chat_id, "bob", true, false).await.unwrap();
        caught_up(&bob, chat_id, seq).await;
        reads(&bob, ann.user_id(), &name).await;
    }
}

/// Sends what must be refused; nothing may have changed.
async fn refused(database: &Database, socket: &mut Socket, request: Request) -> sealcast::protocol::frame::Error {
    let before = contents(database).await;
    let error = socket.request(request).await.expect_err("a refusal");
    assert_eq!(contents(database).await, before, "{} changed something", error.code);
    error
}

async fn fetch(socket: &mut Socket, user_id: UserId) -> ShownProfile {
    match socket.request(Request::FetchProfile(FetchProfile { user_id })).await.unwrap() {
        Reply::Profile(shown) => *shown,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_must_not_be_saved_is_refused_and_changes_nothing() {
    let mut pair = Pair::start().await;
    let stranger = Device::register(&pair.broker, "stranger").await;
    let mut stranger_socket = stranger.connect_live(&pair.broker).await;
    let (database, ada, bob) = (&pair.database, &pair.ada, &pair.bob);
    let socket = &mut pair.ada_socket;
    let key_id = InfoKeyId::generate();
    let good = ada.profile(1, key_id, b"a name of bytes that only look sealed");
    let set = |set: &SetProfile| Request::SetProfile(Box::new(set.clone()));
    let signed = |change: &dyn Fn(&mut SealedProfile)| {
        let mut profile = good.profile.profile.clone();
        change(&mut profile);
        SetProfile { profile: ada.sign_profile(profile), ..good.clone() }
    };
    let with = |keys| SetProfile { keys, ..good.clone() };
    let own = || ada.profile_key_wrap(key_id, ada.session_id);
    let unsigned = SignedProfile { signature: Signature([1; 64]), ..good.profile.clone() };
    let mut bad_wrap = own();
    bad_wrap.key.0[3] ^= 1;
    let mut of_bob = own();
    of_bob.user_id = bob.user_id;
    let blob = |bytes: usize| Some(Blob::from(vec![1; bytes]));
    let many = || (0..=PROFILE_KEY_WRAPS_MAX).map(|_| own()).collect();
    let elsewhere = SessionId::generate();
    for (request, code) in [
        (SetProfile { profile: unsigned, ..good.clone() }, ErrorCode::BadSignature),
        (signed(&|profile| profile.session_id = bob.session_id), ErrorCode::BadSignature),
        (signed(&|profile| profile.user_id = bob.user_id), ErrorCode::BadSignature),
        (signed(&|profile| profile.revision = Revision::saturating(2)), ErrorCode::EditConflict),
        (signed(&|profile| profile.revision = Revision::default()), ErrorCode::EditConflict),
        (signed(&|profile| profile.key_id = InfoKeyId::generate()), ErrorCode::Malformed),
        (signed(&|profile| profile.name = blob(PROFILE_NAME_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (signed(&|profile| profile.email = blob(PROFILE_EMAIL_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (signed(&|profile| profile.description = blob(PROFILE_DESCRIPTION_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (with(Vec::new()), ErrorCode::Malformed),
        (with(vec![ada.profile_key_wrap(key_id, bob.session_id)]), ErrorCode::Malformed),
        (with(vec![own(), own()]), ErrorCode::Malformed),
        (with(vec![own(), of_bob]), ErrorCode::Malformed),
        (with(many()), ErrorCode::TooLarge),
        (with(vec![bad_wrap.clone()]), ErrorCode::BadSignature),
        (with(vec![own(), bob.profile_key_wrap(key_id, bob.session_id)]), ErrorCode::Malformed),
        (with(vec![own(), ada.profile_key_wrap(key_id, elsewhere)]), ErrorCode::RecipientsChanged),
        (with(vec![own(), ada.profile_key_wrap(key_id, stranger.session_id)]), ErrorCode::RecipientsChanged),
    ] {
        let error = refused(database, socket, set(&request)).await;
        assert_eq!(error.code, code, "{request:?}");
        if code == ErrorCode::RecipientsChanged {
            assert_eq!(error.details.unwrap().extra, [request.keys[1].session_id]);
        }
    }
    let ask = |user_id| Request::RequestProfileKey(RequestProfileKey { user_id });
    assert_eq!(refused(database, socket, ask(ada.user_id)).await.code, ErrorCode::UnknownKey);
    // The largest and the good are taken, and the good once.
    let largest = signed(&|profile| {
        profile.name = blob(PROFILE_NAME_BYTES_MAX);
        profile.email = blob(PROFILE_EMAIL_BYTES_MAX);
        profile.description = blob(PROFILE_DESCRIPTION_BYTES_MAX);
    });
    socket.request(set(&largest)).await.unwrap();
    let before = contents(database).await;
    socket.request(set(&largest)).await.unwrap();
    assert_eq!(contents(database).await, before, "the same request again changes nothing");
    let error = refused(database, socket, set(&good)).await;
    assert_eq!((error.code, error.details.unwrap().revision), (ErrorCode::EditConflict, Some(Revision::saturating(2))));
    let second = |keys| {
        let second = ada.profile(2, key_id, b"the second name");
        Request::SetProfile(Box::new(SetProfile { keys, ..second }))
    };
    assert_eq!(refused(database, socket, second(vec![own()])).await.code, ErrorCode::Malformed);

    // Wraps by themselves: of the user's current key, signed by who brings them, for readers.
    let upload = |keys| Request::UploadProfileKeys(UploadProfileKeys { keys });
    for (request, code) in [
        (upload(vec![ada.profile_key_wrap(InfoKeyId::generate(), bob.session_id)]), ErrorCode::UnknownKey),
        (upload(vec![bad_wrap]), ErrorCode::BadSignature),
        (upload(vec![own(), own()]), ErrorCode::Malformed),
        (upload(many()), ErrorCode::TooLarge),
        (upload(vec![ada.profile_key_wrap(key_id, elsewhere)]), ErrorCode::RecipientsChanged),
        (upload(vec![ada.profile_key_wrap(key_id, stranger.session_id)]), ErrorCode::RecipientsChanged),
    ] {
        assert_eq!(refused(database, socket, request).await.code, code);
    }
    // Another user wraps nothing for her.
    let by_bob = upload(vec![bob.profile_key_wrap(key_id, bob.session_id)]);
    assert_eq!(refused(database, &mut pair.bob_socket, by_bob).await.code, ErrorCode::UnknownKey);
    assert!(fetch(&mut pair.bob_socket, ada.user_id).await.key.is_none());
    socket.request(upload(vec![ada.profile_key_wrap(key_id, bob.session_id)])).await.unwrap();
    let told = |frame: &ServerFrame| match frame {
        ServerFrame::ProfileChanged(changed) => Some(changed.user_id),
        _ => None,
    };
    assert_eq!(pair.bob_socket.push_that(told).await, ada.user_id);
    let shown = fetch(&mut pair.bob_socket, ada.user_id).await;
    assert_eq!(shown.key.unwrap().wrapped_by_session_id, ada.session_id);
    assert_eq!(shown.profile.unwrap(), largest.profile);
    let before = contents(database).await;
    socket.request(upload(vec![ada.profile_key_wrap(key_id, bob.session_id)])).await.unwrap();
    assert_eq!(contents(database).await, before, "a wrap that is there stays");
    // The wrap that one was given is given up, counts as given, and another one takes its place.
    pair.bob_socket.request(ask(ada.user_id)).await.unwrap();
    assert!(fetch(&mut pair.bob_socket, ada.user_id).await.key.is_none());
    socket.request(upload(vec![ada.profile_key_wrap(key_id, bob.session_id)])).await.unwrap();
    assert!(fetch(&mut pair.bob_socket, ada.user_id).await.key.is_some());
    // Strangers learn nothing, and ask for nothing.
    for request in [Request::FetchProfile(FetchProfile { user_id: ada.user_id }), ask(ada.user_id)] {
        assert_eq!(refused(database, &mut stranger_socket, request).await.code, ErrorCode::UnknownUser);
    }

    // Somebody is lost: the current key is no use any more.
    socket.request(second(Vec::new())).await.unwrap();
    socket.request(Request::SetBlock(SetBlock { user_id: bob.user_id, blocked: true })).await.unwrap();
    let third = ada.profile(3, key_id, b"the third name");
    let stale = SetProfile { keys: Vec::new(), ..third };
    assert_eq!(refused(database, socket, set(&stale)).await.code, ErrorCode::InfoKeyStale);
    assert!(fetch(&mut pair.bob_socket, ada.user_id).await.profile.is_none());
    assert_eq!(refused(database, &mut pair.bob_socket, ask(ada.user_id)).await.code, ErrorCode::UnknownKey);
    let new_key = InfoKeyId::generate();
    let mut renewed = ada.profile(3, new_key, b"under another key");
    renewed.keys.push(ada.profile_key_wrap(new_key, bob.session_id));
    assert_eq!(refused(database, socket, set(&renewed)).await.code, ErrorCode::RecipientsChanged);
    renewed.keys.truncate(1);
    socket.request(set(&renewed)).await.unwrap();
    let old = format!("SELECT count(*) FROM vault_user_info_keys WHERE key_id = '{key_id}'");
    assert_eq!(database.count(&old).await, 0, "wraps of the old key are gone");
}

#[tokio::test]
async fn who_saves_too_often_is_told_to_wait() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 3);
    let mut pair = Pair::start_on(database, settings).await;
    let key_id = InfoKeyId::generate();
    let mut last = None;
    for revision in 1..=4 {
        let mut set = pair.ada.profile(revision, key_id, b"again and again");
        if revision > 1 {
            set.keys.clear();
        }
        last = pair.ada_socket.request(Request::SetProfile(Box::new(set))).await.err();
        if last.is_some() {
            break;
        }
    }
    assert_eq!(last.expect("a refusal").code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn the_terminal_client_saves_shows_and_clears_profiles() {
    let (database, parent) = (Database::create().await, TempDir::new().unwrap());
    let broker = Broker::start(&database).await;
    let (ada, bob, _) = two(&broker, &parent).await;
    let nothing = ada.ok(&["profile", "show"]).await;
    assert!(nothing.contains("says nothing"), "{nothing}");
    let saved = ada.ok(&["profile", "set", "--name", "Ada L.", "--email", "ada@example.org"]).await;
    assert_eq!(saved, "ada\tAda L.\tada@example.org\n");
    ada.ok(&["profile", "set", "--description", "Weaves.", "--email", ""]).await;
    assert_eq!(bob.ok(&["profile", "show", "ada"]).await, "ada\tAda L.\t\nWeaves.\n");
    let shown: serde_json::Value =
        serde_json::from_str(bob.ok(&["--json", "profile", "show", "ada"]).await.trim()).unwrap();
    assert_eq!((&shown["name"], &shown["email"]), (&"Ada L.".into(), &serde_json::Value::Null));
    let refused = bob.fails(&["profile", "show", "nobody"]).await;
    assert!(refused.contains("no user of that name"), "{refused}");
    let carol = Profile::new(&parent, "carol");
    carol.ok(&["register", "--server", &broker.public, "carol"]).await;
    let refused = carol.fails(&["profile", "show", "ada"]).await;
    assert!(refused.contains("no chat that you are in together"), "{refused}");
}
