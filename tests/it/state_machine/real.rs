//! The real side: a broker and a Postgres of one case, driven by the bare protocol, and compared with the model.

use std::collections::{BTreeMap, HashMap};

use proptest_state_machine::StateMachineTest;
use sealcast::protocol::envelope::MessageKind;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{self, Changed, Direction, Send, SendOk, ServerFrame};
use sealcast::protocol::ids::{ChatId, MessageId, Seq, SessionId};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::protocol::membership::Change;
use tokio::runtime::Runtime;

use super::super::support::broker::{Broker, Settings};
use super::super::support::chat::{SenderKey, View, change_membership, check_chain, history, submit, view};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket, now};
use super::super::support::eventually;
use super::model::{Answer, Chat, Entry, Model, Step};

/// How long a guest's session lives: long enough to be added on a slow machine, and then one waits for its end.
const GUEST_MICROS: u64 = 4_000_000;

/// A chat as its clients know it.
struct RealChat {
    id: ChatId,
    /// Of each message: the newest bytes that were taken, and whose they are.
    sent: Vec<(usize, Send)>,
}

/// What a case runs on. The broker's connections go before the database.
pub struct Real {
    world: World,
    runtime: Runtime,
}

struct World {
    sockets: Vec<Option<Socket>>,
    /// What each connection was told of each chat, in order.
    told: Vec<BTreeMap<ChatId, Vec<LogEntry>>>,
    devices: Vec<Device>,
    keys: HashMap<(usize, usize), SenderKey>,
    chats: Vec<RealChat>,
    guests: Vec<SessionId>,
    /// A guest had expired before it was added: nothing can be said of this case any more.
    is_void: bool,
    broker: Broker,
    _database: Database,
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(model: &Model) -> Self {
        let runtime = Runtime::new().unwrap();
        let users = model.users;
        let world = runtime.block_on(World::start(users));
        Self { world, runtime }
    }

    fn apply(mut real: Self, model: &Model, step: Step) -> Self {
        if !real.world.is_void {
            let answer = real.runtime.block_on(real.world.take(model, step));
            if !real.world.is_void {
                assert_eq!(answer, model.answer, "{step:?}");
            }
        }
        real
    }

    fn teardown(mut real: Self, model: Model) {
        if !real.world.is_void {
            real.runtime.block_on(real.world.compare(&model));
        }
    }
}

fn changed(result: Result<Changed, frame::Error>) -> Answer {
    match result {
        Ok(changed) if changed.duplicate => Answer::Again(changed.seq.get()),
        Ok(changed) => Answer::At(changed.seq.get()),
        Err(error) => Answer::Refused(error.code),
    }
}

fn sent(result: &Result<SendOk, frame::Error>) -> Answer {
    match result {
        Ok(sent) if sent.duplicate => Answer::Again(sent.seq.get()),
        Ok(sent) => Answer::At(sent.seq.get()),
        Err(error) => Answer::Refused(error.code),
    }
}

impl World {
    async fn start(users: usize) -> Self {
        let database = Database::create().await;
        let settings = Settings::on(&database).with("session.certificates_per_hour_max", 1_000);
        let broker = Broker::start_with(settings).await;
        let mut world = Self {
            sockets: Vec::new(),
            told: Vec::new(),
            devices: Vec::new(),
            keys: HashMap::new(),
            chats: Vec::new(),
            guests: Vec::new(),
            is_void: false,
            broker,
            _database: database,
        };
        for _ in 0..users {
            world.register().await;
        }
        world
    }

    async fn register(&mut self) {
        let name = format!("user{}", self.devices.len());
        self.devices.push(Device::register(&self.broker, &name).await);
        self.sockets.push(None);
        self.told.push(BTreeMap::new());
    }

    /// A user's connection, made if there is none.
    async fn socket(&mut self, user: usize) -> &mut Socket {
        if self.sockets[user].is_none() {
            self.told[user].clear();
            self.sockets[user] = Some(self.devices[user].connect_live(&self.broker).await);
        }
        self.sockets[user].as_mut().unwrap()
    }

    /// The chat as its owner sees it now: everybody signs by it, also who may not.
    async fn view(&mut self, model: &Model, chat: usize) -> View {
        let (id, owner) = (self.chats[chat].id, model.chats[chat].owner);
        view(self.socket(owner).await, id).await
    }

    async fn take(&mut self, model: &Model, step: Step) -> Answer {
        match step {
            Step::Register => {
                self.register().await;
                Answer::Done
            }
            Step::Create { by } => {
                let device = self.devices[by].clone();
                let id = device.create_chat(self.socket(by).await).await;
                self.chats.push(RealChat { id, sent: Vec::new() });
                Answer::At(1)
            }
            Step::Add { chat, by, target, can_write, can_manage } => {
                let view = self.view(model, chat).await;
                let (roster_hash, epoch) = (view.fold.roster_hash(), view.fold.epoch());
                self.change(&view, chat, by, Change::Add { can_write, can_manage, roster_hash, epoch }, target).await
            }
            Step::Remove { chat, by, target } => self.change_now(model, chat, by, Change::Remove, target).await,
            Step::Leave { chat, by } => self.change_now(model, chat, by, Change::Leave, by).await,
            Step::SetRights { chat, by, target, can_write, can_manage } => {
                self.change_now(model, chat, by, Change::SetRights { can_write, can_manage }, target).await
            }
            Step::Transfer { chat, by, target } => self.change_now(model, chat, by, Change::Transfer, target).await,
            Step::Rekey { chat, by } => self.change_now(model, chat, by, Change::Rekey, by).await,
            Step::Send { chat, by } => self.send(model, chat, by).await,
            Step::Repeat { chat, message } => {
                let (by, send) = self.chats[chat].sent[message].clone();
                sent(&submit(self.socket(by).await, send).await)
            }
            Step::Reuse { chat, by, message } => {
                let view = self.view(model, chat).await;
                let id = self.chats[chat].sent[message].1.envelope.message_id;
                let mut send = self.seal(&view, chat, by);
                send.envelope.message_id = id;
                self.devices[by].sign_envelope(&mut send);
                self.submit(chat, by, &send).await
            }
            Step::Edit { chat, by, message, skips } => self.revise(model, (chat, by, message), false, skips).await,
            Step::Delete { chat, by, message } => self.revise(model, (chat, by, message), true, false).await,
            Step::Read { chat, by } => {
                let id = self.chats[chat].id;
                match history(self.socket(by).await, id, Direction::After, Seq::default(), 200).await {
                    Ok(page) => {
                        self.same(&model.chats[chat], chat, &page.entries);
                        Answer::From(page.entries[0].seq.get())
                    }
                    Err(error) => Answer::Refused(error.code),
                }
            }
            Step::Reconnect { user } => {
                self.check_told(model, user).await;
                self.sockets[user] = None;
                self.socket(user).await;
                Answer::Done
            }
            Step::Renew { user } => {
                let mut device = self.devices[user].clone();
                device.recertify(self.socket(user).await).await.unwrap();
                self.devices[user] = device;
                Answer::Done
            }
            Step::Kill => {
                self.broker.kill_and_restart().await;
                self.sockets.iter_mut().for_each(|socket| *socket = None);
                Answer::Done
            }
            Step::Guest { chat } => self.guest(model, chat).await,
        }
    }

    async fn change_now(&mut self, model: &Model, chat: usize, by: usize, change: Change, target: usize) -> Answer {
        let view = self.view(model, chat).await;
        self.change(&view, chat, by, change, target).await
    }

    async fn change(&mut self, view: &View, chat: usize, by: usize, change: Change, target: usize) -> Answer {
        let id = self.chats[chat].id;
        let signed = self.devices[by].change_from(view, id, change, &self.devices[target]);
        changed(change_membership(self.socket(by).await, id, signed).await)
    }

    /// The sender key that a user has for a chat: a new one when the old one does not do any more.
    fn key(&mut self, view: &View, chat: usize, by: usize) -> &mut SenderKey {
        let recipients: Vec<SessionId> = view.fold.recipients().keys().copied().collect();
        let does = |key: &SenderKey| {
            let copies: Vec<SessionId> = key.copies.iter().map(|copy| copy.session_id).collect();
            key.announcement.announcement.epoch == view.fold.epoch() && copies == recipients
        };
        if !self.keys.get(&(chat, by)).is_some_and(does) {
            self.keys.insert((chat, by), self.devices[by].sender_key(view, self.chats[chat].id));
        }
        self.keys.get_mut(&(chat, by)).unwrap()
    }

    fn seal(&mut self, view: &View, chat: usize, by: usize) -> Send {
        let device = self.devices[by].clone();
        device.seal(view, self.key(view, chat, by), b"sealed")
    }

    async fn submit(&mut self, chat: usize, by: usize, send: &Send) -> Answer {
        let result = submit(self.socket(by).await, send.clone()).await;
        if result.is_err() {
            // Its counter was not used up: the next message has a key of its own.
            self.keys.remove(&(chat, by));
        }
        sent(&result)
    }

    async fn send(&mut self, model: &Model, chat: usize, by: usize) -> Answer {
        let view = self.view(model, chat).await;
        let send = self.seal(&view, chat, by);
        let answer = self.submit(chat, by, &send).await;
        if matches!(answer, Answer::At(_)) {
            self.chats[chat].sent.push((by, send));
        }
        answer
    }

    async fn revise(
        &mut self,
        model: &Model,
        (chat, by, message): (usize, usize, usize),
        is_deletion: bool,
        skips: bool,
    ) -> Answer {
        let view = self.view(model, chat).await;
        let newest = &self.chats[chat].sent[message].1.envelope;
        let (id, next): (MessageId, u64) = (newest.message_id, newest.revision.get() + 1 + u64::from(skips));
        let device = self.devices[by].clone();
        let send = if is_deletion {
            device.deletion(&view, self.chats[chat].id, id, next)
        } else {
            device.edit(&view, self.key(&view, chat, by), id, next, b"edited")
        };
        let answer = self.submit(chat, by, &send).await;
        if matches!(answer, Answer::At(_)) {
            self.chats[chat].sent[message] = (by, send);
        }
        answer
    }

    /// A user of a moment comes in, expires, and must not be written to.
    async fn guest(&mut self, model: &Model, chat: usize) -> Answer {
        let (id, owner) = (self.chats[chat].id, model.chats[chat].owner);
        let guest = Device::register_for(&self.broker, "guest", GUEST_MICROS).await;
        let device = self.devices[owner].clone();
        device.add(self.socket(owner).await, id, &guest).await.unwrap();
        let now_in = self.view(model, chat).await;
        if !now_in.fold.recipients().contains_key(&guest.session_id) {
            self.is_void = true;
            return model.answer;
        }
        self.guests.push(guest.session_id);
        // Made while the guest was in, and used after its end.
        let early = self.seal(&now_in, chat, owner);
        let over = guest.certificate.certificate.expired_at.plus_micros(50_000);
        eventually("the end of the guest's time", async || now() > over).await;
        let refused = self.submit(chat, owner, &early).await;
        let stale = [ErrorCode::KeyStale, ErrorCode::RosterChanged, ErrorCode::RecipientsChanged];
        assert!(stale.map(Answer::Refused).contains(&refused), "a key that the guest knows: {refused:?}");
        self.send(model, chat, owner).await
    }

    fn user_of(&self, id: sealcast::protocol::ids::UserId) -> Option<usize> {
        self.devices.iter().position(|device| device.user_id == id)
    }

    fn entry_of(&self, chat: usize, entry: &LogEntry) -> Option<Entry> {
        match &entry.body {
            EntryBody::Membership(signed) => {
                let target = self.user_of(signed.change.target.user_id);
                Some(target.map_or(Entry::Guest, |target| Entry::Membership(signed.change.change.as_str(), target)))
            }
            EntryBody::SessionIn(signed) => {
                Some(self.user_of(signed.certificate.user_id).map_or(Entry::Guest, Entry::SessionIn))
            }
            EntryBody::SessionOut(out) => self.guests.contains(&out.session_id()).then_some(Entry::Guest),
            EntryBody::Message(envelope) => {
                let of_id = |(_, send): &(usize, Send)| send.envelope.message_id == envelope.message_id;
                let message = self.chats[chat].sent.iter().position(of_id)?;
                Some(Entry::Message { message, revision: envelope.revision.get() })
            }
            EntryBody::AccountDeleted(_)
            | EntryBody::AccountRemoved { .. }
            | EntryBody::UserKey(_)
            | EntryBody::Generation(_)
            | EntryBody::GenerationRefused(_) => None,
        }
    }

    /// Compares entries, from wherever they begin, with the model's log.
    fn same(&self, model: &Chat, chat: usize, entries: &[LogEntry]) {
        check_chain(self.chats[chat].id, entries);
        let found: Vec<Option<Entry>> = entries.iter().map(|entry| self.entry_of(chat, entry)).collect();
        let start = entries[0].seq.get() as usize - 1;
        let expected: Vec<Option<Entry>> = model.log[start..start + entries.len()].iter().copied().map(Some).collect();
        assert_eq!(found, expected, "chat {chat} from {start}");
        for entry in entries {
            let EntryBody::Message(envelope) = &entry.body else { continue };
            let Some(Entry::Message { message, revision }) = self.entry_of(chat, entry) else { continue };
            let is_newest = model.messages[message].revision == revision;
            let has_data = envelope.data.is_some();
            assert_eq!(has_data, is_newest && envelope.kind != MessageKind::Delete, "data of {message} {revision}");
        }
    }

    /// What a connection was told, live and in pages: every entry once at least, in order, and the same as in the log.
    async fn check_told(&mut self, model: &Model, user: usize) {
        let Some(socket) = self.sockets[user].as_mut() else { return };
        for push in socket.pushes_so_far().await {
            match push {
                ServerFrame::Entry(entry) => {
                    self.told[user].entry(entry.chat_id).or_default().push(entry.entry);
                }
                ServerFrame::Page(page) => self.told[user].entry(page.chat_id).or_default().extend(page.entries),
                _ => {}
            }
        }
        for (chat, real) in self.chats.iter().enumerate() {
            let Some(told) = self.told[user].get(&real.id) else { continue };
            let mut newest: Option<&LogEntry> = None;
            for entry in told {
                let is_return =
                    model.chats[chat].log.get(entry.seq.get() as usize - 1) == Some(&Entry::Membership("add", user));
                let follows = newest.is_none_or(|newest| entry.seq <= newest.seq.next()) || is_return;
                assert!(follows, "user {user} is told {} after {:?}", entry.seq, newest.map(|newest| newest.seq));
                if newest.is_none_or(|newest| entry.seq > newest.seq) {
                    newest = Some(entry);
                }
            }
        }
    }

    /// Compares whole logs and rosters, as every member sees them.
    async fn compare(&mut self, model: &Model) {
        for user in 0..model.users {
            self.check_told(model, user).await;
        }
        for (chat, expected) in model.chats.iter().enumerate() {
            let id = self.chats[chat].id;
            for (user, member) in &expected.members {
                let page = history(self.socket(*user).await, id, Direction::After, Seq::default(), 200).await.unwrap();
                assert_eq!(page.entries[0].seq.get(), member.joined, "what user {user} reads of chat {chat} from");
                assert_eq!(page.up_to.get() as usize, expected.log.len(), "the length of chat {chat}");
                self.same(expected, chat, &page.entries);
            }
            let view = self.view(model, chat).await;
            let membership = view.fold.membership();
            let owner = self.user_of(membership.owner_id);
            assert_eq!(owner, Some(expected.owner), "the owner of chat {chat}");
            let found: BTreeMap<usize, (bool, bool, u64)> = membership
                .members
                .iter()
                .filter_map(|(id, member)| {
                    Some((self.user_of(*id)?, (member.can_write, member.can_manage, member.joined_seq.get())))
                })
                .collect();
            let rights = |member: &super::model::Member| (member.can_write, member.can_manage, member.joined);
            let wanted: BTreeMap<usize, (bool, bool, u64)> =
                expected.members.iter().map(|(user, member)| (*user, rights(member))).collect();
            assert_eq!(found, wanted, "the members of chat {chat}");
            let recipients: Vec<SessionId> = view.fold.recipients().keys().copied().collect();
            let mut sessions: Vec<SessionId> =
                expected.members.keys().map(|user| self.devices[*user].session_id).collect();
            sessions.sort();
            assert_eq!(recipients, sessions, "the recipients of chat {chat}");
        }
    }
}
