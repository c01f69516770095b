//! Whether usbfs has the memory that the settings count on.
//!
//! Contract: reads a file.

use super::Finding;
use super::devices::Device;
use super::machine::Machine;
use crate::config::Settings;
use crate::units::Size;

const CHECK: &str = "memory";

/// The kernel's limit for the transfers of all programs, in MiB; zero for none.
const PARAMETER: &str = "/sys/module/usbcore/parameters/usbfs_memory_mb";

/// Bytes for each device below which devices that move much wait for each other: a stream of one
/// camera or disk has about as much in flight.
const BYTES_EACH: u64 = 2 << 20;

pub(super) fn check(machine: &Machine, exported: &[&Device], settings: &Settings) -> Vec<Finding> {
    let limits = exported.iter().map(|device| settings.verdict(&device.info).policy.limits);
    let urb_len = limits.map(|limits| limits.urb_len as u64).max().unwrap_or(0);
    let devices = exported.len();
    let Some(mebibytes) = machine.text(PARAMETER).and_then(|text| text.parse::<u64>().ok()) else {
        return vec![Finding::note(CHECK, "the kernel does not tell its limit for USB transfers")];
    };
    if mebibytes == 0 {
        return vec![Finding::ok(CHECK, "the kernel has no limit for USB transfers")];
    }
    let bytes = mebibytes.saturating_mul(1 << 20);
    let (size, urb) = (Size(bytes), Size(urb_len));
    let has = format!("usbfs has {size} for the transfers of all devices");
    let advise = |finding: Finding| finding.advise_all(advice());
    if bytes < urb_len {
        let what = format!("{has}, less than one URB may have (--urb-size {urb})");
        return vec![advise(Finding::warning(CHECK, what))];
    }
    if bytes / (devices.max(1) as u64) < BYTES_EACH {
        let what = format!("{has}, and {devices} devices share them: streams will wait");
        return vec![advise(Finding::warning(CHECK, what))];
    }
    vec![Finding::ok(CHECK, has)]
}

fn advice() -> [String; 2] {
    [
        format!("echo 256 | sudo tee {PARAMETER}"),
        "and for good, on the kernel's command line: usbcore.usbfs_memory_mb=256".to_owned(),
    ]
}
