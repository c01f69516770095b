//! What TCP knows of a peer that says nothing.

use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Signs of life of a connection's other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSigns {
    /// Keepalive or window probes that were not answered.
    pub unanswered_probes: u8,
    /// Segments that were sent and not acknowledged.
    pub unacknowledged: u32,
    /// Time since anything was acknowledged.
    pub silent_for: Duration,
}

/// Asks the system (`TCP_INFO`, tcp(7)); `None` where it can't tell.
#[cfg(target_os = "linux")]
#[must_use]
pub fn peer_signs(socket: BorrowedFd<'_>) -> Option<PeerSigns> {
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
    if code != 0 {
        return None;
    }
    // SAFETY: integers only, all zeroed; a system with a shorter struct leaves the rest zero.
    let info = unsafe { info.assume_init() };
    Some(PeerSigns {
        unanswered_probes: info.tcpi_probes,
        unacknowledged: info.tcpi_unacked,
        silent_for: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}

/// macOS has `TCP_CONNECTION_INFO`, which counts no probes.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn peer_signs(_socket: BorrowedFd<'_>) -> Option<PeerSigns> {
    None
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
        assert_eq!((signs.unanswered_probes, signs.unacknowledged), (0, 0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets")]
    fn what_is_no_tcp_socket_says_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(peer_signs(file.as_fd()), None);
    }
}
