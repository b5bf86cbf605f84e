//! Moves decoded frames from the WebSocket context to the session, and nothing else.
//!
//! The only actor of the transport. It lives inside the response body and stands still whenever the other end stops
//! reading, so it owns no timer and no state of the session. It writes nothing into its context: all that leaves goes
//! through the outbox. Floor 5.

use std::rc::Rc;

use actix::{Actor, ActorContext, StreamHandler};
use actix_http::ws::Item;
use actix_web_actors::ws::{Message, ProtocolError, WebsocketContext};
use bytes::Bytes;

use super::assembly::Assembly;
use super::inbound::{InboundMessage, MessageKind, Violation};
use super::link::{InputEnd, Link};
use crate::broker::ready_frame::ReadyFrame;

/// The mover of one connection.
pub(super) struct Pump {
    link: Rc<Link>,
    assembly: Assembly,
}

impl Pump {
    pub(super) fn new(message_bytes_max: usize, link: Rc<Link>) -> Self {
        Self { link, assembly: Assembly::new(message_bytes_max) }
    }

    fn deliver(&self, kind: MessageKind, data: Bytes) {
        let credit = self.link.meter.credit(data.len());
        if let Some(inbound) = self.link.inbound() {
            inbound.message(InboundMessage { kind, data, credit });
        }
    }

    fn fragment(&mut self, item: &Item) -> Result<(), Violation> {
        match item {
            Item::FirstText(data) => self.assembly.start(MessageKind::Text, data),
            Item::FirstBinary(data) => self.assembly.start(MessageKind::Binary, data),
            Item::Continue(data) => self.assembly.add(data),
            Item::Last(data) => {
                let (kind, data) = self.assembly.finish(data)?;
                self.deliver(kind, data);
                Ok(())
            }
        }
    }

    /// Deals with one frame; an error ends the connection.
    fn take(&mut self, frame: Message) -> Result<(), Violation> {
        match frame {
            // Copied, for the frame is a slice of the codec's buffer: a kept message would pin the whole of it.
            Message::Text(text) => self.deliver(MessageKind::Text, Bytes::copy_from_slice(text.as_bytes())),
            Message::Binary(data) => self.deliver(MessageKind::Binary, Bytes::copy_from_slice(&data)),
            Message::Continuation(item) => return self.fragment(&item),
            Message::Ping(data) => self.link.outbox.push_pong(&ReadyFrame::pong(&data)),
            Message::Pong(_) => {
                if let Some(inbound) = self.link.inbound() {
                    inbound.pong();
                }
            }
            Message::Close(reason) => {
                let code = reason.as_ref().map(|reason| u16::from(reason.code));
                match code {
                    Some(code) => self.link.outbox.close(code, ""),
                    None => self.link.outbox.close_without_code(),
                }
                let reason = reason.and_then(|reason| reason.description).unwrap_or_default();
                self.link.goodbye(code, reason);
            }
            Message::Nop => {}
        }
        Ok(())
    }
}

impl Actor for Pump {
    type Context = WebsocketContext<Self>;
}

impl StreamHandler<Result<Message, ProtocolError>> for Pump {
    fn handle(&mut self, item: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        self.link.leave_codec();
        if !self.link.outbox.is_closed() {
            let taken = match item {
                Ok(frame) => self.take(frame),
                // The guard has judged all else; the codec reports text that is not UTF-8 as an I/O error.
                Err(ProtocolError::Io(_)) => Err(Violation::Utf8),
                Err(_) => Err(Violation::Protocol("malformed frame")),
            };
            if let Err(violation) = taken {
                self.link.fail(violation);
            }
        }
        if self.link.outbox.is_closed() {
            ctx.stop();
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        match self.link.input_end.take() {
            Some(InputEnd::Violation(violation)) => self.link.fail(violation),
            Some(InputEnd::Lost) | None => self.link.lost(),
        }
        ctx.stop();
    }
}
