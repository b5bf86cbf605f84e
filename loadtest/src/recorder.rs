//! Records what the clients of this process saw, in the order in which it happened, and measures it.
//!
//! Lives here: the one lock behind which the history grows. Invariants: a message is recorded before the client
//! library has it; `member` and `removed` come from the signed log as clients verified it, and when two clients
//! differ both are recorded, so that the check finds it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hdrhistogram::Histogram;
use sealcast::client::{Alarm, Event, SendError};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::{ChatId, MessageId, Revision, Seq, SessionId, UserId};
use sealcast::protocol::membership::Change;

use crate::history::{Name, Record};

/// The longest latency that is told apart.
const LATENCY_US_MAX: u64 = 600_000_000;

/// How much has happened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Messages given to the client library.
    pub(crate) sent: u64,
    /// Messages acknowledged.
    pub(crate) acked: u64,
    /// Messages given to sessions.
    pub(crate) delivered: u64,
}

/// What was done besides new messages, and came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deeds {
    /// Edits acknowledged.
    pub(crate) edits: u64,
    /// Deletions acknowledged.
    pub(crate) deletions: u64,
    /// Replies acknowledged.
    pub(crate) replies: u64,
    /// Reactions acknowledged.
    pub(crate) reactions: u64,
    /// Read marks moved.
    pub(crate) receipts: u64,
    /// Receipts given to sessions, with those that only their sender's devices can read.
    pub(crate) receipts_delivered: u64,
    /// Signals that the server took.
    pub(crate) signals: u64,
    /// Signals given to sessions.
    pub(crate) signals_delivered: u64,
    /// Times that a session was told how far another has come.
    pub(crate) deliveries_told: u64,
    /// Entries whose data was gone when they came, and receipts for others.
    pub(crate) silent: u64,
}

/// Submit to the recipients' events, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    /// Half of the deliveries were faster.
    pub(crate) p50: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1,000.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// What is said about one session in one chat.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    member: Option<u64>,
    removed: Option<u64>,
    highest: u64,
    received: u64,
}

/// What went wrong besides the history.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles {
    /// Alarms of the client library by kind.
    pub(crate) alarms: BTreeMap<String, u64>,
    /// Alarms that are no entry of the history.
    pub(crate) loose_alarms: u64,
    /// Copies of keys that their recipients said are bad, and messages that were unreadable for somebody.
    pub(crate) bad_copies: u64,
    /// Refusals of messages by code.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Clients that closed, and why.
    pub(crate) closed: Vec<String>,
    /// Events that were dropped before they were recorded: the history is not whole.
    pub(crate) dropped_events: u64,
    /// Failures to write the history.
    pub(crate) unwritten: u64,
}

struct Inner {
    records: Vec<Record>,
    file: Option<BufWriter<File>>,
    submitted: HashMap<Name, Submitted>,
    standings: HashMap<(ChatId, SessionId), Standing>,
    latency: Histogram<u64>,
    counts: Counts,
    deeds: Deeds,
    troubles: Troubles,
}

#[derive(Clone, Copy)]
struct Submitted {
    at: Instant,
    by: SessionId,
}

/// The history of a run.
pub(crate) struct Recorder {
    began: Instant,
    began_s: f64,
    users: Mutex<HashMap<UserId, Vec<SessionId>>>,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Recorder {
    /// Begins a history, in a file too if there is one.
    pub(crate) fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let file = match file {
            Some(path) => Some(File::create(path).with_context(|| format!("making {}", path.display()))?),
            None => None,
        };
        Ok(Self {
            began: Instant::now(),
            began_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            users: Mutex::default(),
            inner: Mutex::new(Inner {
                records: Vec::new(),
                file: file.map(BufWriter::new),
                submitted: HashMap::new(),
                standings: HashMap::new(),
                latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
                counts: Counts::default(),
                deeds: Deeds::default(),
                troubles: Troubles::default(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since 1970 that never go back within this process.
    pub(crate) fn now(&self) -> f64 {
        self.began_s + self.began.elapsed().as_secs_f64()
    }

    /// Names a user's session, so that a user's removal is known to be that of their sessions.
    pub(crate) fn introduce(&self, user_id: UserId, session_id: SessionId) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.entry(user_id).or_default().push(session_id);
    }

    /// A message that is given to the client library next; its latency counts from `at`.
    pub(crate) fn send(&self, s: SessionId, c: ChatId, m: Name, at: Instant) {
        let mut inner = self.lock();
        let t = self.now();
        inner.submitted.insert(m, Submitted { at, by: s });
        inner.counts.sent += 1;
        inner.push(Record::Send { t, s, c, m });
    }

    /// An acknowledgement.
    pub(crate) fn ok(&self, s: SessionId, c: ChatId, m: Name, seq: Seq) {
        let mut inner = self.lock();
        let t = self.now();
        inner.counts.acked += 1;
        inner.push(Record::Ok { t, s, c, m, seq: seq.get() });
    }

    /// An edit or deletion that was acknowledged; its number was not known when it was sent, at `at`.
    pub(crate) fn revised(&self, s: SessionId, c: ChatId, m: Name, at: f64, seq: Seq) {
        let mut inner = self.lock();
        let t = self.now();
        inner.counts.sent += 1;
        inner.counts.acked += 1;
        inner.push(Record::Send { t: at, s, c, m });
        inner.push(Record::Ok { t, s, c, m, seq: seq.get() });
    }

    /// Counts something that was done.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Deeds)) {
        change(&mut self.lock().deeds);
    }

    /// What was done besides new messages.
    pub(crate) fn deeds(&self) -> Deeds {
        self.lock().deeds
    }

    /// A send that failed; without a name nothing is claimed of it. One that failed because its sender is gone from the chat may be in the log all the same,
    /// and one that waited in a client that closed too: only other failures are definite refusals.
    pub(crate) fn refused(&self, s: SessionId, c: ChatId, m: Option<Name>, error: &SendError) {
        let mut inner = self.lock();
        let t = self.now();
        let (code, is_definite) = match error {
            SendError::Refused { code } => (code.as_str(), *code != ErrorCode::UnknownChat),
            SendError::GaveUp { code } => (code.as_str(), true),
            SendError::UnknownMessage => ("unknown_message", true),
            // Another session was first with that number, so it is in the log.
            SendError::EditConflict { .. } => ("edit_conflict", false),
            SendError::OutcomeUnknown => ("outcome_unknown", false),
            SendError::NotMember => ("not_member", false),
            SendError::NotRecipient => ("not_recipient", false),
            SendError::TooLarge { .. } => ("too_large", true),
            SendError::GhostRecipient { .. } => ("ghost_recipient", true),
            SendError::Sealing => ("sealing", true),
            SendError::Storage(_) => ("storage", true),
            SendError::Closed(_) => ("closed", false),
            _ => ("unknown", false),
        };
        *inner.troubles.refusals.entry(code.to_owned()).or_default() += 1;
        if let Some(m) = m.filter(|_| is_definite) {
            inner.push(Record::Err { t, s, c, m, code: code.to_owned() });
        }
    }

    /// Takes an event of a session's client.
    pub(crate) fn event(&self, s: SessionId, event: &Event) {
        match event {
            Event::Message(message) => {
                self.given(s, message.chat_id, message.seq, Some(name(message.message_id, message.revision)), true);
            }
            Event::Edited { message, .. } => {
                self.given(s, message.chat_id, message.seq, Some(name(message.message_id, message.revision)), true);
            }
            Event::Deleted { deletion, .. } => {
                let m = name(deletion.message_id, deletion.revision);
                self.given(s, deletion.chat_id, deletion.seq, Some(m), true);
            }
            Event::Read { chat_id, seq: Some(seq), message_id: Some(message_id), .. } => {
                self.count(|deeds| deeds.receipts_delivered += 1);
                self.given(s, *chat_id, *seq, Some(Name::first(*message_id)), true);
            }
            Event::Silent { chat_id, seq, message_id, revision } => {
                self.count(|deeds| deeds.silent += 1);
                self.given(s, *chat_id, *seq, Some(name(*message_id, *revision)), true);
            }
            Event::AccountDeleted { chat_id, seq, user_id, .. } => {
                self.given(s, *chat_id, *seq, None, true);
                self.all_removed(*user_id, *chat_id, *seq);
            }
            Event::Signal { .. } => self.count(|deeds| deeds.signals_delivered += 1),
            Event::Delivered { .. } => self.count(|deeds| deeds.deliveries_told += 1),
            Event::CopyRefused { .. } | Event::Unreadable { .. } => self.lock().troubles.bad_copies += 1,
            Event::SendFailed { chat_id, error, .. } => self.refused(s, *chat_id, None, error),
            Event::MembershipChanged { chat_id, seq, target, change, .. } => {
                self.given(s, *chat_id, *seq, None, true);
                if matches!(change, Change::Remove | Change::Leave) {
                    self.all_removed(*target, *chat_id, *seq);
                }
            }
            Event::SessionChanged { chat_id, seq, session_id, is_in, .. } => {
                self.given(s, *chat_id, *seq, None, true);
                if *is_in {
                    self.member(*session_id, *chat_id, *seq);
                } else {
                    self.removed(*session_id, *chat_id, *seq);
                }
            }
            Event::Alarm(alarm) => self.alarm(Some(s), alarm),
            Event::Closed(reason) => self.lock().troubles.closed.push(reason.to_string()),
            _ => {}
        }
    }

    fn all_removed(&self, user_id: UserId, c: ChatId, seq: Seq) {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in users.get(&user_id).into_iter().flatten() {
            self.removed(*gone, c, seq);
        }
    }

    fn given(&self, s: SessionId, c: ChatId, seq: Seq, m: Option<Name>, open: bool) {
        let now = Instant::now();
        let mut inner = self.lock();
        let t = self.now();
        let standing = inner.standings.entry((c, s)).or_default();
        standing.highest = standing.highest.max(seq.get());
        if let Some(m) = m.filter(|_| open) {
            inner.counts.delivered += 1;
            if let Some(standing) = inner.standings.get_mut(&(c, s)) {
                standing.received += 1;
            }
            if let Some(submitted) = inner.submitted.get(&m).copied().filter(|submitted| submitted.by != s) {
                let micros = now.saturating_duration_since(submitted.at).as_micros();
                inner.latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
            }
        }
        inner.push(Record::Recv { t, s, c, m, seq: seq.get(), open });
    }

    fn member(&self, s: SessionId, c: ChatId, seq: Seq) {
        let mut inner = self.lock();
        let known = &mut inner.standings.entry((c, s)).or_default().member;
        if *known != Some(seq.get()) {
            known.get_or_insert(seq.get());
            inner.push(Record::Member { s, c, seq: seq.get() });
        }
    }

    fn removed(&self, s: SessionId, c: ChatId, seq: Seq) {
        let mut inner = self.lock();
        let standing = inner.standings.entry((c, s)).or_default();
        if standing.member.is_some() && standing.removed != Some(seq.get()) {
            standing.removed.get_or_insert(seq.get());
            inner.push(Record::Removed { s, c, seq: seq.get() });
        }
    }

    /// An alarm of a page of older entries, which are no part of the history.
    pub(crate) fn alarm_of_page(&self, alarm: &Alarm) {
        self.alarm(None, alarm);
    }

    fn alarm(&self, s: Option<SessionId>, alarm: &Alarm) {
        let text = format!("{:?}", alarm.failure);
        let kind = text.split([' ', '(', '{']).next().unwrap_or("").to_owned();
        if let (Some(s), Some(c), Some(seq), Some(_)) = (s, alarm.chat_id, alarm.seq, alarm.session_id) {
            self.given(s, c, seq, None, false);
        } else {
            self.lock().troubles.loose_alarms += 1;
        }
        *self.lock().troubles.alarms.entry(kind).or_default() += 1;
    }

    /// Events of a session that were dropped because it was not listened to in time.
    pub(crate) fn dropped(&self, count: u64) {
        self.lock().troubles.dropped_events += count;
    }

    /// Something was broken on purpose.
    pub(crate) fn fault(&self, what: &str) {
        let t = self.now();
        self.lock().push(Record::Fault { t, what: what.to_owned() });
    }

    /// A session has read a chat to its end.
    pub(crate) fn last(&self, s: SessionId, c: ChatId, seq: u64) {
        self.lock().push(Record::Final { s, c, seq });
    }

    /// A removed session tried an entry.
    pub(crate) fn peek(&self, s: SessionId, c: ChatId, seq: u64, open: bool) {
        self.lock().push(Record::Peek { s, c, seq, open });
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Where everything else went wrong.
    pub(crate) fn troubles(&self) -> Troubles {
        self.lock().troubles.clone()
    }

    /// Sessions that are members of a chat now, with the highest seq that each was given.
    pub(crate) fn members(&self, chat_id: ChatId) -> BTreeMap<SessionId, u64> {
        let inner = self.lock();
        let of_chat = inner.standings.iter().filter(|((c, _), _)| *c == chat_id);
        let members = of_chat.filter(|(_, standing)| standing.member.is_some() && standing.removed.is_none());
        members.map(|((_, s), standing)| (*s, standing.highest)).collect()
    }

    /// Sessions that were removed, from which chat, after which seq, and how many messages each had received.
    pub(crate) fn removals(&self) -> Vec<Removal> {
        let inner = self.lock();
        let removal = |((chat_id, session_id), standing): (&(ChatId, SessionId), &Standing)| {
            let (chat_id, session_id, received) = (*chat_id, *session_id, standing.received);
            Some(Removal { chat_id, session_id, member: standing.member?, seq: standing.removed?, received })
        };
        let mut removals: Vec<Removal> = inner.standings.iter().filter_map(removal).collect();
        removals.sort_by_key(|removal| (removal.chat_id, removal.seq, removal.session_id));
        removals
    }

    /// Chats that have members.
    pub(crate) fn chats(&self) -> BTreeSet<ChatId> {
        self.lock().standings.keys().map(|(chat_id, _)| *chat_id).collect()
    }

    /// Latencies so far.
    pub(crate) fn latency(&self) -> Latency {
        let inner = self.lock();
        let at = |quantile| Duration::from_micros(inner.latency.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        if inner.latency.is_empty() {
            return Latency::default();
        }
        Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }

    /// Ends the history: writes what waits and checks all of it.
    pub(crate) fn finish(&self) -> anyhow::Result<crate::check::Verdict> {
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file {
            file.flush().context("writing the history")?;
        }
        Ok(crate::check::check(&inner.records))
    }
}

fn name(message_id: MessageId, revision: Revision) -> Name {
    Name { message_id, revision: revision.get() }
}

/// A session's removal from a chat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal {
    /// From which chat.
    pub(crate) chat_id: ChatId,
    /// Whose.
    pub(crate) session_id: SessionId,
    /// The session was a recipient after this seq …
    pub(crate) member: u64,
    /// … up to and with this one.
    pub(crate) seq: u64,
    /// Messages that it had received by then.
    pub(crate) received: u64,
}

impl Inner {
    fn push(&mut self, record: Record) {
        if let Some(file) = &mut self.file
            && record.write(file).is_err()
        {
            self.troubles.unwritten += 1;
        }
        self.records.push(record);
    }
}
