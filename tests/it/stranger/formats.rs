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

/// The signed bytes of the end of an account.
pub fn account_deletion(it: &Value) -> Vec<u8> {
    Canonical::new("account-deletion")
        .id_of(&it["user_id"])
        .number_of(&it["place"])
        .bytes_of(&it["previous"])
        .number_of(&it["created_at"])
        .done()
}

/// The start of a user's chain.
pub fn user_chain(user_id: &Value) -> Canonical {
    Canonical::new("user-chain").id_of(user_id)
}

/// The hash of an entry of a user's chain.
pub fn user_event(signed: &[u8], signature: &Value) -> Canonical {
    Canonical::new("user-event").field(signed).bytes_of(signature)
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
pub fn membership_chain(chat_id: &Value) -> Canonical {
    Canonical::new("membership-chain").id_of(chat_id)
}

/// The hash of one membership change.
pub fn membership_event(signed: &[u8], signature: &Value) -> Canonical {
    Canonical::new("membership-event").field(signed).bytes_of(signature)
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
pub fn commitment(secret: &[u8; 32]) -> Canonical {
    Canonical::new("commitment").field(secret)
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

/// The signed bytes of what a chat is called.
pub fn chat_info(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("chat-info")
        .id_of(chat_id)
        .number_of(&it["revision"])
        .id_of(&it["key_id"])
        .number_of(&it["key_seq"])
        .id_of(&it["session_id"])
        .bytes_of(&it["name"])
        .bytes_of(&it["description"])
        .done()
}

/// The signed bytes of the refusal of a copy.
pub fn copy_refusal(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("copy-refusal")
        .id_of(chat_id)
        .id_of(&it["key_id"])
        .id_of(&it["session_id"])
        .text_of(&it["reason"])
        .bytes_of(&it["copy_hash"])
        .done()
}

/// The signed bytes of a signal.
pub fn signal(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("signal")
        .id_of(chat_id)
        .id_of(&it["sender_id"])
        .id_of(&it["sender_session_id"])
        .id_of(&it["key_id"])
        .id_of(&it["signal_id"])
        .number_of(&it["created_at"])
        .field(&sha256(&bytes(&it["data"])))
        .done()
}

/// The signed bytes of an object by the name of its format; `it` has the signature beside them.
pub fn signed(format: &str, chat_id: &Value, it: &Value) -> Vec<u8> {
    match format {
        "certificate" => certificate(&it["certificate"]),
        "revocation" => revocation(&it["revocation"]),
        "account-deletion" => account_deletion(&it["deletion"]),
        "membership" => membership(chat_id, &it["change"]),
        "message" => message(chat_id, it),
        "announcement" => announcement(chat_id, &it["announcement"]),
        "info-key-wrap" => info_key_wrap(chat_id, it),
        "chat-info" => chat_info(chat_id, &it["info"]),
        "copy-refusal" => copy_refusal(chat_id, &it["refusal"]),
        "signal" => signal(chat_id, it),
        other => panic!("{other}"),
    }
}

/// The start of a log.
pub fn log(chat_id: &Value) -> Canonical {
    Canonical::new("log").id_of(chat_id)
}

/// The digest of an entry's body.
pub fn digest(chat_id: &Value, body: &Value) -> Canonical {
    let data = &body["data"];
    let (signed, signature) = match body["type"].as_str().unwrap() {
        "message" => (message(chat_id, data), &data["signature"]),
        "membership" => (membership(chat_id, &data["change"]), &data["signature"]),
        "session_in" => (certificate(&data["certificate"]), &data["signature"]),
        "account_deleted" => (account_deletion(&data["deletion"]), &data["signature"]),
        "session_out" => match data["type"].as_str().unwrap() {
            "revoked" => (revocation(&data["data"]["revocation"]), &data["data"]["signature"]),
            "expired" => (expiry(&data["data"]), &Value::Null),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    };
    let head = Canonical::new("log-entry").field(&signed);
    if signature.is_null() { head.absent() } else { head.bytes_of(signature) }
}

/// The hash of a log up to and with an entry.
pub fn log_hash(chat_id: &Value, before: &[u8; 32], entry: &Value) -> Canonical {
    Canonical::new("log-hash")
        .id_of(chat_id)
        .field(before)
        .number_of(&entry["seq"])
        .number_of(&entry["created_at"])
        .field(&digest(chat_id, &entry["body"]).hash())
}

/// The hash of a roster: sessions and their X25519 keys, in any order.
pub fn roster<'a>(recipients: impl IntoIterator<Item = (&'a Value, &'a Value)>) -> Canonical {
    let mut sorted: Vec<_> = recipients.into_iter().map(|(session, key)| (id(session), bytes(key))).collect();
    sorted.sort();
    let head = Canonical::new("roster").number(sorted.len() as u64);
    sorted.iter().fold(head, |all, (session, key)| all.number(0).field(session).field(key))
}

/// The hash of a list of copies that goes ahead.
pub fn staged(copies: &[Value]) -> Canonical {
    let mut sorted: Vec<_> = copies.iter().map(|copy| (id(&copy["session_id"]), bytes(&copy["key"]))).collect();
    sorted.sort();
    let head = Canonical::new("staged-copies").number(sorted.len() as u64);
    sorted.iter().fold(head, |all, (session, key)| all.field(session).field(key))
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

/// What is bound to a ciphertext or derives a key, by its label; the fields are in the order of the document.
pub fn bound(label: &str, it: &Value) -> Vec<u8> {
    let (ids, with_number): (&[&str], &[&str]) = match label {
        "aad/message" => {
            (&["chat_id", "message_id", "revision", "counter", "sender_session_id", "key_id"], &["revision", "counter"])
        }
        "aad/sender-key" => (&["chat_id", "key_id", "sender_session_id", "session_id"], &[]),
        "aad/info-key" => (&["chat_id", "key_id", "wrapped_by_session_id", "session_id"], &[]),
        "aad/chat-name" | "aad/chat-description" => (&["chat_id", "key_id"], &[]),
        "aad/handover" => (&["user_id", "approved_by_session_id", "session_id"], &[]),
        "aad/signal" => (&["chat_id", "signal_id", "sender_session_id", "key_id"], &[]),
        "aad/label" => (&["user_id", "session_id"], &[]),
        "kdf/message" => (&["message_id", "revision", "counter"], &["revision", "counter"]),
        "kdf/signal" => (&["signal_id"], &[]),
        "kdf/info" => (&[], &[]),
        other => panic!("{other}"),
    };
    let write = |all: Canonical, name: &&str| {
        if with_number.contains(name) { all.number_of(&it[*name]) } else { all.id_of(&it[*name]) }
    };
    ids.iter().fold(Canonical::new(label), write).done()
}

/// The `info` of HPKE for a hand-over: the code's 15 bytes are mixed into it.
pub fn handover_info(code: &[u8]) -> Vec<u8> {
    Canonical::new("hpke/handover").field(&super::crypto::derive(code, b"sealcast/link-code/handover")).done()
}

/// A link code as a person sees it.
pub fn code_text(code: &[u8; 15]) -> String {
    let bits = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect::<Vec<u8>>();
    let letters: Vec<char> = bits
        .chunks(5)
        .map(|five| five.iter().fold(0, |value, bit| value << 1 | bit))
        .map(|value| char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[usize::from(value)]))
        .collect();
    letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join("-")
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
