//! What one sender says in one chat: sealed, signed and written as frames before the clock runs.

use anyhow::{Context, anyhow, bail};
use sealcast::crypto::message::{self, Place};
use sealcast::crypto::{Secret, wrap};
use sealcast::protocol::binary::{Blob, ExchangeKey, Hash, Signature};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::fold::roster_hash;
use sealcast::protocol::frame::{ClientFrame, NewKey, Request, Send, StageCopies};
use sealcast::protocol::ids::{ChatId, Counter, Epoch, KeyId, MessageId, RequestId, Revision, SessionId};
use sealcast::protocol::keys::{Announcement, PreviousKey, SignedAnnouncement, commitment, staged_hash};
use sealcast::protocol::limits::COPIES_PER_FRAME_MAX;

use super::connection::{ENCODING, header_bytes, push_frame};
use super::member::Member;
use super::room::Room;

/// Messages under one key: the most that a server may be told to allow.
pub(crate) const KEY_MESSAGES: u64 = 10_000;

/// The request number of the first message; of this size so that all numbers take nine bytes.
pub(crate) const FIRST_ID: u64 = 1 << 40;

/// Who is to read what is sealed, and where.
#[derive(Clone)]
pub(crate) struct Audience {
    pub(crate) chat_id: ChatId,
    pub(crate) epoch: Epoch,
    pub(crate) roster_hash: Hash,
    pub(crate) seen: Seen,
    pub(crate) recipients: Vec<(SessionId, ExchangeKey)>,
}

impl Audience {
    /// All recipients of a chat.
    pub(crate) fn of(room: &Room) -> Self {
        let recipients =
            room.fold.recipients().iter().map(|(session_id, recipient)| (*session_id, recipient.public_key));
        Self {
            chat_id: room.chat_id,
            epoch: room.fold.epoch(),
            roster_hash: room.fold.roster_hash(),
            seen: room.seen,
            recipients: recipients.collect(),
        }
    }

    /// The same once one of them is removed.
    pub(crate) fn without(&self, session_id: SessionId) -> Self {
        let mut after = self.clone();
        after.recipients.retain(|(recipient, _)| *recipient != session_id);
        after.epoch = self.epoch.next();
        after.roster_hash = roster_hash(after.recipients.iter().copied(), None);
        after
    }
}

/// Where a message is in the pool's bytes.
#[derive(Debug, Clone, Copy)]
struct Spot {
    frame: (usize, usize),
    /// What of the frame every recipient must be given byte for byte.
    body: (usize, usize),
}

/// A sender's messages in the order in which they are sent.
#[derive(Default)]
pub(crate) struct Pool {
    bytes: Vec<u8>,
    spots: Vec<Spot>,
    /// The sender's keys, one for each [`KEY_MESSAGES`]; none against a floor.
    keys: Vec<(KeyId, Secret)>,
    /// Copies of keys for more recipients than one frame holds; they go ahead.
    staging: Vec<StageCopies>,
}

impl Pool {
    /// Seals so many messages with bodies of so many bytes. `first_id` is the request number of the first.
    pub(crate) fn sealed(
        audience: &Audience,
        sender: &Member,
        count: usize,
        body_bytes: usize,
        first_id: u64,
    ) -> anyhow::Result<Self> {
        let mut pool = Self { spots: Vec::with_capacity(count), ..Self::default() };
        for _ in 0..count {
            pool.seal_next(audience, sender, body_bytes, first_id)?;
        }
        Ok(pool)
    }

    /// Seals one message more.
    pub(crate) fn seal_next(
        &mut self,
        audience: &Audience,
        sender: &Member,
        body_bytes: usize,
        first_id: u64,
    ) -> anyhow::Result<()> {
        let (chat_id, number) = (audience.chat_id, self.spots.len() as u64);
        let counter = Counter::saturating(number % KEY_MESSAGES + 1);
        let mut new_key = None;
        if counter.get() == 1 {
            let last_counter = Counter::saturating(KEY_MESSAGES);
            let previous = self.keys.last().map(|(key_id, _)| PreviousKey { key_id: *key_id, last_counter });
            let (made, staging, secret) = make_key(audience, sender, previous)?;
            self.staging.extend(staging);
            self.keys.push((made.announcement.announcement.key_id, secret));
            new_key = Some(made);
        }
        let (key_id, secret) = self.keys.last().ok_or_else(|| anyhow!("a message before the first key"))?;
        let place = Place {
            chat_id,
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
            roster_hash: audience.roster_hash,
            seen: audience.seen,
            attachments: Vec::new(),
            data: Some(Blob::from(data)),
            purged: None,
            signature: Signature([0; 64]),
        };
        envelope.signature = sender.secrets.sign(&envelope.signed_bytes(chat_id));
        let body = ENCODING.encode(&envelope)?;
        let send = Send { chat_id, envelope, new_key, add_copies: Vec::new(), archive: None };
        let id = RequestId::saturating(first_id + number);
        self.push(&ENCODING.encode(&ClientFrame { id, request: Request::Send(Box::new(send)) })?, &body)
    }

    /// Frames for a floor: as long as those for a broker, and with nothing sealed in them. `sender` tells whose they are.
    pub(crate) fn plain(sender: u32, count: usize, payload_bytes: usize, deliver_bytes: usize) -> anyhow::Result<Self> {
        let mut pool = Self { spots: Vec::with_capacity(count), ..Self::default() };
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

    /// What has to be asked for before the first message is sent.
    pub(crate) fn take_staging(&mut self) -> Vec<StageCopies> {
        std::mem::take(&mut self.staging)
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

fn make_key(
    audience: &Audience,
    sender: &Member,
    previous: Option<PreviousKey>,
) -> anyhow::Result<(NewKey, Vec<StageCopies>, Secret)> {
    let (chat_id, secret, key_id) = (audience.chat_id, Secret::generate(), KeyId::generate());
    let announcement = Announcement {
        key_id,
        session_id: sender.session_id,
        epoch: audience.epoch,
        commitment: commitment(secret.expose()),
        previous,
    };
    let signature = sender.secrets.sign(&announcement.signed_bytes(chat_id));
    let announcement = SignedAnnouncement { announcement, signature };
    let mut copies = Vec::new();
    for (session_id, public_key) in &audience.recipients {
        copies.push(wrap::sender_key(&secret, chat_id, key_id, sender.session_id, (*session_id, public_key))?);
    }
    if copies.len() <= COPIES_PER_FRAME_MAX {
        return Ok((NewKey { announcement, copies, staged: None }, Vec::new(), secret));
    }
    let staged = Some(staged_hash(copies.iter()));
    let parts = u32::try_from(copies.len().div_ceil(COPIES_PER_FRAME_MAX))?;
    let chunks = copies.chunks(COPIES_PER_FRAME_MAX).zip(0_u32..);
    let staging = chunks.map(|(copies, part)| StageCopies { chat_id, key_id, part, parts, copies: copies.to_vec() });
    Ok((NewKey { announcement, copies: Vec::new(), staged }, staging.collect(), secret))
}
