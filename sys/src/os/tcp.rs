//! What TCP knows of a peer: whether the peer is there, and how far away; and whether the system
//! has TCP over a kind of addresses at all.
//!
//! Contract: nothing blocks; may be called from any thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Signs of life of a connection's other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSigns {
    /// Unanswered keepalive or window probes.
    pub unanswered_probes: u8,
    /// Number of retransmissions after a missing acknowledgement (`icsk_retransmits`).
    pub retransmitted: u8,
    /// Time since anything was acknowledged.
    pub silent_for: Duration,
}

/// Asks the system (`TCP_INFO`, tcp(7)); `None` where it can't tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn peer_signs(socket: BorrowedFd<'_>) -> Option<PeerSigns> {
    let info = info(socket)?;
    Some(PeerSigns {
        unanswered_probes: info.tcpi_probes,
        retransmitted: info.tcpi_retransmits,
        silent_for: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}

/// The time to the peer and back, smoothed (`TCP_INFO`); `None` where the system can't tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn round_trip(socket: BorrowedFd<'_>) -> Option<Duration> {
    Some(Duration::from_micros(info(socket)?.tcpi_rtt.into()))
}

/// Segments sent a second time since the connection began (`tcpi_total_retrans` of `TCP_INFO`);
/// `None` where the system can't tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn retransmissions(socket: BorrowedFd<'_>) -> Option<u32> {
    Some(info(socket)?.tcpi_total_retrans)
}

#[cfg(target_os = "linux")]
fn info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    use std::mem::{MaybeUninit, size_of};
    use std::os::fd::AsRawFd;

    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open, and `info` has `len` bytes to write to.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    // SAFETY: integers only, all zeroed; a system with a shorter struct leaves the rest zero.
    (code == 0).then(|| unsafe { info.assume_init() })
}

/// macOS has `TCP_CONNECTION_INFO`, which counts no probes.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn peer_signs(_socket: BorrowedFd<'_>) -> Option<PeerSigns> {
    None
}

/// As above: not asked there.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn round_trip(_socket: BorrowedFd<'_>) -> Option<Duration> {
    None
}

/// As above: not asked there.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn retransmissions(_socket: BorrowedFd<'_>) -> Option<u32> {
    None
}

/// Whether a call failed because the system has no addresses of this kind (`EAFNOSUPPORT`), as a
/// system without IPv6.
#[must_use]
pub fn is_family_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets")]
    fn a_live_peer_shows_no_signs_of_death() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let signs = peer_signs(stream.as_fd()).unwrap();
        assert_eq!((signs.unanswered_probes, signs.retransmitted), (0, 0));
        let round_trip = round_trip(stream.as_fd()).unwrap();
        assert!(round_trip > Duration::ZERO && round_trip < Duration::from_secs(60));
        assert_eq!(retransmissions(stream.as_fd()), Some(0), "nothing was sent yet");
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets")]
    fn a_missing_family_is_told_from_other_failures() {
        // A system without a family refuses the socket as it refuses a family that nobody has.
        // SAFETY: makes a descriptor or none.
        assert_eq!(unsafe { libc::socket(63, libc::SOCK_STREAM, 0) }, -1);
        assert!(is_family_missing(&io::Error::last_os_error()));
        let taken = TcpListener::bind("192.0.2.1:0").unwrap_err();
        assert!(!is_family_missing(&taken), "{taken}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets")]
    fn a_socket_without_tcp_has_no_signs() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_signs(file.as_fd()), None);
        assert_eq!(round_trip(file.as_fd()), None);
        assert_eq!(retransmissions(file.as_fd()), None);
    }
}
