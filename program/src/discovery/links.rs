//! The networks of this machine, as far as multicast DNS goes, and a socket for each.
//!
//! Contract: calls of the system that do not block. A network where the system refuses something is
//! left out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use if_addrs::{IfAddr, Interface};
use ipnet::IpNet;
use log::debug;
use mio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

use super::responder::PORT;
use crate::limits::{LINK_ADDRESSES_MAX, LINKS_MAX};
use crate::sorted;
use crate::words::reason;

/// The groups of multicast DNS.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

/// The hops of each message, by which a receiver knows that no router was between.
const HOPS: u32 = 255;

/// A network, by an interface of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    /// The interface's number.
    pub(super) index: u32,
    /// The interface's addresses with their networks: IPv4 first, link-local addresses last.
    pub(super) networks: Vec<IpNet>,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Announcements: messages to the group, at the group's port.
    Announce,
    /// A look: answers to this socket alone.
    Ask,
}

/// A socket on a network.
pub(super) struct Way {
    /// The network's place among the links.
    pub(super) link: usize,
    pub(super) socket: UdpSocket,
    /// Everybody on the network.
    pub(super) group: SocketAddr,
}

/// The networks of this machine, at most [`LINKS_MAX`].
///
/// # Errors
/// The system does not tell.
pub(super) fn links() -> io::Result<Vec<Link>> {
    let mut all: Vec<Link> = Vec::new();
    for interface in if_addrs::get_if_addrs()?.iter().filter(|interface| interface.is_oper_up()) {
        let Some((index, network)) = network_of(interface) else { continue };
        match all.iter().position(|link| link.index == index) {
            Some(at) if all[at].networks.len() < LINK_ADDRESSES_MAX => {
                all[at].networks.push(network);
            }
            Some(_) => {}
            None if all.len() < LINKS_MAX => all.push(Link { index, networks: vec![network] }),
            None => debug!("multicast DNS: no room for {}", interface.name),
        }
    }
    for link in &mut all {
        sorted::sort_by_key(&mut link.networks, |net| (is_link_local(&net.addr()), net.addr()));
    }
    sorted::sort_by_key(&mut all, |link| link.index);
    Ok(all)
}

fn network_of(interface: &Interface) -> Option<(u32, IpNet)> {
    let (address, prefix) = match &interface.addr {
        IfAddr::V4(own) => (own.ip.into(), own.prefixlen),
        IfAddr::V6(own) => (own.ip.into(), own.prefixlen),
    };
    Some((interface.index?, IpNet::new(address, prefix).ok()?))
}

/// Whether an address is of use on its own network alone.
const fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

impl Link {
    /// The addresses by which other machines of the network reach this machine. A link-local
    /// address says too little to a client on several networks, and counts only where no other
    /// address is.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let all = self.networks.iter().map(IpNet::addr);
        let (local, others): (Vec<_>, Vec<_>) = all.partition(is_link_local);
        if others.is_empty() { local } else { others }
    }

    /// Whether an address is that of a machine on the network.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The sockets of the network, one for each protocol, but none for IPv6 on the loopback, which
    /// has no route for groups.
    pub(super) fn ways(&self, link: usize, role: Role) -> Vec<Way> {
        let addresses = || self.networks.iter().map(IpNet::addr);
        let v4 = addresses().find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let has_v6 = addresses().any(|address| address.is_ipv6() && !address.is_loopback());
        let group_v6 = SocketAddrV6::new(GROUP_V6, PORT, 0, self.index);
        let opened = [
            v4.map(|own| (open_v4(own, role), (GROUP_V4, PORT).into())),
            has_v6.then(|| (open_v6(group_v6, role), group_v6.into())),
        ];
        let ways = opened.into_iter().flatten().filter_map(|(socket, group)| match socket {
            Ok(socket) => Some(Way { link, socket: UdpSocket::from_std(socket.into()), group }),
            Err(error) => {
                debug!("multicast DNS: interface {}, {group}: {}", self.index, reason(&error));
                None
            }
        });
        ways.collect()
    }
}

fn open(domain: Domain, role: Role) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if role == Role::Announce {
        // Other programs of this machine take part in multicast DNS, too.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

/// Bound to the group, so that messages to this machine alone go to the system's responder.
fn open_v4(own: Ipv4Addr, role: Role) -> io::Result<Socket> {
    let socket = open(Domain::IPV4, role)?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_ttl_v4(HOPS)?;
    socket.set_ttl_v4(HOPS)?;
    if role == Role::Ask {
        socket.bind(&SocketAddr::from((own, 0)).into())?;
        return Ok(socket);
    }
    socket.join_multicast_v4(&GROUP_V4, &own)?;
    // Messages of other networks have sockets of their own.
    #[cfg(target_os = "linux")]
    socket.set_multicast_all_v4(false)?;
    socket.bind(&SocketAddr::from((GROUP_V4, PORT)).into())?;
    Ok(socket)
}

/// Bound to the group of one network by the number of the interface in the address.
fn open_v6(group: SocketAddrV6, role: Role) -> io::Result<Socket> {
    let socket = open(Domain::IPV6, role)?;
    socket.set_only_v6(true)?;
    socket.set_multicast_if_v6(group.scope_id())?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_unicast_hops_v6(HOPS)?;
    if role == Role::Ask {
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        return Ok(socket);
    }
    socket.join_multicast_v6(&GROUP_V6, group.scope_id())?;
    socket.bind(&SocketAddr::from(group).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_on_which_messages_go() {
        let links = links().unwrap();
        let loopback = links.iter().find(|link| link.has(Ipv4Addr::LOCALHOST.into())).unwrap();
        assert!(loopback.addresses().contains(&Ipv4Addr::LOCALHOST.into()));
        assert!(!loopback.has([10, 0, 0, 1].into()));
        for role in [Role::Announce, Role::Ask] {
            assert_eq!(loopback.ways(0, role).len(), 1);
        }
    }

    #[test]
    fn addresses_for_one_network_only_count_where_no_other_is() {
        let link = |texts: &[&str]| {
            let networks = texts.iter().map(|text| text.parse().unwrap()).collect();
            let link = Link { index: 2, networks };
            link.addresses().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(link(&["10.0.0.5/24", "fe80::1/64"]), ["10.0.0.5"]);
        assert_eq!(link(&["fe80::1/64"]), ["fe80::1"]);
    }
}
