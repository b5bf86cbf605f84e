//! MessagePack frames: any bytes are a frame that both encodings give back, or are refused by code.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{ClientFrame, Nothing, Request};
use sealcast::protocol::ids::RequestId;

use crate::roundtrip;

/// Checks any bytes.
pub fn check(data: &[u8]) {
    roundtrip::check(Encoding::MessagePack, data);
}

/// Checks that a lawful MessagePack value may stand in a field that nobody knows.
pub fn check_published(value: &[u8]) {
    check(value);
    let request = [&[0x82, 0xa4][..], b"type", &[0xa4], b"ping", &[0xa4], b"data", &[0x80]].concat();
    let frame = [&[0x83, 0xa2][..], b"id", &[1, 0xa3], b"new", value, &[0xa7], b"request", request.as_slice()].concat();
    check(&frame);
    let expected = ClientFrame { id: RequestId::saturating(1), request: Request::Ping(Nothing {}) };
    assert_eq!(Encoding::MessagePack.decode_client(&frame), Ok(expected), "{value:02x?}");
}
