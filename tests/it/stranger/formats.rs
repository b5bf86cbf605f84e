//! The bytes that are signed, hashed and bound (section 10 of the document), over objects in wire form.

use serde_json::Value;

use super::bytes::{Canonical, array, bytes, id, sha256};

/// What the session signs to log in.
pub fn login(nonce: &Value, server_name: &str, session_id: &Value) -> Vec<u8> {
    Canonical::new("login").bytes_of(nonce).field(server_name.as_bytes()).id_of(session_id).done()
}

/// The signed bytes of a certificate.
pub fn certificate(it: &Value) -> Vec<u8> {
    Canonical::new("certificate")
        .id_of(&it["user_id"])
        .number_of(&it["place"])
        .bytes_of(&it["previous"])
        .id_of(&it["session_id"])
        .bytes_of(&it["public_key"])
        .bytes_of(&it["signing_public_key"])
        .number_of(&it["created_at"])
        .number_of(&it["expired_at"])
        .done()
}

/// The signed bytes of a revocation.
pub fn revocation(it: &Value) -> Vec<u8> {
    let revoker = match it["revoker"]["type"].as_str() {
        Some("identity") => &Value::Null,
        Some("session") => &it["revoker"]["data"],
        _ => panic!("{it}"),
    };
    Canonical::new("revocation")
        .id_of(&it["user_id"])
        .number_of(&it["place"])
        .bytes_of(&it["previous"])
        .id_of(&it["session_id"])
        .id_or_absent(revoker)
        .number_of(&it["created_at"])
        .done()
}

/// The start of a user's chain.
pub fn user_chain(user_id: &Value) -> [u8; 32] {
    Canonical::new("user-chain").id_of(user_id).hash()
}

/// The hash of an entry of a user's chain.
pub fn user_event(signed: &[u8], signature: &Value) -> [u8; 32] {
    Canonical::new("user-event").field(signed).bytes_of(signature).hash()
}

/// The bytes of an expiry, which nobody signs.
pub fn expiry(it: &Value) -> Vec<u8> {
    Canonical::new("expiry").id_of(&it["user_id"]).id_of(&it["session_id"]).done()
}

/// The signed bytes of a membership change.
pub fn membership(chat_id: &Value, it: &Value) -> Vec<u8> {
    let word = &it["change"]["type"];
    let head = Canonical::new("membership")
        .id_of(chat_id)
        .number_of(&it["n"])
        .bytes_of(&it["previous"])
        .number_of(&it["seen"]["seq"])
        .bytes_of(&it["seen"]["log_hash"])
        .id_of(&it["actor"]["user_id"])
        .id_of(&it["actor"]["session_id"])
        .bytes_of(&it["actor"]["identity_key"])
        .text_of(word);
    let data = &it["change"]["data"];
    let kind = word.as_str().unwrap();
    let with_rights = match kind {
        "add" | "set_rights" => head.truth_of(&data["can_write"]).truth_of(&data["can_manage"]),
        _ => head.number(0).number(0),
    };
    let with_roster = match kind {
        "add" => with_rights.bytes_of(&data["roster_hash"]).number_of(&data["epoch"]),
        _ => with_rights.absent().number(0),
    };
    let with_policy = if kind == "set_history" { with_roster.text_of(&data["policy"]) } else { with_roster.absent() };
    with_policy.id_of(&it["target"]["user_id"]).bytes_of(&it["target"]["identity_key"]).done()
}

/// The start of a chat's membership changes.
pub fn membership_chain(chat_id: &Value) -> [u8; 32] {
    Canonical::new("membership-chain").id_of(chat_id).hash()
}

/// The hash of one membership change.
pub fn membership_event(signed: &[u8], signature: &Value) -> [u8; 32] {
    Canonical::new("membership-event").field(signed).bytes_of(signature).hash()
}

/// The signed bytes of a message.
pub fn message(chat_id: &Value, it: &Value) -> Vec<u8> {
    let data = match (&it["data"], &it["purged"]) {
        (Value::Null, Value::Null) => sha256(&[]),
        (Value::Null, purged) => array(purged),
        (data, _) => sha256(&bytes(data)),
    };
    let attachments = it["attachments"].as_array().unwrap();
    let head = Canonical::new("message")
        .text_of(&it["kind"])
        .id_of(chat_id)
        .id_of(&it["message_id"])
        .number_of(&it["revision"])
        .id_of(&it["sender_id"])
        .id_of(&it["sender_session_id"])
        .id_or_absent(&it["key_id"])
        .number_of(&it["counter"])
        .bytes_of(&it["roster_hash"])
        .number_of(&it["seen"]["seq"])
        .bytes_of(&it["seen"]["log_hash"])
        .number(attachments.len() as u64);
    attachments.iter().fold(head, Canonical::id_of).field(&data).done()
}

/// The signed bytes of a sender key's announcement.
pub fn announcement(chat_id: &Value, it: &Value) -> Vec<u8> {
    let head = Canonical::new("announcement")
        .id_of(&it["key_id"])
        .id_of(chat_id)
        .id_of(&it["session_id"])
        .number_of(&it["epoch"])
        .bytes_of(&it["commitment"]);
    match &it["previous"] {
        Value::Null => head.absent().number(0).done(),
        previous => head.id_of(&previous["key_id"]).number_of(&previous["last_counter"]).done(),
    }
}

/// The commitment to a sender key.
pub fn commitment(secret: &[u8; 32]) -> [u8; 32] {
    Canonical::new("commitment").field(secret).hash()
}

/// The signed bytes of an info-key wrap.
pub fn info_key_wrap(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("info-key-wrap")
        .id_of(chat_id)
        .id_of(&it["key_id"])
        .id_of(&it["session_id"])
        .id_of(&it["wrapped_by_session_id"])
        .bytes_of(&it["key"])
        .done()
}

/// The start of a log.
pub fn log(chat_id: &Value) -> [u8; 32] {
    Canonical::new("log").id_of(chat_id).hash()
}

/// The digest of an entry's body.
pub fn digest(chat_id: &Value, body: &Value) -> [u8; 32] {
    let data = &body["data"];
    let (signed, signature) = match body["type"].as_str().unwrap() {
        "message" => (message(chat_id, data), &data["signature"]),
        "membership" => (membership(chat_id, &data["change"]), &data["signature"]),
        "session_in" => (certificate(&data["certificate"]), &data["signature"]),
        "session_out" => match data["type"].as_str().unwrap() {
            "revoked" => (revocation(&data["data"]["revocation"]), &data["data"]["signature"]),
            "expired" => (expiry(&data["data"]), &Value::Null),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    };
    let head = Canonical::new("log-entry").field(&signed);
    if signature.is_null() { head.absent().hash() } else { head.bytes_of(signature).hash() }
}

/// The hash of a log up to and with an entry.
pub fn log_hash(chat_id: &Value, before: &[u8; 32], entry: &Value) -> [u8; 32] {
    Canonical::new("log-hash")
        .id_of(chat_id)
        .field(before)
        .number_of(&entry["seq"])
        .number_of(&entry["created_at"])
        .field(&digest(chat_id, &entry["body"]))
        .hash()
}

/// The hash of a roster: sessions and their X25519 keys, in any order.
pub fn roster<'a>(recipients: impl IntoIterator<Item = (&'a Value, &'a Value)>) -> [u8; 32] {
    let mut sorted: Vec<_> = recipients.into_iter().map(|(session, key)| (id(session), bytes(key))).collect();
    sorted.sort();
    let head = Canonical::new("roster").number(sorted.len() as u64);
    sorted.iter().fold(head, |all, (session, key)| all.number(0).field(session).field(key)).hash()
}

/// The hash of a list of copies that goes ahead.
pub fn staged(copies: &[Value]) -> [u8; 32] {
    let mut sorted: Vec<_> = copies.iter().map(|copy| (id(&copy["session_id"]), bytes(&copy["key"]))).collect();
    sorted.sort();
    let head = Canonical::new("staged-copies").number(sorted.len() as u64);
    sorted.iter().fold(head, |all, (session, key)| all.field(session).field(key)).hash()
}

/// What the proof of a link is made over.
pub fn link(it: &Value) -> Vec<u8> {
    Canonical::new("link")
        .id_of(&it["user_id"])
        .id_of(&it["session_id"])
        .bytes_of(&it["public_key"])
        .bytes_of(&it["signing_public_key"])
        .done()
}

/// Bound to a message's ciphertext.
pub fn aad_message(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("aad/message")
        .id_of(chat_id)
        .id_of(&it["message_id"])
        .number_of(&it["revision"])
        .number_of(&it["counter"])
        .id_of(&it["sender_session_id"])
        .id_of(&it["key_id"])
        .done()
}

/// The `info` of a message's key.
pub fn kdf_message(it: &Value) -> Vec<u8> {
    Canonical::new("kdf/message").id_of(&it["message_id"]).number_of(&it["revision"]).number_of(&it["counter"]).done()
}

/// Bound to a copy of a sender key.
pub fn aad_sender_key(chat_id: &Value, key_id: &Value, sender: &Value, recipient: &Value) -> Vec<u8> {
    Canonical::new("aad/sender-key").id_of(chat_id).id_of(key_id).id_of(sender).id_of(recipient).done()
}

/// Bound to an info-key wrap.
pub fn aad_info_key(chat_id: &Value, key_id: &Value, wrapper: &Value, recipient: &Value) -> Vec<u8> {
    Canonical::new("aad/info-key").id_of(chat_id).id_of(key_id).id_of(wrapper).id_of(recipient).done()
}

/// Bound to a chat's name.
pub fn aad_chat_name(chat_id: &Value, key_id: &Value) -> Vec<u8> {
    Canonical::new("aad/chat-name").id_of(chat_id).id_of(key_id).done()
}

/// The `info` of a name's key.
pub fn kdf_info() -> Vec<u8> {
    Canonical::new("kdf/info").done()
}

/// The safety number of two users, each with id and identity key.
pub fn safety_number(one: (&Value, &Value), other: (&Value, &Value)) -> String {
    let half = |(user, key): (&Value, &Value)| {
        let hash = Canonical::new("safety-number").id_of(user).bytes_of(key).hash();
        let groups = hash[..30].chunks(5).map(|group| {
            let number = group.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        });
        groups.collect::<Vec<_>>().join(" ")
    };
    let mut halves = [half(one), half(other)];
    halves.sort();
    halves.join(" ")
}
