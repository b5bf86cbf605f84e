//! Judges the opening handshake.
//!
//! Stricter than the layer below, which accepts any key, old versions and no origin rule. Pure over a request; floor 5.
//!
//! Source: RFC 6455, section 4.2.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, ResponseError};

/// Which web pages may open a connection. Programs other than browsers send no origin and always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginPolicy<'a> {
    /// Every page.
    Any,
    /// Only pages of these origins (`https://chat.example`), compared without regard to case.
    Listed(&'a [String]),
}

/// Why an upgrade was refused. All but the last two are the other end's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The method is not GET.
    #[error("a WebSocket handshake is a GET request")]
    Method,
    /// HTTP/1.1 is required.
    #[error("a WebSocket handshake is an HTTP/1.1 request")]
    HttpVersion,
    /// `Upgrade: websocket`, and nothing else, or `Connection: Upgrade` is missing.
    #[error("the headers Upgrade: websocket and Connection: Upgrade are required")]
    NotWebSocket,
    /// A handshake has no body.
    #[error("a WebSocket handshake has no body")]
    HasBody,
    /// `Sec-WebSocket-Version` is not 13.
    #[error("WebSocket version 13 is required")]
    Version,
    /// `Sec-WebSocket-Key` is not 16 bytes of base64, given once.
    #[error("Sec-WebSocket-Key must be 16 bytes of base64")]
    Key,
    /// The page's origin is not listed.
    #[error("this origin may not connect")]
    Origin,
    /// None of the offered subprotocols is known here.
    #[error("none of the offered subprotocols is supported")]
    Subprotocol,
    /// The socket could not be duplicated, so the connection could not be cut when it jams.
    #[error("no connection can be taken at the moment")]
    NoKillSwitch,
    /// The layer below refused what was accepted here.
    #[error("the upgrade failed")]
    Upgrade,
}

impl HandshakeError {
    /// A short constant for metrics.
    #[must_use]
    pub fn metric_label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::HttpVersion => "http_version",
            Self::NotWebSocket => "not_websocket",
            Self::HasBody => "has_body",
            Self::Version => "version",
            Self::Key => "key",
            Self::Origin => "origin",
            Self::Subprotocol => "subprotocol",
            Self::NoKillSwitch => "no_kill_switch",
            Self::Upgrade => "upgrade",
        }
    }
}

impl ResponseError for HandshakeError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion | Self::NotWebSocket | Self::HasBody | Self::Key | Self::Subprotocol => {
                StatusCode::BAD_REQUEST
            }
            Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::NoKillSwitch => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upgrade => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::Method => {
                response.insert_header((header::ALLOW, "GET"));
            }
            Self::Version => {
                response.insert_header((header::UPGRADE, "websocket"));
                response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
            }
            _ => {}
        }
        response.content_type("text/plain; charset=utf-8").body(self.to_string())
    }
}

/// Judges the whole handshake and picks the subprotocol: the client's first that we know, as an index into ours.
///
/// # Errors
/// The first rule that does not hold.
pub(super) fn check(
    req: &HttpRequest,
    subprotocols: &[&str],
    origins: OriginPolicy<'_>,
) -> Result<Option<usize>, HandshakeError> {
    let headers = req.headers();
    if req.method() != Method::GET {
        return Err(HandshakeError::Method);
    }
    if req.version() != Version::HTTP_11 {
        return Err(HandshakeError::HttpVersion);
    }
    // A list of protocols is lawful, but the layer below takes it for another protocol and would give us no frames.
    let asks_upgrade = only(headers, &header::UPGRADE)
        .is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket"));
    if !asks_upgrade || !req.head().upgrade() {
        return Err(HandshakeError::NotWebSocket);
    }
    let has_length = headers.get_all(header::CONTENT_LENGTH).any(|length| length != "0");
    if has_length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(HandshakeError::HasBody);
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(HandshakeError::Version);
    }
    if !only(headers, &header::SEC_WEBSOCKET_KEY).is_some_and(|key| is_key(key.as_bytes())) {
        return Err(HandshakeError::Key);
    }
    if !is_origin_allowed(headers, origins) {
        return Err(HandshakeError::Origin);
    }
    if subprotocols.is_empty() {
        return Ok(None);
    }
    tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .find_map(|offered| subprotocols.iter().position(|known| *known == offered))
        .map(Some)
        .ok_or(HandshakeError::Subprotocol)
}

/// The comma-separated tokens of all headers of that name.
fn tokens<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// The value of a header that is given exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Whether it is base64 of exactly 16 bytes: 22 digits, of which the last carries 2 bits, and the padding.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>() else {
        return false;
    };
    let Some((last, others)) = digits.split_last() else {
        return false;
    };
    others.len() == 21
        && others.iter().all(|digit| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/'))
        && matches!(last, b'A' | b'Q' | b'g' | b'w')
}

fn is_origin_allowed(headers: &HeaderMap, policy: OriginPolicy<'_>) -> bool {
    let OriginPolicy::Listed(listed) = policy else {
        return true;
    };
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    only(headers, &header::ORIGIN)
        .and_then(|origin| origin.to_str().ok())
        .is_some_and(|origin| listed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request() -> TestRequest {
        TestRequest::get()
            .insert_header((header::UPGRADE, "WebSocket"))
            .insert_header((header::CONNECTION, "keep-alive, Upgrade"))
            .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
            .insert_header((header::SEC_WEBSOCKET_KEY, KEY))
    }

    fn verdict(request: TestRequest) -> Result<Option<usize>, HandshakeError> {
        check(&request.to_http_request(), &[], OriginPolicy::Any)
    }

    #[test]
    fn a_lawful_handshake_passes_and_each_missing_part_is_named() {
        assert_eq!(verdict(request()), Ok(None));
        assert_eq!(verdict(request().method(Method::POST)), Err(HandshakeError::Method));
        assert_eq!(verdict(request().version(Version::HTTP_10)), Err(HandshakeError::HttpVersion));
        assert_eq!(verdict(request().append_header((header::UPGRADE, "websocket"))), Err(HandshakeError::NotWebSocket));
        for upgrade in ["h2c", "h2c, websocket", "websockets"] {
            let request = request().insert_header((header::UPGRADE, upgrade));
            assert_eq!(verdict(request), Err(HandshakeError::NotWebSocket), "{upgrade}");
        }
        assert_eq!(
            verdict(request().insert_header((header::CONNECTION, "keep-alive"))),
            Err(HandshakeError::NotWebSocket)
        );
        assert_eq!(verdict(request().insert_header((header::CONTENT_LENGTH, "4"))), Err(HandshakeError::HasBody));
        assert_eq!(
            verdict(request().insert_header((header::TRANSFER_ENCODING, "chunked"))),
            Err(HandshakeError::HasBody)
        );
        assert_eq!(
            verdict(request().insert_header((header::SEC_WEBSOCKET_VERSION, "8"))),
            Err(HandshakeError::Version)
        );
    }

    #[test]
    fn only_sixteen_bytes_of_base64_are_a_key() {
        assert_eq!(verdict(request().append_header((header::SEC_WEBSOCKET_KEY, KEY))), Err(HandshakeError::Key));
        for key in ["", "==", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZXM="] {
            let request = request().insert_header((header::SEC_WEBSOCKET_KEY, key));
            assert_eq!(verdict(request), Err(HandshakeError::Key), "{key}");
        }
    }

    #[test]
    fn the_clients_first_known_subprotocol_is_taken() {
        let ours = ["a.json", "a.msgpack"];
        let pick = |offer: &[&str]| {
            let mut request = request();
            for line in offer {
                request = request.append_header((header::SEC_WEBSOCKET_PROTOCOL, *line));
            }
            check(&request.to_http_request(), &ours, OriginPolicy::Any)
        };
        assert_eq!(pick(&["x, a.msgpack,a.json"]), Ok(Some(1)));
        assert_eq!(pick(&["x", "a.json"]), Ok(Some(0)));
        assert_eq!(pick(&["A.json"]), Err(HandshakeError::Subprotocol));
        assert_eq!(pick(&[]), Err(HandshakeError::Subprotocol));
    }

    #[test]
    fn an_origin_is_absent_or_listed() {
        let listed = ["https://chat.example".to_owned()];
        let policy = OriginPolicy::Listed(&listed);
        let judge = |request: TestRequest| check(&request.to_http_request(), &[], policy);
        assert_eq!(judge(request()), Ok(None));
        assert_eq!(judge(request().insert_header((header::ORIGIN, "https://Chat.Example"))), Ok(None));
        for origin in ["null", "http://chat.example", "https://chat.example.evil", "https://chat.example:444"] {
            let request = request().insert_header((header::ORIGIN, origin));
            assert_eq!(judge(request), Err(HandshakeError::Origin), "{origin}");
        }
    }
}
