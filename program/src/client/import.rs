//! The import of a device: OP_REQ_IMPORT, and the check of the answer.
//!
//! Contract: *blocks*, for IMPORT_TIMEOUT at most beside the look-up of a name. The answer is taken
//! for hostile: only the socket, the devid and the speed leave this module, each in its bounds.

use std::net::TcpStream;

use super::error::{ClientError, Trouble};
use super::server::Server;
use super::stream::Limited;
use crate::limits::{IMPORT_TIMEOUT, PEER_TIMEOUT_DEFAULT};
use crate::sockets;
use crate::wire::op::Request;
use crate::wire::op::client::{self, RemoteDevice};
use crate::wire::types::{BusId, DevId};

/// USB_SPEED_SUPER of `linux/usb/ch9.h`.
pub const SPEED_SUPER: u32 = 5;

/// USB_SPEED_SUPER_PLUS.
const SPEED_SUPER_PLUS: u32 = 6;

/// An imported device: its session begins with the next byte on the socket.
#[derive(Debug)]
pub struct Imported {
    /// The connection, with the options of a session and without a time limit.
    pub stream: TcpStream,
    /// The device's name in each PDU.
    pub devid: DevId,
    /// `enum usb_device_speed`, from 1 to [`SPEED_SUPER`].
    pub speed: u32,
    /// Vendor and product.
    pub ids: (u16, u16),
}

/// Imports a device by the name that the server knows. *Blocks.*
///
/// # Errors
/// The server can't be reached, refuses, or does not speak USB/IP.
pub fn import(server: &Server, name: BusId) -> Result<Imported, ClientError> {
    Limited::connect(server, IMPORT_TIMEOUT)
        .and_then(|stream| ask(stream, name))
        .map_err(|trouble| server.error(trouble))
}

fn ask(mut stream: Limited, name: BusId) -> Result<Imported, Trouble> {
    stream.ask(Request::Import, name.as_wire())?;
    let device = client::parse_device(&stream.part()?);
    let speed = check(&device, name)?;
    let stream = stream.into_stream()?;
    sockets::prepare(&stream, PEER_TIMEOUT_DEFAULT);
    let ids = (device.id_vendor, device.id_product);
    Ok(Imported { stream, devid: device.devid(), speed, ids })
}

/// Checks that the device is the requested, and returns the speed in the form for `vhci_hcd`: all
/// devices above 5 Gbit/s as SUPER, since Linux before 6.12 takes no more, and later kernels treat
/// both alike (docs/kernels.md).
fn check(device: &RemoteDevice, name: BusId) -> Result<u32, Trouble> {
    if device.busid != name {
        return Err(Trouble::OtherDevice(device.busid));
    }
    match device.speed {
        speed @ 1..=SPEED_SUPER => Ok(speed),
        SPEED_SUPER_PLUS => Ok(SPEED_SUPER),
        other => Err(Trouble::Speed(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wire::op::{Refusal, USB_DEVICE_LEN};

    /// A record with a busid and a speed.
    fn record(busid: &str, speed: u32) -> Vec<u8> {
        let mut record = vec![0; USB_DEVICE_LEN];
        record[256..256 + busid.len()].copy_from_slice(busid.as_bytes());
        record[0x120..0x128].copy_from_slice(&[0, 0, 0, 3, 0, 0, 0, 7]);
        record[0x128..0x12c].copy_from_slice(&speed.to_be_bytes());
        record
    }

    /// Imports `1-2` from a server with the given answer, which then closes.
    fn answered(answer: Vec<u8>) -> Result<Imported, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 40];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
            request
        });
        let imported = import(&server, BusId::new("1-2").unwrap());
        let request = serving.join().unwrap();
        assert_eq!(request[..12], *b"\x01\x11\x80\x03\0\0\0\x001-2\0");
        imported
    }

    const OK: [u8; 8] = [0x01, 0x11, 0, 3, 0, 0, 0, 0];

    #[test]
    fn a_device_is_imported_with_an_unlimited_socket() {
        for (sent, speed) in [(1, 1), (3, 3), (5, 5), (6, 5)] {
            let imported = answered([&OK[..], &record("1-2", sent)].concat()).unwrap();
            assert_eq!((imported.devid, imported.speed), (DevId::new(3, 7), speed));
            assert_eq!(imported.stream.read_timeout().unwrap(), None);
            assert_eq!(imported.stream.write_timeout().unwrap(), None);
            assert!(imported.stream.nodelay().unwrap());
        }
    }

    #[test]
    fn a_refusal_and_a_wrong_answer_are_told_apart() {
        let refused = answered(vec![0x01, 0x11, 0, 3, 0, 0, 0, 2]).unwrap_err();
        assert_eq!(refused.refusal(), Some(Refusal::BUSY));
        assert!(refused.to_string().ends_with("refused: in use by another client or program"));
        for (answer, says) in [
            (vec![], "is this machine among its --allow?"),
            (OK[..4].to_vec(), "closed before its answer was complete"),
            ([&OK[..], &record("1-2", 3)[..300]].concat(), "closed before its answer"),
            ([&OK[..], &record("1-3", 3)].concat(), "another device than the requested: 1-3"),
            ([&OK[..], &record("", 3)].concat(), "another device than the requested"),
            ([&OK[..], &record("1-2", 0)].concat(), "names 0 as the device's speed"),
            ([&OK[..], &record("1-2", 7)].concat(), "names 7 as the device's speed"),
            (vec![0x01, 0x11, 0, 5, 0, 0, 0, 0], "does not answer as a USB/IP server"),
            (b"HTTP/1.1 400".to_vec(), "does not answer as a USB/IP server"),
        ] {
            let error = answered(answer).unwrap_err();
            assert_eq!(error.refusal(), None);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
