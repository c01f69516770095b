//! A session's connection for a replay: SUBMITs and UNLINKs are written here, and a thread reads
//! the replies, so that neither side waits for the other to read.
//!
//! Contract: *blocks*. The thread ends with the connection, and holds no more than the answers of
//! the URBs in flight. A reply is held against its SUBMIT before memory is spent.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Imported;
use super::super::error::Trouble;
use crate::channel::{Receiver, Sender, channel};
use crate::limits::{REPLAY_ANSWER_TIMEOUT, REPLAY_ANSWERS_MAX};
use crate::threads;
use crate::usbmon::recording::Urb;
use crate::wire::iso::{self, Packet, Packets};
use crate::wire::pdu::{CmdSubmit, CmdUnlink, Command, HEADER_LEN, Reply, RetSubmit};
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum};

/// URB_SHORT_NOT_OK, URB_ISO_ASAP and URB_ZERO_PACKET of `linux/usb.h`, which mean something to a
/// server, and URB_DIR_IN, which Linux sends.
const FLAGS: u32 = 0x43;
const FLAG_IN: u32 = 0x200;

/// The mark of an UNLINK's seqnum, beside that of the URB.
const UNLINK: u32 = 1 << 31;

/// A connection with URBs in flight.
pub(super) struct Link {
    stream: TcpStream,
    devid: DevId,
    expected: Expectations,
    answers: Receiver<Result<(usize, Answer), Trouble>>,
}

/// The answer of a URB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Bytes moved.
    pub(super) moved: u32,
    /// From the device; of isochronous packets one behind the other.
    pub(super) data: Vec<u8>,
    pub(super) packets: Vec<Packet>,
    /// The URB was given up by an UNLINK.
    pub(super) is_unlinked: bool,
}

/// The replies to come, by seqnum.
type Expectations = Arc<Mutex<HashMap<u32, Expected>>>;

#[derive(Clone, Copy)]
struct Expected {
    is_in: bool,
    asked: u32,
    packets: usize,
}

impl Link {
    pub(super) fn begin(imported: Imported) -> Result<Self, Trouble> {
        let Imported { stream, devid, .. } = imported;
        let reading = stream.try_clone().map_err(Trouble::Failed)?;
        stream.set_write_timeout(Some(REPLAY_ANSWER_TIMEOUT)).map_err(Trouble::Failed)?;
        let (sender, answers) = channel(REPLAY_ANSWERS_MAX);
        let expected = Expectations::default();
        let of_thread = Arc::clone(&expected);
        let read = move || read_all(reading, &of_thread, &sender);
        threads::start("replies", read).map_err(Trouble::Failed)?;
        Ok(Self { stream, devid, expected, answers })
    }

    /// Sends a URB, whose place is its seqnum but for 1.
    pub(super) fn submit(&mut self, place: usize, urb: &Urb) -> Result<(), Trouble> {
        let is_in = urb.endpoint & 0x80 != 0;
        let direction = if is_in { Direction::In } else { Direction::Out };
        let seqnum = seqnum(place);
        let count = i32::try_from(urb.packets.len()).unwrap_or(i32::MAX);
        let header = Command::Submit(CmdSubmit {
            seqnum,
            devid: self.devid,
            endpoint: EndpointAddress::new(urb.endpoint & 0x0f, direction),
            transfer_flags: urb.flags & FLAGS | if is_in { FLAG_IN } else { 0 },
            transfer_buffer_length: urb.asked,
            start_frame: urb.start_frame,
            number_of_packets: count,
            interval: urb.interval,
            setup: urb.setup.unwrap_or([0; SETUP_LEN]),
        });
        let expected = Expected { is_in, asked: urb.asked, packets: urb.packets.len() };
        lock(&self.expected).insert(seqnum.0, expected);
        let mut bytes = header_bytes(&header).to_vec();
        if !is_in {
            bytes.extend_from_slice(&urb.sent.bytes[..urb.asked as usize]);
        }
        for packet in &urb.packets {
            let words = [packet.offset, packet.length, 0, 0];
            bytes.extend_from_slice(words.map(u32::to_be_bytes).as_flattened());
        }
        self.write(&bytes)
    }

    /// Has a URB given up.
    pub(super) fn unlink(&mut self, place: usize) -> Result<(), Trouble> {
        let target = seqnum(place);
        let (seqnum, devid) = (SeqNum(target.0 | UNLINK), self.devid);
        self.write(&header_bytes(&Command::Unlink(CmdUnlink { seqnum, devid, target })))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream.write_all(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Trouble::Slow(REPLAY_ANSWER_TIMEOUT)
            }
            _ => Trouble::Failed(error),
        })
    }

    /// The next answer, with the place of its URB; `None` after a while without.
    pub(super) fn answer(&self) -> Result<Option<(usize, Answer)>, Trouble> {
        match self.answers.recv_timeout(REPLAY_ANSWER_TIMEOUT) {
            Ok(answer) => answer.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::CutShort),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread's read ends, too.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn seqnum(place: usize) -> SeqNum {
    SeqNum(u32::try_from(place + 1).unwrap_or(u32::MAX) & !UNLINK)
}

fn place(seqnum: u32) -> usize {
    (seqnum & !UNLINK).wrapping_sub(1) as usize
}

fn header_bytes(command: &Command) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    command.emit(&mut header);
    header
}

fn lock(expected: &Expectations) -> MutexGuard<'_, HashMap<u32, Expected>> {
    expected.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads replies until the connection ends.
fn read_all(
    mut stream: TcpStream,
    expected: &Expectations,
    sender: &Sender<Result<(usize, Answer), Trouble>>,
) {
    loop {
        let answer = read_reply(&mut stream, expected);
        let is_end = answer.is_err();
        if sender.send(answer).is_err() || is_end {
            return;
        }
    }
}

fn read_reply(stream: &mut TcpStream, expected: &Expectations) -> Result<(usize, Answer), Trouble> {
    let mut header = [0; HEADER_LEN];
    read(stream, &mut header)?;
    match Reply::parse(&header).map_err(|_| Trouble::Stray)? {
        Reply::Unlink(unlink) => {
            let is_unlinked = unlink.status != Status::OK;
            if is_unlinked {
                lock(expected).remove(&(unlink.seqnum.0 & !UNLINK));
            }
            let (status, data, packets) = (unlink.status, Vec::new(), Vec::new());
            // Without the URB's own answer before, there will be none.
            Ok((place(unlink.seqnum.0), Answer { status, moved: 0, data, packets, is_unlinked }))
        }
        Reply::Submit(ret) => {
            let expected = lock(expected).remove(&ret.seqnum.0).ok_or(Trouble::Stray)?;
            Ok((place(ret.seqnum.0), read_answer(stream, &ret, expected)?))
        }
    }
}

/// Reads what follows the header of a RET_SUBMIT.
fn read_answer(
    stream: &mut TcpStream,
    ret: &RetSubmit,
    expected: Expected,
) -> Result<Answer, Trouble> {
    if ret.actual_length > expected.asked {
        return Err(Trouble::Stray);
    }
    let mut data = vec![0; if expected.is_in { ret.actual_length as usize } else { 0 }];
    read(stream, &mut data)?;
    let mut descriptors = vec![0; expected.packets * iso::DESCRIPTOR_LEN];
    read(stream, &mut descriptors)?;
    let packets = Packets::new(&descriptors).iter().collect();
    let (status, moved) = (ret.status, ret.actual_length);
    Ok(Answer { status, moved, data, packets, is_unlinked: false })
}

fn read(stream: &mut TcpStream, bytes: &mut [u8]) -> Result<(), Trouble> {
    stream.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Trouble::CutShort,
        _ => Trouble::Failed(error),
    })
}
