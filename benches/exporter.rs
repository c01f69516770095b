//! The whole server over loopback TCP, its devices simulated: what sessions, reactor and sockets
//! cost, without libusb. Each row is measured in turn with the least server there can be.

use std::process::ExitCode;

use usbferry_load::workload::{Check, Kind, Workload};

#[path = "harness/allocations.rs"]
mod allocations;
mod harness;

use harness::measure::Bench;
use harness::rows::Target;
use harness::server::Server;
use harness::settings::{self, Settings};

/// Simulated devices: one for each session, and one for the client that does not read. They move
/// data as a controller does, beside the processor, not by it.
const DEVICES: &str = "--simulate=loopback:count=65:data=counter";

fn main() -> ExitCode {
    harness::main(bench)
}

fn bench(settings: &Settings) -> Result<(), String> {
    let arguments = arguments(settings);
    let bench = Bench {
        settings,
        usbferry: Server::usbferry(&arguments, &[])?,
        ceiling: Server::ceiling()?,
        beside: settings
            .beside()
            .map(|program| Server::build(program, &arguments, &[]))
            .transpose()?,
        check: Check::Counter,
        usbfs: None,
        scratch: settings::results()?,
    };
    harness::measure("exporter", &bench, target)?;
    drop(bench);
    if settings.filter.is_empty() { allocations::print(settings.plan) } else { Ok(()) }
}

fn arguments(settings: &Settings) -> Vec<String> {
    std::iter::once(DEVICES.to_owned()).chain(settings.serve.iter().cloned()).collect()
}

/// What is asked of a load on one session.
fn target(workload: &Workload) -> Target {
    match (workload.kind, workload.depth) {
        (Kind::BulkIn(64), 1) => Target::Turnaround(1.2, 1.5),
        (Kind::BulkIn(512) | Kind::BulkOut(512), _) => Target::Rate(0.7),
        _ if workload.len() >= 16 << 10 => Target::Rate(0.85),
        _ => Target::None,
    }
}
