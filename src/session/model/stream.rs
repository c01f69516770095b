//! A stream of senseless bytes: PDUs which no client sends, or none at all.
//!
//! The rest of the model knows the commands sent; here the stream is read a second time, the plain
//! way ([`Reading`]), and the session has to answer the commands of the reading. How the stream is
//! cut into reads must make no difference. The reading ends where the meaning of a stream depends
//! on the time of arrival: a number used twice, or packets where a request perhaps under way makes
//! an endpoint isochronous.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::client::DEVID;
use super::device::{ModelPort, configurations, pattern};
use super::operation::Scale;
use super::results::{packet_results, result_of};
use super::rng::Rng;
use super::verdict::{Outcome, asked_for, endpoint_of, is_never_isochronous, sets};
use crate::limits::EARLY_UNLINK_TIMEOUT;
use crate::session::job::JobKind;
use crate::session::{Session, TxSlices, Violation};
use crate::usb::special::{Class, classify};
use crate::usb::{Configuration, Performed};
use crate::wire::iso::{DESCRIPTOR_LEN, PACKETS_MAX, Packets};
use crate::wire::pdu::{CmdSubmit, Command, HEADER_LEN, Reply, RetSubmit, RetUnlink};
use crate::wire::setup::{SETUP_LEN, Setup};
use crate::wire::status::Status;
use crate::wire::types::{Direction, SeqNum, TransferType};

/// Bytes in front of a stream: a word with the scale of the session, in the last three bytes also
/// the cuts of the stream and the seed of the device.
const HEAD_LEN: usize = 8;

/// Rounds after which everything must have ended.
const ROUNDS_MAX: u32 = 10_000;

/// Gives a stream to sessions, whole and in pieces, and looks at the answers.
pub(crate) fn run(data: &[u8]) {
    let Some((head, stream)) = data.split_first_chunk::<HEAD_LEN>() else { return };
    let word = u64::from_le_bytes(*head);
    let scale = Scale::decode(word);
    let [.., first, second, seed] = *head;
    let cuts = [usize::from(first) + 1, usize::from(second) * 16 + 1];
    let reading = Reading::new(stream, &scale);

    let mut whole = Rig::new(&scale, seed);
    let result = whole.feed(stream, &[usize::MAX], false);
    let mut pieces = Rig::new(&scale, seed);
    let result_of_pieces = pieces.feed(stream, &cuts, false);
    let same = !whole.hurried && !pieces.hurried;
    let [whole, pieces] = [whole.finish(&result), pieces.finish(&result_of_pieces)];
    assert!(!same || result == result_of_pieces, "{result:?}, in pieces {result_of_pieces:?}");
    assert!(!same || whole == pieces, "other answers in pieces of {cuts:?}");
    reading.check(&result, &whole);

    let mut busy = Rig::new(&scale, seed);
    let result = busy.feed(stream, &cuts, true);
    let told = busy.finish(&result);
    reading.check(&result, &told);
}

/// A SUBMIT of the stream.
#[derive(Clone, Copy, Debug)]
struct Asked {
    submit: CmdSubmit,
    /// Descriptors behind the SUBMIT.
    packets: usize,
}

/// How the reading of a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Between two PDUs.
    Whole,
    /// Within a PDU.
    Open,
    /// With a violation of the protocol.
    Violation(Violation),
    /// Nobody can say.
    Unclear,
}

/// The meaning of a stream.
struct Reading {
    submits: HashMap<SeqNum, Asked>,
    /// UNLINKs and their targets.
    unlinks: HashMap<SeqNum, SeqNum>,
    end: End,
}

impl Reading {
    fn new(stream: &[u8], scale: &Scale) -> Self {
        let (submits, unlinks) = (HashMap::new(), HashMap::new());
        let mut reading = Self { submits, unlinks, end: End::Whole };
        reading.read(stream, scale);
        reading
    }

    fn read(&mut self, mut rest: &[u8], scale: &Scale) {
        let all = configurations(scale.alternate);
        let configuration = all[0].as_ref();
        // The endpoints asked for by requests perhaps under way.
        let (mut seqnums, mut asked) = (HashSet::new(), None);
        while let Some((header, behind)) = rest.split_first_chunk() {
            let submit = match self.read_header(header, &mut seqnums, scale) {
                Err(end) => return self.end = end,
                Ok(Some(submit)) => submit,
                Ok(None) => {
                    rest = behind;
                    continue;
                }
            };
            let packets = match packets_of(&submit, configuration, asked) {
                Ok(packets) => packets,
                Err(end) => return self.end = end,
            };
            let len = submit.payload_len() as usize + packets * DESCRIPTOR_LEN;
            let Some(behind) = behind.get(len..) else {
                return self.end = End::Open;
            };
            if let Class::Special(request) = classify(&Setup::from_bytes(&submit.setup))
                && sets(request)
            {
                *asked.get_or_insert(0) |= asked_for(request, all.iter().flatten());
            }
            self.submits.insert(submit.seqnum, Asked { submit, packets });
            rest = behind;
        }
        if !rest.is_empty() {
            self.end = End::Open;
        }
    }

    /// Reads a header: a SUBMIT, or an UNLINK, which is noted.
    fn read_header(
        &mut self,
        header: &[u8; HEADER_LEN],
        seqnums: &mut HashSet<SeqNum>,
        scale: &Scale,
    ) -> Result<Option<CmdSubmit>, End> {
        let command = Command::parse(header).map_err(|error| End::Violation(error.into()))?;
        let (devid, seqnum) = match command {
            Command::Submit(submit) => (submit.devid, submit.seqnum),
            Command::Unlink(unlink) => (unlink.devid, unlink.seqnum),
        };
        if devid != DEVID {
            return Err(End::Violation(Violation::WrongDevice(devid)));
        }
        if !seqnums.insert(seqnum) {
            return Err(End::Unclear);
        }
        let submit = match command {
            Command::Submit(submit) => submit,
            Command::Unlink(unlink) => {
                self.unlinks.insert(seqnum, unlink.target);
                return Ok(None);
            }
        };
        let length = submit.transfer_buffer_length;
        if submit.payload_len() > 0 && length as usize > scale.urb_len {
            return Err(End::Violation(Violation::TooLong(length)));
        }
        Ok(Some(submit))
    }

    /// Checks a session's answers to the stream: a single answer for every URB, and for every
    /// UNLINK.
    fn check(&self, result: &Result<(), Violation>, mut told: &[u8]) {
        match (self.end, result) {
            (End::Unclear, _) => return,
            (End::Violation(expected), _) => assert_eq!(*result, Err(expected)),
            (End::Whole | End::Open, _) => assert_eq!(*result, Ok(())),
        }
        let mut submits = self.submits.clone();
        let mut unlinks = self.unlinks.clone();
        while let Some((header, behind)) = told.split_first_chunk::<HEADER_LEN>() {
            told = match Reply::parse(header).expect("a reply") {
                Reply::Submit(ret) => {
                    let asked = submits.remove(&ret.seqnum);
                    check_submit(
                        asked.unwrap_or_else(|| panic!("nobody waits for {ret:?}")),
                        &ret,
                        behind,
                    )
                }
                Reply::Unlink(ret) => {
                    let target = unlinks.remove(&ret.seqnum);
                    let target = target.unwrap_or_else(|| panic!("nobody waits for {ret:?}"));
                    check_unlink(&mut submits, target, &ret);
                    behind
                }
            };
        }
        assert!(told.is_empty(), "half a reply");
        if self.end == End::Open {
            // An UNLINK may wait whose SUBMIT may be the next PDU, or behind.
            unlinks.retain(|_, target| self.submits.contains_key(target));
        }
        if matches!(self.end, End::Whole | End::Open) {
            assert!(submits.is_empty(), "never answered: {submits:?}");
            assert!(unlinks.is_empty(), "never answered: {unlinks:?}");
        }
    }
}

/// The number of descriptors at the end of a SUBMIT. Earlier requests may be under way and have
/// `asked` for isochronous endpoints.
fn packets_of(
    submit: &CmdSubmit,
    configuration: Option<&Configuration>,
    asked: Option<u32>,
) -> Result<usize, End> {
    let number = submit.number_of_packets;
    let count = usize::try_from(number).ok().filter(|&count| count <= PACKETS_MAX as usize);
    let known = endpoint_of(configuration, submit.endpoint).map(|(known, _)| known);
    let is_asked = asked.is_some_and(|asked| asked & submit.endpoint.bit() != 0);
    match (known, count) {
        (Some(TransferType::Isochronous), Some(count)) => Ok(count),
        (Some(TransferType::Isochronous), None) if asked.is_some() => Err(End::Unclear),
        (Some(TransferType::Isochronous), None) => {
            Err(End::Violation(Violation::Wire(crate::wire::Error::Packets(number))))
        }
        (None, _) if is_never_isochronous(submit.endpoint) => Ok(0),
        // Believed unless something else is asked for.
        (None, Some(1..)) if asked.is_some() => Err(End::Unclear),
        (None, count) => Ok(count.unwrap_or(0)),
        (Some(_), Some(1..)) if is_asked => Err(End::Unclear),
        (Some(_), _) => Ok(0),
    }
}

/// Checks a RET_SUBMIT and returns the bytes behind.
fn check_submit<'a>(asked: Asked, ret: &RetSubmit, behind: &'a [u8]) -> &'a [u8] {
    let submit = asked.submit;
    assert_eq!(ret.number_of_packets, submit.number_of_packets, "{ret:?} of {submit:?}");
    assert_eq!(ret.start_frame, submit.start_frame, "{ret:?} of {submit:?}");
    assert!(ret.actual_length <= submit.transfer_buffer_length, "{ret:?} of {submit:?}");
    let is_in = submit.endpoint.direction() == Direction::In;
    let data_len = if is_in { ret.actual_length as usize } else { 0 };
    let (descriptors, behind) = behind[data_len..].split_at(asked.packets * DESCRIPTOR_LEN);
    if asked.packets > 0 {
        let packets = Packets::new(descriptors);
        let sum: u32 = packets.iter().map(|packet| packet.actual_length).sum();
        assert_eq!(sum, ret.actual_length, "{ret:?} of {submit:?}");
    }
    behind
}

/// Checks a RET_UNLINK: either the answer of the URB, or news of another answer.
fn check_unlink(submits: &mut HashMap<SeqNum, Asked>, target: SeqNum, ret: &RetUnlink) {
    match ret.status {
        Status::OK => {}
        Status::ECONNRESET => {
            let given_up = submits.remove(&target);
            assert!(given_up.is_some(), "{ret:?} for URB {target}, which nobody waits for");
        }
        other => panic!("{other:?} in {ret:?}"),
    }
}

/// A session, a device which ends every URB, and a client which notes every reply.
struct Rig {
    session: Session<ModelPort>,
    now: Instant,
    rng: Rng,
    told: Vec<u8>,
    /// The stream could only go on after replies were read.
    hurried: bool,
}

impl Rig {
    fn new(scale: &Scale, seed: u8) -> Self {
        let [configuration, ..] = configurations(scale.alternate);
        Self {
            session: scale.session(configuration),
            now: Instant::now(),
            rng: Rng(seed.into()),
            told: Vec::new(),
            hurried: false,
        }
    }

    /// Gives the session a stream in pieces of lengths `cuts`, over and over; `busy`, everybody
    /// does all there is to do behind each.
    fn feed(&mut self, mut stream: &[u8], cuts: &[usize], busy: bool) -> Result<(), Violation> {
        let mut cuts = cuts.iter().cycle();
        while !stream.is_empty() || self.session.is_parsing_paused() {
            if !self.session.wants_input() {
                self.hurried = true;
                assert!(self.turn(), "nothing to read, and nothing may be written");
                continue;
            }
            if self.session.is_parsing_paused() {
                self.session.rx_advance(0, self.now)?;
                continue;
            }
            let cut = *cuts.next().expect("there is one");
            let mut piece = &stream[..stream.len().min(cut)];
            let len = piece.len();
            self.session.rx_read(&mut piece, self.now)?;
            stream = &stream[len - piece.len()..];
            if busy {
                self.turn();
            }
        }
        Ok(())
    }

    /// Everybody does everything there is to do. False if there was nothing.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        while let Some(mut job) = self.session.take_job() {
            busy = true;
            if let JobKind::Perform(_) = job.kind {
                let failed = Performed::Failed(Status::EPIPE);
                let outcomes = [Performed::Done, Performed::Forward, failed];
                job.port.outcome = outcomes[self.rng.below(3) as usize].clone();
            }
            let (port, result) = job.run();
            self.session.take_back(port, result, self.now);
        }
        busy |= self.end_all();
        self.now += EARLY_UNLINK_TIMEOUT;
        self.session.reap(self.now);
        self.read() || busy
    }

    /// Ends all URBs with the device.
    fn end_all(&mut self) -> bool {
        let port = self.session.port.here_mut().expect("no job is under way");
        port.events.clear();
        let open = port.in_flight();
        for &slot in &open {
            let flight = port.flight(slot);
            let offset = if flight.transfer_type == TransferType::Control { SETUP_LEN } else { 0 };
            let [how, len] =
                [(); 2].map(|()| u16::try_from(self.rng.below(1 << 16)).expect("16 bits"));
            let (status, actual) = result_of(flight, how, len, flight.length - offset, false);
            let transfer = &mut self.session.slots.transfers[slot as usize];
            let block = transfer.block.as_mut().expect("the transfer has its buffer");
            // A control transfer's endpoint has no direction, the request has.
            let is_in = match flight.transfer_type {
                TransferType::Control => block[0] & 0x80 != 0,
                _ => flight.endpoint.direction() == Direction::In,
            };
            if is_in {
                let data = pattern(flight.serial, flight.length - offset);
                block[offset..flight.length].copy_from_slice(data);
            }
            transfer.packets = packet_results(flight, actual == 0);
            transfer.end = Some((status, actual));
            // Not compared here: the rest of the model checks the replies.
            let (packets, data) = (Vec::new(), Vec::new());
            let outcome = Outcome { status, actual_length: actual, error_count: 0, packets, data };
            flight.outcome = Some(outcome);
            port.ended.push_back(slot);
        }
        !open.is_empty()
    }

    /// Takes all output of the session.
    fn read(&mut self) -> bool {
        let before = self.told.len();
        loop {
            self.session.stage();
            let mut slices = TxSlices::new();
            self.session.tx_slices(&mut slices, usize::MAX);
            if slices.is_empty() {
                assert!(!self.session.has_output(), "output that can't be had");
                return self.told.len() > before;
            }
            let start = self.told.len();
            slices.into_iter().for_each(|slice| self.told.extend_from_slice(&slice));
            self.session.tx_advance(self.told.len() - start, self.now);
        }
    }

    /// Has everybody finish, unless the stream was a violation, and then the client goes. Returns
    /// all replies.
    fn finish(mut self, result: &Result<(), Violation>) -> Vec<u8> {
        let mut rounds = 0..ROUNDS_MAX;
        while result.is_ok() && self.turn() {
            rounds.next().expect("it ends");
        }
        self.session.begin_teardown();
        let told = std::mem::take(&mut self.told);
        while !self.session.is_drained() {
            rounds.next().expect("teardown ends");
            self.turn();
        }
        assert!(self.told.is_empty(), "a word to a client that has left");
        self.session.into_remains().expect("nothing is in flight").close();
        told
    }
}
