//! The server's allocations a URB. The server runs as a thread of this process, and the process's
//! allocator counts the requests of every thread but the client's. For `exporter` only; libusb
//! allocates in C.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use usbferry::config::rules::Rules;
use usbferry::config::{Listen, Settings};
use usbferry::reactor::Reactor;
use usbferry::usb::sim::SimBackend;
use usbferry::usb::sim::bus::SimBus;
use usbferry::usb::sim::spec::Spec;
use usbferry_load::client::Client;
use usbferry_load::flow::Flow;
use usbferry_load::run::{self, Moment, Plan};
use usbferry_load::workload::{Check, Traffic, Workload};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, and a count.
struct Counting;

impl Counting {
    fn count() {
        if !IS_CLIENT.try_with(Cell::get).unwrap_or(true) {
            ALLOCATED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is the system allocator's own, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, len) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Prints the server's allocations a URB for a load of each kind.
pub(crate) fn print(plan: Plan) -> Result<(), String> {
    IS_CLIENT.set(true);
    let listen = Listen { address: ([127, 0, 0, 1], 0).into(), optional: false };
    let settings = Settings { listen: vec![listen], rules: Rules::all(), ..Settings::default() };
    let specs = Spec::parse_list("loopback").map_err(|error| error.to_string())?;
    let reactor = Reactor::new(SimBackend::new(SimBus::with(&specs)), settings)
        .map_err(|error| error.to_string())?;
    let address = reactor.addresses()[0];
    let mut stop = reactor.stop_handle().map_err(|error| error.to_string())?;
    let server = thread::spawn(|| reactor.run());
    println!("allocations of the server a URB:");
    for kind in [
        Traffic::BulkIn(512),
        Traffic::BulkOut(512),
        Traffic::BulkIn(128 << 10),
        Traffic::BulkOut(128 << 10),
        Traffic::IsochronousIn(32, 1024),
        Traffic::IsochronousOut(32, 1024),
        Traffic::ControlIn,
    ] {
        let client = Client::attach_when_free(address, "1-1").map_err(|e| e.to_string())?;
        let each = count(client, Workload::new(kind, 16), plan).map_err(|e| e.to_string())?;
        println!("  {:24} {each:.4}", kind.to_string());
    }
    stop.stop();
    match server.join() {
        Ok(Ok(0)) => Ok(()),
        _ => Err("the server did not end well".to_owned()),
    }
}

fn count(mut client: Client, workload: Workload, plan: Plan) -> std::io::Result<f64> {
    if workload.packets().is_some() {
        client.set_interface(1, 1)?;
    }
    let mut flows = [Flow::new(client, workload, Check::Pattern)?];
    let mut counts = [0; 2];
    let outcome = run::run(&mut flows, workload.depth, plan, |moment| {
        counts[usize::from(moment == Moment::End)] = ALLOCATED.load(Ordering::Relaxed);
    })?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let each = (counts[1] - counts[0]) as f64 / outcome.urbs.max(1) as f64;
    Ok(each)
}
