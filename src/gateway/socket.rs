//! Opens sockets: handshake, then a session actor behind the transport.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::prelude::*;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};

use super::Door;
use super::accounts::error_response;
use super::session::{Frame, Pong, SessionActor, TransportClosed};
use super::transport::{
    Closed, HandshakeError, Inbound, InboundMessage, OriginPolicy, TransportLimits, UpgradeOptions, upgrade,
};
use crate::broker::connection::Connection;
use crate::protocol::codec::Encoding;
use crate::protocol::error::{CloseCode, ErrorCode, Refusal};
use crate::protocol::limits::FRAME_BYTES_MAX;

/// For whoever offers none of the subprotocols: a client of another version.
const SPOKEN: &str = "this server speaks sealcast.v1.msgpack and sealcast.v1.json";

/// Messages of one connection that may be open at once; then its socket is not read.
const MESSAGES_OUTSTANDING_MAX: usize = 64;

/// `GET /v1/socket`.
pub async fn open(request: HttpRequest, payload: web::Payload, door: web::Data<Door>) -> HttpResponse {
    let metrics = &door.broker.metrics;
    // The place is taken before the handshake, or handshakes at once would all find the same one free.
    let is_full = door.open.fetch_add(1, Ordering::Relaxed) >= door.settings.server.connections_max;
    if is_full || door.broker.is_draining() {
        door.open.fetch_sub(1, Ordering::Relaxed);
        metrics.handshakes.with_label_values(&["overloaded"]).inc();
        return error_response(
            Refusal::new(ErrorCode::LimitReached, "no further connection now; come back later"),
            503,
        );
    }
    let subprotocols = Encoding::ALL.map(Encoding::subprotocol);
    let settings = door.current();
    let origins = &settings.server.origins;
    let is_open_to_all = origins.iter().any(|origin| origin == "*");
    let options = UpgradeOptions {
        subprotocols: &subprotocols,
        origins: if is_open_to_all { OriginPolicy::Any } else { OriginPolicy::Listed(origins) },
        limits: TransportLimits {
            message_bytes_max: FRAME_BYTES_MAX,
            outstanding_bytes_max: 2 * FRAME_BYTES_MAX,
            outstanding_messages_max: MESSAGES_OUTSTANDING_MAX,
        },
        outbox: door.outbox_limits(),
        budget: &door.budget,
    };
    let result = upgrade(&request, payload, &options, |transport| {
        door.reaper.watch(&transport.outbox, &transport.kill);
        let encoding = transport.subprotocol.and_then(|index| Encoding::ALL.get(index)).copied();
        let connection = Connection::new(encoding.unwrap_or(Encoding::Json), transport.outbox);
        transport.kill.set_name(connection.id);
        tracing::debug!(connection.id = connection.id, "connection opened");
        let session = SessionActor::open(&door, Arc::clone(&connection), MESSAGES_OUTSTANDING_MAX * 2);
        Box::new(Line { session, connection })
    });
    match result {
        Ok(response) => {
            metrics.handshakes.with_label_values(&["accepted"]).inc();
            response
        }
        Err(error) => {
            door.open.fetch_sub(1, Ordering::Relaxed);
            metrics.handshakes.with_label_values(&[error.metric_label()]).inc();
            if error == HandshakeError::Subprotocol {
                return error_response(Refusal::new(ErrorCode::UnsupportedVersion, SPOKEN), 400);
            }
            error.error_response()
        }
    }
}

/// Carries what the transport reads to the session actor; the transport's meter bounds how much is on the way.
struct Line {
    session: Addr<SessionActor>,
    connection: Arc<Connection>,
}

impl Inbound for Line {
    fn message(&self, message: InboundMessage) {
        if self.session.try_send(Frame(message)).is_err() {
            self.connection.close(CloseCode::Overloaded);
        }
    }

    fn pong(&self) {
        // One sign of life that is lost in a full mailbox proves itself: the mailbox is full of others.
        let _ = self.session.try_send(Pong);
    }

    #[expect(clippy::disallowed_methods, reason = "told once for each connection, and must never be dropped")]
    fn closed(&self, how: Closed) {
        self.session.do_send(TransportClosed(how));
    }
}
