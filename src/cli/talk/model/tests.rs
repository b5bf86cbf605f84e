//! Tests of the model, and of what the view makes of it, on a terminal in memory.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::{Effect, Input, Link, Model};
use crate::cli::clock::Clock;
use crate::cli::talk::slash::Action;
use crate::cli::talk::view;
use crate::client::{
    Alarm, Body, ChatMember, Deletion, Event, HistoryPage, Message, Reply, SendError, Sent, Signal, VerificationFailure,
};
use crate::protocol::error::ErrorCode;
use crate::protocol::ids::{ChatId, MessageId, Revision, Seq, SessionId, Timestamp, UserId};

const NOW: Timestamp = Timestamp::saturating(1_795_307_846_000_000);

struct Stage {
    model: Model,
    chat: ChatId,
    me: UserId,
    bob: UserId,
    now: Timestamp,
    /// Signals and read marks that were asked for since this was emptied.
    told: Vec<Effect>,
}

impl Stage {
    /// A chat of ada and bob, caught up, on a terminal of 60 by 12.
    fn new() -> Self {
        let (chat, me, bob) = (ChatId::generate(), UserId::generate(), UserId::generate());
        let model = Model::new(chat, me, "ada".into(), Clock::utc());
        let mut stage = Self { model, chat, me, bob, now: NOW, told: Vec::new() };
        stage.put(Input::Resize { columns: 60, rows: 12 });
        assert_eq!(stage.model.begin(true), [Effect::Older(None), Effect::Members, Effect::Blocked]);
        stage.put(Input::Title(Some("Tea at five".into())));
        stage.put(Input::Members(vec![member(me, "ada"), member(bob, "bob")]));
        stage
    }

    fn put(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.model.update(self.now, input);
        let is_told = |effect: &Effect| matches!(effect, Effect::Signal(_) | Effect::Read(_));
        let (told, asked) = effects.into_iter().partition(is_told);
        self.told.extend::<Vec<Effect>>(told);
        asked
    }

    /// Time goes by.
    fn pass(&mut self, seconds: u64) -> Vec<Effect> {
        self.now = self.now.plus_micros(seconds * 1_000_000);
        self.put(Input::Tick(None))
    }

    /// What was told since the last look.
    fn told(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.told)
    }

    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Vec<Effect> {
        self.put(Input::Key(KeyEvent::new(code, modifiers)))
    }

    fn press(&mut self, code: KeyCode) -> Vec<Effect> {
        self.key(code, KeyModifiers::NONE)
    }

    /// Types a line and ends it.
    fn enter(&mut self, line: &str) -> Vec<Effect> {
        for character in line.chars() {
            assert_eq!(self.press(KeyCode::Char(character)), []);
        }
        self.press(KeyCode::Enter)
    }

    fn message(&self, seq: u64, text: &str) -> Message {
        Message {
            chat_id: self.chat,
            seq: Seq::saturating(seq),
            created_at: NOW,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: self.bob,
            sender_session_id: SessionId::generate(),
            body: Body::text(text),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        self.put(Input::Event(Arc::new(event)))
    }

    fn page(&self, from: u64, to: u64, more: bool) -> HistoryPage {
        HistoryPage {
            messages: (from..=to).map(|seq| self.message(seq, &format!("text {seq}"))).collect(),
            changed_later: Vec::new(),
            edits: Vec::new(),
            deletions: Vec::new(),
            alarms: Vec::new(),
            locked: 0,
            locked_messages: Vec::new(),
            after: Seq::saturating(from - 1),
            up_to: Seq::saturating(to),
            more,
        }
    }

    fn terminal(&self, is_painted: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(60, 12)).unwrap();
        terminal.draw(|frame| view::draw(&self.model, is_painted, frame)).unwrap();
        terminal
    }

    /// The rows of the screen.
    fn screen(&self) -> Vec<String> {
        let terminal = self.terminal(true);
        let buffer = terminal.backend().buffer();
        let row = |y| (0..60).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..12).map(row).collect()
    }

    fn shows(&self, text: &str) -> bool {
        self.screen().iter().any(|row| row.contains(text))
    }
}

fn member(user_id: UserId, name: &str) -> ChatMember {
    ChatMember {
        user_id,
        username: Some(crate::protocol::username::Username::parse(name).unwrap()),
        can_write: true,
        can_manage: false,
        is_owner: false,
        joined_seq: Seq::default(),
        sessions: Vec::new(),
    }
}

fn sent(effects: &[Effect]) -> (MessageId, String) {
    match effects {
        [Effect::Send { message_id, body: Body::Message { text, .. } }] => (*message_id, text.clone()),
        other => panic!("one message, not {other:?}"),
    }
}

#[test]
fn a_message_waits_below_until_it_is_in_the_log() {
    let mut stage = Stage::new();
    let (message_id, text) = sent(&stage.enter("hello bob"));
    assert_eq!(text, "hello bob");
    assert!(stage.shows("waits ada hello bob"), "{:#?}", stage.screen());
    assert!(stage.shows("1 message waits"));
    let message = stage.message(4, "first");
    stage.event(Event::Message(message));
    let sent = Sent { message_id, revision: Revision::default(), seq: Seq::saturating(5), created_at: NOW };
    stage.put(Input::Sent { message_id, result: Ok(sent) });
    let own = Message { message_id, sender_id: stage.me, ..stage.message(5, "hello bob") };
    stage.event(Event::Message(own));
    let screen = stage.screen();
    assert_eq!(screen[8..10], ["00:37 bob first", "00:37 ada hello bob"], "{screen:#?}");
    assert_eq!(screen.iter().filter(|row| row.contains("hello bob")).count(), 1);
}

#[test]
fn a_message_that_failed_says_why_and_is_sent_again() {
    let mut stage = Stage::new();
    let (message_id, _) = sent(&stage.enter("hello"));
    stage.put(Input::Sent { message_id, result: Err("you may not write in this chat; see `chat show`".into()) });
    assert!(stage.shows("fails ada hello"));
    assert!(stage.shows("not sent: you may not write in this chat"));
    assert!(stage.shows("/retry"));
    let (again, text) = sent(&stage.enter("/retry"));
    assert_eq!(text, "hello");
    assert_ne!(again, message_id, "a message that was refused is another one the next time");
    assert!(!stage.shows("fails"));
    let (chat_id, error) = (stage.chat, SendError::Refused { code: ErrorCode::CannotWrite });
    stage.event(Event::SendFailed { chat_id, message_id: again, revision: Revision::default(), error });
    assert!(stage.shows("fails ada hello"));
    assert_eq!(stage.enter("/retry").len(), 1);
    stage.put(Input::Sent { message_id: again, result: Err("late".into()) });
    assert_eq!(stage.enter("  "), []);
}

#[test]
fn older_pages_are_asked_for_as_their_place_is_looked_at_and_once() {
    let mut stage = Stage::new();
    let effects = stage.put(Input::Older(stage.page(91, 100, true)));
    assert_eq!(effects, [Effect::Older(Some(Seq::saturating(91)))], "the screen is not filled twice yet");
    assert_eq!(stage.press(KeyCode::PageUp), [], "the page is on its way");
    assert_eq!(stage.put(Input::Older(stage.page(61, 90, true))), []);
    assert!(stage.press(KeyCode::End).is_empty());
    assert!(stage.shows("text 100") && !stage.shows("text 80"));
    for _ in 0..2 {
        assert_eq!(stage.press(KeyCode::PageUp), []);
    }
    let asked = stage.press(KeyCode::PageUp);
    assert_eq!(asked, [Effect::Older(Some(Seq::saturating(61)))]);
    let before = stage.screen();
    assert_eq!(stage.put(Input::Older(stage.page(1, 60, false))), []);
    assert_eq!(stage.screen(), before, "what is looked at does not move");
    for _ in 0..20 {
        assert_eq!(stage.press(KeyCode::PageUp), [], "there is no more");
    }
    assert!(stage.shows("text 1"));
    assert!(stage.shows("Sunday, 22 November 2026"));
}

#[test]
fn what_comes_while_scrolled_is_counted_and_does_not_move_the_pane() {
    let mut stage = Stage::new();
    stage.put(Input::Older(stage.page(1, 60, false)));
    stage.press(KeyCode::PageUp);
    let before = stage.screen();
    let message = stage.message(61, "new one");
    stage.event(Event::Message(message));
    let after = stage.screen();
    assert_eq!(after[1..10], before[1..10]);
    assert!(stage.shows("1 new"));
    stage.press(KeyCode::End);
    assert!(stage.shows("new one") && !stage.shows("1 new ·"));
}

#[test]
fn commands_become_effects_and_their_answers_are_shown() {
    let mut stage = Stage::new();
    assert_eq!(stage.enter("/members"), [Effect::Act(Action::Members)]);
    stage.put(Input::Done(Ok(vec!["ada (you): owner".into()])));
    assert!(stage.shows("    ada (you): owner"));
    stage.put(Input::Done(Err("there is no user of that name; check the name".into())));
    assert!(stage.shows("there is no user of that name"));
    assert_eq!(stage.enter("/dance"), []);
    assert!(stage.shows("no command /dance"));
    assert_eq!(stage.model.editor.text(), "/dance", "a line that means nothing can be mended");
    stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
    assert_eq!(stage.enter("/quit"), [Effect::Quit]);
    assert_eq!(stage.key(KeyCode::Char('c'), KeyModifiers::CONTROL), [Effect::Quit]);
    assert_eq!(stage.key(KeyCode::Char('d'), KeyModifiers::CONTROL), [Effect::Quit]);
    for character in "/remove b".chars() {
        stage.press(KeyCode::Char(character));
    }
    stage.press(KeyCode::Tab);
    assert_eq!(stage.model.editor.text(), "/remove bob ");
    assert_eq!(stage.key(KeyCode::Char('d'), KeyModifiers::CONTROL), [], "there is something typed");
}

#[test]
fn pasted_text_is_never_sent_by_itself() {
    let mut stage = Stage::new();
    assert_eq!(stage.put(Input::Paste("one\r\n/quit\r\x1b[201~three".into())), []);
    assert_eq!(stage.model.editor.text(), "one\n/quit\n[201~three");
    assert_eq!(stage.screen()[9..], ["> one", "  /quit", "  [201~three"]);
    let (_, text) = sent(&stage.press(KeyCode::Enter));
    assert_eq!(text, "one\n/quit\n[201~three");
}

#[test]
fn alarms_stay_until_they_were_seen() {
    let mut stage = Stage::new();
    let failure = VerificationFailure::Signature;
    stage.event(Event::Alarm(Alarm { chat_id: None, seq: Some(Seq::saturating(7)), session_id: None, failure }));
    let terminal = stage.terminal(true);
    assert_eq!(terminal.backend().buffer()[(3, 1)].bg, Color::Red);
    assert!(stage.screen()[1].starts_with(" 1 × ALARM: entry 7"));
    stage.press(KeyCode::Char('x'));
    assert!(stage.shows("1 × ALARM"), "a key does not take it away");
    stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
    stage.enter("/alarms");
    assert!(!stage.shows("1 × ALARM"));
    assert!(stage.shows("  ALARM: entry 7"), "it stays where it was");
    let elsewhere = Some(ChatId::generate());
    stage.event(Event::Alarm(Alarm { chat_id: elsewhere, seq: None, session_id: None, failure }));
    assert_eq!(stage.model.alarm, None);
}

#[test]
fn the_connection_is_told_of() {
    let mut stage = Stage::new();
    assert!(stage.screen()[0].ends_with("connected"));
    stage.event(Event::Disconnected);
    stage.put(Input::Tick(Some("no answer in time".into())));
    assert!(stage.screen()[0].ends_with("CONNECTION LOST"));
    assert!(stage.shows("connection lost at 00:37; what you send waits"));
    stage.event(Event::Live);
    assert!(stage.shows("connected again, and caught up"));
    stage.press(KeyCode::Char('x'));
    assert!(!stage.shows("caught up"));
    let chat_id = stage.chat;
    stage.event(Event::Removed { chat_id });
    assert!(matches!(stage.model.link, Link::Gone(_)));
    assert_eq!(stage.press(KeyCode::Enter), [], "nothing can be sent any more");
    assert!(stage.shows("you are not in this chat any more"));
    assert_eq!(stage.model.editor.text(), "x", "and nothing is lost");
}

#[test]
fn dropped_events_are_read_from_the_log() {
    let mut stage = Stage::new();
    assert_eq!(stage.put(Input::Missed), [Effect::Members, Effect::Older(None)]);
    stage.put(Input::Older(stage.page(1, 60, false)));
    assert_eq!(stage.put(Input::Missed), [Effect::Members, Effect::Newer(Seq::saturating(60))]);
    assert_eq!(stage.put(Input::Newer(stage.page(61, 70, true))), [Effect::Newer(Seq::saturating(70))]);
    assert_eq!(stage.put(Input::Newer(stage.page(71, 75, false))), []);
    assert!(stage.shows("text 75"));
}

#[test]
fn names_that_are_not_known_are_asked_for_once() {
    let mut stage = Stage::new();
    stage.put(Input::Older(stage.page(1, 60, false)));
    let stranger = UserId::generate();
    let says = |stage: &Stage, seq| Event::Message(Message { sender_id: stranger, ..stage.message(seq, "hi") });
    let (one, two) = (says(&stage, 61), says(&stage, 62));
    assert_eq!(stage.event(one), [Effect::Members]);
    assert_eq!(stage.event(two), []);
    let elsewhere = Message { chat_id: ChatId::generate(), ..stage.message(3, "psst") };
    stage.event(Event::Message(elsewhere));
    assert!(stage.shows("1 new message in another chat") && !stage.shows("psst"));
}

#[test]
fn a_title_cannot_steer_the_terminal_and_any_size_can_be_drawn() {
    let mut stage = Stage::new();
    stage.put(Input::Title(Some("evil\u{1b}]0;x\u{7}\u{202e}\ntitle".into())));
    stage.put(Input::Older(stage.page(1, 30, false)));
    for character in "a line that is longer than the terminal is wide 漢字漢字漢字".chars() {
        stage.press(KeyCode::Char(character));
    }
    stage.press(KeyCode::PageUp);
    for (columns, rows) in [(1, 1), (5, 3), (10, 4), (11, 5), (20, 6), (200, 80), (80, 2), (3, 50)] {
        stage.put(Input::Resize { columns, rows });
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        for is_painted in [false, true] {
            terminal.draw(|frame| view::draw(&stage.model, is_painted, frame)).unwrap();
        }
        let symbols: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(symbols.chars().all(|symbol| !symbol.is_control() && symbol != '\u{202e}'));
    }
}

#[test]
fn without_colours_there_are_none() {
    let mut stage = Stage::new();
    stage.put(Input::Older(stage.page(1, 3, false)));
    let failure = VerificationFailure::Signature;
    stage.event(Event::Alarm(Alarm { chat_id: None, seq: None, session_id: None, failure }));
    stage.put(Input::Done(Err("no".into())));
    let colours = |is_painted| {
        let terminal = stage.terminal(is_painted);
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(colours(true) && !colours(false));
}

#[test]
fn commands_about_messages_find_them_by_number_or_as_the_newest() {
    let mut stage = Stage::new();
    assert_eq!(stage.enter("/reply yes"), []);
    assert!(stage.shows("no message of somebody else is here"));
    stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
    let page = stage.page(1, 3, false);
    let (second, third) = (page.messages[1].message_id, page.messages[2].message_id);
    stage.put(Input::Older(page));
    let answers = Some(Reply { message_id: second, sender_id: stage.bob });
    let body = Body::Message { text: "mine".into(), reply: answers };
    let own = Message { sender_id: stage.me, body, ..stage.message(4, "") };
    let mine = own.message_id;
    stage.event(Event::Message(own));

    let bob = stage.bob;
    let reply_to = |message_id| Some(Reply { message_id, sender_id: bob });
    let said = |effects: Vec<Effect>| match effects.as_slice() {
        [Effect::Send { body, .. }] => body.clone(),
        other => panic!("one message, not {other:?}"),
    };
    assert_eq!(said(stage.enter("/reply yes")), Body::Message { text: "yes".into(), reply: reply_to(third) });
    assert!(stage.shows("↪ bob: “text 3”") && stage.shows("waits ada yes"), "{:#?}", stage.screen());
    assert_eq!(said(stage.enter("/reply #2 no")), Body::Message { text: "no".into(), reply: reply_to(second) });
    assert_eq!(said(stage.enter("/react #2 👍")), Body::Reaction { message_id: second, emoji: "👍".into() });
    assert!(stage.shows("to “text 2”"), "{:#?}", stage.screen());
    let edit =
        Effect::Act(Action::Edit { message_id: mine, body: Body::Message { text: "better".into(), reply: answers } });
    assert_eq!(stage.enter("/edit better"), [edit]);
    assert_eq!(stage.enter("/delete"), [Effect::Act(Action::Delete { message_id: mine })]);
    assert_eq!(stage.enter("/delete #3"), [Effect::Act(Action::Delete { message_id: third })], "a manager may");
    assert_eq!(stage.enter("/edit #3 x"), []);
    assert!(stage.shows("only your own messages can be edited"));
    stage.key(KeyCode::Char('u'), KeyModifiers::CONTROL);
    assert_eq!(stage.enter("/delete #77"), []);
    assert!(stage.shows("no message #77 is here"));
}

#[test]
fn edits_and_deletions_are_shown_at_their_messages() {
    let mut stage = Stage::new();
    let page = stage.page(1, 2, false);
    let (one, two) = (page.messages[0].clone(), page.messages[1].clone());
    stage.put(Input::Older(page));
    let edited = Message { revision: Revision::saturating(1), body: Body::text("changed"), ..one };
    stage.event(Event::Edited { message: Message { seq: Seq::saturating(3), ..edited }, first: None });
    assert!(stage.shows("bob changed (edited)") && !stage.shows("text 1"));
    let deletion = Deletion {
        chat_id: stage.chat,
        seq: Seq::saturating(4),
        created_at: NOW,
        message_id: two.message_id,
        revision: Revision::saturating(1),
        user_id: stage.bob,
        session_id: two.sender_session_id,
        by_manager: false,
    };
    stage.event(Event::Deleted { deletion, first: None });
    assert!(stage.shows("bob [deleted]") && !stage.shows("text 2"));
    stage.enter("/numbers");
    assert!(stage.shows("#1 00:37 bob changed"), "{:#?}", stage.screen());
    stage.enter("/numbers");
    assert!(!stage.shows("#1 "));
}

#[test]
fn who_is_here_and_types_is_told_both_ways() {
    let mut stage = Stage::new();
    let (chat_id, user_id, session_id) = (stage.chat, stage.bob, SessionId::generate());
    let signal = |signal| Event::Signal { chat_id, user_id, session_id, signal };
    stage.pass(1);
    assert_eq!(stage.told(), [Effect::Signal(Signal::Here)]);
    stage.event(signal(Signal::Here));
    assert!(stage.shows("here: bob"));
    assert_eq!(stage.told(), [Effect::Signal(Signal::Here)], "who has just come is answered");
    stage.event(signal(Signal::Typing));
    assert!(stage.shows("bob is typing …"));
    assert_eq!(stage.told(), []);
    stage.pass(10);
    assert!(!stage.shows("typing") && stage.shows("here: bob"));
    stage.event(signal(Signal::Away));
    assert!(!stage.shows("here: bob"));
    stage.told();

    stage.press(KeyCode::Char('h'));
    assert_eq!(stage.told(), [Effect::Signal(Signal::Typing)]);
    stage.press(KeyCode::Char('i'));
    assert_eq!(stage.told(), [], "not with every key");
    stage.press(KeyCode::Backspace);
    stage.press(KeyCode::Backspace);
    assert_eq!(stage.told(), [Effect::Signal(Signal::StoppedTyping)]);
    stage.enter("/members");
    assert_eq!(stage.told(), [], "a command is nobody's business");
    stage.put(Input::Focus(false));
    assert_eq!(stage.told(), [Effect::Signal(Signal::Away)]);
    stage.pass(60);
    assert_eq!(stage.told(), [], "nobody looks");
    stage.put(Input::Focus(true));
    assert_eq!(stage.told(), [Effect::Signal(Signal::Here)]);
}

#[test]
fn what_is_looked_at_is_marked_as_read_and_no_more_than_that() {
    let mut stage = Stage::new();
    stage.put(Input::Older(stage.page(1, 60, false)));
    stage.pass(1);
    let read = |told: Vec<Effect>| -> Vec<Effect> {
        told.into_iter().filter(|effect| matches!(effect, Effect::Read(_))).collect()
    };
    assert_eq!(read(stage.told()), [Effect::Read(Seq::saturating(60))]);
    let own = Message { sender_id: stage.me, ..stage.message(61, "mine") };
    stage.event(Event::Message(own));
    stage.pass(1);
    assert_eq!(read(stage.told()), [], "one's own are read");
    stage.press(KeyCode::PageUp);
    let unseen = stage.message(62, "unseen");
    stage.event(Event::Message(unseen));
    stage.pass(1);
    assert_eq!(read(stage.told()), [], "the pane is further up");
    stage.press(KeyCode::End);
    stage.put(Input::Focus(false));
    stage.pass(1);
    assert_eq!(read(stage.told()), [], "another window is looked at");
    stage.put(Input::Focus(true));
    assert_eq!(read(stage.told()), [Effect::Read(Seq::saturating(62))]);
    let (chat_id, user_id, read_seq) = (stage.chat, stage.bob, Seq::saturating(61));
    stage.event(Event::Read { chat_id, seq: None, message_id: None, user_id, read_seq });
    assert!(stage.shows("read by bob"));
}

#[test]
fn what_the_blocked_write_is_hidden() {
    let mut stage = Stage::new();
    let page = stage.page(1, 2, false);
    let quoted = page.messages[0].message_id;
    stage.put(Input::Older(page));
    assert_eq!(stage.enter("/block bob"), [Effect::Act(Action::Block { username: "bob".into() })]);
    let bob = stage.bob;
    stage.put(Input::Blocked(vec![bob]));
    assert!(!stage.shows("text 2") && stage.shows("[hidden"));
    let reaction = Body::Reaction { message_id: quoted, emoji: "x".into() };
    let own = Message { sender_id: stage.me, body: reaction, ..stage.message(3, "") };
    stage.event(Event::Message(own));
    assert!(!stage.shows("text 1"), "a quotation shows nothing either");
    stage.put(Input::Blocked(Vec::new()));
    assert!(stage.shows("text 2"));
}
