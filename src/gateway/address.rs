//! Where a request comes from. Pure over headers and settings; floor 5.
//!
//! A header tells it only where the other end of the socket is a trusted proxy: anybody else may write there what they
//! like. Each proxy adds what it saw at the end, so the list is read from there, for as long as proxies are trusted.
//!
//! Source: RFC 7239, section 4, for `Forwarded`; `X-Forwarded-For` is its forerunner.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;

use crate::config::{Network, Server};

/// The most addresses of a list that are looked at: no request passes so many proxies.
const HOPS_MAX: usize = 16;

/// Whether an address is a trusted proxy's.
#[must_use]
pub fn is_trusted(proxies: &[Network], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(address))
}

/// The address that a request comes from; none where the socket has none.
#[must_use]
pub fn of(request: &HttpRequest, settings: &Server) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    Some(behind(peer, request.headers(), settings))
}

fn behind(peer: IpAddr, headers: &HeaderMap, settings: &Server) -> IpAddr {
    let mut address = peer.to_canonical();
    if settings.address_header.is_empty() || !is_trusted(&settings.trusted_proxies, address) {
        return address;
    }
    let is_forwarded = settings.address_header.eq_ignore_ascii_case("forwarded");
    let lines: Vec<_> = headers.get_all(settings.address_header.as_str()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    for hop in hops.take(HOPS_MAX) {
        let told = if is_forwarded { for_of(hop) } else { Some(hop) };
        // What cannot be read was not written by a proxy that is trusted, nor was what stands before it.
        let Some(told) = told.and_then(node) else { break };
        address = told.to_canonical();
        if !is_trusted(&settings.trusted_proxies, address) {
            break;
        }
    }
    address
}

/// The value of `for` in one element of `Forwarded`.
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// An address with or without a port, in quotes or not.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))
}

/// What counts as one place: an address, or the whole /64 of an IPv6 address, which is one customer's.
#[must_use]
pub fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn from(peer: &str, header: &str, lines: &[&str]) -> String {
        let mut server = Settings::load(None).unwrap().server;
        server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        header.clone_into(&mut server.address_header);
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::try_from(header).unwrap(), HeaderValue::from_str(line).unwrap());
        }
        behind(peer.parse().unwrap(), &headers, &server).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let list = ["203.0.113.1, 198.51.100.2"];
        assert_eq!(from("192.0.2.9", "X-Forwarded-For", &list), "192.0.2.9");
        assert_eq!(from("10.0.0.1", "X-Forwarded-For", &list), "198.51.100.2");
        assert_eq!(from("::ffff:10.0.0.1", "x-forwarded-for", &list), "198.51.100.2");
        assert_eq!(from("::1", "X-Forwarded-For", &[]), "::1");
    }

    #[test]
    fn the_list_is_read_from_its_end_through_proxies_that_are_trusted() {
        let list = ["203.0.113.1", "198.51.100.2, 10.0.0.3"];
        assert_eq!(from("10.0.0.1", "X-Forwarded-For", &list), "198.51.100.2");
        assert_eq!(from("10.0.0.1", "X-Forwarded-For", &["203.0.113.1, nonsense, 10.0.0.3"]), "10.0.0.3");
        assert_eq!(from("10.0.0.1", "X-Forwarded-For", &["10.0.0.4, 10.0.0.3"]), "10.0.0.4");
    }

    #[test]
    fn forwarded_is_read_as_its_standard_says() {
        let list = ["for=203.0.113.1;proto=https, For=\"[2001:db8::7]:4711\";by=10.0.0.1"];
        assert_eq!(from("10.0.0.1", "Forwarded", &list), "2001:db8::7");
        assert_eq!(from("10.0.0.1", "Forwarded", &["for=\"198.51.100.2:80\""]), "198.51.100.2");
        assert_eq!(from("10.0.0.1", "Forwarded", &["for=203.0.113.1, for=_hidden"]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", "Forwarded", &["proto=https"]), "10.0.0.1");
    }

    #[test]
    fn a_place_is_an_address_or_a_64() {
        let place = |address: &str| place_of(address.parse().unwrap()).to_string();
        assert_eq!(place("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(place("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
