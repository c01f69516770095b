//! `usbferry check-config`: says what a file of settings means for the devices that are there.
//!
//! Contract: *blocks* for the file, and for the answers of devices.

use std::io::{self, Write};

use super::{CommandError, hook_programs, settings};
use crate::cli::{CheckConfig, Serve};
use crate::config::meaning::{self, Meaning};
use crate::config::rules::Rules;
use crate::config::udev;
use crate::usb::libusb::LibusbBackend;
use crate::usb::{Backend, Candidate};
use crate::words::{plural, visible};

/// `usbferry check-config`.
pub(super) fn check(arguments: &CheckConfig) -> Result<(), CommandError> {
    let file = settings::read_file(&arguments.file).map_err(CommandError::File)?;
    let (settings, _) = settings::with_file(&Serve::default(), &file)?;
    if let Some(group) = &arguments.udev {
        return print(&udev::lines(&settings.rules, group));
    }
    let name = visible(&arguments.file.display().to_string());
    let programs = [&*file.hooks].into_iter().chain(settings.rules.iter().map(|rule| &*rule.hooks));
    let warnings = [hook_programs::faults(programs), meaning::shut_out(&settings)].concat();
    print(&[format!("{name}: {}, {}", count(&settings.rules), judgement(warnings.len()))])?;
    print(&warnings.iter().map(|line| format!("warning: {line}")).collect::<Vec<_>>())?;
    let devices = match LibusbBackend::new().and_then(|mut backend| backend.scan()) {
        Ok(scan) => scan.devices,
        // The file may be for another machine.
        Err(error) => {
            print(&[format!("only the file was looked at: {error}")])?;
            Vec::new()
        }
    };
    let meaning = Meaning::of(devices.iter().map(Candidate::info), &settings);
    print(&[meaning.decided(), meaning.waiting(), meaning.ambiguous()].concat())
}

fn count(rules: &Rules) -> String {
    format!("{} rule{}", rules.len(), plural(rules.len()))
}

fn judgement(warnings: usize) -> String {
    match warnings {
        0 => "without a fault".to_owned(),
        1 => "without a fault, but a warning".to_owned(),
        _ => format!("without a fault, but {warnings} warnings"),
    }
}

fn print(lines: &[String]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match lines.iter().try_for_each(|line| writeln!(out, "{line}")) {
        // An output closed early, as by `| head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::Print(error)),
        _ => Ok(()),
    }
}
