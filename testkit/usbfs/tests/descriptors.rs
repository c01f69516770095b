//! The simulated host's reading of descriptors, compared with `drivers/usb/core/config.c` of Linux
//! 6.1. The library itself can't be linked to a test program: see its manifest.
#![cfg(target_os = "linux")]
#![allow(dead_code, reason = "the library uses the rest")]

#[path = "../src/descriptors.rs"]
mod descriptors;

use descriptors::{Configuration, Host, Speed, read};

/// A device with the given number of configurations.
fn device(configurations: u8) -> [u8; 18] {
    [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 16, 0, 0, 1, 0, 0, 0, configurations]
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn host(bytes: &[u8], speed: Speed) -> Host {
    read(device(1), &[bytes.to_vec()], (speed, 0)).expect("the kernel takes it")
}

/// Interfaces, settings and endpoints of a configuration: `0.0[81 01] 1.0[]`.
fn shape(configuration: &Configuration) -> String {
    let mut settings = Vec::new();
    for interface in &configuration.interfaces {
        for setting in &interface.settings {
            let endpoints = setting.endpoints.iter().map(|one| format!("{:02x}", one.address));
            let endpoints: Vec<String> = endpoints.collect();
            let (number, alternate) = (interface.number, setting.number);
            settings.push(format!("{number}.{alternate}[{}]", endpoints.join(" ")));
        }
    }
    settings.join(" ")
}

/// A configuration's shape and the number of kept bytes.
#[track_caller]
fn assert_reads(bytes: &[u8], expected: &str, kept: usize) {
    let host = host(bytes, Speed::High);
    let configuration = &host.configurations[0];
    assert_eq!((shape(configuration).as_str(), configuration.kept), (expected, kept));
    assert_eq!(host.sysfs().len(), 18 + kept);
}

/// A configuration descriptor with interfaces behind.
fn configuration(interfaces: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let len = u16::try_from(9 + rest.len()).expect("short").to_le_bytes();
    [&[9, 2, len[0], len[1], interfaces, 1, 0, 0x80, 50], &rest[..]].concat()
}

const fn interface(number: u8, setting: u8, endpoints: u8) -> [u8; 9] {
    [9, 4, number, setting, endpoints, 0xff, 0, 0, 0]
}

const fn endpoint(address: u8, kind: u8, max_packet: u16) -> [u8; 7] {
    let [low, high] = max_packet.to_le_bytes();
    [7, 5, address, kind, low, high, 1]
}

const BULK: u8 = descriptors::BULK;
const INTERRUPT: u8 = descriptors::INTERRUPT;
const ISOCHRONOUS: u8 = descriptors::ISOCHRONOUS;

#[test]
fn a_complete_configuration_is_read_whole() {
    let bytes = configuration(
        2,
        &[
            &interface(0, 0, 2),
            &endpoint(0x81, BULK, 512),
            &endpoint(0x02, BULK, 512),
            &interface(1, 0, 0),
            &interface(1, 1, 1),
            &endpoint(0x83, ISOCHRONOUS, 0x1400),
        ],
    );
    assert_reads(&bytes, "0.0[81 02] 1.0[] 1.1[83]", bytes.len());
    let host = host(&bytes, Speed::High);
    let endpoint = host.configurations[0].interfaces[1].settings[1].endpoints[0];
    assert_eq!((endpoint.max_packet, endpoint.packet_max), (0x1400, 3 * 1024));
}

#[test]
fn the_shorter_of_total_length_and_data_counts() {
    // 60 are said, 32 come.
    let bytes = hex("09023c0001010080320904000002ff0000000705810200020007050102000200");
    assert_reads(&bytes, "0.0[81 01]", 32);
    // A byte too much, and a wTotalLength that is too small.
    let mut bytes = configuration(1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512), &[7]]);
    assert_reads(&bytes, "0.0[81]", 25);
    bytes[2] = 18;
    assert_reads(&bytes, "0.0[]", 18);
    // Less than the descriptor itself.
    bytes[2] = 4;
    assert_reads(&bytes, "", 9);
}

#[test]
fn a_descriptor_of_impossible_length_ends_the_configuration() {
    let bytes = hex("0902230001010080320904000002ff0000000705810200020007050102000200010203");
    assert_reads(&bytes, "0.0[81 01]", 32);
    let endpoints = [endpoint(0x81, BULK, 512), endpoint(0x02, BULK, 512)];
    for junk in [&[0, 0][..], &[1, 5], &[40, 5]] {
        let bytes = configuration(1, &[&interface(0, 0, 2), &endpoints[0], junk, &endpoints[1]]);
        assert_reads(&bytes, "0.0[81]", 25);
    }
}

#[test]
fn numbers_of_endpoints_are_an_upper_bound() {
    let missing = hex("09022200020100803209040000010e0100000705810310000809040100010e020000");
    assert_reads(&missing, "0.0[81] 1.0[]", 34);
    let surplus = hex(concat!(
        "0902400003010080320904000001030000000705810340000409040100010300000007058203",
        "4000040705840340000409040200010300000007058303400004"
    ));
    assert_reads(&surplus, "0.0[81] 1.0[82] 2.0[83]", 64);
}

#[test]
fn settings_are_sorted_by_interface_without_repetition() {
    let apart = hex(concat!(
        "0902440003010080320904000000010000000904010000010000000904020000010000000904",
        "0101010100000007050101c0000109040201010100000007058201c00001"
    ));
    assert_reads(&apart, "0.0[] 1.0[] 1.1[01] 2.0[] 2.1[82]", 68);
    let twice = configuration(
        1,
        &[
            &interface(0, 0, 1),
            &endpoint(0x81, BULK, 512),
            &interface(0, 0, 1),
            &endpoint(0x82, BULK, 512),
            &interface(0, 1, 1),
            &endpoint(0x81, BULK, 512),
        ],
    );
    assert_reads(&twice, "0.0[81] 0.1[81]", twice.len());
}

#[test]
fn there_are_32_interfaces_and_128_settings() {
    let many: Vec<[u8; 9]> = (0..33).map(|number| interface(number, 0, 0)).collect();
    let many: Vec<&[u8]> = many.iter().map(<[u8; 9]>::as_slice).collect();
    let host = host(&configuration(33, &many), Speed::High);
    assert_eq!(host.configurations[0].interfaces.len(), 32);
    let many: Vec<[u8; 9]> = (0..200).map(|setting| interface(7, setting, 0)).collect();
    let many: Vec<&[u8]> = many.iter().map(<[u8; 9]>::as_slice).collect();
    let host = self::host(&configuration(1, &many), Speed::High);
    assert_eq!(host.configurations[0].interfaces[0].settings.len(), 128);
}

#[test]
fn interfaces_beyond_the_stated_number_are_left_out_of_known_devices() {
    let parts = [interface(0, 0, 0), interface(1, 0, 0), interface(0, 1, 0)].concat();
    for (said, expected) in [(2, "0.0[] 1.0[]"), (1, "0.0[]"), (0, ""), (3, "0.0[] 0.1[] 1.0[]")] {
        let bytes = configuration(said, &[&parts]);
        let host = read(device(1), &[bytes], (Speed::High, 1 << 5)).expect("it is taken");
        assert_eq!(shape(&host.configurations[0]), expected, "{said} said");
    }
}

#[test]
fn endpoints_with_impossible_addresses_are_skipped() {
    for address in [0x00, 0x80, 0x10, 0x90, 0x7f] {
        let bytes = configuration(
            1,
            &[&interface(0, 0, 2), &endpoint(address, INTERRUPT, 8), &endpoint(0x81, INTERRUPT, 8)],
        );
        assert_reads(&bytes, "0.0[81]", bytes.len());
    }
    let short = configuration(
        1,
        &[&interface(0, 0, 2), &[6, 5, 0x82, 2, 0, 2], &endpoint(0x81, BULK, 512)],
    );
    assert_reads(&short, "0.0[81]", short.len());
}

#[test]
fn the_first_endpoint_of_an_address_counts() {
    let bytes = configuration(
        2,
        &[
            &interface(0, 0, 3),
            &endpoint(0x81, BULK, 512),
            &endpoint(0x81, INTERRUPT, 8),
            &endpoint(0x01, descriptors::CONTROL, 64),
            &interface(1, 0, 2),
            &endpoint(0x81, ISOCHRONOUS, 64),
            &endpoint(0x82, BULK, 512),
        ],
    );
    assert_reads(&bytes, "0.0[81] 1.0[82]", bytes.len());
    let host = host(&bytes, Speed::High);
    assert_eq!(host.configurations[0].interfaces[0].settings[0].endpoints[0].kind, BULK);
}

#[test]
fn endpoints_of_a_short_interface_descriptor_are_skipped() {
    let bytes = configuration(
        1,
        &[
            &interface(0, 0, 1),
            &endpoint(0x81, BULK, 512),
            &[8, 4, 1, 0, 1, 0xff, 0, 0],
            &endpoint(0x82, BULK, 512),
        ],
    );
    assert_reads(&bytes, "0.0[81]", bytes.len());
}

#[test]
fn packets_are_as_long_as_the_speed_allows() {
    let max = |speed, kind, max_packet| {
        let bytes = configuration(1, &[&interface(0, 0, 1), &endpoint(0x81, kind, max_packet)]);
        let endpoint = host(&bytes, speed).configurations[0].interfaces[0].settings[0].endpoints[0];
        (endpoint.kind, endpoint.max_packet, endpoint.packet_max)
    };
    assert_eq!(max(Speed::Low, BULK, 64), (INTERRUPT, 8, 8));
    assert_eq!(max(Speed::Full, BULK, 512), (BULK, 64, 64));
    assert_eq!(max(Speed::Full, ISOCHRONOUS, 1024), (ISOCHRONOUS, 1023, 1023));
    assert_eq!(max(Speed::High, BULK, 0x1fff), (BULK, 1024, 1024));
    assert_eq!(max(Speed::High, ISOCHRONOUS, 0x0c00), (ISOCHRONOUS, 0x0c00, 2048));
    assert_eq!(max(Speed::High, BULK, 0), (BULK, 0, 0));
    assert_eq!(max(Speed::Super, ISOCHRONOUS, 1024), (ISOCHRONOUS, 1024, 1024));
    let companion = configuration(
        1,
        &[&interface(0, 0, 1), &endpoint(0x81, ISOCHRONOUS, 1024), &[6, 0x30, 20, 1, 0, 0]],
    );
    let host = host(&companion, Speed::Super);
    let endpoint = host.configurations[0].interfaces[0].settings[0].endpoints[0];
    assert_eq!(endpoint.packet_max, 1024 * 16 * 2);
}

#[test]
fn missing_configurations_are_not_counted() {
    let one = configuration(0, &[]);
    let host = read(device(3), &[one.clone(), one.clone()], (Speed::High, 0)).expect("it is taken");
    assert_eq!((host.configurations.len(), host.device[17]), (2, 2));
    let host = read(device(1), &[one.clone(), one.clone()], (Speed::High, 0)).expect("it is taken");
    assert_eq!(host.configurations.len(), 1);
    let host = read(device(200), &vec![one; 9], (Speed::High, 0)).expect("it is taken");
    assert_eq!((host.configurations.len(), host.device[17]), (8, 8));
    for bad in ["09", "090212", "0802120001010080320904", "0904120001010080320904"] {
        assert!(read(device(1), &[hex(bad)], (Speed::High, 0)).is_err(), "{bad}");
    }
}

#[test]
fn the_node_has_holes_where_the_device_had_no_data() {
    let bytes = hex("09023c0001010080320904000002ff0000000705810200020007050102000200");
    let host =
        read(device(2), &[bytes.clone(), bytes.clone()], (Speed::High, 0)).expect("it is taken");
    let mut room = [0xa5; 200];
    assert_eq!(host.read_node(0, &mut room), 18 + 60 + 60);
    assert_eq!(room[18..50], bytes);
    assert_eq!(room[50..78], [0xa5; 28]);
    assert_eq!(room[78..110], bytes);
    let mut room = [0; 7];
    assert_eq!((host.read_node(45, &mut room), room), (7, [1, 2, 0, 2, 0, 0, 0]));
    assert_eq!(host.read_node(138, &mut room), 0);
}

/// Any bytes come to an end without a panic.
#[test]
fn any_bytes_are_read() {
    let whole =
        configuration(2, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512), &interface(1, 0, 0)]);
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut bytes = whole.clone();
            bytes[at] = value;
            for speed in [Speed::Low, Speed::SuperPlus] {
                let Ok(host) = read(device(1), &[bytes.clone()], (speed, 0)) else { continue };
                assert!(host.configurations[0].kept <= bytes.len());
            }
        }
    }
}
