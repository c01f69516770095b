//! The behaviour of a correct server: the reactor on simulated devices, and a client that knows the
//! rules, over real sockets.
//!
//! A single test binary: `support` is compiled once, and the compiler finds its unused parts. Tests
//! that need a process of their own are separate binaries, each with its reason.
//!
//! | module | shows |
//! | --- | --- |
//! | `handshake` | DEVLIST and IMPORT: the records, the refusals, invalid and incomplete requests |
//! | `control` | control transfers, their SETUP packets and limits |
//! | `submit` | bulk and interrupt URBs: echoed fields, flags, errors, memory, order, seqnums |
//! | `isochronous` | isochronous URBs: packets, results of packets, impossible packets |
//! | `packets` | stray values in number_of_packets of URBs without packets |
//! | `special` | requests performed by the host, as barriers between URBs |
//! | `unlink` | the race of SUBMIT and UNLINK, with URBs in flight, waiting, and ended |
//! | `hostile` | clients that break the rules, vanish, or do not read |
//! | `lifecycle` | clients that leave, devices that are unplugged, a server that stops |
//! | `hooks` | programs that events start, and imports that wait for a program's answer |
//! | `peers` | clients in each other's way: take-over, stalled clients, a full server |
//! | `capture` | the capture of all URBs, as tshark reads the file; captures by operators |
//! | `replay` | the client's side of a recording, played against servers |
//! | `names` | names, kinds and serial numbers in lists and imports; devices hidden from clients |
//! | `watches` | clients that are told of a device |
//! | `operators` | the socket of operators: the state of the server |
//! | `orders` | orders of operators: sessions that end, devices that are held back |
//! | `web` | the web server: the page, metrics, health, and abusers of each |
//! | `events` | events, as an operator follows them |
//! | `top` | the state of a server, live in a terminal |
//! | `simulation` | random traffic of a correct client, from fixed seeds |
//!
//! Simulated devices cannot show everything. Elsewhere are
//! - the records of DEVLIST for devices with interfaces out of order or of other speeds:
//!   `src/usb/libusb/found.rs`;
//! - usbfs without memory, kernel drivers, odd descriptors: `tests/libusb`;
//! - bounded memory, since an attached device allocates nothing: `tests/no_alloc.rs`;
//! - PDUs in parts: `tests/parts.rs`, and the program's command line: `tests/cli.rs`;
//! - data toggles, lost packets and real kernels: `tests/vm`.

mod capture;
mod control;
mod events;
mod handshake;
mod hooks;
mod hostile;
mod isochronous;
mod lifecycle;
mod names;
mod operators;
mod orders;
mod packets;
mod peers;
mod replay;
mod simulation;
mod special;
mod submit;
#[path = "../support/mod.rs"]
mod support;
mod top;
mod unlink;
mod watches;
mod web;
