//! Makes text of others harmless to a terminal, and fits it into columns.
//!
//! Pure. Widths are columns of a terminal. What leaves [`harmless`] holds no control character but the newline,
//! and nothing that turns the reading direction of what stands beside it.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Scalars of one grapheme; the longest emoji of the standard has ten, more is there to spill over its line.
const GRAPHEME_SCALARS_MAX: usize = 16;

/// Columns that a tab stands for.
const TAB: &str = "    ";

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Text as it may be shown on several lines: controls and marks that turn the reading direction become signs.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let text = text.replace("\r\n", "\n");
    for grapheme in text.graphemes(true) {
        for character in grapheme.chars().take(GRAPHEME_SCALARS_MAX) {
            match character {
                '\n' | '\r' | '\u{2028}' | '\u{2029}' => shown.push('\n'),
                '\t' => shown.push_str(TAB),
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    shown.push_str(&format!("<U+{:04X}>", u32::from(character)));
                }
                '\u{7f}' => shown.push('\u{2421}'),
                '\u{0}'..='\u{1f}' => shown.push(char::from_u32(0x2400 + u32::from(character)).unwrap_or('?')),
                _ if character.is_control() => shown.push('\u{fffd}'),
                _ => shown.push(character),
            }
        }
    }
    shown
}

/// The same on one line.
pub(super) fn harmless_line(text: &str) -> String {
    harmless(text).replace('\n', " ")
}

/// The beginning of a text that fits, with an ellipsis if there was more.
pub(super) fn clip(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        let wide = width(grapheme);
        if used + wide + 1 > columns {
            break;
        }
        used += wide;
        clipped.push_str(grapheme);
    }
    if columns > 0 {
        clipped.push('…');
    }
    clipped
}

/// Lines of at most so many columns: broken between words where it can be, at least one line.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        wrap_paragraph(paragraph, columns, &mut lines);
    }
    lines
}

fn wrap_paragraph(paragraph: &str, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut used = 0;
    for word in paragraph.split_word_bounds() {
        let wide = width(word);
        if used + wide <= columns {
            line.push_str(word);
            used += wide;
            continue;
        }
        // A blank that does not fit is where the line breaks.
        if word.chars().all(char::is_whitespace) {
            lines.push(std::mem::take(&mut line));
            used = 0;
            continue;
        }
        if used > 0 && wide <= columns {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
            line.push_str(word);
            used = wide;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let wide = width(grapheme);
            if used + wide > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        let all: String = (0..=0x2100_u32).filter_map(char::from_u32).collect();
        let shown = harmless(&all);
        assert!(shown.chars().all(|character| character == '\n' || !character.is_control()));
        assert!(!shown.contains('\u{202e}') && !shown.contains('\u{2066}') && !shown.contains('\u{2028}'));
        assert_eq!(harmless("a\r\nb\tc\u{1b}[31m"), "a\nb    c\u{241b}[31m");
        assert_eq!(harmless_line("a\nb"), "a b");
        let tower = format!("a{}", "\u{301}".repeat(500));
        assert!(harmless(&tower).chars().count() <= GRAPHEME_SCALARS_MAX);
    }

    #[test]
    fn lines_never_get_wider_than_they_may() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(wrap("漢字漢字漢", 4), ["漢字", "漢字", "漢"]);
        let family = "👩‍👩‍👧‍👦";
        assert_eq!(wrap(&family.repeat(3), 4), [family.repeat(2), family.to_owned()]);
        for columns in 2..12 {
            for line in wrap("a longer text with 漢字 and 👩‍👩‍👧‍👦, averyveryverylongword, and more", columns)
            {
                assert!(width(&line) <= columns, "{line:?} in {columns}");
            }
        }
    }

    #[test]
    fn what_is_clipped_says_so() {
        assert_eq!(clip("short", 5), "short");
        assert_eq!(clip("longer", 5), "long…");
        assert_eq!(clip("漢字漢", 4), "漢…");
        assert_eq!(clip("x", 0), "");
    }
}
