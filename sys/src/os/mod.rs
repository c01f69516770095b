//! The system beneath the standard library: the calls of libc in usbferry, each made safe.
//!
//! - [`activation`]: descriptors that a service manager has passed.
//! - [`clock`]: a clock that is cheap to read.
//! - [`mod@file`]: files named by a user, opened without a wait.
//! - [`heap`]: memory that may be refused, and the treatment of freed memory.
//! - [`limit`]: the process's limit of open files.
//! - `nap`: a wait that ends in time, on Linux.
//! - [`process`]: programs that this process has started.
//! - [`signal`]: ignored signals.
//! - [`stack`]: the pages of a thread's stack.
//! - [`tcp`]: whether a silent peer is still there.
//! - [`thread`]: the name of a thread in the system's lists, and its turns at the processor.
//! - `timer`: a timer as a descriptor, on Linux.
//! - `uevent`: news of devices, on Linux.
//! - [`user`]: the owner of new files.

pub mod activation;
pub mod clock;
pub mod file;
pub mod heap;
pub mod limit;
#[cfg(target_os = "linux")]
pub mod nap;
pub mod process;
pub mod signal;
pub mod stack;
pub mod tcp;
pub mod thread;
#[cfg(target_os = "linux")]
pub mod timer;
#[cfg(target_os = "linux")]
pub mod uevent;
pub mod user;
