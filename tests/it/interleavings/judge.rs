//! Judges one chat of a world: who was a recipient where, told from the log by rules that are written here once more, and
//! what each device's keys open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;

use sealcast::client::Body;
use sealcast::crypto::Secret;
use sealcast::crypto::message::{self, Place};
use sealcast::protocol::envelope::Envelope;
use sealcast::protocol::group_key::UserKeyEntry;
use sealcast::protocol::ids::{ChatId, KeyId, Seq, SessionId, UserId};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::protocol::membership::Change;

/// A device and all that it could ever open.
pub struct Witness {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub opened: BTreeMap<(ChatId, KeyId), Vec<Secret>>,
    /// What its client reads in the end, in chats of which it is a recipient then.
    pub read: BTreeMap<ChatId, Vec<String>>,
}

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Messages whose data is there.
    pub messages: usize,
    /// Openings by recipients.
    pub open: usize,
    /// Messages that stayed shut to a device that must not read them.
    pub shut: usize,
    /// Messages from before a device that is there on behalf of a recipient.
    pub earlier: usize,
    /// Messages that the password alone opened in the end.
    pub recovered: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.open += other.open;
        self.shut += other.shut;
        self.earlier += other.earlier;
        self.recovered += other.recovered;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, open, shut, earlier, recovered } = self;
        write!(f, "{messages} messages, {open} opened by recipients, {shut} shut to others, ")?;
        write!(f, "{earlier} older than a sibling, {recovered} opened by a password alone")
    }
}

/// What a device may do with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is a recipient: it opens it.
    Recipient,
    /// It came later, to a user who was a member: a sibling may hand it what opens it.
    Later,
    /// Its user is no member, or it had ended: it opens it never.
    Outside,
}

/// Who is in a chat.
#[derive(Default)]
pub struct Roster {
    members: BTreeSet<UserId>,
    recipients: BTreeMap<SessionId, UserId>,
    /// Sessions that were recipients once.
    ever: BTreeSet<SessionId>,
    /// Users with a user key: what is said is archived for them.
    with_key: BTreeSet<UserId>,
}

impl Roster {
    pub fn at_the_end(log: &[LogEntry]) -> Self {
        let mut roster = Self::default();
        log.iter().for_each(|entry| roster.apply(entry));
        roster
    }

    pub fn is_member(&self, user_id: UserId) -> bool {
        self.members.contains(&user_id)
    }

    pub fn is_in(&self, user_id: UserId, session_id: SessionId) -> bool {
        self.recipients.get(&session_id) == Some(&user_id)
    }

    fn leave(&mut self, user_id: UserId) {
        self.members.remove(&user_id);
        self.recipients.retain(|_, whose| *whose != user_id);
    }

    fn apply(&mut self, entry: &LogEntry) {
        match &entry.body {
            EntryBody::Membership(signed) => {
                let target = signed.change.target.user_id;
                match signed.change.change {
                    Change::Create | Change::Add { .. } => {
                        self.members.insert(target);
                    }
                    Change::Remove | Change::Leave => self.leave(target),
                    _ => {}
                }
            }
            EntryBody::SessionIn(signed) => {
                let certificate = &signed.certificate;
                self.recipients.insert(certificate.session_id, certificate.user_id);
                self.ever.insert(certificate.session_id);
            }
            EntryBody::SessionOut(out) => {
                self.recipients.remove(&out.session_id());
            }
            EntryBody::UserKey(UserKeyEntry::Set(key)) => {
                self.with_key.insert(key.user_id);
            }
            EntryBody::UserKey(UserKeyEntry::Withdrawn(signed)) => {
                self.with_key.remove(&signed.withdrawal.user_id);
            }
            _ => {}
        }
    }

    /// `returns`: whether the session becomes a recipient further on.
    fn standing(&self, witness: &Witness, returns: bool) -> Standing {
        if self.is_in(witness.user_id, witness.session_id) {
            Standing::Recipient
        } else if !self.is_member(witness.user_id) || (self.ever.contains(&witness.session_id) && !returns) {
            Standing::Outside
        } else {
            Standing::Later
        }
    }
}

/// Where messages are that a user who is a member at the end may read, and whether their user key opens each.
pub fn readable(log: &[LogEntry], user_id: UserId) -> Vec<(Seq, bool)> {
    let (mut roster, mut found) = (Roster::default(), Vec::new());
    for entry in log {
        roster.apply(entry);
        if !roster.is_member(user_id) {
            found.clear();
        } else if matches!(&entry.body, EntryBody::Message(envelope) if envelope.data.is_some()) {
            found.push((entry.seq, roster.with_key.contains(&user_id)));
        }
    }
    found
}

/// What a device's keys make of a message.
fn text(chat_id: ChatId, envelope: &Envelope, witness: &Witness) -> Option<String> {
    let (place, data) = (Place::of(chat_id, envelope)?, envelope.data.as_ref()?);
    let secrets = witness.opened.get(&(chat_id, place.key_id))?;
    let body = secrets.iter().find_map(|secret| message::open(secret, &place, data.as_ref()).ok())?;
    match Body::from_bytes(&body) {
        Body::Message { text, .. } => Some(text),
        other => panic!("a message that says {other:?}"),
    }
}

/// Judges a chat; `said` is all that was said in its world, and by whom.
pub fn judge(chat_id: ChatId, log: &[LogEntry], witnesses: &[Witness], said: &BTreeMap<String, UserId>) -> Tally {
    let mut last_in: BTreeMap<SessionId, Seq> = BTreeMap::new();
    for entry in log {
        if let EntryBody::SessionIn(signed) = &entry.body {
            last_in.insert(signed.certificate.session_id, entry.seq);
        }
    }
    let (mut tally, mut roster) = (Tally::default(), Roster::default());
    for entry in log {
        roster.apply(entry);
        let EntryBody::Message(envelope) = &entry.body else { continue };
        if envelope.data.is_none() {
            continue;
        }
        tally.messages += 1;
        for witness in witnesses {
            let place = || format!("{:?} in {chat_id}, for {}", entry.seq, witness.session_id);
            let returns = last_in.get(&witness.session_id).is_some_and(|seq| *seq > entry.seq);
            let text = text(chat_id, envelope, witness);
            match (roster.standing(witness, returns), text) {
                (Standing::Recipient, Some(text)) => {
                    assert_eq!(said.get(&text), Some(&envelope.sender_id), "{}: {text}", place());
                    if let Some(read) = witness.read.get(&chat_id)
                        && readable(log, witness.user_id).iter().any(|(seq, _)| *seq == entry.seq)
                    {
                        assert!(read.contains(&text), "{}: the client does not read {text}", place());
                    }
                    tally.open += 1;
                }
                (Standing::Recipient, None) => panic!("{}: it does not open", place()),
                (Standing::Outside, None) => tally.shut += 1,
                (Standing::Outside, Some(text)) => panic!("{}: it opens, to {text}", place()),
                (Standing::Later, _) => tally.earlier += 1,
            }
        }
    }
    tally
}
