//! What every connection and every request of the public listener passes: limits of its address, the host, an id, and
//! the headers that each answer has.
//!
//! A connection carries one request, so its place is taken once: when it is accepted, by the other end of the socket; or,
//! from a trusted proxy, when the proxy has told where it comes from. Floor 5.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use tracing::Instrument;

use super::accounts::error_response;
use super::crowd::{CrowdLimits, Place, Verdict};
use super::{Door, address, transport};
use crate::config::Settings;
use crate::protocol::error::{ErrorCode, Refusal};

/// Names a request, in answers and in log lines.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a request that is taken over from a proxy, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Nothing of this server is a page.
const NO_PAGE: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Two years, as browsers' lists ask for.
const TLS_ALONE: HeaderValue = HeaderValue::from_static("max-age=63072000");

/// A connection's place among those of its address, once it has one; it is given back with the socket.
#[derive(Debug, Default)]
struct Arrival(Mutex<Option<Place>>);

/// Counts a connection that was just accepted; for [`transport::serve`].
pub fn greet(door: &Door, peer: Option<IpAddr>, data: &mut Extensions) {
    let settings = door.current();
    let arrival = Arrival::default();
    if let Some(peer) = peer.filter(|peer| !address::is_trusted(&settings.server.trusted_proxies, *peer)) {
        match enter(door, &settings, peer) {
            Some(place) => *arrival.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place),
            None => {
                count(door, "connections");
                if let Some(switch) = transport::switch_of(data) {
                    switch.kill();
                }
            }
        }
    }
    data.insert(arrival);
}

fn enter(door: &Door, settings: &Settings, from: IpAddr) -> Option<Place> {
    let limits = CrowdLimits {
        connections_max: settings.limits.connections_max_address,
        handshakes_per_minute: settings.limits.handshakes_per_minute_address,
    };
    door.crowd.enter(address::place_of(from), limits, Instant::now())
}

/// Lets a request in, or answers why not; for `App::wrap`, inside of [`transport::only_one`].
///
/// # Errors
/// Those of the service.
///
/// # Cancel safety
/// It is dropped together with its request.
pub async fn entrance(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(door) = request.app_data::<web::Data<Door>>().cloned() else { return next.call(request).await };
    let settings = door.current();
    let id = request_id(&request, &settings);
    let span = tracing::info_span!("request", request.id = id.to_str().unwrap_or_default());
    let answer = async {
        let response = match judge(&door, &settings, &request) {
            None => next.call(request).await?,
            Some(refusal) => request.into_response(refusal),
        };
        // The route's pattern and not the path, which may hold a name (P12).
        let route = response.request().match_pattern();
        tracing::debug!(status = response.status().as_u16(), route = route.as_deref(), "answered");
        Ok::<_, Error>(response)
    };
    let mut response = answer.instrument(span).await?;
    dress(&settings, response.response_mut(), id);
    Ok(response)
}

/// The id that a trusted proxy gave, or a new one.
fn request_id(request: &ServiceRequest, settings: &Settings) -> HeaderValue {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let is_trusted = peer.is_some_and(|peer| address::is_trusted(&settings.server.trusted_proxies, peer));
    let told = request.headers().get(&REQUEST_ID).filter(|id| is_trusted && is_request_id(id.as_bytes()));
    told.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

fn is_request_id(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(is_plain)
}

/// Why a request is not let in, as its answer.
fn judge(door: &Door, settings: &Settings, request: &ServiceRequest) -> Option<HttpResponse> {
    match verdict(door, settings, request) {
        Verdict::Pass => {}
        Verdict::TooMany => {
            count(door, "connections");
            let refusal = Refusal::new(ErrorCode::LimitReached, "too many connections from this address");
            return Some(error_response(refusal, 429));
        }
        Verdict::TooFast(wait) => {
            count(door, "handshakes");
            return Some(error_response(Refusal::later("too many connections from this address", wait), 429));
        }
    }
    if !is_host_served(&settings.server.hosts, request.headers()) {
        count(door, "host");
        let refusal = Refusal::new(ErrorCode::Malformed, "this host is not served here");
        return Some(error_response(refusal, StatusCode::MISDIRECTED_REQUEST.as_u16()));
    }
    None
}

fn verdict(door: &Door, settings: &Settings, request: &ServiceRequest) -> Verdict {
    let Some(arrival) = transport::kept_for::<Arrival>(request.request()) else { return Verdict::Pass };
    let mut place = arrival.0.lock().unwrap_or_else(PoisonError::into_inner);
    let from = address::of(request.request(), &settings.server);
    // A proxy that does not say where a request comes from stands for all whom it serves.
    let from = from.filter(|from| !address::is_trusted(&settings.server.trusted_proxies, *from));
    if let (None, Some(from)) = (&*place, from) {
        *place = enter(door, settings, from);
        return place.as_ref().map_or(Verdict::TooMany, |place| place.verdict);
    }
    place.as_ref().map_or(Verdict::Pass, |place| place.verdict)
}

/// Whether the request is for a host that is listed, with its port or for any.
fn is_host_served(hosts: &[String], headers: &HeaderMap) -> bool {
    if hosts.is_empty() {
        return true;
    }
    let mut told = headers.get_all(HOST);
    let (Some(host), None) = (told.next().and_then(|host| host.to_str().ok()), told.next()) else { return false };
    hosts.iter().any(|served| served.eq_ignore_ascii_case(host) || served.eq_ignore_ascii_case(without_port(host)))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// Gives an answer the headers that all have. What is answered is never a page, and nobody else's.
fn dress(settings: &Settings, response: &mut HttpResponse, id: HeaderValue) {
    let is_socket = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if is_socket {
        return;
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, NO_PAGE);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if settings.has_tls() {
        headers.insert(STRICT_TRANSPORT_SECURITY, TLS_ALONE);
    }
}

fn count(door: &Door, reason: &str) {
    door.broker.metrics.door_refusals.with_label_values(&[reason]).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_listed_with_its_port_or_for_any() {
        let hosts = ["chat.example".to_owned(), "other.example:8443".to_owned(), "[2001:db8::1]".to_owned()];
        let served = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| headers.append(HOST, HeaderValue::from_static(value)));
            is_host_served(&hosts, &headers)
        };
        for host in ["chat.example", "Chat.Example:8080", "other.example:8443", "[2001:db8::1]:443", "[2001:db8::1]"] {
            assert!(served(&[host]), "{host}");
        }
        for host in ["", "other.example", "evil.example", "chat.example.evil", "chat.example:80x", "2001:db8::1"] {
            assert!(!served(&[host]), "{host}");
        }
        assert!(!served(&[]) && !served(&["chat.example", "chat.example"]));
        assert!(is_host_served(&[], &HeaderMap::new()));
    }

    #[test]
    fn an_id_that_is_taken_over_is_short_and_plain() {
        assert!(is_request_id(b"0192-ab_c.D"));
        assert!(
            !is_request_id(b"") && !is_request_id(b"a b") && !is_request_id(b"a\"b") && !is_request_id(&[b'a'; 65])
        );
    }
}
