//! Looks for devices on Linux, and waits for none of them.
//!
//! What is read with a device's lock is read by threads of their own. While all devices answer,
//! there is one such thread, which takes them one by one; when one keeps it for [`STALL`], another
//! goes on with the rest. A device that has not answered within [`PATIENCE`], or within
//! [`BUSY_MAX`] where it is the processor that its reader waits for, is served from what it last
//! said and from what is read without its lock, or left out, which the log says once. Its reader is
//! left alone, and nothing more is asked of that device until the reader comes back: so a lock that
//! is never released costs one thread.
//!
//! Contract: a scan takes not much more than [`PATIENCE`], on a busy machine than [`BUSY_MAX`], and
//! reads nothing of hubs that could wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use usbferry_sys::os::limit;

use super::Sighted;
use super::candidate::LibusbCandidate;
use super::found::Found;
use super::patience::PATIENCE;
use super::sysfs::{self, Identity, Links, Present, Told};
use crate::complaints::{info, warn};
use crate::limits::READERS_MAX;
use crate::usb::descriptor::{Descriptors, Host};
use crate::usb::{Scan, ScanError};

/// How long a reader may be with one device before another goes on with the rest.
const STALL: Duration = Duration::from_millis(20);

/// How long a reader may be with a device while it has no processor to go on: less than the reactor
/// waits for a scan.
const BUSY_MAX: Duration = Duration::from_millis(750);

/// A reader that is with a device.
struct Reading {
    begun: Instant,
    /// Where the system says what its thread does.
    stat: PathBuf,
}

/// What a device said, as far as it did.
#[derive(Clone, Debug, Default)]
struct Answer {
    descriptors: Option<Descriptors>,
    told: Option<Told>,
    /// It can't be read: it is gone, or not for this user.
    failed: bool,
}

impl Answer {
    /// Whether the device said all that it was asked for.
    const fn is_whole(&self) -> bool {
        self.descriptors.is_some() && self.told.is_some() && !self.failed
    }
}

/// What the readers share.
#[derive(Default)]
struct Desk {
    /// Devices still to be asked.
    queue: VecDeque<Identity>,
    /// Readers that have begun, or will.
    readers: usize,
    /// Devices that a reader is with, and since when.
    reading: HashMap<Identity, Reading>,
    answers: HashMap<Identity, Answer>,
    /// Why the system can't tell.
    failure: Option<io::Error>,
}

/// A [`Desk`] and where to wait for it to change.
#[derive(Default)]
struct Readers {
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// Looks for devices, and remembers what they said.
pub(super) struct Scanner {
    devices: PathBuf,
    readers: Arc<Readers>,
    known: HashMap<Identity, Answer>,
    /// Devices that do not answer, of which the log was told.
    silent: HashSet<Identity>,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes devices from the queue until it is empty. *Blocks.*
    fn run(&self, devices: &Path) {
        while let Some(identity) = self.begin() {
            let directory = devices.join(identity.busid.to_string());
            let descriptors = sysfs::descriptors(&directory);
            self.note(identity, descriptors, |answer, found| answer.descriptors = Some(found));
            self.note(identity, sysfs::told(&directory), |answer, told| answer.told = Some(told));
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
    fn begin() -> Self {
        // "PROCESS/task/THREAD"; where there is no such link, no thread is ever taken for busy.
        let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
        Self { begun: Instant::now(), stat: Path::new("/proc").join(thread).join("stat") }
    }

    fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Whether it is not waited for any more. That a thread gets no processor, on a busy machine,
    /// is no sign of its device.
    fn is_over(&self, now: Instant) -> bool {
        let waited = self.waited(now);
        waited >= BUSY_MAX || waited >= PATIENCE && !self.is_runnable()
    }

    /// Whether the thread could go on, if it had a processor (`proc_pid_stat(5)`: the state stands
    /// behind the name, which is in brackets).
    fn is_runnable(&self) -> bool {
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
    }
}

impl Desk {
    /// How long to wait for the readers: `None` when all have answered that will.
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

    /// A scanner of the devices that are links in a directory.
    fn below(devices: PathBuf) -> Self {
        Self { devices, readers: Arc::default(), known: HashMap::new(), silent: HashSet::new() }
    }

    /// Looks for devices.
    ///
    /// # Errors
    /// The system can't tell, because it has no open files or no threads left, or no sysfs any
    /// more.
    pub(super) fn scan(&mut self) -> Result<Sighted, ScanError> {
        self.look().map_err(ScanError::List)
    }

    fn look(&mut self) -> io::Result<Sighted> {
        let present = sysfs::present(&self.devices)?;
        let identities: HashSet<Identity> = present.iter().map(|found| found.identity).collect();
        self.known.retain(|identity, _| identities.contains(identity));
        self.silent.retain(|identity| identities.contains(identity));
        let asked = present.iter().filter(|found| found.hub.is_none());
        let mut answers = self.ask(asked.map(|found| found.identity))?;
        let mut scan = Scan { devices: Vec::new(), is_whole: true };
        let mut left_out = Vec::new();
        for device in present {
            let answer = answers.remove(&device.identity);
            scan.is_whole &= device.hub.is_some() || answer.as_ref().is_some_and(Answer::is_whole);
            // What can't be read is gone, or as good as that.
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

    /// Asks devices for what is read with their locks. Those are not asked whose reader is still
    /// with them since an earlier scan.
    fn ask(
        &self,
        identities: impl Iterator<Item = Identity>,
    ) -> io::Result<HashMap<Identity, Answer>> {
        let mut desk = self.readers.lock();
        (desk.answers, desk.failure) = (HashMap::new(), None);
        desk.queue = identities.filter(|identity| !desk.reading.contains_key(identity)).collect();
        loop {
            let now = Instant::now();
            if desk.needs_reader(now) {
                self.start_reader()?;
                desk.readers += 1;
            }
            let Some(wait) = desk.wait(now).filter(|_| desk.failure.is_none()) else { break };
            let waited = self.readers.changed.wait_timeout(desk, wait);
            desk = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // What nobody has begun with when the readers are used up is not waited for.
        desk.queue.clear();
        match desk.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut desk.answers)),
        }
    }

    fn start_reader(&self) -> io::Result<()> {
        let (readers, devices) = (Arc::clone(&self.readers), self.devices.clone());
        let thread = thread::Builder::new().name("sysfs".to_owned());
        thread.spawn(move || readers.run(&devices)).map(drop)
    }

    /// A device from what it said now, or else from what is known of it; `None` if that is nothing.
    fn candidate(&mut self, device: &Present, answer: Option<Answer>) -> Option<LibusbCandidate> {
        let links = sysfs::links(&self.devices, device.identity.busid);
        if let Some(hub) = device.hub {
            let descriptors = Descriptors { device: hub, configurations: Vec::new() };
            return Some(candidate(device, descriptors, Told::default(), links));
        }
        let answer = answer.unwrap_or_default();
        let is_whole = answer.is_whole();
        let known = self.known.entry(device.identity).or_default();
        known.descriptors = answer.descriptors.or_else(|| known.descriptors.take());
        known.told = answer.told.or_else(|| known.told.take());
        let Answer { descriptors, mut told, .. } = known.clone();
        if let Some(value) = links.configuration.filter(|_| !is_whole) {
            told.get_or_insert_default().configuration = Some(value);
        }
        let is_served = descriptors.is_some() && told.is_some();
        self.tell(device.identity, is_whole, is_served);
        Some(candidate(device, descriptors?, told?, links))
    }

    /// Tells the log, once, of a device that does not answer.
    fn tell(&mut self, identity: Identity, answers: bool, is_served: bool) {
        let busid = identity.busid;
        if answers {
            if self.silent.remove(&identity) {
                info!("{busid}: answers again");
            }
        } else if self.silent.insert(identity) {
            let instead =
                if is_served { "what is known of it is" } else { "it is left out and not" };
            warn!(
                "{busid}: does not answer, because something else keeps the system from asking it; \
                 {instead} shown to clients until it does"
            );
        }
    }
}

fn candidate(
    device: &Present,
    descriptors: Descriptors,
    told: Told,
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
    let mut info = found.info(told.configuration, links.path);
    [info.manufacturer, info.product, info.serial] = told.strings;
    (info.drivers, info.imported) = (links.drivers, links.imported);
    LibusbCandidate::new(found, info)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process::Command;

    use super::*;
    use crate::usb::{Candidate, DeviceInfo};

    /// A sysfs of files, removed behind each test. Attributes that are FIFOs keep their reader
    /// until somebody writes to them, as a lock does.
    struct Sysfs {
        root: PathBuf,
        scanner: Scanner,
    }

    /// Attributes of a device with a configuration 1 of one interface.
    const ATTRIBUTES: [(&str, &str); 8] = [
        ("busnum", "1\n"),
        ("devnum", "7\n"),
        ("speed", "480\n"),
        ("bDeviceClass", "00\n"),
        ("quirks", "0x0\n"),
        ("bConfigurationValue", "1\n"),
        ("product", "Thing\n"),
        ("serial", "12\n"),
    ];

    const DESCRIPTORS: [u8; 36] = [
        18, 1, 0, 2, 0, 0, 0, 64, 0x6b, 0x1d, 4, 1, 0, 1, 1, 2, 3, 1, // device
        9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 255, 1, 2, 0,
    ];

    impl Sysfs {
        fn new(name: &str) -> Self {
            let name = format!("usbferry-scan-{}-{name}", std::process::id());
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(&root).unwrap();
            Self { scanner: Scanner::below(root.clone()), root }
        }

        fn add(&self, busid: &str) {
            fs::create_dir_all(self.root.join(busid)).unwrap();
            for (name, text) in ATTRIBUTES {
                self.put(busid, name, text);
            }
            fs::write(self.root.join(busid).join("descriptors"), DESCRIPTORS).unwrap();
        }

        fn put(&self, busid: &str, name: &str, text: &str) {
            fs::write(self.root.join(busid).join(name), text).unwrap();
        }

        /// Has whoever reads it wait.
        fn lock(&self, busid: &str, name: &str) {
            let path = self.root.join(busid).join(name);
            let _ = fs::remove_file(&path);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        }

        /// Lets whoever waits go on, and nobody wait any more.
        fn unlock(&self, busid: &str, name: &str, text: &str) {
            let path = self.root.join(busid).join(name);
            let opened = File::options().write(true).open(&path).unwrap();
            fs::remove_file(&path).unwrap();
            self.put(busid, name, text);
            drop(opened);
        }

        fn scan(&mut self) -> (Vec<DeviceInfo>, Vec<(u8, u8)>) {
            let Sighted { scan, left_out } = self.scanner.look().unwrap();
            (scan.devices.iter().map(|found| found.info().clone()).collect(), left_out)
        }

        /// Names of the devices that are found.
        fn found(&mut self) -> Vec<String> {
            self.scan().0.iter().map(|info| info.device.busid.to_string()).collect()
        }

        /// Waits until no reader is with a device any more.
        fn wait_for_readers(&self) {
            let begun = Instant::now();
            while !self.scanner.readers.lock().reading.is_empty() {
                assert!(begun.elapsed() < Duration::from_secs(20), "a reader does not come back");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }

    #[test]
    fn a_device_is_what_sysfs_says() {
        let mut sysfs = Sysfs::new("says");
        sysfs.add("1-1");
        sysfs.put("1-1", "speed", "20000\n");
        fs::create_dir_all(sysfs.root.join("1-1/1-1:1.0")).unwrap();
        // An interface, which is no device.
        fs::create_dir_all(sysfs.root.join("1-1:1.0")).unwrap();
        let (found, left_out) = sysfs.scan();
        let [info] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((info.device.busnum, info.device.devnum), (1, 7));
        assert_eq!((info.device.id_vendor, info.device.id_product), (0x1d6b, 0x0104));
        assert_eq!((info.device.configuration_value, info.device.speed as u32), (1, 5));
        assert_eq!(info.device.interfaces.len(), 1);
        assert_eq!((info.manufacturer.as_deref(), info.product.as_deref()), (None, Some("Thing")));
        assert_eq!(info.serial.as_deref(), Some("12"));
        assert_eq!(left_out, []);
    }

    #[test]
    fn a_device_without_a_configuration_has_no_interfaces() {
        let mut sysfs = Sysfs::new("none");
        sysfs.add("1-1");
        sysfs.put("1-1", "bConfigurationValue", "");
        let device = &sysfs.scan().0[0].device;
        assert_eq!((device.configuration_value, device.interfaces.len()), (0, 0));
    }

    #[test]
    fn a_speed_that_the_kernel_has_no_word_for_is_the_devices() {
        let mut sysfs = Sysfs::new("speed");
        sysfs.add("1-1");
        sysfs.put("1-1", "speed", "unknown\n");
        assert_eq!(sysfs.scan().0[0].device.speed as u32, 3);
    }

    #[test]
    fn of_hubs_nothing_is_read_that_could_wait() {
        let mut sysfs = Sysfs::new("hub");
        sysfs.add("usb1");
        for (name, text) in [
            ("bDeviceClass", "09\n"),
            ("bDeviceSubClass", "00\n"),
            ("bDeviceProtocol", "01\n"),
            ("bMaxPacketSize0", "64\n"),
            ("idVendor", "1d6b\n"),
            ("idProduct", "0002\n"),
            ("bcdDevice", "0601\n"),
            ("bNumConfigurations", "1\n"),
            ("version", " 2.00\n"),
        ] {
            sysfs.put("usb1", name, text);
        }
        for name in ["descriptors", "bConfigurationValue", "product", "serial"] {
            sysfs.lock("usb1", name);
        }
        let (found, _) = sysfs.scan();
        assert!(found[0].is_hub());
        assert_eq!((found[0].device.id_product, found[0].device.bcd_device), (2, 0x0601));
        assert!(sysfs.scanner.readers.lock().reading.is_empty());
    }

    #[test]
    fn a_device_that_does_not_answer_holds_up_no_other_and_is_what_it_was() {
        let mut sysfs = Sysfs::new("held");
        for busid in ["1-1", "1-2", "1-3"] {
            sysfs.add(busid);
        }
        assert_eq!(sysfs.found(), ["1-1", "1-2", "1-3"]);
        sysfs.lock("1-1", "bConfigurationValue");
        let begun = Instant::now();
        let (found, left_out) = sysfs.scan();
        assert!(begun.elapsed() >= PATIENCE);
        assert_eq!((found.len(), left_out.as_slice()), (3, [].as_slice()));
        assert_eq!(found[0].device.configuration_value, 1);
        assert_eq!(found[0].product.as_deref(), Some("Thing"));
        // It is not asked, nor waited for, a second time.
        assert_eq!(sysfs.found(), ["1-1", "1-2", "1-3"]);
        assert_eq!(sysfs.scanner.readers.lock().reading.len(), 1);
        // Its interfaces say without a lock that it has been set to another configuration.
        fs::create_dir_all(sysfs.root.join("1-1/1-1:2.0")).unwrap();
        assert_eq!(sysfs.scan().0[0].device.configuration_value, 2);
        fs::remove_dir_all(sysfs.root.join("1-1/1-1:2.0")).unwrap();
        sysfs.unlock("1-1", "bConfigurationValue", "\n");
        sysfs.wait_for_readers();
        assert_eq!(sysfs.scan().0[0].device.configuration_value, 0);
        assert!(sysfs.scanner.silent.is_empty());
    }

    #[test]
    fn a_device_that_has_never_answered_is_left_out_unless_its_interfaces_speak() {
        let mut sysfs = Sysfs::new("never");
        for busid in ["1-1", "1-2"] {
            sysfs.add(busid);
        }
        sysfs.lock("1-1", "bConfigurationValue");
        let (found, left_out) = sysfs.scan();
        assert_eq!(found.len(), 1);
        assert_eq!(left_out, [(1, 7)]);
        fs::create_dir_all(sysfs.root.join("1-1/1-1:1.0")).unwrap();
        let (found, left_out) = sysfs.scan();
        assert_eq!((found.len(), left_out.len()), (2, 0));
        assert_eq!((found[0].device.configuration_value, found[0].serial.as_deref()), (1, None));
        sysfs.unlock("1-1", "bConfigurationValue", "1\n");
        sysfs.wait_for_readers();
        assert_eq!(sysfs.found(), ["1-1", "1-2"]);
    }

    #[test]
    fn many_that_do_not_answer_are_waited_for_together() {
        let mut sysfs = Sysfs::new("many");
        // One after the other, they would be waited for for six seconds.
        let names: Vec<String> = (1..=24).map(|port| format!("1-{port}")).collect();
        for busid in &names {
            sysfs.add(busid);
            sysfs.lock(busid, "serial");
        }
        sysfs.add("1-99");
        let begun = Instant::now();
        assert_eq!(sysfs.found(), ["1-99"]);
        assert!(begun.elapsed() < 12 * PATIENCE, "{:?}", begun.elapsed());
        for busid in &names {
            sysfs.unlock(busid, "serial", "1\n");
        }
        sysfs.wait_for_readers();
    }

    #[test]
    fn a_device_that_went_is_forgotten_and_another_in_its_place_is_asked() {
        let mut sysfs = Sysfs::new("went");
        sysfs.add("1-1");
        assert_eq!(sysfs.found(), ["1-1"]);
        fs::remove_dir_all(sysfs.root.join("1-1")).unwrap();
        assert_eq!(sysfs.found(), Vec::<String>::new());
        assert!(sysfs.scanner.known.is_empty());
        sysfs.add("1-1");
        sysfs.lock("1-1", "serial");
        assert_eq!(sysfs.found(), Vec::<String>::new());
        // The first one's reader still waits; the second one has another number.
        sysfs.put("1-1", "devnum", "8\n");
        let serial = sysfs.root.join("1-1/serial");
        fs::rename(&serial, sysfs.root.join("serial-of-the-first")).unwrap();
        sysfs.put("1-1", "serial", "2\n");
        assert_eq!(sysfs.found(), ["1-1"]);
        drop(File::options().write(true).open(sysfs.root.join("serial-of-the-first")).unwrap());
        sysfs.wait_for_readers();
    }

    #[test]
    fn a_thread_that_waits_is_told_from_one_that_has_no_processor() {
        assert!(Reading::begin().is_runnable());
        let (sender, receiver) = std::sync::mpsc::channel();
        let (holder, held) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            sender.send(Reading::begin()).unwrap();
            held.recv().is_err()
        });
        let reading = receiver.recv().unwrap();
        while reading.is_runnable() {
            thread::sleep(Duration::from_millis(1));
        }
        let over = reading.begun + PATIENCE;
        assert!(reading.is_over(over) && !reading.is_over(over - Duration::from_millis(1)));
        drop(holder);
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_scan_that_can_not_look_is_an_error() {
        let mut sysfs = Sysfs::new("gone");
        fs::remove_dir_all(&sysfs.root).unwrap();
        assert!(sysfs.scanner.scan().is_err_and(|error| error.to_string().contains("can't list")));
    }
}
