//! Blocks of the heap in a program that is linked as `usbferry` is. A single test: the numbers of
//! the C library are the process's, whose other threads allocate less than a block meanwhile.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::ffi::c_void;
use std::slice;
use std::thread;

use usbferry_wraps::blocks::{self, BLOCK_LEN_MAX, BLOCKS_MAX, SIZES};

/// A length of which the C library itself keeps no block at hand: freed bytes are free at once.
const LEN: usize = 1592;

/// As many bytes as glibc has in a block for [`LEN`], with its header.
const WHOLE: usize = 1600;

/// Bytes of the heap that are in use, as the C library says.
fn used() -> usize {
    // SAFETY: a question without a pointer.
    unsafe { libc::mallinfo2() }.uordblks
}

/// Zeroed blocks, which are then written to.
fn allocate(count: usize, len: usize) -> Vec<*mut c_void> {
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: the lengths are not zero.
        let block = unsafe { libc::calloc(1, len) };
        assert!(!block.is_null());
        // SAFETY: a block of so many bytes, which nobody else knows.
        let bytes = unsafe { slice::from_raw_parts_mut(block.cast::<u8>(), len) };
        assert!(bytes.iter().all(|&byte| byte == 0), "the block is zeroed");
        bytes.fill(0xa5);
        blocks.push(block);
    }
    blocks
}

fn free(blocks: impl IntoIterator<Item = *mut c_void>) {
    for block in blocks {
        // SAFETY: from `calloc` or `realloc`, and freed once.
        unsafe { libc::free(block) };
    }
}

/// Bytes by which the heap in use grows when blocks are allocated and freed. The C library keeps
/// a small list of addresses, too, which counts as used.
fn growth(count: usize, len: usize) -> usize {
    let before = used();
    free(allocate(count, len));
    used() - before
}

/// Has all kept blocks in use at once; returns by how many bytes the heap grew meanwhile.
fn reuse_all() -> usize {
    let before = used();
    let mut blocks = allocate(BLOCKS_MAX / 2, LEN);
    blocks.extend(allocate(BLOCKS_MAX / 2, LEN - 8));
    let growth = used() - before;
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), BLOCKS_MAX, "no block was given twice");
    free(blocks);
    growth
}

#[test]
fn freed_blocks_are_kept_by_one_thread_and_come_back_zeroed() {
    // Nobody keeps blocks yet.
    assert!(growth(3, LEN) < WHOLE);

    blocks::keep();
    // Requests of bulk URBs and of URBs with a power of two of isochronous packets are kept beside
    // each other: 56 bytes, and 12 for each packet.
    let lens = [0, 1, 2, 4, 8, 16, 32, 64, 128].map(|packets| 56 + 12 * packets);
    let one_of_each = || lens.map(|len| allocate(1, len)[0]);
    let kept = one_of_each();
    free(kept);
    let again = one_of_each();
    assert_eq!(again, kept);
    free(again);

    // Blocks of a length that is used no more give way to those of another in the same place.
    let in_use = allocate(1, LEN);
    free(allocate(3, LEN - SIZES * 16));
    free(in_use);
    for _ in 0..3 {
        free(allocate(1, LEN));
    }

    // No more than `BLOCKS_MAX` are kept.
    assert_eq!(growth(BLOCKS_MAX + 44, LEN) / WHOLE, BLOCKS_MAX - 1);
    // They are used again, as zeroes, and kept again; a shorter length of the same block, too. The
    // first time, the C library keeps the memory of lists.
    reuse_all();
    let before = used();
    let more = reuse_all();
    assert!(more < 3 * WHOLE, "the blocks are those that were kept, and the list of addresses");
    assert!(used().abs_diff(before) < WHOLE, "all blocks are kept again");

    // A block may grow, and go to another thread; what grew too long is not kept.
    let [block] = allocate(1, LEN)[..] else { panic!("a block") };
    // SAFETY: a block in use, which goes on by its new address.
    let block = unsafe { libc::realloc(block, 2 * BLOCK_LEN_MAX) };
    // SAFETY: the bytes of the old block are in the new.
    assert_eq!(unsafe { *block.cast::<u8>() }, 0xa5);
    free(vec![block]);
    let address = allocate(1, LEN)[0].addr();
    let freed = thread::spawn(move || free(vec![std::ptr::with_exposed_provenance_mut(address)]));
    freed.join().unwrap();
    let lists = more;
    let missing = reuse_all() - lists + WHOLE / 2;
    assert_eq!(missing / WHOLE, 2, "blocks of those kept that were gone");

    // Other threads and long blocks have the C library's functions.
    let growth_elsewhere = || {
        blocks::keep();
        growth(3, LEN)
    };
    assert!(thread::spawn(growth_elsewhere).join().unwrap() < WHOLE);
    assert!(growth(3, BLOCK_LEN_MAX + 8) < WHOLE);
    // SAFETY: an amount that does not exist is refused.
    assert!(unsafe { libc::calloc(usize::MAX / 2, 4) }.is_null());
    // SAFETY: no block.
    unsafe { libc::free(std::ptr::null_mut()) };
}
