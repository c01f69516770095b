//! The tap of a session: each SUBMIT and each end of a URB becomes a record.
//!
//! The first records of a session are made up: the exchange by which a host reads the descriptors
//! of the device. Programs that show captures need the descriptors to know the classes of the
//! endpoints, and the client may have read the descriptors before the capture began.
//!
//! Contract: runs on the reactor, never blocks, and allocates nothing for a URB once the memory of
//! all pieces is allocated.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::recorder::Recorder;
use crate::limits::CAPTURE_DATA_MAX;
use crate::usbmon::block::{self, RECORD_OVERHEAD};
use crate::usbmon::{self, Event, Header, IN_PROGRESS};
use crate::wire::iso::{Packet, Packets};
use crate::wire::pdu::CmdSubmit;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, Speed, TransferType};

/// The mark of a made-up record in the id, where other ids have the number of the session.
const MADE_UP: u64 = 1 << 63;

/// What a session's device looks like in a capture.
pub(crate) struct Description {
    pub(crate) devid: DevId,
    /// The name of the interface: the busid.
    pub(crate) name: String,
    /// The device and the client.
    pub(crate) text: String,
    pub(crate) speed: Speed,
    /// The device descriptor.
    pub(crate) device: [u8; 18],
    /// The configurations by index.
    pub(crate) configurations: Vec<Vec<u8>>,
}

/// Writes the records of a session.
pub(crate) struct Tap {
    recorder: Arc<Mutex<Recorder>>,
    description: Description,
    /// The number of the session, in its place in an id.
    session: u64,
    /// The section in which the device was introduced, and its interface there.
    section: u64,
    interface: u32,
    counts: Counts,
    /// Records dropped, as far as the capture says.
    told: u64,
}

/// The records of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Submissions and ends in the capture.
    pub(crate) taken: u64,
    /// Submissions not in the capture.
    pub(crate) submissions_dropped: u64,
    /// Ends not in the capture.
    pub(crate) ends_dropped: u64,
}

/// A URB, as in its SUBMIT.
#[derive(Clone, Copy)]
pub(crate) struct Urb<'a> {
    pub(crate) submit: &'a CmdSubmit,
    /// The direction of the header.
    pub(crate) direction: Direction,
    pub(crate) transfer_type: TransferType,
    pub(crate) packets: Packets<'a>,
    /// The data behind the SUBMIT, or of the reply: empty where there is none. Isochronous data of
    /// the client lies by the packets' offsets, data of the device by the sum of lengths.
    pub(crate) data: &'a [u8],
}

/// The end of a URB.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) status: Status,
    pub(crate) actual_length: u32,
    /// Failed packets.
    pub(crate) error_count: u32,
    pub(crate) by: By,
}

/// Who ended a URB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// The device, or the bus.
    Device,
    /// The device, after an UNLINK with this seqnum.
    Unlink(SeqNum),
    /// An UNLINK with this seqnum, before the device had the URB.
    EarlyUnlink(SeqNum),
    /// A special request, before the device had the URB.
    Barrier,
    /// The server's host, by a request of its own.
    Host,
    /// The server, from its copy of the descriptors.
    Copy,
    /// The server refused the URB.
    Refusal,
}

impl Tap {
    pub(super) fn new(recorder: &Arc<Mutex<Recorder>>, description: Description) -> Self {
        let number = {
            let recorder = &mut lock(recorder);
            recorder.sessions += 1;
            recorder.sessions
        };
        Self {
            recorder: Arc::clone(recorder),
            description,
            session: u64::from(number) << 32,
            section: 0,
            interface: 0,
            counts: Counts::default(),
            told: 0,
        }
    }

    #[cfg(test)]
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Records a SUBMIT.
    pub(crate) fn submitted(&mut self, urb: Urb<'_>) {
        let is_control = urb.transfer_type == TransferType::Control;
        let header = Header {
            setup: is_control.then_some(urb.submit.setup),
            urb_len: urb.submit.transfer_buffer_length,
            ..self.header(&urb, Event::Submit)
        };
        let record = Record { header, urb, offset_by: OffsetBy::Client };
        let is_taken = self.record(&record, None);
        self.counts.submissions_dropped += u64::from(!is_taken);
    }

    /// Records the end of a URB.
    pub(crate) fn ended(&mut self, urb: Urb<'_>, end: End) {
        let is_refused = end.by == By::Refusal;
        let event = if is_refused { Event::Error } else { Event::Complete };
        let header = Header {
            status: end.status.0,
            urb_len: end.actual_length,
            error_count: end.error_count,
            ..self.header(&urb, event)
        };
        let record = Record { header, urb, offset_by: OffsetBy::Sum };
        let is_taken = self.record(&record, (end.by != By::Device).then_some(&end));
        self.counts.ends_dropped += u64::from(!is_taken);
    }

    /// The parts of a header that all records of a URB have.
    fn header(&self, urb: &Urb<'_>, event: Event) -> Header {
        let CmdSubmit { seqnum, endpoint, interval, start_frame, transfer_flags, .. } = *urb.submit;
        let is_in = urb.direction == Direction::In;
        Header {
            id: self.session | u64::from(seqnum.0),
            event,
            transfer_type: urb.transfer_type,
            endpoint: endpoint.number() | if is_in { 0x80 } else { 0 },
            device: self.description.devid.devnum(),
            bus: self.description.devid.busnum().into(),
            setup: None,
            data_flag: match (event, is_in) {
                (Event::Submit, true) => b'<',
                (Event::Submit, false) | (Event::Complete, true) => 0,
                (Event::Complete, false) => b'>',
                (Event::Error, _) => b'E',
            },
            seconds: 0,
            microseconds: 0,
            status: IN_PROGRESS,
            urb_len: 0,
            data_len: 0,
            error_count: 0,
            interval,
            start_frame,
            transfer_flags,
            packets: u32::try_from(urb.packets.len()).unwrap_or(0),
        }
    }

    /// Takes a record down. False when there was no room.
    fn record(&mut self, record: &Record<'_>, end: Option<&End>) -> bool {
        let recorder = Arc::clone(&self.recorder);
        let recorder = &mut lock(&recorder);
        let is_taken = recorder.is_read()
            && self.introduce(recorder)
            && self.tell_dropped(recorder)
            && record.write(recorder, self.interface, end);
        let counter = if is_taken { &mut self.counts.taken } else { &mut recorder.dropped };
        *counter += 1;
        recorder.taken += u64::from(is_taken);
        is_taken
    }

    /// Introduces the device in a new section. False when there was no room.
    fn introduce(&mut self, recorder: &mut Recorder) -> bool {
        if self.section == recorder.section {
            return true;
        }
        let Description { name, text, speed, .. } = &self.description;
        let snap_len = u32::try_from(CAPTURE_DATA_MAX).unwrap_or(u32::MAX);
        let len = RECORD_OVERHEAD + name.len() + text.len();
        let Some(out) = recorder.room(len) else { return false };
        block::interface(out, [name, text], speed.bits_per_second(), snap_len);
        self.interface = recorder.next_interface();
        self.section = recorder.section;
        self.exchange(recorder);
        true
    }

    /// Writes the exchange by which a host reads the descriptors.
    fn exchange(&self, recorder: &mut Recorder) {
        let Description { device, configurations, .. } = &self.description;
        let indexed = (0..=u8::MAX).zip(configurations);
        let configurations = indexed.map(|(index, bytes)| (2, index, &bytes[..]));
        let all = std::iter::once((1, 0, &device[..])).chain(configurations);
        for (seqnum, (kind, index, bytes)) in (0..).map(SeqNum).zip(all) {
            let [low, high] = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
            let setup = [0x80, 6, index, kind, 0, 0, low, high];
            self.make_up(recorder, &made_up(seqnum, self.description.devid, setup), bytes);
        }
    }

    /// Writes a read that nobody has sent, and its answer.
    fn make_up(&self, recorder: &mut Recorder, submit: &CmdSubmit, answer: &[u8]) {
        for (event, data, status) in
            [(Event::Submit, &[][..], IN_PROGRESS), (Event::Complete, answer, 0)]
        {
            let urb = Urb {
                submit,
                direction: Direction::In,
                transfer_type: TransferType::Control,
                packets: Packets::new(&[]),
                data,
            };
            let header = Header {
                id: MADE_UP | self.session | u64::from(submit.seqnum.0),
                setup: (event == Event::Submit).then_some(submit.setup),
                status,
                urb_len: word(answer.len()),
                ..self.header(&urb, event)
            };
            let record = Record { header, urb, offset_by: OffsetBy::Sum };
            record.write(recorder, self.interface, Some(&MadeUp));
        }
    }

    /// Writes down how many records were dropped since the last time. False without room.
    fn tell_dropped(&mut self, recorder: &mut Recorder) -> bool {
        let dropped = self.counts.dropped();
        if self.told == dropped {
            return true;
        }
        let is_told = self.write_statistics(recorder);
        self.told = if is_told { dropped } else { self.told };
        is_told
    }

    fn write_statistics(&self, recorder: &mut Recorder) -> bool {
        let Some(out) = recorder.room(RECORD_OVERHEAD) else { return false };
        let counts = &self.counts;
        let numbers = [counts.taken + counts.dropped(), counts.dropped()];
        block::statistics(out, (self.interface, now().0), numbers, counts);
        true
    }
}

impl Drop for Tap {
    /// The session is over.
    fn drop(&mut self) {
        let recorder = Arc::clone(&self.recorder);
        let recorder = &mut lock(&recorder);
        if recorder.is_read() && self.section == recorder.section {
            self.write_statistics(recorder);
        }
        if self.counts.dropped() > 0 {
            log::warn!("{}: the capture is not whole: {}", self.description.name, self.counts);
        }
    }
}

impl Counts {
    const fn dropped(&self) -> u64 {
        self.submissions_dropped + self.ends_dropped
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, submissions_dropped, ends_dropped } = self;
        write!(
            f,
            "{taken} records are in the capture; {submissions_dropped} submissions and \
             {ends_dropped} ends of URBs are missing"
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            By::Device => Ok(()),
            By::Unlink(seqnum) => write!(f, "unlinked by seqnum {}", seqnum.0),
            By::EarlyUnlink(seqnum) => {
                write!(f, "unlinked by seqnum {}, before the device had the URB", seqnum.0)
            }
            By::Barrier => f.write_str("given up for a special request (a barrier)"),
            By::Host => f.write_str("performed by the server's host"),
            By::Copy => f.write_str("answered from the server's copy of the descriptors"),
            By::Refusal => write!(f, "refused without the device: {}", self.status),
        }
    }
}

/// The comment of a made-up record.
struct MadeUp;

impl fmt::Display for MadeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("made up by usbferry: the descriptors as read when the device was opened")
    }
}

/// The places of isochronous packets in the data at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OffsetBy {
    /// By the client's offsets.
    Client,
    /// Behind each other, each with as many bytes as were asked for.
    Sum,
}

/// A record to be written.
struct Record<'a> {
    header: Header,
    urb: Urb<'a>,
    offset_by: OffsetBy,
}

impl Record<'_> {
    /// Writes the record. False when there was no room.
    fn write(
        &self,
        recorder: &mut Recorder,
        interface: u32,
        comment: Option<&impl fmt::Display>,
    ) -> bool {
        let (packets, has_data) = (self.urb.packets, self.header.data_flag == 0);
        let beside = usbmon::HEADER_LEN + packets.len() * usbmon::DESCRIPTOR_LEN;
        let len = if has_data { self.data_len() } else { 0 };
        let captured = len.min(recorder.snap_len).min(CAPTURE_DATA_MAX - beside);
        let Some(out) = recorder.room(RECORD_OVERHEAD + beside + captured) else { return false };
        let (time, seconds, microseconds) = now();
        let data_len = word(captured + packets.len() * usbmon::DESCRIPTOR_LEN);
        let header = Header { seconds, microseconds, data_len, ..self.header };
        let write = |out: &mut Vec<u8>| {
            out.extend(header.to_bytes());
            self.write_descriptors(out);
            self.write_data(out, captured);
        };
        block::record(out, (interface, time), beside + len, write, comment);
        true
    }

    const fn is_submission(&self) -> bool {
        matches!(self.header.event, Event::Submit)
    }

    /// Bytes of a packet that count: asked for, or moved.
    const fn len_of(&self, packet: &Packet) -> u32 {
        if self.is_submission() { packet.length } else { packet.actual_length }
    }

    /// Bytes of data, with the gaps between isochronous packets.
    fn data_len(&self) -> usize {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return self.urb.data.len();
        }
        let filled = self.urb.packets.iter().filter(|packet| packet.actual_length > 0);
        let end = filled.map(|packet| packet.offset as usize + packet.actual_length as usize).max();
        end.filter(|_| !self.urb.data.is_empty()).unwrap_or(0)
    }

    fn write_descriptors(&self, out: &mut Vec<u8>) {
        for packet in self.urb.packets.iter() {
            let status = if self.is_submission() { IN_PROGRESS } else { packet.status.0 };
            out.extend(usbmon::descriptor(status, packet.offset, self.len_of(&packet)));
        }
    }

    /// Writes the first `len` bytes of data.
    fn write_data(&self, out: &mut Vec<u8>, len: usize) {
        if self.urb.packets.is_empty() || self.offset_by == OffsetBy::Client {
            return out.extend_from_slice(&self.urb.data[..len]);
        }
        let start = out.len();
        out.resize(start + len, 0);
        let data = &mut out[start..];
        let mut from = 0;
        for packet in self.urb.packets.iter() {
            let offset = (packet.offset as usize).min(len);
            let moved = (packet.actual_length as usize).min(len - offset);
            let bytes = self.urb.data.get(from..from + moved).unwrap_or_default();
            data[offset..offset + bytes.len()].copy_from_slice(bytes);
            from += packet.length as usize;
        }
    }
}

/// The SUBMIT of a read that nobody has sent.
fn made_up(seqnum: SeqNum, devid: DevId, setup: [u8; SETUP_LEN]) -> CmdSubmit {
    CmdSubmit {
        seqnum,
        devid,
        endpoint: EndpointAddress::new(0, Direction::In),
        transfer_flags: 0,
        transfer_buffer_length: u16::from_le_bytes([setup[6], setup[7]]).into(),
        start_frame: 0,
        number_of_packets: 0,
        interval: 0,
        setup,
    }
}

fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// The time, in nanoseconds, and in seconds and microseconds.
fn now() -> (u64, i64, i32) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    (nanoseconds, seconds, i32::try_from(time.subsec_micros()).unwrap_or(0))
}

fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
