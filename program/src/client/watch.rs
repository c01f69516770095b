//! The watch of a device ([`crate::wire::watch`]): a server with this extension says when the
//! device can be imported again.
//!
//! Contract: opening *blocks*, for [`WATCH_TIMEOUT`] at most beside the look-up of a name. Taking
//! news never blocks. A server's bytes are of fixed lengths, and at most [`TAKEN_MAX`] are read at
//! once.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use super::error::{ClientError, Trouble};
use super::server::Server;
use super::stream::{Limited, is_closed};
use crate::limits::{PEER_TIMEOUT_DEFAULT, WATCH_TIMEOUT};
use crate::sockets;
use crate::wire::op::{Refusal, Request};
use crate::wire::types::BusId;
use crate::wire::watch::{NOTICE_LEN, parse_notice, parse_version};

/// Bytes that one look at the news takes: a server that floods its client with news gets no more
/// attention than any other.
const TAKEN_MAX: usize = 64 * NOTICE_LEN;

/// A connection that tells of a device.
#[derive(Debug)]
pub struct Watch {
    stream: TcpStream,
    /// The start of a notice, of which more bytes follow.
    partial: Vec<u8>,
}

impl Watch {
    /// Asks a server for news of a device. *Blocks.*
    ///
    /// # Errors
    /// The server can't be reached, refuses, or knows no watch.
    pub fn open(server: &Server, name: BusId) -> Result<Self, ClientError> {
        Self::ask(server, name).map_err(|trouble| server.error(trouble))
    }

    fn ask(server: &Server, name: BusId) -> Result<Self, Trouble> {
        let stream = begin(server, name)?.into_stream()?;
        sockets::prepare(&stream, PEER_TIMEOUT_DEFAULT);
        stream.set_nonblocking(true).map_err(Trouble::Failed)?;
        Ok(Self { stream, partial: Vec::with_capacity(NOTICE_LEN) })
    }

    /// Takes the newest notice that has arrived: whether the device can be imported. `None` without
    /// a new notice.
    ///
    /// # Errors
    /// The server has closed the watch, or the connection failed.
    pub fn news(&mut self) -> Result<Option<Result<(), Refusal>>, Trouble> {
        let mut bytes = [0; TAKEN_MAX];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Trouble::Closed),
            Ok(len) => Ok(self.newest(&bytes[..len])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) if is_closed(&error) => Err(Trouble::Closed),
            Err(error) => Err(Trouble::Failed(error)),
        }
    }

    fn newest(&mut self, bytes: &[u8]) -> Option<Result<(), Refusal>> {
        self.partial.extend_from_slice(bytes);
        let (notices, _) = self.partial.as_chunks::<NOTICE_LEN>();
        let newest = notices.last().copied();
        self.partial.drain(..notices.len() * NOTICE_LEN);
        newest.map(parse_notice)
    }
}

/// Asks a server whether a device can be imported now. *Blocks*, as opening does.
///
/// # Errors
/// As [`Watch::open`].
pub fn prospect(server: &Server, name: BusId) -> Result<Result<(), Refusal>, ClientError> {
    let notice = begin(server, name).and_then(|mut stream| stream.part());
    notice.map(parse_notice).map_err(|trouble| server.error(trouble))
}

/// Begins a watch.
fn begin(server: &Server, name: BusId) -> Result<Limited, Trouble> {
    let mut stream = Limited::connect(server, WATCH_TIMEOUT)?;
    stream.ask(Request::Watch, &[])?;
    parse_version(stream.part()?).map_err(Trouble::Protocol)?;
    stream.write_all(name.as_wire()).map_err(Trouble::Failed)?;
    Ok(stream)
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wire::op::OpStatus;
    use crate::wire::watch::{NAME_LEN, hello, notice};

    /// A watch of `desk`, at a server that reads the request, does the rest and closes.
    fn opened(
        rest: impl FnOnce(TcpStream) + Send + 'static,
    ) -> (Result<Watch, ClientError>, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, Request::Watch.to_bytes());
            rest(stream);
        });
        (Watch::open(&server, BusId::new("desk").unwrap()), serving)
    }

    /// The next news, which is on its way.
    fn next(watch: &mut Watch) -> Result<Result<(), Refusal>, Trouble> {
        loop {
            match watch.news() {
                Ok(None) => thread::yield_now(),
                Ok(Some(news)) => return Ok(news),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    #[test]
    fn news_arrive_whole_and_the_newest_counts() {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (watch, serving) = opened(move |mut stream| {
            stream.write_all(&hello()).unwrap();
            let mut name = [0; NAME_LEN];
            stream.read_exact(&mut name).unwrap();
            assert_eq!(BusId::from_wire(&name), BusId::new("desk").unwrap());
            stream.write_all(&notice(OpStatus::NoDevice)).unwrap();
            gone.recv().unwrap();
            let both = [notice(OpStatus::DeviceBusy), notice(OpStatus::Ok)].concat();
            stream.write_all(&[&both[..], &[0, 0]].concat()).unwrap();
            gone.recv().unwrap();
            stream.write_all(&[0, 2]).unwrap();
        });
        let mut watch = watch.unwrap();
        assert_eq!(next(&mut watch).unwrap(), Err(Refusal::NO_DEVICE));
        go.send(()).unwrap();
        assert_eq!(next(&mut watch).unwrap(), Ok(()));
        go.send(()).unwrap();
        assert_eq!(next(&mut watch).unwrap(), Err(Refusal::BUSY));
        serving.join().unwrap();
        assert!(matches!(next(&mut watch), Err(Trouble::Closed)));
    }

    /// As usbipd does, as wireless-esp8266-dap does at most, and as another version might.
    #[test]
    fn a_server_without_watches_is_told_at_once() {
        let (watch, serving) = opened(drop);
        assert!(matches!(watch.unwrap_err().trouble, Trouble::Closed));
        serving.join().unwrap();
        let (watch, serving) = opened(|mut stream| {
            stream.write_all(&[0x01, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        });
        assert!(matches!(watch.unwrap_err().trouble, Trouble::Protocol(_)));
        serving.join().unwrap();
        let (watch, serving) = opened(|mut stream| {
            stream.write_all(&crate::wire::watch::refusal(OpStatus::NotAvailable)).unwrap();
        });
        assert_eq!(watch.unwrap_err().refusal(), Some(Refusal(1)));
        serving.join().unwrap();
    }
}
