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
}

impl Whose {
    /// Notes that this thread works for the client and the device from now on.
    pub fn take_thread(self) {
        OF_THREAD.set(Some(self));
    }
}

/// Notes that this thread works for nobody in particular.
pub fn leave_thread() {
    OF_THREAD.set(None);
}

/// For whom this thread works.
pub fn of_thread() -> Option<Whose> {
    OF_THREAD.get()
}
