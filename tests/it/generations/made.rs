//! Generations that are due, made, and raced for.

use sealcast::protocol::error::{ErrorCode, MissingReason};
use sealcast::protocol::frame::{FetchGroupKeys, Reply, Request, Send};
use sealcast::protocol::group_key::UserKeyEntry;
use sealcast::protocol::ids::GenerationNo;
use sealcast::protocol::log::EntryBody;

use super::super::messages::Pair;
use super::super::support::chat::{submit, view, whole_log};
use super::super::support::device::Device;
use super::super::support::generations::{archive, change};
use super::super::support::halves::Halves;
use super::pair_with_password;

fn generation(number: u64) -> GenerationNo {
    GenerationNo::saturating(number)
}

#[tokio::test]
async fn p8_the_first_user_key_of_a_chat_makes_a_generation_due_before_the_next_message_and_keys_stay() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let before = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&before, chat_id);
    submit(&mut pair.bob_socket, pair.bob.seal(&before, &mut key, b"one")).await.unwrap();

    let mut halves = Halves::none();
    halves.renew(&pair.broker, &pair.ada).await;
    let log = whole_log(&mut pair.bob_socket, chat_id).await;
    let EntryBody::UserKey(UserKeyEntry::Set(shown)) = &log.last().unwrap().body else { panic!("{:?}", log.last()) };
    assert_eq!((shown.user_id, shown.key_id), (pair.ada.user_id, halves.active()));
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.epoch(), now.fold.generation_due()), (before.fold.epoch(), Some(generation(1))));

    let message = pair.bob.seal(&now, &mut key, b"two");
    let refused = submit(&mut pair.bob_socket, message).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::GroupKeyDue);
    assert_eq!(refused.details.unwrap().generation, Some(generation(1)));

    // Who has no user key makes it as well as anybody.
    let made = pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.roster_version(), now.fold.epoch()), (made.seq, before.fold.epoch()));
    assert_eq!(now.fold.recovery_key().unwrap().generation, generation(1));

    // The key of before serves on once it is archived.
    key.counter -= 1;
    let message = pair.bob.seal(&now, &mut key, b"two");
    let refused = submit(&mut pair.bob_socket, message.clone()).await.unwrap_err();
    let details = refused.details.unwrap();
    assert_eq!((refused.code, details.reason), (ErrorCode::CopiesMissing, Some(MissingReason::Recovery)));
    assert!(details.missing.is_empty());
    let archived = Send { archive: Some(archive(generation(1))), ..message };
    let sent = submit(&mut pair.bob_socket, archived).await.unwrap();
    assert!(sent.unreachable.is_empty());
    // And needs no other archive after that.
    submit(&mut pair.bob_socket, pair.bob.seal(&now, &mut key, b"three")).await.unwrap();
    let request = Request::FetchGroupKeys(FetchGroupKeys { chat_id, after: GenerationNo::default() });
    let Reply::GroupKeys(found) = pair.ada_socket.request(request).await.unwrap() else { panic!() };
    let found: Vec<_> = found.keys.iter().map(|key| (key.generation, key.key_id)).collect();
    assert_eq!(found, [(generation(1), halves.active())]);
}

#[tokio::test]
async fn p5_who_is_removed_or_added_or_has_another_user_key_needs_another_generation_and_old_archives_count_no_more() {
    let (mut pair, mut halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut number = 0;
    for step in ["the first", "added", "removed", "another key", "revoked maker"] {
        match step {
            "added" => drop(pair.ada.add(&mut pair.ada_socket, chat_id, &eve).await.unwrap()),
            "removed" => drop(pair.ada.remove(&mut pair.ada_socket, chat_id, &eve).await.unwrap()),
            "another key" => halves.renew(&pair.broker, &pair.ada).await,
            "revoked maker" => {
                let maker = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
                let mut socket = maker.connect_live(&pair.broker).await;
                pair.ada.add(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
                let now = view(&mut socket, chat_id).await;
                maker.make_generation(&mut socket, &now, chat_id).await.unwrap();
                number += 1;
                pair.bob.revoke(&mut pair.bob_socket, maker.session_id).await.unwrap();
            }
            _ => {}
        }
        let now = view(&mut pair.bob_socket, chat_id).await;
        assert_eq!(now.fold.generation_due(), Some(generation(number + 1)), "{step}");
        let mut key = pair.bob.sender_key(&now, chat_id);
        let message = pair.bob.seal(&now, &mut key, b"text");
        let refused = submit(&mut pair.bob_socket, message).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::GroupKeyDue, "{step}");
        pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
        number += 1;
        let now = view(&mut pair.bob_socket, chat_id).await;
        key.counter = 0;
        key.sent = false;
        let message = pair.bob.seal(&now, &mut key, b"text");
        for (wrong, code) in [
            (None, ErrorCode::CopiesMissing),
            (Some(generation(number - 1)), ErrorCode::RecipientsChanged),
            (Some(generation(number + 1)), ErrorCode::RecipientsChanged),
        ] {
            let archive = wrong.map(archive);
            let refused = submit(&mut pair.bob_socket, Send { archive, ..message.clone() }).await.unwrap_err();
            assert_eq!(refused.code, code, "{step} {wrong:?}");
        }
        let archived = Send { archive: Some(archive(generation(number))), ..message };
        submit(&mut pair.bob_socket, archived).await.unwrap();
    }
}

#[tokio::test]
async fn of_two_who_make_a_generation_at_once_one_is_first_and_a_repeat_gets_the_first_answer() {
    let (mut pair, _halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let of_ada = Request::MakeGeneration(pair.ada.generation(&now, chat_id, generation(1)));
    let of_bob = Request::MakeGeneration(pair.bob.generation(&now, chat_id, generation(1)));
    let (first, second) =
        tokio::join!(change(&mut pair.ada_socket, of_ada.clone()), change(&mut pair.bob_socket, of_bob.clone()));
    let (won, socket, request) = match (first, second) {
        (Ok(won), Err(lost)) => {
            assert_eq!(lost.code, ErrorCode::GroupKeyExists);
            (won, &mut pair.ada_socket, of_ada)
        }
        (Err(lost), Ok(won)) => {
            assert_eq!(lost.code, ErrorCode::GroupKeyExists);
            (won, &mut pair.bob_socket, of_bob)
        }
        other => panic!("{other:?}"),
    };
    assert!(!won.duplicate);
    let again = change(socket, request).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (won.seq, true));
}

#[tokio::test]
async fn a_newcomer_with_a_user_key_brings_it_and_a_chat_without_user_keys_needs_no_generation() {
    let (mut pair, halves) = pair_with_password().await;
    let chat_id = pair.bob.create_chat(&mut pair.bob_socket).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.generation_due(), now.fold.member_keys().len()), (None, 0));
    pair.bob.say(&mut pair.bob_socket, chat_id, "alone").await.unwrap();
    pair.bob.add(&mut pair.bob_socket, chat_id, &pair.ada).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!(now.fold.member_keys()[&pair.ada.user_id].key_id, halves.active());
    assert_eq!(now.fold.generation_due(), Some(generation(1)));
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    pair.bob.remove(&mut pair.bob_socket, chat_id, &pair.ada).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.generation_due(), now.fold.recovery_key()), (None, None));
    pair.bob.say(&mut pair.bob_socket, chat_id, "alone again").await.unwrap();
}
