//! Places at which the broker breaks on purpose: around a commit, in a fan-out, in a passivation, in one actor.

use super::super::messages::Pair;
use super::super::support::chat::{submit, view};
use super::super::support::trials;

#[tokio::test]
async fn d14_a_rollback_after_a_seq_was_taken_leaves_no_gap() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"first");
    let first = submit(&mut pair.ada_socket, first).await.unwrap();
    for trial in 1..=trials(5, 200) as u64 {
        pair.broker.break_at("commit::before", "2*return").await;
        let next = pair.ada.seal(&now, &mut key, b"next");
        let next = submit(&mut pair.ada_socket, next).await.unwrap();
        assert_eq!(next.seq.get(), first.seq.get() + trial);
    }
}
