//! The server on the real libusb, with the simulated usbfs of `testkit/usbfs`: no part of usbferry
//! is replaced, and the log of usbfs has all calls.

use std::time::Instant;

use crate::hardware::{PORT_RESET, Server, kill_attached, request, transfer, urb, wait_until};
use usbferry::limits::{
    COMPLAINTS_PER_SECOND, DeviceLimits, MEMORY_DEFAULT, PACKETS_WAITING_MAX, SERVER_MEMORY,
    URBS_DEFAULT, URBS_WAITING_MAX,
};
use usbferry_load::client::{AttachError, Client};
use usbferry_load::pdu::{self, Submit};
use usbferry_load::process;

const EPIPE: i32 = -32;
const ECONNRESET: i32 = -104;
const ENODEV: i32 = -19;
const ESHUTDOWN: i32 = -108;

/// `ST_NODEV`.
const NO_DEVICE: u32 = 4;

/// Of `Counter` in testkit/usbfs/src/record.rs: URBs refused because memory is used up.
const NO_MEMORY: usize = 6;

#[test]
fn control_requests_reach_the_device_and_come_back() {
    let server = Server::start("");
    let mut client = server.attach();
    let reply = client.control([0x80, 6, 0, 1, 0, 0, 18, 0], &[]).unwrap();
    assert_eq!((reply.status, reply.actual_length), (0, 18));
    assert_eq!(reply.data[..2], [18, 1]);
    let reply = client.control([0x40, 3, 0, 0, 0, 0, 5, 0], b"hello").unwrap();
    assert_eq!((reply.status, reply.actual_length), (0, 5));
    let reply = client.control([0xc0, 4, 0, 0, 0, 0, 64, 0], &[]).unwrap();
    assert_eq!((reply.status, reply.data.as_slice()), (0, b"hello".as_slice()));
    let reply = client.control([0xc0, 99, 0, 0, 0, 0, 64, 0], &[]).unwrap();
    assert_eq!((reply.status, reply.actual_length), (EPIPE, 0));
}

#[test]
fn bulk_data_is_whole_in_both_directions() {
    let server = Server::start("data=pattern");
    let mut client = server.attach();
    let pattern = pdu::pattern(3 << 20);
    let mut position = 0;
    for len in [1, 64, 512, 4096, 16_384, 100_000, 1 << 20] {
        let reply = transfer(&mut client, urb(0x81, len), &[]);
        assert_eq!((reply.status, reply.actual_length as usize), (0, len));
        assert!(reply.data == pattern[position..position + len], "{len} bytes IN");
        let reply = transfer(&mut client, urb(0x01, len), &pattern[position..position + len]);
        assert_eq!((reply.status, reply.actual_length as usize), (0, len));
        position += len;
    }
    assert_eq!(client.counters(0x01).unwrap(), [position as u64, 7, 0], "bytes, URBs, wrong ones");
}

#[test]
fn a_queue_of_urbs_keeps_its_order() {
    let server = Server::start("data=pattern:delay=200us");
    let mut client = server.attach();
    let pattern = pdu::pattern(64 * 700);
    for _ in 0..64 {
        client.submit(urb(0x81, 700), &[]).unwrap();
    }
    for (number, expected) in pattern.chunks(700).enumerate() {
        let reply = client.reply().unwrap();
        assert_eq!((reply.seqnum as usize, reply.status), (number + 1, 0));
        assert!(reply.data == expected, "URB {number}");
    }
}

#[test]
fn interrupts_arrive() {
    let server = Server::start("");
    let mut client = server.attach();
    for number in 0..4u64 {
        let reply = transfer(&mut client, urb(0x83, 64), &[]);
        assert_eq!((reply.status, reply.data), (0, number.to_le_bytes().to_vec()));
    }
}

#[test]
fn isochronous_packets_flow_in_both_directions() {
    let server = Server::start("data=pattern");
    let mut client = server.attach();
    client.set_interface(1, 1).unwrap();
    let pattern = pdu::pattern(200 * 192);
    let descriptors = pdu::descriptors(200, 192);
    // More packets than usbfs takes at once.
    let submit = Submit { packets: 200, ..urb(0x85, 200 * 192) };
    let reply = transfer(&mut client, submit, &descriptors);
    assert_eq!((reply.status, reply.actual_length), (0, 200 * 192));
    assert_eq!(reply.packets, vec![(192, 0); 200]);
    assert!(reply.data == pattern);
    let submit = Submit { packets: 200, ..urb(0x05, 200 * 192) };
    let reply = transfer(&mut client, submit, &[pattern, descriptors].concat());
    assert_eq!((reply.status, reply.actual_length), (0, 200 * 192));
    let [bytes, _, errors] = client.counters(0x05).unwrap();
    assert_eq!((bytes, errors), (200 * 192, 0));
}

#[test]
fn unlink_cancels_urbs_in_flight() {
    let server = Server::start("");
    let mut client = server.attach();
    let silent = client.submit(urb(0x86, 512), &[]).unwrap();
    let interrupt = client.submit(urb(0x84, 64), &[]).unwrap();
    // Other URBs go on meanwhile.
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    for target in [interrupt, silent] {
        let seqnum = client.unlink(target).unwrap();
        let reply = client.reply().unwrap();
        assert_eq!((reply.seqnum, reply.is_unlink, reply.status), (seqnum, true, ECONNRESET));
    }
    let seqnum = client.unlink(silent).unwrap();
    let reply = client.reply().unwrap();
    assert_eq!((reply.seqnum, reply.is_unlink, reply.status), (seqnum, true, 0));
}

#[test]
fn the_kernel_driver_makes_room_and_comes_back() {
    let server = Server::start("");
    let client = server.attach();
    assert_eq!([server.has_driver(0), server.has_driver(1)], [false; 2]);
    drop(client);
    server.wait_for("1-1 connect 1");
    assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2]);
    let expected = ["claim 0", "claim 1", "release 0", "release 1", "connect 0", "connect 1"];
    assert_eq!(server.log(), expected.map(|line| format!("1-1 {line}")));
    // And again, now with URBs in flight.
    let mut client = server.attach();
    client.submit(urb(0x86, 512), &[]).unwrap();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    drop(client);
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    assert!(!server.log().iter().any(|line| line.contains("errno")), "{:?}", server.log());
}

#[test]
fn a_device_is_reset_before_it_is_given_back_if_that_is_wanted() {
    let server = Server::start_with("", &["--reset-on-release"]);
    let mut client = server.attach();
    client.submit(urb(0x86, 512), &[]).unwrap();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    drop(client);
    server.wait_for("1-1 connect 1");
    let log = server.log();
    let at = |line: &str| log.iter().position(|logged| logged == line);
    assert!(at("1-1 reset").is_some_and(|reset| Some(reset) < at("1-1 connect 0")), "{log:?}");
    assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2]);
    assert_eq!(transfer(&mut server.attach(), urb(0x81, 512), &[]).status, 0);
}

#[test]
fn a_device_that_was_unconfigured_is_given_back_configured() {
    let server = Server::start("");
    let mut client = server.attach();
    // As usbip-win2 leaves a device.
    assert_eq!(transfer(&mut client, request([0, 9, 0, 0, 0, 0, 0, 0]), &[]).status, 0);
    drop(client);
    server.wait_for("1-1 configuration 1");
    wait_until(|| server.has_driver(0) && server.has_driver(1), || "drivers".to_owned());
    assert_eq!(transfer(&mut server.attach(), urb(0x81, 512), &[]).status, 0);
}

#[test]
fn settings_of_a_client_outlive_resets_and_refusals() {
    let server = Server::start("");
    let mut client = server.attach();
    client.set_interface(1, 1).unwrap();
    // Both requests release the interface, and so put the interface back to setting 0.
    for (setup, status) in [(PORT_RESET, 0), ([0, 9, 7, 0, 0, 0, 0, 0], EPIPE)] {
        assert_eq!(transfer(&mut client, request(setup), &[]).status, status);
        let isochronous = Submit { packets: 1, ..urb(0x85, 1024) };
        let reply = transfer(&mut client, isochronous, &pdu::descriptors(1, 1024));
        assert_eq!((reply.status, reply.actual_length), (0, 1024));
    }
}

#[test]
fn after_a_kill_the_next_start_gives_interfaces_back() {
    let mut server = Server::start("");
    kill_attached(&mut server);
    let next = Server::start_in(server.root.clone(), "", &[]);
    // Before listening, so that no client comes in between.
    let connected = next.log().into_iter().filter(|line| line.contains("connect"));
    let expected = ["1-1 connect 0", "1-1 connect 1"];
    assert!(connected.zip(expected).filter(|(line, start)| line.starts_with(start)).count() == 2);
    assert_eq!(transfer(&mut next.attach(), urb(0x81, 512), &[]).status, 0);
    std::mem::forget(server);
}

/// A start without permission for the device leaves the repair to the next start.
#[test]
fn after_a_kill_the_next_start_with_permission_gives_interfaces_back() {
    let mut server = Server::start("");
    drop(server.attach());
    wait_until(|| server.notes() == 0, || "a note of what was given back".to_owned());
    kill_attached(&mut server);
    assert_eq!(server.notes(), 1);
    server.permit(false);
    let mut next = Server::start_in(server.root.clone(), "", &[]);
    assert_eq!(next.end().expect("it ends when it is told to").code(), Some(0));
    assert_eq!(([server.has_driver(0), server.has_driver(1)], server.notes()), ([false; 2], 1));
    server.permit(true);
    let last = Server::start_in(server.root.clone(), "", &[]);
    assert_eq!(([last.has_driver(0), last.has_driver(1)], last.notes()), ([true; 2], 0));
    std::mem::forget((server, next));
}

/// After a start without permission for the device the repair is still pending when a client
/// imports.
#[test]
fn after_a_kill_the_next_session_gives_interfaces_back() {
    let mut server = Server::start("");
    kill_attached(&mut server);
    server.permit(false);
    let next = Server::start_in(server.root.clone(), "", &[]);
    server.permit(true);
    drop(next.attach());
    next.wait_for("1-1 connect 1");
    assert_eq!([next.has_driver(0), next.has_driver(1)], [true; 2]);
    std::mem::forget(server);
}

/// Interface 0 with 0x81 in configuration 1; interfaces 0 and 3 with 0x82 and 0x03 in configuration
/// 2.
const TWO_CONFIGURATIONS: &str = concat!(
    "config=0902190001010080320904000001ff00000007058102000200",
    ":config=0902290002020080320904000001ff00000007058202000200",
    "0904030001ff00000007050302000200"
);

/// The repair also restores the configuration if the client had set another, with other interfaces
/// or none.
#[test]
fn after_a_kill_the_next_start_restores_the_configuration() {
    for (active, set) in [(1, 2), (1, 0), (2, 1), (2, 0)] {
        let options = format!("{TWO_CONFIGURATIONS}:active={active}");
        let mut server = Server::start(&options);
        let had = [0, 3].map(|interface| server.has_driver_in(1, active, interface));
        assert_eq!(had, [true, active == 2]);
        let mut client = server.attach();
        for value in [set, active, set] {
            let set = request([0, 9, value, 0, 0, 0, 0, 0]);
            assert_eq!(transfer(&mut client, set, &[]).status, 0);
        }
        server.process.kill().expect("it runs");
        server.process.wait().expect("it ends");
        let next = Server::start_in(server.root.clone(), &options, &[]);
        assert_eq!(next.attribute(1, "bConfigurationValue"), active.to_string(), "not {set}");
        let has = [0, 3].map(|interface| next.has_driver_in(1, active, interface));
        assert_eq!((has, next.notes()), (had, 0));
        std::mem::forget(server);
    }
}

/// Drivers on interfaces of the other configuration keep the device in that configuration until
/// they let go.
#[test]
fn after_a_kill_the_next_start_restores_the_configuration_of_drivers() {
    let mut server = Server::start(&format!("{TWO_CONFIGURATIONS}:refuse=claim@3,EBUSY"));
    let mut client = server.attach();
    let set = request([0, 9, 2, 0, 0, 0, 0, 0]);
    assert_eq!(transfer(&mut client, set, &[]).status, 0);
    server.process.kill().expect("it runs");
    server.process.wait().expect("it ends");
    assert!(server.has_driver_in(1, 2, 3));
    let next = Server::start_in(server.root.clone(), TWO_CONFIGURATIONS, &[]);
    assert!(next.has_driver(0), "{:?}", next.log());
    assert_eq!((next.attribute(1, "bConfigurationValue").as_str(), next.notes()), ("1", 0));
    std::mem::forget(server);
}

/// A repair not possible at the next start happens at the end of a session.
#[test]
fn after_a_kill_the_next_session_restores_the_configuration() {
    for set in [2, 0] {
        let mut server = Server::start(TWO_CONFIGURATIONS);
        let mut client = server.attach();
        let set = request([0, 9, set, 0, 0, 0, 0, 0]);
        assert_eq!(transfer(&mut client, set, &[]).status, 0);
        server.process.kill().expect("it runs");
        server.process.wait().expect("it ends");
        server.permit(false);
        let next = Server::start_in(server.root.clone(), TWO_CONFIGURATIONS, &[]);
        server.permit(true);
        drop(next.attach());
        wait_until(|| next.has_driver(0), || format!("{:?}", next.log()));
        wait_until(|| next.notes() == 0, || "a note of what was given back".to_owned());
        std::mem::forget(server);
    }
}

#[test]
fn a_device_without_a_driver_gets_none() {
    let server = Server::start("driver=");
    drop(server.attach());
    server.wait_for("1-1 release 1");
    drop(server.attach());
    assert!(!server.log().iter().any(|line| line.contains("connect")), "{:?}", server.log());
}

#[test]
fn an_unplug_ends_the_session_and_removes_the_device() {
    let server = Server::start("unplug=20");
    let mut client = server.attach();
    client.submit(urb(0x86, 512), &[]).unwrap();
    for _ in 1..20 {
        client.submit(urb(0x81, 512), &[]).unwrap();
    }
    let mut gone = 0;
    // Every answered URB is answered in full, and then the connection ends.
    while let Ok(reply) = client.reply() {
        match reply.status {
            0 => {}
            ENODEV | ESHUTDOWN => gone += 1,
            other => panic!("status {other}"),
        }
    }
    assert_eq!(gone, 2, "the silent one and the last");
    match Client::attach_when_free(&*server.address, "1-1") {
        Err(AttachError::Refused(NO_DEVICE)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn used_up_memory_delays_urbs_and_fails_none() {
    // Room for a URB of this size in each device but the last.
    let server = Server::start("quota=3M:count=16");
    let len = 200_000;
    let mut clients: Vec<Client> =
        (1..=16).map(|n| Client::attach(&*server.address, &format!("1-{n}")).unwrap()).collect();
    let (client, others) = clients.split_first_mut().expect("sixteen");
    // These URBs end only by an unlink, so that the memory is used up at any speed of the machine.
    for other in &mut *others {
        other.submit(urb(0x84, len), &[]).unwrap();
        // Behind the URB on the same connection: the device has the URB.
        assert_eq!(transfer(other, urb(0x83, 8), &[]).status, 0);
    }
    for _ in 0..32 {
        client.submit(urb(0x81, len), &[]).unwrap();
    }
    wait_until(|| server.counted(NO_MEMORY) > 0, || "there is still memory".to_owned());
    for other in others {
        other.unlink(1).unwrap();
        assert_eq!(other.reply().unwrap().status, ECONNRESET);
    }
    for number in 0..32_u64 {
        let reply = client.reply().unwrap();
        assert_eq!((reply.status, reply.actual_length as usize), (0, len), "URB {number}");
        assert_eq!(reply.data[..8], number.to_le_bytes());
    }
}

#[test]
fn memory_stays_within_what_limits_state() {
    // No URB ends during the test.
    let server = Server::start("quota=1024M:delay=600000ms");
    // Sixteen of the URBs would fill all buffers.
    let mut client = server.attach();
    client.set_interface(1, 1).unwrap();
    // Nearly all buffers with data inside, then all slots and all waiting places, with as many
    // packets as allowed.
    let data = vec![1; MEMORY_DEFAULT / 16];
    for _ in 0..14 {
        client.submit(urb(0x01, data.len()), &data).unwrap();
    }
    let descriptors = pdu::descriptors(1024, 8);
    let pending = URBS_DEFAULT + PACKETS_WAITING_MAX;
    for _ in 0..pending {
        client.submit(Submit { packets: 1024, ..urb(0x85, 1024 * 8) }, &descriptors).unwrap();
    }
    for _ in pending..URBS_DEFAULT + URBS_WAITING_MAX - 14 {
        client.submit(urb(0x81, 512), &[]).unwrap();
    }
    // After this answer all earlier PDUs have been read.
    client.unlink(0).unwrap();
    assert!(client.reply().unwrap().is_unlink, "nothing was refused");
    let peak = process::peak_memory(server.process.id()).expect("this is Linux");
    let stated = (SERVER_MEMORY + DeviceLimits::default().memory_max()) as u64;
    assert!(peak <= stated, "{peak} bytes, and limits.rs states {stated}");
    // Buffers and descriptors: otherwise not all memory was in use, and the test proves nothing.
    let used = 14 * data.len() + pending * descriptors.len();
    assert!(peak >= used as u64, "{peak} bytes, and {used} were sent");
}

#[test]
fn stalls_are_reported_and_the_next_urb_goes_on() {
    let server = Server::start("stall=3");
    let mut client = server.attach();
    for number in 1..=9 {
        let reply = transfer(&mut client, urb(0x81, 512), &[]);
        let expected = if number % 3 == 0 { (EPIPE, 0) } else { (0, 512) };
        assert_eq!((reply.status, reply.actual_length), expected, "URB {number}");
    }
    let reply = client.control([0x02, 1, 0, 0, 0x81, 0, 0, 0], &[]).unwrap();
    assert_eq!(reply.status, 0);
    server.wait_for("1-1 clear_halt 81");
}

/// The other device's URBs are done long before the reset.
#[test]
fn a_slow_reset_holds_up_its_own_device_only() {
    let server = Server::start("count=2:slow=5000ms");
    let mut slow = server.attach();
    let mut other = Client::attach(&*server.address, "1-2").unwrap();
    let reset = slow.submit(request(PORT_RESET), &[]).unwrap();
    let behind = slow.submit(urb(0x81, 512), &[]).unwrap();
    for _ in 0..100 {
        assert_eq!(transfer(&mut other, urb(0x81, 512), &[]).status, 0);
    }
    assert!(!slow.has_input().unwrap(), "the other device waited for this one's reset");
    for seqnum in [reset, behind] {
        let reply = slow.reply().unwrap();
        assert_eq!((reply.seqnum, reply.status), (seqnum, 0));
    }
}

/// Signals interrupt libusb's wait for its descriptors: no unplug, and nothing lost.
#[test]
fn an_interrupted_look_is_no_unplug() {
    for every in [2, 3, 7] {
        let server = Server::start(&format!("eintr={every}:delay=200us"));
        let mut client = server.attach();
        for round in 0..10 {
            for _ in 0..40 {
                client.submit(urb(0x81, 512), &[]).unwrap();
            }
            for number in 0..40 {
                let reply = client.reply().unwrap();
                assert_eq!((reply.status, reply.actual_length), (0, 512), "{round}: {number}");
            }
        }
        assert_eq!(server.said("libusb can't handle"), [""; 0]);
    }
}

/// Messages of workers about a troubled device fall under the same limit as all others.
#[test]
fn a_device_that_makes_trouble_does_not_make_the_log_long() {
    const TIMES: usize = 150;
    let server = Server::start("refuse=claim@1,EBUSY:refuse=connect,EIO:refuse=release,EIO");
    let begun = Instant::now();
    (0..TIMES).for_each(|_| drop(server.attach()));
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    let lines = server.said("").len();
    let most = COMPLAINTS_PER_SECOND as usize * (seconds + 2);
    assert!(lines <= most, "{lines} lines in {seconds} s and a bit");
    assert!(!server.said("interface 1 can't be claimed").is_empty());
}

/// While the system holds a device's lock, for any reason and time, other devices are listed and
/// imported. A client of the locked device is answered in time, and the device is busy until the
/// system lets go.
#[test]
fn a_client_of_a_locked_device_is_answered_in_time() {
    const NOT_AVAILABLE: u32 = 1;
    const BUSY: u32 = 2;
    let server = Server::start("count=2");
    drop(server.attach());
    let is_released = || !server.said("1-1: released").is_empty();
    wait_until(is_released, || "it is not given back".to_owned());
    server.hold(1, true);
    let address = server.address.clone();
    let stuck = std::thread::spawn(move || Client::attach(&*address, "1-1").map(drop));
    let mut other = Client::attach(&*server.address, "1-2").unwrap();
    assert_eq!(transfer(&mut other, urb(0x81, 512), &[]).status, 0);
    match stuck.join().unwrap() {
        Err(AttachError::Refused(NOT_AVAILABLE)) => {}
        answer => panic!("{answer:?}"),
    }
    match Client::attach(&*server.address, "1-1") {
        Err(AttachError::Refused(BUSY)) => {}
        answer => panic!("{answer:?}"),
    }
    server.hold(1, false);
    assert_eq!(transfer(&mut server.attach(), urb(0x81, 512), &[]).status, 0);
    assert_eq!(transfer(&mut other, urb(0x81, 512), &[]).status, 0);
}
