//! stub
use std::ptr::NonNull;
/// Mapped memory of a device.
pub struct DeviceMemory {
    base: NonNull<u8>,
    len: usize,
}
impl DeviceMemory {
    /// len
    pub fn len(&self) -> usize {
        self.len
    }
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}
