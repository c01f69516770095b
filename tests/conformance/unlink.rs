//! The race of SUBMIT and UNLINK.
//!
//! The client of these tests knows the rule: RET_UNLINK has status 0 if the RET_SUBMIT came before,
//! and -ECONNRESET if no RET_SUBMIT came or will come (`support/client.rs`). Each test adds the
//! situation.

use std::time::{Duration, Instant};

use crate::support::client::{ECONNRESET, ENOENT, EPIPE, MiniClient, Reply};
use crate::support::endpoints::{INTERRUPT_SILENT, ISO_SOURCE, LOOP_OUT, SILENT, SINK, SOURCE};
use crate::support::hex::hex;
use crate::support::random::Random;
use crate::support::submit::{Submit, setup, unlink_bytes};
use crate::support::{Server, pattern};
use usbferry::usb::sim::loopback::request;

fn start() -> (Server, MiniClient) {
    let server = Server::start("loopback");
    let client = server.attach();
    (server, client)
}

/// To the byte.
#[test]
fn unlink_in_flight_gets_econnreset_and_no_other_reply() {
    let (_server, mut client) = start();
    client.send(&hex("00000001 00000004 D 00000001 00000006 / 00000200 00000200 0 0 0 / Z(8)"));
    client.send(&hex("00000002 00000005 D 0 0 00000004 Z(24)"));
    assert_eq!(client.read(48), hex("00000004 00000005 Z(12) FFFFFF98 Z(24)"));
    // No RET_SUBMIT ever, not even when the device has data at last.
    client.set_next_seqnum(6);
    client.command(request::RELEASE, 16, SILENT.into());
    client.assert_in_sync();
    assert_eq!(client.call_ok(&Submit::read(SILENT, 512)), pattern(0, 16), "for the next one");
}

/// The same for every kind of endpoint that can keep a URB.
#[test]
fn unlink_in_flight_works_on_every_kind_of_endpoint() {
    let server = Server::start("loopback:pace=on:delay=500ms");
    let mut client = server.attach();
    client.set_interface(1, 1);
    for submit in [
        Submit::read(SILENT, 512),
        Submit::read(INTERRUPT_SILENT, 64),
        Submit::write(SINK, &[0; 1000]),
        Submit::write(LOOP_OUT, &[0; 300 << 10]),
        Submit::iso_read(ISO_SOURCE, &[192; 32]),
        Submit::iso_write(0x05, &[0; 6144], &[192; 32]),
        Submit::get_device_descriptor(),
        Submit::control(setup(request::OUT, request::WRITE, 0, 0, 8), &[1; 8]),
    ] {
        let target = client.submit(&submit);
        let unlink = client.unlink(target);
        assert_eq!(client.ret_unlink(unlink), ECONNRESET, "{submit:?}");
    }
    client.assert_in_sync();
}

#[test]
fn unlink_after_the_reply_gets_0() {
    let (_server, mut client) = start();
    client.send(&hex("00000001 00000004 D 00000001 00000001 / 00000200 00000002 0 0 0 / Z(8)"));
    let expected = hex("00000003 00000004 Z(12) / 0 00000002 0 0 0 / Z(8) / 0001");
    assert_eq!(client.read(50), expected);
    client.send(&hex("00000002 00000005 D 0 0 00000004 Z(24)"));
    assert_eq!(client.read(48), hex("00000004 00000005 Z(12) 0 Z(24)"));
}

/// Nothing is to be cancelled, so the port stays with the reactor, and the next SUBMIT ends at
/// once.
#[test]
fn unlink_in_one_segment_with_a_urb_that_ends_at_once_gets_0() {
    let (_server, mut client) = start();
    for submit in [Submit::read(SOURCE, 512), Submit::write(SINK, &[0; 64])] {
        let (target, mut bytes) = client.prepare(&submit);
        let (unlink, unlink_bytes) = client.prepare_unlink(target);
        bytes.extend(unlink_bytes);
        client.send(&bytes);
        assert_eq!(client.ret(target).status, 0);
        assert_eq!(client.ret_unlink(unlink), 0);
    }
}

/// How a round of the race goes.
#[derive(Clone, Copy)]
enum Race {
    /// The device's delay and the UNLINK run against each other.
    Delay,
    /// The device is told to answer just before.
    ReleaseBefore,
    /// The device is told to answer just after.
    ReleaseAfter,
    /// Nothing but the UNLINK happens.
    Silence,
    /// The cancelled URB turns out to be done, with data.
    Late,
    /// The cancelled URB has a part of its data.
    LatePartial,
}

/// Outcomes of the race.
#[derive(Default, Debug)]
struct Outcomes {
    answered: u32,
    cancelled: u32,
    /// Bytes received from [`SOURCE`] and [`SILENT`].
    received: [u64; 2],
}

/// 100,000 rounds, many of them under way at once. No byte sent by the device is lost: a byte
/// taken by a cancelled URB would be missing in the data of the next.
#[test]
fn unlink_race() {
    const ROUNDS: u32 = 100_000;
    const SEED: u64 = 59;
    let server = Server::start("loopback:delay=60us");
    let mut client = server.attach();
    let mut random = Random::new(SEED);
    let mut outcomes = Outcomes::default();
    let mut rounds = 0;
    while rounds < ROUNDS {
        let race = random.one_of(&[
            Race::Delay,
            Race::ReleaseBefore,
            Race::ReleaseAfter,
            Race::Silence,
            Race::Late,
            Race::LatePartial,
        ]);
        // A plan for a cancelled URB holds for a single URB.
        let batch = 1 + random.below(if matches!(race, Race::Delay) { 150 } else { 3 });
        run_batch(&mut client, &mut random, race, batch, &mut outcomes);
        rounds += batch;
    }
    println!("seed {SEED}: {rounds} rounds, {outcomes:?}");
    assert_eq!(outcomes.answered + outcomes.cancelled, rounds);
    assert!(outcomes.answered > 0 && outcomes.cancelled > 0);
}

fn run_batch(
    client: &mut MiniClient,
    random: &mut Random,
    race: Race,
    batch: u32,
    outcomes: &mut Outcomes,
) {
    let address = if matches!(race, Race::Delay) { SOURCE } else { SILENT };
    let command = |request, value| {
        Submit::control(setup(request::OUT, request, value, address.into(), 0), &[])
    };
    let before = match race {
        Race::ReleaseBefore => Some(command(request::RELEASE, 3)),
        Race::Late => Some(command(request::CANCEL_DONE, 5)),
        Race::LatePartial => Some(command(request::CANCEL_PARTIAL, 7)),
        Race::Delay | Race::ReleaseAfter | Race::Silence => None,
    };
    let after = matches!(race, Race::ReleaseAfter).then(|| command(request::RELEASE, 2));
    let mut bytes = Vec::new();
    let mut targets = Vec::new();
    for _ in 0..batch {
        let (target, submit) = client.prepare(&Submit::read(address, 8));
        targets.push(target);
        bytes.extend(submit);
    }
    if random.below(2) == 0 {
        client.send(&bytes);
        bytes.clear();
        spin(Duration::from_micros(random.below(200).into()));
    }
    // Oldest first, newest first, or any order.
    match random.below(3) {
        0 => {}
        1 => targets.reverse(),
        _ => (1..targets.len()).for_each(|last| {
            let other = random.below(u32::try_from(last + 1).unwrap());
            targets.swap(last, other as usize);
        }),
    }
    for &target in &targets {
        bytes.extend(before.iter().flat_map(|submit| client.prepare(submit).1));
        bytes.extend(client.prepare_unlink(target).1);
        bytes.extend(after.iter().flat_map(|submit| client.prepare(submit).1));
    }
    client.send(&bytes);
    collect(client, &targets, usize::from(address == SILENT), outcomes);
}

/// Reads until everything is answered.
fn collect(client: &mut MiniClient, targets: &[u32], stream: usize, outcomes: &mut Outcomes) {
    while client.outstanding() > 0 {
        match client.reply() {
            Reply::Submit(ret) if targets.contains(&ret.seqnum) => {
                assert!(ret.status == 0 || ret.actual_length > 0, "{ret:?}");
                let position = &mut outcomes.received[stream];
                assert_eq!(ret.data, pattern(*position, ret.data.len()), "at {position}");
                *position += u64::from(ret.actual_length);
                outcomes.answered += 1;
            }
            // A control request of the test.
            Reply::Submit(ret) => assert_eq!(ret.status, 0),
            Reply::Unlink(ret) if ret.status == 0 => {}
            Reply::Unlink(_) => outcomes.cancelled += 1,
        }
    }
}

/// Lets a little time pass, which is not waited for: any amount is right.
fn spin(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn unlink_keeps_the_data_that_the_device_has_sent() {
    let (_server, mut client) = start();
    for (request, status, bytes) in [
        (request::CANCEL_DONE, 0, 100),
        (request::CANCEL_PARTIAL, ECONNRESET, 60),
        (request::CANCEL_DONE, 0, 0),
        (request::CANCEL_DONE, 0, 512),
    ] {
        let target = client.submit(&Submit::read(SILENT, 512));
        client.command(request, bytes, SILENT.into());
        let unlink = client.unlink(target);
        let ret = client.ret(target);
        assert_eq!((ret.status, ret.actual_length), (status, bytes.into()));
        assert_eq!(client.ret_unlink(unlink), 0);
    }
    assert_eq!(client.counters(SILENT).bytes, 672);
}

/// The same with a slow cancel, during which other events happen.
#[test]
fn unlink_while_cancelling_takes_long() {
    let (_server, mut client) = start();
    client.command(request::CANCEL_DELAY, 50, 0);
    let pending = client.submit_all(&vec![Submit::read(SILENT, 512); 3]);
    client.command(request::CANCEL_DONE, 9, SILENT.into());
    // From here on the worker has the device: submitted URBs wait for its return, and are unlinked
    // without the device.
    let first = client.unlink(pending[0]);
    let (waiting, waiting_bytes) = client.prepare(&Submit::read(SILENT, 512));
    let (unlink_waiting, unlink_bytes) = client.prepare_unlink(waiting);
    let (again, again_bytes) = client.prepare_unlink(pending[0]);
    let (second, second_bytes) = client.prepare_unlink(pending[2]);
    client.send(&[waiting_bytes, unlink_bytes, again_bytes, second_bytes].concat());
    let mut order = Vec::new();
    while client.outstanding() > 1 {
        match client.reply() {
            Reply::Submit(ret) => {
                assert_eq!((ret.seqnum, ret.actual_length), (pending[0], 9));
                order.push(ret.seqnum);
            }
            Reply::Unlink(ret) => {
                // Waiting URBs were not with the device, unless the worker was done already.
                assert_eq!(ret.status == 0, ret.seqnum == first || ret.seqnum == again);
                order.push(ret.seqnum);
            }
        }
    }
    let place = |seqnum| order.iter().position(|&other| other == seqnum).expect("it was answered");
    assert!(place(pending[0]) < place(first));
    assert!(place(first) < place(second), "{order:?}");
    assert!(place(unlink_waiting) < place(second), "{order:?}");
    assert!(client.awaits(pending[1]), "the one in the middle is still there");
    client.command(request::RELEASE, 1, SILENT.into());
    assert_eq!(client.ret(pending[1]).actual_length, 1);
}

#[test]
fn unlink_of_an_unknown_seqnum_gets_0() {
    let (_server, mut client) = start();
    for target in [12345, 0, u32::MAX, 1] {
        let unlink = client.unlink(target);
        assert_eq!(client.ret_unlink(unlink), 0);
    }
    // The UNLINK's own number, and the number of another UNLINK.
    let own = client.take_seqnum();
    client.send(&unlink_bytes(own, client.devid, own));
    let expected = hex(&format!("00000004 {own:08x} Z(12) 0 Z(24)"));
    assert_eq!(client.read(48), expected);
    let unlink = client.unlink(own);
    assert_eq!(client.ret_unlink(unlink), 0);
    client.assert_in_sync();
}

#[test]
fn a_second_unlink_of_a_urb_gets_0() {
    let (_server, mut client) = start();
    let target = client.submit(&Submit::read(SILENT, 512));
    let (first, first_bytes) = client.prepare_unlink(target);
    let (second, second_bytes) = client.prepare_unlink(target);
    client.send(&[first_bytes, second_bytes].concat());
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let Reply::Unlink(ret) = client.reply() else { panic!("no RET_SUBMIT") };
        statuses.push((ret.seqnum, ret.status));
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [(first, ECONNRESET), (second, 0)]);
    let third = client.unlink(target);
    assert_eq!(client.ret_unlink(third), 0);
    client.assert_in_sync();
}

/// More URBs than slots.
#[test]
fn unlink_in_any_order_reaches_urbs_in_flight_and_waiting() {
    let (_server, mut client) = start();
    for order in 0..3 {
        let mut pending = client.submit_all(&vec![Submit::read(SILENT, 16384); 500]);
        match order {
            0 => {}
            1 => pending.reverse(),
            // The middle first.
            _ => pending.rotate_left(250),
        }
        let unlinks: Vec<u8> =
            pending.iter().flat_map(|&target| client.prepare_unlink(target).1).collect();
        client.send(&unlinks);
        for _ in 0..500 {
            let Reply::Unlink(ret) = client.reply() else { panic!("nothing has ended") };
            assert_eq!(ret.status, ECONNRESET);
        }
        assert_eq!(client.outstanding(), 0);
        client.assert_in_sync();
    }
}

/// The same with more URBs than can wait: the surplus is refused, the others are unlinked.
#[test]
fn unlink_more_than_can_wait() {
    let (_server, mut client) = start();
    let pending = client.submit_all(&vec![Submit::read(SILENT, 64); 10_000]);
    // The last first, like Linux when a driver gives up its URBs.
    let unlinks: Vec<u8> =
        pending.iter().rev().flat_map(|&target| client.prepare_unlink(target).1).collect();
    client.send(&unlinks);
    let (mut refused, mut unlinked) = (0, 0);
    while client.outstanding() > 0 {
        match client.reply() {
            Reply::Submit(ret) => {
                assert_eq!(ret.status, crate::support::client::ENOMEM);
                refused += 1;
            }
            Reply::Unlink(ret) => unlinked += u32::from(ret.status != 0),
        }
    }
    assert_eq!(refused + unlinked, 10_000);
    assert!(unlinked >= 256 + 8192, "as many as are promised: {unlinked}");
    client.assert_in_sync();
}

/// All PDUs come in one segment, and the special request takes long.
#[test]
fn unlink_behind_a_special_request_is_answered_at_once() {
    let (_server, mut client) = start();
    client.command(request::SPECIAL_DELAY, 300, 0);
    let (special, mut bytes) = client.prepare(&Submit::set_interface(1, 1));
    let held: Vec<u32> = [
        Submit::read(SOURCE, 64),
        Submit::write(SINK, &[1; 5000]),
        Submit::iso_read(ISO_SOURCE, &[192; 4]),
        Submit::get_device_descriptor(),
        Submit::clear_halt(SOURCE),
        Submit::read(SILENT, 64),
    ]
    .iter()
    .map(|submit| {
        let (seqnum, submit) = client.prepare(submit);
        bytes.extend(submit);
        seqnum
    })
    .collect();
    let unlinks: Vec<u32> = held[..5]
        .iter()
        .map(|&target| {
            let (seqnum, unlink) = client.prepare_unlink(target);
            bytes.extend(unlink);
            seqnum
        })
        .collect();
    client.send(&bytes);
    for unlink in unlinks {
        assert_eq!(client.ret_unlink(unlink), ECONNRESET);
    }
    assert_eq!(client.ret(special).status, 0);
    assert_eq!(client.counters(SINK).urbs, 0, "nothing of it reached the device");
    // The remaining URB went on afterwards.
    client.command(request::RELEASE, 4, SILENT.into());
    assert_eq!(client.ret(held[5]).actual_length, 4);
    assert_eq!(client.performed(), [0, 1, 0, 0]);
}

/// The result of the special request is dropped, and the URBs behind go on afterwards.
#[test]
fn unlink_of_a_special_request_under_way_is_answered_at_once() {
    let (_server, mut client) = start();
    let answered = client.submit(&Submit::read(SOURCE, 8));
    assert_eq!(client.ret(answered).status, 0);
    client.command(request::SPECIAL_DELAY, 100, 0);
    let special = client.submit(&Submit::set_interface(1, 1));
    let behind = client.submit(&Submit::iso_read(ISO_SOURCE, &[192; 4]));
    // After this answer the request is being performed.
    let nothing = client.unlink(answered);
    assert_eq!(client.ret_unlink(nothing), 0);
    let unlink = client.unlink(special);
    assert_eq!(client.ret_unlink(unlink), ECONNRESET);
    let again = client.unlink(special);
    assert_eq!(client.ret_unlink(again), 0);
    assert_eq!(client.ret(behind).data, pattern(0, 768));
    // The number is free at once.
    client.command(request::SPECIAL_DELAY, 0, 0);
    let same = Submit { seqnum: Some(special), ..Submit::set_interface(1, 0) };
    assert_eq!(client.call(&same).status, 0);
    // The same with failing requests, which the device must then answer itself.
    client.command(request::SPECIAL_DELAY, 50, 0);
    for submit in [Submit::set_interface(1, 9), Submit::clear_halt(0x8e), Submit::port_reset()] {
        let special = client.submit(&submit);
        let nothing = client.unlink(answered);
        assert_eq!(client.ret_unlink(nothing), 0);
        let unlink = client.unlink(special);
        assert_eq!(client.ret_unlink(unlink), ECONNRESET);
        client.assert_in_sync();
    }
}

/// The request is unlinked before its turn, and not performed.
#[test]
fn a_special_request_unlinked_before_its_turn_is_not_performed() {
    let (_server, mut client) = start();
    let (special, bytes) = client.prepare(&Submit::set_interface(1, 1));
    let (behind, behind_bytes) = client.prepare(&Submit::iso_read(ISO_SOURCE, &[192; 4]));
    let (unlink, unlink_bytes) = client.prepare_unlink(special);
    client.send(&[bytes, behind_bytes, unlink_bytes].concat());
    assert_eq!(client.ret_unlink(unlink), ECONNRESET);
    let ret = client.ret(behind);
    assert_eq!((ret.status, ret.actual_length), (ENOENT, 0), "setting 0 has no such endpoint");
    client.assert_in_sync();
}

/// A URB cancelled by the barrier is unlinked meanwhile.
#[test]
fn unlink_of_a_urb_cancelled_by_a_barrier() {
    let (_server, mut client) = start();
    client.command(request::CANCEL_DELAY, 20, 0);
    let pending = client.submit_all(&vec![Submit::read(SILENT, 64); 4]);
    client.assert_in_sync();
    let (special, mut bytes) = client.prepare(&Submit::set_interface(0, 0));
    for &target in &pending {
        bytes.extend(client.prepare_unlink(target).1);
    }
    client.send(&bytes);
    for _ in &pending {
        let Reply::Unlink(ret) = client.reply() else { panic!("only unlinks are answered") };
        assert_eq!(ret.status, ECONNRESET);
    }
    assert_eq!(client.ret(special).status, 0);
    client.assert_in_sync();
}

/// A stall during the cancel of a URB: the reply has the stall, the URB's actual end.
#[test]
fn a_stall_during_an_unlink_is_the_reply() {
    let (_server, mut client) = start();
    let pending = client.submit_all(&vec![Submit::read(SILENT, 64); 2]);
    let halt = Submit::control(setup(request::OUT, request::HALT, 0, SILENT.into(), 0), &[]);
    let (halt, mut bytes) = client.prepare(&halt);
    let (unlink, unlink_bytes) = client.prepare_unlink(pending[0]);
    bytes.extend(unlink_bytes);
    client.send(&bytes);
    assert_eq!(client.ret(halt).status, 0);
    assert_eq!(client.ret(pending[0]).status, EPIPE);
    assert_eq!(client.ret_unlink(unlink), 0);
    assert_eq!(client.ret(pending[1]).status, EPIPE);
}
