//! Listening sockets that the service manager holds and passes to each new process
//! (sd_listen_fds(3)). While no process runs, clients wait in the sockets' queues, so a restart
//! refuses nobody.
//!
//! Contract: nothing blocks.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{SockRef, Type};
use usbferry_sys::os::activation;

use crate::limits::LISTENERS_MAX;

/// A listener that the service manager has passed.
#[derive(Debug)]
pub struct Passed {
    /// The listener, whose calls do not block.
    pub listener: TcpListener,
    /// Where clients connect.
    pub address: SocketAddr,
    /// The service manager's name for the socket (`FileDescriptorName=`), by default the unit's.
    pub name: String,
}

/// The name of a socket for the web server.
const WEB: &str = "http";

impl Passed {
    /// Whether the socket is for the web server, by its name.
    #[must_use]
    pub fn is_for_web(&self) -> bool {
        self.name == WEB
    }
}

/// A descriptor is not of the kind that a server listens on.
#[derive(Debug)]
pub struct PassedError {
    name: String,
    error: Option<io::Error>,
}

impl std::error::Error for PassedError {}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the service manager passes a descriptor, {}, that is no listening TCP socket; give the \
             unit ListenStream=ADDRESS:PORT and Accept=no",
            self.name
        )?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

/// Takes over the passed listeners, up to [`LISTENERS_MAX`]. To be called before anything opens a
/// file. Empty when the service manager has passed nothing, or there is none.
///
/// # Errors
/// A descriptor is no listening TCP socket.
pub fn take() -> Result<Vec<Passed>, PassedError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    let descriptors = activation::take_descriptors(LISTENERS_MAX);
    let passed = descriptors.into_iter().zip(names).map(|(descriptor, name)| {
        let name = if name.is_empty() { "without a name".to_owned() } else { name };
        prepare(descriptor.into(), name)
    });
    passed.collect()
}

fn prepare(listener: TcpListener, name: String) -> Result<Passed, PassedError> {
    let of = |listener: &TcpListener| {
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, is_listening(&SockRef::from(listener))?))
    };
    match of(&listener) {
        Ok((address, true)) => Ok(Passed { listener, address, name }),
        Ok((_, false)) => Err(PassedError { name, error: None }),
        Err(error) => Err(PassedError { name, error: Some(error) }),
    }
}

/// Whether a socket is for connections, and listens.
#[cfg(target_os = "linux")]
fn is_listening(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(socket.r#type()? == Type::STREAM && socket.is_listener()?)
}

/// macOS does not tell whether a socket listens.
#[cfg(not(target_os = "linux"))]
fn is_listening(socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(socket.r#type()? == Type::STREAM)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_listening_tcp_socket_is_taken() {
        let name = || "usbferry.socket".to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passed = prepare(listener, name()).unwrap();
        assert_eq!((passed.address, passed.name), (address, name()));
        let accepted = passed.listener.accept().unwrap_err();
        assert_eq!(accepted.kind(), io::ErrorKind::WouldBlock);
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let wrong: [OwnedFd; 4] = [unix.into(), client.into(), udp.into(), file.into()];
        let wrong = if cfg!(target_os = "linux") { wrong.into() } else { Vec::new() };
        for descriptor in wrong {
            let error = prepare(descriptor.into(), name()).unwrap_err().to_string();
            assert!(error.contains("usbferry.socket, that is no listening TCP socket"), "{error}");
        }
    }
}
