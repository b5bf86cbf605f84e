//! Turns a request into a connection.
//!
//! Puts the parts together in the order in which bytes pass them: payload, guard, codec, pump, session; outbox, body,
//! socket. Floor 5.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_web_actors::ws::{self, WebsocketContext};
use bytes::Bytes;
use futures_core::Stream;

use super::body::Body;
use super::guard::Guard;
use super::handshake::{self, HandshakeError, OriginPolicy};
use super::inbound::Inbound;
use super::kill::{ConnectionData, KillSwitch, kept_for};
use super::link::Link;
use super::meter::{Meter, TransportLimits};
use super::pump::Pump;
use crate::broker::outbox::{Outbox, OutboxLimits};
use crate::broker::outbox_budget::OutboxBudget;

/// What a route accepts.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeOptions<'a> {
    /// Our subprotocols. Empty: none is needed and none is answered. Otherwise one of them must be offered.
    pub subprotocols: &'a [&'a str],
    /// Which pages may connect.
    pub origins: OriginPolicy<'a>,
    /// Bounds of what comes in.
    pub limits: TransportLimits,
    /// Bounds of what waits to go out.
    pub outbox: OutboxLimits,
    /// What waits to go out of all connections together.
    pub budget: &'a Arc<OutboxBudget>,
}

/// The new connection's handles, given to the session layer before the first byte moves.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where frames for this connection go.
    pub outbox: Arc<Outbox>,
    /// Cuts it from outside. The reaper should watch it together with the outbox.
    pub kill: KillSwitch,
    /// The agreed subprotocol, as an index into [`UpgradeOptions::subprotocols`].
    pub subprotocol: Option<usize>,
}

/// Checks the handshake and answers 101 with a body that is the connection.
///
/// `make` is called once the handshake is accepted, with the connection's handles; frames may be pushed at once.
///
/// # Errors
/// A [`HandshakeError`], which knows its HTTP answer; `make` was not called then.
pub fn upgrade(
    req: &HttpRequest,
    payload: web::Payload,
    options: &UpgradeOptions<'_>,
    make: impl FnOnce(Connection) -> Box<dyn Inbound>,
) -> Result<HttpResponse, HandshakeError> {
    let subprotocol = handshake::check(req, options.subprotocols, options.origins)?;
    let kill = kept_for::<ConnectionData>(req).ok_or(HandshakeError::NoKillSwitch)?.switch().clone();
    let mut response = ws::handshake(req).map_err(|_| HandshakeError::Upgrade)?;
    if let Some(name) = subprotocol.and_then(|index| options.subprotocols.get(index)) {
        response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, *name));
    }

    let outbox = Outbox::within(options.outbox, options.budget);
    let connection = Connection { outbox, kill, subprotocol };
    let inbound = make(connection.clone());
    Ok(response.body(connect(payload, options.limits, connection, inbound)))
}

/// Joins what comes from a socket to a session; the response body given is the connection.
///
/// It names neither HTTP request nor socket, so bytes from anywhere can be played through all that stands before a
/// session.
pub fn connect<S>(
    payload: S,
    limits: TransportLimits,
    connection: Connection,
    inbound: Box<dyn Inbound>,
) -> impl MessageBody<Error = Infallible> + use<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin + 'static,
{
    let Connection { outbox, kill, .. } = connection;
    let link = Rc::new(Link::new(inbound, outbox, Meter::new(limits), kill));
    let guard = Guard::new(payload, limits.message_bytes_max, Rc::clone(&link));
    let pump = Pump::new(limits.message_bytes_max, Rc::clone(&link));
    Body::new(WebsocketContext::create(pump, guard), link)
}
