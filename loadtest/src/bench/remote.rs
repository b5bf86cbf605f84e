//! A broker that runs elsewhere: how it is named, and what is said when it refuses what the clients of a run do.

use anyhow::Context;
use sealcast::protocol::error::ErrorCode;

use super::plan::Plan;
use super::server::limits;

/// A refusal during a run, by its code; one of HTTP for too many connections counts as too often.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) what: String,
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} is refused: {} ({})", self.what, self.code.as_str(), self.message)
    }
}

impl std::error::Error for Refused {}

/// `host:port` of `http://host:port`.
///
/// # Errors
/// Any other form, for whoever typed it: another scheme, no port, a path, a query or a user.
pub(crate) fn parse(url: &str) -> Result<String, String> {
    let form = || format!("{url} is not of the form http://host:port");
    let authority = url.strip_prefix("http://").ok_or_else(form)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match name {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if is_host && is_port { Ok(authority.to_owned()) } else { Err(form()) }
}

/// Adds which settings to raise to a refusal for a limit; leaves other errors as they are.
pub(crate) fn explain<T>(result: anyhow::Result<T>, plan: &Plan) -> anyhow::Result<T> {
    let is_limit = result.as_ref().err().and_then(|error| error.downcast_ref::<Refused>()).is_some_and(|refused| {
        matches!(refused.code, ErrorCode::RateLimited | ErrorCode::LimitReached | ErrorCode::KeySpent)
    });
    if !is_limit {
        return result;
    }
    let needs: Vec<String> = limits(plan).into_iter().map(|(key, need)| format!("{key} = {need}")).collect();
    result.with_context(|| {
        format!(
            "the broker's limits are too low for this run; start it with {} (and limits of connections by address off)",
            needs.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_taken_and_all_else_is_refused() {
        for (url, address) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://broker.example:80/", "broker.example:80"),
            ("http://[::1]:9000", "[::1]:9000"),
        ] {
            assert_eq!(parse(url).as_deref(), Ok(address));
        }
        for url in [
            "",
            "http://",
            "127.0.0.1:8080",
            "https://a:1",
            "ws://a:1",
            "http://a",
            "http://:80",
            "http://a:",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://a:1/v1",
            "http://a:1?x",
            "http://me@a:1",
            "http://[::1]",
            "http://[x]:1",
            "http://::1:80",
            "http://a b:1",
            "http://a\r\nX: y:1",
            "HTTP://a:1",
        ] {
            assert!(parse(url).unwrap_err().contains("http://host:port"), "{url:?}");
        }
    }

    #[test]
    fn a_refusal_for_a_limit_names_the_settings_and_another_does_not() {
        let plan = Plan::load("fanout").unwrap();
        let told = |code| {
            let refused = Refused { what: "send".to_owned(), code, message: "no".to_owned() };
            let result: anyhow::Result<()> = Err(anyhow::Error::new(refused).context("running the broker"));
            format!("{:#}", explain(result, &plan).unwrap_err())
        };
        for code in [ErrorCode::RateLimited, ErrorCode::LimitReached, ErrorCode::KeySpent] {
            let text = told(code);
            for (key, need) in limits(&plan) {
                assert!(text.contains(&format!("{key} = {need}")), "{text}");
            }
            assert!(text.contains(code.as_str()) && text.contains("running the broker"));
        }
        assert!(!told(ErrorCode::NotMember).contains("keys.messages_max"));
    }
}
