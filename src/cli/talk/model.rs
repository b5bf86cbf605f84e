//! The state of `talk` and what changes it: one input in, effects out.
//!
//! Pure: no I/O and no clock. What takes time is an [`Effect`], and what came of it is an [`Input`].

use std::collections::BTreeSet;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::editor::Editor;
use super::layout::{Anchor, Layout, People, Row};
use super::slash::{self, Action, Completion, Typed};
use super::transcript::{Item, Transcript};
use crate::cli::clock::Clock;
use crate::client::{Alarm, ChatMember, Event, HistoryPage, Sent};
use crate::protocol::ids::{ChatId, MessageId, Seq, Timestamp, UserId};

/// Rows that the line being typed takes at most.
pub(super) const EDITOR_ROWS_MAX: usize = 6;

/// Columns of the mark before the line that is typed.
pub(super) const PROMPT: &str = "> ";

/// What happens to the model.
#[derive(Debug)]
pub(super) enum Input {
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
    /// A page behind what is shown.
    Newer(HistoryPage),
    /// What became of a message.
    Sent { message_id: MessageId, result: Result<Sent, String> },
    /// What came of a command.
    Done(Result<Vec<String>, String>),
    /// Time went by; why the newest try to connect failed.
    Tick(Option<String>),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send text under this id.
    Send { message_id: MessageId, text: String },
    /// Carry out a command.
    Act(Action),
    /// Load a page before an entry, or the newest.
    Older(Option<Seq>),
    /// Load what is behind an entry.
    Newer(Seq),
    /// Look who is in the chat.
    Members,
    /// End.
    Quit,
}

/// How the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
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
pub(super) struct Hint {
    pub(super) text: String,
    pub(super) is_bad: bool,
}

/// The state of `talk`.
#[derive(Debug)]
pub(super) struct Model {
    chat: ChatId,
    title: Option<String>,
    pub(super) link: Link,
    pub(super) failure: Option<String>,
    people: People,
    clock: Clock,
    pub(super) members: Vec<String>,
    /// Users whose names were asked for, so that each is asked for once.
    asked: BTreeSet<UserId>,
    transcript: Transcript,
    pub(super) editor: Editor,
    anchor: Option<Anchor>,
    /// Messages that came while the pane was further up.
    pub(super) unseen: usize,
    /// Messages that came in other chats.
    pub(super) elsewhere: usize,
    /// What did not verify since `/alarms` was typed last: how often, and the newest.
    pub(super) alarm: Option<(usize, String)>,
    pub(super) hint: Option<Hint>,
    /// Where the next older page ends.
    before: Option<Seq>,
    has_older: bool,
    is_loading: bool,
    columns: usize,
    height: usize,
}

impl Model {
    pub(super) fn new(chat: ChatId, me: UserId, name: String, clock: Clock) -> Self {
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
            before: None,
            has_older: true,
            is_loading: false,
            columns: 80,
            height: 24,
        }
    }

    /// What is to be done at the beginning; `is_live` says whether everything up to now has come before.
    pub(super) fn begin(&mut self, is_live: bool) -> Vec<Effect> {
        if is_live {
            self.live();
        }
        self.is_loading = true;
        vec![Effect::Older(None), Effect::Members]
    }

    /// The title, not yet harmless.
    pub(super) fn title(&self) -> String {
        self.title.clone().unwrap_or_else(|| format!("chat {}", self.chat))
    }

    /// Own messages that are not in the log.
    pub(super) fn waiting(&self) -> usize {
        self.transcript.waiting()
    }

    pub(super) const fn is_scrolled(&self) -> bool {
        self.anchor.is_some()
    }

    pub(super) const fn is_loading(&self) -> bool {
        self.is_loading
    }

    /// A time, for people.
    pub(super) fn time(&self, at: Timestamp) -> String {
        self.clock.time(at)
    }

    /// The rows of the line that is typed: those that are shown, and the cursor's row among them and column.
    pub(super) fn editor_rows(&self) -> (Vec<String>, usize, usize) {
        let (mut rows, row, column) = self.editor.rows(self.columns.saturating_sub(PROMPT.len()).saturating_sub(1));
        let first = (row + 1).saturating_sub(EDITOR_ROWS_MAX.min(self.height.saturating_sub(3)).max(1));
        rows.drain(..first.min(rows.len()));
        rows.truncate(EDITOR_ROWS_MAX);
        (rows, row - first, column)
    }

    /// Rows of the terminal that are left for the pane.
    pub(super) fn pane_height(&self) -> usize {
        let others = 2 + usize::from(self.alarm.is_some()) + self.editor_rows().0.len();
        self.height.saturating_sub(others)
    }

    /// The rows of the pane.
    pub(super) fn pane(&self) -> Vec<Row> {
        self.layout().visible(self.anchor, self.pane_height())
    }

    fn layout(&self) -> Layout<'_> {
        Layout { transcript: &self.transcript, people: &self.people, clock: &self.clock, columns: self.columns }
    }

    /// Takes an input at a time; says what is to be done.
    pub(super) fn update(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
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
            Input::Newer(page) => {
                if page.more {
                    effects.push(Effect::Newer(page.up_to));
                }
                self.page(page, &mut effects);
            }
            Input::Sent { message_id, result: Ok(sent) } => {
                self.transcript.sent(self.people.me(), message_id, sent.seq, sent.created_at);
            }
            Input::Sent { message_id, result: Err(why) } => self.transcript.failed(message_id, why),
            Input::Done(Ok(lines)) => self.transcript.push(Item::Answer(lines)),
            Input::Done(Err(why)) => self.transcript.push(Item::Failure(why)),
            Input::Tick(failure) => self.failure = failure,
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

    fn page(&mut self, page: HistoryPage, effects: &mut Vec<Effect>) {
        for message in &page.messages {
            self.transcript.message(message);
            self.know(message.sender_id, effects);
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

    fn alarm(&mut self, alarm: &Alarm) {
        let text = match alarm.seq {
            Some(seq) => format!("entry {seq}: {}", alarm.failure),
            None => alarm.failure.to_string(),
        };
        match alarm.seq {
            Some(seq) => self.transcript.push_at(seq, Item::Alarm(text.clone())),
            None => self.transcript.push(Item::Alarm(text.clone())),
        }
        let count = self.alarm.take().map_or(0, |(count, _)| count);
        self.alarm = Some((count + 1, text));
    }

    fn event(&mut self, now: Timestamp, event: &Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Message(message) if message.chat_id == self.chat => {
                self.transcript.message(message);
                self.know(message.sender_id, effects);
                if self.is_scrolled() {
                    self.unseen += 1;
                }
            }
            Event::Message(message) if message.sender_id != self.people.me() => self.elsewhere += 1,
            Event::MembershipChanged { chat_id, seq, actor, target, change } if *chat_id == self.chat => {
                let change = change.clone();
                self.transcript.push_at(*seq, Item::Change { at: now, actor: *actor, target: *target, change });
                effects.push(Effect::Members);
            }
            Event::SessionChanged { chat_id, seq, user_id, is_in, .. } if *chat_id == self.chat => {
                self.transcript.push_at(*seq, Item::Device { at: now, user_id: *user_id, is_in: *is_in });
            }
            Event::Joined { chat_id } if *chat_id == self.chat => {
                self.link = Link::Live;
                effects.push(Effect::Members);
            }
            Event::Removed { chat_id } if *chat_id == self.chat => {
                self.link = Link::Gone("you are not in this chat any more");
            }
            Event::ChatDeleted { chat_id } if *chat_id == self.chat => self.link = Link::Gone("this chat has ended"),
            Event::SendFailed { chat_id, message_id, error, .. } if *chat_id == self.chat => {
                self.transcript.failed(*message_id, error.to_string());
            }
            Event::SessionPending { .. } => self.transcript.push(Item::Notice {
                at: now,
                text: "a new device of yours asks to be let in: if you know of it, `session approve` its code"
                    .to_owned(),
            }),
            Event::Live => self.live(),
            Event::Disconnected if matches!(self.link, Link::Live) => self.link = Link::Lost(now),
            Event::Alarm(alarm) if alarm.chat_id.is_none_or(|chat_id| chat_id == self.chat) => self.alarm(alarm),
            _ => {}
        }
    }

    fn live(&mut self) {
        if matches!(self.link, Link::Lost(_)) {
            self.say("connected again, and caught up");
        }
        if !matches!(self.link, Link::Gone(_)) {
            self.link = Link::Live;
        }
    }

    fn say(&mut self, text: &str) {
        self.hint = Some(Hint { text: text.to_owned(), is_bad: false });
    }

    fn complain(&mut self, text: &str) {
        self.hint = Some(Hint { text: text.to_owned(), is_bad: true });
    }

    fn key(&mut self, now: Timestamp, key: KeyEvent, effects: &mut Vec<Effect>) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        self.hint = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let page = self.pane_height().saturating_sub(1).max(1);
        match key.code {
            KeyCode::Char('c') if control => effects.push(Effect::Quit),
            KeyCode::Char('d') if control && self.editor.is_empty() => effects.push(Effect::Quit),
            KeyCode::Char('d') if control => self.editor.delete(),
            KeyCode::Char('a') if control => self.editor.home(),
            KeyCode::Char('e') if control => self.editor.end(),
            KeyCode::Char('w' | 'h') | KeyCode::Backspace if control => self.editor.delete_word(),
            KeyCode::Backspace if alt => self.editor.delete_word(),
            KeyCode::Char('u') if control => self.editor.delete_to_start(),
            KeyCode::Char('k') if control => self.editor.delete_to_end(),
            KeyCode::Char('p') if control => self.editor.older(),
            KeyCode::Char('n') if control => self.editor.newer(),
            KeyCode::Char('b') if alt => self.editor.word_left(),
            KeyCode::Char('f') if alt => self.editor.word_right(),
            KeyCode::Left if control || alt => self.editor.word_left(),
            KeyCode::Right if control || alt => self.editor.word_right(),
            KeyCode::Char(_) if control || alt => {}
            KeyCode::Char(character) => self.editor.insert(character.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => self.editor.backspace(),
            KeyCode::Delete => self.editor.delete(),
            KeyCode::Left => self.editor.left(),
            KeyCode::Right => self.editor.right(),
            KeyCode::Up if alt => self.up(1),
            KeyCode::Down if alt => self.down(1),
            KeyCode::Up => self.editor.older(),
            KeyCode::Down => self.editor.newer(),
            KeyCode::PageUp => self.up(page),
            KeyCode::PageDown => self.down(page),
            KeyCode::Home if self.editor.is_empty() => self.up(self.transcript_rows()),
            KeyCode::Home => self.editor.home(),
            KeyCode::End if self.editor.is_empty() => self.anchor = None,
            KeyCode::End => self.editor.end(),
            KeyCode::Esc => self.anchor = None,
            KeyCode::Tab => self.complete(),
            KeyCode::Enter if alt || key.modifiers.contains(KeyModifiers::SHIFT) => self.editor.insert("\n"),
            KeyCode::Enter => self.enter(now, effects),
            _ => {}
        }
    }

    fn transcript_rows(&self) -> usize {
        self.layout().count(self.anchor, usize::MAX / 2)
    }

    fn up(&mut self, rows: usize) {
        self.anchor = self.layout().up(self.anchor, rows, self.pane_height());
    }

    fn down(&mut self, rows: usize) {
        self.anchor = self.layout().down(self.anchor, rows);
    }

    fn complete(&mut self) {
        if self.editor.before().len() != self.editor.text().len() {
            return;
        }
        match slash::complete(self.editor.text(), &self.members) {
            Completion::Nothing => {}
            Completion::Line(line) => self.editor.set(line),
            Completion::Several(line, words) => {
                self.editor.set(line);
                self.say(&words.join("  "));
            }
        }
    }

    fn enter(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let typed = match slash::parse(self.editor.text()) {
            Ok(typed) => typed,
            Err(error) => return self.complain(&error.to_string()),
        };
        if let (Typed::Text(_) | Typed::Retry, Link::Gone(why)) = (&typed, &self.link) {
            let why = (*why).to_owned();
            return self.complain(&why);
        }
        self.editor.take();
        self.anchor = None;
        match typed {
            Typed::Blank => {}
            Typed::Text(text) => self.send(text, effects),
            Typed::Action(action) => effects.push(Effect::Act(action)),
            Typed::Help(entry) => {
                let mut lines = slash::help(entry);
                if entry.is_none() {
                    lines.extend(KEYS.iter().map(|line| (*line).to_owned()));
                }
                self.transcript.push(Item::Answer(lines));
            }
            Typed::Retry => {
                let failed = self.transcript.take_failed();
                if failed.is_empty() {
                    self.say("nothing has failed");
                }
                for text in failed {
                    self.send(text, effects);
                }
            }
            Typed::Alarms => match self.alarm.take() {
                None => self.say("no alarms"),
                Some((count, _)) => {
                    self.transcript.push(Item::Notice { at: now, text: format!("{count} alarms seen") })
                }
            },
            Typed::Quit => effects.push(Effect::Quit),
        }
    }

    fn send(&mut self, text: String, effects: &mut Vec<Effect>) {
        let message_id = MessageId::generate();
        self.transcript.waits(message_id, text.clone());
        effects.push(Effect::Send { message_id, text });
    }
}

/// The keys that do something, for the help.
const KEYS: &[&str] = &[
    "",
    "Enter sends, Alt-Enter begins a new line, Tab completes a command or a name",
    "PageUp, PageDown, Alt-Up, Alt-Down scroll; End or Esc goes to the newest",
    "Up, Down call back what was typed; Ctrl-W, Ctrl-U, Ctrl-K delete a word, to the start, to the end",
    "Ctrl-C ends, and so does Ctrl-D on an empty line",
    "a message that begins with a slash is typed with two",
];
