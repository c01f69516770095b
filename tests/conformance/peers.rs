//! Clients in each other's way, and clients that vanish silently: take-over, stalled clients, more
//! clients than places, and a server stopping in the middle of its work.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::support::client::{DEVLIST, ECONNRESET, EPIPE, MiniClient, import_bytes, word};
use crate::support::endpoints::{SILENT, SOURCE};
use crate::support::submit::Submit;
use crate::support::{Server, log, wait_until};
use usbferry::config::{Shares, TakeOver};
use usbferry::usb::sim::loopback::request;

/// ST_NA.
const NOT_AVAILABLE: u32 = 1;

/// ST_DEV_BUSY.
const BUSY: u32 = 2;

#[test]
fn a_live_holder_keeps_its_device() {
    for takeover in [TakeOver::Never, TakeOver::Stale] {
        let server = Server::start_with("loopback", |settings| settings.policy.takeover = takeover);
        let mut holder = server.attach();
        assert_eq!(server.connect().import(server.busid(0)), BUSY, "{takeover:?}");
        holder.call_ok(&Submit::get_device_descriptor());
    }
}

#[test]
fn takeover_ends_the_old_session_and_passes_the_device_on() {
    for takeover in [TakeOver::SameHost, TakeOver::Any] {
        let server = Server::start_with("loopback", |settings| settings.policy.takeover = takeover);
        let mut holder = server.attach();
        for _ in 0..50 {
            holder.submit(&Submit::read(SILENT, 512));
        }
        // So the URBs are with the device, and not in the socket.
        holder.call_ok(&Submit::get_device_descriptor());
        let mut contender = server.connect();
        assert_eq!(contender.import(server.busid(0)), 0, "{takeover:?}");
        contender.call_ok(&Submit::get_device_descriptor());
        holder.expect_drop();
        assert_eq!(server.bus.open_count(server.busid(0)), 2);
    }
}

/// If a device cannot be opened for its holder, a waiting client gets its turn.
#[test]
fn takeover_of_a_device_that_could_not_be_opened() {
    let server = Server::start_with("loopback:fault=slow=300ms", |settings| {
        settings.policy.takeover = TakeOver::Any;
    });
    let busid = server.busid(0);
    server.bus.refuse_opens(busid, 1);
    let mut holder = server.connect();
    holder.send(&import_bytes(busid.as_wire()));
    wait_until("it is being opened, or was on a busy machine", || {
        let mut client = server.connect();
        client.send(&DEVLIST);
        word(&client.read(12), 8) == 0 || holder.has_input()
    });
    let mut contender = server.connect();
    assert_eq!(contender.import(busid), 0);
    contender.assert_in_sync();
}

#[test]
fn a_client_that_accepts_no_byte_is_dropped() {
    let server = Server::start_with("loopback:count=2", |settings| {
        settings.peer_timeout = Duration::from_millis(300);
        settings.socket_buffer = Some(4096);
    });
    let mut stalled = server.attach();
    for _ in 0..40 {
        stalled.submit(&Submit::read(SOURCE, 1 << 20));
    }
    // The client reads nothing; meanwhile another client is served.
    let mut other = server.attach_to(1);
    wait_until("the stalled client to lose its device", || {
        other.call_ok(&Submit::read(SOURCE, 4096));
        !server.bus.is_open(server.busid(0))
    });
    drop(stalled);
    server.attach().call_ok(&Submit::get_device_descriptor());
}

#[test]
fn a_slow_reader_is_not_a_stalled_one() {
    let server = Server::start_with("loopback", |settings| {
        settings.peer_timeout = Duration::from_millis(200);
        settings.socket_buffer = Some(4096);
    });
    let mut client = server.attach();
    let len = 1 << 20;
    let seqnums: Vec<u32> = (0..4).map(|_| client.submit(&Submit::read(SOURCE, len))).collect();
    // Longer than the timeout in total, but with some bytes read in each part.
    let mut bytes = Vec::new();
    let total = seqnums.len() * (48 + len as usize);
    let pause = Duration::from_millis(50);
    while bytes.len() < total {
        std::thread::sleep(pause);
        let step = (total - bytes.len()).min(256 * 1024);
        bytes.extend(client.read(step));
    }
    assert_eq!(bytes[..8], [0, 0, 0, 3, 0, 0, 0, 1]);
}

#[test]
fn stopping_completes_replies_and_gives_devices_back() {
    let mut server = Server::start("loopback");
    let mut client = server.attach();
    let answered = client.submit(&Submit::read(SOURCE, 1 << 20));
    client.submit(&Submit::read(SILENT, 512));
    // The first reply is under way, more than the sockets hold.
    assert_eq!(client.read(4), [0, 0, 0, 3]);
    server.begin_stop();
    assert_eq!(client.read(4), answered.to_be_bytes());
    let rest = client.read(40 + (1 << 20));
    assert_eq!(rest.len(), 40 + (1 << 20), "a reply is finished once it has begun");
    let (more, _) = client.read_to_end();
    assert_eq!(more, [0; 0], "the silent URB is not answered by a server that stops");
    server.stop();
}

#[test]
fn a_second_import_waits_for_the_end_of_the_first_session() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    // Cancelling sleeps, as a real controller may: the device is not free at once.
    client.command(request::CANCEL_DELAY, 50, 0);
    let seqnum = client.submit(&Submit::read(SILENT, 64));
    let unlink = client.unlink(seqnum);
    assert_eq!(client.ret_unlink(unlink), ECONNRESET);
    for _ in 0..4 {
        client.submit(&Submit::read(SILENT, 64));
    }
    client.call_ok(&Submit::get_device_descriptor());
    drop(client);
    wait_until("the device to change hands", || server.connect().import(server.busid(0)) == 0);
}

/// A server full of clients that are silent, send half a request, or do not leave, has a place for
/// a well-behaved client.
#[test]
fn a_full_server_ends_the_oldest_that_has_no_device() {
    const PLACES: usize = 8;
    let server = Server::start_with("loopback:count=3", |settings| settings.connections = PLACES);
    let mut holder = server.attach_to(1);
    let request = import_bytes(server.busid(2).as_wire());
    let mut silent = Vec::new();
    for number in 0..3 * PLACES {
        let mut client = server.connect();
        match number % 3 {
            0 => {}
            1 => client.send(&request[..number]),
            _ => {
                client.send(&DEVLIST);
                assert_eq!(word(&client.read(12), 8), 2, "devices that are free");
            }
        }
        silent.push(client);
    }
    server.assert_serves(0);
    holder.assert_in_sync();
    assert!(silent[..PLACES].iter().all(MiniClient::has_input), "they have seen the end");
    // A client among the newest continues its request.
    let last = 3 * PLACES - 2;
    silent[last].send(&request[last..]);
    assert_eq!(word(&silent[last].read(320), 4), 0, "it gets its device");
}

/// Clients with a device keep their place.
#[test]
fn a_full_server_ends_no_session() {
    let server = Server::start_with("loopback:count=2", |settings| settings.connections = 2);
    let mut holders = [server.attach_to(0), server.attach_to(1)];
    for _ in 0..5 {
        server.connect().expect_drop();
    }
    holders.iter_mut().for_each(MiniClient::assert_in_sync);
}

/// An address has a share of the devices, and no more.
#[test]
fn an_address_with_its_share_of_devices_gets_no_more() {
    log::keep();
    let server = Server::start_with("loopback:count=3", |settings| {
        settings.shares = Shares { sessions: 2, of_loopback: true, ..settings.shares };
    });
    let attach = |index| {
        // Without an address of its own, unlike other clients of a test that looks at the log.
        let mut client = MiniClient::connect_from(Ipv4Addr::LOCALHOST, server.address);
        (client.import(server.busid(index)), client)
    };
    let holders = [attach(0), attach(1)];
    assert_eq!(holders.each_ref().map(|(status, _)| *status), [0, 0]);
    let (refused, client) = attach(2);
    assert_eq!(refused, NOT_AVAILABLE);
    let says = format!("{}: asks for 1-3: refused: 127.0.0.1 has 2 devices", client.address());
    assert_eq!(log::lines_with(&says).len(), 1);
    drop(holders);
    server.wait_released(0);
    wait_until("there is room again", || attach(2).0 == 0);
}

/// Over loopback there are no shares, unless the settings say so.
#[test]
fn clients_over_loopback_have_no_shares() {
    let server = Server::start_with("loopback:count=3", |settings| {
        settings.shares =
            Shares { sessions: 1, watches: 0, accepts_per_second: 1, of_loopback: false };
    });
    let mut holders = [0, 1, 2].map(|index| server.attach_to(index));
    holders.iter_mut().for_each(MiniClient::assert_in_sync);
}

/// A client beyond the rate of its address is closed at once, and a later second is another.
#[test]
fn an_address_that_connects_too_often_is_closed_for_the_rest_of_the_second() {
    log::keep();
    const MOST: u32 = 5;
    let server = Server::start_with("loopback", |settings| {
        settings.shares = Shares { accepts_per_second: MOST, of_loopback: true, ..settings.shares };
    });
    let from = Ipv4Addr::new(127, 3, 3, 3);
    let connect = || {
        let client = MiniClient::connect_from(from, server.address);
        client.send_anyway(&DEVLIST);
        client
    };
    // On a busy machine the second may end in between.
    wait_until("one is closed", || {
        let mut clients: Vec<MiniClient> = (0..3 * MOST).map(|_| connect()).collect();
        clients.iter_mut().any(|client| client.read_to_end().0.is_empty())
    });
    let own = connect().address().ip();
    let says = format!("{own}: refused: more than {MOST} connections within a second");
    assert!(!log::lines_with(&says).is_empty());
    wait_until("a later second", || !connect().read_to_end().0.is_empty());
    server.assert_serves(0);
}

/// `[::]` takes clients over IPv4, too, who have their plain addresses in the log.
#[test]
fn a_listener_for_both_protocols_serves_both() {
    log::keep();
    let server = Server::start_with("loopback", |settings| {
        settings.listen[0].address = (Ipv6Addr::UNSPECIFIED, 0).into();
    });
    let port = server.address.port();
    for address in [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()] {
        let mut client = MiniClient::connect(address);
        wait_until("the device is free", || !server.bus.is_open(server.busid(0)));
        assert_eq!(client.import(server.busid(0)), 0, "{address}");
        client.assert_in_sync();
        let says = format!("{}: 1-1: attached", client.address());
        assert_eq!(log::lines_with(&says).len(), 1, "{says}");
        drop(client);
        server.wait_released(0);
    }
}

/// A session ends with a line of its work: how long, how much, and which errors.
#[test]
fn a_session_ends_with_one_line() {
    log::keep();
    let server = Server::start("loopback:fault=stall@3");
    let mut client = server.attach();
    let address = client.address();
    client.call_ok(&Submit::read(SOURCE, 512));
    client.call_ok(&Submit::read(SOURCE, 512));
    let stalled = client.call(&Submit::read(SOURCE, 512));
    assert_eq!(stalled.status, EPIPE);
    drop(client);
    server.wait_released(0);
    let start = format!("{address}: 1-1: closed by the client, after ");
    let said = log::lines_with(&start);
    assert_eq!(said.len(), 1, "{said:?}");
    let rest = " URBs, 1024 bytes from the device, 0 bytes to the device; errors: 1 EPIPE";
    assert!(said[0].contains(": 3 URBs") && said[0].ends_with(rest), "{said:?}");
}
