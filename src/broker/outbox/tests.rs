//! What waits for a connection: its order, its bounds, its end, and what all of them may hold together.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn outbox(frames_max: usize, bytes_max: usize, reserve_bytes: usize) -> Arc<Outbox> {
    Outbox::new(OutboxLimits { frames_max, bytes_max, reserve_bytes })
}

fn take(outbox: &Outbox) -> Option<Bytes> {
    match outbox.poll_chunk(&Context::from_waker(Waker::noop())) {
        Poll::Ready(chunk) => {
            assert_ne!(chunk, Some(Bytes::new()), "a chunk without bytes brings nobody on");
            chunk
        }
        Poll::Pending => panic!("nothing waits"),
    }
}

fn take_all(outbox: &Outbox) -> Vec<u8> {
    let mut all = Vec::new();
    while outbox.bytes() > 0 {
        all.extend_from_slice(&take(outbox).unwrap());
    }
    // A body that asks again has written the last.
    let _ = outbox.poll_chunk(&Context::from_waker(Waker::noop()));
    all
}

#[test]
fn pushes_stop_at_either_bound_and_replies_use_the_reserve() {
    let frame = ReadyFrame::binary(&[0; 8]);
    let narrow = outbox(2, 1000, 0);
    assert_eq!((narrow.try_push(&frame), narrow.try_push(&frame)), (Ok(()), Ok(())));
    assert_eq!(narrow.try_push(&frame), Err(PushError::Full));
    assert_eq!(narrow.push_reply(&frame), Ok(()));
    let small = outbox(100, 20, 10);
    assert_eq!((small.try_push(&frame), small.try_push(&frame)), (Ok(()), Ok(())));
    assert_eq!(small.try_push(&frame), Err(PushError::Full));
    assert_eq!((small.push_reply(&frame), small.push_reply(&frame)), (Ok(()), Err(PushError::Full)));
    assert_eq!((small.frames(), small.bytes()), (3, 30));
}

#[test]
fn frames_at_one_stroke_are_taken_as_if_one_came_after_the_other() {
    let frames: Vec<_> = [8, 0, 30, 8, 8].map(|length| ReadyFrame::binary(&vec![7; length])).to_vec();
    let joined = ReadyFrames::join(&frames);
    let bounds = [(100, 1000, 1000), (2, 1000, 1000), (100, 44, 1000), (100, 1000, 12), (100, 5, 1000), (0, 0, 0)];
    for (frames_max, bytes_max, budget_bytes) in bounds {
        for (waiting, first) in (0..3).flat_map(|waiting| (0..6).map(move |first| (waiting, first))) {
            let limits = OutboxLimits { frames_max, bytes_max, reserve_bytes: 0 };
            let [single, whole] = [(); 2].map(|()| {
                let outbox = Outbox::within(limits, &OutboxBudget::new(budget_bytes));
                for _ in 0..waiting {
                    let _ = outbox.try_push(&ReadyFrame::binary(&[1; 4]));
                }
                outbox
            });
            let taken = frames.iter().skip(first).take_while(|frame| single.try_push(frame).is_ok()).count();
            assert_eq!(
                whole.try_push_from(first, &joined),
                taken,
                "{frames_max} {bytes_max} {budget_bytes} {waiting} {first}"
            );
            assert_eq!((whole.frames(), whole.bytes()), (single.frames(), single.bytes()));
            assert_eq!(take_all(&whole), take_all(&single));
        }
    }
    let closed = outbox(100, 1000, 0);
    closed.close(1000, "");
    assert_eq!(closed.try_push_from(0, &joined), 0);
}

#[test]
fn what_may_be_left_out_leaves_room_for_what_may_not() {
    let frame = ReadyFrame::binary(&[0; 8]);
    let outbox = outbox(8, 1000, 0);
    assert_eq!((outbox.try_push_spare(&frame), outbox.try_push_spare(&frame)), (Ok(()), Ok(())));
    assert_eq!(outbox.try_push_spare(&frame), Err(PushError::Full));
    assert!(outbox.below_low_water(), "a reader is not kept waiting");
    assert!((0..6).all(|_| outbox.try_push(&frame).is_ok()));
    assert_eq!((outbox.try_push(&frame), outbox.frames()), (Err(PushError::Full), 8));
    let small = self::outbox(100, 80, 0);
    assert_eq!((small.try_push_spare(&frame), small.try_push_spare(&frame)), (Ok(()), Ok(())));
    assert_eq!(small.try_push_spare(&frame), Err(PushError::Full), "a quarter of the bytes");
}

#[test]
fn while_the_budget_is_used_up_only_who_reads_at_once_is_pushed_to() {
    let frame = ReadyFrame::binary(&[0; 8]);
    let limits = OutboxLimits { frames_max: 100, bytes_max: 1 << 20, reserve_bytes: 1 << 20 };
    let budget = OutboxBudget::new(45);
    let (slow, fast) = (Outbox::within(limits, &budget), Outbox::within(limits, &budget));
    assert!(!slow.is_pressed());
    assert!((0..5).all(|_| slow.try_push(&frame).is_ok()) && budget.bytes() == 50);
    assert_eq!(slow.try_push(&frame), Err(PushError::Full));
    assert!(slow.is_pressed() && !slow.below_low_water());
    for _ in 0..3 {
        assert_eq!((fast.try_push(&frame), fast.try_push(&frame)), (Ok(()), Err(PushError::Full)));
        assert_eq!(take_all(&fast).len(), 10);
        assert!(fast.below_low_water());
    }
    let large = ReadyFrame::binary(&[0; 192 * 1024]);
    assert_eq!((slow.push_reply(&large), slow.push_reply(&large)), (Ok(()), Err(PushError::Full)));
    assert_eq!(take_all(&slow).len(), 50 + large.wire_bytes());
    assert_eq!((budget.bytes(), slow.try_push(&frame)), (0, Ok(())));
    slow.abort();
    assert_eq!((budget.bytes(), fast.try_push(&frame)), (0, Ok(())));
    drop((slow, fast));
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn who_has_a_page_on_its_way_gets_its_answers_though_the_budget_was_used_up_meanwhile() {
    let limits = OutboxLimits { frames_max: 100, bytes_max: 1 << 20, reserve_bytes: 1 << 20 };
    let budget = OutboxBudget::new(800_000);
    let (page, answer) = (ReadyFrame::binary(&[0; 700_000]), ReadyFrame::binary(&[0; 100]));
    let (reader, other) = (Outbox::within(limits, &budget), Outbox::within(limits, &budget));
    assert_eq!((reader.push_reply(&page), other.try_push(&page), reader.is_pressed()), (Ok(()), Ok(()), true));
    let keys = ReadyFrame::binary(&[0; 100_000]);
    assert_eq!([&answer, &keys, &keys].map(|reply| reader.push_reply(reply)), [Ok(()); 3]);
    assert_eq!((reader.push_reply(&keys), reader.push_reply(&answer)), (Err(PushError::Full), Ok(())));
    // The same when many small frames wait that came when there was room.
    drop((reader, other));
    let live = Outbox::within(limits, &budget);
    assert!((0..80).all(|_| live.try_push(&ReadyFrame::binary(&[0; 4_000])).is_ok()));
    budget.take(page.wire_bytes());
    assert_eq!((live.push_reply(&keys), live.push_reply(&answer)), (Err(PushError::Full), Ok(())));
}

#[test]
fn one_frame_above_the_bound_passes_alone() {
    let outbox = outbox(10, 20, 0);
    assert_eq!(outbox.try_push(&ReadyFrame::binary(&[0; 100])), Ok(()));
    assert_eq!(outbox.try_push(&ReadyFrame::binary(&[])), Err(PushError::Full));
}

/// An outbox whose budget is used up, as long as the other one lives; all that it holds came before.
fn pressed(frames: &[ReadyFrame]) -> (Arc<Outbox>, Arc<Outbox>) {
    let budget = OutboxBudget::new(1 << 20);
    let limits = OutboxLimits { frames_max: 1000, bytes_max: 2 << 20, reserve_bytes: 0 };
    let [outbox, other] = [(); 2].map(|()| Outbox::within(limits, &budget));
    assert!(frames.iter().all(|frame| outbox.try_push(frame).is_ok()));
    other.try_push(&ReadyFrame::binary(&[0; 1 << 20])).unwrap();
    (outbox, other)
}

#[test]
fn chunks_are_bounded_ordered_and_counted_across_frames() {
    let frames: Vec<_> = (0_u8..)
        .zip([1, 20_000, 3, 40_000, 0, 16_384, 5])
        .map(|(index, size)| ReadyFrame::binary(&vec![index; size]))
        .collect();
    let roomy = outbox(1000, 1 << 20, 0);
    assert!(frames.iter().all(|frame| roomy.try_push(frame).is_ok()));
    let (pressed, _other) = pressed(&frames);
    // What is shared is a chunk of its own, or several.
    let cases = [
        (pressed, PRESSED_CHUNK_BYTES_MAX, vec![7, 6, 6, 5, 4, 4, 4, 3, 2, 2, 1, 0]),
        (roomy, CHUNK_BYTES_MAX, vec![7, 6, 5, 4, 3, 2, 1, 0]),
    ];
    for (outbox, chunk_bytes_max, expected) in cases {
        let sent: Vec<u8> = frames.iter().flat_map(|frame| frame.as_bytes().to_vec()).collect();
        let (mut got, mut waiting) = (Vec::new(), vec![outbox.frames()]);
        while outbox.bytes() > 0 {
            let chunk = take(&outbox).unwrap();
            assert!(chunk.len() <= chunk_bytes_max);
            got.extend_from_slice(&chunk);
            waiting.push(outbox.frames());
        }
        assert_eq!(got, sent);
        assert_eq!(waiting, expected);
        assert!(outbox.lock().queue.is_empty());
    }
}

#[test]
fn a_frame_that_ends_with_its_chunk_counts_no_more() {
    let (outbox, _other) = pressed(&[(); 2].map(|()| ReadyFrame::binary(&[0; PRESSED_CHUNK_BYTES_MAX - 4])));
    assert_eq!((take(&outbox).unwrap().len(), outbox.frames()), (PRESSED_CHUNK_BYTES_MAX, 1));
    assert_eq!((take(&outbox).unwrap().len(), outbox.frames()), (PRESSED_CHUNK_BYTES_MAX, 0));
}

#[test]
fn p9_what_is_handed_out_counts_until_the_body_has_written_it() {
    let budget = OutboxBudget::new(10);
    let limits = OutboxLimits { frames_max: 100, bytes_max: 1 << 20, reserve_bytes: 0 };
    let outbox = Outbox::within(limits, &budget);
    outbox.try_push(&ReadyFrame::binary(&[0; 8])).unwrap();
    assert_eq!((take(&outbox).unwrap().len(), outbox.bytes(), budget.bytes()), (10, 0, 10));
    assert!(outbox.poll_chunk(&Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(budget.bytes(), 0);
    outbox.try_push(&ReadyFrame::binary(&[0; 8])).unwrap();
    take(&outbox);
    outbox.end();
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn p9_what_a_burst_took_is_given_back() {
    let outbox = outbox(1000, 1 << 20, 0);
    for _ in 0..1000 {
        outbox.try_push(&ReadyFrame::binary(&[0; 30])).unwrap();
    }
    take_all(&outbox);
    let state = outbox.lock();
    assert_eq!((state.queue.len(), state.lengths.capacity()), (0, 0));
}

#[test]
fn p9_it_is_low_while_at_most_half_of_both_bounds_is_in_use() {
    let frame = ReadyFrame::binary(&[0; 8]);
    for outbox in [outbox(4, 1000, 0), outbox(100, 40, 0)] {
        for is_low in [true, true, false, false] {
            outbox.try_push(&frame).unwrap();
            assert_eq!(outbox.below_low_water(), is_low, "{} frames", outbox.frames());
        }
        assert_eq!(outbox.try_push(&frame), Err(PushError::Full));
        let mut drained = std::pin::pin!(outbox.drained());
        let mut context = Context::from_waker(Waker::noop());
        assert!(drained.as_mut().poll(&mut context).is_pending());
        take(&outbox);
        assert!(drained.as_mut().poll(&mut context).is_ready());
    }
}

#[test]
fn once_the_body_is_gone_nothing_is_kept_for_it() {
    let outbox = outbox(10, 1000, 100);
    let frame = ReadyFrame::text(b"never");
    outbox.try_push(&frame).unwrap();
    assert!(!outbox.is_closed() && !outbox.has_ended());
    outbox.end();
    assert!(outbox.is_closed() && outbox.has_ended());
    assert_eq!((outbox.try_push(&frame), outbox.push_reply(&frame)), (Err(PushError::Closed), Err(PushError::Closed)));
    outbox.push_pong(&ReadyFrame::pong(b""));
    assert_eq!((outbox.frames(), outbox.bytes(), take(&outbox)), (0, 0, None));
    assert_eq!(outbox.ending(), Ending::Open, "nobody has closed it");
}

#[test]
fn a_close_is_under_way_from_the_first_word_until_the_body_is_gone() {
    let later = || Instant::now() + Duration::from_secs(60);
    let outbox = outbox(10, 1000, 0);
    assert_eq!(outbox.closing_for(later()), None);
    outbox.close_without_code();
    let since = outbox.lock().closing_since;
    assert!(outbox.closing_for(later()).is_some_and(|time| time > Duration::from_secs(50)));
    outbox.close(1000, "too late");
    outbox.abort();
    assert_eq!(outbox.lock().closing_since, since);
    outbox.end();
    assert_eq!(outbox.closing_for(later()), None);
}

#[test]
fn a_close_frame_without_a_code_is_answered_by_one() {
    let outbox = outbox(10, 1000, 0);
    outbox.close_without_code();
    assert_eq!(outbox.ending(), Ending::Closing { code: None });
    assert_eq!(take(&outbox).unwrap(), ReadyFrame::close_without_code().as_bytes());
    assert_eq!(take(&outbox), None);
}

#[test]
fn the_first_close_wins_flushes_and_refuses_what_comes_after() {
    let outbox = outbox(10, 1000, 100);
    let frame = ReadyFrame::text(b"last");
    outbox.try_push(&frame).unwrap();
    outbox.close(1012, "restart");
    outbox.close(1000, "too late");
    assert_eq!(outbox.try_push(&frame), Err(PushError::Closed));
    assert_eq!(outbox.push_reply(&frame), Err(PushError::Closed));
    outbox.push_pong(&ReadyFrame::pong(b""));
    let expected = [frame.as_bytes(), ReadyFrame::close(1012, "restart").as_bytes()].map(|part| part.to_vec());
    assert_eq!(take(&outbox).unwrap(), expected.concat());
    assert_eq!(take(&outbox), None);
    assert_eq!(outbox.ending(), Ending::Closing { code: Some(1012) });
}

#[test]
fn an_abort_drops_what_waits() {
    let outbox = outbox(10, 1000, 0);
    outbox.try_push(&ReadyFrame::text(b"never")).unwrap();
    outbox.close(1000, "");
    outbox.abort();
    assert_eq!((take(&outbox), outbox.bytes(), outbox.is_closed()), (None, 0, true));
}

#[test]
fn without_room_only_the_newest_pong_is_kept() {
    let outbox = outbox(1, 1000, 100);
    let push = ReadyFrame::text(b"x");
    outbox.try_push(&push).unwrap();
    outbox.push_pong(&ReadyFrame::pong(b"old"));
    outbox.push_pong(&ReadyFrame::pong(b"new"));
    assert_eq!(outbox.frames(), 1);
    let expected = [push.as_bytes(), ReadyFrame::pong(b"new").as_bytes()].map(|part| part.to_vec());
    assert_eq!(take_all(&outbox), expected.concat());
}

#[test]
fn a_waiting_body_is_woken_once_per_burst() {
    let outbox = outbox(10, 1000, 0);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(outbox.poll_chunk(&Context::from_waker(&waker)).is_pending());
    for _ in 0..3 {
        outbox.try_push(&ReadyFrame::text(b"x")).unwrap();
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stall_is_the_time_since_bytes_were_last_taken() {
    let outbox = outbox(1000, 1 << 20, 0);
    let later = Instant::now() + Duration::from_secs(60);
    assert_eq!(outbox.stalled_for(later), Duration::ZERO);
    outbox.try_push(&ReadyFrame::binary(&[0; 100_000])).unwrap();
    assert!(outbox.stalled_for(later) > Duration::from_secs(50));
    let before_take = outbox.stalled_for(later);
    take(&outbox);
    assert!(outbox.stalled_for(later) <= before_take && outbox.bytes() > 0);
    take(&outbox);
    assert_eq!(outbox.stalled_for(later), Duration::ZERO);
}

#[tokio::test]
async fn whoever_waits_for_room_is_told_at_half_and_at_the_end() {
    let outbox = outbox(4, 1 << 20, 0);
    let big = ReadyFrame::binary(&[0; 10_000]);
    for _ in 0..4 {
        outbox.try_push(&big).unwrap();
    }
    let waiting = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.drained().await }
    });
    while !waiting.is_finished() && outbox.bytes() > 0 {
        assert!(outbox.frames() <= 2 || !waiting.is_finished());
        take(&outbox).unwrap();
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    take_all(&outbox);
    for _ in 0..4 {
        outbox.try_push(&big).unwrap();
    }
    let waiting = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.drained().await }
    });
    tokio::task::yield_now().await;
    outbox.end();
    tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(outbox.try_push(&big), Err(PushError::Closed));
}
