//! What becomes of memory that is freed.

/// Has the allocator give large blocks back to the system when they are freed. To be called once,
/// before there are threads.
///
/// glibc learns from large blocks that are freed to keep such blocks (mallopt(3)). A device's tables
/// would then be cleared when the next device gets them, which commits all of their memory, where
/// new memory is committed as it is used. Allocators of other systems do not learn.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number in the allocator, under its lock: the one it starts with, which then
    // stays. Where that is refused, all is as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}
