//! A server's address as typed: `HOST` or `HOST:PORT`.
//!
//! Contract: parsing is pure; the look-up of a name *blocks* for the system's time.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::error::{ClientError, Trouble};
use crate::wire::PORT;
use crate::words::is_visible;

/// A server: a name or an address, and a TCP port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// The text of the user.
    typed: String,
    host: String,
    port: u16,
}

impl Server {
    /// Reads `HOST` or `HOST:PORT`; an IPv6 address may have brackets, and has them with a port.
    ///
    /// # Errors
    /// The text names no host, or the port is no port.
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError { host: text.to_owned(), trouble: Trouble::NoHost };
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let (host, port) = match bare.parse::<IpAddr>() {
            Ok(_) => (bare, PORT),
            Err(_) => match text.rsplit_once(':') {
                Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
                None => (text, PORT),
            },
        };
        let host = host.trim_matches(['[', ']']);
        let is_wrong = |c: char| c.is_whitespace() || c == '/' || !is_visible(c);
        let is_host = !host.is_empty() && !host.contains(is_wrong);
        if !is_host || (host.contains(':') && !is_ip6(host)) {
            return Err(wrong());
        }
        Ok(Self { typed: text.to_owned(), host: host.to_owned(), port })
    }

    /// The server at an address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let typed = address.to_string();
        let (host, _) = typed.rsplit_once(':').unwrap_or_default();
        let host = host.trim_matches(['[', ']']).to_owned();
        Self { typed, host, port: address.port() }
    }

    /// The name or the address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The addresses of the server.
    ///
    /// # Errors
    /// The system knows no address of the name.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        found.map(Iterator::collect).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Trouble::NoHost,
            _ => Trouble::Unknown(error),
        })
    }

    /// An error of this server.
    pub(super) fn error(&self, trouble: Trouble) -> ClientError {
        ClientError { host: self.to_string(), trouble }
    }
}

impl fmt::Display for Server {
    /// As typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// An IPv6 address, maybe with the name of an interface: `fe80::1%eth0`.
fn is_ip6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_and_without_ports() {
        for (text, host, port) in [
            ("127.0.0.1", "127.0.0.1", 3240),
            ("127.0.0.1:3241", "127.0.0.1", 3241),
            ("::1", "::1", 3240),
            ("[::1]", "::1", 3240),
            ("[::1]:3241", "::1", 3241),
            ("desk", "desk", 3240),
            ("desk.example:3241", "desk.example", 3241),
            ("[fe80::1%lo]:3241", "fe80::1%lo", 3241),
        ] {
            let server = Server::parse(text).unwrap();
            assert_eq!((server.host(), server.port()), (host, port), "{text}");
            assert_eq!(server.to_string(), text);
        }
        let addresses = Server::parse("[::1]:3241").unwrap().addresses().unwrap();
        assert_eq!(addresses[0].to_string(), "[::1]:3241");
    }

    #[test]
    fn a_server_at_an_address_is_the_server_that_the_address_names() {
        for text in ["127.0.0.1:3240", "[::1]:3241", "[fe80::1%7]:3240"] {
            let server = Server::at(text.parse().unwrap());
            assert_eq!(server, Server::parse(text).unwrap());
            assert_eq!(server.addresses().unwrap(), [text.parse().unwrap()]);
        }
    }

    #[test]
    fn a_text_without_a_host_is_refused() {
        for text in
            ["127.0.0.1:port", "127.0.0.1:65536", "", ":3240", "[]:3240", "a b", "a:b:1", "a\u{7}"]
        {
            let refused = Server::parse(text).unwrap_err().to_string();
            assert!(refused.contains("is no host"), "{text}: {refused}");
            assert!(refused.contains("with a port as in host:3240"), "{refused}");
        }
    }

    #[test]
    fn a_name_that_nobody_has_can_not_be_resolved() {
        for text in ["nobody.invalid", "nobody.invalid:3241"] {
            let server = Server::parse(text).unwrap();
            let refused = server.error(server.addresses().unwrap_err()).to_string();
            assert!(refused.starts_with(&format!("can't resolve {text}: ")), "{refused}");
            assert!(refused.contains("give the address instead"), "{refused}");
        }
    }
}
