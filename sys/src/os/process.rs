//! Programs that this process has started: waiting for the end, and killing with descendants. And
//! this process itself, on its way into the background.

use std::io;
use std::mem::MaybeUninit;
use std::process::Child;

/// Goes on in a process of the background: without a terminal, in the root directory, with
/// `/dev/null` for input and output (daemon(3)). The calling process ends with exit code 0.
///
/// # Errors
/// This process has several threads, of which only the caller would go on; or the system has no
/// process left; or this is no Linux.
#[cfg(target_os = "linux")]
pub fn enter_background() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the program has several threads"));
    }
    // SAFETY: takes plain integers. There is no other thread whose locks would stay locked.
    match unsafe { libc::daemon(0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As above: Linux only.
///
/// # Errors
/// In any case.
#[cfg(not(target_os = "linux"))]
pub fn enter_background() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Waits until a child has ended, and leaves the child to be waited for: until then the system
/// gives the child's number, and the number of its group, to no other process. *Blocks.*
///
/// # Errors
/// The child was waited for already.
pub fn await_end(id: ChildId) -> io::Result<()> {
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        let number = id.0.cast_unsigned();
        // SAFETY: `info` is valid to write to, and nobody reads it.
        let code = unsafe { libc::waitid(libc::P_PID, number, info.as_mut_ptr(), flags) };
        if code == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Kills a child that leads a process group of its own, and everything else in the group. For a
/// child that was not waited for yet; of another child's number the system may have made another
/// use meanwhile.
pub fn kill_group(id: ChildId) {
    // SAFETY: sends a signal only. The number is greater than 1, so the signal goes to one group.
    unsafe { libc::kill(-id.0, libc::SIGKILL) };
}

/// The number of a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildId(libc::pid_t);

impl From<&Child> for ChildId {
    fn from(child: &Child) -> Self {
        let id = child.id().cast_signed();
        assert!(id > 1, "no child has the number of init, of no process, or of all");
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "starts programs")]
    fn a_child_is_awaited_and_still_to_be_waited_for() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let id = ChildId::from(&child);
        await_end(id).unwrap();
        await_end(id).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(await_end(id).is_err(), "nobody of that number is a child");
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts programs")]
    fn a_group_is_killed() {
        let mut sleeper = Command::new("/bin/sh");
        sleeper.args(["-c", "sleep 1000; exit 0"]).process_group(0);
        let mut child = sleeper.spawn().unwrap();
        kill_group(ChildId::from(&child));
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
