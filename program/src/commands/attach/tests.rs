//! Attaching to a kernel of files: the real server on simulated devices, the real client, and a
//! directory in place of sysfs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;
use crate::client::Server;
use crate::config::rules::Rules;
use crate::config::{Listen, Settings};
use crate::reactor::{OperatorHandle, Reactor, StatusHandle, StopHandle};
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::spec::Spec;
use crate::vhci::fake::FakeKernel;
use crate::wire::op::OpStatus;
use crate::wire::types::BusId;
use crate::wire::watch::{hello, notice};

/// The wait for a step, beyond which a test hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a simulated loopback device, `1-1`.
struct Serving {
    bus: SimBus,
    address: SocketAddr,
    stop: StopHandle,
    status: StatusHandle,
    operator: OperatorHandle,
    running: JoinHandle<()>,
}

impl Serving {
    fn start(port: u16) -> Self {
        let bus = SimBus::with(&Spec::parse_list("loopback").unwrap());
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let settings = Settings {
            listen: vec![Listen { address, optional: false }],
            rules: Rules::all(),
            ..Settings::default()
        };
        let reactor = Reactor::new(SimBackend::new(bus.clone()), settings).unwrap();
        let (address, stop) = (reactor.addresses()[0], reactor.stop_handle().unwrap());
        let (status, operator) = (reactor.status_handle(), reactor.operator_handle());
        let running = thread::spawn(move || assert_eq!(reactor.run().unwrap(), 0));
        Self { bus, address, stop, status, operator, running }
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            server: Server::parse(&self.address.to_string()).unwrap(),
            name: BusId::new("1-1").unwrap(),
            persist: true,
            json: false,
        }
    }

    fn stop(mut self) -> u16 {
        self.stop.stop();
        self.running.join().unwrap();
        self.address.port()
    }
}

/// Waits for an event of another thread.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

impl FakeKernel {
    /// Does the kernel's part of an attach, and returns the written numbers: port, descriptor,
    /// devid, speed.
    fn take_attach(&self) -> Vec<u32> {
        wait_until("an attach", || !self.read("attach").is_empty());
        let written = self.read("attach");
        let numbers: Vec<u32> = written.split(' ').map(|word| word.parse().unwrap()).collect();
        self.write("attach", "");
        self.fill(numbers[0]);
        wait_until("the note", || self.vhci().origin(numbers[0]).is_some());
        numbers
    }

    /// Does the kernel's part of a session's end.
    fn free(&self, port: u32) {
        wait_until("the note to go", || self.vhci().origin(port).is_none());
        self.empty(port);
    }
}

/// A device descriptor over an attached socket: GET_DESCRIPTOR by endpoint 0.
fn device_descriptor(socket: &mut TcpStream, devid: u32) -> Vec<u8> {
    let mut pdu: Vec<u8> = [1, 1, devid, 1, 0, 0, 18, 0, 0, 0]
        .iter()
        .flat_map(|word: &u32| word.to_be_bytes())
        .collect();
    pdu.extend([0x80, 6, 0, 1, 0, 0, 18, 0]);
    socket.write_all(&pdu).unwrap();
    let mut reply = [0; 48 + 18];
    socket.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..8], [0, 0, 0, 3, 0, 0, 0, 1]);
    reply[48..].to_vec()
}

#[test]
fn a_device_is_attached_with_its_socket_and_noted() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    let wanted = serving.wanted();
    let mut attached = attach_once(&kernel.vhci(), &wanted, || {}).unwrap();
    let numbers = kernel.take_attach();
    let fd = u32::try_from(attached.socket.as_raw_fd()).unwrap();
    assert_eq!(numbers, [0, fd, 0x0001_0002, 3]);
    let origin = kernel.vhci().origin(0).unwrap();
    assert_eq!((origin.host.as_str(), origin.busid.as_str()), ("127.0.0.1", "1-1"));
    assert_eq!(origin.service, serving.address.port().to_string());
    let descriptor = device_descriptor(&mut attached.socket, numbers[2]);
    assert_eq!(descriptor[8..12], [0x09, 0x12, 0x01, 0x00]);
    drop(attached);
    serving.stop();
}

#[test]
fn nobody_asks_the_server_when_nothing_can_be_attached() {
    let serving = Serving::start(0);
    let empty = tempfile::tempdir().unwrap();
    let refused = attach_once(&Vhci::below(empty.path()), &serving.wanted(), || {});
    assert!(matches!(refused, Err(AttachError::Vhci(VhciError::NoModule))));
    assert_eq!(serving.bus.open_count(BusId::new("1-1").unwrap()), 0);
    serving.stop();
}

#[test]
fn a_refusal_names_its_reason() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    let wanted = Wanted { name: BusId::new("9-9").unwrap(), ..serving.wanted() };
    let refused = attach_once(&kernel.vhci(), &wanted, || {}).err().unwrap().to_string();
    assert!(refused.ends_with("refused: no such device"), "{refused}");
    assert_eq!(kernel.read("attach"), "");
    serving.stop();
}

/// Runs a keeper beside the test, which ends the keeper by the given stream or otherwise.
fn keeping(serving: &Serving, kernel: &FakeKernel, test: impl FnOnce(&mut UnixStream)) {
    let (stop, mut sender) = Stop::by_hand().unwrap();
    let (vhci, wanted) = (kernel.vhci(), serving.wanted());
    thread::scope(|scope| {
        let keeper = scope.spawn(|| Keeper::new(&vhci, wanted, None, stop).run());
        test(&mut sender);
        keeper.join().unwrap().unwrap();
    });
}

#[test]
fn a_device_is_attached_again_after_a_replug_until_the_stop() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    let busid = BusId::new("1-1").unwrap();
    keeping(&serving, &kernel, |stop| {
        let port = kernel.take_attach()[0];
        for _ in 0..2 {
            serving.bus.unplug(busid);
            kernel.free(port);
            serving.bus.replug(busid);
            assert_eq!(kernel.take_attach()[0], port, "the device comes back to its port");
        }
        stop.write_all(&[0]).unwrap();
    });
    assert_eq!((kernel.read("detach").as_str(), kernel.vhci().origin(0)), ("0", None));
    serving.stop();
}

#[test]
fn a_device_is_attached_again_after_a_restart_of_the_server() {
    let (first, kernel) = (Serving::start(0), FakeKernel::new());
    let wanted = first.wanted();
    let (stop, mut sender) = Stop::by_hand().unwrap();
    let vhci = kernel.vhci();
    thread::scope(|scope| {
        let keeper = scope.spawn(|| Keeper::new(&vhci, wanted, None, stop).run());
        let port = kernel.take_attach()[0];
        let tcp_port = first.stop();
        kernel.free(port);
        let second = Serving::start(tcp_port);
        assert_eq!(kernel.take_attach()[0], port);
        sender.write_all(&[0]).unwrap();
        keeper.join().unwrap().unwrap();
        second.stop();
    });
}

/// `usbip detach` removes the note, and then has the kernel end the session.
#[test]
fn a_device_detached_by_another_program_stays_away() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    keeping(&serving, &kernel, |_stop| {
        let port = kernel.take_attach()[0];
        kernel.vhci().forget(port);
        serving.bus.unplug(BusId::new("1-1").unwrap());
    });
    assert_eq!((kernel.read("attach"), kernel.read("detach")), (String::new(), String::new()));
    serving.stop();
}

#[test]
fn a_device_held_back_by_an_operator_stays_away_until_released() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    keeping(&serving, &kernel, |stop| {
        let port = kernel.take_attach()[0];
        serving.operator.disconnect("1-1", true).unwrap().unwrap();
        kernel.free(port);
        wait_until("the client watches", || {
            let snapshot = serving.status.snapshot().unwrap();
            snapshot.loans.is_empty() && snapshot.clients == 1
        });
        assert_eq!(serving.bus.open_count(BusId::new("1-1").unwrap()), 1);
        serving.operator.release("1-1").unwrap().unwrap();
        assert_eq!(kernel.take_attach()[0], port, "the device comes back to its port");
        stop.write_all(&[0]).unwrap();
    });
    serving.stop();
}

#[test]
fn a_stop_ends_the_wait_for_a_device_and_for_a_server() {
    let (serving, kernel) = (Serving::start(0), FakeKernel::new());
    serving.bus.unplug(BusId::new("1-1").unwrap());
    keeping(&serving, &kernel, |stop| stop.write_all(&[0]).unwrap());
    let wanted = serving.wanted();
    serving.stop();
    let (stop, mut sender) = Stop::by_hand().unwrap();
    sender.write_all(&[0]).unwrap();
    Keeper::new(&kernel.vhci(), wanted, None, stop).run().unwrap();
    assert_eq!(kernel.read("attach"), "");
}

/// What a client asks for on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Import,
    Watch,
}

/// A server by hand: the next connection, whose request must be the given.
fn next_client(listener: &TcpListener, expected: Asked) -> TcpStream {
    let (mut client, _) = listener.accept().unwrap();
    let mut common = [0; 8];
    client.read_exact(&mut common).unwrap();
    let asked = if common[3] == 3 { Asked::Import } else { Asked::Watch };
    assert_eq!(asked, expected);
    if asked == Asked::Import {
        client.read_exact(&mut [0; 32]).unwrap();
    }
    client
}

/// Answers an import: with a device, or with a refusal.
fn answer_import(listener: &TcpListener, status: u8) -> TcpStream {
    let mut client = next_client(listener, Asked::Import);
    client.write_all(&[1, 0x11, 0, 3, 0, 0, 0, status]).unwrap();
    if status == 0 {
        let mut record = [0; 312];
        record[256..259].copy_from_slice(b"1-1");
        record[0x12b] = 3;
        client.write_all(&record).unwrap();
    }
    client
}

/// Answers a watch, and gives the notices.
fn answer_watch(listener: &TcpListener, notices: &[OpStatus]) -> TcpStream {
    let mut watch = next_client(listener, Asked::Watch);
    watch.write_all(&hello()).unwrap();
    watch.read_exact(&mut [0; 32]).unwrap();
    for status in notices {
        watch.write_all(&notice(*status)).unwrap();
    }
    watch
}

/// Runs a keeper beside a server by hand, until the server has lent its device.
fn keeping_by_hand(serve: impl FnOnce(&TcpListener) -> TcpStream) {
    let (listener, kernel) = (TcpListener::bind("127.0.0.1:0").unwrap(), FakeKernel::new());
    let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let name = BusId::new("1-1").unwrap();
    let wanted = Wanted { server, name, persist: true, json: false };
    let (stop, mut sender) = Stop::by_hand().unwrap();
    let vhci = kernel.vhci();
    thread::scope(|scope| {
        let keeper = scope.spawn(|| Keeper::new(&vhci, wanted, None, stop).run());
        let _lent = serve(&listener);
        kernel.take_attach();
        sender.write_all(&[0]).unwrap();
        keeper.join().unwrap().unwrap();
    });
}

#[test]
fn a_server_with_watches_tells_when_the_device_is_back() {
    keeping_by_hand(|listener| {
        answer_import(listener, 4);
        let news = [OpStatus::NoDevice, OpStatus::DeviceBusy, OpStatus::Ok];
        let _watch = answer_watch(listener, &news);
        answer_import(listener, 0)
    });
}

/// As usbipd: the probe is sent once.
#[test]
fn a_server_without_watches_is_asked_by_imports() {
    keeping_by_hand(|listener| {
        answer_import(listener, 1);
        drop(next_client(listener, Asked::Watch));
        answer_import(listener, 1);
        answer_import(listener, 0)
    });
}

/// A server that was watched and restarts is no server without watches.
#[test]
fn a_watch_that_ends_is_asked_for_again() {
    keeping_by_hand(|listener| {
        for _ in 0..2 {
            answer_import(listener, 2);
            answer_watch(listener, &[OpStatus::DeviceBusy]);
        }
        answer_import(listener, 2);
        drop(next_client(listener, Asked::Watch));
        answer_import(listener, 2);
        let _watch = answer_watch(listener, &[OpStatus::DeviceBusy, OpStatus::Ok]);
        answer_import(listener, 0)
    });
}

/// Runs a keeper whose look finds the server, until the server has lent its device.
fn found_again(
    wanted: Wanted,
    found: &Serving,
    kernel: &FakeKernel,
    sought: Instant,
    before: impl FnOnce(),
) {
    let (vhci, server) = (kernel.vhci(), found.wanted().server);
    let (stop, mut sender) = Stop::by_hand().unwrap();
    thread::scope(|scope| {
        let keeper = scope.spawn(|| {
            let again = || Some(server.clone());
            let mut keeper = Keeper::new(&vhci, wanted, Some(&again), stop);
            keeper.sought = sought;
            keeper.run()
        });
        before();
        let port = kernel.take_attach()[0];
        assert_eq!(kernel.vhci().origin(port).unwrap().service, server.port().to_string());
        sender.write_all(&[0]).unwrap();
        keeper.join().unwrap().unwrap();
    });
}

#[test]
fn a_server_that_was_found_by_its_name_is_found_at_another_address() {
    let (first, second) = (Serving::start(0), Serving::start(0));
    let kernel = FakeKernel::new();
    found_again(first.wanted(), &second, &kernel, Instant::now(), || {
        let port = kernel.take_attach()[0];
        first.stop();
        kernel.free(port);
    });
    second.stop();
}

#[test]
fn a_server_whose_address_another_server_has_got_is_found() {
    let (other, found) = (Serving::start(0), Serving::start(0));
    other.bus.unplug(BusId::new("1-1").unwrap());
    let long_ago = Instant::now().checked_sub(crate::limits::SEEK_INTERVAL).unwrap();
    found_again(other.wanted(), &found, &FakeKernel::new(), long_ago, || {});
    other.stop();
    found.stop();
}
