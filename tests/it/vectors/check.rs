//! Checks the committed files, each with the crate and with the independent formats.

use std::collections::BTreeSet;

use sealcast::crypto::keypair::SessionSecrets;
use sealcast::crypto::link_code::LinkCode;
use sealcast::crypto::safety_number::safety_number;
use sealcast::crypto::secret::Secret;
use sealcast::crypto::{backup, handover, info, message, name, user_profile, wrap};
use sealcast::protocol::account::Link;
use sealcast::protocol::backup::SessionKeyBackup;
use sealcast::protocol::binary::{ExchangeKey, Nonce, Signature, SigningKey};
use sealcast::protocol::certificate;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::envelope::{Envelope, message_aad, message_key_info};
use sealcast::protocol::fold::{ChatFold, roster_hash};
use sealcast::protocol::frame::{ClientFrame, Reply, Request, ServerFrame, label_aad, link_bytes, login_bytes};
use sealcast::protocol::generation_link::generation_link_aad;
use sealcast::protocol::ids::{ChatId, SessionId};
use sealcast::protocol::info::{SealedInfo, chat_description_aad};
use sealcast::protocol::info_seal::info_key_seal_aad;
use sealcast::protocol::keys::{
    InfoKeyWrap, KeyCopy, SealedName, chat_name_aad, commitment, info_key_aad, sender_key_aad, staged_hash,
};
use sealcast::protocol::log::{LogEntry, log_hash, log_start};
use sealcast::protocol::membership;
use sealcast::protocol::profile::{ProfileKeyWrap, SealedProfile};
use sealcast::protocol::signal::{signal_aad, signal_key_info};
use sealcast::protocol::verify::Verifier;
use serde_json::{Value, json};

use super::crate_side::{self, pack, parse};
use super::{list, make, read};
use crate::stranger::bytes::{array, base64url, bytes, hex, sha256, text, unhex};
use crate::stranger::{crypto, formats, packed};

fn hexed(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

fn hexed_array<const N: usize>(value: &Value) -> [u8; N] {
    hexed(value).try_into().unwrap()
}

#[test]
fn signed_objects_have_their_known_bytes() {
    let mut formats_seen = BTreeSet::new();
    for file in ["chains.json", "membership.json", "messages.json", "keys.json", "signals.json"] {
        for vector in list(file) {
            let about = format!("{file}: {} {}", vector["format"], vector["name"]);
            let format = vector["format"].as_str().unwrap();
            let (chat_id, value) = (&vector["chat_id"], &vector["value"]);
            let (known, signer) = (hexed(&vector["bytes"]), hexed(&vector["signer"]));
            assert_eq!(hex(&sha256(&known)), vector["sha256"], "{about}");

            let of_crate = crate_side::signed(format, chat_id, value);
            assert_eq!(hex(&of_crate.bytes), vector["bytes"], "{about}");
            assert!(of_crate.verifies(&signer), "{about}");
            assert_eq!(of_crate.chain_hash.map(|hash| hex(&hash)).as_deref(), vector["chain_hash"].as_str(), "{about}");
            assert_eq!((hex(&of_crate.packed), &of_crate.json), (vector["msgpack"].as_str().unwrap().into(), value));

            assert_eq!(hex(&formats::signed(format, chat_id, value)), vector["bytes"], "{about}");
            assert!(crypto::verifies(&text(&signer), &known, &value["signature"]), "{about}");
            assert_eq!(&packed::unpack(&hexed(&vector["msgpack"])), value, "{about}");
            match (format, &vector["chain_hash"]) {
                (_, Value::Null) => {}
                ("membership", hash) => {
                    assert_eq!(hex(&formats::membership_event(&known, &value["signature"]).hash()), *hash, "{about}");
                }
                (_, hash) => {
                    assert_eq!(hex(&formats::user_event(&known, &value["signature"]).hash()), *hash, "{about}");
                }
            }
            formats_seen.insert(format.to_owned());
        }
    }
    assert_eq!(formats_seen.len(), 18, "{formats_seen:?}");
    let kinds: BTreeSet<String> =
        list("membership.json").iter().map(|it| it["value"]["change"]["change"]["type"].to_string()).collect();
    assert_eq!(kinds.len(), 9, "every kind of change: {kinds:?}");
    let chains = list("chains.json");
    for [before, after] in [[0, 1], [1, 4], [4, 6]] {
        let inner = ["certificate", "revocation", "deletion"].map(|name| &chains[after]["value"][name]["previous"]);
        let previous = inner.into_iter().find(|it| !it.is_null()).unwrap();
        assert_eq!(hex(&bytes(previous)), chains[before]["chain_hash"], "a user's chain hangs together");
    }
}

#[test]
fn hashes_have_their_known_bytes() {
    for vector in list("hashes.json") {
        let (input, about) = (&vector["input"], &vector["format"]);
        let known = hexed(&vector["bytes"]);
        assert_eq!(hex(&sha256(&known)), vector["hash"], "{about}");
        let pairs = |value: &Value| {
            let all = value["recipients"].as_array().unwrap();
            all.iter().map(|it| (parse(&it["session_id"]), parse(&it["public_key"]))).collect::<Vec<_>>()
        };
        let (of_crate, own) = match about.as_str().unwrap() {
            "user-chain" => {
                (certificate::chain_start(parse(&input["user_id"])), formats::user_chain(&input["user_id"]))
            }
            "membership-chain" => {
                (membership::chain_start(parse(&input["chat_id"])), formats::membership_chain(&input["chat_id"]))
            }
            "log" => (log_start(parse(&input["chat_id"])), formats::log(&input["chat_id"])),
            "commitment" => {
                let secret = hexed_array(&input["sender_key"]);
                (commitment(&secret), formats::commitment(&secret))
            }
            "roster" => {
                let own = input["recipients"].as_array().unwrap();
                let own = formats::roster(own.iter().map(|it| (&it["session_id"], &it["public_key"])));
                // The crate hashes in the order of its map.
                let mut sorted: Vec<(SessionId, ExchangeKey)> = pairs(input);
                sorted.sort_by_key(|(session_id, _)| *session_id);
                (roster_hash(sorted.into_iter(), None), own)
            }
            "staged-copies" => {
                let copies: Vec<KeyCopy> = parse(&input["copies"]);
                (staged_hash(copies.iter()), formats::staged(input["copies"].as_array().unwrap()))
            }
            other => panic!("{other}"),
        };
        assert_eq!(hex(of_crate.as_ref()), vector["hash"], "{about}");
        assert_eq!(hex(&own.done()), vector["bytes"], "{about}");
    }
}

#[test]
fn bound_data_have_their_known_bytes() {
    for vector in list("bound.json") {
        let (input, format) = (&vector["input"], vector["format"].as_str().unwrap());
        assert_eq!(hex(&formats::bound(format, input)), vector["bytes"], "{format}");
        let of_crate = match format {
            "aad/message" => message_aad(
                parse(&input["chat_id"]),
                parse(&input["message_id"]),
                parse(&input["revision"]),
                parse(&input["counter"]),
                parse(&input["sender_session_id"]),
                parse(&input["key_id"]),
            ),
            "kdf/message" => {
                message_key_info(parse(&input["message_id"]), parse(&input["revision"]), parse(&input["counter"]))
            }
            "aad/sender-key" => sender_key_aad(
                parse(&input["chat_id"]),
                parse(&input["key_id"]),
                parse(&input["sender_session_id"]),
                parse(&input["session_id"]),
            ),
            "aad/info-key" => info_key_aad(
                parse(&input["chat_id"]),
                parse(&input["key_id"]),
                parse(&input["wrapped_by_session_id"]),
                parse(&input["session_id"]),
            ),
            "aad/info-key-seal" => info_key_seal_aad(
                parse(&input["chat_id"]),
                parse(&input["key_id"]),
                parse(&input["generation"]),
                parse(&input["sealed_by_session_id"]),
            ),
            "aad/generation-link" => generation_link_aad(
                parse(&input["chat_id"]),
                parse(&input["generation"]),
                parse(&input["linked_by_session_id"]),
            ),
            "aad/chat-name" => chat_name_aad(parse(&input["chat_id"]), parse(&input["key_id"])),
            "aad/chat-description" => chat_description_aad(parse(&input["chat_id"]), parse(&input["key_id"])),
            "aad/signal" => signal_aad(
                parse(&input["chat_id"]),
                parse(&input["signal_id"]),
                parse(&input["sender_session_id"]),
                parse(&input["key_id"]),
            ),
            "kdf/signal" => signal_key_info(parse(&input["signal_id"])),
            "aad/label" => label_aad(parse(&input["user_id"]), parse(&input["session_id"])),
            // These are seen through what they open, in encryption.json.
            "kdf/info" | "aad/handover" => continue,
            other => panic!("{other}"),
        };
        assert_eq!(hex(&of_crate), vector["bytes"], "{format}");
    }
}

/// A session's secrets with this X25519 half.
fn secrets(exchange: &Value) -> SessionSecrets {
    parse(&json!({"exchange": hexed(exchange), "signing": vec![0; 32]}))
}

#[test]
fn sealed_data_open() {
    let mut opened = 0;
    for vector in list("encryption.json") {
        let about = format!("{} {}", vector["format"], vector["name"]);
        let aad = hexed(&vector["aad"]);
        match vector["format"].as_str().unwrap() {
            "message" => {
                let it: Envelope = parse(&vector["envelope"]);
                let chat_id: ChatId = parse(&vector["chat_id"]);
                let place = message::Place {
                    chat_id,
                    message_id: it.message_id,
                    revision: it.revision,
                    counter: it.counter,
                    sender: it.sender_session_id,
                    key_id: it.key_id.unwrap(),
                };
                let secret = Secret::new(hexed_array(&vector["sender_key"]));
                let data = it.data.unwrap();
                let plaintext = message::open(&secret, &place, data.as_ref()).unwrap();
                assert_eq!(plaintext, vector["plaintext"].as_str().unwrap().as_bytes(), "{about}");
                let own = crypto::decrypt(&hexed_array(&vector["message_key"]), &aad, data.as_ref());
                assert_eq!(own, Some(plaintext), "{about}");
                let mut field = vector["envelope"].clone();
                field["chat_id"] = vector["chat_id"].clone();
                let info = formats::bound("kdf/message", &field);
                assert_eq!(hex(&crypto::derive(secret.expose(), &info)), vector["message_key"], "{about}");
            }
            "sender-key" => {
                let place = &vector["place"];
                let copy: KeyCopy = parse(&vector["copy"]);
                let recipient = secrets(&vector["recipient_secret"]);
                let secret = wrap::open_sender_key(
                    &copy.key,
                    parse(&place["chat_id"]),
                    parse(&place["key_id"]),
                    parse(&place["sender_session_id"]),
                    (copy.session_id, &recipient),
                );
                assert_eq!(hex(secret.unwrap().expose()), vector["secret"], "{about}");
                assert_eq!(hex(&unwrapped(&vector, &bytes(&vector["copy"]["key"]))), vector["secret"], "{about}");
            }
            "info-key" => {
                let it: InfoKeyWrap = parse(&vector["wrap"]);
                let recipient = secrets(&vector["recipient_secret"]);
                let secret = wrap::open_info_key(&it, parse(&vector["chat_id"]), (it.session_id, &recipient));
                assert_eq!(hex(secret.unwrap().expose()), vector["secret"], "{about}");
                assert_eq!(hex(&unwrapped(&vector, &bytes(&vector["wrap"]["key"]))), vector["secret"], "{about}");
            }
            "info-key-seal" => {
                let info = formats::bound("kdf/recovery-key", &Value::Null);
                let recovery = crypto::derive(&hexed_array::<32>(&vector["group_key"]), &info);
                assert_eq!(hex(&recovery), vector["recipient_secret"], "{about}");
                assert_eq!(hex(&unwrapped(&vector, &bytes(&vector["seal"]["key"]))), vector["secret"], "{about}");
            }
            "generation-link" => {
                let own = unwrapped(&vector, &bytes(&vector["link"]["key"]));
                assert_eq!(hex(&own), vector["secret"], "{about}");
            }
            "session-key" => {
                let it: SessionKeyBackup = parse(&vector["backup"]);
                let secret = backup::open(&it, &secrets(&vector["recipient_secret"]).exchange_secret()).unwrap();
                let own = unwrapped(&vector, &bytes(&vector["backup"]["key"]));
                assert_eq!(hex(&own), vector["secret"], "{about}");
                assert_eq!(hex(&it.aad()), vector["aad"], "{about}");
                assert_eq!(secret.public_key().as_ref(), crypto::exchange_public(&hexed_array(&vector["secret"])));
            }
            "chat-name" => {
                let sealed: SealedName = parse(&vector["sealed"]);
                let secret = Secret::new(hexed_array(&vector["info_key"]));
                let plaintext = name::open(&secret, parse(&vector["chat_id"]), &sealed).unwrap();
                assert_eq!(plaintext, vector["plaintext"], "{about}");
                let own = crypto::decrypt(&hexed_array(&vector["cipher_key"]), &aad, sealed.data.as_ref());
                assert_eq!(own.unwrap(), plaintext.as_bytes(), "{about}");
                let info = formats::bound("kdf/info", &Value::Null);
                assert_eq!(hex(&crypto::derive(secret.expose(), &info)), vector["cipher_key"], "{about}");
            }
            "chat-info" => {
                let it: SealedInfo = parse(&vector["info"]);
                let (secret, chat_id) = (Secret::new(hexed_array(&vector["info_key"])), parse(&vector["chat_id"]));
                let plain = info::open(&secret, chat_id, &it).unwrap();
                assert_eq!(plain.name.unwrap(), vector["plaintext"]["name"], "{about}");
                assert_eq!(plain.description.as_deref(), vector["plaintext"]["description"].as_str(), "{about}");
                let key = crypto::derive(secret.expose(), &formats::bound("kdf/info", &Value::Null));
                let own = crypto::decrypt(&key, &aad, &bytes(&vector["info"]["description"]));
                assert_eq!(own.unwrap(), plain.description.unwrap().as_bytes(), "{about}");
            }
            "profile" => {
                let it: SealedProfile = parse(&vector["profile"]);
                let secret = Secret::new(hexed_array(&vector["info_key"]));
                let plain = user_profile::open(&secret, &it).unwrap();
                let plain = json!({"name": plain.name, "email": plain.email, "description": plain.description});
                assert_eq!(plain, vector["plaintext"], "{about}");
                let key = crypto::derive(secret.expose(), &formats::bound("kdf/info", &Value::Null));
                let own = crypto::decrypt(&key, &aad, &bytes(&vector["profile"]["email"]));
                assert_eq!(own.unwrap(), plain["email"].as_str().unwrap().as_bytes(), "{about}");
            }
            "profile-key" => {
                let wrap: ProfileKeyWrap = parse(&vector["wrap"]);
                let secret = user_profile::open_key(&wrap, &secrets(&vector["recipient_secret"]));
                assert_eq!(hex(secret.unwrap().expose()), vector["secret"], "{about}");
                assert_eq!(hex(&unwrapped(&vector, &bytes(&vector["wrap"]["key"]))), vector["secret"], "{about}");
            }
            "signal" => {
                let info = signal_key_info(parse(&vector["signal"]["signal_id"]));
                let key = crypto::derive(&hexed(&vector["sender_key"]), &info);
                assert_eq!(hex(&key), vector["signal_key"], "{about}");
                let own = crypto::decrypt(&key, &aad, &bytes(&vector["signal"]["data"]));
                assert_eq!(own.unwrap(), vector["plaintext"].as_str().unwrap().as_bytes(), "{about}");
            }
            "handover" => {
                let place = &vector["place"];
                let code: LinkCode = parse(&json!(hexed(&vector["code"])));
                let recipient = secrets(&vector["recipient_secret"]);
                let session_id: SessionId = parse(&place["session_id"]);
                let blob = parse(&vector["handover"]);
                let (approved_by, content) =
                    handover::open(&code, parse(&place["user_id"]), (session_id, &recipient), &blob).unwrap();
                assert_eq!(json!(approved_by), place["approved_by_session_id"], "{about}");
                assert_eq!(hex(&content), vector["content"], "{about}");
                assert_eq!(hex(&formats::handover_info(&hexed(&vector["code"]))), vector["info"], "{about}");
                assert_eq!(unwrapped(&vector, &bytes(&vector["handover"])[16..]), content, "{about}");
            }
            other => panic!("{other}"),
        }
        opened += 1;
    }
    assert_eq!(opened, 14);
}

fn unwrapped(vector: &Value, wrapped: &[u8]) -> Vec<u8> {
    let private = hexed_array(&vector["recipient_secret"]);
    crypto::unwrap(&private, &hexed(&vector["info"]), &hexed(&vector["aad"]), wrapped).unwrap()
}

#[test]
fn a_login_a_link_and_a_safety_number_are_as_known() {
    let file = read("sessions.json");
    let login = &file["login"];
    let nonce: Nonce = parse(&login["nonce"]);
    let server_name = login["server_name"].as_str().unwrap();
    let of_crate = login_bytes(&nonce, server_name, parse(&login["session_id"]));
    assert_eq!(hex(&of_crate), login["bytes"]);
    let own = formats::login(&login["nonce"], server_name, &login["session_id"]);
    assert_eq!(hex(&own), login["bytes"]);
    assert!(crypto::verifies(&text(&hexed(&login["signer"])), &own, &login["signature"]));

    let link = &file["link"];
    let request: Link = parse(&link["request"]);
    let bytes = link_bytes(request.user_id, request.session_id, &request.public_key, &request.signing_public_key);
    assert_eq!(hex(&bytes), link["bytes"]);
    assert_eq!(hex(&formats::link(&link["request"])), link["bytes"]);
    let code: LinkCode = parse(&json!(hexed(&link["code"])));
    let text_of_code = link["text"].as_str().unwrap();
    assert_eq!(
        (code.to_text().as_str(), formats::code_text(&hexed_array(&link["code"])).as_str()),
        (text_of_code, text_of_code)
    );
    for spelling in link["also_read"].as_array().unwrap() {
        let read: LinkCode = spelling.as_str().unwrap().parse().unwrap();
        assert_eq!(read.to_text(), text_of_code, "{spelling}");
    }
    let Link { user_id, session_id, public_key, signing_public_key, proof } = request;
    assert!(code.proves(user_id, session_id, &public_key, &signing_public_key, &proof));
    let proof_key = crypto::derive(&hexed(&link["code"]), b"sealcast/link-code/proof");
    assert_eq!(hex(&proof_key), link["proof_key"]);
    assert_eq!(text(&crypto::hmac(&proof_key, &bytes)), link["proof"]);

    let it = &file["safety_number"];
    let [one, other] = ["one", "other"].map(|name| (&it[name]["user_id"], &it[name]["identity_key"]));
    assert_eq!(formats::safety_number(other, one), it["text"]);
    let number = safety_number((parse(one.0), &parse(one.1)), (parse(other.0), &parse(other.1)));
    assert_eq!(number, it["text"]);
}

#[test]
fn a_log_of_every_kind_of_entry_has_its_known_hashes_and_folds() {
    let file = read("log.json");
    let chat_id: ChatId = parse(&file["chat_id"]);
    let mut previous = log_start(chat_id);
    assert_eq!(hex(previous.as_ref()), file["start"]);
    let mut fold: Option<ChatFold> = None;
    let mut kinds = BTreeSet::new();
    for vector in file["vectors"].as_array().unwrap() {
        let entry: LogEntry = parse(&vector["entry"]);
        let about = format!("entry {}", vector["entry"]["seq"]);
        let digest = entry.body.digest(chat_id);
        assert_eq!(hex(digest.as_ref()), vector["digest"], "{about}");
        let own = formats::digest(&file["chat_id"], &vector["entry"]["body"]);
        assert_eq!(hex(&own.done()), vector["digest_bytes"], "{about}");
        assert_eq!(hex(&sha256(&hexed(&vector["digest_bytes"]))), vector["digest"], "{about}");
        let own = formats::log_hash(&file["chat_id"], &previous.0, &vector["entry"]);
        assert_eq!(hex(&own.done()), vector["log_hash_bytes"], "{about}");
        assert_eq!(hex(&sha256(&hexed(&vector["log_hash_bytes"]))), vector["log_hash"], "{about}");
        let chained = log_hash(chat_id, &previous, entry.seq, entry.created_at, &digest);
        assert_eq!((hex(chained.as_ref()), chained), (vector["log_hash"].as_str().unwrap().into(), entry.log_hash));
        previous = chained;
        match &mut fold {
            Some(fold) => fold.apply(entry.seq, entry.created_at, &entry.body).unwrap(),
            none => *none = Some(ChatFold::begin(chat_id, &entry.body).unwrap()),
        }
        let (fold, after) = (fold.as_ref().unwrap(), &vector["after"]);
        assert_eq!(json!([fold.epoch(), fold.roster_version()]), json!([after["epoch"], after["roster_version"]]));
        assert_eq!(hex(fold.roster_hash().as_ref()), after["roster_hash"], "{about}");
        let recipients = after["recipients"].as_array().unwrap();
        let own = formats::roster(recipients.iter().map(|it| (&it["session_id"], &it["public_key"])));
        assert_eq!(hex(&own.clone().done()), after["roster_bytes"], "{about}");
        assert_eq!(hex(&own.hash()), after["roster_hash"], "{about}");
        let body = &vector["entry"]["body"];
        kinds.insert((body["type"].to_string(), body["data"]["type"].to_string()));
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn lax_signatures_and_unsound_keys_are_refused() {
    for vector in list("ed25519.json") {
        let key = SigningKey(hexed_array(&vector["public_key"]));
        let signature = Signature(hexed_array(&vector["signature"]));
        let message = hexed(&vector["message"]);
        assert_eq!(key.is_sound(), vector["key_is_sound"], "{}", vector["name"]);
        assert_eq!(key.verifies(&message, &signature), vector["verifies"], "{}", vector["name"]);
        let own = crypto::verifies(&text(&key.0), &message, &text(&signature.0));
        assert_eq!(own, vector["verifies"], "{}", vector["name"]);
    }
    for vector in list("x25519.json") {
        let key = ExchangeKey(hexed_array(&vector["public_key"]));
        assert_eq!(key.is_sound(), vector["is_sound"], "{}", vector["name"]);
    }
}

#[test]
fn every_frame_reads_and_writes_in_both_encodings() {
    let (mut requests, mut answers, mut pushes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for vector in list("frames.json") {
        let (frame, known) = (&vector["json"], hexed(&vector["msgpack"]));
        assert_eq!(&packed::unpack(&known), frame, "{}", vector["name"]);
        let (json, packed) = if vector["from"] == "client" {
            let read: ClientFrame = Encoding::Json.decode_client(frame.to_string().as_bytes()).unwrap();
            assert_eq!(Encoding::MessagePack.decode_client(&known).unwrap(), read, "{}", vector["name"]);
            requests.insert(read.request.name());
            (serde_json::to_value(&read).unwrap(), pack(&read))
        } else {
            let read: ServerFrame = Encoding::Json.decode_server(frame.to_string().as_bytes()).unwrap();
            assert_eq!(Encoding::MessagePack.decode_server(&known).unwrap(), read, "{}", vector["name"]);
            match &read {
                ServerFrame::Ok(ok) => answers.insert(answer_number(&ok.result)),
                push => pushes.insert(push_number(push)),
            };
            (serde_json::to_value(&read).unwrap(), pack(&read))
        };
        assert_eq!((&json, hex(&packed)), (frame, hex(&known)), "{}", vector["name"]);
    }
    assert_eq!(requests.len(), Request::NAMES.len(), "every request: {requests:?}");
    assert_eq!(answers, (0..26).collect(), "every answer");
    assert_eq!(pushes, (0..23).collect(), "every push");
}

/// A number for each answer: one that is new does not compile until a vector of it is there.
fn answer_number(reply: &Reply) -> u8 {
    match reply {
        Reply::Done(_) => 0,
        Reply::Authenticated(_) => 1,
        Reply::User(_) => 2,
        Reply::Sessions(_) => 3,
        Reply::Handover(_) => 4,
        Reply::Changed(_) => 5,
        Reply::Chats(_) => 6,
        Reply::Members(_) => 7,
        Reply::Sent(_) => 8,
        Reply::Page(_) => 9,
        Reply::Keys(_) => 10,
        Reply::Chains(_) => 11,
        Reply::Settings(_) => 12,
        Reply::Deliveries(_) => 13,
        Reply::GroupKeys(_) => 14,
        Reply::Archives(_) => 15,
        Reply::BackupsStored(_) => 16,
        Reply::Backups(_) => 17,
        Reply::Profile(_) => 18,
        Reply::UserKeys(_) => 19,
        Reply::Share(_) => 20,
        Reply::RecoveryRequests(_) => 21,
        Reply::Secrets(_) => 22,
        Reply::Secret(_) => 23,
        Reply::SecretLog(_) => 24,
        Reply::Links(_) => 25,
    }
}

/// The same for pushes and errors.
fn push_number(frame: &ServerFrame) -> u8 {
    match frame {
        ServerFrame::Hello(_) => 0,
        ServerFrame::Ok(_) => panic!("an answer"),
        ServerFrame::Error(_) => 1,
        ServerFrame::Entry(_) => 2,
        ServerFrame::Key(_) => 3,
        ServerFrame::Page(_) => 4,
        ServerFrame::Live(_) => 5,
        ServerFrame::ChatDeleted(_) => 6,
        ServerFrame::Approved(_) => 7,
        ServerFrame::SessionPending(_) => 8,
        ServerFrame::Bye(_) => 9,
        ServerFrame::Signal(_) => 10,
        ServerFrame::Delivered(_) => 11,
        ServerFrame::KeyRequested(_) => 12,
        ServerFrame::CopyRefused(_) => 13,
        ServerFrame::ChatGone(_) => 14,
        ServerFrame::ChatInfo(_) => 15,
        ServerFrame::InfoKeyRequested(_) => 16,
        ServerFrame::BackupsReady(_) => 17,
        ServerFrame::ProfileChanged(_) => 18,
        ServerFrame::ProfileKeyRequested(_) => 19,
        ServerFrame::RecoveryRequested(_) => 20,
        ServerFrame::RecoveryCancelled(_) => 21,
        ServerFrame::SecretChanged(_) => 22,
    }
}

#[test]
fn the_people_have_the_keys_that_follow_from_their_secrets() {
    for person in list("people.json") {
        for (secret, public) in [("identity_secret", "identity_key"), ("signing_secret", "signing_public_key")] {
            assert_eq!(base64url(&crypto::public(&hexed_array(&person[secret]))), person[public]);
        }
        assert_eq!(crypto::exchange_public(&hexed_array(&person["exchange_secret"])), array(&person["public_key"]));
        let of_crate = secrets(&person["exchange_secret"]);
        assert_eq!(json!(of_crate.public_key()), person["public_key"]);
    }
}

/// All but what HPKE draws, whose generator may change with its version, is what the generator makes.
#[test]
fn the_files_are_those_that_the_generator_makes() {
    for (name, made) in make::files() {
        if !matches!(name, "keys.json" | "encryption.json" | "frames.json" | "hashes.json") {
            assert_eq!(read(name), made, "{name}: write the files anew");
        }
    }
}
