//! Writes what was compared as one HTML file: no script, nothing from elsewhere, charts as SVG in it.
//!
//! Pure. Every text that may come from a file is escaped.

use super::chart::{self, Bar, Line, escape, number};
use super::figures::Figures;
use super::over_time::Second;
use super::pool::KEY_MESSAGES;
use super::report::{Compared, Figure, Spread, seen};
use super::server::Kind;

const STYLE: &str = include_str!("page.css");

/// Each kind of server with its class in the style sheet.
const SERVERS: [(Kind, &str); 3] =
    [(Kind::Broker, "broker"), (Kind::RawFloor, "raw"), (Kind::PostgresFloor, "postgres")];

/// Percentiles that are drawn, by name.
const PERCENTILES: [(&str, f64); 7] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.5", 0.995), ("p99.9", 0.999)];

/// Points of a line over time, at most: of a longer run each stands for more than a second.
const POINTS_MAX: usize = 600;

/// The whole page.
pub(crate) fn html(compared: &Compared) -> String {
    let name = escape(&compared.plan.name);
    let sections =
        [head(compared), ratios(compared), bars(compared), percentiles(compared), over_time(compared), runs(compared)];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Sealcast: {name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        sections.concat()
    )
}

/// What was run, and the figures that are looked for first.
fn head(compared: &Compared) -> String {
    let plan = &compared.plan;
    let of_broker = |value: fn(&Figures) -> f64| compared.spread(Kind::Broker, |figures| Some(value(figures)));
    let p99 = of_broker(|figures| figures.latency.ms(0.99));
    let tiles = [
        ("deliveries in a second", of_broker(Figures::delivered_per_s), ""),
        ("messages acknowledged in a second", of_broker(Figures::acked_per_s), ""),
        ("p99 from the write to a read", p99, " ms"),
    ];
    let tile = |text: &str, class: &str, name: &str| {
        format!("<div class=\"card\"><b class=\"{class}\">{text}</b><span>{name}</span></div>\n")
    };
    let mut shown: String = tiles
        .into_iter()
        .filter_map(|(name, spread, unit)| Some(tile(&format!("{}{unit}", number(spread?.median)), "", name)))
        .collect();
    let wrong = compared.wrong();
    let class = if wrong == 0 { "good" } else { "bad" };
    shown += &tile(&wrong.to_string(), class, "lost, doubled, misplaced or altered, in all runs");
    let pace = match plan.rate {
        0 => format!("as fast as answers come, {} open for each sender", plan.window),
        rate => format!("{rate} messages a second in all, by a plan"),
    };
    let mut rows = vec![
        ("Chats", format!("{} of {} sessions", plan.chats, plan.sessions_per_chat)),
        ("Senders", format!("{} in each chat, {pace}", plan.senders_per_chat)),
        ("Text", format!("{} bytes, {KEY_MESSAGES} messages a key", plan.body_bytes)),
    ];
    if let Some(round) = compared.rounds.first() {
        let wire = round.broker.wire;
        let (send, deliver, ack) = (wire.send, wire.deliver, wire.ack);
        rows.push(("Frames", format!("{send} bytes to the server, {deliver} to each member, {ack} as the answer")));
    }
    let turns = compared.rounds.len();
    rows.push(("Measured", format!("{} s after {} s to warm up, turns: {turns}", plan.seconds, plan.warm_up_s)));
    if let Some(server) = &compared.server {
        rows.push(("Broker", format!("at {server}, with settings of its own")));
    }
    rows.push(("Version", env!("CARGO_PKG_VERSION").to_owned()));
    let rows: String =
        rows.into_iter().map(|(name, text)| format!("<tr><td>{name}</td><td>{}</td></tr>\n", escape(&text))).collect();
    let about = if compared.last_raw.is_some() {
        "How fast the broker is, measured in turn with the smallest programs that do a part of its work."
    } else {
        "How fast the broker is, measured alone."
    };
    format!(
        "<h1>{}</h1>\n<p>{about} Figures are medians of all runs.</p>\n<div class=\"tiles\">\n{shown}</div>\n<h2>What was run</h2>\n\
         <div class=\"card\"><table class=\"facts\">\n{rows}</table></div>\n",
        escape(&plan.name)
    )
}

fn ratios(compared: &Compared) -> String {
    let rate = if compared.plan.chats == 1 { "Deliveries in a second" } else { "Acknowledged in a second" };
    let names = [rate, "Latency, p50", "Latency, p99", "Processor time for each delivery"];
    let cell = |spread: &Option<Spread>| match spread {
        Some(Spread { median, least, most }) => {
            format!("<td>{median:.3} <small>{least:.3} to {most:.3}</small></td>")
        }
        None => "<td>-</td>".to_owned(),
    };
    let all = compared.ratios();
    if all.iter().all(|(_, spread)| spread.is_none()) {
        return String::new();
    }
    // For each figure first the ratio to the raw floor, then to the Postgres floor.
    let rows: String = names
        .iter()
        .zip(all.chunks(2))
        .map(|(name, pair)| {
            let cells: String = pair.iter().map(|(_, spread)| cell(spread)).collect();
            format!("<tr><td>{name}</td>{cells}</tr>\n")
        })
        .collect();
    format!(
        "<h2>Ratios</h2>\n<p>The broker's figure by that of the floor that ran beside it: the median of all turns, with the \
         least and the most.</p>\n<div class=\"card\"><table>\n<tr><th>Broker to</th><th>raw floor</th>\
         <th>Postgres floor</th></tr>\n{rows}</table></div>\n"
    )
}

fn bars(compared: &Compared) -> String {
    let figures: [Figure; 4] = [
        ("Deliveries in a second", |figures| Some(figures.delivered_per_s())),
        ("Acknowledged in a second", |figures| Some(figures.acked_per_s())),
        ("Processor seconds for a million deliveries", Figures::cpu_s_per_million),
        ("Most memory, in MiB", |figures| figures.peak_rss_mib),
    ];
    let cards: String = figures
        .into_iter()
        .filter_map(|(name, value)| {
            let bar = |(kind, class): (Kind, &'static str)| {
                Some(Bar { class, name: kind.name(), spread: compared.spread(kind, value)? })
            };
            let bars: Vec<Bar> = SERVERS.into_iter().filter_map(bar).collect();
            let svg = (!bars.is_empty()).then(|| chart::bars(name, &bars))?;
            Some(format!("<div class=\"card\"><h3>{name}</h3>\n{svg}</div>\n"))
        })
        .collect();
    let about = "The median of each server, with a line from the least to the most. The raw floor keeps nothing; the \
        Postgres floor commits and flushes each message before it tells anybody.";
    format!("<h2>Broker and floors</h2>\n<p>{about}</p>\n<div class=\"grid2\">\n{cards}</div>\n")
}

fn percentiles(compared: &Compared) -> String {
    // As far along as it has nines: what is rare has as much room as what is common.
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let (first, last) = (nines(0.5), nines(0.999));
    let place = |quantile: f64| (nines(quantile) - first) / (last - first);
    let lines: Vec<Line> = SERVERS
        .into_iter()
        .filter(|(kind, _)| !compared.runs(*kind).is_empty())
        .map(|(kind, class)| {
            let median = |quantile| compared.spread(kind, |figures| Some(figures.latency.ms(quantile)));
            let point = |(name, quantile): (&str, f64)| {
                (place(quantile), name.to_owned(), median(quantile).map(|spread| spread.median))
            };
            let points = PERCENTILES.into_iter().map(point).collect();
            Line { class: class.to_owned(), name: kind.name().to_owned(), points }
        })
        .collect();
    let places: Vec<(f64, String)> =
        PERCENTILES.into_iter().map(|(name, quantile)| (place(quantile), name.to_owned())).collect();
    let chart = chart::lines("Latency by percentile, in milliseconds", &places, &lines, extent(&lines));
    let about = "From the sender's write to a receiver's read. With a rate it counts from when the plan had the message \
        sent, so that a stall is not hidden.";
    format!("<h2>Latency</h2>\n<p>{about}</p>\n<div class=\"card\">{}{chart}</div>\n", key(compared, false))
}

/// One chart for each turn, all with the same axis.
fn over_time(compared: &Compared) -> String {
    let runs = SERVERS.into_iter().flat_map(|(kind, _)| compared.runs(kind));
    let longest = runs.map(|figures| figures.latency_over_time.len()).max().unwrap_or_default().max(1);
    let step = longest.div_ceil(POINTS_MAX);
    let place = |second: usize| if longest > 1 { second as f64 / (longest - 1) as f64 } else { 0.5 };
    let mut turns = Vec::new();
    for (number, round) in compared.rounds.iter().enumerate() {
        let mut lines = Vec::new();
        for (kind, class) in SERVERS {
            let Some(figures) = round.of(kind) else { continue };
            lines.push(line(kind, class, "p99", figures, step, place, |second| second.p99_ms));
            lines.push(line(kind, &format!("{class} half"), "p50", figures, step, place, |second| second.p50_ms));
        }
        turns.push((format!("Turn {}", number + 1), lines));
    }
    if let Some(figures) = &compared.last_raw {
        let p99 = line(Kind::RawFloor, "raw", "p99", figures, step, place, |second| second.p99_ms);
        let p50 = line(Kind::RawFloor, "raw half", "p50", figures, step, place, |second| second.p50_ms);
        turns.push(("The raw floor once more, at the end".to_owned(), vec![p99, p50]));
    }
    let extents = turns.iter().map(|(_, lines)| extent(lines));
    let extent = extents.fold((f64::INFINITY, 0.0), |all: (f64, f64), one| (all.0.min(one.0), all.1.max(one.1)));
    let mut marks: Vec<usize> = (0..=6).map(|part| (longest - 1) * part / 6).collect();
    marks.dedup();
    let places: Vec<(f64, String)> =
        marks.into_iter().map(|second| (place(second), format!("{} s", second + 1))).collect();
    let cards: String = turns
        .into_iter()
        .map(|(name, lines)| {
            let chart = chart::lines(&format!("{name}: latency over time"), &places, &lines, extent);
            format!("<div class=\"card\"><h3>{name}</h3>\n{}{chart}</div>\n", key(compared, true))
        })
        .collect();
    let points = match step {
        1 => "A point is what was read in one second".to_owned(),
        step => format!("A point is the highest of {step} seconds"),
    };
    let about = format!("{points}; a line is broken where nothing was delivered. All charts have the same scale.");
    format!("<h2>Latency over time</h2>\n<p>{about}</p>\n{cards}")
}

/// A percentile of a run by the second; of more than [`POINTS_MAX`] seconds the highest of `step` each.
fn line(
    kind: Kind,
    class: &str,
    percentile: &str,
    figures: &Figures,
    step: usize,
    place: impl Fn(usize) -> f64,
    value: impl Fn(&Second) -> f64,
) -> Line {
    let highest = |some: &[Option<Second>]| some.iter().flatten().map(&value).max_by(f64::total_cmp);
    let point = |(number, some): (usize, &[Option<Second>])| {
        let second = number * step;
        (place(second), format!("in second {}", second + 1), highest(some))
    };
    let points = figures.latency_over_time.chunks(step).enumerate().map(point).collect();
    Line { class: class.to_owned(), name: format!("{}, {percentile}", kind.name()), points }
}

/// The least and the most of some lines.
fn extent(lines: &[Line]) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| &line.points).filter_map(|(_, _, value)| *value);
    (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
}

/// Which colour is which server.
fn key(compared: &Compared, has_both: bool) -> String {
    let shown = SERVERS.into_iter().filter(|(kind, _)| !compared.runs(*kind).is_empty());
    let servers: String =
        shown.map(|(kind, class)| format!("<span><i class=\"{class}\"></i>{}</span>", kind.name())).collect();
    let styles = "<span><i class=\"whole\"></i>p99</span><span><i class=\"half\"></i>p50</span>";
    format!("<div class=\"key\">{servers}{}</div>\n", if has_both { styles } else { "" })
}

/// Each run by its figures.
fn runs(compared: &Compared) -> String {
    let mut rows = String::new();
    for (kind, _) in SERVERS {
        for (turn, figures) in compared.runs(kind).into_iter().enumerate() {
            let latency = [0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| number(figures.latency.ms(quantile)));
            let mut cells = vec![number(figures.acked_per_s()), number(figures.delivered_per_s())];
            cells.extend(latency);
            cells.push(seen(figures.cpu_s_per_million(), 3));
            cells.push(seen(figures.peak_rss_mib, 0));
            cells.push(seen(figures.foreign_cpu.map(|share| share * 100.0), 1));
            cells.push(figures.opened.to_string());
            cells.push(figures.wrong.sum().to_string());
            let cells: String = cells.into_iter().map(|cell| format!("<td>{cell}</td>")).collect();
            let early = if figures.is_exhausted { " <small>ended early</small>" } else { "" };
            rows += &format!("<tr><td>{}, {}{early}</td>{cells}</tr>\n", kind.name(), turn + 1);
        }
    }
    let names = [
        "Run",
        "acked/s",
        "delivered/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "CPU s/million",
        "peak MiB",
        "foreign %",
        "opened",
        "wrong",
    ];
    let names: String = names.into_iter().map(|name| format!("<th>{name}</th>")).collect();
    let about = "Peak: resident memory of all processes of the server. Foreign: processor time that neither server nor \
        clients used; a run with much of it says little. Opened: messages that were decrypted and verified. A dash is what \
        could not be seen.";
    format!("<h2>Each run</h2>\n<p>{about}</p>\n<div class=\"card\"><table>\n<tr>{names}</tr>\n{rows}</table></div>\n")
}

#[cfg(test)]
mod tests;
