//! The kernel's uevents: a socket of kind `NETLINK_KOBJECT_UEVENT` is a socket pair here, and each
//! change of the tree writes a message as the kernel does (`lib/kobject_uevent.c`). The network
//! namespace of the program belongs to the initial user namespace, whatever the real one does; with
//! the option `uevents=none` the owner is not told, as in a user namespace of its own.
//!
//! A test that changes the tree itself sends the messages: a thread passes on what arrives at the
//! socket `uevents` in the tree's root.
//!
//! Contract: a message that finds the queue full is dropped, and the next read fails with ENOBUFS.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread;

use libc::{sockaddr, socklen_t};

use crate::paths::CONTROLLER;
use crate::real::real;
use crate::{fail, options, refuse};

/// `NS_GET_USERNS` of `linux/nsfs.h`.
pub(crate) const NS_GET_USERNS: libc::c_ulong = 0xb701;

/// The name of the initial user namespace.
pub(crate) const INITIAL_USER_NAMESPACE: &[u8] = b"user:[4026531837]";

/// Bytes of a message from a test.
const MESSAGE_LEN_MAX: usize = 4096;

/// A socket of the program.
struct Socket {
    fd: c_int,
    /// The other end.
    sender: c_int,
    /// A message found the queue full.
    has_lost: AtomicBool,
}

/// The sockets of the program, and descriptors that stand for user namespaces.
struct Open {
    sockets: Vec<Socket>,
    owners: Vec<c_int>,
}

static OPEN: RwLock<Open> = RwLock::new(Open { sockets: Vec::new(), owners: Vec::new() });

/// A message and its reader share the lock: in the kernel, too, neither waits for the other.
fn opened() -> RwLockReadGuard<'static, Open> {
    OPEN.read().unwrap_or_else(PoisonError::into_inner)
}

fn opened_mut() -> RwLockWriteGuard<'static, Open> {
    OPEN.write().unwrap_or_else(PoisonError::into_inner)
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if domain == libc::AF_NETLINK && protocol == libc::NETLINK_KOBJECT_UEVENT {
        return open(kind);
    }
    let next = real!(socket(c_int, c_int, c_int) -> c_int);
    // SAFETY: the caller's promise.
    unsafe { next(domain, kind, protocol) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int {
    if opened().sockets.iter().any(|socket| socket.fd == fd) {
        return 0;
    }
    let next = real!(bind(c_int, *const sockaddr, socklen_t) -> c_int);
    // SAFETY: the caller's promise.
    unsafe { next(fd, address, len) }
}

/// A message has no sender here: libusb's own listener, which looks at the sender without a look at
/// its length, finds one that is not the kernel, and ignores the message.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> isize {
    if opened().sockets.iter().any(|socket| socket.fd == fd) {
        // SAFETY: the caller's promise: a valid message header.
        let header = unsafe { message.read() };
        if !header.msg_name.is_null() {
            let len = header.msg_namelen as usize;
            // SAFETY: the caller's promise: room for so many bytes.
            unsafe { header.msg_name.cast::<u8>().write_bytes(0, len) };
        }
    }
    let next = real!(recvmsg(c_int, *mut libc::msghdr, c_int) -> isize);
    // SAFETY: the caller's promise.
    unsafe { next(fd, message, flags) }
}

/// Opens a socket for the program.
fn open(kind: c_int) -> c_int {
    let mut ends = [-1; 2];
    let flags = kind & (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    // SAFETY: room for two descriptors.
    let made =
        unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM | flags, 0, ends.as_mut_ptr()) };
    if made == 0 {
        let [fd, sender] = ends;
        let has_lost = AtomicBool::new(false);
        opened_mut().sockets.push(Socket { fd, sender, has_lost });
        listen_to_tests();
    }
    if made == 0 { ends[0] } else { -1 }
}

/// The program closes a descriptor.
pub(crate) fn close(fd: c_int) {
    let mut open = opened_mut();
    open.owners.retain(|&owner| owner != fd);
    if let Some(at) = open.sockets.iter().position(|socket| socket.fd == fd) {
        let sender = open.sockets.swap_remove(at).sender;
        drop(open);
        // SAFETY: an own descriptor, not used after this.
        unsafe { libc::close(sender) };
    }
}

/// Whether the next read of a descriptor fails, because messages were dropped.
pub(crate) fn has_lost(fd: c_int) -> bool {
    let open = opened();
    let socket = open.sockets.iter().find(|socket| socket.fd == fd);
    socket.is_some_and(|socket| socket.has_lost.swap(false, Ordering::Relaxed))
}

/// The answer to `NS_GET_USERNS`: a descriptor that stands for the initial user namespace.
pub(crate) fn owner() -> c_int {
    if !options::get().uevents {
        return fail(libc::EPERM);
    }
    // SAFETY: a path that ends in NUL, and plain integers.
    let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    opened_mut().owners.push(fd);
    fd
}

/// Whether a descriptor stands for the initial user namespace.
pub(crate) fn is_owner(fd: c_int) -> bool {
    opened().owners.contains(&fd)
}

/// Sends a uevent of a device, or of an interface for `BUSID:CONFIGURATION.INTERFACE`.
pub(crate) fn send(action: &str, name: &str) {
    static SEQNUM: AtomicU64 = AtomicU64::new(1);
    let (kind, path) = match name.split_once(':') {
        Some((busid, _)) => ("usb_interface", format!("{busid}/{name}")),
        None => ("usb_device", name.to_owned()),
    };
    let controller = CONTROLLER.trim_start_matches("/sys");
    let number = SEQNUM.fetch_add(1, Ordering::Relaxed);
    let message = format!(
        "{action}@{controller}/usb1/{path}\0ACTION={action}\0DEVPATH={controller}/usb1/{path}\0\
         SUBSYSTEM=usb\0DEVTYPE={kind}\0SEQNUM={number}\0"
    );
    pass_on(message.as_bytes());
}

/// Sends a message to all sockets.
fn pass_on(message: &[u8]) {
    for socket in &opened().sockets {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let (start, len) = (message.as_ptr().cast::<c_void>(), message.len());
        // SAFETY: an own descriptor, and the message with its length.
        let sent = unsafe { libc::send(socket.sender, start, len, flags) };
        socket.has_lost.fetch_or(sent < 0, Ordering::Relaxed);
    }
}

/// Passes on the messages of tests, from the first socket on.
fn listen_to_tests() {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| {
        let root = &options::get().root;
        // Left by a server on the same tree before.
        let _ = std::fs::remove_file(root.join("uevents"));
        let directory = File::open(root);
        // The directory's own path may be too long for an address.
        let bound = directory.and_then(|directory| {
            UnixDatagram::bind(format!("/proc/self/fd/{}/uevents", directory.as_raw_fd()))
        });
        let receiver = bound.unwrap_or_else(|error| refuse(&format!("uevents: {error}")));
        thread::spawn(move || {
            let mut room = [0; MESSAGE_LEN_MAX];
            while let Ok(len) = receiver.recv(&mut room) {
                pass_on(&room[..len]);
            }
        });
    });
}
