//! The common parts of all simulated devices: the bus, delays, faults, standard requests.

use std::time::{Duration, Instant};

use super::SimBackend;
use super::bus::SimBus;
use super::spec::{ModelKind, Spec};
use super::testing::{Host, setup};
use crate::limits::DeviceLimits;
use crate::usb::special::SpecialRequest;
use crate::usb::{Backend, Candidate, Hints, News, OpenError, Performed, Port, RefusedReason};
use crate::wire::op::OpStatus;
use crate::wire::status::Status;

fn open_error(bus: &SimBus) -> OpenError {
    let candidates = SimBackend::new(bus.clone()).scan().unwrap().devices;
    let opened = candidates[0].open(&DeviceLimits::default(), false);
    opened.err().expect("it is refused")
}

#[test]
fn devices_have_busids_and_addresses_of_their_own() {
    let bus = SimBus::with(&Spec::parse_list("loopback:count=254").unwrap());
    let found = SimBackend::new(bus.clone()).scan().unwrap().devices;
    let mut devnums: Vec<u8> = found.iter().map(|c| c.info().device.devnum).collect();
    devnums.dedup();
    assert_eq!((devnums.len(), devnums[0], devnums[253]), (254, 2, 255));
    let info = found[9].info();
    assert_eq!(info.device.busid.to_string(), "1-10");
    assert_eq!(info.device.path, "/simulated/1-10");
    assert_eq!(info.device.id_vendor, 0x1209);
    assert_eq!(info.serial.as_deref(), Some("05EED000000A"));
    assert_eq!(info.device.interfaces.len(), 2);
}

#[test]
fn a_device_has_one_port_at_a_time_and_counts_openings() {
    let host = Host::open("loopback");
    let (bus, busid) = (host.bus.clone(), host.busid);
    assert!(bus.is_open(busid));
    assert_eq!(open_error(&bus).status(), OpStatus::DeviceBusy);
    host.close();
    assert!(!bus.is_open(busid));
    bus.refuse_opens(busid, 2);
    assert_eq!(open_error(&bus).status(), OpStatus::NotAvailable);
    assert_eq!(open_error(&bus).status(), OpStatus::NotAvailable);
    Host::open_on(&bus);
    assert_eq!(bus.open_count(busid), 2);
    assert!(!bus.is_open(busid), "a port that is dropped is closed");
}

/// Takes all hints; whether there was one.
fn is_hinted(hints: &mut dyn Hints) -> bool {
    let mut hinted = false;
    loop {
        let News { scan_again, more } = hints.take().unwrap();
        hinted |= scan_again;
        if !more {
            return hinted;
        }
    }
}

#[test]
fn every_change_of_the_bus_is_hinted_at() {
    let mut host = Host::open("loopback");
    let (bus, busid) = (host.bus.clone(), host.busid);
    let hints = &mut *SimBackend::new(bus.clone()).hints().unwrap();
    assert!(!is_hinted(hints), "nothing has changed since");
    host.perform(SpecialRequest::SetConfiguration(0));
    assert!(is_hinted(hints), "its client has changed it");
    let disk = || Spec::parse_list("disk").unwrap().remove(0);
    let changes: [(&str, &dyn Fn()); 6] = [
        ("unplug", &|| bus.unplug(busid)),
        ("replug", &|| bus.replug(busid)),
        ("another", &|| bus.replug_as(busid, disk())),
        ("configuration", &|| bus.set_configuration(busid, 0)),
        ("new", &|| {
            bus.add(disk());
        }),
        ("many", &|| (0..5000).for_each(|_| bus.hint())),
    ];
    for (name, change) in changes {
        change();
        assert!(is_hinted(hints) && !is_hinted(hints), "{name}");
    }
    bus.set_configuration(busid, 0);
    assert!(!is_hinted(hints), "it was 0 before");
    bus.end_hints();
    assert!(hints.take().is_err());
}

#[test]
fn a_device_in_the_place_of_another_is_not_opened() {
    let host = Host::open("loopback");
    let (bus, busid) = (host.bus.clone(), host.busid);
    let before = SimBackend::new(bus.clone()).scan().unwrap().devices;
    bus.replug_as(busid, Spec::parse_list("disk").unwrap().remove(0));
    let refused = before[0].open(&DeviceLimits::default(), false).err().expect("it is another");
    assert_eq!(refused.status(), OpStatus::NoDevice);
    // The first's memory does not become the second's.
    host.close();
    let now = SimBackend::new(bus.clone()).scan().unwrap().devices;
    let product = |candidate: &super::SimCandidate| candidate.info().product.clone();
    assert_ne!(product(&now[0]), product(&before[0]));
    assert!(now[0].open(&DeviceLimits::default(), false).is_ok());
}

#[test]
fn an_unplugged_device_ends_its_urbs_and_wakes_its_owner() {
    let mut host = Host::open("loopback");
    let (bus, busid) = (host.bus.clone(), host.busid);
    let candidates = SimBackend::new(bus.clone()).scan().unwrap().devices;
    let ended = host.submit(0x81, &[0; 8], &[]);
    let waiting = host.submit(0x86, &[0; 8], &[]);
    assert!(!is_readable(&host));
    bus.unplug(busid);
    assert!(is_readable(&host));
    assert_eq!(host.port.next_deadline(), Some(host.now));
    assert_eq!(host.reaped(), [ended, waiting]);
    assert!(host.gone && !is_readable(&host));
    assert_eq!(host.wait(ended).status, Status::OK);
    assert_eq!(host.wait(waiting).status, Status::ESHUTDOWN);
    assert_eq!(host.port.next_deadline(), None, "it was said once");
    assert_eq!(host.refused(0x81), RefusedReason::Gone);
    let late = candidates[0].open(&DeviceLimits::default(), false);
    assert_eq!(late.err().unwrap().status(), OpStatus::NoDevice);
    assert!(SimBackend::new(bus.clone()).scan().unwrap().devices.is_empty());
    bus.replug(busid);
    assert_eq!(open_error(&bus).status(), OpStatus::DeviceBusy);
    host.close();
    let mut host = Host::open_on(&bus);
    assert_eq!(host.read(0x81, 8).0, Status::OK);
}

/// Whether the port's descriptor is readable, without reading.
fn is_readable(host: &Host) -> bool {
    let source = host.port.event_sources()[0];
    assert!(source.readable && !source.writable);
    let mut fds = mio::Events::with_capacity(1);
    let mut poll = mio::Poll::new().unwrap();
    let mut fd = mio::unix::SourceFd(&source.fd);
    let interest = mio::Interest::READABLE;
    poll.registry().register(&mut fd, mio::Token(0), interest).unwrap();
    poll.poll(&mut fds, Some(Duration::ZERO)).unwrap();
    !fds.is_empty()
}

#[test]
fn a_delay_holds_every_urb_and_keeps_their_order() {
    let mut host = Host::open("loopback:delay=2ms");
    let start = host.now;
    let first = host.submit(0x81, &[0; 8], &[]);
    host.advance(Duration::from_millis(1));
    let second = host.submit(0x81, &[0; 8], &[]);
    assert_eq!(host.poll(first), None);
    assert_eq!(host.wait(first).data, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(host.now, start + Duration::from_millis(2));
    assert_eq!(host.wait(second).data[0], 8);
    assert_eq!(host.now, start + Duration::from_millis(3));
    host.descriptor(1, 0, 18);
    assert_eq!(host.now, start + Duration::from_millis(5));
}

#[test]
fn the_nth_urb_has_the_fault() {
    let mut host = Host::open("loopback:fault=short@3");
    let lengths = [0; 4].map(|_| host.read(0x81, 512).1.len());
    assert_eq!(lengths, [512, 512, 256, 512]);
    let mut host = Host::open("loopback:fault=stall@2");
    host.descriptor(1, 0, 18);
    let statuses = [0; 3].map(|_| host.read(0x81, 512).0);
    assert_eq!(statuses, [Status::OK, Status::EPIPE, Status::EPIPE]);
    let mut host = Host::open("loopback:fault=vanish@2");
    assert_eq!(host.read(0x81, 512).0, Status::OK);
    assert_eq!(host.read(0x81, 512), (Status::ESHUTDOWN, vec![]));
    assert!(host.gone);
}

#[test]
fn isochronous_urbs_have_faults_too() {
    let mut host = Host::open("loopback:fault=short@1");
    host.set_interface(1, 1);
    let lens = host.packets(0x85, &[0; 300], &[100; 3]).packets;
    assert_eq!(lens, [(50, Status::OK); 3]);
    let mut host = Host::open("loopback:fault=stall@1");
    host.set_interface(1, 1);
    let lens = host.packets(0x85, &[0; 200], &[100; 2]).packets;
    assert_eq!(lens, [(0, Status::EPROTO), (100, Status::OK)]);
}

#[test]
fn a_slow_device_takes_its_time_to_open_and_to_be_configured() {
    let clock = Instant::now();
    let mut host = Host::open("loopback:fault=slow=20ms");
    assert!(clock.elapsed() >= Duration::from_millis(20));
    host.perform(SpecialRequest::SetConfiguration(1));
    assert!(clock.elapsed() >= Duration::from_millis(40));
}

#[test]
fn a_configuration_can_be_left_and_taken_up_again() {
    let mut host = Host::open("loopback");
    host.set_interface(1, 1);
    let none = host.perform(SpecialRequest::SetConfiguration(0));
    assert_eq!(none, Performed::Reconfigured { configuration: None, status: Status::OK });
    assert_eq!(host.control_in(setup(0x80, 8, 0, 0, 1)).1, [0]);
    assert_eq!(host.control_in(setup(0x81, 10, 0, 1, 1)).0, Status::EPIPE);
    assert_eq!(
        host.refused(0x81),
        RefusedReason::Failed(Status::ENOENT),
        "without a configuration there is the default endpoint only"
    );
    let two = host.perform(SpecialRequest::SetConfiguration(2));
    assert_eq!(two, Performed::Failed(Status::EPIPE));
    // The device is given back unchanged.
    let (bus, busid) = (host.bus.clone(), host.busid);
    host.close();
    let listed = || {
        let device = SimBackend::new(bus.clone()).scan().unwrap().devices[0].info().device.clone();
        (device.configuration_value, device.interfaces.len())
    };
    assert_eq!(listed(), (1, 2));
    bus.set_configuration(busid, 0);
    assert_eq!(listed(), (0, 0));
    let mut host = Host::open_on(&bus);
    assert!(host.port.configuration().is_none());
    let one = host.perform(SpecialRequest::SetConfiguration(1));
    let Performed::Reconfigured { configuration: Some(configuration), .. } = one else {
        panic!("{one:?}")
    };
    assert_eq!(configuration.interfaces[1].current, 0);
    assert_eq!(host.read(0x81, 8).0, Status::OK);
}

#[test]
fn settings_are_selected_and_unknown_ones_refused() {
    let mut host = Host::open("loopback");
    assert_eq!(host.refused(0x85), RefusedReason::Failed(Status::ENOENT));
    host.set_interface(1, 1);
    assert_eq!(host.control_in(setup(0x81, 10, 0, 1, 1)).1, [1]);
    for (interface, alternate) in [(1, 2), (2, 0)] {
        let request = SpecialRequest::SetInterface { interface, alternate };
        assert_eq!(host.perform(request), Performed::Failed(Status::EPIPE));
    }
    assert_eq!(host.control_in(setup(0x81, 10, 0, 1, 1)).1, [1]);
    let unknown = crate::wire::types::EndpointAddress::from_byte(0x07);
    let performed = host.perform(SpecialRequest::ClearHalt(unknown));
    assert_eq!(performed, Performed::Forward);
}

#[test]
fn standard_requests_are_answered_and_others_stalled() {
    let mut host = Host::open("loopback");
    let (_, string) = host.control_in(setup(0x80, 6, 0x0301, 0x0409, 255));
    assert_eq!(string[..4], [18, 3, b'u', 0]);
    assert_eq!(host.control_in(setup(0x80, 0, 0, 0, 2)).1, [0, 0]);
    assert_eq!(host.control_out(setup(2, 3, 0, 0x82, 0), &[]).0, Status::OK);
    assert_eq!(host.control_in(setup(0x82, 0, 0, 0x82, 2)).1, [1, 0]);
    assert_eq!(host.control_out(setup(2, 1, 0, 0x80, 0), &[]).0, Status::OK);
    for request in [
        setup(0x80, 6, 0x0f00, 0, 5), // no BOS below USB 2.1
        setup(0x80, 6, 0x0201, 0, 9), // no second configuration
        setup(0x80, 0x77, 0, 0, 1),
        setup(0x82, 0, 0, 0x87, 2), // no such endpoint
        setup(0x81, 10, 0, 9, 1),   // no such interface
        setup(0xa1, 1, 0, 0, 1),    // no class
        setup(0xc0, 0xff, 0, 0, 1),
    ] {
        assert_eq!(host.control_in(request), (Status::EPIPE, vec![]));
    }
    let set_configuration = setup(0, 9, 1, 0, 0);
    assert_eq!(host.control_out(set_configuration, &[]).0, Status::EPIPE);
}

#[test]
fn a_control_urb_is_cut_to_its_block_and_never_reads_past_it() {
    let mut host = Host::open("loopback");
    // wLength 18, and room for 4 only.
    let slot = host.submit(0x80, &[0x80, 6, 0, 1, 0, 0, 18, 0, 0, 0, 0, 0], &[]);
    assert_eq!(host.wait(slot).actual_length, 4);
    let slot = host.submit(0x80, &[0x80, 6, 0, 1], &[]);
    assert_eq!(host.wait(slot).status, Status::EINVAL);
}

#[test]
fn a_bus_is_filled_by_hand_as_well() {
    let bus = SimBus::default();
    let busid = bus.add(Spec::new(ModelKind::Loopback));
    assert_eq!(bus.busids(), [busid]);
    bus.set_configuration(busid, 0);
    let found = SimBackend::new(bus).scan().unwrap().devices;
    assert_eq!(found[0].info().device.configuration_value, 0);
}
