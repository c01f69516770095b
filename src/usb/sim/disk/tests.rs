//! The behaviour of `disk`, seen from its host.

use super::fat::README;
use super::{IN, OUT};
use crate::usb::sim::testing::{Host, setup};
use crate::wire::status::Status;
use crate::wire::types::TransferType;

const BLOCKS: u32 = 2048;

fn open() -> Host {
    Host::open("disk:size=1M")
}

fn wrap(tag: u32, length: u32, is_in: bool, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"USBC".to_vec();
    bytes.extend(tag.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    let block_len = u8::try_from(block.len()).unwrap();
    bytes.extend([if is_in { 0x80 } else { 0 }, 0, block_len]);
    bytes.extend(block);
    bytes.resize(31, 0);
    bytes
}

fn send(host: &mut Host, length: u32, is_in: bool, block: &[u8]) {
    let wrapper = wrap(0x1234_5678, length, is_in, block);
    assert_eq!(host.write(OUT, &wrapper), (Status::OK, 31));
}

/// Reads the status wrapper: status and residue.
fn status(host: &mut Host) -> (u8, u32) {
    let (ended, bytes) = host.read(IN, 512);
    assert_eq!((ended, bytes.len()), (Status::OK, 13));
    assert_eq!(bytes[..8], *b"USBS\x78\x56\x34\x12");
    let residue = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
    (bytes[12], residue)
}

/// Makes a command with an answer of at most `length` bytes, and expects success.
fn ask(host: &mut Host, length: u16, block: &[u8]) -> Vec<u8> {
    send(host, length.into(), true, block);
    let (ended, data) = host.read(IN, length.into());
    if ended == Status::EPIPE {
        host.clear_halt(IN);
    }
    let residue = u32::from(length) - u32::try_from(data.len()).unwrap();
    assert_eq!(status(host), (0, residue));
    data
}

/// Makes a command without data. Returns its status.
fn run(host: &mut Host, block: &[u8]) -> u8 {
    send(host, 0, false, block);
    status(host).0
}

/// Sense key and additional sense code of the last command.
fn sense(host: &mut Host) -> (u8, u8) {
    let data = ask(host, 18, &[3, 0, 0, 0, 18, 0]);
    (data[2], data[12])
}

fn read_10(block: u32, count: u16) -> Vec<u8> {
    ranged(0x28, block, count)
}

fn write_10(block: u32, count: u16) -> Vec<u8> {
    ranged(0x2a, block, count)
}

fn ranged(command: u8, block: u32, count: u16) -> Vec<u8> {
    let (block, count) = (block.to_be_bytes(), count.to_be_bytes());
    [&[command, 0], &block[..], &[0], &count, &[0]].concat()
}

fn numbers(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

#[test]
fn a_disk_has_the_descriptors_of_a_stick() {
    let mut host = open();
    let (_, device) = host.descriptor(1, 0, 18);
    assert_eq!(device[8..12], [0x09, 0x12, 0x02, 0x00]);
    let interface = &host.configuration().interfaces[0];
    let setting = &interface.alternates[0];
    assert_eq!((setting.class, setting.sub_class, setting.protocol), (8, 6, 0x50));
    let endpoints = setting.endpoints.iter();
    assert!(endpoints.clone().all(|e| e.transfer_type == TransferType::Bulk));
    let addresses: Vec<u8> = endpoints.map(|e| e.address.as_byte()).collect();
    assert_eq!(addresses, [IN, OUT]);
    assert_eq!(host.control_in(setup(0xa1, 0xfe, 0, 0, 1)).1, [0]);
}

#[test]
fn inquiry_and_capacity_are_answered() {
    let mut host = open();
    let inquiry = ask(&mut host, 36, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(inquiry[..5], [0, 0x80, 4, 2, 31]);
    assert_eq!(inquiry[8..], *b"usbferrySimulated disk  1.0 ");
    let pages = ask(&mut host, 6, &[0x12, 1, 0, 0, 255, 0]);
    assert_eq!(pages, [0, 0, 0, 2, 0, 0x80]);
    let serial = ask(&mut host, 255, &[0x12, 1, 0x80, 0, 255, 0]);
    assert_eq!(serial[4..], *b"05EED0000001");
    assert_eq!(run(&mut host, &[0; 6]), 0);
    let capacity = ask(&mut host, 8, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(capacity, [0, 0, 7, 255, 0, 0, 2, 0]);
    let block = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
    let capacity = ask(&mut host, 32, &block);
    assert_eq!(capacity[..12], [0, 0, 0, 0, 0, 0, 7, 255, 0, 0, 2, 0]);
    assert_eq!(capacity.len(), 32);
    let formats = ask(&mut host, 252, &[0x23, 0, 0, 0, 0, 0, 0, 0, 252, 0]);
    assert_eq!(formats, [0, 0, 0, 8, 0, 0, 8, 0, 2, 0, 2, 0]);
    let luns = ask(&mut host, 16, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(luns[3], 8);
}

#[test]
fn mode_pages_announce_no_write_cache() {
    let mut host = open();
    let six = ask(&mut host, 192, &[0x1a, 0, 0x3f, 0, 192, 0]);
    assert_eq!(six[..6], [23, 0, 0, 0, 0x08, 18]);
    assert_eq!(six.len(), 24);
    assert_eq!(ask(&mut host, 4, &[0x1a, 0, 0x3f, 0, 4, 0]), six[..4]);
    let ten = ask(&mut host, 255, &[0x5a, 0, 8, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(ten[..10], [0, 26, 0, 0, 0, 0, 0, 0, 0x08, 18]);
    assert_eq!(ten.len(), 28);
    assert_eq!(run(&mut host, &[0x1a, 0, 0x1c, 0, 192, 0]), 1);
    assert_eq!(sense(&mut host), (5, 0x24));
}

#[test]
fn a_new_disk_has_a_readable_file() {
    let mut host = open();
    let boot = ask(&mut host, 512, &read_10(0, 1));
    assert_eq!(boot[510..], [0x55, 0xaa]);
    let word = |at: usize| u32::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let root = word(14) + u32::from(boot[16]) * word(22);
    let directory = ask(&mut host, 512, &read_10(root, 1));
    assert_eq!(directory[32..43], *b"README  TXT");
    let length = u32::from_le_bytes(directory[60..64].try_into().unwrap());
    let data = root + word(17) * 32 / 512;
    let file = ask(&mut host, 1024, &read_10(data, 2));
    let text = std::str::from_utf8(&file[..length as usize]).unwrap();
    assert_eq!(text, README);
}

#[test]
fn written_data_is_read_and_outlives_the_client() {
    let mut host = open();
    let data = numbers(8 * 512);
    for (write, read) in [(0x2a, 0x28), (0xaa, 0xa8), (0x8a, 0x88), (0x0a, 0x08)] {
        let block = |command| match command {
            0x0a | 0x08 => vec![command, 0, 0, 100, 8, 0],
            0xaa | 0xa8 => vec![command, 0, 0, 0, 0, 100, 0, 0, 0, 8, 0, 0],
            0x8a | 0x88 => vec![command, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 8, 0, 0],
            _ => ranged(command, 100, 8),
        };
        let zeros = vec![0; data.len()];
        for data in [&zeros, &data] {
            send(&mut host, 4096, false, &block(write));
            assert_eq!(host.write(OUT, data), (Status::OK, 4096));
            assert_eq!(status(&mut host), (0, 0));
            assert_eq!(ask(&mut host, 4096, &block(read)), *data);
        }
    }
    let mut host = Host::open_on(&host.close());
    assert_eq!(ask(&mut host, 4096, &read_10(100, 8)), data);
}

#[test]
fn data_may_be_cut_into_any_urbs() {
    let mut host = open();
    let data = numbers(4096);
    send(&mut host, 4096, false, &write_10(50, 8));
    for chunk in [&data[..1], &data[1..700], &[], &data[700..]] {
        assert_eq!(host.write(OUT, chunk), (Status::OK, chunk.len()));
    }
    assert_eq!(status(&mut host), (0, 0));
    send(&mut host, 4096, true, &read_10(50, 8));
    let lengths = [512, 1, 1023, 0, 2560];
    let read: Vec<u8> = lengths.iter().flat_map(|&len| host.read(IN, len).1).collect();
    assert_eq!(read, data);
    assert_eq!(status(&mut host), (0, 0));
}

#[test]
fn urbs_submitted_ahead_are_served_in_turn() {
    let mut host = open();
    let data = host.submit(IN, &[0; 512], &[]);
    let csw = host.submit(IN, &[0; 13], &[]);
    assert_eq!(host.poll(data), None);
    send(&mut host, 512, true, &read_10(0, 1));
    assert_eq!(host.wait(data).data[510..], [0x55, 0xaa]);
    assert_eq!(host.wait(csw).data[..4], *b"USBS");
}

#[test]
fn a_failed_command_gives_its_reason() {
    let mut host = open();
    assert_eq!(run(&mut host, &[0xee; 6]), 1);
    assert_eq!(sense(&mut host), (5, 0x20));
    assert_eq!(sense(&mut host), (0, 0), "it is said once");
    for block in [read_10(BLOCKS, 1), read_10(BLOCKS - 1, 2), read_10(u32::MAX, 65535)] {
        send(&mut host, 512, true, &block);
        assert_eq!(host.read(IN, 512), (Status::EPIPE, vec![]));
        host.clear_halt(IN);
        assert_eq!(status(&mut host), (1, 512));
        assert_eq!(sense(&mut host), (5, 0x21));
    }
    let far = [0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0];
    assert_eq!(run(&mut host, &far), 1);
    send(&mut host, 512, false, &write_10(BLOCKS, 1));
    assert_eq!(host.write(OUT, &[0; 512]), (Status::OK, 512));
    assert_eq!(status(&mut host), (1, 512));
}

#[test]
fn too_little_data_ends_with_a_stall_or_a_short_packet() {
    let mut host = open();
    // The device sends a single block to a host that waits for four, in a single URB and in URBs
    // that end with the data.
    send(&mut host, 2048, true, &read_10(0, 1));
    let (ended, data) = host.read(IN, 2048);
    assert_eq!((ended, data.len()), (Status::EPIPE, 512));
    host.clear_halt(IN);
    assert_eq!(status(&mut host), (0, 1536));
    send(&mut host, 2048, true, &read_10(0, 1));
    assert_eq!(host.read(IN, 512).0, Status::OK);
    assert_eq!(host.read(IN, 1536), (Status::EPIPE, vec![]));
    host.clear_halt(IN);
    assert_eq!(status(&mut host), (0, 1536));
    // Less than a packet needs no stall.
    send(&mut host, 255, true, &[0x12, 0, 0, 0, 36, 0]);
    assert_eq!(host.read(IN, 255).1.len(), 36);
    assert_eq!(status(&mut host), (0, 219));
}

#[test]
fn disagreements_about_the_data_are_reported() {
    let mut host = open();
    send(&mut host, 0, false, &read_10(0, 1));
    assert_eq!(status(&mut host).0, 2, "case 2");
    send(&mut host, 0, false, &write_10(0, 1));
    assert_eq!(status(&mut host).0, 2, "case 3");
    send(&mut host, 512, true, &read_10(0, 2));
    assert_eq!(host.read(IN, 512).0, Status::OK);
    assert_eq!(status(&mut host).0, 2, "case 7");
    send(&mut host, 512, true, &write_10(0, 1));
    assert_eq!(host.read(IN, 512).0, Status::EPIPE);
    host.clear_halt(IN);
    assert_eq!(status(&mut host).0, 2, "case 8");
    send(&mut host, 512, false, &[0; 6]);
    assert_eq!(host.write(OUT, &[1; 512]).0, Status::OK);
    assert_eq!(status(&mut host), (0, 512), "case 9");
    send(&mut host, 512, false, &read_10(0, 1));
    assert_eq!(host.write(OUT, &[1; 512]).0, Status::OK);
    assert_eq!(status(&mut host).0, 2, "case 10");
    send(&mut host, 1024, false, &write_10(60, 1));
    assert_eq!(host.write(OUT, &numbers(1024)).0, Status::OK);
    assert_eq!(status(&mut host), (0, 512), "case 11");
    send(&mut host, 512, false, &write_10(61, 2));
    assert_eq!(host.write(OUT, &[1; 512]).0, Status::OK);
    assert_eq!(status(&mut host).0, 2, "case 13");
    let blocks = ask(&mut host, 1024, &read_10(60, 2));
    assert_eq!(blocks, [&numbers(512)[..], &[0; 512]].concat());
}

#[test]
fn an_invalid_command_stalls_until_the_reset() {
    for wrong in [
        b"garbage".to_vec(),
        wrap(1, 0, false, &[]),
        wrap(1, 0, false, &[0; 17])[..31].to_vec(),
        [wrap(1, 0, false, &[0; 6]), vec![0]].concat(),
    ] {
        let mut host = open();
        host.write(OUT, &wrong);
        for _ in 0..2 {
            assert_eq!(host.read(IN, 13).0, Status::EPIPE);
            assert_eq!(host.write(OUT, &[0; 31]).0, Status::EPIPE);
            host.clear_halt(IN);
            host.clear_halt(OUT);
        }
        let reset = setup(0x21, 0xff, 0, 0, 0);
        assert_eq!(host.control_out(reset, &[]).0, Status::OK);
        assert_eq!(run(&mut host, &[0; 6]), 0);
    }
}

#[test]
fn more_data_than_announced_is_a_phase_error() {
    let mut host = open();
    send(&mut host, 512, false, &write_10(60, 1));
    assert_eq!(host.write(OUT, &numbers(1024)).0, Status::OK);
    assert_eq!(status(&mut host).0, 2);
    assert_eq!(run(&mut host, &[0xee; 6]), 1);
    host.control_out(setup(0x21, 0xff, 0, 0, 0), &[]);
    assert_eq!(sense(&mut host), (0, 0), "a reset forgets what failed");
}

#[test]
fn another_unit_does_not_exist() {
    let mut host = open();
    let mut wrapper = wrap(0x1234_5678, 0, false, &[0; 6]);
    wrapper[13] = 1;
    host.write(OUT, &wrapper);
    assert_eq!(status(&mut host).0, 1);
    assert_eq!(sense(&mut host), (5, 0x25));
}

#[test]
fn faults_end_the_data_and_count_in_the_residue() {
    // The command is the first URB, its data the second.
    let mut host = Host::open("disk:size=1M:fault=short@2");
    send(&mut host, 4096, true, &read_10(0, 8));
    assert_eq!(host.read(IN, 4096).1.len(), 2048);
    assert_eq!(status(&mut host), (0, 2048));
    let mut host = Host::open("disk:size=1M:fault=stall@2");
    send(&mut host, 4096, false, &write_10(0, 8));
    assert_eq!(host.write(OUT, &[0; 4096]), (Status::EPIPE, 0));
    assert_eq!(status(&mut host), (0, 4096));
    let mut host = Host::open("disk:size=1M:fault=stall@3");
    ask_data(&mut host);
    assert_eq!(host.read(IN, 13).0, Status::EPIPE);
    host.clear_halt(IN);
    assert_eq!(status(&mut host), (0, 0), "the status is sent again");
}

fn ask_data(host: &mut Host) {
    send(host, 512, true, &read_10(0, 1));
    assert_eq!(host.read(IN, 512).0, Status::OK);
}

/// Leaves an image of each size where USBFERRY_TEST_IMAGES says, for `fsck.fat -n`.
#[test]
fn images_of_all_sizes_can_be_checked_by_hand() {
    let Some(directory) = std::env::var_os("USBFERRY_TEST_IMAGES") else {
        return;
    };
    for megabytes in [1, 2, 3, 16, 32, 33, 64, 512, 2048] {
        let mut image = vec![0; megabytes << 20];
        super::fat::format(&mut image);
        let path = std::path::Path::new(&directory).join(format!("{megabytes}.img"));
        std::fs::write(path, image).unwrap();
    }
}
