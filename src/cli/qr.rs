//! Draws a link code as a QR code, so that it is held up to a camera instead of being typed.
//!
//! Its text is `sealcast:USERNAME/CODE`; a code is taken in that form too. It is a secret as the code is: it is drawn
//! where the code is printed, and nowhere else.

use std::io::{self, IsTerminal};

use qrcode::{Color, EcLevel, QrCode};

use super::error::CliError;
use super::paint::Paint;
use crate::crypto::link_code::LinkCode;

const SCHEME: &str = "sealcast:";

/// Modules that stay light around a code. Source: ISO/IEC 18004 section 9.1.
const QUIET: usize = 4;

/// A link code, and whose session it is to become.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub(super) username: &'a str,
    pub(super) code: &'a str,
}

impl Shown<'_> {
    /// What the QR code says.
    pub(super) fn text(&self) -> String {
        format!("{SCHEME}{}/{}", self.username, self.code)
    }

    /// The lines of the drawing: if it is asked for, or if standard output is a terminal that is wide enough.
    pub(super) fn drawn(&self, is_asked: bool, paint: Paint) -> Option<Vec<String>> {
        let lines = draw(&self.text(), paint)?;
        let fits = || {
            let width = lines.first().map_or(0, |line| columns(line));
            io::stdout().is_terminal() && crossterm::terminal::size().is_ok_and(|(wide, _)| usize::from(wide) > width)
        };
        (is_asked || fits()).then_some(lines)
    }
}

/// Reads a code as it is typed, or the text of a QR code of the same user.
pub(super) fn read_code(text: &str, username: &str) -> Result<LinkCode, CliError> {
    let Some(scanned) = text.trim().strip_prefix(SCHEME) else { return Ok(text.parse()?) };
    let (user, code) = scanned.split_once('/').ok_or(crate::crypto::link_code::LinkCodeInvalid)?;
    if user != username {
        return Err(CliError::CodeOfOther { of: user.chars().take(32).collect() });
    }
    Ok(code.parse()?)
}

/// Two rows of modules make one line. Light is what is drawn, as most terminals are dark; where there are colours, light
/// is white and dark is black whatever the theme.
fn draw(text: &str, paint: Paint) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let (width, modules) = (code.width(), code.to_colors());
    let is_light = |x: usize, y: usize| match (x.checked_sub(QUIET), y.checked_sub(QUIET)) {
        (Some(x), Some(y)) if x < width && y < width => modules.get(y * width + x) != Some(&Color::Dark),
        _ => true,
    };
    let side = width + 2 * QUIET;
    let line = |y: usize| {
        let mut line = String::with_capacity(side * 3);
        for x in 0..side {
            line.push(match (is_light(x, y), is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if paint.is_on() { format!("\u{1b}[97;40m{line}\u{1b}[0m") } else { line }
    };
    Some((0..side).step_by(2).map(line).collect())
}

/// The columns that a line takes, without what colours it.
fn columns(line: &str) -> usize {
    line.chars().filter(|character| matches!(character, '█' | '▀' | '▄' | ' ')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera reads that sees the lines, some pixels for each module.
    fn photographed(lines: &[String]) -> String {
        const PIXELS: usize = 4;
        let cells: Vec<Vec<char>> = lines.iter().map(|line| line.chars().collect()).collect();
        let is_light = |x: usize, y: usize| {
            let cell = cells[y / PIXELS / 2][x / PIXELS];
            matches!((cell, y / PIXELS % 2), ('█', _) | ('▀', 0) | ('▄', 1))
        };
        let (wide, high) = (cells[0].len() * PIXELS, cells.len() * 2 * PIXELS);
        let brightness = |x, y| if is_light(x, y) { 255 } else { 0 };
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(wide, high, brightness);
        let grids = picture.detect_grids();
        let [grid] = grids.as_slice() else { panic!("{} codes", grids.len()) };
        grid.decode().unwrap().1
    }

    #[test]
    fn a_camera_reads_what_is_drawn() {
        for username in ["ada", "a_name-of.thirty-two_letters.000"] {
            let code = LinkCode::generate();
            let shown = Shown { username, code: &code.to_text() };
            let lines = shown.drawn(true, Paint::PLAIN).unwrap();
            assert!(lines.iter().all(|line| line.chars().count() == columns(&lines[0])), "a rectangle");
            assert!(columns(&lines[0]) <= 60, "fits a terminal");
            let text = photographed(&lines);
            assert_eq!(text, shown.text());
            assert_eq!(read_code(&text, username).unwrap(), code);
            assert!(matches!(read_code(&text, "bob"), Err(CliError::CodeOfOther { .. })));
        }
    }

    #[test]
    fn a_code_is_typed_or_scanned() {
        let code = LinkCode::generate();
        assert_eq!(read_code(&code.to_text(), "ada").unwrap(), code);
        for wrong in ["", "sealcast:", "sealcast:ada", "sealcast:ada/", "sealcast:ada/0000", "sealed:ada/0000"] {
            assert!(matches!(read_code(wrong, "ada"), Err(CliError::Code(_))), "{wrong}");
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let shown = Shown { username: "ada", code: "0000-0000-0000-0000-0000-0000" };
        let (plain, painted) = (draw(&shown.text(), Paint::PLAIN).unwrap(), draw(&shown.text(), Paint::ON).unwrap());
        let strip = |line: &String| line.replace("\u{1b}[97;40m", "").replace("\u{1b}[0m", "");
        assert_eq!(plain, painted.iter().map(strip).collect::<Vec<_>>());
        assert_eq!(columns(&plain[0]), columns(&painted[0]));
    }
}
