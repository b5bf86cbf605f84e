//! Stands before the codec: judges every frame by its header and lets in no more than can be held.
//!
//! The codec behind it looks at sizes only when a whole frame is in memory, and its reader takes all that the socket
//! gives. So the guard is the stream that this reader sees. It follows the frames on the raw bytes, in chunks cut
//! anywhere; it refuses what breaks a rule, waits at a header while credits are out, and hands large frames on as
//! fragments of 4 KiB, for the codec keeps a buffer as large as the largest frame it ever saw. Floor 5.
//!
//! Invariants:
//! 1. Bytes after a refused header never leave the guard.
//! 2. While it waits for credit it does not poll the payload: the socket fills up and TCP holds the sender back.
//! 3. It waits for room in the codec only between frames, when all that the codec holds can be decoded.
//! 4. One frame handed over comes out of the codec as one item.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_web::error::PayloadError;
use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;

use super::header::{self, FrameHeader, HEADER_BYTES_MAX, Opcode, Parsed};
use super::inbound::Violation;
use super::link::{InputEnd, Link};

/// The largest payload handed to the codec as one frame, in bytes. A multiple of four keeps the mask in step.
const FRAGMENT_BYTES: u16 = 4096;

const _: () = assert!(FRAGMENT_BYTES.is_multiple_of(4));

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// At, or within, a header.
    Header,
    /// A data frame waits to be admitted by the meter.
    Credit(FrameHeader),
    /// The next fragment waits for room in the codec; `left` payload bytes are not yet in a fragment.
    Fragment { header: FrameHeader, left: u64 },
    /// `fragment` more bytes pass as they come.
    Pass { header: FrameHeader, left: u64, fragment: usize },
    /// A control frame is collected, to be judged whole.
    Control(FrameHeader),
    /// Nothing more is let through.
    Over,
}

/// The stream of lawful frames that the codec sees.
pub(super) struct Guard<S> {
    source: S,
    message_bytes_max: u64,
    link: Rc<Link>,
    phase: Phase,
    /// What the payload gave and nobody took yet.
    chunk: Bytes,
    /// Bytes of the current header that still lie at the start of `chunk`.
    inline: usize,
    /// A header that was cut by the end of a chunk, or a control frame.
    held: BytesMut,
    is_in_message: bool,
    message_bytes: u64,
}

impl<S> Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    pub(super) fn new(source: S, message_bytes_max: usize, link: Rc<Link>) -> Self {
        Self {
            source,
            message_bytes_max: u64::try_from(message_bytes_max).unwrap_or(u64::MAX),
            link,
            phase: Phase::Header,
            chunk: Bytes::new(),
            inline: 0,
            held: BytesMut::new(),
            is_in_message: false,
            message_bytes: 0,
        }
    }

    /// Gets the next chunk; the end of the source, of whatever kind, ends the guard.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(&mut self.source).poll_next(cx)) {
            Some(Ok(chunk)) => self.chunk = chunk,
            Some(Err(_)) | None => self.stop(InputEnd::Lost),
        }
        Poll::Ready(())
    }

    fn stop(&mut self, end: InputEnd) {
        self.link.input_end.set(Some(end));
        self.phase = Phase::Over;
        self.chunk = Bytes::new();
        self.held = BytesMut::new();
    }

    /// Reads a header, in place where the chunk holds it whole; none while bytes are missing.
    fn read_header(&mut self) -> Result<Option<FrameHeader>, Violation> {
        if self.held.is_empty()
            && let Parsed::Complete(header) = header::parse(&self.chunk)?
        {
            self.inline = header.size;
            return Ok(Some(header));
        }
        loop {
            match header::parse(&self.held)? {
                Parsed::Complete(header) => {
                    self.held.clear();
                    return Ok(Some(header));
                }
                Parsed::Needs(_) if self.chunk.is_empty() => return Ok(None),
                Parsed::Needs(size) => self.hold_until(size),
            }
        }
    }

    /// Moves bytes from the chunk until `size` are held or the chunk is used up.
    fn hold_until(&mut self, size: usize) {
        let missing = size.saturating_sub(self.held.len()).min(self.chunk.len());
        let part = self.chunk.split_to(missing);
        self.held.extend_from_slice(&part);
    }

    /// Judges a data frame by its place and by the size of its message so far.
    fn judge(&mut self, header: &FrameHeader) -> Result<(), Violation> {
        let before = match (header.opcode, self.is_in_message) {
            (Opcode::Continue, false) => return Err(Violation::Protocol("continuation of nothing")),
            (Opcode::Continue, true) => self.message_bytes,
            (_, true) => return Err(Violation::Protocol("message inside a message")),
            (_, false) => 0,
        };
        let sum = before.saturating_add(header.length);
        if sum > self.message_bytes_max {
            return Err(Violation::TooLarge);
        }
        self.is_in_message = !header.fin;
        self.message_bytes = sum;
        Ok(())
    }

    /// Starts handing over the next fragment of a data frame; none while the codec has no room.
    fn begin_fragment(&mut self, header: FrameHeader, left: u64) -> Option<Bytes> {
        let fragment = u16::try_from(left).unwrap_or(FRAGMENT_BYTES).min(FRAGMENT_BYTES);
        let payload = usize::from(fragment);
        if !self.link.enter_codec(HEADER_BYTES_MAX + payload) {
            return None;
        }
        let inline = std::mem::take(&mut self.inline);
        let is_first = left == header.length;
        let is_last = left == u64::from(fragment);
        if is_first && is_last && inline > 0 && self.chunk.len() >= inline + payload {
            self.phase = Phase::Header;
            return Some(self.chunk.split_to(inline + payload));
        }
        self.chunk.advance(inline);
        let opcode = if is_first { header.opcode } else { Opcode::Continue };
        self.phase = Phase::Pass { header, left: left - u64::from(fragment), fragment: payload };
        Some(header::write(header.fin && is_last, opcode, fragment, header.mask))
    }

    /// Collects a control frame and judges it; false while bytes are missing.
    fn collect_control(&mut self, header: FrameHeader) -> Result<bool, Violation> {
        if self.held.is_empty() {
            self.chunk.advance(std::mem::take(&mut self.inline));
            // At most 125 bytes: a longer control frame was refused by its header.
            let length = u16::try_from(header.length).unwrap_or_default();
            self.held.extend_from_slice(&header::write(true, header.opcode, length, header.mask));
        }
        let size = header.size + usize::try_from(header.length).unwrap_or_default();
        self.hold_until(size);
        if self.held.len() < size {
            return Ok(false);
        }
        if header.opcode == Opcode::Close {
            let masked = self.held.get(header.size..).unwrap_or_default();
            let payload: Vec<u8> =
                masked.iter().zip(header.mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
            header::check_close(&payload)?;
        }
        Ok(true)
    }

    /// Hands over bytes of the current fragment.
    fn pass(&mut self, header: FrameHeader, left: u64, fragment: usize) -> Option<Bytes> {
        let count = fragment.min(self.chunk.len());
        if count == 0 {
            return None;
        }
        self.phase = Phase::Pass { header, left, fragment: fragment - count };
        Some(self.chunk.split_to(count))
    }
}

impl<S> Stream for Guard<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Header => {
                    let judged = this.read_header().and_then(|header| {
                        if let Some(header) = header.filter(|header| !header.opcode.is_control()) {
                            this.judge(&header)?;
                        }
                        Ok(header)
                    });
                    match judged {
                        Ok(Some(header)) if header.opcode.is_control() => this.phase = Phase::Control(header),
                        Ok(Some(header)) => this.phase = Phase::Credit(header),
                        Ok(None) => ready!(this.poll_fill(cx)),
                        Err(violation) => this.stop(InputEnd::Violation(violation)),
                    }
                }
                Phase::Credit(header) => {
                    // The judge has seen that it fits the limit, which is a usize.
                    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
                    if !this.link.meter.admit(header.opcode != Opcode::Continue, length, cx) {
                        return Poll::Pending;
                    }
                    this.phase = Phase::Fragment { header, left: header.length };
                }
                Phase::Fragment { header, left } => match this.begin_fragment(header, left) {
                    Some(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    // No waker is needed: the codec holds whole frames, and asks again after each it gives out.
                    None => return Poll::Pending,
                },
                Phase::Pass { left: 0, fragment: 0, .. } => this.phase = Phase::Header,
                Phase::Pass { header, left, fragment: 0 } => this.phase = Phase::Fragment { header, left },
                Phase::Pass { header, left, fragment } => match this.pass(header, left, fragment) {
                    Some(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    None => ready!(this.poll_fill(cx)),
                },
                Phase::Control(header) => match this.collect_control(header) {
                    Ok(true) if this.link.enter_codec(this.held.len()) => {
                        this.phase = Phase::Header;
                        return Poll::Ready(Some(Ok(this.held.split().freeze())));
                    }
                    Ok(true) => return Poll::Pending,
                    Ok(false) => ready!(this.poll_fill(cx)),
                    Err(violation) => this.stop(InputEnd::Violation(violation)),
                },
            }
        }
    }
}
