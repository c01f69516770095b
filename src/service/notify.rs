//! Messages to the service manager: ready, reading settings, stopping, a line of status, and signs
//! of life (sd_notify(3)).
//!
//! Contract: a [`Manager`]'s messages *block* for `PATIENCE` at most, a [`Notifier`]'s never: a
//! message without room is not sent, and the caller is told.

use std::fmt;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use usbferry_sys::os::clock;

/// The wait for room in the service manager's queue, for messages that are sent once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A service manager lets this share of its patience pass between two signs of life: with a sign
/// lost, and a turn as long as any, the next is still in time.
const SIGNS_PER_PATIENCE: u32 = 4;

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// The server serves, for the first time or with other settings.
    Ready,
    /// The settings are read again; [`Self::Ready`] follows.
    Reloading,
    /// The server gives back its devices and ends.
    Stopping,
    /// A line for people.
    Status(&'a str),
    /// A sign of life.
    Alive,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Reloading => {
                write!(f, "RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros())
            }
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::Status(line) => write!(f, "STATUS={line}"),
            Self::Alive => f.write_str("WATCHDOG=1"),
        }
    }
}

/// The service manager of this process.
#[derive(Clone, Debug)]
pub struct Manager {
    address: SocketAddr,
    /// The time between two signs of life, if the manager waits for signs.
    signs: Option<Duration>,
}

impl Manager {
    /// The manager that has started this process with a socket for messages (`NOTIFY_SOCKET`).
    ///
    /// # Errors
    /// The socket's address has no form known here.
    #[must_use]
    pub fn of_process() -> Option<io::Result<Self>> {
        let variable = |name| std::env::var(name).ok();
        let address = variable("NOTIFY_SOCKET").filter(|text| !text.is_empty())?;
        let signs = signs(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Some(address_of(&address).map(|address| Self { address, signs }))
    }

    /// Sends a message. *Blocks* for `PATIENCE` at most.
    ///
    /// # Errors
    /// The system's: the manager does not have the message.
    pub fn send(&self, message: Message<'_>) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to_addr(message.to_string().as_bytes(), &self.address).map(|_| ())
    }

    /// The way to the manager for a thread that must not block.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn notifier(&self) -> io::Result<Notifier> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Notifier { socket, manager: self.clone() })
    }
}

/// The time between two signs of life, by the variables of a process with the number `id`.
fn signs(microseconds: Option<String>, pid: Option<String>, id: u32) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(id));
    let patience = microseconds?.parse().ok().filter(|&patience| patience > 0 && is_for_us)?;
    Some(Duration::from_micros(patience) / SIGNS_PER_PATIENCE)
}

/// An address of a file, or behind an at sign of Linux's abstract names.
fn address_of(text: &str) -> io::Result<SocketAddr> {
    match text.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ if text.starts_with('/') => SocketAddr::from_pathname(text),
        _ => Err(io::Error::other("its address is neither a path nor an abstract name")),
    }
}

/// Sends messages without a wait.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: Manager,
}

impl Notifier {
    /// The time between two signs of life, if the manager waits for signs.
    #[must_use]
    pub const fn signs(&self) -> Option<Duration> {
        self.manager.signs
    }

    /// Sends a message; false when there is no room for the message now, or nobody to have it.
    #[must_use]
    pub fn send(&self, message: Message<'_>) -> bool {
        let text = message.to_string();
        self.socket.send_to_addr(text.as_bytes(), &self.manager.address).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_manual() {
        assert_eq!(Message::Ready.to_string(), "READY=1");
        assert_eq!(Message::Stopping.to_string(), "STOPPING=1");
        assert_eq!(Message::Status("two devices").to_string(), "STATUS=two devices");
        assert_eq!(Message::Alive.to_string(), "WATCHDOG=1");
        let text = Message::Reloading.to_string();
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert_eq!(time.parse::<u64>().unwrap() > 0, cfg!(target_os = "linux"));
    }

    #[test]
    fn signs_are_for_the_process_that_the_manager_names() {
        let text = |text: &str| Some(text.to_owned());
        let signs_of = |time: Option<&str>, pid: Option<&str>| {
            signs(time.and_then(text), pid.and_then(text), 7)
        };
        let quarter = Some(Duration::from_secs(5));
        assert_eq!(signs_of(Some("20000000"), Some("7")), quarter);
        assert_eq!(signs_of(Some("20000000"), None), quarter);
        for (time, pid) in
            [(Some("20000000"), Some("8")), (None, None), (Some("0"), None), (Some("x"), None)]
        {
            assert_eq!(signs_of(time, pid), None, "{time:?} {pid:?}");
        }
    }

    #[test]
    fn a_notifier_without_room_says_so_and_returns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let server = UnixDatagram::bind(&path).unwrap();
        let address = address_of(path.to_str().unwrap()).unwrap();
        let manager = Manager { address, signs: None };
        manager.send(Message::Ready).unwrap();
        let notifier = manager.notifier().unwrap();
        // The server's queue is short, or else the notifier's own buffer is.
        let sent = (0..1_000_000).take_while(|_| notifier.send(Message::Alive)).count();
        assert!(sent < 1_000_000);
        let mut room = [0; 64];
        let len = server.recv(&mut room).unwrap();
        assert_eq!(&room[..len], b"READY=1");
        server.set_nonblocking(true).unwrap();
        while server.recv(&mut room).is_ok() {}
        assert!(notifier.send(Message::Alive), "there is room again");
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        assert!(address_of("/run/systemd/notify").is_ok());
        assert_eq!(address_of("@name").is_ok(), cfg!(target_os = "linux"));
        for wrong in ["", "relative", "vsock:2:1234"] {
            assert!(address_of(wrong).is_err(), "{wrong}");
        }
    }
}
