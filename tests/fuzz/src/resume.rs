//! Cursors and resuming: whatever happens in whatever order, no entry is missing between two that a connection is handed.
//!
//! The input is a list of steps of two chats, a session in them, their readers and the store. Real are the connection
//! and its places, the fan-out, the outbox, the judging of cursors and the frames; chat actor, store and directory are
//! models of a few lines. An entry may come twice, live and in a page that was being read; that is documented. In the
//! end the readers run until nothing lags, and the session must have everything.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::body::MessageBody;
use sealcast::broker::catch_up::{Standing, judge};
use sealcast::broker::chat::fan_out::FanOut;
use sealcast::broker::chat::messages::Subscribed;
use sealcast::broker::connection::{Connection, Lagging};
use sealcast::broker::directory::Subscriber;
use sealcast::broker::outbox::{Outbox, OutboxLimits};
use sealcast::gateway::transport::{self, Inbound, InboundMessage, TransportLimits};
use sealcast::protocol::binary::Hash;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Page, ServerFrame};
use sealcast::protocol::ids::{ChatId, Seq, SessionId, Timestamp, UserId};
use sealcast::protocol::log::{EntryBody, LogEntry, SessionOut};
use sealcast::store::chats::ChatPosition;
use sealcast::store::members::Requester;
use sealcast::telemetry::metrics::Metrics;
use uuid::Uuid;

use crate::bytes_of::Input;
use crate::socket::{Driven, Silence, kill_switch};

/// The body of the connection, from which the session reads.
type Socket = Driven<Pin<Box<dyn MessageBody<Error = Infallible>>>>;

const CHATS: usize = 2;

/// Entries of a page.
const PAGE: usize = 2;

/// Checks any bytes as a list of steps.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.come_to_rest();
}

/// One chat: what the store has, and the actor if it is loaded.
struct Chat {
    id: ChatId,
    /// The entry that made the user a member.
    joined: u64,
    /// The newest entry in the store.
    last: u64,
    /// Loaded: its fan-out, and the newest entry it has shown. Else the waiting room.
    actor: Result<(FanOut, u64), Vec<Subscriber>>,
}

/// What a reader is doing between two of its waits.
enum Reading {
    /// It has been told where it stands, and goes to the store unless it is live.
    Stood(Lagging, Subscribed),
    /// The store has given it a page, which is not yet handed over, and said whether it has more.
    Read(Lagging, Vec<u64>, bool),
}

/// A `resume` between its two halves.
struct Resuming {
    standing: BTreeMap<ChatId, (Seq, Subscribed)>,
    /// The store's word, once it was asked.
    positions: Option<Vec<ChatPosition>>,
}

struct World {
    who: Requester,
    metrics: Metrics,
    chats: Vec<Chat>,
    connection: Arc<Connection>,
    socket: Socket,
    unread: Vec<u8>,
    reading: Option<Reading>,
    resuming: Option<Resuming>,
    has_resumed: bool,
    /// Where the session itself stands in each chat, by what it was handed.
    taken: Vec<u64>,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let who = Requester { user_id: UserId(Uuid::from_u128(1)), session_id: SessionId(Uuid::from_u128(2)) };
        // Making a registry takes longer than all steps together, and nothing here reads it.
        thread_local! {
            static METRICS: Metrics = Metrics::new().expect("metrics");
        }
        let metrics = METRICS.with(Metrics::clone);
        let chats: Vec<Chat> = (0..CHATS)
            .map(|index| {
                let joined = 1 + input.below(4) as u64;
                let last = joined + input.below(8) as u64;
                Chat { id: ChatId(Uuid::from_u128(100 + index as u128)), joined, last, actor: Err(Vec::new()) }
            })
            .collect();
        let taken = chats.iter().map(|chat| chat.joined - 1 + input.below(4) as u64).collect::<Vec<_>>();
        let taken = taken.into_iter().zip(&chats).map(|(taken, chat)| taken.min(chat.last)).collect();
        let (connection, socket) = connected(who);
        Self {
            who,
            metrics,
            chats,
            connection,
            socket,
            unread: Vec::new(),
            reading: None,
            resuming: None,
            has_resumed: false,
            taken,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let chat = input.below(CHATS);
        match input.below(12) {
            0 | 1 => self.commit(chat),
            2 => self.show(chat),
            3 => self.load(chat),
            4 => self.passivate(chat),
            5 => self.lag_all(chat),
            6 => self.resume_begin(input),
            7 => self.resume_look(),
            8 => self.resume_end(),
            9 => self.read_begin(),
            10 => self.read_on(),
            _ => self.receive(),
        }
    }

    /// The writer commits the next entry.
    fn commit(&mut self, chat: usize) {
        if let Some(chat) = self.chats.get_mut(chat) {
            chat.last += 1;
            // An entry wakes the actor of its chat: nobody else writes to it.
            if chat.actor.is_err() {
                let index = usize::from(chat.id.0.as_u128() != 100);
                self.load(index);
            }
        }
    }

    /// The actor hands out the next entry that it has been told of.
    fn show(&mut self, chat: usize) {
        let Some(chat) = self.chats.get_mut(chat) else { return };
        if let Ok((fan_out, shown)) = &mut chat.actor
            && *shown < chat.last
        {
            *shown += 1;
            fan_out.entry(entry(*shown));
        }
    }

    /// The actor is loaded and takes the waiting room over.
    fn load(&mut self, chat: usize) {
        let Some(chat) = self.chats.get_mut(chat) else { return };
        if let Err(waiting) = &mut chat.actor {
            let mut fan_out = FanOut::new(chat.id, self.metrics.clone());
            for subscriber in std::mem::take(waiting) {
                fan_out.insert(self.who.session_id, subscriber);
            }
            fan_out.lag_those_behind(Seq::saturating(chat.last));
            chat.actor = Ok((fan_out, chat.last));
        }
    }

    /// The actor goes idle, which it does only when it has shown everything.
    fn passivate(&mut self, chat: usize) {
        let Some(chat) = self.chats.get_mut(chat) else { return };
        if let Ok((fan_out, shown)) = &mut chat.actor
            && *shown == chat.last
        {
            let waiting = fan_out.take_all();
            chat.actor = Err(waiting);
        }
    }

    /// The actor has lost its place: everybody reads from the store.
    fn lag_all(&mut self, chat: usize) {
        let Some(chat) = self.chats.get_mut(chat) else { return };
        if let Ok((fan_out, shown)) = &mut chat.actor {
            fan_out.lag_all();
            *shown = chat.last;
        }
    }

    /// Stands in a chat, as [`sealcast::broker::catch_up::subscribe`] does.
    fn subscribe(&mut self, chat_id: ChatId, position: Seq) -> Subscribed {
        let subscriber = Subscriber { connection: Arc::clone(&self.connection), position };
        let Some(chat) = self.chats.iter_mut().find(|chat| chat.id == chat_id) else { return Subscribed::Stranger };
        match &mut chat.actor {
            Err(waiting) => {
                waiting.retain(|other| other.connection.id != subscriber.connection.id);
                waiting.push(subscriber);
                Subscribed::Waiting
            }
            Ok((fan_out, shown)) if subscriber.position < Seq::saturating(*shown) => {
                fan_out.remove_session(self.who.session_id);
                Subscribed::Behind
            }
            Ok((fan_out, _)) => {
                fan_out.insert(self.who.session_id, subscriber);
                Subscribed::Live
            }
        }
    }

    fn unsubscribe(&mut self, chat_id: ChatId) {
        let Some(chat) = self.chats.iter_mut().find(|chat| chat.id == chat_id) else { return };
        match &mut chat.actor {
            Err(waiting) => waiting.retain(|other| other.connection.id != self.connection.id),
            Ok((fan_out, _)) => fan_out.remove(self.connection.id),
        }
    }

    /// The first half of `resume`: stands in each chat that is named. An honest session resumes once on a connection.
    fn resume_begin(&mut self, input: &mut Input<'_>) {
        if self.has_resumed || self.resuming.is_some() {
            return;
        }
        let mut standing = BTreeMap::new();
        for index in 0..CHATS {
            if input.below(4) == 3 {
                // Not named: it begins where the user joined.
                if let (Some(taken), Some(chat)) = (self.taken.get_mut(index), self.chats.get(index)) {
                    *taken = chat.joined - 1;
                }
                continue;
            }
            let (Some(taken), Some(chat)) = (self.taken.get(index), self.chats.get(index)) else { continue };
            let (chat_id, seq) = (chat.id, Seq::saturating(*taken));
            self.connection.stand(chat_id);
            let subscribed = self.subscribe(chat_id, seq);
            standing.insert(chat_id, (seq, subscribed));
        }
        self.resuming = Some(Resuming { standing, positions: None });
    }

    /// `resume` asks the store.
    fn resume_look(&mut self) {
        let positions = self.chats.iter().map(|chat| ChatPosition {
            chat_id: chat.id,
            joined_seq: Seq::saturating(chat.joined),
            last_seq: Seq::saturating(chat.last),
        });
        let positions: Vec<_> = positions.collect();
        if let Some(resuming) = &mut self.resuming {
            resuming.positions.get_or_insert(positions);
        }
    }

    /// The second half of `resume`: judges each chat by what the store said.
    fn resume_end(&mut self) {
        let Some(Resuming { mut standing, positions: Some(positions) }) =
            self.resuming.take_if(|resuming| resuming.positions.is_some())
        else {
            return;
        };
        self.has_resumed = true;
        for position in positions {
            let asked = standing.remove(&position.chat_id);
            match judge(asked, &position, self.connection.is_in(position.chat_id)) {
                Standing::Ahead => panic!("an honest cursor is never ahead: {asked:?} {position:?}"),
                Standing::Live => self.connection.stood(position.chat_id),
                Standing::Behind(after) => {
                    self.connection.lag_behind(position.chat_id, after, position.last_seq);
                }
                Standing::AsBefore => {}
            }
        }
        for chat_id in standing.into_keys() {
            self.unsubscribe(chat_id);
            self.connection.forget(chat_id);
        }
    }

    /// The reader takes up a chat that lags, and stands in it.
    fn read_begin(&mut self) {
        if self.reading.is_some() {
            return;
        }
        if let Some(lagging) = self.connection.next_lagging() {
            let subscribed = match lagging.has_more {
                true => Subscribed::Behind,
                false => self.subscribe(lagging.chat_id, lagging.after),
            };
            self.reading = Some(Reading::Stood(lagging, subscribed));
        }
    }

    /// The reader goes on: to the store, or with what the store gave.
    fn read_on(&mut self) {
        match self.reading.take() {
            Some(Reading::Stood(lagging, Subscribed::Live)) => self.connection.caught_up(lagging),
            Some(Reading::Stood(lagging, _)) => {
                let after = lagging.after.get();
                let last = self.chats.iter().find(|chat| chat.id == lagging.chat_id).map_or(0, |chat| chat.last);
                let seqs: Vec<u64> = (after + 1..=last).take(PAGE).collect();
                let more = after + (seqs.len() as u64) < last;
                self.reading = Some(Reading::Read(lagging, seqs, more));
            }
            Some(Reading::Read(lagging, seqs, more)) => match seqs.last() {
                None if lagging.has_more => {
                    let _ = self.connection.advance(lagging, lagging.after, false);
                }
                None => self.connection.caught_up(lagging),
                Some(up_to) => {
                    let up_to = Seq::saturating(*up_to);
                    if !self.connection.advance(lagging, up_to, more) {
                        return;
                    }
                    self.connection.push_reply(&ServerFrame::Page(Page {
                        chat_id: lagging.chat_id,
                        after: lagging.after,
                        up_to,
                        more,
                        entries: seqs.into_iter().map(entry).collect(),
                        keys: Vec::new(),
                    }));
                }
            },
            None => {}
        }
    }

    /// The session takes what was written to it. Each entry must be the next of its chat, or one that it has.
    fn receive(&mut self) {
        while let Some(chunk) = self.socket.now() {
            self.unread.extend_from_slice(&chunk);
        }
        while let Some((payload, rest)) = server_frame(&self.unread) {
            let frame = Encoding::MessagePack.decode_server(payload).expect("a frame of the server");
            self.unread = rest.to_vec();
            match frame {
                ServerFrame::Entry(entry) => self.take(entry.chat_id, entry.entry.seq),
                ServerFrame::Page(page) => {
                    for entry in page.entries {
                        self.take(page.chat_id, entry.seq);
                    }
                }
                other => panic!("not expected: {other:?}"),
            }
        }
    }

    fn take(&mut self, chat_id: ChatId, seq: Seq) {
        let index = self.chats.iter().position(|chat| chat.id == chat_id).expect("a chat of the user's");
        let taken = self.taken.get_mut(index).expect("a chat of the user's");
        assert!(seq.get() <= *taken + 1, "handed {seq} of {chat_id} after {taken}");
        *taken = seq.get().max(*taken);
    }

    /// Everything that is under way goes on until nothing is left to do; then nothing may be missing.
    fn come_to_rest(&mut self) {
        for index in 0..CHATS {
            self.load(index);
        }
        self.resume_begin(&mut Input::new(&[]));
        self.resume_look();
        self.resume_end();
        for _ in 0..10_000 {
            (0..CHATS).for_each(|chat| self.show(chat));
            self.receive();
            self.read_begin();
            self.read_on();
            let is_shown = self.chats.iter().all(|chat| matches!(&chat.actor, Ok((_, shown)) if *shown == chat.last));
            if is_shown && self.reading.is_none() && self.connection.next_lagging().is_none() {
                break;
            }
        }
        self.receive();
        let last: Vec<u64> = self.chats.iter().map(|chat| chat.last).collect();
        assert_eq!(self.taken, last, "all of each chat was handed over");
    }
}

/// A connection that has logged in, and the socket that takes from it. Its outbox is small: it soon lags.
fn connected(who: Requester) -> (Arc<Connection>, Socket) {
    let outbox = Outbox::new(OutboxLimits { frames_max: 3, bytes_max: 4_096, reserve_bytes: 1 << 24 });
    let connection = Connection::new(Encoding::MessagePack, Arc::clone(&outbox));
    connection.log_in(who);
    let handles = transport::Connection { outbox, kill: kill_switch(), subprotocol: None };
    let body: Pin<Box<dyn MessageBody<Error = Infallible>>> =
        Box::pin(transport::connect(Silence, TransportLimits::default(), handles, Box::new(Nobody)));
    (connection, Driven::new(body))
}

/// An entry that concerns nobody here.
fn entry(seq: u64) -> LogEntry {
    LogEntry {
        seq: Seq::saturating(seq),
        created_at: Timestamp::saturating(seq),
        log_hash: Hash([0; 32]),
        body: EntryBody::SessionOut(SessionOut::Expired {
            user_id: UserId(Uuid::from_u128(9)),
            session_id: SessionId(Uuid::from_u128(9)),
        }),
    }
}

/// The payload of the first frame, and what follows it; none while it is not whole.
fn server_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, short], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        126 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
        }
        short => (usize::from(short), rest),
    };
    rest.split_at_checked(length)
}

struct Nobody;

impl Inbound for Nobody {
    fn message(&self, _: InboundMessage) {}

    fn pong(&self) {}

    fn closed(&self, _: transport::Closed) {}
}
