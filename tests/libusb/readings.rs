//! The server's reading of descriptors compared with the simulated kernel's, on random devices: two
//! programs written from one source, `drivers/usb/core/config.c` of Linux 6.1.

#[allow(dead_code, reason = "the simulated usbfs uses the rest")]
#[path = "../../testkit/usbfs/src/descriptors.rs"]
mod kernel;

use crate::support::random::Random;
use usbferry::usb::descriptor::{Descriptors, Device, Host, parse_configuration};
use usbferry::wire::types::{Speed, TransferType};

/// Number of tried devices.
const DEVICES: u64 = 20_000;

const SPEEDS: [(kernel::Speed, Speed); 5] = [
    (kernel::Speed::Low, Speed::Low),
    (kernel::Speed::Full, Speed::Full),
    (kernel::Speed::High, Speed::High),
    (kernel::Speed::Super, Speed::Super),
    (kernel::Speed::SuperPlus, Speed::Super),
];

/// A device with mostly correct descriptors in its configurations.
struct Made {
    device: [u8; kernel::DEVICE_LEN],
    configurations: Vec<Vec<u8>>,
}

/// A configuration, as returned by a device. With `others` configuration descriptors may stand
/// inside, so that the end of the configuration is uncertain.
fn configuration(random: &mut Random, number: u8, others: bool) -> Vec<u8> {
    let mut bytes = vec![9, 2, 0, 0, byte(random, 4), number, 0, 0x80, 50];
    for _ in 0..random.below(14) {
        let mut descriptor = match random.below(if others { 13 } else { 12 }) {
            0..4 => vec![9, 4, byte(random, 4), byte(random, 3), byte(random, 4), 0xff, 0, 0, 0],
            4..9 => endpoint(random),
            9 => vec![6, 0x30, byte(random, 20), byte(random, 4), 0, 4],
            10 => vec![3, 0x24, 1],
            11 => vec![2, 0xff],
            _ => vec![9, 2, 18, 0, 1, 9, 0, 0x80, 50],
        };
        if random.below(8) == 0 {
            descriptor.resize(descriptor.len() + random.below(3) as usize, 0xee);
            descriptor[0] = u8::try_from(descriptor.len()).expect("it is short");
        }
        if random.below(30) == 0 {
            // Too short, or longer than the rest.
            descriptor[0] = byte(random, 40);
        }
        bytes.extend(descriptor);
    }
    let len = bytes.len() + random.one_of(&[0, 0, 0, 1, 30]);
    bytes[2..4].copy_from_slice(&u16::try_from(len).expect("it is short").to_le_bytes());
    bytes
}

fn endpoint(random: &mut Random) -> Vec<u8> {
    let address = random.one_of(&[0x00, 0x80]) | byte(random, 6);
    let address = if random.below(20) == 0 { byte(random, 256) } else { address };
    let [low, high] = u16::try_from(random.below(0x10000)).expect("a word").to_le_bytes();
    vec![7, 5, address, byte(random, 4), low, high & random.one_of(&[0x1f, 3, 0xff]), 1]
}

fn byte(random: &mut Random, bound: u32) -> u8 {
    u8::try_from(random.below(bound)).expect("a byte")
}

fn made(random: &mut Random, others: bool) -> Made {
    let count = random.one_of(&[1, 1, 2, 3]);
    let mut device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 16, 0, 0, 1, 0, 0, 0, count];
    let ids = [[9, 18, 16, 0], [0x26, 0x09, 0x02, 0x02], [0xf8, 0x06, 0x00, 0xb0]];
    device[8..12].copy_from_slice(&random.one_of(&ids));
    // More may be said than the device returns.
    device[17] += byte(random, 2);
    let configurations = (1..=count).map(|number| configuration(random, number, others));
    Made { device, configurations: configurations.collect() }
}

/// A configuration in a common form of both readings: interfaces, their settings, their endpoints.
type Shape = Vec<(u8, u8, Vec<(u8, Vec<(u8, u8, u16)>)>)>;

fn shape_of_kernel(configuration: &kernel::Configuration) -> Shape {
    let endpoint = |one: &kernel::Endpoint| (one.address, one.kind, one.max_packet);
    let setting =
        |one: &kernel::Setting| (one.number, one.endpoints.iter().map(endpoint).collect());
    let interface = |one: &kernel::Interface| {
        let settings: Vec<_> = one.settings.iter().map(setting).collect();
        let has_0 = one.settings.iter().any(|setting| setting.number == 0);
        let current = if has_0 { 0 } else { one.settings[0].number };
        (one.number, current, settings)
    };
    let mut shape: Shape = configuration.interfaces.iter().map(interface).collect();
    shape.sort_by_key(|&(number, ..)| number);
    shape
}

fn shape_of_server(bytes: &[u8], host: Host) -> Shape {
    let configuration = parse_configuration(bytes, host).expect("the kernel has taken it");
    let kind = |kind| match kind {
        TransferType::Control => kernel::CONTROL,
        TransferType::Isochronous => kernel::ISOCHRONOUS,
        TransferType::Bulk => kernel::BULK,
        TransferType::Interrupt => kernel::INTERRUPT,
    };
    let interfaces = configuration.interfaces.into_iter().map(|interface| {
        let settings = interface.alternates.into_iter().map(|setting| {
            let endpoints = setting.endpoints.iter();
            let endpoints = endpoints
                .map(|one| (one.address.as_byte(), kind(one.transfer_type), one.max_packet_size));
            (setting.setting, endpoints.collect())
        });
        (interface.number, interface.current, settings.collect())
    });
    interfaces.collect()
}

#[test]
fn the_server_reads_what_the_kernel_reads() {
    for seed in 0..DEVICES {
        let mut random = Random::new(seed);
        let made = made(&mut random, true);
        let (theirs, ours) = random.one_of(&SPEEDS);
        let honors_interface_count = random.below(4) == 0;
        let ignores_endpoints = random.below(2) == 0;
        let quirks = u32::from(honors_interface_count) << 5 | u32::from(ignores_endpoints) << 15;
        let Ok(host) = kernel::read(made.device, &made.configurations, (theirs, quirks)) else {
            continue;
        };
        for configuration in &host.configurations {
            let bytes = &configuration.raw[..configuration.kept];
            let ignored = if ignores_endpoints {
                Device::parse(&made.device).ignored_endpoints()
            } else {
                &[]
            };
            let host = Host { speed: ours, honors_interface_count, ignored };
            let server = shape_of_server(bytes, host);
            let kernel = shape_of_kernel(configuration);
            assert_eq!(server, kernel, "seed {seed}, {ours}: {bytes:02x?}");
        }
    }
}

/// Whether a configuration has another configuration descriptor inside, a possible end.
fn is_ambiguous(configuration: &kernel::Configuration) -> bool {
    let mut bytes = &configuration.raw[..configuration.kept];
    let mut count = 0;
    while let [len, kind, ..] = *bytes {
        count += usize::from(kind == 2);
        bytes = &bytes[usize::from(len)..];
    }
    count > 1
}

#[test]
fn the_server_finds_the_configurations_that_the_kernel_has() {
    for seed in 0..DEVICES {
        let mut random = Random::new(seed);
        let made = made(&mut random, false);
        let read = kernel::read(made.device, &made.configurations, (kernel::Speed::High, 0));
        let Ok(host) = read else { continue };
        if host.configurations.iter().any(is_ambiguous) {
            continue;
        }
        let found = Descriptors::split(&host.sysfs()).expect("there is a device descriptor");
        let kept = host.configurations.iter().map(|one| one.raw[..one.kept].to_vec());
        assert_eq!(found.configurations, kept.collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(found.device.num_configurations, host.device[17], "seed {seed}");
    }
}
