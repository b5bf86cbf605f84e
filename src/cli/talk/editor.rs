//! The line that is being typed: its text, its cursor, and the lines before it.
//!
//! Pure. The cursor always stands between two graphemes. The text may hold newlines, from pasted text or typed
//! with Alt-Enter.

use unicode_segmentation::UnicodeSegmentation;

use super::text::{harmless_line, width};

/// Lines that can be called back.
const HISTORY_MAX: usize = 200;

/// The line that is being typed.
#[derive(Debug, Default)]
pub(super) struct Editor {
    text: String,
    /// In bytes.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown, and what was typed before it was called.
    recalled: Option<(usize, String)>,
}

impl Editor {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What stands before the cursor.
    pub(super) fn before(&self) -> &str {
        self.text.get(..self.cursor).unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.text.get(self.cursor..).unwrap_or_default()
    }

    /// Replaces everything; the cursor stands at the end.
    pub(super) fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    /// Types text at the cursor. Control characters other than the newline are dropped.
    pub(super) fn insert(&mut self, typed: &str) {
        let typed = typed.replace("\r\n", "\n").replace('\r', "\n").replace('\t', "    ");
        let typed: String = typed.chars().filter(|character| *character == '\n' || !character.is_control()).collect();
        let text = format!("{}{typed}{}", self.before(), self.after());
        let cursor = self.cursor + typed.len();
        self.text = text;
        // What was typed may have joined with what stood there.
        self.cursor = self.boundary_at_or_after(cursor);
        self.recalled = None;
    }

    fn boundary_at_or_after(&self, at: usize) -> usize {
        let starts = self.text.grapheme_indices(true).map(|(start, _)| start);
        starts.chain([self.text.len()]).find(|start| *start >= at).unwrap_or(self.text.len())
    }

    fn previous(&self) -> usize {
        self.before().grapheme_indices(true).next_back().map_or(0, |(start, _)| start)
    }

    fn next(&self) -> usize {
        self.cursor + self.after().graphemes(true).next().map_or(0, str::len)
    }

    /// Where the word before the cursor begins; words are parted by blanks.
    fn word_start(&self) -> usize {
        let trimmed = self.before().trim_end();
        trimmed.rfind(char::is_whitespace).map_or(0, |blank| {
            blank + trimmed.get(blank..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
        })
    }

    fn word_end(&self) -> usize {
        let after = self.after();
        let blanks = after.len() - after.trim_start().len();
        let word = after.trim_start().find(char::is_whitespace).unwrap_or(after.trim_start().len());
        self.cursor + blanks + word
    }

    fn remove(&mut self, from: usize, to: usize) {
        let (head, tail) = (self.text.get(..from).unwrap_or_default(), self.text.get(to..).unwrap_or_default());
        self.text = format!("{head}{tail}");
        self.cursor = self.boundary_at_or_after(from);
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.previous();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.next();
    }

    pub(super) fn word_left(&mut self) {
        self.cursor = self.word_start();
    }

    pub(super) fn word_right(&mut self) {
        self.cursor = self.word_end();
    }

    pub(super) const fn home(&mut self) {
        self.cursor = 0;
    }

    pub(super) const fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(super) fn backspace(&mut self) {
        self.remove(self.previous(), self.cursor);
    }

    pub(super) fn delete(&mut self) {
        self.remove(self.cursor, self.next());
    }

    pub(super) fn delete_word(&mut self) {
        self.remove(self.word_start(), self.cursor);
    }

    pub(super) fn delete_to_start(&mut self) {
        self.remove(0, self.cursor);
    }

    pub(super) fn delete_to_end(&mut self) {
        self.remove(self.cursor, self.text.len());
    }

    /// Takes the line for good and remembers it.
    pub(super) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.recalled = None;
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            self.history.push(text.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.remove(0);
            }
        }
        text
    }

    /// Calls back the line before.
    pub(super) fn older(&mut self) {
        let (at, draft) = match self.recalled.take() {
            Some((0, draft)) => (0, draft),
            Some((at, draft)) => (at - 1, draft),
            None if self.history.is_empty() => return,
            None => (self.history.len() - 1, self.text.clone()),
        };
        self.set(self.history.get(at).cloned().unwrap_or_default());
        self.recalled = Some((at, draft));
    }

    /// Goes back towards what was being typed.
    pub(super) fn newer(&mut self) {
        let Some((at, draft)) = self.recalled.take() else { return };
        match self.history.get(at + 1).cloned() {
            Some(line) => {
                self.set(line);
                self.recalled = Some((at + 1, draft));
            }
            None => self.set(draft),
        }
    }

    /// The rows that the text takes, harmless, and where the cursor is: row and column.
    pub(super) fn rows(&self, columns: usize) -> (Vec<String>, usize, usize) {
        let columns = columns.max(2);
        let mut rows = vec![String::new()];
        let (mut used, mut cursor) = (0, None);
        for (start, grapheme) in self.text.grapheme_indices(true) {
            let is_newline = grapheme == "\n";
            let shown = harmless_line(grapheme);
            let wide = width(&shown);
            if !is_newline && used + wide > columns {
                rows.push(String::new());
                used = 0;
            }
            if start == self.cursor {
                cursor = Some((rows.len() - 1, used));
            }
            if is_newline {
                rows.push(String::new());
                used = 0;
                continue;
            }
            if let Some(row) = rows.last_mut() {
                row.push_str(&shown);
            }
            used += wide;
        }
        if cursor.is_none() && used >= columns {
            rows.push(String::new());
            used = 0;
        }
        let (row, column) = cursor.unwrap_or((rows.len() - 1, used));
        (rows, row, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn editor(text: &str) -> Editor {
        let mut editor = Editor::default();
        editor.insert(text);
        editor
    }

    #[test]
    fn the_cursor_moves_by_what_a_reader_sees() {
        let mut line = editor("a👩‍👩‍👧‍👦e\u{301}");
        line.left();
        assert_eq!(line.before(), "a👩‍👩‍👧‍👦");
        line.backspace();
        assert_eq!(line.text(), "ae\u{301}");
        line.delete();
        assert_eq!(line.text(), "a");
        line.delete();
        line.right();
        line.home();
        line.backspace();
        line.left();
        assert_eq!(line.text(), "a");
        line.insert("\u{1b}[31mx\r\ny\tz\u{7}");
        assert_eq!(line.text(), "[31mx\ny    za");
    }

    #[test]
    fn words_and_halves_are_deleted() {
        let mut line = editor("one two  three");
        line.delete_word();
        assert_eq!(line.text(), "one two  ");
        line.delete_word();
        assert_eq!(line.text(), "one ");
        line.insert("é two");
        line.word_left();
        line.word_left();
        assert_eq!(line.before(), "one ");
        line.word_right();
        assert_eq!(line.before(), "one é");
        line.delete_to_start();
        assert_eq!(line.text(), " two");
        line.delete_to_end();
        assert!(line.is_empty());
        line.delete_word();
    }

    #[test]
    fn lines_are_called_back_and_a_draft_survives() {
        let mut line = editor("first");
        assert_eq!(line.take(), "first");
        line.insert("second");
        line.take();
        line.insert("draft");
        line.older();
        assert_eq!(line.text(), "second");
        line.older();
        line.older();
        assert_eq!(line.text(), "first");
        line.newer();
        line.newer();
        assert_eq!(line.text(), "draft");
        line.newer();
        assert_eq!(line.text(), "draft");
    }

    #[test]
    fn the_cursor_is_where_the_text_is() {
        let mut line = editor("漢字漢");
        assert_eq!(line.rows(4), (vec!["漢字".into(), "漢".into()], 1, 2));
        line.home();
        line.right();
        line.right();
        assert_eq!(line.rows(4).1, 1, "the cursor is on what wraps");
        assert_eq!(editor("abcd").rows(4), (vec!["abcd".into(), String::new()], 1, 0));
        assert_eq!(editor("a\nb").rows(4), (vec!["a".into(), "b".into()], 1, 1));
        assert_eq!(editor("").rows(4), (vec![String::new()], 0, 0));
    }
}
