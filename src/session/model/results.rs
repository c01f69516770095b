//! The results of transfers and of special requests, from the choices of an operation.

use super::device::{Flight, configurations};
use super::rng::Rng;
use super::world::World;
use crate::usb::Performed;
use crate::usb::special::SpecialRequest;
use crate::wire::status::Status;

impl World {
    /// The result of a special request.
    pub(super) fn choose_outcome(
        &mut self,
        request: SpecialRequest,
        outcome: u8,
        value: u16,
    ) -> Performed {
        self.failures += 1;
        let failure = Status(-2_000_000 - self.failures);
        let failed = Performed::Failed(failure);
        // A request failed half-way changes something all the same.
        let status = if outcome % 16 == 4 { failure } else { Status::OK };
        match (outcome % 16, request) {
            (0, _) => failed,
            (1, _) => Performed::Forward,
            (2, _) if value.is_multiple_of(4) => Performed::Gone,
            (_, SpecialRequest::ClearHalt(_)) => Performed::Done,
            (3, SpecialRequest::Reset) => failed,
            (_, SpecialRequest::Reset) => Performed::Done,
            (_, SpecialRequest::SetInterface { interface, alternate }) => {
                let mut now = self.client.configuration_of(u32::MAX).cloned();
                let interfaces = now.iter_mut().flat_map(|c| &mut c.interfaces);
                for found in interfaces.filter(|found| found.number == interface) {
                    found.current = alternate;
                }
                Performed::Reconfigured { configuration: now, status }
            }
            (_, SpecialRequest::SetConfiguration(_)) => {
                let [full, other, none] = configurations(u8::try_from(value % 3).expect("small"));
                let choices = [full.clone(), full, other, none];
                let configuration = choices[usize::from(value / 3 % 4)].clone();
                Performed::Reconfigured { configuration, status }
            }
        }
    }
}

/// How a transfer ends: its status, and how much was transferred.
pub(super) fn result_of(
    flight: &Flight,
    how: u16,
    len: u16,
    room: usize,
    gone: bool,
) -> (Status, u32) {
    let room = u32::try_from(room).expect("small");
    let part = u32::from(len) % (room + 1);
    if gone {
        return [(Status::ESHUTDOWN, 0), (Status::ENODEV, part)][usize::from(how % 2)];
    }
    if flight.cancelled {
        return match how % 8 {
            0 => (Status::OK, room),
            1 => (Status::ECONNRESET, part),
            2 => (Status::EPROTO, 0),
            _ => (Status::ECONNRESET, 0),
        };
    }
    let actual = match how >> 4 & 7 {
        0 => 0,
        1 | 2 => part,
        // A device or a stack claims too much.
        3 if how >> 7 & 7 == 0 => room + 1 + part,
        _ => room,
    };
    let status = match how % 16 {
        10 => Status::EPIPE,
        11 => Status::EPROTO,
        12 => Status::EOVERFLOW,
        13 => Status::ETIMEDOUT,
        // There the status means a cancel of another transfer of the endpoint.
        14 if cfg!(not(target_os = "macos")) => Status::ECONNRESET,
        15 => Status::ESHUTDOWN,
        _ => Status::OK,
    };
    (status, actual)
}

/// How the packets of a transfer end, `none` of them with data.
pub(super) fn packet_results(flight: &Flight, none: bool) -> Vec<(u32, Status)> {
    let mut rng = Rng(flight.serial.into());
    let result = |&length: &u32| match rng.below(8) {
        _ if none => (0, Status::EXDEV),
        0 => (0, Status::EXDEV),
        1 => (rng.below(length + 1), Status::OK),
        2 => (rng.below(length + 1), Status::EPROTO),
        3 => (length + 5, Status::OK),
        _ => (length, Status::OK),
    };
    flight.packets.iter().map(result).collect()
}
