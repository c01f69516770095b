//! Other settings for a server in service.
//!
//! A client keeps its device where the new settings let the client have the device, with the
//! resources of the beginning; whether another client may take the device over is asked of the
//! device's rule of today. All other clients lose their devices in good order, as when the server
//! stops.
//! The addresses of the listeners, the number of connections, and the memory of present sessions
//! stay as they are.
//!
//! Contract: part of the reactor, so nothing here sleeps. [`ReloadHandle`] may be used by any
//! thread, and blocks its caller only.

use super::end::{End, Parting};
use super::hooks::Cause;
use super::questions::{Asker, Question};
use super::refusal::Refusal;
use super::token::Key;
use super::{Reactor, find};
use crate::config::Settings;
use crate::limits::DRAIN_TIMEOUT;
use crate::usb::Backend;

/// Gives a server other settings. Clones share the server.
#[derive(Clone, Debug)]
pub struct ReloadHandle(pub(super) Asker);

/// What has come of other settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reloaded {
    /// Sessions that go on.
    pub kept: usize,
    /// Sessions that end, because the new settings do not allow them.
    pub ended: usize,
    /// The settings name other addresses to listen on, which need a new start.
    pub needs_restart: bool,
}

impl ReloadHandle {
    /// Has the server follow other settings from now on; `None` when the server has ended. *Blocks*
    /// until the reactor has taken the settings over, in its next turns.
    #[must_use]
    pub fn reload(&self, settings: Settings) -> Option<Reloaded> {
        self.0.ask(|answer| Question::Reload(Box::new(settings), answer))
    }
}

impl<B: Backend> Reactor<B> {
    /// Takes over other settings.
    pub(super) fn reload(&mut self, settings: Settings) -> Reloaded {
        let needs_restart = settings.listen != self.settings.listen;
        let listen = std::mem::take(&mut self.settings.listen);
        let connections = self.settings.connections;
        self.settings = Settings { listen, connections, ..settings };
        self.spin.set_limit(self.settings.busy_poll);
        self.door.prepare(&self.settings);
        self.registry.rejudge(&self.settings);
        self.note_exports(Cause::Rules);
        if self.registry.is_filled() {
            self.tell_exports();
        }
        let keys: Vec<Key> = self.connections.iter().map(|(_, c)| c.key).collect();
        let ended = keys.into_iter().filter(|&key| self.ends_by_settings(key)).count();
        let kept = self.connections.iter().filter(|(_, c)| c.is_served()).count();
        self.answer_arrivals();
        Reloaded { kept, ended, needs_restart }
    }

    /// Ends a connection that the settings do not allow any more. True if the client had a device,
    /// or was about to.
    fn ends_by_settings(&mut self, key: Key) -> bool {
        let Some(connection) = find(&mut self.connections, key) else { return false };
        let address = connection.peer.ip();
        let may_connect = self.settings.allowed.contains(address);
        let Some(loan) = &connection.loan else {
            if !may_connect {
                self.end(key, &End::NotAllowed);
            }
            return false;
        };
        let may_keep = may_connect && self.registry.keeps(loan.busid, address);
        if may_keep || loan.is_ending() {
            return false;
        }
        if connection.part(Parting::Reload, self.now + DRAIN_TIMEOUT) {
            self.schedule.note_deadline(connection.client_deadline());
            self.queue(key);
        } else {
            // The device is being opened.
            connection.change_loan(|loan| loan.abandon(self.now));
            self.refuse(key, &Refusal::NotExported);
        }
        true
    }
}
