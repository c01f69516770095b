//! The programs that run at events of a device: the hooks of a rule.
//!
//! Contract: plain data.

/// An event of a device at which a program can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// A client gets the device.
    Attach,
    /// A client has given the device back.
    Detach,
    /// The device was plugged in.
    Arrive,
    /// The device was pulled out.
    Leave,
    /// A client has reset the device.
    Reset,
}

impl Hook {
    /// All events.
    pub const ALL: [Self; 5] = [Self::Attach, Self::Detach, Self::Arrive, Self::Leave, Self::Reset];

    /// The key of the event in the file.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Attach => "on-attach",
            Self::Detach => "on-detach",
            Self::Arrive => "on-arrive",
            Self::Leave => "on-leave",
            Self::Reset => "on-reset",
        }
    }
}

/// A program with arguments; no shell reads them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The path, absolute.
    pub path: String,
    /// The arguments behind the path.
    pub arguments: Vec<String>,
}

/// The hooks of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooks {
    programs: [Option<Program>; Hook::ALL.len()],
    /// A failure of the program of [`Hook::Attach`] refuses the import; so the client gets the
    /// device after the program's end.
    pub authorize: bool,
}

impl Hooks {
    /// The program of an event.
    #[must_use]
    pub const fn get(&self, hook: Hook) -> Option<&Program> {
        self.programs[hook as usize].as_ref()
    }

    /// Whether no event has a program.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.iter().all(Option::is_none)
    }

    /// Gives an event its program.
    pub fn set(&mut self, hook: Hook, program: Program) {
        self.programs[hook as usize] = Some(program);
    }
}
