//! Special requests, performed by the host.

use crate::support::client::{ECONNRESET, ENOENT, EPIPE, MiniClient, Reply};
use crate::support::endpoints::{INTERRUPT_SILENT, ISO_SINK, ISO_SOURCE, SILENT, SINK, SOURCE};
use crate::support::hex::hex;
use crate::support::submit::{Submit, setup};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

fn start() -> (Server, MiniClient) {
    let server = Server::start("loopback");
    let client = server.attach();
    (server, client)
}

/// SET_INTERFACE and the URBs come in one segment.
#[test]
fn urbs_behind_set_interface_find_the_new_setting() {
    let (_server, mut client) = start();
    let (special, special_bytes) = client.prepare(&Submit::set_interface(1, 1));
    assert_eq!(special_bytes[0x28..0x30], hex("010b 0100 0100 0000"));
    let (read, read_bytes) = client.prepare(&Submit::iso_read(ISO_SOURCE, &[192; 4]));
    let data = pattern(0, 300);
    let (write, write_bytes) = client.prepare(&Submit::iso_write(ISO_SINK, &data, &[100; 3]));
    client.send(&[special_bytes, read_bytes, write_bytes].concat());
    let ret = client.ret(special);
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    let ret = client.ret(read);
    assert_eq!((ret.status, ret.data), (0, pattern(0, 4 * 192)));
    assert_eq!(client.ret(write).actual_length, 300);
    assert_eq!(client.performed(), [0, 1, 0, 0]);
    // The device got no such request: the host has set the interface.
    let setting = client.call_ok(&Submit::control(setup(0x81, 10, 0, 1, 1), &[]));
    assert_eq!(setting, [1]);
}

/// A nonexistent setting is refused as by the device, and nothing changes.
#[test]
fn set_interface_of_an_unknown_setting_stalls_and_changes_nothing() {
    let (_server, mut client) = start();
    for (interface, alternate) in [(1, 2), (7, 0)] {
        let ret = client.call(&Submit::set_interface(interface, alternate));
        assert_eq!((ret.status, ret.actual_length), (EPIPE, 0));
    }
    client.command(request::REFUSE_SPECIAL, 1, 0);
    assert_eq!(client.call(&Submit::set_interface(1, 1)).status, EPIPE);
    assert_eq!(client.call(&Submit::iso_read(ISO_SOURCE, &[64])).status, ENOENT);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64));
    assert_eq!(client.performed(), [0; 4]);
}

/// The URBs end before the setting changes, so that usbfs has none to kill. That SET_INTERFACE
/// waits for the ends is shown in `src/session/tests`.
#[test]
fn set_interface_ends_the_urbs_of_its_interface_only() {
    let (_server, mut client) = start();
    client.set_interface(1, 1);
    let pending = client.submit_all(&[
        Submit::read(SILENT, 512),
        Submit::read(INTERRUPT_SILENT, 64),
        Submit::read(SILENT, 64),
    ]);
    // Another interface is none of their business.
    client.set_interface(1, 1);
    assert_eq!(client.outstanding(), 3);
    let special = client.submit(&Submit::set_interface(0, 0));
    for _ in &pending {
        let Reply::Submit(ret) = client.reply() else { panic!("nobody unlinked anything") };
        assert!(pending.contains(&ret.seqnum));
        assert_eq!((ret.status, ret.actual_length), (ECONNRESET, 0));
    }
    assert_eq!(client.ret(special).status, 0);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 16)), pattern(0, 16));
}

/// With more URBs than slots.
#[test]
fn set_interface_ends_waiting_urbs_too() {
    let server = Server::start_with("loopback", |settings| settings.policy.limits.urbs = 64);
    let mut client = server.attach();
    let pending = client.submit_all(&vec![Submit::read(SILENT, 512); 500]);
    let special = client.submit(&Submit::set_interface(0, 0));
    for _ in &pending {
        let Reply::Submit(ret) = client.reply() else { panic!("nobody unlinked anything") };
        assert_eq!((ret.status, ret.actual_length), (ECONNRESET, 0));
    }
    assert_eq!(client.ret(special).status, 0);
    client.assert_in_sync();
}

/// Received data is not lost when its URB is cancelled.
#[test]
fn set_interface_keeps_the_data_of_a_cancelled_urb() {
    let (_server, mut client) = start();
    let pending = client.submit(&Submit::read(SILENT, 512));
    client.command(request::CANCEL_DONE, 100, SILENT.into());
    let special = client.submit(&Submit::set_interface(0, 0));
    let ret = client.ret(pending);
    assert_eq!((ret.status, ret.data), (0, pattern(0, 100)));
    assert_eq!(client.ret(special).status, 0);
}

#[test]
fn setting_the_current_configuration_selects_setting_0() {
    let (server, mut client) = start();
    let current = client.call_ok(&Submit::control(setup(0x80, 8, 0, 0, 1), &[]));
    assert_eq!(current, [1]);
    client.set_interface(1, 1);
    let ret = client.call(&Submit::set_configuration(1));
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    assert_eq!(client.performed(), [1, 1, 0, 0]);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 100)), pattern(0, 100));
    assert_eq!(client.call(&Submit::iso_read(ISO_SOURCE, &[64])).status, ENOENT, "setting 0");
    assert!(server.bus.is_open(server.busid(0)), "it was not opened anew");
    assert_eq!(server.bus.open_count(server.busid(0)), 1);
}

#[test]
fn urbs_behind_configuration_0_find_no_endpoint() {
    let (_server, mut client) = start();
    let pending = client.submit(&Submit::read(SILENT, 512));
    let seqnums = client.submit_all(&[
        Submit::set_configuration(0),
        Submit::read(SOURCE, 64),
        Submit::set_configuration(1),
        Submit::read(SOURCE, 64),
    ]);
    assert_eq!(client.ret(pending).status, ECONNRESET);
    assert_eq!(client.ret(seqnums[0]).status, 0);
    let ret = client.ret(seqnums[1]);
    assert_eq!((ret.status, ret.actual_length), (ENOENT, 0), "there are no endpoints then");
    assert_eq!(client.ret(seqnums[2]).status, 0);
    assert_eq!(client.ret(seqnums[3]).data, pattern(0, 64));
    // A nonexistent configuration is refused, and the old configuration is still in force.
    assert_eq!(client.call(&Submit::set_configuration(2)).status, EPIPE);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(64, 64));
}

/// usbip-win2 unconfigures the device at its end.
#[test]
fn an_unconfigured_device_is_configured_for_the_next_client() {
    let (server, mut client) = start();
    client.call_ok(&Submit::set_configuration(0));
    assert_eq!(client.call(&Submit::read(SOURCE, 64)).status, ENOENT);
    drop(client);
    let mut client = server.attach();
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64));
}

/// The simulation has no data toggle of a controller; the source's stream starts anew instead.
#[test]
fn clear_halt_is_performed_by_the_host() {
    let (_server, mut client) = start();
    client.call_ok(&Submit::read(SOURCE, 100));
    client.command(request::HALT, 0, SOURCE.into());
    assert_eq!(client.call(&Submit::read(SOURCE, 64)).status, EPIPE);
    let (seqnum, bytes) = client.prepare(&Submit::clear_halt(SOURCE));
    assert_eq!(bytes[0x28..0x30], hex("0201 0000 8100 0000"));
    client.send(&bytes);
    let ret = client.ret(seqnum);
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64), "it starts anew");
    assert_eq!(client.performed(), [0, 0, 1, 0]);
    // OUT endpoints have halts of their own.
    client.command(request::HALT, 0, SINK.into());
    assert_eq!(client.call(&Submit::write(SINK, &[0; 8])).status, EPIPE);
    client.call_ok(&Submit::clear_halt(SINK));
    client.call_ok(&Submit::write(SINK, &[0; 8]));
    // The default endpoint's is the device's own affair, and forwarded raw.
    let performed = client.performed();
    client.call_ok(&Submit::clear_halt(0));
    assert_eq!(client.last_setup(), hex("0201 0000 0000 0000"));
    assert_eq!(client.performed(), performed);
    // The same for a nonexistent endpoint, refused by the device.
    assert_eq!(client.call(&Submit::clear_halt(0x8e)).status, EPIPE);
    assert_eq!(client.last_setup(), hex("0201 0000 8e00 0000"));
}

#[test]
fn a_port_reset_ends_all_urbs_and_is_performed_by_the_host() {
    let (_server, mut client) = start();
    client.call_ok(&Submit::read(SOURCE, 100));
    client.command(request::HALT, 0, SINK.into());
    let pending = client.submit(&Submit::read(SILENT, 64));
    client.assert_in_sync();
    let seen = client.last_setup();
    let (seqnum, bytes) = client.prepare(&Submit::port_reset());
    assert_eq!(bytes[0x28..0x30], hex("2303 0400 0100 0000"));
    client.send(&bytes);
    assert_eq!(client.ret(pending).status, ECONNRESET, "a reset ends everything");
    let ret = client.ret(seqnum);
    assert_eq!((ret.status, ret.actual_length), (0, 0));
    assert_eq!(client.last_setup(), seen, "the device itself was not asked");
    assert_eq!(client.performed(), [0, 0, 0, 1]);
    assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64));
    client.call_ok(&Submit::write(SINK, &[0; 8]));
}

/// Both would take the device away from its host.
#[test]
fn set_address_and_test_mode_stall_and_never_reach_the_device() {
    let (_server, mut client) = start();
    client.assert_in_sync();
    let seen = client.last_setup();
    for setup in [setup(0, 5, 7, 0, 0), setup(0, 3, 2, 0x0400, 0)] {
        let ret = client.call(&Submit::control(setup, &[]));
        assert_eq!((ret.status, ret.actual_length), (EPIPE, 0));
    }
    assert_eq!(client.last_setup(), seen, "nothing reached the device");
    assert_eq!(client.performed(), [0; 4]);
}

/// Requests that resemble special requests go to the device.
#[test]
fn requests_that_resemble_special_requests_go_to_the_device() {
    let (_server, mut client) = start();
    for setup in [
        setup(0x21, 11, 1, 1, 0),   // a class request to an interface
        setup(0x02, 1, 1, 0x81, 0), // another feature
        setup(0x23, 3, 8, 1, 0),    // PORT_POWER
        setup(0x22, 1, 0, 0x81, 0), // a class request to an endpoint
    ] {
        let ret = client.call(&Submit::control(setup, &[]));
        assert_eq!((ret.status, ret.actual_length), (EPIPE, 0), "the device knows none of them");
        assert_eq!(client.last_setup(), setup.to_bytes());
    }
    assert_eq!(client.performed(), [0; 4]);
}

/// Barriers follow each other, and a URB between two barriers is carried out there.
#[test]
fn urbs_between_special_requests_keep_their_place() {
    let (_server, mut client) = start();
    let mut submits = Vec::new();
    for _ in 0..50 {
        submits.push(Submit::set_interface(1, 1));
        submits.push(Submit::iso_read(ISO_SOURCE, &[100; 2]));
        submits.push(Submit::set_interface(1, 0));
        submits.push(Submit::iso_read(ISO_SOURCE, &[100; 2]));
        submits.push(Submit::get_device_descriptor());
        submits.push(Submit::clear_halt(SOURCE));
        submits.push(Submit::read(SOURCE, 64));
    }
    let seqnums = client.submit_all(&submits);
    for seven in seqnums.chunks(7) {
        let expected = [(0, 0), (0, 200), (0, 0), (ENOENT, 0), (0, 18), (0, 0), (0, 64)];
        for (&seqnum, expected) in seven.iter().zip(expected) {
            let ret = client.ret(seqnum);
            assert_eq!((ret.status, ret.actual_length), expected, "{seqnum}");
        }
    }
    assert_eq!(client.performed(), [0, 100, 50, 0]);
}

/// Data of any length.
#[test]
fn out_data_behind_a_special_request_waits_in_order() {
    let (_server, mut client) = start();
    client.command(request::SPECIAL_DELAY, 100, 0);
    let special = client.submit(&Submit::set_interface(1, 1));
    let mut writes = Vec::new();
    let mut position = 0;
    for len in [0, 1, 512, 100_000, 1 << 20, 3] {
        writes.push(client.submit(&Submit::write(SINK, &pattern(position, len))));
        position += len as u64;
    }
    assert_eq!(client.ret(special).status, 0);
    for seqnum in writes {
        assert_eq!(client.ret(seqnum).status, 0);
    }
    let counters = client.counters(SINK);
    assert_eq!((counters.bytes, counters.errors), (position, 0));
}
