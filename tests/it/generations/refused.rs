//! Generations that are refused, by the server and by a member.

use sealcast::protocol::binary::ExchangeKey;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{MakeGeneration, Request};
use sealcast::protocol::group_key::wraps_hash;
use sealcast::protocol::ids::{ChangeNo, GenerationNo, UserKeyId};
use sealcast::protocol::limits::GENERATION_REFUSALS_PER_HOUR_MAX;

use super::super::support::chat::{view, whole_log};
use super::super::support::device::Device;
use super::super::support::generations::{NO_HASH, NO_SIGNATURE, change};
use super::pair_with_password;
use sealcast::protocol::strongbox::PublicUserKey;

#[tokio::test]
async fn p10_a_generation_that_is_not_what_is_due_is_refused_and_changes_nothing() {
    let (mut pair, _halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.bob_socket, chat_id).await;
    let first = GenerationNo::saturating(1);
    let good = pair.bob.generation(&now, chat_id, first);
    let mut stale_key: Vec<PublicUserKey> = now.fold.member_keys().values().copied().collect();
    stale_key[0].key_id = UserKeyId::generate();
    let resigned = |change: &dyn Fn(&mut MakeGeneration)| {
        let mut bad = good.clone();
        change(&mut bad);
        pair.bob.signed_generation(chat_id, bad.generation.generation, bad.wraps)
    };
    let cases = [
        ("number", resigned(&|bad| bad.generation.generation.number = first.next()), ErrorCode::GroupKeyExists),
        (
            "number 0",
            resigned(&|bad| bad.generation.generation.number = GenerationNo::default()),
            ErrorCode::GroupKeyExists,
        ),
        (
            "change",
            resigned(&|bad| bad.generation.generation.change_no = ChangeNo::saturating(1)),
            ErrorCode::RosterChanged,
        ),
        ("keys", resigned(&|bad| bad.generation.generation.member_keys_hash = NO_HASH), ErrorCode::RosterChanged),
        ("wraps hash", resigned(&|bad| bad.generation.generation.wraps_hash = NO_HASH), ErrorCode::Malformed),
        (
            "no wraps",
            resigned(&|bad| {
                bad.wraps.clear();
                bad.generation.generation.wraps_hash = wraps_hash(&[]);
            }),
            ErrorCode::RosterChanged,
        ),
        (
            "two wraps for one",
            resigned(&|bad| {
                bad.wraps.push(bad.wraps[0].clone());
                bad.generation.generation.wraps_hash = wraps_hash(&bad.wraps);
            }),
            ErrorCode::RosterChanged,
        ),
        (
            "small order",
            resigned(&|bad| bad.generation.generation.public_key = ExchangeKey([0; 32])),
            ErrorCode::Malformed,
        ),
        ("another key", pair.bob.generation_for(&stale_key, &now, chat_id, first), ErrorCode::RosterChanged),
        ("another session", pair.ada.generation(&now, chat_id, first), ErrorCode::BadSignature),
        (
            "signature",
            {
                let mut bad = good.clone();
                bad.generation.signature = NO_SIGNATURE;
                bad
            },
            ErrorCode::BadSignature,
        ),
    ];
    for (what, bad, code) in cases {
        let refused = change(&mut pair.bob_socket, Request::MakeGeneration(bad)).await.unwrap_err();
        assert_eq!(refused.code, code, "{what}");
    }
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eves = eve.connect_live(&pair.broker).await;
    let refused = change(&mut eves, Request::MakeGeneration(eve.generation(&now, chat_id, first))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownChat);
    let log = whole_log(&mut pair.bob_socket, chat_id).await;
    assert_eq!(log.last().unwrap().seq, now.seen.seq, "nothing was written");
    change(&mut pair.bob_socket, Request::MakeGeneration(good)).await.unwrap();
}

#[tokio::test]
async fn a_member_refuses_a_bad_generation_and_nobody_is_stopped_by_one_who_refuses_them_all() {
    let (mut pair, _halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let refusal = |device: &Device, number| {
        Request::RefuseGeneration(device.generation_refusal(chat_id, GenerationNo::saturating(number)))
    };
    let refused = change(&mut pair.ada_socket, refusal(&pair.ada, 1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::GroupKeyExists, "there is none yet");
    for number in 1..=GENERATION_REFUSALS_PER_HOUR_MAX {
        let now = view(&mut pair.bob_socket, chat_id).await;
        pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
        let epoch = now.fold.epoch();
        for (number, device, code) in
            [(number + 1, &pair.ada, ErrorCode::GroupKeyExists), (number, &pair.bob, ErrorCode::BadSignature)]
        {
            let refused = change(&mut pair.ada_socket, refusal(device, number)).await.unwrap_err();
            assert_eq!(refused.code, code);
        }
        let noted = change(&mut pair.ada_socket, refusal(&pair.ada, number)).await.unwrap();
        let again = change(&mut pair.ada_socket, refusal(&pair.ada, number)).await.unwrap();
        assert_eq!((again.seq, again.duplicate), (noted.seq, true));
        let now = view(&mut pair.bob_socket, chat_id).await;
        assert_eq!(now.fold.generation_due(), Some(GenerationNo::saturating(number + 1)));
        assert_eq!(now.fold.epoch(), epoch);
    }
    let number = GENERATION_REFUSALS_PER_HOUR_MAX + 1;
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let refused = change(&mut pair.ada_socket, refusal(&pair.ada, number)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached);
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!(now.fold.recovery_key().unwrap().generation, GenerationNo::saturating(number));
}
