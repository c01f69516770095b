//! Kernels too old for the speed of a device, or with a known fault.
//!
//! Contract: reads files. The facts are from docs/kernels.md, and from the sources named beside
//! them.

use super::Finding;
use super::devices::Device;
use super::machine::Machine;
use crate::client::Exported;
use crate::wire::types::Speed;

const CHECK: &str = "kernel";

/// Major and minor number.
type Release = (u32, u32);

/// Since when `vhci_hcd` has ports for USB 3 ("usbip: vhci-hcd: Add USB3 SuperSpeed support").
const SUPER_SPEED: Release = (4, 13);

/// Since when `vhci_hcd` takes the speed 6 (docs/kernels.md).
const SUPER_SPEED_PLUS: Release = (6, 12);

/// Since when a connection that ends gives back URBs with an unsent UNLINK ("usbip:
/// give back URBs for unsent unlink requests during cleanup").
const GIVES_BACK: Release = (5, 15);

/// Since when replies are found after 2^31 URBs ("usbip: Fix seqnum sign extension issue in
/// vhci_tx_urb").
const COUNTS_ON: Release = (6, 14);

/// The speed in megabits a second from which on 10 Gbit/s and more are meant.
const PLUS: u32 = 10_000;

/// The speed on the wire of 10 Gbit/s and more (`USB_SPEED_SUPER_PLUS`).
const WIRE_PLUS: u32 = 6;

/// A server: speeds that no client runs.
pub(super) fn check_server(exported: &[&Device]) -> Vec<Finding> {
    let fast = exported.iter().filter(|device| device.speed >= PLUS);
    let note = |device: &&Device| {
        let (busid, speed) = (device.busid, device.speed / 1000);
        let what = format!(
            "{busid} ({}) has {speed} Gbit/s here and 5 at a client: no client's kernel runs \
             imported devices faster, and Linux before 6.12 refuses more",
            device.ids()
        );
        Finding::note(CHECK, what).about(busid)
    };
    let notes: Vec<Finding> = fast.map(note).collect();
    if notes.is_empty() {
        return vec![Finding::ok(CHECK, "every device can have its speed at a client")];
    }
    notes
}

/// A client: faults of its kernel.
pub(super) fn check_client(machine: &Machine) -> Vec<Finding> {
    let release = machine.release();
    let Some(version) = version(&release) else {
        return vec![Finding::note(
            CHECK,
            format!("the kernel's release is unknown: \"{release}\""),
        )];
    };
    let release = release.escape_debug();
    let newer = "install a newer kernel";
    if version < GIVES_BACK {
        let what = format!(
            "Linux {release}: a program can hang for good if the connection ends while one of its \
             requests is being cancelled; mended in 5.15"
        );
        return vec![Finding::warning(CHECK, what).advise(newer)];
    }
    if version < COUNTS_ON {
        let what = format!(
            "Linux {release}: after two billion URBs a device stops working until attached again, \
             which takes days of the busiest device; mended in 6.14"
        );
        return vec![Finding::note(CHECK, what)];
    }
    vec![Finding::ok(CHECK, format!("Linux {release}"))]
}

/// A client: exports too fast for its kernel.
pub(super) fn check_speeds(machine: &Machine, exports: &[Exported]) -> Vec<Finding> {
    let Some(version) = version(&machine.release()) else { return Vec::new() };
    let too_fast = exports.iter().filter_map(|export| {
        let (speed, since) = match export.device.speed {
            speed if speed == Speed::Super as u32 => ("super", SUPER_SPEED),
            WIRE_PLUS => ("super-plus", SUPER_SPEED_PLUS),
            _ => return None,
        };
        let busid = export.device.busid;
        let (major, minor) = since;
        let what =
            format!("{busid}: this kernel refuses the speed {speed}, known since {major}.{minor}");
        let finding = Finding::problem(CHECK, what).about(busid);
        (version < since).then(|| finding.advise("install a newer kernel"))
    });
    too_fast.collect()
}

/// The numbers in front of a release such as `6.1.0-13-amd64`.
fn version(release: &str) -> Option<Release> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
