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
use sealcast::protocol::ids::{ChatId, MessageId, Revision, Seq, SessionId};
use sealcast::protocol::membership::Change;

use super::pause::Pauses;
use super::record::{Name, Record};
use super::standing::{Fact, Standings};
use super::tally::{Counts, Deeds, Latency, Troubles};
use crate::check::check;
use crate::check::verdict::Verdict;

/// The longest latency that is told apart.
const LATENCY_US_MAX: u64 = 600_000_000;

struct Inner {
    records: Vec<Record>,
    file: Option<BufWriter<File>>,
    submitted: HashMap<Name, Submitted>,
    standings: Standings,
    pauses: Pauses,
    faults: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    /// The same since it was asked last.
    recent: Histogram<u64>,
    counts: Counts,
    deeds: Deeds,
    troubles: Troubles,
}

#[derive(Clone, Copy)]
struct Submitted {
    at: Instant,
    by: SessionId,
}

fn percentiles(latency: &Histogram<u64>) -> Latency {
    let at = |quantile| Duration::from_micros(latency.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    if latency.is_empty() {
        return Latency::default();
    }
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
}

/// The history of a run.
pub(crate) struct Recorder {
    began: Instant,
    began_s: f64,
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
            inner: Mutex::new(Inner {
                records: Vec::new(),
                file: file.map(BufWriter::new),
                submitted: HashMap::new(),
                standings: Standings::default(),
                pauses: Pauses::default(),
                faults: BTreeMap::new(),
                latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
                recent: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?,
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
    fn now(&self) -> f64 {
        self.began_s + self.began.elapsed().as_secs_f64()
    }

    /// A message that is given to the client library next; its latency counts from `at`.
    pub(crate) fn send(&self, s: SessionId, c: ChatId, m: Name, at: Instant) {
        let mut inner = self.lock();
        let t = self.now();
        inner.submitted.insert(m, Submitted { at, by: s });
        inner.counts.sent += 1;
        inner.pauses.sends(Instant::now());
        inner.push(Record::Send { t, s, c, m });
    }

    /// An acknowledgement.
    pub(crate) fn ok(&self, s: SessionId, c: ChatId, m: Name, seq: Seq) {
        let mut inner = self.lock();
        let t = self.now();
        inner.counts.acked += 1;
        inner.pauses.acknowledged(Instant::now());
        inner.push(Record::Ok { t, s, c, m, seq: seq.get() });
    }

    /// Something is sent next whose name is known with its answer only; tells the time.
    pub(crate) fn sends(&self) -> f64 {
        let mut inner = self.lock();
        inner.pauses.sends(Instant::now());
        self.now()
    }

    /// An edit or deletion that was acknowledged; its number was not known when it was sent, at `at`.
    pub(crate) fn revised(&self, s: SessionId, c: ChatId, m: Name, at: f64, seq: Seq) {
        let mut inner = self.lock();
        let t = self.now();
        inner.counts.sent += 1;
        inner.counts.acked += 1;
        inner.pauses.acknowledged(Instant::now());
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

    /// A send that failed; without a name nothing is claimed of it. One that failed because its sender is gone from
    /// the chat may be in the log all the same, and one that waited in a client that closed too: only other failures
    /// are definite refusals.
    pub(crate) fn refused(&self, s: SessionId, c: ChatId, m: Option<Name>, error: &SendError) {
        let mut inner = self.lock();
        let t = self.now();
        let (code, is_definite) = code_of(error);
        inner.refused(error);
        inner.pauses.gave_up(Instant::now());
        if let Some(m) = m.filter(|_| is_definite) {
            inner.push(Record::Err { t, s, c, m, code: code.to_owned() });
        }
    }

    /// Takes an event of a session's client.
    pub(crate) fn event(&self, s: SessionId, event: &Event) {
        let plain = |c: ChatId, seq: Seq, fact: Fact| self.given(s, c, seq, None, true, fact);
        let message = |c: ChatId, seq: Seq, m: Name| self.given(s, c, seq, Some(m), true, Fact::Nothing);
        match event {
            Event::Message(given) | Event::Edited { message: given, .. } => {
                message(given.chat_id, given.seq, name(given.message_id, given.revision));
            }
            Event::Deleted { deletion, .. } => {
                message(deletion.chat_id, deletion.seq, name(deletion.message_id, deletion.revision));
            }
            Event::Read { chat_id, seq: Some(seq), message_id: Some(message_id), .. } => {
                self.count(|deeds| deeds.receipts_delivered += 1);
                message(*chat_id, *seq, Name::first(*message_id));
            }
            Event::Silent { chat_id, seq, message_id, revision } => {
                self.count(|deeds| deeds.silent += 1);
                message(*chat_id, *seq, name(*message_id, *revision));
            }
            Event::AccountDeleted { chat_id, seq, user_id, .. }
            | Event::AccountRemoved { chat_id, seq, user_id, .. } => plain(*chat_id, *seq, Fact::UserOut(*user_id)),
            Event::Signal { .. } => self.count(|deeds| deeds.signals_delivered += 1),
            Event::Delivered { .. } => self.count(|deeds| deeds.deliveries_told += 1),
            Event::CopyRefused { .. } | Event::Unreadable { .. } => self.lock().troubles.bad_copies += 1,
            Event::SendFailed { error, .. } => self.lock().refused(error),
            Event::MembershipChanged { chat_id, seq, target, change: Change::Remove | Change::Leave, .. } => {
                plain(*chat_id, *seq, Fact::UserOut(*target));
            }
            Event::MembershipChanged { chat_id, seq, .. }
            | Event::SessionRenewed { chat_id, seq, .. }
            | Event::UserKeyChanged { chat_id, seq, .. }
            | Event::GroupKeyChanged { chat_id, seq, .. } => plain(*chat_id, *seq, Fact::Nothing),
            Event::SessionChanged { chat_id, seq, user_id, session_id, is_in } => {
                let fact = if *is_in { Fact::In(*user_id, *session_id) } else { Fact::Out(*session_id) };
                plain(*chat_id, *seq, fact);
            }
            Event::Alarm(alarm) => self.alarm(Some(s), alarm),
            Event::Closed(reason) => {
                *self.lock().troubles.closed.entry(reason.to_string()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn given(&self, s: SessionId, c: ChatId, seq: Seq, m: Option<Name>, open: bool, fact: Fact) {
        let now = Instant::now();
        let mut inner = self.lock();
        // What a session may read of the time before it opens as its keys come, like pages that are read back.
        if m.is_some() && inner.standings.is_older(s, c, seq.get()) {
            return;
        }
        let t = self.now();
        if let Some(m) = m.filter(|_| open) {
            inner.counts.delivered += 1;
            if let Some(submitted) = inner.submitted.get(&m).copied().filter(|submitted| submitted.by != s) {
                let micros = now.saturating_duration_since(submitted.at).as_micros();
                let micros = u64::try_from(micros).unwrap_or(u64::MAX).max(1);
                inner.latency.saturating_record(micros);
                inner.recent.saturating_record(micros);
            }
        }
        inner.push(Record::Recv { t, s, c, m, seq: seq.get(), open });
        for record in inner.standings.given(s, c, seq.get(), fact, open && m.is_some()) {
            inner.push(record);
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
            self.given(s, c, seq, None, false, Fact::Nothing);
        } else {
            self.lock().troubles.loose_alarms += 1;
        }
        *self.lock().troubles.alarms.entry(kind).or_default() += 1;
        // For whoever looks for the cause.
        self.remark(&format!("alarm at {s:?}: {alarm:?}"));
    }

    /// Events of a session that were dropped because it was not listened to in time.
    pub(crate) fn dropped(&self, count: u64) {
        self.lock().troubles.dropped_events += count;
    }

    /// Something was broken on purpose: of which kind, and what exactly.
    pub(crate) fn fault(&self, kind: &str, what: &str) {
        let mut inner = self.lock();
        *inner.faults.entry(kind.to_owned()).or_default() += 1;
        let t = self.now();
        inner.push(Record::Fault { t, what: format!("{kind}{}{what}", if what.is_empty() { "" } else { ": " }) });
    }

    /// Something to know beside the faults: what is whole again, or what went wrong by itself.
    pub(crate) fn remark(&self, what: &str) {
        let t = self.now();
        self.lock().push(Record::Fault { t, what: what.to_owned() });
    }

    /// How often each kind of thing was broken.
    pub(crate) fn faults(&self) -> BTreeMap<String, u64> {
        self.lock().faults.clone()
    }

    /// The longest time in which nothing was acknowledged although somebody was sending.
    pub(crate) fn longest_pause(&self) -> Duration {
        self.lock().pauses.longest(Instant::now())
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
        self.lock().standings.members(chat_id)
    }

    /// Sessions that were removed, from which chat, after which seq, and how many messages each had received.
    pub(crate) fn removals(&self) -> Vec<Removal> {
        self.lock().standings.removals()
    }

    /// Chats that have members.
    pub(crate) fn chats(&self) -> BTreeSet<ChatId> {
        self.lock().standings.chats()
    }

    /// Latencies so far.
    pub(crate) fn latency(&self) -> Latency {
        percentiles(&self.lock().latency)
    }

    /// Latencies since this was asked last.
    pub(crate) fn recent_latency(&self) -> Latency {
        let mut inner = self.lock();
        let latency = percentiles(&inner.recent);
        inner.recent.reset();
        latency
    }

    /// Writes what waits to be written.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.lock().file.as_mut().map_or(Ok(()), Write::flush).context("writing the history")
    }

    /// Ends the history: writes what waits and checks all of it.
    pub(crate) fn finish(&self) -> anyhow::Result<Verdict> {
        self.flush()?;
        Ok(check(&self.lock().records))
    }
}

/// The name of a failure, and whether it means that the message is not in the log and never will be.
fn code_of(error: &SendError) -> (&'static str, bool) {
    match error {
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
    fn refused(&mut self, error: &SendError) {
        *self.troubles.refusals.entry(code_of(error).0.to_owned()).or_default() += 1;
    }

    fn push(&mut self, record: Record) {
        if let Some(file) = &mut self.file
            && record.write(file).is_err()
        {
            self.troubles.unwritten += 1;
        }
        self.records.push(record);
    }
}
