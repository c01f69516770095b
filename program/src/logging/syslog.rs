//! The system's log: a socket that takes a line in each datagram (syslog(3)).
//!
//! Contract: a write may wait for the reader of the socket, hence for the log's thread only. Lines
//! that the system does not take are lost: nobody is left to be told.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// The socket of the system's log (`_PATH_LOG`).
const SOCKET: &str = "/dev/log";

/// Bytes of a line without an end that are kept; the rest of a longer line is a line of its own.
/// Readers of the socket take 8 KiB at most by default.
const LINE_LEN_MAX: usize = 8 << 10;

/// Sends lines to the system's log.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The begin of a line.
    line: Vec<u8>,
}

impl Default for Syslog {
    fn default() -> Self {
        Self::to(Path::new(SOCKET))
    }
}

impl Syslog {
    fn to(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None, line: Vec::new() }
    }

    /// Sends a line. The reader may have been started anew since the last line.
    fn send(&mut self) {
        let line = std::mem::take(&mut self.line);
        let is_sent = |socket: &UnixDatagram| socket.send(&line).is_ok();
        if line.is_empty() || self.socket.as_ref().is_some_and(is_sent) {
            return;
        }
        let socket = UnixDatagram::unbound().ok();
        self.socket = socket.filter(|socket| socket.connect(&self.path).is_ok());
        let _ = self.socket.as_ref().map(is_sent);
    }
}

impl Write for Syslog {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for part in text.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") || self.line.len() >= LINE_LEN_MAX {
                self.send();
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_datagram_and_a_new_reader_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog::to(&path);
        syslog.write_all(b"nobody reads this\n").unwrap();
        for _ in 0..2 {
            let reader = UnixDatagram::bind(&path).unwrap();
            for text in ["<30>one\n<30>t", "wo\n", "<30>three\n"] {
                syslog.write_all(text.as_bytes()).unwrap();
            }
            for expected in ["<30>one", "<30>two", "<30>three"] {
                let mut room = [0; 64];
                let len = reader.recv(&mut room).unwrap();
                assert_eq!(&room[..len], expected.as_bytes());
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
}
