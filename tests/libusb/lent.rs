//! What `usbferry list` says of a device that a running usbferry has lent.

use crate::hardware::{Server, wait_until};

#[test]
fn a_lent_device_is_listed_with_its_client_and_a_free_one_as_before() {
    let server = Server::start("");
    let free = server.list(&[]);
    assert!(free.contains("can be exported: --device 1-1"), "{free}");
    let client = server.attach();
    let listed = server.list(&[]);
    assert!(listed.contains("\n            lent to 127.0.0.1:"), "{listed}");
    assert!(listed.contains(" since ") && !listed.contains("in use by"), "{listed}");
    let json = server.list(&["--json"]);
    assert!(json.contains("\"exportable\":false,\"lent_to\":\"127.0.0.1:"), "{json}");
    drop(client);
    wait_until(|| server.list(&[]) == free, || server.list(&[]));
}

#[test]
fn without_a_socket_the_note_of_the_server_says_that_a_device_is_lent() {
    let server = Server::start_with("", &["--socket", "none"]);
    let client = server.attach();
    let listed = server.list(&[]);
    assert!(listed.contains("lent by a running usbferry, whose socket can't be asked"), "{listed}");
    let json = server.list(&["--json"]);
    assert!(json.contains("\"exportable\":false,\"lent_to\":null"), "{json}");
    drop(client);
    let is_free = || server.list(&[]).contains("can be exported: --device 1-1");
    wait_until(is_free, || server.list(&[]));
}
