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
use std::thread;

use log::{error, info, warn};
use signal_hook::consts::SIGHUP;

use super::CommandError;
use super::serve::warn_of_programs;
use crate::config::{Listen, Settings};
use crate::reactor::{ReloadHandle, Reloaded, StopHandle};

/// The terminal that controls this process, if there is one.
const TERMINAL: &str = "/dev/tty";

/// Reads the settings again.
pub(super) type Reader = Box<dyn FnMut() -> Result<Settings, CommandError> + Send>;

/// What hangups do.
pub(super) struct Hangups {
    /// Stops the server with its terminal.
    pub(super) stop: StopHandle,
    /// Gives the server other settings.
    pub(super) reload: ReloadHandle,
    /// The file of the present settings, if there is one.
    pub(super) file: Option<Arc<str>>,
    /// Reads the settings again.
    pub(super) read: Reader,
}

impl Hangups {
    /// Has a thread follow hangups from now on.
    ///
    /// # Errors
    /// The system refuses the signal, or has no descriptor or thread left.
    pub(super) fn follow(mut self) -> io::Result<()> {
        let heeds_terminal = !usbferry_sys::os::signal::is_ignored(SIGHUP) && has_terminal();
        let (mut hangups, sender) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGHUP, sender)?;
        thread::Builder::new().name("hangups".to_owned()).spawn(move || {
            // Several hangups in a row are one.
            while let Ok(1..) = hangups.read(&mut [0; 64]) {
                if heeds_terminal && !has_terminal() {
                    info!("the terminal has closed");
                    return self.stop.stop();
                }
                self.reload();
            }
        })?;
        Ok(())
    }

    /// Reads the settings again. A wrong file changes nothing, and neither does a file that is gone:
    /// it may be about to be replaced, and its clients would lose their devices.
    fn reload(&mut self) {
        match ((self.read)(), &self.file) {
            (Ok(settings), file) if settings.file.is_none() => match file {
                Some(file) => error!("{file}: there is no such file any more. {UNCHANGED}"),
                None => info!("SIGHUP: there is no file of settings to read again (see --config)"),
            },
            (Ok(settings), _) => {
                self.file = settings.file.clone();
                warn_of_programs(&settings);
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
