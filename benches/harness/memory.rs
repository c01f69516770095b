//! Memory of attached devices on the real libusb: idle, right after a load, and a minute later.
//! Linux only; `libusb` includes the file by its path.
//!
//! The memory of a device is what the server takes more than with a single idle device, divided by
//! the number of the other devices. Memory mapped from devices counts, though a real usbfs has it
//! in the kernel: it is lost to all others.

use std::path::Path;
use std::thread;
use std::time::Duration;

use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::process;
use usbferry_load::run;
use usbferry_load::workload::{Check, Traffic, Workload};

use crate::harness::server::Server;
use crate::harness::settings::{self, Settings};
use crate::harness::{self};
use crate::tree::Tree;

/// Devices beside the first one. usbferry maps memory of each, and usbfs's default limit is 16 MiB
/// for all together.
const DEVICES: usize = 64;
const DEVICES_SMOKE: usize = 8;
const WITH: &str = "count=65:quota=1024M";

/// The same devices with two bulk endpoints and nothing else.
const WITHOUT: &str = "count=65:quota=1024M:\
    config=0902200001010080320904000002ff0000000705810200020007050102000200";

/// The time from the end of the load until the memory counts.
const LATER: Duration = Duration::from_secs(60);

/// URBs of each load of a device, which has its mapping soon.
const LOADS: [(Traffic, usize, u64); 4] = [
    (Traffic::BulkIn(512), 64, 2000),
    (Traffic::BulkIn(128 << 10), 16, 100),
    (Traffic::BulkOut(128 << 10), 16, 100),
    (Traffic::IsochronousIn(8, 1024), 8, 200),
];

/// Bytes of a device.
struct Figures {
    idle: f64,
    loaded: f64,
    later: f64,
}

pub(crate) fn measure(settings: &Settings, library: &Path) -> Result<(), String> {
    let own = Path::new(env!("CARGO_BIN_EXE_usbferry"));
    let mut lines = Vec::new();
    println!("memory of each of {} devices, KiB\n{HEAD}", devices(settings));
    for (name, tree) in [("with isochronous endpoints", WITH), ("without", WITHOUT)] {
        for program in std::iter::once(own).chain(settings.beside()) {
            let figures = figures(settings, library, program, tree)?;
            let name = if program == own { name.to_owned() } else { format!("{name}, beside") };
            lines.push(report(&name, &figures));
        }
    }
    println!("{LEGEND}");
    let text = format!("{{\"bench\":\"memory\",\"rows\":[\n{}\n]}}\n", lines.join(",\n"));
    harness::write(&settings::results()?.join("memory.json"), &text)
}

const fn devices(settings: &Settings) -> usize {
    if settings.smoke { DEVICES_SMOKE } else { DEVICES }
}

fn figures(
    settings: &Settings,
    library: &Path,
    program: &Path,
    devices_of_tree: &'static str,
) -> Result<Figures, String> {
    let count = devices(settings);
    let tree = Tree::new(&settings::results()?, "attached", devices_of_tree)?;
    let arguments: Vec<String> =
        std::iter::once("--all".to_owned()).chain(settings.serve.iter().cloned()).collect();
    let server = Server::build(program, &arguments, &tree.environment(library))?;
    let attach = |number: usize| {
        let busid = format!("1-{number}");
        Client::attach_when_free(&*server.address, &busid)
            .map_err(|error| format!("{busid}: {error}"))
    };
    let memory = || process::memory(server.pid()).ok_or("the server's memory can't be read");
    let _first = attach(1)?;
    let before = memory()?;
    let mut clients = (2..=count + 1).map(attach).collect::<Result<Vec<Client>, String>>()?;
    let each = || memory().map(|memory| float(memory.saturating_sub(before)) / float(count as u64));
    let idle = each()?;
    clients = clients
        .into_iter()
        .map(|client| load(client, devices_of_tree == WITH).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let loaded = each()?;
    if !settings.smoke {
        thread::sleep(LATER);
    }
    let later = each()?;
    drop(clients);
    Ok(Figures { idle, loaded, later })
}

/// Puts a device under each load in turn.
fn load(mut client: Client, is_isochronous: bool) -> std::io::Result<Client> {
    for (traffic, depth, urbs) in LOADS {
        let workload = Workload::new(traffic, depth);
        if workload.packets().is_some() {
            if !is_isochronous {
                continue;
            }
            client.set_interface(1, 1)?;
        }
        let mut flow = Flow::new(client, workload, Check::Length)?;
        run::count(&mut flow, depth, urbs)?;
        client = flow.into_client();
    }
    Ok(client)
}

/// Prints a row, and returns its JSON.
fn report(name: &str, figures: &Figures) -> String {
    let [idle, loaded, later] =
        [figures.idle, figures.loaded, figures.later].map(|bytes| bytes / 1024.0);
    println!("{name:36} {idle:>8.0} {loaded:>8.0} {later:>8.0} {:>8.2}", later / idle);
    format!(
        "{{\"row\":\"{name}\",\"idle_kib\":{idle:.1},\"loaded_kib\":{loaded:.1},\
         \"later_kib\":{later:.1}}}"
    )
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
const fn float(number: u64) -> f64 {
    number as f64
}

const HEAD: &str = "row                                      idle   loaded    later  of idle";

const LEGEND: &str = "\
idle: attached, and not used so far; loaded: right after bulk URBs of 512 B and 128 KiB, and
isochronous ones; later: a minute after all loads have ended. Memory mapped from the device, 2 MiB
at most, counts.";
