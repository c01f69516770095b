//! Functions that the program's linker puts in the place of the C library's and libusb's. Without
//! them, a seventh of the instructions of a small URB go into an allocation of libusb's and into
//! messages that nobody reads.
//!
//! With `--wrap=NAME`, the linker (GNU's, LLVM's, mold) turns the calls of NAME in the program, and
//! in the libusb that is built into the program, into calls of `__wrap_NAME`, and those of
//! `__real_NAME` into calls of NAME. Calls inside other libraries, the C library among them, stay
//! as they are, and with GNU's linkers so do calls in the file that has NAME itself. The build
//! script of the program has the list of names. The program alone is linked with this crate: the
//! server's tests, the benches and a program with the system's libusb run without.
//!
//! - [`blocks`]: `calloc` and `free`;
//! - [`questions`]: `poll` and `ioctl`, where the answer is known;
//! - `usbi_log` is libusb's function for messages, which nothing here shows; libusb calls the
//!   function eight times for a URB, each time with a text and arguments. No URB passes libusb's
//!   `core.c`, the file that has the function.
//!
//! Contract: all functions may be called in place of the originals, by any thread.

#![cfg(target_os = "linux")]

pub mod blocks;
pub mod questions;

/// In the place of libusb's `usbi_log` (`libusbi.h`): says nothing, whatever LIBUSB_DEBUG is.
///
/// The original has more parameters, which stay where the caller put them: in C's calling
/// conventions the caller takes away what the function does not touch.
#[unsafe(no_mangle)]
extern "C" fn __wrap_usbi_log() {}
