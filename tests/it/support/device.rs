//! A device that speaks the bare protocol: it signs for real, and may say anything.

use std::collections::VecDeque;

use ed25519_dalek::Signer;
use futures_util::{SinkExt, StreamExt};
use sealcast::protocol::account::{Register, SOCKET_PATH};
use sealcast::protocol::binary::{ExchangeKey, IdentityKey, Signature, SigningKey};
use sealcast::protocol::certificate::{Certificate, SignedCertificate, chain_start};
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{
    self, Authenticate, ClientFrame, Hello, Reply, Request, Resume, ServerFrame, login_bytes,
};
use sealcast::protocol::ids::{Place, RequestId, SessionId, Timestamp, UserId};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::broker::Broker;
use super::within;

const DAY_S: u64 = 86_400;

/// A signing key of our own.
pub fn secret_key() -> ed25519_dalek::SigningKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    ed25519_dalek::SigningKey::from_bytes(&seed)
}

/// Signs bytes.
pub fn sign(key: &ed25519_dalek::SigningKey, bytes: &[u8]) -> Signature {
    Signature(key.sign(bytes).to_bytes())
}

/// A fresh X25519 key: private and public half.
pub fn exchange_key() -> ([u8; 32], ExchangeKey) {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    (seed, ExchangeKey(x25519_dalek::x25519(seed, x25519_dalek::X25519_BASEPOINT_BYTES)))
}

/// Now, by this machine's clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::new(since.as_micros() as u64).unwrap()
}

/// A user's session with all its secrets.
#[derive(Clone)]
pub struct Device {
    pub user_id: UserId,
    pub username: String,
    pub session_id: SessionId,
    pub identity: ed25519_dalek::SigningKey,
    pub signing: ed25519_dalek::SigningKey,
    /// The private half of the X25519 key.
    pub exchange: [u8; 32],
    pub certificate: SignedCertificate,
}

impl Device {
    /// Keys for a new account; nothing is sent.
    pub fn unregistered(username: &str, lifetime_s: u64) -> Self {
        Self::with_lifetime_micros(username, lifetime_s * 1_000_000)
    }

    pub fn with_lifetime_micros(username: &str, lifetime_micros: u64) -> Self {
        let (user_id, identity) = (UserId::generate(), secret_key());
        Self::certified(user_id, username, identity, Place::saturating(1), chain_start(user_id), lifetime_micros)
    }

    /// A session with a certificate at a place of its user's chain.
    pub fn certified(
        user_id: UserId,
        username: &str,
        identity: ed25519_dalek::SigningKey,
        place: Place,
        previous: sealcast::protocol::binary::Hash,
        lifetime_micros: u64,
    ) -> Self {
        let (session_id, signing) = (SessionId::generate(), secret_key());
        let (exchange, public_key) = exchange_key();
        let certificate = Certificate {
            user_id,
            place,
            previous,
            session_id,
            public_key,
            signing_public_key: SigningKey(signing.verifying_key().to_bytes()),
            created_at: now(),
            expired_at: now().plus_micros(lifetime_micros),
        };
        let signature = sign(&identity, &certificate.signed_bytes());
        let certificate = SignedCertificate { certificate, signature };
        Self { user_id, username: username.to_owned(), session_id, identity, signing, exchange, certificate }
    }

    pub fn registration(&self) -> Register {
        Register {
            user_id: self.user_id,
            username: self.username.clone(),
            identity_key: self.identity_key(),
            certificate: self.certificate.clone(),
            strongbox: None,
            invitation: None,
        }
    }

    pub fn identity_key(&self) -> IdentityKey {
        IdentityKey(self.identity.verifying_key().to_bytes())
    }

    /// Makes an account.
    pub async fn register(broker: &Broker, username: &str) -> Self {
        Self::register_for(broker, username, 30 * DAY_S * 1_000_000).await
    }

    /// Makes an account whose session lives so long.
    pub async fn register_for(broker: &Broker, username: &str, lifetime_micros: u64) -> Self {
        let device = Self::with_lifetime_micros(username, lifetime_micros);
        let body = serde_json::to_string(&device.registration()).unwrap();
        let (status, answer) = broker.request("POST", "/v1/accounts", &body).await;
        assert_eq!(status, 200, "{answer}");
        device
    }

    /// Logs in, JSON.
    pub async fn connect(&self, broker: &Broker) -> Socket {
        self.connect_with(broker, Encoding::Json).await
    }

    pub async fn connect_with(&self, broker: &Broker, encoding: Encoding) -> Socket {
        self.connect_at(broker.address(), encoding).await
    }

    /// Logs in at an address, which need not be the broker's own.
    pub async fn connect_at(&self, address: &str, encoding: Encoding) -> Socket {
        let mut socket = Socket::open_at(address, encoding).await;
        let reply = socket.request(self.login(&socket.hello)).await.unwrap();
        assert!(matches!(reply, Reply::Authenticated(_)));
        socket
    }

    /// Logs in and catches up from nothing known.
    pub async fn connect_live(&self, broker: &Broker) -> Socket {
        let mut socket = self.connect(broker).await;
        socket.request(Request::Resume(Resume { cursors: Vec::new() })).await.unwrap();
        socket
    }

    pub fn login(&self, hello: &Hello) -> Request {
        let bytes = login_bytes(&hello.nonce, &hello.server_name, self.session_id);
        Request::Authenticate(Authenticate { session_id: self.session_id, signature: sign(&self.signing, &bytes) })
    }
}

/// One connection, with what the server pushed meanwhile.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    encoding: Encoding,
    pub hello: Hello,
    next_id: u64,
    pub pushes: VecDeque<ServerFrame>,
    /// The close code, once the server has closed.
    pub closed: Option<u16>,
}

impl Socket {
    /// Opens a connection and reads `hello`.
    pub async fn open(broker: &Broker, encoding: Encoding) -> Self {
        Self::open_at(broker.address(), encoding).await
    }

    /// The same to `host:port`, which may be a path to a broker.
    pub async fn open_at(address: &str, encoding: Encoding) -> Self {
        let stream = Self::handshake(address, encoding.subprotocol()).await.unwrap();
        Self::on(stream, encoding).await
    }

    /// Reads `hello` from a connection that is open.
    pub async fn on(stream: WebSocketStream<MaybeTlsStream<TcpStream>>, encoding: Encoding) -> Self {
        let hello = Hello {
            nonce: sealcast::protocol::binary::Nonce([0; 32]),
            server_name: String::new(),
            server_version: String::new(),
            time: Timestamp::default(),
            login_timeout_s: 0,
            ping_interval_s: 0,
            key_messages_max: 0,
            key_messages_max_large: 0,
            key_recipients_large: 0,
            key_age_max_s: 0,
        };
        let mut socket = Self { stream, encoding, hello, next_id: 1, pushes: VecDeque::new(), closed: None };
        let Some(ServerFrame::Hello(hello)) = socket.frame().await else { panic!("no hello") };
        socket.hello = hello;
        socket
    }

    pub async fn handshake(
        address: &str,
        subprotocol: &str,
    ) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, tokio_tungstenite::tungstenite::Error> {
        let mut request = format!("ws://{address}{SOCKET_PATH}").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        within("a handshake", tokio_tungstenite::connect_async(request)).await.map(|(stream, _)| stream)
    }

    /// Sends anything.
    pub async fn send_raw(&mut self, message: Message) {
        let _ = within("room to send", self.stream.send(message)).await;
    }

    /// Sends a request without waiting; gives its number.
    pub async fn send(&mut self, request: Request) -> RequestId {
        let id = RequestId::saturating(self.next_id);
        self.next_id += 1;
        let bytes = self.encoding.encode(&ClientFrame { id, request }).unwrap();
        let message = match self.encoding {
            Encoding::Json => Message::text(String::from_utf8(bytes.to_vec()).unwrap()),
            Encoding::MessagePack => Message::binary(bytes),
        };
        self.send_raw(message).await;
        id
    }

    /// Asks, and waits for the answer.
    pub async fn request(&mut self, request: Request) -> Result<Reply, frame::Error> {
        let id = self.send(request).await;
        self.answer(id).await
    }

    /// Waits for the answer to a request.
    pub async fn answer(&mut self, id: RequestId) -> Result<Reply, frame::Error> {
        if let Some(index) = self.pushes.iter().position(|push| is_answer(push, id)) {
            return as_answer(self.pushes.remove(index).unwrap());
        }
        loop {
            let frame = self.frame().await.unwrap_or_else(|| panic!("closed with {:?} before the answer", self.closed));
            if is_answer(&frame, id) {
                return as_answer(frame);
            }
            self.pushes.push_back(frame);
        }
    }

    /// The next push, or nothing once the server has closed.
    pub async fn push(&mut self) -> Option<ServerFrame> {
        match self.pushes.pop_front() {
            Some(push) => Some(push),
            None => self.frame().await,
        }
    }

    /// Drops pushes until one fits.
    pub async fn push_that<T>(&mut self, mut fits: impl FnMut(&ServerFrame) -> Option<T>) -> T {
        loop {
            let push = self.push().await.unwrap_or_else(|| panic!("closed with {:?}", self.closed));
            if let Some(value) = fits(&push) {
                return value;
            }
        }
    }

    /// Pushes that have come so far, after a round trip.
    pub async fn pushes_so_far(&mut self) -> Vec<ServerFrame> {
        self.request(Request::Ping(frame::Nothing {})).await.unwrap();
        self.pushes.drain(..).collect()
    }

    /// Reads until the server has closed; gives its close code.
    pub async fn close_code(&mut self) -> Option<u16> {
        while let Some(frame) = self.frame().await {
            self.pushes.push_back(frame);
        }
        self.closed
    }

    async fn frame(&mut self) -> Option<ServerFrame> {
        within("a frame", self.frame_at_last()).await
    }

    async fn frame_at_last(&mut self) -> Option<ServerFrame> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Some(self.encoding.decode_server(text.as_bytes()).unwrap()),
                Some(Ok(Message::Binary(bytes))) => return Some(self.encoding.decode_server(&bytes).unwrap()),
                Some(Ok(Message::Close(close))) => self.closed = close.map(|close| close.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

fn is_answer(frame: &ServerFrame, id: RequestId) -> bool {
    match frame {
        ServerFrame::Ok(ok) => ok.id == id,
        ServerFrame::Error(error) => error.id == Some(id),
        _ => false,
    }
}

fn as_answer(frame: ServerFrame) -> Result<Reply, frame::Error> {
    match frame {
        ServerFrame::Ok(ok) => Ok(ok.result),
        ServerFrame::Error(error) => Err(error),
        other => panic!("not an answer: {other:?}"),
    }
}
