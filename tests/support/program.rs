//! The program itself, run by a test: to its end, or as a server with its log. For the test
//! binaries about the program, beside `support`.
//!
//! Contract: tests only. A server is killed with its value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use usbferry::wire::types::BusId;

use crate::support::client::{MiniClient, import_bytes};
use crate::support::{DEADLINE, wait_until};

/// The program with arguments, both outputs kept, and no filter of the log from outside. Each
/// server has a socket of its own in the usual place, and so has no word for a second server.
pub(crate) fn usbferry(arguments: &[&str]) -> Command {
    static DIRECTORIES: AtomicU32 = AtomicU32::new(0);
    let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
    let name = format!("run-{}-{number}", std::process::id());
    let mut command = Command::new(env!("CARGO_BIN_EXE_usbferry"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command.env("RUNTIME_DIRECTORY", Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    output_of(usbferry(arguments))
}

/// Runs a command to its end.
pub(crate) fn output_of(mut command: Command) -> Output {
    let child = command.spawn().expect("it starts");
    let id = child.id().to_string();
    // A program that does not end is killed, and then fails its test by its status.
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if receiver.recv_timeout(DEADLINE).is_err() {
            signal("-KILL", &id);
        }
    });
    let output = child.wait_with_output().expect("it ends");
    sender.send(()).ok();
    guard.join().expect("no panic");
    output
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, id: &str) {
    let status = Command::new("kill").args([name, id]).status().expect("there is a kill");
    assert!(status.success(), "kill {name} {id}");
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A running server.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts `usbferry serve` and waits until the server listens. Without a `--listen` the server
    /// gets a port of its own.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_as(usbferry(&["serve"]), arguments)
    }

    /// The same by a command with the program as a part.
    pub(crate) fn start_as(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::start_listening(command)
    }

    /// The same by a whole command.
    pub(crate) fn start_listening(mut command: Command) -> Self {
        let mut running = Self::following(command.spawn().expect("it starts"));
        running.wait_for("listening on ");
        let line = running.lines_with("listening on ").remove(0);
        let (_, address) = line.split_once("listening on ").expect("it has it");
        running.address = address.parse().expect("an address");
        running
    }

    /// A server that may not listen yet, with its log kept from now on.
    pub(crate) fn following(mut child: Child) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, stderr) = (Arc::clone(&lines), child.stderr.take().expect("it is piped"));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self { child, lines, address: ([0, 0, 0, 0], 0).into() }
    }

    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits for `text` in the log.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        wait_until(text, || !self.lines_with(text).is_empty());
    }

    pub(crate) fn attach(&self, busid: &str) -> MiniClient {
        let busid = BusId::new(busid).expect("a busid");
        let mut attached = None;
        wait_until("the device is free", || {
            let mut client = MiniClient::connect(self.address);
            let is_attached = client.import(busid) == 0;
            attached = is_attached.then_some(client);
            is_attached
        });
        attached.expect("it is")
    }

    /// A client whose device is being opened.
    pub(crate) fn begin_attach(&self, busid: &str) -> MiniClient {
        let busid = BusId::new(busid).expect("a busid");
        let mut client = MiniClient::connect(self.address);
        client.send(&import_bytes(busid.as_wire()));
        // Another client now gets the answer "busy".
        wait_until("it is being opened", || MiniClient::connect(self.address).import(busid) == 2);
        client
    }

    /// Whether the reactor, the server's first thread, is waiting.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_asleep(&self) -> bool {
        let id = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/task/{id}/stat"));
        stat.expect("it runs").rsplit_once(") ").expect("a state").1.starts_with('S')
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(name, &self.child.id().to_string());
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the server in good order.
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where a test failed; nothing is left to be done otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
