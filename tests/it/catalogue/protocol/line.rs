//! A raw connection to a broker: any bytes out, server frames in.

use sealcast::protocol::account::SOCKET_PATH;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{ClientFrame, Hello, Reply, Request, ServerFrame};
use sealcast::protocol::ids::RequestId;

use super::super::super::support::broker::Broker;
use super::super::super::support::device::Device;
use super::super::super::transport::support::{Client, Read, frame};

/// A raw connection. Pings of the server are not answered.
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) encoding: Encoding,
}

/// The head of a lawful handshake, with these lines that name subprotocols.
pub(super) fn handshake(protocols: &str) -> String {
    format!(
        "GET {SOCKET_PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocols}\r\n"
    )
}

pub(super) fn port(broker: &Broker) -> u16 {
    broker.address().rsplit(':').next().unwrap().parse().unwrap()
}

impl Line {
    /// Opens a connection and reads `hello`.
    pub(super) async fn open(broker: &Broker, encoding: Encoding) -> (Self, Hello) {
        Self::open_at(port(broker), encoding).await
    }

    /// Opens a connection to a port and reads `hello`.
    pub(super) async fn open_at(port: u16, encoding: Encoding) -> (Self, Hello) {
        let request = handshake(&format!("Sec-WebSocket-Protocol: {}\r\n", encoding.subprotocol()));
        let (client, head) = Client::request(port, &request).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut line = Self { client, encoding };
        match line.next().await {
            Ok(ServerFrame::Hello(hello)) => (line, hello),
            other => panic!("no hello: {other:?}"),
        }
    }

    /// Logs in, as the request of number 1.
    pub(super) async fn logged_in(broker: &Broker, encoding: Encoding, device: &Device) -> Self {
        Self::logged_in_at(port(broker), encoding, device).await
    }

    /// Logs in at a port, as the request of number 1.
    pub(super) async fn logged_in_at(port: u16, encoding: Encoding, device: &Device) -> Self {
        let (mut line, hello) = Self::open_at(port, encoding).await;
        let login = line.message(1, device.login(&hello));
        line.client.send(&login).await;
        match line.next().await {
            Ok(ServerFrame::Ok(ok)) if matches!(ok.result, Reply::Authenticated(_)) => line,
            other => panic!("no login: {other:?}"),
        }
    }

    /// The first byte of a whole message of this encoding.
    pub(super) const fn first(&self) -> u8 {
        match self.encoding {
            Encoding::Json => 0x81,
            Encoding::MessagePack => 0x82,
        }
    }

    /// A request as its encoding writes it, without a frame around it.
    pub(super) fn body(&self, id: u64, request: Request) -> Vec<u8> {
        self.encoding.encode(&ClientFrame { id: RequestId::saturating(id), request }).unwrap().to_vec()
    }

    /// A request in one frame.
    pub(super) fn message(&self, id: u64, request: Request) -> Vec<u8> {
        frame(self.first(), &self.body(id, request))
    }

    /// The next frame of the protocol, or what stands in its place: a close frame, an end.
    pub(super) async fn next(&mut self) -> Result<ServerFrame, Read> {
        loop {
            match self.client.read().await {
                Read::Frame(0x81 | 0x82, payload) => return Ok(self.encoding.decode_server(&payload).unwrap()),
                Read::Frame(0x89 | 0x8A, _) => {}
                other => return Err(other),
            }
        }
    }

    /// Reads on until an answer to this request, which must come before any end.
    pub(super) async fn answer(&mut self, id: u64) -> ServerFrame {
        loop {
            let frame = self.next().await.unwrap();
            match &frame {
                ServerFrame::Ok(ok) if ok.id.get() == id => return frame,
                ServerFrame::Error(error) if error.id.is_some_and(|told| told.get() == id) => return frame,
                _ => {}
            }
        }
    }

    /// Reads on until the end; gives the close code, if one came.
    pub(super) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(end) => return end.close_code(),
            }
        }
    }
}
