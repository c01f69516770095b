//! A libusb context and transfers for the next open device, made while no client waits.
//!
//! Each open device has a context of its own, and libusb fills a new context with a list of all
//! devices: with thirty devices that takes longer than the rest of an open. Of that rest, most is
//! spent on clearing the memory of isochronous transfers. So after each open the thread that scans
//! makes these for the next open. Without hints nothing is made ahead.
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
//! libusb's thread lives from the first context until the last, with the name of the thread that
//! made the first. The first is made at the start, so that no worker gives libusb's thread its name,
//! which says which device the worker serves.
//!
//! Contract: `Ahead::begin` and `Ahead::prepare` block, the other calls do not. Shared by
//! threads. At most one context waits, with a few descriptors and some hundred bytes a device, and
//! as many transfers as the last device with isochronous endpoints has.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use usbferry_sys::libusb::device::AheadContext;
use usbferry_sys::libusb::error::Error;
use usbferry_sys::libusb::transfer::BlankTransfer;
use usbferry_sys::os::heap;

use crate::limits::SLOT_MEMORY;

/// The place of what is made ahead, shared by a backend and the devices that it finds.
#[derive(Clone, Default)]
pub(super) struct Ahead(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Hints lead to scans, so that a context made ahead is known to be current.
    is_on: bool,
    context: Option<AheadContext>,
    transfers: Vec<BlankTransfer>,
    wanted: Wanted,
}

/// Transfers of a device, and the isochronous packets of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    pub(super) transfers: usize,
    pub(super) packets: u32,
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

    /// The transfers of a device: those made ahead, if the last device was of the same kind.
    ///
    /// # Errors
    /// `NoMem`.
    pub(super) fn transfers(&self, wanted: Wanted) -> Result<Vec<BlankTransfer>, Error> {
        let mut transfers = Vec::new();
        // A transfer without packets is made in no time.
        if wanted.packets > 0 {
            let mut state = self.lock();
            let has_made = state.wanted == wanted;
            state.wanted = wanted;
            transfers = std::mem::take(&mut state.transfers);
            drop(state);
            if !has_made {
                transfers.clear();
            }
        }
        complete(&mut transfers, wanted)?;
        Ok(transfers)
    }

    /// Makes what the next open needs, and has a context that is there take its news. *Blocks.* For
    /// one thread.
    pub(super) fn prepare(&self) {
        let (has_context, wanted) = {
            let mut state = self.lock();
            if !state.is_on {
                return;
            }
            let wanted = if state.transfers.is_empty() { state.wanted } else { Wanted::default() };
            (state.context.as_mut().map(AheadContext::take_news).is_some(), wanted)
        };
        // Without a context or a transfer, the next open makes its own, and tells the error.
        if !has_context && let Ok(context) = AheadContext::new_blocking() {
            self.lock().context = Some(context);
        }
        let mut transfers = Vec::new();
        if heap::has_room(heap::RESERVE + wanted.transfers * SLOT_MEMORY) {
            let _ = complete(&mut transfers, wanted);
        }
        let mut state = self.lock();
        if state.wanted == wanted {
            state.transfers = transfers;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while the place is locked")
    }
}

/// Adds the missing transfers.
///
/// # Errors
/// `NoMem`; the transfers made by then are there.
fn complete(transfers: &mut Vec<BlankTransfer>, wanted: Wanted) -> Result<(), Error> {
    while transfers.len() < wanted.transfers {
        transfers.push(BlankTransfer::new(wanted.packets)?);
    }
    Ok(())
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Ahead")
            .field("is_on", &state.is_on)
            .field("has_context", &state.context.is_some())
            .field("transfers", &state.transfers.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISOCHRONOUS: Wanted = Wanted { transfers: 3, packets: 8 };

    fn made(ahead: &Ahead) -> usize {
        ahead.lock().transfers.len()
    }

    fn taken(ahead: &Ahead, wanted: Wanted) -> Vec<u32> {
        let transfers = ahead.transfers(wanted).unwrap();
        transfers.iter().map(BlankTransfer::packets).collect()
    }

    /// An [`Ahead`] that needs no bus, which a test may lack.
    fn without_context() -> Ahead {
        let ahead = Ahead::default();
        ahead.lock().is_on = true;
        ahead
    }

    #[test]
    fn transfers_are_made_for_a_device_like_the_last() {
        let ahead = without_context();
        ahead.prepare();
        assert_eq!((made(&ahead), taken(&ahead, ISOCHRONOUS)), (0, vec![8; 3]));
        ahead.prepare();
        assert_eq!((made(&ahead), taken(&ahead, ISOCHRONOUS)), (3, vec![8; 3]));
        assert_eq!(made(&ahead), 0, "each is given out once");
    }

    #[test]
    fn a_device_without_isochronous_endpoints_leaves_the_transfers_to_the_next() {
        let ahead = without_context();
        taken(&ahead, ISOCHRONOUS);
        ahead.prepare();
        assert_eq!(taken(&ahead, Wanted { transfers: 2, packets: 0 }), [0; 2]);
        assert_eq!(made(&ahead), 3);
    }

    #[test]
    fn transfers_of_another_kind_are_not_given_out() {
        let ahead = without_context();
        taken(&ahead, ISOCHRONOUS);
        ahead.prepare();
        let larger = Wanted { transfers: 4, packets: 16 };
        assert_eq!(taken(&ahead, larger), [16; 4]);
        ahead.prepare();
        assert_eq!((made(&ahead), taken(&ahead, larger)), (4, vec![16; 4]));
    }

    #[test]
    fn nothing_is_made_without_hints() {
        let ahead = Ahead::default();
        taken(&ahead, ISOCHRONOUS);
        ahead.prepare();
        assert_eq!(made(&ahead), 0);
        assert!(ahead.take_context().is_none());
    }
}
