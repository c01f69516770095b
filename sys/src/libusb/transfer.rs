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
//! crate (libusb allocates its own URBs at each submit). A transfer dropped in flight is leaked
//! with its buffer, because the kernel still has both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use libusb1_sys::constants as c;

use crate::arena::Block;
use crate::libusb::completion::CompletionQueue;
use crate::libusb::device::OpenDevice;
use crate::libusb::error::{Error, TransferStatus, check};
use crate::libusb::handle::DeviceHandle;
use crate::libusb::raw;

/// Bytes of a SETUP packet, which starts the buffer of a control transfer.
const SETUP_LEN: usize = 8;

/// The kind of a transfer (`enum libusb_transfer_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are libusb's")]
pub enum Kind {
    Control,
    Isochronous,
    Bulk,
    Interrupt,
}

/// The parameters of a submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The type of the endpoint.
    pub kind: Kind,
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
}

impl Drop for Core {
    fn drop(&mut self) {
        // SAFETY: allocated in `Transfer::new` and not in flight: a transfer in flight leaks its
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
    /// A transfer of the handle's device with the given `index`, and room for `packets` isochronous
    /// packets.
    ///
    /// # Errors
    /// `NoMem`.
    ///
    /// # Panics
    /// For an index not below the number of the handle's transfers.
    pub fn new(handle: &DeviceHandle, index: u32, packets: u32) -> Result<Self, Error> {
        let completions = handle.completions();
        assert!((index as usize) < completions.transfers(), "transfer index out of range");
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
            completions: Arc::clone(completions),
            device: Arc::clone(handle.device()),
        });
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for all fields")]
        // SAFETY: `raw` was just allocated, and no other code knows the pointer yet. These fields
        // are written once and never change.
        unsafe {
            (*raw).dev_handle = core.device.as_ptr();
            (*raw).callback = on_transfer_ended;
            (*raw).user_data = Arc::as_ptr(&core).cast_mut().cast();
        }
        Ok(Self { core, block: None, packets })
    }

    /// Starts a transfer of the first bytes of `block`. `packets` are the lengths of an isochronous
    /// transfer's packets, without gaps in the block and with the request's length as their sum.
    ///
    /// # Errors
    /// libusb's; the block comes back.
    ///
    /// # Panics
    /// If the transfer is in flight or not yet taken, if the transfer was made for another device,
    /// and if the block is shorter than the transfer.
    pub fn submit(
        &mut self,
        handle: &mut DeviceHandle,
        request: Request,
        packets: impl Iterator<Item = u32>,
        block: Block,
    ) -> Result<(), (Error, Block)> {
        let length = request.length;
        assert_eq!(self.core.state.load(Ordering::Relaxed), IDLE, "the transfer is in use");
        assert!(self.core.is_of(handle), "the transfer belongs to another device");
        assert!(length <= block.len(), "the buffer is too short for the transfer");
        let packet_count = match request.kind {
            Kind::Isochronous => self.write_packets(packets, length),
            Kind::Control => {
                check_control(&block[..length]);
                0
            }
            Kind::Bulk | Kind::Interrupt => 0,
        };
        self.write_fields(request, packet_count, &block);
        self.core.state.store(IN_FLIGHT, Ordering::Relaxed);
        // SAFETY: every field is set; the buffer is owned by `self` until the callback has run, and
        // `self` leaks the buffer rather than free it before.
        let code = unsafe { raw::libusb_submit_transfer(self.core.raw) };
        if let Err(error) = check(code) {
            self.core.state.store(IDLE, Ordering::Relaxed);
            return Err((name_memory(error), block));
        }
        self.block = Some(block);
        Ok(())
    }

    /// Writes the packets' lengths and returns their number.
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

    fn write_fields(&mut self, request: Request, packet_count: i32, block: &Block) {
        let raw = self.core.raw;
        let transfer_type = match request.kind {
            Kind::Control => c::LIBUSB_TRANSFER_TYPE_CONTROL,
            Kind::Isochronous => c::LIBUSB_TRANSFER_TYPE_ISOCHRONOUS,
            Kind::Bulk => c::LIBUSB_TRANSFER_TYPE_BULK,
            Kind::Interrupt => c::LIBUSB_TRANSFER_TYPE_INTERRUPT,
        };
        let flags = if request.zero_packet { c::LIBUSB_TRANSFER_ADD_ZERO_PACKET } else { 0 };
        let length = i32::try_from(request.length).expect("blocks are shorter than 2 GiB");
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one invariant for all fields")]
        // SAFETY: `raw` is allocated and not in flight, so only this call touches its fields.
        unsafe {
            (*raw).flags = flags;
            (*raw).endpoint = request.endpoint;
            (*raw).transfer_type = transfer_type;
            (*raw).length = length;
            (*raw).buffer = block.as_ptr();
            (*raw).num_iso_packets = packet_count;
        }
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
fn name_memory(error: Error) -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error();
    if error == Error::Io && errno == Some(libc::ENOMEM) { Error::NoMem } else { error }
}

/// libusb's callback: runs inside `handle_events`, under locks of libusb.
extern "system" fn on_transfer_ended(raw: *mut raw::libusb_transfer) {
    // SAFETY: libusb passes its transfer, whose user_data was set in `new`.
    let core = unsafe { (*raw).user_data }.cast::<Core>();
    // SAFETY: a transfer in flight keeps its core alive, if need be by a leak.
    let core = unsafe { &*core };
    core.state.store(ENDED, Ordering::Relaxed);
    core.completions.push(core.index);
}

/// Checks that the SETUP packet asks for no more data than the buffer holds: macOS's backend
/// trusts wLength and not the transfer's length.
fn check_control(buffer: &[u8]) {
    assert!(buffer.len() >= SETUP_LEN, "a control transfer starts with its SETUP packet");
    let data_len = usize::from(u16::from_le_bytes([buffer[6], buffer[7]]));
    assert!(data_len <= buffer.len() - SETUP_LEN, "wLength is larger than the buffer");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, DEVICE_BLOCK_MIN};
    use crate::libusb::device::DeviceId;
    use crate::libusb::fake::{self, End};

    const ID: DeviceId = DeviceId { bus: 1, address: 2, id_vendor: 0x1209, id_product: 1 };

    fn open() -> (DeviceHandle, Transfer, Arena) {
        let handle = DeviceHandle::open_blocking(ID, 4).unwrap();
        let transfer = Transfer::new(&handle, 3, 8).unwrap();
        let mut arena = Arena::new();
        arena.add_heap(8192).unwrap();
        arena.add_device_memory(handle.map_memory_blocking(32768).unwrap()).unwrap();
        (handle, transfer, arena)
    }

    const BULK_IN: Request =
        Request { kind: Kind::Bulk, endpoint: 0x81, length: 512, zero_packet: false };

    fn end(status: i32, actual_length: i32, data: &[u8]) -> End {
        End { status, actual_length, packets: Vec::new(), data: data.to_vec() }
    }

    #[test]
    fn a_transfer_goes_out_and_comes_back_with_its_data() {
        let (mut handle, mut transfer, mut arena) = open();
        let mut completed = Vec::with_capacity(4);
        for round in 0..3u8 {
            let block = arena.alloc(512).unwrap();
            transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
            assert_eq!(fake::oldest(), (2, 0x81, 512, 0, vec![]));
            handle.handle_events(&mut completed).unwrap();
            assert_eq!(completed, [], "nothing has ended yet");
            fake::end_oldest(&end(0, 3, &[round, 2, 3]));
            handle.handle_events(&mut completed).unwrap();
            assert_eq!(completed, [3]);
            completed.clear();
            let ended = transfer.take();
            assert_eq!((ended.status, ended.actual_length), (TransferStatus::Completed, 3));
            assert_eq!(ended.block[..3], [round, 2, 3]);
            arena.free(ended.block);
        }
        drop((transfer, arena, handle));
        assert_eq!(fake::alive(), [0; 4]);
    }

    #[test]
    fn device_memory_is_for_long_blocks_and_goes_when_none_is_out() {
        let (handle, transfer, mut arena) = open();
        let long = arena.alloc(DEVICE_BLOCK_MIN).unwrap();
        let short = arena.alloc(DEVICE_BLOCK_MIN / 4).unwrap();
        assert_eq!([&long, &short].map(Block::is_in_device_memory), [true, false]);
        assert!(arena.give_up_device_memory().is_none(), "a block of it is out");
        assert!(arena.alloc(DEVICE_BLOCK_MIN).is_none(), "and no more of it is handed out");
        arena.free(long);
        let mut memory = arena.give_up_device_memory().expect("a block of heap is no reason");
        assert_eq!(memory.bytes_mut().len(), 32768);
        assert_eq!(fake::alive()[3], 32768);
        drop(memory);
        assert_eq!(fake::alive()[3], 0);
        assert!(arena.give_up_device_memory().is_none(), "there is none");
        // Another mapping takes its place.
        arena.add_device_memory(handle.map_memory_blocking(32768).unwrap()).unwrap();
        let again = arena.alloc(32768).unwrap();
        assert!(again.is_in_device_memory());
        arena.free(again);
        arena.free(short);
        drop((transfer, arena, handle));
        assert_eq!(fake::alive(), [0; 4]);
    }

    #[test]
    fn isochronous_packets_have_lengths_and_results() {
        let (mut handle, mut transfer, mut arena) = open();
        let request =
            Request { kind: Kind::Isochronous, endpoint: 0x85, length: 600, zero_packet: false };
        let block = arena.alloc(600).unwrap();
        transfer.submit(&mut handle, request, [100, 200, 300].into_iter(), block).unwrap();
        assert_eq!(fake::oldest().4, [100, 200, 300]);
        fake::end_oldest(&End { packets: vec![(100, 0), (50, 0), (0, 1)], ..end(0, 0, &[]) });
        handle.handle_events(&mut Vec::new()).unwrap();
        arena.free(transfer.take().block);
        assert_eq!(transfer.packet(0), (100, TransferStatus::Completed));
        assert_eq!(transfer.packet(1), (50, TransferStatus::Completed));
        assert_eq!(transfer.packet(2), (0, TransferStatus::Error));
    }

    #[test]
    fn an_unreported_packet_has_failed() {
        let (mut handle, mut transfer, mut arena) = open();
        let request =
            Request { kind: Kind::Isochronous, endpoint: 0x85, length: 10, zero_packet: false };
        let block = arena.alloc(10).unwrap();
        transfer.submit(&mut handle, request, [10].into_iter(), block).unwrap();
        fake::end_oldest(&end(1, 0, &[]));
        handle.handle_events(&mut Vec::new()).unwrap();
        arena.free(transfer.take().block);
        assert_eq!(transfer.packet(0), (0, TransferStatus::Error));
    }

    #[test]
    fn a_refused_submit_gives_the_buffer_back_and_the_transfer_can_be_used_again() {
        let (mut handle, mut transfer, mut arena) = open();
        fake::refuse_submit(c::LIBUSB_ERROR_NO_MEM);
        let block = arena.alloc(512).unwrap();
        let refused = transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block);
        let (error, block) = refused.unwrap_err();
        assert_eq!(error, Error::NoMem);
        transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
        fake::end_oldest(&end(4, 0, &[]));
        handle.handle_events(&mut Vec::new()).unwrap();
        let ended = transfer.take();
        assert_eq!(ended.status, TransferStatus::Stall);
        arena.free(ended.block);
    }

    #[test]
    fn a_cancelled_transfer_still_ends_by_its_callback() {
        let (mut handle, mut transfer, mut arena) = open();
        let block = arena.alloc(512).unwrap();
        transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
        let token = transfer.cancel_token();
        token.cancel_blocking(&mut handle).unwrap();
        assert_eq!(token.cancel_blocking(&mut handle), Err(Error::NotFound));
        let mut completed = Vec::new();
        handle.handle_events(&mut completed).unwrap();
        assert_eq!(completed, [3]);
        let ended = transfer.take();
        assert_eq!(ended.status, TransferStatus::Cancelled);
        arena.free(ended.block);
    }

    #[test]
    fn an_unplugged_device_is_gone_and_its_transfers_end() {
        let (mut handle, mut transfer, mut arena) = open();
        let block = arena.alloc(512).unwrap();
        transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
        assert!(!handle.is_gone());
        fake::unplug();
        let mut completed = Vec::new();
        handle.handle_events(&mut completed).unwrap();
        assert!(handle.is_gone());
        assert_eq!(completed, [3]);
        let ended = transfer.take();
        assert_eq!(ended.status, TransferStatus::NoDevice);
        arena.free(ended.block);
    }

    #[test]
    fn control_transfers_end_without_their_setup_packet() {
        let (mut handle, mut transfer, mut arena) = open();
        let mut block = arena.alloc(8 + 18).unwrap();
        block[..8].copy_from_slice(&[0x80, 6, 0, 1, 0, 0, 18, 0]);
        let request = Request { kind: Kind::Control, endpoint: 0, length: 26, zero_packet: false };
        transfer.submit(&mut handle, request, std::iter::empty(), block).unwrap();
        fake::end_oldest(&end(0, 2, &[18, 1]));
        handle.handle_events(&mut Vec::new()).unwrap();
        let ended = transfer.take();
        assert_eq!(ended.actual_length, 2);
        assert_eq!(ended.block[..10], [0x80, 6, 0, 1, 0, 0, 18, 0, 18, 1]);
        arena.free(ended.block);
    }

    #[test]
    #[should_panic(expected = "wLength is larger than the buffer")]
    fn a_setup_packet_beyond_the_buffer_is_refused() {
        let (mut handle, mut transfer, mut arena) = open();
        let mut block = arena.alloc(8 + 18).unwrap();
        block[..8].copy_from_slice(&[0x80, 6, 0, 1, 0, 0, 19, 0]);
        let request = Request { kind: Kind::Control, endpoint: 0, length: 26, zero_packet: false };
        let _ = transfer.submit(&mut handle, request, std::iter::empty(), block);
    }

    #[test]
    #[should_panic(expected = "has not ended")]
    fn a_transfer_in_flight_keeps_its_buffer() {
        let (mut handle, mut transfer, mut arena) = open();
        let block = arena.alloc(512).unwrap();
        transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
        let _ = transfer.take();
    }

    #[test]
    fn a_transfer_dropped_in_flight_is_leaked_and_the_device_stays_open() {
        let (mut handle, mut transfer, mut arena) = open();
        let block = arena.alloc(512).unwrap();
        transfer.submit(&mut handle, BULK_IN, std::iter::empty(), block).unwrap();
        drop(transfer);
        drop((arena, handle));
        assert_eq!(fake::alive(), [1, 1, 1, 32768]);
        // The kernel may still write: the memory must be there.
        fake::end_oldest(&end(0, 512, &[7; 512]));
    }

    #[test]
    fn another_device_at_the_same_address_is_not_opened() {
        let other = DeviceId { id_product: 2, ..ID };
        assert!(matches!(DeviceHandle::open_blocking(other, 1), Err(Error::NoDevice)));
        assert_eq!(fake::alive(), [0; 4]);
    }

    /// libusb asks a device opened by a descriptor for its configuration.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_device_is_opened_by_its_descriptor_only_where_libusb_does_not_list_it() {
        drop(DeviceHandle::open_blocking(ID, 1).unwrap());
        assert_eq!(fake::wrapped(), 0);
        let unlisted = DeviceId { address: 3, ..ID };
        drop(DeviceHandle::open_blocking(unlisted, 1).unwrap());
        assert_eq!(fake::wrapped(), 1);
        fake::leave_out();
        drop(DeviceHandle::open_blocking(ID, 1).unwrap());
        assert_eq!(fake::wrapped(), 2);
        assert_eq!(fake::alive(), [0; 4]);
    }

    #[test]
    fn pollfds_are_listed_and_their_list_is_freed() {
        let (handle, _transfer, _arena) = open();
        let pollfds = handle.pollfds();
        assert_eq!(pollfds.len(), 1);
        assert_eq!((pollfds[0].fd, pollfds[0].events), (5, libc::POLLOUT));
    }
}
