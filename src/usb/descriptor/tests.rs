//! Oddities of real firmware, and the reading of config.c for each.

use super::*;

/// The bytes of a line of hexadecimal digits.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn read_at(text: &str, speed: Speed) -> Configuration {
    parse_configuration(&hex(text), Host::at(speed)).expect("a host accepts it")
}

fn read(text: &str) -> Configuration {
    read_at(text, Speed::High)
}

/// A configuration numbered 1, with bNumInterfaces `count`.
fn configuration(count: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let [low, high] = u16::try_from(body.len() + 9).unwrap().to_le_bytes();
    [&[9, 2, low, high, count, 1, 0, 0x80, 50], body.as_slice()].concat()
}

const fn interface(number: u8, setting: u8, endpoints: u8) -> [u8; 9] {
    [9, 4, number, setting, endpoints, 255, 0, 0, 0]
}

const fn endpoint(address: u8, attributes: u8, size: u16) -> [u8; 7] {
    let [low, high] = size.to_le_bytes();
    [7, 5, address, attributes, low, high, 1]
}

fn parse(bytes: &[u8]) -> Configuration {
    parse_configuration(bytes, Host::at(Speed::High)).expect("a host accepts it")
}

/// Settings by number, with their endpoints' addresses.
type Settings = Vec<(u8, Vec<u8>)>;

/// Interfaces by number, with their settings.
fn shape(configuration: &Configuration) -> Vec<(u8, Settings)> {
    let addresses = |a: &Alternate| a.endpoints.iter().map(|e| e.address.as_byte()).collect();
    let settings = |i: &Interface| i.alternates.iter().map(|a| (a.setting, addresses(a))).collect();
    configuration.interfaces.iter().map(|i| (i.number, settings(i))).collect()
}

fn numbers(configuration: &Configuration) -> Vec<u8> {
    configuration.interfaces.iter().map(|interface| interface.number).collect()
}

#[test]
fn zero_is_an_ordinary_configuration_number() {
    let found =
        read("09022700010000803209040000030b00000007058102400000070501024000000705820308000a");
    assert_eq!(found.value, 0);
    assert_eq!(shape(&found), [(0, vec![(0, vec![0x81, 0x01, 0x82])])]);
}

#[test]
fn a_configuration_ends_with_its_bytes() {
    let cut = "09023c0001010080320904000002ff0000000705810200020007050102000200";
    assert_eq!(shape(&read(cut)), [(0, vec![(0, vec![0x81, 0x01])])]);
    // wTotalLength is too small: the host did not read the rest.
    let short = "0902190001010080320904000002ff0000000705810200020007050102000200";
    assert_eq!(shape(&read(short)), [(0, vec![(0, vec![0x81])])]);
    // No length at all: the descriptor itself is read all the same.
    for told in ["0000", "0800", "0900"] {
        let none = format!("0902{told}01010080320904000002ff000000");
        assert_eq!(read(&none).interfaces, []);
    }
}

#[test]
fn descriptors_behind_a_wrong_length_do_not_count() {
    let junk = "0902230001010080320904000002ff0000000705810200020007050102000200010203";
    let expected = [(0, vec![(0, vec![0x81, 0x01])])];
    assert_eq!(shape(&read(junk)), expected);
    for junk in ["00", "0002", "01", "ff04", "0905820200", "02"] {
        let bytes = hex(&format!("0904000002ff0000000705810200020007050102000200{junk}"));
        assert_eq!(shape(&parse(&configuration(1, &[&bytes]))), expected, "{junk}");
    }
    // A wrong length in the middle ends the reading.
    let parts: [&[u8]; 4] = [&interface(0, 0, 0), &[1, 4], &interface(1, 0, 0), &[2, 9]];
    assert_eq!(numbers(&parse(&configuration(2, &parts))), [0]);
}

#[test]
fn existing_endpoints_count() {
    let missing = read("09022200020100803209040000010e0100000705810310000809040100010e020000");
    assert_eq!(shape(&missing), [(0, vec![(0, vec![0x81])]), (1, vec![(0, vec![])])]);
    let surplus = read(
        "09024000030100803209040000010300000007058103400004090401000103000000070582034000040705\
         820340000409040200010300000007058303400004",
    );
    let one = |address| vec![(0, vec![address])];
    assert_eq!(shape(&surplus), [(0, one(0x81)), (1, one(0x82)), (2, one(0x83))]);
}

#[test]
fn endpoints_are_limited_by_their_count_and_the_hosts_room() {
    let told = |count: u8, addresses: &[u8]| {
        let endpoints: Vec<u8> =
            addresses.iter().flat_map(|&address| endpoint(address, 2, 64)).collect();
        shape(&parse(&configuration(1, &[&interface(0, 0, count), &endpoints])))
    };
    assert_eq!(told(1, &[0x81, 0x02, 0x83]), [(0, vec![(0, vec![0x81])])]);
    // A skipped endpoint leaves its place to the next.
    assert_eq!(told(2, &[0x80, 0x81, 0x81, 0x02]), [(0, vec![(0, vec![0x81, 0x02])])]);
    let all: Vec<u8> = (1..16).flat_map(|number| [number, number | 0x80]).collect();
    assert_eq!(told(255, &all), [(0, vec![(0, all.clone())])]);
    assert_eq!(told(0, &all), [(0, vec![(0, vec![])])]);
}

#[test]
fn settings_are_sorted_by_their_interface() {
    let apart = read(
        "09024400030100803209040000000100000009040100000100000009040200000100000009040101010100\
         000007050101c0000109040201010100000007058201c00001",
    );
    let empty = || (0, vec![]);
    assert_eq!(
        shape(&apart),
        [
            (0, vec![empty()]),
            (1, vec![empty(), (1, vec![0x01])]),
            (2, vec![empty(), (1, vec![0x82])])
        ]
    );
    let endpoint = apart.interface(1).unwrap().alternates[1].endpoints[0];
    assert_eq!(endpoint.transfer_type, TransferType::Isochronous);
    assert_eq!(endpoint.max_packet_size, 0xc0);
}

#[test]
fn interfaces_are_sorted_by_any_numbers() {
    let parts: [&[u8]; 3] = [&interface(200, 0, 0), &interface(3, 0, 0), &interface(7, 0, 0)];
    for count in [0, 1, 3, 255] {
        assert_eq!(numbers(&parse(&configuration(count, &parts))), [3, 7, 200]);
    }
}

#[test]
fn the_first_of_too_many_interfaces_count() {
    for count in [33, 255] {
        let parts: Vec<u8> = (0..count).rev().flat_map(|n| interface(n, 0, 0)).collect();
        // The first 32 numbers in the order of the descriptors.
        let expected: Vec<u8> = (count - 32..count).collect();
        assert_eq!(numbers(&parse(&configuration(count, &[&parts]))), expected);
    }
    // Settings and endpoints of a skipped interface belong to no other interface.
    let mut parts: Vec<u8> = (0..33).flat_map(|n| interface(n, 0, 0)).collect();
    parts.extend(interface(32, 1, 1));
    parts.extend(endpoint(0x81, 2, 512));
    let found = parse(&configuration(33, &[&parts]));
    assert!(found.interfaces.iter().all(|i| i.alternates.len() == 1));
    assert!(found.interfaces.iter().all(|i| i.alternates[0].endpoints.is_empty()));
}

#[test]
fn surplus_interfaces_count_unless_the_host_honours_the_number() {
    let parts: [&[u8]; 3] = [&interface(0, 0, 0), &interface(1, 0, 0), &interface(0, 1, 0)];
    let bytes = configuration(1, &parts);
    assert_eq!(numbers(&parse(&bytes)), [0, 1]);
    let host = Host { honors_interface_count: true, ..Host::at(Speed::High) };
    // Later settings of a counted interface are too late as well.
    assert_eq!(shape(&parse_configuration(&bytes, host).unwrap()), [(0, vec![(0, vec![])])]);
}

#[test]
fn a_repeated_setting_counts_once() {
    let parts: [&[u8]; 4] = [
        &interface(0, 0, 1),
        &endpoint(0x81, 2, 512),
        &interface(0, 0, 1),
        &endpoint(0x82, 2, 512),
    ];
    assert_eq!(shape(&parse(&configuration(1, &parts))), [(0, vec![(0, vec![0x81])])]);
}

#[test]
fn settings_have_a_limit() {
    let parts: Vec<u8> = (0..=255).flat_map(|setting| interface(0, setting, 0)).collect();
    let found = parse(&configuration(1, &[&parts]));
    let settings: Vec<u8> = found.interfaces[0].alternates.iter().map(|a| a.setting).collect();
    assert_eq!(settings, (0..128).collect::<Vec<u8>>());
}

#[test]
fn the_setting_in_force_is_zero_or_else_the_first() {
    let current = |settings: &[u8]| {
        let parts: Vec<u8> = settings.iter().flat_map(|&s| interface(4, s, 0)).collect();
        parse(&configuration(1, &[&parts])).interfaces[0].current
    };
    assert_eq!(current(&[0, 1]), 0);
    assert_eq!(current(&[1, 0]), 0);
    assert_eq!(current(&[3, 1]), 3);
}

#[test]
fn an_endpoint_needs_a_number() {
    // Bits 4 to 6 are reserved: 6.1 counts the bits as part of the number, and skips the endpoint.
    for address in [0x00, 0x80, 0x10, 0x90, 0x11, 0x71, 0xf1, 0x7f, 0xff] {
        let parts: [&[u8]; 3] =
            [&interface(0, 0, 2), &endpoint(address, 2, 512), &endpoint(0x82, 2, 512)];
        let found = shape(&parse(&configuration(1, &parts)));
        assert_eq!(found, [(0, vec![(0, vec![0x82])])], "{address:02x}");
    }
}

#[test]
fn the_first_of_a_repeated_endpoint_counts() {
    let types = |parts: &[&[u8]]| -> Vec<(u8, u8, TransferType)> {
        let found = parse(&configuration(2, parts));
        let mut types = Vec::new();
        for interface in &found.interfaces {
            for endpoint in interface.alternates.iter().flat_map(|a| &a.endpoints) {
                let address = endpoint.address.as_byte();
                types.push((interface.number, address, endpoint.transfer_type));
            }
        }
        types
    };
    use TransferType::{Bulk, Control, Interrupt};
    // Twice in the same setting.
    let one: [&[u8]; 3] = [&interface(0, 0, 2), &endpoint(0x81, 2, 512), &endpoint(0x81, 3, 64)];
    assert_eq!(types(&one), [(0, 0x81, Bulk)]);
    // Twice in two interfaces in any settings; different settings of the same interface may repeat.
    let other: [&[u8]; 6] = [
        &interface(1, 1, 1),
        &endpoint(0x81, 3, 64),
        &interface(0, 0, 1),
        &endpoint(0x81, 2, 512),
        &interface(1, 2, 1),
        &endpoint(0x81, 3, 64),
    ];
    assert_eq!(types(&other), [(1, 0x81, Interrupt), (1, 0x81, Interrupt)]);
    // A control endpoint has both directions; two endpoints of other types with a number do not
    // conflict.
    let both: [&[u8]; 4] = [
        &interface(0, 0, 3),
        &endpoint(0x82, 0, 64),
        &endpoint(0x02, 2, 512),
        &endpoint(0x03, 2, 512),
    ];
    assert_eq!(types(&both), [(0, 0x82, Control), (0, 0x03, Bulk)]);
    let late: [&[u8]; 4] = [
        &interface(0, 0, 3),
        &endpoint(0x02, 2, 512),
        &endpoint(0x82, 0, 64),
        &endpoint(0x82, 2, 512),
    ];
    assert_eq!(types(&late), [(0, 0x02, Bulk), (0, 0x82, Bulk)]);
}

#[test]
fn other_descriptors_are_skipped_anywhere() {
    // An association, a device, another configuration, class descriptors, a companion.
    let parts: [&[u8]; 11] = [
        &[8, 11, 0, 2, 14, 3, 0, 0],
        &[3, 11, 0],
        &[18, 1, 0, 2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[9, 2, 9, 0, 9, 9, 0, 0, 0],
        &[2, 2],
        &endpoint(0x85, 2, 512), // of no interface
        &interface(0, 0, 1),
        &[5, 0x24, 1, 2, 3],
        &endpoint(0x81, 2, 512),
        &[6, 48, 0, 0, 0, 0],
        &[2, 5], // an endpoint without room for an address
    ];
    let found = parse(&configuration(1, &parts));
    assert_eq!(found.value, 1);
    assert_eq!(shape(&found), [(0, vec![(0, vec![0x81])])]);
}

#[test]
fn short_descriptors_are_skipped_and_long_ones_read() {
    // A short interface descriptor hides the endpoints behind it.
    let short: [&[u8]; 4] =
        [&interface(0, 0, 0), &[8, 4, 1, 0, 1, 255, 0, 0], &endpoint(0x81, 2, 512), &[2, 4]];
    assert_eq!(shape(&parse(&configuration(1, &short))), [(0, vec![(0, vec![])])]);
    // Endpoints of six bytes do not count, audio's nine do, as does an interface of ten.
    let long: [&[u8]; 3] = [
        &[10, 4, 0, 0, 2, 255, 0, 0, 0, 0],
        &[6, 5, 0x81, 2, 0, 2],
        &[9, 5, 0x02, 1, 0xc0, 0, 1, 0, 0],
    ];
    assert_eq!(shape(&parse(&configuration(1, &long))), [(0, vec![(0, vec![0x02])])]);
}

#[test]
fn a_configuration_descriptor_may_be_long_but_not_short() {
    let mut long = vec![11, 2, 20, 0, 1, 5, 0, 0x80, 50, 1, 2];
    long.extend(interface(0, 0, 0));
    assert_eq!(parse(&long).value, 5);
    assert_eq!(numbers(&parse(&long)), [0]);
    for refused in
        ["", "09", "0902", "080209000101008032", "090409000101008032", "0a0209000101008032"]
    {
        assert_eq!(parse_configuration(&hex(refused), Host::at(Speed::High)), None, "{refused}");
    }
}

#[test]
fn sizes_and_types_are_corrected_by_speed() {
    use TransferType::{Bulk, Control, Interrupt, Isochronous};
    let correct = |speed, attributes, size| {
        let parts: [&[u8]; 2] = [&interface(0, 0, 1), &endpoint(0x81, attributes, size)];
        let bytes = configuration(1, &parts);
        let found = parse_configuration(&bytes, Host::at(speed)).unwrap();
        let endpoint = found.interfaces[0].alternates[0].endpoints[0];
        (endpoint.transfer_type, endpoint.max_packet_size)
    };
    // Low speed has no bulk endpoints, so the host polls.
    assert_eq!(correct(Speed::Low, 2, 64), (Interrupt, 8));
    assert_eq!(correct(Speed::Low, 2, 4), (Interrupt, 4));
    assert_eq!(correct(Speed::Low, 3, 64), (Interrupt, 8));
    assert_eq!(correct(Speed::Low, 1, 64), (Isochronous, 0));
    assert_eq!(correct(Speed::Full, 2, 512), (Bulk, 64));
    assert_eq!(correct(Speed::Full, 1, 1024), (Isochronous, 1023));
    assert_eq!(correct(Speed::Full, 0, 512), (Control, 64));
    assert_eq!(correct(Speed::High, 2, 512), (Bulk, 512));
    assert_eq!(correct(Speed::High, 2, 64), (Bulk, 64));
    assert_eq!(correct(Speed::High, 2, 2048), (Bulk, 1024));
    assert_eq!(correct(Speed::High, 1, 0x1400), (Isochronous, 0x1400));
    assert_eq!(correct(Speed::High, 1, 0x17ff), (Isochronous, 0x1400));
    assert_eq!(correct(Speed::High, 3, 0x0c00), (Interrupt, 0x0c00));
    assert_eq!(correct(Speed::Super, 0, 1024), (Control, 512));
    assert_eq!(correct(Speed::Super, 1, 0x1400), (Isochronous, 1024));
    // A size of zero is kept: transfers to the endpoint fail, its setting does not.
    for speed in [Speed::Low, Speed::Full, Speed::High, Speed::Super] {
        assert_eq!(correct(speed, 3, 0), (Interrupt, 0));
    }
    // Of bmAttributes only two bits are the type.
    assert_eq!(correct(Speed::High, 0xfd, 192), (Isochronous, 192));
}

/// A device descriptor with bNumConfigurations `count`.
fn device(count: u8) -> Vec<u8> {
    vec![18, 1, 0, 2, 0xef, 2, 1, 64, 0x6b, 0x1d, 4, 1, 0x12, 0x06, 1, 2, 3, count]
}

/// A configuration with a single interface and wTotalLength `told`.
fn simple(value: u8, told: u16) -> Vec<u8> {
    let [low, high] = told.to_le_bytes();
    let head = [9, 2, low, high, 1, value, 0, 0x80, 50];
    [&head[..], &interface(value, 0, 0)].concat()
}

fn split(parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let bytes = [device(u8::try_from(parts.len()).unwrap()), parts.concat()].concat();
    Descriptors::split(&bytes).expect("there is a device descriptor").configurations
}

#[test]
fn a_device_descriptor_is_read() {
    let Descriptors { device, configurations } = Descriptors::split(&device(0)).unwrap();
    assert_eq!(configurations, Vec::<Vec<u8>>::new());
    assert_eq!((device.bcd_usb, device.bcd_device), (0x0200, 0x0612));
    assert_eq!((device.class, device.sub_class, device.protocol), (0xef, 2, 1));
    assert_eq!((device.id_vendor, device.id_product), (0x1d6b, 0x0104));
    assert_eq!((device.max_packet_size_0, device.num_configurations), (64, 0));
    assert_eq!(Descriptors::split(&[18; 17]), None);
}

#[test]
fn configurations_are_split_also_behind_a_cut() {
    let whole = [simple(1, 18), simple(2, 18), simple(3, 18)];
    assert_eq!(split(&whole), whole);
    for told in [60, 36, 54, 0xffff, 0] {
        let cut = [simple(1, told), simple(2, 18), simple(3, 18)];
        assert_eq!(split(&cut), cut, "{told}");
        let all = [simple(1, told), simple(2, told), simple(3, told)];
        assert_eq!(split(&all), all, "{told}");
    }
}

#[test]
fn a_nested_configuration_descriptor_begins_no_configuration() {
    let inner = [simple(1, 27), vec![9, 2, 9, 0, 9, 9, 0, 0, 0]].concat();
    let both = [inner.clone(), simple(2, 18)];
    assert_eq!(split(&both), both);
    let last = [simple(2, 18), inner];
    assert_eq!(split(&last), last);
    // Too short for a descriptor.
    let stub = [[simple(1, 50), vec![2, 2]].concat(), simple(2, 18)];
    assert_eq!(split(&stub), stub);
}

#[test]
fn there_are_eight_configurations_at_most() {
    let many: Vec<Vec<u8>> = (1..=9).map(|value| simple(value, 18)).collect();
    let found = split(&many);
    assert_eq!(found.len(), 8);
    assert_eq!(found[..7], many[..7]);
}

#[test]
fn a_repeated_number_means_the_first_configuration() {
    let bytes = [device(2), simple(1, 18), simple(1, 18)].concat();
    let mut descriptors = Descriptors::split(&bytes).unwrap();
    descriptors.configurations[1][11] = 7;
    let at = Host::at(Speed::High);
    assert_eq!(numbers(&descriptors.configuration(1, at).unwrap()), [1]);
    assert_eq!(descriptors.configuration(0, at), None);
}

#[test]
fn isochronous_endpoints_are_found_in_any_configuration() {
    let parts: [&[u8]; 2] = [&interface(0, 1, 1), &endpoint(0x81, 1, 192)];
    let mut descriptors = Descriptors::split(&[device(1), simple(1, 18)].concat()).unwrap();
    assert!(descriptors.isochronous(Host::at(Speed::High)).is_empty());
    descriptors.configurations.push(configuration(1, &parts));
    assert!(!descriptors.isochronous(Host::at(Speed::High)).is_empty());
}

#[test]
fn a_speed_without_a_name_is_judged_by_the_device() {
    let speed = |bcd_usb, max_packet_size_0| {
        let mut bytes = device(1);
        bytes[2..4].copy_from_slice(&u16::to_le_bytes(bcd_usb));
        bytes[7] = max_packet_size_0;
        Descriptors::split(&bytes).unwrap().device.speed()
    };
    for bcd_usb in [0x0300, 0x0310, 0x0320, 0x0400] {
        assert_eq!(speed(bcd_usb, 9), Speed::Super);
    }
    for bcd_usb in [0x0200, 0x0201, 0x0210, 0x0320] {
        assert_eq!(speed(bcd_usb, 64), Speed::High);
    }
    assert_eq!(speed(0x0200, 8), Speed::Full);
    assert_eq!(speed(0x0110, 64), Speed::Full);
}

#[test]
fn any_cut_and_any_byte_is_survived() {
    let parts: [&[u8]; 5] = [
        &interface(0, 0, 1),
        &endpoint(0x81, 2, 512),
        &interface(0, 1, 1),
        &endpoint(0x81, 1, 0x1400),
        &interface(1, 0, 0),
    ];
    let bytes = [device(2), configuration(2, &parts), configuration(1, &parts)].concat();
    for end in 0..bytes.len() {
        crate::fuzzing::descriptors(&[&[2], &bytes[..end]].concat());
    }
    for position in 0..bytes.len() {
        for value in [0, 1, 2, 4, 5, 9, 127, 255] {
            let mut bytes = bytes.clone();
            bytes[position] = value;
            crate::fuzzing::descriptors(&[&[3], bytes.as_slice()].concat());
        }
    }
}
