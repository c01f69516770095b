//! Hints of Linux's kernel that another scan would find something else.
//!
//! The kernel sends a uevent when a device or an interface is added, removed or changed. With these
//! the facts of a DEVLIST or IMPORT reply stay known between scans:
//!
//! | fact | changes with | uevent |
//! | --- | --- | --- |
//! | busid, place in sysfs, numbers, speed, device descriptor, strings, configurations | the device: what comes back from a reset as something else is removed and added (`usb_reset_and_verify_device`) | `remove`, `add` of the device |
//! | bConfigurationValue and the interfaces | SET_CONFIGURATION of a program, and `authorized` in sysfs: interfaces are removed and added (`usb_set_configuration`) | `remove`, `add` of an interface |
//! | settings of interfaces | not told: the reply has each interface as it is right after SET_CONFIGURATION | none needed |
//! | drivers of interfaces | `bind` and `unbind` of an interface, which every import causes | left out: no reply tells of drivers |
//!
//! Two changes have no uevent. From a configuration without interfaces to another such or to none,
//! nothing is removed or added; an IMPORT tells the configuration that the device is found in when
//! opened, so only a DEVLIST can be late. And a device whose lock is held during a scan may be read
//! later without a uevent: then the scan says that some device is not known in full.
//!
//! Contract: never blocks. Part of the reactor's thread.

use std::io;
use std::os::fd::AsRawFd;

use log::debug;
use usbferry_sys::os::uevent::{Uevent, Uevents};

use crate::usb::{EventSource, Hints, News};

/// Bytes of a uevent that are read. The kernel's are shorter (`UEVENT_BUFFER_SIZE` is 2048), and
/// the fields of interest stand at the start.
const UEVENT_LEN_MAX: usize = 4096;

/// Uevents taken in one call.
const UEVENTS_PER_CALL: usize = 256;

/// Hints by uevents.
pub(super) struct Hotplug(Uevents);

impl Hotplug {
    /// Begins to listen; `None` where the kernel would not be heard, which is no error: devices are
    /// looked for at each request then.
    pub(super) fn open() -> Option<Self> {
        let opened = Uevents::open();
        opened.map(Self).inspect_err(|error| debug!("no uevents of USB devices: {error}")).ok()
    }
}

impl Hints for Hotplug {
    fn event_source(&self) -> EventSource {
        EventSource { fd: self.0.as_raw_fd(), readable: true, writable: false }
    }

    fn take(&mut self) -> io::Result<News> {
        let mut room = [0; UEVENT_LEN_MAX];
        let mut news = News::default();
        for _ in 0..UEVENTS_PER_CALL {
            match self.0.next(&mut room)? {
                Uevent::Message(message) => news.scan_again |= is_hint(message),
                Uevent::Overflowed => news.scan_again = true,
                Uevent::None => return Ok(news),
            }
        }
        Ok(News { scan_again: true, more: true })
    }
}

/// Whether a uevent tells of something that clients are told of.
fn is_hint(uevent: &[u8]) -> bool {
    let value = |name: &[u8]| {
        let mut fields = uevent.split(|&byte| byte == 0);
        fields.find_map(|field| field.strip_prefix(name))
    };
    let is_binding = matches!(value(b"ACTION="), Some(b"bind" | b"unbind"));
    value(b"SUBSYSTEM=") == Some(b"usb")
        && !(is_binding && value(b"DEVTYPE=") == Some(b"usb_interface"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uevent(action: &str, subsystem: &str, kind: &str) -> Vec<u8> {
        let path = "/devices/pci0000:00/0000:00:14.0/usb1/1-1";
        format!(
            "{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0\
             MAJOR=189\0MINOR=1\0DEVNAME=bus/usb/001/002\0DEVTYPE={kind}\0PRODUCT=1d6b/104/100\0\
             SEQNUM=4711\0"
        )
        .into_bytes()
    }

    #[test]
    fn uevents_of_devices_and_of_interfaces_that_come_and_go_are_hints() {
        for action in ["add", "remove", "change", "bind", "unbind", "offline"] {
            assert!(is_hint(&uevent(action, "usb", "usb_device")), "{action}");
        }
        for action in ["add", "remove", "change"] {
            assert!(is_hint(&uevent(action, "usb", "usb_interface")), "{action}");
        }
    }

    #[test]
    fn drivers_and_other_subsystems_are_no_hints() {
        for action in ["bind", "unbind"] {
            assert!(!is_hint(&uevent(action, "usb", "usb_interface")), "{action}");
        }
        assert!(!is_hint(&uevent("add", "usbmisc", "usb_device")));
        assert!(!is_hint(&uevent("add", "block", "disk")));
        assert!(!is_hint(b""));
        assert!(!is_hint(b"add@/devices/x"));
    }

    /// Of a message that was cut the start counts.
    #[test]
    fn a_uevent_that_was_cut_behind_its_subsystem_is_a_hint() {
        let uevent = uevent("add", "usb", "usb_device");
        let end = uevent.windows(5).position(|part| part == b"MAJOR").unwrap();
        assert!(is_hint(&uevent[..end]));
    }
}
