//! Is the response body of an upgraded connection: drives the reading and hands out what waits in the outbox.
//!
//! The HTTP layer polls it while the socket takes bytes, and drops it when the connection ends, however that comes
//! about; so the end is noticed here at the latest. Floor 5.
//!
//! Invariants:
//! 1. The WebSocket context is polled first: reading leads to replies, which then leave in the same chunk.
//! 2. Once the outbox is closed nothing more is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_core::Stream;

use super::inbound::Closed;
use super::link::Link;
use crate::broker::outbox::Ending;

/// The merged stream of one connection.
pub(super) struct Body<S> {
    context: S,
    link: Rc<Link>,
    is_reading: bool,
    /// The last chunk has been handed out.
    is_over: bool,
}

impl<S> Body<S> {
    pub(super) fn new(context: S, link: Rc<Link>) -> Self {
        Self { context, link, is_reading: true, is_over: false }
    }
}

impl<S, E> MessageBody for Body<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        if this.is_reading && !this.link.outbox.is_closed() {
            match Pin::new(&mut this.context).poll_next(cx) {
                Poll::Pending => {}
                // The pump writes nothing into its context, so this is not expected; dropping it would corrupt nothing.
                Poll::Ready(Some(Ok(bytes))) => return Poll::Ready(Some(Ok(bytes))),
                Poll::Ready(Some(Err(_)) | None) => {
                    this.is_reading = false;
                    if !this.link.outbox.is_closed() {
                        this.link.lost();
                    }
                }
            }
        }
        match this.link.outbox.poll_chunk(cx) {
            Poll::Ready(Some(chunk)) => Poll::Ready(Some(Ok(chunk))),
            Poll::Ready(None) => {
                this.is_over = true;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S> Drop for Body<S> {
    fn drop(&mut self) {
        let ending = self.link.outbox.ending();
        let how = match ending {
            _ if self.link.switch.is_killed() => Closed::Cut,
            Ending::Aborted => Closed::Cut,
            Ending::Closing { code: Some(code) } if self.is_over => Closed::ByUs { code },
            Ending::Closing { .. } | Ending::Open => Closed::Lost,
        };
        // After a close from the other end nothing can be unread, so its socket need not linger.
        let is_close_unseen =
            self.is_over && matches!(ending, Ending::Closing { .. }) && !self.link.peer_said_goodbye();
        self.link.switch.body_ended(is_close_unseen);
        self.link.outbox.end();
        self.link.tell(how);
    }
}
