//! usbferry, a USB/IP server: exports USB devices through libusb to clients on a network, most
//! often Linux's `vhci_hcd` with the `usbip` tool.
//!
//! This page is the map. From the outside in:
//!
//! # The program
//! `main.rs` parses the command line, starts the log, runs a command and gives the exit code. The
//! rooms of this floor:
//!
//! - [`commands`]: the commands themselves, with output and errors in words for users.
//! - [`cli`]: typed text, checked and turned into settings. No other room knows clap.
//! - [`config`]: the settings of a server: which clients may connect, which devices are exported,
//!   and the policy of each device.
//! - [`client`]: a USB/IP client, for the list of another server's exports.
//! - [`logging`]: the log, which a thread of its own writes. Lines that clients can cause have a
//!   budget, in `complaints`.
//!
//! Every room may use [`limits`] (the limits that a client, a device or a user meets, each with a
//! reason), `units` (sizes and times as typed) and `words` (words for users).
//!
//! Rooms and floors know each other in these directions only:
//!
//! ```text
//! commands ─► cli ─► config ─► usb
//!     ├─────► client ─────────────► wire
//!     └─────► reactor ─► session ─► usb ─► wire
//!                └────► config
//! ```
//!
//! # The reactor
//! [`reactor`] is the one thread that waits: for sockets, for the descriptors of devices, for
//! workers. It accepts clients, reads their handshake (`handshake`), and gives each that imports a
//! device a session. Events only set bits; each turn then moves a bounded amount for each
//! connection.
//!
//! # Workers
//! Nothing that can sleep runs on the reactor. `worker` has a thread that looks for devices, and
//! one for each attached device that opens it, cancels its transfers, performs its special requests
//! and closes it; what panics there (`caught`) costs that device its session. The device itself, a
//! [`usb::Port`], moves to that thread and back: whoever owns it may use it, so nobody submits to a
//! device that is inside a blocking call.
//!
//! # Sessions
//! `session` is the protocol after the handshake, without sockets: bytes in, bytes out, URBs to the
//! port and back. It has the table of URBs, the race of SUBMIT and UNLINK, special requests as
//! barriers, and the replies as slices that point into the transfers' own buffers.
//!
//! # USB stacks
//! [`usb`] says as traits what is needed of one. [`usb::libusb`] is the real one, on
//! `usbferry-sys`, which has all unsafe code; [`usb::sim`] is devices made of software. Which one
//! is a type parameter of the reactor, so nothing on the path of a URB is called through a pointer.
//!
//! # The wire
//! [`wire`] is the protocol's bytes: pure functions between arrays and values.
//!
//! # Fuzzing
//! `fuzzing`, which only tests and fuzzers have, is what they drive: bytes of each kind that comes
//! from strangers, with what must be true of it.
//!
//! # The life of a URB
//! 1. The socket is readable: `Exchange::serve` reads into the slices of
//!    `Session::rx_slices`, the rest of an OUT payload first, straight into its transfer's buffer,
//!    and behind it what is expected from how the last PDUs looked (`session::rx`).
//! 2. `Session::rx_advance` parses each PDU that is whole, judges it, gives it a record and a
//!    buffer, and hands it to the port, or queues it: behind a barrier, or on its endpoint.
//! 3. The device is done: its descriptor becomes ready, `Session::reap` collects what ended, maps
//!    it to what the client is told, and queues the reply.
//! 4. `Session::stage` writes headers and small payloads into one buffer and notes large payloads
//!    where they lie; `Exchange::flush` writes all of it with one call. With its last byte the
//!    URB's record, slot and buffer are free again.
//!
//! Buffers and tables are allocated when a device is attached; none of the steps above allocates.

#![forbid(unsafe_code)]

mod caught;
pub mod cli;
pub mod client;
pub mod commands;
mod complaints;
pub mod config;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
pub mod limits;
pub mod logging;
pub mod reactor;
mod session;
pub mod stats;
pub mod status;
mod units;
pub mod usb;
pub mod wire;
mod words;
mod worker;
