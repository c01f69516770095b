//! The programs of this machine with a file open, as `/proc` tells: for a user who has to end a
//! program. Users see their own programs, and root sees all; another system than Linux tells
//! nothing.
//!
//! Contract: *blocks* for the file system. What disappears meanwhile is left out.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::words::printable;

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
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// The programs with `file` open, by number. *Blocks.*
pub(crate) fn with_open(file: &Path) -> Vec<Program> {
    with_open_in(Path::new("/proc"), file)
}

fn with_open_in(proc: &Path, file: &Path) -> Vec<Program> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let of_process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let has_open = has_open(&entry.path(), file);
        has_open.then(|| Program { pid, name: name_of(&entry.path()) })
    };
    let mut programs: Vec<Program> = entries.filter_map(of_process).collect();
    programs.sort();
    programs
}

fn has_open(process: &Path, file: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.map(|entry| fs::read_link(entry.path())).any(|link| link.is_ok_and(|to| to == file))
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
        let node = Path::new("/dev/bus/usb/001/002");
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
            std::os::unix::fs::symlink(link, process.join("fd/3")).unwrap();
        }
        let found: Vec<String> =
            with_open_in(proc.path(), node).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["usb\\u{1b}[2J\"er\" (99)", "pcscd (812)"]);
        assert_eq!(with_open_in(&proc.path().join("nowhere"), node), []);
    }
}
