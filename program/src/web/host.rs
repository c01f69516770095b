//! Whom a request is for. A stranger's web page can have the stranger's own name resolve to this
//! machine, and would then read the answers (DNS rebinding); the request still has the stranger's
//! name as its Host. So a Host must be an address, which no name server gives away, or a name of
//! this server: `localhost`, or the name of `--http`.
//!
//! Contract: pure.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The names of a server.
pub(super) struct Hosts {
    /// The name of `--http`, if the user gave a name.
    own: Option<String>,
}

impl Hosts {
    pub(super) fn new(own: Option<&str>) -> Self {
        Self { own: own.map(str::to_owned) }
    }

    /// Whether a Host, with or without a port, is this server.
    pub(super) fn contain(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().is_ok();
        }
        let is_own = |own: &String| name.eq_ignore_ascii_case(own);
        name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.own.as_ref().is_some_and(is_own)
    }
}

/// A Host without its port; `None` where the port is no number.
fn without_port(host: &str) -> Option<&str> {
    match host.rsplit_once(':') {
        // Within the brackets of an IPv6 address.
        Some((_, rest)) if rest.ends_with(']') => Some(host),
        Some((name, port)) => port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name),
        None => Some(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name_of_the_server() {
        let hosts = Hosts::new(Some("usb.lan"));
        for host in [
            "127.0.0.1",
            "127.0.0.1:9240",
            "192.168.1.5:80",
            "[::1]",
            "[::1]:9240",
            "localhost",
            "LocalHost:9240",
            "usb.lan",
            "USB.lan:9240",
            "localhost:",
        ] {
            assert!(hosts.contain(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9240",
            "localhost.evil.example",
            "usb.lan.evil",
            "127.0.0.1.evil.example",
            "::1",
            "[::1",
            "::1]",
            "[evil]",
            "localhost:9240:1",
            "localhost:evil",
            "2130706433",
            "0x7f.1",
            "127.1",
        ] {
            assert!(!hosts.contain(host), "{host}");
        }
        assert!(!Hosts::new(None).contain("usb.lan"));
    }
}
