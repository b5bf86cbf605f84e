//! A session that knew the sealed halves goes, and the user key with it.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Nothing, Reply, Request, RevokeSession};
use sealcast::protocol::group_key::UserKeyEntry;
use sealcast::protocol::ids::{GenerationNo, UserKeyId};
use sealcast::protocol::log::EntryBody;

use super::super::messages::Pair;
use super::super::passwords::{log_in_for, sealing};
use super::super::support::chat::{submit, view, whole_log};
use super::super::support::device::Device;
use super::super::support::generations::NO_SIGNATURE;
use super::super::support::halves::Halves;
use super::super::support::link::sessions;
use super::pair_with_password;

#[tokio::test]
async fn p5_with_a_session_that_knew_the_sealed_halves_the_user_key_is_withdrawn_until_there_is_another() {
    let mut pair = Pair::start().await;
    let sealing = sealing(&pair.broker, "ada", "correct horse").await;
    let mut halves = Halves::under(sealing.credential_id, sealing.record);
    halves.renew(&pair.broker, &pair.ada).await;
    let chat_id = pair.chat_id;
    let lost = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    log_in_for(&pair.broker, "ada", "correct horse", lost.session_id).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let epoch = view(&mut pair.bob_socket, chat_id).await.fold.epoch();

    let chain = sessions(&mut pair.ada_socket).await;
    let revocation = pair.ada.revocation(&chain, lost.session_id);
    let mut forged = pair.ada.withdrawal(halves.active());
    forged.signature = NO_SIGNATURE;
    for (withdrawal, code) in [
        (None, ErrorCode::WithdrawalMissing),
        (Some(pair.ada.withdrawal(UserKeyId::generate())), ErrorCode::WithdrawalMissing),
        (Some(forged), ErrorCode::BadSignature),
        (Some(pair.bob.withdrawal(halves.active())), ErrorCode::BadSignature),
    ] {
        let request = Request::RevokeSession(RevokeSession { revocation: revocation.clone(), withdrawal });
        let refused = pair.ada_socket.request(request).await.unwrap_err();
        assert_eq!(refused.code, code);
        if code == ErrorCode::WithdrawalMissing {
            assert_eq!(refused.details.unwrap().user_key_id, Some(halves.active()));
        }
    }
    let log = whole_log(&mut pair.bob_socket, chat_id).await;
    assert!(matches!(log.last().unwrap().body, EntryBody::Generation(_)), "nothing was written");
    let withdrawal = Some(pair.ada.withdrawal(halves.active()));
    let request = Request::RevokeSession(RevokeSession { revocation, withdrawal });
    assert_eq!(pair.ada_socket.request(request.clone()).await.unwrap(), Reply::Done(Nothing {}));
    assert_eq!(pair.ada_socket.request(request).await.unwrap(), Reply::Done(Nothing {}), "once more");

    let log = whole_log(&mut pair.bob_socket, chat_id).await;
    let [.., withdrawn, out] = &log[..] else { panic!() };
    assert!(matches!(&withdrawn.body, EntryBody::UserKey(UserKeyEntry::Withdrawn(_))));
    assert!(matches!(&out.body, EntryBody::SessionOut(_)));
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert!(now.fold.epoch() > epoch, "keys from before are stale");
    assert_eq!((now.fold.generation_due(), now.fold.recovery_key()), (None, None));

    // Without a user key and without a live session she is out of reach, and is told of as such.
    pair.ada.revoke(&mut pair.ada_socket, pair.ada.session_id).await.unwrap();
    let sent = pair.bob.say(&mut pair.bob_socket, chat_id, "where are you?").await.unwrap();
    assert_eq!(sent.unreachable, [pair.ada.user_id]);

    // A password alone brings no key back; another key does.
    halves.replace(&pair.broker, &pair.ada).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert!(now.fold.member_keys().is_empty());
    halves.renew(&pair.broker, &pair.ada).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!(now.fold.member_keys()[&pair.ada.user_id].key_id, halves.active());
    assert_eq!(now.fold.generation_due(), Some(GenerationNo::saturating(2)));
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    let mut message = pair.bob.seal(&now, &mut key, b"there you are");
    message.archive = Some(super::super::support::generations::archive(GenerationNo::saturating(2)));
    let sent = submit(&mut pair.bob_socket, message).await.unwrap();
    assert!(sent.unreachable.is_empty());
}

#[tokio::test]
async fn a_session_that_never_knew_the_sealed_halves_takes_no_user_key_with_it() {
    let (mut pair, halves) = pair_with_password().await;
    let other: Device = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    pair.ada.revoke(&mut pair.ada_socket, other.session_id).await.unwrap();
    let now = view(&mut pair.bob_socket, pair.chat_id).await;
    assert_eq!(now.fold.member_keys()[&pair.ada.user_id].key_id, halves.active());
}
