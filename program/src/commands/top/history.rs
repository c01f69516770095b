//! Rates of devices and endpoints, from the difference of two reports, and the rates of the last
//! minutes.
//!
//! Contract: pure; time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::report::{CountersReport, EndpointReport, ExportReport, Report, SessionReport};

/// The rates that are kept for each device: one for each column of a graph, of a wide terminal.
const GRAPH_LEN: usize = 240;

/// The reports of a server.
#[derive(Default)]
pub(super) struct History {
    last: Option<(Report, Instant)>,
    /// Why there is no newer report.
    pub(super) trouble: Option<String>,
    /// The devices in the last report that are offered or lent.
    pub(super) devices: Vec<Device>,
    /// Bytes a second, both ways, of each device that is there, the newest last.
    graphs: HashMap<String, VecDeque<u64>>,
}

/// A device, and the transfers of its client.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Device {
    pub(super) export: ExportReport,
    pub(super) session: Option<SessionReport>,
    pub(super) rates: Rates,
    /// The endpoints of the session, with their rates.
    pub(super) endpoints: Vec<(EndpointReport, Rates)>,
}

/// Transfers within a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Rates {
    pub(super) urbs: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl Rates {
    /// The rates between two counts of the same, `millis` apart. Whatever was not there before had
    /// counted nothing.
    fn between(before: Option<&CountersReport>, after: &CountersReport, millis: u64) -> Self {
        let rate = |count: fn(&CountersReport) -> u64| {
            let moved = count(after).saturating_sub(before.map_or(0, count));
            let thousandfold = u128::from(moved) * 1000;
            u64::try_from(thousandfold / u128::from(millis)).unwrap_or(u64::MAX)
        };
        Self {
            urbs: rate(|counters| counters.urbs),
            bytes_in: rate(|counters| counters.bytes_in),
            bytes_out: rate(|counters| counters.bytes_out),
        }
    }
}

impl Device {
    /// The errors of the session.
    pub(super) fn errors(&self) -> u64 {
        let work = self.session.as_ref().and_then(|session| session.work.as_ref());
        work.map_or(0, |work| work.total.errors.values().sum::<u64>() + work.total.packet_errors)
    }

    /// A device of a report, with rates where there is a report before. A session that began since
    /// then has done all its work since then.
    fn new(
        export: &ExportReport,
        report: &Report,
        before: Option<&(Report, Instant)>,
        now: Instant,
    ) -> Self {
        let session = session_of(report, export);
        let work = session.and_then(|session| session.work.as_ref());
        let earlier = before.map(|(report, time)| {
            let earlier = session_of(report, export).filter(|other| is_same(session, other));
            let passed = now.saturating_duration_since(*time).as_millis();
            let millis = u64::try_from(passed).unwrap_or(u64::MAX).max(1);
            (earlier.and_then(|earlier| earlier.work.as_ref()), millis)
        });
        let total = work.zip(earlier).map(|(work, (earlier, millis))| {
            Rates::between(earlier.map(|earlier| &earlier.total), &work.total, millis)
        });
        let rates_of = |endpoint: &EndpointReport| {
            let (earlier, millis) = earlier?;
            let mut others = earlier.map_or(&[][..], |earlier| &earlier.endpoints).iter();
            let other = others.find(|other| key_of(other) == key_of(endpoint));
            let other = other.map(|other| &other.counters);
            Some(Rates::between(other, &endpoint.counters, millis))
        };
        let endpoints = work.map_or(&[][..], |work| &work.endpoints).iter();
        Self {
            export: export.clone(),
            session: session.cloned(),
            rates: total.unwrap_or_default(),
            endpoints: endpoints
                .map(|endpoint| (endpoint.clone(), rates_of(endpoint).unwrap_or_default()))
                .collect(),
        }
    }
}

impl History {
    /// The last report.
    pub(super) fn report(&self) -> Option<&Report> {
        self.last.as_ref().map(|(report, _)| report)
    }

    /// The last `most` rates of a device, the newest last.
    pub(super) fn graph(&self, busid: &str, most: usize) -> Vec<u64> {
        let Some(rates) = self.graphs.get(busid) else { return Vec::new() };
        rates.iter().skip(rates.len().saturating_sub(most)).copied().collect()
    }

    /// Takes in a report of `now`.
    pub(super) fn note(&mut self, report: Report, now: Instant) {
        let before = self.last.take();
        let exports = report.exports.iter();
        let shown = exports.filter(|export| export.offered || export.client.is_some());
        self.devices =
            shown.map(|export| Device::new(export, &report, before.as_ref(), now)).collect();
        self.graphs.retain(|busid, _| report.exports.iter().any(|export| export.busid == *busid));
        for Device { export, rates, .. } in &self.devices {
            let graph = self.graphs.entry(export.busid.clone()).or_default();
            if graph.len() == GRAPH_LEN {
                graph.pop_front();
            }
            graph.push_back(rates.bytes_in.saturating_add(rates.bytes_out));
        }
        (self.last, self.trouble) = (Some((report, now)), None);
    }
}

fn session_of<'a>(report: &'a Report, export: &ExportReport) -> Option<&'a SessionReport> {
    report.sessions.iter().rfind(|session| session.busid == export.busid)
}

/// Whether a report before has the same session.
fn is_same(session: Option<&SessionReport>, other: &SessionReport) -> bool {
    session.is_some_and(|one| (&one.client, &one.since) == (&other.client, &other.since))
}

fn key_of(endpoint: &EndpointReport) -> (u8, &str) {
    (endpoint.number, &endpoint.direction)
}
