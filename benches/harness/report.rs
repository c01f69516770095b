//! The measurements as figures, a table and JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::measure::{Measured, Sample};
use super::rows::Target;

/// The median, the least and the greatest of some figures.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Bounds of the median that any number of such figures would have, with a certainty of about
    /// 95 %.
    pub(crate) bounds: [f64; 2],
}

/// A row's figures, of the subject unless stated otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) name: String,
    /// URBs a second; the baseline's too.
    pub(crate) rate: f64,
    pub(crate) baseline_rate: f64,
    /// Bytes of a URB.
    pub(crate) len: usize,
    /// Of the rates, pair by pair.
    pub(crate) ratio: Spread,
    /// The baseline's processor time for a URB, both sides together, as a share of the subject's:
    /// the ratio of the rates if nobody else used the processor and nobody waited.
    pub(crate) work: Option<f64>,
    /// p50, p99 and p99.9, in microseconds.
    pub(crate) turnaround: [f64; 3],
    /// p50 and p99 as multiples of the baseline's, pair by pair.
    pub(crate) turnaround_ratio: [f64; 2],
    /// Microseconds of the server's processor time a URB; the baseline's too.
    pub(crate) cpu: Option<f64>,
    pub(crate) baseline_cpu: Option<f64>,
    pub(crate) switches: Option<f64>,
    pub(crate) syscalls: Option<f64>,
    pub(crate) ioctls: Option<f64>,
    pub(crate) bare: Option<BareFigures>,
    /// Bytes.
    pub(crate) memory: Option<f64>,
    /// The load generator's share of a processor.
    pub(crate) client: Option<f64>,
    /// The slowest session's share of the mean.
    pub(crate) slowest: f64,
    pub(crate) target: Target,
}

/// A row's figures of the bare server, and usbferry's beside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BareFigures {
    /// URBs a second of the bare server.
    rate: f64,
    /// usbferry's rate as a share of the bare server's, turn by turn.
    pub(crate) ratio: Spread,
    /// The bare server's processor time for a URB, both sides together, as a share of usbferry's.
    pub(crate) work: Option<f64>,
    /// p50 and p99 of the bare server, in microseconds.
    turnaround: [f64; 2],
    /// Microseconds of the server's processor time a URB.
    cpu: Option<f64>,
    syscalls: Option<f64>,
    ioctls: Option<f64>,
}

impl BareFigures {
    fn of(measured: &Measured) -> Option<Self> {
        let (samples, calls) = measured.bare.as_ref()?;
        let median = |figure: &dyn Fn(&Sample) -> f64| spread(samples.iter().map(figure)).median;
        let turns = || measured.pairs.iter().map(|(own, _)| own).zip(samples);
        let known = |figure: f64| Some(figure).filter(|figure| !figure.is_nan());
        Some(Self {
            rate: median(&|sample| sample.outcome.rate()),
            ratio: spread(turns().map(|(own, bare)| own.outcome.rate() / bare.outcome.rate())),
            work: known(spread(turns().map(|(own, bare)| work(bare) / work(own))).median),
            turnaround: [500_000, 990_000].map(|per_million| {
                median(&|sample| micros(sample.outcome.turnaround.quantile(per_million)))
            }),
            cpu: known(median(&cpu)),
            syscalls: calls.syscalls,
            ioctls: calls.ioctls,
        })
    }

    fn fields(&self) -> [(&'static str, Option<f64>); 10] {
        [
            ("bare_urbs_per_second", Some(self.rate)),
            ("bare_ratio", Some(self.ratio.median)),
            ("bare_ratio_low", Some(self.ratio.bounds[0])),
            ("bare_ratio_high", Some(self.ratio.bounds[1])),
            ("bare_work_ratio", self.work),
            ("bare_p50_us", Some(self.turnaround[0])),
            ("bare_p99_us", Some(self.turnaround[1])),
            ("bare_cpu_us_per_urb", self.cpu),
            ("bare_syscalls_per_urb", self.syscalls),
            ("bare_usbfs_ioctls_per_urb", self.ioctls),
        ]
    }

    fn line(&self) -> String {
        format!(
            "{:>5.2} {:>5.2}-{:<5.2} {:>5} {:>8.1} {:>7} {:>6} {:>6}",
            self.ratio.median,
            self.ratio.bounds[0],
            self.ratio.bounds[1],
            option(self.work, 2),
            self.turnaround[0],
            option(self.cpu, 2),
            option(self.syscalls, 2),
            option(self.ioctls, 2),
        )
    }
}

impl Figures {
    pub(crate) fn of(measured: &Measured) -> Self {
        let subject = |figure: &dyn Fn(&Sample) -> f64| {
            spread(measured.pairs.iter().map(|(sample, _)| figure(sample))).median
        };
        let baseline = |figure: &dyn Fn(&Sample) -> f64| {
            spread(measured.pairs.iter().map(|(_, sample)| figure(sample))).median
        };
        let ratio = |figure: &dyn Fn(&Sample) -> f64| {
            spread(measured.pairs.iter().map(|(one, other)| figure(one) / figure(other)))
        };
        let at = |per_million: u64| {
            move |sample: &Sample| micros(sample.outcome.turnaround.quantile(per_million))
        };
        let known = |figure: f64| Some(figure).filter(|figure| !figure.is_nan());
        Self {
            name: measured.row.name.clone(),
            rate: subject(&|sample| sample.outcome.rate()),
            baseline_rate: baseline(&|sample| sample.outcome.rate()),
            len: measured.row.subject.workload.len(),
            ratio: ratio(&|sample| sample.outcome.rate()),
            work: known(
                spread(measured.pairs.iter().map(|(one, other)| work(other) / work(one))).median,
            ),
            turnaround: [500_000, 990_000, 999_000].map(|per_million| subject(&at(per_million))),
            turnaround_ratio: [500_000, 990_000].map(|per_million| ratio(&at(per_million)).median),
            cpu: known(subject(&cpu)),
            baseline_cpu: known(baseline(&cpu)),
            switches: known(subject(&switches)),
            syscalls: measured.calls.syscalls,
            ioctls: measured.calls.ioctls,
            bare: BareFigures::of(measured),
            memory: known(subject(&memory)),
            client: known(subject(&client)),
            slowest: subject(&slowest),
            target: measured.row.target,
        }
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.rate * float(self.len)
    }

    /// Seconds of the server's processor time for 10^9 bytes.
    fn cpu_per_gigabyte(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu * 1e3 / float(self.len))
    }

    /// The goal, and whether the goal was reached.
    fn verdict(&self) -> Option<(String, bool)> {
        match self.target {
            Target::None => None,
            Target::Rate(least) => Some((format!(">={least}"), self.ratio.median >= least)),
            Target::Bare(least) => {
                let ratio = self.bare.as_ref()?.ratio.median;
                Some((format!("bare>={least}"), ratio >= least))
            }
            Target::Turnaround(p50, p99) => {
                let [own_p50, own_p99] = self.turnaround_ratio;
                let reached = own_p50 <= p50 && own_p99 <= p99;
                Some((format!("p50<={p50} p99<={p99}"), reached))
            }
            Target::Fair(least, slowest) => {
                let reached = self.ratio.median >= least && self.slowest >= slowest;
                Some((format!(">={least} slowest>={slowest}"), reached))
            }
        }
    }
}

/// The table's head, with or without the bare server.
pub(crate) fn head(has_bare: bool) -> String {
    let bare = if has_bare {
        format!(
            "{:>5} {:>11} {:>5} {:>8} {:>7} {:>6} {:>6}  ",
            "bare", "95 %", "work", "p50 us", "us/URB", "sys", "ioctl"
        )
    } else {
        String::new()
    };
    format!(
        "{:44} {:>9} {:>8} {:>5} {:>11} {:>5} {:>8} {:>8} {:>8} {:>5} {:>5} {:>7} {:>7} {:>6} {:>6} \
         {:>6} {:>6} {:>6} {:>4}  {bare}{}",
        "row",
        "URB/s",
        "MB/s",
        "ratio",
        "95 %",
        "work",
        "p50 us",
        "p99 us",
        "p99.9",
        "p50 x",
        "p99 x",
        "us/URB",
        "base",
        "s/GB",
        "sys",
        "ioctl",
        "switch",
        "MiB",
        "own%",
        "target"
    )
}

/// A row of the table.
pub(crate) fn line(figures: &Figures) -> String {
    let bare = figures.bare.map_or_else(String::new, |bare| bare.line() + "  ");
    let verdict = figures.verdict().map_or_else(String::new, |(target, reached)| {
        format!("{target} {}", if reached { "ok" } else { "MISSED" })
    });
    let slowest = if figures.slowest < 1.0 {
        format!(" (slowest {:.2} of the mean)", figures.slowest)
    } else {
        String::new()
    };
    let [p50, p99, p999] = figures.turnaround;
    let [p50_ratio, p99_ratio] = figures.turnaround_ratio;
    format!(
        "{:44} {:>9.0} {:>8.1} {:>5.2} {:>5.2}-{:<5.2} {:>5} {:>8.1} {:>8.1} {:>8.1} {:>5.2} {:>5.2} \
         {:>7} {:>7} {:>6} {:>6} {:>6} {:>6} {:>6} {:>4}  {bare}{verdict}{slowest}",
        figures.name,
        figures.rate,
        figures.bytes_per_second() / 1e6,
        figures.ratio.median,
        figures.ratio.bounds[0],
        figures.ratio.bounds[1],
        option(figures.work, 2),
        p50,
        p99,
        p999,
        p50_ratio,
        p99_ratio,
        option(figures.cpu, 2),
        option(figures.baseline_cpu, 2),
        option(figures.cpu_per_gigabyte(), 2),
        option(figures.syscalls, 2),
        option(figures.ioctls, 2),
        option(figures.switches, 2),
        option(figures.memory.map(|bytes| bytes / f64::from(1 << 20)), 0),
        option(figures.client.map(|share| share * 100.0), 0),
    )
}

/// A figure, if there is one.
pub(crate) fn option(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The explanation of the columns.
pub(crate) const LEGEND: &str = "\
ratio: URBs a second as a share of the baseline's, measured in turn: median of the pairs. 95 %: where
the median of any number of pairs would be, with that certainty. The baseline is the ceiling unless
the row says otherwise. work: the same ratio for the processor time of client and server together a
URB, independent of other load on the machine and of waits. p50 x, p99 x: turnaround as multiples of
the baseline's. us/URB, base: processor time of the server, and of the baseline's. sys: system calls
of the server a URB (perf), without calls of
usbfs; ioctl: calls of usbfs. switch: number of times a URB that the server gave up or lost the
processor. own%: the load generator's processor time. bare: URBs a second as a share of the bare
server's on the same libusb, measured in turn; the columns behind are the bare server's.";

/// The summary of the rows with the bare server.
pub(crate) fn beside_bare(rows: &[Figures]) -> Option<String> {
    let rows: Vec<_> =
        rows.iter().filter_map(|row| row.bare.as_ref().map(|bare| (&row.name, bare))).collect();
    let least = rows
        .iter()
        .min_by(|(_, one), (_, other)| one.ratio.median.total_cmp(&other.ratio.median))?;
    let below = rows.iter().filter(|(_, bare)| bare.ratio.median < 1.0).count();
    let surely = rows.iter().filter(|(_, bare)| bare.ratio.bounds[1] < 1.0).count();
    let figures = |figure: &dyn Fn(&BareFigures) -> f64| {
        geometric_mean(&rows.iter().map(|(_, bare)| figure(bare)).collect::<Vec<_>>())
    };
    Some(format!(
        "beside the bare server: geometric mean of {} rows {:.3} of its rate and {:.3} of work; \
         {below} rows are below 1.0, {surely} of them with 95 % certainty; the least is {:.2}, {}",
        rows.len(),
        figures(&|bare| bare.ratio.median),
        figures(&|bare| bare.work.unwrap_or(f64::NAN)),
        least.1.ratio.median,
        least.0,
    ))
}

/// Of the figures that there are: a load that took too little processor time has no work.
fn geometric_mean(figures: &[f64]) -> f64 {
    let logarithms: Vec<f64> =
        figures.iter().map(|figure| figure.ln()).filter(|figure| figure.is_finite()).collect();
    (logarithms.iter().sum::<f64>() / float(logarithms.len())).exp()
}

/// The summary of the rows with another build as the baseline.
pub(crate) fn beside(other: &Path, rows: &[Figures]) -> String {
    let mean = |figure: &dyn Fn(&Figures) -> f64| {
        geometric_mean(&rows.iter().map(figure).collect::<Vec<_>>())
    };
    let least = rows.iter().min_by(|one, other| one.ratio.median.total_cmp(&other.ratio.median));
    let (least, name) = least.map_or((f64::NAN, ""), |row| (row.ratio.median, &row.name));
    format!(
        "beside {}: geometric mean of {} rows {:.3} of its rate and {:.3} of work; the least is \
         {least:.2}, {name}",
        other.display(),
        rows.len(),
        mean(&|row| row.ratio.median),
        mean(&|row| row.work.unwrap_or(f64::NAN)),
    )
}

/// All rows as JSON.
pub(crate) fn json(name: &str, how: &str, rows: &[Figures]) -> String {
    let mut out = format!("{{\"bench\":\"{name}\",\"how\":\"{how}\",\"rows\":[\n");
    for (index, row) in rows.iter().enumerate() {
        let number = |value: Option<f64>| {
            let value = value.filter(|value| value.is_finite());
            value.map_or_else(|| "null".to_owned(), |value| format!("{value:.4}"))
        };
        let fields = [
            ("urbs_per_second", Some(row.rate)),
            ("baseline_urbs_per_second", Some(row.baseline_rate)),
            ("bytes_per_second", Some(row.bytes_per_second())),
            ("ratio", Some(row.ratio.median)),
            ("ratio_low", Some(row.ratio.bounds[0])),
            ("ratio_high", Some(row.ratio.bounds[1])),
            ("work_ratio", row.work),
            ("p50_us", Some(row.turnaround[0])),
            ("p99_us", Some(row.turnaround[1])),
            ("p999_us", Some(row.turnaround[2])),
            ("p50_ratio", Some(row.turnaround_ratio[0])),
            ("p99_ratio", Some(row.turnaround_ratio[1])),
            ("server_cpu_us_per_urb", row.cpu),
            ("baseline_cpu_us_per_urb", row.baseline_cpu),
            ("server_cpu_s_per_gb", row.cpu_per_gigabyte()),
            ("syscalls_per_urb", row.syscalls),
            ("usbfs_ioctls_per_urb", row.ioctls),
            ("switches_per_urb", row.switches),
            ("peak_memory_bytes", row.memory),
            ("client_cpu_share", row.client),
            ("slowest_of_mean", Some(row.slowest)),
        ];
        let _ = write!(out, "{{\"row\":\"{}\"", row.name);
        let bare = row.bare.map(|bare| bare.fields());
        for (field, value) in fields.into_iter().chain(bare.into_iter().flatten()) {
            let _ = write!(out, ",\"{field}\":{}", number(value));
        }
        if let Some((target, reached)) = row.verdict() {
            let _ = write!(out, ",\"target\":\"{target}\",\"reached\":{reached}");
        }
        out.push_str(if index + 1 < rows.len() { "},\n" } else { "}\n" });
    }
    out.push_str("]}\n");
    out
}

/// The spread of some figures.
pub(crate) fn spread(figures: impl Iterator<Item = f64>) -> Spread {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    match figures.as_slice() {
        [] => Spread::default(),
        [least, ..] => {
            let last = figures.len() - 1;
            let low = rank_of_low(figures.len());
            Spread {
                median: figures[figures.len() / 2],
                least: *least,
                most: figures[last],
                bounds: [figures[low], figures[last - low]],
            }
        }
    }
}

/// The rank, among `count` figures in order, of the figure that is below the true median with a
/// certainty of about 97.5 %: how many of the figures are below is binomially distributed, which is
/// nearly normal.
fn rank_of_low(count: usize) -> usize {
    let below = (float(count) - 1.96 * float(count).sqrt()) / 2.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 or more")]
    let rank = below.max(0.0) as usize;
    rank
}

fn per_urb(sample: &Sample, amount: f64) -> f64 {
    amount / float(usize::try_from(sample.outcome.urbs.max(1)).unwrap_or(usize::MAX))
}

/// Processor time of both sides a URB.
fn work(sample: &Sample) -> f64 {
    let (server, client) = (sample.server, sample.outcome.own_cpu);
    match (server, client) {
        (Some(server), Some(client)) => per_urb(sample, micros(server.cpu + client)),
        _ => f64::NAN,
    }
}

fn cpu(sample: &Sample) -> f64 {
    sample.server.map_or(f64::NAN, |used| per_urb(sample, micros(used.cpu)))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn switches(sample: &Sample) -> f64 {
    sample.server.map_or(f64::NAN, |used| per_urb(sample, used.switches as f64))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn memory(sample: &Sample) -> f64 {
    sample.memory.map_or(f64::NAN, |bytes| bytes as f64)
}

fn client(sample: &Sample) -> f64 {
    let outcome = &sample.outcome;
    outcome.own_cpu.map_or(f64::NAN, |cpu| cpu.as_secs_f64() / outcome.time.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn slowest(sample: &Sample) -> f64 {
    let sessions = &sample.outcome.by_session;
    let least = sessions.iter().min().copied().unwrap_or(0) as f64;
    least * sessions.len() as f64 / (sample.outcome.urbs.max(1) as f64)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
const fn float(number: usize) -> f64 {
    number as f64
}
