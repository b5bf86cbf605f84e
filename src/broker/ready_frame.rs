//! WebSocket frames with their headers, encoded once for all their recipients.
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

/// Frames one behind the other, which a connection takes at one stroke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyFrames {
    bytes: Bytes,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
}

impl ReadyFrames {
    /// Puts frames one behind the other. One alone is shared, not copied.
    #[must_use]
    pub fn join(frames: &[ReadyFrame]) -> Self {
        let mut sum = 0;
        let ends = frames.iter().map(|frame| {
            sum += frame.wire_bytes();
            sum
        });
        let ends: Vec<usize> = ends.collect();
        let bytes = match frames {
            [alone] => alone.0.clone(),
            frames => {
                let mut bytes = BytesMut::with_capacity(sum);
                frames.iter().for_each(|frame| bytes.put_slice(&frame.0));
                bytes.freeze()
            }
        };
        Self { bytes, ends }
    }

    /// The length of each frame from one on, in bytes.
    pub fn lengths_from(&self, first: usize) -> impl Iterator<Item = usize> {
        let mut start = self.start_of(first);
        self.ends.iter().skip(first).map(move |end| end - std::mem::replace(&mut start, *end))
    }

    /// The bytes of so many frames from one on.
    #[must_use]
    pub fn part(&self, first: usize, count: usize) -> &[u8] {
        self.bytes.get(self.start_of(first)..self.start_of(first.saturating_add(count))).unwrap_or_default()
    }

    /// All bytes, where so many frames from one on are all frames.
    #[must_use]
    pub fn whole(&self, first: usize, count: usize) -> Option<&Bytes> {
        (first == 0 && count >= self.ends.len()).then_some(&self.bytes)
    }

    fn start_of(&self, index: usize) -> usize {
        match index.min(self.ends.len()).checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or_default(),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_frames_are_given_in_parts() {
        let frames = [ReadyFrame::text(b"a"), ReadyFrame::binary(&[7; 300]), ReadyFrame::ping(&[])];
        let joined = ReadyFrames::join(&frames);
        assert_eq!(joined.lengths_from(0).collect::<Vec<_>>(), [3, 304, 2]);
        assert_eq!(joined.lengths_from(1).collect::<Vec<_>>(), [304, 2]);
        assert_eq!(joined.part(1, 1), frames[1].as_bytes());
        assert_eq!((joined.whole(0, 3), joined.whole(0, 2), joined.whole(1, 2)), (Some(&joined.bytes), None, None));
        assert_eq!(joined.part(1, 9), [&frames[1].as_bytes()[..], &frames[2].as_bytes()[..]].concat());
        assert_eq!((joined.part(0, 0), joined.part(3, 1), joined.lengths_from(4).count()), (&[][..], &[][..], 0));
        assert_eq!(ReadyFrames::join(&frames[..1]).part(0, 1), frames[0].as_bytes());
    }

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
