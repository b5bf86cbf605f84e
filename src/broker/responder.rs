//! The one answer to a request.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::connection::Connection;
use super::open_work::OpenRequest;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{self, Reply, ServerFrame};
use crate::protocol::ids::RequestId;
use crate::telemetry::metrics::Metrics;

/// Gives a request its answer, whoever finds it. Dropped without one, it answers `internal`: every request gets
/// exactly one.
pub struct Responder {
    connection: Arc<Connection>,
    id: RequestId,
    metrics: Metrics,
    answered: bool,
    /// Counts against what the connection may have open; goes with the answer.
    _permit: Box<dyn Any + Send>,
    /// A drain waits for it; goes with the answer.
    open: Option<OpenRequest>,
}

impl Responder {
    /// The answer to the request `id` of a connection.
    #[must_use]
    pub fn new(connection: Arc<Connection>, id: RequestId, metrics: Metrics, permit: Box<dyn Any + Send>) -> Self {
        Self { connection, id, metrics, answered: false, _permit: permit, open: None }
    }

    /// The connection that asked, as logs name it.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.connection.id
    }

    /// Makes a drain wait for the answer.
    pub fn keep_open(&mut self, request: OpenRequest) {
        self.open = Some(request);
    }

    /// The connection that asked.
    #[must_use]
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Done.
    pub fn ok(mut self, result: Reply) {
        self.answered = true;
        self.connection.push_reply(&ServerFrame::Ok(frame::Ok { id: self.id, result }));
    }

    /// Refused.
    pub fn refuse(mut self, refusal: Refusal) {
        self.answer_refusal(refusal);
    }

    /// Done or refused.
    pub fn answer(self, result: Result<Reply, Refusal>) {
        match result {
            Ok(reply) => self.ok(reply),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn answer_refusal(&mut self, refusal: Refusal) {
        self.answered = true;
        self.connection.push_reply(&refused(Some(self.id), refusal, &self.metrics));
    }
}

/// The frame of a refusal, counted.
#[must_use]
pub fn refused(id: Option<RequestId>, refusal: Refusal, metrics: &Metrics) -> ServerFrame {
    metrics.refusals.with_label_values(&[refusal.code.as_str()]).inc();
    ServerFrame::Error(frame::Error {
        id,
        code: refusal.code,
        message: refusal.message.to_owned(),
        retryable: refusal.code.is_retryable(),
        details: refusal.details,
    })
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            self.answer_refusal(Refusal::new(ErrorCode::Internal, "the request was lost; send it again"));
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("id", &self.id).finish_non_exhaustive()
    }
}
