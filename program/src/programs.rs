//! The programs of this machine with a file or a socket open, as the links in `/proc` tell: for a
//! user who has to end a program. Users see their own programs, and root sees all; another system
//! than Linux tells nothing.
//!
//! Contract: *blocks* for the file system; looks at [`PROCESSES_MAX`] processes at most. What
//! disappears meanwhile is left out.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::sorted::sort_by;
use crate::words::printable;

/// Processes looked at: as many as Linux has by default, with some to spare (`PID_MAX_DEFAULT` of
/// `include/linux/threads.h`).
const PROCESSES_MAX: usize = 1 << 16;

/// A running program.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Program {
    /// The process's number.
    pub(crate) pid: u32,
    /// The name, which the program chooses, without anything unprintable.
    pub(crate) name: String,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Open files with the programs that have them open.
pub(crate) struct OpenFiles(Vec<(String, Program)>);

impl OpenFiles {
    /// The open files that `is_wanted` wants, by their links in `proc`: paths, or `socket:[INODE]`.
    /// *Blocks.*
    pub(crate) fn read(proc: &Path, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut files = Vec::new();
        let entries = fs::read_dir(proc).into_iter().flatten().flatten();
        let processes = entries
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
        for (pid, process) in processes.take(PROCESSES_MAX) {
            let program = || Program { pid, name: name_of(&process) };
            let wanted = links_of(&process).filter(|link| is_wanted(link));
            files.extend(wanted.map(|link| (link, program())));
        }
        sort_by(&mut files, |(_, one), (_, other)| one.cmp(other));
        Self(files)
    }

    /// The programs with a file open, each once, by number.
    pub(crate) fn programs_with(&self, file: &str) -> Vec<&Program> {
        let has_open = self.0.iter().filter(|(link, _)| link == file);
        let mut programs: Vec<&Program> = has_open.map(|(_, program)| program).collect();
        programs.dedup();
        programs
    }
}

/// The open files of a process.
fn links_of(process: &Path) -> impl Iterator<Item = String> {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok())
}

fn name_of(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    if name.trim().is_empty() { "a program".to_owned() } else { printable(name.trim()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_with_a_file_are_found_by_their_descriptors() {
        let proc = tempfile::tempdir().unwrap();
        let node = "/dev/bus/usb/001/002";
        for (pid, name, link) in [
            ("812", "pcscd\n", "/dev/bus/usb/001/002"),
            ("99", "usb\u{1b}[2J\"er\"\n", "/dev/bus/usb/001/002"),
            ("7", "init\n", "/dev/bus/usb/001/003"),
            ("self", "list\n", "/dev/bus/usb/001/002"),
        ] {
            let process = proc.path().join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), name).unwrap();
            std::os::unix::fs::symlink("/dev/null", process.join("fd/0")).unwrap();
            for descriptor in ["fd/3", "fd/4"] {
                std::os::unix::fs::symlink(link, process.join(descriptor)).unwrap();
            }
        }
        let files = OpenFiles::read(proc.path(), |link| link.starts_with("/dev/bus/usb/"));
        let found: Vec<String> =
            files.programs_with(node).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["usb\\u{1b}[2J\"er\" (pid 99)", "pcscd (pid 812)"]);
        assert_eq!(files.programs_with("/dev/null").len(), 0, "not wanted");
        let nowhere = OpenFiles::read(&proc.path().join("nowhere"), |_| true);
        assert_eq!(nowhere.programs_with(node).len(), 0);
    }
}
