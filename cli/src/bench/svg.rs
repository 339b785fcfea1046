//! The SVG chart: latencies by percentile, latencies over time, and replies per second.

use std::fmt::{self, Write};

use super::report::{Column, Report};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 860.0;

/// Left and right edge of the panels.
const LEFT: f64 = 80.0;
const RIGHT: f64 = WIDTH - 24.0;

/// Maximum number of columns over time.
const COLUMNS: usize = 200;

/// Styles for light and dark mode. No CSS variables, because not every viewer supports them.
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #59636e; }
.title { font-size: 15px; font-weight: 600; fill: #1f2328; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.paper { fill: #ffffff; }
line { stroke: #d8dee4; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
polyline.raw { stroke: #0969da; }
polyline.corrected { stroke: #bc4c00; }
text.raw { fill: #0969da; }
text.corrected { fill: #bc4c00; }
.longest { fill: #f2b28c; }
.replies { fill: #8fb8e8; }
rect { shape-rendering: crispEdges; }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; }
.title { fill: #e6edf3; }
.paper { fill: #0d1117; }
line { stroke: #30363d; }
polyline.raw { stroke: #58a6ff; }
polyline.corrected { stroke: #f0883e; }
text.raw { fill: #58a6ff; }
text.corrected { fill: #f0883e; }
.longest { fill: #7a3d10; }
.replies { fill: #1f4f86; }
}
";

pub(super) fn draw(report: &Report) -> String {
    let mut svg = String::new();
    write(report, &mut svg).unwrap_or_else(|error| unreachable!("{error}"));
    svg
}

fn write(report: &Report, svg: &mut String) -> fmt::Result {
    let title = escaped(&report.setting.to_string());
    writeln!(svg, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#)?;
    writeln!(svg, "<title>lineframe bench {title}</title>\n<style>\n{STYLE}</style>")?;
    writeln!(svg, r#"<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>"#)?;
    writeln!(svg, r#"<text class="title" x="24" y="32">{title}</text>"#)?;
    if report.raw.is_empty() {
        writeln!(svg, r#"<text x="24" y="64">No reply.</text>"#)?;
        return writeln!(svg, "</svg>");
    }
    let columns = report.columns(COLUMNS);
    by_percentile(report, svg, Panel { top: 96.0, bottom: 340.0 })?;
    let by = if report.setting.rate.is_some() { "due" } else { "sent" };
    over_time(&columns, by, svg, Panel { top: 416.0, bottom: 620.0 })?;
    replies(&columns, svg, Panel { top: 696.0, bottom: 800.0 })?;
    writeln!(svg, "</svg>")
}

/// Vertical extent of a chart.
#[derive(Clone, Copy)]
struct Panel {
    top: f64,
    bottom: f64,
}

impl Panel {
    /// Returns the y coordinate for a share from 0 (bottom) to 1 (top).
    fn y(self, share: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * share.clamp(0.0, 1.0)
    }

    fn title(self, svg: &mut String, title: &str) -> fmt::Result {
        writeln!(svg, r#"<text class="title" x="24" y="{}">{title}</text>"#, self.top - 24.0)
    }

    fn grid_line(self, svg: &mut String, share: f64, label: &str) -> fmt::Result {
        let y = self.y(share);
        writeln!(svg, r#"<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
        writeln!(svg, r#"<text class="end" x="{}" y="{:.1}">{label}</text>"#, LEFT - 8.0, y + 4.0)
    }

    fn below(self, svg: &mut String, share: f64, label: &str) -> fmt::Result {
        let (x, y) = (x(share), self.bottom + 20.0);
        writeln!(svg, r#"<text class="middle" x="{x:.1}" y="{y}">{label}</text>"#)
    }
}

fn x(share: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
}

/// Logarithmic scale of latencies between two powers of ten.
#[derive(Clone, Copy)]
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    fn of(shortest: u64, longest: u64) -> Self {
        let power = |nanoseconds: u64| (nanoseconds.max(1) as f64).log10();
        let lowest = power(shortest).floor();
        Self { lowest, highest: power(longest).ceil().max(lowest + 1.0) }
    }

    fn share(self, nanoseconds: u64) -> f64 {
        ((nanoseconds.max(1) as f64).log10() - self.lowest) / (self.highest - self.lowest)
    }

    fn grid(self, svg: &mut String, panel: Panel) -> fmt::Result {
        for power in self.lowest as u32..=self.highest as u32 {
            let nanoseconds = 10_u64.pow(power);
            panel.grid_line(svg, self.share(nanoseconds), &power_of_ten(nanoseconds))?;
        }
        Ok(())
    }
}

/// Formats a power of ten without decimals: `10 µs`.
fn power_of_ten(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{} µs", nanoseconds / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", nanoseconds / 1_000_000),
        _ => format!("{} s", nanoseconds / 1_000_000_000),
    }
}

/// Draws latencies by percentile; each additional nine has the same width.
fn by_percentile(report: &Report, svg: &mut String, panel: Panel) -> fmt::Result {
    const POINTS: u32 = 300;

    panel.title(svg, "Latency by percentile")?;
    writeln!(svg, r#"<text class="raw end" x="{}" y="{}">raw</text>"#, RIGHT - 90.0, panel.top - 24.0)?;
    writeln!(svg, r#"<text class="corrected end" x="{RIGHT}" y="{}">corrected</text>"#, panel.top - 24.0)?;
    let scale = Scale::of(report.raw.min(), report.raw.max().max(report.corrected.max()));
    scale.grid(svg, panel)?;
    // With N latencies, the highest meaningful percentile is 1 - 1/N.
    let nines = (report.raw.len() as f64).log10().clamp(1.0, 6.0);
    for (nth, label) in
        ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"].iter().enumerate()
    {
        if nth as f64 <= nines {
            panel.below(svg, nth as f64 / nines, label)?;
        }
    }
    for (class, latencies) in [("corrected", &report.corrected), ("raw", &report.raw)] {
        write!(svg, r#"<polyline class="{class}" points=""#)?;
        for point in 0..=POINTS {
            let share = f64::from(point) / f64::from(POINTS);
            let nanoseconds = match point {
                POINTS => latencies.max(),
                _ => latencies.value_at_quantile(1.0 - 10_f64.powf(-share * nines)),
            };
            write!(svg, "{:.1},{:.1} ", x(share), panel.y(scale.share(nanoseconds)))?;
        }
        writeln!(svg, r#""/>"#)?;
    }
    Ok(())
}

fn over_time(columns: &[Column], by: &str, svg: &mut String, panel: Panel) -> fmt::Result {
    let seen = || columns.iter().filter(|column| !column.is_empty);
    let shortest = seen().map(|column| column.median).min().unwrap_or(1);
    let longest = seen().map(|column| column.longest).max().unwrap_or(1);
    panel.title(svg, &format!("Latency over time, by when a line was {by}: longest, and median"))?;
    let scale = Scale::of(shortest, longest);
    scale.grid(svg, panel)?;
    seconds(columns, svg, panel)?;
    bars(columns, svg, panel, "longest", |column| match column.is_empty {
        true => 0.0,
        false => scale.share(column.longest),
    })?;
    // Draw one median line per stretch of columns with latencies.
    let count = columns.len() as f64;
    let with_place: Vec<_> = columns.iter().enumerate().collect();
    for stretch in with_place.split(|(_, column)| column.is_empty).filter(|stretch| !stretch.is_empty()) {
        write!(svg, r#"<polyline class="corrected" points=""#)?;
        for (nth, column) in stretch {
            let y = panel.y(scale.share(column.median));
            for edge in [*nth, nth + 1] {
                write!(svg, "{:.1},{y:.1} ", x(edge as f64 / count))?;
            }
        }
        writeln!(svg, r#""/>"#)?;
    }
    Ok(())
}

fn replies(columns: &[Column], svg: &mut String, panel: Panel) -> fmt::Result {
    let most = columns.iter().map(|column| column.rate).fold(0.0, f64::max).max(1.0);
    panel.title(svg, "Replies per second")?;
    panel.grid_line(svg, 0.0, "0")?;
    panel.grid_line(svg, 1.0, &format!("{most:.0}"))?;
    seconds(columns, svg, panel)?;
    bars(columns, svg, panel, "replies", |column| column.rate / most)
}

/// Draws a bar for each column, with the height `share`.
fn bars(
    columns: &[Column],
    svg: &mut String,
    panel: Panel,
    class: &str,
    share: impl Fn(&Column) -> f64,
) -> fmt::Result {
    let count = columns.len() as f64;
    for (nth, column) in columns.iter().enumerate() {
        // Round to whole pixels, so that bars touch without gaps.
        let (left, right) = (x(nth as f64 / count).round(), x((nth + 1) as f64 / count).round());
        let (width, top) = (right - left, panel.y(share(column)).round());
        let height = panel.bottom - top;
        if height > 0.0 {
            writeln!(
                svg,
                r#"<rect class="{class}" x="{left}" y="{top}" width="{width}" height="{height}"/>"#
            )?;
        }
    }
    Ok(())
}

/// Draws the time axis below the columns, in round steps.
fn seconds(columns: &[Column], svg: &mut String, panel: Panel) -> fmt::Result {
    const MOST: u64 = 8;

    let whole: u64 = columns.iter().map(|column| column.width).sum();
    let steps = (6..18).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    let step =
        steps.take_while(|step| *step <= whole).find(|step| whole / step <= MOST).unwrap_or(whole.max(1));
    panel.below(svg, 0.0, "0")?;
    for at in (step..=whole).step_by(step as usize) {
        panel.below(svg, at as f64 / whole as f64, &in_seconds(at))?;
    }
    Ok(())
}

/// Formats seconds: `0.5 s`, `20 s`.
fn in_seconds(nanoseconds: u64) -> String {
    format!("{} s", nanoseconds as f64 / 1e9)
}

/// Escapes text for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
