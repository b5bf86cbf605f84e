//! Echoes every message through the broker's own transport, for conformance suites.
//!
//! `cargo run --release --example ws-echo -- --listen 127.0.0.1:9001 [--message-bytes-max 1048576]`
//!
//! No login, subprotocol or origin is needed at `/`. No echo is ever dropped: while the outbox has no room the message
//! and its credit wait, so the connection reads no further.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, web};
use sealcast::broker::outbox::{Outbox, OutboxLimits, PushError};
use sealcast::broker::outbox_budget::OutboxBudget;
use sealcast::broker::ready_frame::ReadyFrame;
use sealcast::gateway::reaper::{Reaper, ReaperLimits};
use sealcast::gateway::transport::{
    Closed, HandshakeError, Inbound, InboundMessage, ListenerOptions, MessageKind, OriginPolicy, TransportLimits,
    UpgradeOptions, serve, upgrade,
};

/// One connection that sends back what it gets.
struct Echo {
    outbox: Arc<Outbox>,
    /// What found no room, oldest first; a task is pushing as long as there is any.
    waiting: Rc<RefCell<VecDeque<InboundMessage>>>,
}

fn frame_of(message: &InboundMessage) -> ReadyFrame {
    match message.kind {
        MessageKind::Text => ReadyFrame::text(&message.data),
        MessageKind::Binary => ReadyFrame::binary(&message.data),
    }
}

impl Inbound for Echo {
    fn message(&self, message: InboundMessage) {
        let mut waiting = self.waiting.borrow_mut();
        let is_first = waiting.is_empty();
        if is_first && self.outbox.try_push(&frame_of(&message)) != Err(PushError::Full) {
            return;
        }
        waiting.push_back(message);
        if is_first {
            actix_web::rt::spawn(push_waiting(Arc::clone(&self.outbox), Rc::clone(&self.waiting)));
        }
    }

    fn pong(&self) {}

    fn closed(&self, how: Closed) {
        tracing::debug!(?how, "connection closed");
    }
}

/// Pushes what waits, in order, whenever there is room.
async fn push_waiting(outbox: Arc<Outbox>, waiting: Rc<RefCell<VecDeque<InboundMessage>>>) {
    loop {
        outbox.drained().await;
        let mut waiting = waiting.borrow_mut();
        while let Some(message) = waiting.front() {
            match outbox.try_push(&frame_of(message)) {
                Err(PushError::Full) => break,
                // Pushed, or closed and of no use any more.
                _ => waiting.pop_front(),
            };
        }
        if waiting.is_empty() {
            return;
        }
    }
}

/// What the route needs.
struct Settings {
    limits: TransportLimits,
    reaper: Arc<Reaper>,
}

async fn echo(
    req: HttpRequest,
    payload: web::Payload,
    settings: web::Data<Settings>,
) -> Result<HttpResponse, HandshakeError> {
    let options = UpgradeOptions {
        subprotocols: &[],
        origins: OriginPolicy::Any,
        limits: settings.limits,
        outbox: OutboxLimits { frames_max: 1024, bytes_max: 256 * 1024, reserve_bytes: 64 * 1024 },
        budget: &OutboxBudget::new(usize::MAX),
    };
    upgrade(&req, payload, &options, |connection| {
        settings.reaper.watch(&connection.outbox, &connection.kill);
        Box::new(Echo { outbox: connection.outbox, waiting: Rc::default() })
    })
}

fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = argument("--listen").unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let message_bytes_max = argument("--message-bytes-max").map_or(Ok(1 << 20), |value| value.parse())?;
    let limits =
        TransportLimits { message_bytes_max, outstanding_bytes_max: message_bytes_max, outstanding_messages_max: 64 };
    let reaper = Reaper::new(ReaperLimits::default());
    actix_web::rt::spawn(Arc::clone(&reaper).run(Duration::from_secs(1)));
    let settings = web::Data::new(Settings { limits, reaper });
    let options = ListenerOptions {
        workers: std::thread::available_parallelism()?.get(),
        connections_max: 25_000,
        head_timeout: Duration::from_secs(5),
        tls: None,
    };
    let app = move || App::new().app_data(settings.clone()).route("/", web::route().to(echo));
    serve(TcpListener::bind(listen)?, options, |_, _| {}, app)?.await?;
    Ok(())
}
