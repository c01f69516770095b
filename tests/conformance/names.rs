//! Devices by name: what lists show, what imports take, and who sees a device at all.

use std::time::{Duration, Instant};

use crate::support::client::{DEVLIST, Ending, MiniClient, import_bytes, word};
use crate::support::{Server, log};
use usbferry::config::rules::{Clients, Origin, Rule, Rules};
use usbferry::wire::types::BusId;

/// ST_NODEV.
const NO_DEVICE: u32 = 4;

/// Bytes of a device in a list, before its interfaces.
const DEVICE_LEN: usize = 312;

fn busid(text: &str) -> BusId {
    BusId::new(text).expect("up to 31 bytes")
}

/// A rule that exports what fits under a name.
fn named(matches: &str, name: &str) -> Rule {
    let matches = matches.parse().expect("devices");
    let rule = Rule::exporting(matches, Origin::Flag(format!("--device {name}")));
    Rule { name: Some(name.parse().expect("a name")), ..rule }
}

/// A rule for clients at an address only.
fn for_clients(rule: Rule, address: &str) -> Rule {
    Rule { clients: Some(Clients(vec![address.parse().expect("a network")])), ..rule }
}

/// A server with loopback devices and these rules.
fn serve(devices: &str, rules: impl IntoIterator<Item = Rule>) -> Server {
    Server::start_with(devices, |settings| settings.rules = Rules::new(rules))
}

/// The names in a list. Loopback devices have two interfaces.
fn listed(server: &Server) -> Vec<String> {
    let mut client = server.connect();
    client.send(&DEVLIST);
    let (bytes, ending) = client.read_to_end();
    assert_eq!(ending, Ending::Fin);
    let devices: Vec<&[u8]> = bytes[12..].chunks(DEVICE_LEN + 2 * 4).collect();
    assert_eq!(word(&bytes, 8) as usize, devices.len());
    let name = |device: &&[u8]| {
        let field = device[0x100..0x120].first_chunk().expect("32 bytes");
        BusId::from_wire(field).to_string()
    };
    devices.iter().map(name).collect()
}

/// The serial number of the first simulated device.
const SERIAL: &str = "05EED0000001";

/// Each import echoes the text, which the client checks.
#[test]
fn a_device_is_listed_by_its_name_and_imported_by_every_text_that_means_it() {
    let server = serve("loopback:count=2", [named("1-1", "scope"), named("1-2", "scope-2")]);
    assert_eq!(listed(&server), ["scope", "scope-2"]);
    let serial = format!("serial:{SERIAL}");
    let kind_and_serial = format!("1209:0001:{SERIAL}");
    for text in ["scope", "1-1", &serial, &kind_and_serial] {
        let mut client = server.connect();
        assert_eq!(client.import(busid(text)), 0, "{text}");
        client.assert_in_sync();
        assert_eq!(listed(&server), ["scope-2"], "{text}");
        drop(client);
        server.wait_released(0);
    }
    for text in ["Scope", "scope-3", "1209:0002", "serial:X", "1209:0001:X"] {
        assert_eq!(server.connect().import(busid(text)), NO_DEVICE, "{text}");
    }
}

#[test]
fn a_name_of_several_devices_is_refused_and_each_is_listed_by_its_place() {
    log::keep();
    let server = serve("loopback:count=2", [named("1209:0001", "scope")]);
    assert_eq!(listed(&server), ["1-1", "1-2"]);
    for text in ["scope", "1209:0001"] {
        let mut client = server.connect();
        let address = client.address();
        assert_eq!(client.import(busid(text)), NO_DEVICE);
        let said = log::lines_with(&format!("{address}: asks for {text}: refused: several"));
        assert_eq!(said.len(), 1, "{said:?}");
        for candidate in ["1-1 (1209:0001, serial 05EED0000001)", "1-2 (1209:0001, serial "] {
            assert!(said[0].contains(candidate), "{said:?}");
        }
    }
    assert_eq!(server.connect().import(busid("1-2")), 0);
}

/// To a client that a rule leaves out, the device is as unknown as no device: the same answers, and
/// lines of the same kind.
#[test]
fn a_client_that_a_rule_leaves_out_sees_nothing() {
    log::keep();
    let hidden = for_clients(named("1-1", "secret"), "192.0.2.0/24");
    let server = serve("loopback:count=2", [hidden, named("1-2", "scope")]);
    assert_eq!(listed(&server), ["scope"]);
    for text in ["secret", "1-1", "serial:05EED0000001", "nothing", "7-7"] {
        let mut client = server.connect();
        let address = client.address();
        assert_eq!(client.import(busid(text)), NO_DEVICE, "{text}");
        let expected = "refused: no such device is exported to this client";
        let said = log::lines_with(&format!("{address}: asks for {text}: {expected}"));
        assert_eq!(said.len(), 1, "{text}: {said:?}");
    }
    // Of two devices of a kind the client sees one.
    assert_eq!(server.connect().import(busid("1209:0001")), 0);
}

#[test]
fn a_client_that_a_rule_lists_is_served() {
    let server = serve("loopback", [for_clients(named("1-1", "scope"), "127.0.0.0/8")]);
    assert_eq!(listed(&server), ["scope"]);
    assert_eq!(server.connect().import(busid("scope")), 0);
}

/// The lines about a client, without the client's address.
fn lines_about(client: &MiniClient) -> String {
    format!("{}: ", client.address())
}

#[test]
fn a_busy_device_is_refused_with_its_holder() {
    log::keep();
    let server = serve("loopback", [named("1-1", "scope")]);
    let mut holder = server.connect();
    assert_eq!(holder.import(busid("scope")), 0);
    let mut other = server.connect();
    let about = lines_about(&other);
    assert_eq!(other.import(busid("1-1")), 2);
    let said = log::lines_with(&about);
    let holds = format!("asks for 1-1: refused: busy: {} has had the device for", holder.address());
    assert!(said.iter().any(|line| line.contains(&holds)), "{said:?}");
}

/// The rule's time counts from the arrival. Only the least time can be judged.
#[test]
fn an_import_waits_until_the_device_has_settled() {
    const SETTLE: Duration = Duration::from_millis(300);
    let server = Server::start_with("loopback", |settings| settings.policy.settle = SETTLE);
    server.assert_serves(0);
    server.wait_released(0);
    server.bus.unplug(server.busid(0));
    assert_eq!(listed(&server), [""; 0]);
    let plugged = Instant::now();
    server.bus.replug(server.busid(0));
    let mut client = server.connect();
    assert_eq!(client.import(server.busid(0)), 0);
    assert!(plugged.elapsed() >= SETTLE, "{:?}", plugged.elapsed());
    drop(client);
    server.wait_released(0);
    server.assert_serves(0);
}

/// A client that leaves while its device settles leaves the device free.
#[test]
fn a_client_may_leave_while_its_device_settles() {
    let server = Server::start_with("loopback", |settings| {
        settings.policy.settle = usbferry::limits::SETTLE_MAX;
    });
    server.assert_serves(0);
    server.wait_released(0);
    server.bus.unplug(server.busid(0));
    assert_eq!(listed(&server), [""; 0]);
    server.bus.replug(server.busid(0));
    let mut client = server.connect();
    client.send(&import_bytes(server.busid(0).as_wire()));
    drop(client);
    let mut second = server.connect();
    second.send(&DEVLIST);
    let (_, ending) = second.read_to_end();
    assert_eq!(ending, Ending::Fin);
    assert!(!server.bus.is_open(server.busid(0)));
}
