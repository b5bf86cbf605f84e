//! Reads MessagePack as section 1 of the document describes it, into the values of the JSON encoding.

use serde_json::{Map, Value};

use super::bytes::{base64url, id_text};

/// Reads one value that takes up all bytes: bin of 16 bytes is an id, other bin is bytes.
pub fn unpack(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = read(&mut rest);
    assert!(rest.is_empty(), "{} bytes are left", rest.len());
    value
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

fn number(rest: &mut &[u8], width: usize) -> u64 {
    take(rest, width).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn read(rest: &mut &[u8]) -> Value {
    let head = take(rest, 1)[0];
    match head {
        0x00..=0x7f => head.into(),
        0x80..=0x8f => map(rest, u64::from(head & 0x0f)),
        0x90..=0x9f => list(rest, u64::from(head & 0x0f)),
        0xa0..=0xbf => text(rest, u64::from(head & 0x1f)),
        0xc0 => Value::Null,
        0xc2 => false.into(),
        0xc3 => true.into(),
        0xc4..=0xc6 => {
            let count = number(rest, 1 << (head - 0xc4));
            let bytes = take(rest, count as usize);
            if bytes.len() == 16 { id_text(bytes).into() } else { base64url(bytes).into() }
        }
        0xcc..=0xcf => number(rest, 1 << (head - 0xcc)).into(),
        0xd9..=0xdb => {
            let count = number(rest, 1 << (head - 0xd9));
            text(rest, count)
        }
        0xdc | 0xdd => {
            let count = number(rest, 2 << (head - 0xdc));
            list(rest, count)
        }
        0xde | 0xdf => {
            let count = number(rest, 2 << (head - 0xde));
            map(rest, count)
        }
        other => panic!("{other:#x}"),
    }
}

fn text(rest: &mut &[u8], count: u64) -> Value {
    String::from_utf8(take(rest, count as usize).to_vec()).unwrap().into()
}

fn list(rest: &mut &[u8], count: u64) -> Value {
    (0..count).map(|_| read(rest)).collect()
}

fn map(rest: &mut &[u8], count: u64) -> Value {
    let mut fields = Map::new();
    for _ in 0..count {
        let Value::String(name) = read(rest) else { panic!("names are text") };
        assert!(fields.insert(name, read(rest)).is_none(), "a field twice");
    }
    fields.into()
}
