//! Reads and writes the bytes of the wire: base64url, identifiers, and the canonical form of section 10.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Bytes as the wire writes them in JSON.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Bytes as a JSON value.
pub fn text(bytes: &[u8]) -> Value {
    Value::String(base64url(bytes))
}

/// The bytes of a JSON value.
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_else(|| panic!("bytes expected: {value}"));
    URL_SAFE_NO_PAD.decode(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The bytes of a JSON value that has exactly `N` of them.
pub fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap_or_else(|_| panic!("{N} bytes expected: {value}"))
}

/// The 16 bytes of an identifier.
pub fn id(value: &Value) -> [u8; 16] {
    let text = value.as_str().unwrap_or_else(|| panic!("an id expected: {value}"));
    let hyphens = text.char_indices().filter(|(_, letter)| *letter == '-').map(|(at, _)| at);
    assert!(hyphens.eq([8, 13, 18, 23]) && text.to_lowercase() == text, "{text}");
    unhex(&text.replace('-', "")).try_into().unwrap()
}

/// An identifier as the wire writes it in JSON.
pub fn id_text(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// A number from the wire.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number expected: {value}"))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Canonical bytes: label, version, then the fields, each with its length before it.
#[derive(Clone)]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// Begins with `sealcast/<label>` and version 1.
    pub fn new(label: &str) -> Self {
        Self::labelled(&format!("sealcast/{label}"))
    }

    /// Begins with a whole label and version 1.
    pub fn labelled(label: &str) -> Self {
        Self(Vec::new()).field(label.as_bytes()).number(1)
    }

    /// A field.
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// Nothing.
    pub fn absent(self) -> Self {
        self.field(&[])
    }

    /// A number or a time.
    pub fn number(self, number: u64) -> Self {
        self.field(&number.to_be_bytes())
    }

    /// A number of the wire.
    pub fn number_of(self, value: &Value) -> Self {
        self.number(number(value))
    }

    /// A truth value of the wire.
    pub fn truth_of(self, value: &Value) -> Self {
        self.number(u64::from(value.as_bool().unwrap()))
    }

    /// An identifier of the wire.
    pub fn id_of(self, value: &Value) -> Self {
        self.field(&id(value))
    }

    /// An identifier of the wire that may be absent.
    pub fn id_or_absent(self, value: &Value) -> Self {
        if value.is_null() { self.absent() } else { self.id_of(value) }
    }

    /// Bytes of the wire.
    pub fn bytes_of(self, value: &Value) -> Self {
        self.field(&bytes(value))
    }

    /// Text of the wire.
    pub fn text_of(self, value: &Value) -> Self {
        self.field(value.as_str().unwrap().as_bytes())
    }

    /// The bytes.
    pub fn done(self) -> Vec<u8> {
        self.0
    }

    /// H(…).
    pub fn hash(self) -> [u8; 32] {
        sha256(&self.0)
    }
}

#[test]
fn the_known_answers_of_the_document_are_right() {
    let document = include_str!("../../../docs/protocol.md");
    let (_, rest) = document.split_once("**Known answers**").unwrap();
    let (_, rest) = rest.split_once("```text\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let mut key = [0; 32];
    key[0] = 9;
    let roster = Canonical::new("roster").number(1).number(0).field(&[3; 16]).field(&key);
    let answers = [
        Canonical::labelled("example").number(7).done(),
        Canonical::new("log").field(&[1; 16]).hash().to_vec(),
        Canonical::new("membership-chain").field(&[1; 16]).hash().to_vec(),
        Canonical::new("user-chain").field(&[2; 16]).hash().to_vec(),
        Canonical::new("roster").number(0).hash().to_vec(),
        roster.hash().to_vec(),
        Canonical::new("commitment").field(&[0x42; 32]).hash().to_vec(),
        Canonical::new("login").field(&[7; 32]).field(b"sealcast").field(&[3; 16]).done(),
    ];
    assert_eq!(block.lines().count(), answers.len());
    for (line, answer) in block.lines().zip(answers) {
        assert_eq!(line.rsplit_once(" = ").unwrap().1, hex(&answer), "{line}");
    }
}
