//! The look for servers: a question to all networks of this machine, again after a while, and the
//! answers.
//!
//! The question comes from an own port, so each server answers this program alone (RFC 6762, 5.1):
//! there is no cache, and no conflict with the system's responder. A server with a name and no
//! address so far is asked for the rest.
//!
//! An answer may name any host. Loopback addresses count on the loopback only, so that no other
//! machine has this program talk to this machine. Any other address is believed, since a router may
//! pass the announcements of other networks on.
//!
//! Contract: *blocks* for [`SEARCH_TIME`]. Answers are hostile: at most [`EXPORTERS_MAX`] servers
//! of [`LINK_ADDRESSES_MAX`] addresses each are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use log::debug;
use mio::{Events, Interest, Poll, Token};

use super::links::{Role, Way, links};
use super::message::{Data, Message, Question, Record, kind};
use super::name::Name;
use super::zone::service;
use crate::limits::{EXPORTERS_MAX, LINK_ADDRESSES_MAX, MDNS_MESSAGE_LEN_MAX, SEARCH_TIME};
use crate::sorted;
use crate::words::reason;

/// The times of the questions: networks lose messages.
const QUESTIONS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(1000)];

/// A server on the network.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Exporter {
    /// The name among all servers, as the server says: any text.
    pub name: String,
    /// Where clients reach the server: at least one address, IPv4 first.
    pub addresses: Vec<SocketAddr>,
    /// The version of usbferry, as the server says; `None` for another program.
    pub version: Option<String>,
    /// The port of the page and the metrics, if the server says so.
    pub http: Option<u16>,
}

/// The servers that are announced on the networks of this machine, in the order of their names.
/// *Blocks.*
///
/// # Errors
/// The system does not tell the networks, or has no descriptor left.
pub fn search() -> io::Result<Vec<Exporter>> {
    let mut ways: Vec<Way> = Vec::new();
    let links = links()?;
    for (number, link) in links.iter().enumerate() {
        ways.extend(link.ways(number, Role::Ask));
    }
    let mut poll = Poll::new()?;
    for (number, way) in ways.iter_mut().enumerate() {
        poll.registry().register(&mut way.socket, Token(number), Interest::READABLE)?;
    }
    let is_loopback: Vec<bool> =
        links.iter().map(|link| link.addresses().iter().all(IpAddr::is_loopback)).collect();
    let index = links.iter().map(|link| link.index).collect();
    let mut heard = Heard { is_loopback, index, records: BTreeMap::new() };
    let mut buffer = vec![0; MDNS_MESSAGE_LEN_MAX];
    let mut events = Events::with_capacity(16);
    let (begun, mut asked) = (Instant::now(), 0);
    while begun.elapsed() < SEARCH_TIME {
        if QUESTIONS.get(asked).is_some_and(|at| begun.elapsed() >= *at) {
            asked += 1;
            ways.iter().for_each(|way| ask(way, &heard.questions(way.link)));
        }
        let next = QUESTIONS.get(asked).unwrap_or(&SEARCH_TIME);
        match poll.poll(&mut events, Some(next.saturating_sub(begun.elapsed()))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let way = &ways[event.token().0];
            while let Some(len) =
                receive(way, &mut buffer).filter(|_| begun.elapsed() < SEARCH_TIME)
            {
                Message::parse(&buffer[..len]).into_iter().for_each(|m| heard.take(way.link, m));
            }
        }
    }
    Ok(heard.exporters())
}

fn ask(way: &Way, questions: &[Question]) {
    let message = Message { questions: questions.to_vec(), ..Message::default() };
    if let Err(error) = way.socket.send_to(&message.to_bytes(), way.group) {
        debug!("multicast DNS: {}: {}", way.group, reason(&error));
    }
}

/// The length of the next message, if there is a message.
fn receive(way: &Way, buffer: &mut [u8]) -> Option<usize> {
    way.socket.recv_from(buffer).ok().map(|(len, _)| len)
}

/// What the servers have said.
struct Heard {
    /// Whether a network is the loopback, for each network.
    is_loopback: Vec<bool>,
    /// The number of the interface, for each network.
    index: Vec<u32>,
    /// The records of each network, by the bytes of their names.
    records: BTreeMap<(usize, Box<[u8]>), Vec<Record>>,
}

impl Heard {
    fn take(&mut self, link: usize, message: Message) {
        if !message.is_response {
            return;
        }
        let mut records = message.answers;
        records.extend(message.additional);
        for record in records.into_iter().filter(|record| record.ttl > 0) {
            self.keep(link, record);
        }
    }

    fn keep(&mut self, link: usize, record: Record) {
        let is_wanted = match record.data {
            Data::Pointer(ref instance) => {
                record.name == service() && instance.is_below(&service())
            }
            Data::Service { .. } | Data::Text(_) => record.name.is_below(&service()),
            Data::Address(_) => true,
            Data::Other(..) => false,
        };
        // A name, its records and its host's are two names of each server, and the service.
        let is_full = self.records.len() > 2 * EXPORTERS_MAX;
        let key = (link, record.name.bytes().to_ascii_lowercase().into());
        if !is_wanted || (is_full && !self.records.contains_key(&key)) {
            return;
        }
        let most = if record.name == service() { EXPORTERS_MAX } else { LINK_ADDRESSES_MAX };
        let known = self.records.entry(key).or_default();
        if known.len() < most && known.iter().all(|other| other.data != record.data) {
            known.push(record);
        }
    }

    fn of(&self, link: usize, name: &Name) -> &[Record] {
        let key = (link, name.bytes().to_ascii_lowercase().into());
        self.records.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The names of servers on a network.
    fn instances(&self, link: usize) -> impl Iterator<Item = &Name> {
        self.of(link, &service()).iter().filter_map(|record| match &record.data {
            Data::Pointer(instance) => Some(instance),
            _ => None,
        })
    }

    /// The questions that are open on a network: for servers, and for what a few of them lack.
    fn questions(&self, link: usize) -> Vec<Question> {
        /// A few, so that the question fits a packet.
        const MORE_MAX: usize = 8;
        let lacks = |instance: &&Name| self.exporter(link, instance).is_none();
        let more = self.instances(link).filter(lacks).take(MORE_MAX).flat_map(|instance| {
            let host = self.service_of(link, instance).map(|(_, host)| host.clone());
            let addresses = [kind::A, kind::AAAA];
            let of_host = host
                .into_iter()
                .flat_map(move |host| addresses.map(|kind| Question::new(host.clone(), kind)));
            let of_service = [kind::SRV, kind::TXT];
            of_service.map(|kind| Question::new(instance.clone(), kind)).into_iter().chain(of_host)
        });
        std::iter::once(Question::new(service(), kind::PTR)).chain(more).collect()
    }

    fn service_of(&self, link: usize, instance: &Name) -> Option<(u16, &Name)> {
        self.of(link, instance).iter().find_map(|record| match &record.data {
            Data::Service { port, host } => Some((*port, host)),
            _ => None,
        })
    }

    fn exporter(&self, link: usize, instance: &Name) -> Option<Exporter> {
        let (port, host) = self.service_of(link, instance)?;
        let text = self.of(link, instance).iter().find_map(|record| match &record.data {
            Data::Text(text) => Some(text.as_slice()),
            _ => None,
        });
        let value = |key: &str| value_of(text.unwrap_or_default(), key);
        let addresses = self.of(link, host).iter().filter_map(|record| match record.data {
            Data::Address(address) => self.place(link, address, port),
            _ => None,
        });
        let mut addresses: Vec<SocketAddr> = addresses.collect();
        sorted::sort_by(&mut addresses, Ord::cmp);
        (port != 0 && !addresses.is_empty()).then(|| Exporter {
            name: instance.first_label(),
            addresses,
            version: value("version"),
            http: value("http").and_then(|port| port.parse().ok()).filter(|port| *port != 0),
        })
    }

    /// The place behind an address that was heard on a network; `None` for an address that is no
    /// machine's, or that means this machine.
    fn place(&self, link: usize, address: IpAddr, port: u16) -> Option<SocketAddr> {
        let is_no_host = match address {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => {
                v6.is_multicast() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some()
            }
        };
        if is_no_host || (address.is_loopback() && !self.is_loopback[link]) {
            return None;
        }
        Some(match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, port, 0, self.index[link]).into()
            }
            other => (other, port).into(),
        })
    }

    /// All servers. A server on several networks is a single server where it has the same name and
    /// the same address.
    fn exporters(&self) -> Vec<Exporter> {
        let mut all: Vec<Exporter> = Vec::new();
        for link in 0..self.index.len() {
            for found in self.instances(link).filter_map(|name| self.exporter(link, name)) {
                let is_same = |known: &Exporter| {
                    let mut addresses = found.addresses.iter();
                    known.name == found.name
                        && addresses.any(|address| known.addresses.contains(address))
                };
                match all.iter().position(is_same) {
                    Some(at) => merge(&mut all[at].addresses, found.addresses),
                    None if all.len() < EXPORTERS_MAX => all.push(found),
                    None => {}
                }
            }
        }
        sorted::sort_by(&mut all, Ord::cmp);
        all
    }
}

/// Adds addresses to others, in order and each once.
fn merge(addresses: &mut Vec<SocketAddr>, more: Vec<SocketAddr>) {
    addresses.extend(more);
    sorted::sort_by(addresses, Ord::cmp);
    addresses.dedup();
}

/// The value of a key in a record of texts, if the value is text.
fn value_of(text: &[u8], key: &str) -> Option<String> {
    let mut rest = text;
    while let Some((&len, others)) = rest.split_first() {
        let (entry, others) = others.split_at_checked(usize::from(len))?;
        let (known, value) = std::str::from_utf8(entry).ok()?.split_once('=').unwrap_or_default();
        if known.eq_ignore_ascii_case(key) {
            return Some(value.to_owned());
        }
        rest = others;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::message::{tests::record, text_of};
    use super::super::zone::{Names, Zone};
    use super::*;

    /// What was heard on the loopback (0) and on another network (1).
    fn heard() -> Heard {
        Heard { is_loopback: vec![true, false], index: vec![1, 2], records: BTreeMap::new() }
    }

    fn announced(title: &str, addresses: &[&str]) -> Message {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let text = ["txtvers=1", "version=0.1.0", "http=9240"].map(str::to_owned).to_vec();
        let zone = Zone { addresses, port: 3240, text };
        zone.announcement(&Names::new(title, 7, false))
    }

    fn places(all: &[Exporter]) -> Vec<(String, Vec<String>)> {
        let place = |found: &Exporter| {
            (found.name.clone(), found.addresses.iter().map(ToString::to_string).collect())
        };
        all.iter().map(place).collect()
    }

    #[test]
    fn a_server_is_found_once_with_all_its_addresses_and_facts() {
        let mut heard = heard();
        heard.take(1, announced("desk", &["fe80::5", "10.0.0.5"]));
        heard.take(1, announced("desk", &["10.0.0.5", "fd00::5"]));
        heard.take(1, announced("attic", &["10.0.0.6"]));
        let found = heard.exporters();
        let desk = ["10.0.0.5:3240", "[fd00::5]:3240", "[fe80::5%2]:3240"];
        let desk = ("desk".to_owned(), desk.map(str::to_owned).to_vec());
        let attic = ("attic".to_owned(), vec!["10.0.0.6:3240".to_owned()]);
        assert_eq!(places(&found), [attic, desk]);
        assert_eq!((found[0].version.as_deref(), found[0].http), (Some("0.1.0"), Some(9240)));
    }

    #[test]
    fn no_other_machine_has_this_program_talk_to_this_machine() {
        let mut heard = heard();
        let bad =
            ["127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1"];
        heard.take(1, announced("liar", &bad));
        assert_eq!(heard.exporters(), []);
        heard.take(0, announced("own", &["127.0.0.1"]));
        let own = ("own".to_owned(), vec!["127.0.0.1:3240".to_owned()]);
        assert_eq!(places(&heard.exporters()), [own]);
    }

    #[test]
    fn a_name_alone_is_asked_for_the_rest() {
        let mut heard = heard();
        let whole = announced("desk", &["10.0.0.5"]);
        let parts = whole.answers.clone().into_iter();
        let questions = |heard: &Heard| heard.questions(1).len();
        assert_eq!(questions(&heard), 1);
        for (part, open) in parts.zip([3, 5, 5, 1]) {
            heard.take(1, Message { is_response: true, answers: vec![part], ..Message::default() });
            assert_eq!(questions(&heard), open);
        }
        assert_eq!(heard.exporters().len(), 1);
    }

    #[test]
    fn a_liar_fills_no_memory() {
        let mut heard = heard();
        for number in 0..4 * EXPORTERS_MAX {
            let addresses: Vec<String> = (0..32).map(|host| format!("10.0.0.{host}")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            heard.take(1, announced(&format!("desk {number}"), &addresses));
        }
        let found = heard.exporters();
        assert!((1..=EXPORTERS_MAX).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|found| found.addresses.len() <= LINK_ADDRESSES_MAX));
        assert!(heard.records.len() <= 2 * EXPORTERS_MAX + 1);
    }

    #[test]
    fn records_of_other_services_are_passed_over() {
        let mut heard = heard();
        let printer = Name::of(&["printer", "_ipp", "_tcp", "local"]);
        let answers = vec![
            record(&Name::of(&["_ipp", "_tcp", "local"]), Data::Pointer(printer.clone())),
            record(&service(), Data::Pointer(printer.clone())),
            record(&printer, Data::Text(Vec::new())),
        ];
        heard.take(1, Message { is_response: true, answers, ..Message::default() });
        assert!(heard.records.is_empty());
    }

    #[test]
    fn values_are_read_as_far_as_the_text_goes() {
        let text = text_of(&["flag".to_owned(), "A=1".to_owned(), "b=".to_owned()]);
        assert_eq!(value_of(&text, "a").as_deref(), Some("1"));
        assert_eq!(value_of(&text, "b").as_deref(), Some(""));
        assert_eq!(value_of(&text, "c"), None);
        assert_eq!(value_of(b"\x20a=1", "a"), None);
        assert_eq!(value_of(b"\x03a=\xff", "a"), None);
    }
}
