//! The program as it is linked: with `usbferry-wraps` between usbferry, libusb and the C library.
//! That no allocation is left for a URB, `cargo bench --bench libusb -- --counted` asserts.

use crate::hardware::{Server, new_root, transfer, urb};

/// The messages about a URB of the libusb in the program cost as many instructions as a quarter of
/// usbferry's own, and nothing asks for them, not even the environment. GNU's linkers leave
/// messages of libusb's `core.c`, which no URB passes.
#[test]
fn libusb_says_nothing_of_a_urb_whatever_the_environment_asks() {
    let root = new_root();
    let mut command = Server::command(&root, "count=1", &[]);
    command.env("LIBUSB_DEBUG", "4");
    let server = Server::start_as(command, root);
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    for of_a_urb in ["transfer", "urb", "poll()"] {
        let mut said = server.said("libusb: debug [");
        said.retain(|line| line.contains(of_a_urb));
        assert_eq!(said, Vec::<String>::new());
    }
}

/// Of `Counter` in testkit/usbfs/src/record.rs: URBs reaped, and reaps without a result.
const REAPS: usize = 1;
const EMPTY_REAPS: usize = 2;

/// libusb asks usbfs for ended requests until none is left; usbfs need not be asked where no URB is
/// in flight.
#[test]
fn usbfs_is_not_asked_for_more_urbs_than_there_are() {
    let server = Server::start("count=1");
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    let before = [REAPS, EMPTY_REAPS].map(|counter| server.counted(counter));
    for _ in 0..100 {
        assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    }
    let [reaps, empty] = [REAPS, EMPTY_REAPS].map(|counter| server.counted(counter));
    assert_eq!(reaps - before[0], 100);
    assert!(empty - before[1] < 50, "{} questions in vain", empty - before[1]);
}
