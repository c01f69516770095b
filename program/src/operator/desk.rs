//! The desk of a server, at which operators ask: a thread that accepts operators, and a thread for
//! each operator.
//!
//! Contract: threads of their own, which block for their operator or for the reactor's answer, each
//! for a bounded time; at most [`OPERATORS_MAX`] operators at once. A panic costs an operator the
//! connection.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::debug;
use mio::net::UnixListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::lines::{LineError, Lines};
use super::protocol::{Answer, Asked, CaptureStartedReport, Problem, Reason, Request, Said};
use super::socket::{BindError, Bound};
use super::usual_places;
use crate::capture::PassedFiles;
use crate::caught::caught;
use crate::config::socket::SocketPlace;
use crate::config::{Capturing, OperatorSocket};
use crate::limits::{
    CAPTURE_DATA_MAX, CAPTURE_SIZE_MIN, FOLLOWER_TIMEOUT, FOLLOWERS_END_TIMEOUT, FOLLOWERS_MAX,
    OPERATOR_REQUEST_LEN_MAX, OPERATOR_TIMEOUT, OPERATORS_MAX, SNAP_LEN_DEFAULT,
};
use crate::reactor::{CaptureOrder, Disobeyed, Followed, OperatorHandle, StatusHandle, Told};
use crate::report::{CaptureReport, EventReport, Report};
use crate::status::ServerStatus;
use crate::threads;
use crate::words::reason;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);

/// Operators accepted at once, so that a flood of operators does not keep the desk open.
const ACCEPTS: usize = 16;

/// Rest of the listener when an operator can't be accepted, for want of a descriptor.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// The interval of looks whether a follower is still there, while nothing happens.
const FOLLOWER_LOOK: Duration = Duration::from_secs(1);

/// The interval of looks whether the last followers have taken the last events.
const FOLLOWERS_END_LOOK: Duration = Duration::from_millis(2);

/// The mode of a directory made for the socket: the socket's own mode says who may ask.
const DIRECTORY_MODE: u32 = 0o755;

/// What a desk knows of its server.
#[derive(Clone, Debug)]
pub struct Handles {
    /// Asks the reactor for its state.
    pub status: StatusHandle,
    /// Gives the reactor orders.
    pub operator: OperatorHandle,
    /// What does not change.
    pub server: ServerStatus,
}

/// The desk of a server. Dropped, the desk is closed and the socket gone; operators whose answer is
/// on its way still get the answer.
#[derive(Debug)]
pub struct Desk {
    path: PathBuf,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    /// Operators that follow events.
    followers: Count,
}

/// Why a server has no desk.
#[derive(Debug)]
pub enum DeskError {
    /// The socket can't be made at its path.
    Bind(BindError),
    /// No usual directory can be made or written to.
    NoDirectory,
    /// The system has no thread or descriptor.
    System(io::Error),
}

impl std::error::Error for DeskError {}

impl fmt::Display for DeskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::NoDirectory => f.write_str(
                "no usual directory for the socket of operators can be made or written to; \
                 --socket PATH gives a path",
            ),
            Self::System(error) => {
                write!(f, "the system has no room for the socket of operators: {}", reason(error))
            }
        }
    }
}

impl Desk {
    /// Opens a desk; `None` where the settings want none.
    ///
    /// # Errors
    /// The socket can't be made, or the system has no thread left.
    pub fn open(socket: &OperatorSocket, handles: Handles) -> Result<Option<Self>, DeskError> {
        let bound = match &socket.place {
            SocketPlace::None => return Ok(None),
            SocketPlace::At(path) => Bound::new(path, socket.mode).map_err(DeskError::Bind)?,
            SocketPlace::Usual => bind_usual(socket.mode)?,
        };
        Self::serve(bound, handles).map(Some).map_err(DeskError::System)
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn serve((bound, listener): (Bound, StdListener), handles: Handles) -> io::Result<Self> {
        let path = bound.path().to_owned();
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        // Here, so that the thread allocates nothing before an operator comes: each thread that
        // does has a part of the address space of its own.
        let events = Events::with_capacity(2);
        let followers = Count::default();
        let reception =
            Reception { handles, seated: Count::default(), followers: Arc::clone(&followers) };
        let accept = move || {
            reception.accept_all(poll, events, &listener);
            drop(bound);
        };
        let thread = threads::start("operators", accept)?;
        Ok(Self { path, waker, thread: Some(thread), followers })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if self.waker.wake().is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A panic there has its line in the log.
            let _ = thread.join();
        }
        // The last events of a server that has ended are on their way.
        let deadline = Instant::now() + FOLLOWERS_END_TIMEOUT;
        while self.followers.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            thread::sleep(FOLLOWERS_END_LOOK);
        }
    }
}

/// A socket in the first usual directory that can be written to. A living server's socket is no
/// reason to go on: nobody would look for a second server elsewhere.
fn bind_usual(mode: u32) -> Result<(Bound, StdListener), DeskError> {
    for path in usual_places() {
        if let Some(directory) = path.parent() {
            let _ = DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
        }
        match Bound::new(&path, mode) {
            Ok(bound) => return Ok(bound),
            Err(BindError::Failed(_, error)) => debug!("{}: {error}", path.display()),
            Err(error) => return Err(DeskError::Bind(error)),
        }
    }
    Err(DeskError::NoDirectory)
}

/// The thread that accepts operators.
struct Reception {
    handles: Handles,
    /// Operators with a thread.
    seated: Count,
    /// Operators that follow events.
    followers: Count,
}

impl Reception {
    /// Accepts operators until woken.
    fn accept_all(&self, mut poll: Poll, mut events: Events, listener: &UnixListener) {
        let mut rest = None;
        loop {
            match poll.poll(&mut events, rest) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return log::error!("operators are no longer heard: {}", reason(&error));
                }
                _ => {}
            }
            if events.iter().any(|event| event.token() == WAKER) {
                return;
            }
            rest = self.accept_waiting(listener).unwrap_or(Some(ACCEPT_REST));
        }
    }

    /// Accepts a turn's worth of the operators that wait. Returns the rest before the next attempt,
    /// unless all were accepted: the system does not tell of an operator a second time.
    fn accept_waiting(&self, listener: &UnixListener) -> io::Result<Option<Duration>> {
        for _ in 0..ACCEPTS {
            match listener.accept() {
                Ok((stream, _)) => {
                    let stream = UnixStream::from(OwnedFd::from(stream));
                    stream.set_nonblocking(false)?;
                    self.seat(stream);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Duration::ZERO))
    }

    /// Gives an operator a thread, if there is room for one more operator.
    fn seat(&self, stream: UnixStream) {
        let seat = Seat::take(&self.seated);
        let mut lines = Lines::new(stream, OPERATOR_REQUEST_LEN_MAX, OPERATOR_TIMEOUT);
        let Some(seat) = seat else {
            let message = format!("{OPERATORS_MAX} operators ask, the limit; try again later");
            return lines.write_at_once(&refusal(Reason::Busy, message));
        };
        let (handles, followers) = (self.handles.clone(), Arc::clone(&self.followers));
        let converse = move || {
            let _seat = seat;
            caught("an operator's request", || Conversation { lines, handles, followers }.hold());
        };
        if let Err(error) = threads::start("operator", converse) {
            debug!("no thread for an operator: {error}");
        }
    }
}

/// A number of operators.
type Count = Arc<AtomicUsize>;

/// The place of an operator among [`OPERATORS_MAX`], until dropped.
struct Seat(Count);

impl Seat {
    fn take(seated: &Count) -> Option<Self> {
        let more = |count| (count < OPERATORS_MAX).then_some(count + 1);
        let taken = seated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.ok().map(|_| Self(Arc::clone(seated)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An operator, and the answers to its requests.
struct Conversation {
    lines: Lines,
    handles: Handles,
    /// Operators that follow events.
    followers: Count,
}

impl Conversation {
    /// Answers requests until the operator leaves, or does not follow the rules.
    fn hold(mut self) {
        if let Err(error) = self.answer_all() {
            if let LineError::TooLong(most) = error {
                let message = format!("a request has at most {most} bytes");
                let _ = self.lines.write(&refusal(Reason::Request, message));
            }
            debug!("an operator's connection ends: the operator {error}");
        }
    }

    fn answer_all(&mut self) -> Result<(), LineError> {
        loop {
            let line = self.lines.read()?;
            let said = match Request::read(&line).map(|request| request.asked) {
                Ok(Asked::Status) => self.status(),
                Ok(Asked::Disconnect { target, hold }) => {
                    let result = self.handles.operator.disconnect(&target, hold);
                    said_of(result, &target, |obeyed| Said::Disconnected(obeyed.into()))
                }
                Ok(Asked::Release { device }) => {
                    let result = self.handles.operator.release(&device);
                    said_of(result, &device, |obeyed| Said::Released(obeyed.names))
                }
                Ok(Asked::CaptureStart { file, device, size, snaplen, empty }) => {
                    let snap_len = snaplen.unwrap_or(SNAP_LEN_DEFAULT);
                    let wanted = Capturing { path: file.into(), size, snap_len };
                    let files = self.lines.take_files();
                    let passed = PassedFiles { files, are_emptied: empty };
                    self.start_capture(CaptureOrder { wanted, passed, device })
                }
                Ok(Asked::CaptureStop { file }) => self.stop_capture(file.as_deref()),
                Ok(Asked::Events) => match self.handles.operator.events() {
                    Some(Some(followed)) => return self.follow(&followed),
                    Some(None) => too_many_followers(),
                    None => ended(),
                },
                Err(problem) => problem.into(),
            };
            self.lines.write(&Answer::new(said))?;
        }
    }

    /// Tells the operator of events, until the operator leaves or the server ends.
    fn follow(&mut self, followed: &Followed) -> Result<(), LineError> {
        let _seat = Seat::take(&self.followers);
        self.lines.set_timeout(FOLLOWER_TIMEOUT);
        self.tell(EventReport::begin())?;
        loop {
            match followed.next(FOLLOWER_LOOK) {
                Told::Event(event) => self.tell(EventReport::new(&event))?,
                Told::Missed(count) => self.tell(EventReport::missed(count))?,
                Told::Nothing if self.lines.is_left() => return Err(LineError::Closed),
                Told::Nothing => {}
                Told::End => return self.tell(EventReport::end()),
            }
        }
    }

    fn tell(&mut self, report: EventReport) -> Result<(), LineError> {
        self.lines.write(&Answer::new(Said::Event(Box::new(report))))
    }

    fn start_capture(&self, order: CaptureOrder) -> Said {
        let Capturing { path, size, snap_len } = &order.wanted;
        let is_fit = size.is_none_or(|size| size >= CAPTURE_SIZE_MIN as u64);
        if !is_fit || *snap_len > CAPTURE_DATA_MAX {
            let message = format!(
                "a capture has a size of at least {CAPTURE_SIZE_MIN} bytes, and at most \
                 {CAPTURE_DATA_MAX} bytes of data of a URB"
            );
            return Problem { reason: Reason::Request, message }.into();
        }
        let file = path.display().to_string();
        let device = order.device.clone().unwrap_or_default();
        let result = self.handles.operator.start_capture(order);
        said_of(result, &device, |obeyed| {
            Said::CaptureStarted(CaptureStartedReport::new(file, obeyed))
        })
    }

    fn stop_capture(&self, file: Option<&str>) -> Said {
        let result = self.handles.operator.stop_capture(file);
        said_of(result, file.unwrap_or_default(), |status| {
            Said::CaptureStopped(Box::new(CaptureReport::new(&status)))
        })
    }

    fn status(&self) -> Said {
        match self.handles.status.snapshot() {
            Some(snapshot) => Said::Status(Box::new(Report::new(&self.handles.server, &snapshot))),
            None => ended(),
        }
    }
}

/// The answer to an order about `target`.
fn said_of<T>(
    result: Option<Result<T, Disobeyed>>,
    target: &str,
    done: impl FnOnce(T) -> Said,
) -> Said {
    match result {
        Some(Ok(obeyed)) => done(obeyed),
        Some(Err(disobeyed)) => Problem::of(&disobeyed, target).into(),
        None => ended(),
    }
}

fn too_many_followers() -> Said {
    let message = format!("{FOLLOWERS_MAX} operators follow events, the limit; try again later");
    Problem { reason: Reason::Busy, message }.into()
}

fn ended() -> Said {
    let message = "the server is about to end".to_owned();
    Problem { reason: Reason::Ended, message }.into()
}

fn refusal(reason: Reason, message: String) -> Answer {
    Answer::new(Problem { reason, message }.into())
}
