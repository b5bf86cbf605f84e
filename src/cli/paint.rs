//! Colours of the plain output, and of names everywhere: the sixteen of the terminal, so that they suit its theme.

use std::io::IsTerminal;

use clap::ColorChoice;

use crate::protocol::ids::UserId;

/// Colours of names of others; a user always has the same one.
pub(super) const HUES: usize = 6;

/// Which of the colours of names a user has.
pub(super) fn hue(user_id: UserId) -> usize {
    user_id.as_bytes().iter().fold(0, |sum: usize, byte| (sum * 31 + usize::from(*byte)) % 65_521) % HUES
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// As it is.
    Plain,
    /// Beside the point.
    Dim,
    /// Worth a look.
    Strong,
    /// Went wrong.
    Bad,
    /// What to do next.
    Hint,
    /// This user.
    Me,
    /// Somebody else, by [`hue`].
    Other(usize),
}

/// Whether text is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// None.
    pub(super) const PLAIN: Self = Self(false);

    /// As asked for; by itself on a terminal unless `NO_COLOR` is set and not empty, or the terminal is dumb.
    /// Source: <https://no-color.org>.
    pub(super) fn new(choice: ColorChoice, stream: &impl IsTerminal) -> Self {
        Self(match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
                stream.is_terminal() && !is_refused && !is_dumb
            }
        })
    }

    /// Always.
    #[cfg(test)]
    pub(super) const ON: Self = Self(true);

    /// Whether anything is painted.
    pub(super) const fn is_on(self) -> bool {
        self.0
    }

    /// Text in an ink. Source: ECMA-48 section 8.3.117.
    pub(super) fn on(self, ink: Ink, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Dim => "2",
            Ink::Strong => "1",
            Ink::Bad => "1;31",
            Ink::Hint => "33",
            Ink::Me => "1;36",
            Ink::Other(hue) => ["32", "33", "35", "34", "96", "91"].get(hue % HUES).copied().unwrap_or("0"),
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_painted_unless_asked_for() {
        let file = tempfile::tempfile().unwrap();
        assert!(!Paint::new(ColorChoice::Auto, &file).is_on());
        assert!(!Paint::new(ColorChoice::Never, &file).is_on());
        let painted = Paint::new(ColorChoice::Always, &file);
        assert_eq!(painted.on(Ink::Dim, "x"), "\u{1b}[2mx\u{1b}[0m");
        assert_eq!(Paint::PLAIN.on(Ink::Bad, "x"), "x");
        assert!(hue(UserId::generate()) < HUES);
    }
}
