//! Puts off waking until all is in that belongs together.
//!
//! Whoever hands several frames to one connection, or the same to many, wakes none of them half-way: a response body that is
//! woken writes what it finds, and would be woken again for the rest. Floor 3; it knows wakers alone.

use std::cell::RefCell;
use std::task::Waker;

thread_local! {
    /// Who is to be woken at the end of the present [`together`]; none outside of one.
    static PUT_OFF: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// Runs something that pushes; whoever waits for what is pushed is woken at its end, also when that is a panic.
pub fn together<T>(push: impl FnOnce() -> T) -> T {
    let is_outermost = PUT_OFF.with_borrow_mut(|put_off| {
        let is_outermost = put_off.is_none();
        put_off.get_or_insert_default();
        is_outermost
    });
    let _end = is_outermost.then(|| End);
    push()
}

/// Wakes, or puts it off while this thread is within a [`together`].
pub(super) fn wake(waker: Waker) {
    let now = PUT_OFF.with_borrow_mut(|put_off| match put_off {
        Some(put_off) => {
            put_off.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = now {
        waker.wake();
    }
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        PUT_OFF.take().into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_is_woken_within_is_woken_at_the_outermost_end_also_of_a_panic() {
        let count = Arc::new(Count::default());
        let wake_one = || wake(Waker::from(Arc::clone(&count)));
        let woken = || count.0.load(Ordering::SeqCst);
        wake_one();
        assert_eq!(woken(), 1);
        together(|| {
            together(wake_one);
            wake_one();
            assert_eq!(woken(), 1);
        });
        assert_eq!(woken(), 3);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            together(|| {
                wake_one();
                panic!("half-way");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(woken(), 4);
        wake_one();
        assert_eq!(woken(), 5);
    }
}
