//! Frames as trees that both encodings can write, lawful or not.

use serde_json::Value;

/// A value of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Nil,
    Bool(bool),
    Number(u64),
    Text(String),
    /// In MessagePack alone.
    Bytes(Vec<u8>),
    List(Vec<Self>),
    /// Names may come twice.
    Map(Vec<(String, Self)>),
    /// Written as it stands.
    Raw(Vec<u8>),
}

impl Tree {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// What JSON says.
    pub(super) fn of_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Nil,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => Self::Number(number.as_u64().unwrap()),
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::List(items.iter().map(Self::of_json).collect()),
            Value::Object(fields) => {
                Self::Map(fields.iter().map(|(name, value)| (name.clone(), Self::of_json(value))).collect())
            }
        }
    }

    /// What MessagePack says, which must be lawful and all there is.
    pub(super) fn of_packed(mut bytes: &[u8]) -> Self {
        let tree = unpack(&mut bytes);
        assert!(bytes.is_empty());
        tree
    }

    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.extend(b"null"),
            Self::Bool(truth) => out.extend(truth.to_string().bytes()),
            Self::Number(number) => out.extend(number.to_string().bytes()),
            Self::Text(text) => out.extend(Value::String(text.clone()).to_string().bytes()),
            Self::Bytes(_) => panic!("no bytes in JSON"),
            Self::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    out.extend(if index > 0 { b"," } else { &b""[..] });
                    item.write_json(out);
                }
                out.push(b']');
            }
            Self::Map(fields) => {
                out.push(b'{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    out.extend(if index > 0 { b"," } else { &b""[..] });
                    Self::text(name).write_json(out);
                    out.push(b':');
                    value.write_json(out);
                }
                out.push(b'}');
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    pub(super) fn write_packed(&self, out: &mut Vec<u8>) {
        let head = |kind: u8, length: usize, out: &mut Vec<u8>| {
            out.push(kind);
            out.extend(u32::try_from(length).unwrap().to_be_bytes());
        };
        match self {
            Self::Nil => out.push(0xc0),
            Self::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
            Self::Number(number) => {
                out.push(0xcf);
                out.extend(number.to_be_bytes());
            }
            Self::Text(text) => {
                head(0xdb, text.len(), out);
                out.extend(text.bytes());
            }
            Self::Bytes(bytes) => {
                head(0xc6, bytes.len(), out);
                out.extend(bytes);
            }
            Self::List(items) => {
                head(0xdd, items.len(), out);
                items.iter().for_each(|item| item.write_packed(out));
            }
            Self::Map(fields) => {
                head(0xdf, fields.len(), out);
                for (name, value) in fields {
                    Self::text(name).write_packed(out);
                    value.write_packed(out);
                }
            }
            Self::Raw(bytes) => out.extend(bytes),
        }
    }

    /// Whether two values are of the same kind.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// The way to each value below this one, from the top.
    pub(super) fn ways(&self) -> Vec<Vec<usize>> {
        let mut ways = Vec::new();
        for (index, child) in self.children().into_iter().enumerate() {
            ways.push(vec![index]);
            ways.extend(child.ways().into_iter().map(|way| [vec![index], way].concat()));
        }
        ways
    }

    fn children(&self) -> Vec<&Self> {
        match self {
            Self::List(items) => items.iter().collect(),
            Self::Map(fields) => fields.iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        }
    }

    /// The value at the end of a way.
    pub(super) fn at(&mut self, way: &[usize]) -> &mut Self {
        let Some((index, rest)) = way.split_first() else { return self };
        match self {
            Self::List(items) => items[*index].at(rest),
            Self::Map(fields) => fields[*index].1.at(rest),
            other => panic!("no way into {other:?}"),
        }
    }

    /// The names along a way, with dots before them; places in a list are `[]`.
    pub(super) fn name(&self, way: &[usize]) -> String {
        let Some((index, rest)) = way.split_first() else { return String::new() };
        let (name, child) = match self {
            Self::List(items) => ("[]".to_owned(), &items[*index]),
            Self::Map(fields) => (format!(".{}", fields[*index].0), &fields[*index].1),
            other => panic!("no way into {other:?}"),
        };
        name + &child.name(rest)
    }

    /// The fields of a map.
    pub(super) fn fields(&mut self) -> Option<&mut Vec<(String, Self)>> {
        match self {
            Self::Map(fields) => Some(fields),
            _ => None,
        }
    }

    /// The value of a field.
    pub(super) fn field(&mut self, name: &str) -> Option<&mut Self> {
        self.fields()?.iter_mut().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

/// Takes so many bytes.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

/// Takes a number of so many bytes.
fn number(bytes: &mut &[u8], width: usize) -> u64 {
    take(bytes, width).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn unpack(bytes: &mut &[u8]) -> Tree {
    let first = take(bytes, 1)[0];
    let width = |base: u8| 1_usize << (first - base);
    let mut length = |width: usize| usize::try_from(number(bytes, width)).unwrap();
    let (kind, count) = match first {
        0..=0x7f => return Tree::Number(first.into()),
        0x80..=0x8f => (0xdf, usize::from(first & 0xf)),
        0x90..=0x9f => (0xdd, usize::from(first & 0xf)),
        0xa0..=0xbf => (0xdb, usize::from(first & 0x1f)),
        0xc0 => return Tree::Nil,
        0xc2 | 0xc3 => return Tree::Bool(first == 0xc3),
        0xc4..=0xc6 => (0xc6, length(width(0xc4))),
        0xcc..=0xcf => return Tree::Number(number(bytes, width(0xcc))),
        0xd9..=0xdb => (0xdb, length(width(0xd9))),
        0xdc | 0xdd => (0xdd, length(2 * width(0xdc))),
        0xde | 0xdf => (0xdf, length(2 * width(0xde))),
        other => panic!("not written by us: {other:#x}"),
    };
    match kind {
        0xc6 => Tree::Bytes(take(bytes, count).to_vec()),
        0xdb => Tree::Text(String::from_utf8(take(bytes, count).to_vec()).unwrap()),
        0xdd => Tree::List((0..count).map(|_| unpack(bytes)).collect()),
        _ => {
            let field = |_| match unpack(bytes) {
                Tree::Text(name) => (name, unpack(bytes)),
                other => panic!("not a name: {other:?}"),
            };
            Tree::Map((0..count).map(field).collect())
        }
    }
}
