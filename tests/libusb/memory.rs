//! Memory: usbfs's memory, shared by all programs, and the memory of clients with many URBs, with
//! the real libusb on the simulated usbfs.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::hardware::{Server, transfer, urb, wait_until};
use usbferry::limits::{ATTACHED_MAX, IDLE_AFTER};
use usbferry_load::client::Client;
use usbferry_load::process;

/// Of `Counter` in testkit/usbfs/src/record.rs: URBs reaped, and URBs refused because memory is
/// used up.
const REAPS: usize = 1;
const NO_MEMORY: usize = 6;

const ENOMEM: i32 = -12;
const ECONNRESET: i32 = -104;

/// Linux's memory for USB transfers, in bytes.
const LIMIT: usize = 16 << 20;

/// As usb-storage reads.
const LONG: usize = 120 << 10;

/// The final value of a growing number.
fn settled(number: impl Fn() -> u64) -> u64 {
    let last = Cell::new(0);
    wait_until(
        || {
            std::thread::sleep(Duration::from_millis(200));
            let now = number();
            now > 0 && last.replace(now) == now
        },
        || format!("it is {} and grows", last.get()),
    );
    last.get()
}

/// More URBs than seen with any client, and with several times the data of a device's buffers.
#[test]
fn thousands_of_unread_urbs_come_whole_and_in_order() {
    let server = Server::start("quota=64M");
    let mut client = server.attach();
    let (count, len) = (4000, 64 << 10);
    for _ in 0..count {
        client.submit(urb(0x81, len), &[]).unwrap();
    }
    let reaped = settled(|| server.counted(REAPS));
    assert!(reaped < count, "the buffers hold {reaped} URBs: this tests nothing");
    for number in 0..count {
        let reply = client.reply().unwrap();
        let got = (reply.seqnum.into(), reply.status, reply.actual_length as usize);
        assert_eq!(got, (number + 1, 0, len));
        assert_eq!(reply.data[..8], number.to_le_bytes());
    }
}

/// Bytes that an attached device costs while nobody uses the device, at most.
const IDLE_MAX: u64 = 150 << 10;

/// The room for thousands of URBs, and for their isochronous packets, costs a device without URBs
/// nothing.
#[test]
fn idle_devices_cost_little() {
    const COUNT: usize = if ATTACHED_MAX < 33 { ATTACHED_MAX } else { 33 };
    let without_isochronous =
        ":config=0902200001010080320904000002ff0000000705810200020007050102000200";
    for config in ["", without_isochronous] {
        let server = Server::start(&format!("count={COUNT}{config}"));
        let _first = server.attach();
        let id = server.process.id();
        let before = process::peak_memory(id).expect("this is Linux");
        let attach = |number| Client::attach(&*server.address, &format!("1-{number}")).unwrap();
        let idle: Vec<Client> = (2..=COUNT).map(attach).collect();
        let each = (process::peak_memory(id).unwrap() - before) / idle.len() as u64;
        assert!(each < IDLE_MAX, "{each} bytes for each idle device {config}");
    }
}

/// Reads the given number of bytes, so that the device earns a mapping.
fn read_much(client: &mut Client, bytes: usize) {
    for _ in 0..bytes.div_ceil(LONG) {
        assert_eq!(transfer(client, urb(0x81, LONG), &[]).status, 0);
    }
}

fn attach_all(server: &Server, count: usize) -> Vec<Client> {
    let attach = |number| Client::attach(&*server.address, &format!("1-{number}")).unwrap();
    (1..=count).map(attach).collect()
}

/// At default settings. Each device has moved the amount that earns a mapping before, so that
/// devices get mappings as far as possible.
#[test]
fn thirty_two_devices_with_long_reads_all_move() {
    let server = Server::start("count=32:delay=5ms");
    let mut clients = attach_all(&server, 32);
    for client in &mut clients {
        client.submit(urb(0x84, 64), &[]).unwrap();
        read_much(client, 3 << 20);
    }
    for client in &mut clients {
        client.submit(urb(0x81, LONG), &[]).unwrap();
    }
    for client in &mut clients {
        let reply = client.reply().unwrap();
        assert_eq!((reply.status, reply.actual_length as usize), (0, LONG));
    }
    assert_eq!(server.counted(NO_MEMORY), 0, "there was memory for all of them");
}

/// With more in flight than memory, each device has its share.
#[test]
fn thirty_two_devices_that_want_twice_the_memory_all_move() {
    let server = Server::start("count=32:delay=20ms");
    let mut clients = attach_all(&server, 32);
    for client in &mut clients {
        for _ in 0..9 {
            client.submit(urb(0x81, LONG), &[]).unwrap();
        }
    }
    for round in 0..30 {
        for (number, client) in clients.iter_mut().enumerate() {
            let reply = client.reply().unwrap();
            let got = (reply.status, reply.actual_length as usize);
            assert_eq!(got, (0, LONG), "device {number}, round {round}");
            client.submit(urb(0x81, LONG), &[]).unwrap();
        }
    }
    const { assert!(32 * 9 * LONG > LIMIT, "this tests nothing") };
    assert!(server.said("used up").len() <= 32, "more than once a device");
}

/// Clients may leave any URBs pending: other clients, other programs, and other endpoints of the
/// same device still find memory.
#[test]
fn endless_urbs_leave_memory_to_the_others() {
    let server = Server::start_with("count=5", &["--log", "debug"]);
    let mut clients = attach_all(&server, 5);
    let (reader, hogs) = clients.split_first_mut().expect("five");
    for hog in &mut *hogs {
        for _ in 0..300 {
            hog.submit(urb(0x86, 128 << 10), &[]).unwrap();
        }
        // Behind the URBs on the same connection: then the device has its share of the URBs.
        read_much(hog, LONG);
    }
    for _ in 0..20 {
        for _ in 0..8 {
            reader.submit(urb(0x81, 512 << 10), &[]).unwrap();
        }
        for _ in 0..8 {
            let reply = reader.reply().unwrap();
            assert_eq!((reply.status, reply.actual_length), (0, 512 << 10));
        }
    }
    read_much(&mut hogs[0], LONG);
    assert!(server.said_by_now("share of the system's memory", 4).len() >= 4, "one for each hog");
    assert_eq!(server.counted(NO_MEMORY), 0, "a device took more than its share");
}

/// The URB would not fit even if all other memory were given up. Beside it are a silent URB, and a
/// URB that would wait.
#[test]
fn urbs_beyond_all_memory_are_refused_at_once_and_logged_once() {
    for (quota, len, less) in [("", 16 << 20, 15 << 20), ("quota=4M", 4 << 20, 3 << 20)] {
        // The default, where addresses have 64 bits.
        let server = Server::start_with(quota, &["--memory=64M", "--urb-size=16M"]);
        let mut client = server.attach();
        read_much(&mut client, 4 << 20);
        client.submit(urb(0x84, 64), &[]).unwrap();
        for len in [len, len - 100, len] {
            let reply = transfer(&mut client, urb(0x81, len), &[]);
            assert_eq!((reply.status, reply.actual_length), (ENOMEM, 0), "{len} bytes");
        }
        assert_eq!(server.counted(NO_MEMORY), 3, "a URB was tried again: that never helps");
        let said = server.said_by_now("gets -ENOMEM", 1);
        assert!(said.len() == 1 && said[0].contains("usbfs_memory_mb"), "{said:?}");
        // Mapped memory makes room for a URB that fits.
        let reply = transfer(&mut client, urb(0x81, less), &[]);
        assert_eq!((reply.status, reply.actual_length as usize), (0, less));
    }
}

/// Interrupt URBs are not scattered, and the kernel's largest block is 4 MiB.
#[test]
fn urbs_beyond_the_largest_block_are_refused_at_once() {
    let server = Server::start("quota=64M");
    let mut client = server.attach();
    client.submit(urb(0x86, 64), &[]).unwrap();
    let reply = transfer(&mut client, urb(0x83, (4 << 20) + 1), &[]);
    assert_eq!((reply.status, reply.actual_length), (ENOMEM, 0));
    assert_eq!(server.counted(NO_MEMORY), 1, "the URB was tried again: that never helps");
    assert_eq!(server.said_by_now("gets -ENOMEM", 1).len(), 1);
}

/// A URB in flight of the same device is no reason to wait for ever.
#[test]
fn a_wait_for_others_memory_has_an_end() {
    let server = Server::start("count=16");
    let mut clients = attach_all(&server, 16);
    let (first, others) = clients.split_first_mut().expect("sixteen");
    for other in &mut *others {
        other.submit(urb(0x86, 1 << 20), &[]).unwrap();
        // Behind the URB on the same connection: the device has the URB before the first client
        // asks.
        assert_eq!(transfer(other, urb(0x83, 8), &[]).status, 0);
    }
    first.submit(urb(0x84, 64), &[]).unwrap();
    let waiting = [1, 2].map(|_| first.submit(urb(0x81, 2 << 20), &[]).unwrap());
    // Small URBs go on meanwhile, and change nothing.
    let mut moved = 0;
    let mut refused = Vec::new();
    while refused.len() < waiting.len() {
        let small = first.submit(urb(0x83, 8), &[]).unwrap();
        let reply = first.reply().unwrap();
        match reply.status {
            ENOMEM => refused.push(reply.seqnum),
            status => assert_eq!((status, reply.seqnum <= small), (0, true)),
        }
        moved += 1;
    }
    assert_eq!(refused, waiting);
    assert!(moved > 2, "the other endpoint stood still");
    for other in others {
        other.unlink(1).unwrap();
        assert_eq!(other.reply().unwrap().status, ECONNRESET);
    }
    first.submit(urb(0x81, 2 << 20), &[]).unwrap();
    let long = loop {
        let reply = first.reply().unwrap();
        if reply.actual_length != 8 {
            break reply;
        }
    };
    assert_eq!((long.status, long.actual_length), (0, 2 << 20));
}

/// Idle devices, and devices with short transfers, leave the memory to others.
#[test]
fn mappings_are_earned_and_given_up() {
    let large = ["--memory", "64M", "--urb-size", "16M"];
    let server = Server::start_with("count=3", &[&["--log", "debug"][..], &large].concat());
    let mut clients = attach_all(&server, 3);
    let mapped = || server.said("of device memory").len();
    let [first, second, third] = &mut clients[..] else { unreachable!("three") };
    for _ in 0..600 {
        assert_eq!(transfer(first, urb(0x81, 8 << 10), &[]).status, 0);
    }
    read_much(first, 1 << 20);
    assert_eq!(mapped(), 0, "for nothing that a mapping would pay for");
    read_much(first, 2 << 20);
    wait_until(|| mapped() == 1, || "it has earned a mapping".to_owned());
    read_much(second, 3 << 20);
    wait_until(|| mapped() == 2, || "the second has, too".to_owned());
    let lines = server.said("of device memory");
    assert!(lines[0].contains("1-1: 2097152 bytes"), "{lines:?}");
    assert!(lines[1].contains("1-2: 1048576 bytes"), "half of what is left: {lines:?}");
    // More than the rest beside the mappings of the two idle devices.
    let reply = transfer(third, urb(0x81, 15 << 20), &[]);
    assert_eq!((reply.status, reply.actual_length), (0, 15 << 20));
    assert_eq!(server.said_by_now("were given up", 2).len(), 2);
    // And all goes on without.
    for client in [first, second, third] {
        read_much(client, 1 << 20);
    }
}

/// Bytes that a load may leave with a device, beside its share of what the server itself has used.
const LEFT_MAX: u64 = 80 << 10;

/// Takes as long as a device has to be idle.
#[test]
fn the_memory_of_a_load_goes_back_when_the_devices_are_idle() {
    const COUNT: usize = 9;
    let server = Server::start_with(&format!("count={COUNT}:quota=256M"), &["--log", "debug"]);
    let mut clients = attach_all(&server, COUNT);
    let memory = || process::memory(server.process.id()).expect("this is Linux");
    let before = memory();
    for client in &mut clients {
        read_much(client, 4 << 20);
    }
    let loaded = memory() - before;
    assert!(loaded > (COUNT as u64) << 21, "{loaded} bytes: nothing was mapped");
    let idle = Instant::now();
    let given_back = || server.said("were given back").len();
    while given_back() < COUNT {
        assert!(idle.elapsed() < 3 * IDLE_AFTER, "{} of {COUNT}", given_back());
        std::thread::sleep(Duration::from_millis(200));
    }
    let left = || memory().saturating_sub(before) / COUNT as u64;
    // The allocator's memory goes back on another thread.
    wait_until(|| left() < LEFT_MAX, || format!("{} bytes for each device", left()));
    for client in &mut clients {
        read_much(client, 1 << 20);
    }
}
