//! An open device and its transfers.
//!
//! Contract: blocks in calls to the device; allocates as needed.

use usbferry_load::pdu::{self, DESCRIPTOR_LEN};
use usbferry_sys::arena::{Arena, Block};
use usbferry_sys::libusb::error::{Error, TransferStatus};
use usbferry_sys::libusb::handle::{DeviceHandle, PollFd};
use usbferry_sys::libusb::pass::Pass;
use usbferry_sys::libusb::transfer::{Completed, Parameters, Transfer, TransferKind};

use super::found::{self, Found, Setting};
use super::out::Out;

/// Transfers of a device, and bytes of their buffers, committed as used: more than any load of the
/// benches has in flight.
const TRANSFERS: usize = 1024;
const MEMORY: usize = 256 << 20;

/// Bytes of a SETUP packet.
const SETUP_LEN: usize = 8;

/// Requests to usbfs that libusb reaps in a call at most (`op_handle_events`), and the longest
/// transfers that libusb makes a single request of.
const REAPS_MAX: usize = 26;
const UNSPLIT_LEN: usize = 16 << 10;
const UNSPLIT_PACKETS: usize = 128;

/// `URB_SHORT_NOT_OK` and `URB_ZERO_PACKET`.
const SHORT_NOT_OK: u32 = 0x01;
const ZERO_PACKET: u32 = 0x40;

/// A SUBMIT, or an UNLINK.
#[derive(Clone, Default)]
pub(crate) struct Header {
    pub(crate) command: u32,
    pub(crate) seqnum: u32,
    pub(crate) is_in: bool,
    pub(crate) endpoint: u8,
    /// Of a SUBMIT; an UNLINK has its target's seqnum in the same place.
    pub(crate) flags: u32,
    pub(crate) len: usize,
    /// Isochronous packets, 0 for other transfers.
    pub(crate) packets: usize,
    pub(crate) setup: [u8; SETUP_LEN],
}

impl Header {
    /// `None` for a header that no client sends.
    pub(crate) fn parse(bytes: &[u8], port: &Port) -> Option<Self> {
        let (is_in, number) = (pdu::word(bytes, 3) == 1, pdu::word(bytes, 4));
        let endpoint = u8::try_from(number).ok().filter(|number| *number < 16)?;
        let endpoint = if is_in { endpoint | 0x80 } else { endpoint };
        let is_isochronous = port.kind(endpoint) == Some(TransferKind::Isochronous);
        let header = Self {
            command: pdu::word(bytes, 0),
            seqnum: pdu::word(bytes, 1),
            is_in,
            endpoint,
            flags: pdu::word(bytes, 5),
            len: pdu::word(bytes, 6) as usize,
            packets: if is_isochronous { pdu::word(bytes, 8) as usize } else { 0 },
            setup: bytes[40..48].try_into().ok()?,
        };
        (header.packets <= 1024 && header.len <= MEMORY / 2).then_some(header)
    }

    pub(crate) const fn is_control(&self) -> bool {
        self.endpoint & 0x7f == 0
    }

    /// Bytes of the transfer's buffer, and the start of the data there.
    pub(crate) fn room(&self) -> (usize, usize) {
        if self.is_control() {
            (SETUP_LEN + self.len.max(self.wanted()), SETUP_LEN)
        } else {
            (self.len, 0)
        }
    }

    fn wanted(&self) -> usize {
        usize::from(u16::from_le_bytes([self.setup[6], self.setup[7]]))
    }
}

/// A transfer in flight.
struct Slot {
    transfer: Transfer,
    header: Header,
    /// Offset and length of each packet.
    packets: Vec<(usize, u32)>,
    /// The seqnum of the UNLINK for the transfer.
    unlink: Option<u32>,
    may_be_split: bool,
    is_in_flight: bool,
}

/// An open device.
pub(crate) struct Port {
    pub(crate) busid: String,
    handle: DeviceHandle,
    pub(crate) arena: Arena,
    slots: Vec<Slot>,
    unused: Vec<u32>,
    completed: Vec<u32>,
    in_flight: usize,
    /// Transfers in flight that may be several requests to usbfs.
    split: usize,
    sends_bulk_whole: bool,
    settings: Vec<Setting>,
    chosen: Vec<(u8, u8)>,
    endpoints: Vec<(u8, TransferKind)>,
    claimed: Vec<u8>,
}

impl Port {
    pub(crate) fn open(found: &Found) -> Result<Self, Error> {
        let id = found.id().ok_or(Error::NoDevice)?;
        let mut handle = DeviceHandle::open_blocking(id, TRANSFERS, None)?;
        handle.set_auto_detach(true)?;
        let mut arena = Arena::new();
        arena.add_heap(MEMORY).map_err(|_| Error::NoMem)?;
        let mut port = Self {
            busid: found.busid.clone(),
            sends_bulk_whole: handle.sends_bulk_whole(),
            handle,
            arena,
            slots: Vec::new(),
            unused: Vec::new(),
            completed: Vec::new(),
            in_flight: 0,
            split: 0,
            settings: Vec::new(),
            chosen: Vec::new(),
            endpoints: Vec::new(),
            claimed: Vec::new(),
        };
        port.claim(found)?;
        Ok(port)
    }

    /// Claims all interfaces of the active configuration.
    fn claim(&mut self, found: &Found) -> Result<(), Error> {
        self.settings = found.settings();
        self.chosen.clear();
        self.endpoints = found::endpoints(&self.settings, &[]);
        for setting in self.settings.iter().filter(|setting| setting.setting == 0) {
            self.handle.claim_blocking(setting.interface)?;
            self.claimed.push(setting.interface);
        }
        Ok(())
    }

    fn release(&mut self) {
        for interface in std::mem::take(&mut self.claimed) {
            // An unplugged device has no interface to release.
            let _ = self.handle.release_blocking(interface);
        }
    }

    pub(crate) fn pollfds(&self) -> Vec<PollFd> {
        self.handle.pollfds()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.handle.is_gone()
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// The type of an endpoint.
    fn kind(&self, endpoint: u8) -> Option<TransferKind> {
        if endpoint & 0x7f == 0 {
            return Some(TransferKind::Control);
        }
        self.endpoints.iter().find(|(address, _)| *address == endpoint).map(|(_, kind)| *kind)
    }

    /// Submits a transfer of a buffer with its data, or performs a request in the host's place. An
    /// error is answered at once.
    pub(crate) fn submit(
        &mut self,
        header: Header,
        mut block: Block,
        descriptors: &[u8],
        out: &mut Out,
    ) {
        if header.is_control() {
            block[..SETUP_LEN].copy_from_slice(&header.setup);
            if let Some(result) = self.perform(header.setup) {
                self.arena.free(block);
                return put_submit(out, &header, result.map_or_else(errno, |()| 0), 0, &[]);
            }
        }
        let Some(kind) = self.kind(header.endpoint) else {
            self.arena.free(block);
            return put_submit(out, &header, -libc::EPIPE, 0, &[]);
        };
        let index = self.unused.pop().map_or_else(|| self.add_slot(), Ok);
        let started = index.and_then(|index| {
            let slot = &mut self.slots[index as usize];
            slot.header = header.clone();
            slot.read_packets(descriptors);
            slot.gather(&mut block);
            slot.start(&mut self.handle, kind, block, self.sends_bulk_whole).map_err(
                |(error, block)| {
                    self.arena.free(block);
                    self.unused.push(index);
                    error
                },
            )?;
            self.split += usize::from(slot.may_be_split);
            self.in_flight += 1;
            Ok(())
        });
        if let Err(error) = started {
            put_submit(out, &header, errno(error), 0, &[]);
        }
    }

    fn add_slot(&mut self) -> Result<u32, Error> {
        if self.slots.len() == TRANSFERS {
            return Err(Error::NoMem);
        }
        let index = u32::try_from(self.slots.len()).map_err(|_| Error::NoMem)?;
        self.slots.push(Slot {
            transfer: Transfer::new(&self.handle, index)?,
            header: Header::default(),
            packets: Vec::new(),
            unlink: None,
            may_be_split: false,
            is_in_flight: false,
        });
        Ok(index)
    }

    /// The requests that a server's host performs.
    fn perform(&mut self, setup: [u8; SETUP_LEN]) -> Option<Result<(), Error>> {
        match setup {
            [0x00, 9, value, ..] => Some(self.set_configuration(value)),
            [0x01, 11, setting, _, interface, ..] => {
                let set = self.handle.set_interface_blocking(interface, setting);
                if set.is_ok() {
                    self.chosen.push((interface, setting));
                    self.endpoints = found::endpoints(&self.settings, &self.chosen);
                }
                Some(set)
            }
            [0x02, 1, 0, 0, endpoint, ..] => Some(self.handle.clear_halt_blocking(endpoint)),
            [0x23, 3, 4, 0, ..] => Some(self.handle.reset_blocking()),
            _ => None,
        }
    }

    fn set_configuration(&mut self, value: u8) -> Result<(), Error> {
        // A driver that came back to a released interface would be in the way.
        self.handle.set_auto_detach(false)?;
        self.release();
        let set = self.handle.set_configuration_blocking(Some(value).filter(|value| *value > 0));
        self.handle.set_auto_detach(true)?;
        let found = Found::read(&self.busid).ok_or(Error::NoDevice)?;
        self.claim(&found)?;
        set
    }

    /// Answers an UNLINK, or gives up the URB, which is answered later.
    pub(crate) fn unlink(&mut self, header: &Header, out: &mut Out) {
        let is_target = |slot: &&mut Slot| slot.is_in_flight && slot.header.seqnum == header.flags;
        let Some(slot) = self.slots.iter_mut().find(is_target) else {
            return put_unlink(out, header.seqnum, 0);
        };
        slot.unlink = Some(header.seqnum);
        // A transfer that has ended is found among the completions.
        let _ = slot.transfer.cancel_token().cancel_blocking(&mut self.handle);
    }

    /// Gives up everything in flight.
    pub(crate) fn cancel_all(&mut self) {
        for slot in self.slots.iter().filter(|slot| slot.is_in_flight) {
            let _ = slot.transfer.cancel_token().cancel_blocking(&mut self.handle);
        }
    }

    /// Handles libusb's events, and answers the URBs that have ended.
    pub(crate) fn reap(&mut self, out: &mut Out) {
        loop {
            let mut completed = std::mem::take(&mut self.completed);
            let handled = self.handle.handle_events(Pass::Everything, &mut completed);
            let (reaped, might_be_more) = (completed.len(), self.split > 0);
            for index in completed.drain(..) {
                self.finish(index, out);
            }
            self.completed = completed;
            let is_last = reaped == 0 || reaped < REAPS_MAX && !might_be_more;
            if handled.is_err() || is_last || self.is_idle() {
                return;
            }
        }
    }

    fn finish(&mut self, index: u32, out: &mut Out) {
        let slot = &mut self.slots[index as usize];
        let Completed { status, actual_length, mut block } = slot.transfer.take();
        slot.is_in_flight = false;
        self.in_flight -= 1;
        self.split -= usize::from(slot.may_be_split);
        self.unused.push(index);
        let unlink = slot.unlink.take();
        if let (TransferStatus::Cancelled, Some(seqnum)) = (status, unlink) {
            self.arena.free(block);
            return put_unlink(out, seqnum, -libc::ECONNRESET);
        }
        let (actual, descriptors) = slot.results(&mut block, actual_length as usize);
        let header = &slot.header;
        let is_short = header.flags & SHORT_NOT_OK != 0 && header.is_in && actual < header.len;
        let status = match status_of(status) {
            0 if is_short => -libc::EREMOTEIO,
            status => status,
        };
        put_submit(out, header, status, actual, &descriptors);
        if header.is_in && actual > 0 {
            let (_, start) = header.room();
            out.put_data(block, (start, actual), &mut self.arena);
        } else {
            self.arena.free(block);
        }
        out.put(&descriptors);
        if let Some(seqnum) = unlink {
            put_unlink(out, seqnum, 0);
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.release();
    }
}

impl Slot {
    fn read_packets(&mut self, descriptors: &[u8]) {
        let read =
            |descriptor: &[u8]| (pdu::word(descriptor, 0) as usize, pdu::word(descriptor, 1));
        self.packets.clear();
        self.packets.extend(descriptors.chunks_exact(DESCRIPTOR_LEN).map(read));
    }

    /// Bytes of all packets, and whether the packets have no gaps.
    fn extent(&self) -> (usize, bool) {
        let (mut end, mut is_dense) = (0, true);
        for &(offset, len) in &self.packets {
            is_dense &= offset == end;
            end += len as usize;
        }
        (end, is_dense)
    }

    /// Moves the data of OUT packets together: libusb has packets without gaps.
    fn gather(&self, block: &mut Block) {
        if self.header.is_in || self.extent().1 {
            return;
        }
        let mut end = 0;
        for &(offset, len) in &self.packets {
            let (from, len) = (offset.min(block.len()), len as usize);
            let len = len.min(block.len() - from).min(block.len() - end);
            block.copy_within(from..from + len, end);
            end += len;
        }
    }

    fn start(
        &mut self,
        handle: &mut DeviceHandle,
        kind: TransferKind,
        block: Block,
        sends_bulk_whole: bool,
    ) -> Result<(), (Error, Block)> {
        let length = match kind {
            TransferKind::Isochronous => self.extent().0,
            TransferKind::Control => SETUP_LEN + self.header.wanted(),
            TransferKind::Bulk | TransferKind::Interrupt => self.header.len,
        };
        if length > block.len() {
            return Err((Error::InvalidParam, block));
        }
        self.may_be_split = self.packets.len() > UNSPLIT_PACKETS
            || kind != TransferKind::Isochronous && length > UNSPLIT_LEN && !sends_bulk_whole;
        let zero_packet = self.header.flags & ZERO_PACKET != 0;
        let parameters = Parameters { kind, endpoint: self.header.endpoint, length, zero_packet };
        let lens = self.packets.iter().map(|&(_, len)| len);
        self.transfer.submit(handle, parameters, lens, block)?;
        self.is_in_flight = true;
        Ok(())
    }

    /// The bytes transferred and the packets' descriptors. Moves the data of IN packets together.
    fn results(&self, block: &mut Block, actual_length: usize) -> (usize, Vec<u8>) {
        if self.packets.is_empty() {
            return (actual_length, Vec::new());
        }
        let mut descriptors = Vec::with_capacity(self.packets.len() * DESCRIPTOR_LEN);
        let (mut from, mut actual) = (0, 0);
        for (index, &(offset, len)) in (0..).zip(&self.packets) {
            let (got, status) = self.transfer.packet(index);
            let got_len = got as usize;
            if self.header.is_in && from > actual {
                block.copy_within(from..from + got_len, actual);
            }
            (from, actual) = (from + len as usize, actual + got_len);
            #[expect(clippy::cast_possible_truncation, reason = "read from 32 bits")]
            let words = [offset as u32, len, got, status_of(status).cast_unsigned()];
            words.iter().for_each(|word| descriptors.extend(word.to_be_bytes()));
        }
        (actual, descriptors)
    }
}

/// Puts a RET_SUBMIT, whose data and descriptors follow.
fn put_submit(out: &mut Out, header: &Header, status: i32, actual: usize, descriptors: &[u8]) {
    let is_failed = |descriptor: &&[u8]| pdu::word(descriptor, 3) != 0;
    let errors = descriptors.chunks_exact(DESCRIPTOR_LEN).filter(is_failed).count();
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let (actual, packets, errors) = (number(actual), number(header.packets), number(errors));
    let status = status.cast_unsigned();
    put_words(out, [3, header.seqnum, 0, 0, 0, status, actual, 0, packets, errors, 0, 0]);
}

/// Puts a RET_UNLINK.
fn put_unlink(out: &mut Out, seqnum: u32, status: i32) {
    put_words(out, [4, seqnum, 0, 0, 0, status.cast_unsigned(), 0, 0, 0, 0, 0, 0]);
}

fn put_words(out: &mut Out, words: [u32; 12]) {
    let mut bytes = [0; pdu::HEADER_LEN];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    out.put(&bytes);
}

const fn status_of(status: TransferStatus) -> i32 {
    match status {
        TransferStatus::Completed => 0,
        TransferStatus::TimedOut => -libc::ETIMEDOUT,
        TransferStatus::Cancelled => -libc::ECONNRESET,
        TransferStatus::Stall => -libc::EPIPE,
        TransferStatus::NoDevice => -libc::ESHUTDOWN,
        TransferStatus::Overflow => -libc::EOVERFLOW,
        TransferStatus::Error => -libc::EPROTO,
    }
}

const fn errno(error: Error) -> i32 {
    match error {
        Error::NoDevice => -libc::ESHUTDOWN,
        Error::NoMem => -libc::ENOMEM,
        Error::Busy => -libc::EBUSY,
        Error::InvalidParam => -libc::EINVAL,
        _ => -libc::EPIPE,
    }
}
