//! The other end of a server's socket for operators: a command of this program asks a server on
//! this machine.
//!
//! Contract: *blocks* for an answer, for [`OPERATOR_TIMEOUT`] at most each time.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::lines::{LineError, Lines};
use super::protocol::{Asked, CaptureStartedReport, DisconnectedReport, Problem, Request, Said};
use super::{reading, usual_places};
use crate::capture::PassedFiles;
use crate::config::Capturing;
use crate::limits::{OPERATOR_ANSWER_LEN_MAX, OPERATOR_TIMEOUT};
use crate::report::reading::Unread;
use crate::report::{CaptureReport, EVENT_END, EventReport, Report};
use crate::words::reason;

/// The time for the next event, which may never come: a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A connection to a server, as an operator.
#[derive(Debug)]
pub struct Operator {
    lines: Lines,
    path: PathBuf,
}

/// Why a server did not do as asked.
#[derive(Debug)]
pub struct OperatorError {
    /// The socket, or the usual places without a socket.
    paths: Vec<PathBuf>,
    /// The reason.
    pub trouble: Trouble,
}

/// Why a server did not do as asked.
#[derive(Debug)]
pub enum Trouble {
    /// There is no socket.
    Missing,
    /// The socket's server is dead.
    Dead,
    /// This user may not ask.
    Denied,
    /// The server can't be asked, for the system's reason.
    Unreachable(io::Error),
    /// The server does not answer.
    Silent(LineError),
    /// The answer is not understood.
    Unknown(Unread),
    /// The server refuses.
    Refused(Problem),
    /// The answer is another question's.
    Unfit,
}

impl std::error::Error for OperatorError {}

impl fmt::Display for OperatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let paths = paths.join(" or ");
        match &self.trouble {
            Trouble::Missing => write!(
                f,
                "no usbferry serves here: there is no socket {paths}. A server with another \
                 --socket is asked with the same --socket"
            ),
            Trouble::Dead => {
                write!(f, "{paths}: the server of this socket is not running any more")
            }
            Trouble::Denied => write!(
                f,
                "{paths}: this user may not ask the server: use sudo, or start the server with \
                 --socket-mode 666"
            ),
            Trouble::Unreachable(error) => {
                write!(f, "{paths}: the server can't be asked: {}", reason(error))
            }
            Trouble::Silent(error) => write!(f, "{paths}: the server {error}"),
            Trouble::Unknown(error) => {
                write!(f, "{paths}: the server's answer is not understood: {error}")
            }
            Trouble::Refused(problem) => write!(f, "{paths}: {}", problem.message),
            Trouble::Unfit => write!(f, "{paths}: the server answers another question"),
        }
    }
}

impl Operator {
    /// Connects to the server of a socket, or of the first usual place with a living server.
    ///
    /// # Errors
    /// No server can be asked.
    pub fn connect(socket: Option<&Path>) -> Result<Self, OperatorError> {
        let places: Vec<PathBuf> = match socket {
            Some(path) => vec![path.to_owned()],
            None => usual_places().collect(),
        };
        let mut worst: Option<OperatorError> = None;
        for path in &places {
            match connect(path) {
                Ok(lines) => return Ok(Self { lines, path: path.clone() }),
                Err(Trouble::Missing) => {}
                Err(trouble) => {
                    let error = || OperatorError { paths: vec![path.clone()], trouble };
                    worst.get_or_insert_with(error);
                }
            }
        }
        Err(worst.unwrap_or(OperatorError { paths: places, trouble: Trouble::Missing }))
    }

    /// Asks for the state of the server.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub fn status(&mut self) -> Result<Report, OperatorError> {
        match self.ask(Asked::Status)? {
            Said::Status(report) => Ok(*report),
            other => Err(self.unfit(other)),
        }
    }

    /// Ends the session with a device, or all sessions of a client; with `hold` the devices are
    /// held back.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub fn disconnect(
        &mut self,
        target: &str,
        hold: bool,
    ) -> Result<DisconnectedReport, OperatorError> {
        match self.ask(Asked::Disconnect { target: target.to_owned(), hold })? {
            Said::Disconnected(report) => Ok(report),
            other => Err(self.unfit(other)),
        }
    }

    /// Ends the holds of a device, and returns their names.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub fn release(&mut self, device: &str) -> Result<Vec<String>, OperatorError> {
        match self.ask(Asked::Release { device: device.to_owned() })? {
            Said::Released(names) => Ok(names),
            other => Err(self.unfit(other)),
        }
    }

    /// Begins a capture into opened files: a file or a stream, or with a size two files. The path
    /// is a name. The server leaves the files as they are until the capture begins.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub fn start_capture(
        &mut self,
        wanted: &Capturing,
        PassedFiles { files, are_emptied }: &PassedFiles,
        device: Option<&str>,
    ) -> Result<CaptureStartedReport, OperatorError> {
        let asked = Asked::CaptureStart {
            file: wanted.path.display().to_string(),
            device: device.map(ToOwned::to_owned),
            size: wanted.size,
            snaplen: Some(wanted.snap_len),
            empty: *are_emptied,
        };
        match self.ask_with(asked, files)? {
            Said::CaptureStarted(report) => Ok(report),
            other => Err(self.unfit(other)),
        }
    }

    /// Ends a capture by its name, or the only capture.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub fn stop_capture(&mut self, file: Option<String>) -> Result<CaptureReport, OperatorError> {
        match self.ask(Asked::CaptureStop { file })? {
            Said::CaptureStopped(report) => Ok(*report),
            other => Err(self.unfit(other)),
        }
    }

    /// Follows the events of the server. *Blocks* until the server or `hear` ends.
    ///
    /// # Errors
    /// The server does not answer, refuses, or is gone without an end.
    pub fn follow(
        mut self,
        mut hear: impl FnMut(EventReport) -> ControlFlow<()>,
    ) -> Result<(), OperatorError> {
        let mut said = self.ask(Asked::Events)?;
        self.lines.set_timeout(FOR_EVER);
        loop {
            let report = match said {
                Said::Event(report) => *report,
                other => return Err(self.unfit(other)),
            };
            let is_end = report.event == EVENT_END;
            if hear(report).is_break() || is_end {
                return Ok(());
            }
            said = self.answer()?;
        }
    }

    fn ask(&mut self, asked: Asked) -> Result<Said, OperatorError> {
        self.ask_with(asked, &[])
    }

    fn ask_with(&mut self, asked: Asked, files: &[File]) -> Result<Said, OperatorError> {
        match self.lines.write_with(&Request::new(asked), files) {
            Ok(()) => self.answer(),
            // A server with as many operators as may be says so and closes, before the request.
            Err(error @ LineError::Closed) => match self.answer() {
                Err(OperatorError { trouble: Trouble::Silent(_), .. }) => {
                    Err(self.error(Trouble::Silent(error)))
                }
                answer => answer,
            },
            Err(error) => Err(self.error(Trouble::Silent(error))),
        }
    }

    /// The next line of the server.
    fn answer(&mut self) -> Result<Said, OperatorError> {
        let answer = self.lines.read().map_err(|error| self.error(Trouble::Silent(error)))?;
        reading::said(&answer).map_err(|error| self.error(Trouble::Unknown(error)))
    }

    /// The error of an answer that has not what was asked for.
    fn unfit(&self, said: Said) -> OperatorError {
        self.error(match said {
            Said::Error(problem) => Trouble::Refused(problem),
            _ => Trouble::Unfit,
        })
    }

    fn error(&self, trouble: Trouble) -> OperatorError {
        OperatorError { paths: vec![self.path.clone()], trouble }
    }
}

fn connect(path: &Path) -> Result<Lines, Trouble> {
    let connected = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.connect_timeout(&SockAddr::unix(path)?, OPERATOR_TIMEOUT)?;
        Ok(UnixStream::from(OwnedFd::from(socket)))
    });
    match connected {
        Ok(stream) => Ok(Lines::new(stream, OPERATOR_ANSWER_LEN_MAX, OPERATOR_TIMEOUT)),
        Err(error) => Err(match error.kind() {
            io::ErrorKind::NotFound => Trouble::Missing,
            io::ErrorKind::ConnectionRefused => Trouble::Dead,
            io::ErrorKind::PermissionDenied => Trouble::Denied,
            _ => Trouble::Unreachable(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::super::protocol::{Answer, Reason};
    use super::*;

    #[test]
    fn a_refusal_before_the_request_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let message = "too many operators".to_owned();
        let problem = Problem { reason: Reason::Busy, message };
        let line = serde_json::to_string(&Answer::new(problem.clone().into())).unwrap() + "\n";
        for said in [&*line, ""] {
            let mut operator = Operator::connect(Some(&path)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(said.as_bytes()).unwrap();
            drop(server);
            let trouble = operator.status().unwrap_err().trouble;
            match said {
                "" => assert!(matches!(trouble, Trouble::Silent(LineError::Closed))),
                _ => assert!(matches!(trouble, Trouble::Refused(refused) if refused == problem)),
            }
        }
    }
}
