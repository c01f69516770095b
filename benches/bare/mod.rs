//! A bare USB/IP server: the plainest correct server on `usbferry-sys`, the peer that the benches
//! compare usbferry with. A single loop reads, submits, handles libusb's events and writes.
//!
//! The server has every transfer type, UNLINK, and the requests that the server's host performs
//! (SET_CONFIGURATION, SET_INTERFACE, CLEAR_HALT, reset). The server lacks everything else that
//! usbferry has: limits, rules, barriers behind special requests, threads for calls that block, a
//! device handed on to the next client, memory that is given back, statistics, captures. Memory is
//! allocated as needed.
//!
//! - [`session`]: a client with its device; - [`port`]: an open device and its transfers;
//! - [`found`]: devices in sysfs; - [`out`]: replies on their way.
//!
//! Contract: a single thread, which may block in calls to a device. A client that breaks the
//! protocol loses its connection. Only for the benches: nothing here limits a client.

mod found;
mod out;
mod port;
mod session;

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use usbferry::reactor::prepare_socket;

use session::{Session, Turn};

/// The argument with which a bench is the bare server instead; an address other than 127.0.0.1 may
/// follow.
pub(crate) const BARE: &str = "--serve-bare";

const LISTENER: Token = Token(usize::MAX);

/// Tokens of a session: the socket, and all descriptors of its device.
const TOKENS: usize = 2;

/// Serves at an address until the process is killed; says first on which port.
pub(crate) fn serve(address: Ipv4Addr) -> io::Result<()> {
    usbferry_sys::os::limit::raise_open_files()?;
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind((address, 0).into())?;
    // Clients inherit the listener's options.
    prepare_socket(&listener, usbferry::limits::PEER_TIMEOUT_DEFAULT, None);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    eprintln!("listening on {}", listener.local_addr()?);
    Server { poll, listener, sessions: Vec::new(), ready: Vec::new() }.run()
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    sessions: Vec<Option<Session>>,
    /// Sessions with more to do at once.
    ready: Vec<usize>,
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = if self.ready.is_empty() { None } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let (index, part) = (event.token().0 / TOKENS, event.token().0 % TOKENS);
                let Some(Some(session)) = self.sessions.get_mut(index) else { continue };
                match part {
                    0 => session.note(event),
                    _ => session.note_device(),
                }
                self.note_ready(index);
            }
            for index in std::mem::take(&mut self.ready) {
                self.serve(index);
            }
        }
    }

    fn note_ready(&mut self, index: usize) {
        if !self.ready.contains(&index) {
            self.ready.push(index);
        }
    }

    fn serve(&mut self, index: usize) {
        let Some(mut session) = self.sessions[index].take() else { return };
        let busy = |busid: &str| {
            let others = self.sessions.iter().flatten();
            others.filter_map(Session::busid).any(|other| other == busid)
        };
        let turn = session.serve(self.poll.registry(), Token(TOKENS * index + 1), busy);
        if turn == Turn::Over {
            return;
        }
        self.sessions[index] = Some(session);
        if turn == Turn::More {
            self.note_ready(index);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let unused = self.sessions.iter().position(Option::is_none);
            let index = unused.unwrap_or_else(|| {
                self.sessions.push(None);
                self.sessions.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(TOKENS * index), interest)?;
            self.sessions[index] = Some(Session::new(stream));
        }
    }
}
