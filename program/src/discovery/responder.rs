//! When a server says what of itself (RFC 6762, 8 to 10): it claims its names, announces itself,
//! answers questions, and takes another name where its own is taken.
//!
//! An outlet is a socket on a network. All outlets have the same names, and each has its zone.
//!
//! Contract: pure, with the time and random numbers of the caller. However many messages come, an
//! outlet sends at most an answer to all in [`ANSWER_INTERVAL`], and all outlets together
//! [`MDNS_ANSWERS_PER_SECOND`] answers to single clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::message::{Data, Message};
use super::zone::{Names, Zone, for_outsider};
use crate::limits::{MDNS_ANSWERS_PER_SECOND, NAMES_PER_MINUTE};

/// The port of all who take part in multicast DNS.
pub(super) const PORT: u16 = 5353;

/// Questions whether anybody else has the names, and the time between (RFC 6762, 8.1).
const PROBES: u8 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// Milliseconds of the random rest before the first question, at most (RFC 6762, 8.1).
const PROBE_REST: u64 = 250;

/// Announcements, and the time between.
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_secs(1);

/// The least time between two answers to all.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);

/// The least and the longest wait before an answer that other servers give, too.
const ANSWER_REST: (u64, u64) = (20, 120);

/// The time for which a client that asks for an answer of its own is taken to have the last answer
/// to all: a quarter of the shortest time of a record.
const RECENTLY: Duration = Duration::from_secs(30);

/// Questions that wait together for an answer to all: a server has five records, and several
/// clients ask for the same.
const QUESTIONS_WAITING_MAX: usize = 16;

/// A window in which names may change a few times.
const NAMES_WINDOW: Duration = Duration::from_secs(60);

/// A message to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outgoing {
    pub(super) outlet: usize,
    /// The client; `None` for all.
    pub(super) to: Option<SocketAddr>,
    pub(super) message: Message,
}

/// How far a server is with its names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// This number of questions was sent, whether anybody else has the names.
    Probing(u8),
    /// This number of announcements was sent.
    Announcing(u8),
    /// All announcements were sent.
    Announced,
}

/// A server's answers on all networks.
pub(super) struct Responder {
    title: String,
    names: Names,
    random: Box<dyn FnMut() -> u32 + Send>,
    phase: Phase,
    /// When the next question or announcement is due.
    next: Option<Instant>,
    outlets: Vec<Outlet>,
    /// The start of the current second, and the answers to single clients in the second.
    answered: (Instant, u32),
    /// The start of the current window, and the names taken in the window.
    renamed: (Instant, u32),
}

struct Outlet {
    zone: Zone,
    /// Questions that get an answer to all, and when.
    asked: Option<(Instant, Message)>,
    /// When the last message went to all.
    told: Option<Instant>,
}

impl Responder {
    /// A server without outlets, with a title for people.
    pub(super) fn new(
        title: &str,
        mut random: impl FnMut() -> u32 + Send + 'static,
        now: Instant,
    ) -> Self {
        Self {
            title: title.to_owned(),
            names: Names::new(title, random(), false),
            random: Box::new(random),
            phase: Phase::Announced,
            next: None,
            outlets: Vec::new(),
            answered: (now, 0),
            renamed: (now, 0),
        }
    }

    /// The name among all USB/IP servers.
    pub(super) fn name(&self) -> String {
        self.names.instance.first_label()
    }

    /// Gives the server other outlets. Their networks may have other owners of the names.
    pub(super) fn set_outlets(&mut self, zones: Vec<Zone>, now: Instant) {
        let outlet = |zone| Outlet { zone, asked: None, told: None };
        self.outlets = zones.into_iter().map(outlet).collect();
        self.probe(now);
    }

    /// Has the outlets say something else, in their order, at the same addresses.
    pub(super) fn set_text(&mut self, zones: Vec<Zone>, now: Instant) {
        self.outlets.iter_mut().zip(zones).for_each(|(outlet, zone)| outlet.zone = zone);
        if !matches!(self.phase, Phase::Probing(_)) {
            (self.phase, self.next) = (Phase::Announcing(0), Some(now));
        }
    }

    /// Begins to claim the names, after a random rest: other servers may have started, too.
    fn probe(&mut self, now: Instant) {
        let rest = u64::from((self.random)()) % PROBE_REST;
        self.phase = Phase::Probing(0);
        self.next = Some(now + Duration::from_millis(rest));
    }

    /// When [`Self::due`] is to be called again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asked = self.outlets.iter().filter_map(|outlet| Some(outlet.asked.as_ref()?.0));
        asked.chain(self.next).min()
    }

    /// The messages that are due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut all = self.step(now);
        let names = &self.names;
        for (number, outlet) in self.outlets.iter_mut().enumerate() {
            let Some((_, asked)) = outlet.asked.take_if(|(at, _)| *at <= now) else { continue };
            if let Some(message) = outlet.zone.answer(names, &asked) {
                outlet.told = Some(now);
                all.push(Outgoing { outlet: number, to: None, message });
            }
        }
        all
    }

    /// The next question for the names, or the next announcement, if due.
    fn step(&mut self, now: Instant) -> Vec<Outgoing> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        match self.phase {
            Phase::Probing(sent) if sent < PROBES => {
                (self.phase, self.next) = (Phase::Probing(sent + 1), Some(now + PROBE_INTERVAL));
                self.to_all(Zone::probe)
            }
            Phase::Announcing(ANNOUNCEMENTS..) | Phase::Announced => {
                (self.phase, self.next) = (Phase::Announced, None);
                Vec::new()
            }
            Phase::Probing(_) | Phase::Announcing(_) => {
                let sent = if let Phase::Announcing(sent) = self.phase { sent } else { 0 };
                self.phase = Phase::Announcing(sent + 1);
                self.next = Some(now + ANNOUNCEMENT_INTERVAL);
                self.outlets.iter_mut().for_each(|outlet| outlet.told = Some(now));
                self.to_all(Zone::announcement)
            }
        }
    }

    fn to_all(&self, message: impl Fn(&Zone, &Names) -> Message) -> Vec<Outgoing> {
        let outgoing = |(outlet, Outlet { zone, .. }): (usize, &Outlet)| Outgoing {
            outlet,
            to: None,
            message: message(zone, &self.names),
        };
        self.outlets.iter().enumerate().map(outgoing).collect()
    }

    /// The messages that take all announcements back (RFC 6762, 10.1).
    pub(super) fn goodbye(&self) -> Vec<Outgoing> {
        match self.phase {
            Phase::Probing(_) => Vec::new(),
            _ => self.to_all(Zone::goodbye),
        }
    }

    /// Takes a message that has come to an outlet, and returns messages to send at once.
    pub(super) fn take(
        &mut self,
        number: usize,
        from: SocketAddr,
        message: Message,
        now: Instant,
    ) -> Vec<Outgoing> {
        if self.is_claimed_by(&message) {
            return self.rename(now);
        }
        if message.is_response || matches!(self.phase, Phase::Probing(_)) {
            return Vec::new();
        }
        self.answer(number, from, message, now).into_iter().collect()
    }

    /// Whether another server has the name, or wants the name at the same time and goes before. The
    /// server's own messages come back with the server's own host.
    fn is_claimed_by(&self, message: &Message) -> bool {
        let is_probing = matches!(self.phase, Phase::Probing(_));
        let records = match (message.is_response, is_probing) {
            (true, _) => message.answers.iter().chain(&message.additional),
            (false, true) => message.wanted.iter().chain(&[]),
            (false, false) => return false,
        };
        let mut records = records.filter(|record| record.name == self.names.instance);
        records.any(|record| match &record.data {
            Data::Service { host, .. } if *host == self.names.host || record.ttl == 0 => false,
            Data::Service { .. } if message.is_response => true,
            theirs @ Data::Service { .. } => self.goes_behind(theirs),
            _ => false,
        })
    }

    /// Whether another server's wanted record goes before this server's (RFC 6762, 8.2).
    fn goes_behind(&self, theirs: &Data) -> bool {
        let ours = self.outlets.iter().map(|outlet| {
            let (port, host) = (outlet.zone.port, self.names.host.clone());
            Data::Service { port, host }.bytes()
        });
        ours.min().is_some_and(|ours| ours < theirs.bytes())
    }

    /// Takes another name, and begins anew. A server whose names are taken again and again keeps
    /// silent for the rest of the window.
    fn rename(&mut self, now: Instant) -> Vec<Outgoing> {
        let goodbye = self.goodbye();
        self.names = Names::new(&self.title, (self.random)(), true);
        self.probe(now);
        if now >= self.renamed.0 + NAMES_WINDOW {
            self.renamed = (now, 0);
        }
        self.renamed.1 += 1;
        if self.renamed.1 > NAMES_PER_MINUTE {
            self.next = Some(self.renamed.0 + NAMES_WINDOW);
        }
        goodbye
    }

    /// Answers questions: at once to a client alone, or later to all.
    fn answer(
        &mut self,
        number: usize,
        from: SocketAddr,
        asked: Message,
        now: Instant,
    ) -> Option<Outgoing> {
        let outlet = self.outlets.get_mut(number)?;
        let answer = outlet.zone.answer(&self.names, &asked)?;
        let is_recent = outlet.told.is_some_and(|told| now < told + RECENTLY);
        let for_client = asked.questions.iter().all(|question| question.to_client);
        let is_outsider = from.port() != PORT;
        // Another server that wants a name is answered at once, and so that all hear.
        let is_probe = !asked.wanted.is_empty();
        if is_outsider || (for_client && is_recent && !is_probe) {
            let message = if is_outsider { for_outsider(answer, &asked) } else { answer };
            let outgoing = Outgoing { outlet: number, to: Some(from), message };
            return self.has_room(now).then_some(outgoing);
        }
        let (least, most) = if is_probe { (0, 1) } else { ANSWER_REST };
        let rest = least + u64::from((self.random)()) % (most - least);
        let not_before = outlet.told.filter(|_| !is_probe).map(|told| told + ANSWER_INTERVAL);
        let at = (now + Duration::from_millis(rest)).max(not_before.unwrap_or(now));
        outlet.ask(at, asked);
        None
    }

    /// Whether another answer may go to a single client; counts the answer.
    fn has_room(&mut self, now: Instant) -> bool {
        if now >= self.answered.0 + Duration::from_secs(1) {
            self.answered = (now, 0);
        }
        self.answered.1 += 1;
        self.answered.1 <= MDNS_ANSWERS_PER_SECOND
    }
}

impl Outlet {
    /// Notes questions for an answer to all. Questions of several clients get one answer, so none
    /// of them counts as known to everybody.
    fn ask(&mut self, at: Instant, asked: Message) {
        match &mut self.asked {
            None => self.asked = Some((at, asked)),
            Some((due, waiting)) => {
                *due = at.min(*due);
                waiting.answers.clear();
                for question in asked.questions {
                    let has_room = waiting.questions.len() < QUESTIONS_WAITING_MAX;
                    if has_room && !waiting.questions.contains(&question) {
                        waiting.questions.push(question);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::message::{Question, kind};
    use super::super::name::Name;
    use super::super::zone::service;
    use super::*;

    const MEMBER: &str = "10.0.0.9:5353";
    const OUTSIDER: &str = "10.0.0.9:40000";

    /// A server on a network, and the time of the test.
    struct Server {
        responder: Responder,
        now: Instant,
    }

    impl Server {
        fn new(title: &str, seed: u32) -> Self {
            let (mut next, now) = (seed, Instant::now());
            let random = move || {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                next
            };
            let mut responder = Responder::new(title, random, now);
            responder.set_outlets(vec![zone()], now);
            Self { responder, now }
        }

        fn announced(title: &str) -> Self {
            let mut server = Self::new(title, 1);
            while server.responder.deadline().is_some() {
                server.next();
            }
            server.wait(Duration::from_secs(3600));
            server
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        /// The messages at the next deadline.
        fn next(&mut self) -> Vec<Outgoing> {
            self.now = self.responder.deadline().expect("something is due");
            self.responder.due(self.now)
        }

        fn take(&mut self, from: &str, message: Message) -> Vec<Outgoing> {
            self.responder.take(0, from.parse().unwrap(), message, self.now)
        }
    }

    fn zone() -> Zone {
        let own: IpAddr = [10, 0, 0, 5].into();
        Zone::of(&[own], &[(own, 3240).into()]).unwrap()
    }

    fn question() -> Message {
        let questions = vec![Question::new(service(), kind::PTR)];
        Message { questions, ..Message::default() }
    }

    fn messages(all: Vec<Outgoing>) -> Vec<Message> {
        all.into_iter().map(|outgoing| outgoing.message).collect()
    }

    #[test]
    fn a_server_asks_three_times_for_its_names_and_is_announced_twice() {
        let mut server = Server::new("desk", 1);
        let started = server.now;
        let mut sent = Vec::new();
        while server.responder.deadline().is_some() {
            for outgoing in server.next() {
                assert_eq!((outgoing.outlet, outgoing.to), (0, None));
                sent.push((outgoing.message, server.now - started));
            }
        }
        let names = &server.responder.names;
        let (probe, announcement) = (zone().probe(names), zone().announcement(names));
        let expected = [&probe, &probe, &probe, &announcement, &announcement];
        assert_eq!(sent.iter().map(|(message, _)| message).collect::<Vec<_>>(), expected);
        let between = |at: usize| sent[at + 1].1 - sent[at].1;
        assert_eq!(between(2), PROBE_INTERVAL);
        assert_eq!(between(3), ANNOUNCEMENT_INTERVAL);
    }

    #[test]
    fn a_member_is_answered_after_a_rest_together_with_all_others() {
        let mut server = Server::announced("desk");
        assert_eq!(server.take(MEMBER, question()), []);
        assert_eq!(server.take("10.0.0.8:5353", question()), []);
        let asked = server.now;
        let answers = server.next();
        assert!((20..120).contains(&(server.now - asked).as_millis()));
        assert_eq!((answers.len(), answers[0].to), (1, None));
        // The next answer rests longer.
        server.take(MEMBER, question());
        let answered = server.now;
        assert_eq!(server.next().len(), 1);
        assert!(server.now - answered >= ANSWER_INTERVAL);
    }

    #[test]
    fn an_outsider_is_answered_alone_and_a_flood_of_questions_is_not() {
        let mut server = Server::announced("desk");
        let answers = server.take(OUTSIDER, question());
        assert_eq!(answers[0].to, Some(OUTSIDER.parse().unwrap()));
        assert_eq!(answers[0].message.questions, question().questions);
        let mut flood = (0..1000).map(|_| server.take(OUTSIDER, question()).len());
        assert_eq!(flood.by_ref().sum::<usize>(), MDNS_ANSWERS_PER_SECOND as usize - 1);
        server.wait(Duration::from_secs(1));
        assert_eq!(server.take(OUTSIDER, question()).len(), 1);
    }

    #[test]
    fn a_member_may_ask_for_an_answer_of_its_own() {
        let mut server = Server::announced("desk");
        let mut asked = question();
        asked.questions[0].to_client = true;
        assert_eq!(server.take(MEMBER, asked.clone()), [], "nobody has heard for long");
        server.next();
        let answers = server.take(MEMBER, asked);
        assert_eq!(answers[0].to, Some(MEMBER.parse().unwrap()));
        assert!(answers[0].message.questions.is_empty());
    }

    #[test]
    fn a_server_whose_name_is_taken_takes_another() {
        let mut first = Server::announced("desk");
        let mut second = Server::new("desk", 2);
        let [probe] = &messages(second.next())[..] else { panic!("a probe") };
        assert_eq!(first.take(MEMBER, probe.clone()), []);
        let defence = messages(first.next());
        assert_eq!(second.take(MEMBER, defence[0].clone()), []);
        let renamed = second.responder.name();
        assert!(renamed.starts_with("desk (") && renamed.len() == "desk (00000000)".len());
        while second.responder.deadline().is_some() {
            for message in messages(second.next()) {
                assert_eq!(first.take(MEMBER, message), []);
            }
        }
        assert_eq!(first.responder.name(), "desk");
    }

    #[test]
    fn of_two_servers_that_start_together_one_takes_another_name() {
        let mut servers = [Server::new("desk", 1), Server::new("desk", 2)];
        let probes = servers.each_mut().map(|server| messages(server.next()).remove(0));
        servers[0].take(MEMBER, probes[1].clone());
        servers[1].take(MEMBER, probes[0].clone());
        let mut names = servers.map(|server| server.responder.name());
        names.sort();
        assert_eq!(names[0], "desk");
        assert!(names[1].starts_with("desk ("), "{}", names[1]);
    }

    #[test]
    fn a_server_does_not_fight_with_itself() {
        let mut server = Server::new("desk", 1);
        while server.responder.deadline().is_some() {
            for message in messages(server.next()) {
                server.take("10.0.0.5:5353", message);
            }
        }
        assert_eq!(server.responder.name(), "desk");
    }

    #[test]
    fn a_peer_that_claims_every_name_silences_the_server_for_a_while() {
        let mut server = Server::announced("desk");
        for _ in 0..100 {
            let host = Name::of(&["thief", "local"]);
            let mut claim = zone().announcement(&server.responder.names);
            claim.answers.iter_mut().for_each(|record| {
                if let Data::Service { host: theirs, .. } = &mut record.data {
                    *theirs = host.clone();
                }
            });
            server.take(MEMBER, claim);
        }
        assert!(server.responder.deadline().unwrap() > server.now + Duration::from_secs(50));
    }

    #[test]
    fn a_server_that_ends_takes_its_records_back() {
        assert_eq!(Server::new("desk", 1).responder.goodbye(), [], "nothing was announced");
        let server = Server::announced("desk");
        let goodbye = messages(server.responder.goodbye());
        assert!(goodbye[0].answers.iter().all(|record| record.ttl == 0));
        assert_eq!(goodbye[0].answers.len(), 4);
    }

    #[test]
    fn other_facts_are_announced_under_the_same_names() {
        let mut server = Server::announced("desk");
        let text = vec!["exports=7".to_owned()];
        server.responder.set_text(vec![Zone { text, ..zone() }], server.now);
        let announced = messages(server.next());
        let texts = announced[0].answers.iter().map(|record| &record.data);
        let is_new = |data: &&Data| **data == Data::Text(b"\x09exports=7".to_vec());
        assert_eq!(texts.filter(is_new).count(), 1);
        assert_eq!(server.responder.name(), "desk");
    }
}
