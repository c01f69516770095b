//! `usbferry check-config`: says what a file of settings means for the devices that are there.
//!
//! Contract: *blocks* for the file, and for the answers of devices.

use std::io::{self, Write};

use super::{CommandError, settings};
use crate::cli::{CheckConfig, Serve};
use crate::config::meaning::Meaning;
use crate::config::rules::Rules;
use crate::usb::libusb::LibusbBackend;
use crate::usb::{Backend, Candidate};

/// `usbferry check-config`.
pub(super) fn check(arguments: &CheckConfig) -> Result<(), CommandError> {
    let file = settings::read_file(&arguments.file).map_err(CommandError::File)?;
    let (settings, _) = settings::with_file(&Serve::default(), &file)?;
    let name = arguments.file.display();
    print(&[format!("{name}: {}, without a fault", count(&settings.rules))])?;
    let devices = LibusbBackend::new().and_then(|mut backend| backend.scan());
    let devices = devices.map_err(CommandError::Scan)?.devices;
    let meaning = Meaning::of(devices.iter().map(Candidate::info), &settings);
    print(&[meaning.decided(), meaning.waiting(), meaning.ambiguous()].concat())
}

fn count(rules: &Rules) -> String {
    let plural = if rules.len() == 1 { "" } else { "s" };
    format!("{} rule{plural}", rules.len())
}

fn print(lines: &[String]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match lines.iter().try_for_each(|line| writeln!(out, "{line}")) {
        // An output closed early, as by `| head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Print(error)),
        _ => Ok(()),
    }
}
