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

/// The signed bytes of a user key; `it` names its user too.
pub fn user_key(it: &Value) -> Vec<u8> {
    Canonical::new("user-key")
        .id_of(&it["user_id"])
        .id_of(&it["key_id"])
        .field(b"x25519")
        .bytes_of(&it["public_key"])
        .done()
}

/// The signed bytes of the withdrawal of a user key.
pub fn withdrawal(it: &Value) -> Vec<u8> {
    let revoker = if it["revoker"]["type"] == "session" { &it["revoker"]["data"] } else { &Value::Null };
    Canonical::new("withdrawal")
        .id_of(&it["user_id"])
        .id_of(&it["key_id"])
        .id_or_absent(revoker)
        .number_of(&it["created_at"])
        .done()
}

/// The signed bytes of a generation.
pub fn generation(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("generation")
        .id_of(chat_id)
        .number_of(&it["number"])
        .id_of(&it["session_id"])
        .number_of(&it["change_no"])
        .bytes_of(&it["member_keys_hash"])
        .bytes_of(&it["public_key"])
        .bytes_of(&it["wraps_hash"])
        .done()
}

/// The signed bytes of the link of a generation to the one before.
pub fn generation_link(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("generation-link")
        .id_of(chat_id)
        .number_of(&it["generation"])
        .id_of(&it["linked_by_session_id"])
        .bytes_of(&it["key"])
        .done()
}

/// The signed bytes of the refusal of a generation.
pub fn generation_refusal(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("generation-refusal").id_of(chat_id).number_of(&it["number"]).id_of(&it["session_id"]).done()
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

/// The signed bytes of an info key that is sealed to a recovery key.
pub fn info_key_seal(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("info-key-seal")
        .id_of(chat_id)
        .id_of(&it["key_id"])
        .number_of(&it["generation"])
        .id_of(&it["sealed_by_session_id"])
        .bytes_of(&it["key"])
        .done()
}

/// The signed bytes of a backup of a session's key.
pub fn session_key_backup(it: &Value) -> Vec<u8> {
    backed_up("session-key-backup", it).bytes_of(&it["key"]).done()
}

/// What is bound to the wrap in a backup.
pub fn session_key(it: &Value) -> Vec<u8> {
    backed_up("aad/session-key", it).done()
}

fn backed_up(label: &str, it: &Value) -> Canonical {
    Canonical::new(label)
        .id_of(&it["backed_up_user_id"])
        .id_of(&it["backed_up_session_id"])
        .bytes_of(&it["backed_up_public_key"])
        .id_of(&it["wrapped_by_session_id"])
        .id_of(&it["session_id"])
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

/// The signed bytes of a user's profile.
pub fn profile(it: &Value) -> Vec<u8> {
    Canonical::new("profile-saved")
        .id_of(&it["user_id"])
        .number_of(&it["revision"])
        .id_of(&it["key_id"])
        .id_of(&it["session_id"])
        .bytes_of(&it["name"])
        .bytes_of(&it["email"])
        .bytes_of(&it["description"])
        .done()
}

/// The signed bytes of a wrap of a user's info key, to a session or (by `user_key_id`) to the user's own user key.
pub fn profile_key_wrap(label: &str, it: &Value) -> Vec<u8> {
    let recipient = if it["user_key_id"].is_null() { &it["session_id"] } else { &it["user_key_id"] };
    Canonical::new(label)
        .id_of(&it["user_id"])
        .id_of(&it["key_id"])
        .id_of(recipient)
        .id_of(&it["wrapped_by_session_id"])
        .bytes_of(&it["key"])
        .done()
}

/// What is bound to a part of a profile.
pub fn profile_part(field: &str, it: &Value) -> Vec<u8> {
    Canonical::new("aad/profile")
        .id_of(&it["user_id"])
        .field(field.as_bytes())
        .id_of(&it["key_id"])
        .number_of(&it["revision"])
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

/// The signed bytes of a set of shares.
pub fn share_set(it: &Value) -> Vec<u8> {
    let holders = it["holders"].as_array().unwrap();
    let head = Canonical::new("share-set")
        .id_of(&it["set_id"])
        .id_of(&it["user_id"])
        .bytes_of(&it["recovery_key"])
        .bytes_of(&it["login_key"])
        .number_of(&it["needed"])
        .number(holders.len() as u64);
    let write = |all: Canonical, holder: &Value| {
        all.id_of(&holder["user_id"])
            .id_of(&holder["key_id"])
            .bytes_of(&holder["commitment"])
            .bytes_of(&holder["wrap_hash"])
    };
    holders.iter().fold(head, write).number_of(&it["created_at"]).done()
}

/// The signed bytes of a share that is wrapped; `number` is from 1 on.
pub fn share_wrap(set: &Value, number: usize, session_id: &Value, key: &Value) -> Vec<u8> {
    let holder = &set["holders"][number - 1];
    Canonical::new("share-wrap")
        .id_of(&set["user_id"])
        .id_of(&set["set_id"])
        .number(number as u64)
        .id_of(&holder["user_id"])
        .id_of(&holder["key_id"])
        .id_of(session_id)
        .bytes_of(key)
        .done()
}

/// The signed bytes of a share that is given.
pub fn share_release(it: &Value, friend: &Value, session_id: &Value) -> Vec<u8> {
    Canonical::new("share-release")
        .id_of(&it["request_id"])
        .id_of(&it["set_id"])
        .id_of(friend)
        .id_of(session_id)
        .field(&sha256(&bytes(&it["sealed"])))
        .done()
}

/// The signed bytes of a cancellation.
pub fn recovery_cancel(user_id: &Value, request_id: &Value) -> Vec<u8> {
    Canonical::new("recovery-cancel").id_of(user_id).id_of(request_id).done()
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

/// The signed bytes of a revision of a group secret.
pub fn group_secret(chat_id: &Value, it: &Value) -> Vec<u8> {
    let or_absent = |head: Canonical, hash: &Value| if hash.is_null() { head.absent() } else { head.bytes_of(hash) };
    let head = Canonical::new("group-secret")
        .id_of(chat_id)
        .id_of(&it["secret_id"])
        .number_of(&it["revision"])
        .text_of(&it["write"])
        .number_of(&it["generation"])
        .number_of(&it["changed_seq"])
        .id_of(&it["session_id"]);
    or_absent(or_absent(head, &it["previous"]), &it["source"])
        .field(&sha256(&bytes(&it["name"])))
        .bytes_of(&it["value_hash"])
        .done()
}

/// The signed bytes of the end of a group secret.
pub fn group_secret_deletion(chat_id: &Value, it: &Value) -> Vec<u8> {
    Canonical::new("group-secret-deletion")
        .id_of(chat_id)
        .id_of(&it["secret_id"])
        .number_of(&it["revision"])
        .id_of(&it["session_id"])
        .bytes_of(&it["previous"])
        .done()
}

/// The hash of a revision of a group secret, its end too.
pub fn group_secret_revision(signed: &[u8], signature: &Value) -> Canonical {
    Canonical::new("group-secret-revision").field(signed).bytes_of(signature)
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
        "info-key-seal" => info_key_seal(chat_id, it),
        "session-key-backup" => session_key_backup(it),
        "chat-info" => chat_info(chat_id, &it["info"]),
        "profile-saved" => profile(&it["profile"]),
        "profile-key-wrap" | "own-key-wrap" => profile_key_wrap(format, it),
        "copy-refusal" => copy_refusal(chat_id, &it["refusal"]),
        "user-key" => user_key(it),
        "withdrawal" => withdrawal(&it["withdrawal"]),
        "generation" => generation(chat_id, &it["generation"]),
        "generation-link" => generation_link(chat_id, it),
        "generation-refusal" => generation_refusal(chat_id, &it["refusal"]),
        "signal" => signal(chat_id, it),
        "share-set" => share_set(&it["set"]),
        "group-secret" => group_secret(chat_id, &it["secret"]),
        "group-secret-deletion" => group_secret_deletion(chat_id, &it["deletion"]),
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
        "user_key" => match data["type"].as_str().unwrap() {
            "set" => (user_key(&data["data"]), &data["data"]["signature"]),
            "withdrawn" => (withdrawal(&data["data"]["withdrawal"]), &data["data"]["signature"]),
            other => panic!("{other}"),
        },
        "generation" => (generation(chat_id, &data["generation"]), &data["signature"]),
        "generation_refused" => (generation_refusal(chat_id, &data["refusal"]), &data["signature"]),
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
    roster_with(recipients, None)
}

/// The same with the generation whose recovery key receives beside them.
pub fn roster_with<'a>(
    recipients: impl IntoIterator<Item = (&'a Value, &'a Value)>,
    recovery: Option<&Value>,
) -> Canonical {
    let mut sorted: Vec<_> = recipients.into_iter().map(|(session, key)| (id(session), bytes(key))).collect();
    sorted.sort();
    let head = Canonical::new("roster").number(sorted.len() as u64 + u64::from(recovery.is_some()));
    let sessions = sorted.iter().fold(head, |all, (session, key)| all.number(0).field(session).field(key));
    match recovery {
        Some(it) => sessions.number(1).number_of(&it["number"]).bytes_of(&it["public_key"]),
        None => sessions,
    }
}

/// The hash of members' user keys, in any order.
pub fn member_keys<'a>(keys: impl IntoIterator<Item = &'a Value>) -> Canonical {
    by_user("member-keys", keys, "public_key")
}

/// The hash of a group key's wraps, in any order.
pub fn group_key_wraps<'a>(wraps: impl IntoIterator<Item = &'a Value>) -> Canonical {
    by_user("group-key-wraps", wraps, "key")
}

fn by_user<'a>(label: &str, items: impl IntoIterator<Item = &'a Value>, last: &str) -> Canonical {
    let mut sorted: Vec<&Value> = items.into_iter().collect();
    sorted.sort_by_key(|it| id(&it["user_id"]));
    let head = Canonical::new(label).number(sorted.len() as u64);
    sorted.iter().fold(head, |all, it| all.id_of(&it["user_id"]).id_of(&it["key_id"]).bytes_of(&it[last]))
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
        "aad/group-key" => (&["chat_id", "generation", "user_id", "key_id"], &["generation"]),
        "aad/archive" => (&["chat_id", "key_id", "sender_session_id", "generation"], &["generation"]),
        "aad/info-key" => (&["chat_id", "key_id", "wrapped_by_session_id", "session_id"], &[]),
        "aad/info-key-seal" => (&["chat_id", "key_id", "generation", "sealed_by_session_id"], &["generation"]),
        "aad/generation-link" => (&["chat_id", "generation", "linked_by_session_id"], &["generation"]),
        "aad/chat-name" | "aad/chat-description" => (&["chat_id", "key_id"], &[]),
        "aad/profile-key" => (&["user_id", "key_id", "wrapped_by_session_id", "session_id"], &[]),
        "aad/own-key" => (&["user_id", "key_id", "wrapped_by_session_id", "user_key_id"], &[]),
        "aad/handover" => (&["user_id", "approved_by_session_id", "session_id"], &[]),
        "aad/signal" => (&["chat_id", "signal_id", "sender_session_id", "key_id"], &[]),
        "aad/label" => (&["user_id", "session_id"], &[]),
        "kdf/message" => (&["message_id", "revision", "counter"], &["revision", "counter"]),
        "kdf/signal" => (&["signal_id"], &[]),
        "kdf/info" | "kdf/recovery-key" => (&[], &[]),
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
