//! A user with one session that speaks the bare protocol, with real keys.

use std::collections::{HashSet, VecDeque};

use anyhow::{Context, anyhow, bail};
use sealcast::crypto::{IdentitySecret, SessionSecrets};
use sealcast::protocol::account::Register;
use sealcast::protocol::certificate::{Certificate, SignedCertificate, chain_start};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    Authenticate, ClientFrame, Cursor, Hello, Reply, Request, Resume, ServerFrame, login_bytes,
};
use sealcast::protocol::ids::{Place, RequestId, SessionId, Timestamp, UserId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::{ANSWER_TIMEOUT, Connection, ENCODING, Frame, push_frame, push_pong};
use super::remote::Refused;

/// How long sessions of a run live.
const SESSION_LIFE_MICROS: u64 = 24 * 3_600 * 1_000_000;

/// One user's one session.
pub(crate) struct Member {
    pub(crate) user_id: UserId,
    pub(crate) session_id: SessionId,
    pub(crate) identity: IdentitySecret,
    pub(crate) secrets: SessionSecrets,
}

impl Member {
    /// Makes an account with a first session.
    pub(crate) async fn register(address: &str, username: String) -> anyhow::Result<Self> {
        let (user_id, session_id) = (UserId::generate(), SessionId::generate());
        let (identity, secrets) = (IdentitySecret::generate(), SessionSecrets::generate());
        let created_at = now();
        let certificate = Certificate {
            user_id,
            place: Place::saturating(1),
            previous: chain_start(user_id),
            session_id,
            public_key: secrets.public_key(),
            signing_public_key: secrets.signing_public_key(),
            created_at,
            expired_at: created_at.plus_micros(SESSION_LIFE_MICROS),
        };
        let signature = identity.sign(&certificate.signed_bytes());
        let register = Register {
            user_id,
            username,
            identity_key: identity.public_key(),
            certificate: SignedCertificate { certificate, signature },
            strongbox: None,
            invitation: None,
        };
        post(address, "/v1/accounts", &serde_json::to_string(&register)?).await.context("registering")?;
        Ok(Self { user_id, session_id, identity, secrets })
    }

    /// Connects and logs in.
    pub(crate) async fn connect(&self, address: &str) -> anyhow::Result<Asker> {
        let mut asker = Asker::open(address).await?;
        let hello = asker.hello().await?;
        let signature = self.secrets.sign(&login_bytes(&hello.nonce, &hello.server_name, self.session_id));
        asker.ask(Request::Authenticate(Authenticate { session_id: self.session_id, signature })).await?;
        Ok(asker)
    }

    /// The same, and waits until everything that comes is new.
    pub(crate) async fn connect_live(&self, address: &str) -> anyhow::Result<Connection> {
        self.connect_live_at(address, Vec::new()).await
    }

    /// The same, from these places on.
    pub(crate) async fn connect_live_at(&self, address: &str, cursors: Vec<Cursor>) -> anyhow::Result<Connection> {
        let mut asker = self.connect(address).await?;
        asker.ask(Request::Resume(Resume { cursors })).await?;
        while !matches!(asker.push().await?, ServerFrame::Live(_)) {}
        if !asker.frames.is_empty() {
            bail!("frames after `live` before anybody has sent");
        }
        Ok(asker.connection)
    }
}

/// Now, by this machine's clock.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(u64::try_from(since.as_micros()).unwrap_or_default()).unwrap_or_default()
}

/// Posts JSON; anything but 200 is an error.
async fn post(address: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(ANSWER_TIMEOUT, stream.read_to_string(&mut answer)).await??;
    if answer.starts_with("HTTP/1.1 429") {
        return Err(Refused { what: path.to_owned(), code: ErrorCode::RateLimited, message: answer }.into());
    }
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("{answer}");
    }
    Ok(())
}

/// A connection on which one asks and waits.
pub(crate) struct Asker {
    connection: Connection,
    frames: VecDeque<ServerFrame>,
    scratch: Vec<u8>,
    next_id: u64,
}

impl Asker {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let connection = Connection::open(address).await?;
        Ok(Self { connection, frames: VecDeque::new(), scratch: Vec::new(), next_id: 1 })
    }

    async fn hello(&mut self) -> anyhow::Result<Hello> {
        match self.push().await? {
            ServerFrame::Hello(hello) => Ok(hello),
            other => bail!("instead of a greeting: {other:?}"),
        }
    }

    /// Asks, and waits for the answer; a refusal is an error.
    pub(crate) async fn ask(&mut self, request: Request) -> anyhow::Result<Reply> {
        let id = RequestId::saturating(self.next_id);
        self.next_id += 1;
        let name = request.name();
        let mut out = Vec::new();
        push_frame(&mut out, &ENCODING.encode(&ClientFrame { id, request })?);
        self.connection.stream.write_all(&out).await?;
        let is_answer = |frame: &ServerFrame| match frame {
            ServerFrame::Ok(ok) => ok.id == id,
            ServerFrame::Error(error) => error.id == Some(id) || error.id.is_none(),
            _ => false,
        };
        loop {
            if let Some(at) = self.frames.iter().position(is_answer) {
                return match self.frames.remove(at) {
                    Some(ServerFrame::Ok(ok)) => Ok(ok.result),
                    Some(ServerFrame::Error(error)) => {
                        Err(Refused { what: name.to_owned(), code: error.code, message: error.message }.into())
                    }
                    other => Err(anyhow!("{name} is answered by {other:?}")),
                };
            }
            self.more().await?;
        }
    }

    /// Asks all of it, and waits for the answers; refusals are answers too.
    pub(crate) async fn ask_all(&mut self, requests: impl Iterator<Item = Request>) -> anyhow::Result<()> {
        let (mut out, mut open) = (Vec::new(), HashSet::new());
        for request in requests {
            let id = RequestId::saturating(self.next_id);
            self.next_id += 1;
            open.insert(id);
            push_frame(&mut out, &ENCODING.encode(&ClientFrame { id, request })?);
        }
        self.connection.stream.write_all(&out).await?;
        while !open.is_empty() {
            match self.push().await? {
                ServerFrame::Ok(ok) => open.remove(&ok.id),
                ServerFrame::Error(error) => open.remove(&error.id.context("an error that answers nothing")?),
                _ => false,
            };
        }
        Ok(())
    }

    /// What the server says unasked.
    pub(crate) async fn push(&mut self) -> anyhow::Result<ServerFrame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if !self.connection.has_carry() {
            tokio::time::timeout(ANSWER_TIMEOUT, self.connection.stream.readable()).await.context("no answer")??;
        }
        let (frames, mut pongs) = (&mut self.frames, Vec::new());
        let before = frames.len();
        let is_open = self.connection.take(&mut self.scratch, |frame| {
            match frame {
                Frame::Binary(payload) => frames.push_back(ENCODING.decode_server(payload)?),
                Frame::Ping(payload) => push_pong(&mut pongs, payload),
                Frame::Close(payload) => bail!("closed: {}", String::from_utf8_lossy(payload)),
            }
            Ok(())
        })?;
        self.connection.stream.write_all(&pongs).await?;
        if self.frames.len() == before {
            if !is_open {
                bail!("the server ended the connection");
            }
            tokio::time::timeout(ANSWER_TIMEOUT, self.connection.stream.readable()).await.context("no answer")??;
        }
        Ok(())
    }
}
