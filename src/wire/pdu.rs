//! The 48-byte headers after the handshake (`struct usbip_header` of
//! `drivers/usb/usbip/usbip_common.h`).
//!
//! Contract: pure functions from arrays to values and back, without allocation and without a panic
//! on any input.

use bytes::{Buf, BufMut};

use super::Error;
use super::iso::PACKETS_MAX;
use super::setup::SETUP_LEN;
use super::status::Status;
use super::types::{DevId, Direction, EndpointAddress, SeqNum};

/// Bytes of every header, in both directions.
pub const HEADER_LEN: usize = 48;

const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;

/// A client's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// A URB to carry out.
    Submit(CmdSubmit),
    /// A URB to give up.
    Unlink(CmdUnlink),
}

/// CMD_SUBMIT, followed by OUT data and isochronous descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are the kernel's")]
pub struct CmdSubmit {
    pub seqnum: SeqNum,
    pub devid: DevId,
    /// Number and direction of the header; not yet known to exist.
    pub endpoint: EndpointAddress,
    pub transfer_flags: u32,
    /// Bytes; at most `i32::MAX`.
    pub transfer_buffer_length: u32,
    pub start_frame: i32,
    /// Unchecked: 0 or -1 for a URB without packets, depending on the client. Says nothing about
    /// the type of the endpoint. Echoed unchanged.
    pub number_of_packets: i32,
    /// Frames, or microframes at high speed and above, between the packets of an isochronous URB,
    /// by the choice of the client's driver. Linux sends a power of 2; other clients send any
    /// number.
    pub interval: i32,
    pub setup: [u8; SETUP_LEN],
}

impl CmdSubmit {
    /// Bytes of OUT data behind the header.
    #[must_use]
    pub const fn payload_len(&self) -> u32 {
        match self.endpoint.direction() {
            Direction::Out => self.transfer_buffer_length,
            Direction::In => 0,
        }
    }

    /// The number of packets of a URB on an isochronous endpoint.
    ///
    /// # Errors
    /// The number is out of range, so the end of the PDU is unknown.
    pub fn iso_packets(&self) -> Result<u32, Error> {
        Self::iso_packets_of(self.number_of_packets)
    }

    /// The same of a SUBMIT's number.
    ///
    /// # Errors
    /// As above.
    pub fn iso_packets_of(number: i32) -> Result<u32, Error> {
        match u32::try_from(number) {
            Ok(count) if count <= PACKETS_MAX => Ok(count),
            _ => Err(Error::Packets(number)),
        }
    }
}

/// CMD_UNLINK, a header and nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are the kernel's")]
pub struct CmdUnlink {
    /// The command's own number, echoed in the reply.
    pub seqnum: SeqNum,
    pub devid: DevId,
    /// The CMD_SUBMIT to give up.
    pub target: SeqNum,
}

impl Command {
    /// Reads a header.
    ///
    /// # Errors
    /// A server's command, or a field never sent by any kernel. The connection is of no further
    /// use, since the start of the next PDU is unknown.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let mut fields = &bytes[..];
        let command = fields.get_u32();
        let seqnum = SeqNum(fields.get_u32());
        let devid = DevId(fields.get_u32());
        let direction = fields.get_u32();
        let number = fields.get_u32();
        match command {
            CMD_UNLINK => {
                Ok(Self::Unlink(CmdUnlink { seqnum, devid, target: SeqNum(fields.get_u32()) }))
            }
            CMD_SUBMIT => {
                let direction = match direction {
                    0 => Direction::Out,
                    1 => Direction::In,
                    other => return Err(Error::Direction(other)),
                };
                let endpoint = match u8::try_from(number) {
                    Ok(number @ 0..=15) => EndpointAddress::new(number, direction),
                    _ => return Err(Error::Endpoint(number)),
                };
                let transfer_flags = fields.get_u32();
                let length = fields.get_i32();
                let Ok(transfer_buffer_length) = u32::try_from(length) else {
                    return Err(Error::Length(length));
                };
                let start_frame = fields.get_i32();
                let number_of_packets = fields.get_i32();
                let interval = fields.get_i32();
                let mut setup = [0; SETUP_LEN];
                fields.copy_to_slice(&mut setup);
                Ok(Self::Submit(CmdSubmit {
                    seqnum,
                    devid,
                    endpoint,
                    transfer_flags,
                    transfer_buffer_length,
                    start_frame,
                    number_of_packets,
                    interval,
                    setup,
                }))
            }
            other => Err(Error::Command(other)),
        }
    }

    /// Emits the header as sent by a client.
    pub fn emit(&self, header: &mut [u8; HEADER_LEN]) {
        let mut out = &mut header[..];
        match self {
            Self::Submit(submit) => {
                out.put_u32(CMD_SUBMIT);
                out.put_u32(submit.seqnum.0);
                out.put_u32(submit.devid.0);
                out.put_u32(submit.endpoint.direction() as u32);
                out.put_u32(submit.endpoint.number().into());
                out.put_u32(submit.transfer_flags);
                out.put_u32(submit.transfer_buffer_length);
                out.put_i32(submit.start_frame);
                out.put_i32(submit.number_of_packets);
                out.put_i32(submit.interval);
                out.put_slice(&submit.setup);
            }
            Self::Unlink(unlink) => {
                out.put_u32(CMD_UNLINK);
                out.put_u32(unlink.seqnum.0);
                out.put_u32(unlink.devid.0);
                out.put_u64(0);
                out.put_u32(unlink.target.0);
                out.put_bytes(0, 24);
            }
        }
    }
}

/// A server's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A URB's end.
    Submit(RetSubmit),
    /// An unlink's answer.
    Unlink(RetUnlink),
}

/// RET_SUBMIT, followed by IN data of `actual_length` bytes and isochronous descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are the kernel's")]
pub struct RetSubmit {
    pub seqnum: SeqNum,
    pub status: Status,
    /// Bytes, at most the request's transfer_buffer_length.
    pub actual_length: u32,
    pub start_frame: i32,
    /// The request's own value, unchanged.
    pub number_of_packets: i32,
    /// Isochronous packets whose status is not zero.
    pub error_count: u32,
}

/// RET_UNLINK, a header and nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the field names are the kernel's")]
pub struct RetUnlink {
    /// The CMD_UNLINK's own number.
    pub seqnum: SeqNum,
    pub status: Status,
}

impl RetSubmit {
    /// Emits the header and writes every byte.
    pub fn emit(&self, header: &mut [u8; HEADER_LEN]) {
        let mut out = &mut header[..];
        out.put_u32(RET_SUBMIT);
        out.put_u32(self.seqnum.0);
        // devid, direction and endpoint: zero in the kernel's replies, ignored by clients.
        out.put_bytes(0, 12);
        out.put_i32(self.status.0);
        out.put_u32(self.actual_length);
        out.put_i32(self.start_frame);
        out.put_i32(self.number_of_packets);
        out.put_u32(self.error_count);
        out.put_bytes(0, 8);
    }
}

impl RetUnlink {
    /// Emits the header and writes every byte.
    pub fn emit(&self, header: &mut [u8; HEADER_LEN]) {
        let mut out = &mut header[..];
        out.put_u32(RET_UNLINK);
        out.put_u32(self.seqnum.0);
        out.put_bytes(0, 12);
        out.put_i32(self.status.0);
        out.put_bytes(0, 24);
    }
}

impl Reply {
    /// Reads a server's header, for the clients of tests and benches.
    ///
    /// # Errors
    /// A command that is not a server's.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Error> {
        let mut fields = &bytes[..];
        let command = fields.get_u32();
        let seqnum = SeqNum(fields.get_u32());
        fields.advance(12);
        let status = Status(fields.get_i32());
        match command {
            RET_UNLINK => Ok(Self::Unlink(RetUnlink { seqnum, status })),
            RET_SUBMIT => Ok(Self::Submit(RetSubmit {
                seqnum,
                status,
                actual_length: fields.get_u32(),
                start_frame: fields.get_i32(),
                number_of_packets: fields.get_i32(),
                error_count: fields.get_u32(),
            })),
            other => Err(Error::Command(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(hex: &str) -> [u8; HEADER_LEN] {
        let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| byte(pair).unwrap()).collect();
        bytes.try_into().expect("48 bytes")
    }

    /// GET_DESCRIPTOR(device), 18 bytes, as sent by Linux.
    const SUBMIT_CONTROL_IN: &str = "00000001 00000d05 0001000f 00000001 00000000
        00000200 00000012 00000000 00000000 00000000 8006000100001200";

    /// An interrupt IN of Linux, whose start_frame is -1.
    const SUBMIT_INTERRUPT_IN: &str = "00000001 00000d06 0001000f 00000001 00000001
        00000200 00000040 ffffffff 00000000 00000004 0000000000000000";

    const UNLINK: &str = "00000002 0000055e 0001000f 00000000 00000000
        0000055d 00000000 00000000 00000000 00000000 00000000 00000000";

    const RET: &str = "00000003 00000d05 00000000 00000000 00000000
        00000000 00000012 00000000 00000000 00000000 00000000 00000000";

    #[test]
    fn submit_parses_and_emits() {
        let bytes = header(SUBMIT_CONTROL_IN);
        let submit = CmdSubmit {
            seqnum: SeqNum(0xd05),
            devid: DevId::new(1, 15),
            endpoint: EndpointAddress::new(0, Direction::In),
            transfer_flags: 0x200,
            transfer_buffer_length: 18,
            start_frame: 0,
            number_of_packets: 0,
            interval: 0,
            setup: [0x80, 6, 0, 1, 0, 0, 18, 0],
        };
        assert_eq!(Command::parse(&bytes), Ok(Command::Submit(submit)));
        let mut emitted = [0xa5; HEADER_LEN];
        Command::Submit(submit).emit(&mut emitted);
        assert_eq!(emitted, bytes);
        assert_eq!(submit.payload_len(), 0);
    }

    #[test]
    fn start_frame_keeps_its_sign() {
        let Ok(Command::Submit(submit)) = Command::parse(&header(SUBMIT_INTERRUPT_IN)) else {
            panic!("a submit")
        };
        assert_eq!(submit.start_frame, -1);
        assert_eq!(submit.endpoint.as_byte(), 0x81);
    }

    #[test]
    fn unlink_parses_and_emits() {
        let bytes = header(UNLINK);
        let unlink =
            CmdUnlink { seqnum: SeqNum(0x55e), devid: DevId::new(1, 15), target: SeqNum(0x55d) };
        assert_eq!(Command::parse(&bytes), Ok(Command::Unlink(unlink)));
        let mut emitted = [0xa5; HEADER_LEN];
        Command::Unlink(unlink).emit(&mut emitted);
        assert_eq!(emitted, bytes);
    }

    #[test]
    fn replies_emit_every_byte_and_parse() {
        let mut bytes = [0xa5; HEADER_LEN];
        let ret = RetSubmit {
            seqnum: SeqNum(0xd05),
            status: Status::OK,
            actual_length: 18,
            start_frame: 0,
            number_of_packets: 0,
            error_count: 0,
        };
        ret.emit(&mut bytes);
        assert_eq!(bytes, header(RET));
        assert_eq!(Reply::parse(&bytes), Ok(Reply::Submit(ret)));

        bytes.fill(0xa5);
        let ret = RetUnlink { seqnum: SeqNum(5), status: Status::ECONNRESET };
        ret.emit(&mut bytes);
        assert_eq!(bytes[..8], [0, 0, 0, 4, 0, 0, 0, 5]);
        assert_eq!(bytes[0x14..0x18], [0xff, 0xff, 0xff, 0x98]);
        assert!(bytes[8..0x14].iter().chain(&bytes[0x18..]).all(|&b| b == 0));
        assert_eq!(Reply::parse(&bytes), Ok(Reply::Unlink(ret)));
    }

    #[test]
    fn fields_no_kernel_sends_are_refused() {
        let with = |offset: usize, value: u32| {
            let mut bytes = header(SUBMIT_CONTROL_IN);
            bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
            Command::parse(&bytes)
        };
        for command in [0, 3, 4, 5, u32::MAX] {
            assert_eq!(with(0, command), Err(Error::Command(command)));
        }
        assert_eq!(with(0x0c, 2), Err(Error::Direction(2)));
        assert_eq!(with(0x10, 16), Err(Error::Endpoint(16)));
        assert_eq!(with(0x10, 0x81), Err(Error::Endpoint(0x81)));
        assert_eq!(with(0x10, 0x100), Err(Error::Endpoint(0x100)));
        assert_eq!(with(0x18, u32::MAX), Err(Error::Length(-1)));
        assert_eq!(with(0x18, 0x8000_0000), Err(Error::Length(i32::MIN)));
    }

    #[test]
    fn packet_counts_are_bounded() {
        let Ok(Command::Submit(mut submit)) = Command::parse(&header(SUBMIT_INTERRUPT_IN)) else {
            panic!("a submit")
        };
        for (count, expected) in [
            (0, Ok(0)),
            (1024, Ok(1024)),
            (1025, Err(Error::Packets(1025))),
            (-5, Err(Error::Packets(-5))),
            (i32::MAX, Err(Error::Packets(i32::MAX))),
        ] {
            submit.number_of_packets = count;
            assert_eq!(submit.iso_packets(), expected);
        }
    }
}
