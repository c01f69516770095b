//! The ports of `vhci_hcd`, as sysfs lists them (`port_show_vhci` of
//! `drivers/usb/usbip/vhci_sysfs.c`).
//!
//! The form is the same since Linux 4.13:
//!
//! ```text
//! hub port sta spd dev      sockfd local_busid
//! hs  0000 006 003 00010002 000003 9-1
//! ss  0015 004 000 00000000 000000 0-0
//! ```
//!
//! Contract: pure; takes any text.

use crate::wire::types::DevId;

/// The kind of a port: each controller has a hub of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hub {
    /// USB 2: low, full and high speed.
    High,
    /// USB 3.
    Super,
}

impl Hub {
    /// The hub for a device with this speed (`enum usb_device_speed`).
    #[must_use]
    pub const fn for_speed(speed: u32) -> Self {
        if speed >= SPEED_SUPER { Self::Super } else { Self::High }
    }

    /// The name in sysfs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "hs",
            Self::Super => "ss",
        }
    }
}

/// USB_SPEED_SUPER of `linux/usb/ch9.h`.
const SPEED_SUPER: u32 = 5;

/// `enum usbip_device_status` of `include/uapi/linux/usbip.h`, the part about ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// VDEV_ST_NULL.
    Free,
    /// VDEV_ST_NOTASSIGNED: a device is there and has no address yet; or the controller is not
    /// ready.
    Starting,
    /// VDEV_ST_USED.
    Used,
    /// VDEV_ST_ERROR, and any number that Linux may add.
    Failed,
}

impl State {
    const fn of(number: u32) -> Self {
        match number {
            4 => Self::Free,
            5 => Self::Starting,
            6 => Self::Used,
            _ => Self::Failed,
        }
    }

    /// The words of the stock tool (`usbip_status_string`).
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Free => "Port Available",
            Self::Starting => "Port Initializing",
            Self::Used => "Port in Use",
            Self::Failed => "Port Error",
        }
    }

    /// The word in JSON (docs/json.md).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starting => "starting",
            Self::Used => "used",
            Self::Failed => "failed",
        }
    }
}

/// A port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Counted over all controllers.
    pub number: u32,
    /// The kind of device that fits.
    pub hub: Hub,
    /// Whether a device is there.
    pub state: State,
    /// The device's speed, `enum usb_device_speed`; 0 for a port that is not used.
    pub speed: u32,
    /// The device's bus and address on its server; 0 for a port that is not used.
    pub devid: DevId,
    /// The device's name on this machine; none before the device has an address.
    pub local: Option<String>,
}

/// Reads a `status` file. `None` for a text that is no such file.
pub(super) fn parse(text: &str) -> Option<Vec<Port>> {
    let mut lines = text.lines();
    let is_known = lines.next()?.split_whitespace().next() == Some("hub");
    if is_known { lines.map(parse_port).collect() } else { None }
}

fn parse_port(line: &str) -> Option<Port> {
    let mut fields = line.split_whitespace();
    let hub = match fields.next()? {
        "hs" => Hub::High,
        "ss" => Hub::Super,
        _ => return None,
    };
    let mut number = |radix| u32::from_str_radix(fields.next()?, radix).ok();
    let (port, state, speed, devid) = (number(10)?, number(10)?, number(10)?, number(16)?);
    let _socket = fields.next()?;
    let local = fields.next()?;
    let is_busid = |text: &&str| *text != "0-0" && is_name(text);
    Some(Port {
        number: port,
        hub,
        state: State::of(state),
        speed,
        devid: DevId(devid),
        local: Some(local).filter(is_busid).map(str::to_owned),
    })
}

/// A name of a device in sysfs, as opposed to a path elsewhere.
fn is_name(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:_".contains(&byte))
        && !text.starts_with('.')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Linux 6.1.0-56-amd64 as in Debian 12, shortened: a stick on a port of each hub.
    pub(crate) const LINUX_6_1: &str = "\
hub port sta spd dev      sockfd local_busid
hs  0000 006 003 00020002 000003 9-1
hs  0001 004 000 00000000 000000 0-0
hs  0002 005 000 00000000 000000 0-0
ss  0015 006 005 00040003 000003 10-1
ss  0016 004 000 00000000 000000 0-0
";

    /// The second controller, `status.1`, of Linux 6.12 and 7.2, whose form is the same.
    const SECOND: &str = "\
hub port sta spd dev      sockfd local_busid
hs  0030 004 000 00000000 000000 0-0
ss  0045 007 000 00000000 000000 0-0
";

    /// A controller that is not ready (`status_show_not_ready`): a longer field for the socket.
    const NOT_READY: &str = "\
hub port sta spd dev      sockfd local_busid
hs  0060 005 000 00000000 0000000000000000 0-0
ss  0075 005 000 00000000 0000000000000000 0-0
";

    #[test]
    fn the_status_of_linux_6_1_to_7_2_is_read() {
        let ports = parse(LINUX_6_1).unwrap();
        let seen: Vec<_> = ports.iter().map(|p| (p.number, p.hub, p.state)).collect();
        let (high, superspeed) = (Hub::High, Hub::Super);
        let (free, starting, used) = (State::Free, State::Starting, State::Used);
        let expected = [
            (0, high, used),
            (1, high, free),
            (2, high, starting),
            (15, superspeed, used),
            (16, superspeed, free),
        ];
        assert_eq!(seen, expected);
        assert_eq!((ports[0].speed, ports[0].devid), (3, DevId::new(2, 2)));
        assert_eq!(ports[0].local.as_deref(), Some("9-1"));
        assert_eq!((ports[3].speed, ports[3].devid), (5, DevId::new(4, 3)));
        assert_eq!(ports[1].local, None);
        let ports = parse(SECOND).unwrap();
        assert_eq!((ports[0].number, ports[1].state), (30, State::Failed));
        let ports = parse(NOT_READY).unwrap();
        assert!(ports.iter().all(|port| port.state == State::Starting));
    }

    #[test]
    fn another_text_is_no_status() {
        for text in [
            "",
            "prt sta spd dev socket           local_busid\n000 004 000 000 c5a7bb80 1-2.3\n",
            "hub port sta spd dev      sockfd local_busid\nxs  0000 004 000 00000000 000000 0-0\n",
            "hub port sta spd dev      sockfd local_busid\nhs  zero 004 000 00000000 000000 0-0\n",
            "hub port sta spd dev      sockfd local_busid\nhs  0000 004 000 00000000 000000\n",
            "hub port sta spd dev      sockfd local_busid\n\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let strange = "hub\nhs 0000 006 003 00020002 000003 ../../etc\n";
        assert_eq!(parse(strange).unwrap()[0].local, None);
    }

    #[test]
    fn each_speed_has_its_hub() {
        for speed in 1..5 {
            assert_eq!(Hub::for_speed(speed), Hub::High);
        }
        assert_eq!(Hub::for_speed(5), Hub::Super);
    }
}
