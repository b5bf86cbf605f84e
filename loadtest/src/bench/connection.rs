//! A WebSocket connection of a client that wants to cost as little as possible: ready frames out, slices of one shared
//! buffer in.
//!
//! Source of the layout: RFC 6455, section 5.2. The masking key is zero, which the RFC forbids to a browser's script and
//! spares a generator the work.

use std::time::Duration;

use anyhow::{Context, bail};
use sealcast::protocol::account::SOCKET_PATH;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::remote::Refused;

/// How frames are written.
pub(crate) const ENCODING: Encoding = Encoding::MessagePack;

/// How long a server may take for an answer while a run is set up.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The buffer into which all connections read.
pub(crate) const SCRATCH_BYTES: usize = 512 * 1024;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// A frame of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// What the protocol says.
    Binary(&'a [u8]),
    /// To be answered with the same.
    Ping(&'a [u8]),
    /// The end, with its code and reason.
    Close(&'a [u8]),
}

/// Appends a frame of a client, header included.
pub(crate) fn push_frame(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, BINARY, payload);
}

/// Bytes of the header of a client's frame.
pub(crate) fn header_bytes(frame: &[u8]) -> usize {
    match frame.get(1).map(|second| second & !MASKED) {
        Some(126) => 8,
        Some(127) => 14,
        _ => 6,
    }
}

/// Appends the answer to a ping.
pub(crate) fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push(out, PONG, payload);
}

fn push(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.push(MASKED | short),
        (_, Ok(medium)) => {
            out.push(MASKED | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The first frame of some bytes, and how many bytes it takes; nothing while it is incomplete.
fn split(bytes: &[u8]) -> anyhow::Result<Option<(Frame<'_>, usize)>> {
    let Some([first, second, rest @ ..]) = bytes.get(..) else { return Ok(None) };
    let (length, header) = match *second {
        short @ 0..=125 => (usize::from(short), 2),
        126 => match rest.first_chunk::<2>() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        _ => bail!("a masked frame of a server"),
    };
    let Some(payload) = bytes.get(header..header + length) else { return Ok(None) };
    let frame = match *first {
        first if first == FIN | BINARY => Frame::Binary(payload),
        first if first == FIN | PING => Frame::Ping(payload),
        first if first == FIN | CLOSE => Frame::Close(payload),
        other => bail!("a frame that begins with {other:#04x}"),
    };
    Ok(Some((frame, header + length)))
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    /// The beginning of a frame whose end has not come.
    carry: Vec<u8>,
}

impl Connection {
    /// Connects to `host:port`.
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        // Any 16 bytes do; the answer to them is of no use to who knows the server.
        let request = format!(
            "GET {SOCKET_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2VhbGNhc3Rsb2FkdGVzdA==\r\n\
             Sec-WebSocket-Protocol: {}\r\n\r\n",
            ENCODING.subprotocol()
        );
        stream.write_all(request.as_bytes()).await?;
        let (mut answer, mut byte) = (Vec::new(), [0; 512]);
        let end = loop {
            let read =
                tokio::time::timeout(ANSWER_TIMEOUT, stream.read(&mut byte)).await.context("the handshake")??;
            answer.extend_from_slice(byte.get(..read).unwrap_or_default());
            if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
            if read == 0 {
                bail!("the server ended the handshake");
            }
        };
        if answer.starts_with(b"HTTP/1.1 429") {
            let message = String::from_utf8_lossy(&answer).into_owned();
            return Err(Refused { what: SOCKET_PATH.to_owned(), code: ErrorCode::RateLimited, message }.into());
        }
        if !answer.starts_with(b"HTTP/1.1 101") {
            bail!("no upgrade: {}", String::from_utf8_lossy(&answer));
        }
        Ok(Self { stream, carry: answer.split_off(end) })
    }

    /// Whether frames wait that came with an answer during set-up.
    pub(crate) const fn has_carry(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Hands on all complete frames that have come; `false` at the end of the connection.
    pub(crate) fn take(
        &mut self,
        scratch: &mut Vec<u8>,
        mut take: impl FnMut(Frame<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        loop {
            scratch.resize(SCRATCH_BYTES.max(self.carry.len() * 2), 0);
            let kept = self.carry.len();
            if let Some(begin) = scratch.get_mut(..kept) {
                begin.copy_from_slice(&self.carry);
            }
            let room = scratch.get_mut(kept..).unwrap_or_default();
            let room_bytes = room.len();
            let (read, is_open) = match self.stream.try_read(room) {
                Ok(0) => (0, false),
                Ok(read) => (read, true),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (0, true),
                Err(error) => return Err(error).context("reading"),
            };
            self.carry.clear();
            let mut bytes = scratch.get(..kept + read).unwrap_or_default();
            while let Some((frame, length)) = split(bytes)? {
                take(frame)?;
                bytes = bytes.get(length..).unwrap_or_default();
            }
            self.carry.extend_from_slice(bytes);
            if self.carry.is_empty() {
                self.carry = Vec::new();
            }
            if !is_open || read < room_bytes {
                return Ok(is_open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_wherever_they_are_cut() {
        let mut bytes = vec![FIN | BINARY, 3, 1, 2, 3, FIN | PING, 0, FIN | BINARY, 126, 1, 0];
        bytes.extend_from_slice(&[9; 256]);
        let ends = [5, 7, 7 + 4 + 256];
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let (mut rest, mut found) = (&bytes[..cut], 0);
            while let Some((_, length)) = split(rest).unwrap() {
                rest = &rest[length..];
                found += 1;
            }
            assert_eq!(found, whole, "cut at {cut}");
        }
        assert!(split(&[FIN | BINARY, MASKED]).is_err());
    }

    #[test]
    fn a_frame_of_a_client_is_masked_with_zero() {
        let mut out = Vec::new();
        push_frame(&mut out, &[7; 200]);
        assert_eq!(out[..8], [FIN | BINARY, MASKED | 126, 0, 200, 0, 0, 0, 0]);
        assert_eq!(out[8..], [7; 200]);
    }
}
