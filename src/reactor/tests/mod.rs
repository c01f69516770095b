//! The reactor in a test's hands: it makes turns when it is told to, and its time stands still
//! unless the test moves it.
//!
//! - `rest`: with nothing to do the reactor waits; `results`: what wakes the reactor;
//! - `registry`: scans, rules and names; `hints`: answers without scans; `looks`: devices looked at
//!   without an event;
//! - `waiting`: clients that wait; `arrivals`: imports of a device that restarts; `hooks`: imports
//!   that wait for a program;
//! - `loans`: the states of a loan, and contenders in each; `bugs`: workers that panic;
//! - `reload`: other settings; `status`: the report of the state;
//! - `storm`: everything together, at random;
//! - `scripted`: devices whose blocking calls do what a test tells them to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread::{self, JoinHandle};

mod arrivals;
mod bugs;
mod hints;
mod hooks;
mod loans;
mod looks;
mod registry;
mod reload;
mod rest;
mod results;
mod scripted;
mod status;
mod storm;
mod waiting;

use super::door::ACCEPT_REST;
use super::*;
use crate::config::Listen;
use crate::config::rules::Rules;
use crate::limits::{
    GONE_INPUT_TIMEOUT, HANDSHAKE_TIMEOUT, OPEN_TIMEOUT, SCAN_TIMEOUT, SHUTDOWN_TIMEOUT,
    VIOLATION_REST,
};
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::spec::Spec;
use crate::wire::types::BusId;
use scripted::{Finally, Script, ScriptedBackend};

/// Patience with a step of a test, beyond which the step counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// OP_REQ_DEVLIST.
const DEVLIST: [u8; 8] = [1, 0x11, 0x80, 5, 0, 0, 0, 0];

/// More than some reads take.
const MUCH: usize = 3 * DISCARD_LEN + 1;

/// The loopback device's endpoints.
const SOURCE: u32 = 1;
const SILENT: u32 = 6;

/// OP_REQ_IMPORT.
fn import_bytes(busid: BusId) -> Vec<u8> {
    [&[1, 0x11, 0x80, 3, 0, 0, 0, 0], &busid.as_wire()[..]].concat()
}

/// A PDU of twelve words.
fn pdu(words: [u32; 12]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The devid of the first simulated device.
const DEVID: u32 = 0x0001_0002;

/// A SUBMIT to read `len` bytes.
fn submit(seqnum: u32, endpoint: u32, len: u32) -> Vec<u8> {
    pdu([1, seqnum, DEVID, 1, endpoint, 0, len, 0, 0, 0, 0, 0])
}

/// A SUBMIT of SET_INTERFACE: interface 1 to setting 1.
fn set_interface(seqnum: u32) -> Vec<u8> {
    pdu([1, seqnum, DEVID, 0, 0, 0, 0, 0, 0, 0, 0x010b_0100, 0x0100_0000])
}

/// An UNLINK.
fn unlink(seqnum: u32, target: u32) -> Vec<u8> {
    pdu([2, seqnum, DEVID, 0, 0, target, 0, 0, 0, 0, 0, 0])
}

/// A reactor with simulated devices.
struct Held<B: Backend = SimBackend> {
    reactor: Reactor<B>,
    bus: SimBus,
    events: Events,
}

impl Held {
    /// With one device.
    fn new() -> Self {
        let bus = SimBus::with(&Spec::parse_list("loopback").unwrap());
        Self::with(SimBackend::new(bus.clone()), bus)
    }
}

impl Held<ScriptedBackend> {
    /// With these devices, whose blocking calls do what a script says until it is dropped.
    fn scripted(devices: &str) -> (Self, Script, Finally) {
        Self::with_script(devices, |backend| backend)
    }

    /// The same with the hints of the bus, at the end of the first scan.
    fn hinted(devices: &str) -> (Self, Script, Finally) {
        let (mut held, script, finally) = Self::with_script(devices, ScriptedBackend::with_hints);
        held.turn_until("the first scan has ended", |reactor| reactor.registry.is_filled());
        (held, script, finally)
    }

    fn with_script(
        devices: &str,
        adapt: impl FnOnce(ScriptedBackend) -> ScriptedBackend,
    ) -> (Self, Script, Finally) {
        let bus = SimBus::with(&Spec::parse_list(devices).unwrap());
        let script = Script::default();
        let backend = adapt(ScriptedBackend::new(bus.clone(), script.clone()));
        (Self::with(backend, bus), script.clone(), Finally(script))
    }
}

impl<B: Backend> Reactor<B> {
    /// One turn, without a wait for events.
    fn turn_now(&mut self) {
        self.turn(self.deadline());
    }

    /// How long to wait for events.
    fn timeout(&self) -> Option<Duration> {
        self.timeout_until(self.deadline())
    }
}

impl<B: Backend> Held<B> {
    fn with(backend: B, bus: SimBus) -> Self {
        let listen = Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), optional: false };
        let settings =
            Settings { listen: vec![listen], rules: Rules::all(), ..Settings::default() };
        let reactor = Reactor::new(backend, settings).unwrap();
        Self { reactor, bus, events: Events::with_capacity(EVENTS_PER_TURN) }
    }

    fn busid(&self, index: usize) -> BusId {
        self.bus.busids()[index]
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.reactor.addresses()[0]).unwrap()
    }

    /// A client that has asked for a device.
    fn import(&self, index: usize) -> TcpStream {
        let mut client = self.connect();
        client.write_all(&import_bytes(self.busid(index))).unwrap();
        client
    }

    /// A client with the first device.
    fn attach(&mut self) -> TcpStream {
        let client = self.import(0);
        self.turn_until("it is attached", |reactor| !reactor.schedule.attached().is_empty());
        // The reactor's time must not lie behind the device's.
        self.reactor.now = self.reactor.time();
        client
    }

    fn begin_stop(&mut self) {
        self.reactor.stop_handle().unwrap().stop();
        self.turn_until("it stops", |reactor| reactor.stop.deadline().is_some());
    }

    /// Makes a turn, as the reactor itself would, after a wait of at most `timeout`.
    fn turn(&mut self, timeout: Duration) {
        let begun = Instant::now();
        self.reactor.poll.poll(&mut self.events, Some(timeout)).unwrap();
        // A test may have moved the time on.
        let now = self.reactor.now + begun.elapsed();
        self.reactor.now = now.max(self.reactor.time());
        self.mark_and_turn();
    }

    fn mark_and_turn(&mut self) {
        for event in &self.events {
            self.reactor.mark(event);
        }
        self.reactor.turn_now();
    }

    /// Makes turns until a condition holds; `what` names the condition when time runs out.
    #[track_caller]
    fn turn_until(&mut self, what: &str, mut condition: impl FnMut(&mut Reactor<B>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&mut self.reactor) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            self.reactor.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
            self.mark_and_turn();
        }
    }
}

/// The only connection.
fn only<B: Backend>(reactor: &Reactor<B>) -> &Connection<B::Candidate> {
    assert_eq!(reactor.connections.len(), 1);
    reactor.connections.iter().next().unwrap().1
}

/// When the device of the only connection must be looked at even without an event.
fn device_deadline<B: Backend>(reactor: &Reactor<B>) -> Option<Instant> {
    only(reactor).loan.as_ref().and_then(|loan| loan.looks()[0])
}

/// Whether a client's socket has something to read.
fn is_readable<C: Candidate>(connection: &Connection<C>) -> bool {
    connection.client.as_ref().is_some_and(|client| client.socket.is_readable())
}

/// Whether a client's last bytes are written.
fn is_closing<C: Candidate>(connection: &Connection<C>) -> bool {
    let step = connection.client.as_ref().map(|client| &client.step);
    matches!(step, Some(Step::Closing { .. }))
}

/// Whether a client has closed its side, as the system told.
fn is_read_closed<C: Candidate>(connection: &Connection<C>) -> bool {
    connection.client.as_ref().is_some_and(|client| client.socket.is_read_closed())
}

/// Whether a connection has the device `busid`.
fn has<C: Candidate>(connection: &Connection<C>, busid: BusId) -> bool {
    connection.loan.as_ref().is_some_and(|loan| loan.busid == busid)
}

/// Sends bytes, which may take until the bytes are read, and closes the sending side.
fn send_and_shut_down(mut client: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    thread::spawn(move || {
        client.write_all(&bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    })
}

/// All bytes sent to a client, whose connection has ended in good order.
fn read_to_end(mut client: TcpStream) -> Vec<u8> {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert!(client.take_error().unwrap().is_none(), "it was not reset");
    bytes
}

/// A client that has its answer and rests, with unread bytes behind the request.
fn resting_client(held: &mut Held) -> TcpStream {
    let mut client = held.connect();
    client.write_all(&[&DEVLIST[..], &[0]].concat()).unwrap();
    held.turn_until("what is behind its request is read", |reactor| {
        reactor.connections.iter().any(|(_, c)| is_closing(c)) && !is_readable(only(reactor))
    });
    client.write_all(&[0]).unwrap();
    held.turn_until("the system tells of more", |reactor| is_readable(only(reactor)));
    client
}

#[test]
fn a_client_that_sends_behind_its_answer_is_left_alone_for_a_while() {
    let mut held = Held::new();
    let _client = resting_client(&mut held);
    let reactor = &mut held.reactor;
    assert_eq!(reactor.timeout(), Some(DISCARD_REST), "nothing is to be done at once");
    reactor.now += DISCARD_REST;
    reactor.turn_now();
    assert!(!is_readable(only(reactor)), "it was looked at again");
    reactor.now += HANDSHAKE_TIMEOUT;
    reactor.turn_now();
    assert!(reactor.connections.is_empty(), "it was waited for long enough");
}

#[test]
fn a_client_that_rests_when_the_server_stops_is_not_reset() {
    let mut held = Held::new();
    let client = resting_client(&mut held);
    held.reactor.stop_handle().unwrap().stop();
    held.reactor.stop.mark();
    held.reactor.begin_stop();
    assert!(held.reactor.is_done());
    read_to_end(client);
}

#[test]
fn a_client_that_sends_much_behind_its_request_and_leaves_is_not_reset() {
    let mut held = Held::new();
    let sending = send_and_shut_down(held.connect(), [&DEVLIST[..], &[0; MUCH]].concat());
    held.turn_until("it is there", |reactor| !reactor.connections.is_empty());
    held.turn_until("its end is read", |reactor| {
        let is_over = reactor.connections.is_empty();
        if !is_over && only(reactor).client_rests() {
            reactor.now += DISCARD_REST;
        }
        is_over
    });
    assert_eq!(read_to_end(sending.join().unwrap())[..8], [1, 0x11, 0, 5, 0, 0, 0, 0]);
}

/// Bytes under way to the device when it went are thrown away while time stands still.
#[test]
fn a_client_whose_device_is_gone_does_not_wait() {
    let mut held = Held::new();
    let client = held.attach();
    held.bus.unplug(held.bus.busids()[0]);
    held.turn_until("its input is closed", |reactor| {
        reactor.now += GONE_INPUT_TIMEOUT;
        let mut connections = reactor.connections.iter_mut();
        connections.any(|(_, c)| c.session().is_none_or(|session| session.is_input_closed()))
    });
    let sending = send_and_shut_down(client, vec![0; MUCH]);
    held.turn_until("its end is read", |reactor| reactor.connections.is_empty());
    read_to_end(sending.join().unwrap());
}

#[test]
fn a_session_without_its_client_has_no_deadline() {
    let mut held = Held::new();
    let _client = held.attach();
    held.bus.unplug(held.bus.busids()[0]);
    held.turn_until("its input is to be closed", |reactor| {
        device_deadline(reactor) > Some(reactor.now)
    });
    let key = only(&held.reactor).key;
    held.reactor.end(key, &End::Closed);
    let deadlines = (device_deadline(&held.reactor), only(&held.reactor).client_deadline());
    assert_eq!(deadlines, (None, None));
}

#[test]
fn a_rest_from_accepting_ends_with_a_stop() {
    let mut reactor = Held::new().reactor;
    // From here on the reactor has nothing to do.
    reactor.turn_now();
    reactor.door.mark();
    reactor.rest_from_accepting(&io::ErrorKind::OutOfMemory.into());
    assert_eq!(reactor.timeout(), Some(ACCEPT_REST));
    reactor.stop_handle().unwrap().stop();
    reactor.stop.mark();
    reactor.now += ACCEPT_REST;
    reactor.turn_now();
    assert!(reactor.stop.deadline().is_some());
    assert_eq!(reactor.timeout(), Some(SHUTDOWN_TIMEOUT));
}

/// While there is a session, clients without a device have their share of the time, and then wait.
#[test]
fn clients_without_a_device_wait_for_their_share() {
    let mut held = Held::new();
    let _client = held.attach();
    let waits = |reactor: &mut Reactor<SimBackend>| {
        let deviceless = reactor.connections.iter().filter(|(_, c)| !c.has_device());
        deviceless.clone().any(|(_, c)| is_readable(c)) && reactor.timeout() > Some(Duration::ZERO)
    };
    let mut other = held.connect();
    held.turn_until("it is accepted", |reactor| reactor.connections.len() == 2);
    assert!(held.reactor.schedule.deviceless_rest().is_some(), "that took time");
    held.reactor.schedule.set_deviceless_rest(Instant::now() + PATIENCE);
    other.write_all(&DEVLIST).unwrap();
    held.turn_until("its turn has not come", waits);
    // Its turn has come, and later there is no session any more.
    held.reactor.schedule.set_deviceless_rest(Instant::now());
    held.turn_until("it was served", |reactor| {
        reactor.connections.iter().all(|(_, c)| !is_readable(c))
    });
    assert_eq!(read_to_end(other)[..8], [1, 0x11, 0, 5, 0, 0, 0, 0]);
}

#[test]
fn wrapped_labels_belong_to_the_current_owner_of_the_place() {
    let mut held = Held::new();
    *held.reactor.door.made_mut() = u64::from(token::GENERATIONS) - 2;
    for _ in 0..4 {
        let mut client = held.connect();
        client.write_all(&DEVLIST).unwrap();
        let client = thread::spawn(|| read_to_end(client));
        held.turn_until("the client has its list", |_| client.is_finished());
        assert_eq!(client.join().unwrap()[..8], [1, 0x11, 0, 5, 0, 0, 0, 0]);
        held.turn_until("its place is free", |reactor| reactor.connections.is_empty());
    }
    assert_eq!(*held.reactor.door.made_mut(), u64::from(token::GENERATIONS) + 2);
}
