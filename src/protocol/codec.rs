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
                // The reader refuses the level that it is told, so it is told the one after the last.
                reader.set_max_depth(NESTING_MAX + 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::{Nonce, Signature};
    use crate::protocol::frame::{Authenticate, Cursor, Hello, Nothing, Resume};
    use crate::protocol::ids::{ChatId, Seq, SessionId, Timestamp};

    fn requests() -> Vec<Request> {
        let cursors = vec![Cursor { chat_id: ChatId::generate(), seq: Seq::saturating(u64::MAX) }];
        vec![
            Request::Ping(Nothing {}),
            Request::Resume(Resume { cursors }),
            Request::Authenticate(Authenticate { session_id: SessionId::generate(), signature: Signature([9; 64]) }),
        ]
    }

    #[test]
    fn both_encodings_give_back_what_they_took() {
        for encoding in Encoding::ALL {
            for request in requests() {
                let frame = ClientFrame { id: RequestId::saturating(7), request };
                assert_eq!(encoding.decode_client(&encoding.encode(&frame).unwrap()).unwrap(), frame);
            }
            let hello = ServerFrame::Hello(Hello {
                nonce: Nonce([1; 32]),
                server_name: "name".to_owned(),
                server_version: "1".to_owned(),
                time: Timestamp::saturating(1),
                login_timeout_s: 1,
                ping_interval_s: 1,
                key_messages_max: 1,
                key_messages_max_large: 1,
                key_recipients_large: 1,
                key_age_max_s: 1,
            });
            assert_eq!(encoding.decode_server(&encoding.encode(&hello).unwrap()).unwrap(), hello);
        }
    }

    #[test]
    fn bad_frames_are_named_and_keep_their_number_where_it_can_be_read() {
        let decode = |text: &str| Encoding::Json.decode_client(text.as_bytes()).unwrap_err();
        let named = |id: Option<u64>, code| DecodeError { id: id.map(RequestId::saturating), code };
        assert_eq!(decode("nonsense"), named(None, ErrorCode::Malformed));
        assert_eq!(decode("{\"id\":1}"), named(Some(1), ErrorCode::Malformed));
        assert_eq!(
            decode("{\"id\":2,\"request\":{\"type\":\"fly\",\"data\":{}}}"),
            named(Some(2), ErrorCode::UnknownFrame)
        );
        assert_eq!(decode("{\"id\":3,\"request\":{\"type\":\"ping\"}}"), named(Some(3), ErrorCode::Malformed));
        assert_eq!(decode(&"[".repeat(100_000)), named(None, ErrorCode::Malformed));
        assert_eq!(decode("{\"id\":9007199254740992,\"request\":{}}"), named(None, ErrorCode::Malformed));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let text = "{\"id\":1,\"more\":[1],\"request\":{\"type\":\"ping\",\"data\":{\"new\":true}}}";
        let frame = Encoding::Json.decode_client(text.as_bytes()).unwrap();
        assert_eq!(frame.request, Request::Ping(Nothing {}));
    }

    #[test]
    fn msgpack_is_total_on_lengths_that_lie_and_on_depth() {
        let lies: [&[u8]; 5] = [
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[],
            &[0xc1],
        ];
        for bytes in lies {
            assert!(Encoding::MessagePack.decode_client(bytes).is_err());
        }
        assert!(Encoding::MessagePack.decode_client(&[0x91; 100_000]).is_err());
        let mut trailing = Encoding::MessagePack
            .encode(&ClientFrame { id: RequestId::saturating(1), request: Request::Ping(Nothing {}) })
            .unwrap()
            .to_vec();
        trailing.push(0xc0);
        assert!(Encoding::MessagePack.decode_client(&trailing).is_err());
    }
}
