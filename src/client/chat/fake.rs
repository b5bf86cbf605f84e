//! A chat's log made with the protocol's own functions, for tests of what judges logs.

use std::collections::HashMap;

use super::bootstrap::Bootstrap;
use super::generations::Folded;
use super::log::{ChatLog, Taken};
use super::outbox::{Context, Draft, Step};
use super::own_key::KeyLimits;
use super::state::Chat;
use crate::client::body::Body;
use crate::client::error::UNSIGNED;
use crate::client::keyring::Me;
use crate::crypto::{IdentitySecret, SessionSecrets, UserSecret};
use crate::protocol::binary::{Hash, WrappedKey};
use crate::protocol::certificate::{
    Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation, chain_start as user_chain_start,
};
use crate::protocol::envelope::{Envelope, Seen};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::{OwnKey, Page, Send, SendOk};
use crate::protocol::group_key::UserKeyEntry;
use crate::protocol::ids::{
    ChangeNo, ChatId, KeyId, MessageId, Place, Revision, Seq, SessionId, Timestamp, UserId, UserKeyId,
};
use crate::protocol::keys::SignedAnnouncement;
use crate::protocol::log::{EntryBody, LogEntry, SessionOut, log_start, next_entry};
use crate::protocol::membership::{Change, MembershipChange, SignedChange, Target, chain_start};
use crate::protocol::strongbox::{PublicUserKey, user_key_bytes};

pub(super) const LIMITS: KeyLimits =
    KeyLimits { messages_max: 500, messages_max_large: 10_000, recipients_large: 256, age_max_micros: 604_800_000_000 };

pub(super) const NOW: Timestamp = Timestamp::saturating(1_000_000_000);

/// A session of a user, with everything that it knows of itself.
pub(super) struct FakeSession {
    pub(super) identity: IdentitySecret,
    pub(super) me: Me,
    pub(super) certificate: SignedCertificate,
}

impl FakeSession {
    pub(super) fn new() -> Self {
        let (identity, user_id) = (IdentitySecret::generate(), UserId::generate());
        Self::certified(identity, user_id, Place::saturating(1), user_chain_start(user_id))
    }

    /// Another session of the same user.
    pub(super) fn sibling(&self) -> Self {
        let place = self.certificate.certificate.place.next();
        Self::certified(self.identity.clone(), self.me.user_id, place, self.certificate.chain_hash())
    }

    fn certified(identity: IdentitySecret, user_id: UserId, place: Place, previous: Hash) -> Self {
        let secrets = SessionSecrets::generate();
        let me = Me::new(user_id, SessionId::generate(), identity.public_key(), secrets);
        let certificate = Certificate {
            user_id,
            place,
            previous,
            session_id: me.session_id,
            public_key: me.secrets.public_key(),
            signing_public_key: me.secrets.signing_public_key(),
            created_at: Timestamp::saturating(1),
            expired_at: Timestamp::saturating(u64::MAX),
        };
        let mut certificate = SignedCertificate { certificate, signature: UNSIGNED };
        certificate.signature = identity.sign(&certificate.certificate.signed_bytes());
        Self { identity, me, certificate }
    }
}

/// A chat as an honest server keeps it; tests put in what a dishonest one would.
pub(super) struct FakeChat {
    pub(super) chat_id: ChatId,
    pub(super) entries: Vec<LogEntry>,
    fold: Option<ChatFold>,
    announcements: HashMap<KeyId, SignedAnnouncement>,
    pub(super) copies: HashMap<(KeyId, SessionId), WrappedKey>,
}

impl FakeChat {
    pub(super) fn create(owner: &FakeSession) -> Self {
        let mut chat = Self {
            chat_id: ChatId::generate(),
            entries: Vec::new(),
            fold: None,
            announcements: HashMap::new(),
            copies: HashMap::new(),
        };
        chat.change(owner, Change::Create, owner);
        chat.session_in(owner);
        chat
    }

    pub(super) fn head(&self) -> Seen {
        match self.entries.last() {
            Some(entry) => Seen { seq: entry.seq, log_hash: entry.log_hash },
            None => Seen { seq: Seq::default(), log_hash: log_start(self.chat_id) },
        }
    }

    pub(super) fn fold(&self) -> &ChatFold {
        self.fold.as_ref().unwrap()
    }

    /// Puts an entry into the log, whatever it is worth.
    pub(super) fn push(&mut self, body: EntryBody) -> Seq {
        let head = self.head();
        let entry = next_entry(self.chat_id, head.seq, &head.log_hash, Timestamp::saturating(1_000), body);
        match &mut self.fold {
            Some(fold) => {
                let _ = fold.apply(entry.seq, entry.created_at, &entry.body);
            }
            None => self.fold = Some(ChatFold::begin(self.chat_id, &entry.body).unwrap()),
        }
        let seq = entry.seq;
        self.entries.push(entry);
        seq
    }

    pub(super) fn change(&mut self, actor: &FakeSession, change: Change, target: &FakeSession) -> Seq {
        let (n, previous) = match &self.fold {
            Some(fold) => (fold.membership().head.next(), fold.membership().hash),
            None => (ChangeNo::saturating(1), chain_start(self.chat_id)),
        };
        let target = Target { user_id: target.me.user_id, identity_key: target.me.identity_key };
        let change = MembershipChange { n, previous, seen: self.head(), actor: actor.me.actor(), change, target };
        let signature = actor.me.secrets.sign(&change.signed_bytes(self.chat_id));
        self.push(EntryBody::Membership(SignedChange { change, signature }))
    }

    pub(super) fn add(&mut self, actor: &FakeSession, session: &FakeSession) -> Seq {
        let seq = self.add_without_sessions(actor, session);
        self.session_in(session);
        seq
    }

    /// Adds a user who has no live session.
    pub(super) fn add_without_sessions(&mut self, actor: &FakeSession, session: &FakeSession) -> Seq {
        let (roster_hash, epoch) = (self.fold().roster_hash(), self.fold().epoch());
        self.change(actor, Change::Add { can_write: true, can_manage: false, roster_hash, epoch }, session)
    }

    pub(super) fn session_in(&mut self, session: &FakeSession) -> Seq {
        self.push(EntryBody::SessionIn(session.certificate.clone()))
    }

    pub(super) fn revoke(&mut self, by: &FakeSession, session: &FakeSession) -> Seq {
        let revocation = Revocation {
            user_id: by.me.user_id,
            place: session.certificate.certificate.place.next(),
            previous: session.certificate.chain_hash(),
            session_id: session.me.session_id,
            revoker: Revoker::Session(by.me.session_id),
            created_at: NOW,
        };
        let signature = by.me.secrets.sign(&revocation.signed_bytes());
        self.push(EntryBody::SessionOut(SessionOut::Revoked(SignedRevocation { revocation, signature })))
    }

    /// A member gets a user key.
    pub(super) fn user_key(&mut self, session: &FakeSession) -> (PublicUserKey, UserSecret) {
        let (key_id, secret, user_id) = (UserKeyId::generate(), UserSecret::generate(), session.me.user_id);
        let public_key = secret.public_key();
        let signature = session.identity.sign(&user_key_bytes(user_id, key_id, &public_key));
        let key = PublicUserKey { user_id, key_id, public_key, signature };
        self.push(EntryBody::UserKey(UserKeyEntry::Set(key)));
        (key, secret)
    }

    /// The fold of the entries below a seq, as a newcomer makes it.
    pub(super) fn bootstrap(&self, before: Seq) -> Folded {
        let mut bootstrap = Bootstrap::new(self.chat_id, before);
        while let Some(asked) = bootstrap.next() {
            // One entry a page, so that paging is tried too.
            let is_event = |entry: &&LogEntry| !matches!(entry.body, EntryBody::Message(_));
            let mut rest =
                self.entries.iter().filter(|entry| entry.seq > asked.after && entry.seq < before).filter(is_event);
            let entries: Vec<LogEntry> = rest.next().cloned().into_iter().collect();
            let up_to = entries.last().map_or(asked.after, |entry| entry.seq);
            let more = rest.next().is_some();
            let page = Page { chat_id: self.chat_id, after: asked.after, up_to, more, entries, keys: Vec::new() };
            bootstrap.take(&page).unwrap();
        }
        bootstrap.finish().unwrap()
    }

    /// The chat as a session has it that begins where it joined, and has taken nothing since.
    pub(super) fn joined(&self, session: &FakeSession) -> Chat {
        let joining = self.entries.iter().rfind(|entry| super::state::is_own_joining(entry, &session.me)).unwrap();
        let log = match joining.seq.get() {
            1 => ChatLog::found(self.chat_id, joining).unwrap(),
            _ => ChatLog::join(self.bootstrap(joining.seq), joining).unwrap(),
        };
        Chat::new(log)
    }

    /// The chat as a session has it that has taken everything.
    pub(super) fn of(&self, session: &FakeSession) -> Chat {
        let mut chat = self.joined(session);
        self.feed(&mut chat, session);
        chat
    }

    /// Brings a session all keys, and no entry.
    pub(super) fn offer_keys(&self, chat: &mut Chat, session: &FakeSession) {
        for (key_id, announcement) in &self.announcements {
            let key = self.copies.get(&(*key_id, session.me.session_id)).copied();
            chat.keys.offer(&OwnKey { announcement: announcement.clone(), key, backed_up: Vec::new() });
        }
    }

    /// Brings a session everything that is new to it.
    pub(super) fn feed(&self, chat: &mut Chat, session: &FakeSession) -> Vec<Taken> {
        self.offer_keys(chat, session);
        let head = chat.log.head().seq;
        let new = self.entries.iter().filter(|entry| entry.seq > head);
        new.map(|entry| {
            let taken = chat.take(entry, &session.me).unwrap();
            if let EntryBody::Message(envelope) = &entry.body
                && envelope.sender_session_id == session.me.session_id
            {
                chat.outbox.seen_in_log(envelope);
            }
            taken
        })
        .collect()
    }

    /// Takes a frame as the server does that commits it.
    pub(super) fn commit(&mut self, send: &Send) -> SendOk {
        self.take_copies(send);
        let seq = self.push(EntryBody::Message(send.envelope.clone()));
        SendOk {
            seq,
            created_at: Timestamp::saturating(1_000),
            log_hash: self.head().log_hash,
            duplicate: false,
            unreachable: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(super) fn take_copies(&mut self, send: &Send) {
        let Some(key_id) = send.envelope.key_id else { return };
        let copies = send.add_copies.iter().chain(send.new_key.iter().flat_map(|new_key| &new_key.copies));
        for copy in copies {
            self.copies.insert((key_id, copy.session_id), copy.key);
        }
        if let Some(new_key) = &send.new_key {
            self.announcements.insert(key_id, new_key.announcement.clone());
        }
    }

    /// Sends a text by a session's own outbox, and commits it.
    pub(super) fn send(&mut self, chat: &mut Chat, session: &FakeSession, text: &str) -> Envelope {
        let message_id = push_text(chat, text);
        let send = expect_send(next_step(chat, session));
        self.commit(&send);
        assert!(chat.outbox.committed((message_id, Revision::default())));
        send.envelope
    }
}

pub(super) fn push_text(chat: &mut Chat, text: &str) -> MessageId {
    let message_id = MessageId::generate();
    chat.outbox.push(Draft::message(message_id, Body::text(text).to_bytes())).unwrap();
    message_id
}

pub(super) fn next_step(chat: &mut Chat, session: &FakeSession) -> Step {
    step_at(chat, session, LIMITS, NOW)
}

pub(super) fn step_at(chat: &mut Chat, session: &FakeSession, limits: KeyLimits, now: Timestamp) -> Step {
    let Chat { log, outbox, .. } = chat;
    outbox.next(&mut Context { log, me: &session.me, limits, now })
}

pub(super) fn expect_send(step: Step) -> Send {
    match step {
        Step::Send(send) => *send,
        other => panic!("expected a frame to send, found {other:?}"),
    }
}
