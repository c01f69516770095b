//! A server with simulated devices, and a client that knows the rules, for all test binaries.
//!
//! - [`Server`] runs the real reactor on a port of its own and keeps the [`SimBus`] at hand. A
//!   dropped server must stop, in good order and in time, with every device given back.
//! - [`client::MiniClient`] speaks the protocol over a blocking socket. The client judges every
//!   reply as a Linux client would, also where the test looks for something else.
//! - [`endpoints`] are those of the simulated loopback device.
//! - [`hex::hex`] reads byte vectors, `submit` makes SUBMITs, `random` makes numbers from seeds,
//!   `log` keeps the server's log, [`tshark`] reads captures.

#[cfg(not(feature = "simulate"))]
compile_error!("the tests need simulated devices: add `--features simulate`");

pub(crate) mod client;
pub(crate) mod endpoints;
pub(crate) mod hex;
pub(crate) mod log;
pub(crate) mod random;
pub(crate) mod submit;
pub(crate) mod tshark;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use usbferry::config::rules::{Allowed, Rules};
use usbferry::config::{Listen, Settings};
use usbferry::limits::{SHUTDOWN_TIMEOUT, URB_LEN_DEFAULT};
use usbferry::reactor::{Reactor, StopHandle};
use usbferry::stats::SessionStats;
use usbferry::status::ServerStatus;
use usbferry::usb::sim::SimBackend;
use usbferry::usb::sim::bus::SimBus;
use usbferry::usb::sim::spec::Spec;
use usbferry::wire::types::BusId;
use usbferry_program::operator::Handles;

use client::MiniClient;

/// The time after which an action counts as hanging. Far beyond the needs of a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The time for stopping: a server that needs [`SHUTDOWN_TIMEOUT`] has given a device up.
const STOP_DEADLINE: Duration = Duration::from_secs(SHUTDOWN_TIMEOUT.as_secs() - 1);

/// The devid of the first simulated device, `D` in byte vectors.
pub(crate) const D: u32 = 0x0001_0002;

/// Bytes of the largest URB at default settings.
#[allow(clippy::cast_possible_truncation, reason = "the wire has 32 bits for it")]
pub(crate) const LEN_MAX: u32 = URB_LEN_DEFAULT as u32;

/// A server with simulated devices, on a thread of its own.
pub(crate) struct Server {
    pub(crate) bus: SimBus,
    pub(crate) address: SocketAddr,
    /// What a desk for operators needs.
    pub(crate) handles: Handles,
    stop: StopHandle,
    ended: Receiver<io::Result<usize>>,
    stopped: bool,
}

impl Server {
    /// A server with the given devices, in the form of `--simulate`; none for an empty text.
    pub(crate) fn start(devices: &str) -> Self {
        Self::start_with(devices, |_| {})
    }

    /// The same, with settings that `change` has changed.
    pub(crate) fn start_with(devices: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listen: vec![Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), optional: false }],
            allowed: Allowed::default(),
            rules: Rules::all(),
            ..Settings::default()
        };
        change(&mut settings);
        // Many servers run in this process, side by side.
        usbferry_sys::os::limit::raise_open_files().expect("a soft limit can be raised");
        let specs = match devices {
            "" => Vec::new(),
            devices => Spec::parse_list(devices).expect("a list of devices"),
        };
        let mut specs = specs;
        Spec::load(&mut specs).expect("recordings");
        let bus = SimBus::with(&specs);
        let reactor = Reactor::new(SimBackend::new(bus.clone()), settings).expect("it starts");
        let address = reactor.addresses()[0];
        let stop = reactor.stop_handle().expect("there are descriptors");
        let server = ServerStatus { started: SystemTime::now(), addresses: vec![address] };
        let (status, operator) = (reactor.status_handle(), reactor.operator_handle());
        let handles = Handles { status, operator, server };
        let (sender, ended) = channel();
        let run = move || drop(sender.send(reactor.run()));
        thread::Builder::new().name("reactor".to_owned()).spawn(run).expect("there are threads");
        Self { bus, address, handles, stop, ended, stopped: false }
    }

    /// The busid of the device at `index`.
    pub(crate) fn busid(&self, index: usize) -> BusId {
        self.bus.busids()[index]
    }

    /// A client that has sent nothing.
    pub(crate) fn connect(&self) -> MiniClient {
        MiniClient::connect(self.address)
    }

    /// A client with the first device. Waits until an earlier client has given the device back.
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

    /// The counters of the session with the device at `index`.
    pub(crate) fn session_stats(&self, index: usize) -> SessionStats {
        let snapshot = self.handles.status.snapshot().expect("the server runs");
        let busid = self.busid(index);
        let loan = snapshot.loans.into_iter().find(|loan| loan.busid == busid);
        loan.and_then(|loan| loan.session).expect("a client has the device").stats
    }

    /// Shows that the server still serves: a client attaches the device at `index`, uses it, and
    /// leaves.
    pub(crate) fn assert_serves(&self, index: usize) {
        self.attach_to(index).assert_in_sync();
    }

    /// Asks the server to stop, without waiting.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.stop();
    }

    /// Stops the server, and shows that it stops in good order.
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
        // A failed test has its message already.
        if !self.stopped && !thread::panicking() {
            self.finish();
        }
        self.begin_stop();
    }
}

/// Waits for a condition brought about by another thread.
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
