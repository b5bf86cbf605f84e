//! Finds the place of what is wrong with a settings file as TOML.
//!
//! What a parser says of a faulty line shows the line, which may hold a password. So a file is looked over here first. Floor 1; pure: text in, a place out.

use toml::de::{DeTable, DeValue};

/// What is wrong with a file, and where. It says nothing of what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, in TOML's words.
    pub message: String,
}

/// Looks a file over.
pub(super) fn check(text: &str) -> Result<(), SyntaxError> {
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return Err(at(text, error.span().map_or(0, |span| span.start), error.message())),
    };
    match number_out_of_range(table.get_ref()) {
        Some(place) => Err(at(text, place, "a number out of range")),
        None => Ok(()),
    }
}

/// The place of the first number that the settings cannot hold: 64 bits for an integer, a finite float.
fn number_out_of_range(table: &DeTable<'_>) -> Option<usize> {
    table.iter().find_map(|(_, value)| in_value(value.get_ref(), value.span().start))
}

fn in_value(value: &DeValue<'_>, place: usize) -> Option<usize> {
    match value {
        DeValue::Integer(integer) => {
            let is_held = i64::from_str_radix(integer.as_str(), integer.radix()).is_ok();
            (!is_held).then_some(place)
        }
        DeValue::Float(float) => {
            let is_held =
                float.as_str().contains("inf") || float.as_str().parse().is_ok_and(|float: f64| !float.is_infinite());
            (!is_held).then_some(place)
        }
        DeValue::Array(items) => items.iter().find_map(|item| in_value(item.get_ref(), item.span().start)),
        DeValue::Table(table) => number_out_of_range(table),
        DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => None,
    }
}

fn at(text: &str, place: usize, message: &str) -> SyntaxError {
    let (line, column) = line_and_column(text, place);
    SyntaxError { line, column, message: message.to_owned() }
}

/// The line and the column, in characters and both from 1, of a place in bytes.
pub(super) fn line_and_column(text: &str, place: usize) -> (usize, usize) {
    let before = text.get(..text.floor_char_boundary(place)).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> (usize, usize) {
        let error = check(text).unwrap_err();
        (error.line, error.column)
    }

    #[test]
    fn every_fault_has_a_place() {
        assert_eq!(check("a = 1\n[b]\nc = [1, 2.5, inf]\n"), Ok(()));
        // Whether a missing value is missing before or after the space is the parser's affair.
        assert_eq!(place("a = 1\nb = \n").0, 2);
        assert_eq!(place("[drain\n"), (1, 7));
        assert_eq!(place("[session]\nlifetime_max_s = 99999999999999999999\n"), (2, 18));
        assert_eq!(place("a = [1, { b = 0xFFFFFFFFFFFFFFFFF }]\n"), (1, 15));
        assert_eq!(place("a = 1e999\n"), (1, 5));
    }

    #[test]
    fn a_password_in_a_faulty_line_is_not_repeated() {
        for text in ["url = \"postgres://u:canary@h\n", "url = canary\n", "url = 'canary' x\n"] {
            let error = check(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}
