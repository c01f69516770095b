//! Whether the addresses of a server are free, and who has them.
//!
//! Contract: reads files.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Finding;
use super::holders::listed;
use super::machine::Machine;
use crate::programs::{OpenFiles, Program};

const CHECK: &str = "port";

/// `TCP_LISTEN` of `include/net/tcp_states.h`, as `/proc/net/tcp` has it.
const LISTENING: &str = "0A";

/// A socket that listens.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Listener {
    address: SocketAddr,
    inode: String,
}

pub(super) fn check(machine: &Machine, listen: &[SocketAddr]) -> Vec<Finding> {
    let listeners = listeners(machine);
    let files = OpenFiles::read(&machine.path("/proc"), |link| link.starts_with("socket:"));
    let found = listen.iter().map(|&address| {
        let in_the_way = listeners.iter().find(|listener| collide(listener.address, address));
        match in_the_way {
            Some(listener) => taken(address, listener, &files),
            None => free(machine, address),
        }
    });
    found.collect()
}

fn taken(address: SocketAddr, listener: &Listener, files: &OpenFiles) -> Finding {
    let programs = files.programs_with(&format!("socket:[{}]", listener.inode));
    if programs.iter().any(|program| program.name == "usbferry") {
        let what = format!("{} is serving on {address} already", listed(&programs));
        return Finding::note(CHECK, what).about(address);
    }
    let who = match programs.as_slice() {
        [] => "a program of another user".to_owned(),
        programs => listed(programs),
    };
    let what = format!("{address} is in use by {who}");
    Finding::problem(CHECK, what).about(address).advise_all(advice(address, &programs))
}

fn advice(address: SocketAddr, programs: &[&Program]) -> Vec<String> {
    let stop = match programs.first() {
        Some(Program { name, pid }) if name == "usbipd" => {
            format!("sudo systemctl stop usbipd, or sudo kill {pid}")
        }
        Some(Program { pid, .. }) => format!("sudo kill {pid}"),
        None => format!("sudo ss -ltnp 'sport = :{}'", address.port()),
    };
    vec![stop, "or serve on another port: --listen ADDR:PORT".to_owned()]
}

/// Nobody listens there; ports below a limit are root's all the same.
fn free(machine: &Machine, address: SocketAddr) -> Finding {
    let limit = machine.text("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let limit: u16 = limit.and_then(|text| text.parse().ok()).unwrap_or(1024);
    if address.port() != 0 && address.port() < limit && !machine.is_root() {
        let what = format!("{address}: ports below {limit} need root");
        let finding = Finding::problem(CHECK, what).about(address);
        return finding.advise("choose a higher port: --listen ADDR:3240");
    }
    Finding::ok(CHECK, format!("{address} is free")).about(address)
}

/// Whether two sockets can't listen side by side. A listener on `[::]` may have IPv4, too.
fn collide(there: SocketAddr, wanted: SocketAddr) -> bool {
    let is_all_of_both = there.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let same_family = there.is_ipv4() == wanted.is_ipv4();
    let any = there.ip().is_unspecified() || wanted.ip().is_unspecified();
    let overlaps = there.ip() == wanted.ip() || any;
    there.port() == wanted.port() && (same_family && overlaps || is_all_of_both)
}

fn listeners(machine: &Machine) -> Vec<Listener> {
    let texts = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| machine.text(file));
    let texts: Vec<String> = texts.into_iter().flatten().collect();
    texts.iter().flat_map(|text| text.lines()).filter_map(listener).collect()
}

/// A line of `/proc/net/tcp` about a listener (`get_tcp4_sock` of `net/ipv4/tcp_ipv4.c`).
fn listener(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = SocketAddr::new(address_of(address)?, port);
    (*state == LISTENING).then(|| Listener { address, inode: (*inode).to_owned() })
}

/// An address as words of 32 bits in this machine's order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
                to.copy_from_slice(&word);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_can_not_listen_side_by_side_collide() {
        for (there, wanted, expected) in [
            ("127.0.0.1:3240", "127.0.0.1:3240", true),
            ("127.0.0.1:3240", "127.0.0.1:3241", false),
            ("127.0.0.1:3240", "127.0.0.2:3240", false),
            ("0.0.0.0:3240", "127.0.0.1:3240", true),
            ("127.0.0.1:3240", "0.0.0.0:3240", true),
            ("[::]:3240", "127.0.0.1:3240", true),
            ("[::1]:3240", "127.0.0.1:3240", false),
            ("[::1]:3240", "[::]:3240", true),
            ("0.0.0.0:3240", "[::1]:3240", false),
        ] {
            let (there, wanted) = (there.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(collide(there, wanted), expected, "{there} {wanted}");
        }
    }

    #[test]
    fn the_kernels_addresses_are_read() {
        let words = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let loopback = words([127, 0, 0, 1]);
        assert_eq!(address_of(&loopback), Some(Ipv4Addr::LOCALHOST.into()));
        let zero = "0".repeat(24);
        let loopback = format!("{zero}{}", words([0, 0, 0, 1]));
        assert_eq!(address_of(&loopback), Some(Ipv6Addr::LOCALHOST.into()));
        for wrong in ["", "7F", "0100007G", "é1234567", "01000 7F"] {
            assert_eq!(address_of(wrong), None, "{wrong}");
        }
    }
}
