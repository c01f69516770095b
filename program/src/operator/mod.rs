//! The socket of operators: a person or a program on the server's machine asks for the state of the
//! server. An *operator* is whoever may write to the socket, by the socket's mode.
//!
//! - `protocol`: requests and answers, a line of JSON each (docs/status.md), and `reading` them;
//! - `lines`: lines of bounded length within a bounded time; `descriptors`: files beside a line;
//! - `socket`: the socket in the file system, which one living server has;
//! - `desk`: the threads of a server that answer;
//! - `client`: the other end.
//!
//! Contract: nothing here runs on the reactor. Threads of a desk ask the reactor through
//! [`StatusHandle`](crate::reactor::StatusHandle), and wait for the answer.

pub mod client;
mod descriptors;
mod desk;
mod lines;
pub mod protocol;
mod reading;
mod socket;

use std::path::PathBuf;

pub use desk::{Desk, DeskError, Handles};
pub use lines::LineError;
pub use socket::BindError;

use crate::runtime;

/// The name of the socket in its usual directories.
const SOCKET_NAME: &str = "usbferry.sock";

/// The usual places of the socket, the best first.
fn usual_places() -> impl Iterator<Item = PathBuf> {
    runtime::directories().map(|directory| directory.join(SOCKET_NAME))
}
