//! Shuts a connection's socket from outside, whatever the HTTP layer is doing.
//!
//! [`keep`] keeps a duplicate of every accepted socket. It costs a descriptor per connection and buys two things:
//! a connection whose other end stopped reading can be cut although nothing polls it, and a finished socket can wait a
//! moment for the other end, so that unread input does not turn into a reset which overtakes the close frame.
//! Floor 5; it knows sockets only.
//!
//! Invariants:
//! 1. The duplicate never outlives the HTTP layer's own socket, except while a reaper watches it.
//! 2. Nothing is ever read from or written to the duplicate.
//! 3. A connection without a duplicate is shut when it is accepted.

use std::any::Any;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream as TcpSocket;
use socket2::SockRef;

#[derive(Debug)]
struct Switch {
    socket: Option<TcpStream>,
    is_watched: bool,
    is_killed: bool,
    is_used: bool,
    name: u64,
    may_linger: bool,
    body_ended: Option<Instant>,
    socket_done: Option<Instant>,
}

/// The means to cut one connection from any thread. Clones share it.
#[derive(Clone, Debug)]
pub struct KillSwitch(Arc<Mutex<Switch>>);

/// What is left of a connection whose body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// The duplicate is released.
    Released,
    /// The HTTP layer has not got rid of the last bytes, for this long.
    Flushing(Duration),
    /// All was written and the sending side shut; the other end may read it and say goodbye, for this long.
    Waiting(Duration),
}

impl KillSwitch {
    /// Makes a switch from a duplicate of the connection's socket.
    #[must_use]
    pub fn new(duplicate: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Switch {
            socket: Some(duplicate),
            is_watched: false,
            is_killed: false,
            is_used: false,
            name: 0,
            may_linger: false,
            body_ended: None,
            socket_done: None,
        })))
    }

    /// Shuts the socket in both directions; true for the first call on a socket that was still there.
    ///
    /// The HTTP layer then sees end of file and a broken pipe and drops the connection.
    pub fn kill(&self) -> bool {
        let mut switch = self.lock();
        let Some(socket) = &switch.socket else {
            return false;
        };
        // The only error is that the other end has gone already, which is what was wanted.
        let _ = socket.shutdown(Shutdown::Both);
        !std::mem::replace(&mut switch.is_killed, true)
    }

    /// True once [`KillSwitch::kill`] found a socket.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.lock().is_killed
    }

    /// Names the connection in logs.
    pub fn set_name(&self, name: u64) {
        self.lock().name = name;
    }

    /// How logs name the connection; 0 for one that is no WebSocket.
    #[must_use]
    pub fn name(&self) -> u64 {
        self.lock().name
    }

    /// True once the connection has carried a request.
    pub(super) fn is_used(&self) -> bool {
        self.lock().is_used
    }

    /// Notes that the connection carries a request.
    pub(super) fn set_used(&self) {
        self.lock().is_used = true;
    }

    /// True as long as there is a socket and nobody has promised to watch it: it is no WebSocket yet, or never will be.
    #[must_use]
    pub fn is_unopened(&self) -> bool {
        let switch = self.lock();
        switch.socket.is_some() && !switch.is_watched
    }

    /// Promises that somebody calls [`KillSwitch::linger`] from time to time and [`KillSwitch::release`] in the end.
    pub fn keep_for_linger(&self) {
        self.lock().is_watched = true;
    }

    /// What is left of the connection. To be asked after its body has ended.
    #[must_use]
    pub fn linger(&self, now: Instant) -> Linger {
        let switch = self.lock();
        if switch.socket.is_none() {
            return Linger::Released;
        }
        match (switch.socket_done, switch.body_ended) {
            (Some(done), _) => Linger::Waiting(now.saturating_duration_since(done)),
            (None, Some(ended)) => Linger::Flushing(now.saturating_duration_since(ended)),
            (None, None) => Linger::Flushing(Duration::ZERO),
        }
    }

    /// Gives the duplicate back.
    pub fn release(&self) {
        self.lock().socket = None;
    }

    /// Notes that the response body is gone; `may_linger` if its end was a close that the other end has yet to see.
    pub(super) fn body_ended(&self, may_linger: bool) {
        let mut switch = self.lock();
        switch.may_linger = may_linger;
        switch.body_ended = Some(Instant::now());
    }

    /// Notes that the HTTP layer is about to drop its own socket.
    fn connection_dropped(&self) {
        let mut switch = self.lock();
        if switch.is_watched && switch.may_linger && !switch.is_killed {
            switch.socket_done = Some(Instant::now());
        } else {
            switch.socket = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Switch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's hold on the switch: what is kept for it is dropped together with its socket.
#[derive(Debug)]
pub(super) struct ConnectionData(KillSwitch);

impl ConnectionData {
    pub(super) fn switch(&self) -> &KillSwitch {
        &self.0
    }
}

impl Drop for ConnectionData {
    fn drop(&mut self) {
        self.0.connection_dropped();
    }
}

/// What is kept for a connection from the moment it is accepted until its socket is gone.
#[derive(Clone, Debug)]
pub(super) struct Kept(Rc<Extensions>);

/// What a connection was given when it was accepted, if it was.
#[must_use]
pub fn kept_for<T: 'static>(request: &HttpRequest) -> Option<&T> {
    request.conn_data::<Kept>()?.0.get()
}

/// Keeps a duplicate of an accepted socket, and what the caller adds. A socket that cannot be duplicated is shut.
pub(super) fn keep(io: &dyn Any, data: &mut Extensions, greet: impl FnOnce(Option<IpAddr>, &mut Extensions)) {
    let mut kept = Extensions::new();
    let stream = tcp_of(io);
    if let Some(stream) = stream {
        duplicate(stream, &mut kept);
    }
    greet(stream.and_then(|stream| stream.peer_addr().ok()).map(|peer| peer.ip()), &mut kept);
    data.insert(Kept(Rc::new(kept)));
}

fn duplicate(stream: &TcpSocket, kept: &mut Extensions) {
    let socket = SockRef::from(stream);
    match socket.try_clone() {
        Ok(duplicate) => {
            kept.insert(ConnectionData(KillSwitch::new(duplicate.into())));
        }
        Err(error) => {
            // Nobody could end it later. Where descriptors are short, those who never finish a request would have them
            // all, for as long as they like.
            let _ = socket.shutdown(Shutdown::Both);
            tracing::warn!(%error, "socket not duplicated, its connection is ended");
        }
    }
}

/// The socket of a connection, with TLS above it or without.
fn tcp_of(io: &dyn Any) -> Option<&TcpSocket> {
    io.downcast_ref::<TcpSocket>().or_else(|| io.downcast_ref::<TlsStream<TcpSocket>>().map(|tls| tls.get_ref().0))
}

/// The switch of a connection, of what is kept for it.
#[must_use]
pub fn switch_of(data: &Extensions) -> Option<&KillSwitch> {
    data.get::<ConnectionData>().map(ConnectionData::switch)
}
