//! The C library's functions replaced by this library. Each function checks whether its path or
//! descriptor is simulated, and otherwise calls the replaced function.
//!
//! Functions with a variable number of arguments are defined here with the largest number: on
//! Linux's architectures both are called alike.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};

use libc::{mode_t, off_t, off64_t, size_t, ssize_t};

use crate::real::real;
use crate::{attributes, control, device, fail, interrupts, memory, node, paths, tree, uevents};

/// Defines functions whose path is redirected: `NAME{before}(after) -> result`, where the path
/// stands between the two.
macro_rules! redirecting {
    ($($name:ident {$($before:ident: $kind:ty),*} ($($after:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                $($before: $kind,)* path: *const c_char $(, $after: $type)*
            ) -> $result {
                let inner = paths::redirect(path);
                let path = inner.as_deref().map_or(path, CStr::as_ptr);
                let next = real!($name($($kind,)* *const c_char $(, $type)*) -> $result);
                // SAFETY: the caller's promise, and a path of the same kind.
                unsafe { next($($before,)* path $(, $after)*) }
            }
        )*
    };
}

/// Defines functions that open files: `NAME{before}(after)`, with path and flags in the middle.
macro_rules! opening {
    ($($name:ident {$($before:ident: $kind:ty),*} ($($after:ident: $type:ty),*);)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                $($before: $kind,)* path: *const c_char, flags: c_int $(, $after: $type)*
            ) -> c_int {
                if let Some(result) = open_node(path, flags) {
                    return result;
                }
                let inner = paths::redirect(path);
                let path = inner.as_deref().map_or(path, CStr::as_ptr);
                let next = real!($name($($kind,)* *const c_char, c_int $(, $type)*) -> c_int);
                // SAFETY: the caller's promise, and a path of the same kind.
                let fd = unsafe { next($($before,)* path, flags $(, $after)*) };
                attributes::opened(fd, inner.as_deref());
                fd
            }
        )*
    };
}

opening! {
    open {} (mode: mode_t);
    open64 {} (mode: mode_t);
    __open_2 {} ();
    __open64_2 {} ();
    openat {directory: c_int} (mode: mode_t);
    openat64 {directory: c_int} (mode: mode_t);
    __openat_2 {directory: c_int} ();
    __openat64_2 {directory: c_int} ();
}

redirecting! {
    opendir {} () -> *mut c_void;
    fopen {} (mode: *const c_char) -> *mut c_void;
    fopen64 {} (mode: *const c_char) -> *mut c_void;
    access {} (mode: c_int) -> c_int;
    faccessat {directory: c_int} (mode: c_int, flags: c_int) -> c_int;
    stat {} (buffer: *mut c_void) -> c_int;
    stat64 {} (buffer: *mut c_void) -> c_int;
    lstat {} (buffer: *mut c_void) -> c_int;
    lstat64 {} (buffer: *mut c_void) -> c_int;
    fstatat {directory: c_int} (buffer: *mut c_void, flags: c_int) -> c_int;
    fstatat64 {directory: c_int} (buffer: *mut c_void, flags: c_int) -> c_int;
    __xstat {version: c_int} (buffer: *mut c_void) -> c_int;
    __xstat64 {version: c_int} (buffer: *mut c_void) -> c_int;
    __lxstat {version: c_int} (buffer: *mut c_void) -> c_int;
    __lxstat64 {version: c_int} (buffer: *mut c_void) -> c_int;
    __stat64_time64 {} (buffer: *mut c_void) -> c_int;
    __lstat64_time64 {} (buffer: *mut c_void) -> c_int;
    __fstatat64_time64 {directory: c_int} (buffer: *mut c_void, flags: c_int) -> c_int;
    statx {directory: c_int} (flags: c_int, mask: c_uint, buffer: *mut c_void) -> c_int;
}

/// Opens a path of a device node.
fn open_node(path: *const c_char, flags: c_int) -> Option<c_int> {
    let number = paths::device_number(path)?;
    let device = device::numbered(number).filter(|device| !device.is_gone())?;
    if !tree::has_node(device) {
        return Some(fail(libc::ENOENT));
    }
    if tree::is_read_only(device) {
        return Some(fail(libc::EACCES));
    }
    if let Err(errno) = device.options.refuses("open") {
        return Some(fail(errno));
    }
    Some(node::open(device, flags).unwrap_or_else(fail))
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    node::close(fd);
    attributes::closed(fd);
    uevents::close(fd);
    let next = real!(close(c_int) -> c_int);
    // SAFETY: the caller's promise.
    unsafe { next(fd) }
}

/// Defines the names of `ioctl`: the second is for programs with a time_t of 64 bits on machines
/// with 32, and only there.
macro_rules! controlling {
    ($($name:ident;)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                fd: c_int,
                request: c_ulong,
                argument: *mut c_void,
            ) -> c_int {
                if let Some(node) = node::of(fd) {
                    return control::ioctl(node, request, argument);
                }
                if request == uevents::NS_GET_USERNS {
                    return uevents::owner();
                }
                let next = real!($name(c_int, c_ulong, *mut c_void) -> c_int);
                // SAFETY: the caller's promise.
                unsafe { next(fd, request, argument) }
            }
        )*
    };
}

controlling! {
    ioctl;
    __ioctl_time64;
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, len: size_t) -> ssize_t {
    if let Some(node) = node::of(fd) {
        // SAFETY: the caller's promise.
        let room = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
        return read_node(node, room).unwrap_or_else(|errno| fail(errno) as ssize_t);
    }
    if uevents::has_lost(fd) {
        return fail(libc::ENOBUFS) as ssize_t;
    }
    let len = attributes::wait(fd, len);
    let next = real!(read(c_int, *mut c_void, size_t) -> ssize_t);
    // SAFETY: the caller's promise.
    unsafe { next(fd, buffer, len) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn __read_chk(fd: c_int, buffer: *mut c_void, len: size_t, _: size_t) -> ssize_t {
    // SAFETY: the caller's promise. The C library checks the length; programs for this library have
    // been run without the check.
    unsafe { read(fd, buffer, len) }
}

/// Reads descriptors.
fn read_node(node: &node::Node, room: &mut [u8]) -> Result<ssize_t, c_int> {
    let device = node.lock().device.ok_or(libc::EBADF)?;
    let host = device.lock();
    if device.is_gone() {
        return Err(libc::ENODEV);
    }
    let mut state = node.lock();
    let len = host.device.host.read_node(state.position, room);
    state.position += len;
    Ok(len.cast_signed())
}

/// Defines functions that wait for events: `NAME(after)`, behind the descriptors.
macro_rules! polling {
    ($($name:ident($($after:ident: $type:ty),*);)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                fds: *mut libc::pollfd, count: libc::nfds_t, $($after: $type),*
            ) -> c_int {
                if interrupts::is_due(fds, count) {
                    return fail(libc::EINTR);
                }
                let next = real!($name(*mut libc::pollfd, libc::nfds_t $(, $type)*) -> c_int);
                // SAFETY: the caller's promise.
                unsafe { next(fds, count $(, $after)*) }
            }
        )*
    };
}

polling! {
    poll(timeout: c_int);
    ppoll(timeout: *const libc::timespec, mask: *const libc::sigset_t);
}

/// Defines the two names of `lseek`.
macro_rules! seeking {
    ($($name:ident($offset:ty);)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(fd: c_int, offset: $offset, whence: c_int) -> $offset {
                if let Some(node) = node::of(fd) {
                    return if seek_node(node, offset, whence) { offset } else { -1 };
                }
                let next = real!($name(c_int, $offset, c_int) -> $offset);
                // SAFETY: the caller's promise.
                unsafe { next(fd, offset, whence) }
            }
        )*
    };
}

seeking! {
    lseek(off_t);
    lseek64(off64_t);
}

/// Moves the position; sets errno and returns false on failure.
fn seek_node(node: &node::Node, offset: impl TryInto<usize>, whence: c_int) -> bool {
    match offset.try_into() {
        Ok(position) if whence == libc::SEEK_SET => {
            node.lock().position = position;
            true
        }
        _ => {
            fail(libc::EINVAL);
            false
        }
    }
}

/// Defines the two names of `mmap`.
macro_rules! mapping {
    ($($name:ident($offset:ty);)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(
                address: *mut c_void,
                len: size_t,
                protection: c_int,
                flags: c_int,
                fd: c_int,
                offset: $offset,
            ) -> *mut c_void {
                if let Some(node) = node::of(fd) {
                    return map_node(node, len);
                }
                let next = real!(
                    $name(*mut c_void, size_t, c_int, c_int, c_int, $offset) -> *mut c_void
                );
                // SAFETY: the caller's promise.
                unsafe { next(address, len, protection, flags, fd, offset) }
            }
        )*
    };
}

mapping! {
    mmap(off_t);
    mmap64(off64_t);
}

fn map_node(node: &node::Node, len: usize) -> *mut c_void {
    let device = node.lock().device;
    let refused = device.map_or(Err(libc::EBADF), |device| device.options.refuses("mmap"));
    match refused.and_then(|()| memory::map(node.id, len)) {
        Ok(base) => {
            let end = base.addr() + len.next_multiple_of(memory::PAGE);
            node.lock().mappings.push((base.addr(), end));
            base
        }
        Err(errno) => {
            fail(errno);
            libc::MAP_FAILED
        }
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(address: *mut c_void, len: size_t) -> c_int {
    if let Some(node) = memory::unmapped(address) {
        node::forget_mapping(node, address.addr());
    }
    let next = real!(munmap(*mut c_void, size_t) -> c_int);
    // SAFETY: the caller's promise.
    unsafe { next(address, len) }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn readlink(path: *const c_char, room: *mut c_char, len: size_t) -> ssize_t {
    let node = paths::open_file(path).and_then(node::of);
    if let Some(device) = node.and_then(|node| node.lock().device) {
        let name = format!("/dev/bus/usb/001/{:03}", device.number());
        // SAFETY: the caller's promise.
        return unsafe { fill(room, len, name.as_bytes()) };
    }
    if paths::open_file(path).is_some_and(uevents::is_owner) {
        // SAFETY: the caller's promise.
        return unsafe { fill(room, len, uevents::INITIAL_USER_NAMESPACE) };
    }
    let inner = paths::redirect(path);
    let path = inner.as_deref().map_or(path, CStr::as_ptr);
    let next = real!(readlink(*const c_char, *mut c_char, size_t) -> ssize_t);
    // SAFETY: the caller's promise, and a path of the same kind.
    unsafe { next(path, room, len) }
}

/// Writes the target of a link, cut at `len` bytes.
///
/// # Safety
/// `room` has `len` bytes that may be written.
unsafe fn fill(room: *mut c_char, len: size_t, target: &[u8]) -> ssize_t {
    let len = len.min(target.len());
    // SAFETY: the caller's promise, and no more than the target has.
    unsafe { room.copy_from_nonoverlapping(target.as_ptr().cast(), len) };
    len.cast_signed()
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn realpath(path: *const c_char, room: *mut c_char) -> *mut c_char {
    let inner = paths::redirect(path);
    let next = real!(realpath(*const c_char, *mut c_char) -> *mut c_char);
    let Some(inner) = inner else {
        // SAFETY: the caller's promise.
        return unsafe { next(path, room) };
    };
    // SAFETY: the caller's promise, and a path of the same kind.
    let found = unsafe { next(inner.as_ptr(), room) };
    if !found.is_null() {
        hide_root(found);
    }
    found
}

/// Replaces a path in the tree by its simulated path, in place: the path only gets shorter.
fn hide_root(path: *mut c_char) {
    // SAFETY: a string just returned by `realpath`.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    let Some(rest) = paths::unredirect(bytes) else { return };
    let start = bytes.len() - rest.len();
    // SAFETY: within the string.
    let from = unsafe { path.add(start) };
    // SAFETY: within the string, its NUL included.
    unsafe { path.copy_from(from, rest.len() + 1) };
}

/// Defines the two names of `statfs`. libusb asks whether `/sys` is sysfs, which not every
/// container has.
macro_rules! statting {
    ($($name:ident;)*) => {
        $(
            /// # Safety
            /// As for the C library's function of the same name.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name(path: *const c_char, buffer: *mut c_void) -> c_int {
                let next = real!($name(*const c_char, *mut c_void) -> c_int);
                // SAFETY: the caller's promise.
                let result = unsafe { next(path, buffer) };
                if result == 0 && is_sys(path) {
                    // SAFETY: `f_type` is the first field, and has the type of the constant.
                    unsafe { write_to(buffer, libc::SYSFS_MAGIC) };
                }
                result
            }
        )*
    };
}

statting! {
    statfs;
    statfs64;
}

/// # Safety
/// `place` is a writable value of type `T`.
unsafe fn write_to<T>(place: *mut c_void, value: T) {
    // SAFETY: the caller's promise.
    unsafe { place.cast::<T>().write(value) };
}

fn is_sys(path: *const c_char) -> bool {
    // SAFETY: a path just used by the C library.
    let path = unsafe { CStr::from_ptr(path) };
    path == c"/sys"
}
