//! The life of a connection: arrival, departure, vanishing devices, a stopping server.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{
    DEVLIST, ENODEV, EPIPE, ESHUTDOWN, Ending, MiniClient, Reply, import_bytes, word,
};
use crate::support::endpoints::{
    INTERRUPT, INTERRUPT_SILENT, ISO_SOURCE, LOOP_IN, LOOP_OUT, SILENT, SINK, SOURCE,
};
use crate::support::submit::{Submit, setup};
use crate::support::{LEN_MAX, Server, log, pattern, wait_until};
use usbferry::usb::sim::loopback::request;

/// Keeps the device busy in every way there is.
fn keep_busy(client: &mut MiniClient) {
    client.set_interface(1, 1);
    let mut submits = Vec::new();
    for _ in 0..40 {
        submits.push(Submit::read(SILENT, 4096));
        submits.push(Submit::read(INTERRUPT_SILENT, 64));
        submits.push(Submit::read(INTERRUPT, 64));
        submits.push(Submit::read(LOOP_IN, 512));
        submits.push(Submit::iso_read(ISO_SOURCE, &[96; 32]));
    }
    submit_and_wait_until_read(client, &submits);
}

/// Sends SUBMITs and waits until the server has read them. The answer to the UNLINK behind them is
/// the proof.
fn submit_and_wait_until_read(client: &mut MiniClient, submits: &[Submit]) -> Vec<u32> {
    let seqnums = client.submit_all(submits);
    let unlink = client.unlink(u32::MAX);
    while client.awaits_unlink(unlink) {
        client.reply();
    }
    seqnums
}

/// Goes away without a word: unread data of the other side is lost.
fn reset(client: MiniClient) {
    let socket = socket2::SockRef::from(client.stream());
    socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

/// In a header or a payload, with URBs in flight.
#[test]
fn a_stream_that_ends_within_a_pdu_frees_the_device() {
    let server = Server::start("loopback");
    let submit = Submit::write(SINK, &[0; 100_000]);
    for len in [47, 48, 49, 48 + 50_000, 48 + 99_999] {
        let mut client = server.attach();
        keep_busy(&mut client);
        let (_, bytes) = client.prepare(&submit);
        client.send(&bytes[..len]);
        client.shutdown();
        assert_eq!(client.read_to_end().1, Ending::Fin);
        // Importable as soon as closed, and as good as new.
        let mut client = server.attach();
        assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64));
        assert_eq!(client.call(&Submit::iso_read(ISO_SOURCE, &[64])).error_count, 1, "setting 0");
        assert_eq!(client.counters(SINK).urbs, 0, "half a payload is none");
    }
}

/// The end of the stream comes in one segment with the last bytes. So the system reports both at
/// once, and never again.
#[cfg(target_os = "linux")]
#[test]
fn end_of_stream_with_the_last_bytes() {
    let server = Server::start("loopback");
    let pdu = Submit::read(SILENT, 512).bytes(1, crate::support::D);
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

/// All URBs are collected before the device is closed; the server asserts that.
#[test]
fn a_reset_with_urbs_in_flight_frees_the_device() {
    let server = Server::start("loopback:pace=on");
    for _ in 0..20 {
        let mut client = server.attach();
        keep_busy(&mut client);
        assert!(client.outstanding() > 100, "most of it has not ended");
        reset(client);
        server.wait_released(0);
    }
    server.assert_serves(0);
}

/// The same while the worker has the device: the device is given back when the worker is done.
#[test]
fn a_reset_during_a_special_request_or_a_cancel_frees_the_device() {
    let server = Server::start("loopback");
    for (request, submit) in [
        (request::SPECIAL_DELAY, Submit::set_interface(1, 1)),
        (request::SPECIAL_DELAY, Submit::port_reset()),
        (request::CANCEL_DELAY, Submit::set_interface(0, 0)),
    ] {
        let mut client = server.attach();
        client.submit_all(&vec![Submit::read(SILENT, 512); 3]);
        client.command(request, 100, 0);
        let mut submits = vec![submit];
        // URBs waiting behind the request, among them the next special request.
        submits.extend([Submit::read(SOURCE, 64), Submit::clear_halt(SOURCE)]);
        submits.push(Submit::write(SINK, &[0; 5000]));
        client.submit_all(&submits);
        reset(client);
        server.assert_serves(0);
    }
}

#[test]
fn unplug_of_an_idle_device_ends_the_session() {
    let server = Server::start("loopback:count=2");
    let busid = server.busid(0);
    let mut client = server.attach();
    client.assert_in_sync();
    server.bus.unplug(busid);
    client.expect_fin();
    let mut late = server.connect();
    assert_eq!(late.import(busid), 4, "there is no such device");
    late.expect_fin();
    server.assert_serves(1);
    server.bus.replug(busid);
    server.assert_serves(0);
}

/// Whatever the URB waited for. Then the connection ends.
#[test]
fn unplug_answers_each_urb_once() {
    let server = Server::start_with("loopback", |settings| settings.policy.limits.urbs = 64);
    let busid = server.busid(0);
    let mut client = server.attach();
    keep_busy(&mut client);
    submit_and_wait_until_read(&mut client, &vec![Submit::read(SILENT, 4096); 100]);
    server.bus.unplug(busid);
    expect_all_gone(client);
    let mut late = server.connect();
    assert_eq!(late.import(busid), 4);
    server.bus.replug(busid);
    server.assert_serves(0);
}

/// All outstanding URBs are answered, most of them with the error of a vanished device, and then
/// the connection ends in good order.
fn expect_all_gone(mut client: MiniClient) {
    let mut gone = 0;
    while client.outstanding() > 0 {
        match client.reply() {
            Reply::Submit(ret) if ret.status == 0 => {}
            Reply::Submit(ret) => {
                assert!([ENODEV, ESHUTDOWN].contains(&ret.status), "{ret:?}");
                assert_eq!(ret.actual_length, 0);
                gone += 1;
            }
            Reply::Unlink(_) => {}
        }
    }
    assert!(gone > 0);
    client.expect_fin();
}

/// The device vanishes at a URB's submission, during a special request, and while URBs are being
/// cancelled.
#[test]
fn unplug_during_a_submission_a_special_request_or_a_cancel() {
    let server = Server::start("loopback:fault=vanish@3,loopback,loopback");
    let mut client = server.attach_to(0);
    client.submit_all(&vec![Submit::read(SOURCE, 512); 10]);
    expect_all_gone(client);

    let mut client = server.attach_to(1);
    client.command(request::SPECIAL_DELAY, 100, 0);
    let submits = [
        Submit::read(SILENT, 512),
        Submit::set_interface(1, 1),
        Submit::read(SOURCE, 64),
        Submit::iso_read(ISO_SOURCE, &[64; 2]),
        Submit::set_interface(1, 0),
    ];
    submit_and_wait_until_read(&mut client, &submits);
    server.bus.unplug(server.busid(1));
    expect_all_gone(client);

    let mut client = server.attach_to(2);
    client.command(request::CANCEL_DELAY, 100, 0);
    let pending = client.submit_all(&vec![Submit::read(SILENT, 512); 2]);
    client.unlink(pending[0]);
    submit_and_wait_until_read(&mut client, &[]);
    server.bus.unplug(server.busid(2));
    expect_all_gone(client);

    for index in 0..3 {
        server.bus.replug(server.busid(index));
        server.assert_serves(index);
    }
}

/// The device is told to vanish by a client, which still gets an answer.
#[test]
fn vanish_on_request() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    let pending = client.submit(&Submit::read(SILENT, 512));
    let vanish = Submit::control(setup(request::OUT, request::VANISH, 0, 0, 0), &[]);
    let vanish = client.submit(&vanish);
    assert_eq!(client.ret(vanish).status, 0);
    assert_eq!(client.ret(pending).status, ESHUTDOWN);
    client.expect_fin();
    server.wait_released(0);
}

/// Data that the client sent before the unplug, several reads long, is answered like the rest.
#[test]
fn unplug_with_more_under_way() {
    let server = Server::start("loopback:fault=vanish@3");
    let mut client = server.attach();
    let submits: Vec<Submit> = (0..200).map(|_| Submit::write(SINK, &[7; 1024])).collect();
    client.submit_all(&submits);
    expect_all_gone(client);
    server.wait_released(0);
}

/// A device is unplugged during its opening, and plugged in again in the hands of a client.
#[test]
fn unplug_while_opening() {
    let server = Server::start("loopback:fault=slow=100ms");
    let busid = server.busid(0);
    let mut client = server.connect();
    client.send(&import_bytes(busid.as_wire()));
    // The server may notice before, during or after the import.
    server.bus.unplug(busid);
    match word(&client.read(8), 4) {
        0 => client.read_to_end(),
        4 => (Vec::new(), Ending::Fin),
        other => panic!("status {other}"),
    };
    server.bus.replug(busid);
    server.assert_serves(0);
}

/// 200 at once, where libusb collects 26 in a pass, and no later event follows.
#[test]
fn urbs_that_end_with_one_event_are_all_collected() {
    const URBS: usize = 200;
    let server = Server::start("loopback");
    let mut client = server.attach();
    for round in 0..10 {
        // A single write has the data for all reads of the loop.
        let reads = client.submit_all(&vec![Submit::read(LOOP_IN, 1024); URBS]);
        let data = pattern(round, URBS * 1024);
        let write = client.submit(&Submit::write(LOOP_OUT, &data));
        assert_eq!(client.ret(write).actual_length, 1024 * 200);
        for (&read, part) in reads.iter().zip(data.chunks(1024)) {
            assert_eq!(client.ret(read).data, part);
        }
        // A single halt ends all waiting URBs.
        let reads = client.submit_all(&vec![Submit::read(SILENT, 512); URBS]);
        client.command(request::HALT, 0, SILENT.into());
        for &read in &reads {
            assert_eq!(client.ret(read).status, EPIPE);
        }
        client.call_ok(&Submit::clear_halt(SILENT));
    }
}

/// Importing and leaving, over and over.
#[test]
fn import_and_detach_200_times() {
    let server = Server::start("loopback");
    for round in 0..200 {
        let mut client = server.attach();
        assert_eq!(client.call_ok(&Submit::read(SOURCE, 64)), pattern(0, 64), "round {round}");
        client.submit(&Submit::read(SILENT, 64));
    }
    assert_eq!(server.bus.open_count(server.busid(0)), 200);
}

/// A client that leaves before its device is open.
#[test]
fn leaving_while_the_device_is_opened() {
    let server = Server::start("loopback:fault=slow=50ms");
    for _ in 0..5 {
        let mut client = server.connect();
        client.send(&import_bytes(server.busid(0).as_wire()));
    }
    server.assert_serves(0);
}

/// A device that is slow to open, to configure, and to cancel, while another device streams: the
/// stream is over long before the slow device.
#[test]
fn a_slow_device_holds_up_no_other() {
    /// Beside the slow device, 50 transfers take a hundredth of the time.
    const SLOW_MS: u16 = 3000;
    let server = Server::start("loopback:fault=slow=3s,loopback,loopback");
    let mut opening = server.connect();
    opening.send(&import_bytes(server.busid(0).as_wire()));
    let mut busy = server.connect();
    busy.send(&import_bytes(server.busid(0).as_wire()));
    assert_eq!(word(&busy.read(8), 4), 2, "it is being opened for another");
    let mut special = server.attach_to(1);
    special.command(request::SPECIAL_DELAY, SLOW_MS, 0);
    let slow = special.submit(&Submit::set_interface(1, 1));
    let mut other = server.attach_to(2);
    for index in 0..50 {
        assert_eq!(other.call_ok(&Submit::read(SOURCE, 512)), pattern(index * 512, 512));
    }
    assert!(!opening.has_input(), "the other device waited for this one to be opened");
    assert!(!special.has_input(), "the other device waited for this one's request");
    assert_eq!(special.ret(slow).status, 0);
    special.command(request::CANCEL_DELAY, SLOW_MS, 0);
    let silent = special.submit(&Submit::read(SILENT, 512));
    let unlink = special.unlink(silent);
    for index in 50..100 {
        assert_eq!(other.call_ok(&Submit::read(SOURCE, 512)), pattern(index * 512, 512));
    }
    assert!(!special.has_input(), "the other device waited for this one's cancelling");
    assert_eq!(special.ret_unlink(unlink), crate::support::client::ECONNRESET);
    assert_eq!(word(&opening.read(320), 4), 0);
}

/// Waits until a server told to stop no longer accepts connections.
fn wait_stopping(server: &Server) {
    wait_until("nobody is accepted any more", || TcpStream::connect(server.address).is_err());
}

/// A server that stops with clients in every state: all see the end, and every device is given back
/// (checked by the server of these tests).
#[test]
fn stop_with_clients() {
    let mut server = Server::start("loopback:count=3,loopback:fault=slow=200ms");
    let mut clients = Vec::new();
    clients.push(server.connect());
    let mut half = server.connect();
    half.send(&DEVLIST[..5]);
    clients.push(half);
    let mut opening = server.connect();
    opening.send(&import_bytes(server.busid(3).as_wire()));
    clients.push(server.attach_to(0));
    let mut busy = server.attach_to(1);
    keep_busy(&mut busy);
    clients.push(busy);
    let mut special = server.attach_to(2);
    special.command(request::SPECIAL_DELAY, 200, 0);
    special.submit(&Submit::set_interface(1, 1));
    special.submit(&Submit::write(SINK, &[0; 100]));
    clients.push(special);
    server.begin_stop();
    for mut client in clients {
        client.read_to_end();
    }
    // The answer may or may not come first.
    opening.read_to_end();
    server.stop();
}

/// A client's session ends once: while the device's worker is busy, the server waits for the worker
/// and for nothing else.
#[test]
fn stop_with_a_device_in_a_slow_request() {
    log::keep();
    let server = Server::start("loopback");
    let mut client = server.attach();
    let line = format!("{}: {}: the server stops", client.address(), server.busid(0));
    client.command(request::SPECIAL_DELAY, 200, 0);
    let submits = [Submit::read(SILENT, 512), Submit::set_interface(1, 1)];
    submit_and_wait_until_read(&mut client, &submits);
    server.stop();
    assert_eq!(log::lines_with(&line).len(), 1, "{line}");
}

/// Replies begun before the stop are written to the end.
#[test]
fn stop_finishes_the_pdu_being_written() {
    let mut server =
        Server::start_with("loopback", |settings| settings.socket_buffer = Some(64 << 10));
    let mut client = server.attach();
    let seqnum = client.submit(&Submit::read(SOURCE, LEN_MAX));
    // Another ended URB; its reply may or may not have begun.
    client.submit(&Submit::read(SOURCE, LEN_MAX));
    wait_until("the reply has begun", || client.has_input());
    server.begin_stop();
    wait_stopping(&server);
    // Data sent from now on is not read any more, and must not turn the end into a reset.
    client.submit(&Submit::write(SINK, &[0; 50_000]));
    let ret = client.ret(seqnum);
    assert!(ret.data == pattern(0, LEN_MAX as usize));
    let (rest, ending) = client.read_to_end();
    assert!(rest.is_empty() || rest.len() == 48 + LEN_MAX as usize, "{} bytes", rest.len());
    assert_eq!(ending, Ending::Fin);
    server.stop();
}

/// A client that reads nothing does not keep the server from stopping.
#[test]
fn stop_with_a_client_that_does_not_read() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.submit_all(&vec![Submit::read(SOURCE, 1 << 20); 40]);
    client.read(1);
    server.stop();
}

/// Stopping an idle server, and stopping a server more than once.
#[test]
fn stop_at_once() {
    for _ in 0..20 {
        let mut server = Server::start("loopback");
        server.begin_stop();
        server.begin_stop();
        server.stop();
    }
}
