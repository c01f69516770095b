//! Watches: a client is told whenever the answer to an import would change
//! (docs/protocol-extensions.md).

use crate::support::client::{Ending, MiniClient};
use crate::support::hex::hex;
use crate::support::{Server, wait_until};
use usbferry::config::Shares;
use usbferry::config::rules::{Clients, Origin, Rule, Rules};
use usbferry::limits::WATCHES_MAX;
use usbferry::wire::types::BusId;

const FREE: u32 = 0;
const BUSY: u32 = 2;
const NO_DEVICE: u32 = 4;

/// A client that watches a device.
fn watch(server: &Server, name: &str) -> MiniClient {
    let mut client = server.connect();
    client.send(&hex("0111 8055 00000000"));
    assert_eq!(client.read(12), hex("0111 0055 00000000 00000001"));
    client.send(BusId::new(name).expect("a name").as_wire());
    client
}

/// Waits until a watching client is told a status. The server may tell others before, for devices
/// that are on their way.
fn expect(client: &mut MiniClient, status: u32) {
    while client.read(4) != status.to_be_bytes() {}
}

#[test]
fn a_client_is_told_of_a_device_that_leaves_comes_and_is_lent() {
    let server = Server::start("loopback");
    let mut client = watch(&server, "1-1");
    expect(&mut client, FREE);
    let holder = server.attach();
    expect(&mut client, BUSY);
    drop(holder);
    expect(&mut client, FREE);
    server.bus.unplug(server.busid(0));
    expect(&mut client, NO_DEVICE);
    server.bus.replug(server.busid(0));
    expect(&mut client, FREE);
}

#[test]
fn a_hidden_device_and_a_name_of_two_are_no_device() {
    let rule = |matches: &str, name: &str| {
        let rule = Rule::exporting(matches.parse().unwrap(), Origin::Flag(name.to_owned()));
        Rule { name: name.parse().ok(), ..rule }
    };
    let hidden = Rule {
        clients: Some(Clients(vec!["192.0.2.0/24".parse().unwrap()])),
        ..rule("1-1", "secret")
    };
    let server = Server::start_with("loopback:count=3", |settings| {
        settings.rules = Rules::new([hidden, rule("1209:0001", "scope")]);
    });
    let mut watches = ["secret", "1-1", "scope", "nothing"].map(|name| watch(&server, name));
    for client in &mut watches {
        assert_eq!(client.read(4), NO_DEVICE.to_be_bytes());
    }
    server.bus.unplug(server.busid(1));
    expect(&mut watches[2], FREE);
    assert!(!watches[0].has_input() && !watches[1].has_input());
}

/// Whatever comes behind the name ends the watch; so does a client that leaves in the middle.
#[test]
fn a_client_that_says_more_or_less_than_a_name_is_closed() {
    let server = Server::start("loopback");
    let mut client = watch(&server, "1-1");
    expect(&mut client, FREE);
    client.send(&[0]);
    client.expect_drop();
    let mut client = server.connect();
    client.send(&hex("0111 8055 00000000"));
    client.send(b"1-1");
    drop(client);
    // The name may come together with the request.
    let mut client = server.connect();
    let name = BusId::new("1-1").expect("a name");
    client.send(&[&hex("0111 8055 00000000")[..], name.as_wire()].concat());
    assert_eq!(client.read(12), hex("0111 0055 00000000 00000001"));
    expect(&mut client, FREE);
    server.assert_serves(0);
}

/// An address has a share of the watches, and leaves the rest to others.
#[test]
fn an_address_with_its_share_of_watches_gets_no_more() {
    let server = Server::start_with("loopback", |settings| {
        settings.shares = Shares { watches: 2, of_loopback: true, ..settings.shares };
    });
    let ask = |own: [u8; 4]| {
        let mut client = MiniClient::connect_from(own.into(), server.address);
        client.send(&hex("0111 8055 00000000"));
        (client.read(8) == hex("0111 0055 00000000"), client)
    };
    let greedy = [127, 4, 4, 4];
    let mut watches = vec![ask(greedy), ask(greedy)];
    assert!(watches.iter().all(|(is_watching, _)| *is_watching));
    assert!(!ask(greedy).0);
    #[cfg(target_os = "linux")]
    assert!(ask([127, 4, 4, 5]).0, "another address has a share of its own");
    watches.pop();
    wait_until("there is room again", || ask(greedy).0);
}

#[test]
fn watches_beyond_the_limit_are_refused_and_one_that_leaves_makes_room() {
    let server = Server::start("loopback");
    let mut watches: Vec<MiniClient> = (0..WATCHES_MAX).map(|_| watch(&server, "1-1")).collect();
    let mut client = server.connect();
    client.send(&hex("0111 8055 00000000"));
    let (bytes, ending) = client.read_to_end();
    assert_eq!((bytes, ending), (hex("0111 0055 00000001"), Ending::Fin));
    watches.pop();
    wait_until("there is room", || {
        let mut client = server.connect();
        client.send(&hex("0111 8055 00000000"));
        client.read(8) == hex("0111 0055 00000000")
    });
    server.assert_serves(0);
}

/// A watch gives its place to a client that wants something now.
#[test]
fn a_full_server_ends_a_watch() {
    let server = Server::start_with("loopback", |settings| settings.connections = 2);
    let mut watches = [watch(&server, "1-1"), watch(&server, "1-1")];
    watches.iter_mut().for_each(|client| expect(client, FREE));
    server.assert_serves(0);
}
