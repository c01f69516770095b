//! Threads that read the files of devices with the device's lock.
//!
//! While all devices answer, a single reader takes the devices from the queue. When a device keeps
//! the reader for [`STALL`], another reader goes on with the rest. The wait for a device ends after
//! [`PATIENCE`], or after [`BUSY_MAX`] where the reader only waits for a processor. The reader is
//! left alone, and the device is not asked again before the reader comes back: a lock that is never
//! released costs a thread.
//!
//! Contract: [`Readers::ask`] takes not much more than [`PATIENCE`], on a busy machine than
//! [`BUSY_MAX`], and has no more than [`READERS_MAX`] threads.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use usbferry_sys::os::limit;

use crate::limits::READERS_MAX;
use crate::threads;
use crate::usb::descriptor::Descriptors;
use crate::usb::libusb::patience::PATIENCE;
use crate::usb::libusb::sysfs::{self, Identity, LockedAttributes};

/// Time of a reader with a device before another reader goes on with the rest.
const STALL: Duration = Duration::from_millis(20);

/// Time of a reader with a device while no processor is free: less than the reactor waits for a
/// scan.
const BUSY_MAX: Duration = Duration::from_millis(750);

/// The files of a device, as far as they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) descriptors: Option<Descriptors>,
    pub(super) locked: Option<LockedAttributes>,
    /// The device can't be read: the device is gone, or not for this user.
    pub(super) failed: bool,
}

/// A reader with a device.
pub(super) struct Reading {
    pub(super) begun: Instant,
    /// The file in which the system shows the state of the reader's thread.
    stat: PathBuf,
}

/// The shared state of the readers.
#[derive(Default)]
pub(super) struct Desk {
    /// Devices still to be asked.
    queue: VecDeque<Identity>,
    /// Readers, begun or about to begin.
    readers: usize,
    /// Devices with a reader, and since when.
    pub(super) reading: HashMap<Identity, Reading>,
    answers: HashMap<Identity, Answer>,
    /// Why the system can't tell.
    failure: Option<io::Error>,
}

/// The readers of a scanner: a [`Desk`], and a way to wait for the desk to change.
#[derive(Default)]
pub(super) struct Readers {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Answer {
    /// Whether the device answered every question.
    pub(super) const fn is_whole(&self) -> bool {
        self.descriptors.is_some() && self.locked.is_some() && !self.failed
    }
}

impl Readers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files of devices in the directory `devices`. A device whose reader has not come
    /// back since an earlier scan is left out.
    ///
    /// # Errors
    /// The system has no open files or no threads left.
    pub(super) fn ask(
        self: &Arc<Self>,
        devices: &Path,
        identities: impl Iterator<Item = Identity>,
    ) -> io::Result<HashMap<Identity, Answer>> {
        let mut desk = self.lock();
        (desk.answers, desk.failure) = (HashMap::new(), None);
        desk.queue = identities.filter(|identity| !desk.reading.contains_key(identity)).collect();
        loop {
            let now = Instant::now();
            if desk.needs_reader(now) {
                self.start(devices.to_owned())?;
                desk.readers += 1;
            }
            let Some(wait) = desk.wait(now).filter(|_| desk.failure.is_none()) else { break };
            let waited = self.changed.wait_timeout(desk, wait);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // Devices without a reader, because all readers are taken, get no answer.
        desk.queue.clear();
        match desk.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut desk.answers)),
        }
    }

    fn start(self: &Arc<Self>, devices: PathBuf) -> io::Result<()> {
        let readers = Arc::clone(self);
        threads::start("sysfs", move || readers.run(&devices)).map(drop)
    }

    /// Takes devices from the queue until the queue is empty. *Blocks.*
    fn run(&self, devices: &Path) {
        while let Some(identity) = self.begin() {
            let directory = devices.join(identity.busid.to_string());
            let descriptors = sysfs::descriptors(&directory);
            self.note(identity, descriptors, |answer, found| answer.descriptors = Some(found));
            self.note(identity, sysfs::locked_attributes(&directory), |answer, locked| {
                answer.locked = Some(locked)
            });
            self.lock().reading.remove(&identity);
            self.changed.notify_all();
        }
    }

    fn begin(&self) -> Option<Identity> {
        let mut desk = self.lock();
        let Some(identity) = desk.queue.pop_front() else {
            desk.readers -= 1;
            return None;
        };
        desk.reading.insert(identity, Reading::begin());
        Some(identity)
    }

    /// Notes a part of an answer.
    fn note<T>(&self, identity: Identity, read: io::Result<T>, put: impl FnOnce(&mut Answer, T)) {
        let mut desk = self.lock();
        match read {
            Ok(read) => put(desk.answers.entry(identity).or_default(), read),
            Err(error) if limit::is_reached(&error) => desk.failure = Some(error),
            Err(_) => desk.answers.entry(identity).or_default().failed = true,
        }
    }
}

impl Reading {
    /// The calling thread begins.
    pub(super) fn begin() -> Self {
        // "PROCESS/task/THREAD"; where there is no link, no thread is ever taken for busy.
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        Self { begun: Instant::now(), stat: Path::new("/proc").join(thread).join("stat") }
    }

    fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Whether the reader is not waited for any more. A thread that gets no processor, on a busy
    /// machine, says nothing about its device.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let waited = self.waited(now);
        waited >= BUSY_MAX || waited >= PATIENCE && !self.is_runnable()
    }

    /// Whether the thread could go on with a processor (`proc_pid_stat(5)`: the state stands behind
    /// the name, which is in brackets).
    pub(super) fn is_runnable(&self) -> bool {
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
    }
}

impl Desk {
    /// How long to wait for the readers: `None` when no more answers are to be expected.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let patient = self.reading.values().filter(|reading| !reading.is_over(now));
        let left = patient.map(|reading| PATIENCE.saturating_sub(reading.waited(now)));
        match left.min() {
            Some(left) => Some(left.clamp(Duration::from_millis(1), STALL)),
            None if self.queue.is_empty() || self.reading.len() >= READERS_MAX => None,
            None => Some(STALL),
        }
    }

    /// Whether there is something to read, and every reader has been with its device for long.
    fn needs_reader(&self, now: Instant) -> bool {
        !self.queue.is_empty()
            && self.readers == self.reading.len()
            && self.readers < READERS_MAX
            && self.reading.values().all(|reading| reading.waited(now) >= STALL)
    }
}
