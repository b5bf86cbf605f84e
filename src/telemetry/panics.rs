//! Counts panics and logs where they happened.
//!
//! A panic ends the task it happens in and not the process; each one is a fault of this program. What it says is logged
//! only where it is a constant: words that were put together may hold what a client sent (P12).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use prometheus::IntCounter;

/// Makes every panic of the process count, and be one line of the log, from now on.
pub fn count(panics: IntCounter) {
    std::panic::set_hook(Box::new(move |panic| {
        panics.inc();
        log(panic);
    }));
}

fn log(panic: &PanicHookInfo<'_>) {
    let reason = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("not a constant");
    let thread = std::thread::current();
    let place = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace));
    tracing::error!(reason, place, thread = thread.name().unwrap_or("unnamed"), backtrace, "panicked");
}
