//! Opens the WebSocket and moves frames over it (RFC 6455).

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::connector::{Connector, Endpoint, NetworkError, Stream};
use super::wire::Outgoing;
use crate::protocol::account::{HttpError, SOCKET_PATH};
use crate::protocol::codec::Encoding;
use crate::protocol::error::{CloseCode, ErrorCode};
use crate::protocol::frame::ServerFrame;

/// Bytes of one message from the server: a list of the most chats, or a page with its keys, in JSON.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes read at once. Small, for a process may hold hundreds of connections.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// Bytes gathered before they are written without being asked to.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

pub(crate) type Reader = SplitStream<WebSocketStream<Box<dyn Stream>>>;
pub(crate) type Writer = SplitSink<WebSocketStream<Box<dyn Stream>>, Message>;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Without a word: lost, silent, or not of this protocol.
    Lost,
    /// With a close code of this protocol.
    Closed(CloseCode),
    /// By this side.
    ByUs,
}

/// Connects and shakes hands for one encoding.
pub(crate) async fn open(
    connector: &Connector,
    endpoint: &Endpoint,
    encoding: Encoding,
    timeout: Duration,
) -> Result<(Writer, Reader), NetworkError> {
    let stream = connector.connect(endpoint, timeout).await?;
    let uri = format!("ws://{}{}", endpoint.authority(), endpoint.path(SOCKET_PATH));
    let uri: Uri = uri.parse().map_err(|_| NetworkError::Address)?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(encoding.subprotocol());
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let handshake = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
    let (socket, _) =
        tokio::time::timeout(timeout, handshake).await.map_err(|_| NetworkError::Timeout)?.map_err(refused)?;
    Ok(socket.split())
}

/// Tells a version that the server does not speak from whatever else may stand in the way.
fn refused(error: Error) -> NetworkError {
    let code = match &error {
        Error::Http(answer) => answer.body().as_deref().and_then(|body| serde_json::from_slice::<HttpError>(body).ok()),
        _ => None,
    };
    match code.map(|refusal| refusal.code) {
        Some(ErrorCode::UnsupportedVersion) => NetworkError::Version,
        _ => NetworkError::Handshake(Box::new(error)),
    }
}

/// Reads the next frame; pings are answered on the way.
///
/// `silence`: how long nothing may come before the connection counts as lost.
pub(crate) async fn read(reader: &mut Reader, encoding: Encoding, silence: Duration) -> Result<ServerFrame, End> {
    loop {
        let message = match tokio::time::timeout(silence, reader.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "connection lost");
                return Err(End::Lost);
            }
            Ok(None) | Err(_) => return Err(End::Lost),
        };
        let bytes = match message {
            Message::Text(text) if encoding == Encoding::Json => Bytes::from(text),
            Message::Binary(bytes) if encoding == Encoding::MessagePack => bytes,
            Message::Close(frame) => {
                let code = frame.and_then(|frame| CloseCode::from_number(frame.code.into()));
                return Err(code.map_or(End::Lost, End::Closed));
            }
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Text(_) | Message::Binary(_) | Message::Frame(_) => return Err(End::Lost),
        };
        match encoding.decode_server(&bytes) {
            Ok(frame) => return Ok(frame),
            // A frame of a later version of the protocol is none of ours; what it would have said is missing
            // then from no promise of this version.
            Err(error) => tracing::warn!(%error, bytes = bytes.len(), "frame cannot be read"),
        }
    }
}

/// Writes what is to be written until the connection ends; all that waits goes in one flush.
pub(crate) async fn write(mut writer: Writer, mut outgoing: mpsc::Receiver<Outgoing>, encoding: Encoding) -> End {
    while let Some(first) = outgoing.recv().await {
        let mut next = Some(first);
        while let Some(item) = next {
            let Outgoing::Frame(frame) = item else {
                let goodbye = CloseFrame { code: 1000.into(), reason: Utf8Bytes::from_static("normal") };
                let _ = writer.send(Message::Close(Some(goodbye))).await;
                return End::ByUs;
            };
            let Ok(bytes) = encoding.encode(&frame) else { return End::Lost };
            let message = match encoding {
                Encoding::MessagePack => Message::Binary(bytes),
                Encoding::Json => match Utf8Bytes::try_from(bytes) {
                    Ok(text) => Message::Text(text),
                    Err(_) => return End::Lost,
                },
            };
            if writer.feed(message).await.is_err() {
                return End::Lost;
            }
            next = outgoing.try_recv().ok();
        }
        if writer.flush().await.is_err() {
            return End::Lost;
        }
    }
    End::Lost
}
