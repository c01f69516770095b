//! The system beneath the standard library: calls of libc that usbferry needs, each made safe.
//!
//! - [`clock`]: a clock that is cheap to read.
//! - [`heap`]: memory that may be refused, and what becomes of memory that is freed.
//! - [`limit`]: the process's limit of open files.
//! - [`signal`]: signals that are ignored.
//! - [`tcp`]: whether a silent peer is still there.
//! - `uevent`: news of devices, on Linux.
//! - [`user`]: whose files are made.

pub mod clock;
pub mod heap;
pub mod limit;
pub mod signal;
pub mod tcp;
#[cfg(target_os = "linux")]
pub mod uevent;
pub mod user;
