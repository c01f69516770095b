//! Sockets: listening, and the options of every client's socket.
//!
//! Contract: calls of the system that do not block; an option that the system refuses is logged,
//! and the socket is used all the same.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use usbferry_sys::os::tcp;

use super::error::{ListenError, is_no_such_protocol};
use crate::config::Listen;
use crate::sockets;
use crate::words::reason;

/// Connections that the system holds until they are accepted; its own limit may be lower.
const BACKLOG: i32 = 1024;

/// Starts listening. On `[::]` for clients over IPv4, too, unless `only_v6`, whatever the system's
/// default is (`net.ipv6.bindv6only`).
///
/// # Errors
/// The system's.
fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Listens on all addresses of a list, but for optional addresses that the machine lacks.
///
/// # Errors
/// The first address that the system refuses.
pub fn open_listeners(all: &[Listen]) -> Result<Vec<TcpListener>, ListenError> {
    all.iter().filter_map(|&at| open_listener(at, all).transpose()).collect()
}

/// Listens on an address; `None` where the address is optional and the machine lacks the address.
fn open_listener(at: Listen, all: &[Listen]) -> Result<Option<TcpListener>, ListenError> {
    let Listen { address, optional } = at;
    match listen(address, has_own_v4(all, at)) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if optional && is_no_such_protocol(&error) => {
            log::debug!("not listening on {address}: {}", reason(&error));
            Ok(None)
        }
        Err(error) => Err(ListenError { address, error }),
    }
}

/// Whether IPv4 has a listener of its own on the port of an address, which an IPv6 listener for
/// both would take away.
fn has_own_v4(all: &[Listen], at: Listen) -> bool {
    let is_own =
        |other: &Listen| other.address.is_ipv4() && other.address.port() == at.address.port();
    all.iter().any(is_own)
}

/// The address of a client in its plain form: a socket for both protocols shows clients over IPv4
/// as `::ffff:a.b.c.d`.
#[must_use]
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip().to_canonical() {
        address if address.is_ipv4() => SocketAddr::new(address, peer.port()),
        // With its zone.
        _ => peer,
    }
}

/// A client with a shorter round trip is near.
const NEAR: Duration = Duration::from_millis(1);

/// Prepares the socket of a client that has a device.
pub(super) fn prepare_attached(stream: &TcpStream) {
    let is_near = tcp::round_trip(stream.as_fd()).is_some_and(|time| time < NEAR);
    if !is_near && let Err(error) = congestion::use_systems(&SockRef::from(stream)) {
        log::debug!(
            "the system refused TCP_CONGESTION for the socket of a distant client: {error}. The \
             cost is speed only"
        );
    }
}

/// Bytes that fit one segment of a client's socket; none where the system can't tell.
pub(super) fn segment_len(stream: &TcpStream) -> usize {
    SockRef::from(stream).tcp_mss().map_or(0, |len| len as usize)
}

/// Has the system acknowledge the received bytes at once, rather than together with our next data
/// or after 40 ms (`TCP_QUICKACK`, tcp(7)). The option holds until data of ours goes out
/// (`tcp_event_data_sent` of `net/ipv4/tcp_output.c`), so the call is for the present bytes only.
#[cfg(target_os = "linux")]
pub(super) fn acknowledge(stream: &TcpStream) {
    // Should the system refuse, the acknowledgement comes as late as without the call.
    let _ = SockRef::from(stream).set_tcp_quickack(true);
}

/// macOS has no such option.
#[cfg(not(target_os = "linux"))]
pub(super) fn acknowledge(_stream: &TcpStream) {}

/// How fast a socket sends. BBR, where an administrator made BBR the system's choice, paces data by
/// timers. Pacing pays over a long line; over a short line the timers cost more than sending does,
/// and whenever BBR probes the line throughput falls to a third (measured: docs/performance.md). A
/// socket once paced stays paced under every later choice (`bbr_init` of `net/ipv4/tcp_bbr.c` marks
/// the socket, nothing unmarks it), so listeners are set to an algorithm without pacing, and far
/// clients back to the system's choice.
#[cfg(target_os = "linux")]
mod congestion {
    use std::io;

    use socket2::{Domain, SockRef, Socket, Type};

    /// Algorithms that send as soon as the window allows.
    const UNPACED: [&[u8]; 2] = [b"cubic", b"reno"];

    /// The unpaced algorithm that every Linux has and every user may choose.
    const ALWAYS_THERE: &[u8] = b"reno";

    /// Has a listener's clients send as soon as the window allows.
    pub(super) fn use_unpaced(listener: &SockRef<'_>) -> io::Result<()> {
        if UNPACED.contains(&name_of(listener)?.as_slice()) {
            return Ok(());
        }
        listener.set_tcp_congestion(ALWAYS_THERE)
    }

    /// Has a client's socket send by the system's choice.
    pub(super) fn use_systems(socket: &SockRef<'_>) -> io::Result<()> {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let systems = name_of(&SockRef::from(&other))?;
        if name_of(socket)? == systems { Ok(()) } else { socket.set_tcp_congestion(&systems) }
    }

    /// The name of a socket's algorithm, which the system gives in a field of zeros.
    pub(super) fn name_of(socket: &SockRef<'_>) -> io::Result<Vec<u8>> {
        let mut name = socket.tcp_congestion()?;
        name.retain(|&byte| byte != 0);
        Ok(name)
    }
}

/// macOS has no choice of algorithm for a socket.
#[cfg(not(target_os = "linux"))]
mod congestion {
    use std::io;

    use socket2::SockRef;

    pub(super) fn use_unpaced(_listener: &SockRef<'_>) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn use_systems(_socket: &SockRef<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a client's socket inherits the listener's options (`sk_clone_lock` of
/// `net/core/sock.c`). Setting the options is half the cost of accepting; other systems promise no
/// inheritance.
pub(super) const INHERITS: bool = cfg!(target_os = "linux");

/// Prepares a client's socket, or a listener whose clients inherit the options: a client is dead
/// when the client shows no sign of life for `peer_timeout`, at least three seconds. The buffers
/// have `buffer` bytes each, or the system's choice. A client whose socket refuses an option is
/// served all the same. Public for the benchmarks, whose minimal server must have the same sockets.
pub fn prepare(socket: &impl AsFd, peer_timeout: Duration, buffer: Option<usize>) {
    sockets::prepare(socket, peer_timeout);
    let socket = SockRef::from(socket);
    sockets::accept("TCP_CONGESTION", congestion::use_unpaced(&socket));
    if let Some(buffer) = buffer {
        sockets::accept("SO_SNDBUF", socket.set_send_buffer_size(buffer));
        sockets::accept("SO_RCVBUF", socket.set_recv_buffer_size(buffer));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sockets::KEEPALIVE_PROBES;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn ipv4_has_its_own_listener_only_on_the_same_port() {
        let listen = |address: &str| Listen { address: address.parse().unwrap(), optional: false };
        for (other, expected) in [("0.0.0.0:1", true), ("0.0.0.0:2", false), ("[::1]:1", false)] {
            let all = [listen(other), listen("[::]:1")];
            assert_eq!(has_own_v4(&all, all[1]), expected, "{other}");
        }
    }

    #[test]
    fn clients_inherit_the_options_of_their_listener() {
        const { assert!(INHERITS) };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), true).unwrap();
        prepare(&listener, Duration::from_secs(15), Some(100_000));
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(5));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(15)));
        // The kernel doubles what is asked for.
        assert_eq!(socket.send_buffer_size().unwrap(), 200_000);
        assert_eq!(socket.recv_buffer_size().unwrap(), 200_000);
    }

    /// Of two listeners on a port, the one for IPv4 has the clients over IPv4.
    #[test]
    fn an_address_for_both_protocols_leaves_ipv4_to_a_listener_of_its_own() {
        let v4 = listen((Ipv4Addr::UNSPECIFIED, 0).into(), true).unwrap();
        let both = (Ipv6Addr::UNSPECIFIED, v4.local_addr().unwrap().port()).into();
        assert_eq!(listen(both, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let v6 = listen(both, true).unwrap();
        assert!(SockRef::from(&v6).only_v6().unwrap());
    }

    #[test]
    fn a_client_over_ipv4_has_its_plain_address() {
        for (peer, plain) in [
            ("[::ffff:192.168.1.5]:40000", "192.168.1.5:40000"),
            ("192.168.1.5:40000", "192.168.1.5:40000"),
            ("[fe80::1%3]:40000", "[fe80::1%3]:40000"),
            ("[::1]:40000", "[::1]:40000"),
        ] {
            assert_eq!(canonical(peer.parse().unwrap()), plain.parse().unwrap());
        }
    }

    #[test]
    fn near_clients_are_not_paced_and_far_ones_have_the_systems_choice() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), true).unwrap();
        let systems = congestion::name_of(&SockRef::from(&listener)).unwrap();
        prepare(&listener, Duration::from_secs(15), None);
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        prepare_attached(&accepted);
        let socket = SockRef::from(&accepted);
        let near = congestion::name_of(&socket).unwrap();
        assert!(near == b"cubic" || near == b"reno", "{}", near.escape_ascii());
        congestion::use_systems(&socket).unwrap();
        assert_eq!(congestion::name_of(&socket).unwrap(), systems);
    }
}
