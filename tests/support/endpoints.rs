//! The endpoints of the simulated loopback device, as addresses. Written down here once more, so
//! that a change of the device is noticed.

/// Bulk IN: counted data.
pub(crate) const SOURCE: u8 = 0x81;
/// Bulk OUT: checked and dropped.
pub(crate) const SINK: u8 = 0x01;
/// Bulk OUT: comes back from [`LOOP_IN`].
pub(crate) const LOOP_OUT: u8 = 0x02;
/// Bulk IN: the bytes of [`LOOP_OUT`].
pub(crate) const LOOP_IN: u8 = 0x82;
/// Interrupt IN, with an answer.
pub(crate) const INTERRUPT: u8 = 0x83;
/// Interrupt IN, without an answer ever.
pub(crate) const INTERRUPT_SILENT: u8 = 0x84;
/// Bulk IN, without an answer ever.
pub(crate) const SILENT: u8 = 0x86;
/// Isochronous IN.
pub(crate) const ISO_SOURCE: u8 = 0x85;
/// Isochronous OUT.
pub(crate) const ISO_SINK: u8 = 0x05;
