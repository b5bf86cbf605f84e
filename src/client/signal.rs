//! What a signal says: the JSON that is encrypted.

use serde_json::Value;

/// Bytes of every body, filled up with spaces: the size does not tell which signal it is.
const BODY_BYTES: usize = 64;

/// What a session tells those who are connected now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// Its user is writing.
    Typing,
    /// Its user is writing no longer.
    StoppedTyping,
    /// Its user is looking at the chat.
    Here,
    /// Its user is not looking any more.
    Away,
}

impl Signal {
    const ALL: [Self; 4] = [Self::Typing, Self::StoppedTyping, Self::Here, Self::Away];

    /// The word in the JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Typing => "typing",
            Self::StoppedTyping => "stopped_typing",
            Self::Here => "here",
            Self::Away => "away",
        }
    }

    /// The JSON, always of the same length.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let body = format!("{{\"type\":\"{}\"}}", self.as_str());
        format!("{body:<BODY_BYTES$}").into_bytes()
    }

    /// Reads the JSON; none for a type of a later version, and for what is not of the form.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(bytes).ok()?;
        let kind = body.get("type")?.as_str()?;
        Self::ALL.into_iter().find(|signal| signal.as_str() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_and_are_all_of_one_size() {
        for signal in Signal::ALL {
            assert_eq!(Signal::from_bytes(&signal.to_bytes()), Some(signal));
            assert_eq!(signal.to_bytes().len(), BODY_BYTES);
        }
        assert_eq!(Signal::from_bytes(br#"{"type":"typing","later":1}"#), Some(Signal::Typing));
        for strange in [&b""[..], b"{}", b"[]", b"\xff", br#"{"type":"waving"}"#, br#"{"type":7}"#] {
            assert_eq!(Signal::from_bytes(strange), None);
        }
    }
}
