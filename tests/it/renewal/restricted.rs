//! A session that may not do everything: which requests it has, and that each other is refused and changes nothing.
//!
//! Every request is tried: a type of request that is new must be given its place in `every_request`.

use sealcast::protocol::certificate::{Revocation, Revoker, SignedRevocation};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Nothing, Reply, Request, RevokeSession, SessionState, Sessions};
use sealcast::protocol::ids::{KeyId, MessageId};

use super::super::codes::contents;
use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::view;
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket, now, sign};
use super::super::support::every_request::Scene;
use super::super::support::link::sessions;
use super::{brief, until_expired};

/// Tries every request over a connection that may do next to nothing.
async fn refuses(pair: &mut Pair, device: &Device, socket: &mut Socket, code: ErrorCode, allowed: &[&str]) {
    let seen = view(&mut pair.ada_socket, pair.chat_id).await;
    let chain = sessions(&mut pair.bob_socket).await;
    let waiting = pair.bob.pending(&pair.broker).await;
    let scene = Scene {
        device,
        other: &pair.ada,
        chat_id: pair.chat_id,
        view: &seen,
        message_id: MessageId::generate(),
        key_id: KeyId::generate(),
    };
    let before = contents(&pair.database).await;
    for request in scene.all(&chain, &waiting) {
        let name = request.name();
        match socket.request(request).await {
            Ok(reply) => assert!(allowed.contains(&name) && matches!(reply, Reply::Done(_)), "{name}: {reply:?}"),
            Err(error) => assert_eq!((error.code, error.details), (code, None), "{name}"),
        }
    }
    assert_eq!(contents(&pair.database).await, before);
    assert!(socket.pushes_so_far().await.is_empty(), "nothing is pushed to it either");
}

#[tokio::test]
async fn a_session_that_waits_for_approval_may_ping_and_ask_for_what_was_handed_over() {
    let mut pair = Pair::start().await;
    let pending = pair.bob.pending(&pair.broker).await;
    let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
    let Reply::Authenticated(who) = socket.request(pending.login(&socket.hello)).await.unwrap() else { panic!() };
    assert_eq!((who.user_id, who.state), (pair.bob.user_id, SessionState::Pending));
    refuses(&mut pair, &pending, &mut socket, ErrorCode::SessionPending, &["ping"]).await;
    // Nor does it approve itself, though the identity key has signed.
    let mut own = pending.clone();
    let chain = sessions(&mut pair.bob_socket).await;
    own.certify_at(chain.place.next(), chain.hash);
    let before = contents(&pair.database).await;
    for request in [Request::ApproveSession(own.approval()), own.renewal()] {
        assert_eq!(socket.request(request).await.unwrap_err().code, ErrorCode::SessionPending);
    }
    assert_eq!(contents(&pair.database).await, before);
    pair.bob_socket.request(Request::ApproveSession(own.approval())).await.unwrap();
    assert!(matches!(socket.request(Request::FetchHandover(Nothing {})).await, Ok(Reply::Handover(_))));
    let mut live = own.connect_live(&pair.broker).await;
    own.say(&mut live, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a_session_that_has_expired_may_ping_and_renew_itself() {
    let mut pair = Pair::start().await;
    let mut brief = brief(&mut pair).await;
    until_expired(&pair.database, brief.session_id).await;
    let mut socket = brief.connect_expired(&pair.broker).await;
    refuses(&mut pair, &brief, &mut socket, ErrorCode::SessionExpired, &["ping"]).await;
    // Nor does it bring in anybody else.
    let (place, hash) = (brief.certificate.certificate.place, brief.certificate.chain_hash());
    let mut sibling = brief.pending(&pair.broker).await;
    sibling.certify_at(place.next(), hash);
    let error = socket.request(Request::ApproveSession(sibling.approval())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionExpired);
    brief.certify_again(place.next(), hash, 60_000_000);
    socket.request(brief.renewal()).await.unwrap();
    let error = socket.request(Request::ListChats(Nothing {})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionExpired, "it is live on its next connection");
    let mut live = brief.connect_live(&pair.broker).await;
    brief.say(&mut live, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a_session_that_has_expired_replaces_nobody_and_does_not_stay() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("server.login_timeout_s", 3);
    let mut pair = Pair::start_on(database, settings).await;
    let brief = Device::register_for(&pair.broker, "brief", 1_000_000).await;
    until_expired(&pair.database, brief.session_id).await;
    let (mut one, mut other) = (brief.connect_expired(&pair.broker).await, brief.connect_expired(&pair.broker).await);
    for socket in [&mut one, &mut other] {
        assert!(socket.request(Request::Ping(Nothing {})).await.is_ok());
    }
    for socket in [&mut one, &mut other] {
        assert_eq!(socket.close_code().await, Some(CloseCode::SessionExpired.number()));
    }
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a_session_that_a_login_made_may_certify_itself_and_make_room_by_the_identity_key() {
    let mut pair = Pair::start().await;
    let mut pending = pair.bob.pending(&pair.broker).await;
    let other = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut other_socket = other.connect_live(&pair.broker).await;
    let mut socket = pending.connect(&pair.broker).await;
    let by_identity = |chain: &Sessions, device: &Device, identity: &ed25519_dalek::SigningKey| {
        let revocation = Revocation {
            user_id: device.user_id,
            place: chain.place.next(),
            previous: chain.hash,
            session_id: device.session_id,
            revoker: Revoker::Identity,
            created_at: now(),
        };
        let signature = sign(identity, &revocation.signed_bytes());
        Request::RevokeSession(RevokeSession {
            revocation: SignedRevocation { revocation, signature },
            withdrawal: None,
        })
    };
    let chain = sessions(&mut pair.bob_socket).await;
    let good = by_identity(&chain, &other, &pair.bob.identity);
    let error = socket.request(good.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SessionPending, "before a login it may not, whoever has signed");
    let logged_in = format!("UPDATE user_sessions SET logged_in_at = now() WHERE id = '{}'", pending.session_id);
    pair.database.client().await.batch_execute(&logged_in).await.unwrap();
    refuses(&mut pair, &pending, &mut socket, ErrorCode::SessionPending, &["ping"]).await;
    let before = contents(&pair.database).await;
    let eve = Device::register(&pair.broker, "eve").await;
    let refused = [
        (by_identity(&chain, &other, &eve.identity), ErrorCode::BadSignature),
        (by_identity(&chain, &eve, &eve.identity), ErrorCode::UnknownSession),
        (by_identity(&chain, &pending, &pair.bob.identity), ErrorCode::UnknownSession),
    ];
    for (request, code) in refused {
        assert_eq!(socket.request(request).await.unwrap_err().code, code);
    }
    let after = contents(&pair.database).await;
    let touched =
        |table: &str| before.iter().find(|(name, _)| name == table) != after.iter().find(|(name, _)| name == table);
    assert!(!touched("chat_events") && !touched("chats"));

    socket.request(good).await.unwrap();
    assert_eq!(other_socket.close_code().await, Some(CloseCode::SessionRevoked.number()));
    let chain = sessions(&mut pair.bob_socket).await;
    pending.certify_at(chain.place.next(), chain.hash);
    socket.request(pending.renewal()).await.unwrap();
    let mut live = pending.connect_live(&pair.broker).await;
    pending.say(&mut live, pair.chat_id, "good").await.unwrap();
}
