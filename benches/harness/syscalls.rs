//! System calls of a process, counted by `perf stat`: from outside, at next to no cost. Where perf
//! is not allowed or not there, there is no count, and the table says why.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How long perf may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The message for rows without a count.
pub(crate) const MISSING: &str = "\
sys is \"-\" where perf could not count: perf is not installed (on Debian: linux-perf), or may not trace
system calls, which mostly takes root.";

/// Counts the calls of a process between [`Counter::enable`] and [`Counter::disable`].
pub(crate) struct Counter {
    perf: Child,
    control: fs::File,
    answers: Receiver<String>,
    output: PathBuf,
}

impl Counter {
    /// Starts a paused count. `None` if counting is not possible here.
    pub(crate) fn start(pid: u32, scratch: &Path) -> Option<Self> {
        let [control, answers, output] =
            ["perf-control", "perf-answers", "perf-output"].map(|name| scratch.join(name));
        for path in [&control, &answers, &output] {
            let _ = fs::remove_file(path);
        }
        let made = Command::new("mkfifo").arg(&control).arg(&answers).status().ok()?;
        let perf = Command::new("perf")
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-D", "-1", "--control"])
            .arg(format!("fifo:{},{}", control.display(), answers.display()))
            .arg("-o")
            .arg(&output)
            .arg("-p")
            .arg(pid.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
            .filter(|_| made.success())?;
        // Opened for both directions, so that opening does not wait for the other side.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).ok();
        let lines = BufReader::new(open(&answers)?).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut counter = Self { perf, control: open(&control)?, answers: receiver, output };
        // The first answer proves that perf is running.
        (counter.enable() && counter.disable()).then_some(counter)
    }

    pub(crate) fn enable(&mut self) -> bool {
        self.tell("enable\n")
    }

    pub(crate) fn disable(&mut self) -> bool {
        self.tell("disable\n")
    }

    fn tell(&mut self, command: &str) -> bool {
        self.control.write_all(command.as_bytes()).is_ok()
            && self.answers.recv_timeout(PATIENCE).is_ok()
    }

    /// Ends counting: the calls.
    pub(crate) fn finish(mut self) -> Option<u64> {
        // perf writes its results on SIGINT.
        let interrupt = format!("kill -INT {}", self.perf.id());
        Command::new("sh").arg("-c").arg(interrupt).status().ok()?;
        self.perf.wait().ok()?;
        let output = fs::read_to_string(&self.output).ok()?;
        let line = output.lines().find(|line| line.contains("raw_syscalls"))?;
        line.split(',').next()?.parse().ok()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}
