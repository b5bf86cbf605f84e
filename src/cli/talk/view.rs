//! Draws the model: a header, alarms, the pane, a line of news, the line that is typed.
//!
//! Pure: it reads the model and writes cells. Text of others has been made harmless by the layout, or is here.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::layout::{Row, Tone, Voice};
use super::model::{Link, Model, PROMPT};
use super::text::{clip, harmless_line, width};

/// Colours of names of others, from the terminal's own sixteen.
const HUES: [Color; crate::cli::paint::HUES] =
    [Color::Green, Color::Yellow, Color::Magenta, Color::Blue, Color::LightCyan, Color::LightRed];

/// Draws the model; `is_painted` says whether in colour.
pub(super) fn draw(model: &Model, is_painted: bool, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.height < 4 || area.width < 10 {
        frame.buffer_mut().set_stringn(area.x, area.y, "too small", area.width.into(), Style::new());
        return;
    }
    let mut brush = Brush { buffer: frame.buffer_mut(), area, is_painted, y: area.y };
    brush.header(model);
    brush.alarm(model);
    let pane = model.pane();
    let height = model.pane_height();
    brush.y = brush.y.saturating_add(u16::try_from(height.saturating_sub(pane.len())).unwrap_or(0));
    for row in &pane {
        brush.row(row);
    }
    brush.news(model);
    let cursor = brush.editor(model);
    frame.set_cursor_position(cursor);
}

struct Brush<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    is_painted: bool,
    /// The next row.
    y: u16,
}

impl Brush<'_> {
    fn line(&mut self, line: &Line<'_>) {
        if self.y < self.area.bottom() {
            self.buffer.set_line(self.area.x, self.y, line, self.area.width);
        }
        self.y = self.y.saturating_add(1);
    }

    /// A style in colour, or another without.
    fn ink(&self, painted: Style, plain: Style) -> Style {
        if self.is_painted { painted } else { plain }
    }

    /// Two texts at both ends of a row; the left one gives way.
    fn ends(&mut self, left: &str, right: &str, style: Style, right_style: Style) {
        let columns = usize::from(self.area.width);
        let right = clip(right, columns);
        let room = columns.saturating_sub(width(&right) + usize::from(!right.is_empty()));
        let left = clip(left, room);
        let gap = " ".repeat(columns.saturating_sub(width(&left) + width(&right)));
        let spans = vec![Span::styled(left, style), Span::styled(gap, style), Span::styled(right, right_style)];
        self.line(&Line::from(spans));
    }

    fn header(&mut self, model: &Model) {
        let members = match model.members.len() {
            0 => String::new(),
            1 => " · only you".to_owned(),
            count => format!(" · {count} members: {}", model.members.join(", ")),
        };
        let state = match &model.link {
            Link::Connecting => "connecting … ",
            Link::Live => "connected ",
            Link::Lost(_) => "CONNECTION LOST ",
            Link::Gone(_) => "NOT A MEMBER ",
        };
        let style = Style::new().add_modifier(Modifier::REVERSED);
        let left = format!(" {}{}", harmless_line(&model.title()), harmless_line(&members));
        self.ends(&left, state, style, style.add_modifier(Modifier::BOLD));
    }

    fn alarm(&mut self, model: &Model) {
        let Some((count, text)) = &model.alarm else { return };
        let style = self.alarming();
        let text = format!(" {count} × ALARM: {}", harmless_line(text));
        self.ends(&text, "/alarms ", style, style);
    }

    fn alarming(&self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        self.ink(style.fg(Color::White).bg(Color::Red), style.add_modifier(Modifier::REVERSED))
    }

    fn row(&mut self, row: &Row) {
        let dim = Style::new().add_modifier(Modifier::DIM);
        let bad = self.ink(Style::new().fg(Color::Red), Style::new().add_modifier(Modifier::BOLD));
        let style = match row.tone {
            Tone::Plain | Tone::Answer => Style::new(),
            Tone::Quiet | Tone::Waiting => dim,
            Tone::Bad => bad,
            Tone::Alarm => self.alarming(),
        };
        let time = if row.tone == Tone::Bad { bad } else { dim };
        let mut spans = vec![Span::styled(row.time.as_str(), time)];
        if let Some((name, voice)) = &row.name {
            let bold = Style::new().add_modifier(Modifier::BOLD);
            let voice = match voice {
                Voice::Me => self.ink(bold.fg(Color::Cyan), bold),
                Voice::Other(hue) => {
                    let hue = HUES.get(hue % HUES.len()).copied().unwrap_or(Color::Reset);
                    self.ink(Style::new().fg(hue), Style::new())
                }
            };
            spans.push(Span::styled(name.as_str(), voice));
        }
        spans.push(Span::styled(row.text.as_str(), style));
        self.line(&Line::from(spans));
    }

    /// What is new: an answer to the newest key, else how things stand.
    fn news(&mut self, model: &Model) {
        let dim = Style::new().add_modifier(Modifier::DIM);
        let bad = self.ink(Style::new().fg(Color::Red), Style::new().add_modifier(Modifier::BOLD));
        let (left, style) = match (&model.hint, &model.link) {
            (Some(hint), _) => (hint.text.clone(), if hint.is_bad { bad } else { Style::new() }),
            (None, Link::Gone(why)) => (format!("{why}; /quit ends"), bad),
            (None, Link::Lost(at)) => {
                let since = model.time(*at);
                (format!("connection lost at {since}; what you send waits{}", why(model)), bad)
            }
            (None, Link::Connecting) => (format!("connecting{}", why(model)), dim),
            (None, Link::Live) => (standing(model), dim),
        };
        let right = match (model.is_scrolled(), model.unseen) {
            (false, _) if model.is_loading() => "loading … ".to_owned(),
            (false, _) => String::new(),
            (true, 0) => "End: to the newest ".to_owned(),
            (true, unseen) => format!("↓ {unseen} new · End: to the newest "),
        };
        let strong = self.ink(Style::new().fg(Color::Yellow), Style::new().add_modifier(Modifier::BOLD));
        self.ends(&harmless_line(&left), &right, style, strong);
    }

    fn editor(&mut self, model: &Model) -> Position {
        let (rows, row, column) = model.editor_rows();
        let top = self.y;
        for (index, text) in rows.iter().enumerate() {
            let prompt = if index == 0 { PROMPT } else { "  " };
            self.line(&Line::from(vec![
                Span::styled(prompt, Style::new().add_modifier(Modifier::BOLD)),
                Span::raw(text.as_str()),
            ]));
        }
        let x = u16::try_from(PROMPT.len() + column).unwrap_or(u16::MAX);
        let y = u16::try_from(row).unwrap_or(u16::MAX);
        Position {
            x: self.area.x.saturating_add(x).min(self.area.right().saturating_sub(1)),
            y: top.saturating_add(y).min(self.area.bottom().saturating_sub(1)),
        }
    }
}

fn why(model: &Model) -> String {
    model.failure.as_ref().map(|failure| format!(" ({failure})")).unwrap_or_default()
}

fn standing(model: &Model) -> String {
    let mut parts = Vec::new();
    match model.waiting() {
        0 => {}
        1 => parts.push("1 message waits".to_owned()),
        count => parts.push(format!("{count} messages wait")),
    }
    match model.elsewhere {
        0 => {}
        1 => parts.push("1 new message in another chat".to_owned()),
        count => parts.push(format!("{count} new messages in other chats")),
    }
    let (here, typing) = model.present();
    match typing.as_slice() {
        [] => {}
        [one] => parts.push(format!("{one} is typing …")),
        several => parts.push(format!("{} are typing …", several.join(", "))),
    }
    if !here.is_empty() {
        parts.push(format!("here: {}", here.join(", ")));
    }
    let readers = model.readers();
    if !readers.is_empty() {
        parts.push(format!("read by {}", readers.join(", ")));
    }
    if parts.is_empty() {
        parts.push("/help shows what can be typed".to_owned());
    }
    parts.join(" · ")
}
