//! What a right server does: the reactor on simulated devices, and a client that knows the rules,
//! over real sockets.
//!
//! One test binary: `support` is compiled once, and what no test uses is found by the compiler.
//! Tests that need a process of their own are binaries of their own, and say why.

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
