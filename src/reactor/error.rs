//! Why a server can't be started, in words for a user.
//!
//! Contract: plain data.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use usbferry_sys::os::tcp;

use crate::capture::CaptureError;
use crate::wire::PORT;
use crate::words::reason;

/// The system refuses to listen on an address.
#[derive(Debug)]
pub struct ListenError {
    /// The address, as the settings have it.
    pub address: SocketAddr,
    /// The system's reason.
    pub error: io::Error,
}

impl ListenError {
    /// Whether another program listens there.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.error.kind() == io::ErrorKind::AddrInUse
    }
}

impl std::error::Error for ListenError {}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "can't listen on {}: ", self.address)?;
        explain_listen(self.address, &self.error, f)
    }
}

/// Why a server can't be started.
#[derive(Debug)]
pub enum StartError {
    /// The system refuses to listen on an address.
    Listen {
        /// The address, and the system's reason.
        error: ListenError,
        /// The file of settings, which may name the address.
        file: Option<Arc<str>>,
    },
    /// The system has no descriptor or no thread left for the server.
    System(io::Error),
    /// The capture can't begin.
    Capture(CaptureError),
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { error, file } if error.is_in_use() => {
                write!(
                    f,
                    "{} is in use, perhaps by another USB/IP server; choose another with --listen",
                    error.address
                )?;
                file.iter().try_for_each(|file| write!(f, ", or as listen in {file}"))
            }
            Self::Listen { error, .. } => error.fmt(f),
            Self::Capture(error) => error.fmt(f),
            Self::System(error) => {
                write!(f, "the system refuses what a server needs: {}", reason(error))
            }
        }
    }
}

/// Why an address can't be listened on, and what to do about the reason.
fn explain_listen(
    address: SocketAddr,
    error: &io::Error,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let all = if address.is_ipv6() { "[::]" } else { "0.0.0.0" };
    match error.kind() {
        _ if is_no_such_protocol(error) => write!(
            f,
            "this machine has no such address; {SHOW_ADDRESSES} shows which it has, and {all} \
             means all of them"
        ),
        io::ErrorKind::PermissionDenied if address.port() < FREE_PORTS => write!(
            f,
            "ports below {FREE_PORTS} need root; choose a higher port, such as {PORT}, or run \
             usbferry as root"
        ),
        io::ErrorKind::PermissionDenied => f.write_str(
            "the system forbids listening there, and port numbers are not the reason: look for a \
             sandbox, a firewall or a security policy around usbferry",
        ),
        _ => f.write_str(&reason(error)),
    }
}

/// The first port that needs no root (`PROT_SOCK` of `include/net/sock.h`).
const FREE_PORTS: u16 = 1024;

/// The command that shows a machine's addresses.
const SHOW_ADDRESSES: &str =
    if cfg!(target_os = "linux") { "\"ip address\"" } else { "\"ifconfig\"" };

/// The machine has no address of this kind, or does not know the protocol at all.
pub(super) fn is_no_such_protocol(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || tcp::is_family_missing(error)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, OutOfMemory, PermissionDenied};

    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_the_places_to_write_another() {
        for (file, says) in [
            (None, "choose another with --listen"),
            (Some("a.toml".into()), "choose another with --listen, or as listen in a.toml"),
        ] {
            let address = "127.0.0.1:3240".parse().unwrap();
            let error = ListenError { address, error: AddrInUse.into() };
            let said = StartError::Listen { error, file }.to_string();
            assert!(said.ends_with(says), "{said}");
        }
    }

    #[test]
    fn a_bad_listen_address_gets_advice() {
        for (address, kind, says) in [
            ("192.0.2.1:3240", AddrNotAvailable, "shows which it has, and 0.0.0.0 means all"),
            ("[2001:db8::1]:3240", AddrNotAvailable, "shows which it has, and [::] means all"),
            ("0.0.0.0:80", PermissionDenied, "choose a higher port, such as 3240"),
            ("0.0.0.0:1023", PermissionDenied, "ports below 1024 need root"),
            ("0.0.0.0:1024", PermissionDenied, "a sandbox, a firewall or a security policy"),
            ("[::]:3240", PermissionDenied, "a sandbox, a firewall or a security policy"),
            ("0.0.0.0:3240", OutOfMemory, "out of memory"),
        ] {
            let address = address.parse().unwrap();
            let error = ListenError { address, error: kind.into() };
            let said = StartError::Listen { error, file: None }.to_string();
            assert!(said.starts_with(&format!("can't listen on {address}: ")), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}
