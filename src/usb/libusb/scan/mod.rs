//! Looks for devices on Linux, and waits for none of them.
//!
//! [`readers`] read the files that take a device's lock, with a bound on the wait. A device without
//! an answer is served from its last answer and from files without a lock, or is left out, which
//! the log says once.
//!
//! Contract: blocks for a bounded time (see [`readers`]); reads no file of a hub that takes the
//! hub's lock.

mod readers;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use self::readers::{Answer, Readers};
use super::Sighted;
use super::candidate::LibusbCandidate;
use super::found::Found;
use super::sysfs::{self, Identity, Links, LockedAttributes, Present};
use crate::complaints::{info, warn};
use crate::usb::descriptor::{Descriptors, Host};
use crate::usb::{Scan, ScanError};

/// The time of a device that was plugged in to answer before the log has a warning: the kernel has
/// the lock while drivers look at the device, and a driver waits for a request for up to 5 s
/// (`USB_CTRL_GET_TIMEOUT`).
const ARRIVAL: Duration = Duration::from_secs(5);

/// Looks for devices, and remembers the devices' answers.
pub(super) struct Scanner {
    devices: PathBuf,
    readers: Arc<Readers>,
    /// The devices of the last scan.
    present: Vec<Present>,
    known: HashMap<Identity, Answer>,
    /// Devices without an answer, each named in the log once.
    silent: HashSet<Identity>,
    /// Devices that have come since the first scan and have not answered yet, and since when.
    arriving: HashMap<Identity, Instant>,
    has_scanned: bool,
}

impl Scanner {
    /// A scanner of this machine's devices.
    ///
    /// # Errors
    /// There is no sysfs to be read, or none with USB.
    pub(super) fn new() -> Result<Self, ScanError> {
        let looked = std::fs::read_dir(sysfs::DEVICES);
        looked.map_err(|error| ScanError::NoDirectory { directory: sysfs::DEVICES, error })?;
        Ok(Self::below(PathBuf::from(sysfs::DEVICES)))
    }

    /// A scanner of the devices linked in a directory.
    fn below(devices: PathBuf) -> Self {
        Self {
            devices,
            readers: Arc::default(),
            present: Vec::new(),
            known: HashMap::new(),
            silent: HashSet::new(),
            arriving: HashMap::new(),
            has_scanned: false,
        }
    }

    /// Looks for devices.
    ///
    /// # Errors
    /// The system has no open files or no threads left, or no sysfs any more.
    pub(super) fn scan(&mut self) -> Result<Sighted, ScanError> {
        self.look().map_err(ScanError::List)
    }

    fn look(&mut self) -> io::Result<Sighted> {
        let present = sysfs::present(&self.devices, &self.present)?;
        self.present.clone_from(&present);
        let identities: HashSet<Identity> = present.iter().map(|found| found.identity).collect();
        self.known.retain(|identity, _| identities.contains(identity));
        self.silent.retain(|identity| identities.contains(identity));
        self.arriving.retain(|identity, _| identities.contains(identity));
        if std::mem::replace(&mut self.has_scanned, true) {
            let devices = present.iter().filter(|found| found.hub.is_none());
            for found in devices.filter(|found| !self.known.contains_key(&found.identity)) {
                self.arriving.entry(found.identity).or_insert_with(Instant::now);
            }
        }
        let asked = present.iter().filter(|found| found.hub.is_none());
        let mut answers = self.readers.ask(&self.devices, asked.map(|found| found.identity))?;
        let mut scan = Scan { devices: Vec::new(), is_whole: true };
        let mut left_out = Vec::new();
        for device in present {
            let answer = answers.remove(&device.identity);
            scan.is_whole &= device.hub.is_some() || answer.as_ref().is_some_and(Answer::is_whole);
            // An unreadable device is gone, or as good as gone.
            if answer.as_ref().is_some_and(|answer| answer.failed) {
                continue;
            }
            match self.candidate(&device, answer) {
                Some(candidate) => scan.devices.push(candidate),
                None => left_out.push((device.identity.bus, device.identity.address)),
            }
        }
        Ok(Sighted { scan, left_out })
    }

    /// A device from its answer, or else from earlier answers; `None` without any.
    fn candidate(&mut self, device: &Present, answer: Option<Answer>) -> Option<LibusbCandidate> {
        let links = sysfs::links(&self.devices, device.identity.busid);
        if let Some(hub) = device.hub {
            let descriptors = Descriptors { device: hub, configurations: Vec::new() };
            return Some(candidate(device, descriptors, LockedAttributes::default(), links));
        }
        let answer = answer.unwrap_or_default();
        let is_whole = answer.is_whole();
        let known = self.known.entry(device.identity).or_default();
        known.descriptors = answer.descriptors.or_else(|| known.descriptors.take());
        known.locked = answer.locked.or_else(|| known.locked.take());
        let Answer { descriptors, mut locked, .. } = known.clone();
        if let Some(value) = links.configuration.filter(|_| !is_whole) {
            locked.get_or_insert_default().configuration = Some(value);
        }
        let is_served = descriptors.is_some() && locked.is_some();
        self.tell(device.identity, is_whole, is_served);
        Some(candidate(device, descriptors?, locked?, links))
    }

    /// Whether a device has come a moment ago: the kernel has the lock while drivers look at it.
    fn is_arriving(&self, identity: Identity) -> bool {
        self.arriving.get(&identity).is_some_and(|since| since.elapsed() < ARRIVAL)
    }

    /// Tells the log, once, of a device without an answer.
    fn tell(&mut self, identity: Identity, answers: bool, is_served: bool) {
        let busid = identity.busid;
        if answers {
            self.arriving.remove(&identity);
            if self.silent.remove(&identity) {
                info!("{busid}: the device answers again");
            }
        } else if self.is_arriving(identity) {
            debug!("{busid}: the device does not answer yet");
        } else if self.silent.insert(identity) {
            let instead = if is_served { "the last known state of" } else { "nothing of" };
            warn!(
                "{busid}: the device does not answer, because the system is kept from asking. \
                 Until an answer clients see {instead} the device"
            );
        }
    }
}

fn candidate(
    device: &Present,
    descriptors: Descriptors,
    locked: LockedAttributes,
    links: Links,
) -> LibusbCandidate {
    let Present { identity, speed, honors_interface_count, ignores_endpoints, .. } = *device;
    let speed = speed.unwrap_or_else(|| descriptors.device.speed());
    let ignored = if ignores_endpoints { descriptors.device.ignored_endpoints() } else { &[] };
    let found = Found {
        id: identity.id(&descriptors.device),
        busid: identity.busid,
        host: Host { speed, honors_interface_count, ignored },
        descriptors,
    };
    let mut info = found.info(locked.configuration, links.path);
    [info.manufacturer, info.product, info.serial] = locked.strings;
    (info.drivers, info.imported) = (links.drivers, links.imported);
    LibusbCandidate::new(found, info)
}
