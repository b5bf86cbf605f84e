//! What is typed: keys, commands, and the messages that they are about.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Effect, Link, Model};
use crate::cli::messages::{Found, edited, reaction_to, reply_to};
use crate::cli::talk::slash::{self, About, Action, Completion, Typed, What};
use crate::cli::talk::transcript::Item;
use crate::client::Body;
use crate::protocol::ids::{MessageId, Seq, Timestamp};

/// The keys that do something, for the help.
const KEYS: &[&str] = &[
    "",
    "Enter                  send",
    "Alt-Enter              begin a new line",
    "Tab                    complete a command or a name",
    "Up, Down               call back what was typed before",
    "PageUp, PageDown       scroll; by one line with Alt-Up, Alt-Down",
    "End, Esc               go to the newest message",
    "Ctrl-W, Ctrl-U, Ctrl-K delete a word, to the start, to the end",
    "Ctrl-L                 draw the screen again",
    "Ctrl-C                 end",
    "//...                  send text that begins with a slash",
];

impl Model {
    pub(super) fn key(&mut self, now: Timestamp, key: KeyEvent, effects: &mut Vec<Effect>) {
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
            KeyCode::Char('l') if control => effects.push(Effect::Redraw),
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
        self.typing(effects);
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
        if let (Typed::Text(_) | Typed::Retry | Typed::About(_), Link::Gone(why)) = (&typed, &self.link) {
            let why = (*why).to_owned();
            return self.complain(&why);
        }
        if let Typed::About(about) = typed {
            return match self.about(about) {
                Ok(effect) => {
                    self.editor.take();
                    self.anchor = None;
                    effects.push(effect);
                }
                Err(why) => self.complain(&why),
            };
        }
        let line = self.editor.take();
        self.anchor = None;
        if matches!(typed, Typed::Action(_) | Typed::Help(_)) {
            self.transcript.push(Item::Command(line));
        }
        match typed {
            Typed::Blank | Typed::About(_) => {}
            Typed::Text(text) => effects.push(self.send(Body::text(text))),
            Typed::Action(action) => effects.push(Effect::Act(action)),
            Typed::Numbers => self.is_numbered = !self.is_numbered,
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
                for body in failed {
                    effects.push(self.send(body));
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

    fn send(&mut self, body: Body) -> Effect {
        let message_id = MessageId::generate();
        self.transcript.waits(message_id, body.clone());
        self.presence.sends();
        Effect::Send { message_id, body }
    }

    /// Finds the message that something is about, and begins it.
    fn about(&mut self, about: About) -> Result<Effect, String> {
        let me = self.people.me();
        let is_about_own = about.what.is_about_own();
        let found = match about.number {
            Some(number) => self
                .transcript
                .at(Seq::saturating(number))
                .ok_or_else(|| format!("no message #{number} is here; scroll up to it, and see /numbers"))?,
            None => {
                let newest = self.transcript.newest_of(|sender| (sender == me) == is_about_own);
                let (_, message_id, sender_id) = newest.ok_or_else(|| {
                    let whose = if is_about_own { "of yours" } else { "of somebody else" };
                    format!("no message {whose} is here; name one with #N, and see /numbers")
                })?;
                (message_id, sender_id)
            }
        };
        let (message_id, sender_id) = found;
        let reply = match self.transcript.body_of(message_id) {
            Some(Body::Message { reply, .. }) => *reply,
            _ => None,
        };
        let found = Found { message_id, sender_id, reply };
        Ok(match about.what {
            What::Reply(text) => self.send(reply_to(found, &text)),
            What::React(emoji) => self.send(reaction_to(message_id, &emoji)),
            What::Edit(_) if sender_id != me => return Err("only your own messages can be edited".to_owned()),
            What::Edit(text) => Effect::Act(Action::Edit { message_id, body: edited(found, &text) }),
            What::Delete => Effect::Act(Action::Delete { message_id }),
        })
    }

    /// Says that this user types, or no longer.
    fn typing(&mut self, effects: &mut Vec<Effect>) {
        let text = self.editor.text();
        let is_typing = !text.trim().is_empty() && (!text.starts_with('/') || text.starts_with("//"));
        effects.extend(self.presence.say_typing(self.now, is_typing && self.link == Link::Live).map(Effect::Signal));
    }
}
