//! A frame as a tree without types, written in as many ways as both encodings allow.
//!
//! The order of a map's fields, fields that nobody knows, the form of a length or a number, white space: nothing of it
//! may change what a reader makes of a frame.

use serde_json::Value as Json;

use crate::bytes_of::Input;

/// A MessagePack value of the kinds that frames have.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Reads what the encoder wrote; none for a form that it never writes.
    pub(crate) fn read(input: &mut &[u8]) -> Option<Self> {
        let (&first, rest) = input.split_first()?;
        *input = rest;
        Some(match first {
            0x00..=0x7f => Self::Number(u64::from(first)),
            0x80..=0x8f => Self::map(input, usize::from(first & 0x0f))?,
            0x90..=0x9f => Self::list(input, usize::from(first & 0x0f))?,
            0xa0..=0xbf => Self::text(input, usize::from(first & 0x1f))?,
            0xc0 => Self::Nil,
            0xc2 => Self::Bool(false),
            0xc3 => Self::Bool(true),
            0xc4..=0xc6 => {
                let length = length(input, 1 << (first - 0xc4))?;
                Self::Bytes(take(input, length)?.to_vec())
            }
            0xcc..=0xcf => Self::Number(number(input, 1 << (first - 0xcc))?),
            0xd9..=0xdb => {
                let length = length(input, 1 << (first - 0xd9))?;
                Self::text(input, length)?
            }
            0xdc | 0xdd => {
                let length = length(input, 2 << (first - 0xdc))?;
                Self::list(input, length)?
            }
            0xde | 0xdf => {
                let length = length(input, 2 << (first - 0xde))?;
                Self::map(input, length)?
            }
            _ => return None,
        })
    }

    fn text(input: &mut &[u8], length: usize) -> Option<Self> {
        String::from_utf8(take(input, length)?.to_vec()).ok().map(Self::Text)
    }

    fn list(input: &mut &[u8], length: usize) -> Option<Self> {
        (0..length).map(|_| Self::read(input)).collect::<Option<_>>().map(Self::List)
    }

    fn map(input: &mut &[u8], length: usize) -> Option<Self> {
        let field = |input: &mut &[u8]| match Self::read(input)? {
            Self::Text(name) => Some((name, Self::read(input)?)),
            _ => None,
        };
        (0..length).map(|_| field(input)).collect::<Option<_>>().map(Self::Map)
    }

    /// Moves fields about and puts in fields that nobody knows.
    pub(crate) fn scramble(&mut self, choices: &mut Input<'_>) {
        match self {
            Self::List(items) => items.iter_mut().for_each(|item| item.scramble(choices)),
            Self::Map(fields) => {
                fields.iter_mut().for_each(|(_, value)| value.scramble(choices));
                if choices.below(4) == 1 {
                    fields.push(("new".to_owned(), unknown(choices)));
                }
                let count = fields.len().max(1);
                fields.rotate_left(choices.below(256) % count);
                if choices.below(2) == 1 {
                    fields.reverse();
                }
            }
            _ => {}
        }
    }

    /// Writes MessagePack, each length and number in a form of choice.
    pub(crate) fn write(&self, choices: &mut Input<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.push(0xc0),
            Self::Bool(truth) => out.push(0xc2 + u8::from(*truth)),
            Self::Number(number) => write_head(*number, Some((0x00, 0x7f)), &[0xcc, 0xcd, 0xce, 0xcf], choices, out),
            Self::Text(text) => {
                let length = text.len() as u64;
                write_head(length, Some((0xa0, 0x1f)), &[0xd9, 0xda, 0xdb], choices, out);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Bytes(bytes) => {
                write_head(bytes.len() as u64, None, &[0xc4, 0xc5, 0xc6], choices, out);
                out.extend_from_slice(bytes);
            }
            Self::List(items) => {
                write_head(items.len() as u64, Some((0x90, 0x0f)), &[0, 0xdc, 0xdd], choices, out);
                items.iter().for_each(|item| item.write(choices, out));
            }
            Self::Map(fields) => {
                write_head(fields.len() as u64, Some((0x80, 0x0f)), &[0, 0xde, 0xdf], choices, out);
                for (name, value) in fields {
                    Self::Text(name.clone()).write(choices, out);
                    value.write(choices, out);
                }
            }
        }
    }
}

/// A value for a field that nobody knows.
fn unknown(choices: &mut Input<'_>) -> Value {
    match choices.below(7) {
        0 => Value::Nil,
        1 => Value::Bool(true),
        2 => Value::Number(choices.u64()),
        3 => Value::Text("ä\"\\".to_owned()),
        4 => Value::Bytes(choices.slice(16).to_vec()),
        5 => Value::List(vec![Value::Nil, Value::Map(vec![("id".to_owned(), Value::Nil)])]),
        _ => Value::Map(vec![("type".to_owned(), Value::Number(1)), ("data".to_owned(), Value::List(Vec::new()))]),
    }
}

/// Writes a number or length; `forms` are the markers of 1, 2, 4 and 8 bytes, 0 where there is none.
fn write_head(number: u64, short: Option<(u8, u8)>, forms: &[u8], choices: &mut Input<'_>, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    if let Some((marker, most)) = short
        && number <= u64::from(most)
        && choices.below(2) == 0
    {
        return out.push(marker | bytes[7]);
    }
    let fitting: Vec<(u8, usize)> = forms
        .iter()
        .zip([1, 2, 4, 8])
        .filter(|(form, width)| **form != 0 && bytes.iter().take(8 - width).all(|byte| *byte == 0))
        .map(|(form, width)| (*form, width))
        .collect();
    let chosen = choices.below(256) % fitting.len().max(1);
    let Some((form, width)) = fitting.get(chosen) else { return };
    out.push(*form);
    out.extend(bytes.iter().skip(8 - width));
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(taken)
}

fn number(input: &mut &[u8], width: usize) -> Option<u64> {
    Some(take(input, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn length(input: &mut &[u8], width: usize) -> Option<usize> {
    usize::try_from(number(input, width)?).ok()
}

/// Writes JSON with fields moved about, fields that nobody knows, white space and escapes.
pub(crate) fn write_json(value: &Json, choices: &mut Input<'_>, out: &mut String) {
    let space = ["", " ", "\n\t", "\r"];
    out.push_str(space.get(choices.below(4)).copied().unwrap_or_default());
    match value {
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(item, choices, out);
            }
            out.push(']');
        }
        Json::Object(fields) => {
            let mut written = |value| {
                let mut text = String::new();
                write_json(value, choices, &mut text);
                text
            };
            let mut fields: Vec<(&str, String)> =
                fields.iter().map(|(name, value)| (name.as_str(), written(value))).collect();
            if choices.below(4) == 1 {
                fields.push(("new", r#"[{"id":null},1.5e3,"\u0000"]"#.to_owned()));
            }
            let count = fields.len().max(1);
            fields.rotate_left(choices.below(256) % count);
            if choices.below(2) == 1 {
                fields.reverse();
            }
            out.push('{');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(name, choices, out);
                out.push(':');
                out.push_str(value);
            }
            out.push('}');
        }
        Json::String(text) => write_text(text, choices, out),
        other => out.push_str(&other.to_string()),
    }
}

/// Writes a text, now and then every character of it as an escape.
fn write_text(text: &str, choices: &mut Input<'_>, out: &mut String) {
    if choices.below(4) != 1 {
        return out.push_str(&Json::from(text).to_string());
    }
    out.push('"');
    for unit in text.encode_utf16() {
        out.push_str(&format!("\\u{unit:04x}"));
    }
    out.push('"');
}
