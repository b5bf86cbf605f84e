//! Makes each frame of the socket once, in both encodings.

use sealcast::protocol::frame::{ClientFrame, ServerFrame};
use serde::Serialize;
use serde_json::{Value, json};

use super::crate_side::{pack, parse};
use super::make::{Objects, profile_key_id};
use super::make_log::{self, key_id};
use super::people::{self, NOW, chat, id};
use crate::stranger::bytes::{bytes, hex, sha256, text};
use crate::stranger::{crypto, formats};

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

/// Ada's recovery code with Bob and Cyd, and a request for it. What is wrapped and sealed only looks so.
pub struct Friends {
    pub set: Value,
    shares: Vec<Value>,
    pub user_key: Value,
    request: Value,
    release: Value,
    cancellation: Value,
}

pub fn friends() -> Friends {
    let (ada, bob, cyd) = (people::ada(), people::bob(), people::cyd());
    let (request_id, set_id) = (id(13, 0x71), id(12, 0x51));
    let wrapped = [text(&[0x41; 80]), text(&[0x42; 80])];
    let holder = |friend: &Value, key: u16, number: u8| {
        json!({
            "user_id": friend, "key_id": id(11, key), "commitment": text(&[number; 32]),
            "wrap_hash": text(&sha256(&bytes(&wrapped[usize::from(number - 1)]))),
        })
    };
    let set = json!({
        "set_id": set_id, "user_id": ada.user_id,
        "recovery_key": text(&crypto::exchange_public(&[0x43; 32])), "login_key": text(&crypto::public(&[0x44; 32])),
        "needed": 2, "holders": [holder(&bob.user_id, 0xb6, 1), holder(&cyd.user_id, 0xc6, 2)], "created_at": NOW,
    });
    let share = |number: usize| {
        let bytes = formats::share_wrap(&set, number, &ada.session_id, &wrapped[number - 1]);
        json!({"key": wrapped[number - 1], "signature": crypto::sign(&ada.signing, &bytes)})
    };
    let shares = vec![share(1), share(2)];
    let mut user_key = json!({
        "user_id": bob.user_id, "key_id": id(11, 0xb6), "public_key": text(&crypto::exchange_public(&[0x45; 32])),
    });
    user_key["signature"] = crypto::sign(&bob.identity, &formats::user_key(&user_key));
    let mut release = json!({"request_id": request_id, "set_id": set_id, "sealed": text(&[0x46; 120])});
    let bytes = formats::share_release(&release, &bob.user_id, &bob.session_id);
    release["signature"] = crypto::sign(&bob.signing, &bytes);
    Friends {
        request: json!({
            "request_id": request_id, "user_id": ada.user_id, "username": "ada",
            "public_key": text(&crypto::exchange_public(&[0x47; 32])), "created_at": NOW,
            "expires_at": NOW + 7 * 86_400_000_000, "released_by": [bob.user_id],
        }),
        cancellation: json!({
            "request_id": request_id,
            "signature": crypto::sign(&ada.identity, &formats::recovery_cancel(&ada.user_id, &request_id)),
        }),
        set: json!({"set": set, "signature": crypto::sign(&ada.identity, &formats::share_set(&set))}),
        shares,
        user_key,
        release,
    }
}

fn requests(it: &Objects) -> Vec<(&'static str, Value)> {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let change = |index: usize| it.log.changes[index].1.clone();
    let message = &it.log.messages[0].1;
    let friends = friends();
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
        ("set_chat_info", json!({"chat_id": chat(), "info": it.info, "info_keys": it.info_keys, "seal": it.seal})),
        ("upload_info_keys", json!({"chat_id": chat(), "info_keys": it.info_keys[2..], "seal": it.seal})),
        ("request_info_key", json!({"chat_id": chat()})),
        ("make_generation", generation()),
        (
            "refuse_generation",
            json!({
                "chat_id": chat(),
                "refusal": {"refusal": {"number": 2, "session_id": bob.session_id}, "signature": text(&[8; 64])},
            }),
        ),
        ("fetch_group_keys", json!({"chat_id": chat(), "after": 1})),
        ("upload_links", json!({"chat_id": chat(), "links": [it.generation_link]})),
        ("fetch_links", json!({"chat_id": chat(), "after": 1})),
        ("fetch_archives", json!({"chat_id": chat(), "key_ids": [key_id()]})),
        ("upload_backups", json!({"session_id": second.session_id, "backups": [it.backup]})),
        ("fetch_backups", json!({})),
        ("set_profile", json!({"profile": it.profile, "keys": it.profile_keys, "own_key": it.own_key})),
        ("fetch_profile", json!({"user_id": ada.user_id})),
        ("upload_profile_keys", json!({"keys": it.profile_keys[2..]})),
        ("request_profile_key", json!({"user_id": ada.user_id})),
        ("fetch_user_keys", json!({"user_ids": [bob.user_id]})),
        ("set_shares", json!({"set": friends.set, "shares": friends.shares})),
        ("fetch_share", json!({"user_id": ada.user_id})),
        ("list_recovery_requests", json!({})),
        ("release_share", friends.release),
        ("cancel_recovery_request", friends.cancellation),
        ("set_secret", json!({"chat_id": chat(), "secret": secret(), "value": text(&[8; 60])})),
        ("delete_secret", json!({"chat_id": chat(), "deletion": secret_deletion()})),
        ("list_secrets", json!({"chat_id": chat(), "after": secret_id()})),
        ("fetch_secret", json!({"chat_id": chat(), "secret_id": secret_id()})),
        ("confirm_secret", json!({"chat_id": chat(), "secret_id": secret_id(), "revision": 1})),
        ("fetch_secret_log", json!({"chat_id": chat(), "before": 7})),
    ]
}

/// A user key; signatures in what is about it are none.
const USER_KEY: &str = "019aa6f0-0008-7000-8000-0000000000f0";

fn generation() -> Value {
    let (ada, bob) = (people::ada(), people::bob());
    json!({
        "chat_id": chat(),
        "generation": {
            "generation": {
                "number": 2,
                "session_id": bob.session_id,
                "change_no": 2,
                "member_keys_hash": text(&[1; 32]),
                "public_key": text(&[2; 32]),
                "wraps_hash": text(&[3; 32]),
            },
            "signature": text(&[8; 64]),
        },
        "wraps": [{"user_id": ada.user_id, "key_id": USER_KEY, "key": text(&[7; 80])}],
    })
}

fn answers(it: &Objects) -> Vec<(&'static str, Value)> {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let mut pending = it.link.clone();
    pending.as_object_mut().unwrap().remove("user_id");
    pending["created_at"] = NOW.into();
    let key = json!({"announcement": it.announcement, "key": it.copies[0]["key"]});
    let entry = message_entry(it);
    let friends = friends();
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
        (
            "profile",
            json!({
                "user_id": ada.user_id, "profile": it.profile, "key": it.profile_keys[2], "user_key": null,
            }),
        ),
        ("deliveries", json!({"deliveries": [{"session_id": bob.session_id, "user_id": bob.user_id, "seq": 6}]})),
        (
            "group_keys",
            json!({
                "keys": [{"generation": 2, "key_id": USER_KEY, "key": text(&[7; 80]), "info_key": it.seal}],
                "more": false,
            }),
        ),
        ("links", json!({"links": [it.generation_link], "more": false})),
        (
            "archives",
            json!({"keys": [{
                "announcement": it.announcement,
                "archives": [{"generation": 2, "key": text(&[9; 80])}],
                "has_holder": true,
            }]}),
        ),
        ("backups_stored", json!({"held_before": false})),
        ("backups", json!({"backups": [it.backup]})),
        ("user_keys", json!({"keys": [friends.user_key]})),
        (
            "share",
            json!({
                "set": friends.set, "key": friends.shares[0]["key"],
                "present": [bob.user_id, people::cyd().user_id],
            }),
        ),
        ("recovery_requests", json!({"requests": [friends.request]})),
        (
            "secrets",
            json!({
                "secrets": [
                    {"secret": secret(), "writer_id": ada.user_id, "changed_at": NOW, "kept_generation": null},
                ],
                "deleted": [secret_deletion()], "last_seq": 6, "removal_seq": 0,
                "openers": [{"generation": 1, "users": [ada.user_id]}], "more": false,
            }),
        ),
        ("secret", json!({"last_seq": 6, "current": {"secret": secret(), "value": text(&[8; 60])}, "kept": null})),
        (
            "secret_log",
            json!({
                "entries": [{
                    "number": 7, "secret_id": secret_id(), "user_id": ada.user_id, "session_id": ada.session_id,
                    "action": "create", "revision": 1, "created_at": NOW,
                }],
                "more": false,
            }),
        ),
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
        ("backups_ready", json!({})),
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
                "generation": 2,
            }),
        ),
        ("profile_changed", json!({"user_id": ada.user_id, "revision": 1})),
        (
            "profile_key_requested",
            json!({
                "key_id": profile_key_id(), "session_ids": [bob.session_id],
                "chats": [{"chat_id": chat(), "seq": 6}],
            }),
        ),
        ("recovery_requested", friends().request),
        ("recovery_cancelled", json!({"request_id": friends().request["request_id"], "user_id": ada.user_id})),
        ("secret_changed", json!({"chat_id": chat(), "secret_id": secret_id(), "revision": 1})),
    ]
}

fn secret_id() -> &'static str {
    "019aa6f0-000a-7000-8000-0000000000e1"
}

/// The first revision of a group secret.
fn secret() -> Value {
    let ada = people::ada();
    let secret = json!({
        "secret_id": secret_id(), "revision": 1, "write": "set", "generation": 1, "changed_seq": 5,
        "session_id": ada.session_id, "previous": null, "source": null, "name": text(&[7; 40]),
        "value_hash": text(&sha256(&[8; 60])),
    });
    let signature = crypto::sign(&ada.signing, &formats::group_secret(&chat(), &secret));
    json!({"secret": secret, "signature": signature})
}

/// The end of the secret.
fn secret_deletion() -> Value {
    let (ada, before) = (people::ada(), secret());
    let bytes = formats::group_secret(&chat(), &before["secret"]);
    let previous = text(&formats::group_secret_revision(&bytes, &before["signature"]).hash());
    let deletion = json!({
        "secret_id": secret_id(), "revision": 2, "session_id": ada.session_id, "previous": previous,
    });
    let signature = crypto::sign(&ada.signing, &formats::group_secret_deletion(&chat(), &deletion));
    json!({"deletion": deletion, "signature": signature})
}

fn last_change(it: &Objects, name: &str) -> Value {
    it.log.changes.iter().find(|(other, ..)| *other == name).unwrap().1.clone()
}

fn message_entry(it: &Objects) -> Value {
    let log = it.log.to_json();
    let entries = log["vectors"].as_array().unwrap();
    entries.iter().map(|vector| &vector["entry"]).find(|it| it["body"]["type"] == "message").unwrap().clone()
}
