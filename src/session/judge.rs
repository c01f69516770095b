//! Whether a SUBMIT can be carried out, by the endpoints in force and by the request.
//!
//! Contract: part of the session: nothing here blocks or allocates.

use super::control::Control;
use super::endpoints::EndpointState;
use super::urb::Urb;
use super::{Session, Violation};
use crate::complaints::warn;
use crate::usb::Port;
use crate::wire::iso::Packets;
use crate::wire::pdu::CmdSubmit;
use crate::wire::setup::SETUP_LEN;
use crate::wire::status::Status;
use crate::wire::types::{Direction, EndpointAddress, TransferType};

impl<P: Port> Session<P> {
    /// The number of packet descriptors at the end of a SUBMIT. Only isochronous endpoints have
    /// descriptors; for other endpoints clients leave anything in the number's field. Where an
    /// endpoint may be isochronous, see [`super::prospects`], a possible number is believed. A
    /// number is believed, too, for an endpoint outside the settings in force, if no other setting
    /// was asked for: the client looked at other settings then, unless all settings with the
    /// endpoint agree on its having no packets.
    pub(super) fn packets_that_follow(&mut self, submit: &CmdSubmit) -> Result<u32, Violation> {
        if self.barriers.prospects.are_open() {
            if !self.barriers.is_open() {
                return Ok(self.packets_that_may_follow(submit.endpoint, submit.number_of_packets));
            }
            self.barriers.prospects.clear();
        }
        match self.endpoints.get(submit.endpoint).transfer_type {
            Some(TransferType::Isochronous) => Ok(submit.iso_packets()?),
            Some(_) => Ok(0),
            None => Ok(self.packets_that_may_follow(submit.endpoint, submit.number_of_packets)),
        }
    }

    /// The same, where the setting in force does not tell. Not of a SUBMIT: no function gets the
    /// address of a SUBMIT, so most SUBMITs never lie on the stack.
    #[inline(never)]
    fn packets_that_may_follow(&self, endpoint: EndpointAddress, number: i32) -> u32 {
        let prospects = &self.barriers.prospects;
        let may_be = match self.endpoints.get(endpoint).transfer_type {
            Some(TransferType::Isochronous) => true,
            None if !prospects.are_open() => !prospects.is_never_isochronous(endpoint),
            _ => prospects.may_be_isochronous(endpoint),
        };
        if may_be { CmdSubmit::iso_packets_of(number).unwrap_or(0) } else { 0 }
    }

    /// Warns once if the client's driver counts on another interval than the host will keep. Its
    /// data is then too late or too early, and nothing else tells why.
    pub(super) fn compare_interval(&mut self, endpoint: EndpointAddress, submitted: i32) {
        let host = self.endpoints.get(endpoint).interval;
        if self.endpoints.is_interval_warned || !is_other_interval(submitted, host) {
            return;
        }
        self.endpoints.is_interval_warned = true;
        warn!(
            "{}: the client's driver wants an isochronous packet of endpoint {:#04x} each {} \
             (micro)frames, but by the device's bInterval the host moves one each {host}, and \
             programs like this can't choose: what it plays or records will not keep time",
            self.devid,
            endpoint.as_byte(),
            submitted,
        );
    }
}

/// Judges a URB by the present endpoint and request; a status if the URB can't be carried out.
/// `behind_barrier`, the endpoint is not known yet and is looked at again when the barrier is over.
#[inline]
pub(super) fn judge(
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
    // A URB is isochronous if and only if there are packets; a client of another opinion looked at
    // other descriptors than ours.
    if (record.transfer_type == TransferType::Isochronous) != has_packets {
        return Some(Status::EINVAL);
    }
    endpoint.refused
}

/// The bytes of a URB's transfer; `None` when the packets do not fit the buffer.
#[inline]
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

/// Whether a SUBMIT's interval differs from the endpoint's. The field need not be an interval: some
/// clients send nothing, some bInterval as the descriptor has it.
const fn is_other_interval(submitted: i32, host: u16) -> bool {
    let (Some(exponent), 1..) = (host.checked_ilog2(), submitted) else { return false };
    submitted != host as i32 && submitted != exponent.cast_signed() + 1
}
