//! A set of sessions, small enough to be copied.

use super::people::{SESSIONS, Session, session_name};

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(u8);

impl Set {
    pub fn of(sessions: impl IntoIterator<Item = Session>) -> Self {
        Self(sessions.into_iter().fold(0, |bits, session| bits | 1 << session))
    }

    pub const fn contains(self, session: Session) -> bool {
        self.0 & 1 << session != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Session> {
        (0..SESSIONS).filter(move |session| self.contains(*session))
    }

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.iter().map(session_name).collect();
        f.write_str(&names.join(", "))
    }
}
