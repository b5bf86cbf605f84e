//! Plays bytes through the transport as a socket would, without a socket: guard, codec, assembly, pump, outbox, body.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use actix_web::body::MessageBody;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::Stream;
use sealcast::broker::outbox::{Outbox, OutboxLimits};
use sealcast::gateway::transport::{
    Closed, Connection, Credit, Inbound, InboundMessage, KillSwitch, MessageKind, TransportLimits, connect,
};

/// What the session above the transport is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Message(MessageKind, Bytes),
    Pong,
    Closed(Closed),
}

/// How a session deals with what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each message at once.
    Prompt,
    /// Nothing until no more comes, and then all of it.
    Slow,
}

/// What came of one run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) told: Vec<Told>,
    /// What was written to the socket.
    pub(crate) written: Vec<u8>,
}

/// Plays chunks until the connection ends, which the end of the chunks brings about at the latest.
pub(crate) fn play(chunks: Vec<Bytes>, limits: TransportLimits, pace: Pace) -> Run {
    let outbox = Outbox::new(OutboxLimits { frames_max: 1 << 16, bytes_max: 1 << 24, reserve_bytes: 1 << 16 });
    let session = Rc::new(RefCell::new(Session { told: Vec::new(), credits: Vec::new() }));
    let recorder = Recorder { session: Rc::clone(&session), pace };
    let connection = Connection { outbox, kill: kill_switch(), subprotocol: None };
    let mut body = Driven::new(connect(Chunks(chunks.into()), limits, connection, Box::new(recorder)));
    let mut written = Vec::new();
    while let Some(chunk) = body.next(|| {
        let credits = std::mem::take(&mut session.borrow_mut().credits);
        !credits.is_empty()
    }) {
        written.extend_from_slice(&chunk);
    }
    drop(body);
    let told = std::mem::take(&mut session.borrow_mut().told);
    Run { told, written }
}

/// A body that is polled only when it asked to be: whoever forgets to wake it is found out.
pub(crate) struct Driven<B> {
    body: Pin<Box<B>>,
    woken: Arc<Woken>,
}

impl<B: MessageBody> Driven<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body: Box::pin(body), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    /// The next chunk, or none at the end; `unblock` does what the body may be waiting for, and says whether it did.
    ///
    /// # Panics
    /// If the body neither goes on nor ends.
    pub(crate) fn next(&mut self, mut unblock: impl FnMut() -> bool) -> Option<Bytes> {
        loop {
            match self.poll() {
                Poll::Ready(chunk) => return chunk,
                Poll::Pending if self.is_woken() => {}
                Poll::Pending => {
                    assert!(unblock(), "the connection neither goes on nor ends");
                    assert!(self.is_woken(), "a credit came back, and the reader was not woken");
                }
            }
        }
    }

    /// What can be had now; none while there is nothing, and none at the end.
    pub(crate) fn now(&mut self) -> Option<Bytes> {
        loop {
            match self.poll() {
                Poll::Ready(chunk) => return chunk,
                Poll::Pending if self.is_woken() => {}
                Poll::Pending => return None,
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }

    fn poll(&mut self) -> Poll<Option<Bytes>> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.body.as_mut().poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(Ok(chunk))) => Poll::Ready(Some(chunk)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Session {
    told: Vec<Told>,
    credits: Vec<Credit>,
}

struct Recorder {
    session: Rc<RefCell<Session>>,
    pace: Pace,
}

impl Inbound for Recorder {
    fn message(&self, message: InboundMessage) {
        let mut session = self.session.borrow_mut();
        session.told.push(Told::Message(message.kind, message.data));
        if self.pace == Pace::Slow {
            session.credits.push(message.credit);
        }
    }

    fn pong(&self) {
        self.session.borrow_mut().told.push(Told::Pong);
    }

    fn closed(&self, how: Closed) {
        self.session.borrow_mut().told.push(Told::Closed(how));
    }
}

/// A source that makes its reader wait before each chunk.
pub(crate) struct Chunks(VecDeque<Bytes>);

impl Stream for Chunks {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // An empty chunk stands for a pause.
        match self.0.pop_front() {
            Some(pause) if pause.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            chunk => Poll::Ready(chunk.map(Ok)),
        }
    }
}

/// A source that never gives anything and never ends.
pub(crate) struct Silence;

impl Stream for Silence {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

/// One switch for all runs of a thread: nobody pulls it.
pub(crate) fn kill_switch() -> KillSwitch {
    thread_local! {
        static SWITCH: KillSwitch = KillSwitch::new(loopback());
    }
    SWITCH.with(KillSwitch::clone)
}

fn loopback() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    let address = listener.local_addr().expect("its address");
    TcpStream::connect(address).expect("a connection to it")
}
