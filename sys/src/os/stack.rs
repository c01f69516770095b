//! The stack of a thread that waits for long, behind calls that went deep.
//!
//! Contract: nothing blocks; nothing else of the thread is touched. Does nothing on systems other
//! than Linux, whose C library has no question for the place of a stack.

/// Gives the pages of the calling thread's stack that only finished calls have used back to the
/// system. Not for the main thread, whose stack the system makes as long as needed.
#[inline(never)]
pub fn give_back() {
    #[cfg(all(target_os = "linux", not(miri)))]
    if let Some(lowest) = lowest() {
        let here = 0_u8;
        let end = (&raw const here).addr().saturating_sub(MARGIN);
        let bytes = end.saturating_sub(lowest.addr());
        // SAFETY: bytes of this thread's stack, below every call that has not finished: the frames
        // of the calls made from here lie within the margin.
        unsafe { super::heap::give_back_bytes(lowest, bytes) };
    }
}

/// Bytes of stack for the calls that give the rest back.
#[cfg(all(target_os = "linux", not(miri)))]
const MARGIN: usize = 4096;

/// The lowest byte of the calling thread's stack.
#[cfg(all(target_os = "linux", not(miri)))]
fn lowest() -> Option<*mut u8> {
    use std::mem::MaybeUninit;
    use std::ptr;

    let mut attributes = MaybeUninit::uninit();
    // SAFETY: a question without an argument.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the calling thread lives, and there is room for the answer.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut lowest, mut len) = (ptr::null_mut(), 0);
    // SAFETY: the attributes were filled in above.
    let told =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut len) };
    // SAFETY: as above, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (told == 0).then_some(lowest.cast())
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use crate::os::heap::committed;

    const DEEP: usize = 256 << 10;

    /// Uses much of the stack, and tells the lowest byte used.
    #[inline(never)]
    fn go_deep() -> usize {
        let mut bytes = [0_u8; DEEP];
        std::hint::black_box(&mut bytes).fill(1);
        bytes.as_ptr().addr()
    }

    #[test]
    fn a_deep_call_leaves_no_pages_behind_and_the_next_finds_its_stack() {
        let thread = std::thread::Builder::new().stack_size(4 * DEEP);
        let both = thread.spawn(|| {
            let before: Vec<u64> = (0..100).collect();
            let lowest = go_deep();
            let used = committed(lowest as *const u8, DEEP);
            give_back();
            let left = committed(lowest as *const u8, DEEP);
            assert_eq!((before.iter().sum::<u64>(), go_deep()), (4950, lowest));
            (used, left)
        });
        let (used, left) = both.unwrap().join().unwrap();
        assert!(used >= DEEP && left < DEEP / 4, "{used} bytes, then {left}");
    }
}
