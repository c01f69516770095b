//! Who is told of what happens, beside the clients that ask.
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use super::error::StartError;
use super::hooks::Hooking;
use super::observers::Observers;
use super::service::Reports;
use super::token::Key;
use crate::capture::Capture;
use crate::complaints::Complaints;
use crate::config::Settings;
use crate::deadline::earlier;

/// The clients, the programs and the operators that are told of what happens, and the capture.
pub(super) struct Audience {
    /// Connections that watch devices.
    pub(super) watches: Vec<Key>,
    pub(super) hooking: Hooking,
    pub(super) reports: Reports,
    pub(super) observers: Observers,
    pub(super) capture: Option<Capture>,
}

impl Audience {
    /// Nobody but the programs of the rules, and the capture of the settings.
    ///
    /// # Errors
    /// The capture can't begin.
    pub(super) fn new(
        settings: &Settings,
        waker: Arc<Waker>,
        complaints: Complaints,
    ) -> Result<Self, StartError> {
        let capture = settings.capture.as_ref().map(Capture::start).transpose();
        Ok(Self {
            watches: Vec::new(),
            hooking: Hooking::new(waker, complaints),
            reports: Reports::default(),
            observers: Observers::default(),
            capture: capture.map_err(StartError::Capture)?,
        })
    }

    /// When somebody is to be told without any event.
    pub(super) fn deadline(&self) -> Option<Instant> {
        earlier(self.reports.deadline(), self.capture.as_ref().and_then(Capture::deadline))
    }
}
