//! Failed imports, on the real libusb and the simulated usbfs: the device is left unchanged for any
//! reason of the failure, and `--reset-on-release` does not reset the device. Another program may
//! be using the device, perhaps the very reason of the failure.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::hardware::{Server, transfer, urb, wait_until};
use usbferry_load::client::{AttachError, Client};

/// `ST_NA`, `ST_DEV_BUSY`, `ST_NODEV`.
const NOT_AVAILABLE: u32 = 1;
const BUSY: u32 = 2;
const NO_DEVICE: u32 = 4;

fn start(options: &str) -> Server {
    Server::start_with(options, &["--reset-on-release"])
}

/// The answer to a client that wants a device.
#[track_caller]
fn refusal(server: &Server, busid: &str) -> u32 {
    match Client::attach(&*server.address, busid) {
        Err(AttachError::Refused(status)) => status,
        other => panic!("{other:?}"),
    }
}

fn resets(server: &Server) -> usize {
    server.log().iter().filter(|line| line.starts_with("1-1 reset")).count()
}

/// Checks that the first device is unchanged: not reset, with its drivers and its configuration.
#[track_caller]
fn assert_left_alone(server: &Server, why: &str) {
    assert_eq!(resets(server), 0, "{why}: {:?}", server.log());
    assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2], "{why}");
    assert_eq!(server.attribute(1, "bConfigurationValue"), "1", "{why}");
}

/// Whether the server has a thread for the first device.
fn has_worker(server: &Server) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", server.process.id())).expect("it runs");
    let names = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("comm")));
    names.flatten().any(|name| name.trim_end() == "usb 1-1")
}

/// A client whose request for the first device is being carried out, since the device's lock is
/// held.
fn waiting_client(server: &Server) -> TcpStream {
    // The server knows the device from then on.
    assert_eq!(server.devices().len(), 1);
    server.hold(1, true);
    let mut client = TcpStream::connect(&server.address).expect("it listens");
    let mut busid = [0; 32];
    busid[..3].copy_from_slice(b"1-1");
    let request = [&[1, 0x11, 0x80, 3, 0, 0, 0, 0], &busid[..]].concat();
    client.write_all(&request).expect("it is sent");
    wait_until(|| has_worker(server), || "it is not being opened".to_owned());
    client
}

/// Releases the lock of the device, and waits until the device has been given back.
fn let_go(server: &Server) {
    server.hold(1, false);
    wait_until(|| !has_worker(server), || "it is not given back".to_owned());
}

/// Checks that an attached device is reset once; otherwise these tests would prove nothing.
fn assert_resets_what_was_attached(server: &Server) {
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    drop(client);
    wait_until(|| !has_worker(server), || "it is not given back".to_owned());
    assert_eq!(resets(server), 1, "{:?}", server.log());
    assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2]);
}

#[test]
fn a_refusal_of_the_system_resets_nothing() {
    for (what, errnos) in [
        ("open", &["EACCES", "EPERM", "EBUSY", "ENODEV", "ENOENT", "ENOMEM", "EMFILE", "EIO"][..]),
        ("claim", &["EBUSY", "EPERM", "EACCES", "EINVAL", "ENOENT", "ENODEV", "ENOMEM", "EIO"]),
    ] {
        for errno in errnos {
            let server = start(&format!("refuse={what},{errno}"));
            for _ in 0..2 {
                let status = refusal(&server, "1-1");
                let why = format!("{what}: {errno}");
                assert!([NOT_AVAILABLE, NO_DEVICE].contains(&status), "{why}: {status}");
                assert_left_alone(&server, &why);
            }
        }
    }
}

/// Another program has all interfaces.
#[test]
fn a_device_that_another_program_has_is_not_reset() {
    let server = start("driver=:refuse=claim,EBUSY");
    assert_eq!(refusal(&server, "1-1"), NOT_AVAILABLE);
    let said = server.said_by_now("not exported: none of its interfaces could be claimed", 1);
    assert_eq!(said.len(), 1);
    // The advice, and no false statement.
    assert!(said[0].contains("fuser -v /dev/bus/usb/001/002"), "{said:?}");
    assert_eq!(server.said_by_now("can't be claimed", 2).len(), 2);
    assert_eq!(server.said("the rest works"), [""; 0]);
    let changes = server.log().into_iter().filter(|line| !line.contains(" claim "));
    assert_eq!(changes.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(server.requests(), [""; 0]);
}

/// Another reason has another message.
#[test]
fn a_device_that_may_not_be_claimed_is_refused_for_want_of_permission() {
    for errno in ["EPERM", "EACCES"] {
        let server = start(&format!("driver=:refuse=claim,{errno}"));
        assert_eq!(refusal(&server, "1-1"), NOT_AVAILABLE);
        let said = server.said_by_now("no permission to claim any of its interfaces", 1);
        assert_eq!(said.len(), 1);
        assert_eq!(server.said("the rest works"), [""; 0]);
    }
}

/// A failure of the system is no lack of permission: the message has the error and the advice.
#[test]
fn a_failed_claim_is_logged_with_its_error() {
    for (errno, error, advice) in [
        ("EIO", "input/output error", "Plug the device in again"),
        ("ENOMEM", "out of memory", "memory"),
    ] {
        let server = start(&format!("driver=:refuse=claim,{errno}"));
        assert_eq!(refusal(&server, "1-1"), NOT_AVAILABLE);
        let said = server.said_by_now("none of its interfaces could be claimed", 1);
        assert!(said[0].contains(error) && said[0].contains(advice), "{said:?}");
        assert_eq!(server.said("no permission"), [""; 0]);
    }
    let server = start("driver=:refuse=claim,ENODEV");
    assert_eq!(refusal(&server, "1-1"), NO_DEVICE);
}

#[test]
fn an_import_of_a_busy_device_resets_nothing() {
    let server = start("");
    let mut holder = server.attach();
    for (busid, status) in [("1-1", BUSY), ("1-9", NO_DEVICE), ("1-1", BUSY)] {
        assert_eq!(refusal(&server, busid), status);
        assert_eq!(transfer(&mut holder, urb(0x81, 512), &[]).status, 0);
        assert_eq!(resets(&server), 0);
    }
    drop(holder);
    wait_until(|| resets(&server) == 1, || format!("{:?}", server.log()));
}

/// The host can't say which configuration is set.
#[test]
fn a_device_unknown_to_the_host_is_not_reset() {
    let server = start("");
    let mut client = waiting_client(&server);
    let attribute = server.root.join("sys/bus/usb/devices/1-1/bConfigurationValue");
    fs::remove_file(&attribute).expect("it was there");
    let_go(&server);
    let mut reply = [0; 8];
    client.read_exact(&mut reply).expect("it is answered");
    assert_eq!(reply[4..], NO_DEVICE.to_be_bytes());
    fs::write(&attribute, "1\n").expect("it may be there");
    assert_left_alone(&server, "no configuration");
    assert_resets_what_was_attached(&server);
}

#[test]
fn a_client_that_leaves_before_its_answer_resets_nothing() {
    for is_reset in [false, true] {
        let server = start("");
        let client = waiting_client(&server);
        if is_reset {
            let now = Some(Duration::ZERO);
            socket2::SockRef::from(&client).set_linger(now).expect("a socket");
        }
        drop(client);
        // After answering a later request the server has noticed.
        server.devices();
        let_go(&server);
        assert_left_alone(&server, "its client has left");
        assert_resets_what_was_attached(&server);
    }
}

#[test]
fn a_client_that_waited_too_long_resets_nothing() {
    let server = start("");
    let mut client = waiting_client(&server);
    let mut reply = [0; 8];
    client.read_exact(&mut reply).expect("it is answered");
    assert_eq!(reply[4..], NOT_AVAILABLE.to_be_bytes());
    let_go(&server);
    assert_left_alone(&server, "it was too late");
    assert_resets_what_was_attached(&server);
}

#[test]
fn a_server_that_stops_meanwhile_resets_nothing() {
    let mut server = start("");
    let client = waiting_client(&server);
    let told = Command::new("kill").arg(server.process.id().to_string()).status();
    assert!(told.expect("it can be run").success());
    server.said_by_now("stopping", 1);
    server.hold(1, false);
    assert!(server.process.wait().expect("it is a child").success());
    drop(client);
    assert_left_alone(&server, "the server stops");
}
