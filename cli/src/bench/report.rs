//! The report of a run, as text and JSON.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::Arguments;
use super::measure::{Latencies, Series, Slot};
use super::server::ServerProcesses;
use super::thread::Outcome;
use crate::failure::Failure;
use crate::show::{self, counted};

/// Busy share of a thread above which its own work distorts the latencies.
const BUSY: f64 = 0.9;

/// Minimum duration for judging the busy share: 100 ms, in nanoseconds.
const LONG_ENOUGH: u64 = 100_000_000;

/// Minimum duration of a reported pause: 100 ms, in nanoseconds.
const PAUSE: u64 = 100_000_000;

/// Columns of a bar chart in text.
const COLUMNS: usize = 50;

/// The percentiles of the table, by name.
const PERCENTILES: [(&str, f64); 5] =
    [("50 %", 0.5), ("90 %", 0.9), ("99 %", 0.99), ("99.9 %", 0.999), ("99.99 %", 0.9999)];

pub(super) struct Report {
    pub(super) setting: Setting,
    pub(super) raw: Latencies,
    pub(super) corrected: Latencies,
    pub(super) series: Series,
    /// Duration of the measurement in nanoseconds.
    pub(super) elapsed: u64,
    replies: u64,
    /// Replies of each connection, in ascending order.
    of_connections: Vec<u64>,
    missing: u64,
    unsent: u64,
    /// Busy share of the busiest thread, from 0 to 1.
    busy: f64,
    cpu: Option<Duration>,
    server_cpu: Option<Duration>,
    server_ids: Vec<u32>,
    pub(super) warnings: Vec<String>,
    pub(super) failure: Option<Failure>,
}

/// The requested load.
#[derive(Serialize)]
pub(super) struct Setting {
    pub(super) address: String,
    pub(super) connections: u32,
    pub(super) window: u32,
    pub(super) length: usize,
    pub(super) reply: String,
    pub(super) rate: Option<u64>,
    threads: u32,
}

impl Setting {
    fn new(arguments: &Arguments) -> Self {
        Self {
            address: arguments.address.to_string(),
            connections: arguments.connections,
            window: arguments.window,
            length: arguments.length,
            reply: arguments
                .reply
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().into()),
            rate: arguments.rate,
            threads: arguments.threads.min(arguments.connections),
        }
    }
}

/// Displays the load in one line.
impl Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, connections, window, length, .. } = self;
        write!(f, "{address}: {}, ", counted(u64::from(*connections), "connection"))?;
        match self.rate {
            None => write!(f, "{} in flight on each, ", counted(u64::from(*window), "line"))?,
            Some(rate) => write!(f, "{} per second, ", counted(rate, "line"))?,
        }
        f.write_str(&show::bytes(*length))
    }
}

/// Returns the text that is printed before the run.
pub(super) fn plan(arguments: &Arguments) -> String {
    let setting = Setting::new(arguments);
    let warm_up = humantime::format_duration(arguments.warm_up);
    let lasts = [
        arguments.count.map(|count| counted(count, "line")),
        arguments.duration().map(|duration| humantime::format_duration(duration).to_string()),
    ];
    let lasts: Vec<_> = lasts.into_iter().flatten().collect();
    format!("{setting}\n{}, after {warm_up} of warm-up", lasts.join(" or "))
}

impl Report {
    /// Merges the outcomes of all threads. `end` is the deadline if it was reached, otherwise 0.
    pub(super) fn new(
        arguments: &Arguments,
        outcomes: Vec<Outcome>,
        server: &ServerProcesses,
        server_cpu: Option<Duration>,
        end: u64,
    ) -> Self {
        let mut outcomes = outcomes.into_iter();
        let mut all = outcomes.next().unwrap_or_else(|| unreachable!("there is a thread"));
        let mut busy = all.effort.busy;
        let mut cpu = all.effort.cpu;
        for outcome in outcomes {
            all.measure.add(outcome.measure);
            all.broken.extend(outcome.broken);
            all.unsent += outcome.unsent;
            busy = busy.max(outcome.effort.busy);
            cpu = cpu.zip(outcome.effort.cpu).map(|(all, one)| all + one);
        }
        let mut measure = all.measure;
        measure.of_connections.sort_unstable();
        let missing = all.broken.iter().map(|broken| broken.missing).sum();
        let failed = all.broken.len();
        let first = all.broken.into_iter().min_by_key(|broken| broken.at);
        let failure = first.map(|first| {
            first.failure.and(format_args!(
                "{failed} of {} failed, {} missing",
                counted(arguments.connections.into(), "connection"),
                counted(missing, "reply")
            ))
        });
        let corrected = match arguments.rate {
            Some(_) => measure.intended,
            None => corrected(&measure.raw),
        };
        let start = measure.series.start;
        Self {
            setting: Setting::new(arguments),
            corrected,
            raw: measure.raw,
            series: measure.series,
            elapsed: measure.last.max(end).saturating_sub(start),
            replies: measure.replies,
            of_connections: measure.of_connections,
            missing,
            unsent: all.unsent,
            busy,
            cpu,
            server_cpu,
            server_ids: server.ids().into(),
            warnings: Vec::new(),
            failure,
        }
    }

    /// Returns warnings about figures that are distorted by `bench` itself.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.busy > BUSY && self.elapsed >= LONG_ENOUGH {
            warnings.push(format!(
                "a thread of bench was {:.0} % busy, which distorts the latencies: use more --threads",
                self.busy * 100.0
            ));
        }
        if self.unsent > 0 {
            warnings.push(format!(
                "{} due but not sent: the server is too slow for --rate and --window, and the real latencies are \
                 longer than these",
                counted(self.unsent, "line")
            ));
        }
        warnings
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).unwrap_or_else(|error| unreachable!("{error}"));
        text
    }

    fn write_text(&self, to: &mut String) -> fmt::Result {
        let seconds = self.elapsed as f64 / 1e9;
        writeln!(to, "\nreplies     {}, in {}", self.replies, Time(self.elapsed))?;
        if self.missing > 0 {
            writeln!(to, "missing     {}", self.missing)?;
        }
        if self.replies == 0 {
            return Ok(());
        }
        writeln!(to, "rate        {:.0} per second", self.replies as f64 / seconds)?;

        writeln!(to, "\nlatency         raw   corrected")?;
        let mut row = |name: &str, raw: u64, corrected: u64| {
            writeln!(to, "  {name:<7} {:>9}   {:>9}", Time(raw).to_string(), Time(corrected).to_string())
        };
        row("min", self.raw.min(), self.corrected.min())?;
        for (name, quantile) in PERCENTILES {
            row(name, self.raw.value_at_quantile(quantile), self.corrected.value_at_quantile(quantile))?;
        }
        row("max", self.raw.max(), self.corrected.max())?;
        row("mean", self.raw.mean() as u64, self.corrected.mean() as u64)?;

        let columns = self.columns(COLUMNS);
        let width = columns.first().map_or(0, |column| column.width);
        let most = columns.iter().map(|column| column.longest).max().unwrap_or(0);
        let fastest = columns.iter().map(|column| column.rate).fold(0.0, f64::max);
        writeln!(to, "\nover time, {} per column", Time(width))?;
        let longest = columns.iter().map(|column| column.longest as f64 / most as f64);
        writeln!(to, "  longest {}  up to {}", Bars(longest.collect()), Time(most))?;
        let rates = columns.iter().map(|column| column.rate / fastest);
        writeln!(to, "  replies {}  up to {fastest:.0}/s", Bars(rates.collect()))?;
        if let Some((at, length)) = self.pause() {
            writeln!(to, "  no reply for {}, starting at {}", Time(length), Time(at))?;
        }

        let each = |cpu: Duration| Time((cpu.as_nanos() / u128::from(self.replies)) as u64);
        if let Some(cpu) = self.cpu {
            writeln!(to, "\nCPU time per line")?;
            writeln!(to, "  bench   {}, busiest thread {:.0} % busy", each(cpu), self.busy * 100.0)?;
        }
        if let Some(cpu) = self.server_cpu {
            let ids: Vec<_> = self.server_ids.iter().map(u32::to_string).collect();
            writeln!(to, "  server  {}, process {}", each(cpu), ids.join(", "))?;
        }
        Ok(())
    }

    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            #[serde(flatten)]
            setting: &'a Setting,
            seconds: f64,
            replies: u64,
            missing: u64,
            unsent: u64,
            replies_per_second: f64,
            replies_per_connection: Share,
            latency_ns: Both,
            slot_seconds: f64,
            over_time: Vec<Part>,
            longest_pause: Option<Pause>,
            cpu_ns_per_line: Cpu<'a>,
            warnings: &'a [String],
            failure: Option<String>,
        }
        #[derive(Serialize)]
        struct Share {
            min: u64,
            median: u64,
            max: u64,
        }
        #[derive(Serialize)]
        struct Both {
            raw: Summary,
            corrected: Summary,
        }
        #[derive(Serialize)]
        struct Summary {
            min: u64,
            p50: u64,
            p90: u64,
            p99: u64,
            p99_9: u64,
            p99_99: u64,
            max: u64,
            mean: f64,
        }
        #[derive(Serialize)]
        struct Part {
            replies: u64,
            p50_ns: Option<u64>,
            p99_ns: Option<u64>,
            max_ns: Option<u64>,
        }
        #[derive(Serialize)]
        struct Pause {
            from_seconds: f64,
            seconds: f64,
        }
        #[derive(Serialize)]
        struct Cpu<'a> {
            bench: Option<f64>,
            busiest_thread: f64,
            server: Option<f64>,
            server_pids: &'a [u32],
        }
        let summary = |latencies: &Latencies| {
            let at = |quantile| latencies.value_at_quantile(quantile);
            Summary {
                min: latencies.min(),
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p99_9: at(0.999),
                p99_99: at(0.9999),
                max: latencies.max(),
                mean: latencies.mean(),
            }
        };
        let of_connection = |at: usize| self.of_connections.get(at).copied().unwrap_or(0);
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let each = |cpu: Duration| (self.replies > 0).then(|| cpu.as_nanos() as f64 / self.replies as f64);
        let slots = self.series.slots.iter().map(|slot| {
            let at =
                |quantile| (!slot.latencies.is_empty()).then(|| slot.latencies.value_at_quantile(quantile));
            Part { replies: slot.replies, p50_ns: at(0.5), p99_ns: at(0.99), max_ns: at(1.0) }
        });
        let object = Object {
            setting: &self.setting,
            seconds: seconds(self.elapsed),
            replies: self.replies,
            missing: self.missing,
            unsent: self.unsent,
            replies_per_second: if self.elapsed > 0 {
                self.replies as f64 / seconds(self.elapsed)
            } else {
                0.0
            },
            replies_per_connection: Share {
                min: of_connection(0),
                median: of_connection(self.of_connections.len() / 2),
                max: of_connection(self.of_connections.len().saturating_sub(1)),
            },
            latency_ns: Both { raw: summary(&self.raw), corrected: summary(&self.corrected) },
            slot_seconds: seconds(self.series.width),
            over_time: slots.collect(),
            longest_pause: self
                .pause()
                .map(|(at, length)| Pause { from_seconds: seconds(at), seconds: seconds(length) }),
            cpu_ns_per_line: Cpu {
                bench: self.cpu.and_then(each),
                busiest_thread: self.busy,
                server: self.server_cpu.and_then(each),
                server_pids: &self.server_ids,
            },
            warnings: &self.warnings,
            failure: self.failure.as_ref().map(Failure::message),
        };
        // Cannot fail: all numbers are finite and all keys are strings.
        serde_json::to_string(&object).unwrap_or_default() + "\n"
    }

    /// Returns the run over time, in at most `most` columns of equal width.
    pub(super) fn columns(&self, most: usize) -> Vec<Column> {
        let slots = &self.series.slots;
        let each = slots.len().div_ceil(most).max(1);
        let width = self.series.width * each as u64;
        let columns = slots.chunks(each).enumerate().map(|(nth, slots)| {
            let at = width * nth as u64;
            let mut all = Slot::new();
            slots.iter().for_each(|slot| all.add(slot));
            // The last column may be longer than the rest of the run.
            let covered = width.min(self.elapsed.saturating_sub(at)).max(1);
            Column {
                width,
                is_empty: all.latencies.is_empty(),
                median: all.latencies.value_at_quantile(0.5),
                // Histograms of slots have only two digits and may round up.
                longest: all.latencies.max().min(self.corrected.max()),
                rate: all.replies as f64 * 1e9 / covered as f64,
            }
        });
        columns.collect()
    }

    /// Returns start and duration of the longest time without a reply, in whole slots, or `None` if
    /// it is shorter than `PAUSE`.
    fn pause(&self) -> Option<(u64, u64)> {
        let mut longest = 0..0;
        let mut start = 0;
        for (nth, slot) in self.series.slots.iter().enumerate() {
            if slot.replies > 0 {
                start = nth + 1;
            } else if nth + 1 - start > longest.len() {
                longest = start..nth + 1;
            }
        }
        let length = longest.len() as u64 * self.series.width;
        (length >= PAUSE).then_some((longest.start as u64 * self.series.width, length))
    }
}

/// A column of a chart over time.
pub(super) struct Column {
    pub(super) width: u64,
    pub(super) is_empty: bool,
    pub(super) median: u64,
    pub(super) longest: u64,
    /// Replies per second.
    pub(super) rate: f64,
}

/// Corrects latencies of a closed loop for coordinated omission, as HdrHistogram does. Adds the
/// lines that would have been sent at the median interval during a long latency.
fn corrected(raw: &Latencies) -> Latencies {
    const SHORTEST: u64 = 1_000;

    raw.clone_correct(raw.value_at_quantile(0.5).max(SHORTEST))
}

/// Displays nanoseconds with three digits.
pub(super) struct Time(pub(super) u64);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => (self.0 as f64 / 1e3, "µs"),
            1_000_000..1_000_000_000 => (self.0 as f64 / 1e6, "ms"),
            _ => (self.0 as f64 / 1e9, "s"),
        };
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Displays numbers from 0 to 1 as a bar chart in one line of text.
struct Bars(Vec<f64>);

impl Display for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

        for &height in &self.0 {
            let level = (height * LEVELS.len() as f64).ceil() as usize;
            f.write_char(if height > 0.0 { LEVELS[level.clamp(1, LEVELS.len()) - 1] } else { ' ' })?;
        }
        Ok(())
    }
}
