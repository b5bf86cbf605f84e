//! What the parts of a message's way cost, each by itself: codec, judgement, batch, hand-over.
//!
//! `cargo bench -p loadtest`; `docs/performance.md` has the figures, and what a whole message costs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a benchmark of something that fails is to end")]

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use sealcast::broker::chat::state::{ChatState, Decision, KeyLimits};
use sealcast::broker::outbox::{Outbox, OutboxLimits};
use sealcast::broker::ready_frame::{ReadyFrame, ReadyFrames};
use sealcast::protocol::binary::{Blob, ExchangeKey, Hash, Signature, SigningKey};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::fold::roster_hash;
use sealcast::protocol::frame::{ClientFrame, Entry, Request, Send, ServerFrame};
use sealcast::protocol::ids::{
    ChatId, Counter, Epoch, KeyId, MessageId, RequestId, Revision, Seq, SessionId, Timestamp, UserId,
};
use sealcast::protocol::keys::{Announcement, SignedAnnouncement};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::store::batch::{BatchLimits, Item, Queue, Waiting};
use sealcast::store::loaded::{LoadedChat, LoadedKey, LoadedMember, LoadedRecipient};
use sealcast::store::members::Requester;

/// Bytes of a text once it is sealed.
const DATA_BYTES: usize = 284;

/// Members of the chat whose rules are asked, and of the one that is handed out to.
const MEMBERS: usize = 500;
const RECIPIENTS: usize = 200;

/// Messages of one commit in one chat.
const RUN: usize = 32;

/// Items of one commit.
const BATCH: usize = 1_000;

struct Scene {
    chat_id: ChatId,
    who: Requester,
    key_id: KeyId,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let who = Requester { user_id: UserId::generate(), session_id: SessionId::generate() };
        let now = Timestamp::new(1_790_000_000_000_000).unwrap_or_default();
        Self { chat_id: ChatId::generate(), who, key_id: KeyId::generate(), now }
    }

    fn envelope(&self, counter: u64) -> Envelope {
        Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: self.who.user_id,
            sender_session_id: self.who.session_id,
            key_id: Some(self.key_id),
            counter: Counter::saturating(counter),
            roster_hash: Hash([1; 32]),
            seen: Seen { seq: Seq::saturating(4), log_hash: Hash([2; 32]) },
            attachments: Vec::new(),
            data: Some(Blob::from(vec![3; DATA_BYTES])),
            purged: None,
            signature: Signature([4; 64]),
        }
    }

    fn send(&self, counter: u64) -> Send {
        let envelope = self.envelope(counter);
        Send { chat_id: self.chat_id, envelope, new_key: None, add_copies: Vec::new(), archive: None }
    }

    fn entry(&self, seq: u64) -> LogEntry {
        let body = EntryBody::Message(self.envelope(seq));
        LogEntry { seq: Seq::saturating(seq), created_at: self.now, log_hash: Hash([5; 32]), body }
    }

    /// A chat in which the session's key covers everybody.
    fn chat(&self) -> ChatState {
        let joined = LoadedMember {
            can_write: true,
            joined_seq: Seq::saturating(1),
            joined_at: self.now,
            can_manage: false,
            readable_from: Seq::saturating(1),
            has_user_key: false,
        };
        let (mut members, mut recipients) = (BTreeMap::new(), BTreeMap::new());
        for number in 0..MEMBERS {
            let (user_id, session_id) = match number {
                0 => (self.who.user_id, self.who.session_id),
                _ => (UserId::generate(), SessionId::generate()),
            };
            members.insert(user_id, joined);
            recipients.insert(session_id, LoadedRecipient { user_id, public_key: ExchangeKey([6; 32]) });
        }
        let announcement = Announcement {
            key_id: self.key_id,
            session_id: self.who.session_id,
            epoch: Epoch::default(),
            commitment: Hash([7; 32]),
            previous: None,
        };
        let key = LoadedKey {
            announcement: SignedAnnouncement { announcement, signature: Signature([8; 64]) },
            last_counter: Counter::saturating(0),
            created_at: self.now,
            missing: BTreeSet::new(),
            archived: None,
            refused: BTreeMap::new(),
        };
        let loaded = LoadedChat {
            last_seq: Seq::saturating(4),
            log_hash: Hash([2; 32]),
            last_at: self.now,
            epoch: Epoch::default(),
            roster_version: Seq::saturating(4),
            roster_hash: Hash([1; 32]),
            expiry_due: false,
            members,
            recipients,
            recovery: None,
            generation_due: None,
            keys: BTreeMap::from([(self.key_id, key)]),
            since: None,
        };
        let limits = KeyLimits {
            messages_max: u64::MAX,
            messages_max_large: u64::MAX,
            recipients_large: u64::MAX,
            age_max_micros: u64::MAX,
        };
        ChatState::new(self.chat_id, loaded, limits)
    }
}

fn codec(criterion: &mut Criterion) {
    let scene = Scene::new();
    let request = ClientFrame { id: RequestId::saturating(1), request: Request::Send(Box::new(scene.send(1))) };
    let delivery = ServerFrame::Entry(Entry { chat_id: scene.chat_id, entry: scene.entry(5) });
    let mut group = criterion.benchmark_group("codec");
    for (name, encoding) in [("MessagePack", Encoding::MessagePack), ("JSON", Encoding::Json)] {
        let sent = encoding.encode(&request).unwrap();
        group.bench_function(format!("decode a send, {name}"), |bencher| {
            bencher.iter(|| encoding.decode_client(black_box(&sent)).unwrap());
        });
        group.bench_function(format!("encode an entry, {name}"), |bencher| {
            bencher.iter(|| encoding.encode(black_box(&delivery)).unwrap());
        });
    }
}

fn judgement(criterion: &mut Criterion) {
    let scene = Scene::new();
    let mut group = criterion.benchmark_group("judgement");
    let (mut chat, mut counter) = (scene.chat(), 0);
    let signing_key = SigningKey([9; 32]);
    group.bench_function(format!("a message in a chat of {MEMBERS}, coverage included"), |bencher| {
        bencher.iter_batched(
            || {
                counter += 1;
                scene.send(counter)
            },
            |send| match chat.submit(scene.now, scene.who, &signing_key, &send, None) {
                Decision::Append(item) => item,
                other => panic!("{other:?}"),
            },
            BatchSize::NumIterations(1),
        );
    });
    let sessions: BTreeMap<SessionId, ExchangeKey> =
        (0..MEMBERS).map(|_| (SessionId::generate(), ExchangeKey([6; 32]))).collect();
    group.bench_function(format!("the roster hash of {MEMBERS} sessions"), |bencher| {
        bencher.iter(|| roster_hash(sessions.iter().map(|(session_id, key)| (*session_id, *key)), None));
    });
}

fn batch(criterion: &mut Criterion) {
    let items: Vec<Arc<Item>> = (0..BATCH).map(|number| Arc::new(item(&Scene::new(), number as u64))).collect();
    let limits = BatchLimits { items_max: BATCH, bytes_max: usize::MAX, queue_max: BATCH };
    criterion.bench_function(&format!("batch/queue and take {BATCH} items of as many chats"), |bencher| {
        bencher.iter(|| {
            let (mut queue, now) = (Queue::new(limits), Instant::now());
            for item in &items {
                assert!(queue.push(Waiting { item: Arc::clone(item), since: now, reply: () }).is_ok());
            }
            queue.take(now)
        });
    });
}

fn item(scene: &Scene, number: u64) -> Item {
    Item {
        chat_id: scene.chat_id,
        previous: Seq::saturating(4),
        previous_hash: Hash([2; 32]),
        epoch: Epoch::default(),
        roster_version: Seq::saturating(4),
        key_id: Some(scene.key_id),
        counter: Counter::saturating(number),
        sender_session_id: scene.who.session_id,
        entry: Some(scene.entry(5)),
        new_key: None,
        copies: Vec::new(),
        archive: None,
    }
}

fn hand_over(criterion: &mut Criterion) {
    let scene = Scene::new();
    let frames: Vec<ReadyFrame> = (5..5 + RUN as u64)
        .map(|seq| {
            let delivery = ServerFrame::Entry(Entry { chat_id: scene.chat_id, entry: scene.entry(seq) });
            ReadyFrame::binary(&Encoding::MessagePack.encode(&delivery).unwrap())
        })
        .collect();
    let limits = OutboxLimits { frames_max: 1_000, bytes_max: 1 << 20, reserve_bytes: 0 };
    let outboxes: Vec<Arc<Outbox>> = (0..RECIPIENTS).map(|_| Outbox::new(limits)).collect();
    let mut group = criterion.benchmark_group("hand-over");
    for count in [1, RUN] {
        let joined = ReadyFrames::join(frames.get(..count).unwrap_or_default());
        group.bench_function(format!("{count} to {RECIPIENTS} outboxes, and taken from them"), |bencher| {
            bencher.iter(|| {
                for outbox in &outboxes {
                    assert_eq!(outbox.try_push_from(0, &joined), count);
                }
                outboxes.iter().map(|outbox| take(outbox)).sum::<usize>()
            });
        });
    }
}

fn take(outbox: &Outbox) -> usize {
    let mut bytes = 0;
    while let Poll::Ready(Some(chunk)) = outbox.poll_chunk(&Context::from_waker(Waker::noop())) {
        bytes += chunk.len();
    }
    bytes
}

criterion_group!(parts, codec, judgement, batch, hand_over);
criterion_main!(parts);
