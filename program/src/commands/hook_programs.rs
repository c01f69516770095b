//! The programs of hooks, looked at before the first event: a program that can't run is told to
//! whoever writes the rules, and not only to the log of a later day.
//!
//! Contract: *blocks* for the file system.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use crate::config::hooks::{Hook, Hooks};
use crate::words::{printable, reason};

/// A line for each program that can't run, without repetitions. *Blocks.*
pub(super) fn faults<'a>(hooks: impl IntoIterator<Item = &'a Hooks>) -> Vec<String> {
    let mut lines = Vec::new();
    for hooks in hooks {
        for hook in Hook::ALL {
            let path = hooks.get(hook).map(|program| &*program.path);
            let fault = path.and_then(|path| Some((path, fault(path)?)));
            let line = fault.map(|(path, fault)| {
                format!("the program of {}, {}, {fault}", hook.key(), printable(path))
            });
            lines.extend(line.filter(|line| !lines.contains(line)));
        }
    }
    lines
}

/// Why a program can't run, as far as the file tells.
fn fault(path: &str) -> Option<String> {
    /// The right to execute, of the owner, the group, or everybody.
    const EXECUTABLE: u32 = 0o111;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("does not exist".to_owned()),
        Err(error) => Some(format!("can't be looked at: {}", reason(&error))),
        Ok(file) if !file.is_file() => Some("is no file".to_owned()),
        Ok(file) if file.permissions().mode() & EXECUTABLE == 0 => {
            Some(format!("is not executable (chmod +x {})", printable(path)))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::hooks::Program;

    fn hooks(programs: &[(Hook, &str)]) -> Hooks {
        let mut hooks = Hooks::default();
        for &(hook, path) in programs {
            hooks.set(hook, Program { path: path.to_owned(), arguments: Vec::new() });
        }
        hooks
    }

    #[test]
    fn a_program_that_can_not_run_is_told_once() {
        let plain = tempfile::NamedTempFile::new().unwrap();
        let plain = plain.path().to_str().unwrap();
        let one = hooks(&[(Hook::Attach, "/nonexistent/x"), (Hook::Detach, "/bin/sh")]);
        let other = hooks(&[(Hook::Attach, "/nonexistent/x"), (Hook::Leave, plain)]);
        let directory = hooks(&[(Hook::Reset, "/")]);
        assert_eq!(
            faults([&one, &other, &directory]),
            [
                "the program of on-attach, /nonexistent/x, does not exist".to_owned(),
                format!("the program of on-leave, {plain}, is not executable (chmod +x {plain})"),
                "the program of on-reset, /, is no file".to_owned(),
            ]
        );
    }
}
