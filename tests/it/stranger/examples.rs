//! The JSON examples of docs/protocol.md: every signature in them is real.

use std::collections::HashMap;

use serde_json::Value;

use super::bytes::text;
use super::page::{BEGIN, END};
use super::{crypto, formats};

/// The blocks outside of the conversation, which a broker checks.
fn blocks(document: &str) -> Vec<Value> {
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let parts = [before, after].into_iter().flat_map(|part| part.split("```json\n").skip(1));
    parts.map(|part| serde_json::from_str(part.split_once("```").unwrap().0).unwrap()).collect()
}

/// Every object with a name, in a value.
fn objects<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            all.push(value);
            fields.values().for_each(|value| objects(value, all));
        }
        Value::Array(items) => items.iter().for_each(|value| objects(value, all)),
        _ => {}
    }
}

/// Which format a signed object has, and who signed it.
fn format_of(it: &Value) -> Option<(&'static str, Value)> {
    let signer = |value: &Value| value.clone();
    if it["signature"].is_null() {
        None
    } else if it["certificate"].is_object() {
        Some(("certificate", signer(&it["certificate"]["user_id"])))
    } else if it["revocation"].is_object() {
        let by = &it["revocation"]["revoker"];
        let user = &it["revocation"]["user_id"];
        Some(("revocation", signer(if by["type"] == "session" { &by["data"] } else { user })))
    } else if it["secret"]["secret_id"].is_string() {
        Some(("group-secret", signer(&it["secret"]["session_id"])))
    } else if it["deletion"]["secret_id"].is_string() {
        Some(("group-secret-deletion", signer(&it["deletion"]["session_id"])))
    } else if it["deletion"].is_object() {
        Some(("account-deletion", signer(&it["deletion"]["user_id"])))
    } else if it["change"].is_object() {
        Some(("membership", signer(&it["change"]["actor"]["session_id"])))
    } else if it["announcement"].is_object() {
        Some(("announcement", signer(&it["announcement"]["session_id"])))
    } else if it["info"]["revision"].is_number() {
        Some(("chat-info", signer(&it["info"]["session_id"])))
    } else if it["generation"].is_object() {
        Some(("generation", signer(&it["generation"]["session_id"])))
    } else if it["withdrawal"].is_object() {
        Some(("withdrawal", signer(&it["withdrawal"]["revoker"]["data"])))
    } else if it["refusal"]["number"].is_number() {
        Some(("generation-refusal", signer(&it["refusal"]["session_id"])))
    } else if it["refusal"].is_object() {
        Some(("copy-refusal", signer(&it["refusal"]["session_id"])))
    } else if it["set"]["needed"].is_number() {
        Some(("share-set", signer(&it["set"]["user_id"])))
    } else if it["key_id"].is_string() && it["user_id"].is_string() && it["public_key"].is_string() {
        Some(("user-key", signer(&it["user_id"])))
    } else if !it["backed_up_session_id"].is_null() {
        Some(("session-key-backup", signer(&it["wrapped_by_session_id"])))
    } else if it["profile"]["revision"].is_number() {
        Some(("profile-saved", signer(&it["profile"]["session_id"])))
    } else if !it["wrapped_by_session_id"].is_null() && it["user_id"].is_string() {
        let format = if it["user_key_id"].is_null() { "profile-key-wrap" } else { "own-key-wrap" };
        Some((format, signer(&it["wrapped_by_session_id"])))
    } else if !it["linked_by_session_id"].is_null() {
        Some(("generation-link", signer(&it["linked_by_session_id"])))
    } else if !it["sealed_by_session_id"].is_null() {
        Some(("info-key-seal", signer(&it["sealed_by_session_id"])))
    } else if !it["wrapped_by_session_id"].is_null() {
        Some(("info-key-wrap", signer(&it["wrapped_by_session_id"])))
    } else if !it["message_id"].is_null() {
        Some(("message", signer(&it["sender_session_id"])))
    } else if !it["signal_id"].is_null() {
        Some(("signal", signer(&it["sender_session_id"])))
    } else {
        None
    }
}

/// Signs the examples anew with the secrets of tests/vectors/people.json, after an example was changed.
#[test]
#[ignore = "writes into the document"]
fn sign_the_examples() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let mut document = std::fs::read_to_string(path).unwrap();
    let people = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/people.json")).unwrap();
    let people: Value = serde_json::from_str(&people).unwrap();
    let mut secrets: HashMap<Value, [u8; 32]> = HashMap::new();
    for person in people["vectors"].as_array().unwrap() {
        for (name, secret) in [("user_id", "identity_secret"), ("session_id", "signing_secret")] {
            secrets.insert(person[name].clone(), hexed(&person[secret]));
        }
    }
    let chat_id = blocks(&document).iter().find_map(|block| {
        let mut all = Vec::new();
        objects(block, &mut all);
        all.iter().map(|it| it["chat_id"].clone()).find(Value::is_string)
    });
    let chat_id = chat_id.unwrap();
    let page = document.find(BEGIN).unwrap()..document.find(END).unwrap();
    let mut signed = String::new();
    let mut at = 0;
    while let Some(begin) = document[at..].find("```json\n").map(|begin| at + begin + 8) {
        let end = begin + document[begin..].find("```").unwrap();
        let mut block = document[begin..end].to_owned();
        if !page.contains(&begin) {
            let value: Value = serde_json::from_str(&block).unwrap();
            let mut all = Vec::new();
            objects(&value, &mut all);
            for it in all {
                let Some((format, signer)) = format_of(it) else { continue };
                let signature = crypto::sign(&secrets[&signer], &formats::signed(format, &chat_id, it));
                block = block.replace(it["signature"].as_str().unwrap(), signature.as_str().unwrap());
            }
        }
        signed.push_str(&document[at..begin]);
        signed.push_str(&block);
        at = end;
    }
    signed.push_str(&document[at..]);
    document = signed;
    std::fs::write(path, document).unwrap();
}

fn hexed(text: &Value) -> [u8; 32] {
    let text = text.as_str().unwrap();
    std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
}

#[test]
fn the_signatures_in_the_examples_are_real() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let blocks = blocks(&std::fs::read_to_string(path).unwrap());
    let mut all = Vec::new();
    blocks.iter().for_each(|block| objects(block, &mut all));
    // Users sign with the identity key, sessions with what their certificate says.
    let mut keys: HashMap<Value, Value> = HashMap::new();
    for it in &all {
        if it["identity_key"].is_string() && it["user_id"].is_string() {
            keys.insert(it["user_id"].clone(), it["identity_key"].clone());
        }
        if it["signing_public_key"].is_string() {
            keys.insert(it["session_id"].clone(), it["signing_public_key"].clone());
        }
    }
    let mut chats = all.iter().map(|it| &it["chat_id"]).filter(|chat_id| chat_id.is_string());
    let chat_id = chats.next().unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for it in &all {
        let Some((format, signer)) = format_of(it) else { continue };
        let bytes = formats::signed(format, chat_id, it);
        let key = keys.get(&signer).unwrap_or_else(|| panic!("who is {signer}?"));
        count += 1;
        if !crypto::verifies(key, &bytes, &it["signature"]) {
            wrong.push(format!("{format} {}", it["signature"]));
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 20, "{count} signatures");
    // The end of a secret names the revision before by its hash.
    let signed = all.iter().find(|it| it["secret"]["secret_id"].is_string() && it["signature"].is_string()).unwrap();
    let over = all.iter().find(|it| it["deletion"]["secret_id"].is_string()).unwrap();
    let bytes = formats::group_secret(chat_id, &signed["secret"]);
    let hash = formats::group_secret_revision(&bytes, &signed["signature"]).hash();
    assert_eq!(over["deletion"]["previous"], text(&hash));
    // The login of section 4 answers the nonce of its `hello`.
    let hello = all.iter().find(|it| it["nonce"].is_string()).unwrap();
    let login = all.iter().find(|it| it["request"]["type"] == "authenticate").unwrap();
    let data = &login["request"]["data"];
    let bytes = formats::login(&hello["nonce"], hello["server_name"].as_str().unwrap(), &data["session_id"]);
    assert!(crypto::verifies(&keys[&data["session_id"]], &bytes, &data["signature"]));
    let chain = formats::user_chain(&blocks[1]["user_id"]).hash();
    assert_eq!(blocks[1]["certificate"]["certificate"]["previous"], text(&chain));
}
