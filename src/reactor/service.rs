//! What the reactor tells a service manager: a line of status, the begin of the stop, and signs of
//! life, which a turn of the reactor gives. A reactor that hangs gives no sign, and the manager
//! starts the server anew.
//!
//! Contract: part of the reactor, so nothing here sleeps: a message without room is sent at the
//! next occasion. Without a manager nothing costs more than a comparison.

use std::time::Instant;

use super::Reactor;
use crate::service::notify::{Message, Notifier};
use crate::usb::Backend;

/// The messages to a service manager.
#[derive(Debug, Default)]
pub(super) struct Reports {
    notifier: Option<Notifier>,
    /// When the next sign of life is due.
    sign: Option<Instant>,
    /// The devices may be others than told.
    is_stale: bool,
    told: String,
}

impl Reports {
    /// Notes that devices, or clients with devices, have changed.
    pub(super) const fn note_change(&mut self) {
        self.is_stale = true;
    }

    fn send(&self, message: Message<'_>) -> bool {
        self.notifier.as_ref().is_some_and(|notifier| notifier.send(message))
    }

    /// Gives a sign of life, where one is due, and returns when the next is.
    pub(super) fn give_sign(&mut self, now: Instant) -> Option<Instant> {
        if self.sign.is_some_and(|at| at <= now) {
            // Without room the manager has a sign still unread.
            let _ = self.send(Message::Alive);
            let signs = self.notifier.as_ref().and_then(Notifier::signs);
            self.sign = signs.map(|signs| now + signs);
        }
        self.sign
    }

    fn tell(&mut self, status: String) {
        if self.told != status && self.send(Message::Status(&status)) {
            self.told = status;
        }
    }
}

impl<B: Backend> Reactor<B> {
    /// Has the server report to a service manager from now on.
    pub fn report_to(&mut self, notifier: Notifier) {
        let sign = notifier.signs().is_some().then_some(self.now);
        let notifier = Some(notifier);
        self.audience.reports = Reports { notifier, sign, is_stale: true, told: String::new() };
        self.schedule.note_deadline(sign);
    }

    /// Reports whatever is due in a turn.
    pub(super) fn report(&mut self) {
        if std::mem::take(&mut self.audience.reports.is_stale)
            && self.audience.reports.notifier.is_some()
        {
            let status = self.status_line();
            self.audience.reports.tell(status);
        }
    }

    /// Reports that the stop begins.
    pub(super) fn report_stop(&mut self) {
        let _ = self.audience.reports.send(Message::Stopping);
        self.audience.reports.note_change();
    }

    /// The server in a line.
    fn status_line(&self) -> String {
        let lent = self.registry.taken();
        if self.stop.deadline().is_some() {
            return format!("stopping: devices to give back: {lent}");
        }
        let offered = self.registry.judged().filter(|(_, verdict)| verdict.is_offered()).count();
        format!("devices exported: {offered}, with a client: {lent}")
    }
}
