//! Reads and writes frame headers.
//!
//! Pure functions over bytes; floor 5. Everything that can be refused from a header alone, whatever came before, is
//! refused here. Order of frames and size limits are the guard's.
//!
//! Source: RFC 6455, sections 5.2 to 5.5.

use bytes::Bytes;

use super::inbound::Violation;

/// The longest header of a frame from a client, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// The largest payload of a control frame, in bytes.
pub(super) const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continue,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_nibble(nibble: u8) -> Option<Self> {
        match nibble {
            0x0 => Some(Self::Continue),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    fn nibble(self) -> u8 {
        match self {
            Self::Continue => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A complete, lawful frame header from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    /// Declared payload bytes.
    pub(super) length: u64,
    pub(super) mask: [u8; 4],
    /// Bytes of the header itself.
    pub(super) size: usize,
}

/// What the bytes at hand say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The header has at least this many bytes; more than are at hand.
    Needs(usize),
    Complete(FrameHeader),
}

/// Reads the header at the start of `bytes`.
///
/// # Errors
/// The first rule that the bytes at hand break, as early as they show it.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Violation> {
    let (&[first, second], rest) = match bytes.split_first_chunk::<2>() {
        Some(parts) => parts,
        None => return Ok(Parsed::Needs(2)),
    };
    if first & 0x70 != 0 {
        return Err(Violation::Protocol("reserved bit set"));
    }
    let opcode = Opcode::from_nibble(first & 0x0F).ok_or(Violation::Protocol("unknown opcode"))?;
    let fin = first & 0x80 != 0;
    if second & 0x80 == 0 {
        return Err(Violation::Protocol("unmasked frame"));
    }
    let short = second & 0x7F;
    if opcode.is_control() {
        if !fin {
            return Err(Violation::Protocol("fragmented control frame"));
        }
        if u64::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("control frame too long"));
        }
    }
    let (length, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(Parsed::Needs(8)),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(Parsed::Needs(HEADER_BYTES_MAX)),
        },
        short => (u64::from(short), rest),
    };
    let is_minimal = match short {
        126 => length > 125,
        127 => length > u64::from(u16::MAX),
        _ => true,
    };
    if !is_minimal {
        return Err(Violation::Protocol("length not in its shortest form"));
    }
    if length > u64::MAX >> 1 {
        return Err(Violation::Protocol("length with its highest bit set"));
    }
    let Some((mask, after)) = rest.split_first_chunk::<4>() else {
        return Ok(Parsed::Needs(bytes.len() - rest.len() + 4));
    };
    Ok(Parsed::Complete(FrameHeader { fin, opcode, length, mask: *mask, size: bytes.len() - after.len() }))
}

/// Writes the header of a masked frame with a payload of at most 64 KiB.
pub(super) fn write(fin: bool, opcode: Opcode, length: u16, mask: [u8; 4]) -> Bytes {
    let mut header = Vec::with_capacity(8);
    header.push(if fin { 0x80 } else { 0 } | opcode.nibble());
    match u8::try_from(length) {
        Ok(short @ 0..=125) => header.push(0x80 | short),
        _ => {
            header.push(0x80 | 126);
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header.extend_from_slice(&mask);
    Bytes::from(header)
}

/// Judges the unmasked payload of a close frame.
///
/// # Errors
/// A payload of one byte, a code that must not be on the wire, or a reason that is not UTF-8.
///
/// Source: RFC 6455, sections 5.5.1 and 7.4; 1012 to 1014 are from the registry that 11.7 sets up.
pub(super) fn check_close(payload: &[u8]) -> Result<(), Violation> {
    if payload.is_empty() {
        return Ok(());
    }
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(Violation::Protocol("close payload of one byte"));
    };
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("invalid close code"));
    }
    std::str::from_utf8(reason).map(|_| ()).map_err(|_| Violation::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> FrameHeader {
        match parse(bytes).unwrap() {
            Parsed::Complete(header) => header,
            Parsed::Needs(more) => panic!("needs {more}"),
        }
    }

    #[test]
    fn every_length_form_is_read_and_asks_for_exactly_what_is_missing() {
        for (bytes, length) in [
            (&[0x82, 0x80 | 5, 1, 2, 3, 4][..], 5),
            (&[0x82, 0x80 | 126, 0, 126, 1, 2, 3, 4][..], 126),
            (&[0x82, 0x80 | 127, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4][..], 1 << 40),
        ] {
            let whole = header(bytes);
            assert_eq!((whole.length, whole.mask, whole.size), (length, [1, 2, 3, 4], bytes.len()));
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]).unwrap() {
                    Parsed::Needs(needs) => assert!(needs > cut && needs <= bytes.len(), "{cut}: {needs}"),
                    Parsed::Complete(_) => panic!("complete after {cut} bytes"),
                }
            }
        }
    }

    #[test]
    fn unlawful_headers_are_refused_before_they_are_complete() {
        for bytes in [
            &[0xC2, 0x80][..],
            &[0x83, 0x80],
            &[0x8B, 0x80],
            &[0x82, 0x05],
            &[0x09, 0x80],
            &[0x89, 0xFE],
            &[0x82, 0xFE, 0, 125],
            &[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
            &[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(matches!(parse(bytes), Err(Violation::Protocol(_))), "{bytes:?}");
        }
    }

    #[test]
    fn written_headers_are_read_back() {
        for length in [0, 1, 125, 126, 4096, u16::MAX] {
            let written = write(false, Opcode::Text, length, [9, 8, 7, 6]);
            let read = header(&written);
            assert_eq!((read.fin, read.opcode, read.length), (false, Opcode::Text, u64::from(length)));
            assert_eq!((read.mask, read.size), ([9, 8, 7, 6], written.len()));
        }
    }

    #[test]
    fn close_payloads_follow_the_registry() {
        assert_eq!(check_close(&[]), Ok(()));
        for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(check_close(&code.to_be_bytes()), Ok(()), "{code}");
        }
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535] {
            assert!(matches!(check_close(&code.to_be_bytes()), Err(Violation::Protocol(_))), "{code}");
        }
        assert!(matches!(check_close(&[3]), Err(Violation::Protocol(_))));
        assert_eq!(check_close(&[3, 232, 0xFF]), Err(Violation::Utf8));
    }
}
