//! JSON frames: any bytes are a frame that both encodings give back, or are refused by code.

use sealcast::protocol::codec::Encoding;

use crate::roundtrip;

/// Checks any bytes.
pub fn check(data: &[u8]) {
    roundtrip::check(Encoding::Json, data);
}

/// Checks that the reader agrees with a published verdict on a JSON text.
///
/// The text is the value of a field that nobody knows: a frame with lawful JSON in it is read, and a frame with
/// unlawful JSON is refused. `is_lawful`: none where readers are free.
pub fn check_published(text: &[u8], is_lawful: Option<bool>) {
    let frame = [b"{\"id\":1,\"new\":", text, b",\"request\":{\"type\":\"ping\",\"data\":{}}}"].concat();
    check(text);
    check(&frame);
    if let Some(is_lawful) = is_lawful {
        let read = Encoding::Json.decode_client(&frame);
        assert_eq!(read.is_ok(), is_lawful, "{}", String::from_utf8_lossy(text));
    }
}
