//! Charts as SVG, drawn here: what the queue was like over time. Lines and areas stretch with the page; words stand around them as
//! HTML, so that they do not.

use super::Range;
use super::parts::{number, rate};
use maud::{Markup, PreEscaped, html};
use queue::{History, Sample};
use std::fmt::Write as _;

/// The drawing's own units.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;
/// Points that are drawn at most, and columns that tell their numbers under the mouse.
const POINTS_MAX: usize = 120;
const COLUMNS_MAX: usize = 48;
/// The shortest time that is drawn: a queue that just began fills its chart soon.
const SPAN_MIN_MS: u64 = 120_000;
/// Lines further apart than so many of their intervals have a gap between them: nobody was there to write any.
const GAP_INTERVALS: u64 = 4;

/// One line or area.
struct Series {
    name: &'static str,
    /// Its class in the style.
    class: &'static str,
    is_area: bool,
}

/// The values of all series at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    at_ms: u64,
    values: [f64; 3],
}

/// Which part of time is drawn.
#[derive(Debug, Clone, Copy)]
struct Window {
    from_ms: u64,
    to_ms: u64,
    /// Between two samples.
    interval_ms: u64,
}

impl Window {
    fn new(samples: &[Sample], now_ms: u64, range: Range) -> Window {
        let (longest_ms, interval_ms) = match range {
            Range::Hours => (2 * 3_600_000, 10_000),
            Range::Days => (8 * 86_400_000, 300_000),
        };
        let first_ms = samples.first().map_or(now_ms, |sample| sample.at_ms);
        let span_ms = now_ms.saturating_sub(first_ms).clamp(SPAN_MIN_MS, longest_ms);
        Window { from_ms: now_ms.saturating_sub(span_ms), to_ms: now_ms, interval_ms }
    }

    fn span_ms(self) -> u64 {
        (self.to_ms - self.from_ms).max(1)
    }

    fn x(self, at_ms: u64) -> f64 {
        at_ms.saturating_sub(self.from_ms) as f64 / self.span_ms() as f64 * WIDTH
    }
}

/// The samples of a range, newest included.
fn samples(history: &History, range: Range) -> &[Sample] {
    match range {
        Range::Hours => &history.fine,
        Range::Days => &history.coarse,
    }
}

/// What was done a second.
pub(super) fn throughput(history: &History, range: Range) -> Markup {
    let samples = samples(history, range);
    let window = Window::new(samples, history.now_ms, range);
    let series = [
        Series { name: "stored", class: "stored", is_area: true },
        Series { name: "rejected", class: "rejected", is_area: true },
        Series { name: "failed", class: "failed", is_area: true },
    ];
    let points = thinned(&rates(samples, window), window, POINTS_MAX);
    draw("Throughput", "jobs a second", &series, &points, window, true, rate)
}

/// How much waited.
pub(super) fn depth(history: &History, range: Range) -> Markup {
    let samples = samples(history, range);
    let window = Window::new(samples, history.now_ms, range);
    let series = [
        Series { name: "ready", class: "ready", is_area: true },
        Series { name: "delayed", class: "delayed", is_area: false },
    ];
    let points: Vec<Point> = samples
        .iter()
        .filter(|sample| sample.at_ms >= window.from_ms)
        .map(|sample| Point { at_ms: sample.at_ms, values: [sample.ready as f64, sample.delayed as f64, 0.0] })
        .collect();
    let points = thinned(&points, window, POINTS_MAX);
    draw("Depth", "jobs that wait", &series, &points, window, false, |n| number(n.round() as u64))
}

/// What happened a second, between each sample and the one before it. A counter that went back (a dead job lives again, a queue began
/// anew) counts as standing still.
fn rates(samples: &[Sample], window: Window) -> Vec<Point> {
    let between = |pair: &[Sample]| {
        let [before, after] = pair else { return None };
        let took_ms = after.at_ms.saturating_sub(before.at_ms);
        let is_gap = took_ms == 0 || took_ms > window.interval_ms * GAP_INTERVALS;
        let a_second = |before: u64, after: u64| after.saturating_sub(before) as f64 * 1000.0 / took_ms as f64;
        (!is_gap && after.at_ms >= window.from_ms).then(|| Point {
            at_ms: after.at_ms,
            values: [
                a_second(before.stored, after.stored),
                a_second(before.rejected, after.rejected),
                a_second(before.failed, after.failed),
            ],
        })
    };
    samples.windows(2).filter_map(between).collect()
}

/// At most `at_most` points: the means of equal parts of time.
fn thinned(points: &[Point], window: Window, at_most: usize) -> Vec<Point> {
    let part_ms = (window.span_ms() / at_most as u64).max(window.interval_ms);
    let part_of = |point: &Point| point.at_ms.saturating_sub(window.from_ms) / part_ms;
    let mean = |part: &[Point]| {
        let n = part.len() as f64;
        let values = [0, 1, 2].map(|of| part.iter().map(|point| point.values[of]).sum::<f64>() / n);
        Point { at_ms: part.iter().map(|point| point.at_ms).sum::<u64>() / part.len() as u64, values }
    };
    points.chunk_by(|a, b| part_of(a) == part_of(b)).map(mean).collect()
}

/// The first of 1, 2, 4, 6, 8, 10, 20 … that is not less: its half is a round number too.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|round| *round >= value)
        .unwrap_or(10.0 * power)
}

fn draw(
    title: &str,
    unit: &str,
    series: &[Series],
    points: &[Point],
    window: Window,
    is_stacked: bool,
    written: impl Fn(f64) -> String,
) -> Markup {
    let height_of = |point: &Point| match is_stacked {
        true => point.values.iter().sum::<f64>(),
        false => point.values.iter().copied().fold(0.0, f64::max),
    };
    let highest = points.iter().map(height_of).fold(0.0, f64::max);
    // At least two: half a job does not wait.
    let top = round_up(highest.max(if is_stacked { 0.1 } else { 2.0 }));
    let newest = points.last();
    let summary = match newest {
        Some(point) => format!(
            "{title}, {unit}: {} now, {} at most in {}",
            written(height_of(point)),
            written(highest),
            span(window.span_ms())
        ),
        None => format!("{title}, {unit}: nothing was recorded yet"),
    };
    html! {
        figure.chart {
            figcaption {
                h2 { (title) " " span.unit { (unit) } }
                ul.legend {
                    @for (n, line) in series.iter().enumerate() {
                        li { span.key.(line.class) {} (line.name) " " b { (newest.map_or("–".into(), |point| written(point.values[n]))) } }
                    }
                }
            }
            div.plot {
                div.scale aria-hidden="true" { span { (on_scale(top)) } span { (on_scale(top / 2.0)) } span { "0" } }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(summary) {
                    path.grid d=(format!("M0 .5H{WIDTH}M0 {}H{WIDTH}M0 {}H{WIDTH}", HEIGHT / 2.0, HEIGHT - 0.5)) {}
                    @for (n, line) in series.iter().enumerate().rev() {
                        (shape(line, n, points, window, top, is_stacked))
                    }
                    @for column in thinned(points, window, COLUMNS_MAX) {
                        (column_of(series, &column, window, &written))
                    }
                }
                @if points.is_empty() { p.empty { "Nothing was recorded yet: workers write a line every ten seconds." } }
                div.times aria-hidden="true" {
                    span { (span(window.span_ms())) " ago" } span { (span(window.span_ms() / 2)) " ago" } span { "now" }
                }
            }
        }
    }
}

/// The line of a series, with the area down to the series below it, in pieces where there are gaps.
fn shape(line: &Series, n: usize, points: &[Point], window: Window, top: f64, is_stacked: bool) -> Markup {
    let value = |point: &Point, n: usize| match is_stacked {
        true => point.values[..=n].iter().sum::<f64>(),
        false => point.values[n],
    };
    let y = |value: f64| HEIGHT - (value / top).clamp(0.0, 1.0) * (HEIGHT - 2.0) - 1.0;
    let place = |point: &Point, value: f64| format!("{:.1} {:.1}", window.x(point.at_ms), y(value));
    let part_ms = (window.span_ms() / POINTS_MAX as u64).max(window.interval_ms);
    let (mut edge, mut area) = (String::new(), String::new());
    for piece in points.chunk_by(|a, b| b.at_ms - a.at_ms <= part_ms * GAP_INTERVALS) {
        let above: Vec<String> = piece.iter().map(|point| place(point, value(point, n))).collect();
        let below = |point: &Point| if is_stacked && n > 0 { value(point, n - 1) } else { 0.0 };
        let below: Vec<String> = piece.iter().rev().map(|point| place(point, below(point))).collect();
        // Writing to a string does not fail.
        let _ = write!(edge, "M{}", above.join("L"));
        let _ = write!(area, "M{}L{}Z", above.join("L"), below.join("L"));
    }
    html! {
        @if line.is_area { path.area.(line.class) d=(area) {} }
        path.line.(line.class) d=(edge) {}
    }
}

/// What the mouse is told over a part of the chart.
fn column_of(series: &[Series], column: &Point, window: Window, written: impl Fn(f64) -> String) -> Markup {
    let width = WIDTH / COLUMNS_MAX as f64;
    let x = (window.x(column.at_ms) - width / 2.0).clamp(0.0, WIDTH - width);
    let values: Vec<String> =
        series.iter().zip(column.values).map(|(line, value)| format!("{} {}", line.name, written(value))).collect();
    let ago = span(window.to_ms.saturating_sub(column.at_ms));
    html! {
        rect.column x=(format!("{x:.0}")) width=(format!("{width:.0}")) height=(HEIGHT) { title { (values.join(", ")) ", " (ago) " ago" } }
    }
}

/// Round numbers, without what they do not need.
fn on_scale(value: f64) -> String {
    if value >= 1.0 { number(value.round() as u64) } else { rate(value) }
}

/// `45 s`, `20 min`, `2 h`, `8 days`.
fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..90 => format!("{s} s"),
        s @ 90..5400 => format!("{} min", (s + 30) / 60),
        s @ 5400..129_600 => format!("{} h", (s + 1800) / 3600),
        s => format!("{} days", (s + 43_200) / 86_400),
    }
}

/// A bar of parts of a whole, `(class, share)`, drawn over its full width.
pub(super) fn parts_of_whole(label: &str, parts: &[(&str, f64)]) -> Markup {
    let mut x = 0.0;
    let mut drawn = String::new();
    for (class, share) in parts {
        let width = share.clamp(0.0, 1.0) * 1000.0;
        let _ = write!(drawn, "<rect class=\"{class}\" x=\"{x:.1}\" width=\"{width:.1}\" height=\"10\"/>");
        x += width;
    }
    // Classes are ours, and the rest are numbers.
    html! { svg.whole viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(label) { (PreEscaped(drawn)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(seconds: u64) -> History {
        let sample = |n: u64| Sample {
            at_ms: 1_000_000 + n * 10_000,
            ready: 1000 - n,
            stored: n * 100,
            failed: n,
            ..Sample::default()
        };
        let fine: Vec<Sample> = (0..=seconds / 10).map(sample).collect();
        History { now_ms: fine.last().map_or(0, |last| last.at_ms), fine, coarse: Vec::new() }
    }

    #[test]
    fn rates_are_what_happened_between_two_samples() {
        let mut history = history(60);
        let window = Window::new(&history.fine, history.now_ms, Range::Hours);
        let points = rates(&history.fine, window);
        assert_eq!((points.len(), points[0].values), (6, [10.0, 0.0, 0.1]));
        // Back to nothing, and a time of which nothing is known.
        history.fine[3].stored = 0;
        history.fine.remove(5);
        history.fine[5].at_ms += 60_000;
        let points = rates(&history.fine, window);
        assert!(points.iter().all(|point| point.values[0] >= 0.0) && points.len() == 4, "{points:?}");
    }

    #[test]
    fn a_chart_is_small_however_long_the_history() {
        let history = history(7200);
        let chart = throughput(&history, Range::Hours).into_string();
        assert!(chart.len() < 20_000, "{}", chart.len());
        assert!(chart.contains("10.1 now") && chart.contains("2 h ago"), "{chart}");
        let points = thinned(
            &rates(&history.fine, Window::new(&history.fine, history.now_ms, Range::Hours)),
            Window::new(&history.fine, history.now_ms, Range::Hours),
            POINTS_MAX,
        );
        assert!(points.len() <= POINTS_MAX + 1, "{}", points.len());
        assert!(depth(&History::default(), Range::Days).into_string().contains("nothing was recorded yet"));
    }

    #[test]
    fn the_top_of_a_scale_is_round() {
        for (value, top) in
            [(0.05, 0.06), (0.081, 0.1), (1.0, 1.0), (3.1, 4.0), (41.0, 60.0), (40.0, 40.0), (999.0, 1000.0)]
        {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }
}
