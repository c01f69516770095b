//! The whole server over loopback TCP with simulated devices: the cost of sessions, reactor and
//! sockets, without libusb. Each row is measured in turn with a minimal server.

use std::process::ExitCode;

use usbferry_load::workload::{Check, Traffic, Workload};

#[path = "harness/allocations.rs"]
mod allocations;
mod harness;

use harness::capturing::Capturing;
use harness::measure::Bench;
use harness::rows::Target;
use harness::scraping::Scraped;
use harness::server::Server;
use harness::settings::{self, Settings};

/// Simulated devices: one for each session, and one for the client that does not read. Like a
/// controller, the devices move data without the processor.
const DEVICES: &str = "--simulate=loopback:count=65:data=counter";

fn main() -> ExitCode {
    harness::main(bench)
}

fn bench(settings: &Settings) -> Result<(), String> {
    let arguments = arguments(settings);
    let captured: Vec<String> = arguments.iter().chain(&settings.capturing).cloned().collect();
    let bench = Bench {
        settings,
        usbferry: Server::usbferry(&arguments, &[])?,
        ceiling: Server::ceiling()?,
        beside: settings
            .beside()
            .map(|program| Server::build(program, &arguments, &[]))
            .transpose()?,
        capturing: if settings.beside.is_none() {
            Some(Capturing::start(&captured, &settings::results()?, Default::default())?)
        } else {
            None
        },
        bare: None,
        scraped: if settings.beside.is_none() { Some(Scraped::start(&arguments)?) } else { None },
        check: Check::Counter,
        usbfs: None,
        scratch: settings::results()?,
    };
    harness::measure("exporter", &bench, target, Vec::new())?;
    drop(bench);
    if settings.filter.is_empty() { allocations::print(settings.plan) } else { Ok(()) }
}

fn arguments(settings: &Settings) -> Vec<String> {
    std::iter::once(DEVICES.to_owned()).chain(settings.serve.iter().cloned()).collect()
}

/// The goal of a load on a single session.
fn target(workload: &Workload) -> Target {
    match (workload.traffic, workload.depth) {
        (Traffic::BulkIn(64), 1) => Target::Turnaround(1.2, 1.5),
        (Traffic::BulkIn(512) | Traffic::BulkOut(512), _) => Target::Rate(0.7),
        _ if workload.len() >= 16 << 10 => Target::Rate(0.85),
        _ => Target::None,
    }
}
