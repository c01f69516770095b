//! Who is told of what happens, beside the clients that ask.
//!
//! Contract: part of the reactor, so nothing here sleeps.

use std::sync::Arc;

use mio::Waker;

use super::error::StartError;
use super::hooks::Hooking;
use super::observers::Observers;
use super::service::Reports;
use super::taps::Captures;
use super::token::Key;
use crate::complaints::Complaints;
use crate::config::Settings;

/// The clients, the programs and the operators that are told of what happens, and the captures.
pub(super) struct Audience {
    /// Connections that watch devices.
    pub(super) watches: Vec<Key>,
    pub(super) hooking: Hooking,
    pub(super) reports: Reports,
    pub(super) observers: Observers,
    pub(super) captures: Captures,
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
        let captures = Captures::new(settings);
        Ok(Self {
            watches: Vec::new(),
            hooking: Hooking::new(waker, complaints),
            reports: Reports::default(),
            observers: Observers::default(),
            captures: captures.map_err(StartError::Capture)?,
        })
    }
}
