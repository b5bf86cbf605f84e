//! Reads a client's WebSocket bytes the slow and plain way: all at once, one frame after the other.
//!
//! Written from RFC 6455 and the documented limits, not from the transport, which it is compared with. It shares with
//! the transport one rule that no RFC gives: a large payload is judged in pieces of 4,096 bytes as they are complete.

use bytes::Bytes;
use sealcast::gateway::transport::{Closed, MessageKind};

use crate::socket::Told;

const PIECE: usize = 4096;

/// What must be told, and what must be written but for the reasons of closes.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) told: Vec<Told>,
    pub(crate) ending: Ending,
    pub(crate) pongs: Vec<Vec<u8>>,
}

/// How the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The bytes end first.
    Lost,
    /// The other end says goodbye.
    ByPeer { code: Option<u16>, reason: String },
    /// A rule is broken; with this code.
    Violation(u16),
}

impl Ending {
    pub(crate) fn of(closed: &Closed) -> Option<Self> {
        match closed {
            Closed::Lost => Some(Self::Lost),
            Closed::ByPeer { code, reason } => Some(Self::ByPeer { code: *code, reason: reason.clone() }),
            Closed::Violation(violation) => Some(Self::Violation(violation.close_code())),
            _ => None,
        }
    }

    /// The code that the close frame carries; none where no close frame is written.
    pub(crate) fn close_code(&self) -> Option<Option<u16>> {
        match self {
            Self::Lost => None,
            Self::ByPeer { code, .. } => Some(*code),
            Self::Violation(code) => Some(Some(*code)),
        }
    }
}

struct Open {
    kind: MessageKind,
    data: Vec<u8>,
    declared: u64,
}

/// Reads all bytes.
pub(crate) fn read(bytes: &[u8], message_bytes_max: usize) -> Expected {
    let mut reader =
        Reader { rest: bytes, max: message_bytes_max as u64, open: None, told: Vec::new(), pongs: Vec::new() };
    let ending = loop {
        if let Err(ending) = reader.frame() {
            break ending;
        }
    };
    Expected { told: reader.told, ending, pongs: reader.pongs }
}

struct Reader<'a> {
    rest: &'a [u8],
    max: u64,
    open: Option<Open>,
    told: Vec<Told>,
    pongs: Vec<Vec<u8>>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Ending> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Ending::Lost)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, width: usize) -> Result<u64, Ending> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn frame(&mut self) -> Result<(), Ending> {
        let start = self.number(2)?;
        let bit = |place: u32| start >> place & 1 == 1;
        let (fin, opcode, short) = (bit(15), start >> 8 & 0xf, start & 0x7f);
        let is_control = opcode >= 8;
        if bit(14) || bit(13) || bit(12) || !matches!(opcode, 0..=2 | 8..=10) || !bit(7) {
            return Err(Ending::Violation(1002));
        }
        if is_control && (!fin || short > 125) {
            return Err(Ending::Violation(1002));
        }
        let length = match short {
            126 => self.number(2)?,
            127 => self.number(8)?,
            short => short,
        };
        let shortest = match length {
            0..=125 => length,
            126..=0xffff => 126,
            _ => 127,
        };
        if short != shortest || length > i64::MAX.unsigned_abs() {
            return Err(Ending::Violation(1002));
        }
        let mask = self.take(4)?;
        if is_control {
            let length = usize::try_from(length).map_err(|_| Ending::Lost)?;
            let payload = unmask(self.take(length)?, mask, 0);
            return self.control(opcode, payload);
        }
        self.data(opcode, fin, length, mask)
    }

    fn control(&mut self, opcode: u64, payload: Vec<u8>) -> Result<(), Ending> {
        match opcode {
            9 => self.pongs.push(payload),
            10 => self.told.push(Told::Pong),
            _ => {
                let (code, reason) = match payload.as_slice() {
                    [] => (None, &[][..]),
                    [_] => return Err(Ending::Violation(1002)),
                    [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
                };
                let is_lawful = |code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                if code.is_some_and(|code| !is_lawful(code)) {
                    return Err(Ending::Violation(1002));
                }
                let reason = String::from_utf8(reason.to_vec()).map_err(|_| Ending::Violation(1007))?;
                return Err(Ending::ByPeer { code, reason });
            }
        }
        Ok(())
    }

    fn data(&mut self, opcode: u64, fin: bool, length: u64, mask: &[u8]) -> Result<(), Ending> {
        let mut open = match (opcode, self.open.take()) {
            (0, Some(open)) => open,
            (1, None) => Open { kind: MessageKind::Text, data: Vec::new(), declared: 0 },
            (2, None) => Open { kind: MessageKind::Binary, data: Vec::new(), declared: 0 },
            _ => return Err(Ending::Violation(1002)),
        };
        open.declared = open.declared.saturating_add(length);
        if open.declared > self.max {
            return Err(Ending::Violation(1009));
        }
        let mut left = usize::try_from(length).map_err(|_| Ending::Violation(1009))?;
        let mut at = 0;
        loop {
            let piece = left.min(PIECE);
            open.data.extend(unmask(self.take(piece)?, mask, at));
            at += piece;
            left -= piece;
            let is_whole = fin && left == 0;
            if open.kind == MessageKind::Text
                && let Err(error) = std::str::from_utf8(&open.data)
                && (is_whole || error.error_len().is_some())
            {
                return Err(Ending::Violation(1007));
            }
            if left == 0 {
                break;
            }
        }
        if fin {
            self.told.push(Told::Message(open.kind, Bytes::from(open.data)));
        } else {
            self.open = Some(open);
        }
        Ok(())
    }
}

fn unmask(payload: &[u8], mask: &[u8], at: usize) -> Vec<u8> {
    payload.iter().zip(mask.iter().cycle().skip(at % 4)).map(|(byte, key)| byte ^ key).collect()
}
