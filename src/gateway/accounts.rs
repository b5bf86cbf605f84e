//! Accounts and the linking of devices, over HTTP.

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, web};
use serde::de::DeserializeOwned;

use super::Door;
use crate::protocol::account::{
    ACCOUNTS_PATH, FoundUser, HttpError, INFO_PATH, LINKS_PATH, Link, Register, ServerInfo, USERS_PATH,
};
use crate::protocol::codec::Encoding;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::{PendingSession, ServerFrame};
use crate::protocol::limits::HTTP_BODY_BYTES_MAX;
use crate::protocol::username::Username;
use crate::store::Failure;

/// Mounts the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    routes
        .app_data(web::PayloadConfig::new(HTTP_BODY_BYTES_MAX))
        .route(INFO_PATH, web::get().to(info))
        .route(ACCOUNTS_PATH, web::post().to(register))
        .route(LINKS_PATH, web::post().to(link))
        .route(&format!("{USERS_PATH}/{{username}}"), web::get().to(find_user));
}

async fn info(door: web::Data<Door>) -> HttpResponse {
    HttpResponse::Ok().json(ServerInfo {
        server_name: door.settings.server.name.clone(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        subprotocols: Encoding::ALL.iter().map(|encoding| encoding.subprotocol().to_owned()).collect(),
        time: door.broker.store.clock().now(),
    })
}

async fn register(door: web::Data<Door>, body: Result<web::Bytes, actix_web::Error>) -> HttpResponse {
    let request: Register = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    if let Some(upload) = &request.strongbox
        && let Err(refusal) = door.broker.passwords.check_record(&upload.record)
    {
        return failed(refusal.into());
    }
    let mode = door.current().registration.mode;
    match door.broker.store.register(&request, mode, &door.broker.options.sessions).await {
        Ok(registered) => HttpResponse::Ok().json(registered),
        Err(failure) => failed(failure),
    }
}

async fn link(door: web::Data<Door>, body: Result<web::Bytes, actix_web::Error>) -> HttpResponse {
    let request: Link = match read_body(body) {
        Ok(request) => request,
        Err(refusal) => return failed(refusal.into()),
    };
    let broker = &door.broker;
    let (linked, is_first) = match broker.store.link(&request, &broker.options.sessions).await {
        Ok(linked) => linked,
        Err(failure) => return failed(failure),
    };
    if !is_first {
        // Anybody may send it, and again: its user is told once.
        return HttpResponse::Ok().json(linked);
    }
    let pending = ServerFrame::SessionPending(PendingSession {
        session_id: request.session_id,
        public_key: request.public_key,
        signing_public_key: request.signing_public_key,
        proof: request.proof,
        created_at: broker.store.clock().now(),
    });
    for session_id in broker.store.live_sessions(request.user_id).await.unwrap_or_default() {
        if let Some(connection) = broker.directory.connection(session_id) {
            connection.push_reply(&pending);
        }
    }
    HttpResponse::Ok().json(linked)
}

async fn find_user(door: web::Data<Door>, name: web::Path<String>) -> HttpResponse {
    let unknown = || failed(Refusal::new(ErrorCode::UnknownUser, "no user of that name").into());
    let Ok(username) = Username::parse(&name) else { return unknown() };
    match door.broker.store.lookup_user(&username).await {
        Ok(user) => HttpResponse::Ok().json(FoundUser { user_id: user.user_id }),
        Err(failure) => failed(failure),
    }
}

/// What is not there, in the form of every other error.
pub async fn not_found() -> HttpResponse {
    error_response(Refusal::new(ErrorCode::UnknownFrame, "nothing is here"), 404)
}

/// Reads a body.
pub(super) fn read_body<T: DeserializeOwned>(body: Result<web::Bytes, actix_web::Error>) -> Result<T, Refusal> {
    let body = body.map_err(|_| {
        let limit = HTTP_BODY_BYTES_MAX as u64;
        Refusal::limit(ErrorCode::TooLarge, "the body is too large or cut short", limit)
    })?;
    serde_json::from_slice(&body).map_err(|_| Refusal::new(ErrorCode::Malformed, "the body cannot be read"))
}

/// The answer to what did not happen.
pub(super) fn failed(failure: Failure) -> HttpResponse {
    let refusal = failure.refusal();
    let status = match refusal.code {
        ErrorCode::UnknownUser | ErrorCode::UnknownSession => 404,
        ErrorCode::TooLarge => 413,
        ErrorCode::LoginFailed => 401,
        ErrorCode::AccountSuspended
        | ErrorCode::RegistrationClosed
        | ErrorCode::InvitationNeeded
        | ErrorCode::InvitationInvalid => 403,
        ErrorCode::UsernameTaken | ErrorCode::StrongboxChanged => 409,
        ErrorCode::RateLimited | ErrorCode::LimitReached => 429,
        ErrorCode::StorageUnavailable => 503,
        ErrorCode::Internal => 500,
        _ => 400,
    };
    error_response(refusal, status)
}

/// An error as every HTTP answer of this server has it.
#[must_use]
pub fn error_response(refusal: Refusal, status: u16) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if let Some(wait_ms) = refusal.details.as_ref().and_then(|details| details.retry_after_ms) {
        response.insert_header((RETRY_AFTER, wait_ms.div_ceil(1_000)));
    }
    response.json(HttpError {
        code: refusal.code,
        message: refusal.message.to_owned(),
        retryable: refusal.code.is_retryable(),
        details: refusal.details,
    })
}
