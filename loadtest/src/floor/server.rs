//! Takes connections, and hands what comes to all members of a room: encoded once, copied into each member's buffer, and
//! one write for all that waits.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frame::{Said, Taken, push_close, push_header, push_pong, take};
use super::postgres::Lanes;

/// The buffer into which a thread reads for all of its connections.
const SCRATCH_BYTES: usize = 256 * 1024;

/// The largest request of a handshake.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What becomes of a message before it is answered and handed on.
#[derive(Debug, Clone)]
pub(super) enum Sink {
    /// Nothing.
    Nothing,
    /// It is committed.
    Lanes(Lanes),
}

/// A connection as those see it who write to it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    outbox: Mutex<Vec<u8>>,
    wake: Notify,
}

impl Peer {
    /// Adds to what waits; whether nothing did.
    fn add(&self, bytes: &[u8]) -> bool {
        let mut outbox = lock(&self.outbox);
        let was_empty = outbox.is_empty();
        outbox.extend_from_slice(bytes);
        was_empty
    }

    /// Adds to what waits, and wakes who writes it if nothing did.
    fn push(&self, bytes: &[u8]) {
        if self.add(bytes) {
            self.wake.notify_one();
        }
    }
}

/// Who is in a room, and how far its count is.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) number: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seq: u64,
    members: Vec<Arc<Peer>>,
}

/// A message on its way.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) room: Arc<Room>,
    pub(super) sender: Arc<Peer>,
    pub(super) request: u32,
    pub(super) body: Vec<u8>,
}

/// How long frames are, in payload bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) deliver: usize,
    pub(super) ack: usize,
}

impl Lengths {
    fn push_delivery(self, out: &mut Vec<u8>, seq: u64, body: &[u8]) {
        push_header(out, self.deliver);
        let end = out.len() + self.deliver;
        out.push(b'D');
        out.extend_from_slice(&seq.to_be_bytes());
        out.extend_from_slice(body.get(..self.deliver.saturating_sub(9)).unwrap_or(body));
        out.resize(end, 0);
    }

    fn push_ack(self, out: &mut Vec<u8>, request: u32, seq: u64) {
        push_header(out, self.ack);
        let end = out.len() + self.ack;
        out.push(b'A');
        out.extend_from_slice(&request.to_be_bytes());
        out.extend_from_slice(&seq.to_be_bytes());
        out.resize(end, 0);
    }
}

impl Room {
    /// The next places of the room.
    pub(super) fn number(&self, count: u64) -> u64 {
        let mut state = lock(&self.state);
        state.seq += count;
        state.seq - count + 1
    }

    /// Hands messages that have their places to everybody, and answers their senders.
    pub(super) fn hand_on<'a>(
        &self,
        lengths: Lengths,
        messages: impl Iterator<Item = (u64, &'a Arc<Peer>, u32, &'a [u8])> + Clone,
    ) {
        let mut frames = Vec::new();
        for (seq, _, _, body) in messages.clone() {
            lengths.push_delivery(&mut frames, seq, body);
        }
        let state = lock(&self.state);
        let mut to_wake: Vec<&Arc<Peer>> = state.members.iter().filter(|member| member.add(&frames)).collect();
        // Before anybody is woken, so that answers go out with what they answer.
        let mut ack = Vec::new();
        for (seq, sender, request, _) in messages {
            ack.clear();
            lengths.push_ack(&mut ack, request, seq);
            if sender.add(&ack) {
                to_wake.push(sender);
            }
        }
        for peer in to_wake {
            peer.wake.notify_one();
        }
    }

    /// The same for messages of one sender that need no commit.
    fn hand_on_at_once<'a>(
        &self,
        lengths: Lengths,
        sender: &Arc<Peer>,
        messages: impl Iterator<Item = (u32, &'a [u8])>,
    ) {
        let (mut frames, mut acks) = (Vec::new(), Vec::new());
        // Under the lock to the end: members must be given messages in the order of their places.
        let mut state = lock(&self.state);
        for (request, body) in messages {
            state.seq += 1;
            lengths.push_delivery(&mut frames, state.seq, body);
            lengths.push_ack(&mut acks, request, state.seq);
        }
        for member in state.members.iter().filter(|member| !Arc::ptr_eq(member, sender)) {
            member.push(&frames);
        }
        // The sender is awake: it writes when it has read.
        sender.add(&frames);
        sender.add(&acks);
    }
}

/// A floor.
#[derive(Debug, Clone)]
pub(super) struct Floor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lengths: Lengths,
    sink: Sink,
    rooms: Mutex<HashMap<u32, Arc<Room>>>,
}

impl Floor {
    pub(super) fn new(deliver: usize, ack: usize, sink: Sink) -> Self {
        let lengths = Lengths { deliver: deliver.max(9), ack: ack.max(13) };
        if let Sink::Lanes(lanes) = &sink {
            lanes.begin(lengths);
        }
        Self(Arc::new(Shared { lengths, sink, rooms: Mutex::default() }))
    }

    /// Takes connections for ever.
    pub(super) async fn serve(&self, listener: TcpListener) -> anyhow::Result<()> {
        loop {
            let (stream, _) = listener.accept().await.context("accepting")?;
            let floor = self.clone();
            tokio::spawn(async move {
                let peer = Arc::new(Peer::default());
                let mut room = None;
                // Whoever breaks the rules, or goes, is gone: there is nobody to tell.
                let _ = floor.attend(stream, &peer, &mut room).await;
                if let Some(room) = room {
                    lock(&room.state).members.retain(|member| !Arc::ptr_eq(member, &peer));
                }
            });
        }
    }

    async fn attend(
        &self,
        mut stream: TcpStream,
        peer: &Arc<Peer>,
        room: &mut Option<Arc<Room>>,
    ) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut carry = shake_hands(&mut stream).await?;
        let (mut reader, mut writer) = stream.split();
        let mut writing: Vec<u8> = Vec::new();
        loop {
            if writing.is_empty() {
                writing = std::mem::take(&mut *lock(&peer.outbox));
            }
            if !writing.is_empty() && write_some(&writer, &mut writing)? {
                continue;
            }
            tokio::select! {
                biased;
                is_open = poll_fn(|cx| self.poll_read(&mut reader, &mut carry, peer, room, cx)) => {
                    if !is_open? {
                        writing.append(&mut lock(&peer.outbox));
                        return Ok(writer.write_all(&writing).await?);
                    }
                }
                writable = writer.writable(), if !writing.is_empty() => writable?,
                () = peer.wake.notified(), if writing.is_empty() => {}
            }
        }
    }

    /// Takes what has come; `false` at the end. Reads by `poll_read`, which needs no second look at a socket that is empty.
    fn poll_read(
        &self,
        reader: &mut ReadHalf<'_>,
        carry: &mut Vec<u8>,
        peer: &Arc<Peer>,
        room: &mut Option<Arc<Room>>,
        cx: &mut Context<'_>,
    ) -> Poll<anyhow::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = carry.len();
            scratch.resize(SCRATCH_BYTES.max(kept * 2), 0);
            let Some((begin, rest)) = scratch.split_at_mut_checked(kept) else { return Poll::Ready(Ok(false)) };
            let mut buffer = ReadBuf::new(rest);
            ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(false));
            }
            begin.copy_from_slice(carry);
            *carry = Vec::new();
            let bytes = scratch.get_mut(..kept + read).unwrap_or_default();
            Poll::Ready(self.take_all(bytes, carry, peer, room))
        })
    }

    fn take_all(
        &self,
        mut bytes: &mut [u8],
        carry: &mut Vec<u8>,
        peer: &Arc<Peer>,
        room: &mut Option<Arc<Room>>,
    ) -> anyhow::Result<bool> {
        let (mut said, mut out, mut is_open) = (Vec::new(), Vec::new(), true);
        let rest = loop {
            let frame = match take(bytes)? {
                Taken::Frame(frame, rest) => {
                    bytes = rest;
                    frame
                }
                Taken::Incomplete(rest) => break rest,
            };
            match frame {
                Said::Join(number) if room.is_none() => *room = Some(self.join(number, peer)),
                Said::Join(_) => bail!("in a room already"),
                Said::Send(request, body) => said.push((request, body)),
                Said::Ping(payload) => push_pong(&mut out, payload),
                Said::Pong => {}
                Said::Close => {
                    push_close(&mut out);
                    is_open = false;
                }
            }
        };
        carry.extend_from_slice(rest);
        if !said.is_empty() {
            let room = room.as_ref().context("a message from nowhere")?;
            match &self.0.sink {
                Sink::Nothing => room.hand_on_at_once(self.0.lengths, peer, said.into_iter()),
                Sink::Lanes(lanes) => lanes.submit(room, peer, said.into_iter())?,
            }
        }
        peer.add(&out);
        Ok(is_open)
    }

    fn join(&self, number: u32, peer: &Arc<Peer>) -> Arc<Room> {
        let mut rooms = lock(&self.0.rooms);
        let room = rooms.entry(number).or_insert_with(|| Arc::new(Room { number, state: Mutex::default() }));
        let mut state = lock(&room.state);
        // Under the lock: it comes before whatever is handed on in the room.
        let mut joined = Vec::new();
        push_header(&mut joined, 1);
        joined.push(b'j');
        peer.add(&joined);
        state.members.push(Arc::clone(peer));
        Arc::clone(room)
    }
}

/// Writes what the socket takes; `true` if that was all.
fn write_some(stream: &WriteHalf<'_>, writing: &mut Vec<u8>) -> anyhow::Result<bool> {
    let mut written = 0;
    while let Some(rest) = writing.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(some) => written += some,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                writing.drain(..written);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    *writing = Vec::new();
    Ok(true)
}

/// Answers a handshake; gives what came after it. Source: RFC 6455, section 4.2.2.
async fn shake_hands(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    // Not on the stack, which stays for as long as the connection does.
    let mut request = Vec::new();
    let end = loop {
        let read = stream.read_buf(&mut request).await?;
        if let Some(end) = request.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        if read == 0 || request.len() > REQUEST_BYTES_MAX {
            bail!("no handshake");
        }
    };
    let rest = request.split_off(end);
    let text = String::from_utf8(request)?;
    let header = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    let accept = derive_accept_key(header("sec-websocket-key").context("no key")?.as_bytes());
    let protocol = header("sec-websocket-protocol").and_then(|list| list.split(',').next().map(str::to_owned));
    let protocol = protocol.map_or_else(String::new, |name| format!("Sec-WebSocket-Protocol: {}\r\n", name.trim()));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(rest)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::connection::{Connection, Frame, push_frame};

    async fn said(connection: &mut Connection, count: usize) -> Vec<Vec<u8>> {
        let (mut found, mut scratch) = (Vec::new(), Vec::new());
        while found.len() < count {
            connection.stream.readable().await.unwrap();
            let is_open = connection.take(&mut scratch, |frame| {
                if let Frame::Binary(payload) = frame {
                    found.push(payload.to_vec());
                }
                Ok(())
            });
            assert!(is_open.unwrap(), "after {found:?}");
        }
        found
    }

    #[tokio::test]
    async fn everybody_in_the_room_is_given_what_is_said_and_the_sender_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let floor = Floor::new(30, 20, Sink::Nothing);
        let served = tokio::spawn(async move { floor.serve(listener).await });
        let mut members = Vec::new();
        for room in [1, 1, 2] {
            let mut member = Connection::open(&address).await.unwrap();
            let mut join = Vec::new();
            push_frame(&mut join, &[b'J', 0, 0, 0, room]);
            // However it is cut.
            for byte in join {
                member.stream.write_all(&[byte]).await.unwrap();
            }
            assert_eq!(said(&mut member, 1).await, [b"j"]);
            members.push(member);
        }
        let mut send = Vec::new();
        push_frame(&mut send, b"S\0\0\0\x05hello, everybody");
        push_frame(&mut send, b"S\0\0\0\x06and a body that is far longer than what is handed on");
        members[0].stream.write_all(&send).await.unwrap();
        let given = said(&mut members[1], 2).await;
        assert_eq!(given[0], b"D\0\0\0\0\0\0\0\x01hello, everybody\0\0\0\0\0");
        assert_eq!(given[1], b"D\0\0\0\0\0\0\0\x02and a body that is fa");
        let own = said(&mut members[0], 4).await;
        assert_eq!(own[..2], given);
        assert_eq!(own[2], b"A\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        let mut bad = Vec::new();
        push_frame(&mut bad, b"X");
        members[2].stream.write_all(&bad).await.unwrap();
        assert_eq!(members[2].stream.read(&mut [0; 8]).await.unwrap(), 0, "who breaks the rules is gone");
        served.abort();
    }
}
