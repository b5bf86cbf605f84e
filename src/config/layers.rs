//! Lays the file over the defaults, and the environment over both.
//!
//! The defaults say which settings there are and of which kind each is, so every mistake is found at once and has a
//! place. Floor 1; pure: texts in, a table and mistakes out.
//!
//! Invariant: the table has each setting of the defaults once, with a value of the default's kind, and nothing else.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::mistake::{Mistake, Place};
use super::syntax::{self, SyntaxError};

/// What the names of variables begin with, without regard to case.
const PREFIX: &str = "sealcast__";

/// The settings so far, and what was wrong.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) table: Table,
    pub(super) mistakes: Vec<Mistake>,
    places: HashMap<String, Place>,
}

impl Layers {
    pub(super) fn new(defaults: Table) -> Self {
        Self { table: defaults, mistakes: Vec::new(), places: HashMap::new() }
    }

    /// Notes a mistake at the place where the setting was set.
    pub(super) fn mistake(&mut self, key: &str, what: impl Into<String>) {
        let place = self.places.get(key).cloned().unwrap_or(Place::Default);
        self.mistakes.push(Mistake { place, key: key.to_owned(), what: what.into() });
    }

    /// A setting by its whole name.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let (sections, name) = path_of(key);
        sections.iter().try_fold(&self.table, |table, section| table.get(*section)?.as_table())?.get(name)
    }

    /// Lays a file over what is there.
    ///
    /// # Errors
    /// When it is not TOML.
    pub(super) fn add_file(&mut self, file: &Path, text: &str) -> Result<(), SyntaxError> {
        syntax::check(text)?;
        if let Ok(table) = DeTable::parse(text) {
            self.add_table(file, text, "", table.get_ref());
        }
        Ok(())
    }

    fn add_table(&mut self, file: &Path, text: &str, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let (line, column) = syntax::line_and_column(text, name.span().start);
            let place = Place::File { file: file.to_owned(), line, column };
            // A name with a dot in it, in quotes, would be taken for a path.
            let known = if name.get_ref().contains('.') { None } else { self.get(&key) };
            match (known, value.get_ref()) {
                (Some(Value::Table(_)), DeValue::Table(inner)) => self.add_table(file, text, &key, inner),
                (Some(default), value) => {
                    let read = from_file(default, value).ok_or_else(|| must_be(default));
                    self.set(key, place, read);
                }
                (None, _) => {
                    let what = self.unknown(section);
                    self.mistakes.push(Mistake { place, key, what });
                }
            }
        }
    }

    /// Lays the variables of an environment over what is there; those of other names are passed over.
    pub(super) fn add_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            let lowercase = name.to_lowercase();
            let Some(path) = lowercase.strip_prefix(PREFIX) else { continue };
            let key = path.replace("__", ".");
            let place = Place::Variable(name);
            match (self.get(&key), value.to_str()) {
                (Some(Value::Table(_)), _) => self.set(key, place, Err("is a section, not a setting".to_owned())),
                (Some(default), Some(text)) => {
                    let read = from_text(default, text).ok_or_else(|| must_be(default));
                    self.set(key, place, read);
                }
                (Some(_), None) => self.set(key, place, Err("is not UTF-8".to_owned())),
                (None, _) => {
                    let section = key.rsplit_once('.').map_or("", |(section, _)| section);
                    let what = self.unknown(section);
                    self.mistakes.push(Mistake { place, key, what });
                }
            }
        }
    }

    fn set(&mut self, key: String, place: Place, value: Result<Value, String>) {
        let value = match value {
            Ok(value) => value,
            Err(what) => return self.mistakes.push(Mistake { place, key, what }),
        };
        let (sections, name) = path_of(&key);
        let table = sections.iter().try_fold(&mut self.table, |table, section| table.get_mut(*section)?.as_table_mut());
        if let Some(table) = table {
            table.insert(name.to_owned(), value);
        }
        self.places.insert(key, place);
    }

    fn unknown(&self, section: &str) -> String {
        let table = if section.is_empty() { Some(&self.table) } else { self.get(section).and_then(Value::as_table) };
        match table {
            Some(table) => {
                let names: Vec<&str> = table.keys().map(String::as_str).collect();
                format!("is no setting; there are {}", names.join(", "))
            }
            None => "is no setting".to_owned(),
        }
    }
}

fn path_of(key: &str) -> (Vec<&str>, &str) {
    let mut sections: Vec<&str> = key.split('.').collect();
    let name = sections.pop().unwrap_or_default();
    (sections, name)
}

fn must_be(default: &Value) -> String {
    let kind = match default {
        Value::Integer(_) => "a whole number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of texts",
        Value::Table(_) => "a section",
        _ => "a text",
    };
    format!("must be {kind}")
}

fn from_file(default: &Value, value: &DeValue<'_>) -> Option<Value> {
    match (default, value) {
        (Value::String(_), DeValue::String(text)) => Some(Value::String(text.to_string())),
        (Value::Boolean(_), DeValue::Boolean(value)) => Some(Value::Boolean(*value)),
        (Value::Integer(_), DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Integer)
        }
        (Value::Array(_), DeValue::Array(items)) => {
            let texts = items.iter().map(|item| item.get_ref().as_str().map(|text| Value::String(text.to_owned())));
            texts.collect::<Option<Vec<_>>>().map(Value::Array)
        }
        _ => None,
    }
}

fn from_text(default: &Value, text: &str) -> Option<Value> {
    match default {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => None,
    }
}
