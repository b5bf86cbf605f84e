//! The actor of one connection's session: login, heartbeat, rate, routing.
//!
//! A plain actor, apart from the socket: a peer that stops reading freezes its transport and not this. What it
//! does itself is decide; what takes time goes to the chat's actor or the store, and the answer goes straight to
//! the outbox.
//! Messages in: [`Frame`], [`Pong`], [`TransportClosed`] from the transport.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::Door;
use super::heartbeat::{Beat, Heartbeat, Rate, Verdict};
use super::requests::{self, Caller};
use super::transport::{Closed, InboundMessage, MessageKind};
use crate::broker::catch_up;
use crate::broker::connection::Connection;
use crate::broker::ready_frame::ReadyFrame;
use crate::broker::responder::{Responder, refused};
use crate::protocol::binary::{Nonce, SigningKey};
use crate::protocol::codec::Encoding;
use crate::protocol::error::{CloseCode, ErrorCode, Refusal};
use crate::protocol::frame::{
    Authenticate, Authenticated, Hello, Nothing, Reply, Request, ServerFrame, SessionState, login_bytes,
};
use crate::protocol::ids::{ChatId, SessionId, Timestamp};
use crate::protocol::limits::STAGED_KEPT_S;
use crate::protocol::membership::Change;
use crate::protocol::verify::Verifier;
use crate::store::Failure;
use crate::store::members::Requester;
use crate::store::sessions::{LoginSession, suspended};

/// A complete message from the peer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Frame(pub InboundMessage);

/// The peer answered a ping.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Pong;

/// The socket is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TransportClosed(pub Closed);

/// The actor of one connection's session.
#[derive(Debug)]
pub struct SessionActor {
    door: Door,
    connection: Arc<Connection>,
    stage: Stage,
    heartbeat: Heartbeat,
    requests: Rate,
    bytes: Rate,
    membership_changes: Rate,
    signals: Rate,
    staged: HashMap<ChatId, Instant>,
    mailbox: usize,
    has_left: bool,
}

/// How far the login has come.
#[derive(Debug)]
enum Stage {
    /// Waits for the one answer to the nonce.
    New(Nonce),
    /// The answer is being looked at.
    Checking,
    /// A session that waits for approval.
    Pending(Requester),
    /// A session whose time ran out: it may renew itself.
    Expired(Requester),
    /// A live session.
    Live(Caller),
    /// Going.
    Closed,
}

/// The longest timer.
const TIMER_MAX: Duration = Duration::from_secs(86_400);

/// Chats for which one connection may have copies ahead of their message.
const STAGED_CHATS_MAX: usize = 4;

/// A key with which nobody signs: what an unknown session's login is checked against, so that it takes as long.
const NOBODY: SigningKey = SigningKey([
    0x3d, 0x40, 0x17, 0xc3, 0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc, 0x9c, 0x98, 0x2c,
    0xcf, 0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c,
]);

impl SessionActor {
    /// Starts the actor of a connection that was just opened.
    #[must_use]
    pub fn open(door: &Door, connection: Arc<Connection>, mailbox: usize) -> Addr<Self> {
        door.broker.directory.meet(&connection);
        let limits = &door.current().limits;
        let minute = Duration::from_secs(60);
        let changes = limits.membership_changes_per_minute;
        Self {
            connection,
            stage: nonce().map_or(Stage::Closed, Stage::New),
            heartbeat: Heartbeat::new(door.ping_interval(), Instant::now()),
            requests: Rate::new(limits.requests_per_s, Duration::from_secs(1), limits.requests_burst),
            bytes: Rate::of_bytes(limits.bytes_per_s, limits.bytes_burst),
            membership_changes: Rate::new(changes, minute, changes),
            signals: Rate::new(limits.signals_per_s, Duration::from_secs(1), limits.signals_burst),
            staged: HashMap::new(),
            door: door.clone(),
            mailbox,
            has_left: false,
        }
        .start()
    }

    fn hello(&self) {
        let Stage::New(nonce) = &self.stage else { return self.connection.close(CloseCode::Internal) };
        let (settings, broker) = (&self.door.settings, &self.door.broker);
        self.connection.push_reply(&ServerFrame::Hello(Hello {
            nonce: *nonce,
            server_name: settings.server.name.clone(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            time: broker.store.clock().now(),
            login_timeout_s: settings.server.login_timeout_s,
            ping_interval_s: settings.server.ping_interval_s,
            key_messages_max: settings.keys.messages_max,
            key_messages_max_large: settings.keys.messages_max_large,
            key_recipients_large: settings.keys.recipients_large,
            key_age_max_s: settings.keys.age_max_s,
        }));
    }

    fn beat(&mut self) {
        let is_held = self.connection.outbox.stalled_for(Instant::now()) > Duration::ZERO;
        match self.heartbeat.tick(Instant::now(), is_held) {
            Beat::Ping => {
                // Kept out of the bound of pushes: a connection that lags must still be asked.
                let _ = self.connection.outbox.push_reply(&ReadyFrame::ping(&[]));
            }
            Beat::Dead => self.connection.close(CloseCode::IdleTimeout),
        }
    }

    fn frame(&mut self, message: InboundMessage, ctx: &mut Context<Self>) {
        fail::fail_point!("session::frame");
        if matches!(self.stage, Stage::Closed) {
            return;
        }
        let is_of_encoding = match self.connection.encoding {
            Encoding::Json => message.kind == MessageKind::Text,
            Encoding::MessagePack => message.kind == MessageKind::Binary,
        };
        if !is_of_encoding {
            return self.connection.close(CloseCode::UnsupportedData);
        }
        let metrics = &self.door.broker.metrics;
        let bytes = u32::try_from(message.data.len()).unwrap_or(u32::MAX);
        metrics.received_bytes.inc_by(u64::from(bytes));
        match self.requests.check().or(|| self.bytes.check_many(bytes)) {
            Verdict::Pass => {}
            Verdict::Flood => return self.connection.close(CloseCode::PolicyViolation),
            Verdict::Wait(wait) => {
                // Which request it was is read all the same, or its sender would wait for an answer for ever.
                let id = self
                    .connection
                    .encoding
                    .decode_client(&message.data)
                    .map_or_else(|error| error.id, |frame| Some(frame.id));
                return self.connection.push_reply(&refused(id, too_often(wait), metrics));
            }
        }
        let frame = match self.connection.encoding.decode_client(&message.data) {
            Ok(frame) => frame,
            Err(error) => {
                let refusal = Refusal::new(error.code, "the frame cannot be read");
                return self.connection.push_reply(&refused(error.id, refusal, metrics));
            }
        };
        metrics.requests.with_label_values(&[frame.request.name()]).inc();
        let permit = Box::new(message.credit);
        let responder = Responder::new(Arc::clone(&self.connection), frame.id, metrics.clone(), permit);
        self.route(frame.request, responder, ctx);
    }

    fn route(&mut self, request: Request, mut responder: Responder, ctx: &mut Context<Self>) {
        if let Request::Authenticate(authenticate) = request {
            return self.authenticate(&authenticate, responder, ctx);
        }
        if let Some(code) = self.connection.barred_by() {
            return responder.refuse(match code {
                CloseCode::AccountSuspended => suspended(),
                // There is no such account any more.
                _ => Refusal::new(ErrorCode::Unauthenticated, "the account has ended"),
            });
        }
        let caller = match &self.stage {
            Stage::Live(caller) => caller.clone(),
            Stage::Pending(who) => return requests::pending(&self.door, *who, &request, responder),
            Stage::Expired(who) => return requests::expired(&self.door, *who, &request, responder),
            Stage::New(_) | Stage::Checking | Stage::Closed => {
                return responder.refuse(Refusal::new(ErrorCode::Unauthenticated, "log in first"));
            }
        };
        match self.door.broker.open_work.begin() {
            Some(open) => responder.keep_open(open),
            None => {
                let refusal = Refusal::new(ErrorCode::StorageUnavailable, "the server restarts; send it again");
                return responder.refuse(refusal);
            }
        }
        let verdict = match &request {
            Request::Signal(_) => self.signals.check(),
            request if is_limited(request) => self.membership_changes.check(),
            _ => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => {}
            Verdict::Wait(wait) => return responder.refuse(too_often(wait)),
            Verdict::Flood => {
                responder.refuse(too_often(Duration::from_secs(60)));
                return self.connection.close(CloseCode::PolicyViolation);
            }
        }
        if let Request::StageCopies(part) = &request
            && let Err(refusal) = self.stage(part.chat_id)
        {
            return responder.refuse(refusal);
        }
        requests::live(&self.door, &caller, request, responder);
    }

    /// Bounds what one connection may leave in memory ahead of its messages.
    fn stage(&mut self, chat_id: ChatId) -> Result<(), Refusal> {
        let kept = Duration::from_secs(STAGED_KEPT_S);
        self.staged.retain(|_, since| since.elapsed() < kept);
        if self.staged.len() >= STAGED_CHATS_MAX && !self.staged.contains_key(&chat_id) {
            return Err(too_often(kept));
        }
        self.staged.insert(chat_id, Instant::now());
        Ok(())
    }

    fn authenticate(&mut self, authenticate: &Authenticate, responder: Responder, ctx: &mut Context<Self>) {
        let Stage::New(nonce) = &self.stage else {
            // One nonce, one try.
            return self
                .refuse_login(responder, Refusal::new(ErrorCode::Unauthenticated, "one login on one connection"));
        };
        let bytes = login_bytes(nonce, &self.door.settings.server.name, authenticate.session_id);
        let (session_id, signature) = (authenticate.session_id, authenticate.signature);
        self.stage = Stage::Checking;
        let broker = self.door.broker.clone();
        let look_up = async move {
            let session = broker.store.login_session(session_id).await?;
            let key = session.map_or(NOBODY, |session| session.signing_public_key);
            let verifies = key.verifies(&bytes, &signature);
            Ok(session.filter(|_| verifies))
        };
        let finish = look_up.into_actor(self).map(move |session, actor, ctx| {
            actor.checked(session_id, session, responder, ctx);
        });
        ctx.spawn(finish);
    }

    fn checked(
        &mut self,
        session_id: SessionId,
        session: Result<Option<LoginSession>, Failure>,
        responder: Responder,
        ctx: &mut Context<Self>,
    ) {
        if matches!(self.stage, Stage::Closed) {
            return;
        }
        let session = match session {
            Ok(session) => session,
            Err(failure) => return self.refuse_login(responder, failure.refusal()),
        };
        let refusal = match session.map(|session| (session.state, session.is_certified)) {
            None => Some(Refusal::new(ErrorCode::Unauthenticated, "no such session, or not its signature")),
            // Only who signs as the session learns what became of it.
            Some((SessionState::Expired, false)) => {
                Some(Refusal::new(ErrorCode::SessionExpired, "the session's time ran out"))
            }
            Some((SessionState::Revoked, _)) => {
                Some(Refusal::new(ErrorCode::SessionRevoked, "the session was revoked"))
            }
            // Who was revoked is told that first: it wipes what it holds.
            Some(_) if session.is_some_and(|session| session.is_suspended) => Some(suspended()),
            Some((SessionState::Pending | SessionState::Live | SessionState::Expired, _)) => None,
        };
        let (Some(session), None) = (session, &refusal) else {
            let fallback = || Refusal::new(ErrorCode::Unauthenticated, "no such session");
            return self.refuse_login(responder, refusal.unwrap_or_else(fallback));
        };
        let who = Requester { user_id: session.user_id, session_id };
        self.connection.log_in(who);
        if session.state == SessionState::Expired {
            return self.wait_for_renewal(who, responder, ctx);
        }
        let metrics = &self.door.broker.metrics;
        metrics.connections.with_label_values(&["new"]).dec();
        metrics.connections.with_label_values(&["authenticated"]).inc();
        metrics.logins.with_label_values(&["accepted"]).inc();
        if let Some(older) = self.door.broker.directory.enter(session_id, &self.connection) {
            older.close(CloseCode::Replaced);
            if older.id == self.connection.id {
                return;
            }
        }
        self.expire_at(session.expired_at, ctx);
        if session.state == SessionState::Live {
            self.stage = Stage::Live(Caller {
                who,
                signing_key: session.signing_public_key,
                connection: Arc::clone(&self.connection),
            });
            self.go_live(who);
        } else {
            self.stage = Stage::Pending(who);
            self.look_for_approval(who);
        }
        responder.ok(Reply::Authenticated(Authenticated { user_id: session.user_id, state: session.state }));
    }

    /// Lets a session that has expired renew itself, and nothing else; it is live on its next connection.
    ///
    /// It enters no directory: nothing is pushed to it, and it replaces nobody.
    fn wait_for_renewal(&mut self, who: Requester, responder: Responder, ctx: &mut Context<Self>) {
        let metrics = &self.door.broker.metrics;
        metrics.connections.with_label_values(&["new"]).dec();
        metrics.connections.with_label_values(&["authenticated"]).inc();
        metrics.logins.with_label_values(&[ErrorCode::SessionExpired.as_str()]).inc();
        self.stage = Stage::Expired(who);
        let patience = Duration::from_secs(self.door.settings.server.login_timeout_s);
        ctx.run_later(patience, |actor, _| actor.connection.close(CloseCode::SessionExpired));
        let state = SessionState::Expired;
        responder.ok(Reply::Authenticated(Authenticated { user_id: who.user_id, state }));
    }

    fn go_live(&self, who: Requester) {
        let (broker, connection) = (self.door.broker.clone(), Arc::clone(&self.connection));
        actix::spawn(catch_up::run(broker.clone(), Arc::clone(&connection), who));
        actix::spawn(async move {
            // A session that ended between the look at it and its entry in the directory was not found there.
            match broker.store.login_session(who.session_id).await {
                Ok(Some(session)) if session.is_suspended => connection.bar(CloseCode::AccountSuspended),
                Ok(Some(session)) if session.state == SessionState::Live => {}
                // Only who was revoked is told so: it wipes what it holds.
                Ok(Some(session)) if session.state == SessionState::Expired => {
                    connection.close(CloseCode::SessionExpired);
                }
                Ok(_) => connection.close(CloseCode::SessionRevoked),
                // It might be one of those; on its next connection it is looked at again.
                Err(_) => return connection.close(CloseCode::Overloaded),
            }
            broker.saw(who.session_id);
            broker.look_after(&connection, who).await;
        });
    }

    /// Tells a session that was approved between the look at it and its entry in the directory: nobody else does.
    fn look_for_approval(&self, who: Requester) {
        let (broker, connection) = (self.door.broker.clone(), Arc::clone(&self.connection));
        actix::spawn(async move {
            match broker.store.login_session(who.session_id).await {
                Ok(Some(session)) if session.is_suspended => connection.bar(CloseCode::AccountSuspended),
                Ok(Some(session)) if session.state == SessionState::Live => {
                    connection.push_reply(&ServerFrame::Approved(Nothing {}));
                }
                Ok(_) => {}
                // It would wait for nothing; on its next connection it learns what it is.
                Err(_) => connection.close(CloseCode::Overloaded),
            }
        });
    }

    /// Ends the connection when its session's time runs out, and writes that down at once.
    fn expire_at(&self, expired_at: Timestamp, ctx: &mut Context<Self>) {
        let left = expired_at.get().saturating_sub(self.door.broker.store.clock().now().get());
        // A timer does not reach for ever; an early one looks and is set again.
        ctx.run_later(Duration::from_micros(left).min(TIMER_MAX), |actor, ctx| {
            let (broker, who) = (actor.door.broker.clone(), actor.connection.who());
            let look = async move {
                let who = who?;
                let _ = broker.expire(who.user_id).await;
                broker.store.login_session(who.session_id).await.ok()?
            };
            ctx.spawn(look.into_actor(actor).map(|session, actor, ctx| match session {
                // Still waiting, or approved meanwhile, or far from its end.
                Some(session) if matches!(session.state, SessionState::Pending | SessionState::Live) => {
                    actor.expire_at(session.expired_at, ctx);
                }
                _ => actor.connection.close(CloseCode::SessionExpired),
            }));
        });
    }

    fn refuse_login(&mut self, responder: Responder, refusal: Refusal) {
        let code = refusal.code;
        self.door.broker.metrics.logins.with_label_values(&[code.as_str()]).inc();
        responder.refuse(refusal);
        self.connection.close(match code {
            ErrorCode::SessionExpired => CloseCode::SessionExpired,
            ErrorCode::SessionRevoked => CloseCode::SessionRevoked,
            ErrorCode::AccountSuspended => CloseCode::AccountSuspended,
            ErrorCode::StorageUnavailable | ErrorCode::Internal => CloseCode::Overloaded,
            _ => CloseCode::LoginRefused,
        });
    }

    fn closed(&mut self, how: &Closed, ctx: &mut Context<Self>) {
        self.connection.outbox.abort();
        self.leave(match how {
            Closed::ByPeer { .. } => "by_peer",
            Closed::Violation(violation) => violation.label(),
            Closed::ByUs { code } => CloseCode::from_number(*code).map_or("by_us", CloseCode::as_str),
            Closed::Lost => "lost",
            Closed::Cut => "cut",
        });
        ctx.stop();
    }

    /// Takes the connection out of everything; once.
    fn leave(&mut self, reason: &str) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let metrics = &self.door.broker.metrics;
        let was_in = self.connection.who().is_some();
        metrics.connections.with_label_values(&[if was_in { "authenticated" } else { "new" }]).dec();
        metrics.connections_closed.with_label_values(&[reason]).inc();
        tracing::debug!(connection.id = self.connection.id, reason, "connection closed");
        self.door.open.fetch_sub(1, Ordering::Relaxed);
        self.stage = Stage::Closed;
        self.connection.wake.notify_one();
        self.door.broker.directory.part(&self.connection);
        if let Some(who) = self.connection.who() {
            self.door.broker.directory.leave(who.session_id, &self.connection);
            for chat_id in self.connection.chats() {
                self.door.broker.directory.unsubscribe(chat_id, &self.connection);
            }
        }
    }
}

/// Whether a request counts against the limit of changes of chats: taking somebody out never does.
fn is_limited(request: &Request) -> bool {
    match request {
        Request::ChangeMembership(change) => !matches!(change.change.change.change, Change::Remove | Change::Leave),
        Request::CreateChat(_) | Request::SetChatInfo(_) | Request::SetProfile(_) => true,
        _ => false,
    }
}

fn too_often(wait: Duration) -> Refusal {
    Refusal::later("too often", wait)
}

/// 32 bytes that nobody can foresee; none when the system has no randomness to give.
fn nonce() -> Option<Nonce> {
    let mut bytes = [0; Nonce::LENGTH];
    getrandom::fill(&mut bytes).ok().map(|()| Nonce(bytes))
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.mailbox);
        self.door.broker.metrics.connections.with_label_values(&["new"]).inc();
        self.hello();
        if self.door.broker.is_draining() {
            // Its handshake began before the drain did, which may not have seen it.
            self.connection.say_bye(self.door.settings.drain.retry_spread_ms);
        }
        ctx.run_later(Duration::from_secs(self.door.settings.server.login_timeout_s), |actor, _| {
            if actor.connection.who().is_none() {
                actor.connection.close(CloseCode::LoginTimeout);
            }
        });
        ctx.run_interval(self.door.ping_interval(), |actor, _| actor.beat());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // An actor that ended by a panic hears of nothing any more: its connection must not go on without it.
        if !self.has_left {
            self.connection.close(CloseCode::Internal);
            self.leave(CloseCode::Internal.as_str());
        }
    }
}

impl Handler<Frame> for SessionActor {
    type Result = ();

    fn handle(&mut self, Frame(message): Frame, ctx: &mut Self::Context) {
        self.heartbeat.heard(Instant::now());
        self.frame(message, ctx);
    }
}

impl Handler<Pong> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Pong, _: &mut Self::Context) {
        self.heartbeat.heard(Instant::now());
    }
}

impl Handler<TransportClosed> for SessionActor {
    type Result = ();

    fn handle(&mut self, TransportClosed(how): TransportClosed, ctx: &mut Self::Context) {
        self.closed(&how, ctx);
    }
}
