//! Linux's figures of a process in `/proc`. On other systems every figure is missing.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The resources used by a process up to some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads, in user mode and in the kernel.
    pub cpu: Duration,
    /// Voluntary and involuntary switches to other threads.
    pub switches: u64,
}

impl Usage {
    /// The resources used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// The resources used by a process, all living threads together.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    let mut usage = Usage::default();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let task = task.ok()?.path();
        let spent = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanoseconds = spent.split(' ').next()?.parse().ok()?;
        usage.cpu += Duration::from_nanos(nanoseconds);
        let status = fs::read_to_string(task.join("status")).ok()?;
        usage.switches += field(&status, "voluntary_ctxt_switches:")?;
        usage.switches += field(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Some(usage)
}

/// The resources used by the calling thread.
#[must_use]
pub fn own_cpu() -> Option<Duration> {
    let spent = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(spent.split(' ').next()?.parse().ok()?))
}

/// The memory of a process in bytes that is no file's. A file's pages, those of the program among
/// them, are shared by all processes that use the file: a process's part grows when another ends.
#[must_use]
pub fn memory(pid: u32) -> Option<u64> {
    let sums = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some((field(&sums, "Pss_Anon:")? + field(&sums, "Pss_Shmem:")?) * 1024)
}

/// The most memory a process had at once since [`reset_peak`], in bytes.
#[must_use]
pub fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(field(&status, "VmHWM:")? * 1024)
}

/// Starts looking for the most memory anew. Only for processes of one's own.
pub fn reset_peak(pid: u32) {
    // If the write fails, the peak is the peak of the process's whole life.
    let _ = fs::write(Path::new("/proc").join(pid.to_string()).join("clear_refs"), "5");
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
