//! Asynchronous transfers: allocated once, submitted many times, each the owner of its buffer while
//! in flight.
//!
//! While a transfer is in flight the kernel writes into its buffer, and libusb into the transfer
//! itself. So neither is ever seen as a reference meanwhile: fields are reached through raw
//! pointers, and [`Transfer::take`] gives the buffer back only after the callback.
//!
//! The callback runs inside [`DeviceHandle::handle_events`] and under locks of libusb; the callback
//! notes the transfer's index and does nothing else.
//!
//! Contract: nothing blocks but the use of a [`CancelToken`]; no allocation after `new` in this
//! crate, but for the first isochronous submission with more packets than any before of the same
//! transfer (libusb allocates its own URBs at each submit). A transfer dropped in flight is leaked
//! with its buffer, because the kernel still has both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use libusb1_sys::constants as c;

use crate::arena::Block;
use crate::libusb::completion::CompletionQueue;
use crate::libusb::device::OpenDevice;
use crate::libusb::error::{Error, TransferStatus, check};
use crate::libusb::handle::DeviceHandle;
use crate::libusb::pass;
use crate::libusb::raw;

/// Bytes of a SETUP packet, which starts the buffer of a control transfer.
const SETUP_LEN: usize = 8;

/// The kind of a transfer (`enum libusb_transfer_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum TransferKind {
    Control,
    Isochronous,
    Bulk,
    Interrupt,
}

/// The parameters of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// The type of the endpoint.
    pub kind: TransferKind,
    /// bEndpointAddress.
    pub endpoint: u8,
    /// Bytes of the buffer in use, a control transfer's SETUP packet included.
    pub length: usize,
    /// End full OUT packets with an empty packet.
    pub zero_packet: bool,
}

/// How a transfer ended.
#[derive(Debug)]
pub struct Completed {
    /// The status at the end.
    pub status: TransferStatus,
    /// Bytes transferred, without a SETUP packet; means nothing for isochronous transfers.
    pub actual_length: u32,
    /// The buffer.
    pub block: Block,
}

/// Nothing is going on; there is no buffer.
const IDLE: u8 = 0;
/// libusb and the kernel have the transfer.
const IN_FLIGHT: u8 = 1;
/// The callback has run; the buffer waits to be taken.
const ENDED: u8 = 2;

/// The common part of a transfer, its callback and its cancel tokens.
struct Core {
    raw: *mut raw::libusb_transfer,
    index: u32,
    state: AtomicU8,
    completions: Arc<CompletionQueue>,
    device: Arc<OpenDevice>,
}

// SAFETY: libusb's transfer functions may be called from any thread; only the transfer's owner
// touches fields of the raw transfer, and only while the transfer is not in flight.
unsafe impl Send for Core {}
// SAFETY: a shared `Core` allows no more than `libusb_cancel_transfer`, which libusb locks.
unsafe impl Sync for Core {}

impl Core {
    fn is_of(&self, handle: &DeviceHandle) -> bool {
        Arc::ptr_eq(&self.device, handle.device())
    }

    /// Writes the fields of a submission, while the transfer is not in flight.
    #[inline(always)]
    fn write_fields(&self, parameters: Parameters, packet_count: i32, block: &Block) {
        let raw = self.raw;
        let transfer_type = match parameters.kind {
            TransferKind::Control => c::LIBUSB_TRANSFER_TYPE_CONTROL,
            TransferKind::Isochronous => c::LIBUSB_TRANSFER_TYPE_ISOCHRONOUS,
            TransferKind::Bulk => c::LIBUSB_TRANSFER_TYPE_BULK,
            TransferKind::Interrupt => c::LIBUSB_TRANSFER_TYPE_INTERRUPT,
        };
        let flags = if parameters.zero_packet { c::LIBUSB_TRANSFER_ADD_ZERO_PACKET } else { 0 };
        let length = i32::try_from(parameters.length).expect("blocks are shorter than 2 GiB");
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for all fields")]
        // SAFETY: `raw` is allocated and not in flight, so only this call touches its fields.
        unsafe {
            (*raw).flags = flags;
            (*raw).endpoint = parameters.endpoint;
            (*raw).transfer_type = transfer_type;
            (*raw).length = length;
            (*raw).buffer = block.as_ptr();
            (*raw).num_iso_packets = packet_count;
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_room` and not in flight: a transfer in flight leaks its
        // share of the core.
        unsafe { raw::libusb_free_transfer(self.raw) }
    }
}

/// A transfer slot.
pub struct Transfer {
    core: Arc<Core>,
    /// The buffer, while in flight and until taken.
    block: Option<Block>,
    /// Isochronous packets there is room for.
    packets: u32,
}

impl Transfer {
    /// A transfer of the handle's device with the given `index`, without room for isochronous
    /// packets.
    ///
    /// # Errors
    /// `NoMem`.
    ///
    /// # Panics
    /// For an index not below the number of the handle's transfers.
    pub fn new(handle: &DeviceHandle, index: u32) -> Result<Self, Error> {
        let completions = handle.completions();
        assert!((index as usize) < completions.transfers(), "transfer index out of range");
        Self::with_room(handle, index, 0)
    }

    fn with_room(handle: &DeviceHandle, index: u32, packets: u32) -> Result<Self, Error> {
        let count = i32::try_from(packets).map_err(|_| Error::InvalidParam)?;
        // SAFETY: any non-negative count is allowed.
        let raw = unsafe { raw::libusb_alloc_transfer(count) };
        if raw.is_null() {
            return Err(Error::NoMem);
        }
        let core = Arc::new(Core {
            raw,
            index,
            state: AtomicU8::new(IDLE),
            completions: Arc::clone(handle.completions()),
            device: Arc::clone(handle.device()),
        });
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for all fields")]
        // SAFETY: `raw` is allocated, and no other code knows the pointer. These fields
        // are written once and never change.
        unsafe {
            (*raw).dev_handle = core.device.as_ptr();
            (*raw).callback = on_transfer_ended;
            (*raw).user_data = Arc::as_ptr(&core).cast_mut().cast();
        }
        Ok(Self { core, block: None, packets })
    }

    /// Makes room for isochronous packets in a transfer that is not in flight. The room stays for
    /// the submissions to come. A cancel token of before names a transfer that never flies again.
    #[inline(never)]
    fn make_room(&mut self, handle: &DeviceHandle, packets: usize) -> Result<(), Error> {
        if packets > self.packets as usize {
            let packets = u32::try_from(packets).map_err(|_| Error::InvalidParam)?;
            *self = Self::with_room(handle, self.core.index, packets.next_power_of_two())?;
        }
        Ok(())
    }

    /// Starts a transfer of the first bytes of `block`. `packets` are the lengths of an isochronous
    /// transfer's packets, without gaps in the block and with the parameters' length as their sum.
    ///
    /// # Errors
    /// libusb's, or `NoMem` without memory for the packets; the block comes back.
    ///
    /// # Panics
    /// If the transfer is in flight or not yet taken, if the transfer was made for another device,
    /// and if the block is shorter than the transfer.
    #[inline(always)]
    pub fn submit(
        &mut self,
        handle: &mut DeviceHandle,
        parameters: Parameters,
        packets: impl ExactSizeIterator<Item = u32>,
        block: Block,
    ) -> Result<(), (Error, Block)> {
        let length = parameters.length;
        assert_eq!(self.core.state.load(Ordering::Relaxed), IDLE, "the transfer is in use");
        assert!(self.core.is_of(handle), "the transfer belongs to another device");
        assert!(length <= block.len(), "the buffer is too short for the transfer");
        let packet_count = match parameters.kind {
            TransferKind::Isochronous => match self.make_room(handle, packets.len()) {
                Ok(()) => self.write_packets(packets, length),
                Err(error) => return Err((error, block)),
            },
            TransferKind::Control => {
                check_control(&block[..length]);
                0
            }
            TransferKind::Bulk | TransferKind::Interrupt => 0,
        };
        let core = &*self.core;
        core.write_fields(parameters, packet_count, &block);
        self.block = Some(block);
        core.state.store(IN_FLIGHT, Ordering::Relaxed);
        // SAFETY: every field is set; the buffer is owned by `self` until the callback has run, and
        // `self` leaks the buffer rather than free it before.
        let code = unsafe { raw::libusb_submit_transfer(core.raw) };
        if let Err(error) = check(code) {
            core.state.store(IDLE, Ordering::Relaxed);
            let block = self.block.take().expect("the block was put here above");
            return Err((name_memory(error), block));
        }
        handle.note_submitted();
        Ok(())
    }

    /// Writes the packets' lengths and returns their number.
    #[inline(never)]
    fn write_packets(&mut self, packets: impl Iterator<Item = u32>, length: usize) -> i32 {
        let (mut count, mut sum) = (0, 0u64);
        for packet_length in packets {
            assert!(count < self.packets, "more packets than the transfer has room for");
            let packet = self.packet_ptr(count);
            #[expect(
                clippy::multiple_unsafe_ops_per_block,
                reason = "one invariant for all fields"
            )]
            // SAFETY: `count` is below the number of packets allocated, and the transfer is not in
            // flight. A packet that libusb never reports must not show an earlier result.
            unsafe {
                (*packet).length = packet_length;
                (*packet).actual_length = 0;
                (*packet).status = c::LIBUSB_TRANSFER_ERROR;
            }
            sum += u64::from(packet_length);
            count += 1;
        }
        assert_eq!(sum, length as u64, "the packets do not add up to the transfer");
        i32::try_from(count).expect("bounded by the packets allocated")
    }

    /// Packet `index`, which must be below the number of packets allocated. The array's type has no
    /// length, so an ordinary index would be out of bounds.
    fn packet_ptr(&self, index: u32) -> *mut raw::libusb_iso_packet_descriptor {
        debug_assert!(index < self.packets);
        // SAFETY: a place projection within the allocation of the transfer.
        let first = unsafe { &raw mut (*self.core.raw).iso_packet_desc };
        let first = first.cast::<raw::libusb_iso_packet_descriptor>();
        first.wrapping_add(index as usize)
    }

    /// Ends a transfer after [`DeviceHandle::handle_events`] has delivered its index.
    ///
    /// # Panics
    /// If the transfer is in flight, or was taken already.
    pub fn take(&mut self) -> Completed {
        assert_eq!(self.core.state.load(Ordering::Relaxed), ENDED, "the transfer has not ended");
        self.core.state.store(IDLE, Ordering::Relaxed);
        let block = self.block.take().expect("a transfer that ended has its buffer");
        let raw = self.core.raw;
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for both fields")]
        // SAFETY: the callback has run, so libusb does not touch the transfer any more.
        let (status, actual_length) = unsafe { ((*raw).status, (*raw).actual_length) };
        Completed {
            status: TransferStatus::from_code(status),
            actual_length: u32::try_from(actual_length).unwrap_or(0),
            block,
        }
    }

    /// The result of packet `index` of the isochronous transfer taken last: bytes and status.
    ///
    /// # Panics
    /// If the transfer is in flight, or has no room for the packet.
    #[must_use]
    pub fn packet(&self, index: u32) -> (u32, TransferStatus) {
        assert_eq!(self.core.state.load(Ordering::Relaxed), IDLE, "the transfer is in use");
        assert!(index < self.packets, "packet index out of range");
        let packet = self.packet_ptr(index);
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for both fields")]
        // SAFETY: the index is below the number of packets allocated, and the transfer is not in
        // flight.
        let (actual_length, status) = unsafe { ((*packet).actual_length, (*packet).status) };
        (actual_length, TransferStatus::from_code(status))
    }

    /// The results of the first `count` packets of the isochronous transfer taken last, as by
    /// [`Self::packet`].
    ///
    /// # Panics
    /// If the transfer is in flight, or has no room for as many packets.
    pub fn packets(
        &self,
        count: usize,
    ) -> impl ExactSizeIterator<Item = (u32, TransferStatus)> + '_ {
        assert_eq!(self.core.state.load(Ordering::Relaxed), IDLE, "the transfer is in use");
        assert!(count <= self.packets as usize, "packet index out of range");
        let packets: &[raw::libusb_iso_packet_descriptor] = match count {
            0 => &[],
            // SAFETY: as many packets were allocated, as zeroes, and while the transfer is borrowed
            // and not in flight, nobody writes them.
            _ => unsafe { std::slice::from_raw_parts(self.packet_ptr(0), count) },
        };
        let result = |packet: &raw::libusb_iso_packet_descriptor| {
            (packet.actual_length, TransferStatus::from_code(packet.status))
        };
        packets.iter().map(result)
    }

    /// A name by which a worker can cancel this transfer.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken(Arc::clone(&self.core))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.core.state.load(Ordering::Relaxed) == IN_FLIGHT {
            // The kernel still writes into the buffer and libusb into the transfer. The buffer
            // stays in place, because its block never returns to the arena.
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}

/// Names a transfer on another thread. Keeps the transfer allocated, in flight or not.
pub struct CancelToken(Arc<Core>);

impl CancelToken {
    /// Asks for the end of the transfer; the transfer still ends by
    /// [`DeviceHandle::handle_events`]. *Blocks* until the host controller has let go of the
    /// buffer. An ended transfer is left alone.
    ///
    /// # Errors
    /// `NotFound` when the transfer was not in flight any more, otherwise libusb's.
    ///
    /// # Panics
    /// If the transfer was made for another device.
    pub fn cancel_blocking(&self, handle: &mut DeviceHandle) -> Result<(), Error> {
        assert!(self.0.is_of(handle), "the transfer belongs to another device");
        // SAFETY: the transfer is allocated; libusb itself checks whether it is in flight.
        check(unsafe { raw::libusb_cancel_transfer(self.0.raw) })
    }
}

/// libusb names a lack of memory only for bulk and interrupt transfers. For other transfers libusb
/// returns "input/output error", and errno is still the failed ioctl's.
#[cold]
fn name_memory(error: Error) -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error();
    if error == Error::Io && errno == Some(libc::ENOMEM) { Error::NoMem } else { error }
}

/// libusb's callback: runs inside `handle_events`, under locks of libusb.
extern "system" fn on_transfer_ended(raw: *mut raw::libusb_transfer) {
    // SAFETY: libusb passes its transfer, whose user_data was set in `with_room`.
    let core = unsafe { (*raw).user_data }.cast::<Core>();
    // SAFETY: a transfer in flight keeps its core alive, if need be by a leak.
    let core = unsafe { &*core };
    core.state.store(ENDED, Ordering::Relaxed);
    core.completions.push(core.index);
    pass::note_ended();
}

/// Checks that the SETUP packet asks for no more data than the buffer holds: macOS's backend
/// trusts wLength and not the transfer's length.
#[inline(never)]
fn check_control(buffer: &[u8]) {
    assert!(buffer.len() >= SETUP_LEN, "a control transfer starts with its SETUP packet");
    let data_len = usize::from(u16::from_le_bytes([buffer[6], buffer[7]]));
    assert!(data_len <= buffer.len() - SETUP_LEN, "wLength is larger than the buffer");
}
