//! Speaks the bare protocol as a session whose keys were kept: what a removed device would try.
//!
//! Lives here: one connection that asks whatever it is told to, and the two questions after a removal: does the
//! server give anything, and does any key that was ever held open anything.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use sealcast::crypto::message::{self, Place};
use sealcast::crypto::{Secret, SessionSecrets};
use sealcast::protocol::account::SOCKET_PATH;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{
    Authenticate, ClientFrame, Cursor, Direction, History, Keys, Nothing, Reply, Request, Resume, ServerFrame,
    login_bytes,
};
use sealcast::protocol::ids::{ChatId, KeyId, RequestId, Seq, SessionId};
use sealcast::protocol::limits::{KEYS_PER_REQUEST_MAX, PAGE_ENTRIES_MAX};
use sealcast::protocol::log::{EntryBody, LogEntry};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

const ENCODING: Encoding = Encoding::MessagePack;

/// A connection that is logged in.
pub(crate) struct Probe {
    stream: WebSocketStream<TcpStream>,
    next_id: u64,
    /// Entries that the server gave, in answers and unasked.
    given: Vec<(ChatId, u64)>,
}

impl Probe {
    /// Connects to `host:port` and logs in. A refusal is its code.
    pub(crate) async fn open(
        address: &str,
        (session_id, secrets): &(SessionId, SessionSecrets),
    ) -> anyhow::Result<Result<Self, String>> {
        let tcp = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        tcp.set_nodelay(true)?;
        let request = ClientRequestBuilder::new(format!("ws://{address}{SOCKET_PATH}").parse()?);
        let request = request.with_sub_protocol(ENCODING.subprotocol());
        let (stream, _) = tokio_tungstenite::client_async(request, tcp).await.context("the handshake")?;
        let mut probe = Self { stream, next_id: 1, given: Vec::new() };
        let ServerFrame::Hello(hello) = probe.frame().await? else { bail!("the server did not greet") };
        let signature = secrets.sign(&login_bytes(&hello.nonce, &hello.server_name, *session_id));
        let login = Request::Authenticate(Authenticate { session_id: *session_id, signature });
        Ok(probe.ask(login).await?.map(|_| probe))
    }

    async fn frame(&mut self) -> anyhow::Result<ServerFrame> {
        loop {
            let message = tokio::time::timeout(TIMEOUT, self.stream.next()).await.context("no answer in time")?;
            match message.ok_or_else(|| anyhow!("the server closed the connection"))?? {
                Message::Binary(bytes) => return Ok(ENCODING.decode_server(&bytes)?),
                Message::Close(close) => bail!("the server closed the connection: {close:?}"),
                _ => {}
            }
        }
    }

    /// Asks, and notes every entry that comes meanwhile. A refusal is its code.
    async fn ask(&mut self, request: Request) -> anyhow::Result<Result<Reply, String>> {
        let id = RequestId::saturating(self.next_id);
        self.next_id += 1;
        let bytes = ENCODING.encode(&ClientFrame { id, request })?;
        self.stream.send(Message::binary(bytes)).await?;
        loop {
            match self.frame().await? {
                ServerFrame::Ok(ok) if ok.id == id => {
                    if let Reply::Page(page) = &ok.result {
                        self.given.extend(page.entries.iter().map(|entry| (page.chat_id, entry.seq.get())));
                    }
                    return Ok(Ok(ok.result));
                }
                ServerFrame::Error(error) if error.id == Some(id) => return Ok(Err(error.code.to_string())),
                ServerFrame::Entry(entry) => self.given.push((entry.chat_id, entry.entry.seq.get())),
                ServerFrame::Page(page) => {
                    self.given.extend(page.entries.iter().map(|entry| (page.chat_id, entry.seq.get())));
                }
                _ => {}
            }
        }
    }

    /// Reads a chat's log after a seq to its end, as a member.
    pub(crate) async fn log_after(&mut self, chat_id: ChatId, seq: u64) -> anyhow::Result<Vec<LogEntry>> {
        let (mut entries, mut after) = (Vec::new(), Seq::saturating(seq));
        loop {
            let history = History { chat_id, direction: Direction::After, seq: after, limit: PAGE_ENTRIES_MAX };
            let answer = self.ask(Request::History(history)).await?;
            let Reply::Page(page) = answer.map_err(|code| anyhow!("a member's history is refused: {code}"))? else {
                bail!("a member's history is not answered with a page");
            };
            (after, entries) = (page.up_to, {
                entries.extend(page.entries);
                entries
            });
            if !page.more {
                return Ok(entries);
            }
        }
    }

    /// As a removed session: asks for the chat in every way there is, and tells the seqs above `after` that it was
    /// given, and how many copies of the keys of later entries.
    pub(crate) async fn beg(
        &mut self,
        chat_id: ChatId,
        after: u64,
        later_keys: &[KeyId],
    ) -> anyhow::Result<(Vec<u64>, usize)> {
        let seq = Seq::saturating(after);
        let mut requests = vec![
            Request::History(History { chat_id, direction: Direction::After, seq, limit: PAGE_ENTRIES_MAX }),
            Request::History(History {
                chat_id,
                direction: Direction::Before,
                seq: Seq::saturating(u64::MAX),
                limit: PAGE_ENTRIES_MAX,
            }),
        ];
        for key_ids in later_keys.chunks(KEYS_PER_REQUEST_MAX) {
            requests.push(Request::Keys(Keys { chat_id, key_ids: key_ids.to_vec() }));
        }
        requests.push(Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq }] }));
        // After a resume what is pushed comes before the answer to this.
        requests.push(Request::Ping(Nothing {}));
        let mut copies = 0;
        for request in requests {
            if let Ok(Reply::Keys(list)) = self.ask(request).await? {
                copies += list.keys.iter().filter(|key| key.key.is_some()).count();
            }
        }
        let given = self.given.iter().filter(|(chat, seq)| *chat == chat_id && *seq > after);
        Ok((given.map(|(_, seq)| *seq).collect(), copies))
    }

    /// Ends the connection.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

/// Whether one of the keys opens an entry, for whatever place the entry names.
pub(crate) fn opens<'a>(chat_id: ChatId, entry: &LogEntry, held: impl IntoIterator<Item = &'a Secret>) -> bool {
    let EntryBody::Message(envelope) = &entry.body else { return false };
    let (Some(place), Some(data)) = (Place::of(chat_id, envelope), &envelope.data) else { return false };
    held.into_iter().any(|secret| message::open(secret, &place, data.as_ref()).is_ok())
}

/// The sender key of an entry, if it is a message.
pub(crate) fn key_of(entry: &LogEntry) -> Option<KeyId> {
    let EntryBody::Message(envelope) = &entry.body else { return None };
    envelope.key_id
}
