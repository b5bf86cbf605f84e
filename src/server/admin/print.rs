//! What a command came to, as a table for people or as JSON for programs.

use serde_json::{Map, Value};

use crate::store::operator::Listed;

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// A list.
    List(Listed),
    /// Something was done.
    Done {
        /// In words.
        text: String,
        /// For programs.
        object: Map<String, Value>,
    },
}

impl Outcome {
    pub(super) fn done(text: impl Into<String>, object: Map<String, Value>) -> Self {
        Self::Done { text: text.into(), object }
    }
}

/// JSON on one line: an array of objects for a list, else an object.
#[must_use]
pub fn as_json(outcome: &Outcome) -> String {
    let value = match outcome {
        Outcome::List(listed) => Value::Array(listed.rows.iter().cloned().map(Value::Object).collect()),
        Outcome::Done { object, .. } => Value::Object(object.clone()),
    };
    format!("{value}\n")
}

/// A table with a line of names above, or a line of words.
#[must_use]
pub fn as_text(outcome: &Outcome) -> String {
    let listed = match outcome {
        Outcome::List(listed) => listed,
        Outcome::Done { text, .. } => return format!("{text}\n"),
    };
    let names = listed.columns.iter().map(|name| (*name).to_owned()).collect();
    let values = |row: &Map<String, Value>| listed.columns.iter().map(|name| cell(row.get(*name))).collect();
    let mut lines: Vec<Vec<String>> = vec![names];
    lines.extend(listed.rows.iter().map(values));
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..listed.columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Times without fractions of a second; nothing as a hyphen.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Bool(is_so)) => if *is_so { "yes" } else { "no" }.to_owned(),
        Some(Value::String(text)) => match text.strip_suffix("+00:00") {
            Some(time) => format!("{}Z", time.split('.').next().unwrap_or(time)),
            None => text.clone(),
        },
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table_or_an_array() {
        let row = |value: Value| value.as_object().unwrap().clone();
        let rows = vec![
            row(json!({ "name": "ada", "seen_at": "2026-11-23T19:00:00.5+00:00", "count": 7 })),
            row(json!({ "name": "bartholomew", "seen_at": null, "count": 12 })),
        ];
        let outcome = Outcome::List(Listed { columns: &["name", "count", "seen_at"], rows });
        let expected = "name         count  seen_at\nada          7      2026-11-23T19:00:00Z\nbartholomew  12     -\n";
        assert_eq!(as_text(&outcome), expected);
        let again: Value = serde_json::from_str(&as_json(&outcome)).unwrap();
        assert_eq!(again[1]["name"], "bartholomew");
    }
}
