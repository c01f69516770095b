//! Devices that hold things up, on the real libusb and the simulated usbfs: another program has
//! their lock, or they are slow to answer, or they go meanwhile. Other devices are not affected.
//!
//! Nothing is measured here: a test shows that an action is over before another.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::hardware::{
    Listed, PORT_RESET, Server, hold, new_root, request, transfer, urb, wait_until,
};
use usbferry_load::client::{AttachError, Client};

const ECONNRESET: i32 = -104;

/// `ST_NODEV`.
const NO_DEVICE: u32 = 4;

/// SET_INTERFACE of interface 1, setting 1.
const SET_INTERFACE: [u8; 8] = [1, 11, 1, 0, 1, 0, 0, 0];

fn busids(server: &Server) -> Vec<String> {
    server.devices().into_iter().map(|listed| listed.busid).collect()
}

/// Imports a device, uses it, and leaves.
fn assert_serves(server: &Server, device: usize) {
    let mut client = server.attach_to(device);
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
}

/// A server without hints, whose scans meet the lock at each request.
fn scanning(options: &str) -> Server {
    Server::start(&format!("{options}:uevents=none"))
}

#[test]
fn a_held_lock_holds_up_no_other_client() {
    let server = scanning("count=3");
    assert_eq!(busids(&server), ["1-1", "1-2", "1-3"]);
    server.hold(1, true);
    // The server knows the device.
    assert_eq!(busids(&server), ["1-1", "1-2", "1-3"]);
    for device in [2, 3, 2] {
        assert_serves(&server, device);
    }
    server.hold(1, false);
    assert_serves(&server, 1);
}

#[test]
fn a_hub_is_not_asked_anything() {
    let server = scanning("count=2");
    server.hold(0, true);
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    assert_serves(&server, 1);
    server.hold(0, false);
}

/// An unknown device is left out, or listed with its known properties; as soon as it answers, it is
/// listed.
#[test]
fn a_device_that_is_held_from_the_start_holds_up_no_other() {
    let root = new_root();
    hold(&root, 1, true);
    let server = Server::start_in(root, "count=2:uevents=none", &[]);
    assert!(busids(&server).contains(&"1-2".to_owned()));
    assert_serves(&server, 2);
    server.hold(1, false);
    let is_right = |listed: &Listed| {
        (listed.busid.as_str(), listed.configuration, listed.interfaces.len()) == ("1-1", 1, 2)
    };
    wait_until(
        || server.devices().iter().any(is_right),
        || format!("1-1 is not there: {:?}", server.devices()),
    );
    assert_serves(&server, 1);
}

/// The client of the locked device waits alone; other clients do not wait.
#[test]
fn an_import_that_is_held_up_holds_up_no_other() {
    let server = scanning("count=3");
    server.hold(1, true);
    thread::scope(|scope| {
        // A status or the end of the connection, after the time limit.
        let held = scope.spawn(|| Client::attach(&*server.address, "1-1").map(drop));
        assert_serves(&server, 2);
        assert!(busids(&server).contains(&"1-3".to_owned()));
        assert_serves(&server, 2);
        server.hold(1, false);
        let _ = held.join().expect("it panics not");
    });
    assert_serves(&server, 1);
}

/// A device that can't be closed is not given back, with no other consequence.
#[test]
fn a_release_that_is_held_up_holds_up_no_other() {
    let server = scanning("count=2");
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    server.hold(1, true);
    drop(client);
    for _ in 0..3 {
        assert_serves(&server, 2);
    }
    assert_eq!([server.has_driver(0), server.has_driver(1)], [false; 2]);
    server.hold(1, false);
    server.wait_for("1-1 connect 1");
    assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2]);
    assert_serves(&server, 1);
}

/// The lock of an attached device holds up no other either, while no URB of the device is submitted
/// or ends. The device's own thread waits for URBs given up meanwhile.
#[test]
fn an_unneeded_lock_holds_up_nobody() {
    let server = scanning("count=3");
    let (mut held, mut other) = (server.attach(), server.attach_to(2));
    let silent = held.submit(urb(0x86, 512), &[]).unwrap();
    assert_eq!(transfer(&mut held, urb(0x81, 512), &[]).status, 0);
    server.hold(1, true);
    let unlink = held.unlink(silent).unwrap();
    for _ in 0..100 {
        assert_eq!(transfer(&mut other, urb(0x81, 512), &[]).status, 0);
    }
    assert!(busids(&server).contains(&"1-3".to_owned()));
    assert_serves(&server, 3);
    assert!(!held.has_input().unwrap(), "the lock was not waited for");
    server.hold(1, false);
    let reply = held.reply().unwrap();
    assert_eq!((reply.seqnum, reply.is_unlink, reply.status), (unlink, true, ECONNRESET));
    assert_eq!(transfer(&mut held, urb(0x81, 512), &[]).status, 0);
}

/// usbfs has no call to submit or reap without the lock (`usbdev_do_ioctl`), or to ask whether the
/// lock is free. During any such wait nothing is lost or answered wrongly. The progress of the
/// others is printed and not judged (docs/reliability.md, "The cost of one thread").
#[test]
fn work_delayed_by_a_lock_is_done_when_the_lock_is_free() {
    let server = Server::start("count=2");
    let (mut held, mut other) = (server.attach(), server.attach_to(2));
    let ticking = held.submit(urb(0x83, 64), &[]).unwrap();
    assert_eq!(held.reply().unwrap().seqnum, ticking);
    server.hold(1, true);
    let asked: Vec<u32> = (0..50).map(|_| held.submit(urb(0x81, 512), &[]).unwrap()).collect();
    let others: Vec<u32> = (0..50).map(|_| other.submit(urb(0x81, 512), &[]).unwrap()).collect();
    let client = TcpStream::connect(&server.address).expect("the system accepts for it");
    drop(client);
    thread::sleep(Duration::from_millis(300));
    eprintln!("others go on while a lock is held: {}", other.has_input().unwrap());
    assert!(!held.has_input().unwrap());
    server.hold(1, false);
    for (client, submitted) in [(&mut other, others), (&mut held, asked)] {
        for seqnum in submitted {
            let reply = client.reply().unwrap();
            assert_eq!((reply.seqnum, reply.status, reply.actual_length), (seqnum, 0, 512));
        }
    }
    drop(held);
    assert_serves(&server, 1);
}

/// Requests performed by the host are held up likewise, for as long as the device takes.
#[test]
fn a_request_that_is_held_up_holds_up_no_list_and_no_import() {
    for setup in [SET_INTERFACE, PORT_RESET, [0, 9, 1, 0, 0, 0, 0, 0]] {
        let server = scanning("count=2");
        let mut slow = server.attach();
        server.hold(1, true);
        let seqnum = slow.submit(request(setup), &[]).unwrap();
        assert!(busids(&server).contains(&"1-2".to_owned()));
        assert_serves(&server, 2);
        assert!(!slow.has_input().unwrap(), "the lock was not waited for: {setup:02x?}");
        server.hold(1, false);
        let reply = slow.reply().unwrap();
        assert_eq!((reply.seqnum, reply.status), (seqnum, 0), "{setup:02x?}");
        assert_eq!(transfer(&mut slow, urb(0x81, 512), &[]).status, 0);
    }
}

/// Any thread at work with the device notices its disappearance.
#[test]
fn a_device_that_goes_while_it_works_ends_its_session() {
    for setup in [SET_INTERFACE, PORT_RESET, [0, 9, 1, 0, 0, 0, 0, 0]] {
        let server = Server::start("count=2:1.slow=600000ms:1.unplug-during=50ms");
        let mut client = server.attach();
        client.submit(urb(0x86, 512), &[]).unwrap();
        client.submit(request(setup), &[]).unwrap();
        while let Ok(reply) = client.reply() {
            assert!(reply.status < 0, "{setup:02x?}: {reply:?}");
        }
        wait_until(|| busids(&server) == ["1-2"], || format!("{:?}", busids(&server)));
        match Client::attach_when_free(&*server.address, "1-1") {
            Err(AttachError::Refused(NO_DEVICE)) => {}
            other => panic!("{other:?}"),
        }
        assert_serves(&server, 2);
    }
}
