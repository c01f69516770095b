//! `usbferry attach --persist`: attaches a device again whenever the device, the server or the
//! network was away.
//!
//! When the next try is:
//!
//! - after an attachment of a second or more: at once;
//! - after a shorter attachment, or where the server can't be reached: after the next wait, counted
//!   from the last try. The waits are 100 ms at first, then twice as long each time, up to 2 s;
//! - where the server refuses and knows of watches: as soon as the server says that the device is
//!   free. For a device in use also every 5 s, since the other client may be this one's dead
//!   connection, which the server only looks at for an import;
//! - where the server refuses and knows of no watches: every 2 s.
//!
//! A server that was found by a look at the network is looked for again, by its announced name: the
//! server's machine may have another address now. A look takes as long as the longest wait. So the
//! first tries after a loss, which are for a server that just starts again, go without a look;
//! before each later try there is a look. A server that refuses may be another server that has got
//! the address: there a look is every 30 s.
//!
//! The command ends with the signal to stop, and then detaches the device; when another program has
//! detached the device (the note of the port is gone, see [`crate::vhci`]); and when `vhci_hcd` is
//! gone or refuses.
//!
//! Contract: *blocks* until the end.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::backoff::Backoff;
use super::wait::{Awaited, Stop, Woken};
use super::{AttachError, Attached, attach_once, tell};
use crate::cli::Wanted;
use crate::client::{ClientError, Server, Trouble, Watch};
use crate::commands::CommandError;
use crate::limits::{
    ASK_INTERVAL, ATTACHED_WELL, BUSY_INTERVAL, PORT_FREE_TIMEOUT, SEARCH_TIME, SEEK_INTERVAL,
    WATCH_PROBE_INTERVAL,
};
use crate::vhci::{State, Vhci};
use crate::wire::op::Refusal;

/// The interval of looks at a port that is about to be free: the kernel needs some milliseconds.
const PORT_FREE_INTERVAL: Duration = Duration::from_millis(10);

/// Looks for the server again, if it was found by a look. *Blocks.*
pub(super) type Again<'a> = &'a dyn Fn() -> Option<Server>;

/// Keeps a device attached.
pub(super) struct Keeper<'a> {
    vhci: &'a Vhci,
    wanted: Wanted,
    again: Option<Again<'a>>,
    /// The time of the last look, or of the last attachment's end.
    pub(super) sought: Instant,
    stop: Stop,
    backoff: Backoff,
    /// The begin of the last try.
    tried: Instant,
    /// What is known of the server's watches.
    watches: Watches,
    /// The last words about the wait for the device: the same again go to the debug log.
    said: String,
}

/// Whether a server knows of watches.
enum Watches {
    /// Nobody has asked.
    Unknown,
    /// Yes: a failure now is the server's or the network's trouble.
    Known,
    /// No, not before this time.
    NotBefore(Instant),
}

/// How the wait for something ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Try again.
    Try,
    /// End the command.
    End,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        vhci: &'a Vhci,
        wanted: Wanted,
        again: Option<Again<'a>>,
        stop: Stop,
    ) -> Self {
        Self {
            vhci,
            wanted,
            again,
            sought: Instant::now(),
            stop,
            backoff: Backoff::default(),
            tried: Instant::now(),
            watches: Watches::Unknown,
            said: String::new(),
        }
    }

    /// Keeps the device attached until the end.
    ///
    /// # Errors
    /// `vhci_hcd` is gone or refuses, or the system can't wait.
    pub(super) fn run(mut self) -> Result<(), CommandError> {
        loop {
            self.stop.set_idle(true);
            self.tried = Instant::now();
            let stop = &self.stop;
            let next = match attach_once(self.vhci, &self.wanted, || stop.set_idle(false)) {
                Ok(attached) => self.hold(&attached)?,
                Err(AttachError::Client(error)) => {
                    self.await_server(&error).map_err(CommandError::Wait)?
                }
                Err(error @ AttachError::Vhci(_)) => return Err(error.into()),
            };
            if next == Next::End {
                return Ok(());
            }
        }
    }

    /// Waits for the end of an attachment.
    fn hold(&mut self, attached: &Attached) -> Result<Next, CommandError> {
        attached.tell(&self.wanted)?;
        self.said.clear();
        let woken = self.stop.wait(Awaited::End(attached.socket.as_fd()), None);
        if woken.map_err(CommandError::Wait)? == Woken::Stop {
            return self.detach(attached.port);
        }
        self.ended(attached)
    }

    /// Detaches the device, as wanted by a person.
    fn detach(&self, port: u32) -> Result<Next, CommandError> {
        match self.vhci.detach(port) {
            Ok(()) => info!("{}: detached from port {port}", self.device()),
            // The end came first.
            Err(error) => debug!("port {port}: {error}"),
        }
        tell(&self.wanted, "detached", port)?;
        Ok(Next::End)
    }

    /// The attachment has ended: by another program's wish, or by a loss.
    fn ended(&mut self, attached: &Attached) -> Result<Next, CommandError> {
        let port = attached.port;
        if attached.note.is_some() && self.vhci.origin(port) != attached.note {
            info!("{}: another program has detached port {port}", self.device());
            tell(&self.wanted, "detached", port)?;
            return Ok(Next::End);
        }
        self.vhci.forget(port);
        self.stop.set_idle(true);
        self.sought = Instant::now();
        let lasted = attached.since.elapsed();
        warn!("{}: lost from port {port} after {}", self.device(), in_seconds(lasted));
        tell(&self.wanted, "lost", port)?;
        if self.await_free(port)? == Next::End {
            return Ok(Next::End);
        }
        if lasted >= ATTACHED_WELL {
            self.backoff.reset();
            return Ok(Next::Try);
        }
        self.pause().map_err(CommandError::Wait)
    }

    /// Waits for the kernel to free the port, so that the device comes back to the same port. A
    /// port that stays in use for [`PORT_FREE_TIMEOUT`] is left to itself: there are others.
    fn await_free(&self, port: u32) -> Result<Next, CommandError> {
        let deadline = Instant::now() + PORT_FREE_TIMEOUT;
        while Instant::now() < deadline {
            let ports = self.vhci.ports().map_err(CommandError::Vhci)?;
            if ports.iter().any(|known| known.number == port && known.state == State::Free) {
                break;
            }
            if self.pause_for(PORT_FREE_INTERVAL).map_err(CommandError::Wait)? == Next::End {
                return Ok(Next::End);
            }
        }
        Ok(Next::Try)
    }

    /// Waits until another try may succeed.
    fn await_server(&mut self, error: &ClientError) -> io::Result<Next> {
        let Some(refusal) = error.refusal() else {
            return self.await_return(error);
        };
        self.say(format!("{error}; waiting for the device"));
        if self.sought.elapsed() >= SEEK_INTERVAL && self.seek() {
            return Ok(Next::Try);
        }
        match self.watches {
            Watches::NotBefore(time) if Instant::now() < time => self.pause_for(ASK_INTERVAL),
            _ => self.watch(refusal),
        }
    }

    /// Has the server tell when the device is free.
    fn watch(&mut self, refusal: Refusal) -> io::Result<Next> {
        match Watch::open(&self.wanted.server, self.wanted.name) {
            Ok(watch) => {
                self.watches = Watches::Known;
                self.follow(watch, refusal)
            }
            Err(error) if self.is_passing(&error) => self.await_return(&error),
            Err(error) => {
                debug!("no watch, but a question every {ASK_INTERVAL:?}: {error}");
                self.watches = Watches::NotBefore(Instant::now() + WATCH_PROBE_INTERVAL);
                self.pause_for(ASK_INTERVAL)
            }
        }
    }

    /// Whether a failed watch says nothing about the server's knowledge of watches.
    const fn is_passing(&self, error: &ClientError) -> bool {
        let is_known = matches!(self.watches, Watches::Known);
        let is_away = matches!(
            error.trouble,
            Trouble::Unknown(_) | Trouble::NoAddress | Trouble::Unreachable(_)
        );
        is_known || is_away
    }

    /// Reads news until the device is free.
    fn follow(&mut self, mut watch: Watch, refusal: Refusal) -> io::Result<Next> {
        // The first news may be older than the refusal, which counts more.
        let mut is_refused = false;
        let time = match refusal {
            Refusal::BUSY => Some(BUSY_INTERVAL),
            _ => self.again.map(|_| SEEK_INTERVAL),
        };
        loop {
            match self.stop.wait(Awaited::Bytes(watch.as_fd()), time)? {
                Woken::Stop => return Ok(Next::End),
                Woken::Late => return Ok(Next::Try),
                Woken::Event => {}
            }
            match watch.news() {
                Ok(None) => {}
                Ok(Some(Ok(()))) if is_refused => return Ok(Next::Try),
                Ok(Some(Ok(()))) => return self.pause(),
                Ok(Some(Err(news))) => {
                    is_refused = true;
                    debug!("{}: {news}", self.device());
                }
                Err(trouble) => {
                    debug!("{}: the watch has ended: {trouble:?}", self.device());
                    return self.pause();
                }
            }
        }
    }

    /// Waits for a server that can't be reached, and looks for the server unless the next try is
    /// due before a look would end.
    fn await_return(&mut self, error: &ClientError) -> io::Result<Next> {
        self.say(error.to_string());
        let wait = self.backoff.next();
        if wait.max(self.tried.elapsed()) >= SEARCH_TIME {
            self.seek();
        }
        self.pause_for(wait.saturating_sub(self.tried.elapsed()))
    }

    /// Looks for the server, and returns whether the server is at another address now. Nothing is
    /// attached, so the signal to stop ends the process meanwhile.
    fn seek(&mut self) -> bool {
        let found = self.again.and_then(|again| again());
        self.sought = Instant::now();
        let Some(server) = found.filter(|server| *server != self.wanted.server) else {
            return false;
        };
        info!("{}: the server is at {server} now", self.device());
        self.wanted.server = server;
        self.watches = Watches::Unknown;
        true
    }

    /// Waits before the next try, longer each time. The wait counts from the begin of the last try,
    /// since a connect in vain may have taken seconds.
    fn pause(&mut self) -> io::Result<Next> {
        let time = self.backoff.next().saturating_sub(self.tried.elapsed());
        self.pause_for(time)
    }

    fn pause_for(&self, time: Duration) -> io::Result<Next> {
        match self.stop.wait(Awaited::Nothing, Some(time))? {
            Woken::Stop => Ok(Next::End),
            Woken::Late | Woken::Event => Ok(Next::Try),
        }
    }

    /// Says why there is a wait, once for each reason.
    fn say(&mut self, words: String) {
        if self.said == words {
            debug!("{}: {words}", self.device());
        } else {
            info!("{}: {words}", self.device());
            self.said = words;
        }
    }

    fn device(&self) -> String {
        format!("{} of {}", self.wanted.name, self.wanted.server)
    }
}

/// A time in words for the log.
fn in_seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
