//! The body of a message: the JSON that is encrypted.

use serde_json::{Map, Value, json};

use crate::protocol::binary::Blob;
use crate::protocol::ids::{MessageId, Seq, UserId};

/// What a message answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub message_id: MessageId,
    /// Its sender.
    pub sender_id: UserId,
}

/// What a message says.
///
/// Text is not printed by `Debug` (P12).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Text.
    Message {
        /// The text.
        text: String,
        /// What it answers to.
        reply: Option<Reply>,
    },
    /// A reaction to a message.
    Reaction {
        /// The message.
        message_id: MessageId,
        /// The reaction.
        emoji: String,
    },
    /// How far somebody has read.
    Receipt {
        /// The newest entry read.
        read_seq: Seq,
    },
    /// How far somebody has read, for their own devices alone.
    SealedReceipt {
        /// Sealed under the user's self key.
        sealed: Blob,
    },
    /// A type of body that this version does not know, or a body that is not of the form.
    Unknown {
        /// The type as its sender wrote it; empty if there was none.
        kind: String,
    },
}

impl Body {
    /// A message of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Message { text: text.into(), reply: None }
    }

    /// The JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let value = match self {
            Self::Message { text, reply } => {
                let mut value = json!({ "type": "message", "text": text, "attachments": [] });
                if let (Some(reply), Some(fields)) = (reply, value.as_object_mut()) {
                    let reply = json!({ "messageId": reply.message_id, "senderId": reply.sender_id });
                    fields.insert("reply".to_owned(), reply);
                }
                value
            }
            Self::Reaction { message_id, emoji } => {
                json!({ "type": "reaction", "messageId": message_id, "emoji": emoji })
            }
            Self::Receipt { read_seq } => json!({ "type": "receipt", "readSeq": read_seq.get() }),
            Self::SealedReceipt { sealed } => json!({ "type": "receipt", "sealed": sealed }),
            Self::Unknown { kind } => json!({ "type": kind }),
        };
        value.to_string().into_bytes()
    }

    /// Reads the JSON; total, since any member may have written it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else {
            return Self::Unknown { kind: String::new() };
        };
        let kind = match fields.get("type") {
            None => "message",
            Some(Value::String(kind)) => kind,
            Some(_) => "",
        };
        Self::from_fields(kind, &fields).unwrap_or_else(|| Self::Unknown { kind: kind.to_owned() })
    }

    fn from_fields(kind: &str, fields: &Map<String, Value>) -> Option<Self> {
        match kind {
            "message" => {
                let reply = fields.get("reply").and_then(|reply| {
                    Some(Reply { message_id: id(reply.get("messageId")?)?, sender_id: id(reply.get("senderId")?)? })
                });
                Some(Self::Message { text: fields.get("text")?.as_str()?.to_owned(), reply })
            }
            "reaction" => Some(Self::Reaction {
                message_id: id(fields.get("messageId")?)?,
                emoji: fields.get("emoji")?.as_str()?.to_owned(),
            }),
            "receipt" if fields.contains_key("sealed") => {
                let sealed = serde_json::from_value(fields.get("sealed")?.clone()).ok()?;
                Some(Self::SealedReceipt { sealed })
            }
            "receipt" => Some(Self::Receipt { read_seq: Seq::new(fields.get("readSeq")?.as_u64()?).ok()? }),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message { .. } => "message",
            Self::Reaction { .. } => "reaction",
            Self::Receipt { .. } => "receipt",
            Self::SealedReceipt { .. } => "receipt for the sender's own devices",
            Self::Unknown { .. } => "unknown body",
        })
    }
}

fn id<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_and_strange_ones_are_unknown() {
        let bodies = [
            Body::text("héllo\n\u{0}"),
            Body::Message {
                text: String::new(),
                reply: Some(Reply { message_id: MessageId::generate(), sender_id: UserId::generate() }),
            },
            Body::Reaction { message_id: MessageId::generate(), emoji: "👍".to_owned() },
            Body::Receipt { read_seq: Seq::saturating(7) },
            Body::SealedReceipt { sealed: Blob::from(vec![7; 36]) },
            Body::Unknown { kind: "poll".to_owned() },
        ];
        for body in bodies {
            assert_eq!(Body::from_bytes(&body.to_bytes()), body);
        }
        assert_eq!(Body::from_bytes(br#"{"text":"old"}"#), Body::text("old"));
        let depth = "[".repeat(100_000);
        for strange in [&b""[..], b"[]", b"{", b"\xff", b"{\"type\":7}", b"{\"type\":\"message\"}", depth.as_bytes()] {
            assert!(matches!(Body::from_bytes(strange), Body::Unknown { .. }));
        }
    }
}
