//! Transactions of both brokers that want the same rows in other orders: they are ordered or made again inside, and nobody
//! sees it.

use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Changed, Reply, Request};
use sealcast::protocol::ids::ChatId;

use super::super::super::support::chat::{submit, view, whole_log};
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::trials;
use super::Nodes;

/// Sends to two chats, one after the other and back, until everything is accepted.
async fn say_in_both(device: &Device, socket: &mut Socket, chats: [ChatId; 2], rounds: usize) {
    for round in 0..rounds {
        for chat_id in [chats[round % 2], chats[1 - round % 2]] {
            loop {
                let now = view(socket, chat_id).await;
                let mut key = device.sender_key(&now, chat_id);
                let message = device.seal(&now, &mut key, b"crossed");
                match submit(socket, message).await {
                    Ok(_) => break,
                    // The chat has moved on: so does an honest client.
                    Err(error) => assert!(
                        matches!(
                            error.code,
                            ErrorCode::KeyStale
                                | ErrorCode::RecipientsChanged
                                | ErrorCode::RosterChanged
                                | ErrorCode::CopiesMissing
                        ),
                        "{error:?}"
                    ),
                }
            }
        }
    }
}

/// Adds somebody to one chat and then the other, and takes them out again.
async fn add_and_remove(owner: &Device, socket: &mut Socket, chat_id: ChatId, target: &Device, rounds: usize) {
    for round in 0..rounds * 2 {
        loop {
            let changed = if round % 2 == 0 {
                owner.add(socket, chat_id, target).await
            } else {
                owner.remove(socket, chat_id, target).await
            };
            match changed {
                Ok(Changed { .. }) => break,
                Err(error) => {
                    assert!(matches!(error.code, ErrorCode::RosterChanged | ErrorCode::EventConflict), "{error:?}")
                }
            }
        }
    }
}

#[tokio::test]
async fn d13_chats_and_users_that_two_nodes_change_crosswise_hold_up_nobody() {
    let mut nodes = Nodes::start().await;
    let rounds = trials(6, 500);
    let first = nodes.chat_id;
    let second = nodes.ada[1].create_chat(&mut nodes.ada_sockets[1]).await;
    for target in [&nodes.bob, &nodes.carol] {
        nodes.ada[1].add(&mut nodes.ada_sockets[1], second, target).await.unwrap();
    }
    let dan = Device::register(&nodes.a, "dan").await;
    let mut dans = dan.connect_live(&nodes.b).await;
    let Nodes { a, b, ada: [ada, other], ada_sockets: [adas, others], bob, bob_socket, carol, carol_socket, .. } =
        &mut nodes;
    let sessions = async {
        // Dan's sessions come and go: his row first, then those of whatever chats he is in.
        for round in 0..rounds {
            let broker = if round % 2 == 0 { &*a } else { &*b };
            let linked = dan.linked(broker, &mut dans).await;
            dan.revoke(&mut dans, linked.session_id).await.unwrap();
        }
    };
    tokio::join!(
        say_in_both(bob, bob_socket, [first, second], rounds),
        say_in_both(carol, carol_socket, [second, first], rounds),
        add_and_remove(ada, adas, first, &dan, rounds),
        add_and_remove(other, others, second, &dan, rounds),
        sessions,
    );
    for chat_id in [first, second] {
        assert_eq!(whole_log(bob_socket, chat_id).await, whole_log(carol_socket, chat_id).await);
    }
    for broker in [a, b] {
        assert_eq!(broker.metric("sealcast_transactions_total", "outcome=\"failed\"").await, 0.0);
    }
}

#[tokio::test]
async fn d13_a_transaction_that_met_another_is_made_again_inside() {
    let mut nodes = Nodes::start().await;
    let chat_id = nodes.chat_id;
    // Every second attempt meets another: a deadlock, or a write that cannot be put in order.
    let trip = "CREATE SEQUENCE attempts; \
         CREATE FUNCTION trip() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint := nextval('attempts'); BEGIN \
             IF n % 4 = 1 THEN RAISE EXCEPTION 'another was in the way' USING ERRCODE = '40001'; END IF; \
             IF n % 4 = 3 THEN RAISE EXCEPTION 'another was in the way' USING ERRCODE = '40P01'; END IF; \
             RETURN NULL; END $$; \
         CREATE TRIGGER trip AFTER INSERT ON chat_messages FOR EACH STATEMENT EXECUTE FUNCTION trip(); \
         CREATE TRIGGER trip AFTER INSERT ON chat_events FOR EACH STATEMENT EXECUTE FUNCTION trip()";
    nodes.database.client().await.batch_execute(trip).await.unwrap();
    let dan = Device::register(&nodes.b, "dan").await;
    for _ in 0..trials(3, 50) {
        nodes.bob.say(&mut nodes.bob_socket, chat_id, "again").await.unwrap();
        nodes.ada[1].add(&mut nodes.ada_sockets[1], chat_id, &dan).await.unwrap();
        nodes.carol.say(&mut nodes.carol_socket, chat_id, "and again").await.unwrap();
        let linked = nodes.bob.linked(&nodes.a, &mut nodes.bob_socket).await;
        nodes.bob.revoke(&mut nodes.bob_socket, linked.session_id).await.unwrap();
        nodes.ada[1].remove(&mut nodes.ada_sockets[1], chat_id, &dan).await.unwrap();
    }
    let attempts = nodes.database.count("SELECT last_value FROM attempts").await;
    let entries = nodes.database.count("SELECT last_seq FROM chats").await;
    assert!(attempts > 12, "they must have met: {attempts} attempts for {entries} entries");
    let reply = nodes.bob_socket.request(Request::Ping(sealcast::protocol::frame::Nothing {})).await;
    assert!(matches!(reply, Ok(Reply::Done(_))));
    assert_eq!(whole_log(&mut nodes.bob_socket, chat_id).await, whole_log(&mut nodes.carol_socket, chat_id).await);
}
