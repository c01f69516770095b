//! A separate file, and so a separate process without other tests' allocations.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::hint::black_box;

/// Bytes of blocks that would go back to the system at once when freed.
fn mapped() -> usize {
    // SAFETY: only reads the allocator's counts.
    unsafe { libc::mallinfo2() }.hblkhd
}

#[test]
fn large_blocks_go_back_however_many_were_freed() {
    usbferry_sys::os::heap::return_large_blocks();
    let before = mapped();
    drop(black_box(vec![1u8; 16 << 20]));
    assert_eq!(mapped(), before, "it went back");
    let table = black_box(vec![0u8; 1 << 20]);
    assert!(mapped() >= before + table.len(), "it was kept and is cleared for the next one");
}
