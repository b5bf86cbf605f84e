//! What the operator does by `sealcast admin`, beside a broker that serves.

use std::process::Stdio;

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, ErrorCode};
use sealcast::protocol::frame::{Nothing, Request, ServerFrame};
use sealcast::protocol::ids::UserId;
use sealcast::protocol::log::{EntryBody, LogEntry};
use serde_json::Value;

use super::codes::contents;
use super::messages::Pair;
use super::rights::agrees;
use super::support::broker::{Broker, Settings, executable};
use super::support::chat::{submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::halves::Halves;
use super::support::link::sessions;
use super::support::within;
use super::verify::program::verify_url;

/// Calls `sealcast admin --json`; gives the exit code and what it printed.
async fn call(database: &Database, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = tokio::process::Command::new(executable());
    command.args(["admin", "--json"]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.env("SEALCAST__DATABASE__URL", database.url());
    let output = within("a command of the operator", command.output()).await.unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), json, String::from_utf8(output.stderr).unwrap())
}

async fn admin(database: &Database, arguments: &[&str]) -> Value {
    let (code, json, complaint) = call(database, arguments).await;
    assert_eq!(code, Some(0), "{arguments:?}: {complaint}");
    json
}

async fn register(broker: &Broker, name: &str, code: Option<&str>) -> (u16, String) {
    let mut request = Device::unregistered(name, 1_000).registration();
    request.invitation = code.map(str::to_owned);
    broker.request("POST", "/v1/accounts", &serde_json::to_string(&request).unwrap()).await
}

fn is(answer: &(u16, String), status: u16, code: ErrorCode) -> bool {
    answer.0 == status && answer.1.contains(&format!("\"{}\"", code.as_str()))
}

#[tokio::test]
async fn an_invitation_is_used_as_often_as_it_says_and_no_more() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("registration.mode", "invitation")).await;
    assert!(is(&register(&broker, "ada", None).await, 403, ErrorCode::InvitationNeeded));
    for wrong in ["", "nonsense", &"a".repeat(4_000)] {
        assert!(is(&register(&broker, "ada", Some(wrong)).await, 403, ErrorCode::InvitationInvalid), "{wrong:.20}");
    }
    let made = admin(&database, &["invitations", "create"]).await;
    let code = made["code"].as_str().unwrap();
    assert_eq!(database.count("SELECT count(*) FROM users").await, 0);

    // Of many at once for the one use one alone gets it, and the same request again gets the same answer.
    let mut requests = Vec::new();
    for number in 0..6 {
        let mut request = Device::unregistered(&format!("user{number}"), 1_000).registration();
        request.invitation = Some(code.to_owned());
        requests.push(serde_json::to_string(&request).unwrap());
    }
    let answers = requests.iter().map(|body| broker.request("POST", "/v1/accounts", body));
    let answers: Vec<(u16, String)> = futures_util::future::join_all(answers).await;
    let winners: Vec<usize> = (0..6).filter(|index| answers[*index].0 == 200).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    for (index, answer) in answers.iter().enumerate().filter(|(index, _)| *index != winners[0]) {
        assert!(is(answer, 403, ErrorCode::InvitationInvalid), "{index}: {answer:?}");
    }
    assert_eq!(broker.request("POST", "/v1/accounts", &requests[winners[0]]).await, answers[winners[0]]);
    assert_eq!(database.count("SELECT count(*) FROM users").await, 1);
    assert_eq!(database.count("SELECT uses_left::bigint FROM invitations").await, 0);

    // A registration that is refused for something else uses nothing up.
    let two = admin(&database, &["invitations", "create", "--uses", "2", "--days", "1"]).await;
    let code = two["code"].as_str().unwrap();
    let taken = format!("user{}", winners[0]);
    assert!(is(&register(&broker, &taken, Some(code)).await, 409, ErrorCode::UsernameTaken));
    // Without a code that is good nobody learns who is there.
    let used_up = admin(&database, &["invitations", "create"]).await;
    admin(&database, &["invitations", "revoke", used_up["invitation_id"].as_str().unwrap()]).await;
    let answer = register(&broker, &taken, used_up["code"].as_str()).await;
    assert!(is(&answer, 403, ErrorCode::InvitationInvalid), "{answer:?}");
    assert!(is(&register(&broker, &taken, None).await, 403, ErrorCode::InvitationNeeded));
    assert_eq!(register(&broker, "bob", Some(&code.to_uppercase().replace('-', " "))).await.0, 200);
    let end = "UPDATE invitations SET expires_at = clock_timestamp() WHERE uses_left > 0";
    database.client().await.batch_execute(end).await.unwrap();
    assert!(is(&register(&broker, "carol", Some(code)).await, 403, ErrorCode::InvitationInvalid));

    // The code is kept nowhere, and one that is revoked is none.
    let listed = admin(&database, &["invitations", "list"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(code));
    let three = admin(&database, &["invitations", "create"]).await;
    admin(&database, &["invitations", "revoke", three["invitation_id"].as_str().unwrap()]).await;
    assert!(is(&register(&broker, "dan", three["code"].as_str()).await, 403, ErrorCode::InvitationInvalid));
    let (status, _, complaint) = call(&database, &["invitations", "revoke", &UserId::generate().to_string()]).await;
    assert!(status == Some(1) && complaint.contains("there is no invitation"), "{complaint}");
}

#[tokio::test]
async fn nobody_registers_where_registration_is_closed() {
    let database = Database::create().await;
    let device = Device::unregistered("ada", 1_000);
    let body = serde_json::to_string(&device.registration()).unwrap();
    {
        let broker = Broker::start(&database).await;
        assert_eq!(broker.request("POST", "/v1/accounts", &body).await.0, 200);
    }
    let broker = Broker::start_with(Settings::on(&database).with("registration.mode", "closed")).await;
    let code = admin(&database, &["invitations", "create"]).await;
    assert!(is(&register(&broker, "bob", code["code"].as_str()).await, 403, ErrorCode::RegistrationClosed));
    assert_eq!(broker.request("POST", "/v1/accounts", &body).await.0, 200, "a repeat is told that it is done");
    assert_eq!(database.count("SELECT count(*) FROM users").await, 1);
}

#[tokio::test]
async fn who_is_suspended_neither_logs_in_nor_sends_and_stays_a_recipient() {
    let mut pair = Pair::start().await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(admin(&pair.database, &["users", "suspend", "BOB"]).await["has_changed"], true);
    let closed = within("the close", pair.bob_socket.close_code()).await;
    assert_eq!(closed, Some(CloseCode::AccountSuspended.number()));
    let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
    let error = socket.request(pair.bob.login(&socket.hello)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AccountSuspended);
    assert_eq!(socket.close_code().await, Some(CloseCode::AccountSuspended.number()));
    let sent = pair.ada.say(&mut pair.ada_socket, pair.chat_id, "for you all the same").await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(now.fold.recipients(), before.fold.recipients());
    let entries = "SELECT count(*) FROM chat_events WHERE kind LIKE 'account%' OR kind = 'session_out'";
    assert_eq!(pair.database.count(entries).await, 0, "no log says so");
    let users = admin(&pair.database, &["users", "show", "bob"]).await;
    assert!(users[0]["suspended_at"].is_string(), "{users}");

    assert_eq!(
        admin(&pair.database, &["users", "unsuspend", &pair.bob.user_id.to_string()]).await["has_changed"],
        true
    );
    let mut socket = pair.bob.connect_live(&pair.broker).await;
    let read = view(&mut socket, pair.chat_id).await;
    assert_eq!(read.seen.seq, sent.seq);
    pair.bob.say(&mut socket, pair.chat_id, "back again").await.unwrap();
    verify_url(pair.database.url(), &[]).await.good();
}

#[tokio::test]
async fn a_session_that_is_disconnected_may_come_back() {
    let mut pair = Pair::start().await;
    let sessions = admin(&pair.database, &["sessions", "list", "bob"]).await;
    assert_eq!(sessions[0]["session_id"], pair.bob.session_id.to_string());
    let (status, _, complaint) =
        call(&pair.database, &["sessions", "disconnect", "bob", "--session", &pair.ada.session_id.to_string()]).await;
    assert!(status == Some(1) && complaint.contains("unknown_session"), "{complaint}");
    let (status, _, complaint) = call(&pair.database, &["sessions", "disconnect", "nobody"]).await;
    assert!(status == Some(1) && complaint.contains("unknown_user"), "{complaint}");
    admin(&pair.database, &["sessions", "disconnect", "bob"]).await;
    let closed = within("the close", pair.bob_socket.close_code()).await;
    assert_eq!(closed, Some(CloseCode::Disconnected.number()));
    pair.bob.connect_live(&pair.broker).await;
    pair.ada_socket.request(Request::Ping(Nothing {})).await.unwrap();
}

#[tokio::test]
async fn p5_p7_an_account_that_the_operator_ends_leaves_by_an_entry_that_says_who_did_it() {
    let mut pair = Pair::start().await;
    let before = view(&mut pair.bob_socket, pair.chat_id).await;
    let mut key = pair.bob.sender_key(&before, pair.chat_id);
    let message = pair.bob.seal(&before, &mut key, b"she holds this key");
    submit(&mut pair.bob_socket, message).await.unwrap();
    let (status, _, complaint) = call(&pair.database, &["users", "delete", "ada"]).await;
    assert!(status == Some(1) && complaint.contains("--yes"), "{complaint}");
    assert_eq!(admin(&pair.database, &["users", "delete", "ada", "--yes"]).await["chats"], 1);

    let closed = within("the close", pair.ada_socket.close_code()).await;
    assert_eq!(closed, Some(CloseCode::AccountRemoved.number()));
    let (chat_id, gone) = (pair.chat_id, pair.ada.user_id);
    let is_it = |entry: &LogEntry| matches!(entry.body, EntryBody::AccountRemoved { user_id } if user_id == gone);
    let told = |push: &ServerFrame| match push {
        ServerFrame::Entry(push) if push.chat_id == chat_id => is_it(&push.entry).then_some(push.entry.seq),
        ServerFrame::Page(page) if page.chat_id == chat_id => {
            page.entries.iter().find(|entry| is_it(entry)).map(|entry| entry.seq)
        }
        _ => None,
    };
    let seq = within("the entry", pair.bob_socket.push_that(told)).await;
    let now = view(&mut pair.bob_socket, chat_id).await;
    assert_eq!((now.fold.epoch(), now.fold.roster_version()), (before.fold.epoch().next(), seq));
    assert_eq!(now.fold.membership().owner_id, pair.bob.user_id);
    assert_eq!(now.fold.recipients().keys().copied().collect::<Vec<_>>(), vec![pair.bob.session_id]);
    agrees(&pair.database, chat_id, &now.fold).await;
    let message = pair.bob.seal(&now, &mut key, b"under the key that she holds");
    assert_eq!(submit(&mut pair.bob_socket, message).await.unwrap_err().code, ErrorCode::KeyStale);
    pair.bob.say(&mut pair.bob_socket, chat_id, "on my own").await.unwrap();

    let mut socket = Socket::open(&pair.broker, Encoding::Json).await;
    let error = socket.request(pair.ada.login(&socket.hello)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated);
    assert!(is(&register(&pair.broker, "ada", None).await, 409, ErrorCode::UsernameTaken));
    for table in ["user_sessions", "user_in_chat", "vault_backup_session_keys"] {
        let column = if table == "vault_backup_session_keys" { "backed_up_user_id" } else { "user_id" };
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} = '{gone}'");
        assert_eq!(pair.database.count(&sql).await, 0, "{table}");
    }
    verify_url(pair.database.url(), &[]).await.good();
    // Without the note that the operator did it, the chain lacks its end.
    pair.database.client().await.batch_execute("DELETE FROM removed_users").await.unwrap();
    let report = verify_url(pair.database.url(), &[]).await;
    assert_eq!((report.count("account_end"), report.count("not_in_chain")), (1, 1));
}

#[tokio::test]
async fn p5_the_store_refuses_who_is_suspended_before_a_broker_has_noticed() {
    let mut pair = Pair::start().await;
    let mut halves = Halves::none();
    halves.renew(&pair.broker, &pair.bob).await;
    let mut tablet = pair.bob.pending(&pair.broker).await;
    let chain = sessions(&mut pair.bob_socket).await;
    tablet.certify_at(chain.place.next(), chain.hash);
    let approve = Request::ApproveSession(tablet.approval());
    pair.bob.certify_again(chain.place.next(), chain.hash, 30 * 24 * 3_600 * 1_000_000);
    let renew = pair.bob.renewal();
    // As between the command's commit and the word that brokers have of it.
    let suspend = format!("UPDATE users SET suspended_at = clock_timestamp() WHERE id = '{}'", pair.bob.user_id);
    pair.database.client().await.batch_execute(&suspend).await.unwrap();
    let before = contents(&pair.database).await;
    for request in [approve, renew, Request::ListSessions(Nothing {}), Request::ListChats(Nothing {})] {
        let name = request.name();
        let refused = pair.bob_socket.request(request).await.expect_err(name);
        assert_eq!(refused.code, ErrorCode::AccountSuspended, "{name}");
    }
    let answer = halves.try_to_renew(&pair.broker, &pair.bob).await;
    assert!(is(&answer, 403, ErrorCode::AccountSuspended), "{answer:?}");
    assert_eq!(contents(&pair.database).await, before);
}

#[cfg(feature = "client")]
#[tokio::test]
async fn p7_clients_show_that_an_account_was_ended_by_the_server_and_its_own_is_told() {
    use sealcast::client::{CloseReason, Event};

    use super::support::library::{ann_and_bob, event_that};

    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let (mut anns, mut bobs) = (ann.events(), bob.events());
    admin(&database, &["users", "delete", "bob", "--yes"]).await;
    let forced = event_that("the end of Bob's account", &mut anns, |event| match event {
        Event::AccountRemoved { chat_id, user_id, heir, .. } => Some((*chat_id, *user_id, *heir)),
        Event::Alarm(alarm) => panic!("{alarm:?}"),
        _ => None,
    });
    assert_eq!(forced.await, (chat_id, bob.user_id(), None));
    let closed = event_that("the close", &mut bobs, |event| match event {
        Event::Closed(reason) => Some(*reason),
        _ => None,
    });
    assert_eq!(closed.await, CloseReason::Code(CloseCode::AccountRemoved));
    assert_eq!(ann.members(chat_id).await.unwrap().len(), 1);
    ann.send(chat_id, "on my own").await.unwrap();
}

#[tokio::test]
async fn lists_show_what_is_there_and_nothing_that_is_sealed() {
    let mut pair = Pair::start().await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "canary").await.unwrap();
    let users = admin(&pair.database, &["users", "list", "--after", "ada"]).await;
    assert_eq!((users.as_array().unwrap().len(), &users[0]["username"]), (1, &Value::from("bob")));
    admin(&pair.database, &["statistics", "rebuild"]).await;
    let storage = admin(&pair.database, &["storage"]).await;
    let messages = storage.as_array().unwrap().iter().find(|table| table["table"] == "chat_messages").unwrap();
    assert!(messages["rows_about"] == 1 && messages["bytes"].as_u64() > Some(8_000), "{messages}");
    for by in ["size", "age"] {
        let chats = admin(&pair.database, &["chats", "list", "--by", by]).await;
        let chat = &chats[0];
        assert!(chat["owner"] == "ada" && chat["members"] == 2 && chat["messages"] == 1, "{chat}");
        assert!(chat["data_bytes"].as_u64() > Some(0) && !chats.to_string().contains("canary"), "{chat}");
    }
}

#[tokio::test]
async fn p9_bytes_of_one_connection_are_bounded_and_others_go_on() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.bytes_per_s", 1_024).with("limits.bytes_burst", 1 << 20);
    let mut pair = Pair::start_on(database, settings).await;
    let large = "a".repeat(60_000);
    let mut refused = None;
    for _ in 0..20 {
        refused = pair.ada.say(&mut pair.ada_socket, pair.chat_id, &large).await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("a refusal within the burst");
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.details.unwrap().retry_after_ms.unwrap() > 1_000, "the rate of bytes says when");
    pair.bob.say(&mut pair.bob_socket, pair.chat_id, "not held up").await.unwrap();
}
