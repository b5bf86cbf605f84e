//! Accounts: who may be added by whom, and their end.

use sealcast::protocol::account::ACCOUNTS_PATH;
use sealcast::protocol::certificate::UserEvent;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{
    self, AddPolicy, Direction, LookupUser, MemberName, Nothing, Reply, Request, ServerFrame, Settings as Own,
};
use sealcast::protocol::ids::{ChatId, Seq, UserId};
use sealcast::protocol::limits::BLOCKS_MAX;
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::membership::{Change, HistoryPolicy};
use sealcast::protocol::username::Username;

use super::messages::Pair;
use super::rights::agrees;
use super::support::broker::{Broker, Settings};
use super::support::chat::{history, submit, view, whole_log};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::link::sessions;
use super::support::rights::{set_block, set_policy, settings};
use super::support::{eventually, within};

/// The refusal of an addition; nothing of it may be in the log.
async fn not_added(device: &Device, socket: &mut Socket, chat_id: ChatId, target: &Device) -> frame::Error {
    let before = view(socket, chat_id).await.seen;
    let error = device.add(socket, chat_id, target).await.unwrap_err();
    assert_eq!(view(socket, chat_id).await.seen, before);
    error
}

#[tokio::test]
async fn who_may_add_a_user_is_the_users_own_setting() {
    let mut pair = Pair::start().await;
    let carol = Device::register(&pair.broker, "carol").await;
    let mut packed = carol.connect_with(&pair.broker, Encoding::MessagePack).await;
    assert_eq!(settings(&mut packed).await, Own { add_policy: AddPolicy::Everyone, blocked: Vec::new() });
    let chat_id = pair.chat_id;

    set_policy(&mut packed, AddPolicy::Nobody).await;
    let by_policy = not_added(&pair.ada, &mut pair.ada_socket, chat_id, &carol).await;
    assert_eq!(by_policy.code, ErrorCode::NotAllowedToAdd);

    set_policy(&mut packed, AddPolicy::SharedChat).await;
    let stranger = not_added(&pair.ada, &mut pair.ada_socket, chat_id, &carol).await;
    let theirs = carol.create_chat(&mut packed).await;
    carol.add(&mut packed, theirs, &pair.bob).await.unwrap();
    let still_strange = not_added(&pair.ada, &mut pair.ada_socket, chat_id, &carol).await;
    carol.add(&mut packed, theirs, &pair.ada).await.unwrap();
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();

    set_policy(&mut packed, AddPolicy::Everyone).await;
    set_block(&mut packed, pair.ada.user_id, true).await.unwrap();
    let blocked = not_added(&pair.ada, &mut pair.ada_socket, chat_id, &carol).await;
    for other in [&stranger, &still_strange, &blocked] {
        let answer = |error: &frame::Error| (error.code, error.message.clone(), error.details.clone());
        assert_eq!(answer(other), answer(&by_policy), "who is blocked must not learn it");
    }
    // It is about one user alone, and ends when its maker says so.
    let others = pair.bob.create_chat(&mut pair.bob_socket).await;
    pair.bob.add(&mut pair.bob_socket, others, &carol).await.unwrap();
    set_block(&mut packed, pair.ada.user_id, false).await.unwrap();
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    carol.say(&mut packed, chat_id, "as a member").await.unwrap();
}

#[tokio::test]
async fn a_block_under_a_welcoming_policy_and_shared_chats_still_holds() {
    let mut pair = Pair::start().await;
    set_policy(&mut pair.bob_socket, AddPolicy::SharedChat).await;
    set_block(&mut pair.bob_socket, pair.ada.user_id, true).await.unwrap();
    let own = pair.ada.create_chat(&mut pair.ada_socket).await;
    let error = not_added(&pair.ada, &mut pair.ada_socket, own, &pair.bob).await;
    assert_eq!(error.code, ErrorCode::NotAllowedToAdd);
    // Rules of the chat come first: they say nothing of the target.
    let member = pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap_err();
    assert_eq!(member.code, ErrorCode::AlreadyMember);
    // In the chat that both are in nothing changes.
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "still here").await.unwrap();
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "so am I").await.unwrap();
}

#[tokio::test]
async fn blocks_are_listed_bounded_and_about_others() {
    let mut pair = Pair::start().await;
    let carol = Device::register(&pair.broker, "carol").await;
    let socket = &mut pair.bob_socket;
    for _ in 0..2 {
        set_block(socket, pair.ada.user_id, true).await.unwrap();
        set_block(socket, carol.user_id, true).await.unwrap();
    }
    let mut blocked: Vec<MemberName> = [&pair.ada, &carol]
        .map(|device| MemberName { user_id: device.user_id, username: Username::parse(&device.username).unwrap() })
        .into();
    blocked.sort_by_key(|user| user.user_id);
    assert_eq!(settings(socket).await, Own { add_policy: AddPolicy::Everyone, blocked: blocked.clone() });
    assert!(settings(&mut pair.ada_socket).await.blocked.is_empty());
    let error = set_block(socket, pair.bob.user_id, true).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Malformed);
    let error = set_block(socket, UserId::generate(), true).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownUser);
    // Whoever is not blocked can be unblocked, known or not.
    set_block(socket, UserId::generate(), false).await.unwrap();
    let fill = format!(
        "INSERT INTO users (id, username, identity_public_key, chain_hash) SELECT gen_random_uuid(), 'crowd' || n, \
         decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex') FROM generate_series(1, {}) n; \
         INSERT INTO user_blocks SELECT '{}', id FROM users WHERE username LIKE 'crowd%'",
        BLOCKS_MAX - 3,
        pair.bob.user_id,
    );
    pair.database.client().await.batch_execute(&fill).await.unwrap();
    let (dan, eve) = (Device::register(&pair.broker, "dan").await, Device::register(&pair.broker, "eve").await);
    set_block(socket, dan.user_id, true).await.unwrap();
    let error = set_block(socket, eve.user_id, true).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().limit), (ErrorCode::LimitReached, Some(BLOCKS_MAX as u64)));
    set_block(socket, dan.user_id, true).await.unwrap();
    set_block(socket, carol.user_id, false).await.unwrap();
    set_block(socket, eve.user_id, true).await.unwrap();
    assert_eq!(settings(socket).await.blocked.len(), BLOCKS_MAX);
}

/// Waits for the entry that says that an account ended.
async fn told(socket: &mut Socket, chat_id: ChatId, user_id: UserId) -> Seq {
    let is_it = |entry: &sealcast::protocol::log::LogEntry| {
        matches!(&entry.body, EntryBody::AccountDeleted(signed) if signed.deletion.user_id == user_id)
            .then_some(entry.seq)
    };
    socket
        .push_that(|push| match push {
            ServerFrame::Entry(push) if push.chat_id == chat_id => is_it(&push.entry),
            ServerFrame::Page(page) if page.chat_id == chat_id => page.entries.iter().find_map(is_it),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn p5_an_account_ends_everywhere_at_once() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let phone = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let mut phone_socket = phone.connect_live(&pair.broker).await;
    let waiting = pair.ada.pending(&pair.broker).await;
    let own = pair.ada.create_chat(&mut pair.ada_socket).await;
    let first = pair.ada.say(&mut pair.ada_socket, chat_id, "to be remembered").await.unwrap();
    let before = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&before, chat_id);
    let message = pair.bob.seal(&before, &mut key, b"she holds this key");
    submit(&mut pair.bob_socket, message).await.unwrap();

    let chain = sessions(&mut pair.ada_socket).await;
    let reply = pair.ada_socket.request(Request::DeleteAccount(pair.ada.account_deletion(&chain))).await.unwrap();
    assert_eq!(reply, Reply::Done(Nothing {}), "the answer comes before the end of the connection");
    for socket in [&mut pair.ada_socket, &mut phone_socket] {
        assert_eq!(within("the close", socket.close_code()).await, Some(CloseCode::SessionRevoked.number()));
    }
    let seq = told(&mut pair.bob_socket, chat_id, pair.ada.user_id).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.epoch(), now.fold.roster_version()), (before.fold.epoch().next(), seq));
    let recipients: Vec<_> = now.fold.recipients().keys().copied().collect();
    assert_eq!(recipients, vec![pair.bob.session_id]);
    assert_eq!(now.fold.membership().owner_id, pair.bob.user_id, "there is nobody else");
    agrees(&pair.database, chat_id, &now.fold).await;

    let message = pair.bob.seal(&now, &mut key, b"under the key that she holds");
    assert_eq!(submit(&mut pair.bob_socket, message).await.unwrap_err().code, ErrorCode::KeyStale);
    pair.bob.say(&mut pair.bob_socket, chat_id, "on my own").await.unwrap();
    pair.bob.rekey(&mut pair.bob_socket, chat_id).await.unwrap();

    // What she wrote can still be read, and its chain verified.
    let log = whole_log_from(&mut pair.bob_socket, chat_id).await;
    let kept = log.iter().find(|entry| entry.seq == first.seq).unwrap();
    assert!(matches!(&kept.body, EntryBody::Message(envelope) if envelope.data.is_some()));
    assert_eq!(kept.log_hash, first.log_hash);

    // Nothing of hers is left but what others need to verify.
    for (what, sql) in [
        ("user", format!("SELECT count(*) FROM users WHERE id = '{}'", pair.ada.user_id)),
        ("sessions", format!("SELECT count(*) FROM user_sessions WHERE user_id = '{}'", pair.ada.user_id)),
        ("memberships", format!("SELECT count(*) FROM user_in_chat WHERE user_id = '{}'", pair.ada.user_id)),
        ("copies", copies_of(&[&pair.ada, &phone, &waiting])),
        ("own chat", format!("SELECT count(*) FROM chats WHERE id = '{own}'")),
        ("own log", format!("SELECT count(*) FROM chat_events WHERE chat_id = '{own}'")),
    ] {
        assert_eq!(pair.database.count(&sql).await, 0, "{what}");
    }
    let row = "SELECT kind, body, hash FROM user_events WHERE user_id = $1 ORDER BY place DESC LIMIT 1";
    let row = pair.database.client().await.query_one(row, &[&pair.ada.user_id.0]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "deletion");
    let signed = rmp_serde::from_slice(row.get(1)).unwrap();
    let last = UserEvent::Deletion(signed);
    assert_eq!((last.place(), last.previous()), (chain.place.next(), chain.hash));
    assert_eq!(row.get::<_, &[u8]>(2), last.chain_hash().as_ref());
    let UserEvent::Deletion(signed) = last else { panic!() };
    assert!(signed.verifies(&pair.ada.identity_key()));

    // Whoever lost the answer learns it from the login.
    for device in [&pair.ada, &phone, &waiting] {
        let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
        let error = socket.request(device.login(&socket.hello)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unauthenticated);
        assert_eq!(socket.close_code().await, Some(CloseCode::LoginRefused.number()));
    }
    let lookup = Request::LookupUser(LookupUser { username: Username::parse("ada").unwrap() });
    assert_eq!(pair.bob_socket.request(lookup).await.unwrap_err().code, ErrorCode::UnknownUser);
    let error = pair.bob.add(&mut pair.bob_socket, chat_id, &pair.ada).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownUser);
    // Neither the name nor the user ever comes again.
    for newcomer in [Device::unregistered("ada", 86_400), Device::unregistered("ADA", 86_400), pair.ada.clone()] {
        let body = serde_json::to_string(&newcomer.registration()).unwrap();
        let (status, answer) = pair.broker.request("POST", ACCOUNTS_PATH, &body).await;
        assert!(status == 409 && answer.contains("\"username_taken\""), "{status} {answer}");
    }
    let mut renamed = pair.ada.clone();
    "another".clone_into(&mut renamed.username);
    let body = serde_json::to_string(&renamed.registration()).unwrap();
    let (_, answer) = pair.broker.request("POST", ACCOUNTS_PATH, &body).await;
    assert!(answer.contains("\"username_taken\""), "a user id does not return either: {answer}");
}

fn copies_of(devices: &[&Device]) -> String {
    let ids: Vec<String> = devices.iter().map(|device| format!("'{}'", device.session_id)).collect();
    let ids = ids.join(", ");
    format!(
        "SELECT (SELECT count(*) FROM vault_chat_sender_keys WHERE session_id IN ({ids})) \
         + (SELECT count(*) FROM vault_chat_info_keys WHERE session_id IN ({ids})) \
         + (SELECT count(*) FROM session_cursors WHERE session_id IN ({ids}))"
    )
}

/// The log as a member may read it; its chain is checked.
async fn whole_log_from(socket: &mut Socket, chat_id: ChatId) -> Vec<sealcast::protocol::log::LogEntry> {
    let log = whole_log(socket, chat_id).await;
    assert!(log.iter().any(|entry| matches!(entry.body, EntryBody::AccountDeleted(_))));
    log
}

#[tokio::test]
async fn only_the_identity_key_ends_an_account_and_only_at_its_place() {
    let mut pair = Pair::start().await;
    let chain = sessions(&mut pair.ada_socket).await;
    let before = pair.database.count("SELECT count(*) FROM user_events").await;
    let good = pair.ada.account_deletion(&chain);
    let mut by_session = good.clone();
    by_session.deletion.signature =
        super::support::device::sign(&pair.ada.signing, &by_session.deletion.deletion.signed_bytes());
    let mut of_another = pair.ada.clone();
    of_another.user_id = pair.bob.user_id;
    let bobs = sessions(&mut pair.bob_socket).await;
    for wrong in [by_session, of_another.account_deletion(&chain), pair.bob.account_deletion(&bobs)] {
        let error = pair.ada_socket.request(Request::DeleteAccount(wrong)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadSignature);
    }
    let _phone = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let error = pair.ada_socket.request(Request::DeleteAccount(good)).await.unwrap_err();
    let now = sessions(&mut pair.ada_socket).await;
    let details = error.details.unwrap();
    assert_eq!((error.code, details.place, details.hash), (ErrorCode::EventConflict, Some(now.place), Some(now.hash)));
    assert_eq!(pair.database.count("SELECT count(*) FROM user_events").await, before + 1);
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "still here").await.unwrap();
    pair.ada.delete_account(&mut pair.ada_socket).await.unwrap();
}

#[tokio::test]
async fn chats_pass_to_the_first_manager_else_to_the_first_member() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let mut devices = Vec::new();
    for name in ["ada", "bob", "carol", "dan"] {
        let device = Device::register(&broker, name).await;
        let socket = device.connect_live(&broker).await;
        devices.push((device, socket));
    }
    let [(ada, mut ada_socket), (bob, _bob_socket), (carol, mut carol_socket), (dan, mut dan_socket)] =
        devices.try_into().unwrap_or_else(|_| panic!());
    // Dan joins before carol and manages; bob joined first and does not.
    let managed = ada.create_chat(&mut ada_socket).await;
    ada.add(&mut ada_socket, managed, &bob).await.unwrap();
    ada.add_with(&mut ada_socket, managed, &dan, false, true).await.unwrap();
    ada.add_with(&mut ada_socket, managed, &carol, true, true).await.unwrap();
    let plain = ada.create_chat(&mut ada_socket).await;
    for device in [&carol, &dan, &bob] {
        ada.add_with(&mut ada_socket, plain, device, false, false).await.unwrap();
    }
    let guest = carol.create_chat(&mut carol_socket).await;
    carol.add_with(&mut carol_socket, guest, &ada, true, true).await.unwrap();
    ada.delete_account(&mut ada_socket).await.unwrap();
    for (chat_id, heir) in [(managed, &dan), (plain, &carol), (guest, &carol)] {
        let now = view(&mut carol_socket, chat_id).await;
        agrees(&database, chat_id, &now.fold).await;
        let membership = now.fold.membership();
        assert_eq!(membership.owner_id, heir.user_id);
        assert!(!membership.members.contains_key(&ada.user_id));
        let member = membership.members[&heir.user_id];
        assert!(member.can_write && member.can_manage);
    }
    // They do what owners do, at once.
    dan.say(&mut dan_socket, managed, "mine").await.unwrap();
    dan.transfer(&mut dan_socket, managed, &carol).await.unwrap();
    carol.set_history(&mut carol_socket, plain, HistoryPolicy::Shared).await.unwrap();
    carol.delete(&mut carol_socket, plain).await.unwrap();
}

#[tokio::test]
async fn an_account_in_as_many_chats_as_allowed_ends_in_one_go() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ada, bob) = (Device::register(&broker, "ada").await, Device::register(&broker, "bob").await);
    let (mut ada_socket, mut bob_socket) = (ada.connect(&broker).await, bob.connect(&broker).await);
    let (hers, alone) = (ada.create_chat(&mut ada_socket).await, ada.create_chat(&mut ada_socket).await);
    ada.add(&mut ada_socket, hers, &bob).await.unwrap();
    let his = bob.create_chat(&mut bob_socket).await;
    bob.add(&mut bob_socket, his, &ada).await.unwrap();
    // The others are copies of these three, for whom nobody asks: 500 by hand take longer than their end.
    for (chat_id, copies) in [(hers, 299), (alone, 99), (his, 99)] {
        let copy = format!(
            "WITH made AS (INSERT INTO chats (id, owner_id, last_seq, log_hash, epoch, roster_version, roster_hash, \
                 change_no, change_hash, next_expiry, created_at) \
                 SELECT gen_random_uuid(), owner_id, last_seq, log_hash, epoch, roster_version, roster_hash, \
                 change_no, change_hash, next_expiry, created_at FROM chats, generate_series(1, {copies}) \
                 WHERE id = '{chat_id}' RETURNING id) \
             INSERT INTO user_in_chat (chat_id, user_id, can_write, can_manage, joined_seq, readable_from) \
             SELECT made.id, user_id, can_write, can_manage, joined_seq, readable_from \
             FROM made, user_in_chat WHERE chat_id = '{chat_id}'"
        );
        database.client().await.batch_execute(&copy).await.unwrap();
    }
    let of_ada = format!("SELECT count(*) FROM user_in_chat WHERE user_id = '{}'", ada.user_id);
    assert_eq!(database.count(&of_ada).await, 500);
    ada.delete_account(&mut ada_socket).await.unwrap();
    assert_eq!(database.count("SELECT count(*) FROM chats").await, 400, "those of her own are gone");
    assert_eq!(database.count("SELECT count(*) FROM chat_events WHERE kind = 'account_deleted'").await, 400);
    let owned = format!("SELECT count(*) FROM chats WHERE owner_id = '{}'", bob.user_id);
    assert_eq!(database.count(&owned).await, 400);
    assert_eq!(database.count("SELECT count(*) FROM user_in_chat").await, 400);
    for chat_id in [his, hers] {
        agrees(&database, chat_id, &view(&mut bob_socket, chat_id).await.fold).await;
        bob.say(&mut bob_socket, chat_id, "alone").await.unwrap();
    }
}

#[tokio::test]
async fn what_begins_while_an_account_ends_finds_it_whole_or_gone() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 10_000);
    let broker = Broker::start_with(settings).await;
    let bob = Device::register(&broker, "bob").await;
    let mut bob_socket = bob.connect_live(&broker).await;
    let chat_id = bob.create_chat(&mut bob_socket).await;
    for round in 0..6 {
        let ada = Device::register(&broker, &format!("ada{round}")).await;
        let mut ada_socket = ada.connect_live(&broker).await;
        bob.add(&mut bob_socket, chat_id, &ada).await.unwrap();
        let own = bob.create_chat(&mut bob_socket).await;
        let now = view(&mut ada_socket, chat_id).await;
        let mut key = ada.sender_key(&now, chat_id);
        // In flight at once: her messages, a chat of hers, her addition to another, a message to her, her end.
        let mut open = Vec::new();
        for _ in 0..10 {
            let message = ada.seal(&now, &mut key, b"last words");
            open.push(ada_socket.send(Request::Send(Box::new(message))).await);
        }
        let creation = ada.creation(ChatId::generate());
        ada_socket.send(Request::CreateChat(creation.clone())).await;
        let place = view(&mut bob_socket, own).await;
        let (roster_hash, epoch) = (place.fold.roster_hash(), place.fold.epoch());
        let add = Change::Add { can_write: true, can_manage: true, roster_hash, epoch };
        let change = bob.change_from(&place, own, add, &ada);
        let chain = sessions(&mut ada_socket).await;
        let deletion = Request::DeleteAccount(ada.account_deletion(&chain));
        let ending = ada_socket.send(deletion).await;
        let mut to_her = bob.sender_key(&now, chat_id);
        let message = bob.seal(&now, &mut to_her, b"are you there");
        let request = frame::ChangeMembership { chat_id: own, change, info_keys: Vec::new() };
        let adding = bob_socket.send(Request::ChangeMembership(request)).await;
        let sending = bob_socket.send(Request::Send(Box::new(message))).await;
        let (added, sent) = (bob_socket.answer(adding).await, bob_socket.answer(sending).await);
        // Her connection ends with her account: what was not answered by then is answered by the log.
        assert_eq!(within("the close", ada_socket.close_code()).await, Some(CloseCode::SessionRevoked.number()));
        let (mut taken, mut has_ended) = (0, false);
        while let Some(frame) = ada_socket.push().await {
            match frame {
                ServerFrame::Ok(ok) if ok.id == ending => has_ended = true,
                ServerFrame::Ok(ok) if open.contains(&ok.id) => taken += 1,
                ServerFrame::Error(error) => {
                    let codes = [ErrorCode::UnknownChat, ErrorCode::KeyStale, ErrorCode::StorageUnavailable];
                    assert!(codes.contains(&error.code), "{error:?}");
                }
                _ => {}
            }
        }
        assert!(has_ended, "the end was not answered");
        if let Err(error) = &added {
            assert_eq!(error.code, ErrorCode::UnknownUser, "{error:?}");
        }
        if let Err(error) = &sent {
            let codes = [ErrorCode::KeyStale, ErrorCode::RecipientsChanged, ErrorCode::RosterChanged];
            assert!(codes.contains(&error.code), "{error:?}");
        }
        // Whole or gone: no chat of hers, no membership, and each log agrees with its rows.
        let hers = format!("SELECT count(*) FROM user_in_chat WHERE user_id = '{}'", ada.user_id);
        assert_eq!(database.count(&hers).await, 0);
        assert_eq!(database.count(&format!("SELECT count(*) FROM chats WHERE id = '{}'", creation.chat_id)).await, 0);
        for chat_id in [chat_id, own] {
            let after = view(&mut bob_socket, chat_id).await;
            agrees(&database, chat_id, &after.fold).await;
            let log = whole_log(&mut bob_socket, chat_id).await;
            let end = log.iter().position(|entry| {
                matches!(&entry.body, EntryBody::AccountDeleted(signed)
                if signed.deletion.user_id == ada.user_id)
            });
            assert!(end.is_some() || chat_id == own && added.is_err(), "no word of her end");
            let hers = log.iter().filter(|entry| {
                matches!(&entry.body, EntryBody::Message(envelope)
                if envelope.sender_id == ada.user_id)
            });
            if chat_id != own {
                assert!(hers.clone().count() >= taken, "P1");
                assert!(hers.clone().all(|entry| entry.seq < log[end.unwrap()].seq), "P5");
            }
            bob.say(&mut bob_socket, chat_id, "after").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_name_is_not_given_out_while_its_account_is_ending() {
    let mut pair = Pair::start().await;
    // The end of the account is held where its user's row is deleted already and the transaction is not over.
    let outside = pair.database.client().await;
    outside.batch_execute("BEGIN; LOCK TABLE user_blocks IN SHARE MODE").await.unwrap();
    let chain = sessions(&mut pair.ada_socket).await;
    let ending = pair.ada_socket.send(Request::DeleteAccount(pair.ada.account_deletion(&chain))).await;
    let waiting = |query: &'static str| {
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
             AND query LIKE '{query}'"
        )
    };
    let held = waiting("DELETE FROM%");
    eventually("the end that is held", async || pair.database.count(&held).await > 0).await;
    let newcomer = Device::unregistered("ada", 86_400);
    let body = serde_json::to_string(&newcomer.registration()).unwrap();
    let register = pair.broker.request("POST", ACCOUNTS_PATH, &body);
    let release = async {
        let held = waiting("INSERT INTO users%");
        eventually("the registration that waits", async || pair.database.count(&held).await > 0).await;
        outside.batch_execute("COMMIT").await.unwrap();
    };
    let ((status, answer), ()) = tokio::join!(register, release);
    pair.ada_socket.answer(ending).await.unwrap();
    assert!(status == 409 && answer.contains("\"username_taken\""), "{status} {answer}");
    let page = history(&mut pair.bob_socket, pair.chat_id, Direction::Before, Seq::saturating(u64::MAX), 1).await;
    assert!(matches!(page.unwrap().entries[0].body, EntryBody::AccountDeleted(_)));
}
