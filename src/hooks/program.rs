//! One run of a program, from its start to its end or its killing.
//!
//! A thread waits for the program's end, since the standard library has no wait with a limit on
//! every system. The program is waited for in the system's sense only after the last signal to its
//! group: until then its number is no other process's.
//!
//! Contract: [`run`] blocks until the program has ended, or was killed.

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use usbferry_sys::os::process::{ChildId, await_end, kill_group};

use super::event::{self, Event};
use super::output::Output;
use crate::channel::{Receiver, Sender, channel};
use crate::complaints::info;
use crate::config::hooks::Program;
use crate::threads;
use crate::words::{reason, seconds};

/// Why a program did not do its work, or refuses an import.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It ended with an exit code other than 0.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was killed after its time.
    TimedOut(Duration),
    /// It was killed, this time after the request for whose answer it ran.
    Late(Duration),
    /// It was not started within this time after the request, because this number of others ran.
    Unstarted(Duration, usize),
    /// It can't be started.
    Start(io::Error),
    /// The server has ended before the program.
    Stopped,
    /// Too many events wait.
    Full,
    /// A bug in usbferry.
    Panicked,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::TimedOut(limit) => write!(f, "was killed after {limit:?}, the limit"),
            Self::Late(limit) => {
                let limit = seconds(*limit);
                write!(f, "was killed: no answer {limit} after the client's request, the limit")
            }
            Self::Unstarted(limit, others) => {
                let limit = seconds(*limit);
                write!(f, "could not be started within {limit}: {others} others run")
            }
            Self::Start(error) => write!(f, "can't be started: {}", reason(error)),
            Self::Stopped => f.write_str("was cut short by the end of the server"),
            Self::Panicked => f.write_str("met a bug in usbferry; the log has the panic"),
            Self::Full => f.write_str("was not started: too many events wait for programs"),
        }
    }
}

/// What a running program is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cue {
    /// It has ended.
    Ended,
    /// The program is to be killed: the server stops, or nobody waits for the answer.
    Kill,
}

/// The way by which a running program's cues come.
pub(super) type Cues = (Sender<Cue>, Receiver<Cue>);

/// Room for one of each cue.
pub(super) fn cues() -> Cues {
    channel(2)
}

/// Runs a program for an event, for `limit` at most, and logs what the program writes. The cues are
/// the program's own. *Blocks.*
///
/// # Errors
/// The program did not end well.
pub(super) fn run(
    program: &Program,
    event: &Event,
    limit: Duration,
    cues: &Cues,
) -> Result<(), Failure> {
    let title = format!("{}: {}", event.facts.name, event.kind.key());
    let (of_line, device) = (title.clone(), event.facts.busid);
    let tell = move |line: &str| info!(device:% = device; "{of_line}: {line}");
    let output = Output::new(tell).map_err(Failure::Start)?;
    let command = command(program, event, &output).map_err(Failure::Start)?;
    let ended = run_command(command, limit, cues);
    let left_out = output.end();
    if left_out > 0 {
        info!(device:% = device; "{title}: the program wrote {left_out} bytes more, left out here");
    }
    ended
}

/// Runs a command, and closes its descriptors here. *Blocks.*
fn run_command(
    mut command: Command,
    limit: Duration,
    (sender, cues): &Cues,
) -> Result<(), Failure> {
    let mut child = command.spawn().map_err(Failure::Start)?;
    drop(command);
    let id = ChildId::from(&child);
    let ended = sender.clone();
    let waiter = threads::start("hook", move || {
        let _ = await_end(id);
        let _ = ended.send(Cue::Ended);
    });
    let cut_short = match waiter {
        Ok(_) => wait(cues, limit),
        Err(error) => Some(Failure::Start(error)),
    };
    // Also the rest of the group of a program that has ended.
    kill_group(id);
    let status = reap(&mut child)?;
    cut_short.map_or_else(|| judge(status), Err)
}

/// A program in its world.
fn command(program: &Program, event: &Event, output: &Output) -> io::Result<Command> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments);
    for name in event::withheld() {
        command.env_remove(name);
    }
    command.envs(event.variables());
    command.stdin(Stdio::null()).stdout(output.stdio()?).stderr(output.stdio()?);
    command.current_dir("/").process_group(0);
    Ok(command)
}

/// Waits for the end of a program: `None` if the program has ended by itself.
fn wait(cues: &Receiver<Cue>, limit: Duration) -> Option<Failure> {
    match cues.recv_timeout(limit) {
        Ok(Cue::Ended) => None,
        Ok(Cue::Kill) | Err(RecvTimeoutError::Disconnected) => Some(Failure::Stopped),
        Err(RecvTimeoutError::Timeout) => Some(Failure::TimedOut(limit)),
    }
}

/// The status of a program that has ended or was killed.
fn reap(child: &mut Child) -> Result<ExitStatus, Failure> {
    child.wait().map_err(Failure::Start)
}

fn judge(status: ExitStatus) -> Result<(), Failure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Exit(code)),
        (None, signal) => Err(Failure::Signal(signal.unwrap_or_default())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::thread;
    use std::time::Instant;

    use super::super::event::tests::event;
    use super::*;
    use crate::config::hooks::Hook;

    /// Far beyond what any program here needs.
    const LONG: Duration = Duration::from_secs(60);

    /// A program of the shell.
    pub(in crate::hooks) fn script(text: &str, arguments: &[&str]) -> Program {
        let words = ["-c", text, "script"].into_iter().chain(arguments.iter().copied());
        let arguments = words.map(str::to_owned).collect();
        Program { path: "/bin/sh".to_owned(), arguments }
    }

    /// A folder that is removed with its files.
    pub(in crate::hooks) struct Folder(pub(in crate::hooks) PathBuf);

    impl Folder {
        pub(in crate::hooks) fn new(name: &str) -> Self {
            let name = format!("usbferry-hooks-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(in crate::hooks) fn path(&self, name: &str) -> String {
            self.0.join(name).to_str().unwrap().to_owned()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn run_for(program: &Program, limit: Duration) -> Result<(), Failure> {
        run(program, &event(Hook::Attach, "1-1"), limit, &cues())
    }

    fn failure(text: &str) -> String {
        run_for(&script(text, &[]), LONG).unwrap_err().to_string()
    }

    #[test]
    fn the_end_of_a_program_is_told_apart() {
        assert!(run_for(&script("exit 0", &[]), LONG).is_ok());
        assert_eq!(failure("exit 7"), "ended with exit code 7");
        assert_eq!(failure("kill -TERM $$"), "was ended by signal 15");
        let path = "/nonexistent/program".to_owned();
        let missing = Program { path, arguments: Vec::new() };
        let failure = run_for(&missing, LONG).unwrap_err().to_string();
        assert_eq!(failure, "can't be started: No such file or directory");
    }

    #[test]
    fn a_program_gets_the_facts_and_its_arguments() {
        let folder = Folder::new("facts");
        let file = folder.path("said");
        let text = "{ echo \"$1\"; pwd; cat; env | grep ^USBFERRY_ | sort; } > \"$2\"";
        run_for(&script(text, &["a  b; exit 1", &file]), LONG).unwrap();
        let said = fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..3], ["a  b; exit 1", "/", "USBFERRY_BUSID=1-1"]);
        assert!(lines.contains(&"USBFERRY_SERIAL=4C53; rm -rf /$(reboot)"), "{said}");
        assert_eq!(lines.len(), 13, "{said}");
    }

    #[test]
    fn a_program_may_write_however_much() {
        let text = "head -c 10000000 /dev/zero && yes | head -n 1000000 >&2 && echo end > \"$1\"";
        let folder = Folder::new("output");
        let file = folder.path("end");
        run_for(&script(text, &[&file]), LONG).unwrap();
        assert!(fs::exists(file).unwrap());
    }

    #[test]
    fn a_program_beyond_its_time_is_killed_with_its_children() {
        let folder = Folder::new("time");
        let file = folder.path("child");
        let text = "sleep 1000 & echo $! > \"$1.part\"; mv \"$1.part\" \"$1\"; wait";
        let program = script(text, &[&file]);
        let ended = {
            let cues = cues();
            let kill = cues.0.clone();
            let wait = file.clone();
            // Once the child is there, the time is up.
            let killer = thread::spawn(move || {
                while !Path::new(&wait).exists() {
                    thread::sleep(Duration::from_millis(1));
                }
                kill.send(Cue::Kill).unwrap();
            });
            let ended = run(&program, &event(Hook::Attach, "1-1"), LONG, &cues);
            killer.join().unwrap();
            ended
        };
        assert!(matches!(ended, Err(Failure::Stopped)), "{ended:?}");
        assert_gone(&fs::read_to_string(file).unwrap());
        let ended = run_for(&script("sleep 1000", &[]), Duration::from_millis(20));
        assert!(matches!(ended, Err(Failure::TimedOut(_))), "{ended:?}");
    }

    #[test]
    fn a_program_leaves_nothing_of_its_group_behind() {
        let folder = Folder::new("rest");
        let file = folder.path("child");
        run_for(&script("sleep 1000 & echo $! > \"$1\"", &[&file]), LONG).unwrap();
        assert_gone(&fs::read_to_string(file).unwrap());
    }

    /// Waits until a process is gone, or a corpse that its new parent has not buried yet.
    fn assert_gone(id: &str) {
        let id = id.trim();
        let is_there = || {
            let ps = Command::new("ps").args(["-o", "stat=", "-p", id]).output().unwrap();
            let state = String::from_utf8(ps.stdout).unwrap();
            !state.trim().is_empty() && !state.starts_with('Z')
        };
        let deadline = Instant::now() + LONG;
        while is_there() {
            assert!(Instant::now() < deadline, "{id} is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
