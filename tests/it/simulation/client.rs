//! A client: one session that sends, resends the same bytes until it has a definite answer, and follows the log.
//!
//! It keeps to docs/protocol.md where it must, and is careless where it may: it keeps a sender key until the server
//! refuses it, and rebuilds with the same key when told that the recipients are others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealcast::protocol::binary::{Blob, Hash, Signature, WrappedKey};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::error::{ErrorCode, Refusal};
use sealcast::protocol::frame::{NewKey, Send, SendOk};
use sealcast::protocol::ids::{ChangeNo, ChatId, Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId, UserId};
use sealcast::protocol::keys::{Announcement, KeyCopy, SignedAnnouncement};
use sealcast::protocol::membership::{Actor, Change, MembershipChange, SignedChange, Target};

use super::database::{Database, State, identity_key};
use super::fold::Fold;
use super::node::{Answer, Pushed};
use super::oracle::Made;
use super::shell::{Control, Submit, Work};
use super::world::{MILLI, World};

/// Messages that a client has open at a time.
const OPEN_MAX: usize = 3;

#[derive(Debug, Clone)]
pub struct OwnKey {
    id: KeyId,
    epoch: u64,
    announcement: SignedAnnouncement,
    /// The counter of the newest message that was made with it.
    last: u64,
    /// The same of those that were acknowledged.
    acknowledged: u64,
    is_stored: bool,
    /// Further copies that the next message carries.
    owed: BTreeSet<SessionId>,
}

#[derive(Debug)]
pub struct ClientChat {
    pub fold: Fold,
    pub is_gone: bool,
    key: Option<OwnKey>,
    /// What was refused has to be made again, once nothing is open.
    settles: bool,
    /// The log is followed to here first.
    wants: u64,
    sent: Vec<(MessageId, u64)>,
}

#[derive(Debug)]
pub enum What {
    Message { id: MessageId, kind: MessageKind, revision: u64, sealed: Option<Box<Send>> },
    Change(Box<SignedChange>),
}

#[derive(Debug)]
pub struct Outgoing {
    pub chat_id: ChatId,
    pub what: What,
    /// The request by which it is open, and how many the client had sent before.
    open: Option<u64>,
    not_before: u64,
    tries: u64,
}

impl Outgoing {
    pub fn name(&self) -> String {
        match &self.what {
            What::Message { id, revision, sealed, .. } => {
                format!("{id} {revision} open {:?} sealed {} tries {}", self.open, sealed.is_some(), self.tries)
            }
            What::Change(signed) => format!("{:?} open {:?} tries {}", signed.change.change, self.open, self.tries),
        }
    }
}

#[derive(Debug)]
pub struct Client {
    pub session_id: SessionId,
    pub user_id: UserId,
    pub socket: Option<u64>,
    is_resumed: bool,
    pub chats: BTreeMap<ChatId, ClientChat>,
    pub outgoing: Vec<Outgoing>,
    /// Signatures of messages that were open when one behind them was refused as a gap: none may be accepted now.
    overtaken: BTreeSet<Vec<u8>>,
}

impl Client {
    pub fn new(session_id: SessionId, user_id: UserId) -> Self {
        Self {
            session_id,
            user_id,
            socket: None,
            is_resumed: false,
            chats: BTreeMap::new(),
            outgoing: Vec::new(),
            overtaken: BTreeSet::new(),
        }
    }

    pub fn is_live(&self, db: &Database) -> bool {
        db.sessions[&self.session_id].state == State::Live
    }
}

impl World {
    pub fn add_client(&mut self, session_id: SessionId, user_id: UserId) {
        self.clients.push(Client::new(session_id, user_id));
        let index = self.clients.len() - 1;
        let delay = self.delay();
        self.after(delay, "client", move |world| world.client_turn(index));
    }

    pub fn client_turn(&mut self, index: usize) {
        let pause = if self.calm { 60 * MILLI } else { self.rng.between(5, 45) * MILLI };
        self.after(pause, "client", move |world| world.client_turn(index));
        if !self.clients[index].is_live(&self.db) {
            return;
        }
        if self.clients[index].socket.is_none() {
            return self.connect(index);
        }
        if !self.clients[index].is_resumed {
            return;
        }
        if !self.calm {
            match self.rng.below(100) {
                0..=44 => self.write(index),
                45..=54 => self.revise(index),
                55..=62 => self.manage(index),
                63..=65 => return self.hang_up(index),
                _ => {}
            }
        }
        self.send_what_waits(index);
    }

    fn connect(&mut self, index: usize) {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_up).collect();
        let Some(node) = self.rng.pick(&up) else { return };
        let number = self.fresh();
        self.clients[index].socket = Some(number);
        self.clients[index].is_resumed = false;
        let (life, delay) = (self.nodes[node].life, self.delay());
        self.after(delay, "login", move |world| {
            let is_wanted = world.clients[index].socket == Some(number);
            let session_id = world.clients[index].session_id;
            let row = &world.db.sessions[&session_id];
            let is_good = row.state == State::Live && row.expired_at > world.now;
            if world.nodes[node].life != life || !is_good || !is_wanted || !world.nodes[node].is_up {
                if is_wanted {
                    world.disconnected(index, number);
                }
                return;
            }
            world.accept(node, index, number);
            world.send_resume(index, number);
            world.send_what_waits(index);
        });
    }

    fn send_resume(&mut self, index: usize, number: u64) {
        let chats = &self.clients[index].chats;
        let cursors: VecDeque<(ChatId, u64)> =
            chats.iter().filter(|(_, chat)| !chat.is_gone).map(|(id, chat)| (*id, chat.fold.seq)).collect();
        self.bring(number, move |world| world.resume(number, cursors, BTreeMap::new()));
    }

    /// A frame on its way to the broker, behind those before it; lost if the broker has stopped reading.
    fn bring(&mut self, number: u64, arrive: impl FnOnce(&mut Self) + 'static) {
        let delay = self.delay();
        let now = self.now;
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.arrives_at = socket.arrives_at.max(now + delay);
        let delay = socket.arrives_at - now;
        self.after(delay, "frame", move |world| {
            if world.sockets.get(&number).is_some_and(|socket| socket.is_open) {
                arrive(world);
            }
        });
    }

    /// The client's end of a connection goes; the broker finds out later.
    fn hang_up(&mut self, index: usize) {
        let Some(number) = self.clients[index].socket else { return };
        self.disconnected(index, number);
        let delay = self.delay();
        self.after(delay, "connection lost", move |world| world.drop_socket(number));
    }

    pub fn disconnected(&mut self, index: usize, number: u64) {
        let client = &mut self.clients[index];
        if client.socket != Some(number) {
            return;
        }
        client.socket = None;
        client.is_resumed = false;
        client.overtaken.clear();
        client.outgoing.iter_mut().for_each(|outgoing| outgoing.open = None);
    }

    fn pick_chat(&mut self, index: usize) -> Option<ChatId> {
        let chats = &self.clients[index].chats;
        let live: Vec<ChatId> = chats.iter().filter(|(_, chat)| !chat.is_gone).map(|(id, _)| *id).collect();
        self.rng.pick(&live)
    }

    fn write(&mut self, index: usize) {
        let Some(chat_id) = self.pick_chat(index) else { return };
        let id = MessageId(self.rng.id());
        let what = What::Message { id, kind: MessageKind::Message, revision: 0, sealed: None };
        self.clients[index].outgoing.push(Outgoing { chat_id, what, open: None, not_before: 0, tries: 0 });
    }

    fn revise(&mut self, index: usize) {
        let Some(chat_id) = self.pick_chat(index) else { return };
        let chat = self.clients[index].chats.get_mut(&chat_id).unwrap();
        let Some(place) = chat.sent.len().checked_sub(1) else { return };
        let (id, revision) = chat.sent.remove(place);
        let kind = if self.rng.chance(300) { MessageKind::Delete } else { MessageKind::Edit };
        let what = What::Message { id, kind, revision: revision + 1, sealed: None };
        self.clients[index].outgoing.push(Outgoing { chat_id, what, open: None, not_before: 0, tries: 0 });
    }

    fn manage(&mut self, index: usize) {
        let Some(chat_id) = self.pick_chat(index) else { return };
        let (user_id, session_id) = (self.clients[index].user_id, self.clients[index].session_id);
        let is_change = |outgoing: &Outgoing| matches!(outgoing.what, What::Change(_)) && outgoing.chat_id == chat_id;
        let fold = self.clients[index].chats[&chat_id].fold.clone();
        let Some(rights) = fold.members.get(&user_id).copied() else { return };
        if self.clients[index].outgoing.iter().any(is_change) {
            return;
        }
        let others: Vec<UserId> =
            fold.members.keys().copied().filter(|id| *id != user_id && Some(*id) != fold.owner).collect();
        let strangers: Vec<UserId> = self.users.iter().copied().filter(|id| !fold.members.contains_key(id)).collect();
        let (change, target) = match self.rng.below(10) {
            0..=2 if rights.can_manage => {
                let (can_write, can_manage) = (true, self.rng.chance(500));
                let (roster_hash, epoch) = (fold.roster_hash(), Epoch::saturating(fold.epoch));
                (Change::Add { can_write, can_manage, roster_hash, epoch }, self.rng.pick(&strangers))
            }
            3..=4 if rights.can_manage => (Change::Remove, self.rng.pick(&others)),
            5..=6 if rights.can_manage => {
                let target = self.rng.pick(&others);
                let can_write = target.is_some_and(|target| !fold.members[&target].can_write);
                let can_manage = target.is_some_and(|target| fold.members[&target].can_manage);
                (Change::SetRights { can_write, can_manage }, target)
            }
            7..=8 if rights.can_manage => (Change::Rekey, Some(user_id)),
            9 if fold.owner != Some(user_id) => (Change::Leave, Some(user_id)),
            _ => return,
        };
        let Some(target) = target else { return };
        let signature = self.signature();
        self.oracle.chat_of_change.insert(signature.as_ref().to_vec(), chat_id);
        let change = MembershipChange {
            n: ChangeNo::saturating(fold.change_no + 1),
            previous: fold.change_hash,
            seen: Seen { seq: Seq::saturating(fold.seq), log_hash: fold.log_hash },
            actor: Actor { user_id, session_id, identity_key: identity_key(user_id) },
            change,
            target: Target { user_id: target, identity_key: identity_key(target) },
        };
        let what = What::Change(Box::new(SignedChange { change, signature }));
        self.clients[index].outgoing.push(Outgoing { chat_id, what, open: None, not_before: 0, tries: 0 });
    }

    /// Bytes that no other signature of this world has.
    pub fn signature(&mut self) -> Signature {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&self.fresh().to_be_bytes());
        Signature(bytes)
    }

    pub fn send_what_waits(&mut self, index: usize) {
        let Some(number) = self.clients[index].socket else { return };
        if !self.sockets.contains_key(&number) {
            return;
        }
        let mut outgoing = std::mem::take(&mut self.clients[index].outgoing);
        let mut held: BTreeSet<ChatId> = BTreeSet::new();
        for place in 0..outgoing.len() {
            let chat_id = outgoing[place].chat_id;
            let open = outgoing.iter().filter(|other| other.chat_id == chat_id && other.open.is_some()).count();
            let is_sealed = |other: &&Outgoing| matches!(&other.what, What::Message { sealed: Some(_), .. });
            let sealed = outgoing.iter().filter(|other| other.chat_id == chat_id).filter(is_sealed).count();
            let this = &mut outgoing[place];
            // What went before goes again first: only by its answer does the client know where its key stands.
            let was_sent = is_sealed(&&*this);
            if this.open.is_some() || (held.contains(&chat_id) && !was_sent) {
                continue;
            }
            let is_early = this.not_before > self.now;
            if is_early || open >= OPEN_MAX || !self.make(index, this, sealed) {
                // What is behind it in the chat keeps its place.
                held.insert(chat_id);
                continue;
            }
            let request = self.fresh();
            this.open = Some(request);
            this.tries += 1;
            self.send_one(index, number, request, &outgoing[place]);
        }
        self.clients[index].outgoing = outgoing;
    }

    fn send_one(&mut self, index: usize, number: u64, request: u64, outgoing: &Outgoing) {
        let Some(socket) = self.sockets.get(&number) else { return };
        let (node, who, chat_id) = (socket.node, socket.who, outgoing.chat_id);
        let connection = std::sync::Arc::clone(&socket.connection);
        match &outgoing.what {
            What::Message { sealed, .. } => {
                let Some(send) = sealed.clone() else { return };
                self.tell(|_| format!("client {index} sends {} counter {}", outgoing.name(), send.envelope.counter));
                self.bring(number, move |world| {
                    let submit = Submit { who, send, since: world.now, connection, request };
                    world.with_chat(node, chat_id, |chat, world| chat.enqueue(Work::Submit(submit), world));
                });
            }
            What::Change(signed) => {
                let change = signed.clone();
                self.tell(|_| format!("client {index} sends {}", outgoing.name()));
                self.bring(number, move |world| {
                    let control = Control { who, change, since: world.now, connection, request };
                    world.with_chat(node, chat_id, |chat, world| chat.enqueue(Work::Control(control), world));
                });
            }
        }
    }

    /// Seals a message if it is not sealed; whether it may go.
    fn make(&mut self, index: usize, outgoing: &mut Outgoing, sealed_now: usize) -> bool {
        let What::Message { id, kind, revision, sealed } = &mut outgoing.what else { return true };
        if sealed.is_some() {
            return true;
        }
        let (session_id, user_id) = (self.clients[index].session_id, self.clients[index].user_id);
        let signature = self.signature();
        let (new_id, is_careful) = (KeyId(self.rng.id()), self.rng.chance(400));
        let Some(chat) = self.clients[index].chats.get_mut(&outgoing.chat_id) else { return false };
        if chat.fold.seq < chat.wants || (chat.settles && sealed_now > 0) {
            return false;
        }
        if chat.settles {
            chat.settles = false;
            if let Some(key) = &mut chat.key {
                key.last = key.acknowledged;
            }
        }
        let (fold, chat_id) = (&chat.fold, outgoing.chat_id);
        let mut envelope = Envelope {
            kind: *kind,
            message_id: *id,
            revision: Revision::saturating(*revision),
            sender_id: user_id,
            sender_session_id: session_id,
            key_id: None,
            counter: Counter::default(),
            roster_hash: fold.roster_hash(),
            seen: Seen { seq: Seq::saturating(fold.seq), log_hash: fold.log_hash },
            attachments: Vec::new(),
            data: None,
            purged: None,
            signature,
        };
        if *kind == MessageKind::Delete {
            *sealed = Some(Box::new(Send { chat_id, envelope, new_key: None, add_copies: Vec::new(), archive: None }));
            return true;
        }
        if chat.key.as_ref().is_some_and(|key| is_careful && key.epoch != fold.epoch) {
            chat.key = None;
        }
        let key = chat.key.get_or_insert_with(|| {
            let announcement = Announcement {
                key_id: new_id,
                session_id,
                epoch: Epoch::saturating(fold.epoch),
                commitment: Hash([7; 32]),
                previous: None,
            };
            OwnKey {
                id: new_id,
                epoch: fold.epoch,
                announcement: SignedAnnouncement { announcement, signature },
                last: 0,
                acknowledged: 0,
                is_stored: false,
                owed: BTreeSet::new(),
            }
        });
        key.last += 1;
        envelope.key_id = Some(key.id);
        envelope.counter = Counter::saturating(key.last);
        envelope.data = Some(Blob::from(vec![1; 8]));
        let wrap = |id: &SessionId| KeyCopy { session_id: *id, key: WrappedKey([9; 80]) };
        let made = self.oracle.keys.entry((chat_id, key.id));
        let made = made.or_insert_with(|| Made { epoch: key.epoch, wrapped_for: BTreeSet::new() });
        let (mut new_key, mut add_copies) = (None, Vec::new());
        if key.is_stored {
            add_copies = key.owed.iter().filter(|id| fold.recipients.contains_key(id)).map(wrap).collect();
            key.owed.clear();
        } else {
            let copies: Vec<KeyCopy> = fold.recipients.keys().map(wrap).collect();
            new_key = Some(NewKey { announcement: key.announcement.clone(), copies, staged: None });
        }
        let wrapped = new_key.iter().flat_map(|new_key| new_key.copies.iter()).chain(&add_copies);
        made.wrapped_for.extend(wrapped.map(|copy| copy.session_id));
        *sealed = Some(Box::new(Send { chat_id, envelope, new_key, add_copies, archive: None }));
        true
    }

    pub fn receive_answer(&mut self, index: usize, answer: Answer) {
        match answer {
            Answer::Sent { request, result } => self.receive_sent(index, request, result),
            Answer::Changed { request, result } => self.receive_changed(index, request, result),
            Answer::Resumed { is_done: true } => self.clients[index].is_resumed = true,
            Answer::Resumed { is_done: false } => {
                let pause = self.rng.between(5, 30) * MILLI;
                let number = self.clients[index].socket;
                self.after(pause, "resume again", move |world| {
                    if let Some(number) = number.filter(|_| world.clients[index].socket == number) {
                        world.send_resume(index, number);
                    }
                });
            }
            Answer::Page { chat_id, after, entries } => self.receive_page(index, chat_id, after, &entries),
        }
        self.send_what_waits(index);
    }

    fn take_open(&mut self, index: usize, request: u64) -> Option<(usize, Outgoing)> {
        let outgoing = &mut self.clients[index].outgoing;
        let place = outgoing.iter().position(|outgoing| outgoing.open == Some(request))?;
        Some((place, outgoing.remove(place)))
    }

    fn receive_sent(&mut self, index: usize, request: u64, result: Result<SendOk, Refusal>) {
        let Some((place, mut outgoing)) = self.take_open(index, request) else {
            return self.violated(format!("request {request} was answered twice: {result:?}"));
        };
        outgoing.open = None;
        let What::Message { id, revision, sealed, .. } = &mut outgoing.what else { return };
        let (chat_id, name) = (outgoing.chat_id, (*id, *revision));
        let Some(send) = sealed.clone() else { return };
        let told = match &result {
            Ok(sent) => format!("ok {} duplicate {}", sent.seq, sent.duplicate),
            Err(refusal) => format!("{:?}", refusal.code),
        };
        self.tell(|_| format!("client {index} hears of {name:?}: {told}"));
        self.note(told.len() as u64);
        let was_overtaken = self.clients[index].overtaken.remove(send.envelope.signature.as_ref());
        let is_new = result.as_ref().is_ok_and(|sent| !sent.duplicate);
        if was_overtaken && is_new && !self.oracle.strangers.contains(&self.clients[index].session_id) {
            return self.violated(format!("P3: {name:?} is accepted after one behind it was refused as a gap"));
        }
        let Some(chat) = self.clients[index].chats.get_mut(&chat_id) else { return };
        let refusal = match result {
            Ok(sent) => {
                chat.acknowledge(&send, name);
                return self.check_acknowledged(chat_id, name, sent.seq.get(), send.envelope.signature.as_ref());
            }
            Err(refusal) => refusal,
        };
        let details = refusal.details.clone().unwrap_or_default();
        let is_one_node = self.nodes.len() == 1;
        match refusal.code {
            ErrorCode::RateLimited | ErrorCode::StorageUnavailable | ErrorCode::Internal => {
                outgoing.not_before = self.now + self.rng.between(2, 40) * MILLI;
                return self.clients[index].outgoing.insert(place, outgoing);
            }
            ErrorCode::AheadOfLog if !is_one_node => {
                outgoing.not_before = self.now + 20 * MILLI;
                return self.clients[index].outgoing.insert(place, outgoing);
            }
            ErrorCode::IdReused => {
                let found = details.stored.map(|stored| (stored.seq.get(), stored.log_hash));
                return self.receive_reused(chat_id, name, found, index);
            }
            ErrorCode::AheadOfLog | ErrorCode::BadSignature | ErrorCode::Malformed | ErrorCode::TooLarge => {
                return self.violated(format!("{name:?} is refused: {refusal:?}"));
            }
            _ => {}
        }
        self.oracle.refused.insert(send.envelope.signature.as_ref().to_vec());
        if refusal.code == ErrorCode::CounterGap && is_one_node {
            self.note_overtaken(index, place, &send, request);
        }
        let Some(chat) = self.clients[index].chats.get_mut(&chat_id) else { return };
        chat.settles = true;
        chat.wants = chat.wants.max(details.seq.map_or(0, Seq::get));
        match refusal.code {
            ErrorCode::UnknownChat | ErrorCode::CannotWrite | ErrorCode::EditConflict | ErrorCode::UnknownMessage => {
                return;
            }
            ErrorCode::KeyStale | ErrorCode::KeySpent | ErrorCode::KeyExists | ErrorCode::UnknownKey => {
                chat.key.take_if(|key| Some(key.id) == send.envelope.key_id);
            }
            ErrorCode::CopiesMissing => {
                if let Some(key) = chat.key.as_mut().filter(|key| Some(key.id) == send.envelope.key_id) {
                    key.is_stored = true;
                    key.owed.extend(details.missing);
                }
            }
            _ => {}
        }
        if chat.is_gone {
            return;
        }
        if outgoing.tries > 200 {
            let knows = (chat.fold.seq, chat.fold.epoch, chat.wants);
            return self.violated(format!("{name:?} finds no end: {refusal:?}, client {index} knows {knows:?}"));
        }
        if let What::Message { sealed, .. } = &mut outgoing.what {
            *sealed = None;
        }
        self.clients[index].outgoing.insert(place, outgoing);
    }

    /// The id of a message is in the log with other bytes: those that were refused before.
    ///
    /// With one broker that never is. Where there are two, one may refuse while a transaction of the other, which has died,
    /// is still to commit; then the client takes what is stored as its own.
    fn receive_reused(&mut self, chat_id: ChatId, name: (MessageId, u64), found: Option<(u64, Hash)>, index: usize) {
        let Some((seq, log_hash)) = found.filter(|_| self.nodes.len() > 1) else {
            return self.violated(format!("P2: {name:?} is told to be reused, stored {found:?}"));
        };
        if let Some(chat) = self.clients[index].chats.get_mut(&chat_id) {
            chat.settles = true;
        }
        let stored = self.db.chats[&chat_id].log.get(seq as usize - 1);
        if stored.is_none_or(|stored| stored.log_hash != log_hash) {
            self.violated(format!("P2: {name:?} is told to be at {seq} and is not there"));
        }
    }

    /// A counter is not the next, though all before it went ahead in order on the same connection: none of those may be
    /// accepted after it.
    fn note_overtaken(&mut self, index: usize, place: usize, send: &Send, request: u64) {
        let client = &mut self.clients[index];
        let key = client.chats.get(&send.chat_id).and_then(|chat| chat.key.as_ref());
        let Some(key) = key.filter(|key| Some(key.id) == send.envelope.key_id) else { return };
        let mut earlier: Vec<(u64, Option<u64>, Vec<u8>)> = Vec::new();
        for other in client.outgoing.iter().take(place) {
            if let What::Message { sealed: Some(other_send), .. } = &other.what
                && other_send.chat_id == send.chat_id
                && other_send.envelope.key_id == Some(key.id)
            {
                let signature = other_send.envelope.signature.as_ref().to_vec();
                earlier.push((other_send.envelope.counter.get(), other.open, signature));
            }
        }
        let is_whole = key.acknowledged + earlier.len() as u64 + 1 == send.envelope.counter.get();
        let in_order = earlier.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1);
        let all_open = earlier.iter().all(|(_, open, _)| open.is_some_and(|open| open < request));
        if is_whole && in_order && all_open {
            client.overtaken.extend(earlier.into_iter().map(|(_, _, signature)| signature));
        }
    }

    fn receive_changed(&mut self, index: usize, request: u64, result: Result<u64, Refusal>) {
        let Some((place, mut outgoing)) = self.take_open(index, request) else {
            return self.violated(format!("change {request} was answered twice: {result:?}"));
        };
        outgoing.open = None;
        let What::Change(signed) = &outgoing.what else { return };
        let told = result.as_ref().map_err(|refusal| refusal.code).copied();
        self.tell(|_| format!("client {index} hears of {}: {told:?}", outgoing.name()));
        match result {
            Ok(seq) => {
                let stored = self.db.chats[&outgoing.chat_id].log.get(seq as usize - 1);
                let is_there = stored.is_some_and(|stored| {
                    matches!(&stored.body, sealcast::protocol::log::EntryBody::Membership(stored) if stored == &**signed)
                });
                if !is_there {
                    self.violated(format!("P1: a change was acknowledged at {seq} and is not there"));
                }
            }
            Err(refusal) if matches!(refusal.code, ErrorCode::StorageUnavailable | ErrorCode::RateLimited) => {
                outgoing.not_before = self.now + self.rng.between(2, 40) * MILLI;
                self.clients[index].outgoing.insert(place, outgoing);
            }
            Err(_) => {
                self.oracle.refused.insert(signed.signature.as_ref().to_vec());
            }
        }
    }

    pub fn receive_push(&mut self, index: usize, pushed: Pushed) {
        match pushed {
            Pushed::Entry { chat_id, seq, log_hash } => {
                self.tell(|_| format!("client {index} is pushed {seq}"));
                self.check_delivered(index, chat_id, seq, &log_hash, true);
                let has = self.has(index, chat_id);
                // Around the moment at which a chat becomes live an entry may come twice, and never too early.
                if has.is_none_or(|has| seq > has + 1) {
                    return self.violated(format!("P3: client {index} has {has:?} and is pushed {seq}"));
                }
                self.follow(index, chat_id, seq);
            }
            Pushed::Key { chat_id, key_id } => {
                let session_id = self.clients[index].session_id;
                let node =
                    self.clients[index].socket.and_then(|number| self.sockets.get(&number)).map(|socket| socket.node);
                if let Some(node) = node.filter(|_| self.breaks(40)) {
                    self.tell(|_| format!("client {index} refuses its copy of {key_id}"));
                    self.refuse_copy(node, chat_id, key_id, session_id);
                }
            }
            Pushed::Gone { chat_id } => self.lose(index, chat_id),
            Pushed::Other => {}
        }
        self.send_what_waits(index);
    }

    fn lose(&mut self, index: usize, chat_id: ChatId) {
        if let Some(chat) = self.clients[index].chats.get_mut(&chat_id) {
            chat.is_gone = true;
        }
        // What was not sent is given up; what is open has an answer coming.
        self.clients[index].outgoing.retain(|outgoing| outgoing.chat_id != chat_id || outgoing.open.is_some());
    }

    fn receive_page(
        &mut self,
        index: usize,
        chat_id: ChatId,
        after: u64,
        entries: &[sealcast::protocol::log::LogEntry],
    ) {
        let last = after + entries.len() as u64;
        self.tell(|_| format!("client {index} reads {after}..{last}"));
        let has = self.has(index, chat_id);
        if has.is_none_or(|has| has < after) {
            let user_id = self.clients[index].user_id;
            let spans = self.db.chats[&chat_id].fold.spans.get(&user_id);
            let is_join = spans.is_some_and(|spans| spans.iter().any(|(from, _)| *from == after + 1));
            if !is_join {
                return self.violated(format!("P3: client {index} has {has:?} and reads on from {after}"));
            }
            // Who comes in fetches what was changed before.
            let fold = Fold::of(chat_id, &self.db.chats[&chat_id].log, after);
            self.clients[index].chats.insert(chat_id, ClientChat::of(fold));
        }
        for entry in entries {
            self.check_delivered(index, chat_id, entry.seq.get(), entry.log_hash.as_ref(), false);
            self.follow(index, chat_id, entry.seq.get());
        }
    }

    fn has(&self, index: usize, chat_id: ChatId) -> Option<u64> {
        self.clients[index].chats.get(&chat_id).filter(|chat| !chat.is_gone).map(|chat| chat.fold.seq)
    }

    fn follow(&mut self, index: usize, chat_id: ChatId, seq: u64) {
        let Some(entry) = self.db.chats[&chat_id].log.get(seq as usize - 1) else { return };
        let client = &mut self.clients[index];
        let Some(chat) = client.chats.get_mut(&chat_id).filter(|chat| chat.fold.seq < seq) else { return };
        chat.fold.apply(entry);
        if !chat.fold.members.contains_key(&client.user_id) {
            self.lose(index, chat_id);
        }
    }

    /// Whether everybody has everything and nobody waits.
    pub fn is_settled(&self) -> bool {
        let live = self.clients.iter().filter(|client| client.is_live(&self.db));
        self.now > self.calm_since() && live.into_iter().all(|client| self.is_settled_for(client))
    }

    pub fn is_settled_for(&self, client: &Client) -> bool {
        let has_all = |chat_id: &ChatId| {
            let newest = self.db.chats[chat_id].newest_told();
            client.chats.get(chat_id).is_some_and(|chat| !chat.is_gone && chat.fold.seq >= newest)
        };
        client.is_resumed && client.outgoing.is_empty() && self.db.chats_of(client.user_id).iter().all(has_all)
    }

    /// Everybody connects anew, and so reads what nobody has told them.
    pub fn reconnect_all(&mut self) {
        (0..self.clients.len()).for_each(|index| self.hang_up(index));
    }

    /// How long after the last fault what is under way may still come to an end.
    fn calm_since(&self) -> u64 {
        self.calm_at + 800 * MILLI
    }
}

impl ClientChat {
    pub fn of(fold: Fold) -> Self {
        Self { fold, is_gone: false, key: None, settles: false, wants: 0, sent: Vec::new() }
    }

    fn acknowledge(&mut self, send: &Send, name: (MessageId, u64)) {
        if send.envelope.kind != MessageKind::Delete {
            self.sent.push(name);
        }
        if let Some(key) = self.key.as_mut().filter(|key| Some(key.id) == send.envelope.key_id) {
            key.is_stored = true;
            key.acknowledged = key.acknowledged.max(send.envelope.counter.get());
        }
    }
}
