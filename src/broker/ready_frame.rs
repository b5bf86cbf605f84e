//! A WebSocket frame with its header, encoded once for all its recipients.
//!
//! Floor 3; it knows no WebSocket crate, only the frame layout of RFC 6455.

use bytes::{BufMut, Bytes, BytesMut};

/// The largest payload of a control frame, in bytes. Source: RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// One complete server frame, header included, ready to be copied to any number of connections.
///
/// Frames from a server are unmasked, so the same bytes serve every recipient. Cloning shares the bytes.
///
/// Source: RFC 6455, section 5.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyFrame(Bytes);

impl ReadyFrame {
    /// Makes a text frame. The payload must be UTF-8, or the recipient will fail the connection.
    #[must_use]
    pub fn text(payload: &[u8]) -> Self {
        debug_assert!(std::str::from_utf8(payload).is_ok(), "a text frame carries UTF-8");
        Self::encode(TEXT, payload)
    }

    /// Makes a binary frame.
    #[must_use]
    pub fn binary(payload: &[u8]) -> Self {
        Self::encode(BINARY, payload)
    }

    /// Makes a ping; of a payload above 125 bytes only the first 125 are sent.
    #[must_use]
    pub fn ping(payload: &[u8]) -> Self {
        Self::encode(PING, payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload))
    }

    /// Makes a pong; of a payload above 125 bytes only the first 125 are sent.
    #[must_use]
    pub fn pong(payload: &[u8]) -> Self {
        Self::encode(PONG, payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload))
    }

    /// Makes a close frame; the reason is cut at a character border so that code and reason fit 125 bytes.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let cut = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
        let reason = reason.get(..cut).unwrap_or_default();
        let mut payload = Vec::with_capacity(2 + reason.len());
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
        Self::encode(CLOSE, &payload)
    }

    /// Makes a close frame without a code, the answer to one that had none.
    #[must_use]
    pub fn close_without_code() -> Self {
        Self::encode(CLOSE, &[])
    }

    /// The frame's bytes, header included.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The frame's length in bytes, header included: what it costs in an outbox.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.0.len()
    }

    fn encode(opcode: u8, payload: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(payload.len() + 10);
        frame.put_u8(FIN | opcode);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ 0..=125), _) => frame.put_u8(short),
            (_, Ok(medium)) => {
                frame.put_u8(126);
                frame.put_u16(medium);
            }
            _ => {
                frame.put_u8(127);
                // A usize is never wider than 64 bits on a platform that Rust supports.
                frame.put_u64(u64::try_from(payload.len()).unwrap_or(u64::MAX));
            }
        }
        frame.put_slice(payload);
        Self(frame.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_layout_of_the_rfc() {
        assert_eq!(&ReadyFrame::text(b"Hello").as_bytes()[..], [0x81, 5, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(ReadyFrame::binary(&[7; 256]).as_bytes()[..4], [0x82, 0x7E, 1, 0]);
        assert_eq!(ReadyFrame::binary(&[7; 65_536]).as_bytes()[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(&ReadyFrame::close(1000, "é").as_bytes()[..], [0x88, 4, 3, 232, 0xC3, 0xA9]);
        let long = ReadyFrame::close(1000, &"é".repeat(100));
        assert_eq!(long.wire_bytes(), 2 + 2 + 122);
        assert_eq!(ReadyFrame::ping(&[1; 200]).wire_bytes(), 127);
    }
}
