//! What each request of a session that is logged in leads to: the chat's actor, or one operation of the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tracing::Instrument;

use super::Door;
use super::signals;
use crate::broker::Broker;
use crate::broker::catch_up::{Standing, judge, say_gone, subscribe};
use crate::broker::chat::actor::QUEUE_PAUSE;
use crate::broker::chat::fan_out::welcome;
use crate::broker::chat::messages::{Control, ControlRequest, Stage, Submit, Subscribed};
use crate::broker::connection::Connection;
use crate::broker::responder::Responder;
use crate::protocol::binary::SigningKey;
use crate::protocol::error::{CloseCode, ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{
    Chats, CreateChat, Cursor, KeyList, MemberNames, Nothing, Page, Reply, Request, Resume, ServerFrame,
};
use crate::protocol::ids::{ChatId, Seq};
use crate::protocol::limits::{CHAINS_PER_REQUEST_MAX, CURSORS_MAX, KEYS_PER_REQUEST_MAX};
use crate::store::Failure;
use crate::store::members::Requester;

/// A live session that asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it is.
    pub who: Requester,
    /// What it signs with.
    pub signing_key: SigningKey,
    /// Its connection.
    pub connection: Arc<Connection>,
}

/// Serves a session that waits for approval: it may do next to nothing.
pub fn pending(door: &Door, who: Requester, request: &Request, responder: Responder) {
    match request {
        Request::Ping(_) => responder.ok(Reply::Done(Nothing {})),
        Request::FetchHandover(_) => {
            let broker = door.broker.clone();
            spawn(responder, async move { broker.store.handover(who.session_id).await.map(Reply::Handover) });
        }
        // A session that a login has made certifies itself; it is live on its next connection.
        Request::ApproveSession(approve) => {
            let (broker, approve) = (door.broker.clone(), approve.clone());
            spawn(responder, async move {
                let changed = broker.store.certify_session(who, &approve, &broker.options.sessions).await?;
                broker.sessions_changed(&changed, CloseCode::SessionRevoked);
                Ok(Reply::Done(Nothing {}))
            });
        }
        // It may make room for itself too, by the identity key.
        Request::RevokeSession(revoke) => {
            let (broker, revoke) = (door.broker.clone(), revoke.clone());
            spawn(responder, async move {
                let changed = broker.store.revoke_session(who.user_id, who.session_id, &revoke).await?;
                broker.sessions_changed(&changed, CloseCode::SessionRevoked);
                Ok(Reply::Done(Nothing {}))
            });
        }
        _ => responder.refuse(Refusal::new(ErrorCode::SessionPending, "the session waits for approval")),
    }
}

/// Serves a session whose time ran out: it may renew its certificate. It is live on its next connection.
pub fn expired(door: &Door, who: Requester, request: &Request, responder: Responder) {
    match request {
        Request::Ping(_) => responder.ok(Reply::Done(Nothing {})),
        Request::ApproveSession(approve) if approve.certificate.certificate.session_id == who.session_id => {
            let (broker, approve) = (door.broker.clone(), approve.clone());
            spawn(responder, async move {
                let changed = broker.store.renew_session(who, &approve, &broker.options.sessions).await?;
                broker.sessions_changed(&changed, CloseCode::SessionRevoked);
                Ok(Reply::Done(Nothing {}))
            });
        }
        _ => responder.refuse(Refusal::new(ErrorCode::SessionExpired, "the session's time ran out: renew it")),
    }
}

/// Serves a live session.
pub fn live(door: &Door, caller: &Caller, request: Request, responder: Responder) {
    let (who, broker) = (caller.who, door.broker.clone());
    match request {
        Request::Send(send) => {
            if send.new_key.as_ref().is_some_and(|new_key| new_key.staged.is_some() && !new_key.copies.is_empty()) {
                let message = "copies went ahead or are in the frame, not both";
                return responder.refuse(Refusal::new(ErrorCode::Malformed, message));
            }
            let signing_key = caller.signing_key;
            let chat_id = send.chat_id;
            to_chat(&broker, chat_id, Submit { who, signing_key, send, since: Instant::now(), responder, count: None });
        }
        Request::StageCopies(part) => {
            to_chat(&broker, part.chat_id, Stage { who, part, since: Instant::now(), responder });
        }
        Request::ChangeMembership(change) => {
            let chat_id = change.chat_id;
            let request = ControlRequest::Membership(Box::new(change));
            to_chat(&broker, chat_id, Control { who, request, since: Instant::now(), responder });
        }
        Request::MakeGeneration(make) => {
            let chat_id = make.chat_id;
            let request = ControlRequest::Generation(Box::new(make));
            to_chat(&broker, chat_id, Control { who, request, since: Instant::now(), responder });
        }
        Request::RefuseGeneration(refuse) => {
            let chat_id = refuse.chat_id;
            let request = ControlRequest::RefuseGeneration(Box::new(refuse));
            to_chat(&broker, chat_id, Control { who, request, since: Instant::now(), responder });
        }
        Request::FetchGroupKeys(fetch) => {
            bulky(caller, responder, async move { broker.store.group_keys(who, &fetch).await.map(Reply::GroupKeys) })
        }
        Request::UploadLinks(upload) => spawn(responder, async move {
            broker.store.upload_links(who, &upload).await?;
            Ok(Reply::Done(Nothing {}))
        }),
        Request::FetchLinks(fetch) => {
            bulky(caller, responder, async move { broker.store.links(who, &fetch).await.map(Reply::Links) })
        }
        Request::FetchArchives(fetch) => {
            bulky(caller, responder, async move { broker.store.archives(who, &fetch).await.map(Reply::Archives) })
        }
        Request::DeleteChat(delete) => {
            let chat_id = delete.chat_id;
            let request = ControlRequest::Delete(Box::new(delete));
            to_chat(&broker, chat_id, Control { who, request, since: Instant::now(), responder });
        }
        Request::CreateChat(create) => spawn(responder, async move { create_chat(&broker, who, &create).await }),
        Request::Resume(cursors) => {
            let connection = Arc::clone(&caller.connection);
            spawn(responder, async move { resume(&broker, &connection, who, cursors).await });
        }
        Request::LookupUser(lookup) => {
            spawn(responder, async move { broker.store.lookup_user(&lookup.username).await.map(Reply::User) });
        }
        Request::ListSessions(_) => {
            bulky(caller, responder, async move { broker.store.list_sessions(who).await.map(Reply::Sessions) });
        }
        Request::ApproveSession(approve) => spawn(responder, async move {
            let limits = &broker.options.sessions;
            let changed = broker.store.approve_session(who.user_id, who.session_id, &approve, limits).await?;
            broker.sessions_changed(&changed, CloseCode::SessionRevoked);
            let approved = approve.certificate.certificate.session_id;
            if let Some(waiting) = broker.directory.connection(approved).filter(|_| approved != who.session_id) {
                waiting.push_reply(&ServerFrame::Approved(Nothing {}));
            }
            Ok(Reply::Done(Nothing {}))
        }),
        Request::RevokeSession(revoke) => spawn(responder, async move {
            let changed = broker.store.revoke_session(who.user_id, who.session_id, &revoke).await?;
            // A session that revokes itself gets its answer before its connection closes.
            let done = Ok(Reply::Done(Nothing {}));
            actix::spawn(async move { broker.sessions_changed(&changed, CloseCode::SessionRevoked) });
            done
        }),
        Request::UploadBackups(upload) => spawn(responder, async move { broker.upload_backups(who, &upload).await }),
        Request::FetchBackups(_) => {
            bulky(caller, responder, async move { broker.store.backups(who).await.map(Reply::Backups) });
        }
        Request::FetchHandover(_) => {
            spawn(responder, async move { broker.store.handover(who.session_id).await.map(Reply::Handover) });
        }
        Request::ListChats(_) => {
            bulky(caller, responder, async move {
                broker.store.list_chats(who).await.map(|chats| Reply::Chats(Chats { chats }))
            });
        }
        Request::ListMembers(list) => bulky(caller, responder, async move {
            let members = broker.store.member_names(who, list.chat_id).await?;
            Ok(Reply::Members(MemberNames { members }))
        }),
        Request::History(history) => {
            let (chat_id, direction, seq, limit) = (history.chat_id, history.direction, history.seq, history.limit);
            let connection = Arc::clone(&caller.connection);
            page(caller, responder, async move {
                broker.store.page(who, chat_id, direction, seq, limit, connection.page_bytes()).await
            });
        }
        Request::Events(events) => {
            page(caller, responder, async move {
                broker.store.events(who, events.chat_id, events.after, events.before).await
            });
        }
        Request::Keys(keys) => {
            if keys.key_ids.len() > KEYS_PER_REQUEST_MAX {
                let limit = KEYS_PER_REQUEST_MAX as u64;
                return responder.refuse(Refusal::limit(ErrorCode::TooLarge, "too many keys in one request", limit));
            }
            spawn(responder, async move {
                let keys = broker.store.keys(who, keys.chat_id, &keys.key_ids).await?;
                Ok(Reply::Keys(KeyList { keys }))
            });
        }
        Request::AdvanceCursor(cursor) => signals::advance(&broker, caller, cursor, responder),
        Request::Signal(signal) => signals::signal(&broker, caller, signal, responder),
        Request::ListDeliveries(list) => signals::deliveries(&broker, caller, list, responder),
        Request::SetLabel(set) => spawn(responder, async move {
            broker.store.set_label(who, &set).await?;
            Ok(Reply::Done(Nothing {}))
        }),
        Request::Ping(_) => responder.ok(Reply::Done(Nothing {})),
        Request::UserEvents(events) => {
            if events.users.len() > CHAINS_PER_REQUEST_MAX {
                let limit = CHAINS_PER_REQUEST_MAX as u64;
                return responder.refuse(Refusal::limit(ErrorCode::TooLarge, "too many users in one request", limit));
            }
            bulky(caller, responder, async move { broker.store.user_events(&events.users).await.map(Reply::Chains) });
        }
        Request::UploadCopies(upload) => {
            spawn(responder, async move { broker.upload_copies(who, &upload).await });
        }
        Request::RequestKeys(request) => {
            spawn(responder, async move { broker.request_keys(who, &request).await });
        }
        Request::RefuseCopy(refuse) => spawn(responder, async move { broker.refuse_copy(who, &refuse).await }),
        Request::SetChatInfo(set) => spawn(responder, async move { broker.set_chat_info(who, &set).await }),
        Request::UploadInfoKeys(upload) => spawn(responder, async move { broker.upload_info_keys(who, &upload).await }),
        Request::RequestInfoKey(ask) => spawn(responder, async move { broker.request_info_key(who, &ask).await }),
        Request::SetProfile(set) => spawn(responder, async move { broker.set_profile(who, &set).await }),
        Request::FetchProfile(fetch) => bulky(caller, responder, async move {
            let shown = broker.store.fetch_profile(who, fetch.user_id).await?;
            Ok(Reply::Profile(Box::new(shown)))
        }),
        Request::UploadProfileKeys(upload) => {
            spawn(responder, async move { broker.upload_profile_keys(who, &upload).await });
        }
        Request::RequestProfileKey(ask) => {
            spawn(responder, async move { broker.request_profile_key(who, &ask).await });
        }
        Request::FetchUserKeys(fetch) => spawn(responder, async move { broker.fetch_user_keys(&fetch).await }),
        Request::SetShares(set) => spawn(responder, async move {
            broker.store.set_shares(who, &set).await?;
            Ok(Reply::Done(Nothing {}))
        }),
        Request::FetchShare(fetch) => spawn(responder, async move {
            let share = broker.store.share(who, fetch.user_id).await?;
            Ok(Reply::Share(Box::new(share)))
        }),
        Request::ListRecoveryRequests(_) => {
            bulky(caller, responder, async move { broker.list_recovery_requests(who).await });
        }
        Request::ReleaseShare(release) => spawn(responder, async move { broker.release_share(who, &release).await }),
        Request::CancelRecoveryRequest(cancel) => {
            spawn(responder, async move { broker.cancel_recovery_request(who, &cancel).await });
        }
        Request::SetSecret(set) => spawn(responder, async move { broker.set_secret(who, &set).await }),
        Request::DeleteSecret(delete) => spawn(responder, async move { broker.delete_secret(who, &delete).await }),
        Request::ListSecrets(list) => {
            bulky(caller, responder, async move { broker.store.list_secrets(who, &list).await.map(Reply::Secrets) });
        }
        Request::FetchSecret(fetch) => bulky(caller, responder, async move {
            broker.store.fetch_secret(who, &fetch).await.map(|secret| Reply::Secret(Box::new(secret)))
        }),
        Request::ConfirmSecret(confirm) => spawn(responder, async move {
            broker.store.confirm_secret(who, &confirm).await?;
            Ok(Reply::Done(Nothing {}))
        }),
        Request::FetchSecretLog(fetch) => {
            bulky(caller, responder, async move { broker.store.secret_log(who, &fetch).await.map(Reply::SecretLog) });
        }
        Request::DeleteAccount(delete) => spawn(responder, async move {
            let changed = broker.store.delete_account(who, &delete.deletion).await?;
            // Who ended the account gets the answer before the connection closes.
            let done = Ok(Reply::Done(Nothing {}));
            actix::spawn(async move { broker.sessions_changed(&changed, CloseCode::SessionRevoked) });
            done
        }),
        Request::FetchSettings(_) => {
            bulky(caller, responder, async move { broker.store.settings(who).await.map(Reply::Settings) });
        }
        Request::SetAddPolicy(set) => spawn(responder, async move {
            broker.store.set_add_policy(who, set.policy).await?;
            Ok(Reply::Done(Nothing {}))
        }),
        Request::SetBlock(set) => spawn(responder, async move {
            broker.store.set_block(who, set.user_id, set.blocked).await?;
            if !set.blocked {
                broker.profile_is_open_to_more(who.user_id);
            }
            Ok(Reply::Done(Nothing {}))
        }),
        // The session actor answers logins itself.
        Request::Authenticate(_) => {
            responder.refuse(Refusal::new(ErrorCode::Unauthenticated, "one login on one connection"))
        }
    }
}

/// Runs one operation and answers with what comes of it.
pub(super) fn spawn(responder: Responder, work: impl Future<Output = Result<Reply, Failure>> + 'static) {
    // What the store logs says for whom it worked.
    let span = tracing::info_span!("request", connection.id = responder.connection_id());
    actix::spawn(async move { responder.answer(work.await.map_err(Failure::refusal)) }.instrument(span));
}

/// Reads a page when the connection has room for it, one at a time.
fn page(caller: &Caller, responder: Responder, read: impl Future<Output = Result<Page, Failure>> + 'static) {
    bulky(caller, responder, async move { read.await.map(Reply::Page) });
}

/// Reads what is large when the connection has room for it, one at a time.
fn bulky(caller: &Caller, responder: Responder, read: impl Future<Output = Result<Reply, Failure>> + 'static) {
    let connection = Arc::clone(&caller.connection);
    actix::spawn(async move {
        let _reading = connection.reading.lock().await;
        connection.outbox.drained().await;
        responder.answer(read.await.map_err(Failure::refusal));
    });
}

/// Passes a request to its chat. A full mailbox is an answer too.
fn to_chat<M>(broker: &Broker, chat_id: ChatId, message: M)
where
    M: actix::Message + Send + Answerable + 'static,
    M::Result: Send,
    crate::broker::chat::actor::ChatActor: actix::Handler<M>,
{
    let full = Refusal::later("too many requests wait in this chat", QUEUE_PAUSE);
    let Some(chat) = broker.directory.chat(broker, chat_id) else { return message.refuse(full) };
    match chat.try_send(message) {
        Ok(()) => {}
        Err(actix::dev::SendError::Full(message)) => {
            broker.metrics.queue_full.with_label_values(&["chat_mailbox"]).inc();
            message.refuse(full);
        }
        Err(actix::dev::SendError::Closed(message)) => {
            message.refuse(Refusal::new(ErrorCode::Internal, "the chat is being loaded again; send it again"));
        }
    }
}

/// A request that can be refused before its chat has seen it.
trait Answerable {
    fn refuse(self, refusal: Refusal);
}

macro_rules! answerable {
    ($($message:ty),*) => {
        $(impl Answerable for $message {
            fn refuse(self, refusal: Refusal) {
                self.responder.refuse(refusal);
            }
        })*
    };
}

answerable!(Submit, Stage, Control);

async fn create_chat(broker: &Broker, who: Requester, create: &CreateChat) -> Result<Reply, Failure> {
    let limits = &broker.options.sessions;
    let changed = match broker.store.create_chat(who, create, limits).await {
        Err(Failure::ExpiryDue) => {
            broker.expire(who.user_id).await?;
            broker.store.create_chat(who, create, limits).await?
        }
        result => result?,
    };
    // Also after a repeated request: the first may have ended between its commit and this.
    let sessions = broker.sessions_to_welcome(who.user_id).await;
    welcome(&broker.directory, create.chat_id, changed.seq, &sessions);
    Ok(Reply::Changed(changed))
}

/// Stands the connection in each of its chats, and sends those that are behind to the store.
///
/// First it stands, then the store is looked at: whatever is committed after the look finds it standing.
async fn resume(
    broker: &Broker,
    connection: &Arc<Connection>,
    who: Requester,
    resume: Resume,
) -> Result<Reply, Failure> {
    if resume.cursors.len() > CURSORS_MAX {
        return Err(Refusal::limit(ErrorCode::TooLarge, "too many cursors", CURSORS_MAX as u64).into());
    }
    let under_way = connection.live.begin_resume(&connection.wake);
    let mut standing = std::collections::HashMap::with_capacity(resume.cursors.len());
    for Cursor { chat_id, seq } in resume.cursors {
        let was_in = connection.stand(chat_id);
        let subscribed = subscribe(broker, connection, chat_id, seq).await;
        standing.insert(chat_id, (seq, subscribed, was_in));
    }
    // Whoever comes into a chat by a commit that the look does not see is welcomed by the chat.
    connection.has_resumed.store(true, Ordering::Release);
    #[cfg(feature = "fail-points")]
    super::fail_points::hold("resume::look").await;
    let mut ahead: Option<Seq> = None;
    let positions = match broker.store.positions(who).await {
        Ok(positions) => positions,
        Err(failure) => {
            for (chat_id, (seq, _, was_in)) in standing {
                if connection.give_up_standing(chat_id, was_in, seq) {
                    broker.directory.unsubscribe(chat_id, connection);
                }
            }
            return Err(failure);
        }
    };
    for position in positions {
        let asked = standing.remove(&position.chat_id).map(|(seq, subscribed, _)| (seq, subscribed));
        match judge(asked, &position, connection.is_in(position.chat_id)) {
            Standing::Ahead => {
                broker.directory.unsubscribe(position.chat_id, connection);
                ahead = Some(position.last_seq);
            }
            Standing::Live => connection.stood(position.chat_id),
            Standing::Behind(after) => {
                // What its chat does not know of is on its way, unless another broker on the same database wrote it.
                if matches!(asked, Some((_, Subscribed::Live))) {
                    broker.refresh_chat(position.chat_id);
                }
                connection.lag_behind(position.chat_id, after, position.last_seq);
            }
            Standing::AsBefore => {}
        }
    }
    // What is left are chats that are not the user's.
    for chat_id in standing.into_keys() {
        // Who was added again after that look has been welcomed, and the reader stands it where it belongs.
        if connection.forget_standing(chat_id) {
            broker.directory.unsubscribe(chat_id, connection);
            say_gone(connection, chat_id);
        }
    }
    if connection.outbox.is_closed() {
        // It ended meanwhile, and what it left then was less than where it stands now.
        for chat_id in connection.chats() {
            broker.directory.unsubscribe(chat_id, connection);
        }
    }
    under_way.succeed();
    if let Some(seq) = ahead {
        let details = ErrorDetails { seq: Some(seq), ..ErrorDetails::default() };
        return Err(Refusal::with(ErrorCode::AheadOfLog, "a cursor is beyond the end of its log", details).into());
    }
    Ok(Reply::Done(Nothing {}))
}
