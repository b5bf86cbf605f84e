//! A session that comes back: it connects, logs in, says where it stands, and takes what it missed.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, anyhow, bail};
use sealcast::protocol::frame::{Authenticate, ClientFrame, Request, Resume, ServerFrame, login_bytes};
use sealcast::protocol::ids::RequestId;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::missed::{Given, Missed};
use crate::bench::connection::{ANSWER_TIMEOUT, Connection, ENCODING, Frame, push_frame, push_pong};
use crate::bench::member::Member;

/// The two requests of a connection.
const LOGIN: u64 = 1;
const RESUME: u64 = 2;

/// A user's one session, and what it missed.
pub(super) struct Session {
    member: Member,
    missed: Rc<Missed>,
}

/// A connection of a session.
pub(super) struct Stay<'a> {
    session: &'a Session,
    connection: Connection,
    pub(super) given: Given<'a>,
    is_live: bool,
}

impl Session {
    pub(super) const fn new(member: Member, missed: Rc<Missed>) -> Self {
        Self { member, missed }
    }

    /// Connects.
    pub(super) async fn connect(&self, address: &str) -> anyhow::Result<Stay<'_>> {
        let connection = Connection::open(address).await?;
        Ok(Stay { session: self, connection, given: Given::new(&self.missed), is_live: false })
    }

    /// What it says to a frame.
    fn answer(&self, frame: &ServerFrame) -> anyhow::Result<Option<ClientFrame>> {
        let (id, request) = match frame {
            ServerFrame::Hello(hello) => {
                let session_id = self.member.session_id;
                let signed = login_bytes(&hello.nonce, &hello.server_name, session_id);
                let signature = self.member.secrets.sign(&signed);
                (LOGIN, Request::Authenticate(Authenticate { session_id, signature }))
            }
            ServerFrame::Ok(ok) if ok.id == RequestId::saturating(LOGIN) => {
                (RESUME, Request::Resume(Resume { cursors: self.missed.cursors.clone() }))
            }
            ServerFrame::Error(error) => bail!("refused: {error:?}"),
            ServerFrame::Bye(_) => bail!("sent away"),
            _ => return Ok(None),
        };
        Ok(Some(ClientFrame { id: RequestId::saturating(id), request }))
    }
}

impl Stay<'_> {
    /// Logs in and takes what was missed, until it is told that what comes is new. `scratch` is what all sessions read into.
    pub(super) async fn come(&mut self, scratch: &RefCell<Vec<u8>>) -> anyhow::Result<()> {
        let mut has_begun = self.connection.has_carry();
        while !self.is_live {
            if !std::mem::take(&mut has_begun) {
                let readable = tokio::time::timeout(ANSWER_TIMEOUT, self.connection.stream.readable()).await;
                readable.context("nothing comes")??;
            }
            self.take(scratch).await?;
        }
        Ok(())
    }

    /// Takes all that has come.
    async fn take(&mut self, scratch: &RefCell<Vec<u8>>) -> anyhow::Result<()> {
        let Self { session, connection, given, is_live } = self;
        let mut out = Vec::new();
        let is_open = connection.take(&mut scratch.borrow_mut(), |frame| {
            let payload = match frame {
                Frame::Binary(payload) => payload,
                Frame::Ping(payload) => {
                    push_pong(&mut out, payload);
                    return Ok(());
                }
                Frame::Close(payload) => bail!("closed: {}", String::from_utf8_lossy(payload)),
            };
            let frame = ENCODING.decode_server(payload)?;
            match &frame {
                ServerFrame::Page(page) => given.page(page),
                // Nobody talks in these chats: pages bring whatever is there.
                ServerFrame::Entry(entry) => given.entry(entry.chat_id, &entry.entry, &[]),
                ServerFrame::ChatGone(gone) => bail!("the chat {} is gone", gone.chat_id),
                ServerFrame::Live(_) => {
                    given.live();
                    *is_live = true;
                }
                _ => {}
            }
            if let Some(answer) = session.answer(&frame)? {
                push_frame(&mut out, &ENCODING.encode(&answer)?);
            }
            Ok(())
        })?;
        connection.stream.write_all(&out).await?;
        if is_open { Ok(()) } else { Err(anyhow!("the server ended the connection")) }
    }

    /// Stays until it is over, and goes; what comes meanwhile is judged too.
    pub(super) async fn rest(
        &mut self,
        scratch: &RefCell<Vec<u8>>,
        mut over: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                readable = self.connection.stream.readable() => readable?,
                _ = over.wait_for(|is_over| *is_over) => return self.leave(scratch).await,
            }
            self.take(scratch).await?;
        }
    }

    /// Ends its side, and waits until the server has ended the other.
    async fn leave(&mut self, scratch: &RefCell<Vec<u8>>) -> anyhow::Result<()> {
        self.connection.stream.shutdown().await?;
        loop {
            tokio::time::timeout(ANSWER_TIMEOUT, self.connection.stream.readable()).await.context("no farewell")??;
            // A reset is an end as well.
            if !self.connection.take(&mut scratch.borrow_mut(), |_| Ok(())).unwrap_or(false) {
                return Ok(());
            }
        }
    }
}
