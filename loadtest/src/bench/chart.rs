//! Draws charts as SVG for a page whose style sheet has their colours.
//!
//! Pure. Whatever is drawn has its number as text too, in the chart or as the title of its mark.

use std::fmt::Write;

use super::report::Spread;

/// Pixels of a chart of lines, and of its room for axes.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// Pixels of a bar chart.
const BARS_WIDTH: f64 = 440.0;
const BAR_LEFT: f64 = 110.0;
const BAR_RIGHT: f64 = 90.0;
const BAR_ROW: f64 = 34.0;

/// Points of a line, from which on only the line is drawn and no mark for each.
const MARKS_MAX: usize = 120;

/// The least that is told apart: clients measure microseconds.
const LEAST_MS: f64 = 0.001;

/// A bar with the extent of what it is the median of.
pub(crate) struct Bar {
    /// Of the style sheet.
    pub(crate) class: &'static str,
    pub(crate) name: &'static str,
    pub(crate) spread: Spread,
}

/// Values in milliseconds along a line; it is broken where there is none.
pub(crate) struct Line {
    /// Of the style sheet.
    pub(crate) class: String,
    pub(crate) name: String,
    /// Where on the other axis, from 0 to 1; what that place is called; the value.
    pub(crate) points: Vec<(f64, String, Option<f64>)>,
}

/// What must not end text or an attribute is written as an entity.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// About four digits, thousands set off.
pub(crate) fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    if !value.is_finite() || text.contains('.') {
        return text;
    }
    let mut grouped = String::new();
    let digits = text.len();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && (digits - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bars from 0, one below the other.
pub(crate) fn bars(label: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.spread.most).fold(0.0, f64::max);
    let scale = if most > 0.0 { (BARS_WIDTH - BAR_LEFT - BAR_RIGHT) / most } else { 0.0 };
    let height = BAR_ROW * bars.len() as f64 + 4.0;
    let mut svg = opening(label, BARS_WIDTH, height);
    for (row, bar) in bars.iter().enumerate() {
        let Spread { median, least, most } = bar.spread;
        let top = BAR_ROW * row as f64 + 6.0;
        let (middle, from) = (top + 11.0, BAR_LEFT + least * scale);
        let (width, to) = (median * scale, BAR_LEFT + most * scale);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{BAR_LEFT}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"22\" rx=\"3\">\
             <title>{}: {} ({} to {})</title></rect>\
             <line class=\"extent\" x1=\"{from:.1}\" y1=\"{middle:.1}\" x2=\"{to:.1}\" y2=\"{middle:.1}\"/>\
             <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            BAR_LEFT - 10.0,
            middle + 4.5,
            escape(bar.name),
            bar.class,
            escape(bar.name),
            number(median),
            number(least),
            number(most),
            to + 8.0,
            middle + 4.5,
            number(median),
        );
    }
    svg + "</svg>"
}

/// Lines over a logarithmic axis of milliseconds. `places` are the marks of the other axis, from 0 to 1. `extent` is the least and
/// the most that the axis must hold, so that charts beside each other have the same.
pub(crate) fn lines(label: &str, places: &[(f64, String)], lines: &[Line], extent: (f64, f64)) -> String {
    let axis = Axis::over(extent);
    let across = |place: f64| LEFT + place * (WIDTH - LEFT - RIGHT);
    let mut svg = opening(label, WIDTH, HEIGHT);
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in axis.ticks() {
        let (height, name) = (axis.at(tick), plain(tick));
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{right}\" y2=\"{height:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            height + 4.0
        );
    }
    for (place, name) in places {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            across(*place),
            bottom + 20.0,
            escape(name)
        );
    }
    let _ = write!(svg, "<text x=\"8\" y=\"12\">ms</text>");
    for line in lines {
        let has_marks = line.points.len() <= MARKS_MAX;
        for stretch in line.points.split(|(_, _, value)| value.is_none()) {
            let mut path = String::new();
            let mut marks = String::new();
            for (place, name, value) in stretch {
                let Some(value) = *value else { continue };
                let (x, y) = (across(*place), axis.at(value));
                let _ = write!(path, "{x:.1},{y:.1} ");
                if has_marks || stretch.len() == 1 {
                    let _ = write!(
                        marks,
                        "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{} {}: {} ms</title></circle>",
                        line.class,
                        escape(&line.name),
                        escape(name),
                        number(value)
                    );
                }
            }
            if !path.is_empty() {
                let _ = write!(svg, "<polyline class=\"{}\" points=\"{}\"/>{marks}", line.class, path.trim_end());
            }
        }
    }
    svg + "</svg>"
}

fn opening(label: &str, width: f64, height: f64) -> String {
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

/// A logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
}

impl Axis {
    fn over((least, most): (f64, f64)) -> Self {
        let (least, most) = (least.max(LEAST_MS), most.max(LEAST_MS));
        let below = steps().filter(|step| *step <= least * 1.000_001).last().unwrap_or(LEAST_MS);
        let above = steps().find(|step| *step >= most && *step > below * 1.5).unwrap_or(most * 2.0);
        Self { least: below, most: above }
    }

    /// Pixels from the top.
    fn at(&self, value: f64) -> f64 {
        let share = (value.max(self.least) / self.least).ln() / (self.most / self.least).ln();
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }

    fn ticks(&self) -> Vec<f64> {
        let within = |step: &f64| (self.least * 0.999..=self.most * 1.001).contains(step);
        let ticks: Vec<f64> = steps().filter(within).collect();
        if ticks.len() <= 8 {
            return ticks;
        }
        ticks.into_iter().filter(|tick| plain(*tick).trim_start_matches(['0', '.']).starts_with('1')).collect()
    }
}

/// 1, 2 and 5 of each power of ten, from a microsecond to more than the ten minutes that are told apart.
fn steps() -> impl Iterator<Item = f64> {
    (-3..=6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
}

fn plain(value: f64) -> String {
    format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let texts = [0.0123, 1.5, 99.94, 100.4, 1_234.0, 12_345_678.0].map(number);
        assert_eq!(texts, ["0.012", "1.50", "99.9", "100", "1,234", "12,345,678"]);
    }

    #[test]
    fn an_axis_holds_its_extent_and_grows_downwards() {
        for extent in [(0.0, 0.0), (0.3, 0.31), (1.0, 1.0), (0.02, 4_000.0), (0.001, 600_000.0)] {
            let axis = Axis::over(extent);
            assert!(axis.least <= extent.0.max(LEAST_MS) && axis.most >= extent.1, "{extent:?}");
            assert!(axis.ticks().len() >= 2, "{extent:?} has the ticks {:?}", axis.ticks());
            assert!((axis.at(axis.least) - (HEIGHT - BOTTOM)).abs() < 0.01);
            assert!((axis.at(axis.most) - TOP).abs() < 0.01);
            assert!(axis.at(axis.most) < axis.at(axis.least));
        }
    }

    #[test]
    fn a_line_is_broken_where_there_is_nothing() {
        let values = [Some(1.0), Some(2.0), None, Some(4.0)];
        let points = values.into_iter().map(|value| (0.5, "s".to_owned(), value)).collect();
        let line = Line { class: "a".to_owned(), name: "b".to_owned(), points };
        let svg = lines("c", &[], &[line], (1.0, 4.0));
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 3));
    }
}
