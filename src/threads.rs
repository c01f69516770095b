//! Starting threads: each start by std's own means is 2 KB of the program, and here once.
//!
//! Contract: any thread. Allocates; does not wait for the thread.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a name, of which the system shows 15 bytes.
///
/// # Errors
/// The system has no thread left.
pub fn start(
    name: impl Into<String>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    start_boxed(name.into(), Box::new(run))
}

fn start_boxed(name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(run)
}
