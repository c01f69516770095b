//! The client and the device for which a thread works, for the log.
//!
//! A session knows no address of its client, and libusb's side knows no client at all. So the
//! reactor notes the two for as long as it serves a session, a device's worker for as long as the
//! worker lives, and each line that the log gets meanwhile names both.
//!
//! Contract: any thread, each for itself; a copy of some bytes, without a lock or an allocation.

use std::cell::Cell;
use std::net::SocketAddr;

use crate::wire::types::BusId;

/// A client and its device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whose {
    /// The client's address.
    pub client: SocketAddr,
    /// The device.
    pub device: BusId,
}

thread_local! {
    static OF_THREAD: Cell<Option<Whose>> = const { Cell::new(None) };
    /// The thread works for nobody just now.
    static HAS_LEFT: Cell<bool> = const { Cell::new(false) };
}

impl Whose {
    /// Notes that this thread works for the client and the device from now on.
    pub fn take_thread(self) {
        OF_THREAD.set(Some(self));
        HAS_LEFT.set(false);
    }
}

/// Notes that this thread works for nobody in particular.
#[inline]
pub fn leave_thread() {
    HAS_LEFT.set(true);
}

/// Notes that this thread works again for those for whom it last worked.
#[inline]
pub fn return_thread() {
    HAS_LEFT.set(false);
}

/// For whom this thread works.
pub fn of_thread() -> Option<Whose> {
    if HAS_LEFT.get() { None } else { OF_THREAD.get() }
}
