//! What one sender says in one chat: sealed, signed and written as frames before the clock runs.

use anyhow::{Context, anyhow, bail};
use sealcast::crypto::message::{self, Place};
use sealcast::crypto::{Secret, wrap};
use sealcast::protocol::binary::{Blob, Signature};
use sealcast::protocol::envelope::{Envelope, MessageKind};
use sealcast::protocol::frame::{ClientFrame, NewKey, Request, Send};
use sealcast::protocol::ids::{Counter, KeyId, MessageId, RequestId, Revision};
use sealcast::protocol::keys::{Announcement, PreviousKey, SignedAnnouncement, commitment};

use super::connection::{ENCODING, header_bytes, push_frame};
use super::member::Member;
use super::room::Room;

/// Messages under one key: the most that a server may be told to allow.
pub(crate) const KEY_MESSAGES: u64 = 10_000;

/// The request number of the first message; of this size so that all numbers take nine bytes.
const FIRST_ID: u64 = 1 << 40;

/// Where a message is in the pool's bytes.
#[derive(Debug, Clone, Copy)]
struct Spot {
    frame: (usize, usize),
    /// What of the frame every recipient must be given byte for byte.
    body: (usize, usize),
}

/// A sender's messages in the order in which they are sent.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    spots: Vec<Spot>,
    /// The sender's keys, one for each [`KEY_MESSAGES`]; none against a floor.
    keys: Vec<(KeyId, Secret)>,
}

impl Pool {
    /// Seals so many messages with bodies of so many bytes for all recipients of a chat.
    pub(crate) fn sealed(room: &Room, sender: &Member, count: usize, body_bytes: usize) -> anyhow::Result<Self> {
        let mut pool = Self { bytes: Vec::new(), spots: Vec::with_capacity(count), keys: Vec::new() };
        let roster_hash = room.fold.roster_hash();
        let mut previous = None;
        let mut key: Option<(KeyId, Secret)> = None;
        for number in 0..count as u64 {
            let counter = Counter::saturating(number % KEY_MESSAGES + 1);
            let mut new_key = None;
            if counter.get() == 1 {
                let (made, secret) = make_key(room, sender, previous)?;
                let key_id = made.announcement.announcement.key_id;
                previous = Some(PreviousKey { key_id, last_counter: Counter::saturating(KEY_MESSAGES) });
                pool.keys.push((key_id, secret.clone()));
                key = Some((key_id, secret));
                new_key = Some(made);
            }
            let (key_id, secret) = key.as_ref().ok_or_else(|| anyhow!("a message before the first key"))?;
            let place = Place {
                chat_id: room.chat_id,
                message_id: MessageId::generate(),
                revision: Revision::default(),
                counter,
                sender: sender.session_id,
                key_id: *key_id,
            };
            let data = message::seal(secret, &place, &body(number, body_bytes)).context("sealing a message")?;
            let mut envelope = Envelope {
                kind: MessageKind::Message,
                message_id: place.message_id,
                revision: place.revision,
                sender_id: sender.user_id,
                sender_session_id: sender.session_id,
                key_id: Some(*key_id),
                counter,
                roster_hash,
                seen: room.seen,
                attachments: Vec::new(),
                data: Some(Blob::from(data)),
                purged: None,
                signature: Signature([0; 64]),
            };
            envelope.signature = sender.secrets.sign(&envelope.signed_bytes(room.chat_id));
            let body = ENCODING.encode(&envelope)?;
            let send = Send { chat_id: room.chat_id, envelope, new_key, add_copies: Vec::new(), archive: None };
            let id = RequestId::saturating(FIRST_ID + number);
            pool.push(&ENCODING.encode(&ClientFrame { id, request: Request::Send(Box::new(send)) })?, &body)?;
        }
        Ok(pool)
    }

    /// Frames for a floor: as long as those for a broker, and with nothing sealed in them. `sender` tells whose they are.
    pub(crate) fn plain(sender: u32, count: usize, payload_bytes: usize, deliver_bytes: usize) -> anyhow::Result<Self> {
        let mut pool = Self { bytes: Vec::new(), spots: Vec::with_capacity(count), keys: Vec::new() };
        let body_bytes = payload_bytes.saturating_sub(5);
        let delivered_bytes = body_bytes.min(deliver_bytes.saturating_sub(9));
        for number in 0..u32::try_from(count)? {
            let mut payload = vec![b'S'];
            payload.extend_from_slice(&number.to_be_bytes());
            payload.extend_from_slice(&sender.to_be_bytes());
            payload.extend_from_slice(&u64::from(number).to_be_bytes());
            payload.resize(payload_bytes, b'.');
            let body = payload.get(5..5 + delivered_bytes).context("a payload that is too short")?.to_vec();
            pool.push(&payload, &body)?;
        }
        Ok(pool)
    }

    fn push(&mut self, payload: &[u8], body: &[u8]) -> anyhow::Result<()> {
        let begin = self.bytes.len();
        push_frame(&mut self.bytes, payload);
        let end = self.bytes.len();
        // The body begins at the same place of every frame of a pool, so only the first is searched for.
        let likely = self.spots.first().map(|spot| spot.body.0 - spot.frame.0);
        let frame = self.bytes.get(begin..end).unwrap_or_default();
        let at = match likely.filter(|at| frame.get(*at..).is_some_and(|rest| rest.starts_with(body))) {
            Some(at) => at,
            None => frame.windows(body.len()).position(|bytes| bytes == body).context("a frame without its body")?,
        };
        self.spots.push(Spot { frame: (begin, end), body: (begin + at, begin + at + body.len()) });
        Ok(())
    }

    /// Messages.
    pub(crate) const fn len(&self) -> usize {
        self.spots.len()
    }

    /// The frame of a message, ready to be written.
    pub(crate) fn frame(&self, number: usize) -> Option<&[u8]> {
        self.spots.get(number).and_then(|spot| self.bytes.get(spot.frame.0..spot.frame.1))
    }

    /// What every recipient must be given of a message.
    pub(crate) fn body(&self, number: usize) -> Option<&[u8]> {
        self.spots.get(number).and_then(|spot| self.bytes.get(spot.body.0..spot.body.1))
    }

    /// What the frame of a message carries.
    pub(crate) fn payload(&self, number: usize) -> Option<&[u8]> {
        let frame = self.frame(number)?;
        frame.get(header_bytes(frame)..)
    }

    /// The envelope of the first message; none against a floor.
    pub(crate) fn sample(&self) -> anyhow::Result<Envelope> {
        let payload = self.payload(0).context("nothing to say")?;
        match ENCODING.decode_client(payload).map_err(|error| anyhow!("{error:?}"))?.request {
            Request::Send(send) => Ok(send.envelope),
            other => bail!("no message: {other:?}"),
        }
    }

    /// The key of a message.
    pub(crate) fn key(&self, number: usize) -> Option<&(KeyId, Secret)> {
        self.keys.get(number / usize::try_from(KEY_MESSAGES).unwrap_or(usize::MAX))
    }

    /// The number of a message in its pool, by the number of its request.
    pub(crate) fn number_of(id: u64) -> Option<usize> {
        id.checked_sub(FIRST_ID).and_then(|number| usize::try_from(number).ok())
    }
}

/// The text of a message: its number, and dots up to the length.
pub(crate) fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = number.to_string().into_bytes();
    body.resize(bytes, b'.');
    body
}

fn make_key(room: &Room, sender: &Member, previous: Option<PreviousKey>) -> anyhow::Result<(NewKey, Secret)> {
    let secret = Secret::generate();
    let key_id = KeyId::generate();
    let announcement = Announcement {
        key_id,
        session_id: sender.session_id,
        epoch: room.fold.epoch(),
        commitment: commitment(secret.expose()),
        previous,
    };
    let signature = sender.secrets.sign(&announcement.signed_bytes(room.chat_id));
    let mut copies = Vec::new();
    for (session_id, recipient) in room.fold.recipients() {
        let recipient = (*session_id, &recipient.public_key);
        copies.push(wrap::sender_key(&secret, room.chat_id, key_id, sender.session_id, recipient)?);
    }
    let announcement = SignedAnnouncement { announcement, signature };
    Ok((NewKey { announcement, copies, staged: None }, secret))
}
