//! The records of a server on a network.
//!
//! Contract: plain data and pure functions.

use std::net::{IpAddr, SocketAddr};

use super::message::{Data, Message, Question, Record, kind, text_of};
use super::name::Name;

/// The seconds for which records with the name of a host hold, and all others (RFC 6762, 10).
const HOST_TTL: u32 = 120;
const OTHER_TTL: u32 = 4500;

/// The longest time for a client that is no part of multicast DNS (RFC 6762, 6.7).
const LEGACY_TTL: u32 = 10;

/// The service of USB/IP servers.
pub(super) fn service() -> Name {
    Name::of(&["_usbip", "_tcp", "local"])
}

/// The name below which all kinds of services are listed (RFC 6763, 9).
fn all_services() -> Name {
    Name::of(&["_services", "_dns-sd", "_udp", "local"])
}

/// The names that a server claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Names {
    /// The server among all USB/IP servers.
    pub(super) instance: Name,
    /// The host of the records, which no other program of this machine has.
    pub(super) host: Name,
}

impl Names {
    /// The names of a server with a title for people; `tag` is random. A title that another server
    /// has gets the tag behind.
    pub(super) fn new(title: &str, tag: u32, is_taken: bool) -> Self {
        let own = if is_taken { format!("{title} ({tag:08x})") } else { title.to_owned() };
        let instance = Name::of(&[&own, "_usbip", "_tcp", "local"]);
        Self { instance, host: Name::of(&[&format!("{title}-{tag:08x}"), "local"]) }
    }
}

/// The facts of a server on a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Zone {
    /// The addresses where the server listens, IPv4 first.
    pub(super) addresses: Vec<IpAddr>,
    /// The port there.
    pub(super) port: u16,
    /// Facts, each as `key=value`.
    pub(super) text: Vec<String>,
}

impl Zone {
    /// Where a server can be reached, of a machine's addresses on a network; `None` for a server
    /// that does not listen there. A network has one port: that of the first listener.
    pub(super) fn of(own: &[IpAddr], listen: &[SocketAddr]) -> Option<Self> {
        let is_reached = |at: &&SocketAddr| own.iter().any(|&address| is_reached_at(at, address));
        let port = listen.iter().find(is_reached)?.port();
        let reached = |address: &IpAddr| {
            let mut same = listen.iter().filter(|at| at.port() == port);
            same.any(|at| is_reached_at(at, *address))
        };
        let addresses = own.iter().copied().filter(reached).collect();
        Some(Self { addresses, port, text: Vec::new() })
    }

    /// The port that another server of this program has at all addresses.
    pub(super) fn port_of(&self, listen: &[SocketAddr]) -> Option<u16> {
        let is_reached = |port: u16, address: IpAddr| {
            listen.iter().any(|at| at.port() == port && is_reached_at(at, address))
        };
        let ports = listen.iter().map(SocketAddr::port);
        let is_everywhere =
            |&port: &u16| self.addresses.iter().all(|&address| is_reached(port, address));
        ports.into_iter().find(is_everywhere)
    }

    /// All records.
    fn records(&self, names: &Names) -> Vec<Record> {
        let Names { instance, host } = names;
        let record = |name: &Name, ttl, data: Data| {
            let is_unique = data.kind() != kind::PTR;
            Record { name: name.clone(), is_unique, ttl, data }
        };
        let data = Data::Service { port: self.port, host: host.clone() };
        let mut all = vec![
            record(&service(), OTHER_TTL, Data::Pointer(instance.clone())),
            record(&all_services(), OTHER_TTL, Data::Pointer(service())),
            record(instance, HOST_TTL, data),
            record(instance, OTHER_TTL, Data::Text(text_of(&self.text))),
        ];
        let addresses = self.addresses.iter();
        all.extend(addresses.map(|&address| record(host, HOST_TTL, Data::Address(address))));
        all
    }

    /// What is announced to everybody.
    pub(super) fn announcement(&self, names: &Names) -> Message {
        let mut answers = self.records(names);
        // Known from the service.
        answers.retain(|record| record.name != all_services());
        Message { is_response: true, answers, ..Message::default() }
    }

    /// What takes the announcement back.
    pub(super) fn goodbye(&self, names: &Names) -> Message {
        let mut message = self.announcement(names);
        message.answers.iter_mut().for_each(|record| record.ttl = 0);
        message
    }

    /// The question whether anybody else has the names.
    pub(super) fn probe(&self, names: &Names) -> Message {
        let question = |name: &Name| Question::new(name.clone(), kind::ANY);
        let questions = vec![question(&names.instance), question(&names.host)];
        let mut wanted = self.records(names);
        wanted.retain(|record| record.is_unique);
        wanted.iter_mut().for_each(|record| record.is_unique = false);
        Message { questions, wanted, ..Message::default() }
    }

    /// The answer to the questions of a message; `None` if there is none, or if the client knows
    /// all of the answer.
    pub(super) fn answer(&self, names: &Names, asked: &Message) -> Option<Message> {
        let all = self.records(names);
        let is_known = |record: &Record| {
            let same = |known: &&Record| known.name == record.name && known.data == record.data;
            asked.answers.iter().find(same).is_some_and(|known| known.ttl >= record.ttl / 2)
        };
        let is_asked = |record: &Record| asked.questions.iter().any(|q| q.asks_for(record));
        let (answers, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_asked);
        let answers: Vec<Record> = answers.into_iter().filter(|record| !is_known(record)).collect();
        let has = |wanted: u16| answers.iter().any(|record| record.data.kind() == wanted);
        let names_service = answers.iter().any(|record| record.name == service());
        // Whatever the client would ask next (RFC 6763, 12).
        let additional = others.into_iter().filter(|record| match record.data {
            Data::Service { .. } | Data::Text(_) => names_service,
            Data::Address(_) => names_service || has(kind::SRV),
            _ => false,
        });
        let additional = additional.collect();
        let message = Message { is_response: true, answers, additional, ..Message::default() };
        (!message.answers.is_empty()).then_some(message)
    }
}

/// An answer for a client that is no part of multicast DNS, as such clients know answers: with
/// their own questions, and for a short time only.
pub(super) fn for_outsider(answer: Message, asked: &Message) -> Message {
    let mut answer = Message { id: asked.id, questions: asked.questions.clone(), ..answer };
    for record in answer.answers.iter_mut().chain(&mut answer.additional) {
        record.ttl = record.ttl.min(LEGACY_TTL);
        record.is_unique = false;
    }
    answer
}

/// Whether a listener takes clients at an address. Loopback addresses are for listeners there only:
/// a server on all addresses is announced to other machines.
fn is_reached_at(listener: &SocketAddr, address: IpAddr) -> bool {
    match (listener.ip(), address) {
        (own, address) if own == address => true,
        (own, address) if !own.is_unspecified() || address.is_loopback() => false,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        // `[::]` takes clients over IPv4, too.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn listeners(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_server_is_announced_only_where_it_listens() {
        let own = ["10.0.0.5", "10.0.0.6", "fd00::5"];
        for (listen, expected, port) in [
            (&["0.0.0.0:3240"][..], &["10.0.0.5", "10.0.0.6"][..], 3240),
            (&["[::]:3241"], &own, 3241),
            (&["10.0.0.6:3240"], &["10.0.0.6"], 3240),
            (&["10.0.0.6:3240", "[::]:3241"], &["10.0.0.6"], 3240),
            (&["[fd00::5]:3240", "127.0.0.1:1"], &["fd00::5"], 3240),
        ] {
            let zone = Zone::of(&addresses(&own), &listeners(listen)).unwrap();
            assert_eq!((zone.addresses, zone.port), (addresses(expected), port), "{listen:?}");
        }
        for elsewhere in [&["10.0.0.7:3240"][..], &["127.0.0.1:3240", "[::1]:3240"], &[]] {
            assert_eq!(Zone::of(&addresses(&own), &listeners(elsewhere)), None);
        }
        let own = addresses(&["127.0.0.1", "::1"]);
        assert_eq!(Zone::of(&own, &listeners(&["0.0.0.0:3240", "[::]:3240"])), None);
        let zone = Zone::of(&own, &listeners(&["127.0.0.1:3240"])).unwrap();
        assert_eq!(zone.addresses, addresses(&["127.0.0.1"]));
    }

    #[test]
    fn a_page_is_announced_where_all_who_find_the_server_reach_the_page() {
        let zone = Zone::of(&addresses(&["10.0.0.5", "fd00::5"]), &listeners(&["[::]:3240"]));
        let zone = zone.unwrap();
        for (listen, port) in [
            (&["[::]:9240"][..], Some(9240)),
            (&["127.0.0.1:9240", "10.0.0.5:9241", "[fd00::5]:9241"], Some(9241)),
            (&["127.0.0.1:9240"], None),
            (&["10.0.0.5:9240"], None),
            (&[], None),
        ] {
            assert_eq!(zone.port_of(&listeners(listen)), port, "{listen:?}");
        }
    }

    fn zone() -> (Zone, Names) {
        let zone = Zone::of(&addresses(&["10.0.0.5", "fd00::5"]), &listeners(&["[::]:3240"]));
        (zone.unwrap(), Names::new("desk", 0x2a, false))
    }

    /// The kinds of the answers and of what comes with the answers.
    fn kinds(asked: &[Question]) -> Option<(Vec<u16>, Vec<u16>)> {
        let (zone, names) = zone();
        let asked = Message { questions: asked.to_vec(), ..Message::default() };
        let kinds = |all: &[Record]| all.iter().map(|record| record.data.kind()).collect();
        let answer = zone.answer(&names, &asked)?;
        Some((kinds(&answer.answers), kinds(&answer.additional)))
    }

    #[test]
    fn an_answer_has_what_is_asked_for_and_what_would_be_asked_next() {
        use kind::{A, AAAA, ANY, PTR, SRV, TXT};
        let Names { instance, host } = zone().1;
        assert_eq!(instance.to_string(), "desk._usbip._tcp.local.");
        assert_eq!(host.to_string(), "desk-0000002a.local.");
        for (name, kind, answers, additional) in [
            (service(), PTR, &[PTR][..], &[SRV, TXT, A, AAAA][..]),
            (service(), ANY, &[PTR], &[SRV, TXT, A, AAAA]),
            (all_services(), PTR, &[PTR], &[]),
            (instance.clone(), SRV, &[SRV], &[A, AAAA]),
            (instance.clone(), TXT, &[TXT], &[]),
            (instance, ANY, &[SRV, TXT], &[A, AAAA]),
            (host.clone(), AAAA, &[AAAA], &[]),
            (host, ANY, &[A, AAAA], &[]),
        ] {
            let found = kinds(&[Question::new(name.clone(), kind)]);
            assert_eq!(found, Some((answers.to_vec(), additional.to_vec())), "{name} {kind}");
        }
        assert_eq!(kinds(&[Question::new(Name::of(&["_http", "_tcp", "local"]), PTR)]), None);
        assert_eq!(kinds(&[Question::new(service(), SRV)]), None);
    }

    #[test]
    fn a_client_that_knows_the_answer_gets_none() {
        let (zone, names) = zone();
        let questions = vec![Question::new(service(), kind::PTR)];
        let mut known = zone.announcement(&names).answers;
        let asked =
            |answers| Message { questions: questions.clone(), answers, ..Message::default() };
        assert_eq!(zone.answer(&names, &asked(known.clone())), None);
        known[0].ttl = OTHER_TTL / 2 - 1;
        assert!(zone.answer(&names, &asked(known)).is_some(), "soon forgotten");
    }

    #[test]
    fn an_outsider_gets_its_own_question_and_a_short_time() {
        let (zone, names) = zone();
        let questions = vec![Question::new(service(), kind::PTR)];
        let asked = Message { id: 77, questions, ..Message::default() };
        let answer = for_outsider(zone.answer(&names, &asked).unwrap(), &asked);
        assert_eq!((answer.id, &answer.questions), (77, &asked.questions));
        let mut all = answer.answers.iter().chain(&answer.additional);
        assert!(all.all(|record| record.ttl <= LEGACY_TTL && !record.is_unique));
    }
}
