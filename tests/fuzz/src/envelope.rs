//! Envelopes and log entries: what is signed can be read back, and a body opens in its own place alone.

use sealcast::crypto::message::{self, Place};
use sealcast::crypto::{OpenError, Secret};
use sealcast::protocol::binary::{Blob, Hash, Signature};
use sealcast::protocol::canonical::{label, sha256};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::ids::{
    AttachmentId, ChatId, Counter, KeyId, MessageId, Revision, Seq, SessionId, Timestamp, UserId,
};
use sealcast::protocol::log::{EntryBody, LogEntry, log_hash, next_entry};
use sealcast::protocol::verify::Verifier;

use crate::bytes_of::{Input, pick};
use crate::canonical_reader::Fields;
use crate::certificate::session;

/// Checks any bytes.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let touched = input.byte();
    let chat_id = ChatId(input.id());
    let mut envelope = Envelope {
        kind: pick(flags & 3, [MessageKind::Message, MessageKind::Edit, MessageKind::Delete]),
        message_id: MessageId(input.id()),
        revision: Revision::saturating(input.u64()),
        sender_id: UserId(input.id()),
        sender_session_id: SessionId(input.id()),
        key_id: (flags & 4 != 0).then(|| KeyId(input.id())),
        counter: Counter::saturating(input.u64()),
        roster_hash: Hash(input.array()),
        seen: Seen { seq: Seq::saturating(input.u64()), log_hash: Hash(input.array()) },
        attachments: (0..input.below(4)).map(|_| AttachmentId(input.id())).collect(),
        purged: (flags & 8 != 0).then(|| Hash(input.array())),
        data: None,
        signature: Signature([0; 64]),
    };
    let body = input.rest();
    envelope.data = (flags & 16 != 0).then(|| Blob::from(body.to_vec()));
    envelope.signature = session().sign(&envelope.signed_bytes(chat_id));
    is_read_back(&envelope, chat_id);
    is_bound(&envelope, chat_id, touched);
    is_chained(&envelope, chat_id);
    opens_in_its_place(&envelope, chat_id, body, touched);
}

fn is_read_back(envelope: &Envelope, chat_id: ChatId) {
    let bytes = envelope.signed_bytes(chat_id);
    let mut fields = Fields::begin(&bytes, label::MESSAGE);
    assert_eq!(fields.bytes(), envelope.kind.as_str().as_bytes());
    assert_eq!(fields.id(), chat_id.0);
    assert_eq!(fields.id(), envelope.message_id.0);
    assert_eq!(fields.u64(), envelope.revision.get());
    assert_eq!(fields.id(), envelope.sender_id.0);
    assert_eq!(fields.id(), envelope.sender_session_id.0);
    assert_eq!(fields.optional_id(), envelope.key_id.map(|key_id| key_id.0));
    assert_eq!(fields.u64(), envelope.counter.get());
    assert_eq!(Hash(fields.array()), envelope.roster_hash);
    assert_eq!(fields.u64(), envelope.seen.seq.get());
    assert_eq!(Hash(fields.array()), envelope.seen.log_hash);
    assert_eq!(fields.u64(), envelope.attachments.len() as u64);
    for attachment in &envelope.attachments {
        assert_eq!(fields.id(), attachment.0);
    }
    let data = envelope.data.as_ref().map_or(&[][..], |data| data.as_ref());
    let expected = if envelope.data.is_none() { envelope.purged } else { None }.unwrap_or_else(|| sha256(data));
    assert_eq!(Hash(fields.array()), expected);
    fields.end();
}

/// The signature is for this content in this chat: one field changed, and it is no longer.
fn is_bound(envelope: &Envelope, chat_id: ChatId, touched: u8) {
    let key = session().signing_public_key();
    let verifies = |other: &Envelope, chat_id| key.verifies(&other.signed_bytes(chat_id), &other.signature);
    assert!(verifies(envelope, chat_id));
    let mut other = envelope.clone();
    let mut other_chat = chat_id;
    let flipped = |id: uuid::Uuid| uuid::Uuid::from_u128(id.as_u128() ^ 1);
    match touched % 14 {
        0 => other_chat = ChatId(flipped(chat_id.0)),
        1 => other.message_id = MessageId(flipped(envelope.message_id.0)),
        2 => other.revision = Revision::saturating(envelope.revision.get() ^ 1),
        3 => other.sender_id = UserId(flipped(envelope.sender_id.0)),
        4 => other.sender_session_id = SessionId(flipped(envelope.sender_session_id.0)),
        5 => other.counter = Counter::saturating(envelope.counter.get() ^ 1),
        6 => other.roster_hash.0[7] ^= 1,
        7 => other.seen.seq = Seq::saturating(envelope.seen.seq.get() ^ 1),
        8 => other.seen.log_hash.0[7] ^= 1,
        9 => other.attachments.push(AttachmentId(uuid::Uuid::nil())),
        10 => other.key_id = if envelope.key_id.is_some() { None } else { Some(KeyId(uuid::Uuid::nil())) },
        11 => other.signature.0[40] ^= 1,
        12 => other.data = Some(Blob::from([body_of(envelope), b"x"].concat())),
        _ => other.kind = if envelope.kind == MessageKind::Edit { MessageKind::Message } else { MessageKind::Edit },
    }
    assert!(!verifies(&other, other_chat), "touched {touched}");
    // Data that is purged is told by its hash, and the signature still holds.
    if envelope.data.is_some() {
        let purged = Envelope { purged: Some(envelope.data_hash()), data: None, ..envelope.clone() };
        assert!(verifies(&purged, chat_id));
    }
}

fn is_chained(envelope: &Envelope, chat_id: ChatId) {
    let body = EntryBody::Message(envelope.clone());
    let digest = body.digest(chat_id);
    let entry = next_entry(chat_id, envelope.seen.seq, &envelope.seen.log_hash, Timestamp::saturating(1), body);
    let hash = log_hash(chat_id, &envelope.seen.log_hash, entry.seq, entry.created_at, &digest);
    assert_eq!(entry.log_hash, hash);
    let json = serde_json::to_vec(&entry).expect("an entry can be written");
    let read: LogEntry = serde_json::from_slice(&json).expect("what was written can be read");
    assert_eq!(read, entry);
    let packed = rmp_serde::to_vec_named(&entry).expect("an entry can be written");
    let read: LogEntry = rmp_serde::from_slice(&packed).expect("what was written can be read");
    assert_eq!(read, entry);
    assert_eq!(read.body.digest(chat_id), digest);
}

fn opens_in_its_place(envelope: &Envelope, chat_id: ChatId, body: &[u8], touched: u8) {
    let secret = Secret::new([0x44; 32]);
    let place = Place {
        chat_id,
        message_id: envelope.message_id,
        revision: envelope.revision,
        counter: envelope.counter,
        sender: envelope.sender_session_id,
        key_id: envelope.key_id.unwrap_or(KeyId(uuid::Uuid::nil())),
    };
    assert_eq!(message::open(&secret, &place, body), Err(OpenError), "nobody sealed this");
    let mut sealed = message::seal(&secret, &place, body).expect("a body of this length can be sealed");
    assert_eq!(message::open(&secret, &place, &sealed).as_deref(), Ok(body));
    let moved = match touched % 3 {
        0 => Place { counter: Counter::saturating(place.counter.get() ^ 1), ..place },
        1 => Place { revision: Revision::saturating(place.revision.get() ^ 1), ..place },
        _ => Place { sender: SessionId(uuid::Uuid::from_u128(place.sender.0.as_u128() ^ 1)), ..place },
    };
    assert_eq!(message::open(&secret, &moved, &sealed), Err(OpenError));
    let at = usize::from(touched) % sealed.len();
    if let Some(byte) = sealed.get_mut(at) {
        *byte ^= 0x80;
    }
    assert_eq!(message::open(&secret, &place, &sealed), Err(OpenError));
}

fn body_of(envelope: &Envelope) -> &[u8] {
    envelope.data.as_ref().map_or(&[][..], |data| data.as_ref())
}
