//! An attached device takes the memory stated by `limits`, and afterwards nothing allocates: not
//! the reactor, not the device's worker, not the simulated device, for any input, claim or unread
//! reply of the client; nor do a capture and its writer.
//!
//! Every allocation of the process counts, except those of the client's thread. So the file has a
//! single test: a second test would count as well.

#[allow(dead_code, reason = "conformance uses the rest")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use support::Server;
use support::client::{MiniClient, Reply};
use support::endpoints::{
    INTERRUPT, ISO_SINK, ISO_SOURCE, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use support::submit::{Submit, setup};
use usbferry::config::Capturing;
use usbferry::limits::DeviceLimits;
use usbferry::usb::sim::loopback::request;

struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread plays the client. Needs neither memory nor a destructor, so that an
    /// allocator may look at any time.
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn count(bytes: usize) {
        let is_client = IS_CLIENT.try_with(Cell::get).unwrap_or(false);
        if COUNTS.load(Ordering::Relaxed) && !is_client {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
            BYTES.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

// SAFETY: each method calls the system's allocator, and counts without touching the memory handed
// out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: the pointer came from the system's allocator, with this layout.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

/// Allocations of the server while `run` runs, and their bytes.
fn count(run: impl FnOnce()) -> (usize, usize) {
    ALLOCATIONS.store(0, Ordering::Relaxed);
    BYTES.store(0, Ordering::Relaxed);
    COUNTS.store(true, Ordering::SeqCst);
    run();
    COUNTS.store(false, Ordering::SeqCst);
    (ALLOCATIONS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed))
}

/// A kind of traffic: its name and a round.
type Traffic = (&'static str, fn(&mut MiniClient));

const TRAFFIC: [Traffic; 17] = [
    ("bulk IN", |client| repeat(client, &Submit::read(SOURCE, 512), 100)),
    ("bulk IN, large", |client| repeat(client, &Submit::read(SOURCE, 1 << 20), 4)),
    ("bulk IN, more than there are slots", |client| {
        repeat(client, &Submit::read(SOURCE, 16384), 600);
    }),
    ("bulk OUT", |client| repeat(client, &Submit::write(SINK, &[1; 512]), 100)),
    ("bulk OUT, large", |client| repeat(client, &Submit::write(SINK, &[1; 1 << 20]), 4)),
    ("bulk loop", |client| {
        client.submit_all(&vec![Submit::read(LOOP_IN, 1000); 50]);
        client.submit(&Submit::write(LOOP_OUT, &[2; 50_000]));
        collect(client);
    }),
    ("interrupt", |client| repeat(client, &Submit::read(INTERRUPT, 64), 4)),
    ("control IN", |client| repeat(client, &Submit::get_device_descriptor(), 100)),
    ("control OUT", |client| {
        let setup = setup(request::OUT, request::WRITE, 0, 0, 4096);
        repeat(client, &Submit::control(setup, &[3; 4096]), 20);
    }),
    ("isochronous IN", |client| repeat(client, &Submit::iso_read(ISO_SOURCE, &[192; 32]), 50)),
    ("isochronous IN, short packets", |client| {
        client.command(request::PACKETS_SHORT, 100, ISO_SOURCE.into());
        repeat(client, &Submit::iso_read(ISO_SOURCE, &[3072; 1024]), 1);
    }),
    ("isochronous OUT, with gaps", |client| {
        let packets = [(0, 100), (256, 100), (512, 100)];
        repeat(client, &Submit::write(ISO_SINK, &[4; 612]).with_packets(&packets), 50);
    }),
    ("UNLINK in flight", |client| {
        let pending = client.submit_all(&vec![Submit::read(SILENT, 512); 100]);
        unlink_all(client, &pending);
    }),
    ("UNLINK of what waits", |client| {
        let pending = client.submit_all(&vec![Submit::read(SILENT, 512); 1500]);
        unlink_all(client, &pending);
    }),
    ("UNLINK of nothing", |client| {
        unlink_all(client, &(1 << 30..(1 << 30) + 1500).collect::<Vec<_>>())
    }),
    ("what is refused", |client| {
        repeat(client, &Submit::write(0x09, &[5; 100_000]), 10);
        repeat(client, &Submit { length: 0x7fff_ffff, ..Submit::read(SOURCE, 0) }, 100);
        repeat(client, &Submit { length: 0x7fff_ffff, ..Submit::get_device_descriptor() }, 10);
        repeat(client, &Submit::iso_read(0x87, &[8; 1024]), 10);
    }),
    ("a stall and errors", |client| {
        client.command(request::STALL_AFTER, 100, SINK.into());
        repeat(client, &Submit::write(SINK, &[6; 512]), 2);
        // The halt stays: only a special request clears the halt, and may allocate.
        client.command(request::BABBLE, 0, SOURCE.into());
        repeat(client, &Submit::read(SOURCE, 512), 1);
    }),
];

/// Submits a URB `times` times at once and reads all answers.
fn repeat(client: &mut MiniClient, submit: &Submit, times: usize) {
    client.submit_all(&vec![submit.clone(); times]);
    collect(client);
}

fn unlink_all(client: &mut MiniClient, targets: &[u32]) {
    let bytes: Vec<u8> =
        targets.iter().flat_map(|&target| client.prepare_unlink(target).1).collect();
    client.send(&bytes);
    collect(client);
}

fn collect(client: &mut MiniClient) {
    while client.outstanding() > 0 {
        match client.reply() {
            Reply::Submit(_) | Reply::Unlink(_) => {}
        }
    }
}

#[test]
fn nothing_allocates_once_attached() {
    IS_CLIENT.set(true);
    let server = Server::start("loopback");
    let attach = || {
        let mut client = server.attach();
        client.set_interface(1, 1);
        client
    };
    let (mut client, before) = (None, writable_bytes());
    let (_, bytes) = count(|| client = Some(attach()));
    let mut client = client.expect("it was attached");
    let stated = DeviceLimits::default().memory_max();
    assert!(bytes <= stated, "{bytes} bytes for a device, and limits.rs states {stated}");
    if let (Some(before), Some(after)) = (before, writable_bytes()) {
        let grown = after.saturating_sub(before);
        assert!(grown <= stated + STACK, "{grown} bytes mapped, and limits.rs states {stated}");
        // Otherwise the seen memory is not the device's.
        assert!(grown >= DeviceLimits::default().memory, "{grown} bytes mapped for a device");
    }
    check_that_it_counts(&server);
    check_traffic(&mut client, "");

    // Case 73: much is asked for and nothing read.
    let (allocations, bytes) = count(|| {
        client.submit_all(&vec![Submit::read(SOURCE, 1 << 20); 2000]);
        support::wait_until("something has come", || client.has_input());
        (0..200).for_each(|_| drop(client.reply()));
    });
    assert_eq!((allocations, bytes), (0, 0), "a slow reader");
    drop(client);

    // Cases 46 and 67: the end of the connection may cost a line in the log, but not the claimed
    // memory.
    let claims = [
        Submit { number_of_packets: 0x7fff_ffff, ..Submit::read(ISO_SOURCE, 64) },
        Submit { number_of_packets: 1025, ..Submit::write(ISO_SINK, &[0; 64]) },
        Submit { length: 0x7fff_ffff, ..Submit::write(SINK, &[0; 64]) },
        Submit { length: 0x7fff_ffff, ..Submit::write(ISO_SINK, &[0; 64]).with_packets(&[(0, 1)]) },
    ];
    for claim in claims {
        let mut client = attach();
        let (_, claim_bytes) = client.prepare(&claim);
        let (_, bytes) = count(|| {
            client.send_anyway(&claim_bytes);
            client.expect_drop();
        });
        assert!(bytes < 4096, "{bytes} bytes for {claim:?}");
    }
    drop(server);
    nothing_allocates_with_a_capture();
}

/// The same traffic while all of each URB that a capture can hold is captured, more than the writer
/// can have waiting.
fn nothing_allocates_with_a_capture() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("all.pcapng");
    let capture = Capturing { path: path.clone(), size: None, snap_len: 256 << 10 };
    let server = Server::start_with("loopback", |settings| settings.capture = Some(capture));
    let mut client = server.attach();
    client.set_interface(1, 1);
    check_traffic(&mut client, ", captured");
    drop((client, server));
    let len = std::fs::metadata(&path).expect("it is written").len();
    assert!(len > 16 << 20, "{len} bytes of a capture");
}

/// Shows that no kind of traffic allocates.
fn check_traffic(client: &mut MiniClient, how: &str) {
    // A thread allocates at its first wait, on a busy machine perhaps late.
    support::wait_until("every thread of the server to wait", || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        others_wait()
    });
    for (name, round) in TRAFFIC {
        // A first round warms up: threads note their waiters, tables take their size.
        round(client);
        let (allocations, bytes) = count(|| (0..3).for_each(|_| round(client)));
        assert_eq!((allocations, bytes), (0, 0), "{name}{how}");
    }
}

/// Whether all threads of this process but the calling thread sleep (proc(5), `stat`). On systems
/// without this information, such as macOS, the answer is yes.
fn others_wait() -> bool {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return true };
    let states =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    // Behind the name, which is in parentheses.
    let running =
        states.filter(|stat| !stat.rsplit(')').next().is_some_and(|s| s.starts_with(" S")));
    running.count() <= 1
}

/// Bytes for the stack of a device's thread, and for the thread's part of the allocator.
const STACK: usize = 4 << 20;

/// Bytes of writable memory without a file, committed or not: what is allocated, and what is mapped
/// without an allocator. `None` on systems without Linux's /proc.
fn writable_bytes() -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let lines = maps.lines().filter(|line| line.contains(" rw-p 00000000 00:00 0"));
    let len = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16));
        Some(end.ok()? - start.ok()?)
    };
    Some(lines.filter_map(len).sum())
}

/// The test would prove nothing without seeing the server's threads.
fn check_that_it_counts(server: &Server) {
    let mut status = 0;
    let (allocations, _) = count(|| status = server.connect().import(server.busid(0)));
    assert_eq!(status, 2, "the device is attached already");
    assert!(allocations > 0, "a handshake allocates, and that was not seen");
}
