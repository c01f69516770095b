//! The handshake: DEVLIST, IMPORT, and invalid requests.

use crate::support::client::{DEVLIST, Ending, MiniClient, import_bytes, word};
use crate::support::hex::hex;
use crate::support::submit::Submit;
use crate::support::{Server, log};
use usbferry::usb::sim::spec::DEVICES_MAX;

/// Asks for the list and reads up to the end of the connection.
fn devlist(server: &Server) -> Vec<u8> {
    let mut client = server.connect();
    client.send(&DEVLIST);
    let (bytes, ending) = client.read_to_end();
    assert_eq!(ending, Ending::Fin);
    bytes
}

/// The number of devices in a list.
fn count(devlist: &[u8]) -> u32 {
    assert_eq!(devlist[..8], hex("0111 0005 00000000"));
    word(devlist, 8)
}

/// A busid in the protocol's form.
fn field(name: &[u8]) -> [u8; 32] {
    let mut field = [0; 32];
    field[..name.len()].copy_from_slice(name);
    field
}

#[test]
fn an_empty_list_is_a_header_with_a_count_of_zero() {
    let server = Server::start("");
    let mut client = server.connect();
    client.send(&hex("0111 8005 00000000"));
    assert_eq!(client.read(12), hex("0111 0005 00000000 00000000"));
    client.expect_fin();
}

/// The record of a device, to the byte.
#[test]
fn a_list_has_each_device_with_its_interfaces() {
    let server = Server::start("loopback");
    let list = devlist(&server);
    assert_eq!(list.len(), 12 + 312 + 8);
    assert_eq!(count(&list), 1);
    assert_eq!(list[0x143], 2);
    let record = &list[12..];
    assert!(record.starts_with(b"/simulated/1-1\0"));
    assert_eq!(record[0x100..0x120], field(b"1-1"));
    assert_eq!(record[0x120..0x12c], hex("00000001 00000002 00000003"));
    // idVendor, idProduct, bcdDevice; class triple, configuration, configurations, interfaces.
    assert_eq!(record[0x12c..0x138], hex("1209 0001 0100 000000 01 01 02"));
    assert_eq!(record[0x138..], hex("ff000000 ff000000"), "the fourth byte is padding");
}

#[test]
fn a_request_in_single_bytes_is_answered_when_whole() {
    let server = Server::start("");
    let mut client = server.connect();
    for byte in DEVLIST {
        assert!(!client.has_input(), "an answer to half a request");
        client.send(&[byte]);
    }
    assert_eq!(client.read(12), hex("0111 0005 00000000 00000000"));
    client.expect_fin();
}

#[test]
fn a_device_in_use_is_not_listed() {
    let server = Server::start("loopback,microphone");
    assert_eq!(count(&devlist(&server)), 2);
    let client = server.attach_to(0);
    let list = devlist(&server);
    assert_eq!(count(&list), 1);
    assert_eq!(list[12 + 0x100..12 + 0x120], field(b"1-2"), "the other one");
    assert_eq!(list.len(), 12 + 312 + 2 * 4);
    drop(client);
    // The device is listed again as soon as given back.
    drop(server.attach_to(0));
    server.wait_released(0);
    crate::support::wait_until("both are listed again", || count(&devlist(&server)) == 2);
}

/// The device can be attached and then configured. `src/usb/libusb/found.rs` tests the making of
/// the record.
#[test]
fn an_unconfigured_device_is_listed_without_interfaces() {
    let server = Server::start("loopback");
    server.bus.set_configuration(server.busid(0), 0);
    let list = devlist(&server);
    assert_eq!(list.len(), 12 + 312, "no interface records");
    assert_eq!(list[12 + 0x135..], [0, 1, 0], "configuration, configurations, interfaces");
    // The device can be attached, and then configured.
    let mut client = server.attach();
    assert_eq!(client.call(&Submit::read(0x81, 512)).status, crate::support::client::ENOENT);
    client.call_ok(&Submit::set_configuration(1));
    assert_eq!(client.call_ok(&Submit::read(0x81, 512)), crate::support::pattern(0, 512));
}

#[test]
fn an_import_is_answered_with_the_device_and_starts_a_session() {
    let server = Server::start("loopback:count=2");
    let mut client = server.connect();
    client.send(&[hex("0111 8003 00000000"), field(b"1-2").to_vec()].concat());
    let reply = client.read(320);
    assert_eq!(reply[..8], hex("0111 0003 00000000"));
    let device = &reply[8..];
    assert_eq!(device[0x100..0x120], field(b"1-2"), "the busid, padded with zeroes");
    assert_eq!(device[0x120..0x12c], hex("00000001 00000003 00000003"));
    assert_eq!(device[0x137], 2, "interfaces are counted, but no records follow");
    client.devid = 0x0001_0003;
    client.assert_in_sync();
}

#[test]
fn an_import_of_an_unknown_busid_gets_no_such_device() {
    let server = Server::start("loopback");
    let mut client = server.connect();
    client.send(&import_bytes(&field(b"9-9")));
    assert_eq!(client.read(8), hex("0111 0003 00000004"));
    client.expect_fin();
}

#[test]
fn an_import_of_a_device_in_use_gets_busy() {
    let server = Server::start("loopback");
    let mut first = server.attach();
    let mut second = server.connect();
    second.send(&import_bytes(server.busid(0).as_wire()));
    assert_eq!(second.read(8), hex("0111 0003 00000002"));
    second.expect_fin();
    first.assert_in_sync();
    assert_eq!(server.bus.open_count(server.busid(0)), 1);
}

/// Both requests are on their way before the first answer.
#[test]
fn of_two_imports_at_once_exactly_one_succeeds() {
    let server = Server::start("loopback");
    let busid = server.busid(0);
    for round in 0..50 {
        let mut clients = [server.connect(), server.connect()];
        crate::support::wait_until("the device is free", || count(&devlist(&server)) == 1);
        for client in &mut clients {
            client.send(&import_bytes(busid.as_wire()));
        }
        let statuses = clients.each_mut().map(|client| word(&client.read(8), 4));
        let winners = statuses.iter().filter(|&&status| status == 0).count();
        assert_eq!(winners, 1, "round {round}: {statuses:?}");
        assert!(statuses.iter().all(|status| [0, 1, 2].contains(status)), "{statuses:?}");
    }
}

#[test]
fn an_import_of_a_device_that_does_not_open_gets_not_available() {
    let server = Server::start("loopback");
    let busid = server.busid(0);
    server.bus.refuse_opens(busid, 2);
    for _ in 0..2 {
        let mut client = server.connect();
        client.send(&import_bytes(busid.as_wire()));
        assert_eq!(client.read(8), hex("0111 0003 00000001"));
        client.expect_fin();
        assert!(!server.bus.is_open(busid));
    }
    let mut client = server.connect();
    assert_eq!(client.import(busid), 0, "it works again at once");
    client.assert_in_sync();
}

#[test]
fn a_busid_without_a_nul_gets_no_such_device() {
    let server = Server::start("loopback");
    for busid in [[b'1'; 32], [0xff; 32]] {
        let mut client = server.connect();
        client.send(&import_bytes(&busid));
        assert_eq!(client.read(8), hex("0111 0003 00000004"));
        client.expect_fin();
    }
}

#[test]
fn a_busid_ends_at_its_first_nul() {
    let server = Server::start("loopback");
    let mut client = server.connect();
    client.send(&import_bytes(&field(b"1-1\0junk\xff\xff")));
    let reply = client.read(320);
    assert_eq!(reply[..8], hex("0111 0003 00000000"));
    assert_eq!(reply[8 + 0x100..8 + 0x120], field(b"1-1"), "the server's own name of it");
}

/// Older, newer and impossible versions.
#[test]
fn a_request_of_another_version_closes_the_connection() {
    let server = Server::start("loopback");
    for version in ["0106", "0100", "0112", "1101", "0000", "ffff"] {
        let mut client = server.connect();
        client.send(&hex(&format!("{version} 8005 00000000")));
        client.expect_fin();
    }
    server.assert_serves(0);
}

#[test]
fn a_request_with_a_status_closes_the_connection() {
    let server = Server::start("loopback");
    for request in ["0111 8005 00000001", "0111 8003 00000001", "0111 8005 80000000"] {
        let mut client = server.connect();
        client.send(&hex(request));
        client.expect_fin();
    }
    server.assert_serves(0);
}

/// All other codes of the protocol, and some without a meaning.
#[test]
fn a_request_with_an_unknown_code_closes_the_connection() {
    let server = Server::start("loopback");
    for code in [
        "8002", "8004", "8006", "0005", "0003", "8007", "8000", "0000", "ffff", "0002", "8013",
        "8105",
    ] {
        let mut client = server.connect();
        client.send(&hex(&format!("0111 {code} 00000000")));
        client.expect_fin();
    }
    server.assert_serves(0);
}

/// The eighth byte reveals every fault of a request; the bytes behind are not read.
#[test]
fn bytes_behind_a_bad_request_are_not_read() {
    let server = Server::start("loopback");
    let client = server.connect();
    client.send_anyway(&[hex("0106 8003 00000000"), vec![0xff; 10_000]].concat());
    client.expect_drop();
    server.assert_serves(0);
}

/// Wherever the request stops. Other clients are served meanwhile.
#[test]
fn an_incomplete_request_is_closed_after_its_time() {
    log::keep();
    let server = Server::start("loopback");
    let import = import_bytes(server.busid(0).as_wire());
    let mut slow: Vec<MiniClient> =
        [0, 3, 7, 8, 39].map(|len| stuck(&server, &import[..len])).into();
    assert_eq!(count(&devlist(&server)), 1);
    server.assert_serves(0);
    assert!(slow.iter().all(|client| !client.has_input()), "nothing is closed early");
    for client in slow.drain(..) {
        let address = client.address();
        client.expect_fin();
        let complaints = log::complaints_about(address);
        assert_eq!(complaints.len(), 1, "one line in the log: {complaints:?}");
        assert!(complaints[0].contains("in time"), "{complaints:?}");
    }
    server.assert_serves(0);
}

fn stuck(server: &Server, bytes: &[u8]) -> MiniClient {
    let mut client = server.connect();
    client.send(bytes);
    client
}

/// As many devices as a bus has room for: all numbers fit, and the last device has its devid.
#[test]
fn the_devids_of_a_full_bus_fit() {
    let server = Server::start(&format!("loopback:count={DEVICES_MAX}"));
    let list = devlist(&server);
    assert_eq!(count(&list), u32::try_from(DEVICES_MAX).unwrap());
    let records = list[12..].chunks_exact(312 + 8);
    assert_eq!(records.len(), DEVICES_MAX);
    let mut devids: Vec<(u32, u32)> =
        records.map(|record| (word(record, 0x120), word(record, 0x124))).collect();
    assert!(devids.iter().all(|&(busnum, devnum)| busnum <= 255 && devnum <= 255));
    devids.dedup();
    assert_eq!(devids.len(), DEVICES_MAX, "no two devices have the same numbers");
    let mut client = server.attach_to(DEVICES_MAX - 1);
    assert_eq!(client.devid, 0x0001_00ff, "busnum << 16 | devnum");
    client.assert_in_sync();
}

/// A client may close its sending side: the request is answered all the same.
#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = Server::start("");
    let mut client = server.connect();
    client.send(&DEVLIST);
    client.shutdown();
    assert_eq!(client.read(12), hex("0111 0005 00000000 00000000"));
    client.expect_fin();
}

/// Requests in many connections at once share scans, and all are answered.
#[test]
fn many_clients_ask_at_once() {
    let server = Server::start("loopback");
    let mut clients: Vec<MiniClient> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&DEVLIST);
    }
    for client in &mut clients {
        assert_eq!(count(&client.read(12)), 1);
    }
}
