//! The modelled database: users', sessions' and chats' rows, keys and copies, and what is read of them.
//!
//! What is real in it: the head of a chat with the effect of each entry on epoch and roster version ([`ChatHead`]), the
//! membership state machine, the log's hashes, and the fold of the log by those who follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

use sealcast::protocol::binary::{Hash, Signature};
use sealcast::protocol::envelope::Seen;
use sealcast::protocol::fold::roster_hash;
use sealcast::protocol::ids::{ChangeNo, Epoch, Seq, Timestamp};
use sealcast::protocol::keys::{Announcement, SignedAnnouncement};
use sealcast::protocol::log::{EntryBody, log_start};
use sealcast::protocol::membership::{Actor, Change, Membership, MembershipChange, SignedChange, Target, chain_start};
use sealcast::store::head::ChatHead;

use super::generations::GenerationRow;
use super::log::{Folded, Forgotten, View};
use super::people::{
    Chat, NOW, SESSIONS, Session, USERS, User, certificate, chat_id, exchange_key, expired_at, identity_key, key_id,
    session_id, sign_as, user_id, user_number, user_of,
};
use super::rules::Rule;
use super::set::Set;
use super::user_keys::UserKeys;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Pending,
    Live,
    Expired,
    Revoked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionRow {
    pub state: State,
    /// The place of its certificate in its user's chain.
    pub place: u64,
    /// Whether its certificate's time has run out, by the database's clock.
    pub is_over: bool,
}

/// A key by its session and the view from which it was made.
pub type KeyName = (Session, usize);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRow {
    pub epoch: u64,
    pub last_counter: u64,
    pub first_seq: Option<u64>,
    /// The log's length when it was stored, for the order of a session's keys.
    pub stored_at: u64,
    pub covered_version: Option<u64>,
    pub copies: Set,
    pub refused: Set,
    /// For whom it was ever wrapped: they may hold it whatever became of their copies.
    pub wrapped_for: Set,
    /// The generations to whose recovery keys it is archived, and those to which it was ever sealed.
    pub archived: BTreeSet<u64>,
    pub sealed_to: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
pub struct ChatRow {
    pub head: ChatHead,
    pub membership: Membership,
    pub folded: Arc<Folded>,
    /// The log's hash at each place, from 0 on.
    pub hashes: Vec<Hash>,
    /// One for each transaction that changed members or sessions.
    pub views: Vec<View>,
    pub keys: BTreeMap<KeyName, KeyRow>,
    /// The user key of each member that the log shows, by number.
    pub shown: BTreeMap<User, u64>,
    pub generations: BTreeMap<u64, GenerationRow>,
}

impl StdHash for ChatRow {
    /// Hashes stand for what they are of, and are compared with those of the one log alone: they are left out.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.head.last_seq, self.head.epoch, self.head.roster_version).hash(hasher);
        for (user, member) in &self.membership.members {
            (user, member.can_write, member.can_manage, member.joined_seq).hash(hasher);
        }
        for view in &self.views {
            (view.seq, view.epoch(), view.recipients(), view.change_no()).hash(hasher);
            (view.folded.fold.generation_due(), view.generation()).hash(hasher);
            view.folded.fold.member_keys().values().for_each(|key| key.key_id.hash(hasher));
        }
        (&self.keys, &self.shown, &self.generations, self.head.is_outdated).hash(hasher);
    }
}

#[derive(Debug, Clone, Hash)]
pub struct Store {
    pub sessions: [SessionRow; SESSIONS],
    /// The newest place of each user's chain.
    pub places: [u64; USERS],
    pub user_keys: [UserKeys; USERS],
    pub chats: Vec<ChatRow>,
}

/// Why those who follow a log refuse it.
pub type Refused = String;

pub fn number(value: u64) -> i64 {
    value as i64
}

/// A change as a session signs it that has followed the log up to a view; none before the chat's first entry.
pub fn change_of(chat: Chat, view: Option<&View>, actor: Session, change: Change, target: User) -> MembershipChange {
    let (n, previous) = view.map_or((ChangeNo::default(), chain_start(chat_id(chat))), |view| {
        let membership = view.folded.fold.membership();
        (membership.head, membership.hash)
    });
    MembershipChange {
        n: n.next(),
        previous,
        // The log's hash differs with every message, and nothing that is modelled looks at it here.
        seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
        actor: Actor {
            user_id: user_id(user_of(actor)),
            session_id: session_id(actor),
            identity_key: identity_key(user_of(actor)),
        },
        change,
        target: Target { user_id: user_id(target), identity_key: identity_key(target) },
    }
}

pub fn sign_change(chat: Chat, actor: Session, change: MembershipChange) -> SignedChange {
    let signature = sign_as(actor, change.signed_bytes(chat_id(chat)));
    SignedChange { change, signature }
}

pub fn announcement(key: KeyName, epoch: u64) -> SignedAnnouncement {
    let announcement = Announcement {
        key_id: key_id(key.0, key.1),
        session_id: session_id(key.0),
        epoch: Epoch::saturating(epoch),
        commitment: Hash([7; 32]),
        previous: None,
    };
    SignedAnnouncement { announcement, signature: Signature([0; 64]) }
}

impl Store {
    /// Chats of Ada, who owns them, and Bob, who manages too. Bob's laptop waits to be certified, Cleo is in no chat.
    pub fn new(chats: usize) -> Self {
        let live = SessionRow { state: State::Live, place: 1, is_over: false };
        let mut sessions = [live; SESSIONS];
        sessions[3].state = State::Pending;
        let mut store =
            Self { sessions, places: [1; USERS], user_keys: [UserKeys::default(); USERS], chats: Vec::new() };
        for chat in 0..chats {
            store.found(chat);
        }
        store
    }

    /// One chat of the same, where some have a user key and Bob's phone has made the generation that is due by that. Ada's
    /// laptop has expired, and each has one live session.
    pub fn with_user_keys(users: &[User]) -> Self {
        let mut store = Self::new(0);
        store.sessions[1].state = State::Expired;
        store.sessions[5].state = State::Pending;
        users.iter().for_each(|user| store.replace_user_key(*user, None));
        store.found(0);
        if store.generation_due(0).is_some() {
            store = store.with_generation(0, 2, None).unwrap();
        }
        let newest = store.chats[0].views.len() - 1;
        store.chats[0].views.drain(..newest);
        store
    }

    fn found(&mut self, chat: Chat) {
        let first = sign_change(chat, 0, change_of(chat, None, 0, Change::Create, 0));
        let membership = Membership::create(chat_id(chat), &first).unwrap();
        let start = log_start(chat_id(chat));
        let body = EntryBody::Membership(first);
        let mut head = ChatHead::new(chat_id(chat), user_id(0), start, Timestamp::saturating(NOW));
        head.append(body.clone());
        let hashes = vec![start, head.log_hash];
        let folded = Folded::begin(chat_id(chat), &body);
        self.chats.push(ChatRow {
            head,
            membership,
            folded,
            hashes,
            views: Vec::new(),
            keys: BTreeMap::new(),
            shown: BTreeMap::new(),
            generations: BTreeMap::new(),
        });
        for session in self.live(0).iter() {
            self.append(chat, NOW, EntryBody::SessionIn(certificate(session, 1)), None).unwrap();
        }
        self.show_user_key(chat, 0, None).unwrap();
        self.seal(chat);
        let (roster_hash, epoch) = (self.chats[chat].head.roster_hash, self.chats[chat].head.epoch);
        let change = Change::Add { can_write: true, can_manage: true, roster_hash, epoch };
        let signed = sign_change(chat, 0, change_of(chat, self.chats[chat].views.last(), 0, change, 1));
        self.change(chat, &signed, self.live(1), None).unwrap();
        self.chats[chat].views.drain(..1);
    }

    pub fn live(&self, user: User) -> Set {
        let is_live = |session: &Session| self.sessions[*session].state == State::Live;
        Set::of([2 * user, 2 * user + 1].into_iter().filter(is_live))
    }

    pub fn is_member(&self, chat: Chat, user: User) -> bool {
        self.chats[chat].membership.members.contains_key(&user_id(user))
    }

    pub fn chats_of(&self, user: User) -> Vec<Chat> {
        (0..self.chats.len()).filter(|chat| self.is_member(*chat, user)).collect()
    }

    /// The live sessions of the members, as the tables say.
    pub fn recipients(&self, chat: Chat) -> Set {
        let users = self.chats[chat].membership.members.keys().map(|id| user_number(*id));
        users.map(|user| self.live(user)).fold(Set::default(), Set::with)
    }

    pub fn expiry_due(&self, chat: Chat) -> bool {
        self.recipients(chat).iter().any(|session| self.sessions[session].is_over)
    }

    /// Whether a session may act: live, and its time has not run out.
    pub fn may_act(&self, session: Session) -> bool {
        self.sessions[session].state == State::Live && !self.sessions[session].is_over
    }

    /// Appends an entry that is not a message.
    pub fn append(&mut self, chat: Chat, now: u64, body: EntryBody, dropped: Option<Rule>) -> Result<(), Refused> {
        let row = &mut self.chats[chat];
        // The head keeps its entries to write them; here they are written at once.
        let mut head = ChatHead::new(chat_id(chat), row.head.owner_id, row.head.log_hash, Timestamp::saturating(now));
        head.last_seq = row.head.last_seq;
        head.epoch = row.head.epoch;
        head.roster_version = row.head.roster_version;
        head.roster_hash = row.head.roster_hash;
        head.change_no = row.head.change_no;
        head.change_hash = row.head.change_hash;
        head.generation = row.head.generation;
        head.maker = row.head.maker;
        head.is_outdated = row.head.is_outdated;
        let (has_user_key, seq) = match &body {
            EntryBody::UserKey(entry) => {
                let has_user_key = row.shown.contains_key(&user_number(entry.user_id()));
                (has_user_key, head.append_user_key(entry.clone(), has_user_key))
            }
            _ => (false, head.append(body.clone())),
        };
        let forgotten = Forgotten::of(&body, has_user_key, dropped);
        match forgotten {
            Forgotten::Nothing => {}
            Forgotten::Epoch => head.epoch = row.head.epoch,
            Forgotten::Generation => head.is_outdated = row.head.is_outdated,
        }
        row.hashes.push(head.log_hash);
        row.head = head;
        let next = row.folded.next(seq, Timestamp::saturating(now), &body, forgotten);
        row.folded = next.map_err(|error| format!("entry {seq:?} is refused by who follows the log: {error}"))?;
        Ok(())
    }

    /// Ends a transaction on a chat: the roster is hashed as the tables have it, and its members see the new log.
    pub fn seal(&mut self, chat: Chat) {
        let recipients = self.recipients(chat);
        let row = &mut self.chats[chat];
        let sessions: BTreeMap<_, _> =
            recipients.iter().map(|session| (session_id(session), exchange_key(session))).collect();
        row.head.roster_hash = roster_hash(sessions.into_iter(), row.head.recovery_key().as_ref());
        let (seq, log_hash) = (row.head.last_seq, row.head.log_hash);
        row.views.push(View { seq, log_hash, folded: Arc::clone(&row.folded) });
    }

    /// Writes a membership change that was judged, with the sessions that were read as the newcomer's.
    pub fn change(
        &mut self,
        chat: Chat,
        signed: &SignedChange,
        newcomers: Set,
        dropped: Option<Rule>,
    ) -> Result<(), Refused> {
        let target = user_number(signed.change.target.user_id);
        let row = &mut self.chats[chat];
        let seq = row.head.last_seq.next();
        row.membership.apply(chat_id(chat), seq, signed).map_err(|error| error.to_string())?;
        self.append(chat, NOW, EntryBody::Membership(signed.clone()), dropped)?;
        if self.is_member(chat, target) {
            for session in newcomers.iter() {
                let now = self.entry_time(session);
                let place = self.sessions[session].place;
                self.append(chat, now, EntryBody::SessionIn(certificate(session, place)), dropped)?;
            }
            // A newcomer's key belongs to the addition.
            let dropped = dropped.map(|rule| match rule {
                Rule::AdditionOutdates => Rule::FirstKeyOutdates,
                rule => rule,
            });
            self.show_user_key(chat, target, dropped)?;
        } else {
            self.chats[chat].shown.remove(&target);
            let gone = Set::of([2 * target, 2 * target + 1]);
            for key in self.chats[chat].keys.values_mut() {
                key.copies = key.copies.without(gone);
            }
        }
        self.seal(chat);
        Ok(())
    }

    /// The database's time at an entry about a session: before or after the end of its certificate. Nothing compares
    /// the times of two sessions.
    pub fn entry_time(&self, session: Session) -> u64 {
        let row = self.sessions[session];
        if row.is_over { expired_at(row.place).get() } else { NOW }
    }

    /// Copies of revoked sessions go, in small steps, some time later.
    pub fn sweep(&mut self) {
        let is_revoked = |session: &Session| self.sessions[*session].state == State::Revoked;
        let revoked = Set::of((0..SESSIONS).filter(is_revoked));
        for key in self.chats.iter_mut().flat_map(|row| row.keys.values_mut()) {
            key.copies = key.copies.without(revoked);
        }
    }
}
