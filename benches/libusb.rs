//! The whole server over loopback TCP on the real libusb, with the simulated usbfs of
//! `testkit/usbfs`: the cost of the server with every layer above the kernel, at native speed. The
//! process itself answers calls of usbfs, so the figures lack the kernel's time for these calls;
//! the table has their number.
//!
//! Linux only; on other systems the bench says so.

use std::process::ExitCode;

mod harness;
#[cfg(target_os = "linux")]
#[path = "harness/tree.rs"]
mod tree;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    println!("libusb: there is no usbfs to simulate on this system");
    ExitCode::SUCCESS
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    harness::main(linux::bench)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;

    use usbferry_load::preload;
    use usbferry_load::workload::{Check, Traffic, Workload};

    use crate::harness;
    use crate::harness::capturing::Capturing;
    use crate::harness::measure::Bench;
    use crate::harness::rows::Target;
    use crate::harness::server::Server;
    use crate::harness::settings::{self, Settings};
    use crate::tree::Tree;

    /// A device for each session, and a device for the client that does not read. With usbfs's
    /// default memory (16 MiB for all programs together) not even the mappings of 65 devices would
    /// fit.
    const DEVICES: &str = "count=65:quota=512M";

    pub(crate) fn bench(settings: &Settings) -> Result<(), String> {
        let scratch = settings::results()?;
        let library = preload::build(Path::new(env!("CARGO_MANIFEST_DIR")), &scratch)?;
        let tree = Tree::new(&scratch, "own", DEVICES)?;
        let beside_tree = Tree::new(&scratch, "beside", DEVICES)?;
        let memory_tree = Tree::new(&scratch, "memory", DEVICES)?;
        let disk_tree = Tree::new(&scratch, "disk", DEVICES)?;
        let mut arguments = vec!["--all".to_owned()];
        arguments.extend(settings.serve.iter().cloned());
        let captured: Vec<String> = arguments.iter().chain(&settings.capturing).cloned().collect();
        let bench = Bench {
            settings,
            usbferry: Server::usbferry(&arguments, &tree.environment(&library))?,
            ceiling: Server::ceiling()?,
            beside: settings
                .beside()
                .map(|program| {
                    Server::build(program, &arguments, &beside_tree.environment(&library))
                })
                .transpose()?,
            capturing: if settings.beside.is_none() {
                let trees = [&memory_tree, &disk_tree].map(|tree| tree.environment(&library));
                Some(Capturing::start(&captured, &scratch, trees)?)
            } else {
                None
            },
            check: Check::Counter,
            usbfs: Some(&tree),
            scratch: scratch.clone(),
        };
        harness::measure("libusb", &bench, target)
    }

    /// The goal of a load on a single session: the result of a bare server on libusb.
    fn target(workload: &Workload) -> Target {
        match (workload.traffic, workload.depth) {
            (Traffic::BulkIn(64), 1) => Target::Rate(0.67),
            (Traffic::BulkIn(512), 16) => Target::Rate(0.54),
            (Traffic::BulkIn(0x4000), 16) => Target::Rate(0.61),
            (Traffic::BulkIn(0x2_0000), 16) => Target::Rate(0.19),
            (Traffic::BulkOut(0x2_0000), 16) => Target::Rate(0.58),
            (Traffic::BulkIn(0x10_0000), 16) => Target::Rate(0.15),
            (Traffic::BulkOut(0x10_0000), 16) => Target::Rate(0.43),
            (Traffic::IsochronousIn(8, 1024), _) => Target::Rate(0.59),
            (Traffic::IsochronousIn(32, 3072), _) => Target::Rate(0.47),
            _ => Target::None,
        }
    }
}
