//! Chats by the bare protocol: folds the log, signs changes, wraps keys (with bytes that only look like wraps).

use sealcast::protocol::binary::{Blob, Hash, WrappedKey};
use sealcast::protocol::envelope::{Envelope, MessageKind, Seen};
use sealcast::protocol::fold::ChatFold;
use sealcast::protocol::frame::{
    self, ChangeMembership, Changed, CreateChat, DeleteChat, Direction, Events, History, NewKey, Page, Reply, Request,
    Send, SendOk,
};
use sealcast::protocol::ids::{ChangeNo, ChatId, Counter, Epoch, KeyId, MessageId, Revision, Seq, SessionId};
use sealcast::protocol::keys::{Announcement, KeyCopy, SignedAnnouncement, commitment};
use sealcast::protocol::log::{LogEntry, log_hash, log_start};
use sealcast::protocol::membership::{Actor, Change, MembershipChange, SignedChange, Target, chain_start};

use super::device::{Device, Socket, sign};
use super::generations::archive;

/// The log as somebody sees it now.
pub struct View {
    pub fold: ChatFold,
    pub seen: Seen,
}

/// Reads the whole log that a member may read, checks its chain, and folds it.
pub async fn view(socket: &mut Socket, chat_id: ChatId) -> View {
    let entries = events(socket, chat_id).await;
    let first = entries.first().expect("a chat has a first entry");
    let mut fold = ChatFold::begin(chat_id, &first.body).unwrap();
    for entry in &entries[1..] {
        fold.apply(entry.seq, entry.created_at, &entry.body).unwrap();
    }
    let page = history(socket, chat_id, Direction::Before, Seq::saturating(u64::MAX), 1).await.unwrap();
    let last = page.entries.last().unwrap();
    View { fold, seen: Seen { seq: last.seq, log_hash: last.log_hash } }
}

pub async fn events(socket: &mut Socket, chat_id: ChatId) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.seq).unwrap_or_default();
        let before = Seq::saturating(u64::MAX);
        let reply = socket.request(Request::Events(Events { chat_id, after, before })).await.unwrap();
        let Reply::Page(page) = reply else { panic!("{reply:?}") };
        entries.extend(page.entries);
        if !page.more {
            return entries;
        }
    }
}

pub async fn history(
    socket: &mut Socket,
    chat_id: ChatId,
    direction: Direction,
    seq: Seq,
    limit: u32,
) -> Result<Page, frame::Error> {
    match socket.request(Request::History(History { chat_id, direction, seq, limit })).await? {
        Reply::Page(page) => Ok(page),
        other => panic!("{other:?}"),
    }
}

/// Every entry of a chat from its first, with the chain checked.
pub async fn whole_log(socket: &mut Socket, chat_id: ChatId) -> Vec<LogEntry> {
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.seq).unwrap_or_default();
        let page = history(socket, chat_id, Direction::After, after, 200).await.unwrap();
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    check_chain(chat_id, &entries);
    entries
}

/// P3: no gap, and each hash follows from the one before.
pub fn check_chain(chat_id: ChatId, entries: &[LogEntry]) {
    let mut previous = if entries[0].seq.get() == 1 { Some(log_start(chat_id)) } else { None };
    for pair in entries.windows(2) {
        assert_eq!(pair[1].seq, pair[0].seq.next(), "a gap in the log");
    }
    for entry in entries {
        if let Some(previous) = previous {
            let hash = log_hash(chat_id, &previous, entry.seq, entry.created_at, &entry.body.digest(chat_id));
            assert_eq!(hash, entry.log_hash, "the chain breaks at {}", entry.seq);
        }
        previous = Some(entry.log_hash);
    }
}

impl Device {
    fn actor(&self) -> Actor {
        Actor { user_id: self.user_id, session_id: self.session_id, identity_key: self.identity_key() }
    }

    fn target(&self) -> Target {
        Target { user_id: self.user_id, identity_key: self.identity_key() }
    }

    pub fn sign_change(&self, chat_id: ChatId, change: MembershipChange) -> SignedChange {
        let signature = sign(&self.signing, &change.signed_bytes(chat_id));
        SignedChange { change, signature }
    }

    pub fn creation(&self, chat_id: ChatId) -> CreateChat {
        let change = MembershipChange {
            n: ChangeNo::saturating(1),
            previous: chain_start(chat_id),
            seen: Seen { seq: Seq::default(), log_hash: log_start(chat_id) },
            actor: self.actor(),
            change: Change::Create,
            target: self.target(),
        };
        CreateChat { chat_id, change: self.sign_change(chat_id, change), name: None, info_keys: Vec::new() }
    }

    /// Makes a chat.
    pub async fn create_chat(&self, socket: &mut Socket) -> ChatId {
        let chat_id = ChatId::generate();
        let reply = socket.request(Request::CreateChat(self.creation(chat_id))).await.unwrap();
        assert!(matches!(reply, Reply::Changed(Changed { duplicate: false, .. })));
        chat_id
    }

    /// A change as an honest client signs it now.
    pub async fn change(&self, socket: &mut Socket, chat_id: ChatId, change: Change, target: &Self) -> SignedChange {
        let view = view(socket, chat_id).await;
        let change = match change {
            Change::Add { can_write, can_manage, .. } => {
                Change::Add { can_write, can_manage, roster_hash: view.fold.roster_hash(), epoch: view.fold.epoch() }
            }
            other => other,
        };
        self.change_from(&view, chat_id, change, target)
    }

    pub fn change_from(&self, view: &View, chat_id: ChatId, change: Change, target: &Self) -> SignedChange {
        let change = MembershipChange {
            n: view.fold.membership().head.next(),
            previous: view.fold.membership().hash,
            seen: view.seen,
            actor: self.actor(),
            change,
            target: target.target(),
        };
        self.sign_change(chat_id, change)
    }

    pub async fn add(&self, socket: &mut Socket, chat_id: ChatId, target: &Self) -> Result<Changed, frame::Error> {
        self.add_with(socket, chat_id, target, true, false).await
    }

    pub async fn add_with(
        &self,
        socket: &mut Socket,
        chat_id: ChatId,
        target: &Self,
        can_write: bool,
        can_manage: bool,
    ) -> Result<Changed, frame::Error> {
        let add = Change::Add { can_write, can_manage, roster_hash: Hash([0; 32]), epoch: Epoch::default() };
        let change = self.change(socket, chat_id, add, target).await;
        change_membership(socket, chat_id, change).await
    }

    pub async fn remove(&self, socket: &mut Socket, chat_id: ChatId, target: &Self) -> Result<Changed, frame::Error> {
        let change = self.change(socket, chat_id, Change::Remove, target).await;
        change_membership(socket, chat_id, change).await
    }

    pub async fn leave(&self, socket: &mut Socket, chat_id: ChatId) -> Result<Changed, frame::Error> {
        let change = self.change(socket, chat_id, Change::Leave, self).await;
        change_membership(socket, chat_id, change).await
    }

    pub async fn delete(&self, socket: &mut Socket, chat_id: ChatId) -> Result<Changed, frame::Error> {
        let change = self.change(socket, chat_id, Change::Delete, self).await;
        match socket.request(Request::DeleteChat(DeleteChat { chat_id, change })).await? {
            Reply::Changed(changed) => Ok(changed),
            other => panic!("{other:?}"),
        }
    }

    /// A new sender key for everybody in the view.
    pub fn sender_key(&self, view: &View, chat_id: ChatId) -> SenderKey {
        let recipients: Vec<SessionId> = view.fold.recipients().keys().copied().collect();
        self.sender_key_for(view.fold.epoch(), chat_id, &recipients)
    }

    pub fn sender_key_for(&self, epoch: Epoch, chat_id: ChatId, recipients: &[SessionId]) -> SenderKey {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).unwrap();
        let announcement = Announcement {
            key_id: KeyId::generate(),
            session_id: self.session_id,
            epoch,
            commitment: commitment(&secret),
            previous: None,
        };
        let signature = sign(&self.signing, &announcement.signed_bytes(chat_id));
        let announcement = SignedAnnouncement { announcement, signature };
        SenderKey {
            chat_id,
            announcement,
            copies: recipients.iter().map(|id| copy_for(*id)).collect(),
            counter: 0,
            sent: false,
        }
    }

    /// Makes the key a new one when it has carried nearly as many messages as a key may.
    pub fn renew(&self, view: &View, key: &mut SenderKey) {
        if key.counter >= KEY_MESSAGES {
            *key = self.sender_key(view, key.chat_id);
        }
    }

    /// A message under a key, as an honest client seals it from this view.
    pub fn seal(&self, view: &View, key: &mut SenderKey, data: &[u8]) -> Send {
        key.counter += 1;
        let new_key = (!key.sent).then(|| key.new_key());
        key.sent = true;
        let envelope = Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: self.user_id,
            sender_session_id: self.session_id,
            key_id: Some(key.announcement.announcement.key_id),
            counter: Counter::saturating(key.counter),
            roster_hash: view.fold.roster_hash(),
            seen: view.seen,
            attachments: Vec::new(),
            data: Some(Blob::from(data.to_vec())),
            purged: None,
            signature: sealcast::protocol::binary::Signature([0; 64]),
        };
        let recovery = view.fold.recovery_key().filter(|_| new_key.is_some());
        let archive = recovery.map(|recovery| archive(recovery.generation));
        let mut send = Send { chat_id: key.chat_id, envelope, new_key, add_copies: Vec::new(), archive };
        self.sign_envelope(&mut send);
        send
    }

    pub fn sign_envelope(&self, send: &mut Send) {
        send.envelope.signature = sign(&self.signing, &send.envelope.signed_bytes(send.chat_id));
    }

    /// Sends one message under a fresh key.
    pub async fn say(&self, socket: &mut Socket, chat_id: ChatId, text: &str) -> Result<SendOk, frame::Error> {
        let view = view(socket, chat_id).await;
        let mut key = self.sender_key(&view, chat_id);
        let send = self.seal(&view, &mut key, text.as_bytes());
        submit(socket, send).await
    }
}

/// Messages after which an honest client makes a new key: below `limits.key_messages_max`, as it is by default.
const KEY_MESSAGES: u64 = 400;

/// A sender key as its maker holds it.
#[derive(Clone)]
pub struct SenderKey {
    pub chat_id: ChatId,
    pub announcement: SignedAnnouncement,
    pub copies: Vec<KeyCopy>,
    pub counter: u64,
    pub sent: bool,
}

impl SenderKey {
    pub fn new_key(&self) -> NewKey {
        NewKey { announcement: self.announcement.clone(), copies: self.copies.clone(), staged: None }
    }
}

/// 80 bytes that only look like a wrapped key: the server cannot tell, and must not.
pub fn copy_for(session_id: SessionId) -> KeyCopy {
    let mut bytes = [0; 80];
    getrandom::fill(&mut bytes).unwrap();
    KeyCopy { session_id, key: WrappedKey(bytes) }
}

pub async fn submit(socket: &mut Socket, send: Send) -> Result<SendOk, frame::Error> {
    match socket.request(Request::Send(Box::new(send))).await? {
        Reply::Sent(sent) => Ok(sent),
        other => panic!("{other:?}"),
    }
}

pub async fn change_membership(
    socket: &mut Socket,
    chat_id: ChatId,
    change: SignedChange,
) -> Result<Changed, frame::Error> {
    let request = ChangeMembership { chat_id, change, info_keys: Vec::new() };
    match socket.request(Request::ChangeMembership(request)).await? {
        Reply::Changed(changed) => Ok(changed),
        other => panic!("{other:?}"),
    }
}
