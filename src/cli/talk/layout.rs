//! Lays items out in rows of a width, and finds which rows a pane shows.
//!
//! Pure. Text becomes harmless here, on its way to the rows; nothing else of others reaches the screen.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{clip, harmless, harmless_line, width, wrap};
use super::transcript::{Item, Key, Standing, Transcript};
use crate::cli::clock::Clock;
use crate::cli::paint::hue;
use crate::client::Body;
use crate::protocol::ids::{MessageId, Revision, Timestamp, UserId};
use crate::protocol::membership::{Change, HistoryPolicy};

/// Columns that a name takes at most.
const NAME_COLUMNS_MAX: usize = 16;

/// Columns of hours and minutes, with the blank behind.
const TIME_COLUMNS: usize = 6;

/// Columns that must be left beside time and name; with fewer the text stands below them.
const TEXT_COLUMNS_MIN: usize = 24;

/// Columns of the text that a reaction or a reply is about.
const QUOTE_COLUMNS: usize = 40;

/// Users and their names.
#[derive(Debug, Clone)]
pub(super) struct People {
    me: UserId,
    names: BTreeMap<UserId, String>,
    /// Whom this user has blocked.
    pub(super) blocked: BTreeSet<UserId>,
}

impl People {
    pub(super) fn new(me: UserId, name: String) -> Self {
        Self { me, names: BTreeMap::from([(me, name)]), blocked: BTreeSet::new() }
    }

    pub(super) fn learn(&mut self, user_id: UserId, name: String) {
        self.names.insert(user_id, name);
    }

    pub(super) const fn me(&self) -> UserId {
        self.me
    }

    pub(super) fn knows(&self, user_id: UserId) -> bool {
        self.names.contains_key(&user_id)
    }

    /// The name, or the end of the id of one whose name is not known.
    pub(super) fn name(&self, user_id: UserId) -> String {
        self.names.get(&user_id).cloned().unwrap_or_else(|| {
            let id = user_id.to_string();
            format!("user {}", id.get(id.len().saturating_sub(6)..).unwrap_or_default())
        })
    }

    fn columns(&self) -> usize {
        let widest = self.names.values().map(|name| width(name)).max().unwrap_or_default();
        widest.min(NAME_COLUMNS_MAX)
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// This user.
    Me,
    /// Somebody else, with the colour of their name.
    Other(usize),
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Happened, or is about something else.
    Quiet,
    /// Waits.
    Waiting,
    /// Answers a command.
    Answer,
    /// Went wrong.
    Bad,
    /// Does not verify.
    Alarm,
}

/// One row of the pane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Time, or blanks.
    pub(super) time: String,
    /// The name with the blanks behind, and whose it is.
    pub(super) name: Option<(String, Voice)>,
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// Where the pane stands: the item whose rows are at its bottom, and how many of them are below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    key: Key,
    cut: usize,
}

/// What rows are made of.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) transcript: &'a Transcript,
    pub(super) people: &'a People,
    pub(super) clock: &'a Clock,
    pub(super) columns: usize,
    /// Whether the places of messages are shown.
    pub(super) is_numbered: bool,
}

impl Layout<'_> {
    /// The rows of an item, at least one.
    pub(super) fn rows(&self, key: Key, item: &Item) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(at) = item.at() {
            self.day(key, at, &mut rows);
        }
        match item {
            Item::Message { sender, at, revision, body, .. } => {
                let name = self.speaker(*sender);
                let time = self.moment(key, *at);
                if self.people.blocked.contains(sender) {
                    let text = format!("[hidden: you have blocked them; /unblock {} shows it]", name.0);
                    self.spoken(&time, Some(name), &text, Tone::Quiet, &mut rows);
                    return rows;
                }
                let (about, mut text, tone) = self.say(body);
                if let Some(about) = about {
                    self.spoken("", None, &about, Tone::Quiet, &mut rows);
                }
                if *revision > Revision::default() {
                    text.push_str(" (edited)");
                }
                self.spoken(&time, Some(name), &text, tone, &mut rows);
            }
            Item::Deleted { sender, at } => {
                let time = self.moment(key, *at);
                self.spoken(&time, Some(self.speaker(*sender)), "[deleted]", Tone::Quiet, &mut rows);
            }
            Item::Own { body, standing, .. } => {
                let (time, tone) = match standing {
                    Standing::Waiting => ("waits", Tone::Waiting),
                    Standing::Failed(_) => ("fails", Tone::Bad),
                };
                let time = format!("{:width$}{time}", "", width = self.number_columns());
                let (about, text, _) = self.say(body);
                if let Some(about) = about {
                    self.spoken("", None, &about, Tone::Quiet, &mut rows);
                }
                self.spoken(&time, Some(self.speaker(self.people.me)), &text, tone, &mut rows);
                if let Standing::Failed(why) = standing {
                    let why = format!("not sent: {why}; /retry sends it again");
                    self.spoken("", None, &harmless(&why), Tone::Bad, &mut rows);
                }
            }
            Item::Change { at, actor, target, change } => {
                self.happened(*at, &changed(&self.people.name(*actor), &self.people.name(*target), change), &mut rows);
            }
            Item::Device { at, user_id, is_in } => {
                let name = self.people.name(*user_id);
                let becomes = if *is_in { "reads along from here on" } else { "reads along no longer" };
                self.happened(*at, &format!("a device of {name} {becomes}"), &mut rows);
            }
            Item::Notice { at, text } => self.happened(*at, &harmless_line(text), &mut rows),
            Item::Command(line) => self.said("  ", &harmless_line(line), Tone::Quiet, &mut rows),
            Item::Answer(lines) => {
                for line in lines {
                    self.said("    ", &harmless(line), Tone::Answer, &mut rows);
                }
            }
            Item::Failure(why) => self.said("    ", &harmless(why), Tone::Bad, &mut rows),
            Item::Alarm(what) => self.said(
                "  ",
                &format!("ALARM: {}; ask the members whether they see the same", harmless(what)),
                Tone::Alarm,
                &mut rows,
            ),
        }
        if rows.is_empty() {
            rows.push(Row { time: String::new(), name: None, text: String::new(), tone: Tone::Plain });
        }
        rows
    }

    fn speaker(&self, user_id: UserId) -> (String, Voice) {
        let voice = if user_id == self.people.me { Voice::Me } else { Voice::Other(hue(user_id)) };
        (self.people.name(user_id), voice)
    }

    /// Columns of the numbers of entries; none while they are not shown.
    fn number_columns(&self) -> usize {
        if self.is_numbered { self.transcript.newest().to_string().len() + 2 } else { 0 }
    }

    /// The number of an entry, if numbers are shown, and its time.
    fn moment(&self, key: Key, at: Timestamp) -> String {
        let time = self.clock.time(at);
        if !self.is_numbered {
            return time;
        }
        let number = format!("#{}", key.seq());
        format!("{number:<width$}{time}", width = self.number_columns())
    }

    fn happened(&self, at: Timestamp, text: &str, rows: &mut Vec<Row>) {
        self.said(&format!("{} ", self.clock.time(at)), text, Tone::Quiet, rows);
    }

    /// The line of a new day.
    fn day(&self, key: Key, at: Timestamp, rows: &mut Vec<Row>) {
        let day = self.clock.day(at);
        if self.transcript.time_before(key).is_some_and(|before| self.clock.day(before) == day) {
            return;
        }
        let text = clip(&format!("── {day} ──"), self.columns);
        rows.push(Row { time: String::new(), name: None, text, tone: Tone::Quiet });
    }

    /// What a body is about, what it says, and how.
    fn say(&self, body: &Body) -> (Option<String>, String, Tone) {
        match body {
            Body::Message { text, reply } => {
                let about = reply
                    .map(|reply| format!("↪ {}: {}", self.people.name(reply.sender_id), self.quote(reply.message_id)));
                (about, harmless(text), Tone::Plain)
            }
            Body::Reaction { message_id, emoji } => {
                let emoji = clip(&harmless_line(emoji), QUOTE_COLUMNS);
                (None, format!("reacts {emoji} to {}", self.quote(*message_id)), Tone::Quiet)
            }
            Body::Receipt { .. } | Body::SealedReceipt { .. } => (None, "has read this".to_owned(), Tone::Quiet),
            Body::Unknown { kind } => {
                let kind = clip(&harmless_line(kind), QUOTE_COLUMNS);
                (None, format!("sent something that this version cannot show: {kind}"), Tone::Quiet)
            }
        }
    }

    fn quote(&self, message_id: MessageId) -> String {
        if self.transcript.sender_of(message_id).is_some_and(|sender| self.people.blocked.contains(&sender)) {
            return "a hidden message".to_owned();
        }
        match self.transcript.body_of(message_id) {
            Some(Body::Message { text, .. }) => format!("“{}”", clip(&harmless_line(text), QUOTE_COLUMNS)),
            _ => "a message from before".to_owned(),
        }
    }

    /// Text beside time and name, or below them where it is narrow.
    fn spoken(&self, time: &str, name: Option<(String, Voice)>, text: &str, tone: Tone, rows: &mut Vec<Row>) {
        let names = self.people.columns();
        let times = self.number_columns() + TIME_COLUMNS;
        let lead = times + names + 1;
        if self.columns < lead + TEXT_COLUMNS_MIN {
            if let Some((name, voice)) = name {
                let name = clip(&name, self.columns.saturating_sub(times));
                let time = format!("{time:times$}");
                rows.push(Row { time, name: Some((name, voice)), text: String::new(), tone });
            }
            return self.said(" ", text, tone, rows);
        }
        let pad = |name: &str| {
            let name = clip(name, names);
            let blanks = (names + 1).saturating_sub(width(&name));
            format!("{name}{}", " ".repeat(blanks))
        };
        let mut head = name.map(|(name, voice)| (pad(&name), voice));
        for (index, text) in wrap(text, self.columns - lead).into_iter().enumerate() {
            let time = if index == 0 { time } else { "" };
            let row = match head.take() {
                Some(head) => Row { time: format!("{time:times$}"), name: Some(head), text, tone },
                None => Row { time: format!("{time:lead$}"), name: None, text, tone },
            };
            rows.push(row);
        }
    }

    /// Text behind a beginning of its first row, or behind as many blanks.
    fn said(&self, begin: &str, text: &str, tone: Tone, rows: &mut Vec<Row>) {
        let lead = width(begin);
        for (index, text) in wrap(text, self.columns.saturating_sub(lead)).into_iter().enumerate() {
            let time = if index == 0 { begin.to_owned() } else { " ".repeat(lead) };
            rows.push(Row { time, name: None, text, tone });
        }
    }

    /// The rows of a pane so high, top to bottom; fewer if there are no more.
    pub(super) fn visible(&self, anchor: Option<Anchor>, height: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut cut = anchor.map_or(0, |anchor| anchor.cut);
        for (key, item) in self.transcript.back_from(anchor.map(|anchor| anchor.key)) {
            let mut of_item = self.rows(key, item);
            of_item.truncate(of_item.len().saturating_sub(cut).max(1));
            cut = 0;
            rows.extend(of_item.into_iter().rev());
            if rows.len() >= height {
                break;
            }
        }
        rows.truncate(height);
        rows.reverse();
        rows
    }

    /// How many rows there are from the bottom of the pane up, counted to `limit`.
    pub(super) fn count(&self, anchor: Option<Anchor>, limit: usize) -> usize {
        self.visible(anchor, limit).len()
    }

    /// The pane so many rows further up, as far as it stays filled.
    pub(super) fn up(&self, anchor: Option<Anchor>, rows: usize, height: usize) -> Option<Anchor> {
        let mut left = rows.min(self.count(anchor, height + rows).saturating_sub(height));
        if left == 0 {
            return anchor;
        }
        let mut cut = anchor.map_or(0, |anchor| anchor.cut);
        for (key, item) in self.transcript.back_from(anchor.map(|anchor| anchor.key)) {
            let rows = self.rows(key, item).len();
            if cut + left < rows {
                return Some(Anchor { key, cut: cut + left });
            }
            left = (cut + left) - rows;
            cut = 0;
        }
        anchor
    }

    /// The pane so many rows further down; none at the end, where it follows what comes.
    pub(super) fn down(&self, anchor: Option<Anchor>, rows: usize) -> Option<Anchor> {
        let Anchor { key, cut } = anchor?;
        if rows < cut {
            return Some(Anchor { key, cut: cut - rows });
        }
        let mut left = rows - cut;
        if left == 0 && self.transcript.after(key).next().is_some() {
            return Some(Anchor { key, cut: 0 });
        }
        for (key, item) in self.transcript.after(key) {
            let rows = self.rows(key, item).len();
            if left < rows {
                return Some(Anchor { key, cut: rows - left });
            }
            left -= rows;
            if left == 0 && self.transcript.after(key).next().is_some() {
                return Some(Anchor { key, cut: 0 });
            }
        }
        None
    }
}

/// What became of the members, in words.
pub(super) fn changed(actor: &str, target: &str, change: &Change) -> String {
    match change {
        Change::Create => format!("{actor} made this chat"),
        Change::Add { can_write, can_manage, .. } => {
            let rights = match (can_write, can_manage) {
                (true, false) => "",
                (true, true) => ", who may add and remove",
                (false, true) => ", who may add and remove, and not write",
                (false, false) => ", who may read only",
            };
            format!("{actor} added {target}{rights}")
        }
        Change::Remove => format!("{actor} removed {target}"),
        Change::Leave => format!("{target} left"),
        Change::SetRights { can_write, can_manage } => {
            let rights = match (can_write, can_manage) {
                (true, false) => "write",
                (true, true) => "write, add and remove",
                (false, true) => "add and remove, and not write",
                (false, false) => "read only",
            };
            format!("{actor} let {target} {rights}")
        }
        Change::Transfer => format!("{actor} gave this chat to {target}"),
        Change::Rekey => format!("{actor} made all keys of this chat new"),
        Change::SetHistory { policy: HistoryPolicy::FromJoin } => {
            format!("{actor} let newcomers read from their joining on")
        }
        Change::SetHistory { policy: HistoryPolicy::Shared } => {
            format!("{actor} let newcomers read what is written from now on")
        }
        Change::Delete => format!("{actor} ended this chat"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Message, Reply};
    use crate::protocol::ids::{ChatId, MessageId, Revision, Seq, SessionId};

    struct Stage {
        transcript: Transcript,
        people: People,
        bob: UserId,
    }

    impl Stage {
        fn new() -> Self {
            let bob = UserId::generate();
            let mut people = People::new(UserId::generate(), "ada".into());
            people.learn(bob, "bob".into());
            Self { transcript: Transcript::default(), people, bob }
        }

        fn say(&mut self, seq: u64, body: Body) -> MessageId {
            let message_id = MessageId::generate();
            self.transcript.message(&Message {
                chat_id: ChatId::generate(),
                seq: Seq::saturating(seq),
                created_at: Timestamp::saturating(seq * 60_000_000),
                message_id,
                sender_id: self.bob,
                sender_session_id: SessionId::generate(),
                revision: Revision::default(),
                body,
            });
            message_id
        }

        fn with<T>(&self, columns: usize, look: impl FnOnce(&Layout<'_>) -> T) -> T {
            let clock = Clock::utc();
            look(&Layout {
                transcript: &self.transcript,
                people: &self.people,
                clock: &clock,
                columns,
                is_numbered: false,
            })
        }

        fn text(&self, columns: usize, anchor: Option<Anchor>, height: usize) -> Vec<String> {
            let whole = |row: Row| {
                let name = row.name.map(|(name, _)| name).unwrap_or_default();
                format!("{}{name}{}", row.time, row.text).trim_end().to_owned()
            };
            self.with(columns, |layout| layout.visible(anchor, height).into_iter().map(whole).collect())
        }
    }

    #[test]
    fn a_message_stands_beside_its_sender_and_wraps_there() {
        let mut stage = Stage::new();
        stage.say(1, Body::text("one two three four five six seven"));
        assert_eq!(
            stage.text(36, None, 9),
            ["── Thursday, 1 January 1970 ──", "00:01 bob one two three four five", "          six seven",]
        );
        assert_eq!(
            stage.text(20, None, 9),
            ["── Thursday, 1 Janu…", "00:01 bob", " one two three four", " five six seven"]
        );
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        let mut stage = Stage::new();
        let evil = "\u{1b}[2J\u{202e}evil\u{7}\r\n00:02 ada I agree";
        let first = stage.say(1, Body::text(evil));
        stage.say(2, Body::Reaction { message_id: first, emoji: evil.into() });
        stage.say(3, Body::Unknown { kind: evil.into() });
        let reply = Reply { message_id: first, sender_id: stage.bob };
        stage.say(4, Body::Message { text: evil.into(), reply: Some(reply) });
        stage.transcript.push(Item::Notice { at: Timestamp::saturating(1), text: evil.into() });
        stage.transcript.push(Item::Failure(evil.into()));
        stage.transcript.push(Item::Answer(vec![evil.into()]));
        stage.transcript.push(Item::Alarm(evil.into()));
        let rows = stage.text(70, None, 50);
        for row in &rows {
            assert!(row.chars().all(|character| !character.is_control() && character != '\u{202e}'), "{row:?}");
            assert!(width(row) <= 70, "{row:?}");
        }
        let faked: Vec<&String> = rows.iter().filter(|row| row.starts_with("00:02 ada")).collect();
        assert!(faked.is_empty(), "a line break in a text makes no line of somebody else: {faked:?}");
    }

    #[test]
    fn the_pane_moves_by_rows_and_stops_at_both_ends() {
        let mut stage = Stage::new();
        for seq in 1..=10 {
            stage.say(seq, Body::text(format!("text {seq} which takes two rows of it")));
        }
        let all = stage.text(36, None, 100);
        assert_eq!(all.len(), 21);
        let at = |anchor| stage.text(36, anchor, 5);
        let mut anchor = None;
        assert_eq!(at(anchor), all[16..]);
        for up in 1..=16 {
            anchor = stage.with(36, |layout| layout.up(anchor, 1, 5));
            assert_eq!(at(anchor), all[16 - up..21 - up]);
        }
        assert_eq!(stage.with(36, |layout| layout.up(anchor, 3, 5)), anchor, "the top is the end");
        for down in 1..=16 {
            anchor = stage.with(36, |layout| layout.down(anchor, 1));
            assert_eq!(at(anchor), all[down..5 + down], "{down}");
        }
        assert_eq!(anchor, None, "the bottom follows");
        let jump = stage.with(36, |layout| layout.up(None, 7, 5));
        assert_eq!(at(jump), all[9..14]);
        assert_eq!(at(stage.with(36, |layout| layout.down(jump, 4))), all[13..18]);
        assert_eq!(stage.with(36, |layout| layout.down(jump, 100)), None);
    }
}
