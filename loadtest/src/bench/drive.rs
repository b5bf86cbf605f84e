//! Runs all connections of a plan on one thread, and checks every delivery.
//!
//! Each delivery is checked for its place and byte for byte against what was sealed; one in many is opened and its
//! signature verified. A sender waits for its window, and for the room: at most two windows of a chat may be on their way to
//! its members, so that no server gains by answering early and delivering late.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sealcast::crypto::Secret;
use sealcast::crypto::message::{self, Place};
use sealcast::protocol::binary::SigningKey;
use sealcast::protocol::frame::ServerFrame;
use sealcast::protocol::ids::{ChatId, KeyId};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::verify::Verifier;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};

use super::connection::{Connection, ENCODING, Frame, push_pong};
use super::figures::{Latencies, Wrong};
use super::member::Member;
use super::over_time::{OverTime, Second};
use super::plan::Plan;
use super::pool::{Audience, FIRST_ID, Pool, body};
use super::remote::Refused;
use super::wire::{Said, Wire};

/// How long everything that was sent may take to arrive after the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether the run is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Messages that are due and have not been looked at, at most; the time of each is that of the plan, however late it is.
const DUES_MAX: usize = 64 * 1024;

/// Bytes that wait to be written, from which on a sender makes no more.
const OUT_BYTES: usize = 256 * 1024;

/// A chat as the generator sees it.
pub(crate) struct Talk {
    pub(crate) chat_id: ChatId,
    pub(crate) wire: Wire,
    pub(crate) voices: Vec<Voice>,
    pub(crate) members: usize,
    /// The place of the last entry before the first message.
    pub(crate) before: u64,
    /// Deliveries so far, to all members.
    arrived: Cell<u64>,
    /// For senders that wait for the room.
    wake: Notify,
}

impl Talk {
    pub(crate) fn new(chat_id: ChatId, wire: Wire, voices: Vec<Voice>, members: usize, before: u64) -> Self {
        Self { chat_id, wire, voices, members, before, arrived: Cell::new(0), wake: Notify::new() }
    }

    fn sent(&self) -> u64 {
        self.voices.iter().map(|voice| voice.sent.get() as u64).sum()
    }

    /// Whether two windows are on their way.
    fn is_full(&self, window: usize) -> bool {
        let on_their_way = self.sent() * self.members as u64 - self.arrived.get();
        on_their_way >= 2 * (window * self.voices.len() * self.members) as u64
    }
}

/// A sender and what it says.
pub(crate) struct Voice {
    pub(crate) pool: RefCell<Pool>,
    /// Who seals each message when it is sent; none when all are sealed before.
    live: Option<Live>,
    /// With what its signatures are verified; none against a floor.
    pub(crate) signing_key: Option<SigningKey>,
    sent: Cell<usize>,
    taken: Cell<usize>,
    /// Messages that the plan has come to; all, without one.
    due: Cell<usize>,
    /// When each message began, in nanoseconds since the run did.
    began: RefCell<Vec<u64>>,
}

impl Voice {
    pub(crate) fn new(pool: Pool, signing_key: Option<SigningKey>) -> Self {
        let began = RefCell::new(Vec::with_capacity(pool.len()));
        let (sent, taken, due) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { pool: RefCell::new(pool), live: None, signing_key, sent, taken, due, began }
    }

    /// One that seals as it speaks, after what is sealed already.
    pub(crate) fn live(pool: Pool, signing_key: SigningKey, live: Live) -> Self {
        Self { live: Some(live), ..Self::new(pool, Some(signing_key)) }
    }

    /// Whether it has come to the end of what it has to say.
    fn is_exhausted(&self) -> bool {
        self.sent.get() == self.live.as_ref().map_or_else(|| self.pool.borrow().len(), |live| live.count)
    }

    /// Appends the frame of a message; `false` if there is none.
    fn write(&self, number: usize, out: &mut Vec<u8>) -> anyhow::Result<bool> {
        if let Some(live) = self.live.as_ref().filter(|live| number < live.count) {
            while self.pool.borrow().len() <= number {
                let sender = live.members.get(live.sender).context("a sender who is no member")?;
                self.pool.borrow_mut().seal_next(&live.audience, sender, live.body_bytes, FIRST_ID)?;
            }
        }
        let pool = self.pool.borrow();
        let frame = pool.frame(number);
        out.extend_from_slice(frame.unwrap_or_default());
        Ok(frame.is_some())
    }

    fn began(&self, number: usize) -> u64 {
        self.began.borrow().get(number).copied().unwrap_or_default()
    }
}

/// How a voice seals as it speaks.
pub(crate) struct Live {
    pub(crate) audience: Audience,
    pub(crate) members: Arc<Vec<Member>>,
    /// Which of the members it is.
    pub(crate) sender: usize,
    pub(crate) body_bytes: usize,
    /// Messages in all.
    pub(crate) count: usize,
}

/// A member's connection, and how far it has come.
pub(crate) struct Seat {
    pub(crate) connection: Connection,
    pub(crate) talk: Rc<Talk>,
    /// Which of the chat's voices it is.
    pub(crate) voice: Option<usize>,
    /// Whether it looks at its clock for each message.
    pub(crate) is_timed: bool,
}

/// What a member has been given.
struct Given {
    last: u64,
    /// The next message of each voice.
    next: Vec<usize>,
    wrong: Wrong,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Over,
}

/// What all connections share.
struct Shared {
    plan: Plan,
    began: Instant,
    phase: Cell<Phase>,
    /// When measuring began, in nanoseconds since the run did.
    measured_ns: Cell<u64>,
    acked: Cell<u64>,
    delivered: Cell<u64>,
    opened: Cell<u64>,
    latency: RefCell<Latencies>,
    ack_latency: RefCell<Latencies>,
    over_time: RefCell<OverTime>,
    scratch: RefCell<Vec<u8>>,
    failure: RefCell<Option<anyhow::Error>>,
}

impl Shared {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a run gave.
pub(crate) struct Driven {
    pub(crate) elapsed_s: f64,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) opened: u64,
    pub(crate) latency: Latencies,
    pub(crate) ack_latency: Latencies,
    pub(crate) latency_over_time: Vec<Option<Second>>,
    pub(crate) wrong: Wrong,
    pub(crate) is_exhausted: bool,
}

/// Runs a plan on connections that are live; must be within a [`tokio::task::LocalSet`]. `mark` is called when measuring
/// begins, and when it ends; it must not hold up the thread, which receives.
///
/// # Errors
/// What a server refuses or closes, and whatever does not arrive in time is counted as lost.
pub(crate) async fn drive(
    plan: &Plan,
    talks: &[Rc<Talk>],
    seats: Vec<Seat>,
    mark: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Driven> {
    drive_while(plan, talks, seats, mark, |measured, _| Ok(measured < plan.measured())).await
}

/// The same for as long as `goes_on` says so, which is asked every few milliseconds of the measured time, and may take the
/// latencies that were measured so far.
///
/// # Errors
/// The same, and those of `goes_on`.
pub(crate) async fn drive_while(
    plan: &Plan,
    talks: &[Rc<Talk>],
    seats: Vec<Seat>,
    mut mark: impl AsyncFnMut() -> anyhow::Result<()>,
    mut goes_on: impl FnMut(Duration, &RefCell<Latencies>) -> anyhow::Result<bool>,
) -> anyhow::Result<Driven> {
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        began: Instant::now(),
        phase: Cell::new(Phase::WarmUp),
        measured_ns: Cell::new(0),
        acked: Cell::new(0),
        delivered: Cell::new(0),
        opened: Cell::new(0),
        latency: RefCell::new(Latencies::new()?),
        ack_latency: RefCell::new(Latencies::new()?),
        over_time: RefCell::new(OverTime::new(plan.measured())?),
        scratch: RefCell::new(Vec::new()),
        failure: RefCell::new(None),
    });
    let mut tasks = tokio::task::JoinSet::new();
    let mut all_given = Vec::new();
    for seat in seats {
        let next = vec![0; seat.talk.voices.len()];
        let given = Rc::new(RefCell::new(Given { last: seat.talk.before, next, wrong: Wrong::default() }));
        all_given.push((Rc::clone(&seat.talk), Rc::clone(&given)));
        let shared = Rc::clone(&shared);
        tasks.spawn_local(async move {
            if let Err(error) = sit(seat, &given, &shared).await {
                shared.failure.borrow_mut().get_or_insert(error);
            }
        });
    }
    let _pace = (plan.rate > 0).then(|| pace(plan, &shared, talks, &mut tasks));
    tokio::time::sleep(plan.warm_up()).await;
    if is_exhausted(talks) {
        bail!("all that was sealed is sent before measuring begins: raise sealed_per_sender_and_s");
    }
    mark().await?;
    let measured = Instant::now();
    shared.measured_ns.set(shared.now_ns());
    shared.phase.set(Phase::Measured);
    let is_exhausted = loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if let Some(error) = shared.failure.borrow_mut().take() {
            return Err(error);
        }
        if !goes_on(measured.elapsed(), &shared.latency)? {
            break false;
        }
        if is_exhausted(talks) {
            break true;
        }
    };
    let elapsed_s = measured.elapsed().as_secs_f64();
    shared.phase.set(Phase::Over);
    mark().await?;
    let drained = Instant::now();
    while drained.elapsed() < DRAIN_TIMEOUT && !is_all_there(talks, &all_given) {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if let Some(error) = shared.failure.borrow_mut().take() {
            return Err(error);
        }
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    let mut wrong = Wrong::default();
    for (talk, given) in &all_given {
        let mut given = given.borrow_mut();
        for (voice, next) in talk.voices.iter().zip(given.next.clone()) {
            given.wrong.lost += voice.taken.get().saturating_sub(next) as u64;
        }
        wrong.add(given.wrong);
    }
    let shared = Rc::into_inner(shared).context("a connection that has not ended")?;
    Ok(Driven {
        elapsed_s,
        acked: shared.acked.get(),
        delivered: shared.delivered.get(),
        opened: shared.opened.get(),
        latency: shared.latency.into_inner(),
        ack_latency: shared.ack_latency.into_inner(),
        latency_over_time: shared.over_time.into_inner().finish(Duration::from_secs_f64(elapsed_s)),
        wrong,
        is_exhausted,
    })
}

/// Whether a sender has come to the end of what it has to say.
fn is_exhausted(talks: &[Rc<Talk>]) -> bool {
    talks.iter().flat_map(|talk| &talk.voices).any(Voice::is_exhausted)
}

fn is_all_there(talks: &[Rc<Talk>], all_given: &[(Rc<Talk>, Rc<RefCell<Given>>)]) -> bool {
    let all_taken = talks.iter().flat_map(|talk| &talk.voices).all(|voice| voice.taken.get() == voice.sent.get());
    all_taken
        && all_given.iter().all(|(talk, given)| {
            let given = given.borrow();
            talk.voices.iter().zip(&given.next).all(|(voice, next)| *next >= voice.taken.get())
        })
}

/// Lets senders send by a plan: one message after the other, each by the next chat. A thread of its own keeps the time,
/// which the runtime's timer tells by the millisecond alone.
fn pace(plan: &Plan, shared: &Rc<Shared>, talks: &[Rc<Talk>], tasks: &mut tokio::task::JoinSet<()>) -> Arc<()> {
    let (due, mut dues): (_, Receiver<u64>) = channel(DUES_MAX);
    let (interval, began) = (Duration::from_secs(1) / plan.rate, shared.began);
    let alive = Arc::new(());
    let watched = Arc::downgrade(&alive);
    std::thread::spawn(move || {
        let mut at = began.elapsed();
        while watched.strong_count() > 0 {
            at += interval;
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            if due.blocking_send(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)).is_err() {
                return;
            }
        }
    });
    let (talks, shared) = (talks.to_vec(), Rc::clone(shared));
    tasks.spawn_local(async move {
        let mut turn = 0;
        while let Some(at) = dues.recv().await {
            if shared.phase.get() == Phase::Over {
                return;
            }
            let Some(talk) = talks.get(turn % talks.len()) else { return };
            if let Some(voice) = talk.voices.get(turn / talks.len() % talk.voices.len()) {
                voice.began.borrow_mut().push(at);
                voice.due.set(voice.due.get() + 1);
                talk.wake.notify_waiters();
            }
            turn += 1;
        }
    });
    alive
}

/// One member, until the run is over.
async fn sit(mut seat: Seat, given: &RefCell<Given>, shared: &Shared) -> anyhow::Result<()> {
    let talk = Rc::clone(&seat.talk);
    let voice = seat.voice.and_then(|voice| talk.voices.get(voice));
    let mut out: Vec<u8> = Vec::new();
    if seat.connection.has_carry() {
        take(&mut seat, given, shared, &mut out)?;
    }
    loop {
        if let Some(voice) = voice {
            speak(voice, &talk, shared, &mut out)?;
        }
        write_some(&seat.connection, &mut out)?;
        tokio::select! {
            biased;
            readable = seat.connection.stream.readable() => {
                readable?;
                take(&mut seat, given, shared, &mut out)?;
            }
            writable = seat.connection.stream.writable(), if !out.is_empty() => writable?,
            () = talk.wake.notified(), if voice.is_some() => {}
        }
    }
}

/// Writes what the socket takes.
pub(super) fn write_some(connection: &Connection, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut written = 0;
    while let Some(rest) = out.get(written..).filter(|rest| !rest.is_empty()) {
        match connection.stream.try_write(rest) {
            Ok(some) => written += some,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("writing"),
        }
    }
    out.drain(..written);
    Ok(())
}

/// Says as much as window, room and plan allow.
fn speak(voice: &Voice, talk: &Talk, shared: &Shared, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let (is_paced, window) = (shared.plan.rate > 0, shared.plan.window);
    while shared.phase.get() != Phase::Over && out.len() < OUT_BYTES {
        let sent = voice.sent.get();
        let may = sent - voice.taken.get() < window && (!is_paced || sent < voice.due.get());
        if !may || talk.is_full(window) {
            return Ok(());
        }
        // Before it is sealed: that takes a part of its time too.
        let began = shared.now_ns();
        if !voice.write(sent, out)? {
            return Ok(());
        }
        if !is_paced {
            voice.began.borrow_mut().push(began);
        }
        voice.sent.set(sent + 1);
    }
    Ok(())
}

/// Takes all that has come.
fn take(seat: &mut Seat, given: &RefCell<Given>, shared: &Shared, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut scratch = shared.scratch.borrow_mut();
    let mut given = given.borrow_mut();
    let talk = &*seat.talk;
    let voice = seat.voice.and_then(|voice| talk.voices.get(voice));
    let (was_full, mut entries, mut latencies) = (talk.is_full(shared.plan.window), 0, shared.latency.borrow_mut());
    let is_measured = shared.phase.get() == Phase::Measured;
    let timed = (seat.is_timed && is_measured).then(|| shared.now_ns());
    let is_open = seat.connection.take(&mut scratch, |frame| {
        let payload = match frame {
            Frame::Binary(payload) => payload,
            Frame::Ping(payload) => {
                push_pong(out, payload);
                return Ok(());
            }
            Frame::Close(payload) => bail!("the server closed: {}", String::from_utf8_lossy(payload)),
        };
        match talk.wire.read(payload) {
            Said::Entry { seq, body } => {
                entries += 1;
                if let Some((voice, number)) = given.entry(talk, seq, body) {
                    if let Some(now) = timed {
                        let waited = now.saturating_sub(voice.began(number));
                        latencies.record_ns(waited);
                        let at = Duration::from_nanos(now.saturating_sub(shared.measured_ns.get()));
                        shared.over_time.borrow_mut().record_ns(at, waited);
                    }
                    if seat.is_timed && number % shared.plan.opened_one_in == 0 && voice.signing_key.is_some() {
                        match open(talk, voice, number, payload, shared.plan.body_bytes) {
                            Some(()) => shared.opened.set(shared.opened.get() + 1),
                            None => given.wrong.undecryptable += 1,
                        }
                    }
                }
            }
            Said::Taken { id, .. } => {
                let voice = voice.context("an answer to who has not asked")?;
                let number = match talk.wire {
                    Wire::Broker(_) => Pool::number_of(id),
                    Wire::Floor => usize::try_from(id).ok(),
                };
                if number != Some(voice.taken.get()) {
                    bail!("an answer to message {number:?} instead of {}", voice.taken.get());
                }
                if is_measured {
                    shared.acked.set(shared.acked.get() + 1);
                    let waited = shared.now_ns().saturating_sub(voice.began(voice.taken.get()));
                    shared.ack_latency.borrow_mut().record_ns(waited);
                }
                voice.taken.set(voice.taken.get() + 1);
            }
            Said::Else => {
                if let Wire::Broker(_) = talk.wire
                    && let ServerFrame::Error(error) = ENCODING.decode_server(payload)?
                {
                    let what = "a message".to_owned();
                    return Err(Refused { what, code: error.code, message: error.message }.into());
                }
            }
        }
        Ok(())
    })?;
    talk.arrived.set(talk.arrived.get() + entries);
    if is_measured {
        shared.delivered.set(shared.delivered.get() + entries);
    }
    if was_full && !talk.is_full(shared.plan.window) {
        talk.wake.notify_waiters();
    }
    if !is_open {
        bail!("the server ended a connection");
    }
    Ok(())
}

impl Given {
    /// Checks a delivery; tells whose it is, and which.
    fn entry<'a>(&mut self, talk: &'a Talk, seq: u64, body: &[u8]) -> Option<(&'a Voice, usize)> {
        match seq.checked_sub(self.last + 1) {
            Some(missing) => {
                self.wrong.gaps += missing;
                self.last = seq;
            }
            None => self.wrong.out_of_order += 1,
        }
        let is = |voice: &Voice, number: usize| {
            voice.pool.borrow().body(number).is_some_and(|sealed| body.starts_with(sealed))
        };
        for (voice, next) in talk.voices.iter().zip(&mut self.next) {
            if is(voice, *next) {
                let number = *next;
                *next += 1;
                return Some((voice, number));
            }
        }
        // Something is wrong, and it does not matter how long it takes to tell what.
        for (voice, next) in talk.voices.iter().zip(&mut self.next) {
            match (0..voice.sent.get()).find(|number| is(voice, *number)) {
                Some(number) if number < *next => {
                    self.wrong.duplicated += 1;
                    return None;
                }
                Some(number) => {
                    self.wrong.lost += (number - *next) as u64;
                    *next = number + 1;
                    return None;
                }
                None => {}
            }
        }
        self.wrong.undecryptable += 1;
        None
    }
}

/// Verifies a message's signature, and opens it.
fn open(talk: &Talk, voice: &Voice, number: usize, payload: &[u8], body_bytes: usize) -> Option<()> {
    let pool = voice.pool.borrow();
    opens(talk.chat_id, pool.key(number)?, &voice.signing_key?, payload, &body(u64::try_from(number).ok()?, body_bytes))
}

/// Whether a delivery is this text under this key, and signed by this one.
pub(super) fn opens(
    chat_id: ChatId,
    (key_id, secret): &(KeyId, Secret),
    signing_key: &SigningKey,
    payload: &[u8],
    text: &[u8],
) -> Option<()> {
    let ServerFrame::Entry(entry) = ENCODING.decode_server(payload).ok()? else { return None };
    let EntryBody::Message(envelope) = entry.entry.body else { return None };
    let place = Place::of(chat_id, &envelope)?;
    let opened = message::open(secret, &place, envelope.data.as_ref()?.as_ref()).ok()?;
    let verifies = signing_key.verifies(&envelope.signed_bytes(chat_id), &envelope.signature);
    (verifies && *key_id == place.key_id && opened == text).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a member finds wrong who is given these messages of two voices, each at a place; by voice and number.
    fn wrong(given: &[(u64, usize, usize)]) -> Wrong {
        let voice = |sender| {
            let voice = Voice::new(Pool::plain(sender, 5, 40, 40).unwrap(), None);
            voice.sent.set(5);
            voice
        };
        let talk = Talk::new(ChatId::generate(), Wire::Floor, vec![voice(0), voice(1)], 2, 7);
        let mut member = Given { last: 7, next: vec![0, 0], wrong: Wrong::default() };
        for (seq, voice, number) in given {
            let mut body = talk.voices[*voice].pool.borrow().body((*number).min(4)).unwrap().to_vec();
            if *number > 4 {
                body[20] ^= 1;
            }
            member.entry(&talk, *seq, &body);
        }
        member.wrong
    }

    #[test]
    fn each_kind_of_wrong_delivery_is_counted_as_what_it_is() {
        assert_eq!(wrong(&[(8, 0, 0), (9, 1, 0), (10, 0, 1), (11, 0, 2)]).sum(), 0);
        let gap = wrong(&[(8, 0, 0), (11, 1, 0)]);
        assert_eq!((gap.gaps, gap.sum()), (2, 2));
        let skipped = wrong(&[(8, 0, 0), (9, 0, 3)]);
        assert_eq!((skipped.lost, skipped.sum()), (2, 2));
        let twice = wrong(&[(8, 0, 0), (9, 0, 0)]);
        assert_eq!((twice.duplicated, twice.sum()), (1, 1));
        let back = wrong(&[(8, 0, 0), (9, 0, 1), (8, 0, 2)]);
        assert_eq!((back.out_of_order, back.sum()), (1, 1));
        let altered = wrong(&[(8, 0, 0), (9, 0, 5)]);
        assert_eq!((altered.undecryptable, altered.sum()), (1, 1));
    }
}
