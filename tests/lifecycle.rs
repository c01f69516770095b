//! Conformance cases 70, 71, 74 and 75, and the rest of a connection's life: coming, going, devices
//! that vanish, a server that stops.

mod support;

use support::Server;
use support::submit::Submit;

/// The end of the stream comes in one segment with the last bytes, so that the system tells of both
/// at once and never again.
#[cfg(target_os = "linux")]
#[test]
fn end_of_stream_with_the_last_bytes() {
    let server = Server::start("loopback");
    let pdu = Submit::read(0x86, 512).bytes(1, support::D);
    for len in [1, 47, 48] {
        let mut client = server.attach();
        client.assert_in_sync();
        let socket = socket2::SockRef::from(client.stream());
        socket.set_tcp_nodelay(false).expect("a TCP socket");
        socket.set_tcp_cork(true).expect("a TCP socket");
        client.send(&pdu[..len]);
        client.shutdown();
        client.expect_fin();
        server.assert_serves(0);
    }
}
