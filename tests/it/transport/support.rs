//! A server that records what its connections tell, and a client that speaks raw frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, web};
use sealcast::broker::outbox::OutboxLimits;
use sealcast::broker::outbox_budget::OutboxBudget;
use sealcast::broker::ready_frame::ReadyFrame;
use sealcast::gateway::reaper::{Reaper, ReaperLimits};
use sealcast::gateway::transport::{
    Closed, Connection, Inbound, InboundMessage, ListenerOptions, MessageKind, OriginPolicy, TransportLimits,
    UpgradeOptions, serve, upgrade,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Every wait in these tests ends here, as a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("deadline passed")
}

/// What one connection was told.
#[derive(Debug)]
pub(crate) enum Event {
    Message(InboundMessage),
    Pong,
    Closed(Closed),
}

struct Recorder {
    connection: Connection,
    events: UnboundedSender<Event>,
    echoes: Arc<AtomicBool>,
}

impl Inbound for Recorder {
    fn message(&self, message: InboundMessage) {
        if self.echoes.load(Ordering::SeqCst) {
            let frame = match message.kind {
                MessageKind::Text => ReadyFrame::text(&message.data),
                MessageKind::Binary => ReadyFrame::binary(&message.data),
            };
            let _ = self.connection.outbox.push_reply(&frame);
            return;
        }
        let _ = self.events.send(Event::Message(message));
    }

    fn pong(&self) {
        if !self.echoes.load(Ordering::SeqCst) {
            let _ = self.events.send(Event::Pong);
        }
    }

    fn closed(&self, how: Closed) {
        let _ = self.events.send(Event::Closed(how));
    }
}

/// The server's end of one connection. The recorder is gone once `events` runs dry.
pub(crate) struct Served {
    pub(crate) connection: Connection,
    pub(crate) events: UnboundedReceiver<Event>,
}

impl Served {
    pub(crate) async fn message(&mut self) -> InboundMessage {
        match within(self.events.recv()).await {
            Some(Event::Message(message)) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// The end, told as the last event and never again.
    pub(crate) async fn closed(&mut self) -> Closed {
        loop {
            match within(self.events.recv()).await {
                Some(Event::Closed(how)) => {
                    let after = within(self.events.recv()).await;
                    assert!(after.is_none(), "told after the end: {after:?}");
                    return how;
                }
                Some(_) => {}
                None => panic!("the end was never told"),
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) limits: TransportLimits,
    pub(crate) outbox: OutboxLimits,
    pub(crate) subprotocols: &'static [&'static str],
    pub(crate) origins: Option<Vec<String>>,
    pub(crate) reaper: ReaperLimits,
    pub(crate) echoes: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: TransportLimits::default(),
            outbox: OutboxLimits { frames_max: 256, bytes_max: 64 * 1024, reserve_bytes: 16 * 1024 },
            subprotocols: &[],
            origins: None,
            reaper: ReaperLimits::default(),
            echoes: false,
        }
    }
}

pub(crate) struct TestServer {
    pub(crate) port: u16,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) echoes: Arc<AtomicBool>,
    served: UnboundedReceiver<Served>,
    handle: ServerHandle,
}

impl TestServer {
    pub(crate) fn start(setup: Setup) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Small buffers in the kernel, so that what is counted is what the server takes.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.set_send_buffer_size(64 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap().into_std().unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, served) = unbounded_channel();
        let reaper = Reaper::new(setup.reaper);
        let echoes = Arc::new(AtomicBool::new(setup.echoes));
        let data = web::Data::new((setup, sender, Arc::clone(&reaper), Arc::clone(&echoes)));
        let options =
            ListenerOptions { workers: 1, connections_max: 25_000, head_timeout: Duration::from_secs(5), tls: None };
        let app = move || App::new().app_data(data.clone()).route("/", web::route().to(accept));
        let server = serve(listener, options, |_, _| {}, app).unwrap();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { port, reaper, echoes, served, handle }
    }

    /// Opens a connection; both ends.
    pub(crate) async fn open(&mut self) -> (Client, Served) {
        let client = Client::upgrade(self.port, "").await;
        let served = self.accepted().await;
        (client, served)
    }

    pub(crate) async fn accepted(&mut self) -> Served {
        within(self.served.recv()).await.expect("server gone")
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}

type Shared = (Setup, UnboundedSender<Served>, Arc<Reaper>, Arc<AtomicBool>);

async fn accept(
    req: HttpRequest,
    payload: web::Payload,
    shared: web::Data<Shared>,
) -> Result<actix_web::HttpResponse, sealcast::gateway::transport::HandshakeError> {
    let (setup, sender, reaper, echoes) = shared.get_ref();
    let options = UpgradeOptions {
        subprotocols: setup.subprotocols,
        origins: setup.origins.as_deref().map_or(OriginPolicy::Any, OriginPolicy::Listed),
        limits: setup.limits,
        outbox: setup.outbox,
        budget: &OutboxBudget::new(usize::MAX),
    };
    upgrade(&req, payload, &options, |connection| {
        reaper.watch(&connection.outbox, &connection.kill);
        let (events, receiver) = unbounded_channel();
        let _ = sender.send(Served { connection: connection.clone(), events: receiver });
        Box::new(Recorder { connection, events, echoes: Arc::clone(echoes) })
    })
}

/// A masked client frame; `length` overrides what the header declares.
pub(crate) fn frame_declaring(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match length {
        0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        126..=65_535 => {
            frame.push(0xFE);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            frame.push(0xFF);
            frame.extend_from_slice(&length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A masked client frame; `first` is the first byte, as 0x81 for a whole text.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_declaring(first, payload.len() as u64, payload)
}

/// What the client reads next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Frame(u8, Vec<u8>),
    Eof,
    Reset,
}

impl Read {
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::Frame(0x88, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    pub(crate) fn close_code(&self) -> Option<u16> {
        match self {
            Self::Frame(0x88, payload) => Some(u16::from_be_bytes(*payload.first_chunk()?)),
            _ => None,
        }
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.set_send_buffer_size(64 * 1024).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects and sends a lawful handshake with more headers; gives the client and the head of the answer.
    pub(crate) async fn handshake(port: u16, headers: &str) -> (Self, String) {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        Self::request(port, &request).await
    }

    pub(crate) async fn request(port: u16, request: &str) -> (Self, String) {
        let mut client = Self::connect(port).await;
        client.send(request.as_bytes()).await;
        let head = client.head().await;
        (client, head)
    }

    /// Reads the head of an answer.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within(self.stream.read_u8()).await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) async fn upgrade(port: u16, headers: &str) -> Self {
        let (client, head) = Self::handshake(port, headers).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Writes the same bytes again and again until nothing is taken for a while, or `bytes_max` is reached.
    ///
    /// Gives the count of bytes taken. The pause judges "no more" and is no wait for a fact.
    pub(crate) async fn flood(&mut self, pattern: &[u8], bytes_max: usize) -> usize {
        let block = pattern.repeat((64 * 1024 / pattern.len()).max(1));
        let mut taken = 0;
        let mut at = 0;
        while taken < bytes_max {
            match tokio::time::timeout(Duration::from_millis(500), self.stream.write(&block[at..])).await {
                Ok(Ok(count)) => {
                    taken += count;
                    at = (at + count) % block.len();
                }
                Ok(Err(_)) | Err(_) => break,
            }
        }
        taken
    }

    pub(crate) async fn read(&mut self) -> Read {
        within(self.read_frame()).await.unwrap_or_else(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Read::Eof,
            std::io::ErrorKind::ConnectionReset => Read::Reset,
            _ => panic!("{error}"),
        })
    }

    async fn read_frame(&mut self) -> std::io::Result<Read> {
        let first = self.stream.read_u8().await?;
        let length = match self.stream.read_u8().await? {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short @ 0..=125 => u64::from(short),
            _ => panic!("a server frame is masked"),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok(Read::Frame(first, payload))
    }
}
