//! Handles, transfers and device memory together, on the fake libusb.

use libusb1_sys::constants as c;

use crate::arena::{Arena, Block, DEVICE_BLOCK_MIN};
use crate::libusb::device::{AheadContext, DeviceId};
use crate::libusb::error::{Error, TransferStatus};
use crate::libusb::fake::{self, End};
use crate::libusb::handle::DeviceHandle;
use crate::libusb::pass::Pass;
use crate::libusb::transfer::{Parameters, Transfer, TransferKind};

const ID: DeviceId = DeviceId { bus: 1, address: 2, id_vendor: 0x1209, id_product: 1 };

fn open() -> (DeviceHandle, Transfer, Arena) {
    let handle = DeviceHandle::open_blocking(ID, 4, None).unwrap();
    let transfer = Transfer::new(&handle, 3).unwrap();
    let mut arena = Arena::new();
    arena.add_heap(8192).unwrap();
    arena.add_device_memory(handle.map_memory_blocking(32768).unwrap()).unwrap();
    (handle, transfer, arena)
}

const BULK_IN: Parameters =
    Parameters { kind: TransferKind::Bulk, endpoint: 0x81, length: 512, zero_packet: false };

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
        handle.handle_events(Pass::Everything, &mut completed).unwrap();
        assert_eq!(completed, [], "nothing has ended yet");
        fake::end_oldest(&end(0, 3, &[round, 2, 3]));
        handle.handle_events(Pass::Everything, &mut completed).unwrap();
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
    let parameters = Parameters {
        kind: TransferKind::Isochronous,
        endpoint: 0x85,
        length: 600,
        zero_packet: false,
    };
    let block = arena.alloc(600).unwrap();
    transfer.submit(&mut handle, parameters, [100, 200, 300].into_iter(), block).unwrap();
    assert_eq!(fake::oldest().4, [100, 200, 300]);
    fake::end_oldest(&End { packets: vec![(100, 0), (50, 0), (0, 1)], ..end(0, 0, &[]) });
    handle.handle_events(Pass::Everything, &mut Vec::new()).unwrap();
    arena.free(transfer.take().block);
    assert_eq!(transfer.packet(0), (100, TransferStatus::Completed));
    assert_eq!(transfer.packet(1), (50, TransferStatus::Completed));
    assert_eq!(transfer.packet(2), (0, TransferStatus::Error));
    assert!(transfer.packets(3).eq((0..3).map(|index| transfer.packet(index))));
    assert_eq!(transfer.packets(0).len(), 0);
}

#[test]
fn an_unreported_packet_has_failed() {
    let (mut handle, mut transfer, mut arena) = open();
    let parameters = Parameters {
        kind: TransferKind::Isochronous,
        endpoint: 0x85,
        length: 10,
        zero_packet: false,
    };
    let block = arena.alloc(10).unwrap();
    transfer.submit(&mut handle, parameters, [10].into_iter(), block).unwrap();
    fake::end_oldest(&end(1, 0, &[]));
    handle.handle_events(Pass::Everything, &mut Vec::new()).unwrap();
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
    handle.handle_events(Pass::Everything, &mut Vec::new()).unwrap();
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
    handle.handle_events(Pass::Everything, &mut completed).unwrap();
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
    handle.handle_events(Pass::Everything, &mut completed).unwrap();
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
    let parameters =
        Parameters { kind: TransferKind::Control, endpoint: 0, length: 26, zero_packet: false };
    transfer.submit(&mut handle, parameters, std::iter::empty(), block).unwrap();
    fake::end_oldest(&end(0, 2, &[18, 1]));
    handle.handle_events(Pass::Everything, &mut Vec::new()).unwrap();
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
    let parameters =
        Parameters { kind: TransferKind::Control, endpoint: 0, length: 26, zero_packet: false };
    let _ = transfer.submit(&mut handle, parameters, std::iter::empty(), block);
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
    assert!(matches!(DeviceHandle::open_blocking(other, 1, None), Err(Error::NoDevice)));
    assert_eq!(fake::alive(), [0; 4]);
}

/// libusb asks a device opened by a descriptor for its configuration.
#[test]
#[cfg(target_os = "linux")]
fn a_device_is_opened_by_its_descriptor_only_where_libusb_does_not_list_it() {
    drop(DeviceHandle::open_blocking(ID, 1, None).unwrap());
    assert_eq!(fake::wrapped(), 0);
    let unlisted = DeviceId { address: 3, ..ID };
    drop(DeviceHandle::open_blocking(unlisted, 1, None).unwrap());
    assert_eq!(fake::wrapped(), 1);
    fake::leave_out();
    drop(DeviceHandle::open_blocking(ID, 1, None).unwrap());
    assert_eq!(fake::wrapped(), 2);
    assert_eq!(fake::alive(), [0; 4]);
}

#[test]
fn a_context_made_ahead_is_used_and_a_device_missing_in_its_list_gets_a_new_context() {
    let ahead = AheadContext::new_blocking().unwrap();
    let handle = DeviceHandle::open_blocking(ID, 1, Some(ahead)).unwrap();
    assert_eq!(fake::alive(), [1, 1, 0, 0], "no second context");
    drop(handle);
    let ahead = AheadContext::new_blocking().unwrap();
    let unlisted = DeviceId { address: 3, ..ID };
    let opened = DeviceHandle::open_blocking(unlisted, 1, Some(ahead));
    assert_eq!(fake::alive()[0], usize::from(opened.is_ok()), "the first context is closed");
    #[cfg(target_os = "linux")]
    assert_eq!(fake::wrapped(), 1);
    drop(opened);
    assert_eq!(fake::alive(), [0; 4]);
}

/// Where libusb hears of no changes, its list may be older than the device.
#[test]
fn a_context_made_ahead_with_another_device_in_the_place_is_not_used() {
    let mut ahead = AheadContext::new_blocking().unwrap();
    ahead.take_news();
    let other = DeviceId { id_product: 2, ..ID };
    assert!(matches!(DeviceHandle::open_blocking(other, 1, Some(ahead)), Err(Error::NoDevice)));
    assert_eq!((fake::alive(), fake::made_contexts()), ([0; 4], 2));
}

/// The packets that there is room for grow to a power of two, and a transfer made larger is the
/// only one of its slot.
#[test]
fn room_for_packets_comes_with_the_first_use_and_stays() {
    let (mut handle, mut transfer, mut arena) = open();
    let mut completed = Vec::with_capacity(4);
    for (packets, made) in [(3, 2), (4, 2), (2, 2), (5, 3), (8, 3)] {
        let token = transfer.cancel_token();
        let block = arena.alloc(512).unwrap();
        let parameters = Parameters { kind: TransferKind::Isochronous, length: packets, ..BULK_IN };
        transfer.submit(&mut handle, parameters, std::iter::repeat_n(1, packets), block).unwrap();
        drop(token);
        assert_eq!((fake::alive()[2], fake::made_transfers()), (1, made), "{packets}");
        fake::end_oldest(&end(0, 0, &[]));
        handle.handle_events(Pass::Everything, &mut completed).unwrap();
        arena.free(transfer.take().block);
    }
}

#[test]
fn pollfds_are_listed_and_their_list_is_freed() {
    let (handle, _transfer, _arena) = open();
    let pollfds = handle.pollfds();
    assert_eq!(pollfds.len(), 1);
    assert_eq!((pollfds[0].fd, pollfds[0].events), (5, libc::POLLOUT));
}
