//! Shows how far a run is: one line on standard error, and nothing where that is no terminal.
//!
//! A thread of its own draws, so that the thread of the clients does nothing for it but tell what begins. Invariant: the line
//! is gone when the handle is, so that what is printed next begins on an empty one.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line is drawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Characters of a bar.
const BAR_CHARS: usize = 24;

/// Goes to the line's begin and erases it.
const ERASE: &str = "\r\x1b[2K";

/// How long a phase is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// Nobody knows.
    Open,
    /// So long.
    Lasts(Duration),
    /// So large a share of it is done, from 0 to 1.
    Done(f64),
}

/// What is being done.
struct Phase {
    name: String,
    extent: Extent,
    began: Instant,
    is_over: bool,
}

impl Phase {
    fn line(&self, elapsed: Duration) -> String {
        let elapsed_s = elapsed.as_secs_f64();
        let (share, left_s) = match self.extent {
            Extent::Lasts(whole) => {
                let whole_s = whole.as_secs_f64();
                (elapsed_s / whole_s.max(f64::EPSILON), (whole_s - elapsed_s).max(0.0))
            }
            Extent::Done(share) if share > 0.0 => (share, elapsed_s * (1.0 - share).max(0.0) / share),
            Extent::Done(_) | Extent::Open => return format!("{}, {elapsed_s:.0} s so far", self.name),
        };
        let is_full = |place: usize| (place as f64) < share * BAR_CHARS as f64;
        let bar: String = (0..BAR_CHARS).map(|place| if is_full(place) { '#' } else { '.' }).collect();
        format!("{} [{bar}] {left_s:.0} s left", self.name)
    }
}

/// The line, until it is dropped.
pub(crate) struct Progress {
    phase: Arc<Mutex<Phase>>,
    /// None where nothing is shown.
    drawing: Option<JoinHandle<()>>,
}

impl Progress {
    /// On standard error.
    pub(crate) fn begin(name: impl Into<String>) -> Self {
        Self::on(std::io::stderr(), std::io::stderr().is_terminal(), name.into())
    }

    fn on(mut out: impl Write + Send + 'static, is_terminal: bool, name: String) -> Self {
        let phase = Phase { name, extent: Extent::Open, began: Instant::now(), is_over: false };
        let phase = Arc::new(Mutex::new(phase));
        let shown = Arc::clone(&phase);
        let draw = move || {
            loop {
                let phase = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let line = (!phase.is_over).then(|| phase.line(phase.began.elapsed()));
                drop(phase);
                // A terminal that has gone is no reason to end a run.
                let _ = write!(out, "{ERASE}{}", line.as_deref().unwrap_or_default()).and_then(|()| out.flush());
                if line.is_none() {
                    return;
                }
                std::thread::park_timeout(REDRAW_INTERVAL);
            }
        };
        Self { phase, drawing: is_terminal.then(|| std::thread::spawn(draw)) }
    }

    /// Says what is done from now on.
    pub(crate) fn phase(&self, name: impl Into<String>, extent: Extent) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *phase = Phase { name: name.into(), extent, began: Instant::now(), is_over: false };
        drop(phase);
        if let Some(drawing) = &self.drawing {
            drawing.thread().unpark();
        }
    }

    /// Says how much of this phase is done.
    pub(crate) fn done(&self, share: f64) {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).extent = Extent::Done(share);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        if let Some(drawing) = self.drawing.take() {
            drawing.thread().unpark();
            let _ = drawing.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that keeps what is written to it.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        fn wait_for(&self, text: &str) {
            let began = Instant::now();
            while !self.text().contains(text) {
                assert!(began.elapsed() < Duration::from_secs(60), "{text} is not in {:?}", self.text());
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_terminal_is_shown_each_phase_and_left_with_an_empty_line() {
        let screen = Screen::default();
        let progress = Progress::on(screen.clone(), true, "preparing".to_owned());
        screen.wait_for("preparing, 0 s so far");
        progress.phase("measuring", Extent::Lasts(Duration::from_secs(3_600)));
        screen.wait_for("measuring [");
        progress.done(0.5);
        screen.wait_for("[############............]");
        drop(progress);
        assert!(screen.text().ends_with(ERASE));
    }

    #[test]
    fn whoever_is_no_terminal_is_shown_nothing() {
        let screen = Screen::default();
        let progress = Progress::on(screen.clone(), false, "preparing".to_owned());
        progress.phase("measuring", Extent::Done(0.5));
        drop(progress);
        assert_eq!(screen.text(), "");
    }

    #[test]
    fn what_is_left_follows_from_the_time_or_the_share() {
        let line = |extent, elapsed_s| {
            let phase = Phase { name: "x".to_owned(), extent, began: Instant::now(), is_over: false };
            phase.line(Duration::from_secs(elapsed_s))
        };
        assert!(line(Extent::Lasts(Duration::from_secs(40)), 10).ends_with("] 30 s left"));
        assert!(line(Extent::Lasts(Duration::from_secs(40)), 50).ends_with("] 0 s left"));
        assert_eq!(line(Extent::Lasts(Duration::from_secs(40)), 10).matches('#').count(), BAR_CHARS / 4);
        assert!(line(Extent::Done(0.25), 10).ends_with("] 30 s left"));
        assert_eq!(line(Extent::Done(0.0), 7), "x, 7 s so far");
    }
}
