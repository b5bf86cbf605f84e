//! Writes results: plain lines for people and scripts, or one JSON object a line.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ColorChoice;
use serde_json::{Value, json};

use super::error::CliError;
use super::paint::{Ink, Paint, hue};
use crate::client::{Alarm, Body, ChatMember, Client, Deletion, HistoryPage, LockedMessage, Message, Openness};
use crate::protocol::ids::{MessageId, Revision, Seq, SessionId, Timestamp, UserId};

/// A result: one line for people, one object for programs.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) plain: String,
    pub(super) object: Value,
}

impl Report {
    /// A member of a chat, for people: name, rights, devices.
    pub(super) fn member(member: &ChatMember, me: UserId) -> Self {
        let you = if member.user_id == me { " (you)" } else { "" };
        let devices = match member.sessions.len() {
            1 => "1 device".to_owned(),
            count => format!("{count} devices"),
        };
        let plain = format!("{}{you}: {}; {devices}", name(member), rights(member).join(", "));
        Self { plain, object: object(member) }
    }

    /// A member of a chat, in columns: id, name, rights, sessions.
    pub(super) fn member_columns(member: &ChatMember, me: UserId, paint: Paint) -> Self {
        let voice = if member.user_id == me { Ink::Me } else { Ink::Other(hue(member.user_id)) };
        let plain = format!(
            "{}\t{}\t{}\t{} sessions",
            paint.on(Ink::Dim, &member.user_id.to_string()),
            paint.on(voice, name(member)),
            rights(member).join(","),
            member.sessions.len(),
        );
        Self { plain, object: object(member) }
    }
}

fn name(member: &ChatMember) -> &str {
    member.username.as_ref().map_or("?", |name| name.as_str())
}

fn rights(member: &ChatMember) -> Vec<&'static str> {
    let mut rights = Vec::new();
    rights.extend(member.is_owner.then_some("owner"));
    rights.extend(member.can_manage.then_some("manager"));
    rights.push(if member.can_write { "writer" } else { "reader" });
    rights
}

fn object(member: &ChatMember) -> Value {
    json!({
        "user_id": member.user_id, "username": member.username, "owner": member.is_owner,
        "can_manage": member.can_manage, "can_write": member.can_write, "joined_seq": member.joined_seq,
        "sessions": member.sessions,
    })
}

/// Where results and complaints go.
#[derive(Debug)]
pub(super) struct Printer {
    is_json: bool,
    /// Of results; none in JSON.
    pub(super) paint: Paint,
    complaints: Paint,
}

impl Printer {
    pub(super) fn new(is_json: bool, color: ColorChoice) -> Self {
        let paint = if is_json { Paint::PLAIN } else { Paint::new(color, &io::stdout()) };
        Self { is_json, paint, complaints: Paint::new(color, &io::stderr()) }
    }

    pub(super) const fn is_json(&self) -> bool {
        self.is_json
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

    /// Writes a drawing.
    pub(super) fn drawing(&self, lines: &[String]) -> io::Result<()> {
        let mut output = io::stdout().lock();
        for line in lines {
            writeln!(output, "{line}")?;
        }
        output.flush()
    }

    /// Writes a result.
    pub(super) fn report(&self, report: &Report) -> io::Result<()> {
        self.line(&report.plain, &report.object)
    }

    /// Writes that something happened: behind a star, which no message has.
    pub(super) fn note(&self, plain: &str, object: &Value) -> io::Result<()> {
        self.line(&self.paint.on(Ink::Dim, &format!("* {}", escape(plain))), object)
    }

    /// Writes that something did not verify, to both outputs: whoever reads one of them must know.
    pub(super) fn alarm(&self, alarm: &Alarm) -> io::Result<()> {
        let place = alarm.seq.map(|seq| format!("entry {seq}: ")).unwrap_or_default();
        let plain = format!("alarm: {place}{}", alarm.failure);
        self.complain(&plain);
        let object = json!({
            "event": "alarm", "chat_id": alarm.chat_id, "seq": alarm.seq, "failure": alarm.failure.to_string(),
        });
        self.line(&self.paint.on(Ink::Bad, &format!("* {plain}")), &object)
    }

    /// Writes one line of standard error: why a command failed, and what to do next.
    pub(super) fn error(&self, error: &CliError) {
        let what = self.complaints.on(Ink::Bad, &escape(&error.what()));
        match error.advice() {
            None => say(&format!("sealcast: {what}")),
            Some(advice) => say(&format!("sealcast: {what}; {}", self.complaints.on(Ink::Hint, advice))),
        }
    }

    /// Writes one line of standard error.
    pub(super) fn complain(&self, line: &str) {
        say(&self.complaints.on(Ink::Bad, &escape(line)));
    }

    /// Writes one line of standard error that is no complaint.
    pub(super) fn remark(&self, line: &str) {
        say(&escape(line));
    }

    /// Writes what a page of history says, in order of its entries.
    pub(super) fn page(&self, page: &HistoryPage, client: &Client) -> io::Result<()> {
        let mut lines: Vec<(Seq, Line<'_>)> = Vec::new();
        lines.extend(page.messages.iter().map(|message| (message.seq, Line::Message(message))));
        lines.extend(page.edits.iter().map(|message| (message.seq, Line::Edit(message))));
        lines.extend(page.deletions.iter().map(|deletion| (deletion.seq, Line::Deletion(deletion))));
        lines.extend(page.locked_messages.iter().map(|locked| (locked.seq, Line::Locked(locked))));
        lines.sort_by_key(|(seq, _)| *seq);
        for (_, line) in lines {
            match line {
                Line::Message(message) => self.message(message, client)?,
                Line::Edit(message) => self.edit(message, client)?,
                Line::Deletion(deletion) => self.deletion(deletion, client)?,
                Line::Locked(locked) => self.locked(locked, client)?,
            }
        }
        Ok(())
    }

    /// Writes a message: seq, time, sender (the name, or the id of one whose name is not known), text. Read marks are
    /// for programs alone.
    pub(super) fn message(&self, message: &Message, client: &Client) -> io::Result<()> {
        if !self.is_json && matches!(message.body, Body::Receipt { .. } | Body::SealedReceipt { .. }) {
            return Ok(());
        }
        let (text, body) = said(&message.body);
        let mark = if message.revision == Revision::default() { "" } else { " (edited)" };
        self.entry(&Entry::of(message), &format!("{text}{mark}"), &body, client)
    }

    /// Writes that a message, which was written before, says something else from now on.
    pub(super) fn edit(&self, message: &Message, client: &Client) -> io::Result<()> {
        let (text, body) = said(&message.body);
        self.entry(&Entry::of(message), &format!("[edit of {}] {text}", message.message_id), &body, client)
    }

    /// Writes that a message was deleted.
    pub(super) fn deletion(&self, deletion: &Deletion, client: &Client) -> io::Result<()> {
        let entry = Entry {
            seq: deletion.seq,
            at: deletion.created_at,
            message_id: Some(deletion.message_id),
            revision: None,
            sender_id: deletion.user_id,
            session_id: deletion.session_id,
        };
        self.entry(&entry, &format!("[deletes {}]", deletion.message_id), &json!({ "type": "deleted" }), client)
    }

    /// Writes that a message cannot be opened here, and why.
    pub(super) fn locked(&self, locked: &LockedMessage, client: &Client) -> io::Result<()> {
        let entry = Entry {
            seq: locked.seq,
            at: locked.created_at,
            message_id: None,
            revision: None,
            sender_id: locked.sender_id,
            session_id: locked.sender_session_id,
        };
        let body = json!({ "type": "locked", "why": locked.why.as_str() });
        self.entry(&entry, &format!("[{}]", why(locked.why)), &body, client)
    }

    fn entry(&self, entry: &Entry, text: &str, body: &Value, client: &Client) -> io::Result<()> {
        let sender = client.name_of(entry.sender_id);
        let time = time(entry.at);
        let name = sender.as_ref().map_or_else(|| entry.sender_id.to_string(), ToString::to_string);
        let is_own = entry.sender_id == client.user_id();
        let voice = if is_own { Ink::Me } else { Ink::Other(hue(entry.sender_id)) };
        let dim = |text: &str| self.paint.on(Ink::Dim, text);
        let name = self.paint.on(voice, &name);
        let plain = format!("{}\t{}\t{name}\t{text}", dim(&entry.seq.to_string()), dim(&time));
        let object = json!({
            "seq": entry.seq,
            "created_at": time,
            "message_id": entry.message_id,
            "revision": entry.revision,
            "sender_id": entry.sender_id,
            "sender": sender,
            "sender_session_id": entry.session_id,
            "body": body,
        });
        self.line(&plain, &object)
    }
}

/// Why a message cannot be opened, for people.
pub(super) const fn why(why: Openness) -> &'static str {
    match why {
        Openness::KeyLost => "cannot be opened: nobody has the key any more",
        _ => "cannot be opened yet: no copy of its key has come",
    }
}

/// One line of a page.
enum Line<'a> {
    Message(&'a Message),
    Edit(&'a Message),
    Deletion(&'a Deletion),
    Locked(&'a LockedMessage),
}

/// What is written of every entry.
struct Entry {
    seq: Seq,
    at: Timestamp,
    message_id: Option<MessageId>,
    revision: Option<Revision>,
    sender_id: UserId,
    session_id: SessionId,
}

impl Entry {
    const fn of(message: &Message) -> Self {
        Self {
            seq: message.seq,
            at: message.created_at,
            message_id: Some(message.message_id),
            revision: Some(message.revision),
            sender_id: message.sender_id,
            session_id: message.sender_session_id,
        }
    }
}

/// What a body says, for people and for programs.
fn said(body: &Body) -> (String, Value) {
    match body {
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
    }
}

/// Writes one line of standard error.
fn say(line: &str) {
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
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
