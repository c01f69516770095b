//! A USB/IP client: asks a server for its exports.
//!
//! - `stream`: a connection to a server, with one time limit for all requests;
//! - `error`: the reasons for a missing answer, in words for a user.
//!
//! The client knows the protocol's bytes ([`crate::wire`]) and nothing of this program's server, so
//! any USB/IP server will do.
//!
//! Contract: *blocks*, for the stated time at most beside the look-up of a name, whose time is the
//! system's. A server's numbers are bounded before memory is spent on them.

mod error;
mod stream;

use std::io::{Read, Write};
use std::time::Duration;

use crate::wire::op::client::{self, RemoteDevice};
use crate::wire::op::{OP_COMMON_LEN, Request, USB_DEVICE_LEN, USB_INTERFACE_LEN};
pub use error::{ClientError, Trouble};
use stream::Limited;

/// Time for a server to be reached and to answer, in all.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Largest believable number of a server's devices; no machine has more.
const DEVICES_MAX: u32 = 4096;

/// A device in a server's list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// The device itself.
    pub device: RemoteDevice,
    /// bInterfaceClass of each interface.
    pub interface_classes: Vec<u8>,
}

/// Asks the server at `HOST` or `HOST:PORT` for its exports (OP_REQ_DEVLIST). *Blocks.*
///
/// # Errors
/// The server can't be reached, or does not speak USB/IP.
pub fn exports(host: &str) -> Result<Vec<Exported>, ClientError> {
    exports_within(host, TIMEOUT)
}

fn exports_within(host: &str, timeout: Duration) -> Result<Vec<Exported>, ClientError> {
    let asked = Limited::connect(host, timeout).and_then(|mut stream| ask(&mut stream));
    asked.map_err(|trouble| ClientError { host: host.to_owned(), trouble })
}

fn ask(stream: &mut Limited) -> Result<Vec<Exported>, Trouble> {
    let mut common = [0; OP_COMMON_LEN];
    let (first, rest) = common.split_at_mut(1);
    stream
        .write_all(&Request::Devlist.to_bytes())
        .and_then(|()| stream.read_exact(first))
        .map_err(|error| stream.unanswered(error))?;
    stream.read_exact(rest).map_err(|error| stream.cut_short(error))?;
    client::parse_common(&common, Request::Devlist)?;
    let mut count = [0; 4];
    stream.read_exact(&mut count).map_err(|error| stream.cut_short(error))?;
    let count = u32::from_be_bytes(count);
    if count > DEVICES_MAX {
        return Err(Trouble::TooMany(count));
    }
    (0..count).map(|_| read_device(stream)).collect()
}

fn read_device(stream: &mut Limited) -> Result<Exported, Trouble> {
    let mut record = [0; USB_DEVICE_LEN];
    stream.read_exact(&mut record).map_err(|error| stream.cut_short(error))?;
    let device = client::parse_device(&record);
    let mut interface_classes = Vec::new();
    for _ in 0..device.num_interfaces {
        let mut interface = [0; USB_INTERFACE_LEN];
        stream.read_exact(&mut interface).map_err(|error| stream.cut_short(error))?;
        interface_classes.push(interface[0]);
    }
    Ok(Exported { device, interface_classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends a byte now and then has the same time as a silent server.
    #[test]
    fn a_server_that_drips_is_not_waited_for() {
        const TIMEOUT: Duration = Duration::from_millis(100);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A list of many devices, whose bytes would take minutes.
            stream.write_all(&[1, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0x0f, 0xff]).unwrap();
            let mut bytes = 0;
            while stream.write_all(&[0]).is_ok() {
                bytes += 1;
                std::thread::sleep(TIMEOUT / 10);
            }
            bytes
        });
        let refused = exports_within(&address, TIMEOUT).unwrap_err();
        assert!(matches!(refused.trouble, Trouble::Slow(TIMEOUT)), "{refused:?}");
        assert!(refused.to_string().contains("has not answered completely"), "{refused}");
        let bytes = dripping.join().unwrap();
        assert!(bytes < USB_DEVICE_LEN, "{bytes} bytes were waited for");
    }
}
