//! Asks the server until there is a definite answer, and waits for the log to move.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Counts, Shared, State, Status};
use crate::client::backoff::Backoff;
use crate::client::error::{ClientError, CloseReason};
use crate::client::net::wire::{CallError, Refused, Wire};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{Nothing, Reply, Request};
use crate::protocol::ids::{ChatId, Seq};

/// Unwraps a reply of the kind that was asked for.
macro_rules! expect_reply {
    ($reply:expr, $variant:ident) => {
        match $reply {
            Reply::$variant(value) => Ok(value),
            _ => Err(ClientError::UnexpectedAnswer),
        }
    };
}

pub(crate) use expect_reply;

/// How long entries may take that the server says are there.
const ENTRIES_WAIT: Duration = Duration::from_secs(10);

impl From<Box<Refused>> for ClientError {
    fn from(refused: Box<Refused>) -> Self {
        Self::Refused { code: refused.code, message: refused.message }
    }
}

impl Shared {
    /// Waits until everything has caught up.
    pub(crate) async fn live(&self) -> Result<Wire, CloseReason> {
        let mut status = self.status.subscribe();
        loop {
            match &*status.borrow_and_update() {
                Status::Live(wire) => return Ok(wire.clone()),
                Status::Closed(reason) => return Err(*reason),
                Status::Connecting => {}
            }
            if status.changed().await.is_err() {
                return Err(CloseReason::ByUser);
            }
        }
    }

    /// Asks until the answer is definite, over as many connections as it takes, always with the same bytes.
    pub(crate) async fn call(&self, request: Request) -> Result<Result<Reply, Box<Refused>>, ClientError> {
        let mut backoff = Backoff::default();
        loop {
            let wire = self.live().await.map_err(ClientError::Closed)?;
            let refused = match wire.request(request.clone(), self.config.request_timeout).await {
                Ok(reply) => return Ok(Ok(reply)),
                Err(CallError::Lost) => {
                    Counts::add(&self.counts.resends);
                    self.rest(&wire, &mut backoff, None).await;
                    continue;
                }
                Err(CallError::Refused(refused)) => refused,
            };
            match refused.code {
                ErrorCode::StorageUnavailable | ErrorCode::RateLimited | ErrorCode::Internal => {
                    Counts::add(&self.counts.refusals);
                    self.rest(&wire, &mut backoff, refused.details.retry_after_ms).await;
                }
                _ => return Ok(Err(refused)),
            }
        }
    }

    /// Waits until a fact holds; `None` after `timeout`.
    pub(crate) async fn wait_until<T>(
        &self,
        timeout: Duration,
        mut fact: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, CloseReason> {
        let mut moved = self.moved.subscribe();
        let wait = async {
            loop {
                moved.borrow_and_update();
                if let Some(found) = fact(&mut self.lock()) {
                    return Ok(Some(found));
                }
                if let Status::Closed(reason) = &*self.status.borrow() {
                    return Err(*reason);
                }
                if moved.changed().await.is_err() {
                    return Err(CloseReason::ByUser);
                }
            }
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(Ok(None))
    }

    /// Waits until a chat's log is folded to a seq, or the chat is gone. If the entries do not come, the
    /// connection is made anew, which asks for them.
    pub(crate) async fn folded(&self, chat_id: ChatId, seq: Seq) -> Result<bool, ClientError> {
        let folded = self
            .wait_until(ENTRIES_WAIT, |state| match state.chats.get(&chat_id) {
                Some(chat) if chat.log.head().seq >= seq => Some(()),
                Some(_) => None,
                None => Some(()),
            })
            .await
            .map_err(ClientError::Closed)?;
        if folded.is_none() {
            self.reconnect();
        }
        Ok(folded.is_some())
    }

    /// Waits until a chat is known. One that is not is asked for: this user may have been added a moment ago,
    /// and the entry that says so may still be on its way.
    pub(crate) async fn known(&self, chat_id: ChatId) -> Result<(), ClientError> {
        self.live().await.map_err(ClientError::Closed)?;
        if self.lock().chats.contains_key(&chat_id) {
            return Ok(());
        }
        let chats = expect_reply!(self.call(Request::ListChats(Nothing {})).await??, Chats)?;
        if !chats.chats.iter().any(|info| info.chat_id == chat_id) {
            return Err(ClientError::UnknownChat);
        }
        let known = self.wait_until(ENTRIES_WAIT, |state| state.chats.contains_key(&chat_id).then_some(()));
        match known.await.map_err(ClientError::Closed)? {
            Some(()) => Ok(()),
            None => Err(ClientError::UnknownChat),
        }
    }

    /// Drops the connection; the next one follows at once.
    pub(crate) fn reconnect(&self) {
        let wire = self.lock().progress.wire.clone();
        if let Some(wire) = wire {
            wire.cut();
        }
        self.hurry.notify_one();
    }
}

/// Starts a task that lives no longer than the client's connection or its own work.
pub(crate) fn spawn(shared: &Arc<Shared>, work: impl Future<Output = ()> + Send + 'static) {
    let mut status = shared.status.subscribe();
    tokio::spawn(async move {
        let closed = async {
            while status.wait_for(|status| matches!(status, Status::Closed(_))).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = work => {}
            () = closed => {}
        }
    });
}
