//! Devices with odd descriptors, on the real libusb and the simulated usbfs: the server exports the
//! host kernel's reading (`drivers/usb/core/config.c` and `message.c` of Linux 6.1), not libusb's
//! or the device's.
//!
//! In each [`Case`] the device is imported, the host's configuration is set by its number, and URBs
//! of the named endpoints must succeed. At the end kernel drivers are bound as before, and the host
//! has the same configuration. [`run`] does a case with a driver and without.

use crate::hardware::{
    Listed, PORT_RESET, Server, kill_attached, request, transfer, urb, wait_until,
};
use usbferry_load::client::{AttachError, Client, Reply};
use usbferry_load::pdu::{self, Submit};

const EPIPE: i32 = -32;

/// `ST_NA`.
const NOT_AVAILABLE: u32 = 1;

/// Device descriptors, of high speed and of super speed, with the given number of configurations.
const fn high_speed(configurations: u8) -> [u8; 18] {
    [18, 1, 0, 2, 0, 0, 0, 64, 9, 0x12, 0x10, 0, 0, 1, 0, 0, 0, configurations]
}

const fn super_speed(configurations: u8) -> [u8; 18] {
    [18, 1, 0x20, 3, 0, 0, 0, 9, 9, 0x12, 0x10, 0, 0, 1, 0, 0, 0, configurations]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A configuration descriptor with a number, a count of interfaces, and the descriptors behind.
fn configuration(number: u8, interfaces: u8, rest: &[&[u8]]) -> Vec<u8> {
    let rest = rest.concat();
    let len = u16::try_from(9 + rest.len()).expect("it is short enough").to_le_bytes();
    [&[9, 2, len[0], len[1], interfaces, number, 0, 0x80, 50], &rest[..]].concat()
}

const fn interface(number: u8, setting: u8, endpoints: u8) -> [u8; 9] {
    [9, 4, number, setting, endpoints, 0xff, 0, 0, 0]
}

const ISOCHRONOUS: u8 = 1;
const BULK: u8 = 2;
const INTERRUPT: u8 = 3;

const fn endpoint(address: u8, kind: u8, max_packet: u16) -> [u8; 7] {
    let [low, high] = max_packet.to_le_bytes();
    [7, 5, address, kind, low, high, 4]
}

/// A device, and the endpoints and settings that must work.
struct Case {
    name: &'static str,
    /// Options of the simulated usbfs for the device.
    options: String,
    /// Numbers of the interfaces, in the host's configuration.
    interfaces: Vec<u8>,
    /// The host's configuration, which the client sets again.
    number: u8,
    /// Interfaces and settings, set by the client.
    settings: Vec<(u8, u8)>,
    /// Addresses of endpoints; for an isochronous endpoint with the length of a packet.
    endpoints: Vec<(u8, usize)>,
    /// The driver is bound again only if the host makes the interfaces anew.
    is_renewed: bool,
}

impl Case {
    /// A device with one configuration.
    fn of(name: &'static str, bytes: &[u8]) -> Self {
        Self::hex(name, &hex(bytes))
    }

    /// The same, from bytes in hexadecimal.
    fn hex(name: &'static str, text: &str) -> Self {
        Self::with(name, format!("config={text}"))
    }

    /// A device with other options.
    fn with(name: &'static str, options: String) -> Self {
        let (interfaces, settings, endpoints) = (vec![0], Vec::new(), vec![(0x81, 0)]);
        Self { name, options, interfaces, number: 1, settings, endpoints, is_renewed: false }
    }

    /// The options, for device 1-`number` alone.
    fn options_of(&self, number: usize, driver: &str) -> String {
        let options = self.options.split(':').chain([driver]).filter(|option| !option.is_empty());
        options.map(|option| format!(":{number}.{option}")).collect()
    }

    fn run_on(&self, server: &Server, device: usize, has_driver: bool) {
        let is_bound = |interface| server.has_driver_in(device, self.number, interface);
        let mut client = server.attach_to(device);
        for &interface in &self.interfaces {
            assert!(!is_bound(interface), "{}: interface {interface} has no driver", self.name);
        }
        self.use_device(&mut client);
        drop(client);
        // A second import succeeds only after the device is given back.
        drop(server.attach_to(device));
        // Once for each of the two imports.
        let renewals = if self.is_renewed && has_driver { 2 } else { 0 };
        let is_back = |&interface| is_bound(interface) == has_driver;
        let is_renewed = || renewals_in(&server.requests_of(device)) >= renewals;
        let configuration = || server.attribute(device, "bConfigurationValue");
        let is_configured = || configuration() == self.number.to_string();
        wait_until(
            || is_renewed() && self.interfaces.iter().all(is_back) && is_configured(),
            || format!("{}: not as it was: {}, {:?}", self.name, configuration(), server.log()),
        );
        self.check_requests(&server.requests_of(device), renewals);
    }

    /// The device's record and drivers before any import.
    fn check_listed(&self, server: &Server, device: usize, listed: &Listed, has_driver: bool) {
        assert_eq!(listed.configuration, self.number, "{}", self.name);
        assert_eq!(listed.interfaces.len(), self.interfaces.len(), "{}", self.name);
        for &interface in &self.interfaces {
            let is_bound = server.has_driver_in(device, self.number, interface);
            assert_eq!(is_bound, has_driver, "{}: interface {interface}", self.name);
        }
    }

    fn use_device(&self, client: &mut Client) {
        let descriptor = client.control([0x80, 6, 0, 1, 0, 0, 18, 0], &[]).expect("an answer");
        assert_eq!((descriptor.status, descriptor.actual_length), (0, 18), "{}", self.name);
        if self.settings.is_empty() {
            self.use_endpoints(client);
        }
        let set = transfer(client, request([0, 9, self.number, 0, 0, 0, 0, 0]), &[]);
        assert_eq!(set.status, 0, "{}: SET_CONFIGURATION", self.name);
        for &(interface, setting) in &self.settings {
            let set = request([1, 11, setting, 0, interface, 0, 0, 0]);
            assert_eq!(transfer(client, set, &[]).status, 0, "{}: SET_INTERFACE", self.name);
        }
        self.use_endpoints(client);
    }

    fn use_endpoints(&self, client: &mut Client) {
        for &(address, packet) in &self.endpoints {
            let reply = move_data(client, address, packet);
            assert_eq!(reply.status, 0, "{}: endpoint {address:02x}", self.name);
        }
    }

    /// The device got no GET_CONFIGURATION, and was unconfigured `renewals` times.
    fn check_requests(&self, asked: &[String], renewals: usize) {
        let answered = asked.iter().find(|setup| setup.starts_with("8008"));
        assert_eq!(answered, None, "{}: {asked:?}", self.name);
        if self.number != 0 {
            assert_eq!(renewals_in(asked), renewals, "{}: {asked:?}", self.name);
        }
    }
}

/// The number of SET_CONFIGURATIONs to 0.
fn renewals_in(requests: &[String]) -> usize {
    requests.iter().filter(|setup| setup.starts_with("00090000")).count()
}

/// Runs cases on one server, each on a device with a kernel driver and on a device without.
fn run(cases: &[Case]) {
    let runs: Vec<(&Case, bool)> =
        cases.iter().flat_map(|case| [(case, true), (case, false)]).collect();
    let mut options = format!("count={}", runs.len());
    for (index, (case, has_driver)) in runs.iter().enumerate() {
        let driver = if *has_driver { "" } else { "driver=" };
        options.push_str(&case.options_of(index + 1, driver));
    }
    let server = Server::start(&options);
    let listed = server.devices();
    assert_eq!(listed.len(), runs.len(), "{listed:?}");
    for (device, (case, has_driver)) in (1..).zip(&runs) {
        let busid = format!("1-{device}");
        let listed = listed.iter().find(|listed| listed.busid == busid).expect(case.name);
        case.check_listed(&server, device, listed, *has_driver);
    }
    for (device, (case, has_driver)) in (1..).zip(runs) {
        case.run_on(&server, device, has_driver);
    }
}

/// Moves some bytes through an endpoint, in two packets if isochronous.
fn move_data(client: &mut Client, address: u8, packet: usize) -> Reply {
    let len = if packet == 0 { 16 } else { 2 * packet };
    let data = if address & 0x80 == 0 { vec![0; len] } else { Vec::new() };
    let packets = if packet == 0 { 0 } else { 2 };
    let descriptors = pdu::descriptors(packets, packet);
    let reply =
        transfer(client, Submit { packets, ..urb(address, len) }, &[data, descriptors].concat());
    assert!(reply.packets.iter().all(|&(_, status)| status == 0), "{:?}", reply.packets);
    if reply.status == 0 {
        assert_eq!(reply.actual_length as usize, len, "endpoint {address:02x}");
    }
    reply
}

/// The device's answer to GET_CONFIGURATION can differ from the host's: a Bluetooth radio answers
/// 0.
#[test]
fn get_configuration_is_never_sent_to_the_device() {
    run(&[0, 7, 255].map(|answer| Case {
        interfaces: vec![0, 1],
        endpoints: vec![(0x81, 0), (0x01, 0)],
        ..Case::with("GET_CONFIGURATION", format!("answer-configuration={answer}"))
    }));
}

#[test]
fn get_configuration_of_a_client_reaches_the_device() {
    let server = Server::start("answer-configuration=0");
    let mut client = server.attach();
    let reply = client.control([0x80, 8, 0, 0, 0, 0, 1, 0], &[]).unwrap();
    assert_eq!((reply.status, reply.data.as_slice()), (0, &[0][..]));
    assert_eq!(move_data(&mut client, 0x81, 0).status, 0);
}

#[test]
fn a_configuration_may_have_number_0() {
    let text = concat!(
        "09022700010000803209040000030b0000000705810240000007050102400000070582030800",
        "0a"
    );
    run(&[Case {
        number: 0,
        endpoints: vec![(0x81, 0), (0x01, 0), (0x82, 0)],
        ..Case::hex("configuration 0", text)
    }]);
}

/// libusb refuses a configuration with a total length below its own descriptor's, listed or wrapped
/// (`parse_config_descriptors`), and the kernel finds no interfaces there.
#[test]
fn a_configuration_shorter_than_its_descriptor_is_listed_and_refused() {
    for len in [0, 4, 8] {
        let mut bytes = configuration(1, 1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512)]);
        bytes[2..4].copy_from_slice(&[len, 0]);
        let server = Server::start(&format!("config={}", hex(&bytes)));
        let listed = &server.devices()[0];
        assert_eq!((listed.configuration, listed.interfaces.len()), (1, 0));
        match Client::attach(&*server.address, "1-1") {
            Err(AttachError::Refused(NOT_AVAILABLE)) => {}
            other => panic!("{len} bytes said: {other:?}"),
        }
        let said = server.said_by_now("1-1: ", 1);
        assert!(said[0].contains("libusb"), "{said:?}");
        assert_eq!(server.attribute(1, "bConfigurationValue"), "1");
        assert_eq!(server.requests(), [""; 0]);
    }
}

/// SET_CONFIGURATION with an unknown number changes nothing.
#[test]
fn an_unknown_configuration_is_refused() {
    let bytes = configuration(0, 1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512)]);
    let server = Server::start(&format!("config={}", hex(&bytes)));
    let mut client = server.attach();
    let refused = transfer(&mut client, request([0, 9, 1, 0, 0, 0, 0, 0]), &[]);
    assert_eq!(refused.status, EPIPE);
    assert_eq!(move_data(&mut client, 0x81, 0).status, 0);
}

#[test]
fn the_shorter_of_total_length_and_data_counts() {
    let text = "09023c0001010080320904000002ff0000000705810200020007050102000200";
    let both = vec![(0x81, 0), (0x01, 0)];
    run(&[
        Case { endpoints: both.clone(), ..Case::hex("60 said, 32 there", text) },
        Case::hex("60 said, 30 there", &text[..60]),
        Case { endpoints: both, ..Case::hex("65,535 said", &text.replacen("3c00", "ffff", 1)) },
        // A total length below the data's: the rest is not read.
        Case::hex("25 said", &text.replacen("3c00", "1900", 1)),
        Case::hex("27 said", &text.replacen("3c00", "1b00", 1)),
    ]);
}

#[test]
fn a_descriptor_of_impossible_length_ends_the_reading() {
    let text = "0902230001010080320904000002ff0000000705810200020007050102000200010203";
    let both = vec![(0x81, 0), (0x01, 0)];
    let bulk = endpoint(0x81, BULK, 512);
    let parts = [&interface(0, 0, 1)[..], &bulk, &[0, 0], &interface(1, 0, 0)];
    let mut cases = vec![
        Case { endpoints: both, ..Case::hex("junk behind", text) },
        Case::of("an interface behind junk", &configuration(1, 2, &parts)),
    ];
    for junk in [&[0, 5][..], &[1, 4], &[200, 5, 0x82, 2, 0, 2, 0], &[7]] {
        let bytes = configuration(1, 1, &[&interface(0, 0, 2), &bulk, junk]);
        cases.push(Case::of("junk", &bytes));
    }
    run(&cases);
}

#[test]
fn missing_endpoints_are_no_obstacle() {
    let text = "09022200020100803209040000010e0100000705810310000809040100010e020000";
    let bytes = configuration(
        1,
        1,
        &[&interface(0, 0, 255), &endpoint(0x81, BULK, 512), &endpoint(0x01, BULK, 512)],
    );
    run(&[
        Case { interfaces: vec![0, 1], ..Case::hex("one is missing", text) },
        Case { endpoints: vec![(0x81, 0), (0x01, 0)], ..Case::of("255 are said", &bytes) },
    ]);
}

#[test]
fn endpoints_beyond_the_stated_number_are_skipped() {
    let text = concat!(
        "09024000030100803209040000010300000007058103400004090401000103000000070582034000",
        "040705840340000409040200010300000007058303400004"
    );
    let bytes = configuration(
        1,
        2,
        &[
            &interface(0, 0, 0),
            &endpoint(0x81, BULK, 512),
            &interface(1, 0, 1),
            &endpoint(0x81, INTERRUPT, 8),
        ],
    );
    run(&[
        Case {
            interfaces: vec![0, 1, 2],
            endpoints: vec![(0x81, 0), (0x82, 0), (0x83, 0)],
            ..Case::hex("one too many", text)
        },
        Case { interfaces: vec![0, 1], ..Case::of("none is said", &bytes) },
    ]);
}

#[test]
fn settings_are_sorted_by_interface() {
    let text = concat!(
        "09024400030100803209040000000100000009040100000100000009040200000100000009040101",
        "010100000007050101c0000109040201010100000007058201c00001"
    );
    run(&[Case {
        interfaces: vec![0, 1, 2],
        settings: vec![(1, 1), (2, 1)],
        endpoints: vec![(0x01, 192), (0x82, 100)],
        ..Case::hex("settings apart", text)
    }]);
}

/// A repeated setting counts once, as its first; numbers of settings need not begin with 0.
#[test]
fn settings_may_have_any_numbers() {
    let [first, second, third] = [0x81, 0x82, 0x83].map(|address| endpoint(address, BULK, 512));
    let repeated = [interface(0, 0, 1), interface(0, 0, 1), interface(0, 7, 1)];
    let twice =
        configuration(1, 1, &[&repeated[0], &first, &repeated[1], &second, &repeated[2], &third]);
    let without_0 =
        configuration(1, 1, &[&interface(0, 3, 1), &first, &interface(0, 1, 1), &second]);
    run(&[
        Case::of("a setting twice", &twice),
        Case {
            settings: vec![(0, 7)],
            endpoints: vec![(0x83, 0)],
            ..Case::of("a setting after one that comes twice", &twice)
        },
        Case { is_renewed: true, ..Case::of("no setting 0: the first is set", &without_0) },
        Case {
            settings: vec![(0, 1)],
            endpoints: vec![(0x82, 0)],
            is_renewed: true,
            ..Case::of("no setting 0: another is set", &without_0)
        },
    ]);
}

/// An ordinary interface, and an interface without setting 0: a driver gets the latter only when
/// the configuration is set anew.
fn without_setting_0() -> String {
    let [first, second] = [0x81, 0x82].map(|address| endpoint(address, BULK, 512));
    let parts = [&interface(0, 3, 1)[..], &first, &interface(1, 0, 1), &second];
    format!("config={}", hex(&configuration(1, 2, &parts)))
}

/// The interface is released or set up anew for each of the requests.
#[test]
fn an_interface_without_setting_0_works_after_resets_and_refusals() {
    let [first, second] = [0x81, 0x82].map(|address| endpoint(address, BULK, 512));
    let parts = [&interface(0, 3, 1)[..], &first, &interface(0, 1, 1), &second];
    let options = format!("config={}", hex(&configuration(1, 1, &parts)));
    // SET_CONFIGURATION to the current configuration selects the first settings.
    let again = ([0, 9, 1, 0, 0, 0, 0, 0], 0, false);
    for (setup, status, is_kept) in
        [(PORT_RESET, 0, true), ([0, 9, 7, 0, 0, 0, 0, 0], EPIPE, true), again]
    {
        let server = Server::start(&options);
        let mut client = server.attach();
        assert_eq!(transfer(&mut client, request(setup), &[]).status, status);
        assert_eq!(move_data(&mut client, 0x81, 0).status, 0, "{setup:02x?}");
        client.set_interface(0, 1).unwrap();
        assert_eq!(move_data(&mut client, 0x82, 0).status, 0, "{setup:02x?}");
        assert_eq!(transfer(&mut client, request(setup), &[]).status, status);
        let address = if is_kept { 0x82 } else { 0x81 };
        assert_eq!(move_data(&mut client, address, 0).status, 0, "{setup:02x?}");
    }
}

/// Setting the configuration anew would take all interfaces from their owners.
#[test]
fn interfaces_of_other_programs_stay_with_them() {
    let server = Server::start(&format!("{}:refuse=claim@1,EBUSY", without_setting_0()));
    let mut client = server.attach();
    assert_eq!(move_data(&mut client, 0x81, 0).status, 0);
    assert_eq!([server.has_driver(0), server.has_driver(1)], [false, true]);
    drop(client);
    server.wait_for("1-1 connect 0");
    assert_eq!([server.has_driver(0), server.has_driver(1)], [false, true]);
    assert_eq!(renewals_in(&server.requests()), 0);
    assert_eq!(server.said_by_now("another of its interfaces is in use", 1).len(), 1);
}

/// An interface never taken from its driver prevents no repair.
#[test]
fn an_interface_never_taken_prevents_no_repair() {
    for (refused, answer) in [("claim@0", true), ("claim", false)] {
        let server = Server::start(&format!("{}:refuse={refused},EBUSY", without_setting_0()));
        let attached = Client::attach(&*server.address, "1-1");
        assert_eq!(attached.is_ok(), answer);
        drop(attached);
        server.said_by_now("1-1: released", usize::from(answer));
        let log = server.log();
        assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2], "{log:?}");
        assert!(!log.iter().any(|line| line.contains("configuration")), "{log:?}");
        assert_eq!(server.said("is in use"), [""; 0]);
    }
}

/// A device that refuses SET_CONFIGURATION 0: the host unconfigures the device all the same.
#[test]
fn a_device_that_refuses_configuration_0_gets_its_drivers_back() {
    let options = format!("{}:stall-request=00090000", without_setting_0());
    let server = Server::start(&options);
    drop(server.attach());
    server.wait_for("1-1 configuration 1");
    wait_until(|| server.has_driver(0) && server.has_driver(1), || format!("{:?}", server.log()));
}

/// A device that stays unconfigured has no interfaces left; the log says so.
#[test]
fn a_device_that_stays_unconfigured_is_logged() {
    let server = Server::start(&format!("{}:stall-request=000901", without_setting_0()));
    drop(server.attach());
    assert_eq!(server.said_by_now("configuration 1 can't be set anew", 1).len(), 1);
    assert_eq!(server.attribute(1, "bConfigurationValue"), "");
}

/// An interface with settings 0 and 1 and an ordinary one, of a device that stalls the request to
/// set the first to 0 again. Linux then asks no driver.
fn stalls_setting_0() -> String {
    let [first, second] = [0x81, 0x82].map(|address| endpoint(address, BULK, 512));
    let parts =
        [&interface(0, 0, 0)[..], &interface(0, 1, 1), &first, &interface(1, 0, 1), &second];
    format!("config={}:stall-request=010b00000000", hex(&configuration(1, 2, &parts)))
}

#[test]
fn a_device_that_does_not_go_back_to_setting_0_gets_its_drivers_back() {
    for is_reset in [false, true] {
        let arguments: &[&str] = if is_reset { &["--reset-on-release"] } else { &[] };
        let server = Server::start_with(&stalls_setting_0(), arguments);
        let mut client = server.attach();
        client.set_interface(0, 1).unwrap();
        assert_eq!(move_data(&mut client, 0x81, 0).status, 0);
        drop(client);
        drop(server.attach());
        server.said_by_now("1-1: released", 2);
        assert_eq!([server.has_driver(0), server.has_driver(1)], [true; 2], "{:?}", server.log());
        assert_eq!(renewals_in(&server.requests()), 1, "only where it is needed");
    }
}

#[test]
fn a_killed_server_leaves_no_interface_without_its_driver() {
    let mut server = Server::start(&without_setting_0());
    kill_attached(&mut server);
    let next = Server::start_in(server.root.clone(), &without_setting_0(), &[]);
    assert_eq!([next.has_driver(0), next.has_driver(1)], [true; 2]);
    assert_eq!((next.attribute(1, "bConfigurationValue").as_str(), next.notes()), ("1", 0));
    assert_eq!(move_data(&mut next.attach(), 0x81, 0).status, 0);
    std::mem::forget(server);
}

#[test]
fn interfaces_may_have_any_numbers() {
    // usbfs has a bit for each interface in a long.
    let last = if usize::BITS == 64 { 63 } else { 31 };
    let bytes = configuration(
        1,
        5,
        &[
            &interface(6, 0, 1),
            &endpoint(0x81, BULK, 512),
            &interface(4, 0, 0),
            &interface(4, 1, 1),
            &endpoint(0x82, BULK, 512),
            &interface(last, 0, 1),
            &endpoint(0x03, BULK, 512),
        ],
    );
    let none = configuration(1, 0, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512)]);
    run(&[
        Case {
            interfaces: vec![6, 4, last],
            settings: vec![(4, 1)],
            endpoints: vec![(0x81, 0), (0x82, 0), (0x03, 0)],
            ..Case::of("interfaces 6, 4 and the last, five said", &bytes)
        },
        Case::of("no interface said", &none),
    ]);
}

/// The kernel ignores interfaces beyond the stated number on some known devices.
#[test]
fn interfaces_beyond_the_stated_number_are_left_out_of_known_devices() {
    let [first, second] = [0x81, 0x82].map(|address| endpoint(address, BULK, 512));
    let parts = [&interface(0, 0, 1)[..], &first, &interface(1, 0, 1), &second];
    let bytes = hex(&configuration(1, 1, &parts));
    run(&[
        Case {
            interfaces: vec![0, 1],
            endpoints: vec![(0x81, 0), (0x82, 0)],
            ..Case::hex("two where one is said", &bytes)
        },
        Case::with("one", format!("quirks=20:config={bytes}")),
    ]);
}

/// The kernel leaves out endpoints of some known devices; later endpoints of the same address
/// count.
#[test]
fn endpoints_ignored_by_the_kernel_are_left_out() {
    let two = |(first, second): (u8, u8), address| {
        let parts = [
            &interface(first, 0, 0)[..],
            &interface(first, 1, 1),
            &endpoint(address, BULK, 512),
            &interface(second, 0, 0),
            &interface(second, 1, 1),
            &endpoint(address, ISOCHRONOUS, 64),
        ];
        hex(&configuration(1, 2, &parts))
    };
    let case = |(vendor, product): (u16, u16), quirks, numbers: (u8, u8), address, is_ignored| {
        let mut device = high_speed(1);
        device[8..10].copy_from_slice(&vendor.to_le_bytes());
        device[10..12].copy_from_slice(&product.to_le_bytes());
        let options =
            format!("quirks={quirks}:device={}:config={}", hex(&device), two(numbers, address));
        let (used, packet) = if is_ignored { (numbers.1, 64) } else { (numbers.0, 0) };
        Case {
            interfaces: vec![numbers.0, numbers.1],
            settings: vec![(used, 1)],
            endpoints: vec![(address, packet)],
            ..Case::with("an ignored endpoint", options)
        }
    };
    run(&[
        case((0x0926, 0x0202), 8000, (1, 2), 0x85, true),
        case((0x0926, 0x0208), 8000, (1, 2), 0x85, true),
        case((0x06f8, 0xb000), 8000, (5, 6), 0x81, true),
        case((0x06f8, 0xb000), 8000, (5, 6), 0x01, true),
        // Another kernel, interface, address or device.
        case((0x0926, 0x0202), 0, (1, 2), 0x85, false),
        case((0x0926, 0x0202), 8000, (0, 2), 0x85, false),
        case((0x0926, 0x0202), 8000, (1, 2), 0x84, false),
        case((0x0926, 0x0203), 8000, (1, 2), 0x85, false),
        case((0x06f8, 0xb000), 8000, (5, 6), 0x85, false),
    ]);
}

/// libusb claims interfaces 0 to 31, usbfs 0 to 63. Those of a device with further interfaces work.
#[test]
fn an_interface_beyond_the_claimable_numbers_is_no_obstacle() {
    for number in [32, 63, 64, 255] {
        let bytes = configuration(
            1,
            2,
            &[
                &interface(number, 0, 1),
                &endpoint(0x82, BULK, 512),
                &interface(0, 0, 1),
                &endpoint(0x81, BULK, 512),
            ],
        );
        let server = Server::start(&format!("config={}", hex(&bytes)));
        let mut client = server.attach();
        assert_eq!(move_data(&mut client, 0x81, 0).status, 0, "beside interface {number}");
        drop(client);
        server.wait_for("1-1 connect 0");
        let has_drivers = || server.has_driver(0) && server.has_driver(number);
        wait_until(has_drivers, || format!("drivers are not back: {:?}", server.log()));
    }
}

#[test]
fn the_first_32_interfaces_count() {
    let endpoints: Vec<[u8; 7]> =
        (1..=15).map(|number| endpoint(0x80 | number, BULK, 512)).collect();
    let mut parts = Vec::new();
    let interfaces: Vec<[u8; 9]> = (0..33).map(|number| interface(number, 0, 1)).collect();
    for (index, interface) in interfaces.iter().enumerate() {
        parts.push(interface.as_slice());
        parts.extend(endpoints.get(index).map(<[u8; 7]>::as_slice));
    }
    run(&[Case {
        interfaces: (0..32).collect(),
        endpoints: vec![(0x81, 0), (0x8f, 0)],
        ..Case::of("33 interfaces", &configuration(1, 33, &parts))
    }]);
}

#[test]
fn the_first_128_settings_count() {
    let settings: Vec<[u8; 9]> = (0..200).map(|setting| interface(0, setting, 1)).collect();
    let endpoint = endpoint(0x81, BULK, 512);
    let parts: Vec<&[u8]> =
        settings.iter().flat_map(|setting| [setting.as_slice(), &endpoint]).collect();
    let bytes = configuration(1, 1, &parts);
    run(&[Case { settings: vec![(0, 127)], ..Case::of("200 settings", &bytes) }]);
    let server = Server::start(&format!("config={}", hex(&bytes)));
    let mut client = server.attach();
    assert!(client.set_interface(0, 128).is_err());
    assert_eq!(move_data(&mut client, 0x81, 0).status, 0);
}

#[test]
fn endpoints_with_impossible_addresses_are_skipped() {
    let case = |(address, at)| {
        let mut parts = vec![
            interface(0, 0, 3).to_vec(),
            endpoint(0x81, BULK, 512).to_vec(),
            endpoint(0x01, BULK, 512).to_vec(),
        ];
        parts.insert(at, endpoint(address, INTERRUPT, 8).to_vec());
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Case {
            endpoints: vec![(0x81, 0), (0x01, 0)],
            ..Case::of("an impossible address", &configuration(1, 1, &parts))
        }
    };
    let cases = [0x00, 0x80, 0x10, 0x90, 0x71].into_iter();
    let cases: Vec<Case> =
        cases.flat_map(|address| [(address, 1), (address, 2)]).map(case).collect();
    run(&cases);
}

/// In one interface or two, with any types.
#[test]
fn the_first_endpoint_of_an_address_counts() {
    let types = [(BULK, 512), (INTERRUPT, 64), (ISOCHRONOUS, 64)];
    let mut cases = Vec::new();
    for (first, max_packet) in types {
        for (second, other) in types.into_iter().filter(|&(kind, _)| kind != first) {
            let twice = [endpoint(0x81, first, max_packet), endpoint(0x81, second, other)];
            let endpoints = vec![(0x81, if first == ISOCHRONOUS { 64 } else { 0 })];
            let one = configuration(1, 1, &[&interface(0, 0, 2), &twice[0], &twice[1]]);
            cases.push(Case { endpoints: endpoints.clone(), ..Case::of("twice", &one) });
            let interfaces = [interface(0, 0, 1), interface(1, 0, 1)];
            let two = [&interfaces[0][..], &twice[0], &interfaces[1], &twice[1]];
            let two = configuration(1, 2, &two);
            let interfaces = vec![0, 1];
            cases.push(Case { interfaces, endpoints, ..Case::of("in two interfaces", &two) });
        }
    }
    run(&cases);
}

/// Descriptors may be longer than their structures, descriptors of classes may stand between, and a
/// descriptor that is too short is skipped.
#[test]
fn descriptors_may_be_longer_than_their_structures() {
    let long = configuration(
        1,
        1,
        &[
            &[11, 4, 0, 0, 2, 0xff, 0, 0, 0, 0xaa, 0xbb],
            &[5, 0x24, 1, 2, 3],
            &[9, 5, 0x81, ISOCHRONOUS, 64, 0, 4, 0, 0],
            &[7, 0x25, 1, 0, 0, 0, 0],
            &[2, 0xff],
            &endpoint(0x02, BULK, 512),
        ],
    );
    let mut longer = long.clone();
    longer[0] = 11;
    longer[2] += 2;
    longer.splice(9..9, [0xaa, 0xbb]);
    let short = configuration(
        1,
        2,
        &[
            &interface(0, 0, 3),
            &[6, 5, 0x82, BULK, 0, 2],
            &endpoint(0x81, BULK, 512),
            &[8, 4, 1, 0, 1, 0xff, 0, 0],
            &endpoint(0x83, BULK, 512),
        ],
    );
    let between = configuration(
        1,
        1,
        &[
            &[18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 16, 0, 0, 1, 0, 0, 0, 1],
            &interface(0, 0, 1),
            &[9, 2, 32, 0, 1, 2, 0, 0x80, 50],
            &endpoint(0x81, BULK, 512),
        ],
    );
    let endpoints = vec![(0x81, 64), (0x02, 0)];
    run(&[
        Case { endpoints: endpoints.clone(), ..Case::of("long ones, and of classes", &long) },
        Case { endpoints, ..Case::of("11 bytes of configuration", &longer) },
        Case::of("short ones", &short),
        Case::of("descriptors of devices and configurations in between", &between),
    ]);
}

/// A configuration in `descriptors` may be shorter than its total length; the next is found.
#[test]
fn a_configuration_begins_at_the_end_of_the_data_before() {
    let first = "09023c0001010080320904000002ff0000000705810200020007050102000200";
    let second = configuration(2, 1, &[&interface(0, 0, 1), &endpoint(0x83, BULK, 512)]);
    let options = |junk| format!("config={first}{junk}:config={}", hex(&second));
    let mut cases = Vec::new();
    for junk in ["", "010203", "07"] {
        let endpoints = vec![(0x81, 0), (0x01, 0)];
        cases.push(Case { endpoints, ..Case::with("the first of two", options(junk)) });
        let active = format!("{}:active=2", options(junk));
        let endpoints = vec![(0x83, 0)];
        cases.push(Case { number: 2, endpoints, ..Case::with("the second of two", active) });
    }
    run(&cases);
    let server = Server::start(&options("010203"));
    assert_eq!(server.devices()[0].configurations, 2);
    let mut client = server.attach();
    let set = request([0, 9, 2, 0, 0, 0, 0, 0]);
    assert_eq!(transfer(&mut client, set, &[]).status, 0);
    assert_eq!(move_data(&mut client, 0x83, 0).status, 0);
    assert_ne!(move_data(&mut client, 0x81, 0).status, 0);
}

#[test]
fn configurations_the_device_does_not_return_are_left_out() {
    let one = configuration(1, 1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 512)]);
    let options = format!("device={}:config={}", hex(&high_speed(3)), hex(&one));
    assert_eq!(Server::start(&options).devices()[0].configurations, 1);
    run(&[Case::with("one of three", options)]);
}

/// The first configuration of a number counts.
#[test]
fn the_first_configuration_of_a_number_counts() {
    let [first, second] = [0x81, 0x82].map(|address| {
        hex(&configuration(1, 1, &[&interface(0, 0, 1), &endpoint(address, BULK, 512)]))
    });
    run(&[Case::with("two of one number", format!("config={first}:config={second}"))]);
}

/// The client may configure a device that the host has left unconfigured.
#[test]
fn a_client_can_configure_an_unconfigured_device() {
    for answer in ["", ":answer-configuration=1"] {
        let server = Server::start(&format!("active=none{answer}"));
        let listed = server.devices();
        assert_eq!((listed[0].configuration, listed[0].interfaces.len()), (0, 0));
        let mut client = server.attach();
        let set = request([0, 9, 1, 0, 0, 0, 0, 0]);
        assert_eq!(transfer(&mut client, set, &[]).status, 0, "{answer}");
        assert_eq!(move_data(&mut client, 0x81, 0).status, 0, "{answer}");
    }
}

/// The kernel turns impossible endpoints at low speed into interrupt endpoints, and cuts packets to
/// the speed's limit.
#[test]
fn endpoints_are_repaired_like_the_kernels() {
    let low = hex(&configuration(1, 1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 64)]));
    let long = configuration(
        1,
        1,
        &[&interface(0, 0, 2), &endpoint(0x81, BULK, 4096), &endpoint(0x82, INTERRUPT, 2047)],
    );
    run(&[
        Case::with("bulk at low speed", format!("speed=1.5:config={low}")),
        Case {
            endpoints: vec![(0x81, 0), (0x82, 0)],
            ..Case::of("packets that are too long", &long)
        },
    ]);
}

/// A packet of a super speed device is a burst.
#[test]
fn a_burst_of_super_speed_is_one_packet() {
    let bytes = configuration(
        1,
        1,
        &[
            &interface(0, 0, 0),
            &interface(0, 1, 1),
            &endpoint(0x81, ISOCHRONOUS, 1024),
            &[6, 0x30, 3, 1, 0, 0x20],
        ],
    );
    let device = hex(&super_speed(1));
    run(&[Case {
        settings: vec![(0, 1)],
        endpoints: vec![(0x81, 8 * 1024)],
        ..Case::with("a burst", format!("speed=5000:device={device}:config={}", hex(&bytes)))
    }]);
}

#[test]
fn speeds_are_reported_in_the_clients_words() {
    let speeds = [
        (high_speed(1), "1.5", 1),
        (high_speed(1), "12", 2),
        (high_speed(1), "480", 3),
        (super_speed(1), "5000", 5),
        (super_speed(1), "10000", 5),
        (super_speed(1), "20000", 5),
        // Unknown speeds are judged by the device descriptor.
        (super_speed(1), "40000", 5),
        (super_speed(1), "unknown", 5),
        (high_speed(1), "unknown", 3),
    ];
    let bytes = configuration(1, 1, &[&interface(0, 0, 1), &endpoint(0x81, BULK, 64)]);
    let case = |(device, speed, _): &([u8; 18], &str, u32)| {
        let device = format!("speed={speed}:device={}:config={}", hex(device), hex(&bytes));
        Case::with("a speed", device)
    };
    run(&speeds.iter().map(case).collect::<Vec<Case>>());
    for described in speeds {
        let server = Server::start(&case(&described).options);
        let (_, speed, expected) = described;
        assert_eq!(server.devices()[0].speed, expected, "{speed}");
    }
}

/// The list and the import have the same record of a device.
#[test]
fn the_list_has_the_hosts_reading() {
    let text = "09022200020100803209040000010e0100000705810310000809040100010e020000";
    let server = Server::start(&format!("config={text}"));
    let listed = Listed {
        busid: "1-1".to_owned(),
        speed: 3,
        configuration: 1,
        configurations: 1,
        interfaces: vec![[14, 1, 0], [14, 2, 0]],
    };
    assert_eq!(server.devices(), [listed]);
}
