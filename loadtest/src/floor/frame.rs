//! Frames of a floor. Source: RFC 6455, section 5.2.

use anyhow::bail;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Payload bytes of the largest frame that is taken.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// `J` and a number: it comes into that room.
    Join(u32),
    /// `S`, the number of a request, and what is to be handed on.
    Send(u32, &'a [u8]),
    /// To be answered with the same.
    Ping(&'a [u8]),
    /// The end.
    Close,
    /// An answer to nobody's question.
    Pong,
}

/// What is at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<'a> {
    /// A frame, and what follows it.
    Frame(Said<'a>, &'a mut [u8]),
    /// The beginning of one.
    Incomplete(&'a mut [u8]),
}

/// Takes the first frame of some bytes, which is unmasked in place.
pub(super) fn take(bytes: &mut [u8]) -> anyhow::Result<Taken<'_>> {
    let Some((first, header, length)) = header(bytes)? else { return Ok(Taken::Incomplete(bytes)) };
    let end = header + 4 + length;
    if bytes.len() < end {
        return Ok(Taken::Incomplete(bytes));
    }
    let (frame, rest) = bytes.split_at_mut_checked(end).unwrap_or_default();
    let frame = frame.get_mut(header..).unwrap_or_default();
    let Some((mask, payload)) = frame.split_first_chunk_mut::<4>() else { bail!("a frame without a mask") };
    unmask(payload, *mask);
    let said = match (first, &*payload) {
        (op, [b'J', room @ ..]) if op == FIN | BINARY => match room.try_into() {
            Ok(room) => Said::Join(u32::from_be_bytes(room)),
            Err(_) => bail!("no room"),
        },
        (op, [b'S', rest @ ..]) if op == FIN | BINARY => match rest.split_first_chunk::<4>() {
            Some((request, body)) => Said::Send(u32::from_be_bytes(*request), body),
            None => bail!("no request"),
        },
        (op, payload) if op == FIN | PING => Said::Ping(payload),
        (op, _) if op == FIN | PONG => Said::Pong,
        (op, _) if op == FIN | CLOSE => Said::Close,
        (op, _) => bail!("a frame that begins with {op:#04x}"),
    };
    Ok(Taken::Frame(said, rest))
}

/// The first byte, the bytes before the mask, and those after it; nothing while the header is incomplete.
fn header(bytes: &[u8]) -> anyhow::Result<Option<(u8, usize, usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (length, header) = match second & !MASKED {
        short @ 0..=125 => (usize::from(short), 2),
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        _ => match rest.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
    };
    if second & MASKED == 0 || length > PAYLOAD_BYTES_MAX {
        bail!("a frame without a mask, or of {length} bytes");
    }
    Ok(Some((*first, header, length)))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends the header of a binary frame of a server.
pub(super) fn push_header(out: &mut Vec<u8>, payload_bytes: usize) {
    push_any_header(out, BINARY, payload_bytes);
}

/// Appends the answer to a ping.
pub(super) fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push_any_header(out, PONG, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close frame without a code.
pub(super) fn push_close(out: &mut Vec<u8>) {
    push_any_header(out, CLOSE, 0);
}

fn push_any_header(out: &mut Vec<u8>, opcode: u8, payload_bytes: usize) {
    out.push(FIN | opcode);
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short @ 0..=125), _) => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [9, 8, 7, 6];
        let mut bytes = vec![FIN | opcode];
        match u8::try_from(payload.len()) {
            Ok(short) if short < 126 => bytes.push(MASKED | short),
            _ => {
                bytes.push(MASKED | 126);
                bytes.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn frames_are_taken_whole_and_unmasked() {
        let mut body = b"S\0\0\0\x07".to_vec();
        body.extend((0..=255).chain(0..=43));
        let mut whole = masked(BINARY, &body);
        for cut in 0..whole.len() {
            assert!(matches!(take(&mut whole[..cut].to_vec()).unwrap(), Taken::Incomplete(_)), "cut at {cut}");
        }
        whole.push(9);
        assert_eq!(take(&mut whole).unwrap(), Taken::Frame(Said::Send(7, &body[5..]), &mut [9]));
        assert_eq!(take(&mut masked(BINARY, b"J\0\0\x01\0")).unwrap(), Taken::Frame(Said::Join(256), &mut []));
        assert_eq!(take(&mut masked(PING, b"x")).unwrap(), Taken::Frame(Said::Ping(b"x"), &mut []));
    }

    #[test]
    fn what_is_no_frame_of_a_client_ends_it() {
        let mut bare = vec![FIN | BINARY, 1, b'J'];
        assert!(take(&mut bare).is_err());
        for bad in [&b"J\0\0"[..], b"S\0\0", b"X", b""] {
            assert!(take(&mut masked(BINARY, bad)).is_err(), "{bad:?}");
        }
        assert!(take(&mut masked(1, b"J\0\0\0\0")).is_err());
        assert!(take(&mut [FIN | BINARY, MASKED | 127, 0xFF, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
