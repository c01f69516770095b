//! Requests performed by the host, on the real libusb with a simulated usbfs: the results after a
//! failure of the host's call, and the reading of a SUBMIT whose endpoint the request changes.

use crate::hardware::Server;
use crate::support::client::{ENODEV, EPIPE, MiniClient};
use crate::support::hex::hex;
use crate::support::submit::Submit;
use usbferry::wire::types::BusId;

/// CLEAR_FEATURE(ENDPOINT_HALT), in the device's form.
fn clear_halt(endpoint: u8) -> String {
    format!("02010000{endpoint:02x}000000")
}

fn attach(server: &Server) -> MiniClient {
    let busid = BusId::new("1-1").expect("a busid");
    let mut client = MiniClient::connect(server.address.parse().expect("an address"));
    assert_eq!(client.import(busid), 0);
    client
}

/// The number of times that the device got the request.
fn asked(server: &Server, request: &str) -> usize {
    server.requests().iter().filter(|asked| *asked == request).count()
}

#[test]
fn a_clear_halt_that_fails_is_left_to_the_device() {
    // A stall, a device without an answer in time, a bus error, a refusal of the host, and an
    // endpoint unknown to the host.
    for errno in ["EPIPE", "ETIMEDOUT", "EPROTO", "EINVAL", "EIO", "EBUSY", "EPERM", "ENOENT"] {
        let server = Server::start(&format!("refuse=clear-halt,{errno}"));
        let mut client = attach(&server);
        for endpoint in [0x81, 0x01, 0x83] {
            let before = asked(&server, &clear_halt(endpoint));
            assert_eq!(client.call(&Submit::clear_halt(endpoint)).status, 0, "{errno}");
            assert_eq!(asked(&server, &clear_halt(endpoint)), before + 1, "{errno}");
        }
        assert_eq!(client.call_ok(&Submit::read(0x81, 512)).len(), 512, "it goes on");
    }
}

#[test]
fn the_devices_answer_to_a_clear_halt_is_the_reply() {
    let server = Server::start("refuse=clear-halt,EPIPE:stall-request=0201");
    let mut client = attach(&server);
    for _ in 0..3 {
        assert_eq!(client.call(&Submit::clear_halt(0x81)).status, EPIPE);
    }
    assert_eq!(asked(&server, &clear_halt(0x81)), 3, "once for each");
    assert_eq!(client.call_ok(&Submit::read(0x81, 512)).len(), 512);
}

#[test]
fn a_clear_halt_of_a_device_that_is_gone_ends_the_session() {
    let server = Server::start("refuse=clear-halt,ENODEV");
    let mut client = attach(&server);
    assert_eq!(client.call(&Submit::clear_halt(0x81)).status, ENODEV);
    assert_eq!(asked(&server, &clear_halt(0x81)), 0);
    client.shutdown();
    client.expect_fin();
}

/// The device could accept a request refused by the host, and then differ from the host in its
/// endpoints.
#[test]
fn settings_that_the_host_refuses_never_reach_the_device() {
    for errno in ["EPIPE", "ENOSPC"] {
        let refused = format!("refuse=set-interface,{errno}:refuse=set-configuration,{errno}");
        let server = Server::start(&refused);
        let mut client = attach(&server);
        assert_eq!(client.call(&Submit::set_interface(1, 1)).status, EPIPE, "{errno}");
        assert_eq!(client.call(&Submit::set_configuration(1)).status, EPIPE, "{errno}");
        assert_eq!(asked(&server, "010b010001000000"), 0, "{errno}");
        assert_eq!(asked(&server, "0009010000000000"), 0, "{errno}");
        assert_eq!(client.call_ok(&Submit::read(0x81, 512)).len(), 512, "it goes on");
    }
}

/// The first configuration has 0x81 as a bulk endpoint, the second as isochronous in setting 1.
const TWO_CONFIGURATIONS: &str = "slow=50ms:device=120100020000004009120100000100000002\
    :config=0902190001010080320904000001ff00000007058102000200\
    :config=0902220001020080320904000000ff0000000904000101ff00000007058101400001";

/// The requested configuration also decides whether packets follow a SUBMIT behind
/// SET_CONFIGURATION, and so do settings of that configuration requested behind.
#[test]
fn packets_of_another_configuration() {
    let server = Server::start(TWO_CONFIGURATIONS);
    let mut client = attach(&server);
    let left_over = |submit: Submit| Submit { number_of_packets: 3, ..submit };
    for _ in 0..3 {
        let seqnums = client.submit_all(&[
            Submit::set_configuration(2),
            left_over(Submit::get_device_descriptor()),
            Submit::set_interface(0, 1),
            Submit::iso_read(0x81, &[64; 3]),
            left_over(Submit::get_device_descriptor()),
        ]);
        let expected = [(0, 0), (0, 18), (0, 0), (0, 192), (0, 18)];
        for (&seqnum, expected) in seqnums.iter().zip(expected) {
            let ret = client.ret_of(seqnum);
            assert_eq!((ret.status, ret.actual_length), expected, "{seqnum}");
        }
        // Back, where the same endpoint has none.
        let seqnums = client.submit_all(&[
            Submit::set_configuration(1),
            left_over(Submit::get_device_descriptor()),
        ]);
        seqnums.iter().for_each(|&seqnum| assert_eq!(client.ret_of(seqnum).status, 0));
        let seqnums = client.submit_all(&[
            Submit::set_configuration(1),
            left_over(Submit::read(0x81, 512)),
            Submit::set_interface(0, 0),
            left_over(Submit::read(0x81, 512)),
        ]);
        for (&seqnum, length) in seqnums.iter().zip([0, 512, 0, 512]) {
            let ret = client.ret_of(seqnum);
            assert_eq!((ret.status, ret.actual_length), (0, length), "{seqnum}");
        }
    }
    assert_eq!(client.call_ok(&Submit::get_device_descriptor())[..2], hex("1201"));
}
