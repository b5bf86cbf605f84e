//! Usernames: one normal form, which the database takes.

use sealcast::protocol::username::{Username, UsernameInvalid};

/// The rule that the schema holds usernames to. The replay test compares it with the schema itself.
pub const SQL_RULE: &str = "username ~ '^[a-z0-9][a-z0-9._-]{1,30}[a-z0-9]$'";

/// Checks any bytes that are text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = Username::parse(text);
    let lower = text.to_ascii_lowercase();
    let bare = lower.replace(['.', '_', '-'], "");
    match &parsed {
        Ok(name) => {
            assert_ne!(Username::parse(&bare), Err(UsernameInvalid::Reserved), "punctuation does not hide a name");
            assert_eq!(name.as_str(), lower, "the normal form is lower case and nothing else");
            assert!(passes_sql(name.as_str()), "{name}");
            assert_eq!(Username::parse(name.as_str()).as_ref(), Ok(name), "parsing is idempotent");
            assert_eq!(Username::parse(&text.to_ascii_uppercase()).as_ref(), Ok(name), "case does not matter");
            assert_eq!(format!("{name:?}"), "username", "a name stays out of logs");
        }
        Err(UsernameInvalid::Reserved) => {
            assert!(passes_sql(&lower), "only what is a name otherwise is reserved");
            assert_eq!(Username::parse(&bare), Err(UsernameInvalid::Reserved), "punctuation does not hide a name");
        }
        Err(_) => assert!(!passes_sql(&lower), "refused, though it keeps the rule: {text:?}"),
    }
    let json = serde_json::to_string(text).expect("text can be written");
    let over_json: Option<Username> = serde_json::from_str(&json).ok();
    assert_eq!(over_json.as_ref(), parsed.as_ref().ok(), "both encodings judge as the parser");
    let packed = rmp_serde::to_vec(text).expect("text can be written");
    let over_msgpack: Option<Username> = rmp_serde::from_slice(&packed).ok();
    assert_eq!(over_msgpack.as_ref(), parsed.as_ref().ok(), "both encodings judge as the parser");
}

/// [`SQL_RULE`], written out. Postgres takes `$` for the end of the text, not for the end of a line.
fn passes_sql(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    match name.as_bytes() {
        [first, middle @ .., last] => {
            is_plain(*first)
                && is_plain(*last)
                && (1..=30).contains(&middle.len())
                && middle.iter().all(|byte| is_plain(*byte) || b"._-".contains(byte))
        }
        _ => false,
    }
}
