//! The waits of `attach --persist`: for the end of an attachment, for news of a device, for a
//! while, and always for the signal to stop.
//!
//! The end of an attachment is the end of its socket. `vhci_hcd` ends every session whose server
//! closes, and shuts the socket down on every end, whatever the reason (`vhci_shutdown_connection`
//! of
//! `drivers/usb/usbip/vhci_hcd.c`); a descriptor of the same socket then hangs up (POLLRDHUP,
//! POLLHUP). The ports' files in sysfs have no such notice, and uevents about the device come from
//! another thread of the kernel, now earlier and now later. A wait for a hang-up alone is not woken
//! by data.
//!
//! Contract: *blocks*, for the wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// A reason to wake up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Woken {
    /// A person or a service manager wants the command to end.
    Stop,
    /// The awaited event.
    Event,
    /// The time is over.
    Late,
}

/// The awaited event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Awaited<'a> {
    /// The end of a connection, in either direction.
    End(BorrowedFd<'a>),
    /// Bytes on a connection, or its end.
    Bytes(BorrowedFd<'a>),
    /// Nothing but the time.
    Nothing,
}

/// The signal to stop. While nothing is attached the signal ends the process at once, also within a
/// connect that takes seconds.
#[derive(Debug)]
pub(super) struct Stop {
    signals: UnixStream,
    idle: Arc<AtomicBool>,
}

impl Stop {
    /// Listens to SIGINT, SIGTERM and SIGQUIT, and to SIGHUP unless ignored.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn on_signals() -> io::Result<Self> {
        let (stop, sender) = Self::by_hand()?;
        for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && usbferry_sys::os::signal::is_ignored(SIGHUP) {
                continue;
            }
            let idle = Arc::clone(&stop.idle);
            signal_hook::flag::register_conditional_shutdown(signal, 0, idle)?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(stop)
    }

    /// A stop without signals: a byte on the stream stops.
    pub(super) fn by_hand() -> io::Result<(Self, UnixStream)> {
        let (signals, sender) = UnixStream::pair()?;
        Ok((Self { signals, idle: Arc::default() }, sender))
    }

    /// Whether nothing is attached.
    pub(super) fn set_idle(&self, is_idle: bool) {
        self.idle.store(is_idle, Ordering::SeqCst);
    }

    /// Waits for an event or the stop; without a time for as long as that takes.
    ///
    /// # Errors
    /// The system can't wait.
    pub(super) fn wait(&self, on: Awaited<'_>, time: Option<Duration>) -> io::Result<Woken> {
        let time = time.map(|time| Timespec::try_from(time).unwrap_or_default());
        let stop = PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN);
        let event = match on {
            Awaited::End(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)),
            Awaited::Bytes(fd) => Some(PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            Awaited::Nothing => None,
        };
        let mut fds: Vec<PollFd<'_>> = [stop].into_iter().chain(event).collect();
        loop {
            match poll(&mut fds, time.as_ref()) {
                // The signal's byte is there for the next call.
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(Woken::Late),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Woken::Stop),
                Ok(_) => return Ok(Woken::Event),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_millis(20));

    /// A connection's two ends.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn an_attachment_ends_with_its_socket_and_not_with_data() {
        let (stop, _sender) = Stop::by_hand().unwrap();
        let (client, mut server) = pair();
        server.write_all(&[0; 64]).unwrap();
        assert_eq!(stop.wait(Awaited::End(client.as_fd()), SOON).unwrap(), Woken::Late);
        // The server closes, or the client's kernel does.
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stop.wait(Awaited::End(client.as_fd()), None).unwrap(), Woken::Event);
        let (client, _server) = pair();
        client.try_clone().unwrap().shutdown(Shutdown::Both).unwrap();
        assert_eq!(stop.wait(Awaited::End(client.as_fd()), None).unwrap(), Woken::Event);
    }

    #[test]
    fn a_stop_comes_before_every_event_and_bytes_are_an_event() {
        let (stop, mut sender) = Stop::by_hand().unwrap();
        let (client, mut server) = pair();
        assert_eq!(stop.wait(Awaited::Nothing, SOON).unwrap(), Woken::Late);
        assert_eq!(stop.wait(Awaited::Bytes(client.as_fd()), SOON).unwrap(), Woken::Late);
        server.write_all(&[0]).unwrap();
        assert_eq!(stop.wait(Awaited::Bytes(client.as_fd()), None).unwrap(), Woken::Event);
        sender.write_all(&[0]).unwrap();
        assert_eq!(stop.wait(Awaited::Bytes(client.as_fd()), None).unwrap(), Woken::Stop);
        assert_eq!(stop.wait(Awaited::Nothing, None).unwrap(), Woken::Stop);
    }
}
