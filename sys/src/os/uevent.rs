//! News of devices from Linux's kernel: uevents, which come by netlink (`lib/kobject_uevent.c`).
//!
//! Since Linux 4.17 the kernel sends uevents of USB devices to the network namespaces that the
//! initial user namespace owns, and to no other. A socket elsewhere can be opened and bound, and
//! stays silent for ever. So [`Uevents::open`] asks for the owner of the network namespace first
//! (ioctl_ns(2), `NS_GET_USERNS`, Linux 4.9), and fails where the answer is another namespace, or
//! where there is no answer. Containers with a network namespace of their own hear uevents unless
//! their user namespace is their own, too. No privilege is needed, and no udev daemon.
//!
//! Contract: nothing blocks. The kernel queues a uevent on the socket before the call that made the
//! change returns, and drops uevents when the queue is full ([`Uevent::Overflowed`]).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// `NS_GET_USERNS` of `linux/nsfs.h`.
const NS_GET_USERNS: libc::Ioctl = libc::_IO(0xb7, 1);

/// The name of the initial user namespace: its number is `PROC_USER_INIT_INO` of
/// `linux/proc_ns.h`, the same since Linux 3.8.
const INITIAL_USER_NAMESPACE: &str = "user:[4026531837]";

/// The group to which the kernel sends; udev's own messages have another.
const KERNEL_GROUP: u32 = 1;

/// `struct sockaddr_nl`.
#[repr(C)]
struct NetlinkAddress {
    family: libc::sa_family_t,
    padding: u16,
    port: u32,
    groups: u32,
}

const NETLINK_ADDRESS_LEN: libc::socklen_t = 12;

const _: () = assert!(size_of::<NetlinkAddress>() == NETLINK_ADDRESS_LEN as usize);

/// A socket that hears uevents.
#[derive(Debug)]
pub struct Uevents(File);

/// An answer of [`Uevents::next`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uevent<'a> {
    /// A uevent: texts that each end in a NUL, `ACTION@DEVPATH` first and then `NAME=VALUE`.
    Message(&'a [u8]),
    /// Uevents were dropped, because the queue was full.
    Overflowed,
    /// Nothing is in the queue.
    None,
}

impl Uevents {
    /// Begins to listen: uevents of changes that are made after the return are heard.
    ///
    /// # Errors
    /// The system has no such socket for this process, or would not send uevents to the socket, or
    /// does not say whether; the error says which.
    pub fn open() -> io::Result<Self> {
        if !is_heard()? {
            let silent = "this network namespace belongs to a user namespace without uevents";
            return Err(io::Error::new(io::ErrorKind::Unsupported, silent));
        }
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain integers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_KOBJECT_UEVENT) };
        let socket = owned(fd)?;
        #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
        let family = libc::AF_NETLINK as libc::sa_family_t;
        // Port 0 has the kernel choose.
        let address = NetlinkAddress { family, padding: 0, port: 0, groups: KERNEL_GROUP };
        // SAFETY: `address` is laid out as the kernel has it, and as long as the length says.
        let bound = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), NETLINK_ADDRESS_LEN)
        };
        if bound == 0 { Ok(Self(socket.into())) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes the next uevent from the queue into `room`; of a longer one the start.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub fn next<'a>(&mut self, room: &'a mut [u8]) -> io::Result<Uevent<'a>> {
        match (&self.0).read(room) {
            Ok(len) => Ok(Uevent::Message(&room[..len])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Uevent::None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Uevent::Message(&[])),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Uevent::Overflowed),
            Err(error) => Err(error),
        }
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Whether the kernel sends uevents to sockets in the network namespace of this process.
fn is_heard() -> io::Result<bool> {
    let network = File::open("/proc/self/ns/net")?;
    // SAFETY: the descriptor is open, and this request takes no argument.
    let owner = owned(unsafe { libc::ioctl(network.as_raw_fd(), NS_GET_USERNS) })?;
    let name = fs::read_link(format!("/proc/self/fd/{}", owner.as_raw_fd()))?;
    Ok(name == Path::new(INITIAL_USER_NAMESPACE))
}

/// Takes over a descriptor that a call has just returned, or its error.
fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just opened the descriptor for the caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "needs sockets and /proc")]
    fn a_new_socket_is_empty_or_has_a_reason() {
        match Uevents::open() {
            // Other devices may change meanwhile.
            Ok(mut uevents) => assert!(uevents.next(&mut [0; 4096]).is_ok()),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::InvalidInput, "{error}"),
        }
    }
}
