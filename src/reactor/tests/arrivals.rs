//! Imports of a device that has just left and is expected back: how long they wait, and for what.

use super::scripted::{Act, Call};
use super::waiting::status;
use super::*;
use crate::config::rules::{Origin, Rule};
use crate::limits::RETURN_TIMEOUT;
use crate::reactor::client::Awaited;
use crate::reactor::scans::{ARRIVAL_REST, HINT_REST};

const NO_DEVICE: u32 = 4;

fn spec(text: &str) -> Spec {
    Spec::parse_list(text).unwrap().remove(0)
}

pub(super) fn name(text: &str) -> BusId {
    BusId::new(text).unwrap()
}

/// A rule that exports what fits under a name.
pub(super) fn named(matches: &str, name: &str) -> Rule {
    let rule = Rule::exporting(matches.parse().unwrap(), Origin::Flag(matches.to_owned()));
    Rule { name: name.parse().ok(), ..rule }
}

/// Every kind of simulated device, as the states of one.
const STATES: &str = "1209:0001,1209:0002,1209:0003,1209:0004";

impl<B: Backend> Held<B> {
    pub(super) fn set_rules(&mut self, rules: impl IntoIterator<Item = Rule>) {
        self.reactor.settings.rules = Rules::new(rules);
        self.reactor.registry.rejudge(&self.reactor.settings);
    }

    /// The first device leaves, as the server knows.
    #[track_caller]
    fn unplug(&mut self) {
        let busid = self.busid(0);
        self.bus.unplug(busid);
        self.reactor.now += HINT_REST;
        self.turn_until("it has left", |reactor| {
            reactor.registry.on_offer(Ipv4Addr::LOCALHOST.into()).is_empty()
        });
    }

    /// A client that waits for the device to come.
    #[track_caller]
    fn waits_for(&mut self, text: &str) -> TcpStream {
        let client = self.import_named(name(text));
        self.turn_until("it waits", |reactor| {
            let mut clients = reactor.connections.iter().filter_map(|(_, c)| c.client.as_ref());
            clients.any(|client| client.asked().is_some_and(|a| a.awaits == Awaited::Arrival))
        });
        client
    }
}

#[test]
fn an_import_in_the_gap_gets_the_device_in_its_next_state() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    for state in ["disk", "loopback", "microphone"] {
        held.unplug();
        let client = held.waits_for("board");
        held.turn(Duration::from_millis(1));
        let scans = script.begun(Call::Scan);
        held.bus.replug_as(held.busid(0), spec(state));
        held.reactor.now += HINT_REST;
        assert_eq!(status(&held.answer(&client)), 0, "{state}");
        assert_eq!(script.begun(Call::Scan), scans + 1, "the scan of the hint");
        drop(client);
        held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    }
}

#[test]
fn an_import_in_the_gap_waits_so_long_and_no_longer() {
    let (mut held, _script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    held.unplug();
    let client = held.waits_for("board");
    held.reactor.now += HANDSHAKE_TIMEOUT - Duration::from_millis(1);
    held.reactor.turn_now();
    assert_eq!(held.reactor.scans.arrivals.len(), 1, "time stands still");
    held.reactor.now += Duration::from_millis(1);
    assert_eq!(status(&held.answer(&client)), NO_DEVICE);
    assert!(held.reactor.scans.arrivals.is_empty());
    // By now nobody expects the device.
    let client = held.import_named(name("board"));
    assert_eq!(status(&held.answer(&client)), NO_DEVICE);
}

#[test]
fn only_a_name_of_a_device_with_several_states_is_waited_for() {
    let (mut held, _script, _finally) = Held::hinted("loopback:count=2");
    held.set_rules([named("1-1", "board")]);
    held.unplug();
    for text in ["board", "1-1", "1209:0001", "other"] {
        let client = held.import_named(name(text));
        assert_eq!(status(&held.answer(&client)), NO_DEVICE, "{text}");
    }
    let (mut held, _script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    held.unplug();
    held.reactor.now += RETURN_TIMEOUT;
    let client = held.import_named(name("board"));
    assert_eq!(status(&held.answer(&client)), NO_DEVICE, "it left long ago");
}

/// A device that is gone when it is opened is one that restarts, too.
#[test]
fn a_device_that_restarts_while_it_is_opened_is_waited_for() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    let busid = held.busid(0);
    script.set(Call::Open(busid), Act::Wait);
    let client = held.import_named(name("board"));
    held.turn_until("it is being opened", |_| script.begun(Call::Open(busid)) == 1);
    held.bus.unplug(busid);
    held.reactor.now += HINT_REST;
    script.clear(Call::Open(busid));
    held.turn_until("it waits", |reactor| !reactor.scans.arrivals.is_empty());
    held.bus.replug_as(busid, spec("disk"));
    held.reactor.now += HINT_REST;
    assert_eq!(status(&held.answer(&client)), 0);
}

#[test]
fn without_hints_the_bus_is_scanned_now_and_then_for_those_that_wait() {
    let (mut held, script, _finally) = Held::scripted("loopback");
    held.set_rules([named(STATES, "board")]);
    let list = held.list();
    assert_eq!(status(&held.answer(&list)), 0);
    drop(list);
    held.bus.unplug(held.busid(0));
    let client = held.waits_for("board");
    held.turn_until("the lists are gone", |reactor| reactor.connections.len() == 1);
    let scans = script.begun(Call::Scan);
    assert_eq!(held.reactor.timeout(), Some(ARRIVAL_REST), "nothing else is to be done");
    held.reactor.now += ARRIVAL_REST;
    held.turn_until("it was looked for", |reactor| {
        script.begun(Call::Scan) == scans + 1 && reactor.scans.running.is_none()
    });
    assert_eq!(held.reactor.scans.arrivals.len(), 1);
    // A scan that fails is not the last.
    script.set(Call::Scan, Act::Fail);
    held.reactor.now += ARRIVAL_REST;
    held.turn_until("a scan has failed", |reactor| reactor.scans.told.failed);
    script.clear(Call::Scan);
    held.bus.replug_as(held.busid(0), spec("disk"));
    held.reactor.now += ARRIVAL_REST;
    assert_eq!(status(&held.answer(&client)), 0);
    drop(client);
    held.turn_until("it is free", |reactor| reactor.connections.is_empty());
    held.reactor.now += ARRIVAL_REST;
    held.turn(Duration::from_millis(1));
    held.turn(Duration::from_millis(1));
    assert_eq!(script.begun(Call::Scan), scans + 3, "nobody waits any more");
}

/// Nothing would look for the device otherwise.
#[test]
fn hints_that_end_leave_scans_for_those_that_wait() {
    let (mut held, script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    held.unplug();
    let client = held.waits_for("board");
    let scans = script.begun(Call::Scan);
    held.bus.end_hints();
    held.turn_until("the end is heard", |reactor| reactor.timeout() == Some(ARRIVAL_REST));
    held.bus.replug_as(held.busid(0), spec("disk"));
    held.reactor.now += ARRIVAL_REST;
    assert_eq!(status(&held.answer(&client)), 0);
    assert_eq!(script.begun(Call::Scan), scans + 1);
}

#[test]
fn a_client_that_leaves_while_it_waits_for_a_device_is_forgotten() {
    let (mut held, _script, _finally) = Held::hinted("loopback");
    held.set_rules([named(STATES, "board")]);
    held.unplug();
    drop(held.waits_for("board"));
    held.turn_until("it is noticed", |reactor| reactor.connections.is_empty());
    assert!(held.reactor.scans.arrivals.is_empty());
}
