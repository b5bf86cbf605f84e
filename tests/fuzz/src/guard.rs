//! The guard and all that stands behind it: bytes mean the same however they are cut, and what the RFC says they mean.
//!
//! The input is a byte of choices, a byte that seeds the cuts, and what a client sends.

use bytes::Bytes;
use sealcast::gateway::transport::TransportLimits;

use crate::bytes_of::{Input, pick};
use crate::socket::{Pace, Run, Told, play};
use crate::wire_reference::{Ending, read};

/// Checks any bytes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.byte();
    let seed = input.byte();
    let wire = input.rest();
    let message_bytes_max = pick(choices & 3, [64, 5_000, 20_000, 1 << 20]);
    let (bytes, messages) = pick(choices >> 2 & 3, [(1, 1), (100, 2), (6_000, 64), (1 << 20, 3)]);
    let limits =
        TransportLimits { message_bytes_max, outstanding_bytes_max: bytes, outstanding_messages_max: messages };
    let expected = read(wire, message_bytes_max);
    let whole = vec![Bytes::copy_from_slice(wire)];
    for (chunks, pace) in [(whole, Pace::Prompt), (cut(wire, choices, seed), Pace::Slow)] {
        let Run { told, written } = play(chunks, limits, pace);
        let (last, before) = told.split_last().expect("the end is told");
        assert_eq!(before, expected.told, "{pace:?}");
        let Told::Closed(closed) = last else { panic!("the end is told last: {told:?}") };
        assert_eq!(Ending::of(closed).as_ref(), Some(&expected.ending), "{closed:?}");
        let (pongs, close) = server_frames(&written);
        // When the other end is gone, nobody is left to be answered.
        if expected.ending != Ending::Lost {
            assert_eq!(close, expected.ending.close_code(), "{closed:?}");
            assert_eq!(pongs, expected.pongs);
        }
    }
}

/// Cuts bytes into chunks of many sizes, with pauses between; some cut every byte.
fn cut(mut wire: &[u8], choices: u8, seed: u8) -> Vec<Bytes> {
    let most = pick(choices >> 4 & 3, [1, 3, 40, 5_000]);
    let has_pauses = choices & 0x40 != 0;
    let mut state = u32::from(seed);
    let mut chunks = Vec::new();
    while !wire.is_empty() {
        // A linear congruential generator: the same cuts for the same seed, everywhere.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = 1 + usize::try_from(state >> 16).unwrap_or_default() % most;
        let (chunk, rest) = wire.split_at(size.min(wire.len()));
        wire = rest;
        chunks.push(Bytes::copy_from_slice(chunk));
        if has_pauses && state & 0x100 != 0 {
            chunks.push(Bytes::new());
        }
    }
    chunks
}

/// The pongs, and the code of the close frame if one was written, which must be the last frame.
fn server_frames(mut written: &[u8]) -> (Vec<Vec<u8>>, Option<Option<u16>>) {
    let mut pongs = Vec::new();
    while let Some((&[first, length], rest)) = written.split_first_chunk::<2>() {
        let (payload, rest) = rest.split_at_checked(usize::from(length)).expect("a control frame, whole");
        written = rest;
        match first {
            0x8a => pongs.push(payload.to_vec()),
            0x88 => {
                assert!(rest.is_empty(), "nothing follows a close frame");
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                return (pongs, Some(code));
            }
            other => panic!("neither pong nor close: {other:#x}"),
        }
    }
    assert!(written.is_empty(), "half a frame");
    (pongs, None)
}
