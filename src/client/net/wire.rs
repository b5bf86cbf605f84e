//! Tells requests of one connection apart and brings each its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::protocol::error::{ErrorCode, ErrorDetails};
use crate::protocol::frame::{ClientFrame, Error, Reply, Request};
use crate::protocol::ids::RequestId;

/// Requests that wait to be written, at most. Full means that the server takes nothing: the connection ends,
/// and whoever asked asks again on the next one.
const OUTGOING_MAX: usize = 1_024;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Frame(Box<ClientFrame>),
    Close,
}

/// A refusal as it came.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) details: ErrorDetails,
}

/// Why a request has no result.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// The connection ended or gave no answer: the request may have happened or not.
    Lost,
    /// The server refused.
    Refused(Box<Refused>),
}

type Answer = Result<Reply, Box<Refused>>;

#[derive(Debug)]
struct Pending {
    next_id: u64,
    waiting: HashMap<RequestId, oneshot::Sender<Answer>>,
    is_closed: bool,
}

#[derive(Debug)]
struct Inner {
    generation: u64,
    outgoing: mpsc::Sender<Outgoing>,
    pending: Mutex<Pending>,
    cut: Notify,
}

/// One connection, as those who ask see it.
#[derive(Debug, Clone)]
pub(crate) struct Wire(Arc<Inner>);

impl Wire {
    /// Makes the wire of a connection, and the end from which its requests are written.
    pub(crate) fn new(generation: u64) -> (Self, mpsc::Receiver<Outgoing>) {
        let (outgoing, to_write) = mpsc::channel(OUTGOING_MAX);
        let pending = Mutex::new(Pending { next_id: 1, waiting: HashMap::new(), is_closed: false });
        (Self(Arc::new(Inner { generation, outgoing, pending, cut: Notify::new() })), to_write)
    }

    /// Which of the client's connections this is.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Asks, and waits for the answer.
    ///
    /// # Cancel safety
    /// The request may have been sent; its answer is then dropped.
    pub(crate) async fn request(&self, request: Request, timeout: Duration) -> Result<Reply, CallError> {
        let answer = {
            let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if pending.is_closed {
                return Err(CallError::Lost);
            }
            let id = RequestId::saturating(pending.next_id);
            pending.next_id += 1;
            // Put in order under the lock: what was asked first is written first.
            if self.0.outgoing.try_send(Outgoing::Frame(Box::new(ClientFrame { id, request }))).is_err() {
                self.cut();
                return Err(CallError::Lost);
            }
            let (tell, answer) = oneshot::channel();
            pending.waiting.insert(id, tell);
            answer
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => answer.map_err(CallError::Refused),
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => {
                tracing::debug!("request without an answer, connection is cut");
                self.cut();
                Err(CallError::Lost)
            }
        }
    }

    /// Brings a result to who asked.
    pub(crate) fn done(&self, id: RequestId, result: Reply) {
        self.answer(id, Ok(result));
    }

    /// Brings a refusal to who asked.
    pub(crate) fn refused(&self, error: Error) {
        let Some(id) = error.id else {
            tracing::warn!(code = %error.code, "server could not read a request");
            return;
        };
        let details = error.details.map(|details| *details).unwrap_or_default();
        self.answer(id, Err(Box::new(Refused { code: error.code, message: error.message, details })));
    }

    fn answer(&self, id: RequestId, answer: Answer) {
        let tell = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&id);
        if let Some(tell) = tell {
            // Who asked may have gone.
            let _ = tell.send(answer);
        }
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.0.cut.notify_one();
    }

    /// Waits until somebody cuts it.
    pub(crate) async fn wait_cut(&self) {
        self.0.cut.notified().await;
    }

    /// Ends the connection by the closing handshake.
    pub(crate) fn close(&self) {
        if self.0.outgoing.try_send(Outgoing::Close).is_err() {
            self.cut();
        }
    }

    /// Tells all who still wait that no answer will come.
    pub(crate) fn closed(&self) {
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.is_closed = true;
        pending.waiting.clear();
    }
}
