//! Servers with a capture of all URBs, for the rows that show the cost of a capture.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::rows::Medium;
use super::server::Server;

/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// The name of the thread that writes a capture.
pub(crate) const WRITER: &str = "capture";

/// A server with a capture in memory, and one with a capture on the disk. A server that drops
/// records warns, and the bench prints the warning: fewer records cost less.
pub(crate) struct Capturing {
    memory: Capture,
    disk: Capture,
}

/// A server with a capture in a folder of its own, which is gone with the server.
struct Capture {
    server: Option<Server>,
    folder: PathBuf,
}

/// Environment variables for a server.
pub(crate) type Environment = Vec<(&'static str, OsString)>;

impl Capturing {
    /// Starts the servers with some arguments, each with its environment; `disk` is a directory on
    /// the disk.
    pub(crate) fn start(
        arguments: &[String],
        disk: &Path,
        [of_memory, of_disk]: [Environment; 2],
    ) -> Result<Self, String> {
        let memory = Capture::start(arguments, Path::new(MEMORY), &of_memory)?;
        Ok(Self { memory, disk: Capture::start(arguments, disk, &of_disk)? })
    }

    pub(crate) fn server(&self, medium: Medium) -> &Server {
        let capture = match medium {
            Medium::Memory => &self.memory,
            Medium::Disk => &self.disk,
        };
        capture.server.as_ref().expect("the server runs until dropped")
    }
}

impl Capture {
    fn start(
        arguments: &[String],
        place: &Path,
        environment: &[(&str, OsString)],
    ) -> Result<Self, String> {
        let folder = place.join(format!("usbferry-bench-capture-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut capture = Self { server: None, folder };
        let file = capture.folder.join("bench.pcapng");
        let option = format!("--capture={}", file.display());
        let arguments: Vec<String> = arguments.iter().cloned().chain([option]).collect();
        capture.server = Some(Server::usbferry(&arguments, environment)?);
        Ok(capture)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        drop(self.server.take());
        // A folder left over is below target, or in memory.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
