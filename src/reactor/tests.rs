//! The reactor in a test's hands: it makes turns when it is told to, and its time stands still unless
//! the test moves it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};

use super::connection::End;
use super::*;
use crate::usb::sim::SimBackend;
use crate::usb::sim::bus::SimBus;
use crate::usb::sim::spec::Spec;

/// How long anything may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A reactor with one simulated device.
struct Held {
    reactor: Reactor<SimBackend>,
    bus: SimBus,
    events: Events,
}

impl Held {
    fn new() -> Self {
        let bus = SimBus::with(&Spec::parse_list("loopback").unwrap());
        let listen = Listen { address: (Ipv4Addr::LOCALHOST, 0).into(), optional: false };
        let settings = Settings {
            listen: vec![listen],
            selection: Selection { all: true, ..Selection::default() },
            ..Settings::default()
        };
        let reactor = Reactor::new(SimBackend::new(bus.clone()), settings).unwrap();
        Self { reactor, bus, events: Events::with_capacity(EVENTS_PER_TURN) }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.reactor.addresses()[0]).unwrap()
    }

    /// A client with the device.
    fn attach(&mut self) -> TcpStream {
        let mut client = self.connect();
        client.write_all(&[1, 0x11, 0x80, 3, 0, 0, 0, 0]).unwrap();
        client.write_all(self.bus.busids()[0].as_wire()).unwrap();
        self.turn_until("it is attached", |reactor| !reactor.attached.is_empty());
        // Its time must not lie behind the device's.
        self.reactor.now = self.reactor.time();
        client
    }

    /// Makes turns until something is so.
    fn turn_until(&mut self, what: &str, condition: impl Fn(&Reactor<SimBackend>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.reactor) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            self.reactor.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
            for event in &self.events {
                self.reactor.mark(event);
            }
            self.reactor.turn();
        }
    }
}

/// The only connection there is.
fn only(reactor: &Reactor<SimBackend>) -> &Connection<<SimBackend as Backend>::Candidate> {
    assert_eq!(reactor.connections.len(), 1);
    reactor.connections.iter().next().unwrap().1
}

#[test]
fn a_session_without_its_client_has_no_deadline() {
    let mut held = Held::new();
    let _client = held.attach();
    held.bus.unplug(held.bus.busids()[0]);
    held.turn_until("its input is to be closed", |reactor| {
        only(reactor).device_deadline() > Some(reactor.now)
    });
    let key = only(&held.reactor).key;
    held.reactor.end(key, &End::Closed);
    let ended = only(&held.reactor);
    assert_eq!((ended.device_deadline(), ended.deadline), (None, None));
}

#[test]
fn a_pause_in_accepting_ends_with_a_stop() {
    let mut reactor = Held::new().reactor;
    // After that it has nothing to do.
    reactor.turn();
    reactor.accept_ready = true;
    reactor.accept_paused_until = Some(reactor.now);
    reactor.stop_handle().unwrap().stop();
    reactor.begin_stop();
    assert_eq!(reactor.timeout(), Some(SHUTDOWN_TIMEOUT));
}
