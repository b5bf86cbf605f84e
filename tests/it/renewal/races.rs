//! What meets a renewal: the sweep, a revocation, another renewal.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ApproveSession, Request, RevokeSession};

use super::super::messages::Pair;
use super::super::support::chat::view;
use super::super::support::link::sessions;
use super::super::support::trials;
use super::super::verify::program::verify_url;
use super::{brief, state_of, story, until_expired};
use crate::support::device::{Device, now, sign};
use crate::support::eventually;

/// Waits until a session's time is over, which nobody may have written down.
async fn until_over(device: &Device) {
    let over = device.certificate.certificate.expired_at.plus_micros(20_000);
    eventually("the end of its time", async || now() > over).await;
}

#[tokio::test]
async fn p5_a_renewal_beside_the_sweep_shows_the_end_first_whoever_is_faster() {
    let mut pair = Pair::start().await;
    for trial in 0..trials(2, 20) {
        let mut brief = brief_named(&mut pair, &format!("brief{trial}")).await;
        let before = view(&mut pair.ada_socket, pair.chat_id).await;
        // Nobody can write it down as long as the user's row is held: the sweep waits, and so does the renewal.
        let outside = pair.database.client().await;
        let hold = format!("BEGIN; SELECT 1 FROM users WHERE id = '{}' FOR UPDATE", brief.user_id);
        outside.batch_execute(&hold).await.unwrap();
        until_over(&brief).await;
        let mut socket = brief.connect_expired(&pair.broker).await;
        let (place, hash) = (brief.certificate.certificate.place, brief.certificate.chain_hash());
        brief.certify_again(place.next(), hash, 3_600_000_000);
        let asked = socket.send(brief.renewal()).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND query LIKE 'SELECT 1 FROM users%'";
        eventually("somebody who waits for the row", async || pair.database.count(waiting).await > 0).await;
        outside.batch_execute("COMMIT").await.unwrap();
        socket.answer(asked).await.unwrap();
        assert_eq!(story(&mut pair.ada_socket, pair.chat_id, brief.session_id).await, ["in", "expired", "in"]);
        let after = view(&mut pair.ada_socket, pair.chat_id).await;
        assert_eq!(after.fold.epoch(), before.fold.epoch().next(), "once");
        assert_eq!(state_of(&pair.database, brief.session_id).await, "live");
        pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
    }
    verify_url(pair.database.url(), &[]).await.good();
}

async fn brief_named(pair: &mut Pair, name: &str) -> Device {
    let brief = Device::register_for(&pair.broker, name, super::BRIEF_MICROS).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &brief).await.unwrap();
    brief
}

#[tokio::test]
async fn p5_a_session_that_is_revoked_beside_its_renewal_is_out_and_never_returns() {
    let mut pair = Pair::start().await;
    let mut first = 0;
    for _ in 0..trials(4, 100) {
        let phone = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
        let mut phone_socket = phone.connect_live(&pair.broker).await;
        let chain = sessions(&mut pair.bob_socket).await;
        let revocation = pair.bob.revocation(&chain, phone.session_id);
        let mut renewed = phone.clone();
        renewed.certify_again(chain.place.next(), chain.hash, 3_600_000_000);
        // Both are made for the same place of the chain.
        let renewing = phone_socket.send(renewed.renewal()).await;
        let revoking =
            pair.bob_socket.send(Request::RevokeSession(RevokeSession { revocation, withdrawal: None })).await;
        match pair.bob_socket.answer(revoking).await {
            Ok(_) => first += 1,
            Err(error) => {
                assert_eq!(error.code, ErrorCode::EventConflict);
                phone_socket.answer(renewing).await.unwrap();
                pair.bob.revoke(&mut pair.bob_socket, phone.session_id).await.unwrap();
            }
        }
        assert_eq!(state_of(&pair.database, phone.session_id).await, "revoked");
        let now = view(&mut pair.ada_socket, pair.chat_id).await;
        assert!(!now.fold.recipients().contains_key(&phone.session_id));
        assert_eq!(story(&mut pair.ada_socket, pair.chat_id, phone.session_id).await.last(), Some(&"revoked"));
        // A certificate of the identity key itself does not bring it back.
        let chain = sessions(&mut pair.bob_socket).await;
        renewed.certify_again(chain.place.next(), chain.hash, 3_600_000_000);
        let error = pair.bob_socket.request(Request::ApproveSession(renewed.approval())).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownSession);
        // Five certificates in an hour are enough for one trial.
        let client = pair.database.client().await;
        client.batch_execute("UPDATE user_events SET created_at = created_at - interval '2 hours'").await.unwrap();
        pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
    }
    assert!(first > 0 || trials(4, 100) < 10, "the revocation is never faster");
}

#[tokio::test]
async fn a_session_that_is_revoked_after_its_end_is_told_so_and_never_returns() {
    let mut pair = Pair::start().await;
    let mut phone = pair.bob.pending(&pair.broker).await;
    let chain = sessions(&mut pair.bob_socket).await;
    phone.certify_again(chain.place.next(), chain.hash, super::BRIEF_MICROS);
    pair.bob_socket.request(Request::ApproveSession(phone.approval())).await.unwrap();
    until_expired(&pair.database, phone.session_id).await;
    let mut socket = phone.connect_expired(&pair.broker).await;
    pair.bob.revoke(&mut pair.bob_socket, phone.session_id).await.unwrap();
    let chain = sessions(&mut pair.bob_socket).await;
    let mut back = phone.clone();
    back.certify_again(chain.place.next(), chain.hash, 3_600_000_000);
    assert_eq!(socket.request(back.renewal()).await.unwrap_err().code, ErrorCode::SessionRevoked);
    let mut again =
        super::super::support::device::Socket::open(&pair.broker, sealcast::protocol::codec::Encoding::Json).await;
    let login = phone.login(&again.hello);
    assert_eq!(again.request(login).await.unwrap_err().code, ErrorCode::SessionRevoked);
    assert_eq!(story(&mut pair.ada_socket, pair.chat_id, phone.session_id).await, ["in", "expired"]);
    verify_url(pair.database.url(), &[]).await.good();
}

#[tokio::test]
async fn of_two_renewals_at_once_one_is_taken_and_the_other_is_told_of_it() {
    let mut pair = Pair::start().await;
    let mut brief = brief(&mut pair).await;
    until_expired(&pair.database, brief.session_id).await;
    let (mut one, mut other) = (brief.connect_expired(&pair.broker).await, brief.connect_expired(&pair.broker).await);
    let (place, hash) = (brief.certificate.certificate.place, brief.certificate.chain_hash());
    let mut rival = brief.clone();
    brief.certify_again(place.next(), hash, 3_600_000_000);
    rival.certify_again(place.next(), hash, 7_200_000_000);
    let (first, second) = (one.send(brief.renewal()).await, other.send(rival.renewal()).await);
    let (first, second) = (one.answer(first).await, other.answer(second).await);
    let (winner, loser) = if first.is_ok() { (&brief, second) } else { (&rival, first) };
    let error = loser.unwrap_err();
    assert_eq!(error.code, ErrorCode::EventConflict);
    let details = error.details.unwrap();
    assert_eq!((details.place, details.hash), (Some(place.next()), Some(winner.certificate.chain_hash())));
    assert_eq!(story(&mut pair.ada_socket, pair.chat_id, brief.session_id).await, ["in", "expired", "in"]);
    let mut socket = winner.connect_live(&pair.broker).await;
    winner.say(&mut socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn p7_a_session_that_expires_before_its_approval_is_written_does_not_come_back_over_another_key() {
    let mut pair = Pair::start().await;
    let mut brief = brief(&mut pair).await;
    let mut socket = brief.connect_live(&pair.broker).await;
    let mut phone = brief.pending(&pair.broker).await;
    let (place, hash) = (brief.certificate.certificate.place, brief.certificate.chain_hash());
    phone.certify_at(place.next(), hash);
    let (mut renewal, _) = brief.replacement(place.next().next(), phone.certificate.chain_hash());
    renewal.certificate.expired_at = now().plus_micros(3_600_000_000);
    renewal.signature = sign(&brief.identity, &renewal.certificate.signed_bytes());
    let outside = pair.database.client().await;
    let hold = format!("BEGIN; SELECT 1 FROM chats WHERE id = '{}' FOR UPDATE", pair.chat_id);
    outside.batch_execute(&hold).await.unwrap();
    let approval = ApproveSession { renewal: Some(renewal), ..phone.approval() };
    let asked = socket.send(Request::ApproveSession(approval)).await;
    until_over(&brief).await;
    outside.batch_execute("COMMIT").await.unwrap();
    assert_eq!(socket.answer(asked).await.unwrap_err().code, ErrorCode::SessionExpired);
    drop(socket);

    // With its own keys it does, and everybody goes on.
    until_expired(&pair.database, brief.session_id).await;
    brief.come_back(&pair.broker).await.unwrap();
    assert_eq!(story(&mut pair.ada_socket, pair.chat_id, brief.session_id).await, ["in", "expired", "in"]);
    let mut socket = brief.connect_live(&pair.broker).await;
    brief.say(&mut socket, pair.chat_id, "good").await.unwrap();
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "good").await.unwrap();
    verify_url(pair.database.url(), &[]).await.good();
}
