//! The behaviour of a correct server: the reactor on simulated devices, and a client that knows the
//! rules, over real sockets.
//!
//! A single test binary: `support` is compiled once, and the compiler finds its unused parts. Tests
//! that need a process of their own are separate binaries, each with its reason.

mod control;
mod handshake;
mod hostile;
mod isochronous;
mod lifecycle;
mod packets;
mod peers;
mod simulation;
mod special;
mod submit;
#[path = "../support/mod.rs"]
mod support;
mod unlink;
