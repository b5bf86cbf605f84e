//! What a value must keep to: ranges of numbers, forms of texts, and settings that contradict each other.
//!
//! Floor 1; pure.

use std::net::SocketAddr;

use toml::Value;

use super::Settings;
use super::layers::Layers;
use super::network::Network;
use crate::protocol::limits::{COPIES_PER_FRAME_MAX, CURSORS_MAX, STAGED_PARTS_MAX};
use crate::telemetry::subscriber;

/// Every number, with the least and the most that it may be.
const RANGES: [(&str, i64, i64); 43] = [
    ("server.workers", 0, 1_024),
    ("server.connections_max", 1, 1_000_000),
    ("server.login_timeout_s", 1, 300),
    ("server.ping_interval_s", 1, 3_600),
    ("server.stalled_timeout_s", 1, 3_600),
    ("database.connections_max", 2, 1_000),
    ("database.deadline_s", 1, 300),
    ("writer.lanes", 1, 16),
    ("writer.items_max", 1, 10_000),
    ("writer.bytes_max", 1_024, 1 << 30),
    ("writer.queue_max", 1, 1 << 24),
    ("chat.workers", 0, 1_024),
    ("chat.idle_s", 1, 86_400),
    ("chat.in_flight_max", 1, 1 << 24),
    ("chat.members_max", 1, 100_000),
    ("session.lifetime_max_s", 1, 1 << 31),
    ("session.live_max", 1, 1_000),
    ("session.certificates_per_hour_max", 1, 1_000_000),
    ("session.chats_max", 1, CURSORS_MAX as i64),
    ("session.pending_s", 1, 86_400),
    ("password.login_s", 1, 3_600),
    ("password.tries_per_hour", 1, 1_000_000),
    ("password.tries_per_hour_user", 1, 1_000_000),
    ("password.tries_per_hour_address", 1, 1_000_000),
    ("keys.messages_max", 1, 10_000),
    ("keys.messages_max_large", 1, 10_000),
    ("keys.recipients_large", 1, 100_000),
    ("keys.age_max_s", 3_600, 7_776_000),
    ("limits.requests_per_s", 1, 1_000_000),
    ("limits.requests_burst", 1, 1_000_000),
    ("limits.bytes_per_s", 1_024, 1 << 30),
    ("limits.bytes_burst", 1 << 20, 1 << 30),
    ("limits.membership_changes_per_minute", 1, 1_000_000),
    ("limits.signals_per_s", 1, 1_000_000),
    ("limits.signals_burst", 1, 1_000_000),
    ("limits.connections_max_address", 0, 1_000_000),
    ("limits.handshakes_per_minute_address", 0, 1_000_000),
    ("limits.outbox_frames_max", 16, 1 << 20),
    ("limits.outbox_bytes_max", 64 * 1_024, 1 << 30),
    ("limits.outboxes_bytes_max", 1 << 20, 1 << 40),
    ("limits.catch_up_readers", 1, 1_000),
    ("drain.grace_s", 1, 300),
    ("drain.retry_spread_ms", 0, 3_600_000),
];

/// Looks at each value by itself.
pub(super) fn check_values(layers: &mut Layers) {
    for (key, min, max) in RANGES {
        if let Some(value) = layers.get(key).and_then(Value::as_integer).filter(|value| !(min..=max).contains(value)) {
            layers.mistake(key, format!("is {value}, but must be from {min} to {max}"));
        }
    }
    check_texts(layers, "server.listen", "must be an address and a port, like 127.0.0.1:8080", is_listen);
    check_texts(layers, "operator.listen", "must be an address and a port, like 127.0.0.1:9090", is_listen);
    check_texts(layers, "server.name", "must have 1 to 255 bytes", |name| (1..=255).contains(&name.len()));
    check_texts(layers, "server.origins", "must hold \"*\", or origins like https://chat.example.org", is_origin);
    check_texts(layers, "server.hosts", "must hold names like chat.example.org, with or without a port", is_host);
    let networks = "must hold addresses or networks, like 192.0.2.1 or 2001:db8::/32";
    check_texts(layers, "server.trusted_proxies", networks, |text| text.parse::<Network>().is_ok());
    check_texts(layers, "server.address_header", "must be the name of an HTTP header, or empty", is_header_name);
    check_texts(layers, "database.url", "must be a Postgres URL, like postgres://user:password@host/database", is_url);
    let modes = "must be open, invitation or closed";
    check_texts(layers, "registration.mode", modes, |mode| matches!(mode, "open" | "invitation" | "closed"));
    check_texts(layers, "log.format", "must be text or json", |format| matches!(format, "text" | "json"));
    let filter = "must be a level, or target=level pairs: info, or sealcast=debug,info";
    check_texts(layers, "log.filter", filter, subscriber::is_filter);
}

/// Looks at settings beside each other.
pub(super) fn check_together(settings: &Settings, layers: &mut Layers) {
    let (server, chat) = (&settings.server, &settings.chat);
    let queue_max = settings.writer.queue_max;
    if chat.in_flight_max > queue_max {
        layers.mistake(
            "chat.in_flight_max",
            format!("is {}, but must be at most writer.queue_max ({queue_max})", chat.in_flight_max),
        );
    }
    let (readers, connections) = (settings.limits.catch_up_readers, settings.database.connections_max);
    if readers > connections {
        let what = format!("is {readers}, but must be at most database.connections_max ({connections})");
        layers.mistake("limits.catch_up_readers", what);
    }
    // Every recipient needs a copy of a key, and a list of copies has its bound.
    let copies_max = u64::from(STAGED_PARTS_MAX) * COPIES_PER_FRAME_MAX as u64;
    if chat.members_max.saturating_mul(settings.session.live_max) > copies_max {
        let most = copies_max / settings.session.live_max.max(1);
        let what = format!("is {}, but must be from 1 to {most} beside this session.live_max", chat.members_max);
        layers.mistake("chat.members_max", what);
    }
    let (has_certificate, has_key) =
        (!server.tls.certificate.as_os_str().is_empty(), !server.tls.key.as_os_str().is_empty());
    if has_certificate != has_key {
        let (missing, other) = if has_key { ("certificate", "key") } else { ("key", "certificate") };
        layers.mistake(&format!("server.tls.{missing}"), format!("must be set beside server.tls.{other}"));
    }
    if server.address_header.is_empty() != server.trusted_proxies.is_empty() {
        let what = "and server.trusted_proxies must be set together: nobody else's word is believed";
        layers.mistake("server.address_header", what);
    }
    let is_same = server.listen.port() != 0 && server.listen == settings.operator.listen;
    if is_same {
        layers.mistake("operator.listen", "must differ from server.listen");
    }
}

fn check_texts(layers: &mut Layers, key: &str, what: &str, is_good: impl Fn(&str) -> bool) {
    let is_good_value = |value: &Value| value.as_str().is_none_or(&is_good);
    let all_are_good = match layers.get(key) {
        Some(Value::Array(items)) => items.iter().all(is_good_value),
        Some(value) => is_good_value(value),
        None => true,
    };
    if !all_are_good {
        layers.mistake(key, what);
    }
}

fn is_listen(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn is_origin(text: &str) -> bool {
    let has_host = |rest: &str| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "/?#@".contains(c));
    text == "*" || text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && has_host(rest))
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "/?#@".contains(c))
}

fn is_header_name(text: &str) -> bool {
    text.is_empty() || actix_web::http::header::HeaderName::from_bytes(text.as_bytes()).is_ok()
}

fn is_url(text: &str) -> bool {
    text.is_empty() || text.parse::<tokio_postgres::Config>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULTS;

    fn numbers(section: &str, table: &toml::Table, found: &mut Vec<String>) {
        for (name, value) in table {
            let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match value {
                Value::Table(inner) => numbers(&key, inner, found),
                Value::Integer(_) => found.push(key),
                _ => {}
            }
        }
    }

    #[test]
    fn every_number_has_a_range_and_every_range_a_number() {
        let mut found = Vec::new();
        numbers("", &DEFAULTS.parse().unwrap(), &mut found);
        let mut ranged: Vec<String> = RANGES.iter().map(|(key, ..)| (*key).to_owned()).collect();
        found.sort();
        ranged.sort();
        assert_eq!(found, ranged);
    }
}
