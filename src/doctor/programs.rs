//! The programs that have a file or a socket open, by the links in `/proc`.
//!
//! Contract: reads directories: those of every process, of other users' as far as permitted.

use std::fmt;

use super::machine::Machine;

/// A program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) id: u32,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.id)
    }
}

/// Open files of all processes, as far as this process may see them.
pub(super) struct OpenFiles(Vec<(String, Program)>);

impl OpenFiles {
    /// Reads the links that `is_wanted` wants.
    pub(super) fn read(machine: &Machine, is_wanted: impl Fn(&str) -> bool) -> Self {
        let mut files = Vec::new();
        let ids = machine.names("/proc");
        for id in ids.iter().filter_map(|name| name.parse::<u32>().ok()) {
            let folder = format!("/proc/{id}/fd");
            let links = machine.names(&folder).into_iter();
            let links = links.filter_map(|name| machine.link(&format!("{folder}/{name}")));
            let program = || Program { name: name_of(machine, id), id };
            files.extend(links.filter(|link| is_wanted(link)).map(|link| (link, program())));
        }
        Self(files)
    }

    /// The programs with a file open, each once.
    pub(super) fn programs_with(&self, file: &str) -> Vec<&Program> {
        let mut programs: Vec<&Program> =
            self.0.iter().filter(|(link, _)| link == file).map(|(_, program)| program).collect();
        programs.dedup();
        programs
    }
}

/// A program's name, which the program chooses.
fn name_of(machine: &Machine, id: u32) -> String {
    let name = machine.text(&format!("/proc/{id}/comm")).unwrap_or_else(|| "?".to_owned());
    name.escape_debug().to_string()
}

/// Programs in a list, with commas.
pub(super) fn listed(programs: &[&Program]) -> String {
    programs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
