//! The page of a made-up comparison.

use super::*;
use crate::bench::figures::{Latencies, WireBytes, Wrong};
use crate::bench::plan::Plan;
use crate::bench::report::{Round, json};

/// A run of two seconds, the second of them silent, whose figures all follow from one number.
fn figures(scale: u64) -> Figures {
    let mut latency = Latencies::new().unwrap();
    for number in 1..=1_000 {
        latency.record_ns(number * scale * 1_000);
    }
    let p50_ms = scale as f64 * 1.25;
    Figures {
        elapsed_s: 2.0,
        acked: scale * 2_000,
        delivered: scale * 20_002,
        ack_latency: latency.clone(),
        latency,
        latency_over_time: vec![Some(Second { p50_ms, p99_ms: p50_ms * 7.0 }), None],
        opened: scale + 40,
        wrong: Wrong::default(),
        is_exhausted: false,
        server_cpu_s: Some(scale as f64 / 3.0),
        client_cpu_s: 1.0,
        foreign_cpu: Some(0.125),
        peak_rss_mib: Some(scale as f64 * 11.0),
        wire: WireBytes { send: 611, deliver: 622, ack: 33 },
    }
}

fn compared(has_floors: bool) -> Compared {
    let round = |scale| Round {
        raw: has_floors.then(|| figures(scale * 5)),
        broker: figures(scale),
        postgres: has_floors.then(|| figures(scale * 2)),
    };
    let plan = Plan { name: "<b>\"tea\" & 'cake'</b>".to_owned(), ..Plan::load("fanout").unwrap() };
    Compared { plan, server: None, rounds: vec![round(7), round(9)], last_raw: has_floors.then(|| figures(50)) }
}

/// Whether every tag is closed by its like, every attribute is quoted, and every entity is one of those that are written.
fn check_form(html: &str) -> Result<(), String> {
    let mut open = Vec::new();
    let mut rest = html;
    while let Some(begin) = rest.find(['<', '&']) {
        let (_, from) = rest.split_at(begin);
        if from.starts_with('&') {
            let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].into_iter().find(|known| from.starts_with(known));
            rest = &from[known.ok_or_else(|| format!("an entity: {:.20}", from))?.len()..];
            continue;
        }
        let end = from.find('>').ok_or("a tag without end")?;
        let tag = &from[1..end];
        rest = &from[end + 1..];
        if tag.matches('"').count() % 2 == 1 || tag.contains('<') {
            return Err(format!("a tag: {tag}"));
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        match tag {
            _ if name == "!doctype" || name == "meta" || tag.ends_with('/') => {}
            _ if tag.starts_with('/') => {
                let opened = open.pop();
                if opened != Some(&tag[1..]) {
                    return Err(format!("{tag} after {opened:?}"));
                }
            }
            _ => open.push(name),
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("still open: {open:?}")) }
}

#[test]
fn the_check_of_the_form_finds_what_is_malformed() {
    assert_eq!(check_form("<!doctype html><a b=\"c\">&lt;<d/></a>"), Ok(()));
    for bad in ["<a>", "<a><b></a></b>", "</a>", "<a b=\"c></a>", "a & b", "<a <b>></a>", "<a"] {
        assert!(check_form(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_page_has_all_numbers_and_needs_nothing_else() {
    let compared = compared(true);
    let page = html(&compared);
    check_form(&page).unwrap();
    assert!(page.contains("<h1>&lt;b&gt;&quot;tea&quot; &amp; &#39;cake&#39;&lt;/b&gt;</h1>"));
    for foreign in ["http:", "https:", "//", "<script", "<link", "<img", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(foreign), "the page has {foreign}");
    }
    for (name, spread) in compared.ratios() {
        let Spread { median, least, most } = spread.unwrap();
        let shown = format!("<td>{median:.3} <small>{least:.3} to {most:.3}</small></td>");
        assert!(page.contains(&shown), "{name}: {shown}");
    }
    let mut texts = vec![
        "611 bytes to the server, 622 to each member, 33 as the answer".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
        format!("<td>{} of {} sessions</td>", compared.plan.chats, compared.plan.sessions_per_chat),
    ];
    for scale in [7, 9, 35, 45, 50, 14, 18] {
        let figures = figures(scale);
        texts.extend(
            [figures.acked_per_s(), figures.delivered_per_s()].map(|rate| format!("<td>{}</td>", number(rate))),
        );
        texts.extend(
            [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| format!("<td>{}</td>", number(figures.latency.ms(share)))),
        );
        texts.push(format!("<td>{:.3}</td>", figures.cpu_s_per_million().unwrap()));
        texts.push(format!("<td>{:.0}</td>", figures.peak_rss_mib.unwrap()));
        texts.push(format!("<td>{}</td>", figures.opened));
        let second = figures.latency_over_time[0].unwrap();
        texts.extend([second.p50_ms, second.p99_ms].map(|ms| format!(" in second 1: {} ms</title>", number(ms))));
    }
    for (kind, _) in SERVERS {
        for (name, quantile) in PERCENTILES {
            let median = compared.spread(kind, |figures| Some(figures.latency.ms(quantile))).unwrap().median;
            texts.push(format!("<title>{} {name}: {} ms</title>", kind.name(), number(median)));
        }
        let rate = compared.spread(kind, |figures| Some(figures.delivered_per_s())).unwrap();
        let Spread { median, least, most } = rate;
        let (median, least, most) = (number(median), number(least), number(most));
        texts.push(format!("<title>{}: {median} ({least} to {most})</title>", kind.name()));
    }
    for text in texts {
        assert!(page.contains(&text), "the page lacks {text}");
    }
}

#[test]
fn what_cannot_be_seen_is_a_dash_on_the_page_and_null_in_json() {
    let mut compared = compared(false);
    compared.server = Some("127.0.0.1:8080".to_owned());
    for round in &mut compared.rounds {
        let broker = &mut round.broker;
        (broker.server_cpu_s, broker.foreign_cpu, broker.peak_rss_mib) = (None, None, None);
    }
    let page = html(&compared);
    check_form(&page).unwrap();
    assert!(page.contains("at 127.0.0.1:8080") && page.contains("measured alone"));
    assert_eq!(page.matches("<td>-</td><td>-</td><td>-</td>").count(), compared.rounds.len());
    assert!(!page.contains("raw floor</span>") && !page.contains("<h2>Ratios"));
    let json = json(&compared);
    for name in ["server_cpu_s_per_million_deliveries", "peak_rss_mib", "foreign_cpu"] {
        assert!(json.get(name).unwrap().is_null(), "{name}");
        assert!(json["runs"][0]["broker"].get(name).unwrap().is_null(), "{name} of a run");
    }
    assert!(json.get("ratio_to_raw_floor").is_none());
    assert_eq!(json["runs"][1]["broker"]["latency_over_time_ms"][0]["p99"], 9.0 * 1.25 * 7.0);
    assert!(json["runs"][1]["broker"]["latency_over_time_ms"][1]["p99"].is_null());
}

#[test]
fn a_run_of_a_day_is_thinned_to_its_highest() {
    let mut compared = compared(true);
    let second = |p99_ms| Some(Second { p50_ms: 1.0, p99_ms });
    let mut seconds = vec![second(2.0); 86_400];
    seconds[40_000] = second(4_321.0);
    compared.rounds[0].broker.latency_over_time = seconds;
    let lines = line(Kind::Broker, "broker", "p99", &compared.rounds[0].broker, 144, |_| 0.0, |second| second.p99_ms);
    assert_eq!(lines.points.len(), POINTS_MAX);
    assert_eq!(extent(&[lines]), (2.0, 4_321.0));
    let page = html(&compared);
    check_form(&page).unwrap();
    assert!(page.contains("highest of 144 seconds") && page.len() < 400_000);
}
