//! The captures of a server, and the taps of the sessions.
//!
//! The settings can have a capture of all devices. An operator begins and ends further captures, of
//! all devices or of the devices that a name means, whenever lent; see
//! [`OperatorHandle::start_capture`].
//!
//! Contract: part of the reactor, so nothing here sleeps: a capture ends on the thread of whoever
//! ends the capture. [`OperatorHandle`] may be used by any thread, and blocks its caller only.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::connection::Connection;
use super::holds::{Disobeyed, Obeyed, OperatorHandle, SessionName};
use super::questions::Question;
use super::registry::Registry;
use super::token::Key;
use super::{Reactor, find};
use crate::capture::{Capture, CaptureError, Count, Description, FileId, PassedFiles, Tap};
use crate::complaints::info;
use crate::config::asked::Asked;
use crate::config::{Capturing, Settings};
use crate::deadline::earlier;
use crate::limits::CAPTURES_MAX;
use crate::session::Session;
use crate::status::{CaptureState, CaptureStatus};
use crate::usb::{Backend, Candidate};
use crate::wire::types::{BusId, Speed};

/// The captures of a server.
#[derive(Default)]
pub(super) struct Captures {
    running: Vec<Running>,
    /// The recordings that simulated devices play.
    recordings: Vec<FileId>,
    /// One owner more than captures whose files are not closed yet.
    seats: Arc<()>,
}

/// A capture under way.
pub(super) struct Running {
    capture: Capture,
    wanted: Capturing,
    /// The devices that are captured; `None` for all.
    device: Option<Asked>,
    since: SystemTime,
}

/// A capture that an operator asks for.
#[derive(Debug)]
pub struct CaptureOrder {
    /// The capture; the path is a name.
    pub wanted: Capturing,
    /// The opened files.
    pub passed: PassedFiles,
    /// The name of the device; `None` for all.
    pub device: Option<String>,
}

/// A capture that was not begun, to be dropped by whoever asked, and the reason.
pub(super) type Untaken = (Box<Running>, Disobeyed);

impl Captures {
    /// The capture of the settings, if there is one.
    ///
    /// # Errors
    /// The capture can't begin.
    pub(super) fn new(settings: &Settings) -> Result<Self, CaptureError> {
        let mut captures = Self::default();
        let recordings = settings.recordings.iter().flat_map(fs::metadata);
        captures.recordings = recordings.map(|found| FileId::of(&found)).collect();
        if let Some(wanted) = &settings.capture {
            let mut capture = Capture::of(wanted, Arc::clone(&captures.seats))?;
            captures.check(&capture)?;
            capture.begin();
            captures.running.push(Running::new(capture, wanted.clone(), None));
        }
        Ok(captures)
    }

    /// Whether a capture writes into no recording that a simulated device plays.
    ///
    /// # Errors
    /// [`CaptureError::Replayed`].
    fn check(&self, capture: &Capture) -> Result<(), CaptureError> {
        let is_replayed = capture.files().iter().any(|file| self.recordings.contains(file));
        if is_replayed { Err(CaptureError::Replayed(capture.path().to_owned())) } else { Ok(()) }
    }

    /// Seats for the captures of operators.
    pub(super) fn seats(&self) -> Weak<()> {
        Arc::downgrade(&self.seats)
    }

    /// Has records written that have waited for long enough at `now`.
    pub(super) fn tick(&self, now: Instant) {
        self.running.iter().for_each(|running| running.capture.tick(now));
    }

    /// When [`Self::tick`] has something to do.
    #[inline(always)]
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.running.is_empty() { None } else { self.first_deadline() }
    }

    #[inline(never)]
    fn first_deadline(&self) -> Option<Instant> {
        let deadlines = self.running.iter().map(|running| running.capture.deadline());
        deadlines.fold(None, earlier)
    }

    pub(super) fn status(&self) -> Vec<CaptureStatus> {
        self.running.iter().map(|running| running.status(running.capture.count())).collect()
    }

    /// Why another capture can't be taken.
    fn obstacle(&self, new: &Running) -> Option<Disobeyed> {
        let (path, files) = (new.capture.path(), new.capture.files());
        // The same name ends both, and the same file under two names would have two writers.
        let is_taken = |running: &Running| {
            running.capture.path() == path
                || running.capture.files().iter().any(|file| files.contains(file))
        };
        if self.running.iter().any(is_taken) {
            return Some(Disobeyed::Captured(path.to_owned()));
        }
        if let Err(error) = self.check(&new.capture) {
            return Some(Disobeyed::Capture(error.to_string()));
        }
        let living = Arc::strong_count(&self.seats) - 1;
        (living > CAPTURES_MAX).then_some(Disobeyed::TooManyCaptures)
    }

    /// The place of the capture with a name, or of the only capture.
    fn find(&self, name: Option<&str>) -> Result<usize, Disobeyed> {
        let is_meant =
            |running: &Running| name.is_none_or(|name| running.capture.path().as_os_str() == name);
        let mut found = (0..self.running.len()).filter(|&at| is_meant(&self.running[at]));
        match (found.next(), found.next()) {
            (Some(at), None) => Ok(at),
            (None, _) => Err(Disobeyed::NoCapture),
            (Some(_), Some(_)) => {
                let names = self.running.iter().map(|running| running.capture.path().display());
                let names: Vec<String> = names.map(|name| name.to_string()).collect();
                Err(Disobeyed::SeveralCaptures(names.join(", ")))
            }
        }
    }
}

impl Running {
    fn new(capture: Capture, wanted: Capturing, device: Option<Asked>) -> Self {
        Self { capture, wanted, device, since: SystemTime::now() }
    }

    /// A tap for the session with a device in a place; `None` if the device is not meant.
    fn tap<C: Candidate>(
        &self,
        registry: &Registry<C>,
        (busid, peer): (BusId, SocketAddr),
        session: &Session<C::Port>,
    ) -> Option<Tap> {
        let found = registry.find(busid).and_then(|export| export.found.as_ref());
        let info = found.map(|found| found.candidate.info());
        if let Some(device) = &self.device {
            device.fits(info?, found?.verdict.name()).then_some(())?;
        }
        let text = info.map_or_else(String::new, |info| {
            let (vendor, product) = (info.device.id_vendor, info.device.id_product);
            let name = info.product.as_deref().unwrap_or("no name");
            format!("{vendor:04x}:{product:04x} {name}, client {peer}")
        });
        let (device, configurations) = session.descriptors();
        Some(self.capture.tap(Description {
            devid: session.devid(),
            name: busid.to_string(),
            text,
            speed: info.map_or(Speed::High, |info| info.device.speed),
            device,
            configurations: configurations.to_vec(),
        }))
    }

    /// Ends the capture, and tells what there is. *Blocks* for a bounded time.
    fn end(mut self) -> CaptureStatus {
        let count = self.capture.end();
        self.status(count)
    }

    fn status(&self, count: Count) -> CaptureStatus {
        CaptureStatus {
            file: self.capture.path().to_owned(),
            device: self.device.as_ref().map(ToString::to_string),
            since: self.since,
            snap_len: self.wanted.snap_len,
            size: self.wanted.size,
            urbs: count.taken.ends,
            dropped: count.dropped.ends,
            submissions_dropped: count.dropped.submissions,
            bytes: count.bytes,
            state: match count.failure {
                Some(reason) => CaptureState::Failed(reason),
                None if count.has_reader => CaptureState::Writing,
                None => CaptureState::Waiting,
            },
        }
    }
}

impl OperatorHandle {
    /// Begins a capture into files that the operator has opened: the server opens nothing for an
    /// operator. The result has the sessions under way that are captured. `None` when the
    /// server has ended. *Blocks* until the reactor has begun.
    ///
    /// # Errors
    /// The files or the name are not fit, or as many captures run as may.
    #[must_use]
    pub fn start_capture(&self, order: CaptureOrder) -> Option<Result<Obeyed, Disobeyed>> {
        let CaptureOrder { wanted, passed, device } = order;
        let device = match device {
            Some(name) => match BusId::new(&name) {
                Some(field) => Some(Asked::read(field)),
                None => return Some(Err(Disobeyed::Unknown)),
            },
            None => None,
        };
        let capture = match Capture::passed(&wanted, passed, self.seats.upgrade()?) {
            Ok(capture) => capture,
            Err(CaptureError::Taken(path)) => return Some(Err(Disobeyed::Captured(path))),
            Err(error) => return Some(Err(Disobeyed::Capture(error.to_string()))),
        };
        let running = Box::new(Running::new(capture, wanted, device));
        let begun = self.asker.ask(|answer| Question::StartCapture { running, answer })?;
        // A capture that was not begun is dropped here, on the operator's thread.
        Some(begun.map_err(|(_running, disobeyed)| disobeyed))
    }

    /// Ends a capture, by its name, or the only capture, and returns what there is. `None` when the
    /// server has ended. *Blocks* until all records are written, for a bounded time.
    ///
    /// # Errors
    /// No capture has the name, or several could be meant.
    #[must_use]
    pub fn stop_capture(&self, name: Option<&str>) -> Option<Result<CaptureStatus, Disobeyed>> {
        let name = name.map(ToOwned::to_owned);
        let stopped = self.asker.ask(|answer| Question::StopCapture { name, answer })?;
        Some(stopped.map(|running| running.end()))
    }
}

impl<B: Backend> Reactor<B> {
    /// Records the URBs of a new session, where the device is captured.
    pub(super) fn begin_taps(&mut self, key: Key) {
        let Some(connection) = find(&mut self.connections, key) else { return };
        for running in &self.audience.captures.running {
            tap(&mut *connection, running, &self.registry);
        }
    }

    /// Begins a capture: the sessions with devices that are meant.
    pub(super) fn start_capture(&mut self, mut running: Box<Running>) -> Result<Obeyed, Untaken> {
        if let Some(obstacle) = self.audience.captures.obstacle(&running) {
            return Err((running, obstacle));
        }
        running.capture.begin();
        info!("an operator captures into {}", running.capture.path().display());
        let connections = self.connections.iter_mut().map(|(_, connection)| connection);
        let tapped = connections.filter_map(|connection| {
            let (busid, client) = tap(connection, &running, &self.registry)?;
            let name = self.registry.nickname(busid);
            Some(SessionName { busid, name, client })
        });
        let sessions = tapped.collect();
        let devices = running.device.iter().flat_map(|device| self.registry.named(device));
        let names = devices.map(|busid| busid.to_string()).collect();
        self.audience.captures.running.push(*running);
        Ok(Obeyed { sessions, names })
    }

    /// Takes a capture out of the sessions. The rest of its end can sleep, and is the asker's.
    pub(super) fn stop_capture(&mut self, name: Option<&str>) -> Result<Box<Running>, Disobeyed> {
        let at = self.audience.captures.find(name)?;
        let running = self.audience.captures.running.remove(at);
        for (_, connection) in &mut self.connections {
            if let Some(session) = connection.session() {
                session.remove_taps(|tap| running.capture.owns(tap));
            }
        }
        info!("an operator ends the capture into {}", running.capture.path().display());
        Ok(Box::new(running))
    }

    /// Has records of the captures written that have waited for long enough.
    pub(super) fn tick_captures(&self) {
        self.audience.captures.tick(self.now);
    }
}

/// Has a capture record the URBs of a connection's session, where the device is meant; the device
/// and the client.
fn tap<C: Candidate>(
    connection: &mut Connection<C>,
    running: &Running,
    registry: &Registry<C>,
) -> Option<(BusId, SocketAddr)> {
    let place = (connection.loan.as_ref()?.busid, connection.peer);
    let session = connection.session()?;
    let tap = running.tap(registry, place, session)?;
    session.add_tap(tap);
    Some(place)
}
