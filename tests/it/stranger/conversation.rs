//! Two strangers talk through a real broker.

use serde_json::json;

use super::bytes::number;
use super::chat::Chat;
use super::fold::Fold;
use super::person::Person;
use super::socket::http;
use crate::support::broker::Broker;
use crate::support::database::Database;

#[tokio::test]
async fn a_client_written_from_the_document_alone_converses() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let address = broker.address();
    let (status, info) = http(address, "GET", "/v1/info", "").await;
    assert_eq!(status, 200);
    let server_name = info["server_name"].as_str().unwrap();
    let [ada, bob] = ["Ada", "bob"].map(|name| Person::new(name, number(&info["time"])));
    ada.register(address).await;
    bob.register(address).await;
    let mut to_ada = ada.connect(address, server_name).await;
    let mut to_bob = bob.connect(address, server_name).await;
    for connection in [&mut to_ada, &mut to_bob] {
        connection.get("resume", json!({"cursors": []}), "done").await;
        assert_eq!(connection.push().await, json!({"type": "live", "data": {}}));
    }

    // A chat, a second user, messages both ways.
    let mut adas = Chat::create(&ada, &mut to_ada).await;
    let added = adas.add(&ada, &mut to_ada, "bob").await.unwrap();
    assert_eq!(added, json!({"type": "changed", "data": {"seq": 3, "duplicate": false}}));
    adas.follow(&ada, &mut to_ada, 4).await;
    let mut bobs = Chat::enter(&bob, &mut to_bob).await;
    bobs.follow(&bob, &mut to_bob, 4).await;
    assert_eq!((adas.fold.roster(), adas.fold.epoch()), (bobs.fold.roster(), bobs.fold.epoch()));
    for (at, words) in [(5, "Hello, Bob."), (6, "Are you there?")] {
        let request = adas.write(&ada, words);
        let sent = to_ada.get("send", request, "sent").await;
        assert_eq!((number(&sent["seq"]), &sent["duplicate"], &sent["unreachable"]), (at, &json!(false), &json!([])));
        adas.follow(&ada, &mut to_ada, at).await;
        bobs.follow(&bob, &mut to_bob, at).await;
        assert_eq!((sent["log_hash"].clone(), at), (bobs.fold.seen()["log_hash"].clone(), bobs.fold.seq()));
    }
    let request = bobs.write(&bob, "Here I am.");
    let sent = to_bob.get("send", request.clone(), "sent").await;
    let again = to_bob.get("send", request, "sent").await;
    assert_eq!((&again["duplicate"], &again["seq"]), (&json!(true), &sent["seq"]));
    bobs.follow(&bob, &mut to_bob, 7).await;
    adas.follow(&ada, &mut to_ada, 7).await;
    let said = [(5, "Hello, Bob.".to_owned()), (6, "Are you there?".to_owned()), (7, "Here I am.".to_owned())];
    assert_eq!((&adas.read[..], &bobs.read[..]), (&said[..], &said[..]));

    // A removal ends the epoch: the old key is refused, a new one carries on without the one who went.
    let removed = adas.remove(&ada, &mut to_ada, &bob).await.unwrap();
    assert_eq!(removed["data"]["seq"], 8);
    let late = adas.write(&ada, "with the old key");
    let refused = to_ada.ask("send", late).await.unwrap_err();
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("key_stale"), &json!(true)));
    bobs.follow(&bob, &mut to_bob, 8).await;
    assert!(!bobs.fold.is_member(&bob.user_id));
    let late = bobs.write(&bob, "after the end");
    assert_eq!(to_bob.ask("send", late).await.unwrap_err()["code"], "unknown_chat");
    adas.follow(&ada, &mut to_ada, 8).await;
    // The counter of the refused message was not used up, so the log knows the key up to 2.
    adas.forget_refused();
    let request = adas.write(&ada, "Alone again.");
    assert_eq!(request["new_key"]["announcement"]["announcement"]["previous"]["last_counter"], 2);
    assert_eq!(to_ada.get("send", request, "sent").await["seq"], 9);
    adas.follow(&ada, &mut to_ada, 9).await;

    // The whole log, by pages of two, and the chain from its start.
    let mut whole = Chat::at(Fold::new(&adas.chat_id));
    loop {
        let request = json!({"chat_id": adas.chat_id, "direction": "after", "seq": whole.fold.seq(), "limit": 2});
        let page = to_ada.get("history", request, "page").await;
        assert_eq!(page["after"], whole.fold.seq());
        whole.page(&ada, &page);
        if page["more"] == false {
            break;
        }
    }
    assert_eq!((whole.fold.seen(), &whole.read), (adas.fold.seen(), &adas.read));

    // A new connection, told what is known, brings the rest; the older one is replaced.
    let mut again = ada.connect(address, server_name).await;
    assert_eq!(to_ada.close_code().await, 4500);
    let mut known = Chat::at(Fold::new(&adas.chat_id));
    let first = json!({"chat_id": adas.chat_id, "direction": "before", "seq": 5, "limit": 200});
    known.page(&ada, &again.get("history", first, "page").await);
    assert_eq!(known.fold.seq(), 4);
    let cursors = json!({"cursors": [{"chat_id": adas.chat_id, "seq": 4}]});
    again.get("resume", cursors, "done").await;
    known.follow(&ada, &mut again, 9).await;
    assert_eq!((known.fold.seen(), &known.read), (adas.fold.seen(), &adas.read));
    assert_eq!(adas.delete(&ada, &mut again).await, json!({"seq": 0, "duplicate": false}));
}
