//! Writes results: plain lines for people and scripts, or one JSON object a line.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::client::{Body, Message};
use crate::protocol::ids::Timestamp;
use crate::protocol::username::Username;

/// Where results go.
#[derive(Debug)]
pub(super) struct Printer {
    is_json: bool,
}

impl Printer {
    pub(super) const fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// Writes one result and flushes, so that whoever reads along sees it at once.
    pub(super) fn line(&self, plain: &str, object: &Value) -> io::Result<()> {
        let mut output = io::stdout().lock();
        if self.is_json {
            writeln!(output, "{object}")?;
        } else {
            writeln!(output, "{plain}")?;
        }
        output.flush()
    }

    /// Writes a message: seq, time, sender (the name, or the id of one whose name is not known), text.
    pub(super) fn message(&self, message: &Message, sender: Option<&Username>) -> io::Result<()> {
        let (text, body) = match &message.body {
            Body::Message { text, reply } => {
                let reply = reply.map(|reply| json!({ "messageId": reply.message_id, "senderId": reply.sender_id }));
                (escape(text), json!({ "type": "message", "text": text, "reply": reply }))
            }
            Body::Reaction { message_id, emoji } => (
                format!("[reaction {} to {message_id}]", escape(emoji)),
                json!({ "type": "reaction", "messageId": message_id, "emoji": emoji }),
            ),
            Body::Receipt { read_seq } => {
                (format!("[has read up to {read_seq}]"), json!({ "type": "receipt", "readSeq": read_seq }))
            }
            Body::SealedReceipt { .. } => {
                ("[a read mark for the sender's own devices]".to_owned(), json!({ "type": "receipt" }))
            }
            Body::Unknown { kind } => {
                (format!("[of a type that this version cannot show: {}]", escape(kind)), json!({ "type": kind }))
            }
        };
        let time = time(message.created_at);
        let name = sender.map_or_else(|| message.sender_id.to_string(), ToString::to_string);
        let plain = format!("{}\t{time}\t{name}\t{text}", message.seq);
        let object = json!({
            "seq": message.seq,
            "created_at": time,
            "message_id": message.message_id,
            "sender_id": message.sender_id,
            "sender": sender,
            "sender_session_id": message.sender_session_id,
            "body": body,
        });
        self.line(&plain, &object)
    }
}

/// Writes one line of standard error.
pub(super) fn complain(line: &str) {
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{}", escape(line));
}

/// Text on one line, harmless to a terminal: control characters, line separators and marks that reverse the
/// reading direction are written as escapes, and so is the backslash.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(character));
            }
            _ if character.is_control() => {
                let _ = write!(escaped, "\\u{{{:x}}}", u32::from(character));
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A time as text, UTC. Source: RFC 3339 section 5.6; days to dates by the proleptic Gregorian calendar.
pub(super) fn time(timestamp: Timestamp) -> String {
    let micros = timestamp.get();
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is their last; 719,468 days lie between 0000-03-01 and 1970.
    let day = days + 719_468;
    let era = day / 146_097;
    let day_of_era = day % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{:02}.{fraction:06}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| time(Timestamp::saturating(seconds * 1_000_000 + 42));
        assert_eq!(at(0), "1970-01-01T00:00:00.000042Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000042Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000042Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00.000042Z");
        assert_eq!(at(1_795_307_846), "2026-11-22T00:37:26.000042Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000042Z");
    }

    #[test]
    fn text_stays_on_its_line() {
        assert_eq!(escape("a\nb\tc\\d\u{1b}[31m\u{202e}é\u{2028}"), "a\\nb\\tc\\\\d\\u{1b}[31m\\u{202e}é\\u{2028}");
        assert!(!escape(&(0..=0x2100_u32).filter_map(char::from_u32).collect::<String>()).contains('\n'));
    }
}
