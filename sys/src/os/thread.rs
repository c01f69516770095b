//! The name of a thread in the system's lists, such as those of `top -H`, and how the thread shares
//! the processors. Only Linux shows names that change.
//!
//! Contract: for the calling thread; nothing blocks or allocates.

/// Bytes of a name, with a NUL at the end (`TASK_COMM_LEN` of `include/linux/sched.h`).
#[cfg(target_os = "linux")]
const NAME_LEN: usize = 16;

/// Gives the calling thread another name, of which the system keeps 15 bytes.
pub fn rename(name: &str) {
    #[cfg(target_os = "linux")]
    {
        let mut bytes = [0; NAME_LEN];
        let len = name.len().min(NAME_LEN - 1);
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        set(&bytes);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Has the system end timed waits of the calling thread, and of threads started from now on, in
/// time (`PR_SET_TIMERSLACK`). Else Linux ends them up to 50 µs late, so that several waits end
/// together.
pub fn wake_on_time() {
    // SAFETY: the system reads a number of nanoseconds.
    #[cfg(all(target_os = "linux", not(miri)))]
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong)
    };
}

/// The shortest turn that a thread can ask for, in nanoseconds (`kernel/sched/syscalls.c`).
#[cfg(target_os = "linux")]
const TURN: u64 = 100_000;

/// How the system shares its processors with a thread (`struct sched_attr`, its first version).
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sharing {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// The length of a turn in nanoseconds, for the usual policy.
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short turns at the processor for the calling thread. A thread that is woken for a short
/// turn runs sooner, also before the thread that woke it, and gets no more of the processor for
/// that. Linux from 6.12 on (`sched_attr(2)`, `sched_runtime`); elsewhere, where the system
/// refuses, and for a thread with a policy of its own, all stays as before.
pub fn ask_for_short_turns() {
    #[cfg(target_os = "linux")]
    if let Some(sharing) =
        sharing().filter(|sharing| sharing.policy == libc::SCHED_OTHER.cast_unsigned())
    {
        share(&Sharing { runtime: TURN, ..sharing });
    }
}

/// How the system shares its processors with the calling thread.
#[cfg(target_os = "linux")]
fn sharing() -> Option<Sharing> {
    // Miri knows no policies.
    if cfg!(miri) {
        return None;
    }
    let mut sharing = Sharing::default();
    let size = size_of::<Sharing>();
    // SAFETY: the system writes integers, as many bytes as there is room for.
    let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut sharing, size, 0) };
    (code == 0).then_some(sharing)
}

/// Has the system share its processors with the calling thread in another way, if it does.
#[cfg(target_os = "linux")]
fn share(sharing: &Sharing) {
    // SAFETY: the system reads integers, and as many bytes as `size` says, which `sharing` has
    // set.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const *sharing, 0) };
}

/// Runs something while the calling thread has another name, which threads started meanwhile keep.
pub(crate) fn named<T>(name: &str, run: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    let before = get();
    rename(name);
    let result = run();
    #[cfg(target_os = "linux")]
    set(&before);
    result
}

#[cfg(target_os = "linux")]
fn set(name: &[u8; NAME_LEN]) {
    debug_assert_eq!(name[NAME_LEN - 1], 0, "a name ends");
    // Miri knows no names.
    if cfg!(miri) {
        return;
    }
    // SAFETY: the system reads a name of 16 bytes at most, up to the NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

#[cfg(target_os = "linux")]
fn get() -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    if cfg!(miri) {
        return name;
    }
    // SAFETY: the system writes 16 bytes, for which there is room.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn name() -> String {
        std::fs::read_to_string("/proc/thread-self/comm").expect("it runs").trim_end().to_owned()
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn a_thread_with_short_turns_is_as_before_in_all_else() {
        let before = sharing().expect("any thread may ask");
        ask_for_short_turns();
        let after = sharing().expect("any thread may ask");
        // Linux before 6.12 knows no lengths.
        let runtime = if before.runtime == 0 { 0 } else { TURN };
        assert_eq!(after, Sharing { runtime, ..before });
        assert!(after.size as usize == size_of::<Sharing>() && before.runtime != TURN);
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the system")]
    fn a_thread_has_another_name_for_a_while_or_from_now_on() {
        rename("usb 1-1.2.3.4.5.6.7");
        assert_eq!(name(), "usb 1-1.2.3.4.5");
        let inner = named("libusb", || std::thread::scope(|scope| scope.spawn(name).join()));
        assert_eq!(inner.expect("it reads a file"), "libusb");
        assert_eq!(name(), "usb 1-1.2.3.4.5");
    }
}
