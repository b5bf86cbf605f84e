//! Makes each frame of the socket once, in both encodings.

use sealcast::protocol::frame::{ClientFrame, ServerFrame};
use serde::Serialize;
use serde_json::{Value, json};

use super::crate_side::{pack, parse};
use super::make::Objects;
use super::make_log::{self, key_id};
use super::people::{self, NOW, chat};
use crate::stranger::bytes::{hex, text};

/// Takes the frame as the crate writes it, with fields that were left out here.
fn vector(name: &str, from: &str, frame: &Value) -> Value {
    let (packed, json) = match from {
        "client" => written(&parse::<ClientFrame>(frame)),
        _ => written(&parse::<ServerFrame>(frame)),
    };
    json!({"name": name, "from": from, "json": json, "msgpack": hex(&packed)})
}

fn written(frame: &impl Serialize) -> (Vec<u8>, Value) {
    (pack(frame), serde_json::to_value(frame).unwrap())
}

/// Every request, every answer, every push.
pub fn frames(it: &Objects) -> Vec<Value> {
    let requests = requests(it).into_iter().enumerate().map(|(index, (name, data))| {
        vector(name, "client", &json!({"id": index + 1, "request": {"type": name, "data": data}}))
    });
    let answers = answers(it).into_iter().enumerate().map(|(index, (name, data))| {
        let data = json!({"id": index + 1, "result": {"type": name, "data": data}});
        vector(name, "server", &json!({"type": "ok", "data": data}))
    });
    let pushes =
        pushes(it).into_iter().map(|(name, data)| vector(name, "server", &json!({"type": name, "data": data})));
    requests.chain(answers).chain(pushes).chain([greatest()]).collect()
}

/// The greatest number, an empty text, and a request's number of zero.
fn greatest() -> Value {
    let error = json!({"id": 9_007_199_254_740_991_u64, "code": "too_large", "message": "", "retryable": false});
    vector("error, the greatest number", "server", &json!({"type": "error", "data": error}))
}

fn requests(it: &Objects) -> Vec<(&'static str, Value)> {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let change = |index: usize| it.log.changes[index].1.clone();
    let message = &it.log.messages[0].1;
    vec![
        ("authenticate", it.login.clone()),
        ("resume", json!({"cursors": [{"chat_id": chat(), "seq": 3}]})),
        ("lookup_user", json!({"username": "bob"})),
        ("list_sessions", json!({})),
        ("approve_session", json!({"certificate": second.certificate, "handover": it.handover})),
        ("revoke_session", json!({"revocation": make_log::revocation()})),
        ("fetch_handover", json!({})),
        (
            "create_chat",
            json!({"chat_id": chat(), "change": change(0), "name": it.name, "info_keys": it.info_keys[..2]}),
        ),
        ("change_membership", json!({"chat_id": chat(), "change": change(1), "info_keys": it.info_keys[2..]})),
        ("delete_chat", json!({"chat_id": chat(), "change": last_change(it, "delete")})),
        ("list_chats", json!({})),
        ("list_members", json!({"chat_id": chat()})),
        ("send", json!({"chat_id": chat(), "envelope": message, "new_key": it.new_key, "add_copies": []})),
        (
            "stage_copies",
            json!({"chat_id": chat(), "key_id": key_id(), "part": 0, "parts": 2, "copies": it.copies[..2]}),
        ),
        ("history", json!({"chat_id": chat(), "direction": "after", "seq": 4, "limit": 100})),
        ("events", json!({"chat_id": chat(), "after": 0, "before": 5})),
        ("keys", json!({"chat_id": chat(), "key_ids": [key_id()]})),
        ("advance_cursor", json!({"chat_id": chat(), "seq": 5})),
        ("ping", json!({})),
        ("user_events", json!({"users": [{"user_id": ada.user_id, "after": 1}]})),
        ("set_label", json!({"session_id": ada.session_id, "label": text(&[9; 40])})),
        ("delete_account", json!({"deletion": make_log::deletion()})),
        ("fetch_settings", json!({})),
        ("set_add_policy", json!({"policy": "shared_chat"})),
        ("set_block", json!({"user_id": bob.user_id, "blocked": true})),
        ("signal", json!({"chat_id": chat(), "signal": it.signal})),
        ("list_deliveries", json!({"chat_id": chat()})),
        ("request_keys", json!({"chat_id": chat(), "key_ids": [key_id()]})),
        (
            "upload_copies",
            json!({
                "chat_id": chat(),
                "copies": [{"key_id": key_id(), "session_id": bob.session_id, "key": it.copies[2]["key"]}],
            }),
        ),
        ("refuse_copy", json!({"chat_id": chat(), "refusal": it.refusal})),
        ("set_chat_info", json!({"chat_id": chat(), "info": it.info, "info_keys": it.info_keys})),
        ("upload_info_keys", json!({"chat_id": chat(), "info_keys": it.info_keys[2..]})),
        ("request_info_key", json!({"chat_id": chat()})),
    ]
}

fn answers(it: &Objects) -> Vec<(&'static str, Value)> {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let mut pending = it.link.clone();
    pending.as_object_mut().unwrap().remove("user_id");
    pending["created_at"] = NOW.into();
    let key = json!({"announcement": it.announcement, "key": it.copies[0]["key"]});
    let entry = message_entry(it);
    vec![
        ("done", json!({})),
        ("authenticated", json!({"user_id": ada.user_id, "state": "live"})),
        (
            "user",
            json!({
                "user_id": bob.user_id,
                "username": "bob",
                "identity_key": bob.identity_key(),
                "sessions": [bob.certificate],
            }),
        ),
        (
            "sessions",
            json!({
                "sessions": [{"certificate": ada.certificate, "state": "live", "last_seen_at": NOW}],
                "pending": [pending],
                "place": 1,
                "hash": text(&people::chain_hash("certificate", &ada.certificate)),
            }),
        ),
        ("handover", json!({"certificate": second.certificate, "handover": it.handover})),
        ("changed", json!({"seq": 1, "duplicate": false})),
        (
            "chats",
            json!({"chats": [{
                "chat_id": chat(), "joined_seq": 1, "readable_from": 1, "last_seq": 6, "cursor": 5, "name": it.name,
                "info_key": it.info_keys[0],
            }]}),
        ),
        ("members", json!({"members": [{"user_id": ada.user_id, "username": "ada"}]})),
        (
            "sent",
            json!({
                "seq": entry["seq"], "created_at": entry["created_at"], "log_hash": entry["log_hash"],
                "duplicate": false, "unreachable": [bob.user_id], "refused": [],
            }),
        ),
        (
            "page",
            json!({
                "chat_id": chat(), "after": 5, "up_to": 6, "more": true, "entries": [entry], "keys": [key],
            }),
        ),
        ("keys", json!({"keys": [{"announcement": it.announcement, "key": null}]})),
        (
            "chains",
            json!({"chains": [{
                "user_id": ada.user_id,
                "events": [
                    {"type": "certificate", "data": second.certificate},
                    {"type": "revocation", "data": make_log::revocation()},
                    {"type": "deletion", "data": make_log::deletion()},
                ],
                "more": false,
            }]}),
        ),
        ("settings", json!({"add_policy": "everyone", "blocked": [{"user_id": bob.user_id, "username": "bob"}]})),
        ("deliveries", json!({"deliveries": [{"session_id": bob.session_id, "user_id": bob.user_id, "seq": 6}]})),
    ]
}

fn pushes(it: &Objects) -> Vec<(&'static str, Value)> {
    let (ada, bob) = (people::ada(), people::bob());
    let mut pending = it.link.clone();
    pending.as_object_mut().unwrap().remove("user_id");
    pending["created_at"] = NOW.into();
    let key = json!({"announcement": it.announcement, "key": it.copies[2]["key"]});
    let entries = it.log.to_json()["vectors"].as_array().unwrap().clone();
    let entries: Vec<Value> = entries.iter().map(|vector| vector["entry"].clone()).collect();
    vec![
        (
            "hello",
            json!({
                "nonce": text(&[7; 32]), "server_name": "sealcast", "server_version": "0.1.0", "time": NOW,
                "login_timeout_s": 10, "ping_interval_s": 30, "key_messages_max": 500,
                "key_messages_max_large": 10_000, "key_recipients_large": 256, "key_age_max_s": 604_800,
            }),
        ),
        (
            "error",
            json!({
                "id": null, "code": "copies_missing", "message": "recipients without a copy of the key",
                "retryable": true,
                "details": {"seq": 4, "epoch": 2, "missing": [bob.session_id], "reason": "new_session"},
            }),
        ),
        ("entry", json!({"chat_id": chat(), "entry": message_entry(it)})),
        ("key", json!({"chat_id": chat(), "key": key})),
        (
            "page",
            json!({
                "chat_id": chat(), "after": 0, "up_to": entries.len(), "more": false, "entries": entries,
                "keys": [key],
            }),
        ),
        ("live", json!({})),
        ("chat_deleted", json!({"chat_id": chat(), "change": last_change(it, "delete")})),
        ("chat_gone", json!({"chat_id": chat()})),
        ("approved", json!({})),
        ("session_pending", pending),
        ("bye", json!({"retry_after_ms": 1250})),
        ("signal", json!({"chat_id": chat(), "signal": it.signal})),
        (
            "delivered",
            json!({"chat_id": chat(), "delivery": {"session_id": bob.session_id, "user_id": bob.user_id, "seq": 6}}),
        ),
        ("key_requested", json!({"chat_id": chat(), "session_id": bob.session_id, "key_ids": [key_id()]})),
        (
            "copy_refused",
            json!({
                "chat_id": chat(), "sender_session_id": ada.session_id,
                "uploaded_by_session_id": ada.session_id, "refusal": it.refusal,
            }),
        ),
        (
            "chat_info",
            json!({
                "chat_id": chat(), "last_seq": 6, "name": null, "info": it.info, "info_key": it.info_keys[2],
            }),
        ),
        (
            "info_key_requested",
            json!({
                "chat_id": chat(), "last_seq": 6, "key_id": it.info_keys[2]["key_id"], "session_ids": [bob.session_id],
            }),
        ),
    ]
}

fn last_change(it: &Objects, name: &str) -> Value {
    it.log.changes.iter().find(|(other, ..)| *other == name).unwrap().1.clone()
}

fn message_entry(it: &Objects) -> Value {
    let log = it.log.to_json();
    let entries = log["vectors"].as_array().unwrap();
    entries.iter().map(|vector| &vector["entry"]).find(|it| it["body"]["type"] == "message").unwrap().clone()
}
