//! The terms of a rule that concern the opening of a device, on the real libusb and the simulated
//! usbfs: reset, and configuration.

use std::fs;
use std::path::PathBuf;

use crate::hardware::{Server, new_root, transfer, urb, wait_until};
use usbferry_load::client::{AttachError, Client};

/// `ST_NA`.
const NOT_AVAILABLE: u32 = 1;

/// A configuration with a number, and an interface with endpoint 0x81, bulk.
fn configuration(number: u8) -> String {
    // 9 + 9 + 7 bytes.
    format!("0902190001{number:02x}0080320904000001ff00000007058102000200")
}

/// A server with a rule of these keys for every device.
fn start(options: &str, keys: &str) -> Server {
    let root = new_root();
    let file: PathBuf = root.join("usbferry.toml");
    fs::write(&file, format!("[[rule]]\n{keys}\n")).expect("it can be written");
    Server::start_in(root, options, &["--config", file.to_str().expect("UTF-8")])
}

fn log_with(server: &Server, text: &str) -> usize {
    server.log().iter().filter(|line| line.starts_with(text)).count()
}

#[test]
fn a_device_is_reset_before_its_client_gets_it() {
    let server = start("", "reset-on-import = true");
    for imports in 1..3 {
        let mut client = server.attach();
        assert_eq!(log_with(&server, "1-1 reset"), imports, "{:?}", server.log());
        assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
        drop(client);
        wait_until(|| server.has_driver(0), || format!("{:?}", server.log()));
    }
    assert_eq!(log_with(&server, "1-1 reset"), 2, "not at the release");
}

#[test]
fn a_client_gets_the_device_in_the_configuration_of_the_rule() {
    let options = format!("config={}:config={}", configuration(1), configuration(2));
    let server = start(&options, "configuration = 2");
    assert_eq!(server.devices()[0].configuration, 1, "a free device is as found");
    for _ in 0..2 {
        let mut client = server.attach();
        assert_eq!(server.attribute(1, "bConfigurationValue"), "2");
        assert_eq!(transfer(&mut client, urb(0x81, 4), &[]).status, 0);
        drop(client);
        let is_back = || server.attribute(1, "bConfigurationValue") == "1";
        wait_until(is_back, || format!("{:?}", server.log()));
    }
}

#[test]
fn a_device_without_the_configuration_of_the_rule_is_refused_and_left_as_found() {
    let options = format!("config={}:config={}", configuration(1), configuration(2));
    let server = start(&options, "configuration = 7");
    for refusals in 1..3 {
        match Client::attach(&*server.address, "1-1") {
            Err(AttachError::Refused(NOT_AVAILABLE)) => {}
            other => panic!("{other:?}"),
        }
        let said = server.said_by_now("can't be put into configuration 7, as its rule", refusals);
        assert!(said[0].contains("bConfigurationValue"), "{said:?}");
        assert_eq!(server.attribute(1, "bConfigurationValue"), "1");
        let is_back = || server.has_driver_in(1, 1, 0);
        wait_until(is_back, || format!("{:?}", server.log()));
    }
}
