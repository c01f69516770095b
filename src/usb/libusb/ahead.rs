//! A libusb context for the next open device, made while no client waits.
//!
//! Each open device has a context of its own, and libusb fills a new context with a list of all
//! devices: with thirty devices that takes longer than the rest of an open. So after each open the
//! thread that scans makes the context of the next. Without hints nothing is made ahead.
//!
//! libusb itself keeps the list of a context current: its thread for news of devices hears the same
//! uevents as `hotplug`, and libusb takes the uevents on their way before it gives out a list. So a
//! device that was plugged in a moment ago is in the list of an older context, and the first import
//! after a replug needs no other context. A device that is missing in the list, or has another
//! vendor or product there, is opened in a new context.
//!
//! The news wait in the context until its events are handled, and keep the memory of devices that
//! have left; so each scan is followed by a look at the news.
//!
//! Contract: `Ahead::begin` and `Ahead::prepare` block, the other calls do not. Shared by
//! threads. At most one context waits, with a few descriptors and some hundred bytes a device.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use usbferry_sys::libusb::device::AheadContext;

/// The place of what is made ahead, shared by a backend and the devices that it finds.
#[derive(Clone, Default)]
pub(super) struct Ahead(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Hints lead to scans, so that a context made ahead is known to be current.
    is_on: bool,
    context: Option<AheadContext>,
}

impl Ahead {
    /// From now on hints lead to scans: makes the first context. *Blocks.*
    #[cfg(target_os = "linux")]
    pub(super) fn begin(&self) {
        self.lock().is_on = true;
        self.prepare();
    }

    /// Takes the context for an open, if there is a context.
    pub(super) fn take_context(&self) -> Option<AheadContext> {
        self.lock().context.take()
    }

    /// Makes what the next open needs, and has a context that is there take its news. *Blocks.* For
    /// one thread.
    pub(super) fn prepare(&self) {
        let has_context = {
            let mut state = self.lock();
            if !state.is_on {
                return;
            }
            state.context.as_mut().map(AheadContext::take_news).is_some()
        };
        // Without a context the next open makes its own, and tells the error.
        if !has_context && let Ok(context) = AheadContext::new_blocking() {
            self.lock().context = Some(context);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while the place is locked")
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Ahead")
            .field("is_on", &state.is_on)
            .field("has_context", &state.context.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_without_hints() {
        let ahead = Ahead::default();
        ahead.prepare();
        assert!(ahead.take_context().is_none());
    }
}
