//! Runs one chat while members are removed from it, and checks every delivery.
//!
//! A sender goes on under its key until it learns of a removal: by the entry, or by a refusal. Then it waits for what is
//! open and sends under a new key, whose copies come with the first message.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Request, ServerFrame};
use sealcast::protocol::log::{EntryBody, LogEntry};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::connection::{Connection, ENCODING, Frame, push_pong};
use super::super::drive::{opens, write_some};
use super::super::figures::{Latencies, Wrong};
use super::super::member::Asker;
use super::super::pool::body;
use super::super::wire::Said;
use super::script::{Line, Script};

/// How long everything that was sent may take to arrive after the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether the run is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Bytes that wait to be written, from which on a sender makes no more.
const OUT_BYTES: usize = 1024 * 1024;

/// How it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) window: usize,
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    pub(super) removal_every: Duration,
    pub(super) opened_one_in: usize,
    pub(super) body_bytes: usize,
}

/// What a run gave.
pub(super) struct Ran {
    pub(super) elapsed_s: f64,
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) opened: u64,
    /// Refused for a removal that their sender did not know of.
    pub(super) refused: u64,
    /// Of messages that carry no new key, and of those that do.
    pub(super) plain: Latencies,
    pub(super) with_key: Latencies,
    /// From the acknowledged removal to each sender's next accepted message, and of what it is made: until the sender
    /// learns of it, until all that was open is answered and the key is sent, until it is accepted.
    pub(super) gap: Latencies,
    pub(super) gap_parts: [Latencies; 3],
    pub(super) wrong: Wrong,
    pub(super) read_after_removal: u64,
    pub(super) is_exhausted: bool,
}

/// Where a sender stands.
struct Sender {
    next: Line,
    /// Sent and not answered.
    open: BTreeMap<Line, Instant>,
    accepted: u64,
    /// The newest roster that it has learnt of, and when.
    roster: usize,
    learnt: Option<Instant>,
    key_sent: Option<Instant>,
}

/// What all connections share.
struct Shared {
    script: Script,
    pace: Pace,
    members: Cell<u64>,
    senders: RefCell<Vec<Sender>>,
    began: RefCell<HashMap<(usize, Line), Instant>>,
    /// When each removal was acknowledged, and its place.
    removed: RefCell<Vec<Instant>>,
    phase: Cell<Phase>,
    on_their_way: Cell<i64>,
    wake: Notify,
    ran: RefCell<Ran>,
    scratch: RefCell<Vec<u8>>,
    failure: RefCell<Option<anyhow::Error>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Over,
}

/// What a member has been given.
struct Given {
    last: u64,
    /// The newest message and the number of messages of each sender.
    of: Vec<(Option<Line>, u64)>,
    /// Removals that it has been told of.
    rosters: usize,
    is_gone: bool,
    wrong: Wrong,
    read_after_removal: u64,
}

/// A member's connection.
pub(super) struct Seat {
    pub(super) connection: Connection,
    pub(super) sender: Option<usize>,
    pub(super) is_timed: bool,
    /// Which of the removals is its own.
    pub(super) removed_by: Option<usize>,
}

/// Runs a script; the owner asks for the removals. `mark` is called when measuring begins, and when it ends.
pub(super) async fn run(
    script: Script,
    pace: Pace,
    before: u64,
    seats: Vec<Seat>,
    owner: &mut Asker,
    removals: Vec<Request>,
    mut mark: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Ran> {
    let start = Sender {
        next: Line { roster: 0, number: 0 },
        open: BTreeMap::new(),
        accepted: 0,
        roster: 0,
        learnt: None,
        key_sent: None,
    };
    let senders = script.parts.iter().map(|_| Sender { open: BTreeMap::new(), ..start }).collect();
    let shared = Rc::new(Shared {
        script,
        pace,
        members: Cell::new(seats.len() as u64),
        senders: RefCell::new(senders),
        began: RefCell::default(),
        removed: RefCell::default(),
        phase: Cell::new(Phase::WarmUp),
        on_their_way: Cell::new(0),
        wake: Notify::new(),
        ran: RefCell::new(Ran::new()?),
        scratch: RefCell::default(),
        failure: RefCell::default(),
    });
    let mut tasks = JoinSet::new();
    let mut all_given = Vec::new();
    for seat in seats {
        let given = Given::new(before, shared.script.parts.len());
        let given = Rc::new(RefCell::new(given));
        all_given.push((seat.removed_by, Rc::clone(&given)));
        let shared = Rc::clone(&shared);
        tasks.spawn_local(async move {
            if let Err(error) = sit(seat, &given, &shared).await {
                shared.failure.borrow_mut().get_or_insert(error);
            }
        });
    }
    shared.watch(pace.warm_up).await?;
    mark().await?;
    let measured = Instant::now();
    shared.phase.set(Phase::Measured);
    for (number, removal) in removals.into_iter().enumerate() {
        let due = pace.removal_every * u32::try_from(number + 1)?;
        shared.watch(due.saturating_sub(measured.elapsed())).await?;
        owner.ask(removal).await.context("removing a member")?;
        shared.removed.borrow_mut().push(Instant::now());
        shared.members.set(shared.members.get() - 1);
    }
    shared.watch(pace.measured.saturating_sub(measured.elapsed())).await?;
    let elapsed_s = measured.elapsed().as_secs_f64();
    shared.phase.set(Phase::Over);
    mark().await?;
    let drained = Instant::now();
    while drained.elapsed() < DRAIN_TIMEOUT && !shared.is_all_there(&all_given) {
        shared.watch(LOOK_INTERVAL).await?;
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    let shared = Rc::into_inner(shared).context("a connection that has not ended")?;
    let (mut ran, senders) = (shared.ran.into_inner(), shared.senders.into_inner());
    ran.elapsed_s = elapsed_s;
    for (removed_by, given) in &all_given {
        let given = given.borrow();
        ran.wrong.add(given.wrong);
        ran.read_after_removal += given.read_after_removal;
        if removed_by.is_none() {
            let lost = senders.iter().zip(&given.of).map(|(sender, (_, count))| sender.accepted.abs_diff(*count));
            ran.wrong.lost += lost.sum::<u64>();
        }
    }
    Ok(ran)
}

impl Ran {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            elapsed_s: 0.0,
            acked: 0,
            delivered: 0,
            opened: 0,
            refused: 0,
            plain: Latencies::new()?,
            with_key: Latencies::new()?,
            gap: Latencies::new()?,
            gap_parts: [Latencies::new()?, Latencies::new()?, Latencies::new()?],
            wrong: Wrong::default(),
            read_after_removal: 0,
            is_exhausted: false,
        })
    }
}

impl Shared {
    /// Waits, or ends with what went wrong meanwhile.
    async fn watch(&self, time: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Some(error) = self.failure.borrow_mut().take() {
                return Err(error);
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
        }
    }

    fn is_all_there(&self, all_given: &[(Option<usize>, Rc<RefCell<Given>>)]) -> bool {
        let senders = self.senders.borrow();
        let stay = all_given.iter().filter(|(removed_by, _)| removed_by.is_none());
        senders.iter().all(|sender| sender.open.is_empty())
            && stay.into_iter().all(|(_, given)| {
                let given = given.borrow();
                senders.iter().zip(&given.of).all(|(sender, (_, count))| *count >= sender.accepted)
            })
    }

    /// Whether two windows are on their way to the members.
    fn is_full(&self) -> bool {
        let windows = 2 * self.pace.window as i64 * self.script.parts.len() as i64;
        self.on_their_way.get() >= windows * i64::try_from(self.members.get()).unwrap_or(i64::MAX)
    }

    /// Says as much as window, room and roster allow.
    fn speak(&self, number: usize, out: &mut Vec<u8>) {
        let mut senders = self.senders.borrow_mut();
        let (Some(sender), Some(part)) = (senders.get_mut(number), self.script.parts.get(number)) else { return };
        while self.phase.get() != Phase::Over && out.len() < OUT_BYTES && sender.open.len() < self.pace.window {
            if sender.next.roster < sender.roster {
                // What is open decides where the last key ended.
                if !sender.open.is_empty() {
                    return;
                }
                sender.next = Line { roster: sender.roster, number: 0 };
            }
            // Nothing goes under a key before it is accepted.
            if sender.next.number == 1 && !sender.open.is_empty() {
                return;
            }
            if self.is_full() {
                return;
            }
            let Some(frame) = part.frame(sender.next) else {
                self.ran.borrow_mut().is_exhausted = true;
                return;
            };
            out.extend_from_slice(frame);
            let now = Instant::now();
            if sender.next.number == 0 {
                sender.key_sent = Some(now);
            }
            sender.open.insert(sender.next, now);
            self.began.borrow_mut().insert((number, sender.next), now);
            self.on_their_way.set(self.on_their_way.get() + self.members.get() as i64);
            sender.next.number += 1;
        }
    }

    /// Measures a message that a timed member was given, and opens one of many.
    fn judge(&self, sender: usize, line: Line, payload: &[u8], now: Instant, wrong: &mut Wrong) {
        let mut ran = self.ran.borrow_mut();
        if let Some(began) = self.began.borrow().get(&(sender, line)) {
            let latencies = if line.number == 0 { &mut ran.with_key } else { &mut ran.plain };
            latencies.record_ns(ns(now.saturating_duration_since(*began)));
        }
        if !line.number.is_multiple_of(self.pace.opened_one_in) {
            return;
        }
        let opened = self.script.parts.get(sender).and_then(|part| {
            let key = part.pools.get(line.roster)?.key(line.number)?;
            let text = body(u64::try_from(line.number).ok()?, self.pace.body_bytes);
            opens(self.script.chat_id, key, &part.signing_key, payload, &text)
        });
        match opened {
            Some(()) => ran.opened += 1,
            None => wrong.undecryptable += 1,
        }
    }

    /// Notes that a sender learns of a roster.
    fn learn(&self, number: usize, roster: usize) {
        if let Some(sender) = self.senders.borrow_mut().get_mut(number)
            && roster > sender.roster
        {
            (sender.roster, sender.learnt) = (roster, Some(Instant::now()));
        }
    }

    fn accepted(&self, number: usize, id: u64) -> anyhow::Result<()> {
        let mut senders = self.senders.borrow_mut();
        let sender = senders.get_mut(number).context("an answer to who does not send")?;
        let line = Line::of(id).context("an answer to nothing")?;
        let sent = sender.open.remove(&line).context("an answer to what is not open")?;
        sender.accepted += 1;
        if self.phase.get() != Phase::Measured {
            return Ok(());
        }
        let (mut ran, now) = (self.ran.borrow_mut(), Instant::now());
        ran.acked += 1;
        let removed = self.removed.borrow();
        if let (0, Some(removed)) = (line.number, line.roster.checked_sub(1).and_then(|at| removed.get(at))) {
            let learnt = sender.learnt.unwrap_or(sent);
            ran.gap.record_ns(ns(now.saturating_duration_since(*removed)));
            let parts = [
                learnt.saturating_duration_since(*removed),
                sent.saturating_duration_since(learnt),
                now.saturating_duration_since(sent),
            ];
            ran.gap_parts.iter_mut().zip(parts).for_each(|(part, time)| part.record_ns(ns(time)));
        }
        Ok(())
    }

    /// A removal came between; anything else ends the run.
    fn refused(&self, number: usize, error: &sealcast::protocol::frame::Error) -> anyhow::Result<()> {
        let is_late = matches!(
            error.code,
            ErrorCode::RosterChanged | ErrorCode::RecipientsChanged | ErrorCode::KeyStale | ErrorCode::CounterGap
        );
        let line = error.id.and_then(|id| Line::of(id.get())).filter(|_| is_late);
        let line = line.with_context(|| format!("refused: {error:?}"))?;
        let mut senders = self.senders.borrow_mut();
        let sender = senders.get_mut(number).context("a refusal to who does not send")?;
        sender.open.remove(&line).context("a refusal of what is not open")?;
        self.on_their_way.set(self.on_their_way.get() - self.members.get() as i64);
        self.ran.borrow_mut().refused += 1;
        if line.roster >= sender.roster {
            (sender.roster, sender.learnt) = (line.roster + 1, Some(Instant::now()));
        }
        Ok(())
    }
}

impl Given {
    fn new(before: u64, senders: usize) -> Self {
        let of = vec![(None, 0); senders];
        Self { last: before, of, rosters: 0, is_gone: false, wrong: Wrong::default(), read_after_removal: 0 }
    }

    /// Checks the place of an entry.
    fn place(&mut self, seq: u64) {
        self.read_after_removal += u64::from(self.is_gone);
        match seq.checked_sub(self.last + 1) {
            Some(missing) => {
                self.wrong.gaps += missing;
                self.last = seq;
            }
            None => self.wrong.out_of_order += 1,
        }
    }

    /// Takes an entry that came in a page, or is no message. `who` is the member's place among senders and removed.
    fn paged(
        &mut self,
        shared: &Shared,
        (sender, removed_by): (Option<usize>, Option<usize>),
        entry: &LogEntry,
    ) -> anyhow::Result<()> {
        match &entry.body {
            EntryBody::Message(envelope) => {
                self.message(&shared.script, entry.seq.get(), &ENCODING.encode(envelope)?);
                return Ok(());
            }
            EntryBody::Membership(_) => {
                self.rosters += 1;
                if let Some(sender) = sender {
                    shared.learn(sender, self.rosters);
                }
            }
            _ => {}
        }
        self.place(entry.seq.get());
        self.is_gone |= removed_by.is_some_and(|removal| self.rosters > removal);
        Ok(())
    }

    /// Checks a message; tells whose it is, and which.
    fn message(&mut self, script: &Script, seq: u64, body: &[u8]) -> Option<(usize, Line)> {
        self.place(seq);
        let Some((sender, line)) = script.find(body) else {
            self.wrong.undecryptable += 1;
            return None;
        };
        let (newest, count) = self.of.get_mut(sender)?;
        match *newest {
            Some(newest) if newest == line => self.wrong.duplicated += 1,
            Some(newest) if newest > line => self.wrong.out_of_order += 1,
            _ => {
                (*newest, *count) = (Some(line), *count + 1);
                return Some((sender, line));
            }
        }
        None
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// One member, until the run is over.
async fn sit(mut seat: Seat, given: &RefCell<Given>, shared: &Shared) -> anyhow::Result<()> {
    let mut out = Vec::new();
    if seat.connection.has_carry() {
        take(&mut seat, given, shared, &mut out)?;
    }
    loop {
        if let Some(sender) = seat.sender {
            shared.speak(sender, &mut out);
        }
        write_some(&seat.connection, &mut out)?;
        tokio::select! {
            biased;
            readable = seat.connection.stream.readable() => {
                readable?;
                take(&mut seat, given, shared, &mut out)?;
            }
            writable = seat.connection.stream.writable(), if !out.is_empty() => writable?,
            () = shared.wake.notified(), if seat.sender.is_some() => {}
        }
    }
}

/// Takes all that has come.
fn take(seat: &mut Seat, given: &RefCell<Given>, shared: &Shared, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let (mut scratch, mut given) = (shared.scratch.borrow_mut(), given.borrow_mut());
    let (was_full, is_measured) = (shared.is_full(), shared.phase.get() == Phase::Measured);
    let now = Instant::now();
    let mut entries = 0_u32;
    let who = (seat.sender, seat.removed_by);
    let is_open = seat.connection.take(&mut scratch, |frame| {
        let payload = match frame {
            Frame::Binary(payload) => payload,
            Frame::Ping(payload) => {
                push_pong(out, payload);
                return Ok(());
            }
            Frame::Close(payload) => bail!("the server closed: {}", String::from_utf8_lossy(payload)),
        };
        match shared.script.wire.read(payload) {
            Said::Entry { seq, body } => {
                entries += 1;
                let found = given.message(&shared.script, seq, body);
                if let (Some((sender, line)), true) = (found, seat.is_timed && is_measured) {
                    shared.judge(sender, line, payload, now, &mut given.wrong);
                }
            }
            Said::Taken { id, .. } => shared.accepted(seat.sender.context("an answer to who has not asked")?, id)?,
            Said::Else => match ENCODING.decode_server(payload)? {
                ServerFrame::Entry(entry) => given.paged(shared, who, &entry.entry)?,
                ServerFrame::Error(error) => {
                    shared.refused(seat.sender.context("a refusal to who has not asked")?, &error)?;
                }
                // Whoever reads too slowly is given pages until it has caught up.
                ServerFrame::Page(page) => {
                    for entry in &page.entries {
                        entries += 1;
                        given.paged(shared, who, entry)?;
                    }
                }
                _ => {}
            },
        }
        Ok(())
    })?;
    shared.on_their_way.set(shared.on_their_way.get() - i64::from(entries));
    if is_measured {
        shared.ran.borrow_mut().delivered += u64::from(entries);
    }
    if was_full && !shared.is_full() {
        shared.wake.notify_waiters();
    }
    if !is_open {
        bail!("the server ended a connection");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_checked_and_nothing_is_to_come_after_the_end() {
        let mut given = Given::new(7, 1);
        (8..=9).for_each(|seq| given.place(seq));
        assert_eq!((given.wrong.sum(), given.read_after_removal), (0, 0));
        given.place(12);
        given.place(10);
        assert_eq!((given.wrong.gaps, given.wrong.out_of_order), (2, 1));
        given.is_gone = true;
        given.place(13);
        assert_eq!(given.read_after_removal, 1);
    }

    #[test]
    fn a_line_is_found_by_its_request() {
        let line = Line { roster: 3, number: 17 };
        assert_eq!(Line::of(line.id()), Some(line));
        assert_eq!(Line::of(0), None);
    }
}
