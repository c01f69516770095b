//! Devices that are known before a client asks: uevents tell of changes, and scans are made for
//! nobody. A lock of a device shows whether a scan is made, since the log then says that the device
//! does not answer.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::hardware::{Server, transfer, urb, wait_until};
use usbferry_load::client::{AttachError, Client};

/// `ST_NODEV`.
const NO_DEVICE: u32 = 4;

/// The log about a device with a lock, when a scan is made.
const SCANNED: &str = "does not answer";

fn busids(server: &Server) -> Vec<String> {
    server.devices().into_iter().map(|listed| listed.busid).collect()
}

/// The link to device 1-`number` in sysfs.
fn link(server: &Server, number: usize) -> PathBuf {
    server.root.join(format!("sys/bus/usb/devices/1-{number}"))
}

/// Takes device 1-`number` from the bus.
fn unplug(server: &Server, number: usize) {
    unplug_from(server, number, number);
}

/// Takes the device with the number of 1-`device` out of 1-`number`.
fn unplug_from(server: &Server, device: usize, number: usize) {
    fs::remove_file(link(server, number)).expect("it was there");
    let node = server.root.join(format!("dev/bus/usb/001/{:03}", device + 1));
    fs::remove_file(node).expect("it was there");
}

/// Plugs the device with the number of 1-`device` in at 1-`number`.
fn plug_in(server: &Server, device: usize, number: usize) {
    let node = server.root.join(format!("dev/bus/usb/001/{:03}", device + 1));
    fs::write(node, "").expect("the directory is there");
    let target = format!("../../../devices/platform/usbferry-usbfs/usb1/1-{device}");
    symlink(target, link(server, number)).expect("the place is free");
}

/// Sends a uevent of a device.
fn tell(server: &Server, action: &str, number: usize) {
    let path = format!("/devices/platform/usbferry-usbfs/usb1/1-{number}");
    let message = format!(
        "{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0"
    );
    let root = File::open(&server.root).expect("it is there");
    let socket = UnixDatagram::unbound().expect("a socket");
    // The path of the root may be too long for an address.
    let address = format!("/proc/self/fd/{}/uevents", root.as_raw_fd());
    socket.send_to(message.as_bytes(), address).expect("the server listens");
}

#[test]
fn known_devices_are_listed_and_lent_without_a_scan() {
    let server = Server::start("count=3");
    assert_eq!(busids(&server), ["1-1", "1-2", "1-3"]);
    server.hold(1, true);
    for _ in 0..3 {
        assert_eq!(transfer(&mut server.attach_to(2), urb(0x81, 512), &[]).status, 0);
        let listed = busids(&server);
        assert!(["1-1", "1-3"].iter().all(|busid| listed.contains(&(*busid).to_owned())));
    }
    assert_eq!(server.said(SCANNED), Vec::<String>::new());
    // An unknown device may have been plugged in a moment ago.
    assert!(matches!(
        Client::attach(&*server.address, "1-7"),
        Err(AttachError::Refused(NO_DEVICE))
    ));
    assert_eq!(server.said_by_now(SCANNED, 1).len(), 1);
    server.hold(1, false);
}

#[test]
fn without_uevents_every_request_scans() {
    let server = Server::start("count=2:uevents=none");
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    server.hold(1, true);
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    assert_eq!(server.said_by_now(SCANNED, 1).len(), 1);
    server.hold(1, false);
}

#[test]
fn devices_that_come_and_go_are_listed_as_they_do() {
    let server = Server::start("count=2");
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    unplug(&server, 1);
    tell(&server, "remove", 1);
    wait_until(|| busids(&server) == ["1-2"], || format!("{:?}", busids(&server)));
    plug_in(&server, 1, 1);
    tell(&server, "add", 1);
    wait_until(|| busids(&server) == ["1-1", "1-2"], || format!("{:?}", busids(&server)));
    assert_eq!(transfer(&mut server.attach(), urb(0x81, 512), &[]).status, 0);
}

/// A uevent that has not come yet, or never will, costs a scan and no wrong answer.
#[test]
fn a_device_in_another_s_place_is_lent_as_what_it_is() {
    let server = Server::start("count=2:2.data=pattern");
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    unplug(&server, 2);
    unplug(&server, 1);
    plug_in(&server, 2, 1);
    // Each PDU names the number of the device, and reads what only the second one says.
    let mut client = server.attach();
    let reply = transfer(&mut client, urb(0x81, 512), &[]);
    assert_eq!((reply.status, &reply.data[..4]), (0, [0, 1, 2, 3].as_slice()));
}

#[test]
fn a_device_that_went_unheard_is_not_there() {
    let server = Server::start("count=2");
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    unplug(&server, 1);
    assert!(matches!(
        Client::attach(&*server.address, "1-1"),
        Err(AttachError::Refused(NO_DEVICE))
    ));
    assert_eq!(busids(&server), ["1-2"]);
}

/// What a client sets is told in a uevent, and a list that follows has no other configuration.
#[test]
fn a_configuration_that_a_client_has_set_is_known() {
    let server = Server::start("");
    for _ in 0..2 {
        let mut client = server.attach();
        let unconfigure = crate::hardware::request([0, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(transfer(&mut client, unconfigure, &[]).status, 0);
        drop(client);
        server.wait_for("1-1 configuration 1");
        let is_configured = || {
            let listed = server.devices();
            listed.first().is_some_and(|one| (one.configuration, one.interfaces.len()) == (1, 2))
        };
        wait_until(is_configured, || format!("{:?}", server.devices()));
    }
}

/// More uevents than the queue holds are as good as the last.
#[test]
fn uevents_that_were_dropped_are_looked_for() {
    let server = Server::start("count=2");
    assert_eq!(busids(&server), ["1-1", "1-2"]);
    unplug(&server, 1);
    for _ in 0..5000 {
        tell(&server, "change", 2);
    }
    wait_until(|| busids(&server) == ["1-2"], || format!("{:?}", busids(&server)));
    assert_eq!(transfer(&mut server.attach_to(2), urb(0x81, 512), &[]).status, 0);
}

/// A device with another VID:PID.
const BOOTLOADER: &str = "2.device=120100020000004009120200000100000001";

/// By its name and its serial number, also when it comes back elsewhere; of two devices of a kind,
/// the kind means neither.
#[test]
fn two_devices_of_a_kind_are_told_apart_by_serial_number() {
    let server = Server::start("count=2");
    let serials: Vec<String> = (1..3).map(|n| server.attribute(n, "serial")).collect();
    assert_ne!(serials[0], serials[1]);
    drop(server);
    let named = format!("second=serial:{}", serials[1]);
    let server = Server::start_with("count=2:2.data=pattern", &["--device", &named]);
    assert_eq!(busids(&server), ["1-1", "second"]);
    let is_second = |name: &str| {
        let mut client = Client::attach_when_free(&*server.address, name).expect("it is there");
        transfer(&mut client, urb(0x81, 512), &[]).data[..4] == [0, 1, 2, 3]
    };
    let by_serial = format!("serial:{}", serials[1]);
    assert!(is_second("second") && is_second(&by_serial) && is_second("1-2"));
    assert!(!is_second(&format!("1209:0010:{}", serials[0])));
    let asked = Client::attach(&*server.address, "1209:0010");
    assert!(matches!(asked, Err(AttachError::Refused(NO_DEVICE))), "{asked:?}");
    let said = server.said_by_now("asks for 1209:0010: refused: several devices fit", 1);
    assert!(said[0].contains(&serials[0]) && said[0].contains(&serials[1]), "{said:?}");
    unplug(&server, 1);
    unplug(&server, 2);
    tell(&server, "remove", 1);
    tell(&server, "remove", 2);
    plug_in(&server, 2, 1);
    tell(&server, "add", 1);
    wait_until(|| busids(&server) == ["second"], || format!("{:?}", busids(&server)));
    assert!(is_second("second"));
}

/// An import of the name in the gap gets the device as soon as it is there, in either state.
#[test]
fn a_device_that_restarts_into_its_bootloader_keeps_its_name() {
    let options = format!("count=2:{BOOTLOADER}");
    let arguments = ["--device", "board=1209:0010,1209:0002"];
    let server = Server::start_with(&options, &arguments);
    unplug(&server, 2);
    tell(&server, "remove", 2);
    for (round, (before, after)) in [(1, 2), (2, 1), (1, 2)].into_iter().enumerate() {
        wait_until(|| busids(&server) == ["board"], || format!("{:?}", busids(&server)));
        let mut client = Client::attach_when_free(&*server.address, "board").expect("it is there");
        assert_eq!(transfer(&mut client, urb(0x81, 4), &[]).status, 0);
        drop(client);
        server.said_by_now("board (1-1): released", 2 * round + 1);
        unplug_from(&server, before, 1);
        tell(&server, "remove", 1);
        wait_until(|| busids(&server).is_empty(), || format!("{:?}", busids(&server)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Client::attach(&*server.address, "board").is_ok());
            plug_in(&server, after, 1);
            tell(&server, "add", 1);
            assert!(waiting.join().expect("no panic"), "from {before} to {after}");
        });
    }
}
