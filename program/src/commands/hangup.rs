//! SIGHUP: the settings are read again; at the end of its terminal the server stops.
//!
//! A hangup has two senders. An administrator, a service manager or a script sends a hangup to have
//! the settings read again. The kernel and the shell send a hangup when the terminal closes, and a
//! server with nobody to stop it would keep its devices. The two are told apart by the controlling
//! terminal, which the kernel takes away before it sends the signal (`__tty_hangup` of
//! `drivers/tty/tty_io.c`): a server that had a terminal and has none any more stops. A server that
//! was started without a terminal, by a service manager, in a container or by `setsid`, or with
//! hangups ignored, by `nohup`, never stops for a hangup.
//!
//! Contract: a thread of its own reads the settings, and may sleep; the signal handler writes a
//! byte.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use log::{error, info, warn};
use signal_hook::consts::SIGHUP;

use super::CommandError;
use super::serve::warn_of_rules;
use crate::config::{Http, Listen, OperatorSocket, Settings};
use crate::reactor::{ReloadHandle, Reloaded, StopHandle};
use crate::service::notify::{Manager, Message};
use crate::threads;
use crate::web::Access;
use crate::words::reason;

/// The terminal that controls this process, if there is one.
const TERMINAL: &str = "/dev/tty";

/// Reads the settings again.
pub(super) type Reader = Box<dyn FnMut() -> Result<Settings, CommandError> + Send>;

/// Hangups caught since the start of the program, before there is a server.
pub(super) struct Caught {
    hangups: UnixStream,
    /// The server stops with its terminal.
    heeds_terminal: bool,
}

/// What hangups do to a server.
pub(super) struct Hangups {
    /// Stops the server with its terminal.
    pub(super) stop: StopHandle,
    /// Gives the server other settings.
    pub(super) reload: ReloadHandle,
    /// The file of the present settings, if there is one.
    pub(super) file: Option<Arc<str>>,
    /// The socket of operators, which stays as it is.
    pub(super) operators: OperatorSocket,
    /// The web server, which stays where it is, and admits the clients of the new settings.
    pub(super) http: (Http, Option<Access>),
    /// Whether the server is announced, which stays as it is.
    pub(super) advertise: bool,
    /// Reads the settings again.
    pub(super) read: Reader,
    /// The service manager, which is told of each reading.
    pub(super) manager: Option<Manager>,
}

impl Caught {
    /// Keeps hangups from now on, for [`Self::follow`]. To be called before anything that may
    /// block: a hangup during the start of the server would end the program, or be lost after the
    /// file was read.
    ///
    /// # Errors
    /// The system refuses the signal, or has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let heeds_terminal = !usbferry_sys::os::signal::is_ignored(SIGHUP) && has_terminal();
        let (hangups, sender) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGHUP, sender)?;
        Ok(Self { hangups, heeds_terminal })
    }

    /// Has a thread follow hangups, those caught before included.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn follow(mut self, mut server: Hangups) -> io::Result<()> {
        threads::start("hangups", move || {
            loop {
                // Several hangups in a row are one.
                match self.hangups.read(&mut [0; 64]) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return error!("hangups are no longer heard: {}", reason(&error)),
                }
                if self.heeds_terminal && !has_terminal() {
                    info!("the terminal has closed");
                    return server.stop.stop();
                }
                server.tell(Message::Reloading);
                server.reload();
                server.tell(Message::Ready);
            }
        })?;
        Ok(())
    }
}

impl Hangups {
    fn tell(&self, message: Message<'_>) {
        let told = self.manager.as_ref().map(|manager| manager.send(message));
        if let Some(Err(error)) = told {
            warn!("the service manager does not hear of the reload: {}", reason(&error));
        }
    }

    /// Reads the settings again. A wrong file changes nothing, and neither does a file that is
    /// gone: it may be about to be replaced, and its clients would lose their devices.
    fn reload(&mut self) {
        match ((self.read)(), &self.file) {
            (Ok(settings), file) if settings.file.is_none() => match file {
                Some(file) => error!("{file}: there is no such file any more. {UNCHANGED}"),
                None => info!("SIGHUP: there is no file of settings to read again (see --config)"),
            },
            (Ok(settings), _) => {
                self.file = settings.file.clone();
                warn_of_rules(&settings);
                if settings.operators != self.operators {
                    warn!("the socket of operators stays as it is: another would need a restart");
                }
                if settings.http != self.http.0 {
                    warn!("the web server stays as it is: another --http would need a restart");
                }
                if settings.advertise != self.advertise {
                    warn!(
                        "announcements stay as they are: another --advertise would need a restart"
                    );
                }
                if let Some(access) = &self.http.1 {
                    access.change(settings.allowed.clone());
                }
                let listen = settings.listen.clone();
                let reloaded = self.reload.reload(settings);
                reloaded.into_iter().for_each(|reloaded| tell(reloaded, &listen));
            }
            (Err(error), _) => error!("{error}. {UNCHANGED}"),
        }
    }
}

/// What a wrong file changes.
const UNCHANGED: &str = "The settings stay as they were";

/// `listen` are the addresses that the settings name, or the usual addresses.
fn tell(reloaded: Reloaded, listen: &[Listen]) {
    let Reloaded { kept, ended, needs_restart } = reloaded;
    let (sessions, go) = if kept == 1 { ("session", "goes") } else { ("sessions", "go") };
    let end = if ended == 1 { "ends" } else { "end" };
    info!("the settings were read again; {kept} {sessions} {go} on, {ended} {end}");
    if needs_restart {
        let listen: Vec<String> = listen.iter().map(|at| at.address.to_string()).collect();
        warn!("usbferry listens where it did before: {} would need a restart", listen.join(", "));
    }
}

/// Whether a terminal controls this process.
fn has_terminal() -> bool {
    File::open(TERMINAL).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::config::Listen;
    use crate::reactor::Reactor;
    use crate::usb::sim::SimBackend;
    use crate::usb::sim::bus::SimBus;

    /// Long enough for any machine.
    const DEADLINE: Duration = Duration::from_secs(60);

    #[test]
    fn a_hangup_before_there_is_a_server_has_the_file_read_once_there_is() {
        let caught = Caught::new().unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        let listen = Listen { address: ([127, 0, 0, 1], 0).into(), optional: false };
        let settings = Settings { listen: vec![listen], ..Settings::default() };
        let reactor = Reactor::new(SimBackend::new(SimBus::with(&[])), settings).unwrap();
        let (sender, reads) = channel();
        let read: Reader = Box::new(move || {
            sender.send(()).unwrap();
            Ok(Settings::default())
        });
        let (stop, reload) = (reactor.stop_handle().unwrap(), reactor.reload_handle());
        let (operators, http) = (OperatorSocket::default(), (Http::default(), None));
        let advertise = false;
        let server =
            Hangups { stop, reload, file: None, operators, http, advertise, read, manager: None };
        caught.follow(server).unwrap();
        assert_eq!(reads.recv_timeout(DEADLINE), Ok(()));
    }
}
