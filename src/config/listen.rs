//! Where to listen, as typed: addresses, names, or a port alone.
//!
//! A name is kept as typed and looked up when the server starts, by a function of the caller's, so
//! that nothing here asks the network. IPv6 addresses with a scope (`fe80::1%eth0`) are looked up,
//! too, since only the system knows the numbers of its interfaces.
//!
//! Contract: plain data and pure functions, but for the caller's look-up.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::{Listen, ValueError};
use crate::limits::LISTENERS_MAX;
use crate::wire::PORT;
use crate::words::look_up_reason;

/// A place to listen on, as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenAt {
    host: Host,
    port: u16,
}

/// The part of a [`ListenAt`] before the port.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    /// All addresses of this machine.
    All,
    /// An address.
    Address(IpAddr),
    /// A name, or an IPv6 address with a scope: to be looked up.
    Name(String),
}

impl FromStr for ListenAt {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (host, port) = split(text).ok_or(ValueError::Listen)?;
        let port = port.map_or(Ok(PORT), parse_port)?;
        Ok(Self { host, port })
    }
}

/// Where the web server is to listen, as typed: as for [`ListenAt`], but no port is usual.
///
/// # Errors
/// The text has another form, or no port.
pub fn parse_http(text: &str) -> Result<ListenAt, ValueError> {
    match split(text) {
        Some((_, Some(port))) => {
            parse_port(port).map_err(|error| match error {
                ValueError::Port => error,
                _ => ValueError::Http,
            })?;
            text.parse()
        }
        _ => Err(ValueError::Http),
    }
}

/// Characters of the longest name of a host (RFC 1035, 2.3.4), with a port behind: a longer text
/// is no name to look up, nor to be repeated in a message.
const PLACE_LEN_MAX: usize = 253 + ":65535".len();

/// The host and the text of the port, if any.
fn split(text: &str) -> Option<(Host, Option<&str>)> {
    if text.len() > PLACE_LEN_MAX {
        return None;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port = rest.strip_prefix(':');
        return (rest.is_empty() || port.is_some()).then_some((ipv6(address)?, port));
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Some((ipv6(text)?, None)),
        Some(("" | "*", port)) => Some((Host::All, Some(port))),
        Some((host, port)) => Some((name_or_ipv4(host)?, Some(port))),
        None => Some((name_or_ipv4(text)?, None)),
    }
}

/// An IPv6 address, with or without a scope.
fn ipv6(text: &str) -> Option<Host> {
    let (address, scope) = text.split_once('%').map_or((text, None), |(a, s)| (a, Some(s)));
    let address: Ipv6Addr = address.parse().ok()?;
    match scope {
        None => Some(Host::Address(address.into())),
        Some("") => None,
        Some(_) => Some(Host::Name(text.to_owned())),
    }
}

/// Numbers alone are no name: the system would take `3240` for the address 0.0.12.168.
fn name_or_ipv4(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(Host::Address(address.into()));
    }
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let has_letters = text.contains(|c: char| c.is_ascii_alphabetic());
    (has_letters && text.chars().all(is_of_a_name)).then(|| Host::Name(text.to_owned()))
}

fn parse_port(text: &str) -> Result<u16, ValueError> {
    // The parser of the standard library takes a sign.
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().map_err(|_| ValueError::Port) } else { Err(ValueError::Listen) }
}

/// A name without a known address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unresolved {
    /// The name, or the address with a scope.
    name: String,
    /// The system's reason.
    reason: String,
}

impl std::error::Error for Unresolved {}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, reason } = self;
        let advice = match name.split_once('%') {
            Some((_, interface)) => format!("does this machine have {interface}?"),
            None => "give an address of this machine instead".to_owned(),
        };
        write!(f, "can't resolve {name}, to listen there: {reason}; {advice}")
    }
}

/// The addresses to listen on: those of the places, or without places the loopback addresses.
/// `look_up` gives the addresses of a name and a port.
///
/// # Errors
/// A name has no address.
pub fn addresses(
    places: &[ListenAt],
    look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
) -> Result<Vec<Listen>, Unresolved> {
    if places.is_empty() {
        return Ok(listen(&[
            (Ipv4Addr::LOCALHOST, PORT).into(),
            (Ipv6Addr::LOCALHOST, PORT).into(),
        ]));
    }
    let mut all: Vec<Listen> = Vec::new();
    for place in places {
        for new in listen(&place.addresses(&look_up)?) {
            // Port 0 is another port each time.
            if new.address.port() == 0 || all.iter().all(|known| known.address != new.address) {
                all.push(new);
            }
        }
    }
    all.truncate(LISTENERS_MAX);
    Ok(all)
}

/// Listens on all addresses of one place. Beside an IPv4 address, a machine without IPv6 is no
/// error.
fn listen(addresses: &[SocketAddr]) -> Vec<Listen> {
    let has_ipv4 = addresses.iter().any(SocketAddr::is_ipv4);
    let listen =
        |&address: &SocketAddr| Listen { address, optional: has_ipv4 && address.is_ipv6() };
    addresses.iter().map(listen).collect()
}

impl ListenAt {
    /// The name, if a name was typed.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) if !name.contains('%') => Some(name),
            _ => None,
        }
    }

    fn addresses(
        &self,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    ) -> Result<Vec<SocketAddr>, Unresolved> {
        let port = self.port;
        match &self.host {
            Host::All => {
                Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()])
            }
            Host::Address(address) => Ok(vec![(*address, port).into()]),
            Host::Name(name) => {
                let unresolved = |error: io::Error| {
                    let reason = look_up_reason(&error);
                    Unresolved { name: name.clone(), reason }
                };
                let found = look_up(name, port).map_err(unresolved)?;
                let nothing = || unresolved(io::Error::other("the name has no address"));
                if found.is_empty() { Err(nothing()) } else { Ok(found) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses of a text that names one place, or the words of the refusal. `localhost` has
    /// both loopback addresses, `eth0` the number 7, and no other name is known.
    fn addresses_of(text: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let place: ListenAt = text.parse()?;
        let look_up = |name: &str, port| match name {
            "localhost" => Ok(vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
                (Ipv4Addr::LOCALHOST, port).into(),
            ]),
            "fe80::1%eth0" => Ok(vec![format!("[fe80::1%7]:{port}").parse().unwrap()]),
            _ => Err(io::Error::other("failed to lookup address information: no such name")),
        };
        let all = addresses(&[place], look_up)?;
        Ok(all.iter().map(|listen| listen.address.to_string()).collect())
    }

    #[test]
    fn addresses_names_and_ports_alone_are_places() {
        for (text, expected) in [
            ("127.0.0.1", &["127.0.0.1:3240"][..]),
            ("192.0.2.5:80", &["192.0.2.5:80"]),
            ("127.0.0.1:0", &["127.0.0.1:0"]),
            (":3241", &["0.0.0.0:3241", "[::]:3241"]),
            ("*:3240", &["0.0.0.0:3240", "[::]:3240"]),
            ("localhost", &["127.0.0.1:3240", "[::1]:3240"]),
            ("localhost:3241", &["127.0.0.1:3241", "[::1]:3241"]),
            ("::1", &["[::1]:3240"]),
            ("[::1]", &["[::1]:3240"]),
            ("[::]:3241", &["[::]:3241"]),
            ("[fe80::1%eth0]:3241", &["[fe80::1%7]:3241"]),
            ("[fe80::1%eth0]", &["[fe80::1%7]:3240"]),
            ("fe80::1%eth0", &["[fe80::1%7]:3240"]),
        ] {
            assert_eq!(addresses_of(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn a_web_server_has_a_port_in_any_case() {
        for (text, name) in [
            ("127.0.0.1:9240", None),
            ("[::1]:9240", None),
            (":9240", None),
            ("[fe80::1%eth0]:9240", None),
            ("usb.lan:9240", Some("usb.lan")),
        ] {
            assert_eq!(parse_http(text).unwrap().name(), name, "{text}");
        }
        for wrong in ["", "127.0.0.1", "[::1]", "::1", "localhost", "9240", "usb.lan:http", ":"] {
            let refused = parse_http(wrong).unwrap_err().to_string();
            assert!(refused.contains("127.0.0.1:9240"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_form() {
        let forms = [
            "",
            ":",
            "3240",
            "127.0.0",
            "1:2:3",
            "[::1",
            "[::1]3240",
            "[127.0.0.1]:3240",
            "[]:3240",
            "127.0.0.1:+80",
            "127.0.0.1:",
            "localhost:http",
            "fe80::1%",
            "a b",
            "http://localhost",
            "[::1]:",
        ];
        for wrong in forms {
            let refused = addresses_of(wrong).unwrap_err().to_string();
            assert!(refused.contains("give an address, a name or a port"), "{wrong}: {refused}");
        }
        for high in ["127.0.0.1:65536", ":80000", "[::1]:99999999999"] {
            let error = addresses_of(high).unwrap_err().to_string();
            assert!(error.starts_with("the port is more than 65535"), "{high}: {error}");
            assert_eq!(parse_http(high), Err(ValueError::Port), "{high}");
        }
        let refused = addresses_of("nosuchhost.invalid").unwrap_err().to_string();
        assert!(
            refused.starts_with(
                "can't resolve nosuchhost.invalid, to listen there: no such name; give"
            )
        );
        let refused = addresses_of("[fe80::1%eth9]:3240").unwrap_err().to_string();
        assert!(refused.ends_with("does this machine have eth9?"), "{refused}");
    }

    #[test]
    fn a_machine_without_ipv6_is_no_error_beside_an_ipv4_address() {
        let optional = |text: &str| {
            let look_up = |_: &str, _| unreachable!("nothing here has a name");
            let places: Vec<ListenAt> = text.split(' ').map(|text| text.parse().unwrap()).collect();
            let all = addresses(&places, look_up).unwrap();
            all.iter().map(|listen| listen.optional).collect::<Vec<_>>()
        };
        assert_eq!(optional(":3240"), [false, true]);
        assert_eq!(optional("[::1]"), [false]);
        assert_eq!(optional("127.0.0.1 [::1]"), [false, false], "each was asked for");
    }

    #[test]
    fn an_address_is_listened_on_once_but_any_port_as_often_as_asked() {
        let places = ["127.0.0.1", "127.0.0.1:3240", "127.0.0.1:0", "127.0.0.1:0"];
        let places = places.map(|text| text.parse().unwrap());
        let look_up = |_: &str, _| unreachable!("nothing here has a name");
        assert_eq!(addresses(&places, look_up).unwrap().len(), 3);
    }
}
