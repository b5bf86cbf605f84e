//! Tells frames of a server apart by the bytes that are the same in all of them.
//!
//! Decoding each delivery would cost the generator more than the server has to do for it. The encoder writes maps in the
//! order of their fields, so a frame is fixed bytes with a few values in between: where these are is learnt from one frame
//! that the protocol's own encoder makes, and a frame that does not fit is decoded as any other.

use anyhow::{Context, anyhow};
use sealcast::protocol::binary::Hash;
use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::frame::{self, Reply, SendOk, ServerFrame};
use sealcast::protocol::ids::{ChatId, RequestId, Seq, Timestamp};
use sealcast::protocol::log::{EntryBody, LogEntry};

use super::connection::ENCODING;

/// Values that nothing else in a frame looks like.
const MARK_A: u64 = 0x0011_2233_4455_6677;
const MARK_B: u64 = 0x0011_7766_5544_3322;
const MARK_HASH: Hash = Hash([0x5A; 32]);

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A message of the chat.
    Entry {
        /// Its place.
        seq: u64,
        /// What its sender wrote; it may go on beyond what was sent.
        body: &'a [u8],
    },
    /// A message is taken.
    Taken {
        /// The number of its request.
        id: u64,
        /// Its place.
        seq: u64,
    },
    /// Anything else.
    Else,
}

/// How a server writes.
pub(crate) enum Wire {
    /// A broker.
    Broker(Box<Templates>),
    /// A floor: a letter and numbers.
    Floor,
}

impl Wire {
    /// Reads a frame.
    pub(crate) fn read<'a>(&self, payload: &'a [u8]) -> Said<'a> {
        match self {
            Self::Broker(templates) => templates.read(payload),
            Self::Floor => read_floor(payload).unwrap_or(Said::Else),
        }
    }
}

fn read_floor(payload: &[u8]) -> Option<Said<'_>> {
    let (letter, rest) = payload.split_first()?;
    match letter {
        b'D' => {
            let (seq, body) = rest.split_first_chunk::<8>()?;
            Some(Said::Entry { seq: u64::from_be_bytes(*seq), body })
        }
        b'A' => {
            let (id, rest) = rest.split_first_chunk::<4>()?;
            let (seq, _) = rest.split_first_chunk::<8>()?;
            Some(Said::Taken { id: u64::from(u32::from_be_bytes(*id)), seq: u64::from_be_bytes(*seq) })
        }
        _ => None,
    }
}

/// The fixed bytes of a broker's frames in one chat.
pub(crate) struct Templates {
    /// Before the seq, between seq and time, between time and hash, between hash and envelope.
    entry: [Vec<u8>; 4],
    /// Before the request's number, and between it and the seq.
    taken: [Vec<u8>; 2],
    /// Bytes of both frames when a chat has some thousands of entries.
    bytes: (usize, usize),
}

impl Templates {
    /// Learns them from frames about this envelope.
    pub(crate) fn learn(chat_id: ChatId, envelope: &Envelope) -> anyhow::Result<Self> {
        let entry = LogEntry {
            seq: Seq::saturating(MARK_A),
            created_at: Timestamp::new(MARK_B)?,
            log_hash: MARK_HASH,
            body: EntryBody::Message(envelope.clone()),
        };
        let result = Reply::Sent(SendOk::of(&entry));
        let bytes = ENCODING.encode(&ServerFrame::Entry(frame::Entry { chat_id, entry }))?;
        let (entry_bytes, envelope) = (bytes.len(), ENCODING.encode(envelope)?);
        let (before_seq, rest) = cut(&bytes, &marked(MARK_A))?;
        let (before_time, rest) = cut(rest, &marked(MARK_B))?;
        let (before_hash, rest) = cut(rest, &MARK_HASH.0)?;
        let before_envelope = rest.strip_suffix(&*envelope).context("an entry that does not end with its envelope")?;
        let entry = [before_seq, before_time, before_hash, before_envelope].map(<[u8]>::to_vec);

        let taken = ServerFrame::Ok(frame::Ok { id: RequestId::saturating(MARK_B), result });
        let bytes = ENCODING.encode(&taken)?;
        let (before_id, rest) = cut(&bytes, &marked(MARK_B))?;
        let (before_seq, _) = cut(rest, &marked(MARK_A))?;
        let taken = [before_id, before_seq].map(<[u8]>::to_vec);
        // A seq of some thousands takes three bytes where the mark takes nine.
        let bytes = (entry_bytes - 6, bytes.len() - 6);
        Ok(Self { entry, taken, bytes })
    }

    /// Bytes of a delivery and of an answer.
    pub(crate) const fn bytes(&self) -> (usize, usize) {
        self.bytes
    }

    fn read<'a>(&self, payload: &'a [u8]) -> Said<'a> {
        self.entry(payload).or_else(|| self.taken(payload)).unwrap_or(Said::Else)
    }

    fn entry<'a>(&self, payload: &'a [u8]) -> Option<Said<'a>> {
        let [before_seq, before_time, before_hash, before_envelope] = &self.entry;
        let (seq, rest) = number(payload.strip_prefix(&**before_seq)?)?;
        let (_, rest) = number(rest.strip_prefix(&**before_time)?)?;
        let rest = rest.strip_prefix(&**before_hash)?.get(MARK_HASH.0.len()..)?;
        Some(Said::Entry { seq, body: rest.strip_prefix(&**before_envelope)? })
    }

    fn taken<'a>(&self, payload: &'a [u8]) -> Option<Said<'a>> {
        let [before_id, before_seq] = &self.taken;
        let (id, rest) = number(payload.strip_prefix(&**before_id)?)?;
        let (seq, _) = number(rest.strip_prefix(&**before_seq)?)?;
        Some(Said::Taken { id, seq })
    }
}

/// A number as `MessagePack` writes one of eight bytes.
fn marked(value: u64) -> [u8; 9] {
    let mut bytes = [0xCF; 9];
    if let Some(last) = bytes.last_chunk_mut::<8>() {
        *last = value.to_be_bytes();
    }
    bytes
}

/// What is before and after some bytes.
fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> anyhow::Result<(&'a [u8], &'a [u8])> {
    let place = bytes.windows(at.len()).position(|window| window == at);
    let place = place.ok_or_else(|| anyhow!("a frame without a value that was put into it"))?;
    let (before, rest) = bytes.split_at(place);
    Ok((before, rest.get(at.len()..).unwrap_or_default()))
}

/// An unsigned number of `MessagePack`, and what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (marker, rest) = bytes.split_first()?;
    match *marker {
        small @ 0..=0x7F => Some((u64::from(small), rest)),
        0xCC => rest.split_first().map(|(value, rest)| (u64::from(*value), rest)),
        0xCD => rest.split_first_chunk::<2>().map(|(value, rest)| (u64::from(u16::from_be_bytes(*value)), rest)),
        0xCE => rest.split_first_chunk::<4>().map(|(value, rest)| (u64::from(u32::from_be_bytes(*value)), rest)),
        0xCF => rest.split_first_chunk::<8>().map(|(value, rest)| (u64::from_be_bytes(*value), rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sealcast::protocol::binary::{Blob, Signature};
    use sealcast::protocol::envelope::{MessageKind, Seen};
    use sealcast::protocol::ids::{Counter, KeyId, MessageId, Revision, SessionId, UserId};

    use super::*;

    fn envelope(data: usize) -> Envelope {
        Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: UserId::generate(),
            sender_session_id: SessionId::generate(),
            key_id: Some(KeyId::generate()),
            counter: Counter::saturating(9_999),
            roster_hash: Hash([1; 32]),
            seen: Seen { seq: Seq::saturating(400), log_hash: Hash([2; 32]) },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![3; data])),
            purged: None,
            signature: Signature([4; 64]),
        }
    }

    #[test]
    fn frames_of_the_brokers_encoder_are_read_whatever_their_numbers() {
        let chat_id = ChatId::generate();
        let templates = Templates::learn(chat_id, &envelope(284)).unwrap();
        for seq in [1, 127, 128, 255, 256, 65_535, 65_536, 1 << 32, 1 << 50] {
            let envelope = envelope(300);
            let body = EntryBody::Message(envelope.clone());
            let created_at = Timestamp::new(1_790_000_000_000_000 + seq % 1_000).unwrap();
            let entry = LogEntry { seq: Seq::saturating(seq), created_at, log_hash: Hash([6; 32]), body };
            let taken = frame::Ok { id: RequestId::saturating(seq + 1), result: Reply::Sent(SendOk::of(&entry)) };
            let bytes = ENCODING.encode(&ServerFrame::Ok(taken)).unwrap();
            assert_eq!(templates.read(&bytes), Said::Taken { id: seq + 1, seq });
            let bytes = ENCODING.encode(&ServerFrame::Entry(frame::Entry { chat_id, entry })).unwrap();
            let body = ENCODING.encode(&envelope).unwrap();
            assert_eq!(templates.read(&bytes), Said::Entry { seq, body: &body });
            assert_eq!(templates.read(&bytes[..bytes.len() - body.len() - 40]), Said::Else);
        }
        let live = ENCODING.encode(&ServerFrame::Live(frame::Nothing {})).unwrap();
        assert_eq!(templates.read(&live), Said::Else);
    }

    #[test]
    fn frames_of_a_floor_are_read() {
        let floor = Wire::Floor;
        assert_eq!(floor.read(b"D\0\0\0\0\0\0\0\x07abc"), Said::Entry { seq: 7, body: b"abc" });
        assert_eq!(floor.read(b"A\0\0\0\x05\0\0\0\0\0\0\0\x07..."), Said::Taken { id: 5, seq: 7 });
        for bad in [&b""[..], b"D123", b"A12345678901", b"j"] {
            assert_eq!(floor.read(bad), Said::Else);
        }
    }
}
