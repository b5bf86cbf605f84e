//! `talk` on a terminal: keys, events and answers go into the model, what it shows goes on the screen.

use std::io;
use std::time::Duration;

use crossterm::event::{Event as TerminalEvent, EventStream as TerminalEvents};
use futures_util::StreamExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};

use super::act::{Acts, Told};
use super::model::{Effect, Input, Model};
use super::screen::Screen;
use super::view;
use crate::cli::clock::Clock;
use crate::cli::error::CliError;
use crate::client::{Client, Event, Signal};
use crate::protocol::ids::{ChatId, Timestamp};

/// Time between two pictures, at least.
const FRAME: Duration = Duration::from_millis(16);

/// How often is looked why there is no connection.
const TICK: Duration = Duration::from_secs(1);

/// How long the end waits for others to be told of it.
const AWAY_WAIT: Duration = Duration::from_millis(500);

/// What woke the loop.
enum Woken {
    Input(Input),
    Redraw,
    End,
}

/// Runs until its user ends it, or it cannot go on.
pub(super) async fn talk(
    client: &Client,
    chat: ChatId,
    is_painted: bool,
    acts: Acts,
    told: mpsc::Receiver<Told>,
) -> Result<(), CliError> {
    let result = run(client, chat, is_painted, acts, told).await;
    // Who is still here would show for a while otherwise.
    let _ = tokio::time::timeout(AWAY_WAIT, client.signal(chat, Signal::Away)).await;
    result
}

async fn run(
    client: &Client,
    chat: ChatId,
    is_painted: bool,
    acts: Acts,
    mut told: mpsc::Receiver<Told>,
) -> Result<(), CliError> {
    let mut events = client.events();
    let mut model = Model::new(chat, client.user_id(), client.username().to_string(), Clock::local());
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut screen = Screen::take()?;
    let mut keys = TerminalEvents::new();
    acts.title();
    for effect in model.begin(client.is_live()) {
        acts.begin(effect).await;
    }
    let mut tick = interval(TICK);
    let (mut is_dirty, mut due) = (true, Instant::now());
    loop {
        let woken = tokio::select! {
            biased;
            () = sleep_until(due), if is_dirty => Woken::Redraw,
            _ = terminate.recv() => Woken::End,
            _ = hangup.recv() => Woken::End,
            key = keys.next() => match key {
                None => Woken::End,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(event)) => match of_terminal(event) {
                    Some(input) => Woken::Input(input),
                    None => continue,
                },
            },
            told = told.recv() => match told {
                None => Woken::End,
                Some(told) => Woken::Input(told?),
            },
            event = events.next() => match event {
                Err(_) => Woken::Input(Input::Missed),
                Ok(None) => Woken::End,
                Ok(Some(event)) => match &*event {
                    Event::Closed(reason) => return Err(CliError::Closed(*reason)),
                    _ => Woken::Input(Input::Event(event)),
                },
            },
            _ = tick.tick() => Woken::Input(Input::Tick(client.last_failure())),
        };
        match woken {
            Woken::End => return Ok(()),
            Woken::Redraw => {
                // A change of size that comes together with a key may not be told of: the terminal knows.
                let (columns, rows) = screen.size()?;
                model.update(now(), Input::Resize { columns, rows });
                screen.draw(|frame| view::draw(&model, is_painted, frame))?;
                (is_dirty, due) = (false, Instant::now() + FRAME);
            }
            Woken::Input(input) => {
                is_dirty = true;
                for effect in model.update(now(), input) {
                    match effect {
                        Effect::Quit => return Ok(()),
                        Effect::Redraw => screen.forget()?,
                        effect => acts.begin(effect).await,
                    }
                }
            }
        }
    }
}

fn of_terminal(event: TerminalEvent) -> Option<Input> {
    match event {
        TerminalEvent::Key(key) => Some(Input::Key(key)),
        TerminalEvent::Paste(text) => Some(Input::Paste(text)),
        TerminalEvent::FocusGained => Some(Input::Focus(true)),
        TerminalEvent::FocusLost => Some(Input::Focus(false)),
        TerminalEvent::Resize(columns, rows) => Some(Input::Resize { columns, rows }),
        TerminalEvent::Mouse(_) => None,
    }
}

/// This machine's time.
fn now() -> Timestamp {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::saturating(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// Whether both ends are a terminal.
pub(super) fn is_possible() -> bool {
    use std::io::IsTerminal;
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
