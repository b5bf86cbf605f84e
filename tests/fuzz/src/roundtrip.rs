//! What holds for every frame that was read, whichever way it came.

use std::fmt::Debug;

use sealcast::protocol::codec::{DecodeError, Encoding};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ClientFrame, Request, ServerFrame};
use serde::Serialize;
use serde_json::Value;

/// A frame of either side.
pub(crate) trait Frame: Sized + Clone + PartialEq + Debug + Serialize {
    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, DecodeError>;
}

impl Frame for ClientFrame {
    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, DecodeError> {
        encoding.decode_client(bytes)
    }
}

impl Frame for ServerFrame {
    fn decode(encoding: Encoding, bytes: &[u8]) -> Result<Self, DecodeError> {
        encoding.decode_server(bytes)
    }
}

/// Reads bytes as frames of both sides and checks what came out.
pub(crate) fn check(encoding: Encoding, bytes: &[u8]) {
    match ClientFrame::decode(encoding, bytes) {
        Ok(frame) => {
            assert!(Request::NAMES.contains(&frame.request.name()));
            has_exact_numbers(&serde_json::to_value(&frame).expect("a frame can be written"));
            ends_where_it_ends::<ClientFrame>(encoding, bytes);
            survives(&frame);
        }
        Err(error) => refused(encoding, bytes, error),
    }
    match ServerFrame::decode(encoding, bytes) {
        Ok(frame) => {
            ends_where_it_ends::<ServerFrame>(encoding, bytes);
            survives(&frame);
        }
        Err(error) => assert_eq!(error, DecodeError { id: None, code: ErrorCode::Malformed }),
    }
}

/// A frame comes back from both encodings, written the same way each time.
pub(crate) fn survives<F: Frame>(frame: &F) {
    for encoding in Encoding::ALL {
        let bytes = encoding.encode(frame).expect("a frame that was read can be written");
        let again = F::decode(encoding, &bytes).expect("what was written can be read");
        assert_eq!(&again, frame, "{encoding:?}");
        assert_eq!(encoding.encode(&again).expect("written once, written again"), bytes, "{encoding:?}");
    }
}

/// Every number that a client sends is one that all JSON implementations read exactly (RFC 8259 section 6).
fn has_exact_numbers(tree: &Value) {
    match tree {
        Value::Number(number) => assert!(number.as_u64().is_some_and(|number| number < 1 << 53), "{number}"),
        Value::Array(items) => items.iter().for_each(has_exact_numbers),
        Value::Object(fields) => fields.values().for_each(has_exact_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A frame is one value: in MessagePack, none is the beginning of another.
fn ends_where_it_ends<F: Frame>(encoding: Encoding, bytes: &[u8]) {
    if let (Encoding::MessagePack, Some((_, shorter))) = (encoding, bytes.split_last()) {
        assert!(F::decode(encoding, shorter).is_err(), "a frame, and something after it");
    }
}

/// A refusal has one of two codes, and its number is one that the client can have chosen.
fn refused(encoding: Encoding, bytes: &[u8], error: DecodeError) {
    assert!(matches!(error.code, ErrorCode::Malformed | ErrorCode::UnknownFrame), "{error:?}");
    if let (Some(id), Encoding::Json) = (error.id, encoding) {
        let value: Result<Value, _> = serde_json::from_slice(bytes);
        // A list may be read as a frame whose fields come by place.
        if let Ok(value) = value {
            let told = value.get("id").or_else(|| value.get(0)).and_then(Value::as_u64);
            assert_eq!(told, Some(id.get()));
        }
    }
    if error.code == ErrorCode::UnknownFrame && encoding == Encoding::Json {
        let value: Result<Value, _> = serde_json::from_slice(bytes);
        if let Ok(value) = value
            && let Some(name) = value.pointer("/request/type").and_then(Value::as_str)
        {
            assert!(!Request::NAMES.contains(&name), "{name}");
        }
    }
}
