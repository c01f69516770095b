//! Scans of a sysfs made of files, whose attributes can be locked.

use std::fs::{self, File};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::readers::Reading;
use super::*;
use crate::usb::libusb::patience::PATIENCE;
use crate::usb::{Candidate, DeviceInfo};

/// A sysfs of files, removed behind each test. An attribute that is a FIFO keeps its reader until a
/// writer comes, as a lock does.
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

    /// Has readers of an attribute wait.
    fn lock(&self, busid: &str, name: &str) {
        let path = self.root.join(busid).join(name);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }

    /// Lets waiting readers go on, and later readers not wait.
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

    /// Names of the devices found.
    fn found(&mut self) -> Vec<String> {
        self.scan().0.iter().map(|info| info.device.busid.to_string()).collect()
    }

    /// Waits until all readers are done.
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
fn a_device_is_described_by_sysfs() {
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
fn the_fixed_facts_of_a_device_are_read_once() {
    let mut sysfs = Sysfs::new("once");
    sysfs.add("1-1");
    let speed = |sysfs: &mut Sysfs| sysfs.scan().0[0].device.speed as u32;
    let before = speed(&mut sysfs);
    sysfs.put("1-1", "speed", "12\n");
    assert_eq!(speed(&mut sysfs), before, "the same device");
    sysfs.put("1-1", "devnum", "8\n");
    assert_eq!(speed(&mut sysfs), 2, "another device in its place");
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
fn a_silent_device_holds_up_no_other_and_keeps_its_last_state() {
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
    // The device is not asked, nor waited for, a second time.
    assert_eq!(sysfs.found(), ["1-1", "1-2", "1-3"]);
    assert_eq!(sysfs.scanner.readers.lock().reading.len(), 1);
    // The interfaces show without a lock that another configuration was set.
    fs::create_dir_all(sysfs.root.join("1-1/1-1:2.0")).unwrap();
    assert_eq!(sysfs.scan().0[0].device.configuration_value, 2);
    fs::remove_dir_all(sysfs.root.join("1-1/1-1:2.0")).unwrap();
    sysfs.unlock("1-1", "bConfigurationValue", "\n");
    sysfs.wait_for_readers();
    assert_eq!(sysfs.scan().0[0].device.configuration_value, 0);
    assert!(sysfs.scanner.silent.is_empty());
}

/// A hint causes a scan while the kernel's drivers still look at a new device.
#[test]
fn a_device_just_plugged_in_has_time_to_answer() {
    let mut sysfs = Sysfs::new("arrives");
    sysfs.add("1-1");
    assert_eq!(sysfs.found(), ["1-1"]);
    sysfs.add("1-2");
    sysfs.lock("1-2", "serial");
    assert_eq!(sysfs.scan().1, [(1, 7)]);
    assert!(sysfs.scanner.silent.is_empty(), "nothing is wrong yet");
    for since in sysfs.scanner.arriving.values_mut() {
        *since = since.checked_sub(ARRIVAL).unwrap();
    }
    assert_eq!(sysfs.scan().1, [(1, 7)]);
    assert_eq!(sysfs.scanner.silent.len(), 1);
    sysfs.unlock("1-2", "serial", "1\n");
    sysfs.wait_for_readers();
    assert_eq!(sysfs.found(), ["1-1", "1-2"]);
    assert!(sysfs.scanner.silent.is_empty() && sysfs.scanner.arriving.is_empty());
}

#[test]
fn an_unknown_silent_device_is_listed_by_its_interfaces_or_left_out() {
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
fn silent_devices_are_waited_for_together() {
    let mut sysfs = Sysfs::new("many");
    let names: Vec<String> = (1..=24).map(|port| format!("1-{port}")).collect();
    for busid in &names {
        sysfs.add(busid);
        sysfs.lock(busid, "serial");
    }
    sysfs.add("1-99");
    assert_eq!(sysfs.found(), ["1-99"]);
    let desk = sysfs.scanner.readers.lock();
    let mut begun: Vec<Instant> = desk.reading.values().map(|reading| reading.begun).collect();
    drop(desk);
    assert_eq!(begun.len(), names.len());
    // One after the other, each device would have to wait for the end of the wait before.
    begun.sort_unstable();
    assert!(begun.windows(2).any(|pair| pair[1] - pair[0] < PATIENCE), "{begun:?}");
    for busid in &names {
        sysfs.unlock(busid, "serial", "1\n");
    }
    sysfs.wait_for_readers();
}

#[test]
fn a_former_device_is_forgotten_and_its_successor_asked() {
    let mut sysfs = Sysfs::new("went");
    sysfs.add("1-1");
    assert_eq!(sysfs.found(), ["1-1"]);
    fs::remove_dir_all(sysfs.root.join("1-1")).unwrap();
    assert_eq!(sysfs.found(), Vec::<String>::new());
    assert!(sysfs.scanner.known.is_empty());
    sysfs.add("1-1");
    sysfs.lock("1-1", "serial");
    assert_eq!(sysfs.found(), Vec::<String>::new());
    // The reader of the first device still waits; the second device has another number.
    sysfs.put("1-1", "devnum", "8\n");
    let serial = sysfs.root.join("1-1/serial");
    fs::rename(&serial, sysfs.root.join("serial-of-the-first")).unwrap();
    sysfs.put("1-1", "serial", "2\n");
    assert_eq!(sysfs.found(), ["1-1"]);
    drop(File::options().write(true).open(sysfs.root.join("serial-of-the-first")).unwrap());
    sysfs.wait_for_readers();
}

#[test]
fn waiting_threads_differ_from_threads_without_a_processor() {
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
