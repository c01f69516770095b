//! Asks a server for its state each second, also a server that comes back.
//!
//! Contract: a thread of its own *blocks* for the answers, so that keys are heard meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::channel::{Receiver, channel};
use crate::operator::client::{Operator, OperatorError};
use crate::report::Report;
use crate::threads;

/// The time between an answer and the next question: a person reads no faster.
const INTERVAL: Duration = Duration::from_secs(1);

/// An answer of the server, and its time.
pub(super) type News = (Result<Report, OperatorError>, Instant);

/// A server's socket, and the connection as long as the server answers.
pub(super) struct Asker {
    socket: Option<PathBuf>,
    operator: Option<Operator>,
}

impl Asker {
    /// Asks the server of a socket, or of the first usual place with a living server.
    pub(super) fn new(socket: Option<&Path>) -> Self {
        Self { socket: socket.map(Path::to_owned), operator: None }
    }

    /// Asks once, over a new connection if the last connection is of no more use.
    ///
    /// # Errors
    /// No server answers.
    pub(super) fn ask(&mut self) -> Result<Report, OperatorError> {
        if let Some(operator) = &mut self.operator
            && let Ok(report) = operator.status()
        {
            return Ok(report);
        }
        self.operator = None;
        let mut operator = Operator::connect(self.socket.as_deref())?;
        let report = operator.status()?;
        self.operator = Some(operator);
        Ok(report)
    }

    /// Asks each second until nobody receives the answers any more.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(super) fn start(mut self) -> io::Result<Receiver<News>> {
        let (sender, receiver) = channel(1);
        let ask = move || {
            loop {
                thread::sleep(INTERVAL);
                if sender.send((self.ask(), Instant::now())).is_err() {
                    return;
                }
            }
        };
        threads::start("asker", ask)?;
        Ok(receiver)
    }
}
