//! Turns frames into bytes and back, in both encodings; total on any input.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::ErrorCode;
use super::frame::{ClientFrame, Request, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, ServerFrame};
use super::ids::RequestId;
use super::limits::NESTING_MAX;

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON (RFC 8259) in text messages.
    Json,
    /// MessagePack with field names, in binary messages.
    MessagePack,
}

impl Encoding {
    /// Both, in the order in which a server prefers them.
    pub const ALL: [Self; 2] = [Self::MessagePack, Self::Json];

    /// The WebSocket subprotocol of this encoding.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => SUBPROTOCOL_JSON,
            Self::MessagePack => SUBPROTOCOL_MSGPACK,
        }
    }

    /// The encoding of a subprotocol.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`EncodeError`] cannot happen for the frames of this crate: it would be a fault of their types.
    pub fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, EncodeError> {
        match self {
            Self::Json => Ok(Bytes::from(serde_json::to_vec(value)?)),
            Self::MessagePack => Ok(Bytes::from(rmp_serde::to_vec_named(value)?)),
        }
    }

    /// Reads a client's frame.
    ///
    /// # Errors
    /// [`DecodeError`] with the request's number where it could be read.
    pub fn decode_client(self, bytes: &[u8]) -> Result<ClientFrame, DecodeError> {
        self.decode::<ClientFrame>(bytes).map_err(|()| self.explain(bytes))
    }

    /// Reads a server's frame.
    ///
    /// # Errors
    /// [`DecodeError`]: another version, or not a server of this protocol.
    pub fn decode_server(self, bytes: &[u8]) -> Result<ServerFrame, DecodeError> {
        self.decode(bytes).map_err(|()| DecodeError { id: None, code: ErrorCode::Malformed })
    }

    fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, ()> {
        match self {
            // serde_json follows nesting to 128 levels and then refuses.
            Self::Json => serde_json::from_slice(bytes).map_err(|_| ()),
            Self::MessagePack => {
                // Over a reader, not over a slice: only then `get_ref` is what is left.
                let mut reader = rmp_serde::Deserializer::new(bytes);
                reader.set_max_depth(NESTING_MAX);
                let value = T::deserialize(&mut reader).map_err(|_| ())?;
                if reader.get_ref().is_empty() { Ok(value) } else { Err(()) }
            }
        }
    }

    /// Finds out what is wrong with a frame that could not be read: a second look, for bad frames only.
    fn explain(self, bytes: &[u8]) -> DecodeError {
        #[derive(Deserialize)]
        struct Outline {
            id: Option<RequestId>,
            request: Option<Type>,
        }
        #[derive(Deserialize)]
        struct Type {
            r#type: Option<String>,
        }
        let Ok(outline) = self.decode::<Outline>(bytes) else {
            return DecodeError { id: None, code: ErrorCode::Malformed };
        };
        let name = outline.request.and_then(|request| request.r#type);
        let is_known = name.is_none_or(|name| Request::NAMES.contains(&name.as_str()));
        let code = if is_known { ErrorCode::Malformed } else { ErrorCode::UnknownFrame };
        DecodeError { id: outline.id, code }
    }
}

/// A value could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// As JSON.
    #[error("not writable as JSON")]
    Json(#[from] serde_json::Error),
    /// As MessagePack.
    #[error("not writable as MessagePack")]
    MessagePack(#[from] rmp_serde::encode::Error),
}

/// A frame could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct DecodeError {
    /// The request's number, where it could be read.
    pub id: Option<RequestId>,
    /// `malformed` or `unknown_frame`.
    pub code: ErrorCode,
}
