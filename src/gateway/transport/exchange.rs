//! Lets a connection carry one request.
//!
//! The HTTP layer below goes on to read and answer what stands behind a request also where it has just said that the
//! connection closes. Whatever stands there may be the body of a request that a server in front has read in another way.
//! Floor 5; it knows the kill switch only.
//!
//! Source: RFC 9112, sections 9.6 and 11.2.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse};

use super::kill::{ConnectionData, kept_for};

/// Passes the first request of a connection on, and ends the connection at a second one; for `App::wrap`. A connection
/// that cannot be ended carries none.
///
/// # Errors
/// Those of the service.
///
/// # Cancel safety
/// A second request is never passed on, whenever this is dropped.
pub async fn only_one(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let switch = match kept_for::<ConnectionData>(request.request()) {
        Some(data) if data.switch().is_used() => data.switch().clone(),
        Some(data) => {
            data.switch().set_used();
            return next.call(request).await;
        }
        // It is shut already, and what it had sent before is not carried out: its sender would not hear of it.
        None => return Ok(request.into_response(HttpResponse::ServiceUnavailable().finish())),
    };
    // The first answer is written when this has been polled once; the second one finds no socket.
    tokio::task::yield_now().await;
    switch.kill();
    Ok(request.into_response(HttpResponse::BadRequest().finish()))
}
