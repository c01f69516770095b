//! Answers without scans: which requests and which hints cause a scan, and how many.

use super::arrivals::named;
use super::scripted::{Act, Call};
use super::waiting::status;
use super::*;
use crate::config::rules::{Clients, Rule};
use crate::reactor::client::{Asked, Awaited};
use crate::reactor::scans::HINT_REST;

const NOT_AVAILABLE: u32 = 1;
const NO_DEVICE: u32 = 4;

/// Bytes of an OP_REP_IMPORT, and the places of the device's number, product, configuration and
/// number of interfaces.
const IMPORT_LEN: usize = 320;
const DEVNUM: usize = 8 + 256 + 32 + 4 + 3;
const PRODUCT: usize = DEVNUM + 1 + 4 + 2;
const CONFIGURATION: usize = PRODUCT + 2 + 2 + 3;
const INTERFACES: usize = CONFIGURATION + 2;

/// The product numbers of simulated devices.
const LOOPBACK: [u8; 2] = [0, 1];

fn spec(text: &str) -> Spec {
    Spec::parse_list(text).unwrap().remove(0)
}

impl<B: Backend> Held<B> {
    /// The number of devices in a list.
    #[track_caller]
    fn listed(&mut self) -> u32 {
        let mut client = self.list();
        let reply = thread::spawn(move || {
            let mut reply = [0; 12];
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut reply).unwrap();
            reply
        });
        self.turn_until("the list is there", |_| reply.is_finished());
        let reply = reply.join().unwrap();
        assert_eq!(status(&reply), 0);
        u32::from_be_bytes(reply[8..].try_into().unwrap())
    }

    /// Imports the first device, and returns the client and the reply.
    #[track_caller]
    fn imported(&mut self) -> (TcpStream, Vec<u8>) {
        let client = self.import(0);
        let mut reply = vec![0; IMPORT_LEN];
        client.set_nonblocking(true).unwrap();
        self.turn_until("the device is there", |_| {
            client.peek(&mut reply).is_ok_and(|len| len == IMPORT_LEN)
        });
        assert_eq!(status(&reply), 0);
        (client, reply)
    }

    /// Makes turns in which no event of the hints is heard, until a client waits as described.
    #[track_caller]
    fn turn_deaf_until(&mut self, waits: impl Fn(&Asked) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let is_there = |reactor: &Reactor<B>| {
            let mut clients = reactor.connections.iter().filter_map(|(_, c)| c.client.as_ref());
            clients.any(|client| client.asked().is_some_and(&waits))
        };
        while !is_there(&self.reactor) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
            self.reactor.poll.poll(&mut self.events, Some(Duration::from_millis(1))).unwrap();
            let hints = Subject::Hints.to_token();
            self.events.iter().filter(|event| event.token() != hints).for_each(|event| {
                self.reactor.mark(event);
            });
            self.reactor.turn_now();
        }
    }

    /// The status of an import of the first device.
    #[track_caller]
    fn refused(&mut self) -> u32 {
        let client = self.import(0);
        status(&self.answer(&client))
    }
}

#[test]
fn a_list_and_an_import_need_no_scan() {
    let (mut held, script, _finally) = Held::hinted("loopback:count=2");
    for _ in 0..3 {
        assert_eq!(held.listed(), 2);
    }
    let (_client, reply) = held.imported();
    assert_eq!(reply[DEVNUM], 2);
    assert_eq!(held.listed(), 1);
    assert_eq!(script.begun(Call::Scan), 1, "the scan before anybody asked");
}

#[test]
fn without_hints_every_request_scans() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    assert_eq!(script.begun(Call::Scan), 0, "nobody has asked");
    for scans in 1..4 {
        assert_eq!(held.listed(), 1);
        assert_eq!(script.begun(Call::Scan), scans);
    }
}

#[test]
fn an_unknown_device_is_looked_for_once() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let unknown = BusId::new("7-7").unwrap();
    for scans in 2..4 {
        let client = held.import_named(unknown);
        assert_eq!(status(&held.answer(&client)), NO_DEVICE);
        assert_eq!(script.begun(Call::Scan), scans);
    }
}

/// A client can't tell a hidden device from no device by the time of the answer either.
#[test]
fn a_hidden_device_is_looked_for_as_an_unknown_one_is() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let others = Some(Clients(vec!["192.0.2.0/24".parse().unwrap()]));
    held.set_rules([Rule { clients: others, ..named("1-1", "secret") }]);
    for (scans, text) in (2..).zip(["secret", "1-1", "1209:0001", "nothing", "7-7"]) {
        let client = held.import_named(BusId::new(text).unwrap());
        assert_eq!(status(&held.answer(&client)), NO_DEVICE, "{text}");
        assert_eq!(script.begun(Call::Scan), scans, "{text}");
    }
}

#[test]
fn a_hint_brings_a_scan_and_the_scan_the_device() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let first = held.busid(0);
    held.bus.add(spec("disk"));
    held.reactor.now += HINT_REST;
    held.turn_until("nobody has asked", |reactor| {
        reactor.registry.on_offer(Ipv4Addr::LOCALHOST.into()).len() == 2
    });
    assert_eq!((held.listed(), script.begun(Call::Scan)), (2, 2));
    held.bus.unplug(first);
    held.reactor.now += HINT_REST;
    held.turn_until("it has left", |reactor| {
        reactor.registry.on_offer(Ipv4Addr::LOCALHOST.into()).len() == 1
    });
    assert_eq!((held.listed(), script.begun(Call::Scan)), (1, 3));
    held.bus.replug_as(first, spec("disk"));
    let (_client, reply) = held.imported();
    assert_ne!(reply[PRODUCT..][..2], LOOPBACK);
    assert_ne!(reply[DEVNUM], 2);
}

/// A request takes hints before the reactor has heard of their descriptor.
#[test]
fn a_change_before_a_request_is_not_missed() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let busid = held.busid(0);
    let mut client = held.connect();
    held.turn_until("it is accepted", |reactor| !reactor.connections.is_empty());
    held.bus.replug_as(busid, spec("disk"));
    client.write_all(&import_bytes(busid)).unwrap();
    held.turn_deaf_until(|asked| asked.awaits == Awaited::Scan);
    let mut reply = vec![0; IMPORT_LEN];
    client.set_nonblocking(true).unwrap();
    held.turn_until("the device is there", |_| {
        client.peek(&mut reply).is_ok_and(|len| len == IMPORT_LEN)
    });
    assert_ne!(reply[PRODUCT..][..2], LOOPBACK);
    assert_eq!((script.begun(Call::Open(busid)), script.begun(Call::Scan)), (1, 2));
}

/// A lost hint costs a scan, after the opening has found the device gone.
#[test]
fn a_device_that_is_gone_when_opened_is_looked_for_once() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let busid = held.busid(0);
    script.set(Call::Hints, Act::Fail);
    held.bus.replug_as(busid, spec("disk"));
    let (client, reply) = held.imported();
    assert_ne!(reply[PRODUCT..][..2], LOOPBACK);
    assert_eq!((script.begun(Call::Open(busid)), script.begun(Call::Scan)), (2, 2));
    drop(client);
    held.turn_until("it is free", |reactor| reactor.registry.taken() == 0);
    held.bus.unplug(busid);
    assert_eq!(held.refused(), NO_DEVICE);
    assert_eq!((script.begun(Call::Open(busid)), script.begun(Call::Scan)), (3, 3));
}

/// The reactor may hear of the failed opening before the hint. A scan that looked before the change
/// is then of no use.
#[test]
fn a_device_that_is_gone_when_opened_is_not_looked_for_by_an_older_scan() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let busid = held.busid(0);
    script.set(Call::Open(busid), Act::Wait);
    let client = held.import(0);
    held.turn_until("it is being opened", |_| script.begun(Call::Open(busid)) == 1);
    script.set(Call::Answers, Act::Wait);
    held.bus.hint();
    held.reactor.now += HINT_REST;
    held.turn_until("a scan has looked", |_| script.begun(Call::Answers) == 2);
    held.bus.replug_as(busid, spec("disk"));
    script.clear(Call::Open(busid));
    held.turn_deaf_until(|asked| asked.awaits == Awaited::Scan);
    script.clear(Call::Answers);
    assert_eq!(status(&held.answer(&client)), 0);
    assert_eq!((script.begun(Call::Open(busid)), script.begun(Call::Scan)), (2, 3));
}

/// A scan finds the device and the opening does not: the answer is final, without more scans.
#[test]
fn a_device_that_never_opens_is_not_looked_for_without_end() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    let busid = held.busid(0);
    script.set(Call::Scan, Act::Wait);
    let client = held.import(0);
    held.wait_asked(1);
    script.set(Call::Open(busid), Act::Wait);
    script.clear(Call::Scan);
    held.turn_until("it is being opened", |_| script.begun(Call::Open(busid)) == 1);
    held.bus.unplug(busid);
    script.clear(Call::Open(busid));
    assert_eq!(status(&held.answer(&client)), NO_DEVICE);
    assert_eq!((script.begun(Call::Open(busid)), script.begun(Call::Scan)), (1, 1));
}

#[test]
fn a_client_is_told_the_configuration_that_its_device_is_in_when_opened() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let busid = held.busid(0);
    script.set(Call::Hints, Act::Fail);
    held.bus.set_configuration(busid, 0);
    let (_client, reply) = held.imported();
    assert_eq!((reply[CONFIGURATION], reply[INTERFACES]), (0, 0));
    assert_eq!(script.begun(Call::Scan), 1);
}

#[test]
fn hints_without_end_bring_a_scan_now_and_then() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    held.reactor.now += HINT_REST;
    for round in 2..5 {
        for _ in 0..50 {
            held.bus.hint();
            held.turn(Duration::ZERO);
            held.turn_until("no scan runs", |reactor| reactor.scans.running.is_none());
        }
        assert!(script.begun(Call::Scan) <= round + 1, "{} scans", script.begun(Call::Scan));
        held.reactor.now += HINT_REST;
        held.turn_until("a scan is made", |_| script.begun(Call::Scan) >= round);
        held.turn_until("no scan runs", |reactor| reactor.scans.running.is_none());
    }
    // A request does not wait for the end of the rest.
    held.bus.add(spec("disk"));
    assert_eq!(held.listed(), 2);
}

#[test]
fn a_hint_during_a_scan_brings_another() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    script.set(Call::Scan, Act::Wait);
    held.bus.hint();
    held.reactor.now += HINT_REST;
    held.turn_until("a scan has begun", |_| script.begun(Call::Scan) == 2);
    held.bus.add(spec("disk"));
    held.turn(Duration::from_millis(1));
    script.clear(Call::Scan);
    held.turn_until("it has ended", |reactor| reactor.scans.running.is_none());
    let waits = held.reactor.timeout();
    assert!(waits > Some(Duration::ZERO) && waits <= Some(HINT_REST), "{waits:?}");
    held.reactor.now += HINT_REST;
    held.turn_until("another is made", |_| script.begun(Call::Scan) == 3);
    held.turn_until("it has ended", |reactor| reactor.scans.running.is_none());
    assert_eq!((held.listed(), script.begun(Call::Scan)), (2, 3));
}

/// A request during a scan waits for the end of the scan, and for another scan only after a hint.
#[test]
fn a_scan_serves_the_requests_that_come_before_the_next_hint() {
    for (with_hint, scans) in [(false, 2), (true, 3)] {
        let (mut held, script, _finally) = Held::hinted("loopback");
        script.set(Call::Scan, Act::Wait);
        held.bus.hint();
        held.reactor.now += HINT_REST;
        held.turn_until("a scan has begun", |_| script.begun(Call::Scan) == 2);
        if with_hint {
            held.bus.add(spec("disk"));
        }
        let list = held.list();
        held.wait_asked(1);
        script.clear(Call::Scan);
        assert_eq!(status(&held.answer(&list)), 0);
        assert_eq!(script.begun(Call::Scan), scans);
    }
}

#[test]
fn without_an_answer_of_every_device_requests_scan() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    script.set(Call::Answers, Act::Fail);
    held.bus.hint();
    for scans in 2..5 {
        assert_eq!(held.listed(), 1);
        assert_eq!(script.begun(Call::Scan), scans);
    }
    script.clear(Call::Answers);
    for _ in 0..2 {
        assert_eq!(held.listed(), 1);
        assert_eq!(script.begun(Call::Scan), 5);
    }
}

#[test]
fn without_a_scan_that_succeeds_requests_scan() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    script.set(Call::Scan, Act::Fail);
    held.bus.hint();
    for scans in 2..4 {
        let list = held.list();
        assert_ne!(status(&held.answer(&list)), 0);
        assert_eq!(script.begun(Call::Scan), scans);
    }
    script.clear(Call::Scan);
    for _ in 0..2 {
        assert_eq!(held.listed(), 1);
        assert_eq!(script.begun(Call::Scan), 4);
    }
}

/// A client that asks for an unknown device costs other clients nothing.
#[test]
fn a_failed_scan_without_a_hint_leaves_known_what_was() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    script.set(Call::Scan, Act::Fail);
    let unknown = held.import_named(BusId::new("7-7").unwrap());
    assert_eq!(status(&held.answer(&unknown)), NOT_AVAILABLE);
    assert_eq!(held.listed(), 1);
    let _client = held.imported();
    assert_eq!(script.begun(Call::Scan), 2);
    held.bus.hint();
    let list = held.list();
    assert_eq!(status(&held.answer(&list)), NOT_AVAILABLE);
}

#[test]
fn hints_that_end_leave_scans_at_each_request() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    held.bus.end_hints();
    for scans in 2..4 {
        assert_eq!(held.listed(), 1);
        assert_eq!(script.begun(Call::Scan), scans);
    }
    held.turn_until("nobody is left", |reactor| reactor.connections.is_empty());
    held.turn(Duration::from_millis(1));
    assert_ne!(held.reactor.timeout(), Some(Duration::ZERO), "the end is heard once");
}

/// A contender gets the known device, when the first client has given the device back.
#[test]
fn a_contender_needs_no_scan() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let close = Call::Close(held.busid(0));
    script.set(close, Act::Wait);
    drop(held.attach());
    held.turn_until("it is given back", |_| script.begun(close) == 1);
    let contender = held.import(0);
    held.turn_until("it is waited for", |reactor| reactor.registry.contenders() == 1);
    script.clear(close);
    assert_eq!(status(&held.answer(&contender)), 0);
    assert_eq!(script.begun(Call::Scan), 1);
}

#[test]
fn a_server_that_stops_follows_no_hints() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    let close = Call::Close(held.busid(0));
    script.set(close, Act::Wait);
    let _client = held.attach();
    held.begin_stop();
    held.bus.hint();
    held.reactor.now += HINT_REST;
    held.turn(Duration::from_millis(1));
    held.turn(Duration::from_millis(1));
    assert_eq!(script.begun(Call::Scan), 1);
    assert!(held.reactor.timeout() > Some(Duration::ZERO), "nor does it wake for them");
}
