//! The tap of a session: each SUBMIT and each end of a URB becomes a record.
//!
//! Records are drafted in a few KiB of memory of the tap's own, and go to the recorder together, at
//! the end of the session's turn. So the lock is taken once, and the bytes of a piece, which the
//! processor's caches no longer have when their turn comes, are waited for once: the end of each
//! lock waits for all bytes written before.
//!
//! The first records of a session are made up: the exchange by which a host reads the descriptors
//! of the device. Programs that show captures need the descriptors to know the classes of the
//! endpoints, and the client may have read the descriptors before the capture began.
//!
//! Contract: runs on the reactor, never blocks, and allocates nothing for a URB.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{Moment, OffsetBy, Record, Size, word};
use super::recorder::{MADE_UP, Recorder, Tally};
use crate::limits::CAPTURE_DATA_MAX;
use crate::usbmon::block::{self, RECORD_OVERHEAD};
use crate::usbmon::{Event, Header, IN_PROGRESS};
use crate::wire::iso::Packets;
use crate::wire::pdu::CmdSubmit;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{DevId, Direction, EndpointAddress, SeqNum, Speed, TransferType};

/// Bytes of a draft: the records of 16 URBs with the default snap length. A longer record goes
/// straight to the recorder.
const DRAFT_LEN: usize = 4 << 10;

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
    scribe: Scribe,
}

/// A tap beside the recorder, which is locked once for a draft.
struct Scribe {
    description: Description,
    /// The number of the session, in its place in an id.
    session: u64,
    /// The section in which the device was introduced, and its interface there.
    section: u64,
    interface: u32,
    /// The most bytes of data in a record.
    snap_len: usize,
    /// Whole blocks for the recorder, with the interface above, and their number.
    draft: Vec<u8>,
    drafted: Tally,
    counts: Counts,
    /// Records dropped, as far as the capture says.
    told: u64,
}

/// The records of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// In the capture.
    pub(crate) taken: Tally,
    /// Not in the capture.
    pub(crate) dropped: Tally,
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
        let (number, snap_len) = {
            let recorder = &mut lock(recorder);
            recorder.sessions += 1;
            (recorder.sessions, recorder.snap_len)
        };
        let scribe = Scribe {
            description,
            session: u64::from(number) << 32,
            section: 0,
            interface: 0,
            snap_len,
            draft: Vec::with_capacity(DRAFT_LEN),
            drafted: Tally::default(),
            counts: Counts::default(),
            told: 0,
        };
        Self { recorder: Arc::clone(recorder), scribe }
    }

    /// Whether the tap writes to this recorder.
    pub(super) fn is_of(&self, recorder: &Arc<Mutex<Recorder>>) -> bool {
        Arc::ptr_eq(&self.recorder, recorder)
    }

    #[cfg(test)]
    pub(super) const fn counts(&self) -> Counts {
        self.scribe.counts
    }

    /// Records a SUBMIT, which is in the capture with the next [`Self::hand_in`].
    #[inline(always)]
    pub(crate) fn submitted(&mut self, urb: Urb<'_>, moment: &Moment) {
        let is_control = urb.transfer_type == TransferType::Control;
        let header = Header {
            setup: is_control.then_some(urb.submit.setup),
            urb_len: urb.submit.transfer_buffer_length,
            ..self.scribe.header(&urb, Event::Submit)
        };
        let record = Record { header, urb, offset_by: OffsetBy::Client };
        self.scribe.record(&self.recorder, record, moment, None);
    }

    /// Records the end of a URB, which is in the capture with the next [`Self::hand_in`].
    #[inline(always)]
    pub(crate) fn ended(&mut self, urb: Urb<'_>, end: End, moment: &Moment) {
        let is_refused = end.by == By::Refusal;
        let event = if is_refused { Event::Error } else { Event::Complete };
        let header = Header {
            status: end.status.0,
            urb_len: end.actual_length,
            error_count: end.error_count,
            ..self.scribe.header(&urb, event)
        };
        let record = Record { header, urb, offset_by: OffsetBy::Sum };
        let comment = (end.by != By::Device).then_some(end);
        self.scribe.record(&self.recorder, record, moment, comment);
    }

    /// Hands the draft in.
    pub(crate) fn hand_in(&mut self) {
        self.scribe.hand_in(&self.recorder);
    }
}

impl Scribe {
    /// The parts of a header that all records of a URB have.
    #[inline(always)]
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

    /// Takes a record down, with a comment on the end.
    #[inline(always)]
    fn record(
        &mut self,
        recorder: &Mutex<Recorder>,
        record: Record<'_>,
        moment: &Moment,
        end: Option<End>,
    ) {
        let size = record.size(self.snap_len);
        if self.draft.len() + size.room() > DRAFT_LEN {
            self.hand_in(recorder);
        }
        if record.is_plain() && end.is_none() && size.room() <= DRAFT_LEN {
            record.write_plain(&mut self.draft, size, (self.interface, moment));
            self.drafted.add(record.header.event);
        } else {
            // By value: a reference would have all records put together in memory first.
            self.record_other(recorder, (record, size), moment, end);
        }
    }

    /// Takes down a record that is not plain, or has a comment, or is longer than a draft.
    #[inline(never)]
    fn record_other(
        &mut self,
        recorder: &Mutex<Recorder>,
        (record, size): (Record<'_>, Size),
        moment: &Moment,
        end: Option<End>,
    ) {
        if size.room() > DRAFT_LEN {
            return self.record_long(&mut lock(recorder), (&record, size), moment, end.as_ref());
        }
        record.write(&mut self.draft, size, (self.interface, moment), end.as_ref());
        self.drafted.add(record.header.event);
    }

    /// Takes down a record that is longer than a draft.
    fn record_long(
        &mut self,
        recorder: &mut Recorder,
        (record, size): (&Record<'_>, Size),
        moment: &Moment,
        end: Option<&End>,
    ) {
        let mut tally = Tally::default();
        tally.add(record.header.event);
        let is_begun = self.begin(recorder, moment);
        let out = if is_begun { recorder.room(size.room()) } else { None };
        let is_taken = out.is_some();
        if let Some(out) = out {
            record.write(out, size, (self.interface, moment), end);
        }
        self.count(recorder, tally, is_taken);
    }

    /// Hands the draft in.
    fn hand_in(&mut self, recorder: &Mutex<Recorder>) {
        if self.draft.is_empty() {
            return;
        }
        let recorder = &mut *lock(recorder);
        let interface = self.interface;
        let first = block::first_time(&self.draft).map_or_else(Moment::now, Moment::at);
        let is_begun = self.begin(recorder, &first);
        let out = if is_begun { recorder.room(self.draft.len()) } else { None };
        let is_taken = out.is_some();
        if let Some(out) = out {
            // A section may have begun since.
            if self.interface != interface {
                block::change_interface(&mut self.draft, self.interface);
            }
            out.extend_from_slice(&self.draft);
        }
        self.draft.clear();
        let drafted = std::mem::take(&mut self.drafted);
        self.count(recorder, drafted, is_taken);
    }

    /// Does what comes before records, of which the first is of a `moment`. False when no records
    /// are taken now.
    fn begin(&mut self, recorder: &mut Recorder, moment: &Moment) -> bool {
        recorder.is_read() && self.introduce(recorder, moment) && self.tell_dropped(recorder)
    }

    /// Counts records as taken or as dropped.
    const fn count(&mut self, recorder: &mut Recorder, tally: Tally, is_taken: bool) {
        if is_taken {
            self.counts.taken = self.counts.taken.plus(tally);
            recorder.taken = recorder.taken.plus(tally);
        } else {
            self.counts.dropped = self.counts.dropped.plus(tally);
            recorder.dropped = recorder.dropped.plus(tally);
        }
    }

    /// Introduces the device in a new section. False when there was no room.
    fn introduce(&mut self, recorder: &mut Recorder, moment: &Moment) -> bool {
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
        self.exchange(recorder, moment);
        true
    }

    /// Writes the exchange by which a host reads the descriptors. The exchange has the time of the
    /// record behind: times go on from record to record.
    fn exchange(&self, recorder: &mut Recorder, moment: &Moment) {
        let Description { device, configurations, .. } = &self.description;
        let indexed = (0..=u8::MAX).zip(configurations);
        let configurations = indexed.map(|(index, bytes)| (2, index, &bytes[..]));
        let all = std::iter::once((1, 0, &device[..])).chain(configurations);
        for (seqnum, (kind, index, bytes)) in (0..).map(SeqNum).zip(all) {
            let [low, high] = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
            let setup = [0x80, 6, index, kind, 0, 0, low, high];
            let submit = made_up(seqnum, self.description.devid, setup);
            self.make_up(recorder, &submit, bytes, moment);
        }
    }

    /// Writes a read that nobody has sent, and its answer.
    fn make_up(&self, recorder: &mut Recorder, submit: &CmdSubmit, answer: &[u8], moment: &Moment) {
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
            let size = record.size(self.snap_len);
            if let Some(out) = recorder.room(size.room()) {
                record.write(out, size, (self.interface, moment), Some(&MadeUp));
            }
        }
    }

    /// Writes down how many records were dropped since the last time. False without room.
    fn tell_dropped(&mut self, recorder: &mut Recorder) -> bool {
        let dropped = self.counts.dropped.records();
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
        let dropped = counts.dropped.records();
        let numbers = [counts.taken.records() + dropped, dropped];
        block::statistics(out, (self.interface, Moment::now().time), numbers, counts);
        true
    }
}

impl Drop for Tap {
    /// The session is over.
    fn drop(&mut self) {
        self.hand_in();
        let (recorder, scribe) = (&mut *lock(&self.recorder), &self.scribe);
        if recorder.is_read() && scribe.section == recorder.section {
            scribe.write_statistics(recorder);
        }
        if scribe.counts.dropped.records() > 0 {
            let (name, counts) = (&scribe.description.name, &scribe.counts);
            let capture = recorder.name.display();
            log::warn!("{name}: the capture {capture} is not whole: {counts}");
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, dropped: Tally { submissions, ends } } = self;
        write!(
            f,
            "{} records are in the capture; {submissions} submissions and {ends} ends of URBs are \
             missing",
            taken.records()
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

fn lock(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}
