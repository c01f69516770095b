//! A USB/IP client: asks a server for its exports, imports a device, watches for a device.
//!
//! - `server`: the address of a server, as typed;
//! - `stream`: a connection to a server, with one time limit for all requests;
//! - `import`: a device for this machine;
//! - `replay`: the client's side of a recording;
//! - `watch`: news of a device, from a server with this extension;
//! - `error`: the reasons for a missing answer, in words for a user.
//!
//! The client knows the protocol's bytes ([`crate::wire`]) and nothing of this program's server, so
//! any USB/IP server will do.
//!
//! Contract: *blocks*, for the stated time at most beside the look-up of a name, whose time is the
//! system's. A server's numbers are bounded before memory is spent on them.

mod error;
mod import;
pub mod replay;
mod server;
mod stream;
mod watch;

use std::time::{Duration, Instant};

use crate::limits::DEVLIST_TIMEOUT;
use crate::wire::op::client::{self, RemoteDevice};
use crate::wire::op::{Request, USB_INTERFACE_LEN};
pub use error::{ClientError, Trouble};
pub use import::{Imported, SPEED_SUPER, import};
pub use server::Server;
use stream::Limited;
pub use watch::{Watch, prospect};

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

/// Asks a server for its exports (OP_REQ_DEVLIST). *Blocks.*
///
/// # Errors
/// The server can't be reached, or does not speak USB/IP.
pub fn exports(server: &Server) -> Result<Vec<Exported>, ClientError> {
    exports_within(server, DEVLIST_TIMEOUT)
}

/// The time that a request took, and what TCP then knew of the way to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The time to connect.
    pub connected: Duration,
    /// The time from the request to the end of the answer.
    pub answered: Duration,
    /// A round trip, smoothed; `None` where the system does not tell.
    pub round_trip: Option<Duration>,
    /// Segments that were sent a second time; `None` where the system does not tell.
    pub retransmitted: Option<u32>,
}

/// [`exports`], with the times. *Blocks.*
///
/// # Errors
/// As [`exports`].
pub fn probe(server: &Server) -> Result<(Vec<Exported>, Probe), ClientError> {
    probe_within(server, DEVLIST_TIMEOUT)
}

/// [`exports`], within another time. *Blocks.*
///
/// # Errors
/// As [`exports`].
pub fn exports_within(server: &Server, timeout: Duration) -> Result<Vec<Exported>, ClientError> {
    probe_within(server, timeout).map(|(exports, _)| exports)
}

fn probe_within(server: &Server, timeout: Duration) -> Result<(Vec<Exported>, Probe), ClientError> {
    let asked = Limited::connect(server, timeout).and_then(|mut stream| {
        let begun = Instant::now();
        let exports = ask(&mut stream)?;
        Ok((exports, stream.probe(begun.elapsed())))
    });
    asked.map_err(|trouble| server.error(trouble))
}

fn ask(stream: &mut Limited) -> Result<Vec<Exported>, Trouble> {
    stream.ask(Request::Devlist, &[])?;
    let count = u32::from_be_bytes(stream.part()?);
    if count > DEVICES_MAX {
        return Err(Trouble::TooMany(count));
    }
    (0..count).map(|_| read_device(stream)).collect()
}

fn read_device(stream: &mut Limited) -> Result<Exported, Trouble> {
    let device = client::parse_device(&stream.part()?);
    let interfaces = (0..device.num_interfaces).map(|_| {
        let interface: [u8; USB_INTERFACE_LEN] = stream.part()?;
        Ok(interface[0])
    });
    let interface_classes = interfaces.collect::<Result<_, Trouble>>()?;
    Ok(Exported { device, interface_classes })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::wire::op::USB_DEVICE_LEN;

    /// A server that sends a byte now and then has the same time as a silent server.
    #[test]
    fn a_server_that_drips_is_not_waited_for() {
        const TIMEOUT: Duration = Duration::from_millis(100);
        let (listener, server) = listening();
        let dripping = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A list of many devices, whose bytes would take minutes.
            stream.write_all(&[1, 0x11, 0, 5, 0, 0, 0, 0, 0, 0, 0x0f, 0xff]).unwrap();
            let mut bytes = 0;
            while stream.write_all(&[0]).is_ok() {
                bytes += 1;
                thread::sleep(TIMEOUT / 10);
            }
            bytes
        });
        let refused = exports_within(&server, TIMEOUT).unwrap_err();
        assert!(matches!(refused.trouble, Trouble::Slow(TIMEOUT)), "{refused:?}");
        assert!(refused.to_string().contains("took more than 0.1 s"), "{refused}");
        let bytes = dripping.join().unwrap();
        assert!(bytes < USB_DEVICE_LEN, "{bytes} bytes were waited for");
    }

    fn listening() -> (TcpListener, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        (listener, server)
    }

    /// The error of a server that does as told with its client.
    fn error_of(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let (listener, server) = listening();
        let serving = thread::spawn(move || serve(listener.accept().unwrap().0));
        let error = exports_within(&server, Duration::from_millis(200)).unwrap_err().to_string();
        serving.join().unwrap();
        error
    }

    #[test]
    fn each_missing_answer_has_words_of_its_own() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (listener, server) = listening();
        let serving = thread::spawn(move || {
            let client = listener.accept().unwrap();
            wait.recv().ok();
            drop(client);
        });
        let silent = exports_within(&server, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(silent.contains("said nothing for 0.05 s"), "{silent}");
        drop(done);
        serving.join().unwrap();

        let closed = error_of(drop);
        assert!(closed.contains("closed the connection: is this machine among its"), "{closed}");
        let cut = error_of(|mut stream| stream.write_all(&[1, 0x11, 0]).unwrap());
        assert!(cut.contains("closed before its answer was complete"), "{cut}");
        let refused =
            error_of(|mut stream| stream.write_all(&[1, 0x11, 0, 5, 0, 0, 0, 1]).unwrap());
        assert!(refused.ends_with("refused: not available"), "{refused}");
        let many = error_of(|mut stream| {
            stream.write_all(&[1, 0x11, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        });
        assert!(many.contains("claims to export 65536 devices"), "{many}");
    }
}
