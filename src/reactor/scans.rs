//! Scans of the bus, and the hints at changes since the last scan.
//!
//! ```text
//! hint ─► hinted ─► scan begins ─► scan ends ─► current ──┐
//!            ▲                                            │ a request is answered at once
//!            └──────────────────── hint ◄─────────────────┘
//! ```
//!
//! The exports are *current* while hints come, the last successful scan was whole, and no hint has
//! come since the beginning of that scan. Each request first takes the hints on their way: no
//! change before the request is ever missed. While the exports are not current, a request waits for
//! a scan that begins later. One scan runs at a time and serves all requests that wait.
//!
//! | a client waits for | at most | and is then told |
//! | --- | --- | --- |
//! | a scan | `SCAN_TIMEOUT`; no time at all beside a scan that is overdue | the result of the scan before; where that has no such device, ST_NA |
//! | the first scan | `OPEN_TIMEOUT`: nothing is known before | ST_NA |
//!
//! Where the system has no hints, or hints have ended, every request waits for a scan. A request
//! that comes during a scan then waits for the end of that scan and for the next, at most
//! `SCAN_TIMEOUT` for each.
//!
//! Contract: part of the reactor, so nothing here sleeps; the scanner's thread scans.

use std::io;
use std::time::{Duration, Instant};

use log::debug;
use mio::unix::SourceFd;
use mio::{Interest, Registry as Poller};

use super::client::Awaited;
use super::hooks::Cause;
use super::refusal::Refusal;
use super::schedule::Rest;
use super::token::{Key, Subject};
use super::{Reactor, client_of};
use crate::complaints::{error, info, warn};
use crate::config::meaning::Meaning;
use crate::limits::{OPEN_TIMEOUT, SCAN_TIMEOUT};
use crate::usb::{Backend, Hints, News, Scan, ScanError};
use crate::worker::{Inbox, ScanThread};

/// The rest between a scan and the next that only hints ask for: a device that is plugged in comes
/// with a burst of hints, and a bad cable with bursts without end.
pub(super) const HINT_REST: Duration = Duration::from_millis(100);

/// The rest between scans for clients that wait for a device to arrive, where nothing hints at the
/// arrival. A scan takes some milliseconds, and a person does not notice the delay.
pub(super) const ARRIVAL_REST: Duration = Duration::from_millis(500);

/// The scans of a reactor, and the requests that wait for them.
pub(super) struct Scans {
    scanner: ScanThread,
    /// Since when a scan is running.
    pub(super) running: Option<Instant>,
    /// Served by the scan that is running.
    pub(super) waiting: Vec<Key>,
    /// Came after the running scan began, and need another.
    pub(super) late: Vec<Key>,
    /// Wait for a device to arrive, which scans look for.
    pub(super) arrivals: Vec<Key>,
    pub(super) told: Told,
    /// `None` where the system has no hints, or none any more.
    hints: Option<Box<dyn Hints>>,
    /// The descriptor of the hints was ready, or more hints are to be taken.
    hints_ready: bool,
    /// A hint has come since the last scan began.
    hinted: bool,
    /// A scan would find nothing new now.
    is_current: bool,
    /// When a scan may begin that only hints ask for.
    hints_rest_until: Option<Instant>,
    /// The schedule has the end of the rest for hints.
    hints_rest: bool,
    /// The schedule has the end of the rest between scans for arrivals.
    arrivals_rest: bool,
    /// A worker has used what was prepared for an open.
    has_opened: bool,
    /// Sessions have freed memory.
    has_freed: bool,
}

/// Troubles with scans named in the log: each trouble once at its begin, for any number of scans
/// and requests, and once at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Told {
    /// Scans take too long; over when a scan comes back in time.
    pub(super) overdue: bool,
    /// Scans fail; over when a scan succeeds.
    pub(super) failed: bool,
}

impl Scans {
    /// Starts the scanner and has the system tell of hints, if there are any; the first scan is
    /// then due at once.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start<B: Backend>(
        mut backend: B,
        inbox: &Inbox<B::Candidate>,
        poller: &Poller,
    ) -> io::Result<Self> {
        let hints = backend.hints().filter(|hints| {
            let fd = hints.event_source().fd;
            let token = Subject::Hints.to_token();
            let watched = poller.register(&mut SourceFd(&fd), token, Interest::READABLE);
            watched.inspect_err(|error| debug!("hints can't be watched: {error}")).is_ok()
        });
        Ok(Self {
            scanner: ScanThread::start(backend, inbox)?,
            running: None,
            waiting: Vec::new(),
            late: Vec::new(),
            arrivals: Vec::new(),
            told: Told::default(),
            hinted: hints.is_some(),
            hints,
            hints_ready: false,
            is_current: false,
            hints_rest_until: None,
            hints_rest: false,
            arrivals_rest: false,
            has_opened: false,
            has_freed: false,
        })
    }

    /// A worker has opened a device, or tried, and used what was prepared.
    pub(super) const fn note_opened(&mut self) {
        self.has_opened = true;
    }

    /// Has the next open prepared if the prepared is used: behind the replies of a turn, since to
    /// wake the thread can cost the reactor its processor.
    pub(super) fn prepare(&mut self) {
        if std::mem::take(&mut self.has_opened) {
            self.scanner.prepare_open();
        }
    }

    /// Notes that a session has freed memory.
    pub(super) const fn note_freed(&mut self) {
        self.has_freed = true;
    }

    /// Has freed memory given back to the system, if sessions have freed memory.
    pub(super) fn trim(&mut self) {
        if std::mem::take(&mut self.has_freed) {
            self.scanner.trim();
        }
    }

    /// Notes an event of the hints.
    pub(super) const fn mark_hints(&mut self) {
        self.hints_ready = true;
    }

    /// Whether hints are to be taken, or followed by a scan at once.
    #[inline]
    pub(super) const fn has_chores(&self) -> bool {
        self.hints_ready || self.hinted && self.running.is_none() && !self.hints_rest
    }

    /// The server stops: hints are not followed any more.
    pub(super) fn end_hints(&mut self, poller: &Poller) {
        if let Some(hints) = self.hints.take() {
            let _ = poller.deregister(&mut SourceFd(&hints.event_source().fd));
        }
        (self.hints_ready, self.hinted, self.is_current) = (false, false, false);
    }

    /// A connection waits for nothing any more.
    pub(super) fn forget(&mut self, key: Key) {
        for waiting in [&mut self.waiting, &mut self.late] {
            waiting.retain(|&other| other != key);
        }
    }

    /// Takes the hints that have arrived.
    fn take_hints(&mut self, poller: &Poller) {
        let Some(hints) = &mut self.hints else { return };
        match hints.take() {
            Ok(News { scan_again, more }) => {
                self.hinted |= scan_again;
                self.is_current &= !scan_again;
                self.hints_ready = more;
            }
            Err(error) => {
                warn!(
                    "the system no longer reports devices that come and go: {error}. Each request \
                     has the bus scanned from now on"
                );
                self.end_hints(poller);
            }
        }
    }

    /// A device is not as the last scan has found it, as a hint would say.
    pub(super) fn note_change(&mut self) {
        self.hinted |= self.hints.is_some();
        self.is_current = false;
    }

    /// Whether the running scan began after every change up to now.
    const fn covers_now(&self) -> bool {
        self.hints.is_some() && !self.hinted
    }

    /// Whether a scan is running that nobody should wait for any more.
    fn is_overdue(&self, now: Instant, patience: Duration) -> bool {
        self.running.is_some_and(|since| now >= since + patience)
    }
}

impl<B: Backend> Reactor<B> {
    /// How long to wait for a scan. Where nothing is known yet, a slow machine must not be taken
    /// for a machine without devices.
    const fn scan_patience(&self) -> Duration {
        if self.registry.is_filled() { SCAN_TIMEOUT } else { OPEN_TIMEOUT }
    }

    /// Answers a request, at once where the answer is known, else when a scan has found out. An
    /// import of an unknown device has a scan made in any case.
    pub(super) fn request(&mut self, key: Key) {
        self.scans.take_hints(self.poll.registry());
        if self.scans.is_current && self.knows_answer(key) {
            self.answer(key, &Refusal::NotExported);
        } else {
            self.request_scan(key);
        }
    }

    /// Has a scan made for a connection, which waits for the end of the scan for
    /// [`Self::scan_patience`].
    pub(super) fn request_scan(&mut self, key: Key) {
        let patience = self.scan_patience();
        if !self.wait(key, Awaited::Scan, self.now + patience) {
            return;
        }
        if self.scans.is_overdue(self.now, patience) {
            return self.answer_without_scan(key);
        }
        if self.scans.running.is_some() && !self.scans.covers_now() {
            self.scans.late.push(key);
        } else {
            self.scans.waiting.push(key);
            self.begin_scan();
        }
    }

    fn begin_scan(&mut self) {
        if self.scans.running.is_none() {
            self.scans.running = Some(self.now);
            self.scans.hinted = false;
            self.scans.scanner.request();
        }
    }

    /// Scans again where hints ask for a scan, at the end of the rest.
    pub(super) fn follow_hints(&mut self) {
        if std::mem::take(&mut self.scans.hints_ready) {
            self.scans.take_hints(self.poll.registry());
            // Hints may have ended.
            if self.awaits_arrivals() {
                self.scan_for_arrivals();
            }
        }
        if !self.scans.hinted || self.scans.running.is_some() {
            return;
        }
        match self.scans.hints_rest_until.filter(|&until| self.now < until) {
            None => self.begin_scan(),
            Some(until) if !std::mem::replace(&mut self.scans.hints_rest, true) => {
                self.schedule.rest(until, Rest::Hints);
            }
            Some(_) => {}
        }
    }

    /// The rest between scans that only hints ask for is over.
    pub(super) fn end_hint_rest(&mut self) {
        self.scans.hints_rest = false;
        self.follow_hints();
    }

    /// The rest between scans for arrivals is over.
    pub(super) fn end_arrival_rest(&mut self) {
        self.scans.arrivals_rest = false;
        if self.scans.hints.is_none() && self.awaits_arrivals() {
            self.begin_scan();
        }
    }

    /// Answers the requests that waited for a scan. A failed scan has found out nothing: neither
    /// that there is no device, nor that a client's device is missing. The exports are as current
    /// as before the scan.
    pub(super) fn handle_scanned(&mut self, result: Result<Scan<B::Candidate>, ScanError>) {
        let waiting = std::mem::take(&mut self.scans.waiting);
        let in_time = !self.scans.is_overdue(self.now, self.scan_patience());
        if in_time && std::mem::take(&mut self.scans.told.overdue) {
            info!("scans of the bus return in time again");
        }
        (self.scans.running, self.scans.hints_rest_until) = (None, Some(self.now + HINT_REST));
        match result {
            Ok(scan) => self.take_in(scan, waiting),
            Err(error) => {
                if !std::mem::replace(&mut self.scans.told.failed, true) {
                    error!(
                        "{error}. Until a scan works, clients whose answer needs a scan are told \
                         that nothing is available"
                    );
                }
                for key in waiting {
                    if self.awaits_scan(key) {
                        self.refuse(key, &Refusal::ScanFailed);
                    }
                }
            }
        }
        self.scan_for_late();
        if self.awaits_arrivals() {
            self.scan_for_arrivals();
        }
    }

    /// Whether clients wait for a device to arrive, or are told of arrivals.
    const fn awaits_arrivals(&self) -> bool {
        !self.scans.arrivals.is_empty() || !self.audience.watches.is_empty()
    }

    /// Where the system has no hints, has the bus scanned before long for clients that wait for a
    /// device to arrive.
    pub(super) fn scan_for_arrivals(&mut self) {
        if self.scans.hints.is_none() && !std::mem::replace(&mut self.scans.arrivals_rest, true) {
            self.schedule.rest(self.now + ARRIVAL_REST, Rest::Arrivals);
        }
    }

    /// Has a scan made for the requests that came during the scan before, one for all of them.
    fn scan_for_late(&mut self) {
        let deadline = self.now + self.scan_patience();
        for key in std::mem::take(&mut self.scans.late) {
            if self.awaits_scan(key) && self.wait(key, Awaited::Scan, deadline) {
                self.scans.waiting.push(key);
            }
        }
        if !self.scans.waiting.is_empty() {
            self.begin_scan();
        }
    }

    /// Takes in the devices of a scan, and answers the requests in wait for the scan.
    fn take_in(&mut self, scan: Scan<B::Candidate>, waiting: Vec<Key>) {
        if std::mem::take(&mut self.scans.told.failed) {
            info!("scans of the bus work again");
        }
        self.scans.is_current = scan.is_whole && self.scans.covers_now();
        let is_first = !self.registry.is_filled();
        let before = self.departures_before();
        for change in self.registry.update(scan.devices, &self.settings, self.now) {
            debug!("{change}");
            self.observe_change(change, &before, if is_first { "start" } else { "plugged" });
        }
        self.note_exports(if is_first { Cause::Start } else { Cause::Bus });
        self.answer_arrivals();
        if is_first {
            self.tell_exports();
        }
        for key in waiting {
            if self.awaits_scan(key) {
                self.answer(key, &Refusal::NotExported);
            }
        }
    }

    /// Tells the log what is exported now, and which rules wait for their device. Asked for by the
    /// user, so the budget for lines about devices does not count.
    pub(super) fn tell_exports(&self) {
        let meaning = Meaning::judged(self.registry.judged(), &self.settings);
        let exports = meaning.exported().into_iter().chain(meaning.waiting());
        exports.for_each(|line| log::info!("{line}"));
        meaning.ambiguous().iter().for_each(|line| log::warn!("{line}"));
    }

    /// Answers a request whose scan has not come back in time, by the result of the scan before.
    pub(super) fn answer_without_scan(&mut self, key: Key) {
        if !std::mem::replace(&mut self.scans.told.overdue, true) {
            warn!(
                "a scan of the bus takes more than {:?}: the system holds a device. \
                 Until the scan returns, clients get the last known state",
                self.scan_patience()
            );
        }
        self.scans.forget(key);
        if self.registry.is_filled() {
            // An unknown device may be there all the same.
            self.answer(key, &Refusal::NotScanned);
        } else {
            self.refuse(key, &Refusal::NotScanned);
        }
    }

    /// Whether a connection is there and waits for a scan.
    fn awaits_scan(&mut self, key: Key) -> bool {
        let asked = client_of(&mut self.connections, key).and_then(|client| client.asked());
        asked.is_some_and(|asked| asked.awaits == Awaited::Scan)
    }
}
