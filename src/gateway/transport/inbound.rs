//! Names what a connection tells the session above it.
//!
//! The trait [`Inbound`] and its messages; floor 5, no WebSocket types. The session layer implements the trait, the
//! transport calls it from the connection's own thread.

use bytes::Bytes;

use super::meter::Credit;

/// Whether a message came as text or as binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// One complete message, put together from its fragments.
#[derive(Debug)]
pub struct InboundMessage {
    /// Text or binary.
    pub kind: MessageKind,
    /// The payload, in an allocation of its own: 0 to `message_bytes_max` bytes, UTF-8 where the kind is text.
    pub data: Bytes,
    /// To be held until the message is dealt with: while it lives, it counts against the connection's bounds.
    pub credit: Credit,
}

/// Which rule the other end broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Frame or close rules of RFC 6455; says which.
    Protocol(&'static str),
    /// Text, or the reason of a close, that is not UTF-8.
    Utf8,
    /// A message above `message_bytes_max`, judged from its headers.
    TooLarge,
}

impl Violation {
    /// The close code sent. Source: RFC 6455, section 7.4.1.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::TooLarge => 1009,
        }
    }

    /// A short constant for the close reason and for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Protocol(rule) => rule,
            Self::Utf8 => "invalid utf-8",
            Self::TooLarge => "message too large",
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Closed {
    /// The other end said goodbye; it was answered.
    ByPeer {
        /// Its close code, if it gave one.
        code: Option<u16>,
        /// Its reason, empty if it gave none.
        reason: String,
    },
    /// The other end broke a rule and was sent [`Violation::close_code`].
    Violation(Violation),
    /// This side closed, and everything queued was handed to the socket.
    ByUs {
        /// The close code sent.
        code: u16,
    },
    /// End of file or reset without a close frame, or before our own close was through.
    Lost,
    /// Cut by the kill switch, or aborted.
    Cut,
}

/// The session's side of a connection. It must not block.
///
/// It is called on the connection's own thread and may use the outbox freely from within. A pong or message may be
/// seen late while the session withholds credits: reading stops then, so its own silence is no sign of death.
pub trait Inbound: 'static {
    /// A complete message came in. None comes once the outbox is closed.
    fn message(&self, message: InboundMessage);

    /// A pong came in.
    fn pong(&self);

    /// The connection has ended; told exactly once, and nothing is told after it.
    fn closed(&self, how: Closed);
}
