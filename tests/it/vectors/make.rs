//! Makes the files of tests/vectors, from fixed secrets and by the independent formats.
//!
//! HPKE draws from a generator with a fixed seed, so the files are the same on each run of one version of `rand`.

use rand::SeedableRng;
use serde_json::{Value, json};

use super::crate_side;
use super::make_frames::{frames, friends};
use super::make_log::{self, Log, SENDER_KEY, key_id, log};
use super::people::{self, NOW, Person, chat};
use super::{folder, make_strict};
use crate::stranger::bytes::{Canonical, base64url, bytes, hex, id, sha256, text};
use crate::stranger::{crypto, formats};

/// What the frames are made of.
pub struct Objects {
    pub announcement: Value,
    pub new_key: Value,
    pub copies: Vec<Value>,
    pub info_keys: Vec<Value>,
    /// The info key for a recovery key.
    pub seal: Value,
    /// The first group key for the second one's recovery key.
    pub generation_link: Value,
    /// Ada's older session key for her second session.
    pub backup: Value,
    pub name: Value,
    pub info: Value,
    pub profile: Value,
    pub profile_keys: Vec<Value>,
    pub own_key: Value,
    pub refusal: Value,
    pub signal: Value,
    pub handover: Value,
    pub link: Value,
    pub login: Value,
    pub log: Log,
}

/// The secret of the info key.
const INFO_KEY: [u8; 32] = [0x43; 32];

/// The key that Ada's session had before.
const OLDER_KEY: [u8; 32] = [0x44; 32];
/// The secret of Ada's own info key.
const PROFILE_KEY: [u8; 32] = [0x44; 32];

/// The private half of Ada's user key.
const USER_KEY: [u8; 32] = [0x45; 32];

/// The group key of the chat's second generation.
const GROUP_KEY: [u8; 32] = [0x46; 32];

/// The group key of the chat's first generation.
const FIRST_GROUP_KEY: [u8; 32] = [0x47; 32];

/// The link code.
const CODE: [u8; 15] = [0, 1, 2, 3, 4, 0x55, 0xaa, 0xff, 8, 9, 10, 11, 12, 13, 14];

/// The id of the info key.
fn info_key_id() -> Value {
    people::id(5, 0xf0)
}

/// The id of Ada's own info key.
pub fn profile_key_id() -> Value {
    people::id(5, 0xf1)
}

fn random() -> rand::rngs::StdRng {
    rand::rngs::StdRng::seed_from_u64(0x5ea1_ca57)
}

fn sender_key_place(recipient: &Person) -> Value {
    let ada = people::ada();
    json!({
        "chat_id": chat(),
        "key_id": key_id(),
        "sender_session_id": ada.session_id,
        "session_id": recipient.session_id,
    })
}

fn info_key_place(recipient: &Person) -> Value {
    let ada = people::ada();
    json!({
        "chat_id": chat(),
        "key_id": info_key_id(),
        "wrapped_by_session_id": ada.session_id,
        "session_id": recipient.session_id,
    })
}

fn announcement(previous: &Value) -> Value {
    let ada = people::ada();
    let announcement = json!({
        "key_id": key_id(),
        "session_id": ada.session_id,
        "epoch": 2,
        "commitment": text(&formats::commitment(&SENDER_KEY).hash()),
        "previous": previous,
    });
    let signature = crypto::sign(&ada.signing, &formats::announcement(&chat(), &announcement));
    json!({"announcement": announcement, "signature": signature})
}

fn objects() -> Objects {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let mut random = random();
    let mut copies = Vec::new();
    let mut info_keys = Vec::new();
    for recipient in [&ada, &second, &bob] {
        let (key, aad) = (&recipient.exchange, formats::bound("aad/sender-key", &sender_key_place(recipient)));
        let public = crypto::exchange_public(key);
        let wrapped = crypto::wrap_with(&mut random, &public, crypto::SENDER_KEY_INFO, &aad, &SENDER_KEY);
        copies.push(json!({"session_id": recipient.session_id, "key": base64url(&wrapped)}));
        let place = info_key_place(recipient);
        let aad = formats::bound("aad/info-key", &place);
        let wrapped = crypto::wrap_with(&mut random, &public, crypto::INFO_KEY_INFO, &aad, &INFO_KEY);
        let mut wrap = json!({
            "session_id": recipient.session_id,
            "key_id": info_key_id(),
            "key": base64url(&wrapped),
            "wrapped_by_session_id": ada.session_id,
        });
        wrap["signature"] = crypto::sign(&ada.signing, &formats::info_key_wrap(&chat(), &wrap));
        info_keys.push(wrap);
    }
    let key = crypto::derive(&INFO_KEY, &formats::bound("kdf/info", &Value::Null));
    let aad = formats::bound("aad/chat-name", &json!({"chat_id": chat(), "key_id": info_key_id()}));
    let name = json!({
        "key_id": info_key_id(),
        "data": base64url(&crypto::encrypt(&key, [0x31; 12], &aad, "Tea at five".as_bytes())),
    });
    let place = json!({"chat_id": chat(), "key_id": info_key_id()});
    let sealed = |format: &str, nonce: u8, text: &str| {
        base64url(&crypto::encrypt(&key, [nonce; 12], &formats::bound(format, &place), text.as_bytes()))
    };
    let info = json!({
        "revision": 1,
        "key_id": info_key_id(),
        "key_seq": 4,
        "session_id": ada.session_id,
        "name": sealed("aad/chat-name", 0x33, "Tea at six"),
        "description": sealed("aad/chat-description", 0x34, "Bring your own cup."),
    });
    let signature = crypto::sign(&ada.signing, &formats::chat_info(&chat(), &info));
    let info = json!({"info": info, "signature": signature});
    let announcement = announcement(&Value::Null);
    let refusal = json!({
        "key_id": key_id(),
        "session_id": bob.session_id,
        "reason": "does_not_open",
        "copy_hash": text(&sha256(&bytes(&copies[2]["key"]))),
    });
    let signature = crypto::sign(&bob.signing, &formats::copy_refusal(&chat(), &refusal));
    let refusal = json!({"refusal": refusal, "signature": signature});
    let mut signal = json!({
        "chat_id": chat(),
        "sender_id": ada.user_id,
        "sender_session_id": ada.session_id,
        "key_id": key_id(),
        "signal_id": people::id(10, 0x51),
        "created_at": NOW,
    });
    let key = crypto::derive(&SENDER_KEY, &formats::bound("kdf/signal", &signal));
    let data = crypto::encrypt(&key, [0x32; 12], &formats::bound("aad/signal", &signal), SIGNAL.as_bytes());
    signal["data"] = text(&data);
    signal["signature"] = crypto::sign(&ada.signing, &formats::signal(&chat(), &signal));
    signal.as_object_mut().unwrap().remove("chat_id");
    let aad = formats::bound("aad/handover", &handover_place());
    let public = crypto::exchange_public(&second.exchange);
    let sealed = crypto::wrap_with(&mut random, &public, &formats::handover_info(&CODE), &aad, b"handed over");
    let link = json!({
        "user_id": second.user_id,
        "session_id": second.session_id,
        "public_key": second.public_key(),
        "signing_public_key": text(&crypto::public(&second.signing)),
    });
    let mut link = link;
    let proof_key = crypto::derive(&CODE, b"sealcast/link-code/proof");
    link["proof"] = text(&crypto::hmac(&proof_key, &formats::link(&link)));
    let (profile, profile_keys, own_key) = profile(&mut random);
    let nonce = text(&[7; 32]);
    let signature = crypto::sign(&ada.signing, &formats::login(&nonce, "sealcast", &ada.session_id));
    Objects {
        new_key: json!({"announcement": announcement, "copies": copies, "staged": null}),
        announcement,
        copies,
        info_keys,
        seal: seal(),
        generation_link: generation_link(),
        backup: backup(),
        name,
        info,
        profile,
        profile_keys,
        own_key,
        refusal,
        signal,
        handover: text(&[&id(&ada.session_id)[..], &sealed].concat()),
        link,
        login: json!({"session_id": ada.session_id, "signature": signature}),
        log: log(),
    }
}

/// The private half of the second generation's recovery key.
fn recovery_key() -> [u8; 32] {
    crypto::derive(&GROUP_KEY, &formats::bound("kdf/recovery-key", &Value::Null))
}

fn seal_place() -> Value {
    json!({
        "chat_id": chat(),
        "key_id": info_key_id(),
        "generation": 2,
        "sealed_by_session_id": people::ada().session_id,
    })
}

fn seal() -> Value {
    let ada = people::ada();
    // Of its own, so that the other ciphertexts stay as they are.
    let mut random = rand::rngs::StdRng::seed_from_u64(0x5ea1_ca59);
    let mut seal = seal_place();
    let aad = formats::bound("aad/info-key-seal", &seal);
    seal.as_object_mut().unwrap().remove("chat_id");
    let public = crypto::exchange_public(&recovery_key());
    let sealed = crypto::wrap_with(&mut random, &public, crypto::INFO_KEY_SEAL_INFO, &aad, &INFO_KEY);
    seal["key"] = text(&sealed);
    seal["signature"] = crypto::sign(&ada.signing, &formats::info_key_seal(&chat(), &seal));
    seal
}

fn generation_link_place() -> Value {
    json!({"chat_id": chat(), "generation": 2, "linked_by_session_id": people::ada().session_id})
}

fn generation_link() -> Value {
    let ada = people::ada();
    // Of its own, so that the other ciphertexts stay as they are.
    let mut random = rand::rngs::StdRng::seed_from_u64(0x5ea1_ca5a);
    let mut link = generation_link_place();
    let aad = formats::bound("aad/generation-link", &link);
    link.as_object_mut().unwrap().remove("chat_id");
    let public = crypto::exchange_public(&recovery_key());
    let sealed = crypto::wrap_with(&mut random, &public, crypto::GENERATION_LINK_INFO, &aad, &FIRST_GROUP_KEY);
    link["key"] = text(&sealed);
    link["signature"] = crypto::sign(&ada.signing, &formats::generation_link(&chat(), &link));
    link
}

fn backup() -> Value {
    let (ada, second) = (people::ada(), people::ada_second());
    let mut backup = json!({
        "session_id": second.session_id,
        "backed_up_session_id": ada.session_id,
        "backed_up_user_id": ada.user_id,
        "backed_up_public_key": text(&crypto::exchange_public(&OLDER_KEY)),
        "wrapped_by_session_id": ada.session_id,
    });
    let public = crypto::exchange_public(&second.exchange);
    // Of its own, so that the other ciphertexts stay as they are.
    let mut random = rand::rngs::StdRng::seed_from_u64(0x5ea1_ca58);
    let aad = formats::session_key(&backup);
    let wrapped = crypto::wrap_with(&mut random, &public, crypto::SESSION_KEY_INFO, &aad, &OLDER_KEY);
    backup["key"] = text(&wrapped);
    backup["signature"] = crypto::sign(&ada.signing, &formats::session_key_backup(&backup));
    backup
}

/// Ada's profile, its key for Ada's sessions and Bob's, and sealed to Ada's user key.
fn profile(random: &mut rand::rngs::StdRng) -> (Value, Vec<Value>, Value) {
    let (ada, second, bob) = (people::ada(), people::ada_second(), people::bob());
    let key = crypto::derive(&PROFILE_KEY, &formats::bound("kdf/info", &Value::Null));
    let mut profile = json!({
        "user_id": ada.user_id, "revision": 1, "key_id": profile_key_id(), "session_id": ada.session_id,
    });
    for (nonce, (field, said)) in PROFILE.into_iter().enumerate() {
        let aad = formats::profile_part(field, &profile);
        let nonce = [0x35 + u8::try_from(nonce).unwrap(); 12];
        profile[field] = base64url(&crypto::encrypt(&key, nonce, &aad, said.as_bytes())).into();
    }
    let signature = crypto::sign(&ada.signing, &formats::profile(&profile));
    let mut wrap = |label: &str, recipient: (&str, &Value), secret: &[u8; 32]| {
        let mut wrap = json!({
            "user_id": ada.user_id, "key_id": profile_key_id(), "wrapped_by_session_id": ada.session_id,
        });
        wrap[recipient.0] = recipient.1.clone();
        let aad = formats::bound(if recipient.0 == "session_id" { "aad/profile-key" } else { "aad/own-key" }, &wrap);
        let public = crypto::exchange_public(secret);
        let wrapped = crypto::wrap_with(random, &public, crypto::PROFILE_KEY_INFO, &aad, &PROFILE_KEY);
        wrap["key"] = base64url(&wrapped).into();
        wrap["signature"] = crypto::sign(&ada.signing, &formats::profile_key_wrap(label, &wrap));
        wrap
    };
    let mut keys = Vec::new();
    for reader in [&ada, &second, &bob] {
        keys.push(wrap("profile-key-wrap", ("session_id", &reader.session_id), &reader.exchange));
    }
    let own_key = wrap("own-key-wrap", ("user_key_id", &people::id(6, 0xa5)), &USER_KEY);
    (json!({"profile": profile, "signature": signature}), keys, own_key)
}

/// What Ada says of herself.
const PROFILE: [(&str, &str); 3] =
    [("name", "Ada Lovelace"), ("email", "ada@example.org"), ("description", "Weaves algebraical patterns.")];

/// What a signal says.
const SIGNAL: &str = "{\"type\":\"typing\"}";

fn handover_place() -> Value {
    let (ada, second) = (people::ada(), people::ada_second());
    json!({
        "user_id": ada.user_id,
        "approved_by_session_id": ada.session_id,
        "session_id": second.session_id,
    })
}

/// A vector of a signed object.
fn signed(name: &str, format: &str, value: &Value, signer: &Value) -> Value {
    let in_chat = !matches!(
        format,
        "certificate" | "revocation" | "account-deletion" | "session-key-backup" | "user-key" | "share-set"
    );
    let chat_id = if in_chat { chat() } else { Value::Null };
    let bytes = formats::signed(format, &chat_id, value);
    let mut vector = json!({
        "name": name,
        "format": format,
        "value": value,
        "bytes": hex(&bytes),
        "sha256": hex(&sha256(&bytes)),
        "signer": hex(&super::super::stranger::bytes::bytes(signer)),
        "msgpack": hex(&crate_side::signed(format, &chat_id, value).packed),
    });
    if in_chat {
        vector["chat_id"] = chat_id.clone();
    }
    match format {
        "membership" => {
            let event = formats::membership_event(&bytes, &value["signature"]);
            vector["chain_hash"] = hex(&event.hash()).into();
        }
        "certificate" | "revocation" | "account-deletion" => {
            let event = formats::user_event(&bytes, &value["signature"]);
            vector["chain_hash"] = hex(&event.hash()).into();
        }
        _ => {}
    }
    vector
}

fn hashed(name: &str, format: &str, input: Value, bytes: Canonical) -> Value {
    json!({
        "name": name,
        "format": format,
        "input": input,
        "bytes": hex(&bytes.clone().done()),
        "hash": hex(&bytes.hash()),
    })
}

fn chains() -> Vec<Value> {
    let (ada, second, bob, cyd) = (people::ada(), people::ada_second(), people::bob(), people::cyd());
    vec![
        signed("Ada's first device", "certificate", &ada.certificate, &ada.identity_key()),
        signed("Ada's second device", "certificate", &second.certificate, &ada.identity_key()),
        signed("Bob's device", "certificate", &bob.certificate, &bob.identity_key()),
        signed("Cyd's device", "certificate", &cyd.certificate, &cyd.identity_key()),
        signed("by a session", "revocation", &make_log::revocation(), &text(&crypto::public(&ada.signing))),
        signed("by the identity key", "revocation", &make_log::revocation_by_identity(), &ada.identity_key()),
        signed("Ada ends her account", "account-deletion", &make_log::deletion(), &ada.identity_key()),
    ]
}

fn hashes(objects: &Objects) -> Vec<Value> {
    let (ada, bob) = (people::ada(), people::bob());
    let recipient = |it: &Person| json!({"session_id": it.session_id, "public_key": it.public_key()});
    let roster = |all: &[Value]| formats::roster(all.iter().map(|it| (&it["session_id"], &it["public_key"])));
    // Not in order: the order of the ids' bytes counts.
    let both = [recipient(&bob), recipient(&ada)];
    let turned: Vec<Value> = objects.copies.iter().rev().cloned().collect();
    vec![
        hashed("", "user-chain", json!({"user_id": ada.user_id}), formats::user_chain(&ada.user_id)),
        hashed("", "membership-chain", json!({"chat_id": chat()}), formats::membership_chain(&chat())),
        hashed("", "log", json!({"chat_id": chat()}), formats::log(&chat())),
        hashed("", "commitment", json!({"sender_key": hex(&SENDER_KEY)}), formats::commitment(&SENDER_KEY)),
        hashed("nobody", "roster", json!({"recipients": []}), roster(&[])),
        hashed("one", "roster", json!({"recipients": [recipient(&ada)]}), roster(&[recipient(&ada)])),
        hashed("two, to be sorted", "roster", json!({"recipients": both}), roster(&both)),
        hashed("to be sorted", "staged-copies", json!({"copies": turned}), formats::staged(&turned)),
    ]
}

fn bound(objects: &Objects) -> Vec<Value> {
    let mut place = objects.log.messages[0].1.clone();
    place["chat_id"] = chat();
    let mut signal = objects.signal.clone();
    signal["chat_id"] = chat();
    let bob = people::bob();
    let label = json!({"user_id": bob.user_id, "session_id": bob.session_id});
    let name = json!({"chat_id": chat(), "key_id": info_key_id()});
    let pick = |format: &str, from: &Value, names: &[&str]| {
        let input: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), from[*name].clone())).collect();
        let bytes = formats::bound(format, &Value::Object(input.clone()));
        json!({"name": "", "format": format, "input": input, "bytes": hex(&bytes)})
    };
    let in_message = ["chat_id", "message_id", "revision", "counter", "sender_session_id", "key_id"];
    let in_signal = ["chat_id", "signal_id", "sender_session_id", "key_id"];
    let in_copy = ["chat_id", "key_id", "sender_session_id", "session_id"];
    let in_wrap = ["chat_id", "key_id", "wrapped_by_session_id", "session_id"];
    let in_handover = ["user_id", "approved_by_session_id", "session_id"];
    vec![
        pick("aad/message", &place, &in_message),
        pick("kdf/message", &place, &["message_id", "revision", "counter"]),
        pick("aad/sender-key", &sender_key_place(&bob), &in_copy),
        pick("aad/info-key", &info_key_place(&bob), &in_wrap),
        pick("aad/info-key-seal", &seal_place(), &["chat_id", "key_id", "generation", "sealed_by_session_id"]),
        pick("aad/generation-link", &generation_link_place(), &["chat_id", "generation", "linked_by_session_id"]),
        pick("aad/chat-name", &name, &["chat_id", "key_id"]),
        pick("aad/chat-description", &name, &["chat_id", "key_id"]),
        pick("kdf/info", &name, &[]),
        pick("aad/handover", &handover_place(), &in_handover),
        pick("aad/signal", &signal, &in_signal),
        pick("kdf/signal", &signal, &["signal_id"]),
        pick("aad/label", &label, &["user_id", "session_id"]),
    ]
}

fn encryption(objects: &Objects) -> Vec<Value> {
    let (bob, second) = (people::bob(), people::ada_second());
    let message = |index: usize| {
        let (name, envelope, _) = &objects.log.messages[index];
        let mut place = envelope.clone();
        place["chat_id"] = chat();
        json!({
            "name": name,
            "format": "message",
            "chat_id": chat(),
            "envelope": envelope,
            "sender_key": hex(&SENDER_KEY),
            "message_key": hex(&crypto::derive(&SENDER_KEY, &formats::bound("kdf/message", &place))),
            "aad": hex(&formats::bound("aad/message", &place)),
            "plaintext": String::from_utf8(crypto::open_message(&SENDER_KEY, &chat(), envelope).unwrap()).unwrap(),
        })
    };
    let mut signal = objects.signal.clone();
    signal["chat_id"] = chat();
    let info_key = crypto::derive(&INFO_KEY, &formats::bound("kdf/info", &Value::Null));
    let name_place = json!({"chat_id": chat(), "key_id": info_key_id()});
    vec![
        message(0),
        message(1),
        message(4),
        json!({
            "name": "to Bob",
            "format": "sender-key",
            "place": sender_key_place(&bob),
            "recipient_secret": hex(&bob.exchange),
            "info": hex(crypto::SENDER_KEY_INFO),
            "aad": hex(&formats::bound("aad/sender-key", &sender_key_place(&bob))),
            "copy": objects.copies[2],
            "secret": hex(&SENDER_KEY),
        }),
        json!({
            "name": "to Bob",
            "format": "info-key",
            "chat_id": chat(),
            "recipient_secret": hex(&bob.exchange),
            "info": hex(crypto::INFO_KEY_INFO),
            "aad": hex(&formats::bound("aad/info-key", &info_key_place(&bob))),
            "wrap": objects.info_keys[2],
            "secret": hex(&INFO_KEY),
        }),
        json!({
            "name": "to the second generation",
            "format": "info-key-seal",
            "chat_id": chat(),
            "group_key": hex(&GROUP_KEY),
            "recipient_secret": hex(&recovery_key()),
            "info": hex(crypto::INFO_KEY_SEAL_INFO),
            "aad": hex(&formats::bound("aad/info-key-seal", &seal_place())),
            "seal": objects.seal,
            "secret": hex(&INFO_KEY),
        }),
        json!({
            "name": "from the second generation to the first",
            "format": "generation-link",
            "chat_id": chat(),
            "group_key": hex(&GROUP_KEY),
            "recipient_secret": hex(&recovery_key()),
            "info": hex(crypto::GENERATION_LINK_INFO),
            "aad": hex(&formats::bound("aad/generation-link", &generation_link_place())),
            "link": objects.generation_link,
            "secret": hex(&FIRST_GROUP_KEY),
        }),
        json!({
            "name": "to Ada's second session",
            "format": "session-key",
            "recipient_secret": hex(&second.exchange),
            "info": hex(crypto::SESSION_KEY_INFO),
            "aad": hex(&formats::session_key(&objects.backup)),
            "backup": objects.backup,
            "secret": hex(&OLDER_KEY),
        }),
        json!({
            "name": "",
            "format": "chat-name",
            "chat_id": chat(),
            "info_key": hex(&INFO_KEY),
            "cipher_key": hex(&info_key),
            "aad": hex(&formats::bound("aad/chat-name", &name_place)),
            "sealed": objects.name,
            "plaintext": "Tea at five",
        }),
        json!({
            "name": "",
            "format": "chat-info",
            "chat_id": chat(),
            "info_key": hex(&INFO_KEY),
            "aad": hex(&formats::bound("aad/chat-description", &name_place)),
            "info": objects.info["info"],
            "plaintext": {"name": "Tea at six", "description": "Bring your own cup."},
        }),
        json!({
            "name": "",
            "format": "profile",
            "info_key": hex(&PROFILE_KEY),
            "aad": hex(&formats::profile_part("email", &objects.profile["profile"])),
            "profile": objects.profile["profile"],
            "plaintext": PROFILE.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        json!({
            "name": "to Bob",
            "format": "profile-key",
            "recipient_secret": hex(&bob.exchange),
            "info": hex(crypto::PROFILE_KEY_INFO),
            "aad": hex(&formats::bound("aad/profile-key", &objects.profile_keys[2])),
            "wrap": objects.profile_keys[2],
            "secret": hex(&PROFILE_KEY),
        }),
        json!({
            "name": "typing",
            "format": "signal",
            "chat_id": chat(),
            "sender_key": hex(&SENDER_KEY),
            "signal_key": hex(&crypto::derive(&SENDER_KEY, &formats::bound("kdf/signal", &signal))),
            "aad": hex(&formats::bound("aad/signal", &signal)),
            "signal": objects.signal,
            "plaintext": SIGNAL,
        }),
        json!({
            "name": "to Ada's second device",
            "format": "handover",
            "place": handover_place(),
            "code": hex(&CODE),
            "recipient_secret": hex(&second.exchange),
            "info": hex(&formats::handover_info(&CODE)),
            "aad": hex(&formats::bound("aad/handover", &handover_place())),
            "handover": objects.handover,
            "content": hex(b"handed over"),
        }),
    ]
}

fn sessions(objects: &Objects) -> Value {
    let (ada, bob) = (people::ada(), people::bob());
    let nonce = text(&[7; 32]);
    let proof_key = crypto::derive(&CODE, b"sealcast/link-code/proof");
    let code = formats::code_text(&CODE);
    let number = formats::safety_number((&ada.user_id, &ada.identity_key()), (&bob.user_id, &bob.identity_key()));
    json!({
        "login": {
            "nonce": nonce,
            "server_name": "sealcast",
            "session_id": ada.session_id,
            "bytes": hex(&formats::login(&nonce, "sealcast", &ada.session_id)),
            "signer": hex(&crypto::public(&ada.signing)),
            "signature": objects.login["signature"],
        },
        "link": {
            "code": hex(&CODE),
            "text": code,
            "also_read": [code.to_lowercase(), code.replace('-', ""), code.replace('0', "o").replace('1', "l"), code.replace('-', " ")],
            "request": objects.link,
            "bytes": hex(&formats::link(&objects.link)),
            "proof_key": hex(&proof_key),
            "proof": objects.link["proof"],
        },
        "safety_number": {
            "one": ada.target(),
            "other": bob.target(),
            "text": number,
        },
    })
}

/// Every file by its name.
pub fn files() -> Vec<(&'static str, Value)> {
    let objects = objects();
    let ada_signs = text(&crypto::public(&people::ada().signing));
    let bob_signs = text(&crypto::public(&people::bob().signing));
    let previous = json!({"key_id": people::id(6, 0xe1), "last_counter": 500});
    let friends = friends();
    let keys = vec![
        signed("a first key", "announcement", &objects.announcement, &ada_signs),
        signed("after another key", "announcement", &announcement(&previous), &ada_signs),
        signed("to Bob", "info-key-wrap", &objects.info_keys[2], &ada_signs),
        signed("to the second generation", "info-key-seal", &objects.seal, &ada_signs),
        signed("from the second generation to the first", "generation-link", &objects.generation_link, &ada_signs),
        signed("an older key of Ada's to her second session", "session-key-backup", &objects.backup, &ada_signs),
        signed("a chat's name and description", "chat-info", &objects.info, &ada_signs),
        signed("what Ada says of herself", "profile-saved", &objects.profile, &ada_signs),
        signed("Ada's own info key to Bob", "profile-key-wrap", &objects.profile_keys[2], &ada_signs),
        signed("Ada's own info key to her user key", "own-key-wrap", &objects.own_key, &ada_signs),
        signed("Bob cannot open it", "copy-refusal", &objects.refusal, &bob_signs),
        signed("Bob's user key", "user-key", &friends.user_key, &people::bob().identity_key()),
        signed("a code that Bob and Cyd share", "share-set", &friends.set, &people::ada().identity_key()),
    ];
    let in_chat = |format: &'static str, all: &[(&'static str, Value, Value)]| -> Vec<Value> {
        all.iter().map(|(name, it, signer)| signed(name, format, it, signer)).collect()
    };
    let all = [people::ada(), people::ada_second(), people::bob(), people::cyd()];
    let people: Vec<Value> = all.iter().map(Person::to_json).collect();
    let vectors = |all: Vec<Value>| json!({"vectors": all});
    vec![
        ("people.json", vectors(people)),
        ("chains.json", vectors(chains())),
        ("membership.json", vectors(in_chat("membership", &objects.log.changes))),
        ("messages.json", vectors(in_chat("message", &objects.log.messages))),
        ("keys.json", vectors(keys)),
        ("signals.json", vectors(vec![signed("typing", "signal", &objects.signal, &ada_signs)])),
        ("hashes.json", vectors(hashes(&objects))),
        ("bound.json", vectors(bound(&objects))),
        ("encryption.json", vectors(encryption(&objects))),
        ("sessions.json", sessions(&objects)),
        ("log.json", objects.log.to_json()),
        ("ed25519.json", vectors(make_strict::ed25519())),
        ("x25519.json", vectors(make_strict::x25519())),
        ("frames.json", vectors(frames(&objects))),
    ]
}

/// Writes the files anew; tests/vectors/README.md says how to run it.
#[test]
#[ignore = "writes the committed files anew"]
fn write_the_vectors() {
    for (name, file) in files() {
        let text = serde_json::to_string_pretty(&file).unwrap();
        std::fs::write(folder().join(name), format!("{text}\n")).unwrap();
    }
}
