//! Turns times of the server into days and hours of the place where its reader is.

use jiff::tz::TimeZone;

use crate::protocol::ids::Timestamp;

/// The time zone of the reader.
#[derive(Debug, Clone)]
pub(super) struct Clock(TimeZone);

impl Clock {
    /// That of this machine or of `TZ`; UTC if neither says.
    pub(super) fn local() -> Self {
        Self(TimeZone::system())
    }

    /// UTC.
    #[cfg(test)]
    pub(super) const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    fn format(&self, at: Timestamp, format: &str) -> String {
        let micros = i64::try_from(at.get()).unwrap_or(i64::MAX);
        jiff::Timestamp::from_microsecond(micros)
            .map(|at| at.to_zoned(self.0.clone()).strftime(format).to_string())
            .unwrap_or_default()
    }

    /// Hours and minutes.
    pub(super) fn time(&self, at: Timestamp) -> String {
        self.format(at, "%H:%M")
    }

    /// The day, for people.
    pub(super) fn day(&self, at: Timestamp) -> String {
        self.format(at, "%A, %-d %B %Y")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_place() {
        let at = Timestamp::saturating(1_795_307_846 * 1_000_000);
        assert_eq!(Clock::utc().day(at), "Sunday, 22 November 2026");
        assert_eq!(Clock::utc().time(at), "00:37");
        let west = Clock(TimeZone::fixed(jiff::tz::offset(-1)));
        assert_eq!((west.day(at).as_str(), west.time(at).as_str()), ("Saturday, 21 November 2026", "23:37"));
    }
}
