//! Keeps the connection: makes it, moves its frames, makes the next one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::account::{self, Fate};
use super::login::{self, LoginError};
use super::pump;
use super::state::{Counts, Progress, Shared, Status};
use super::{backups, chains, copies, info, profiles, renewal};
use crate::client::backoff::Backoff;
use crate::client::error::CloseReason;
use crate::client::event::Event;
use crate::client::friends;
use crate::client::net::socket::{self, End, Reader, Writer};
use crate::client::net::wire::{Outgoing, Wire};
use crate::protocol::error::CloseCode;
use crate::protocol::frame::{AdvanceCursor, Hello, Request, ServerFrame};

/// How long the server may be silent before it has said how often it pings.
const SILENCE_FIRST: Duration = Duration::from_secs(30);

/// How much later than the server says silence counts as loss.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

/// How a connection ended, and what the server said before.
struct Ended {
    end: End,
    fatal: Option<CloseReason>,
    /// 0 if the server named none.
    retry_after_ms: u64,
}

/// Runs until the client closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut generation = 0;
    loop {
        if matches!(&*shared.status.borrow(), Status::Closed(_)) {
            return;
        }
        let config = &shared.config;
        let opened = socket::open(&config.connector, &shared.endpoint, config.encoding, config.connect_timeout).await;
        let mut retry_after_ms = 0;
        match opened {
            Ok((writer, reader)) => {
                generation += 1;
                Counts::add(&shared.counts.connections);
                let (ended, was_live) = connected(&shared, generation, writer, reader).await;
                if was_live {
                    backoff.reset();
                }
                let code = match ended.end {
                    // What can be done about it the next login tells.
                    End::Closed(CloseCode::SessionExpired) => None,
                    End::Closed(code) if !code.reconnects() => Some(CloseReason::Code(code)),
                    End::Closed(_) | End::Lost => None,
                    End::ByUs => Some(CloseReason::ByUser),
                };
                if let Some(reason) = ended.fatal.or(code) {
                    match account::fate(&shared, reason) {
                        Fate::Closed => return shared.close(reason),
                        Fate::Deleted => return account::ended(&shared).await,
                        Fate::Unknown => {}
                    }
                }
                retry_after_ms = ended.retry_after_ms;
            }
            Err(error) => {
                tracing::debug!(%error, "no connection");
                shared.lock().last_failure = Some(error.to_string());
            }
        }
        let wait = backoff.after(Some(retry_after_ms));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.hurry.notified() => {}
        }
    }
}

/// Serves one connection; says whether it came to be live.
async fn connected(shared: &Arc<Shared>, generation: u64, writer: Writer, reader: Reader) -> (Ended, bool) {
    let (wire, outgoing) = Wire::new(generation);
    {
        let mut state = shared.lock();
        state.inboxes.clear();
        state.progress = Progress { wire: Some(wire.clone()), ..Progress::default() };
    }
    let ended = serve(shared, &wire, writer, outgoing, reader).await;
    wire.closed();
    {
        let mut state = shared.lock();
        state.progress = Progress::default();
        state.inboxes.clear();
        for chat in state.chats.values_mut() {
            chat.outbox.disconnected();
        }
    }
    let was_live = shared.status.send_if_modified(|status| {
        let was_live = matches!(status, Status::Live(_));
        if was_live {
            *status = Status::Connecting;
        }
        was_live
    });
    if was_live {
        shared.publish(vec![Event::Disconnected]);
    }
    shared.notify_moved();
    (ended, was_live)
}

async fn serve(
    shared: &Arc<Shared>,
    wire: &Wire,
    writer: Writer,
    outgoing: mpsc::Receiver<Outgoing>,
    reader: Reader,
) -> Ended {
    let retry_after_ms = AtomicU64::new(0);
    let (greet, hello) = oneshot::channel();
    let login = async {
        match login::begin(shared, wire, hello).await {
            Ok(()) => upkeep(shared, wire).await,
            Err(LoginError::Lost) => (End::Lost, None),
            Err(LoginError::Closed(reason)) => (End::Lost, Some(reason)),
        }
    };
    let (end, fatal) = tokio::select! {
        // What has arrived is taken before anything else ends the connection: the last words may matter.
        biased;
        end = receive(shared, wire, reader, greet, &retry_after_ms) => (end, None),
        end = socket::write(writer, outgoing, shared.config.encoding) => (end, None),
        ended = login => ended,
        () = wire.wait_cut() => (End::Lost, None),
    };
    Ended { end, fatal, retry_after_ms: retry_after_ms.load(Ordering::Relaxed) }
}

async fn receive(
    shared: &Arc<Shared>,
    wire: &Wire,
    mut reader: Reader,
    greet: oneshot::Sender<Hello>,
    retry_after_ms: &AtomicU64,
) -> End {
    let mut silence = SILENCE_FIRST;
    let mut greet = Some(greet);
    loop {
        let frame = match socket::read(&mut reader, shared.config.encoding, silence).await {
            Ok(frame) => frame,
            Err(end) => return end,
        };
        Counts::add(&shared.counts.frames_received);
        match frame {
            ServerFrame::Hello(hello) => {
                silence = Duration::from_secs(hello.ping_interval_s.saturating_mul(2)) + SILENCE_GRACE;
                if let Some(greet) = greet.take() {
                    // The login waits for it as long as the connection lasts.
                    let _ = greet.send(hello);
                }
            }
            ServerFrame::Ok(ok) => wire.done(ok.id, ok.result),
            ServerFrame::Error(error) => wire.refused(error),
            ServerFrame::Entry(entry) => shared.on_entry(wire, entry.chat_id, entry.entry),
            ServerFrame::Key(key) => shared.on_key(wire, key.chat_id, key.key),
            ServerFrame::Page(page) => shared.on_page(wire, page),
            ServerFrame::Live(_) => {
                shared.on_live();
            }
            ServerFrame::ChatDeleted(deleted) => shared.on_chat_deleted(&deleted),
            ServerFrame::ChatGone(gone) => shared.on_chat_gone(gone),
            ServerFrame::Signal(signal) => shared.on_signal(&signal),
            ServerFrame::Delivered(delivered) => shared.on_delivered(&delivered),
            ServerFrame::KeyRequested(requested) => copies::on_key_requested(shared, requested),
            ServerFrame::CopyRefused(refused) => copies::on_copy_refused(shared, &refused),
            ServerFrame::ChatInfo(shown) => info::on_chat_info(shared, *shown),
            ServerFrame::InfoKeyRequested(requested) => info::on_info_key_requested(shared, requested),
            ServerFrame::BackupsReady(_) => backups::on_backups_ready(shared),
            ServerFrame::ProfileChanged(changed) => profiles::on_changed(shared, changed),
            ServerFrame::ProfileKeyRequested(requested) => profiles::on_key_requested(shared, requested),
            ServerFrame::RecoveryRequested(request) => friends::on_requested(shared, request),
            ServerFrame::RecoveryCancelled(cancelled) => friends::on_cancelled(shared, cancelled),
            ServerFrame::SecretChanged(changed) => {
                let (chat_id, secret_id) = (changed.chat_id, changed.secret_id);
                shared.publish(vec![Event::SecretChanged { chat_id, secret_id }]);
            }
            ServerFrame::Approved(_) => {}
            ServerFrame::SessionPending(pending) => {
                shared.publish(vec![Event::SessionPending { session_id: pending.session_id }]);
            }
            ServerFrame::Bye(bye) => retry_after_ms.store(bye.retry_after_ms, Ordering::Relaxed),
        }
    }
}

/// Keeps what changed and tells cursors, as long as the connection lasts.
async fn upkeep(shared: &Arc<Shared>, wire: &Wire) -> (End, Option<CloseReason>) {
    pump::start_all(shared);
    loop {
        tokio::time::sleep(shared.config.upkeep_interval).await;
        keep_and_tell(shared, wire).await;
        chains::look_if_due(shared);
        renewal::look_if_due(shared);
    }
}

/// Keeps what changed, then tells the server up to where nothing is lacking.
pub(crate) async fn keep_and_tell(shared: &Arc<Shared>, wire: &Wire) {
    let ahead: Vec<AdvanceCursor> = {
        let state = shared.lock();
        let ahead = state.chats.iter().filter(|(_, chat)| chat.log.head().seq > chat.told);
        ahead.map(|(chat_id, chat)| AdvanceCursor { chat_id: *chat_id, seq: chat.log.head().seq }).collect()
    };
    if let Err(error) = shared.keep().await {
        tracing::error!(%error, "state cannot be kept");
        return;
    }
    for cursor in ahead {
        let (chat_id, seq) = (cursor.chat_id, cursor.seq);
        if wire.request(Request::AdvanceCursor(cursor), shared.config.request_timeout).await.is_ok()
            && let Some(chat) = shared.lock().chats.get_mut(&chat_id)
        {
            chat.told = chat.told.max(seq);
        }
    }
}
