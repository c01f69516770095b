//! The options of the sockets at both ends of a session, the server's and the client's.
//!
//! Contract: calls of the system that do not block; an option that the system refuses is logged,
//! and the socket is used all the same.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::limits::STALE_REPEATS;

/// Probes that a silent peer may leave unanswered. The silence before the first probe takes a third
/// of the peer timeout, the probes two thirds. The protocol has no heartbeat of its own.
pub(crate) const KEEPALIVE_PROBES: u32 = 4;

const _: () =
    assert!((STALE_REPEATS as u32) < KEEPALIVE_PROBES, "a take-over comes before the end");

/// TCP counts keepalive times in seconds.
const SECOND: Duration = Duration::from_secs(1);

/// Has a socket send small PDUs at once, and notice a dead peer: a peer is dead when it shows no
/// sign of life for `peer_timeout`, at least three seconds.
pub fn prepare(socket: &impl AsFd, peer_timeout: Duration) {
    let socket = SockRef::from(socket);
    let silence = (peer_timeout / 3).max(SECOND);
    let interval = (peer_timeout.saturating_sub(silence) / KEEPALIVE_PROBES).max(SECOND);
    let keepalive = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(interval)
        .with_retries(KEEPALIVE_PROBES);
    accept("TCP_NODELAY", socket.set_tcp_nodelay(true));
    accept("SO_KEEPALIVE", socket.set_tcp_keepalive(&keepalive));
    #[cfg(target_os = "linux")]
    accept("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(peer_timeout)));
}

/// Logs a refused option.
pub(crate) fn accept(option: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::debug!("the system refused the socket option {option}: {error}");
    }
}
