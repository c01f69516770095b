//! A client that knows the rules.
//!
//! The client remembers its requests, reads each reply with its payload, and panics where
//! `vhci_hcd` would tear the connection down or lose a URB (`drivers/usb/usbip/vhci_rx.c`,
//! `usbip_common.c`): an answer without a request, a second answer, a RET_SUBMIT behind the
//! RET_UNLINK, lengths or packets that do not add up, bytes that should be zero.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};
use usbferry::usb::sim::loopback::request::{self, Counters};
use usbferry::wire::types::BusId;

use super::submit::{Descriptor, IN, Submit, setup, unlink_bytes};
use super::{DEADLINE, log};

pub(crate) const EPIPE: i32 = -32;
pub(crate) const EXDEV: i32 = -18;
pub(crate) const ENOENT: i32 = -2;
pub(crate) const ENOMEM: i32 = -12;
pub(crate) const ENODEV: i32 = -19;
pub(crate) const EINVAL: i32 = -22;
pub(crate) const EPROTO: i32 = -71;
pub(crate) const EOVERFLOW: i32 = -75;
pub(crate) const ECONNRESET: i32 = -104;
pub(crate) const ESHUTDOWN: i32 = -108;
pub(crate) const EREMOTEIO: i32 = -121;

/// Bytes of the device record of a successful OP_REP_IMPORT.
const USB_DEVICE_LEN: usize = 312;

/// A server's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reply {
    Submit(Ret),
    Unlink(RetUnlink),
}

/// RET_SUBMIT with its payload and descriptors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ret {
    pub(crate) seqnum: u32,
    pub(crate) status: i32,
    pub(crate) actual_length: u32,
    pub(crate) start_frame: u32,
    pub(crate) number_of_packets: u32,
    pub(crate) error_count: u32,
    pub(crate) data: Vec<u8>,
    pub(crate) descriptors: Vec<Descriptor>,
}

/// RET_UNLINK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RetUnlink {
    pub(crate) seqnum: u32,
    pub(crate) status: i32,
}

/// A SUBMIT before its answer.
struct Sent {
    is_in: bool,
    length: u32,
    start_frame: u32,
    number_of_packets: u32,
    descriptors: Vec<Descriptor>,
}

/// An UNLINK before its answer.
struct SentUnlink {
    target: u32,
    /// The target was unlinked before, as only hostile clients do.
    again: bool,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The server closed the connection.
    Fin,
    /// The server closed the connection with unread input.
    Reset,
}

/// A client.
pub(crate) struct MiniClient {
    stream: TcpStream,
    pub(crate) devid: u32,
    next_seqnum: u32,
    sent: HashMap<u32, Sent>,
    unlinks: HashMap<u32, SentUnlink>,
    /// Targets of unanswered UNLINKs.
    unlinked: HashSet<u32>,
    /// Answers already read and not yet asked for.
    kept: HashMap<u32, Ret>,
}

impl MiniClient {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(open(address))
    }

    /// A client at a loopback address of the caller's choice; systems other than Linux have
    /// 127.0.0.1 only.
    pub(crate) fn connect_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if cfg!(target_os = "linux") {
            socket.bind(&SocketAddr::from((own, 0)).into()).expect("all of 127.0.0.0/8 is ours");
        }
        socket.connect(&address.into()).expect("the server accepts");
        Self::new(socket.into())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time that is not zero");
        stream.set_write_timeout(Some(DEADLINE)).expect("a time that is not zero");
        Self {
            stream,
            devid: 0,
            next_seqnum: 1,
            sent: HashMap::new(),
            unlinks: HashMap::new(),
            unlinked: HashSet::new(),
            kept: HashMap::new(),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The client's own address, as in the server's log.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().expect("it is connected")
    }

    /// Asks for a device and returns the status of the answer. With status 0 the client has the
    /// device.
    pub(crate) fn import(&mut self, busid: BusId) -> u32 {
        self.send(&import_bytes(busid.as_wire()));
        let common = self.read(8);
        assert_eq!(common[..4], [0x01, 0x11, 0x00, 0x03], "an answer to an import");
        let status = word(&common, 4);
        if status == 0 {
            let device = self.read(USB_DEVICE_LEN);
            assert_eq!(device[0x100..0x120], *busid.as_wire(), "the busid that was asked for");
            self.devid = word(&device, 0x120) << 16 | word(&device, 0x124);
        }
        status
    }

    /// Sends bytes unchanged.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("the server does not take what is sent: {error}");
        }
    }

    /// Sends bytes to a server that may close the connection meanwhile.
    pub(crate) fn send_anyway(&self, bytes: &[u8]) {
        match (&self.stream).write_all(bytes) {
            Ok(()) => {}
            Err(error) if is_reset(error.kind()) => {}
            Err(error) => panic!("the server does not take what is sent: {error}"),
        }
    }

    /// Reads `len` bytes.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing came within {DEADLINE:?}, {}", self.waiting())
            }
            Err(error) => panic!("{error}, {}", self.waiting()),
        }
    }

    fn waiting(&self) -> String {
        let mut seqnums: Vec<u32> = self.sent.keys().chain(self.unlinks.keys()).copied().collect();
        seqnums.sort_unstable();
        let count = seqnums.len();
        seqnums.truncate(8);
        format!("while {count} answers are awaited, first those to {seqnums:?}")
    }

    /// Closes the sending side.
    pub(crate) fn shutdown(&self) {
        self.stream.shutdown(Shutdown::Write).expect("it is connected");
    }

    /// The same to a server that may have closed the connection.
    pub(crate) fn shutdown_anyway(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until the server closes, and returns the bytes before the end.
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, Ending) {
        let mut bytes = Vec::new();
        let ending = match self.stream.read_to_end(&mut bytes) {
            Ok(_) => Ending::Fin,
            Err(error) if is_reset(error.kind()) => Ending::Reset,
            Err(error) => panic!("the server does not close the connection: {error}"),
        };
        (bytes, ending)
    }

    /// The server says nothing more and closes in good order.
    pub(crate) fn expect_fin(mut self) {
        let (bytes, ending) = self.read_to_end();
        assert_eq!(bytes, [0; 0], "something came that was not asked for");
        assert_eq!(ending, Ending::Fin);
    }

    /// Expects the server to close without another byte. Unread input makes the end a reset.
    pub(crate) fn expect_drop(mut self) {
        let (bytes, _) = self.read_to_end();
        assert_eq!(bytes, [0; 0], "something came before the connection was closed");
    }

    /// Whether the server has sent something, as far as can be seen now.
    pub(crate) fn has_input(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        match peeked {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The bytes of a SUBMIT, whose answer is waited for from now on.
    pub(crate) fn prepare(&mut self, submit: &Submit) -> (u32, Vec<u8>) {
        let seqnum = submit.seqnum.unwrap_or_else(|| self.take_seqnum());
        let sent = Sent {
            is_in: submit.direction == IN,
            length: submit.length,
            start_frame: submit.start_frame,
            number_of_packets: submit.number_of_packets,
            descriptors: submit.descriptors.clone(),
        };
        assert!(self.sent.insert(seqnum, sent).is_none(), "seqnum {seqnum} is in use");
        (seqnum, submit.bytes(seqnum, submit.devid.unwrap_or(self.devid)))
    }

    /// The bytes of an UNLINK, whose answer is waited for from now on.
    pub(crate) fn prepare_unlink(&mut self, target: u32) -> (u32, Vec<u8>) {
        let seqnum = self.take_seqnum();
        let again = self.sent.contains_key(&target) && !self.unlinked.insert(target);
        self.unlinks.insert(seqnum, SentUnlink { target, again });
        (seqnum, unlink_bytes(seqnum, self.devid, target))
    }

    /// The next seqnum.
    pub(crate) fn take_seqnum(&mut self) -> u32 {
        let seqnum = self.next_seqnum;
        self.next_seqnum += 1;
        seqnum
    }

    /// Sets the next seqnum.
    pub(crate) fn set_next_seqnum(&mut self, seqnum: u32) {
        self.next_seqnum = seqnum;
    }

    /// Sends a SUBMIT and returns its seqnum.
    pub(crate) fn submit(&mut self, submit: &Submit) -> u32 {
        let (seqnum, bytes) = self.prepare(submit);
        self.send(&bytes);
        seqnum
    }

    /// Sends SUBMITs in one write and returns their seqnums.
    pub(crate) fn submit_all(&mut self, submits: &[Submit]) -> Vec<u32> {
        let (seqnums, bytes): (Vec<u32>, Vec<Vec<u8>>) =
            submits.iter().map(|submit| self.prepare(submit)).unzip();
        self.send(&bytes.concat());
        seqnums
    }

    /// Sends an UNLINK and returns its seqnum.
    pub(crate) fn unlink(&mut self, target: u32) -> u32 {
        let (seqnum, bytes) = self.prepare_unlink(target);
        self.send(&bytes);
        seqnum
    }

    /// Number of missing answers.
    pub(crate) fn outstanding(&self) -> usize {
        self.sent.len() + self.unlinks.len()
    }

    /// Whether the answer to a SUBMIT is missing.
    pub(crate) fn awaits(&self, seqnum: u32) -> bool {
        self.sent.contains_key(&seqnum)
    }

    /// Whether the answer to an UNLINK is missing.
    pub(crate) fn awaits_unlink(&self, seqnum: u32) -> bool {
        self.unlinks.contains_key(&seqnum)
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        let header = self.read(48);
        assert_eq!(header[8..20], [0; 12], "devid, direction and endpoint of a reply are zero");
        let status = word(&header, 20).cast_signed();
        match word(&header, 0) {
            3 => {
                assert_eq!(header[40..], [0; 8], "a RET_SUBMIT ends with zeroes");
                Reply::Submit(self.finish_ret(&header, status))
            }
            4 => {
                assert_eq!(header[24..], [0; 24], "a RET_UNLINK ends with zeroes");
                Reply::Unlink(self.finish_unlink(word(&header, 4), status))
            }
            other => panic!("a server does not send command {other}"),
        }
    }

    fn finish_ret(&mut self, header: &[u8], status: i32) -> Ret {
        let seqnum = word(header, 4);
        let sent = self.sent.remove(&seqnum);
        let sent = sent.unwrap_or_else(|| panic!("a RET_SUBMIT for {seqnum} that nobody awaits"));
        self.unlinked.remove(&seqnum);
        let actual_length = word(header, 24);
        assert!(actual_length <= sent.length, "{seqnum}: more bytes than were asked for");
        let len = if sent.is_in { actual_length as usize } else { 0 };
        let data = self.read(len);
        let descriptors = self.read(16 * sent.descriptors.len());
        let descriptors = descriptors.as_chunks::<16>().0.iter();
        let ret = Ret {
            seqnum,
            status,
            actual_length,
            start_frame: word(header, 28),
            number_of_packets: word(header, 32),
            error_count: word(header, 36),
            data,
            descriptors: descriptors.map(|b| [0, 4, 8, 12].map(|at| word(b, at))).collect(),
        };
        judge(&ret, &sent);
        ret
    }

    fn finish_unlink(&mut self, seqnum: u32, status: i32) -> RetUnlink {
        let unlink = self.unlinks.remove(&seqnum);
        let unlink = unlink.unwrap_or_else(|| panic!("a RET_UNLINK {seqnum} that nobody awaits"));
        let answered = unlink.again || self.sent.remove(&unlink.target).is_none();
        let expected = if answered { 0 } else { ECONNRESET };
        assert_eq!(status, expected, "the unlink {seqnum} of {}", unlink.target);
        if !unlink.again {
            self.unlinked.remove(&unlink.target);
        }
        RetUnlink { seqnum, status }
    }

    /// The next reply, which must answer the given SUBMIT.
    pub(crate) fn ret(&mut self, seqnum: u32) -> Ret {
        match self.reply() {
            Reply::Submit(ret) if ret.seqnum == seqnum => ret,
            other => panic!("the answer to {seqnum} comes next, not {other:?}"),
        }
    }

    /// The answer to the given SUBMIT, with answers in any order.
    pub(crate) fn ret_of(&mut self, seqnum: u32) -> Ret {
        if let Some(ret) = self.kept.remove(&seqnum) {
            return ret;
        }
        loop {
            match self.reply() {
                Reply::Submit(ret) if ret.seqnum == seqnum => return ret,
                Reply::Submit(ret) => drop(self.kept.insert(ret.seqnum, ret)),
                other => panic!("the answer to {seqnum} is awaited, not {other:?}"),
            }
        }
    }

    /// The next reply, which must answer the given UNLINK.
    pub(crate) fn ret_unlink(&mut self, seqnum: u32) -> i32 {
        match self.reply() {
            Reply::Unlink(ret) if ret.seqnum == seqnum => ret.status,
            other => panic!("the answer to the unlink {seqnum} comes next, not {other:?}"),
        }
    }

    /// Submits and waits for the answer, which is the next reply.
    pub(crate) fn call(&mut self, submit: &Submit) -> Ret {
        let seqnum = self.submit(submit);
        self.ret(seqnum)
    }

    /// Submits a URB that must succeed, and returns the data.
    pub(crate) fn call_ok(&mut self, submit: &Submit) -> Vec<u8> {
        let ret = self.call(submit);
        assert_eq!(ret.status, 0, "{submit:?}");
        ret.data
    }

    /// Checks that the stream is in step: an ordinary request gets its answer, with no byte before.
    pub(crate) fn assert_in_sync(&mut self) {
        let data = self.call_ok(&Submit::get_device_descriptor());
        assert_eq!(data.len(), 18);
        assert_eq!(data[..2], [18, 1], "a device descriptor");
    }

    /// Has the loopback device do something.
    pub(crate) fn command(&mut self, request: u8, value: u16, index: u16) {
        let submit = Submit::control(setup(request::OUT, request, value, index, 0), &[]);
        self.call_ok(&submit);
    }

    /// Asks the loopback device something.
    pub(crate) fn ask(&mut self, request: u8, index: u16) -> Vec<u8> {
        self.call_ok(&Submit::control(setup(request::IN, request, 0, index, 255), &[]))
    }

    /// The counters of an endpoint of the loopback device.
    pub(crate) fn counters(&mut self, address: u8) -> Counters {
        let bytes = self.ask(request::COUNTERS, address.into());
        Counters::from_bytes(&bytes.try_into().expect("32 bytes"))
    }

    /// The last SETUP packet seen by the loopback device.
    pub(crate) fn last_setup(&mut self) -> Vec<u8> {
        self.ask(request::LAST_SETUP, 0)
    }

    /// How often the loopback device's host performed SET_CONFIGURATION, SET_INTERFACE, CLEAR_HALT
    /// and resets.
    pub(crate) fn performed(&mut self) -> [u32; 4] {
        let bytes = self.ask(request::PERFORMED, 0);
        let words = bytes.as_chunks::<4>().0;
        [0, 1, 2, 3].map(|index| u32::from_le_bytes(words[index]))
    }

    /// Selects an alternate setting.
    pub(crate) fn set_interface(&mut self, interface: u16, alternate: u16) {
        self.call_ok(&Submit::set_interface(interface, alternate));
    }
}

/// Connects. For a test that looks at the log, on Linux, the client has a loopback address of its
/// own: a port alone may be used again at once, and then the log would not identify the client.
fn open(address: SocketAddr) -> TcpStream {
    static CLIENTS: AtomicU32 = AtomicU32::new(0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    if cfg!(target_os = "linux") && address.ip() == Ipv4Addr::LOCALHOST && log::is_kept() {
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed) % (1 << 16);
        let own = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
        socket.bind(&SocketAddr::from((own, 0)).into()).expect("all of 127.0.0.0/8 is ours");
    }
    socket.connect(&address.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    log::forget(stream.local_addr().expect("it is connected"));
    stream
}

/// Judges a reply as the client's kernel would.
fn judge(ret: &Ret, sent: &Sent) {
    let seqnum = ret.seqnum;
    assert_eq!(ret.start_frame, sent.start_frame, "{seqnum}: start_frame is echoed");
    assert_eq!(ret.number_of_packets, sent.number_of_packets, "{seqnum}: packets are echoed");
    assert!(ret.status <= 0 && ret.status > -4096, "{seqnum}: {} is no errno", ret.status);
    let mut sum = 0;
    let mut errors = 0;
    for (result, asked) in ret.descriptors.iter().zip(&sent.descriptors) {
        assert_eq!(result[..2], asked[..2], "{seqnum}: a packet's offset and length are echoed");
        assert!(u64::from(result[2]) <= u64::from(asked[1]), "{seqnum}: a packet is too long");
        sum += u64::from(result[2]);
        errors += u32::from(result[3] != 0);
    }
    assert_eq!(ret.error_count, errors, "{seqnum}: packets that failed");
    if !sent.descriptors.is_empty() {
        assert_eq!(sum, u64::from(ret.actual_length), "{seqnum}: packets add up");
    }
}

/// OP_REQ_IMPORT.
pub(crate) fn import_bytes(busid: &[u8; 32]) -> Vec<u8> {
    [&[0x01, 0x11, 0x80, 0x03, 0, 0, 0, 0], &busid[..]].concat()
}

/// OP_REQ_DEVLIST.
pub(crate) const DEVLIST: [u8; 8] = [0x01, 0x11, 0x80, 0x05, 0, 0, 0, 0];

/// A big-endian word.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("four more bytes"))
}

fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
