//! Logins, linked devices, revocation and expiry: who is let in, who is told what, and what chats show of it.

use sealcast::protocol::account::LINKS_PATH;
use sealcast::protocol::binary::Blob;
use sealcast::protocol::certificate::{Revocation, Revoker, SignedRevocation};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode, MissingReason};
use sealcast::protocol::frame::{
    self, AdvanceCursor, Authenticate, Direction, Events, History, Keys, LookupUser, Nothing, Reply, Request, Resume,
    RevokeSession, ServerFrame, SessionState, StageCopies,
};
use sealcast::protocol::ids::{ChatId, GenerationNo, InfoKeyId, KeyId, RecoveryRequestId, Seq, ShareSetId, UserId};
use sealcast::protocol::log::{EntryBody, SessionOut};
use sealcast::protocol::membership::Change;
use sealcast::protocol::username::Username;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{copy_for, events, submit, view, whole_log};
use super::support::database::Database;
use super::support::device::{Device, Socket, now, sign};
use super::support::link::sessions;
use super::support::{eventually, within};

/// One of every request, as a member of a chat could send it; only the login is left out.
async fn requests(pair: &mut Pair) -> Vec<Request> {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let chat_id = pair.chat_id;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let chain = sessions(&mut pair.ada_socket).await;
    let mut pending = pair.ada.pending(&pair.broker).await;
    pending.certify_at(chain.place.next(), chain.hash);
    let change = pair.ada.change_from(&now, chat_id, Change::Remove, &pair.bob);
    let mut requests = vec![
        Request::Resume(Resume { cursors: Vec::new() }),
        Request::LookupUser(LookupUser { username: Username::parse("bob").unwrap() }),
        Request::ListSessions(Nothing {}),
        Request::ApproveSession(pending.approval()),
        Request::RevokeSession(RevokeSession {
            revocation: pair.ada.revocation(&chain, pair.ada.session_id),
            withdrawal: None,
        }),
        Request::FetchHandover(Nothing {}),
        Request::CreateChat(pair.ada.creation(ChatId::generate())),
        Request::ChangeMembership(frame::ChangeMembership { chat_id, change, info_keys: Vec::new() }),
        Request::DeleteChat(frame::DeleteChat {
            chat_id,
            change: pair.ada.change_from(&now, chat_id, Change::Delete, &pair.ada),
        }),
        Request::ListChats(Nothing {}),
        Request::ListMembers(frame::ListMembers { chat_id }),
        Request::Send(Box::new(pair.ada.seal(&now, &mut key, b"unasked"))),
        Request::StageCopies(StageCopies {
            chat_id,
            key_id: KeyId::generate(),
            part: 0,
            parts: 1,
            copies: vec![copy_for(pair.bob.session_id)],
        }),
        Request::History(History { chat_id, direction: Direction::After, seq: Seq::default(), limit: 1 }),
        Request::Events(Events { chat_id, after: Seq::default(), before: Seq::saturating(u64::MAX) }),
        Request::Keys(Keys { chat_id, key_ids: vec![KeyId::generate()] }),
        Request::AdvanceCursor(AdvanceCursor { chat_id, seq: Seq::saturating(1) }),
        Request::Ping(Nothing {}),
        Request::UserEvents(frame::UserEvents {
            users: vec![frame::ChainFrom { user_id: pair.bob.user_id, after: chain.place }],
        }),
        Request::SetLabel(frame::SetLabel { session_id: pair.ada.session_id, label: Some(Blob::from(vec![7; 40])) }),
        Request::DeleteAccount(pair.ada.account_deletion(&chain)),
        Request::FetchSettings(Nothing {}),
        Request::SetAddPolicy(frame::SetAddPolicy { policy: frame::AddPolicy::Nobody }),
        Request::SetBlock(frame::SetBlock { user_id: pair.bob.user_id, blocked: true }),
        Request::Signal(pair.ada.signal(chat_id, key.announcement.announcement.key_id)),
        Request::ListDeliveries(frame::ListDeliveries { chat_id }),
        Request::RequestKeys(frame::RequestKeys { chat_id, key_ids: vec![KeyId::generate()] }),
        Request::UploadCopies(frame::UploadCopies {
            chat_id,
            copies: vec![frame::FurtherCopy {
                key_id: KeyId::generate(),
                session_id: pair.bob.session_id,
                key: copy_for(pair.bob.session_id).key,
            }],
        }),
        Request::RefuseCopy(pair.ada.copy_refusal(chat_id, KeyId::generate())),
        Request::SetChatInfo(Box::new(pair.ada.named(chat_id, 1, InfoKeyId::generate(), b"late"))),
        Request::UploadInfoKeys(frame::UploadInfoKeys {
            chat_id,
            info_keys: vec![pair.ada.info_key_wrap(chat_id, InfoKeyId::generate(), pair.ada.session_id)],
            seal: None,
        }),
        Request::RequestInfoKey(frame::RequestInfoKey { chat_id }),
        Request::MakeGeneration(pair.ada.generation(&now, chat_id, GenerationNo::saturating(1))),
        Request::RefuseGeneration(pair.ada.generation_refusal(chat_id, GenerationNo::saturating(1))),
        Request::FetchGroupKeys(frame::FetchGroupKeys { chat_id, after: GenerationNo::default() }),
        Request::UploadLinks(frame::UploadLinks { chat_id, links: vec![pair.ada.generation_link(chat_id, 2)] }),
        Request::FetchLinks(frame::FetchLinks { chat_id, after: GenerationNo::default() }),
        Request::FetchArchives(frame::FetchArchives { chat_id, key_ids: Vec::new() }),
        Request::UploadBackups(frame::UploadBackups { session_id: pair.ada.session_id, backups: Vec::new() }),
        Request::FetchBackups(Nothing {}),
        Request::FetchUserKeys(frame::FetchUserKeys { user_ids: vec![pair.bob.user_id] }),
        Request::SetShares(Box::new(pair.ada.shares_with(&[pair.bob.user_id, UserId::generate()]))),
        Request::FetchShare(frame::FetchShare { user_id: pair.bob.user_id }),
        Request::ListRecoveryRequests(Nothing {}),
        Request::ReleaseShare(Box::new(pair.ada.released(RecoveryRequestId::generate(), ShareSetId::generate()))),
        Request::CancelRecoveryRequest(pair.ada.cancellation(RecoveryRequestId::generate())),
        Request::SetProfile(Box::new(pair.ada.profile(1, InfoKeyId::generate(), b"late"))),
        Request::FetchProfile(frame::FetchProfile { user_id: pair.bob.user_id }),
        Request::UploadProfileKeys(frame::UploadProfileKeys {
            keys: vec![pair.ada.profile_key_wrap(InfoKeyId::generate(), pair.ada.session_id)],
        }),
        Request::RequestProfileKey(frame::RequestProfileKey { user_id: pair.bob.user_id }),
    ];
    requests.extend(pair.ada.every_secret_request(chat_id));
    let names: std::collections::BTreeSet<&str> = requests.iter().map(Request::name).collect();
    assert_eq!(names.len() + 1, Request::NAMES.len(), "a request is left out");
    requests
}

/// Counts what requests change.
async fn counts(database: &Database) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["users", "user_events", "chats", "user_in_chat", "chat_events", "chat_messages", "sender_keys"] {
        counts.push(database.count(&format!("SELECT count(*) FROM {table}")).await);
    }
    for state in ["live", "pending", "revoked"] {
        counts.push(database.count(&format!("SELECT count(*) FROM user_sessions WHERE state = '{state}'")).await);
    }
    counts.push(database.count("SELECT count(*) FROM session_cursors").await);
    counts
}

#[tokio::test]
async fn a5_before_the_login_nothing_is_done() {
    let mut pair = Pair::start().await;
    let requests = requests(&mut pair).await;
    let before = counts(&pair.database).await;
    for encoding in Encoding::ALL {
        let mut socket = Socket::open(&pair.broker, encoding).await;
        for request in &requests {
            let error = socket.request(request.clone()).await.expect_err(request.name());
            assert_eq!((error.code, error.details), (ErrorCode::Unauthenticated, None), "{}", request.name());
        }
        assert_eq!(counts(&pair.database).await, before);
        // And the login is still free.
        let login = pair.ada.login(&socket.hello);
        assert!(matches!(socket.request(login).await, Ok(Reply::Authenticated(_))));
        assert!(socket.request(Request::ListChats(Nothing {})).await.is_ok());
    }
}

#[tokio::test]
async fn a_pending_session_may_do_next_to_nothing() {
    let mut pair = Pair::start().await;
    let requests = requests(&mut pair).await;
    let pending = pair.bob.pending(&pair.broker).await;
    let before = counts(&pair.database).await;
    let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
    let Reply::Authenticated(who) = socket.request(pending.login(&socket.hello)).await.unwrap() else { panic!() };
    assert_eq!((who.user_id, who.state), (pair.bob.user_id, SessionState::Pending));
    for request in requests {
        let name = request.name();
        match socket.request(request).await {
            Ok(reply) => assert!(name == "ping" && matches!(reply, Reply::Done(_)), "{name}: {reply:?}"),
            Err(error) => assert_eq!(error.code, ErrorCode::SessionPending, "{name}"),
        }
    }
    assert_eq!(counts(&pair.database).await, before);
    // It is on no roster, so nothing waits for it.
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
    assert!(socket.pushes_so_far().await.is_empty());
}

#[tokio::test]
async fn a1_a2_one_nonce_serves_one_login_on_its_own_connection() {
    let mut pair = Pair::start().await;
    let first = Socket::open(&pair.broker, Encoding::Json).await;
    let replay = pair.bob.login(&first.hello);
    let mut second = Socket::open(&pair.broker, Encoding::Json).await;
    assert_ne!(first.hello.nonce, second.hello.nonce);
    let error = second.request(replay.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert_eq!(second.close_code().await, Some(CloseCode::LoginRefused.number()));
    // After a failure: the right signature comes too late.
    let mut third = Socket::open(&pair.broker, Encoding::Json).await;
    let right = pair.bob.login(&third.hello);
    let wrong = third.send(replay.clone()).await;
    third.send(right).await;
    assert_eq!(third.answer(wrong).await.unwrap_err().code, ErrorCode::Unauthenticated);
    assert_eq!(third.close_code().await, Some(CloseCode::LoginRefused.number()));
    while let Some(push) = third.push().await {
        assert!(!matches!(push, ServerFrame::Ok(_)), "{push:?}");
    }
    // After a success: the connection ends, and the one before it was not replaced by a failure.
    let before = pair.bob_socket.request(Request::Ping(Nothing {})).await;
    assert!(before.is_ok(), "a login that fails replaces nobody");
    let mut fourth = pair.bob.connect(&pair.broker).await;
    let again = pair.bob.login(&fourth.hello);
    assert_eq!(fourth.request(again).await.unwrap_err().code, ErrorCode::Unauthenticated);
    assert_eq!(fourth.close_code().await, Some(CloseCode::LoginRefused.number()));
    let mut fifth = pair.bob.connect_live(&pair.broker).await;
    assert!(pair.bob.say(&mut fifth, pair.chat_id, "good").await.is_ok());
}

#[tokio::test]
async fn of_two_connections_of_a_session_the_one_opened_last_stays_whichever_logs_in_last() {
    let mut pair = Pair::start().await;
    let mut first = Socket::open(&pair.broker, Encoding::Json).await;
    let mut second = pair.bob.connect_live(&pair.broker).await;
    assert_eq!(pair.bob_socket.close_code().await, Some(CloseCode::Replaced.number()));
    // What a client that has given its first connection up has already written on it.
    let late = pair.bob.login(&first.hello);
    first.send(late).await;
    assert_eq!(first.close_code().await, Some(CloseCode::Replaced.number()));
    assert!(pair.bob.say(&mut second, pair.chat_id, "still here").await.is_ok());
    let gauge = || pair.broker.metric("sealcast_connections{", "authenticated");
    eventually("the count of connections", async || gauge().await == 2.0).await;
}

/// A login refused: error and close code.
async fn login_refused(broker: &Broker, login: impl Fn(&frame::Hello) -> Request) -> (frame::Error, Option<u16>) {
    let mut socket = Socket::open(broker, Encoding::Json).await;
    let request = login(&socket.hello);
    let mut error = socket.request(request).await.unwrap_err();
    error.id = None;
    let code = socket.close_code().await;
    (error, code)
}

#[tokio::test]
async fn a6_what_became_of_a_session_is_told_to_its_signer_alone() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let revoked = ada.linked(&broker, &mut socket).await;
    ada.revoke(&mut socket, revoked.session_id).await.unwrap();
    let expired = Device::register_for(&broker, "brief", 1_000_000).await;
    let waiting = ada.pending(&broker).await;
    let over = ada.pending(&broker).await;
    let client = database.client().await;
    let past = format!("UPDATE user_sessions SET expired_at = clock_timestamp() WHERE id = '{}'", over.session_id);
    client.batch_execute(&past).await.unwrap();
    let due = format!("SELECT count(*) FROM user_sessions WHERE id = '{}' AND state = 'expired'", expired.session_id);
    eventually("the sweep", async || database.count(&due).await == 1).await;
    for (device, code, close) in [
        (&revoked, ErrorCode::SessionRevoked, CloseCode::SessionRevoked),
        (&over, ErrorCode::SessionExpired, CloseCode::SessionExpired),
    ] {
        let (error, closed) = login_refused(&broker, |hello| device.login(hello)).await;
        assert_eq!((error.code, closed), (code, Some(close.number())));
    }
    expired.connect_expired(&broker).await;
    // A7: to a stranger's signature all sessions are alike, there or not; and so is a signature for another server.
    let eve = Device::register(&broker, "eve").await;
    let ghost = Device::unregistered("ghost", 1_000);
    let mut answers = Vec::new();
    for device in [&ada, &revoked, &expired, &waiting, &over, &ghost] {
        let forged = |hello: &frame::Hello| {
            let mut forger = eve.clone();
            forger.session_id = device.session_id;
            forger.login(hello)
        };
        answers.push(login_refused(&broker, forged).await);
    }
    answers.push(login_refused(&broker, |hello| ghost.login(hello)).await);
    answers.push(
        login_refused(&broker, |hello| {
            let hello = frame::Hello { server_name: "another".to_owned(), ..hello.clone() };
            ada.login(&hello)
        })
        .await,
    );
    let zero = Authenticate { session_id: ada.session_id, signature: sealcast::protocol::binary::Signature([0; 64]) };
    answers.push(login_refused(&broker, |_| Request::Authenticate(zero.clone())).await);
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
    assert_eq!((answers[0].0.code, answers[0].1), (ErrorCode::Unauthenticated, Some(4503)));
    assert!(socket.request(Request::Ping(Nothing {})).await.is_ok(), "and nobody was replaced");
}

#[tokio::test]
async fn a14_of_thirty_logins_at_once_exactly_one_survives() {
    let mut pair = Pair::start().await;
    let mut sockets = Vec::new();
    for _ in 0..30 {
        sockets.push(Socket::open(&pair.broker, Encoding::Json).await);
    }
    let bob = pair.bob.clone();
    let logins = sockets.into_iter().map(|mut socket| {
        let login = bob.login(&socket.hello);
        tokio::spawn(async move {
            socket.send(login).await;
            // One that is replaced at once may be closed before it is told that it was let in.
            match socket.push().await {
                Some(ServerFrame::Ok(_)) => {}
                None => assert_eq!(socket.closed, Some(CloseCode::Replaced.number())),
                other => panic!("{other:?}"),
            }
            socket
        })
    });
    let mut open = Vec::new();
    for login in logins.collect::<Vec<_>>() {
        open.push(within("a login", login).await.unwrap());
    }
    assert_eq!(pair.bob_socket.close_code().await, Some(CloseCode::Replaced.number()));
    eventually("one connection", async || pair.broker.metric("sealcast_connections{", "authenticated").await == 2.0)
        .await;
    let mut survivors = Vec::new();
    for mut socket in open {
        let ping = socket.send(Request::Ping(Nothing {})).await;
        loop {
            match socket.push().await {
                Some(ServerFrame::Ok(ok)) if ok.id == ping => break survivors.push(socket),
                Some(_) => {}
                None => break assert_eq!(socket.closed, Some(CloseCode::Replaced.number())),
            }
        }
    }
    assert_eq!(survivors.len(), 1);
    // The one that is left gets everything, once.
    let mut socket = survivors.pop().unwrap();
    socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
    socket.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "to the one").await.unwrap();
    let mut seen = 0;
    while seen == 0 {
        match socket.push().await.unwrap() {
            ServerFrame::Entry(push) => {
                assert_eq!(push.entry.seq, sent.seq);
                seen += 1;
            }
            ServerFrame::Key(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(socket.pushes_so_far().await.is_empty(), "and not twice");
}

#[tokio::test]
async fn a_device_is_linked_approved_and_gets_its_hand_over() {
    let mut pair = Pair::start().await;
    let mut pending = pair.bob.sibling();
    assert_eq!(pending.ask_to_link(&pair.broker).await.0, 200);
    // Its user's live devices are told, and list it.
    let told = pair
        .bob_socket
        .push_that(|push| match push {
            ServerFrame::SessionPending(pending) => Some(pending.clone()),
            _ => None,
        })
        .await;
    let listed = sessions(&mut pair.bob_socket).await;
    assert_eq!((listed.sessions.len(), listed.pending.len()), (1, 1));
    for asked in [&told, &listed.pending[0]] {
        assert_eq!(asked.session_id, pending.session_id);
        assert_eq!(asked.public_key, pending.certificate.certificate.public_key);
        assert_eq!(asked.signing_public_key, pending.certificate.certificate.signing_public_key);
        assert_eq!(asked.proof, pending.link_request().proof);
    }
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut waiting = pending.connect(&pair.broker).await;
    let error = waiting.request(Request::FetchHandover(Nothing {})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionPending);
    pair.bob.approve(&mut pair.bob_socket, &mut pending).await.unwrap();
    waiting.push_that(|push| matches!(push, ServerFrame::Approved(_)).then_some(())).await;
    let Reply::Handover(handover) = waiting.request(Request::FetchHandover(Nothing {})).await.unwrap() else {
        panic!()
    };
    assert_eq!((&handover.certificate, handover.handover.as_ref()), (&pending.certificate, b"sealed".as_slice()));
    // This connection stays what it was; the next one is live and replaces it.
    assert_eq!(waiting.request(Request::ListChats(Nothing {})).await.unwrap_err().code, ErrorCode::SessionPending);
    let mut live = pending.connect_live(&pair.broker).await;
    assert_eq!(waiting.close_code().await, Some(CloseCode::Replaced.number()));
    let after = view(&mut live, pair.chat_id).await;
    assert_eq!(after.seen.seq, before.seen.seq.next());
    assert_eq!(after.fold.epoch(), before.fold.epoch(), "no key goes stale by a newcomer");
    assert!(after.fold.recipients().contains_key(&pending.session_id));
    // A repeat is the same answer, and changes nothing.
    let listed = sessions(&mut live).await;
    assert!(pair.bob_socket.request(Request::ApproveSession(pending.approval())).await.is_ok());
    assert_eq!(sessions(&mut live).await, listed);
    assert_eq!(view(&mut live, pair.chat_id).await.seen, after.seen);
    assert_eq!(listed.place.get(), 2);
    assert!(listed.sessions.iter().all(|session| session.state == SessionState::Live));
    assert!(pending.say(&mut live, pair.chat_id, "from the new one").await.is_ok());
    // To ask again for what is live is no request any more.
    let (status, body) = pending.ask_to_link(&pair.broker).await;
    assert!(status == 404 && body.contains("\"unknown_session\""), "{body}");
    let (status, body) = pair.broker.request("POST", LINKS_PATH, "{}").await;
    assert!(status == 400 && body.contains("\"malformed\""), "{body}");
}

#[tokio::test]
async fn p4_a_new_session_makes_keys_incomplete_until_it_has_its_copy() {
    let mut pair = Pair::start().await;
    let first = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&first, pair.chat_id);
    let message = pair.ada.seal(&first, &mut key, b"before");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let new = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut new_socket = new.connect_live(&pair.broker).await;
    new_socket.push_that(|push| matches!(push, ServerFrame::Live(_)).then_some(())).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let message = pair.ada.seal(&now, &mut key, b"after");
    let error = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!(error.code, ErrorCode::CopiesMissing);
    assert_eq!((details.missing, details.reason), (vec![new.session_id], Some(MissingReason::NewSession)));
    assert_eq!(details.seq, Some(now.fold.roster_version()));
    let copy = copy_for(new.session_id);
    let mut completed = message;
    completed.add_copies = vec![copy.clone()];
    let sent = submit(&mut pair.ada_socket, completed).await.unwrap();
    // The key comes before the first entry that needs it, with this session's own copy.
    let mut has_key = false;
    loop {
        match new_socket.push().await.unwrap() {
            ServerFrame::Key(push) => {
                assert_eq!(push.key.announcement, key.announcement);
                assert_eq!(push.key.key, Some(copy.key));
                has_key = true;
            }
            ServerFrame::Entry(push) if push.entry.seq == sent.seq => break,
            _ => {}
        }
    }
    assert!(has_key);
    let message = pair.ada.seal(&now, &mut key, b"and on");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let key_ids = vec![key.announcement.announcement.key_id];
    let request = Request::Keys(Keys { chat_id: pair.chat_id, key_ids });
    let Reply::Keys(keys) = new_socket.request(request).await.unwrap() else { panic!() };
    assert_eq!(keys.keys[0].key, Some(copy.key));
}

#[tokio::test]
async fn a_wrong_place_in_the_chain_is_a_conflict() {
    let mut pair = Pair::start().await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await.seen;
    let mut pending = pair.bob.pending(&pair.broker).await;
    let chain = sessions(&mut pair.bob_socket).await;
    let wrong_hash = sealcast::protocol::binary::Hash([1; 32]);
    for (place, previous) in
        [(chain.place, chain.hash), (chain.place.next().next(), chain.hash), (chain.place.next(), wrong_hash)]
    {
        pending.certify_at(place, previous);
        let error = pair.bob_socket.request(Request::ApproveSession(pending.approval())).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::EventConflict);
        let details = error.details.unwrap();
        assert_eq!((details.place, details.hash), (Some(chain.place), Some(chain.hash)));
        let revocation = Revocation {
            user_id: pair.bob.user_id,
            place,
            previous,
            session_id: pair.bob.session_id,
            revoker: Revoker::Session(pair.bob.session_id),
            created_at: now(),
        };
        let revocation = pair.bob.sign_revocation(revocation);
        let request = Request::RevokeSession(RevokeSession { revocation, withdrawal: None });
        let error = pair.bob_socket.request(request).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::EventConflict);
        assert_eq!(error.details.unwrap().place, Some(chain.place));
    }
    assert_eq!(sessions(&mut pair.bob_socket).await, chain);
    // Two approvals at once: one comes first, the other is told so.
    let mut other = pair.bob.pending(&pair.broker).await;
    pending.certify_at(chain.place.next(), chain.hash);
    other.certify_at(chain.place.next(), chain.hash);
    let one = pair.bob_socket.send(Request::ApproveSession(pending.approval())).await;
    let two = pair.bob_socket.send(Request::ApproveSession(other.approval())).await;
    let results = [pair.bob_socket.answer(one).await, pair.bob_socket.answer(two).await];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let lost = results.into_iter().find_map(Result::err).unwrap();
    assert_eq!(lost.code, ErrorCode::EventConflict);
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen.seq, before.seq.next());
}

#[tokio::test]
async fn a_pending_session_that_nobody_approves_is_forgotten() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("session.pending_s", 1)).await;
    let ada = Device::register(&broker, "ada").await;
    let mut socket = ada.connect_live(&broker).await;
    let mut pending = ada.pending(&broker).await;
    let mut waiting = pending.connect(&broker).await;
    assert_eq!(waiting.close_code().await, Some(CloseCode::SessionExpired.number()));
    eventually("its end", async || sessions(&mut socket).await.pending.is_empty()).await;
    let error = ada.approve(&mut socket, &mut pending).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownSession);
    assert_eq!(sessions(&mut socket).await.place.get(), 1);
    // The same device asks anew and is taken.
    let (status, body) = pending.ask_to_link(&broker).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn p5_a_revoked_session_is_cut_at_once_and_its_keys_are_worth_nothing() {
    let mut pair = Pair::start().await;
    let second = pair.ada.create_chat(&mut pair.ada_socket).await;
    pair.ada.add(&mut pair.ada_socket, second, &pair.bob).await.unwrap();
    let lost = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut lost_socket = lost.connect_live(&pair.broker).await;
    let mut keys = Vec::new();
    for chat_id in [pair.chat_id, second] {
        let now = view(&mut pair.ada_socket, chat_id).await;
        let mut key = pair.ada.sender_key(&now, chat_id);
        let message = pair.ada.seal(&now, &mut key, b"for all devices");
        submit(&mut pair.ada_socket, message).await.unwrap();
        keys.push((chat_id, now, key));
    }
    let chain = sessions(&mut pair.bob_socket).await;
    let revocation = pair.bob.revocation(&chain, lost.session_id);
    let request = Request::RevokeSession(RevokeSession { revocation: revocation.clone(), withdrawal: None });
    pair.bob_socket.request(request.clone()).await.unwrap();
    // The very next messages after the answer.
    for (chat_id, before, key) in &mut keys {
        let message = pair.ada.seal(before, key, b"under the old key");
        let error = submit(&mut pair.ada_socket, message).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::KeyStale);
        let now = view(&mut pair.ada_socket, *chat_id).await;
        assert_eq!(now.fold.epoch(), before.fold.epoch().next());
        assert_eq!(error.details.unwrap().epoch, Some(now.fold.epoch()));
        assert!(!now.fold.recipients().contains_key(&lost.session_id));
        let sent = pair.ada.say(&mut pair.ada_socket, *chat_id, "among us").await.unwrap();
        assert!(sent.unreachable.is_empty());
    }
    assert_eq!(lost_socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    while let Some(push) = lost_socket.push().await {
        if let ServerFrame::Entry(push) = push {
            let is_later = keys.iter().any(|(chat_id, before, _)| {
                // One message of each chat was for it.
                *chat_id == push.chat_id && push.entry.seq > before.seen.seq.next()
            });
            assert!(!is_later, "{push:?}");
        }
    }
    // A repeat is the same answer; another revocation of the same session is of nothing.
    let before = sessions(&mut pair.bob_socket).await;
    assert!(pair.bob_socket.request(request).await.is_ok());
    let error = pair.bob.revoke(&mut pair.bob_socket, lost.session_id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownSession);
    assert_eq!(sessions(&mut pair.bob_socket).await, before);
    let state = before.sessions.iter().find(|session| session.certificate == lost.certificate).unwrap().state;
    assert_eq!(state, SessionState::Revoked);
    // Everybody can see in the log who ended it.
    let log = events(&mut pair.ada_socket, pair.chat_id).await;
    let shown = log.iter().any(|entry| match &entry.body {
        EntryBody::SessionOut(SessionOut::Revoked(signed)) => *signed == revocation,
        _ => false,
    });
    assert!(shown);
    // What was wrapped to it goes.
    let copies = format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id = '{}'", lost.session_id);
    eventually("its copies gone", async || pair.database.count(&copies).await == 0).await;
    // A revoked id never returns.
    let (status, body) = lost.ask_to_link(&pair.broker).await;
    assert!(status == 404 && body.contains("\"unknown_session\""), "{body}");
}

#[tokio::test]
async fn the_identity_key_revokes_too_and_the_last_session_may_end_itself() {
    let mut pair = Pair::start().await;
    let other = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let chain = sessions(&mut pair.bob_socket).await;
    let mut revocation = pair.bob.revocation(&chain, other.session_id).revocation;
    revocation.revoker = Revoker::Identity;
    // A session's signature is not the identity key's.
    let forged = pair.bob.sign_revocation(revocation.clone());
    let request = Request::RevokeSession(RevokeSession { revocation: forged, withdrawal: None });
    assert_eq!(pair.bob_socket.request(request).await.unwrap_err().code, ErrorCode::BadSignature);
    let signature = sign(&pair.bob.identity, &revocation.signed_bytes());
    let revocation = SignedRevocation { revocation, signature };
    pair.bob_socket.request(Request::RevokeSession(RevokeSession { revocation, withdrawal: None })).await.unwrap();
    // In the name of a session that is gone.
    let chain = sessions(&mut pair.bob_socket).await;
    let mut revocation = pair.bob.revocation(&chain, pair.bob.session_id).revocation;
    revocation.revoker = Revoker::Session(other.session_id);
    let revocation = other.sign_revocation(revocation);
    let request = Request::RevokeSession(RevokeSession { revocation, withdrawal: None });
    assert_eq!(pair.bob_socket.request(request).await.unwrap_err().code, ErrorCode::SessionRevoked);
    let revocation = pair.bob.revocation(&chain, pair.bob.session_id);
    pair.bob_socket.send(Request::RevokeSession(RevokeSession { revocation, withdrawal: None })).await;
    assert_eq!(pair.bob_socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "is anybody there").await.unwrap();
    assert_eq!(sent.unreachable, [pair.bob.user_id]);
    whole_log(&mut pair.ada_socket, pair.chat_id).await;
}

#[tokio::test]
async fn l5_a_session_that_expires_while_connected_is_closed_and_its_chats_show_it() {
    let mut pair = Pair::start().await;
    let brief = Device::register_for(&pair.broker, "brief", 3_000_000).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &brief).await.unwrap();
    let mut socket = brief.connect_live(&pair.broker).await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    let code = socket.close_code().await;
    let closed_at = now().get();
    assert_eq!(code, Some(CloseCode::SessionExpired.number()));
    // Never before its time; and a second after it, or what a machine that does too much takes for that.
    let expired_at = brief.certificate.certificate.expired_at.get();
    assert!(closed_at + 500_000 > expired_at, "{} ms early", (expired_at - closed_at) / 1_000);
    assert!(closed_at < expired_at + 10_000_000, "{} ms late", (closed_at - expired_at) / 1_000);
    // Nobody sends anything: the log shows it all the same.
    let out = pair
        .ada_socket
        .push_that(|push| match push {
            ServerFrame::Entry(push) => match &push.entry.body {
                EntryBody::SessionOut(out) => Some(out.clone()),
                _ => None,
            },
            _ => None,
        })
        .await;
    assert_eq!(out, SessionOut::Expired { user_id: brief.user_id, session_id: brief.session_id });
    let after = view(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(after.fold.epoch(), before.fold.epoch().next());
    assert!(!after.fold.recipients().contains_key(&brief.session_id));
    assert_eq!(after.seen.seq, before.seen.seq.next(), "once");
    let error = brief.connect_expired(&pair.broker).await.request(Request::ListChats(Nothing {})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionExpired);
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a_session_that_ended_does_nothing_by_what_it_had_under_way() {
    let mut pair = Pair::start().await;
    let lost = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut lost_socket = lost.connect_live(&pair.broker).await;
    let now = view(&mut lost_socket, pair.chat_id).await;
    let mut key = lost.sender_key(&now, pair.chat_id);
    let message = lost.seal(&now, &mut key, b"loaded");
    submit(&mut lost_socket, message).await.unwrap();
    let before = pair.database.count("SELECT count(*) FROM chat_messages").await;
    let chain = sessions(&mut pair.bob_socket).await;
    let revoke = Request::RevokeSession(RevokeSession {
        revocation: pair.bob.revocation(&chain, lost.session_id),
        withdrawal: None,
    });
    let late: Vec<Request> = (0..20).map(|_| Request::Send(Box::new(lost.seal(&now, &mut key, b"too late")))).collect();
    pair.bob_socket.request(revoke).await.unwrap();
    // Its socket may be open for a moment still, and takes these in.
    for request in late {
        lost_socket.send(request).await;
    }
    assert_eq!(lost_socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, before + 1);
}
