//! What the conformance tests share: a server with simulated devices, and a client that knows the
//! rules.
//!
//! - [`Server`] runs the real reactor on a port of its own and keeps the [`SimBus`] at hand. When
//!   it is dropped it must stop, in good order and in time, with every device given back.
//! - [`client::MiniClient`] speaks the protocol over a blocking socket. It judges every reply as a
//!   Linux client would, whatever the test at hand looks for.
//! - [`hex::hex`] reads byte vectors as tests write them; `submit` makes SUBMITs, `random` chance
//!   from seeds, `log` keeps what the server says.
//!
//! # Conformance cases
//!
//! What a right server does is divided into 76 cases. Each is a test, or a few, with its number
//! above it; what it asks for is in its name and its asserts, and nowhere else.
//!
//! | cases | about | where |
//! | --- | --- | --- |
//! | 1 to 4, 6 to 17, 19 | DEVLIST and IMPORT | `handshake.rs` |
//! | 5, 6, 18 | what they say of a device | `src/usb/libusb/found.rs`: the simulated bus has no device that stores its interfaces out of order, and none of such speeds |
//! | 20 to 25, 76 | control transfers | `control.rs` |
//! | 26 to 40 | bulk and interrupt URBs | `submit.rs` |
//! | 41 to 49 | isochronous URBs | `isochronous.rs` |
//! | 50 to 56 | requests that the host must perform | `special.rs` |
//! | 57 to 63 | UNLINK | `unlink.rs` |
//! | 64 to 69, 72, 73 | clients that break the rules, vanish or do not read | `hostile.rs` |
//! | 70, 71, 74, 75 | clients and devices that go | `lifecycle.rs` |
//!
//! Memory that stays bounded (46, 67, 73) is shown by `no_alloc.rs`: once a device is attached
//! nothing allocates, whatever the client claims or leaves unread. What no single case names,
//! `simulation.rs` meets by chance. `packets.rs` has what clients leave in number_of_packets where
//! there are none, `parts.rs` PDUs that are written in parts. In `tests/libusb`, `sessions.rs` and
//! `requests.rs` have the same server on the real libusb, `descriptors.rs`, `long_reads.rs` and
//! `trouble.rs` have it with devices that are odd or hold things up, `memory.rs` with usbfs's
//! memory used up, `readings.rs` two readings of descriptors side by side; `peers.rs` has clients
//! that are in each other's way, `cli.rs` the program as it is typed.
//!
//! Of these, some have a part that needs more than simulated devices:
//! - 34 `big_bulk`, usbfs out of memory: the simulated bus has no quota. `sessions.rs` has one
//!   (`used_up_memory_delays_urbs_and_fails_none`).
//! - 51 `set_interface_inflight`, URBs that usbfs would kill: the server cancels them before it
//!   comes to that. That the request waits until they have ended is shown in `src/session/tests.rs`
//!   (`a_barrier_cancels_what_it_concerns_and_holds_what_follows`).
//! - 54 `clear_halt`, the host controller's data toggle: there is none in a simulation; the
//!   source's stream starts anew instead.
//! - 71 `client_rst_busy`, usbfs quota and `dev_mem_free`: as 34. Here all URBs come home, which
//!   the server asserts before it closes a device.
//! - 72 `client_vanishes`: packets can't be made to vanish on a loopback interface without
//!   privileges. What is shown is that the kernel watches an idle connection; one that takes no
//!   bytes is `a_client_that_accepts_no_byte_is_dropped` in `peers.rs`.
//! - 75 `reap_edge`: libusb's 26 URBs a pass are libusb's; here one event brings hundreds.

pub(crate) mod client;
pub(crate) mod hex;
pub(crate) mod log;
pub(crate) mod random;
pub(crate) mod submit;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use usbferry::config::rules::{Allowed, Selection};
use usbferry::config::{Listen, Settings};
use usbferry::limits::{SHUTDOWN_TIMEOUT, URB_LEN_DEFAULT};
use usbferry::reactor::{Reactor, StopHandle};
use usbferry::usb::sim::SimBackend;
use usbferry::usb::sim::bus::SimBus;
use usbferry::usb::sim::spec::Spec;
use usbferry::wire::types::BusId;

use client::MiniClient;

/// How long anything may take before it counts as hanging. Far beyond what a busy machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How long stopping may take: a server that needs [`SHUTDOWN_TIMEOUT`] has given a device up.
const STOP_DEADLINE: Duration = Duration::from_secs(SHUTDOWN_TIMEOUT.as_secs() - 1);

/// The devid of the first simulated device, `D` in byte vectors.
pub(crate) const D: u32 = 0x0001_0002;

/// Bytes of the largest URB that a server takes at default settings.
#[allow(clippy::cast_possible_truncation, reason = "the wire has 32 bits for it")]
pub(crate) const LEN_MAX: u32 = URB_LEN_DEFAULT as u32;

/// A server with simulated devices, on a thread of its own.
pub(crate) struct Server {
    pub(crate) bus: SimBus,
    pub(crate) address: SocketAddr,
    stop: StopHandle,
    ended: Receiver<io::Result<usize>>,
    stopped: bool,
}

impl Server {
    /// A server with these devices, given as to `--simulate`; none for an empty text.
    pub(crate) fn start(devices: &str) -> Self {
        Self::start_with(devices, |_| {})
    }

    /// The same, with settings that `change` has changed.
    pub(crate) fn start_with(devices: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: vec![Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), optional: false }],
            allowed: Allowed::default(),
            selection: Selection { all: true, ..Selection::default() },
            ..Settings::default()
        };
        change(&mut settings);
        // Many servers run in this process, side by side.
        usbferry_sys::os::limit::raise_open_files().expect("a soft limit can be raised");
        let specs = match devices {
            "" => Vec::new(),
            devices => Spec::parse_list(devices).expect("a list of devices"),
        };
        let bus = SimBus::with(&specs);
        let reactor = Reactor::new(SimBackend::new(bus.clone()), settings).expect("it starts");
        let address = reactor.addresses()[0];
        let stop = reactor.stop_handle().expect("there are descriptors");
        let (sender, ended) = channel();
        let run = move || drop(sender.send(reactor.run()));
        thread::Builder::new().name("reactor".to_owned()).spawn(run).expect("there are threads");
        Self { bus, address, stop, ended, stopped: false }
    }

    /// The busid of the device at `index`.
    pub(crate) fn busid(&self, index: usize) -> BusId {
        self.bus.busids()[index]
    }

    /// A client that has not said anything.
    pub(crate) fn connect(&self) -> MiniClient {
        MiniClient::connect(self.address)
    }

    /// A client with the first device. Waits while a client before it still has it.
    pub(crate) fn attach(&self) -> MiniClient {
        self.attach_to(0)
    }

    /// A client with the device at `index`.
    pub(crate) fn attach_to(&self, index: usize) -> MiniClient {
        let busid = self.busid(index);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut client = self.connect();
            match client.import(busid) {
                0 => return client,
                2 => assert!(Instant::now() < deadline, "{busid} is not given back"),
                status => panic!("importing {busid} ended with status {status}"),
            }
            thread::yield_now();
        }
    }

    /// Waits until no client has the device at `index`.
    pub(crate) fn wait_released(&self, index: usize) {
        let busid = self.busid(index);
        wait_until("the device is given back", || !self.bus.is_open(busid));
    }

    /// Shows that the server still serves: a client attaches the device at `index`, uses it, and
    /// leaves.
    pub(crate) fn assert_serves(&self, index: usize) {
        self.attach_to(index).assert_in_sync();
    }

    /// Asks it to stop, without waiting.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.stop();
    }

    /// Stops it and shows that it stops in good order.
    pub(crate) fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stopped = true;
        self.begin_stop();
        match self.ended.recv_timeout(STOP_DEADLINE) {
            Ok(result) => {
                assert_eq!(result.expect("it can wait for events"), 0, "all are given back");
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the server panicked"),
            Err(RecvTimeoutError::Timeout) => panic!("the server does not stop"),
        }
        for busid in self.bus.busids() {
            assert!(!self.bus.is_open(busid), "{busid} is still open after the server stopped");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that has failed already has its message.
        if !self.stopped && !thread::panicking() {
            self.finish();
        }
        self.begin_stop();
    }
}

/// Waits for a condition that another thread brings about.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The bytes of the loopback device's pattern.
pub(crate) fn pattern(position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    usbferry::usb::sim::loopback::pattern::fill(position, &mut bytes);
    bytes
}
