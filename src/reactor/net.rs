//! Sockets: listening, and what every client's socket is set to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// Probes that a silent client may leave unanswered. They take two thirds of the time after which it
/// is gone, the silence before them one. The protocol has no heartbeat of its own.
const KEEPALIVE_PROBES: u32 = 4;

/// TCP counts keepalive times in seconds.
const SECOND: Duration = Duration::from_secs(1);

/// Starts listening.
///
/// # Errors
/// The system's.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Each protocol has a listener of its own, as usbipd has it.
    if matches!(address.ip(), IpAddr::V6(_)) {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Whether a client's socket has what the listener was set to (`sk_clone_lock` of
/// `net/core/sock.c`): half of what accepting costs otherwise. Elsewhere nobody promises it.
pub(super) const INHERITS: bool = cfg!(target_os = "linux");

/// Prepares a client's socket, or a listener whose clients inherit it: a client is gone when it shows no sign of life for `peer_timeout`, at
/// least three seconds. `buffer` is the size of its send and receive buffers in bytes, where the
/// system's own choice is not wanted. A client whose socket refuses an option is served all the
/// same. Public for the benchmarks, whose least server must have the same sockets.
pub fn prepare(socket: &impl AsFd, peer_timeout: Duration, buffer: Option<usize>) {
    let socket = SockRef::from(socket);
    let silence = (peer_timeout / 3).max(SECOND);
    let interval = (peer_timeout.saturating_sub(silence) / KEEPALIVE_PROBES).max(SECOND);
    let keepalive = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(interval)
        .with_retries(KEEPALIVE_PROBES);
    let mut results = vec![socket.set_tcp_nodelay(true), socket.set_tcp_keepalive(&keepalive)];
    #[cfg(target_os = "linux")]
    results.push(socket.set_tcp_user_timeout(Some(peer_timeout)));
    if let Some(buffer) = buffer {
        results.push(socket.set_send_buffer_size(buffer));
        results.push(socket.set_recv_buffer_size(buffer));
    }
    for error in results.into_iter().filter_map(Result::err) {
        log::debug!("a socket option was refused: {error}");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    #[test]
    fn clients_inherit_what_their_listener_is_set_to() {
        const { assert!(INHERITS) };
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        prepare(&listener, Duration::from_secs(15), Some(100_000));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
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
}
