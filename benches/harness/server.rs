//! The measured servers, as processes of their own.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use usbferry::limits::{DeviceLimits, SERVER_MEMORY};

/// The argument with which a bench is the ceiling's server instead.
pub(crate) const CEILING: &str = "--serve-ceiling";

/// A running server. Killed with the bench.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    /// The greatest number of devices attached at once.
    devices: Cell<usize>,
}

impl Server {
    /// The usbferry built for this bench, with arguments behind `serve` and environment variables.
    pub(crate) fn usbferry(
        arguments: &[String],
        environment: &[(&str, OsString)],
    ) -> Result<Self, String> {
        Self::build(Path::new(env!("CARGO_BIN_EXE_usbferry")), arguments, environment)
    }

    /// Any build of usbferry, started in the same way.
    pub(crate) fn build(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, OsString)],
    ) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self::start(command)
    }

    /// The least server there can be.
    pub(crate) fn ceiling() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg(CEILING);
        Self::start(command)
    }

    /// The bare server of a bench that has one, started by `argument`.
    #[allow(dead_code, reason = "not every bench has a bare server")]
    pub(crate) fn bare(argument: &str, environment: &[(&str, OsString)]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg(argument).envs(environment.iter().map(|(name, value)| (name, value)));
        Self::start(command)
    }

    /// Starts a server that says where it listens.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process =
            command.spawn().map_err(|error| format!("the server can't be started: {error}"))?;
        let stderr = process.stderr.take().ok_or("no pipe from the server")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let address = line.split_once("listening on ").map(|(_, address)| address.to_owned());
            said.push(line);
            address
        });
        // Warnings of the server belong to the results.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| is_warning(line)) {
                eprintln!("{line}");
            }
        });
        let server = Self { process, address: address.unwrap_or_default(), devices: Cell::new(0) };
        if server.address.is_empty() {
            return Err(format!("the server does not listen:\n{}", said.join("\n")));
        }
        Ok(server)
    }

    /// Bytes that the server may have taken after `devices` devices were attached at once, with
    /// default limits: memory of former devices may be kept for the next devices.
    pub(crate) fn memory_stated(&self, devices: usize) -> usize {
        self.devices.set(self.devices.get().max(devices));
        SERVER_MEMORY + self.devices.get() * DeviceLimits::default().memory_max()
    }

    /// Ends the server by a signal, and waits for the end.
    #[allow(dead_code, reason = "most benches kill their servers")]
    pub(crate) fn end(mut self) -> Result<(), String> {
        let terminate = format!("kill -TERM {}", self.pid());
        let sent = Command::new("sh").arg("-c").arg(terminate).status();
        let ended = sent.and_then(|_| self.process.wait());
        ended.map(drop).map_err(|error| error.to_string())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_warning(line: &str) -> bool {
    ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word))
}
