//! The state of `talk` and what changes it: one input in, effects out.
//!
//! Pure: no I/O and no clock. What takes time is an [`Effect`], and what came of it is an [`Input`].

mod events;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crossterm::event::KeyEvent;

use crate::cli::clock::Clock;
use crate::cli::print::why;
use crate::cli::talk::editor::Editor;
use crate::cli::talk::layout::{Anchor, Layout, People, Row};
use crate::cli::talk::presence::Presence;
use crate::cli::talk::slash::Action;
use crate::cli::talk::transcript::{Item, Transcript};
use crate::client::{Body, ChatMember, Event, HistoryPage, Message, Sent, Signal};
use crate::protocol::ids::{ChatId, MessageId, Seq, Timestamp, UserId};

/// Rows that the line being typed takes at most.
pub(in crate::cli::talk) const EDITOR_ROWS_MAX: usize = 6;

/// Columns of the mark before the line that is typed.
pub(in crate::cli::talk) const PROMPT: &str = "> ";

/// What happens to the model.
#[derive(Debug)]
pub(in crate::cli::talk) enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The terminal has this size.
    Resize { columns: u16, rows: u16 },
    /// The client library tells something.
    Event(Arc<Event>),
    /// Events were dropped.
    Missed,
    /// The chat's title; none if this session cannot open it.
    Title(Option<String>),
    /// Who is in the chat.
    Members(Vec<ChatMember>),
    /// A page before what is shown.
    Older(HistoryPage),
    /// No page before what is shown could be had, and why.
    NoOlder(String),
    /// A page behind what is shown.
    Newer(HistoryPage),
    /// What became of a message.
    Sent { message_id: MessageId, result: Result<Sent, String> },
    /// What came of a command.
    Done(Result<Vec<String>, String>),
    /// Whom this user has blocked.
    Blocked(Vec<UserId>),
    /// The terminal's window is the one in use, or another is.
    Focus(bool),
    /// Time went by; why the newest try to connect failed.
    Tick(Option<String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::talk) enum Effect {
    /// Send something under this id.
    Send { message_id: MessageId, body: Body },
    /// Tell those who are connected now.
    Signal(Signal),
    /// Say that everything up to an entry is read.
    Read(Seq),
    /// Look whom this user has blocked.
    Blocked,
    /// Carry out a command.
    Act(Action),
    /// Load a page before an entry, or the newest.
    Older(Option<Seq>),
    /// Load what is behind an entry.
    Newer(Seq),
    /// Look what the chat is called.
    Title,
    /// Look who is in the chat.
    Members,
    /// Draw everything again: something else may have written to the terminal.
    Redraw,
    /// End.
    Quit,
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::talk) enum Link {
    /// There was none yet.
    Connecting,
    /// Everything has come.
    Live,
    /// It was lost, at this time; it is being made again.
    Lost(Timestamp),
    /// This user is not in the chat any more.
    Gone(&'static str),
}

/// One line of news below the pane, until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::talk) struct Hint {
    pub(in crate::cli::talk) text: String,
    pub(in crate::cli::talk) is_bad: bool,
}

/// The state of `talk`.
#[derive(Debug)]
pub(in crate::cli::talk) struct Model {
    chat: ChatId,
    title: Option<String>,
    pub(in crate::cli::talk) link: Link,
    pub(in crate::cli::talk) failure: Option<String>,
    people: People,
    clock: Clock,
    pub(in crate::cli::talk) members: Vec<String>,
    /// Users whose names were asked for, so that each is asked for once.
    asked: BTreeSet<UserId>,
    transcript: Transcript,
    pub(in crate::cli::talk) editor: Editor,
    anchor: Option<Anchor>,
    /// Messages that came while the pane was further up.
    pub(in crate::cli::talk) unseen: usize,
    /// Messages that came in other chats.
    pub(in crate::cli::talk) elsewhere: usize,
    /// What did not verify since `/alarms` was typed last: how often, and the newest.
    pub(in crate::cli::talk) alarm: Option<(usize, String)>,
    pub(in crate::cli::talk) hint: Option<Hint>,
    presence: Presence,
    is_focused: bool,
    /// Whether the places of messages are shown.
    is_numbered: bool,
    /// The newest message of others, and up to where it was said that they are read.
    newest_of_others: Seq,
    marked: Seq,
    now: Timestamp,
    /// Where the next older page ends.
    before: Option<Seq>,
    has_older: bool,
    is_loading: bool,
    columns: usize,
    height: usize,
}

impl Model {
    pub(in crate::cli::talk) fn new(chat: ChatId, me: UserId, name: String, clock: Clock) -> Self {
        Self {
            chat,
            title: None,
            link: Link::Connecting,
            failure: None,
            people: People::new(me, name),
            clock,
            members: Vec::new(),
            asked: BTreeSet::new(),
            transcript: Transcript::default(),
            editor: Editor::default(),
            anchor: None,
            unseen: 0,
            elsewhere: 0,
            alarm: None,
            hint: None,
            presence: Presence::default(),
            is_focused: true,
            is_numbered: false,
            newest_of_others: Seq::default(),
            marked: Seq::default(),
            now: Timestamp::default(),
            before: None,
            has_older: true,
            is_loading: false,
            columns: 80,
            height: 24,
        }
    }

    /// What is to be done at the beginning; `is_live` says whether everything up to now has come before.
    pub(in crate::cli::talk) fn begin(&mut self, is_live: bool) -> Vec<Effect> {
        if is_live {
            self.live();
        }
        self.is_loading = true;
        vec![Effect::Older(None), Effect::Members, Effect::Blocked]
    }

    /// The title, not yet harmless.
    pub(in crate::cli::talk) fn title(&self) -> String {
        self.title.clone().unwrap_or_else(|| format!("chat {}", self.chat))
    }

    /// Own messages that are not in the log.
    pub(in crate::cli::talk) fn waiting(&self) -> usize {
        self.transcript.waiting()
    }

    pub(in crate::cli::talk) const fn is_scrolled(&self) -> bool {
        self.anchor.is_some()
    }

    pub(in crate::cli::talk) const fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// A time, for people.
    pub(in crate::cli::talk) fn time(&self, at: Timestamp) -> String {
        self.clock.time(at)
    }

    /// The rows of the line that is typed: those that are shown, and the cursor's row among them and column.
    pub(in crate::cli::talk) fn editor_rows(&self) -> (Vec<String>, usize, usize) {
        let (mut rows, row, column) = self.editor.rows(self.columns.saturating_sub(PROMPT.len()).saturating_sub(1));
        let first = (row + 1).saturating_sub(EDITOR_ROWS_MAX.min(self.height.saturating_sub(3)).max(1));
        rows.drain(..first.min(rows.len()));
        rows.truncate(EDITOR_ROWS_MAX);
        (rows, row - first, column)
    }

    /// Rows of the terminal that are left for the pane.
    pub(in crate::cli::talk) fn pane_height(&self) -> usize {
        let others = 2 + usize::from(self.alarm.is_some()) + self.editor_rows().0.len();
        self.height.saturating_sub(others)
    }

    /// The rows of the pane.
    pub(in crate::cli::talk) fn pane(&self) -> Vec<Row> {
        self.layout().visible(self.anchor, self.pane_height())
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            transcript: &self.transcript,
            people: &self.people,
            clock: &self.clock,
            columns: self.columns,
            is_numbered: self.is_numbered,
        }
    }

    /// Who of the others is here, and who types: their names.
    pub(in crate::cli::talk) fn present(&self) -> (Vec<String>, Vec<String>) {
        let names = |users: BTreeSet<UserId>| {
            let users = users.into_iter().filter(|user_id| !self.people.blocked.contains(user_id));
            users.map(|user_id| self.people.name(user_id)).collect()
        };
        (names(self.presence.here(self.now)), names(self.presence.typing(self.now)))
    }

    /// Who has read this user's newest message, as far as they let it be known; none while there is no such message.
    pub(in crate::cli::talk) fn readers(&self) -> Vec<String> {
        let me = self.people.me();
        let Some((seq, ..)) = self.transcript.newest_of(|sender| sender == me) else { return Vec::new() };
        let others = self.transcript.readers(seq).filter(|user_id| *user_id != me);
        others.map(|user_id| self.people.name(user_id)).collect()
    }

    /// Takes an input at a time; says what is to be done.
    pub(in crate::cli::talk) fn update(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.now = now;
        match input {
            Input::Key(key) => self.key(now, key, &mut effects),
            Input::Paste(text) => self.editor.insert(&text),
            Input::Resize { columns, rows } => (self.columns, self.height) = (columns.into(), rows.into()),
            Input::Event(event) => self.event(now, &event, &mut effects),
            Input::Missed => self.missed(&mut effects),
            Input::Title(title) => self.title = title,
            Input::Members(members) => self.meet(members),
            Input::Older(page) => {
                self.is_loading = false;
                (self.before, self.has_older) = (Some(page.after.next()), page.more);
                self.page(page, &mut effects);
            }
            Input::NoOlder(why) => {
                (self.is_loading, self.has_older) = (false, false);
                self.transcript.push(Item::Failure(format!("what was said before cannot be shown: {why}")));
            }
            Input::Newer(page) => {
                if page.more {
                    effects.push(Effect::Newer(page.up_to));
                }
                self.page(page, &mut effects);
            }
            Input::Sent { message_id, result: Ok(sent) } => {
                self.transcript.sent(self.people.me(), message_id, sent.seq, sent.created_at);
                // The first message brings the key without which nobody hears signals.
                if self.presence.here(now).is_empty() {
                    self.presence.forget_said();
                }
                effects.extend(self.presence.say_here(now).map(Effect::Signal));
            }
            Input::Sent { message_id, result: Err(why) } => self.transcript.failed(message_id, why),
            Input::Done(Ok(lines)) => {
                if !lines.is_empty() {
                    self.transcript.push(Item::Answer(lines));
                }
            }
            Input::Done(Err(why)) => self.transcript.push(Item::Failure(why)),
            Input::Blocked(users) => self.people.blocked = users.into_iter().collect(),
            Input::Focus(is_focused) => {
                self.is_focused = is_focused;
                self.presence.forget_said();
                if !is_focused {
                    effects.push(Effect::Signal(Signal::Away));
                }
                self.attend(&mut effects);
            }
            Input::Tick(failure) => {
                self.failure = failure;
                self.attend(&mut effects);
            }
        }
        if !self.is_scrolled() {
            self.unseen = 0;
            if let Some(oldest) = self.transcript.trim() {
                (self.before, self.has_older) = (Some(oldest), true);
            }
        }
        self.load(&mut effects);
        effects
    }

    /// Asks for an older page before its reader comes to the end of what is there.
    fn load(&mut self, effects: &mut Vec<Effect>) {
        let enough = 2 * self.pane_height().max(1);
        if self.is_loading || !self.has_older || self.layout().count(self.anchor, enough) >= enough {
            return;
        }
        self.is_loading = true;
        effects.push(Effect::Older(self.before));
    }

    /// Says what follows from this user's looking at the chat: that they are here, and have read it.
    fn attend(&mut self, effects: &mut Vec<Effect>) {
        if !self.is_focused || self.link != Link::Live {
            return;
        }
        effects.extend(self.presence.say_here(self.now).map(Effect::Signal));
        if !self.is_scrolled() && self.newest_of_others > self.marked {
            self.marked = self.newest_of_others;
            effects.push(Effect::Read(self.marked));
        }
    }

    fn take(&mut self, message: &Message, effects: &mut Vec<Effect>) {
        self.transcript.message(message);
        self.know(message.sender_id, effects);
        let is_read_mark = matches!(message.body, Body::Receipt { .. } | Body::SealedReceipt { .. });
        if message.sender_id != self.people.me() && !is_read_mark {
            self.newest_of_others = self.newest_of_others.max(message.seq);
        }
    }

    fn page(&mut self, page: HistoryPage, effects: &mut Vec<Effect>) {
        for message in &page.messages {
            self.take(message, effects);
        }
        for edit in &page.edits {
            self.transcript.edit(edit);
        }
        for deletion in &page.deletions {
            self.transcript.delete(deletion);
        }
        for locked in &page.locked_messages {
            self.transcript.locked(locked.seq, locked.created_at, why(locked.why));
        }
        for alarm in &page.alarms {
            self.alarm(alarm);
        }
    }

    fn missed(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Members);
        if self.transcript.newest() == Seq::default() {
            self.is_loading = true;
            effects.push(Effect::Older(None));
        } else {
            effects.push(Effect::Newer(self.transcript.newest()));
        }
    }

    fn meet(&mut self, members: Vec<ChatMember>) {
        self.members.clear();
        for member in members {
            if let Some(name) = &member.username {
                self.people.learn(member.user_id, name.to_string());
            }
            self.members.push(self.people.name(member.user_id));
        }
        self.members.sort();
    }

    fn know(&mut self, user_id: UserId, effects: &mut Vec<Effect>) {
        if !self.people.knows(user_id) && self.asked.insert(user_id) {
            effects.push(Effect::Members);
        }
    }

    fn say(&mut self, text: &str) {
        self.hint = Some(Hint { text: text.to_owned(), is_bad: false });
    }

    fn complain(&mut self, text: &str) {
        self.hint = Some(Hint { text: text.to_owned(), is_bad: true });
    }
}
