//! What can be carried out of a SUBMIT, by the endpoints in force and by its request.
//!
//! Contract: part of the session, so nothing here blocks or allocates.

use super::control::Control;
use super::endpoints::EndpointState;
use super::urb::{Urb, UrbIndex};
use super::{Session, Violation};
use crate::complaints::warn;
use crate::usb::Port;
use crate::wire::iso::Packets;
use crate::wire::pdu::CmdSubmit;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{Direction, TransferType};

impl<P: Port> Session<P> {
    /// Judges a URB by its endpoint and request as they are now: refused if it can't be carried out.
    /// `behind_barrier`, the endpoint is not known yet and is looked at again when the barrier is
    /// over.
    pub(super) fn judge(&mut self, urb: UrbIndex, behind_barrier: bool) {
        let record = self.urbs.get_mut(urb);
        let endpoint = self.endpoints.get(record.submit.endpoint);
        record.refusal = judge(record, endpoint, &mut self.control, behind_barrier);
    }

    /// The number of packet descriptors at the end of a SUBMIT. There are some only if its endpoint
    /// is isochronous; where it is not, clients leave anything in that field. Where it may be, see
    /// [`super::prospects`], a number that can be one is believed. So it is for an endpoint that
    /// the settings in force do not have, if no other was asked for: the client looked at other
    /// ones then, unless all that have the endpoint agree that it has no packets.
    pub(super) fn packets_that_follow(&self, submit: &CmdSubmit) -> Result<u32, Violation> {
        let known = self.endpoints.get(submit.endpoint).transfer_type;
        let may_be = match known {
            Some(TransferType::Isochronous) if !self.barriers.prospects.are_open() => {
                return Ok(submit.iso_packets()?);
            }
            Some(TransferType::Isochronous) => true,
            None if !self.barriers.prospects.are_open() => {
                !self.barriers.prospects.is_never_isochronous(submit.endpoint)
            }
            _ => self.barriers.prospects.may_be_isochronous(submit.endpoint),
        };
        Ok(if may_be { submit.iso_packets().unwrap_or(0) } else { 0 })
    }

    /// Says once if the client's driver counts on another interval than the host will keep. What it
    /// sends or asks for is then too late or too early, and nothing else tells why.
    pub(super) fn compare_interval(&mut self, submit: &CmdSubmit) {
        let host = self.endpoints.get(submit.endpoint).interval;
        if self.endpoints.is_interval_warned || !is_other_interval(submit.interval, host) {
            return;
        }
        self.endpoints.is_interval_warned = true;
        warn!(
            "{}: the client's driver wants an isochronous packet of endpoint {:#04x} each {} \
             (micro)frames, but by the device's bInterval the host moves one each {host}, and \
             programs like this can't choose: what it plays or records will not keep time",
            self.devid,
            submit.endpoint.as_byte(),
            submit.interval,
        );
    }
}

/// Looks at a URB's endpoint and request as they are now; a status if it can't be carried out.
/// Behind a barrier the endpoint is not known yet and is looked at again when it is over.
fn judge(
    record: &mut Urb,
    endpoint: &EndpointState,
    control: &mut Control,
    behind_barrier: bool,
) -> Option<Status> {
    let has_packets = record.packets > 0;
    record.transfer_type = match endpoint.transfer_type {
        Some(transfer_type) => transfer_type,
        None if behind_barrier && has_packets => TransferType::Isochronous,
        None if behind_barrier => TransferType::Bulk,
        None => return Some(Status::ENOENT),
    };
    if record.transfer_type == TransferType::Control {
        return endpoint.refused.or_else(|| control.judge(record));
    }
    if behind_barrier {
        return None;
    }
    // A URB with packets is isochronous and one without is not; a client that mixes that up
    // looked at other descriptors than ours.
    if (record.transfer_type == TransferType::Isochronous) != has_packets {
        return Some(Status::EINVAL);
    }
    endpoint.refused
}

/// The bytes of a URB's transfer; `None` when its packets do not fit its buffer.
pub(super) fn length_of(record: &Urb, packets: Packets<'_>, control: &Control) -> Option<usize> {
    let length = record.submit.transfer_buffer_length;
    match record.transfer_type {
        TransferType::Bulk | TransferType::Interrupt => Some(length as usize),
        TransferType::Control => Some(SETUP_LEN + usize::from(control.setup_of(record).length)),
        TransferType::Isochronous => {
            let for_out = record.direction == Direction::Out;
            packets.check(length, for_out).ok().map(|sum| sum as usize)
        }
    }
}

/// Whether a SUBMIT's interval is another than the endpoint has. Not each is one: some clients send
/// nothing in its place, others bInterval as the descriptor has it.
const fn is_other_interval(submitted: i32, host: u16) -> bool {
    let (Some(exponent), 1..) = (host.checked_ilog2(), submitted) else { return false };
    submitted != host as i32 && submitted != exponent.cast_signed() + 1
}
