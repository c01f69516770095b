//! PDUs written in parts, on a client's socket without `TCP_NODELAY`. The client's system keeps the
//! second part until the first is acknowledged (Nagle's algorithm). The server's system would delay
//! the acknowledgement for 40 ms, to send it together with a reply that cannot come before. So
//! parts are acknowledged at once, and whole PDUs are not, since each call would cost clients that
//! write whole PDUs.
//!
//! The C library's `setsockopt` is replaced by a counting function.

#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "conformance uses the rest")]
mod support;

use std::ffi::{c_int, c_long, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use support::client::MiniClient;
use support::endpoints::{ISO_SINK, ISO_SOURCE, SINK, SOURCE};
use support::submit::Submit;
use support::{Server, pattern};

/// Calls for an acknowledgement.
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);

/// Counts, and does the call's work.
///
/// # Safety
/// As for `setsockopt(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(
    socket: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: libc::socklen_t,
) -> c_int {
    if (level, name) == (libc::IPPROTO_TCP, libc::TCP_QUICKACK) {
        ACKNOWLEDGED.fetch_add(1, Ordering::Relaxed);
    }
    let [socket, level, name] = [socket, level, name].map(c_long::from);
    #[allow(clippy::cast_possible_wrap, reason = "a few bytes, where a long has 32 bits")]
    let len = len as c_long;
    // SAFETY: the caller's promise, passed on to the system.
    let result = unsafe { libc::syscall(libc::SYS_setsockopt, socket, level, name, value, len) };
    c_int::try_from(result).unwrap_or(-1)
}

fn acknowledged() -> u64 {
    ACKNOWLEDGED.load(Ordering::Relaxed)
}

/// Sends a PDU in parts with the given ends, each after the previous part was acknowledged. Returns
/// the seqnum.
fn send_in_parts(client: &mut MiniClient, submit: &Submit, ends: &[usize]) -> u32 {
    let (seqnum, bytes) = client.prepare(submit);
    let mut start = 0;
    for &end in ends {
        let before = acknowledged();
        client.send(&bytes[start..end]);
        support::wait_until("what came is acknowledged", || acknowledged() > before);
        start = end;
    }
    client.send(&bytes[start..]);
    seqnum
}

/// A single test, since two tests would count each other's calls.
#[test]
fn only_parts_are_acknowledged() {
    let server = Server::start("loopback");
    let mut client = server.attach();
    client.set_interface(1, 1);
    client.stream().set_nodelay(false).expect("a TCP socket");
    parts_are_acknowledged(&mut client);
    client.stream().set_nodelay(true).expect("a TCP socket");
    whole_pdus_are_not(&mut client);
    client.assert_in_sync();
}

/// Between header, data and descriptors, and inside of each.
fn parts_are_acknowledged(client: &mut MiniClient) {
    let before = acknowledged();
    let data = pattern(0, 300);
    let bulk = Submit::write(SINK, &data);
    let iso_write = Submit::iso_write(ISO_SINK, &data, &[100; 3]);
    let iso_read = Submit::iso_read(ISO_SOURCE, &[100; 3]);
    let unknown = Submit::write(0x09, &data);
    let rows: [(&Submit, &[usize], i32); 10] = [
        (&bulk, &[48], 0),
        (&bulk, &[20], 0),
        (&bulk, &[1, 47, 48, 49, 347], 0),
        (&iso_write, &[48], 0),
        (&iso_write, &[348], 0),
        (&iso_write, &[48, 348, 364], 0),
        (&iso_read, &[48], 0),
        (&iso_read, &[47, 95], 0),
        (&unknown, &[48], support::client::ENOENT),
        (&unknown, &[48, 100], support::client::ENOENT),
    ];
    let mut parts = 0;
    for (submit, ends, status) in rows {
        let seqnum = send_in_parts(client, submit, ends);
        assert_eq!(client.ret(seqnum).status, status, "{submit:?} in {ends:?}");
        client.call_ok(&Submit::clear_halt(SINK));
        parts += ends.len() as u64;
    }
    assert_eq!(acknowledged() - before, parts, "once for each part");
    // A large payload behind its header.
    let seqnum = send_in_parts(client, &Submit::write(SINK, &pattern(0, 1 << 20)), &[48]);
    assert_eq!(client.ret(seqnum).status, 0);
}

/// One PDU at a time and many, small and large.
fn whole_pdus_are_not(client: &mut MiniClient) {
    let before = acknowledged();
    for len in [0, 1, 512, 4096, 20_000, 1 << 20] {
        for _ in 0..20 {
            client.call_ok(&Submit::write(SINK, &pattern(0, len)));
            client.call_ok(&Submit::clear_halt(SINK));
            client.call_ok(&Submit::read(SOURCE, u32::try_from(len).expect("it fits")));
        }
    }
    for _ in 0..20 {
        client.call_ok(&Submit::iso_write(ISO_SINK, &pattern(0, 300), &[100; 3]));
        client.call_ok(&Submit::iso_read(ISO_SOURCE, &[100; 3]));
    }
    let urbs = vec![Submit::write(SINK, &pattern(0, 64)); 200];
    for seqnum in client.submit_all(&urbs) {
        client.ret(seqnum);
    }
    assert_eq!(acknowledged() - before, 0, "whole PDUs cost nothing");
}
