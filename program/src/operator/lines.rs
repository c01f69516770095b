//! Lines over a socket: each of bounded length, and each read or written within a time limit,
//! however often bytes come. A line may have file descriptors beside its bytes.
//!
//! Contract: *blocks*, until the time limit at most.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::descriptors::{receive, send};
use crate::words::{reason, seconds};

/// Bytes read at once.
const PART_LEN: usize = 4096;

/// The time for a line that finds room in a new socket in any case.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A socket for lines.
#[derive(Debug)]
pub(super) struct Lines {
    stream: UnixStream,
    /// Bytes read behind the last line.
    taken: Vec<u8>,
    /// Descriptors that came beside the bytes.
    descriptors: Vec<OwnedFd>,
    /// Bytes of the longest line.
    most: usize,
    timeout: Duration,
}

/// Why there is no line.
#[derive(Debug)]
pub enum LineError {
    /// The other side has closed the connection.
    Closed,
    /// The line has more bytes than this number.
    TooLong(usize),
    /// Nothing came, or nothing was taken, for this time.
    Late(Duration),
    /// The system's reason.
    Failed(io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed the connection"),
            Self::TooLong(most) => write!(f, "sent a line of more than {most} bytes"),
            Self::Late(time) => write!(f, "said nothing for {}", seconds(*time)),
            Self::Failed(error) => f.write_str(&reason(error)),
        }
    }
}

impl Lines {
    pub(super) const fn new(stream: UnixStream, most: usize, timeout: Duration) -> Self {
        Self { stream, taken: Vec::new(), descriptors: Vec::new(), most, timeout }
    }

    /// The next line, without its end. Descriptors that no line before has taken are kept for as
    /// long as bytes are that came with them: the system tells no closer to which line they
    /// belong. *Blocks.*
    ///
    /// # Errors
    /// The other side closes, sends too much, or takes too long.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, LineError> {
        let deadline = Instant::now() + self.timeout;
        if self.taken.is_empty() {
            self.descriptors.clear();
        }
        let mut looked_at = 0;
        loop {
            let end = self.taken[looked_at..].iter().position(|&byte| byte == b'\n');
            if let Some(end) = end.map(|end| looked_at + end).filter(|&end| end <= self.most) {
                let rest = self.taken.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.taken, rest);
                line.truncate(end);
                return Ok(line);
            }
            looked_at = self.taken.len();
            if looked_at > self.most {
                return Err(LineError::TooLong(self.most));
            }
            self.read_part(deadline)?;
        }
    }

    fn read_part(&mut self, deadline: Instant) -> Result<(), LineError> {
        let mut part = [0; PART_LEN];
        let timeout = self.left_until(deadline)?;
        self.stream.set_read_timeout(Some(timeout)).map_err(|error| self.failed(error))?;
        match receive(&self.stream, &mut part, &mut self.descriptors) {
            Ok(0) => Err(LineError::Closed),
            Ok(len) => {
                self.taken.extend_from_slice(&part[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The files that came beside the last line, or beside others that were read with it.
    pub(super) fn take_files(&mut self) -> Vec<File> {
        std::mem::take(&mut self.descriptors).into_iter().map(File::from).collect()
    }

    /// Writes a value as a line. *Blocks.*
    ///
    /// # Errors
    /// The other side closes, or takes too long.
    pub(super) fn write(&mut self, value: &impl Serialize) -> Result<(), LineError> {
        self.write_with(value, &[])
    }

    /// The same, with the descriptors of files beside the line.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub(super) fn write_with(
        &mut self,
        value: &impl Serialize,
        files: &[File],
    ) -> Result<(), LineError> {
        let mut beside: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let mut line = serde_json::to_vec(value).map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        let deadline = Instant::now() + self.timeout;
        let mut written = 0;
        while written < line.len() {
            let timeout = self.left_until(deadline)?;
            self.stream.set_write_timeout(Some(timeout)).map_err(|error| self.failed(error))?;
            match send(&self.stream, &line[written..], &beside) {
                Ok(len) => {
                    written += len;
                    beside.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Writes a value as a line within [`AT_ONCE`]: the last word to a peer whose connection then
    /// ends.
    pub(super) fn write_at_once(&mut self, value: &impl Serialize) {
        self.set_timeout(AT_ONCE);
        let _ = self.write(value);
    }

    /// Has reads and writes from now on take this time at most.
    pub(super) const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Whether the peer, of which nothing is expected, has closed its end. Never blocks.
    pub(super) fn is_left(&mut self) -> bool {
        let mut ignored = [0; PART_LEN];
        let _ = self.stream.set_nonblocking(true);
        let read = self.stream.read(&mut ignored);
        let _ = self.stream.set_nonblocking(false);
        match read {
            Ok(len) => len == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn left_until(&self, deadline: Instant) -> Result<Duration, LineError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(LineError::Late(self.timeout)) } else { Ok(left) }
    }

    fn failed(&self, error: io::Error) -> LineError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut, WouldBlock};
        match error.kind() {
            TimedOut | WouldBlock => LineError::Late(self.timeout),
            BrokenPipe | ConnectionReset | NotConnected => LineError::Closed,
            _ => LineError::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::thread;

    use super::*;

    fn pair(most: usize, timeout: Duration) -> (Lines, UnixStream) {
        let (stream, other) = UnixStream::pair().unwrap();
        (Lines::new(stream, most, timeout), other)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn lines_come_in_any_parts() {
        let (mut lines, mut other) = pair(10, LONG);
        other.write_all(b"one\ntwo\n\n0123456789\nthr").unwrap();
        for line in [&b"one"[..], b"two", b"", b"0123456789"] {
            assert_eq!(lines.read().unwrap(), line);
        }
        let writing = thread::spawn(move || {
            other.write_all(b"ee\nfo").unwrap();
            other.shutdown(Shutdown::Both).unwrap();
        });
        assert_eq!(lines.read().unwrap(), b"three");
        assert!(matches!(lines.read(), Err(LineError::Closed)));
        writing.join().unwrap();
    }

    #[test]
    fn files_are_for_the_line_that_takes_them() {
        let (mut lines, other) = pair(10, LONG);
        let file = File::open("/dev/null").unwrap();
        send(&other, b"one\n", &[]).unwrap();
        send(&other, b"two\n", &[file.as_fd()]).unwrap();
        assert_eq!(lines.read().unwrap(), b"one");
        assert_eq!(lines.read().unwrap(), b"two");
        assert_eq!(lines.take_files().len(), 1, "not lost with the line before");
        send(&other, b"three\n", &[file.as_fd()]).unwrap();
        assert_eq!(lines.read().unwrap(), b"three");
        send(&other, b"four\n", &[]).unwrap();
        assert_eq!(lines.read().unwrap(), b"four");
        assert!(lines.take_files().is_empty(), "beside another line");
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        for bytes in [&b"01234567890"[..], b"01234567890\n", &[b'x'; 5000]] {
            let (mut lines, mut other) = pair(10, LONG);
            other.write_all(bytes).unwrap();
            assert!(matches!(lines.read(), Err(LineError::TooLong(10))));
        }
    }

    #[test]
    fn a_silent_or_deaf_peer_is_late() {
        let time = Duration::from_millis(20);
        let (mut lines, mut other) = pair(10, time);
        other.write_all(b"abc").unwrap();
        assert!(matches!(lines.read(), Err(LineError::Late(late)) if late == time));
        // More than any socket has room for.
        assert!(matches!(lines.write(&"x".repeat(16 << 20)), Err(LineError::Late(_))));
        drop(other);
        assert!(matches!(lines.write(&"x"), Err(LineError::Closed)));
    }
}
