//! Members who return, members whom nobody can reach, and those who led a chat and leave it: K9, K10 and K11.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Direction, Request};
use sealcast::protocol::ids::Seq;
use sealcast::protocol::membership::HistoryPolicy;
use sealcast::protocol::strongbox::PublicUserKey;

use super::super::super::messages::Pair;
use super::super::super::support::chat::{history, submit, view};
use super::super::super::support::device::Device;
use super::super::super::support::generations::change;
use super::super::super::support::halves::Halves;
use super::super::super::support::{eventually, trials};

#[tokio::test]
async fn k9_who_was_removed_and_added_again_gets_no_older_key_and_reads_what_the_policy_says() {
    for _ in 0..trials(1, 20) {
        let mut pair = Pair::start().await;
        let chat_id = pair.chat_id;
        for policy in [HistoryPolicy::FromJoin, HistoryPolicy::Shared] {
            let shared = match policy {
                HistoryPolicy::FromJoin => None,
                HistoryPolicy::Shared => {
                    Some(pair.ada.set_history(&mut pair.ada_socket, chat_id, policy).await.unwrap().seq)
                }
            };
            let before = view(&mut pair.ada_socket, chat_id).await;
            let mut adas = pair.ada.sender_key(&before, chat_id);
            let mut bobs = pair.bob.sender_key(&before, chat_id);
            let first = pair.ada.seal(&before, &mut adas, b"for Bob too");
            submit(&mut pair.ada_socket, first).await.unwrap();
            let first = pair.bob.seal(&before, &mut bobs, b"Bob's");
            submit(&mut pair.bob_socket, first).await.unwrap();
            pair.ada.remove(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
            let of_bob =
                format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id = '{}'", pair.bob.session_id);
            assert_eq!(pair.database.count(&of_bob).await, 0, "his copies went with him");
            pair.ada.say(&mut pair.ada_socket, chat_id, "without Bob").await.unwrap();
            let added = pair.ada.add(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();

            let stale = pair.ada.seal(&before, &mut adas, b"under the old key");
            assert_eq!(submit(&mut pair.ada_socket, stale).await.unwrap_err().code, ErrorCode::KeyStale);
            let stale = pair.bob.seal(&before, &mut bobs, b"under his old key");
            assert_eq!(submit(&mut pair.bob_socket, stale).await.unwrap_err().code, ErrorCode::KeyStale);
            assert_eq!(pair.database.count(&of_bob).await, 0, "and none came back with him");
            let all = history(&mut pair.bob_socket, chat_id, Direction::After, Seq::default(), 200).await.unwrap();
            assert_eq!(all.entries[0].seq, shared.unwrap_or(added.seq), "{policy:?}");
            assert!(all.keys.iter().all(|key| key.key.is_none()), "no copy of an older key is handed out");
            for (device, socket) in [(&pair.ada, &mut pair.ada_socket), (&pair.bob, &mut pair.bob_socket)] {
                device.say(socket, chat_id, "good").await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn k10_a_member_without_a_live_session_stops_nobody() {
    for _ in 0..trials(1, 20) {
        let mut pair = Pair::start().await;
        let chat_id = pair.chat_id;
        let brief = Device::register_for(&pair.broker, "brief", 1_500_000).await;
        pair.ada.add(&mut pair.ada_socket, chat_id, &brief).await.unwrap();
        pair.bob.revoke(&mut pair.bob_socket, pair.bob.session_id).await.unwrap();
        let due = format!(
            "SELECT count(*) FROM user_sessions WHERE id = '{}' AND expired_at <= clock_timestamp()",
            brief.session_id
        );
        eventually("the expiry", async || pair.database.count(&due).await == 1).await;
        let mut expected = vec![pair.bob.user_id, brief.user_id];
        expected.sort_unstable();
        let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "to whom it may concern").await;
        // The view may be from before the expiry was written down: then an honest client looks again.
        let sent = match sent {
            Err(error) if error.code == ErrorCode::KeyStale => {
                pair.ada.say(&mut pair.ada_socket, chat_id, "to whom it may concern").await.unwrap()
            }
            sent => sent.unwrap(),
        };
        let mut unreachable = sent.unreachable;
        unreachable.sort_unstable();
        assert_eq!(unreachable, expected);
        // They are members as before, and may be managed.
        let now = view(&mut pair.ada_socket, chat_id).await;
        assert_eq!((now.fold.membership().members.len(), now.fold.recipients().len()), (3, 1));
        pair.ada.remove(&mut pair.ada_socket, chat_id, &pair.bob).await.unwrap();
        let sent = pair.ada.say(&mut pair.ada_socket, chat_id, "good").await.unwrap();
        assert_eq!(sent.unreachable, [brief.user_id]);
    }
}

#[tokio::test]
async fn k11_when_the_owner_or_the_last_manager_has_left_the_next_sender_makes_the_group_key_anew() {
    for _ in 0..trials(1, 20) {
        for who in ["owner", "last manager"] {
            let mut pair = Pair::start().await;
            let chat_id = pair.chat_id;
            let (eve, mut halves) = (Device::register(&pair.broker, "eve").await, [Halves::none(), Halves::none()]);
            pair.ada.add(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
            for (halves, device) in halves.iter_mut().zip([&pair.bob, &eve]) {
                halves.renew(&pair.broker, device).await;
            }
            // Eve is the one who leaves in the end, and bob the one who sends.
            let mut eves = eve.connect_live(&pair.broker).await;
            if who == "owner" {
                pair.ada.transfer(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
                pair.ada.leave(&mut pair.ada_socket, chat_id).await.unwrap();
            } else {
                pair.ada.set_rights(&mut pair.ada_socket, chat_id, &eve, (true, true)).await.unwrap();
            }
            let now = view(&mut eves, chat_id).await;
            let first = now.fold.generation_due().unwrap();
            eve.make_generation(&mut eves, &now, chat_id).await.unwrap();
            pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.unwrap();
            if who == "owner" {
                let refused = eve.leave(&mut eves, chat_id).await.unwrap_err();
                assert_eq!(refused.code, ErrorCode::OwnerMustTransfer);
                eve.transfer(&mut eves, chat_id, &pair.bob).await.unwrap();
            }
            let former: Vec<PublicUserKey> = now.fold.member_keys().values().copied().collect();
            eve.leave(&mut eves, chat_id).await.unwrap();

            let now = view(&mut pair.bob_socket, chat_id).await;
            let due = first.next();
            assert_eq!((now.fold.generation_due(), now.fold.recovery_key()), (Some(due), None), "{who}");
            let mut key = pair.bob.sender_key(&now, chat_id);
            for _ in 0..2 {
                let fresh = key.clone();
                let message = pair.bob.seal(&now, &mut key, b"too early");
                let refused = submit(&mut pair.bob_socket, message).await.unwrap_err();
                assert_eq!(refused.code, ErrorCode::GroupKeyDue, "{who}");
                assert_eq!(refused.details.unwrap().generation, Some(due), "{who}");
                key = fresh;
            }
            // None is taken that is for somebody who left.
            let with_eve = pair.bob.generation_for(&former, &now, chat_id, due);
            let refused = change(&mut pair.bob_socket, Request::MakeGeneration(with_eve)).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::RosterChanged, "{who}");
            pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
            pair.bob.say(&mut pair.bob_socket, chat_id, "without those who left").await.unwrap();
            let mut key = eve.sender_key(&now, chat_id);
            let late = eve.seal(&now, &mut key, b"one more word");
            assert_eq!(submit(&mut eves, late).await.unwrap_err().code, ErrorCode::UnknownChat);
        }
    }
}
