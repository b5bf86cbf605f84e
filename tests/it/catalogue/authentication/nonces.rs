//! Challenges: A1 answered elsewhere, A2 answered twice.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Hello, Nothing, Request, ServerFrame};

use super::super::super::messages::Pair;
use super::super::super::support::broker::{Broker, Settings};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::trials;

/// Sends a login that must be refused, and asks for everything on its heels: nothing may come but the refusal.
async fn refused(socket: &mut Socket, login: Request) {
    let id = socket.send(login).await;
    let asked = socket.send(Request::ListChats(Nothing {})).await;
    let error = socket.answer(id).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert_eq!(socket.close_code().await, Some(CloseCode::LoginRefused.number()));
    for frame in socket.pushes.drain(..) {
        match frame {
            ServerFrame::Error(error) if error.id == Some(asked) => assert_eq!(error.code, ErrorCode::Unauthenticated),
            other => panic!("it came to who never logged in: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a1_the_answer_to_one_challenge_is_worth_nothing_on_any_other_connection() {
    let mut pair = Pair::start().await;
    let bob = pair.bob.clone();
    let first = Socket::open(&pair.broker, Encoding::Json).await;
    let of_open = first.hello.clone();
    let closed = Socket::open(&pair.broker, Encoding::Json).await;
    let of_closed = closed.hello.clone();
    drop(closed);
    let used = bob.connect(&pair.broker).await;
    let of_used = used.hello.clone();
    let before = Broker::start_with(Settings::on(&pair.database)).await;
    // The same server by name, as another node is, and the same one before its restart.
    let of_other_node = Socket::open(&before, Encoding::Json).await.hello;
    let mut bob_socket = bob.connect_live(&pair.broker).await;
    let silent = Hello { nonce: sealcast::protocol::binary::Nonce([0; 32]), ..of_open.clone() };
    for (what, hello) in [
        ("another connection's", &of_open),
        ("one of a connection that has ended", &of_closed),
        ("one that was used", &of_used),
        ("another node's", &of_other_node),
        ("none at all", &silent),
    ] {
        for encoding in Encoding::ALL {
            let mut socket = Socket::open(&pair.broker, encoding).await;
            assert_ne!(socket.hello.nonce, hello.nonce, "{what}");
            // While he is written to: none of it may come here.
            pair.ada.say(&mut pair.ada_socket, pair.chat_id, "to bob alone").await.unwrap();
            refused(&mut socket, bob.login(hello)).await;
        }
    }
    assert!(bob_socket.request(Request::Ping(Nothing {})).await.is_ok(), "nobody was replaced");
    // The one whose challenge it is is no stranger by it, though the connection that was opened last stays.
    let mut first = first;
    let login = bob.login(&of_open);
    first.send(login).await;
    assert_eq!(first.close_code().await, Some(CloseCode::Replaced.number()));
    bob.say(&mut bob_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn a1_no_two_connections_get_the_same_challenge() {
    let database = Database::create().await;
    let mut broker = Broker::start(&database).await;
    let mut nonces = std::collections::HashSet::new();
    for _ in 0..2 {
        for _ in 0..trials(50, 2_000) {
            let socket = Socket::open(&broker, Encoding::Json).await;
            assert!(nonces.insert(socket.hello.nonce.0), "a challenge came twice");
        }
        broker.kill_and_restart().await;
    }
    let ada = Device::register(&broker, "ada").await;
    assert!(ada.connect(&broker).await.request(Request::Ping(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn a2_a_second_login_on_a_connection_ends_it_whatever_the_first_came_to() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    for encoding in Encoding::ALL {
        for first_is_good in [true, false] {
            for second in [&pair.bob, &eve] {
                // One after the other, and both at once.
                for at_once in [false, true] {
                    let mut socket = Socket::open(&pair.broker, encoding).await;
                    let first = if first_is_good {
                        pair.bob.login(&socket.hello)
                    } else {
                        let other = Hello { server_name: "another".to_owned(), ..socket.hello.clone() };
                        pair.bob.login(&other)
                    };
                    let second = second.login(&socket.hello);
                    let first = socket.send(first).await;
                    if !at_once && first_is_good {
                        socket.answer(first).await.unwrap();
                    }
                    socket.send(second).await;
                    let late = socket.send(Request::ListSessions(Nothing {})).await;
                    assert_eq!(socket.close_code().await, Some(CloseCode::LoginRefused.number()));
                    for frame in socket.pushes.drain(..) {
                        match frame {
                            ServerFrame::Ok(ok) => assert!(first_is_good && ok.id == first, "{ok:?}"),
                            ServerFrame::Error(error) => {
                                assert_eq!(error.code, ErrorCode::Unauthenticated);
                                assert_ne!(error.id, Some(late), "after its end");
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
    }
    let mut socket = pair.bob.connect_live(&pair.broker).await;
    pair.bob.say(&mut socket, pair.chat_id, "good").await.unwrap();
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
}
