//! The program: every part of usbferry that no URB passes, compiled to be small. The page of the
//! crate `usbferry` is the map of both.

#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod commands;
pub mod discovery;
pub mod doctor;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod logging;
mod names;
pub mod operator;
mod programs;
pub mod report;
#[cfg(target_os = "linux")]
pub mod vhci;
pub mod web;

// The server's parts have the same paths here as there.
use usbferry::{
    capture, caught, channel, complaints, config, limits, reactor, runtime, server, service,
    sockets, sorted, stats, status, threads, units, usb, usbmon, whose, wire, words, writer,
};
