//! Passwords and recovery codes as they come in: a line of standard input, or typed at the terminal unseen.

use std::io::{self, IsTerminal};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use zeroize::Zeroizing;

use super::error::CliError;
use super::print::Printer;
use crate::crypto::opaque::Password;

/// Where they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Each is the next line of standard input.
    Stdin,
    /// They are asked for.
    Terminal,
    /// There is nobody to ask.
    Nowhere,
}

impl Source {
    /// Standard input if it is wished, else the terminal if there is one.
    pub(super) fn of(is_stdin: bool) -> Self {
        match is_stdin {
            true => Self::Stdin,
            false if io::stdin().is_terminal() && io::stderr().is_terminal() => Self::Terminal,
            false => Self::Nowhere,
        }
    }

    /// Takes a password that is there already.
    pub(super) async fn password(self, printer: &Printer, what: &str) -> Result<Password, CliError> {
        Ok(Password::new(self.line(printer, what).await?.to_string())?)
    }

    /// Takes a new password, at the terminal twice.
    pub(super) async fn new_password(self, printer: &Printer, what: &str) -> Result<Password, CliError> {
        let first = self.line(printer, what).await?;
        if self == Self::Terminal && *self.line(printer, "The same again").await? != *first {
            return Err(CliError::NotTheSame);
        }
        Ok(Password::new(first.to_string())?)
    }

    /// Takes one line; empty at the end of input.
    pub(super) async fn line(self, printer: &Printer, what: &str) -> Result<Zeroizing<String>, CliError> {
        match self {
            Self::Stdin => {}
            Self::Terminal => printer.remark(&format!("{what}:")),
            Self::Nowhere => return Err(CliError::NobodyToAsk),
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        // A thread of its own: a read that waits must not hold up the end.
        std::thread::spawn(move || {
            let _ = tell.send(if self == Self::Stdin { read_line() } else { read_unseen() });
        });
        Ok(told.await.map_err(|_| CliError::NobodyToAsk)??)
    }
}

fn read_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().read_line(&mut line)?;
    while line.ends_with(['\n', '\r']) {
        line.pop();
    }
    Ok(line)
}

/// Restores the terminal, whatever happens.
struct Raw;

impl Drop for Raw {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ = disable_raw_mode();
    }
}

fn read_unseen() -> io::Result<Zeroizing<String>> {
    // Long enough that it need not grow and leave what was typed behind.
    let mut line = Zeroizing::new(String::with_capacity(4_096));
    enable_raw_mode()?;
    let _raw = Raw;
    loop {
        let key = match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => key,
            Event::Paste(text) => {
                line.push_str(&text);
                continue;
            }
            _ => continue,
        };
        match key.code {
            KeyCode::Enter => return Ok(line),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(io::ErrorKind::Interrupted.into());
            }
            KeyCode::Backspace => drop(line.pop()),
            KeyCode::Char(letter) => line.push(letter),
            _ => {}
        }
    }
}
