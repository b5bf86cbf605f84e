//! The settings file: any text gives settings that are within their ranges, or an error that says where.

use std::io::Write;

use sealcast::config::{ConfigError, Settings};

/// A password that inputs carry in `database.url`; it must not come out again.
const CANARY: &str = "hunter2canary";

/// Checks any bytes as a settings file.
pub fn check(data: &[u8]) {
    match load(data) {
        Ok(settings) => {
            if has_password(data) {
                assert!(!format!("{settings:?}").contains(CANARY), "the database's address is not printed");
            }
            is_the_same_again(&settings);
        }
        Err(error) => {
            let told = format!("{error} {error:?}");
            assert!(says_where(&error), "no place: {told}");
            if has_password(data) {
                assert!(!told.contains(CANARY), "the database's address is not printed: {told}");
            }
        }
    }
}

/// An error names a line, or a key; or the file, where that is what cannot be read.
fn says_where(error: &ConfigError) -> bool {
    match error {
        ConfigError::File { file, .. } => file.is_absolute(),
        ConfigError::Syntax { source, .. } => source.line > 0 && source.column > 0,
        ConfigError::Mistakes(mistakes) => {
            !mistakes.is_empty() && mistakes.iter().all(|mistake| error.to_string().contains(&mistake.to_string()))
        }
        _ => false,
    }
}

/// Whether the canary stands where passwords are and nowhere else: another key's value may be told.
fn has_password(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines().filter(|line| line.contains(CANARY));
    text.contains("[database]\nurl")
        && lines.next().is_some_and(|line| line.starts_with("url = \""))
        && lines.next().is_none()
}

/// Settings that were read, written out as a file, are read as the same.
fn is_the_same_again(settings: &Settings) {
    let serde_json::Value::Object(mut sections) = serde_json::to_value(settings).expect("settings can be written")
    else {
        panic!("settings are a map");
    };
    // The one value that is not written out.
    if let Some(url) = sections.get_mut("database").and_then(|database| database.get_mut("url")) {
        *url = settings.database.url.expose().into();
    }
    let mut text = String::new();
    let mut tables = Vec::new();
    for (name, value) in &sections {
        match value {
            serde_json::Value::Object(_) => write_table(name, value, &mut tables),
            plain => text.push_str(&format!("{name} = {}\n", toml_value(plain))),
        }
    }
    text.push_str(&tables.concat());
    let again = load(text.as_bytes());
    assert!(again.as_ref().is_ok_and(|again| again == settings), "{again:?}\n{text}");
}

fn write_table(name: &str, value: &serde_json::Value, out: &mut Vec<String>) {
    let mut text = format!("[{name}]\n");
    let mut below = Vec::new();
    for (field, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Object(_) => write_table(&format!("{name}.{field}"), value, &mut below),
            plain => text.push_str(&format!("{field} = {}\n", toml_value(plain))),
        }
    }
    out.push(text);
    out.append(&mut below);
}

/// JSON's plain values are TOML's, but for the one control character that JSON need not escape.
fn toml_value(value: &serde_json::Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

fn load(text: &[u8]) -> Result<Settings, ConfigError> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text).expect("a temporary file is written");
    Settings::load(Some(file.path()))
}
