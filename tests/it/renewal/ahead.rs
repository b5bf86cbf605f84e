//! Renewal ahead of the session's time: nothing changes but when it ends.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Nothing, Request};
use sealcast::protocol::ids::Place;

use super::super::messages::Pair;
use super::super::support::broker::Settings;
use super::super::support::chat::{submit, view};
use super::super::support::database::Database;
use super::super::support::link::sessions;
use super::super::verify::program::verify_url;
use super::story;

#[tokio::test]
async fn p4_a_session_renewed_ahead_of_its_time_needs_no_copies_and_raises_no_epoch() {
    let mut pair = Pair::start().await;
    let (chat_id, bob_s) = (pair.chat_id, pair.bob.session_id);
    let before = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&before, chat_id);
    let message = pair.ada.seal(&before, &mut key, b"under a key");
    submit(&mut pair.ada_socket, message).await.unwrap();

    pair.bob.recertify(&mut pair.bob_socket).await.unwrap();
    let after = view(&mut pair.ada_socket, chat_id).await;
    let (old, new) = (&before.fold.recipients()[&bob_s], &after.fold.recipients()[&bob_s]);
    assert!(new.place > old.place && new.expired_at > old.expired_at);
    assert_eq!((new.public_key, new.signing_public_key), (old.public_key, old.signing_public_key));
    assert_eq!((after.fold.epoch(), after.fold.roster_hash()), (before.fold.epoch(), before.fold.roster_hash()));
    assert_eq!(story(&mut pair.ada_socket, chat_id, bob_s).await, ["in", "in"]);
    let ends = "SELECT count(*) FROM chats c WHERE next_expiry = (SELECT min(expired_at) FROM user_sessions)";
    assert_eq!(pair.database.count(ends).await, 1, "the chat knows when its next session ends");

    // The same key goes on, with no copy more, whether the sender has seen the renewal or not.
    for view in [&before, &after] {
        let message = pair.ada.seal(view, &mut key, b"and on");
        let sent = submit(&mut pair.ada_socket, message).await.unwrap();
        assert!(sent.unreachable.is_empty());
    }
    let covered = "SELECT count(*) FROM sender_keys k JOIN chats c ON c.id = k.chat_id \
         WHERE k.covered_version = c.roster_version";
    assert_eq!(pair.database.count(covered).await, 1);
    // Its connection stands, and its other requests are answered.
    assert!(pair.bob_socket.request(Request::ListChats(Nothing {})).await.is_ok());
    pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.unwrap();
    verify_url(pair.database.url(), &[]).await.good();
}

#[tokio::test]
async fn p7_only_the_same_keys_the_next_place_and_the_identity_renew_a_session() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 100);
    let mut pair = Pair::start_on(database, settings).await;
    let chain = sessions(&mut pair.bob_socket).await;
    let original = pair.bob.clone();
    let other = pair.bob.sibling();
    let day = 86_400 * 1_000_000;
    let mut good = pair.bob.clone();
    good.certify_again(chain.place.next(), chain.hash, 30 * day);
    let wrong = |change: fn(&mut super::super::support::device::Device, &super::super::support::device::Device)| {
        let mut device = good.clone();
        change(&mut device, &other);
        device
    };
    let cases = [
        (
            wrong(|device, other| device.certificate.certificate.public_key = other.certificate.certificate.public_key),
            true,
        ),
        (
            wrong(|device, other| {
                device.certificate.certificate.signing_public_key = other.certificate.certificate.signing_public_key;
            }),
            true,
        ),
        (
            wrong(|device, other| {
                device.certificate.certificate.user_id = sealcast::protocol::ids::UserId(other.session_id.0)
            }),
            true,
        ),
        (wrong(|device, _| device.certificate.signature.0[3] ^= 1), false),
        (wrong(|device, _| device.identity = super::super::support::device::secret_key()), true),
        (
            wrong(|device, _| device.certificate.certificate.expired_at = device.certificate.certificate.created_at),
            true,
        ),
        (
            wrong(|device, _| {
                let expired_at = &mut device.certificate.certificate.expired_at;
                *expired_at = expired_at.plus_micros(10_000 * 86_400 * 1_000_000);
            }),
            true,
        ),
    ];
    for (number, (mut device, is_signed)) in cases.into_iter().enumerate() {
        if is_signed {
            device.sign_certificate();
        }
        let before = super::super::codes::contents(&pair.database).await;
        let error = pair.bob_socket.request(device.renewal()).await.expect_err("refused");
        assert_eq!(error.code, ErrorCode::BadCertificate, "case {number}");
        assert_eq!(super::super::codes::contents(&pair.database).await, before, "case {number}");
    }
    for (place, previous) in [
        (chain.place, chain.hash),
        (chain.place.next().next(), chain.hash),
        (chain.place.next(), sealcast::protocol::binary::Hash([1; 32])),
        (Place::saturating(0), chain.hash),
    ] {
        let mut device = good.clone();
        device.certify_at(place, previous);
        let error = pair.bob_socket.request(device.renewal()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::EventConflict);
        let details = error.details.unwrap();
        assert_eq!((details.place, details.hash), (Some(chain.place), Some(chain.hash)));
    }
    // A hand-over is for others.
    let error = pair.bob_socket.request(Request::ApproveSession(good.approval())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Malformed);

    // The good one is taken, once: a repeat is the same, and what is from before is the past.
    let count = "SELECT count(*) FROM user_events WHERE kind = 'certificate'";
    let before = pair.database.count(count).await;
    for _ in 0..2 {
        pair.bob_socket.request(good.renewal()).await.unwrap();
    }
    assert_eq!(pair.database.count(count).await, before + 1);
    let error = pair.bob_socket.request(original.renewal()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EventConflict, "a certificate from before");
    pair.bob.certificate = good.certificate.clone();
    pair.bob.recertify(&mut pair.bob_socket).await.unwrap();
    let error = pair.bob_socket.request(good.renewal()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EventConflict, "a renewal that is replayed");
    assert_eq!(story(&mut pair.ada_socket, pair.chat_id, pair.bob.session_id).await, ["in", "in", "in"]);
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn certificates_of_an_hour_are_bounded_also_of_renewals() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("session.certificates_per_hour_max", 3);
    let mut pair = Pair::start_on(database, settings).await;
    for _ in 0..2 {
        pair.bob.recertify(&mut pair.bob_socket).await.unwrap();
    }
    let kept = pair.bob.certificate.clone();
    let error = pair.bob.recertify(&mut pair.bob_socket).await.unwrap_err();
    assert_eq!((error.code, error.details.unwrap().limit), (ErrorCode::LimitReached, Some(3)));
    assert_eq!(sessions(&mut pair.bob_socket).await.sessions[0].certificate, kept);
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
}
