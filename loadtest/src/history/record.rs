//! Says what happened in a run, one record for each event, and writes and reads it as JSON lines.
//!
//! Lives here: the record and its text form, and the name of a revision in it. Pure: no clock, no client. Invariant: what is written and what is
//! checked in memory are the same records.

use std::io::{BufRead, Write};

use anyhow::Context;
use sealcast::protocol::ids::{ChatId, MessageId, SessionId};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A revision of a message: as text its id alone, or `id/revision` for an edit or deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    /// The message.
    pub(crate) message_id: MessageId,
    /// 0 for the message itself.
    pub(crate) revision: u64,
}

impl Name {
    /// The message itself.
    pub(crate) const fn first(message_id: MessageId) -> Self {
        Self { message_id, revision: 0 }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { message_id, revision } = self;
        if *revision == 0 { write!(f, "{message_id}") } else { write!(f, "{message_id}/{revision}") }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (message_id, revision) = match text.split_once('/') {
            Some((message_id, revision)) => (message_id, revision.parse().map_err(D::Error::custom)?),
            None => (text.as_str(), 0),
        };
        Ok(Self { message_id: message_id.parse().map_err(D::Error::custom)?, revision })
    }
}

/// Something that happened. `t` is seconds on one clock of the machine, `s` a session, `c` a chat, `m` a
/// message, edit or deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Record {
    /// A message goes to the client library, before its first byte is sent.
    Send { t: f64, s: SessionId, c: ChatId, m: Name },
    /// Its acknowledgement.
    Ok { t: f64, s: SessionId, c: ChatId, m: Name, seq: u64 },
    /// A definite refusal.
    Err { t: f64, s: SessionId, c: ChatId, m: Name, code: String },
    /// An entry was given to a session; `m` is absent when it is not a message.
    Recv { t: f64, s: SessionId, c: ChatId, m: Option<Name>, seq: u64, open: bool },
    /// The session is a recipient from after this seq.
    Member { s: SessionId, c: ChatId, seq: u64 },
    /// And no longer after this seq.
    Removed { s: SessionId, c: ChatId, seq: u64 },
    /// After all faults healed, the session has read all there is, up to seq.
    Final { s: SessionId, c: ChatId, seq: u64 },
    /// A removed session tried all that it ever held on that entry.
    Peek { s: SessionId, c: ChatId, seq: u64, open: bool },
    /// What was broken.
    Fault { t: f64, what: String },
}

impl Record {
    /// Writes the record as one line.
    pub(crate) fn write(&self, to: &mut impl Write) -> anyhow::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        to.write_all(b"\n")?;
        Ok(())
    }
}

/// Reads a history; empty lines are passed over.
pub(crate) fn read(from: impl BufRead) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for (index, line) in from.lines().enumerate() {
        let line = line?;
        if !line.trim().is_empty() {
            records.push(serde_json::from_str(&line).with_context(|| format!("line {}", index + 1))?);
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_form_and_come_back() {
        let (s, c, m) = (SessionId::generate(), ChatId::generate(), MessageId::generate());
        let lines = [
            format!(r#"{{"ev":"send","t":1.5,"s":"{s}","c":"{c}","m":"{m}"}}"#),
            format!(r#"{{"ev":"ok","t":1.5,"s":"{s}","c":"{c}","m":"{m}","seq":7}}"#),
            format!(r#"{{"ev":"err","t":1.5,"s":"{s}","c":"{c}","m":"{m}","code":"cannot_write"}}"#),
            format!(r#"{{"ev":"recv","t":1.5,"s":"{s}","c":"{c}","m":"{m}","seq":7,"open":true}}"#),
            format!(r#"{{"ev":"recv","t":1.5,"s":"{s}","c":"{c}","m":null,"seq":8,"open":true}}"#),
            format!(r#"{{"ev":"ok","t":1.5,"s":"{s}","c":"{c}","m":"{m}/3","seq":8}}"#),
            format!(r#"{{"ev":"member","s":"{s}","c":"{c}","seq":1}}"#),
            format!(r#"{{"ev":"removed","s":"{s}","c":"{c}","seq":9}}"#),
            format!(r#"{{"ev":"final","s":"{s}","c":"{c}","seq":9}}"#),
            format!(r#"{{"ev":"peek","s":"{s}","c":"{c}","seq":10,"open":false}}"#),
            r#"{"ev":"fault","t":1.5,"what":"kill broker"}"#.to_owned(),
        ]
        .join("\n");
        let records = read(lines.as_bytes()).unwrap();
        let mut written = Vec::new();
        for record in &records {
            record.write(&mut written).unwrap();
        }
        assert_eq!(String::from_utf8(written).unwrap().trim_end(), lines);
        assert!(read(&b"{\"ev\":\"gone\"}"[..]).is_err());
        let wrong = format!(r#"{{"ev":"ok","t":1.5,"s":"{s}","c":"{c}","m":"{m}/x","seq":8}}"#);
        assert!(read(wrong.as_bytes()).is_err());
    }
}
