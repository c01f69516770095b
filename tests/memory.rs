//! Memory: usbfs's, which all programs share, and that of clients with many URBs, with the real
//! libusb on the simulated usbfs.
#![cfg(target_os = "linux")]

mod support;

use std::cell::Cell;
use std::time::Duration;

use support::hardware::{Server, urb, wait_until};
use usbferry_load::client::Client;
use usbferry_load::process;

/// Of `Counter` in tests/usbfs/src/record.rs.
const REAPS: usize = 1;

/// What a number is that has grown, and now does not grow any more.
fn settled(number: impl Fn() -> u64) -> u64 {
    let last = Cell::new(0);
    wait_until(
        || {
            std::thread::sleep(Duration::from_millis(200));
            let now = number();
            now > 0 && last.replace(now) == now
        },
        || format!("it is {} and grows", last.get()),
    );
    last.get()
}

/// More than any client was seen with, and their data several times what a device may have in buffers.
#[test]
fn thousands_of_urbs_sent_before_one_is_read_come_whole_and_in_order() {
    let server = Server::start("quota=64M");
    let mut client = server.attach();
    let (count, len) = (4000, 64 << 10);
    for _ in 0..count {
        client.submit(urb(0x81, len), &[]).unwrap();
    }
    let reaped = settled(|| server.counted(REAPS));
    assert!(reaped < count, "the buffers hold {reaped} URBs: this tests nothing");
    for number in 0..count {
        let reply = client.reply().unwrap();
        let got = (reply.seqnum.into(), reply.status, reply.actual_length as usize);
        assert_eq!(got, (number + 1, 0, len));
        assert_eq!(reply.data[..8], number.to_le_bytes());
    }
}

/// What is there for thousands of URBs costs a device nothing that has none.
#[test]
fn idle_devices_cost_little() {
    let server = Server::start("count=33");
    let _first = server.attach();
    let id = server.process.id();
    let before = process::peak_memory(id).expect("this is Linux");
    let idle: Vec<Client> = (2..34)
        .map(|number| Client::attach(&*server.address, &format!("1-{number}")).unwrap())
        .collect();
    let each = (process::peak_memory(id).unwrap() - before) / idle.len() as u64;
    assert!(each < 1 << 20, "{each} bytes for each idle device");
}
