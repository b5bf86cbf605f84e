//! A broker as the world sees it: its sockets, which chats are loaded, catch-up, and the lane of the writer.
//!
//! Real: [`Connection`], [`Outbox`], the judgement of a resuming session, the writer's [`Queue`]. Modelled after
//! `broker::directory`, `broker::catch_up`, `gateway::requests` and `store::writer`: when what is called.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sealcast::broker::catch_up::{Standing, judge, say_gone};
use sealcast::broker::chat::fan_out::FanOut;
use sealcast::broker::chat::messages::Subscribed;
use sealcast::broker::connection::{Connection, Lagging};
use sealcast::broker::directory::Subscriber;
use sealcast::broker::outbox::{Outbox, OutboxLimits, PushError};
use sealcast::broker::ready_frame::ReadyFrame;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::error::{CloseCode, Refusal};
use sealcast::protocol::frame::{SendOk, ServerFrame};
use sealcast::protocol::ids::{ChatId, KeyId, Seq};
use sealcast::protocol::log::LogEntry;
use sealcast::store::batch::{BatchLimits, Queue, Waiting};
use sealcast::store::judgement::Verdict;
use sealcast::store::members::Requester;
use sealcast::store::writer::Outcome;

use super::database::Page;
use super::rules::Rule;
use super::shell::{Shell, ShellId};
use super::world::{MILLI, World};

/// The first byte of a frame of the simulation's own: MessagePack never uses it.
const MARK: u8 = 0xc1;

/// An answer or page on its way to a client, in the place of its encoding.
#[derive(Debug)]
pub enum Answer {
    Sent { request: u64, result: Result<SendOk, Refusal> },
    Changed { request: u64, result: Result<u64, Refusal> },
    Resumed { is_done: bool },
    Page { chat_id: ChatId, after: u64, entries: Vec<LogEntry> },
}

/// A frame that the broker's own code encoded.
#[derive(Debug, Clone)]
pub enum Pushed {
    Entry { chat_id: ChatId, seq: u64, log_hash: [u8; 32] },
    Key { chat_id: ChatId, key_id: KeyId },
    Gone { chat_id: ChatId },
    Other,
}

/// One end of a connection and the other.
#[derive(Debug)]
pub struct Socket {
    pub node: usize,
    pub client: usize,
    pub who: Requester,
    pub connection: Arc<Connection>,
    /// The broker still reads from it.
    pub is_open: bool,
    /// When the last frame of the client arrives: frames do not overtake each other.
    pub arrives_at: u64,
    is_reading: bool,
    is_draining: bool,
    is_slow: bool,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub enum Slot {
    Waiting(Vec<Subscriber>),
    Loaded(Box<Shell>),
    /// Its turn runs.
    Taken,
}

/// Whose item waits for the writer.
pub type Ticket = (ShellId, u64);

#[derive(Debug)]
pub struct Node {
    pub is_up: bool,
    /// Grows with each start.
    pub life: u64,
    pub clock_off: i64,
    pub chats: BTreeMap<ChatId, Slot>,
    pub queue: Queue<Ticket>,
    is_committing: bool,
    /// Tells queues of one life apart.
    limits: BatchLimits,
}

impl Node {
    pub fn new(limits: BatchLimits, clock_off: i64) -> Self {
        let queue = Queue::new(limits);
        Self { is_up: true, life: 0, clock_off, chats: BTreeMap::new(), queue, is_committing: false, limits }
    }
}

impl World {
    /// The process dies: what was in memory is gone.
    pub fn kill(&mut self, node: usize) {
        self.tell(|_| format!("node {node} dies"));
        for socket in self.sockets.values_mut().filter(|socket| socket.node == node) {
            socket.is_open = false;
            socket.connection.outbox.abort();
        }
        let dead = &mut self.nodes[node];
        dead.is_up = false;
        dead.life += 1;
        dead.chats.clear();
        dead.queue = Queue::new(dead.limits);
        dead.is_committing = false;
    }

    /// A client's login arrives and is good.
    pub fn accept(&mut self, node: usize, client: usize, number: u64) {
        let session = &self.clients[client];
        let who = Requester { user_id: session.user_id, session_id: session.session_id };
        let limits =
            OutboxLimits { frames_max: self.rng.between(3, 12) as usize, bytes_max: 1 << 16, reserve_bytes: 1 << 20 };
        let connection = Connection::new(Encoding::MessagePack, Outbox::new(limits));
        connection.log_in(who);
        let is_older =
            |socket: &Socket| socket.node == node && socket.is_open && socket.who.session_id == who.session_id;
        let older: Vec<u64> = self.sockets.iter().filter(|(_, socket)| is_older(socket)).map(|(id, _)| *id).collect();
        older.into_iter().for_each(|id| self.close(id, CloseCode::Replaced));
        let is_slow = self.breaks(100);
        self.tell(|_| format!("client {client} is let in"));
        let socket = Socket {
            node,
            client,
            who,
            connection,
            is_open: true,
            arrives_at: 0,
            is_reading: false,
            is_draining: false,
            is_slow,
            buffer: Vec::new(),
        };
        self.sockets.insert(number, socket);
    }

    /// The broker ends a connection after what waits has been written.
    pub fn close(&mut self, number: u64, code: CloseCode) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_open = false;
        let (node, connection) = (socket.node, Arc::clone(&socket.connection));
        connection.close(code);
        for chat_id in connection.chats() {
            self.unsubscribe(node, chat_id, &connection);
        }
    }

    /// The broker finds that a connection has gone.
    pub fn drop_socket(&mut self, number: u64) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_open = false;
        let (node, connection) = (socket.node, Arc::clone(&socket.connection));
        connection.outbox.abort();
        for chat_id in connection.chats() {
            self.unsubscribe(node, chat_id, &connection);
        }
    }

    /// Answers on a connection, in the order of everything else that goes out on it.
    pub fn answer(&mut self, connection: &Connection, answer: Answer) {
        let mut payload = vec![MARK];
        payload.extend_from_slice(&(self.answers.len() as u64).to_be_bytes());
        self.answers.push(Some(answer));
        if connection.outbox.push_reply(&ReadyFrame::binary(&payload)) == Err(PushError::Full) {
            connection.close(CloseCode::Overloaded);
        }
    }

    /// Sees to it that what waits on sockets goes out, and that who lags reads.
    pub fn serve_sockets(&mut self) {
        let numbers: Vec<u64> = self.sockets.keys().copied().collect();
        for number in numbers {
            let Some(socket) = self.sockets.get_mut(&number) else { continue };
            let is_over = socket.connection.outbox.is_closed();
            let (wants_drain, wants_reader) = (
                !socket.is_draining && (socket.connection.outbox.bytes() > 0 || is_over),
                !socket.is_reading && !is_over && socket.connection.next_lagging().is_some(),
            );
            let is_slow = socket.is_slow && !self.calm;
            if wants_drain {
                socket.is_draining = true;
                let delay = if is_slow { self.rng.between(20, 150) * MILLI } else { self.delay() };
                self.after(delay, "drain", move |world| world.drain(number));
            }
            if wants_reader {
                self.sockets.get_mut(&number).unwrap().is_reading = true;
                let delay = self.rng.between(10, MILLI);
                self.after(delay, "reader", move |world| world.read_chat(number));
            }
        }
    }

    fn drain(&mut self, number: u64) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_draining = false;
        let client = socket.client;
        match socket.connection.outbox.poll_chunk(&Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(None) => {
                self.sockets.remove(&number);
                self.disconnected(client, number);
            }
            Poll::Ready(Some(chunk)) => {
                socket.buffer.extend_from_slice(&chunk);
                while let Some(payload) = self.next_frame(number) {
                    self.receive_frame(client, number, payload);
                }
            }
        }
    }

    fn next_frame(&mut self, number: u64) -> Option<Vec<u8>> {
        let buffer = &mut self.sockets.get_mut(&number)?.buffer;
        let (start, length) = match *buffer.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]))),
            short => (2, usize::from(short)),
        };
        let is_close = buffer[0] & 0xf == 8;
        let payload = buffer.get(start..start + length)?.to_vec();
        buffer.drain(..start + length);
        if is_close { Some(Vec::new()) } else { Some(payload) }
    }

    fn receive_frame(&mut self, client: usize, number: u64, payload: Vec<u8>) {
        if payload.is_empty() || self.clients[client].socket != Some(number) {
            return;
        }
        if payload[0] == MARK {
            let index = u64::from_be_bytes(payload[1..9].try_into().unwrap());
            if let Some(answer) = self.answers[index as usize].take() {
                self.receive_answer(client, answer);
            }
            return;
        }
        let pushed = match self.frames.get(&payload) {
            Some(pushed) => pushed.clone(),
            None => {
                let pushed = decode(&payload);
                self.frames.insert(payload, pushed.clone());
                pushed
            }
        };
        self.receive_push(client, pushed);
    }

    /// Puts a connection into a chat's waiting room, or lets the chat say where it stands.
    pub fn subscribe(
        &mut self,
        number: u64,
        chat_id: ChatId,
        position: u64,
        then: impl FnOnce(&mut Self, Subscribed) + 'static,
    ) {
        let Some(socket) = self.sockets.get(&number) else { return };
        let (node, connection) = (socket.node, Arc::clone(&socket.connection));
        let subscriber = Subscriber { connection, position: Seq::saturating(position) };
        if subscriber.connection.outbox.is_closed() {
            return then(self, Subscribed::Waiting);
        }
        let slot = self.nodes[node].chats.entry(chat_id).or_insert_with(|| Slot::Waiting(Vec::new()));
        match slot {
            Slot::Waiting(waiting) => {
                waiting.retain(|other| other.connection.id != subscriber.connection.id);
                waiting.push(subscriber);
                then(self, Subscribed::Waiting);
            }
            Slot::Loaded(_) | Slot::Taken => {
                self.with_shell(node, chat_id, |shell, world| shell.stand(subscriber, Box::new(then), world));
            }
        }
    }

    pub fn unsubscribe(&mut self, node: usize, chat_id: ChatId, connection: &Connection) {
        match self.nodes[node].chats.get_mut(&chat_id) {
            Some(Slot::Waiting(waiting)) => waiting.retain(|other| other.connection.id != connection.id),
            Some(Slot::Loaded(shell)) => shell.fan_out.remove(connection.id),
            Some(Slot::Taken) | None => {}
        }
    }

    /// The chat's actor, loaded if it must be, takes a turn.
    pub fn with_chat(&mut self, node: usize, chat_id: ChatId, turn: impl FnOnce(&mut Shell, &mut Self)) {
        let waiting = match self.nodes[node].chats.get_mut(&chat_id) {
            Some(Slot::Loaded(_) | Slot::Taken) => return self.with_shell(node, chat_id, turn),
            Some(Slot::Waiting(waiting)) => std::mem::take(waiting),
            None => Vec::new(),
        };
        let number = self.fresh();
        let id = ShellId { node, life: self.nodes[node].life, chat_id, number };
        let mut fan_out = FanOut::new(chat_id, self.metrics.clone());
        for subscriber in waiting {
            if let Some(who) = subscriber.connection.who() {
                fan_out.insert(who.session_id, subscriber);
            }
        }
        let shell = Box::new(Shell::new(id, fan_out));
        self.nodes[node].chats.insert(chat_id, Slot::Loaded(shell));
        self.with_shell(node, chat_id, |shell, world| {
            shell.pump(world);
            turn(shell, world);
        });
    }

    /// A turn of a chat's actor, if it is loaded.
    pub fn with_shell(&mut self, node: usize, chat_id: ChatId, turn: impl FnOnce(&mut Shell, &mut Self)) {
        let Some(slot) = self.nodes[node].chats.get_mut(&chat_id) else { return };
        if !matches!(slot, Slot::Loaded(_)) {
            return;
        }
        let Slot::Loaded(mut shell) = std::mem::replace(slot, Slot::Taken) else { return };
        turn(&mut shell, self);
        let slot = match shell.leaves_behind() {
            None => Slot::Loaded(shell),
            Some(waiting) => Slot::Waiting(waiting),
        };
        self.nodes[node].chats.insert(chat_id, slot);
    }

    /// A turn of the very actor that asked, if it is still there.
    pub fn with_same(&mut self, id: ShellId, turn: impl FnOnce(&mut Shell, &mut Self)) {
        let chats = &self.nodes[id.node].chats;
        if matches!(chats.get(&id.chat_id), Some(Slot::Loaded(shell)) if shell.id == id) {
            self.with_shell(id.node, id.chat_id, turn);
        }
    }

    /// `catch_up::read_chat`: brings one chat of a connection up to date, or moves its place on.
    fn read_chat(&mut self, number: u64) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_reading = false;
        if socket.connection.outbox.is_closed() {
            return;
        }
        let Some(lagging) = socket.connection.next_lagging() else { return };
        socket.is_reading = true;
        if !socket.connection.outbox.below_low_water() {
            let pause = self.rng.between(100, 2 * MILLI);
            return self.after(pause, "not drained", move |world| world.read_chat(number));
        }
        if lagging.has_more {
            return self.read_on(number, lagging, Subscribed::Behind);
        }
        self.subscribe(number, lagging.chat_id, lagging.after.get(), move |world, subscribed| {
            world.after(0, "stands", move |world| world.read_on(number, lagging, subscribed));
        });
    }

    fn read_on(&mut self, number: u64, lagging: Lagging, subscribed: Subscribed) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        let client = socket.client;
        self.tell(|_| format!("client {client} stands at {}: {subscribed:?}", lagging.after));
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        match subscribed {
            Subscribed::Live => {
                socket.connection.caught_up(lagging);
                socket.is_reading = false;
                return;
            }
            Subscribed::Again => {
                socket.is_reading = false;
                return;
            }
            Subscribed::Waiting | Subscribed::Behind | Subscribed::Stranger => {}
        }
        let who = socket.who;
        let look = move |world: &Self| world.db.page(who, lagging.chat_id, lagging.after.get());
        self.read(look, move |world, page| world.read_page(number, lagging, subscribed, page));
    }

    fn read_page(&mut self, number: u64, lagging: Lagging, subscribed: Subscribed, page: Option<Option<Page>>) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.is_reading = false;
        let (node, connection, chat_id) = (socket.node, Arc::clone(&socket.connection), lagging.chat_id);
        match page {
            Some(Some(_)) if subscribed == Subscribed::Stranger => {
                self.with_shell(node, chat_id, |shell, world| shell.refresh(world));
            }
            Some(Some(page)) if page.entries.is_empty() && !lagging.has_more => connection.caught_up(lagging),
            Some(Some(Page { after, entries, more })) => {
                let is_here = connection.advance(lagging, Seq::saturating(after + entries.len() as u64), more);
                if is_here && !entries.is_empty() {
                    self.answer(&connection, Answer::Page { chat_id, after, entries });
                }
            }
            Some(None) if connection.forget_lagging(lagging) || self.forget_anyway(&connection, chat_id) => {
                self.unsubscribe(node, chat_id, &connection);
                say_gone(&connection, chat_id);
            }
            Some(None) => {}
            None => {
                if let Some(socket) = self.sockets.get_mut(&number) {
                    socket.is_reading = true;
                }
                self.after(5 * MILLI, "store pause", move |world| world.read_chat(number));
            }
        }
    }

    /// `gateway::requests::resume`: first the connection stands in its chats, then the store is looked at.
    pub fn resume(
        &mut self,
        number: u64,
        mut cursors: VecDeque<(ChatId, u64)>,
        mut standing: BTreeMap<ChatId, (u64, Subscribed, bool)>,
    ) {
        let Some(socket) = self.sockets.get(&number) else { return };
        let (connection, who) = (Arc::clone(&socket.connection), socket.who);
        let Some((chat_id, seq)) = cursors.pop_front() else {
            connection.has_resumed.store(true, Ordering::Release);
            return self.read(
                move |world| world.db.positions(who),
                move |world, positions| world.resume_by(number, standing, positions),
            );
        };
        let was_in = connection.stand(chat_id);
        self.subscribe(number, chat_id, seq, move |world, subscribed| {
            standing.insert(chat_id, (seq, subscribed, was_in));
            world.after(0, "stands", move |world| world.resume(number, cursors, standing));
        });
    }

    fn resume_by(
        &mut self,
        number: u64,
        mut standing: BTreeMap<ChatId, (u64, Subscribed, bool)>,
        positions: Option<Vec<sealcast::store::chats::ChatPosition>>,
    ) {
        let Some(socket) = self.sockets.get(&number) else { return };
        let (node, connection) = (socket.node, Arc::clone(&socket.connection));
        let Some(positions) = positions else {
            for (chat_id, (seq, _, was_in)) in standing {
                if connection.give_up_standing(chat_id, was_in, Seq::saturating(seq)) {
                    self.unsubscribe(node, chat_id, &connection);
                }
            }
            return self.answer(&connection, Answer::Resumed { is_done: false });
        };
        let client = socket.client;
        self.tell(|_| format!("client {client} resumes by {positions:?}"));
        for position in positions {
            let asked = standing.remove(&position.chat_id).map(|(seq, stands, _)| (Seq::saturating(seq), stands));
            match judge(asked, &position, connection.is_in(position.chat_id)) {
                Standing::Ahead => self.violated(format!("a cursor of {asked:?} is ahead of {position:?}")),
                Standing::Live => connection.stood(position.chat_id),
                Standing::Behind(after) => {
                    if matches!(asked, Some((_, Subscribed::Live))) {
                        self.with_shell(node, position.chat_id, |shell, world| shell.refresh(world));
                    }
                    connection.lag_behind(position.chat_id, after, position.last_seq);
                }
                Standing::AsBefore => {}
            }
        }
        for chat_id in standing.into_keys() {
            if connection.forget_standing(chat_id) || self.forget_anyway(&connection, chat_id) {
                self.unsubscribe(node, chat_id, &connection);
                say_gone(&connection, chat_id);
            }
        }
        if connection.outbox.is_closed() {
            for chat_id in connection.chats() {
                self.unsubscribe(node, chat_id, &connection);
            }
        }
        self.answer(&connection, Answer::Resumed { is_done: true });
    }

    /// Forgets a chat whatever was said of it meanwhile, where that is no matter.
    fn forget_anyway(&self, connection: &Connection, chat_id: ChatId) -> bool {
        let may_forget = !self.holds(Rule::ReturnsAreKept);
        if may_forget {
            connection.forget(chat_id);
        }
        may_forget
    }

    /// `BatchWriter::commit_next`.
    pub fn commit_next(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life || !self.nodes[node].is_up {
            return;
        }
        let now = self.instant();
        let oldest = now.checked_sub(Duration::from_secs(2));
        let old = oldest.map(|oldest| self.nodes[node].queue.take_older_than(oldest)).unwrap_or_default();
        for waiting in old {
            self.appended(waiting.reply, Outcome::Conflict);
        }
        if self.nodes[node].is_committing {
            return;
        }
        let batch = self.nodes[node].queue.take(now);
        if batch.is_empty() {
            if let Some(next_try) = self.nodes[node].queue.next_try() {
                let pause = next_try.saturating_duration_since(now).as_micros() as u64 + 1;
                self.after(pause, "lane", move |world| world.commit_next(node, life));
            }
            return;
        }
        self.nodes[node].is_committing = true;
        let there = self.delay();
        self.after(there, "begin", move |world| world.begin(node, life, batch));
    }

    fn begin(&mut self, node: usize, life: u64, batch: Vec<Waiting<Ticket>>) {
        if self.nodes[node].life != life {
            return;
        }
        if self.db.down_until > self.now || self.breaks(20) {
            let delay = self.delay();
            return self.after(delay, "no database", move |world| world.batch_done(node, life, batch, None));
        }
        let tx = self.fresh();
        let judged_at = self.now;
        let mut items: Vec<_> = batch.iter().map(|waiting| Arc::clone(&waiting.item)).collect();
        let found = self.db.begin_batch(tx, &mut items, judged_at);
        if found.accepted.is_empty() {
            self.db.unlock(tx);
            let delay = self.delay();
            return self.after(delay, "nothing to commit", move |world| {
                world.batch_done(node, life, batch, Some(found.verdicts));
            });
        }
        let accepted = found.accepted;
        let write = move |world: &mut Self| {
            for item in &accepted {
                world.check_commit(item, &accepted, judged_at);
                world.db.commit_item(item);
                if world.nodes[node].life != life
                    && let (Some(entry), Some(chat)) = (&item.entry, world.db.chats.get_mut(&item.chat_id))
                {
                    chat.orphans.insert(entry.seq.get());
                }
            }
        };
        let verdicts = found.verdicts;
        self.transact(node, tx, write, move |world, result| {
            world.batch_done(node, life, batch, result.map(|()| verdicts));
        });
    }

    fn batch_done(&mut self, node: usize, life: u64, batch: Vec<Waiting<Ticket>>, verdicts: Option<Vec<Verdict>>) {
        if self.nodes[node].life != life {
            return;
        }
        let Some(verdicts) = verdicts else {
            for waiting in batch {
                self.appended(waiting.reply, Outcome::Unknown);
            }
            self.nodes[node].is_committing = false;
            return self.after(20 * MILLI, "reconnect", move |world| world.commit_next(node, life));
        };
        let mut busy = Vec::new();
        for (waiting, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Done(outcome) => self.appended(waiting.reply, outcome),
                Verdict::Busy => busy.push(waiting),
            }
        }
        let until = self.instant() + Duration::from_millis(5);
        self.nodes[node].queue.put_back(busy, until);
        self.nodes[node].is_committing = false;
        self.commit_next(node, life);
    }

    fn appended(&mut self, (id, ticket): Ticket, outcome: Outcome) {
        self.after(0, "appended", move |world| {
            world.with_same(id, |shell, world| shell.appended(ticket, outcome, world));
        });
    }
}

fn decode(payload: &[u8]) -> Pushed {
    match rmp_serde::from_slice::<ServerFrame>(payload).unwrap() {
        ServerFrame::Entry(entry) => {
            Pushed::Entry { chat_id: entry.chat_id, seq: entry.entry.seq.get(), log_hash: entry.entry.log_hash.0 }
        }
        ServerFrame::Key(key) => Pushed::Key { chat_id: key.chat_id, key_id: key.key.announcement.announcement.key_id },
        ServerFrame::ChatGone(gone) => Pushed::Gone { chat_id: gone.chat_id },
        _ => Pushed::Other,
    }
}
