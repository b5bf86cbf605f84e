//! Holds what waits to be written to one connection, bounded in frames and in bytes.
//!
//! Here lives [`Outbox`], the queue between the many who push ready frames (on any thread) and the one response body
//! that takes. What all of them may hold together is [`OutboxBudget`]'s. Floor 3; it knows no actor, no HTTP and no WebSocket
//! crate.
//!
//! Invariants:
//! 1. The queue never holds more than `bytes_max + reserve_bytes`, or one single frame where that frame alone is larger.
//! 2. Frames leave in the order in which they were accepted. Only an overdue pong may come later than its turn.
//! 3. After the first `close` nothing is accepted; the close frame is the last frame that leaves.
//! 4. An empty outbox owns no buffer memory.
//! 5. While the budget is used up a push is accepted by an empty outbox alone, so who reads at once notices nothing of
//!    those who do not.

mod queue;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use self::queue::ByteQueue;
use super::outbox_budget::OutboxBudget;
use super::ready_frame::{ReadyFrame, ReadyFrames};
use super::wakes;

/// The most that is handed to the response body at once, in bytes: about what one write to a socket takes without being cut.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The same while the budget is used up.
const PRESSED_CHUNK_BYTES_MAX: usize = 16 * 1024;

/// A lengths queue with more slots than this is given back when the buffer runs empty.
const LENGTHS_KEPT: usize = 16;

/// The part of the bounds, one in so many, that frames may fill which may be left out: below the low-water mark, which
/// is at a half.
const SPARE_SHARE: usize = 4;

/// Bytes that may wait behind the oldest frame of an outbox when a larger answer comes while the budget of all is used up:
/// a small page, and what is asked beside it. The oldest may be a page that was read before, when there was room.
const PRESSED_BYTES_MAX: usize = 192 * 1024;

/// An answer of so many bytes is small: it passes though the budget of all is used up. How many of them there are is bounded
/// by the rate of requests, and the whole by the time for which an outbox may stall.
const SMALL_BYTES_MAX: usize = 1024;

/// The bounds of one outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Most frames that pushes may leave waiting.
    pub frames_max: usize,
    /// Most bytes, headers included, that pushes may leave waiting. A single larger frame passes when nothing waits.
    pub bytes_max: usize,
    /// Bytes above `bytes_max` that only replies and control frames may use.
    pub reserve_bytes: usize,
}

/// Why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The bound is reached: after a push the connection is lagging, after a reply it must be closed.
    #[error("the outbox is full")]
    Full,
    /// The outbox was closed, by either side.
    #[error("the outbox is closed")]
    Closed,
}

/// How an outbox came to its end, as its transport reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nobody has closed it.
    Open,
    /// Closed with a code; everything queued before is flushed first.
    Closing {
        /// The close code sent, or none for the answer to a close frame without one.
        code: Option<u16>,
    },
    /// Closed without flushing.
    Aborted,
}

#[derive(Debug)]
struct State {
    budget: Arc<OutboxBudget>,
    /// Bytes of the chunk that the body took last; until it takes the next they are not written and stay in the budget.
    handed_out: usize,
    queue: ByteQueue,
    /// Bytes still in the queue of each waiting frame, oldest first.
    lengths: VecDeque<usize>,
    /// The newest pong for which there was no room. RFC 6455, section 5.5.3, allows to answer only the latest ping.
    overdue_pong: Option<ReadyFrame>,
    ending: Ending,
    /// The close frame until it has moved into the queue.
    close_frame: Option<ReadyFrame>,
    closing_since: Option<Instant>,
    /// The body is gone: nothing will ever be taken again.
    ended: bool,
    /// Since when bytes wait without the body having taken any.
    waiting_since: Option<Instant>,
    body: Option<Waker>,
}

/// The bounded queue of frames for one connection, shared by all who send to it.
#[derive(Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    state: Mutex<State>,
    /// A copy of "not open", so that the reading side can ask without the lock.
    closed: AtomicBool,
    low_water: Notify,
}

impl Outbox {
    /// Makes an empty, open outbox that shares no budget.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Arc<Self> {
        Self::within(limits, &OutboxBudget::new(usize::MAX))
    }

    /// Makes an empty, open outbox within a budget.
    #[must_use]
    pub fn within(limits: OutboxLimits, budget: &Arc<OutboxBudget>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::new(State {
                budget: Arc::clone(budget),
                handed_out: 0,
                queue: ByteQueue::default(),
                lengths: VecDeque::new(),
                overdue_pong: None,
                ending: Ending::Open,
                close_frame: None,
                closing_since: None,
                ended: false,
                waiting_since: None,
                body: None,
            }),
            closed: AtomicBool::new(false),
            low_water: Notify::new(),
        })
    }

    /// Queues a pushed frame within the bounds. Never waits.
    ///
    /// # Errors
    /// [`PushError::Full`]: the connection is lagging from this frame on. [`PushError::Closed`]: it is going away.
    pub fn try_push(&self, frame: &ReadyFrame) -> Result<(), PushError> {
        self.push_within(frame, |state| state.has_room(frame, self.limits.frames_max, self.limits.bytes_max))
    }

    /// Queues pushed frames from one on, as many as the bounds allow, and says how many. Never waits.
    ///
    /// The same as [`Outbox::try_push`] of each until one is not accepted, at one stroke.
    pub fn try_push_from(&self, first: usize, frames: &ReadyFrames) -> usize {
        let (taken, waker) = {
            let mut state = self.lock();
            if state.ending != Ending::Open || state.ended {
                return 0;
            }
            let taken = state.count_with_room(frames.lengths_from(first), &self.limits);
            if taken == 0 {
                return 0;
            }
            state.append_part(frames, first, taken);
            (taken, state.body.take())
        };
        wake(waker);
        taken
    }

    /// Queues a frame that may be left out, as long as little waits. Never waits.
    ///
    /// It takes a quarter of the bounds at most. So what may be left out never brings a connection to lag that
    /// would not lag without it, and never keeps a reader from its low-water mark.
    ///
    /// # Errors
    /// [`PushError`]: it is left out.
    pub fn try_push_spare(&self, frame: &ReadyFrame) -> Result<(), PushError> {
        let (frames_max, bytes_max) = (self.limits.frames_max / SPARE_SHARE, self.limits.bytes_max / SPARE_SHARE);
        self.push_within(frame, |state| state.has_room(frame, frames_max, bytes_max))
    }

    /// Queues a reply or a control frame, which may also use the reserve. Replies are bounded in bytes only; while the
    /// budget is used up, larger ones in fewer.
    ///
    /// # Errors
    /// [`PushError::Full`]: not even the reserve holds it, and the caller closes the connection.
    /// [`PushError::Closed`]: it is going away.
    pub fn push_reply(&self, frame: &ReadyFrame) -> Result<(), PushError> {
        let bytes_max = self.limits.bytes_max.saturating_add(self.limits.reserve_bytes);
        self.push_within(frame, |state| {
            let is_free = frame.wire_bytes() <= SMALL_BYTES_MAX || state.budget.has_room();
            let may_wait = is_free || state.bytes_behind_oldest() <= PRESSED_BYTES_MAX;
            may_wait && state.has_room_of_its_own(frame, usize::MAX, bytes_max)
        })
    }

    /// Queues a pong within the bounds of a push, or else keeps only the newest one until there is room.
    ///
    /// So a flood of pings from somebody who reads no pongs costs one frame of memory and no connection.
    pub fn push_pong(&self, frame: &ReadyFrame) {
        let waker = {
            let mut state = self.lock();
            if state.ending != Ending::Open || state.ended {
                return;
            }
            if !state.has_room(frame, self.limits.frames_max, self.limits.bytes_max) {
                state.overdue_pong = Some(frame.clone());
                return;
            }
            state.append(frame);
            state.body.take()
        };
        wake(waker);
    }

    /// Closes: what is queued is flushed, then the close frame leaves, then the connection ends. The first call wins.
    pub fn close(&self, code: u16, reason: &str) {
        self.close_with(ReadyFrame::close(code, reason), Some(code));
    }

    /// Answers a close frame that had no code.
    pub fn close_without_code(&self) {
        self.close_with(ReadyFrame::close_without_code(), None);
    }

    fn close_with(&self, frame: ReadyFrame, code: Option<u16>) {
        let waker = {
            let mut state = self.lock();
            if state.ending != Ending::Open {
                return;
            }
            state.ending = Ending::Closing { code };
            state.close_frame = Some(frame);
            state.closing_since = Some(Instant::now());
            state.overdue_pong = None;
            self.closed.store(true, Ordering::Release);
            state.body.take()
        };
        wake(waker);
        self.low_water.notify_waiters();
    }

    /// Ends the connection without flushing; also cuts short a close under way.
    ///
    /// It takes effect when the body is next polled. A jammed connection is not polled: use its kill switch as well.
    pub fn abort(&self) {
        let waker = {
            let mut state = self.lock();
            if state.ending == Ending::Aborted {
                return;
            }
            state.ending = Ending::Aborted;
            state.closing_since.get_or_insert_with(Instant::now);
            state.release();
            self.closed.store(true, Ordering::Release);
            state.body.take()
        };
        wake(waker);
        self.low_water.notify_waiters();
    }

    /// True from the first `close` or `abort` on, or when the connection has ended by itself.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Frames waiting; one that is partly taken counts.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.lock().lengths.len()
    }

    /// Bytes waiting, headers included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether the budget of all outboxes is used up, so that as little as may be is to wait in this one.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        !self.lock().budget.has_room()
    }

    /// True while at most half of either bound is in use; while the budget is used up, while nothing waits.
    #[must_use]
    pub fn below_low_water(&self) -> bool {
        self.is_low(&self.lock())
    }

    /// Waits until the outbox is below its low-water mark, or closed.
    ///
    /// # Cancel safety
    /// It takes nothing and may be dropped at any time.
    pub async fn drained(&self) {
        self.until(|| self.is_closed() || self.below_low_water()).await;
    }

    /// Waits until it is closed.
    ///
    /// # Cancel safety
    /// It takes nothing and may be dropped at any time.
    pub async fn gone(&self) {
        self.until(|| self.is_closed()).await;
    }

    /// Waits until something is so that is told by `low_water`.
    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let notified = self.low_water.notified();
            let mut notified = std::pin::pin!(notified);
            // Registered before the look, or a mark crossed in between would go unnoticed.
            notified.as_mut().enable();
            if is_so() {
                return;
            }
            notified.await;
        }
    }

    /// How long bytes have waited without the body taking any; zero while nothing waits.
    #[must_use]
    pub fn stalled_for(&self, now: Instant) -> Duration {
        self.lock().waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long a close has been under way; none while open, and none once the body has ended.
    #[must_use]
    pub fn closing_for(&self, now: Instant) -> Option<Duration> {
        let state = self.lock();
        if state.ended {
            return None;
        }
        state.closing_since.map(|since| now.saturating_duration_since(since))
    }

    /// True once the body is gone.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.lock().ended
    }

    /// How the outbox was closed, if it was.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.lock().ending
    }

    /// Takes what waits, at most 64 KiB, or 16 while the budget is used up; none after the close frame has been taken. For the
    /// one response body, which asks when it has written the chunk before.
    pub fn poll_chunk(&self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.lock();
        if state.ended || state.ending == Ending::Aborted {
            return Poll::Ready(None);
        }
        state.give_back_chunk();
        if let Some(frame) = state.close_frame.take() {
            state.append(&frame);
        }
        if state.queue.is_empty() {
            if state.ending != Ending::Open {
                return Poll::Ready(None);
            }
            match &mut state.body {
                Some(waker) => waker.clone_from(cx.waker()),
                empty => *empty = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let chunk = state.take_chunk();
        state.budget.hand_on(chunk.len());
        if let Some(pong) = state.overdue_pong.take() {
            state.append(&pong);
        }
        let is_low = self.is_low(&state);
        drop(state);
        if is_low {
            self.low_water.notify_waiters();
        }
        Poll::Ready(Some(chunk))
    }

    /// Notes that the body is gone: memory is released and whoever waits is told.
    pub(crate) fn end(&self) {
        {
            let mut state = self.lock();
            state.ended = true;
            state.body = None;
            state.give_back_chunk();
            state.release();
            self.closed.store(true, Ordering::Release);
        }
        self.low_water.notify_waiters();
    }

    fn push_within(&self, frame: &ReadyFrame, has_room: impl Fn(&State) -> bool) -> Result<(), PushError> {
        let waker = {
            let mut state = self.lock();
            if state.ending != Ending::Open || state.ended {
                return Err(PushError::Closed);
            }
            if !has_room(&state) {
                return Err(PushError::Full);
            }
            state.append(frame);
            state.body.take()
        };
        wake(waker);
        Ok(())
    }

    fn is_low(&self, state: &State) -> bool {
        let is_low =
            state.lengths.len() <= self.limits.frames_max / 2 && state.queue.len() <= self.limits.bytes_max / 2;
        state.queue.is_empty() || is_low && state.budget.has_room()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can panic half-way through a change, so a poisoned state is still a consistent one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, frame: &ReadyFrame, frames_max: usize, bytes_max: usize) -> bool {
        let is_within_budget = self.queue.is_empty() || self.budget.has_room();
        is_within_budget && self.has_room_of_its_own(frame, frames_max, bytes_max)
    }

    fn has_room_of_its_own(&self, frame: &ReadyFrame, frames_max: usize, bytes_max: usize) -> bool {
        // One frame always fits an empty outbox, or a frame above the bound could never be delivered.
        self.queue.is_empty()
            || (self.lengths.len() < frames_max && self.queue.len().saturating_add(frame.wire_bytes()) <= bytes_max)
    }

    /// How many of these may be pushed, one after the other.
    fn count_with_room(&self, lengths: impl Iterator<Item = usize>, limits: &OutboxLimits) -> usize {
        let (mut count, mut bytes) = (0, 0_usize);
        for length in lengths {
            let sum = bytes.saturating_add(length);
            let has_room = self.budget.has_room_beside(bytes)
                && self.lengths.len() + count < limits.frames_max
                && self.queue.len().saturating_add(sum) <= limits.bytes_max;
            let is_alone = count == 0 && self.queue.is_empty();
            if !has_room && !is_alone {
                break;
            }
            (count, bytes) = (count + 1, sum);
        }
        count
    }

    fn bytes_behind_oldest(&self) -> usize {
        self.queue.len() - self.lengths.front().copied().unwrap_or_default()
    }

    fn append(&mut self, frame: &ReadyFrame) {
        self.queue.push(frame.as_bytes());
        self.appended(frame.wire_bytes(), std::iter::once(frame.wire_bytes()));
    }

    /// Appends so many frames from one on.
    fn append_part(&mut self, frames: &ReadyFrames, first: usize, count: usize) {
        match frames.whole(first, count) {
            Some(whole) => self.queue.push(whole),
            // A part that is shared would keep the whole in memory.
            None => self.queue.copy(frames.part(first, count)),
        }
        self.appended(frames.part(first, count).len(), frames.lengths_from(first).take(count));
    }

    fn appended(&mut self, bytes: usize, lengths: impl Iterator<Item = usize>) {
        self.budget.take(bytes);
        self.lengths.extend(lengths);
        if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
    }

    fn take_chunk(&mut self) -> Bytes {
        let bytes_max = if self.budget.has_room() { CHUNK_BYTES_MAX } else { PRESSED_CHUNK_BYTES_MAX };
        let chunk = self.queue.take(bytes_max);
        self.handed_out = chunk.len();
        if self.queue.is_empty() {
            self.release();
            return chunk;
        }
        let mut taken = chunk.len();
        while let Some(front) = self.lengths.front_mut() {
            if *front > taken {
                *front -= taken;
                break;
            }
            taken -= *front;
            self.lengths.pop_front();
        }
        self.waiting_since = Some(Instant::now());
        chunk
    }

    fn give_back_chunk(&mut self) {
        self.budget.give_back(std::mem::take(&mut self.handed_out));
    }

    /// Forgets what waits and gives its memory back.
    fn release(&mut self) {
        self.budget.give_back(self.queue.len());
        self.queue.clear();
        self.waiting_since = None;
        if self.lengths.capacity() > LENGTHS_KEPT {
            self.lengths = VecDeque::new();
        } else {
            self.lengths.clear();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.give_back_chunk();
        self.release();
    }
}

/// Wakes outside the lock, so that a body that runs at once does not find it taken.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        wakes::wake(waker);
    }
}

#[cfg(test)]
mod tests;
