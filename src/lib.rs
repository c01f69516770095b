//! usbferry, a USB/IP server: exports USB devices through libusb to clients on a network, most
//! often Linux's `vhci_hcd` with the `usbip` tool.
//!
//! This page is the map, of two packages. The *server* (this crate, `src/`) has every part that a
//! URB passes, and whatever these parts use; it is compiled to be fast. The *program*
//! (`usbferry_program`, `program/`) has the parts that no URB passes, and is compiled to be small,
//! which saves a tenth of the whole. From the outside in:
//!
//! # The program
//! `bin/usbferry.rs` parses the command line, starts the log, runs a command and gives the exit
//! code. The parts of the program's package:
//!
//! - `commands`: the commands themselves, with output and errors in words for users.
//! - `cli`: typed text, checked and turned into settings together with the file. No other part
//!   knows clap.
//! - `client`: a USB/IP client, for the list of another server's exports and for their devices.
//! - `operator`: the socket by which a person or a program on the server's machine asks for the
//!   state of the server, and the client of that socket.
//! - `web`: the web server, with a page for people and metrics for Prometheus.
//! - `report`: the state of a server in the form for programs.
//! - `discovery`: servers on the network, announced and found.
//! - `vhci` (Linux): the ports of the kernel's client side, to which remote devices are attached.
//! - `doctor`: what makes exports and imports fail on this machine, and what to type.
//! - `logging`: the log, which a thread of its own writes (`writer`).
//!
//! And of the server's, about the program:
//!
//! - [`server`]: the server that the program runs: the reactor, for either USB stack.
//! - [`config`]: the settings of a server: which clients may connect, and the rules about which
//!   devices are exported to whom, under which name and on which terms. The text of a file of
//!   settings, which `commands` reads, is checked here.
//! - `hooks`: programs that events of a device start, on threads of their own.
//! - [`service`]: the service manager, most often systemd: its sockets, and messages to it.
//!
//! Every part may use [`limits`] (the limits that a client, a device or a user meets, each with a
//! reason), `complaints` (the budget for lines of the log that clients can cause), `caught` (a
//! panic becomes a line of the log), `whose` (the client and the device of a line), `units` (sizes
//! and times as typed), `words` (words for users), `threads` and `channel` (between threads),
//! `sorted` (short lists in order), `names` (of vendors and products), `programs` (the programs
//! with a file open), `runtime` (the directories for files of a running server), `sockets` (the
//! options of a session's socket, at both ends) and `deadline` (the earlier of two instants).
//!
//! The parts know each other in these directions only, which a test checks (`map`). Arrows point
//! down, but for the results of a worker, which go up to the reactor:
//!
//! ```text
//! commands ──► capture, cli, client, config, discovery, doctor, operator, reactor, report, server, service, status, usb, vhci, web, wire
//! cli ───────► client, config, logging, usb, wire
//! doctor ────► client, config, usb, vhci, wire
//! client ────► usbmon, wire
//! vhci ──────► wire
//! operator ──► capture, config, reactor, report, status
//! web ───────► config, reactor, report, status
//! report ────► stats, status, wire
//! fuzzing ───► discovery, handshake, session, usb, wire
//! discovery ─► reactor, status
//! server ────► config, reactor, service, usb
//! reactor ───► capture, config, handshake, hooks, service, session, stats, status, usb, wire, worker
//! worker ────► config, reactor, session, usb
//! logging ───► wire, writer
//! handshake ─► wire
//! hooks ─────► config, usb, wire
//! session ───► capture, stats, usb, wire
//! status ────► config, stats, wire
//! capture ───► config, usbmon, wire, writer
//! stats ─────► wire
//! config ────► usb, wire
//! usb ───────► usbmon, wire
//! usbmon ────► wire
//! whose ─────► wire
//! ```
//!
//! # The reactor
//! [`reactor`] is the only thread that serves USB/IP: the reactor waits for sockets, for the
//! descriptors of devices and for workers, all at once. The reactor accepts clients, reads their
//! handshakes (`handshake`), and makes a session for each import. Devices are known before a client
//! asks: where the system hints at changes, scans follow the hints, and answers come from the
//! exports. Events only set bits; each turn then moves a bounded amount for each connection. On
//! request the reactor fills a snapshot of the server ([`status`]), with the counters of all
//! sessions ([`stats`]); a new counter gets its note beside the event, in `session::complete` or
//! `session::submit`.
//!
//! How a connection or a device ends: `reactor::end` lists the reasons, `reactor::ending` has the
//! steps, `reactor::loan` the states of the device, `session::teardown` the URBs.
//!
//! # Workers
//! Nothing that can sleep runs on the reactor. `worker` has a thread that looks for devices, and a
//! thread for each attached device, which opens the device, cancels its transfers, performs its
//! special requests and closes the device; a panic there (`caught`) costs the device its session.
//! The open device, a [`usb::Port`], moves to the thread and back: only the owner of the port can
//! use the device, so nobody submits to a device inside a blocking call.
//!
//! # Sessions
//! `session` is the protocol after the handshake, without sockets: bytes in, bytes out, URBs to the
//! port and back. The session has the table of URBs, the race of SUBMIT and UNLINK, special
//! requests as barriers, and the replies as slices that point into the transfers' own buffers.
//!
//! # USB stacks
//! [`usb`] has the traits of a USB stack. [`usb::libusb`] is the real stack, on `usbferry-sys`,
//! which has all unsafe code, but for `usbferry-wraps`: functions that the program's linker puts
//! between libusb and the C library, so that a URB costs no allocation of libusb's. `usb::sim` has
//! devices made of software, and is left out of a build without the feature `simulate`. The stack
//! is a type parameter of the reactor, so nothing on the path of a URB is called through a pointer.
//! `usb::either` makes one stack of both, and [`server`] the program's reactor: the program has the
//! reactor, the sessions and the workers once. A backend can wrap another:
//! `session/tests/wrapped.rs` is the worked example.
//!
//! # The capture
//! `capture` writes every URB of every session, or of some devices, into a file for Wireshark, on a
//! thread of its own; `client::replay` plays such a file against a server. A session has a tap for
//! each capture of its device, and `session::tapping` tells the tap of each SUBMIT and each end: a
//! session knows more of a URB than a wrapped port would. `usbmon` is the format of the records.
//!
//! # The wire
//! [`wire`] is the protocol's bytes: pure functions between arrays and values.
//!
//! # Fuzzing
//! `fuzzing` is for tests and fuzzers only: functions that take any bytes of a peer or a device,
//! and assert whatever must be true of the result.
//!
//! # The life of a URB
//! 1. The socket is readable: `Exchange::serve` reads into the slices of `Session::rx_slices`,
//!    first the rest of an OUT payload, straight into the buffer of its transfer, and behind the
//!    payload the expected next PDUs, judged by the last PDUs (`session::rx`).
//! 2. `Session::rx_advance` parses each complete PDU, judges the command, provides a record and a
//!    buffer, and hands the URB to the port, or queues the URB: behind a barrier, or on its
//!    endpoint.
//! 3. The device is done: its descriptor becomes ready, or the session looks behind new submits
//!    where that has paid (`session::prompt`). `Session::reap` collects the ended transfers, maps
//!    each result to the status for the client, and queues the reply.
//! 4. `Session::stage` writes headers and small payloads into one buffer and notes the place of
//!    large payloads; `Exchange::flush` writes everything with one call. With the last byte the
//!    URB's record, slot and buffer are free again.
//!
//! Buffers and tables are allocated when a device is attached; none of the steps above allocates.

#![forbid(unsafe_code)]

#[cfg(all(any(test, fuzzing), not(feature = "simulate")))]
compile_error!("the tests need simulated devices: add `--features simulate`");

pub mod capture;
pub mod caught;
pub mod channel;
pub mod complaints;
pub mod config;
mod deadline;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod hooks;
pub mod limits;
#[cfg(test)]
mod map;
pub mod reactor;
pub mod runtime;
pub mod server;
pub mod service;
mod session;
pub mod sockets;
pub mod sorted;
pub mod stats;
pub mod status;
pub mod threads;
pub mod units;
pub mod usb;
pub mod usbmon;
pub mod whose;
pub mod wire;
pub mod words;
mod worker;
pub mod writer;
