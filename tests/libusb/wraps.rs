//! The program as it is linked: with `usbferry-wraps` between usbferry, libusb and the C library. That
//! no allocation is left for a URB, `cargo bench --bench libusb -- --counted` asserts.

use crate::hardware::{Server, new_root, transfer, urb};

/// The messages of the libusb in the program, which cost each URB as many instructions as a quarter
/// of usbferry's own, are not asked for, not even by the environment.
#[test]
fn libusb_says_nothing_whatever_the_environment_asks() {
    let root = new_root();
    let mut command = Server::command(&root, "count=1", &[]);
    command.env("LIBUSB_DEBUG", "4");
    let server = Server::start_as(command, root);
    let mut client = server.attach();
    assert_eq!(transfer(&mut client, urb(0x81, 512), &[]).status, 0);
    assert_eq!(server.said("debug ["), Vec::<String>::new());
}
