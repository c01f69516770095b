//! Clients that break the rules, vanish, or do not read, and any other input. The result is the
//! right reply, or the end of the peer's own connection with a line in the log; the device is free
//! again, and all other clients are served.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use crate::support::client::{ENOENT, ENOMEM, Ending, MiniClient, Reply, import_bytes, word};
use crate::support::endpoints::{ISO_SINK, SILENT, SINK, SOURCE};
use crate::support::hex::hex;
use crate::support::random::Random;
use crate::support::submit::{IN, OUT, Submit, setup, unlink_bytes};
use crate::support::{D, LEN_MAX, Server, log, pattern};
use usbferry::config::Settings;
use usbferry::limits::{PEER_TIMEOUT_MAX, VIOLATION_REST};

/// As small as a device can be: attaching is cheap then.
fn small(settings: &mut Settings) {
    settings.policy.limits.urbs = 64;
    settings.policy.limits.memory = 1 << 20;
    settings.policy.limits.device_memory = 0;
    settings.policy.limits.urb_len = 512 << 10;
}

/// Checks that a connection was closed for the client's input, with a single line in the log that
/// gives the reason, and that the device is free again.
fn expect_violation(server: &Server, mut client: MiniClient, says: &str) {
    let address = client.address();
    client.read_to_end();
    server.assert_serves(0);
    assert_complaint(address, says);
}

fn assert_complaint(client: SocketAddr, says: &str) {
    let complaints = log::complaints_about(client);
    assert_eq!(complaints.len(), 1, "one line: {complaints:?}");
    assert!(complaints[0].contains(says), "{complaints:?}");
}

/// Attaches, sends the bytes, and expects the end of the connection without a reply.
fn expect_thrown_out(server: &Server, bytes: &[u8], says: &str) {
    let client = server.attach();
    let address = client.address();
    client.send_anyway(bytes);
    client.expect_drop();
    server.assert_serves(0);
    assert_complaint(address, says);
}

/// The payload is discarded, and the stream stays in step.
#[test]
fn a_urb_for_an_unknown_endpoint_gets_enoent() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.send(&hex("00000001 00000001 D 0 00000009 / 0 00000040 0 0 0 / Z(8) / Z(64)"));
    let expected = hex("00000003 00000001 Z(12) / fffffffe 0 0 0 0 / Z(8)");
    assert_eq!(client.read(48), expected);
    client.assert_in_sync();
    for address in [0x09, 0x8f, 0x84 & 0x0f, 0x81 + 6] {
        let submit = match address & 0x80 {
            0 => Submit::write(address, &[1; 1000]),
            _ => Submit::read(address, 1000),
        };
        for number_of_packets in [0, u32::MAX, 1025, 0x8000_0000] {
            let ret = client.call(&Submit { number_of_packets, ..submit.clone() });
            assert_eq!((ret.status, ret.actual_length), (ENOENT, 0), "{address:#x}");
        }
        // A plausible number of packets is believed: the descriptors follow, and come back.
        let ret = client.call(&submit.with_packets(&[(0, 500), (500, 500)]));
        assert_eq!((ret.status, ret.actual_length, ret.error_count), (ENOENT, 0, 2));
        client.assert_in_sync();
    }
    // Payload as large as a server takes is thrown away as well.
    let ret = client.call(&Submit::write(0x09, &vec![7; LEN_MAX as usize]));
    assert_eq!((ret.status, ret.actual_length), (ENOENT, 0));
    client.assert_in_sync();
}

#[test]
fn an_endpoint_number_above_15_closes_the_connection() {
    log::keep();
    let server = Server::start("loopback");
    for endpoint in [16, 0x81, 0x101, 0x8000_0001, u32::MAX] {
        let submit = Submit { endpoint, ..Submit::read(SOURCE, 64) };
        expect_thrown_out(&server, &submit.bytes(1, D), "endpoint");
    }
}

#[test]
fn an_unknown_direction_closes_the_connection() {
    log::keep();
    let server = Server::start("loopback");
    for direction in [2, 0x80, 0x0100_0000, u32::MAX] {
        let submit = Submit { direction, ..Submit::read(SOURCE, 64) };
        expect_thrown_out(&server, &submit.bytes(1, D), "direction");
    }
}

#[test]
fn a_negative_length_closes_the_connection() {
    log::keep();
    let server = Server::start("loopback");
    for length in [0xffff_ffff, 0x8000_0000, 0x8000_0001] {
        for submit in [
            Submit::read(SOURCE, 64),
            Submit::write(SINK, &[0; 64]),
            Submit::get_device_descriptor(),
            Submit::read(0x89, 64),
        ] {
            let bytes = Submit { length, ..submit }.bytes(1, D);
            expect_thrown_out(&server, &bytes, "transfer_buffer_length");
        }
    }
}

/// IN is answered -ENOMEM, OUT closes the connection. `no_alloc.rs` shows that no memory is
/// allocated.
#[test]
fn a_length_above_the_limit_is_refused() {
    log::keep();
    let server = Server::start("loopback");
    let mut client = server.attach();
    for length in [0x7fff_ffff, 0x7fff_0000, LEN_MAX + 1] {
        for submit in [
            Submit::read(SOURCE, 0),
            Submit::read(SILENT, 0),
            Submit::read(0x89, 0),
            Submit::get_device_descriptor(),
        ] {
            let ret = client.call(&Submit { length, ..submit });
            assert_eq!((ret.status, ret.actual_length), (ENOMEM, 0));
        }
    }
    client.assert_in_sync();
    drop(client);
    for length in [0x7fff_ffff, LEN_MAX + 1] {
        for submit in [
            Submit::write(SINK, &[0; 64]),
            Submit::write(0x09, &[0; 64]),
            Submit::control(setup(0x40, 3, 0, 0, 64), &[0; 64]),
        ] {
            let bytes = Submit { length, ..submit }.bytes(1, D);
            expect_thrown_out(&server, &bytes, "--urb-size");
        }
    }
}

/// In both commands, and with devids that are nearly right.
#[test]
fn another_devid_closes_the_connection() {
    log::keep();
    let server = Server::start("loopback:count=2");
    for devid in [0x0009_0009, 0x0001_0003, 0x0002_0001, 0, u32::MAX, 0x0101_0002, 2] {
        let submit = Submit::get_device_descriptor().bytes(1, devid);
        expect_thrown_out(&server, &submit, "not for the imported device");
        expect_thrown_out(&server, &unlink_bytes(1, devid, 7), "not for the imported device");
    }
}

/// Replies, requests of a handshake (a second IMPORT among them), and numbers without a meaning.
#[test]
fn an_unknown_command_closes_the_connection() {
    log::keep();
    let server = Server::start("loopback");
    for command in [3, 4, 5, 0, u32::MAX, 0x0100_0000, 0x0111_8003, 0x0111_8005] {
        let mut bytes = Submit::get_device_descriptor().bytes(1, D);
        bytes[..4].copy_from_slice(&u32::to_be_bytes(command));
        expect_thrown_out(&server, &bytes, "unknown command");
    }
}

/// Unused fields of an UNLINK can have any value.
#[test]
fn unused_fields_of_an_unlink_are_ignored() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let target = client.submit(&Submit::read(SILENT, 64));
    let (unlink, mut bytes) = client.prepare_unlink(target);
    bytes[0x0c..0x14].fill(0xff);
    bytes[0x18..].fill(0xff);
    client.send(&bytes);
    assert_eq!(client.ret_unlink(unlink), crate::support::client::ECONNRESET);
}

/// A violation with URBs in flight, and a violation amid correct PDUs: the device is free again all
/// the same.
#[test]
fn a_violation_among_urbs_frees_the_device() {
    log::keep();
    let server = Server::start("loopback");
    for position in [0, 1, 50, 199] {
        let mut client = server.attach();
        let mut bytes = Vec::new();
        for index in 0..200 {
            let submit = match (index, index % 3) {
                (index, _) if index == position => {
                    Submit { direction: 9, ..Submit::read(SILENT, 1) }
                }
                (_, 0) => Submit::read(SILENT, 512),
                (_, 1) => Submit::read(SOURCE, 512),
                _ => Submit::write(SINK, &[0; 100]),
            };
            bytes.extend(client.prepare(&submit).1);
        }
        client.send_anyway(&bytes);
        expect_violation(&server, client, "invalid direction 9");
    }
}

/// A client that vanishes needs lost packets, and loopback loses none without privileges. The test
/// shows that the kernel watches an idle connection, within the time of `src/reactor/net.rs`.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_connection_has_a_keepalive_timer() {
    const KEEPALIVE: &str = "02";
    /// 10 s, and a second for the clock's ticks; USER_HZ is 100 on every Linux.
    const JIFFIES_MAX: u64 = 1100;
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.assert_in_sync();
    let [ours, theirs] = [server.address, client.address()].map(|a| format!(":{:04X}", a.port()));
    crate::support::wait_until("the server's socket has its keepalive timer", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("there is a /proc");
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = lines.find(|line| line[1].ends_with(&ours) && line[2].ends_with(&theirs));
        let (timer, when) = line.expect("it is connected")[5].split_once(':').expect("tr:tm");
        let when = u64::from_str_radix(when, 16).expect("jiffies");
        timer == KEEPALIVE && when <= JIFFIES_MAX
    });
}

/// The client gets every reply once it reads.
#[test]
fn a_client_that_does_not_read_holds_up_no_other() {
    const URBS: usize = 2000;
    const LEN: u32 = 40_000;
    let server = Server::start_with("loopback:count=2", |settings| {
        settings.policy.limits.memory = 4 << 20;
        settings.policy.limits.urb_len = 1 << 20;
    });
    let mut slow = server.attach_to(0);
    let seqnums = slow.submit_all(&vec![Submit::read(SOURCE, LEN); URBS]);
    let silent = slow.submit(&Submit::read(SILENT, 64));
    let unlink = slow.unlink(silent);
    let mut other = server.attach_to(1);
    for index in 0..200 {
        assert_eq!(other.call_ok(&Submit::read(SOURCE, 512)), pattern(index * 512, 512));
    }
    let mut unlinked = false;
    for (position, seqnum) in (0..).step_by(LEN as usize).zip(seqnums) {
        loop {
            match slow.reply() {
                Reply::Submit(ret) => {
                    assert_eq!((ret.seqnum, ret.status), (seqnum, 0));
                    assert!(ret.data == pattern(position, LEN as usize), "from {position} on");
                    break;
                }
                Reply::Unlink(ret) => unlinked = ret.seqnum == unlink,
            }
        }
    }
    if !unlinked {
        assert_eq!(slow.ret_unlink(unlink), crate::support::client::ECONNRESET);
    }
    slow.assert_in_sync();
}

/// The same with replies without data: UNLINKs without end, none answered before the client reads,
/// and SUBMITs beyond the limit of waiting URBs. The server stops reading at some point, and goes
/// on when possible.
#[test]
fn answers_without_end() {
    const COUNT: u32 = 30_000;
    // The client takes nothing until the other client has been served, perhaps for a while.
    let patient = |settings: &mut Settings| settings.peer_timeout = PEER_TIMEOUT_MAX;
    let server = Server::start_with("loopback:count=2", patient);
    for submits in [false, true] {
        let mut slow = server.attach_to(0);
        let mut bytes = Vec::new();
        for seqnum in 1..=COUNT {
            if submits && seqnum % 2 == 0 {
                bytes.extend(Submit::read(SILENT, 64).bytes(seqnum, slow.devid));
            } else {
                bytes.extend(unlink_bytes(seqnum, slow.devid, 0));
            }
        }
        // The last SUBMIT is answered, or refused, when all other answers have been read.
        bytes.extend(Submit::get_device_descriptor().bytes(COUNT + 1, slow.devid));
        let mut writer = slow.stream().try_clone().expect("there are descriptors");
        let writing = thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
        let mut other = server.attach_to(1);
        for _ in 0..100 {
            other.assert_in_sync();
        }
        let mut answers = 0;
        loop {
            let header = slow.read(48);
            answers += 1;
            match (word(&header, 0), word(&header, 4)) {
                (3, seqnum) if seqnum == COUNT + 1 => break,
                (3, _) => assert_eq!(word(&header, 20).cast_signed(), ENOMEM),
                (4, _) => assert_eq!(word(&header, 20), 0),
                other => panic!("{other:?}"),
            }
        }
        writing.join().expect("no panic").expect("the server reads it all");
        if submits {
            // Each UNLINK, and each refused SUBMIT.
            assert!(answers > COUNT / 2 && answers < COUNT, "{answers}");
        } else {
            assert_eq!(answers, COUNT + 1);
        }
    }
}

/// A client that never reads and goes away.
#[test]
fn a_slow_reader_may_leave() {
    let server = Server::start("loopback");
    for _ in 0..5 {
        let mut client = server.attach();
        client.submit_all(&vec![Submit::read(SOURCE, 100_000); 300]);
        // A first byte has come, so the server is in the middle of a write.
        client.read(1000);
    }
    server.assert_serves(0);
}

/// An IMPORT, followed by every kind of PDU.
fn conversation(server: &Server) -> Vec<u8> {
    [
        import_bytes(server.busid(0).as_wire()),
        Submit::set_interface(1, 1).bytes(1, D),
        Submit::read(SILENT, 512).bytes(2, D),
        Submit::write(SINK, &[5; 32]).bytes(3, D),
        Submit::iso_write(ISO_SINK, &[6; 20], &[10, 10]).bytes(4, D),
        Submit::control(setup(0x40, 3, 0, 0, 6), &[7; 6]).bytes(5, D),
        unlink_bytes(6, D, 2),
    ]
    .concat()
}

/// Sends the start of a conversation, as soon as the device is free.
fn begin(server: &Server, bytes: &[u8]) -> MiniClient {
    server.assert_serves(0);
    // The checking client is still on its way out, and an import would notice.
    let mut started = None;
    crate::support::wait_until("the device is free", || {
        let mut client = server.connect();
        client.send(bytes);
        // A status is among the first bytes of an answer to a whole request.
        let refused = bytes.len() >= 40 && word(&client.read(8), 4) != 0;
        started = Some(client);
        !refused
    });
    started.expect("it was made")
}

/// The client closes its sending side at every byte of a conversation.
#[test]
fn end_of_stream_at_every_byte() {
    let server = Server::start_with("loopback", small);
    let whole = conversation(&server);
    for end in 0..=whole.len() {
        let mut client = begin(&server, &whole[..end]);
        client.shutdown();
        let (_, ending) = client.read_to_end();
        assert_eq!(ending, Ending::Fin, "after {end} bytes");
    }
}

/// The client is gone, at every byte of a conversation; every other time with a reset.
#[test]
fn connection_lost_at_every_byte() {
    let server = Server::start_with("loopback", small);
    let whole = conversation(&server);
    for end in 0..=whole.len() {
        let client = begin(&server, &whole[..end]);
        if end % 2 == 0 {
            let socket = socket2::SockRef::from(client.stream());
            socket.set_linger(Some(std::time::Duration::ZERO)).expect("a TCP socket");
        }
    }
    server.assert_serves(0);
}

/// Values at the edge of a range.
const EXTREMES: [u32; 22] = [
    0,
    1,
    2,
    3,
    4,
    15,
    16,
    0x7f,
    0x80,
    0x81,
    0xff,
    0x100,
    1023,
    1024,
    1025,
    0xffff,
    0x0001_0000,
    0x0100_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
];

/// Each word of a header with each extreme value: either the stream stays in step, or the
/// connection is closed. The data behind the header has the header's length.
#[test]
fn header_fields_with_extreme_values() {
    let server = Server::start_with("loopback", small);
    let originals = [
        Submit::read(SOURCE, 64),
        Submit::write(SINK, &[1; 64]),
        Submit::get_device_descriptor(),
        Submit::iso_read(0x85, &[32, 32]),
        Submit::iso_write(ISO_SINK, &[2; 64], &[32, 32]),
    ];
    let (mut in_step, mut closed) = (0, 0);
    let attach = || {
        let mut client = server.attach();
        client.set_interface(1, 1);
        client
    };
    let mut client = attach();
    for original in &originals {
        for field in 0..12 {
            for value in EXTREMES {
                if run_extreme(&client, original, field, value) {
                    in_step += 1;
                } else {
                    closed += 1;
                    client = attach();
                }
            }
        }
    }
    assert!(in_step > 100 && closed > 100, "{in_step} in step, {closed} closed");
}

/// The first of three requests that must be answered while the stream is in step.
const SENTINEL: u32 = 0x5eed_5eed;

/// Sends a SUBMIT with a single changed word, then an ordinary SUBMIT, then two SUBMITs that undo
/// the first. True if all are answered.
fn run_extreme(client: &MiniClient, original: &Submit, field: usize, value: u32) -> bool {
    let mut bytes = original.bytes(77, client.devid)[..48].to_vec();
    bytes[field * 4..field * 4 + 4].copy_from_slice(&value.to_be_bytes());
    let [command, direction, endpoint] = [0x00, 0x0c, 0x10].map(|at| word(&bytes, at));
    let [length, mut packets] = [0x18, 0x20].map(|at| word(&bytes, at));
    if command == 1 && direction == OUT && length <= 1 << 20 {
        bytes.extend(vec![0; length as usize]);
    }
    // Packets follow on an isochronous endpoint, or on an unknown endpoint with a plausible number.
    let address = endpoint | direction << 7;
    let known = [0, 0x80, 0x81, 0x01, 0x02, 0x82, 0x83, 0x84, 0x86].contains(&address);
    if command != 1 || known || packets > 1024 {
        packets = 0;
    }
    bytes.extend(vec![0; 16 * packets as usize]);
    let ordinary = [
        Submit::get_device_descriptor(),
        Submit::set_configuration(1),
        Submit::set_interface(1, 1),
    ];
    for (seqnum, submit) in (SENTINEL..).zip(ordinary) {
        bytes.extend(submit.bytes(seqnum, client.devid));
    }
    client.send_anyway(&bytes);
    are_answered(client, direction == IN, packets)
}

/// Reads the answers to the ordinary requests; false if the connection is closed before. The only
/// other possible answer is to a SUBMIT with the given direction and number of descriptors.
fn are_answered(client: &MiniClient, is_in: bool, packets: u32) -> bool {
    let read = |len: usize| {
        let mut bytes = vec![0; len];
        client.stream().read_exact(&mut bytes).map(|()| bytes)
    };
    let mut answered = 0;
    while answered < 3 {
        let header = match read(48) {
            Ok(header) => header,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("neither an answer nor the end of the connection")
            }
            Err(_) => return false,
        };
        assert!([3, 4].contains(&word(&header, 0)), "a reply: {header:x?}");
        let [seqnum, status, length] = [0x04, 0x14, 0x18].map(|at| word(&header, at));
        if (SENTINEL..SENTINEL + 3).contains(&seqnum) {
            let expected = [18, 0, 0][(seqnum - SENTINEL) as usize];
            assert_eq!((status, length), (0, expected));
            read(expected as usize).expect("its data");
            answered += 1;
        } else {
            let data = if is_in { length as usize } else { 0 };
            read(data + 16 * packets as usize).expect("what belongs to a reply");
        }
    }
    true
}

/// Random bytes.
#[test]
fn random_bytes_end_their_connection_only() {
    let server = Server::start_with("loopback", small);
    for seed in 0..100 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let client = if seed % 4 == 0 { server.connect() } else { server.attach() };
        let len = 1 + random.below(5000);
        client.send_anyway(&random.bytes(len as usize));
        drop(client);
    }
    server.assert_serves(0);
}

/// PDUs that are mostly right, in a stream that is mostly in step, cut anywhere.
#[test]
fn nearly_right_streams_end_their_connection_only() {
    let server = Server::start_with("loopback", small);
    for seed in 0..200 {
        println!("seed {seed}");
        let mut random = Random::new(1000 + seed);
        let mut client = server.attach();
        let count = 1 + random.below(80);
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(nearly_right_pdu(&mut random, client.devid));
        }
        let step = 1 + random.below(4000);
        bytes.chunks(step as usize).for_each(|part| client.send_anyway(part));
        // Some clients first read a little, some wait for the end of the connection.
        if random.below(2) == 0 {
            client.shutdown_anyway();
            client.read_to_end();
        }
    }
    server.assert_serves(0);
}

fn nearly_right_pdu(random: &mut Random, devid: u32) -> Vec<u8> {
    const ADDRESSES: [u8; 11] = [0x81, 0x01, 0x02, 0x82, 0x83, 0x84, 0x86, 0x85, 0x05, 0x87, 0x07];
    let seqnum = random.below(100);
    if random.below(4) == 0 {
        return unlink_bytes(seqnum, devid, random.below(100));
    }
    let address = random.one_of(&ADDRESSES);
    let length = random.one_of(&[0, 1, 8, 64, 512, 513, 5000, 60_000]);
    let mut submit = match random.below(3) {
        0 => random_control(random),
        _ if address & 0x80 != 0 => Submit::read(address, length),
        _ => Submit::write(address, &vec![3; length as usize]),
    };
    if address & 0x0f == 5 && submit.endpoint == 5 {
        let lengths = [random.below(200), 0, random.below(2000)];
        submit = submit.with_packets(&crate::support::submit::in_a_row(&lengths));
    }
    submit.flags = random.one_of(&[0, 1, 0x40, 0x200, 0x41, u32::MAX]);
    if random.below(20) == 0 {
        submit.number_of_packets = random.one_of(&EXTREMES);
    }
    let mut bytes = submit.bytes(seqnum, devid);
    if random.below(40) == 0 {
        let at = random.below(12) as usize * 4;
        bytes[at..at + 4].copy_from_slice(&random.one_of(&EXTREMES).to_be_bytes());
    }
    if random.below(60) == 0 {
        bytes.truncate(random.below(100) as usize);
    }
    bytes
}

/// A control request, often a special request or a request of the loopback device; none takes long
/// or unplugs the device.
fn random_control(random: &mut Random) -> Submit {
    let request_type = random.one_of(&[0, 1, 2, 0x80, 0x81, 0x82, 0x40, 0xc0, 0x23, 0x21]);
    let request = u8::try_from(random.below(0x20)).expect("it is small");
    let value = random.one_of(&[0, 1, 2, 4, 100, 0x0100, 0x0200, 0xffff]);
    let index = random.one_of(&[0, 1, 2, 0x81, 0x86, 0x85, 0x01, 0xffff]);
    let length = random.one_of(&[0, 0, 0, 8, 64, 4096]);
    let data = if request_type & 0x80 == 0 { vec![9; length.into()] } else { Vec::new() };
    Submit::control(setup(request_type, request, value, index, length), &data)
}

/// The log has a limited number of lines a second about clients, whatever clients send and however
/// often.
#[test]
fn the_log_stays_short() {
    const TIMES: u32 = 600;
    log::keep();
    let server = Server::start("loopback");
    let begun = Instant::now();
    let busid = usbferry::wire::types::BusId::new("7-7.7").expect("a busid");
    for _ in 0..TIMES {
        assert_eq!(server.connect().import(busid), 4, "there is none");
    }
    let seconds = u32::try_from(begun.elapsed().as_secs()).expect("few");
    let lines = u32::try_from(log::lines_with("7-7.7").len()).expect("few");
    assert!(lines > 0, "the first are told");
    let most = usbferry::limits::COMPLAINTS_PER_SECOND * (seconds + 2);
    assert!(lines <= most, "{lines} lines in {seconds} s and a bit");
}

/// A client that breaks the protocol does not get its device back at once: opening a device costs
/// the server more than all the rest.
#[test]
fn a_device_rests_after_a_violation() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let begun = Instant::now();
    client.send(&[0xff; 48]);
    client.read_to_end();
    let mut other = server.attach();
    assert!(begun.elapsed() >= VIOLATION_REST, "{:?}", begun.elapsed());
    other.assert_in_sync();
}
